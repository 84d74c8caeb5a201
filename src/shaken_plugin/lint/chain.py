"""Lints of a certificate among others: its issuer in the document, the roots, the clock, our own key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from shaken_plugin.lint.certificate import Certificate
from shaken_plugin.lint.der import DerError
from shaken_plugin.lint.model import V003, Edition, Lint, Scope, Severity
from shaken_plugin.lint.revocation import Crl
from shaken_plugin.ports import Signer

MARGIN_SHARE: Final = 1 / 3
"""Part of a certificate's life before whose beginning it should have been renewed; nearly half of the
real ones live no longer than a week, so that no number of days would fit all."""


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the operator knows besides.

    Args:
        now: POSIX seconds.
        margin: seconds before its end at which a certificate should have been renewed; None for a
            third of its life.
        anchors: the configured roots; None where they are not known.
        public_key: SubjectPublicKeyInfo of our private key; None where it is not given.
        spc: our Service Provider Code; None where it is not given.
        signer: our private key, which the self-test signs with; None where it is not given.
        crl: the revocation list; None where it is not given.
    """

    now: float
    margin: float | None = None
    anchors: tuple[Certificate, ...] | None = None
    public_key: bytes | None = None
    spc: str | None = None
    signer: Signer | None = None
    crl: Crl | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A certificate in its document.

    ``sharing`` are the names of the other documents that have another end-entity certificate with
    the same key, the own name included.
    """

    certificate: Certificate
    index: int
    document: Sequence[Certificate | DerError]
    expected: Expectations
    is_chain: bool = True
    sharing: Sequence[str] = field(default=())

    @property
    def issuer(self) -> Certificate | None:
        """The next certificate of the document, which should be the issuer."""
        following = self.document[self.index + 1] if self.index + 1 < len(self.document) else None
        return following if isinstance(following, Certificate) else None

    @property
    def path(self) -> list[Certificate]:
        """From this certificate up, as far as each one is signed by the next."""
        path = [self.certificate]
        for above in self.document[self.index + 1 :]:
            if not isinstance(above, Certificate) or not path[-1].is_signed_by(above.spki):
                break
            path.append(above)
        return path


def _pair(place: Place) -> tuple[Certificate, Certificate]:
    assert place.issuer is not None
    return place.certificate, place.issuer


def _order(place: Place) -> str | None:
    child, issuer = _pair(place)
    if child.issuer.key == issuer.subject.key:
        return None
    return f"it is followed by {issuer.subject}, but was issued by {child.issuer}"


def _signature(place: Place) -> str | None:
    child, issuer = _pair(place)
    if child.issuer.key != issuer.subject.key or child.is_signed_by(issuer.spki):
        return None
    return f"its signature is not of the key of {issuer.subject}, which follows"


def _key_identifiers(place: Place) -> str | None:
    child, issuer = _pair(place)
    wanted, found = child.authority_key_identifier, issuer.subject_key_identifier
    if wanted is None or found is None or wanted == found:
        return None
    return f"its AuthorityKeyIdentifier is {wanted.hex()}, the next certificate's SubjectKeyIdentifier {found.hex()}"


def _outlives_issuer(place: Place) -> str | None:
    child, issuer = _pair(place)
    if child.issuer.key != issuer.subject.key or child.not_after <= issuer.not_after:
        return None
    return f"it ends on {_when(child.not_after)}, its issuer on {_when(issuer.not_after)}"


def _root(place: Place) -> str | None:
    for certificate in place.path:
        for anchor in place.expected.anchors or ():
            if certificate.issuer.key == anchor.subject.key and certificate.is_signed_by(anchor.spki):
                return None
    return f"no configured root is above {place.path[-1].issuer}"


def _expired(place: Place) -> str | None:
    end = place.certificate.not_after
    return f"it ended on {_when(end)}" if place.expected.now > end else None


def _not_yet(place: Place) -> str | None:
    start = place.certificate.not_before
    return f"it begins on {_when(start)}" if place.expected.now < start else None


def _renewal(place: Place) -> str | None:
    start, end, now = place.certificate.not_before, place.certificate.not_after, place.expected.now
    margin = place.expected.margin
    if margin is None:
        margin = (end - start) * MARGIN_SHARE
    if not end - margin <= now <= end:
        return None
    return f"it ends on {_when(end)}, in {(end - now) / 86_400:.1f} days"


def _key_mismatch(place: Place) -> str | None:
    return None if place.certificate.spki == place.expected.public_key else "the private key is not this certificate's"


def _spc_mismatch(place: Place) -> str | None:
    found = place.certificate.spc
    return None if found == place.expected.spc else f"its SPC is {found or 'absent'}, not {place.expected.spc}"


def _key_reused(place: Place) -> str | None:
    return f"its key is also that of another certificate in {', '.join(place.sharing)}" if place.sharing else None


def _revoked(place: Place) -> str | None:
    crl, serial = place.expected.crl, place.certificate.serial
    assert crl is not None
    if not crl.revokes(place.certificate):
        return None
    return f"{crl.name} names serial number {serial:x} of {place.certificate.issuer}: it is revoked"


def _crl_issuer(place: Place) -> str | None:
    crl = place.expected.crl
    assert crl is not None
    named = crl.foreign_to(place.certificate)
    return None if named is None else f"its revocation list is issued by {named}, and {crl.name} by somebody else"


def _when(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def key_holders(documents: Mapping[str, Sequence[Certificate | DerError]]) -> dict[bytes, dict[bytes, str]]:
    """Which end-entity certificates have a key: key → certificate → the first document it stands in."""
    found: dict[bytes, dict[bytes, str]] = {}
    for name, certificates in documents.items():
        for one in certificates:
            if isinstance(one, Certificate) and not one.is_ca:
                found.setdefault(one.spki, {}).setdefault(one.whole, name)
    return found


def _is_signer(place: Place) -> bool:
    """Whether this is the certificate that signs calls: the first end-entity one of its document."""
    earlier = place.document[: place.index]
    return not place.certificate.is_ca and all(isinstance(one, DerError) or one.is_ca for one in earlier)


_ANY: Final = Scope[Place]("every certificate", lambda _: True)
_FOLLOWED: Final = Scope[Place](
    "in a chain, all but the last", lambda place: place.is_chain and place.issuer is not None
)
_SIGNER: Final = Scope[Place]("the signer", _is_signer)
_ANCHORED: Final = Scope[Place]("where roots are configured", lambda place: place.expected.anchors is not None)
_KEYED: Final = Scope[Place]("with --key", lambda place: place.expected.public_key is not None)
_CODED: Final = Scope[Place]("with --spc", lambda place: place.expected.spc is not None)
_LISTED: Final = Scope[Place](
    "with --crl, every certificate but roots",
    lambda place: place.expected.crl is not None and not place.certificate.is_root,
)
_END_ENTITY: Final = Scope[Place]("end-entity certificates", lambda place: not place.certificate.is_ca)

ERROR, WARN = Severity.ERROR, Severity.WARN
_RFC5280: Final = Edition("RFC 5280")
_PRACTICE: Final = Edition("operating practice")
_ALWAYS_V003: Final = Edition(V003.document)

CHAIN_LINTS: Final = (
    Lint("e_chain_order", ERROR, Edition("RFC 8555 §9.1"), "", _FOLLOWED, _order,
         "let each certificate be followed by its issuer's"),
    Lint("e_chain_signature", ERROR, _RFC5280, "§6.1.3", _FOLLOWED, _signature,
         "put the issuer's certificate there whose key signed this one"),
    Lint("e_chain_key_identifier", ERROR, _ALWAYS_V003, "", _FOLLOWED, _key_identifiers,
         "put the issuer's certificate there that has this key identifier"),
    Lint("w_chain_outlives_issuer", WARN, _RFC5280, "§6.1.3", _FOLLOWED, _outlives_issuer,
         "renew it before its issuer ends; no path is valid after that"),
    Lint("e_chain_root", ERROR, _RFC5280, "§6.1", _SIGNER & _ANCHORED, _root,
         "append the missing issuers, or ask whether the root is on the trust list"),
    Lint("e_validity_expired", ERROR, _RFC5280, "§4.1.2.5", _ANY, _expired,
         "renew it"),
    Lint("e_validity_not_yet", ERROR, _RFC5280, "§4.1.2.5", _ANY, _not_yet,
         "do not use it before; or look at the clock"),
    Lint("w_validity_renewal", WARN, _PRACTICE, "", _ANY, _renewal,
         "renew it now, while there is time to repair what goes wrong"),
    Lint("e_key_mismatch", ERROR, _PRACTICE, "", _SIGNER & _KEYED, _key_mismatch,
         "use the key that the certificate was requested with"),
    Lint("w_key_reused", WARN, _PRACTICE, "", _END_ENTITY, _key_reused,
         "make a new key for every certificate; one leak would else concern them all"),
    Lint("e_spc_mismatch", ERROR, _ALWAYS_V003, "", _SIGNER & _CODED, _spc_mismatch,
         "request the certificate with the SPC token of this account"),
    Lint("e_crl_revoked", ERROR, _RFC5280, "§6.3.3 (i)", _LISTED, _revoked,
         "stop signing with it, request another with a new key, and ask who revoked it and why"),
    Lint("e_crl_issuer", ERROR, _RFC5280, "§6.3.3 (b)", _LISTED, _crl_issuer,
         "give the list that its CRLDistributionPoints names; if that is this one, have it issued anew"),
)  # fmt: skip
