"""Reading the extensions of a certificate, of which any may be hostile."""

from __future__ import annotations

from typing import Final, TypeVar

from cryptography import x509

from shaken_plugin.core.constraints import ENHANCED_OID, ClaimConstraints, ConstraintsError
from shaken_plugin.core.constraints import OID as CONSTRAINTS_OID
from shaken_plugin.core.tnauthlist import OID, TnAuthList, TnAuthListError
from shaken_plugin.errors import FailureCode, VerificationFailure

UNREADABLE: Final = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What the library raises for extensions that it cannot parse."""

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def malformed(detail: str) -> VerificationFailure:
    """CERTIFICATE_MALFORMED, to be raised."""
    return VerificationFailure(FailureCode.CERTIFICATE_MALFORMED, detail)


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """One extension's value, None where absent.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED, where an extension cannot be parsed.
    """
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except UNREADABLE as exc:
        raise malformed(f"an extension cannot be parsed: {exc}") from exc


def _extension_der(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    """The value of an extension that the library does not know, None where absent.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED, where an extension cannot be parsed.
    """
    try:
        return certificate.extensions.get_extension_for_oid(oid).value.public_bytes()
    except x509.ExtensionNotFound:
        return None
    except UNREADABLE as exc:
        raise malformed(f"an extension cannot be parsed: {exc}") from exc


def tnauthlist_of(certificate: x509.Certificate) -> TnAuthList | None:
    """The certificate's TNAuthList, None where it has none.

    Raises:
        VerificationFailure: CERTIFICATE_NO_TNAUTHLIST where it cannot be read, or CERTIFICATE_MALFORMED.
    """
    data = _extension_der(certificate, OID)
    try:
        return None if data is None else TnAuthList.from_der(data)
    except TnAuthListError as exc:
        raise VerificationFailure(FailureCode.CERTIFICATE_NO_TNAUTHLIST, f"TNAuthList: {exc}") from exc


def constraints_of(certificate: x509.Certificate) -> ClaimConstraints | None:
    """The certificate's JWT claim constraints of either kind, None where none hold.

    Raises:
        VerificationFailure: CERTIFICATE_CONSTRAINTS, or CERTIFICATE_MALFORMED.
    """
    plain, enhanced = _extension_der(certificate, CONSTRAINTS_OID), _extension_der(certificate, ENHANCED_OID)
    # RFC 9118 §6: "Certificate issuers MUST NOT include both"; which of the two would hold is anybody's guess.
    if plain is not None and enhanced is not None:
        raise VerificationFailure(FailureCode.CERTIFICATE_CONSTRAINTS, "both kinds of JWT claim constraints")
    data = plain if enhanced is None else enhanced
    try:
        return None if data is None else ClaimConstraints.from_der(data, enhanced=enhanced is not None)
    except ConstraintsError as exc:
        raise VerificationFailure(FailureCode.CERTIFICATE_CONSTRAINTS, f"JWT claim constraints: {exc}") from exc
