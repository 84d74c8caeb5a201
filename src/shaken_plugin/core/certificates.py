"""STI certificates: reading a chain, and its path to a configured trust anchor.

The path itself (RFC 5280 §6: signatures, names, basic constraints, path length, validity, no
unknown critical extension) is validated by ``cryptography``; what makes a certificate an STI
certificate is checked here: a P-256 key, digitalSignature, not a CA, and a TNAuthList
(ATIS-1000080 §6.4.1, RFC 8226) that lies in those of the delegates above it (RFC 9060).
P-384 and RSA issuers occur and are accepted; the PASSporT itself is always ES256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from shaken_plugin.core.constraints import ClaimConstraints
from shaken_plugin.core.extensions import UNREADABLE, constraints_of, extension, malformed, tnauthlist_of
from shaken_plugin.core.issuers import MAX_CHAIN, NOT_VERIFIED, KnownIssuers, validity, verifier
from shaken_plugin.core.names import canonical_name
from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.core.tnauthlist import TnAuthList
from shaken_plugin.core.waysup import MAX_RSA_BITS, key_is_bounded, way_up
from shaken_plugin.errors import FailureCode, VerificationFailure

MAX_DOCUMENT_LENGTH: Final = 65_536
"""Longest certificate document, octets; the longest real one seen is below 8 KiB."""


def parse_chain(document: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of an x5u document, signer first: PEM (with or without comments) or DER.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED.
    """
    if len(document) > MAX_DOCUMENT_LENGTH:
        raise malformed(f"a document of {len(document)} octets, at most {MAX_DOCUMENT_LENGTH}")
    try:
        if document[:2] == b"\x30\x82":  # a SEQUENCE of 256 to 65,535 octets; "0" alone may begin a comment
            chain = [x509.load_der_x509_certificate(document)]
        else:
            chain = x509.load_pem_x509_certificates(document)
    except (ValueError, TypeError, x509.InvalidVersion) as exc:
        raise malformed(str(exc)) from exc
    if len(chain) > MAX_CHAIN:
        raise malformed(f"{len(chain)} certificates, at most {MAX_CHAIN}")
    return tuple(chain)


