"""Certificate revocation lists: parsed, checked, and reduced to what a call needs (RFC 5280 §5, §6.3).

The list of the STI-PA is indirect: it speaks of certificates of many issuers (ATIS-1000080, CRL
distribution points with cRLIssuer). An entry is therefore (issuer, serial number), never the serial
number alone, and an entry without certificateIssuer has that of the entry before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from shaken_plugin.core.extensions import UNREADABLE, extension
from shaken_plugin.core.names import canonical_name
from shaken_plugin.core.signers import NoSigner, check_signer
from shaken_plugin.errors import RevocationListError, RevocationListUntrusted

MAX_LENGTH: Final = 16 * 1024 * 1024
"""Longest list, octets: 125,000 entries that each name their issuer, which take two seconds to read."""

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_KNOWN = (x509.IssuingDistributionPoint, x509.AuthorityKeyIdentifier, x509.CRLNumber)
_KNOWN_OF_ENTRY = (x509.CertificateIssuer, x509.CRLReason, x509.InvalidityDate)


class RevocationMode(Enum):
    """What the revocation lists have to say in a verification."""

    OFF = "off"
    """They are not asked."""
    SOFT = "soft"
    """A revoked certificate fails; trouble with the lists is an alarm, and the call goes on."""
    HARD = "hard"
    """Trouble with the lists fails the verification, too."""


@dataclass(frozen=True, slots=True, eq=False)
class RevocationList:
    """A list whose signature was checked.

    ``issuer`` and the issuers in ``revoked`` are `names.canonical_name`; times in POSIX seconds.
    """

    issuer: bytes
    number: int
    this_update: float
    next_update: float
    revoked: frozenset[tuple[bytes, int]]

    def trouble(self, now: float) -> str | None:
        """Why the list cannot be relied on at ``now``, or None.

        What it names stays revoked all the same; what it does not name may be revoked by now.
        """
        if now > self.next_update:
            return f"the revocation list is out of date since {_time(self.next_update)}"
        if now < self.this_update:
            return f"the revocation list is of the future, {_time(self.this_update)}: is the clock right?"
        return None

    def check_replaces(self, other: RevocationList) -> None:
        """Refuse to go back: an old list, sent again, would pardon what was revoked since.

        Raises:
            RevocationListError: ``other``, of the same issuer, is newer.
        """
        if self.issuer == other.issuer and (self.this_update, self.number) < (other.this_update, other.number):
            raise RevocationListError(
                f"the list of {_time(self.this_update)}, number {self.number}, is older than the one at hand"
            )


def parse_crl(
    document: bytes, signers: Sequence[x509.Certificate], now: float, *, chain: Sequence[x509.Certificate] = ()
) -> RevocationList:
    """Read a complete list, direct or indirect, in PEM or DER.

    Whether it is fresh is not judged here but by `RevocationList.trouble`, again and again.

    Args:
        document: as fetched.
        signers: from the settings: those who sign such lists, or CA certificates above them.
        now: POSIX seconds.
        chain: certificates that lead from the list's signer to one of ``signers``, signer first.

    Raises:
        RevocationListUntrusted: it is not signed by one who may.
        RevocationListError: it cannot be read, covers only a part of the certificates, or has a
            critical extension that is not known.
    """
    crl = _load(document)
    try:
        is_indirect, number = _scope(crl.extensions)
        if crl.next_update_utc is None:
            # RFC 5280 §5.1.2.5: "Conforming CRL issuers MUST include the nextUpdate field".
            raise RevocationListError("it does not say when the next one comes (nextUpdate)")
        issuer = canonical_name(crl.issuer)
        check_signer(signers, chain, now, lambda certificate: _signed_by(crl, issuer, certificate))
        return RevocationList(
            issuer,
            number,
            crl.last_update_utc.timestamp(),
            crl.next_update_utc.timestamp(),
            frozenset(_entries(crl, issuer, is_indirect=is_indirect)),
        )
    except UNREADABLE as exc:
        raise RevocationListError(f"not a revocation list: {exc}") from exc
    except NoSigner as exc:
        raise RevocationListUntrusted(str(exc)) from exc


def _load(document: bytes) -> x509.CertificateRevocationList:
    if len(document) > MAX_LENGTH:
        raise RevocationListError(f"{len(document)} octets, at most {MAX_LENGTH}")
    try:
        if document[:1] == b"\x30":
            return x509.load_der_x509_crl(document)
        return x509.load_pem_x509_crl(document)
    except (ValueError, TypeError, x509.InvalidVersion) as exc:
        raise RevocationListError(f"not a revocation list: {exc}") from exc


def _scope(extensions: x509.Extensions) -> tuple[bool, int]:
    """Whether the list is indirect, and its number; only a complete list is of use."""
    is_indirect, number = False, 0
    for one in extensions:
        if isinstance(one.value, x509.DeltaCRLIndicator):
            raise RevocationListError("a delta list, which holds only changes; a complete one is needed")
        # RFC 5280 §5.2: with a critical extension that it cannot process, "the application MUST
        # NOT use that CRL to determine the status of certificates".
        if one.critical and not isinstance(one.value, _KNOWN):
            raise RevocationListError(f"the critical extension {one.oid.dotted_string} is not known")
        if isinstance(one.value, x509.CRLNumber):
            number = one.value.crl_number
        elif isinstance(one.value, x509.IssuingDistributionPoint):
            point, is_indirect = one.value, one.value.indirect_crl
            if (
                point.only_contains_user_certs
                or point.only_contains_ca_certs
                or point.only_contains_attribute_certs
                or point.only_some_reasons
            ):
                raise RevocationListError("it covers only some certificates or reasons (issuingDistributionPoint)")
    return is_indirect, number


def _signed_by(crl: x509.CertificateRevocationList, issuer: bytes, certificate: x509.Certificate) -> bool:
    """Whether this certificate's holder issued the list (RFC 5280 §6.3.3 (f), (g))."""
    if canonical_name(certificate.subject) != issuer:
        return False
    usage = extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        return False
    return isinstance(crl.signature_hash_algorithm, _HASHES) and crl.is_signature_valid(
        certificate.public_key()  # type: ignore[arg-type]  # another kind of key is a TypeError
    )


def _entries(crl: x509.CertificateRevocationList, issuer: bytes, *, is_indirect: bool) -> Iterator[tuple[bytes, int]]:
    """Every entry as (issuer, serial number)."""
    for entry in crl:
        for one in entry.extensions:
            # RFC 5280 §5.3: the same for entries.
            if one.critical and not isinstance(one.value, _KNOWN_OF_ENTRY):
                raise RevocationListError(f"an entry's critical extension {one.oid.dotted_string} is not known")
            if isinstance(one.value, x509.CertificateIssuer):
                if not is_indirect:
                    raise RevocationListError("entries of other issuers, and it does not say that it is indirect")
                # RFC 5280 §5.3.3: "If this extension is not present on subsequent entries …, the
                # certificate issuer for the entry is the same as that for the preceding entry".
                issuer = _issuer(one.value)
        yield issuer, entry.serial_number


def _issuer(value: x509.CertificateIssuer) -> bytes:
    names = value.get_values_for_type(x509.DirectoryName)
    if len(names) != 1:
        raise RevocationListError("an entry's certificateIssuer is not one name")
    return canonical_name(names[0])


def _time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
