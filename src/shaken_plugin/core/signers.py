"""Who may sign a list: certificates of the settings, and what chains to one of them.

Revocation lists and trust lists are signed by the policy administrator, not by those whom they
speak of, so they have anchors of their own: never the trust anchors of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.extensions import extension
from shaken_plugin.errors import FailureCode, VerificationFailure


class NoSigner(Exception):
    """None whom we believe has signed; the text says why."""


def check_signer(
    configured: Sequence[x509.Certificate],
    chain: Sequence[x509.Certificate],
    now: float,
    signed: Callable[[x509.Certificate], bool],
) -> None:
    """Refuse a list that nobody signed whom the settings let sign.

    Args:
        configured: signers, or CA certificates above them, from the settings.
        chain: what came with the list, signer first; believed only with a path to a configured CA.
        now: POSIX seconds, at which the signer must be valid.
        signed: whether a certificate's key made the signature; what it raises counts as no.

    Raises:
        NoSigner: none of them signed, or the one that did is not believed.
    """
    why = "it is signed by none of the configured signers"
    for candidate in [*((certificate,) for certificate in configured), *([tuple(chain)] if chain else [])]:
        if _has_signed(candidate[0], signed):
            try:
                _believe(candidate, configured, now)
            except VerificationFailure as failure:
                why = f"its signer is not believed: {failure}"  # another with the same key may be
            else:
                return
    raise NoSigner(why)


def _has_signed(certificate: x509.Certificate, signed: Callable[[x509.Certificate], bool]) -> bool:
    try:
        return signed(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, VerificationFailure):
        return False  # a certificate whose name, key or key usage cannot be read


def _believe(candidate: Sequence[x509.Certificate], configured: Sequence[x509.Certificate], now: float) -> None:
    """Refuse a signer that is neither configured nor below a configured CA certificate.

    Raises:
        VerificationFailure: one of the CERTIFICATE_* codes.
    """
    signer = candidate[0]
    if signer not in configured:
        authorities = [certificate for certificate in configured if _is_ca(certificate)]
        if not authorities:
            raise VerificationFailure(FailureCode.CERTIFICATE_UNTRUSTED, "no CA certificate is configured for it")
        TrustAnchors(authorities).path(candidate, now)
    elif now > signer.not_valid_after_utc.timestamp():
        raise VerificationFailure(FailureCode.CERTIFICATE_EXPIRED)
    elif now < signer.not_valid_before_utc.timestamp():
        raise VerificationFailure(FailureCode.CERTIFICATE_NOT_YET_VALID)


def _is_ca(certificate: x509.Certificate) -> bool:
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca
