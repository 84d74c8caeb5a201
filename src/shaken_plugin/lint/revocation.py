"""Lints of a revocation list, and what it says of a certificate (RFC 5280 §5, §6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from shaken_plugin.core.crl import RevocationList, parse_crl
from shaken_plugin.core.extensions import UNREADABLE, extension
from shaken_plugin.core.names import canonical_name
from shaken_plugin.errors import RevocationListError, RevocationListUntrusted, VerificationFailure
from shaken_plugin.lint.certificate import Certificate
from shaken_plugin.lint.model import Edition, Lint, Scope, Severity


@dataclass(frozen=True, slots=True)
class Crl:
    """A revocation list that the operator gave, or why a verifier would not take it.

    ``now`` in POSIX seconds.
    """

    name: str
    now: float
    found: RevocationList | RevocationListError

    @classmethod
    def parse(cls, name: str, data: bytes, signers: Sequence[x509.Certificate], now: float) -> Crl:
        """Read a list as the agent does; ``signers`` are the certificates that it may be signed by."""
        try:
            return cls(name, now, parse_crl(data, signers, now))
        except RevocationListError as exc:
            return cls(name, now, exc)

    def revokes(self, certificate: Certificate) -> bool:
        """Whether it names a certificate, by issuer and serial number."""
        loaded = _loaded(certificate)
        if loaded is None or isinstance(self.found, RevocationListError):
            return False
        return (canonical_name(loaded.issuer), loaded.serial_number) in self.found.revoked

    def foreign_to(self, certificate: Certificate) -> str | None:
        """Whom a certificate names as the issuer of its revocation list, where that is somebody else."""
        loaded = _loaded(certificate)
        if loaded is None or isinstance(self.found, RevocationListError):
            return None
        issuers = [name for point in _points(loaded) for name in _issuers(point, loaded)]
        if not issuers or any(canonical_name(name) == self.found.issuer for name in issuers):
            return None
        return " or ".join(name.rfc4514_string() for name in issuers)


def _loaded(certificate: Certificate) -> x509.Certificate | None:
    """As a verifier loads it; None where it refuses to, which is a finding of its own."""
    try:
        loaded = x509.load_der_x509_certificate(certificate.whole)
        canonical_name(loaded.issuer)  # a name is read only when it is asked for
        _points(loaded)
    except (*UNREADABLE, x509.InvalidVersion, VerificationFailure):
        return None
    return loaded


def _points(certificate: x509.Certificate) -> list[x509.DistributionPoint]:
    return list(extension(certificate, x509.CRLDistributionPoints) or ())


def _issuers(point: x509.DistributionPoint, certificate: x509.Certificate) -> list[x509.Name]:
    # RFC 5280 §4.2.1.13: "If the certificate issuer is also the CRL issuer, then conforming CAs
    # MUST omit the cRLIssuer field".
    if point.crl_issuer is None:
        return [certificate.issuer]
    return [name.value for name in point.crl_issuer if isinstance(name, x509.DirectoryName)]


def _unreadable(crl: Crl) -> str | None:
    if not isinstance(crl.found, RevocationListError) or isinstance(crl.found, RevocationListUntrusted):
        return None
    return str(crl.found)


def _untrusted(crl: Crl) -> str | None:
    return str(crl.found) if isinstance(crl.found, RevocationListUntrusted) else None


def _out_of_date(crl: Crl) -> str | None:
    return None if isinstance(crl.found, RevocationListError) else crl.found.trouble(crl.now)


_ANY: Final = Scope[Crl]("the list of --crl", lambda _: True)
ERROR = Severity.ERROR
_RFC5280: Final = Edition("RFC 5280")

CRL_LINTS: Final = (
    Lint("e_crl_unreadable", ERROR, _RFC5280, "§5.1, §5.2", _ANY, _unreadable,
         "fetch it again, whole; verifiers take a complete list with nextUpdate, and look at no other"),
    Lint("e_crl_signature", ERROR, _RFC5280, "§6.3.3 (f), (g)", _ANY, _untrusted,
         "name the certificate of its signer with --crl-signer; if that is right, do not use this list"),
    Lint("e_crl_out_of_date", ERROR, _RFC5280, "§5.1.2.5", _ANY, _out_of_date,
         "fetch the present list; verifiers that insist on one refuse every call without it"),
)  # fmt: skip
