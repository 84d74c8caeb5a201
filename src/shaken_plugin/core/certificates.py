"""STI certificates: reading a chain, and its path to a configured trust anchor.

The path itself (RFC 5280 §6: signatures, names, basic constraints, path length, validity) is
validated by ``cryptography``; what makes a certificate an STI certificate is checked here:
a P-256 key, digitalSignature, not a CA, and a TNAuthList (ATIS-1000080 §6.4.1, RFC 8226).
P-384 and RSA issuers occur and are accepted; the PASSporT itself is always ES256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.core.tnauthlist import OID, TnAuthList, TnAuthListError
from shaken_plugin.errors import FailureCode, VerificationFailure

MAX_DOCUMENT_LENGTH: Final = 65_536
"""Longest certificate document, octets; the longest real one seen is below 8 KiB."""

MAX_CHAIN: Final = 8
"""Most certificates of a document that are looked at; real chains have one to three."""

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def parse_chain(document: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of an x5u document, signer first: PEM (with or without comments) or DER.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED.
    """
    if len(document) > MAX_DOCUMENT_LENGTH:
        raise _malformed(f"a document of {len(document)} octets, at most {MAX_DOCUMENT_LENGTH}")
    try:
        if document[:2] == b"\x30\x82":  # a SEQUENCE of 256 to 65,535 octets; "0" alone may begin a comment
            chain = [x509.load_der_x509_certificate(document)]
        else:
            chain = x509.load_pem_x509_certificates(document)
    except (ValueError, TypeError, x509.InvalidVersion) as exc:
        raise _malformed(str(exc)) from exc
    if len(chain) > MAX_CHAIN:
        raise _malformed(f"{len(chain)} certificates, at most {MAX_CHAIN}")
    return tuple(chain)


def parse_anchor_file(document: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of an operator's own PEM file, however many.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(document))
    except (ValueError, TypeError, x509.InvalidVersion) as exc:
        raise _malformed(str(exc)) from exc


def _malformed(detail: str) -> VerificationFailure:
    return VerificationFailure(FailureCode.CERTIFICATE_MALFORMED, detail)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """One extension's value, None where absent.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED, where an extension cannot be parsed.
    """
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise _malformed(f"an extension cannot be parsed: {exc}") from exc


def tnauthlist_of(certificate: x509.Certificate) -> TnAuthList:
    """The certificate's TNAuthList.

    Raises:
        VerificationFailure: CERTIFICATE_NO_TNAUTHLIST, or CERTIFICATE_MALFORMED.
    """
    try:
        extension = certificate.extensions.get_extension_for_oid(OID)
    except x509.ExtensionNotFound:
        raise VerificationFailure(FailureCode.CERTIFICATE_NO_TNAUTHLIST, "no TNAuthList") from None
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise _malformed(f"an extension cannot be parsed: {exc}") from exc
    try:
        return TnAuthList.from_der(extension.value.public_bytes())
    except TnAuthListError as exc:
        raise VerificationFailure(FailureCode.CERTIFICATE_NO_TNAUTHLIST, f"TNAuthList: {exc}") from exc


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

    @classmethod
    def load(cls, certificate: x509.Certificate) -> SigningCertificate:
        """Check what makes a certificate fit to sign PASSporTs.

        Raises:
            VerificationFailure: CERTIFICATE_MALFORMED, CERTIFICATE_KEY_USAGE or
                CERTIFICATE_NO_TNAUTHLIST.
        """
        try:
            key = certificate.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise _malformed(f"public key: {exc}") from exc
        # ATIS-1000080 §6.4.1 and RFC 8225 §4.2: ES256 needs a P-256 key.
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise VerificationFailure(FailureCode.CERTIFICATE_KEY_USAGE, "the key is not on P-256")
        usage = _extension(certificate, x509.KeyUsage)
        if usage is None or not usage.digital_signature:
            raise VerificationFailure(FailureCode.CERTIFICATE_KEY_USAGE, "no digitalSignature in its key usage")
        constraints = _extension(certificate, x509.BasicConstraints)
        if constraints is not None and constraints.ca:
            raise VerificationFailure(FailureCode.CERTIFICATE_KEY_USAGE, "it is a CA certificate")
        return cls(
            certificate,
            key,
            tnauthlist_of(certificate),
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
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
    result can be kept and asked again without validating signatures anew.
    """

    signer: SigningCertificate
    not_before: float
    not_after: float

    def valid_at(self, moment: float) -> bool:
        """Whether every certificate of the path is valid at ``moment``."""
        return self.not_before <= moment <= self.not_after


def _must_sign_certificates(
    _policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    # RFC 5280 §6.1.4 (n): "If a key usage extension is present, verify that the keyCertSign
    # bit is set."
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an issuer without keyCertSign")


# The library's defaults are those of the web PKI and refuse STI certificates, which have no
# subjectAltName and often a critical certificatePolicies.
_ISSUERS = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _must_sign_certificates)
    .may_be_present(x509.CertificatePolicies, verification.Criticality.AGNOSTIC, None)
)
_SIGNERS = verification.ExtensionPolicy.permit_all().may_be_present(
    x509.CertificatePolicies, verification.Criticality.AGNOSTIC, None
)


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
            constraints = _extension(certificate, x509.BasicConstraints)
            if constraints is None or not constraints.ca:
                raise _malformed(f"{certificate.subject.rfc4514_string()} is not a CA certificate")
        self._anchors = tuple(certificates)
        self._store = verification.Store(list(certificates))
        self.count = len(certificates)

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
        verifier = (
            verification.PolicyBuilder()
            .store(self._store)
            .time(datetime.fromtimestamp(now, UTC))
            .max_chain_depth(MAX_CHAIN)
            .extension_policies(ca_policy=_ISSUERS, ee_policy=_SIGNERS)
            .build_client_verifier()
        )
        try:
            path = verifier.verify(chain[0], list(chain[1:])).chain
        except (verification.VerificationError, ValueError, TypeError, x509.UnsupportedGeneralNameType) as exc:
            raise _why_untrusted(chain, self._anchors, now, exc) from exc
        return TrustedPath(
            signer,
            max(certificate.not_valid_before_utc.timestamp() for certificate in path),
            min(certificate.not_valid_after_utc.timestamp() for certificate in path),
        )


def _why_untrusted(
    chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: float, exc: Exception
) -> VerificationFailure:
    """The library says only that no path was found; an expired issuer or anchor is named here."""
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
    why = str(exc).partition("(encountered")[0].strip()
    if "exhausted" in why:
        why = f"no trust anchor above {name}"
    return VerificationFailure(FailureCode.CERTIFICATE_UNTRUSTED, why)


def _until(moment: float) -> str:
    return f"valid until {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _from(moment: float) -> str:
    return f"valid from {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
