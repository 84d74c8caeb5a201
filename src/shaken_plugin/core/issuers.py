"""Validating a path with the library, and the issuers whose own way to an anchor was validated before.

The certificates of a provider's CA are validated by two signatures each, and one of them is the same for all that this
CA has issued: that on its own certificate. It is remembered where nothing in it depends on what is below.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.x509 import verification

from shaken_plugin.core.extensions import UNREADABLE, extension
from shaken_plugin.errors import VerificationFailure

MAX_CHAIN: Final = 8
"""Most certificates of a document that are looked at; real chains have one to three."""

MAX_ISSUERS: Final = 64
"""CA certificates whose way to an anchor is remembered; there are a dozen in SHAKEN."""


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

NOT_VERIFIED: Final = (verification.VerificationError, ValueError, TypeError, x509.UnsupportedGeneralNameType)


def verifier(store: verification.Store, now: float) -> verification.ClientVerifier:
    """What validates paths to the certificates of a store at a time, POSIX seconds. It raises `NOT_VERIFIED`."""
    return (
        verification.PolicyBuilder()
        .store(store)
        .time(datetime.fromtimestamp(now, UTC))
        .max_chain_depth(MAX_CHAIN)
        .extension_policies(ca_policy=_ISSUERS, ee_policy=_SIGNERS)
        .build_client_verifier()
    )


def validity(path: Sequence[x509.Certificate]) -> tuple[float, float]:
    """From when until when all certificates are valid, POSIX seconds."""
    return (
        max(certificate.not_valid_before_utc.timestamp() for certificate in path),
        min(certificate.not_valid_after_utc.timestamp() for certificate in path),
    )


class _Issuer(NamedTuple):
    """A CA certificate that was found to lead to an anchor: both, the CA as a store, and when both are valid."""

    above: tuple[x509.Certificate, ...]
    store: verification.Store
    not_before: float
    not_after: float


class KnownIssuers:
    """CA certificates that were found to lead to one of these anchors.

    Args:
        anchors: the only ones; others need a memory of their own.
    """

    def __init__(self, anchors: Sequence[x509.Certificate]) -> None:
        self._anchors = anchors
        self._known: dict[x509.Certificate, _Issuer] = {}

    def path_below(self, chain: Sequence[x509.Certificate], now: float) -> list[x509.Certificate] | None:
        """What `TrustAnchors.path` finds for a certificate with a known issuer; None where it has to be asked."""
        known = self._known.get(chain[1]) if len(chain) == 2 else None
        if known is None or not known.not_before <= now <= known.not_after:
            return None
        try:
            verifier(known.store, now).verify(chain[0], [])
        except NOT_VERIFIED:
            return None  # that says why
        return [chain[0], *known.above]

    def remember(self, path: Sequence[x509.Certificate]) -> None:
        """Know the issuer of a validated path, if the next certificate below it has the same way up and no other."""
        if len(path) != 3:
            return
        above = issuer, _ = path[1:]
        try:
            # Of several anchors with one name another might be taken; name constraints are about what is below.
            is_simple = (
                [anchor.subject for anchor in self._anchors].count(issuer.issuer) == 1
                and issuer.subject not in [anchor.subject for anchor in self._anchors]
                and not any(extension(certificate, x509.NameConstraints) for certificate in above)
            )
        except (VerificationFailure, *UNREADABLE):
            return
        if is_simple:
            if len(self._known) >= MAX_ISSUERS:
                self._known.clear()
            self._known[issuer] = _Issuer(tuple(above), verification.Store([issuer]), *validity(above))