def parse_anchor_file(document: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of an operator's own PEM file, however many.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(document))
    except (ValueError, TypeError, x509.InvalidVersion) as exc:
        raise malformed(str(exc)) from exc


@dataclass(frozen=True, slots=True, eq=False)
class SigningCertificate:
    """The leaf of a chain, with what a STIR service needs of it. Not yet trusted.

    ``not_before`` and ``not_after`` in POSIX seconds, both inclusive (RFC 5280 §4.1.2.5).
    """

    certificate: x509.Certificate
    public_key: ec.EllipticCurvePublicKey
    tnauthlist: TnAuthList
    not_before: float
    not_after: float
    constraints: ClaimConstraints | None = None

    @classmethod
    def load(cls, certificate: x509.Certificate) -> SigningCertificate:
        """Check what makes a certificate fit to sign PASSporTs.

        Raises:
            VerificationFailure: CERTIFICATE_MALFORMED, CERTIFICATE_KEY_USAGE,
                CERTIFICATE_NO_TNAUTHLIST or CERTIFICATE_CONSTRAINTS.
        """
        try:
            key = certificate.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise malformed(f"public key: {exc}") from exc
        # ATIS-1000080 §6.4.1 and RFC 8225 §4.2: ES256 needs a P-256 key.
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise VerificationFailure(FailureCode.CERTIFICATE_KEY_USAGE, "the key is not on P-256")
        usage = extension(certificate, x509.KeyUsage)
        if usage is None or not usage.digital_signature:
            raise VerificationFailure(FailureCode.CERTIFICATE_KEY_USAGE, "no digitalSignature in its key usage")
        constraints = extension(certificate, x509.BasicConstraints)
        if constraints is not None and constraints.ca:
            raise VerificationFailure(FailureCode.CERTIFICATE_KEY_USAGE, "it is a CA certificate")
        tnauthlist = tnauthlist_of(certificate)
        if tnauthlist is None:
            raise VerificationFailure(FailureCode.CERTIFICATE_NO_TNAUTHLIST, "no TNAuthList")
        return cls(
            certificate,
            key,
            tnauthlist,
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
            constraints_of(certificate),
        )

    def valid_at(self, moment: float) -> bool:
        """Whether ``moment`` lies in the validity period."""
        return self.not_before <= moment <= self.not_after

    @property
    def spc(self) -> str | None:
        """The Service Provider Code, where the TNAuthList has exactly one."""
        return self.tnauthlist.spcs[0] if len(self.tnauthlist.spcs) == 1 else None

    def authorises(self, orig: Party) -> bool:
        """Whether the TNAuthList lets this signer speak for ``orig``.

        An SPC stands for numbers that a verifier cannot list (RFC 8226 §9), and SHAKEN accepts
        it for every caller (ATIS-1000080: leafs carry one SPC and no number).
        """
        if self.tnauthlist.spcs:
            return True
        return isinstance(orig, TelephoneNumber) and self.tnauthlist.lists(orig.digits)


@dataclass(frozen=True, slots=True, eq=False)
class TrustedPath:
    """A signer whose chain leads to an anchor.

    ``not_before`` and ``not_after`` bound the time at which the whole path holds, so that the
    result can be kept and asked again without validating signatures anew. ``serials`` names each
    certificate of it as revocation lists do: `names.canonical_name` of its issuer, serial number.
    """

    signer: SigningCertificate
    not_before: float
    not_after: float
    serials: tuple[tuple[bytes, int], ...]

    def valid_at(self, moment: float) -> bool:
        """Whether every certificate of the path is valid at ``moment``."""
        return self.not_before <= moment <= self.not_after


class PathValidator(Protocol):
    """Whoever knows which roots are believed now: `TrustAnchors`, or a list that changes."""

    @property
    def count(self) -> int:
        """How many roots that are."""

    @property
    def trouble(self) -> tuple[str, ...]:
        """What keeps roots from being taken over, for people."""

    def validate(self, chain: Sequence[x509.Certificate], now: float) -> TrustedPath:
        """See `TrustAnchors.validate`."""


class TrustAnchors:
    """The roots a verifier believes: from configuration, never from a call.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED, for an anchor that is no CA certificate.
        ValueError: no anchor at all.
    """

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        if not certificates:
            raise ValueError("no trust anchor")
        for certificate in certificates:
            try:
                name = certificate.subject.rfc4514_string()
            except UNREADABLE as exc:  # a name is parsed only when it is asked for
                raise malformed(f"an anchor's subject: {exc}") from exc
            constraints = extension(certificate, x509.BasicConstraints)
            if constraints is None or not constraints.ca:
                raise malformed(f"{name} is not a CA certificate")
        self._anchors = tuple(certificates)
        self._store = verification.Store(list(certificates))
        self._issuers = KnownIssuers(self._anchors)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._anchors)

    @property
    def trouble(self) -> tuple[str, ...]:
        """See `PathValidator`: these never change."""
        return ()

    def validate(self, chain: Sequence[x509.Certificate], now: float) -> TrustedPath:
        """The path from ``chain[0]`` to an anchor, valid at ``now`` (RFC 5280 §6).

        Raises:
            VerificationFailure: one of the CERTIFICATE_* codes.
        """
        signer = SigningCertificate.load(chain[0])
        if now > signer.not_after:
            raise VerificationFailure(FailureCode.CERTIFICATE_EXPIRED, _until(signer.not_after))
        if now < signer.not_before:
            raise VerificationFailure(FailureCode.CERTIFICATE_NOT_YET_VALID, _from(signer.not_before))
        path = self._issuers.path_below(chain, now) or self.path(chain, now)
        _check_delegation(path)
        try:
            serials = tuple((canonical_name(certificate.issuer), certificate.serial_number) for certificate in path)
        except (ValueError, TypeError) as exc:
            raise malformed(f"an issuer's name: {exc}") from exc
        return TrustedPath(signer, *validity(path), serials)

    def path(self, chain: Sequence[x509.Certificate], now: float) -> list[x509.Certificate]:
        """The certificates from ``chain[0]`` to an anchor, whatever ``chain[0]`` is meant for.

        Raises:
            VerificationFailure: CERTIFICATE_EXPIRED, CERTIFICATE_NOT_YET_VALID or CERTIFICATE_UNTRUSTED.
        """
        above = way_up(chain, self._anchors, now)
        if above is None:
            raise _why_untrusted(chain, self._anchors, now)
        try:
            path = verifier(self._store, now).verify(chain[0], above).chain
        except NOT_VERIFIED as exc:
            why = str(exc).partition("(encountered")[0].strip()
            raise _why_untrusted(chain, self._anchors, now, why) from exc
        self._issuers.remember(path)
        return path


def _check_delegation(path: Sequence[x509.Certificate]) -> None:
    """From the anchor down, no TNAuthList may reach beyond the last one above it.

    Raises:
        VerificationFailure: CERTIFICATE_NOT_ENCOMPASSED; CERTIFICATE_UNTRUSTED, where a delegate's
            child does not name its parent's key.
    """
    limit: TnAuthList | None = None
    parent = path[-1]
    for child in reversed(path):
        tnauthlist = tnauthlist_of(child)
        if limit is not None:
            serial = f"serial number {child.serial_number:x}"
            # RFC 9060 §7: a child's key identifier of its authority MUST be its parent's own, by which
            # the parent is found. The library does not compare them.
            named = _key_id(child, x509.AuthorityKeyIdentifier)
            if named is None or named != _key_id(parent, x509.SubjectKeyIdentifier):
                raise VerificationFailure(FailureCode.CERTIFICATE_UNTRUSTED, f"{serial} does not name its parent's key")
            # RFC 9060 §4: the scope of a child certificate MUST be encompassed by its parent's.
            if tnauthlist is not None and not limit.encompasses(tnauthlist):
                raise VerificationFailure(FailureCode.CERTIFICATE_NOT_ENCOMPASSED, f"TNAuthList of {serial}")
        limit, parent = tnauthlist or limit, child


def _key_id(
    certificate: x509.Certificate, kind: type[x509.AuthorityKeyIdentifier | x509.SubjectKeyIdentifier]
) -> bytes | None:
    found = extension(certificate, kind)
    return found.key_identifier if found else None


def _why_untrusted(
    chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: float, why: str | None = None
) -> VerificationFailure:
    """What keeps a chain from an anchor: ``why``, but an expired issuer or anchor is named first."""
    try:
        top = chain[-1].issuer
        name = top.rfc4514_string()
    except (ValueError, TypeError):  # a name is parsed only when it is asked for
        top, name = None, "a name that cannot be read"
    above = [("an issuer", certificate) for certificate in chain[1:]]
    above += [("the trust anchor", anchor) for anchor in anchors if anchor.subject == top]
    for which, certificate in above:
        if now > (end := certificate.not_valid_after_utc.timestamp()):
            return VerificationFailure(FailureCode.CERTIFICATE_EXPIRED, f"{which}: {_until(end)}")
        if now < (start := certificate.not_valid_before_utc.timestamp()):
            return VerificationFailure(FailureCode.CERTIFICATE_NOT_YET_VALID, f"{which}: {_from(start)}")
    if why is None and not all(map(key_is_bounded, chain[1:])):
        why = f"an issuer's key is none of P-256, P-384 and RSA up to {MAX_RSA_BITS} bits"
    why = why or f"no trust anchor above {name}"
    return VerificationFailure(FailureCode.CERTIFICATE_UNTRUSTED, why)


def _until(moment: float) -> str:
    return f"valid until {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _from(moment: float) -> str:
    return f"valid from {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
