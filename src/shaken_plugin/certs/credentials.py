"""Loading our own keys and chains, and refusing at once what could not sign rightly.

A key is read once, turned into a `Signer`, and never seen again: no attribute, ``repr`` or error
of this module holds or shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from shaken_plugin.authentication import Credential, SigningPair
from shaken_plugin.core import x5u as x5u_rules
from shaken_plugin.core.certificates import SigningCertificate, parse_chain
from shaken_plugin.core.jws import sign_es256, verify_es256
from shaken_plugin.errors import CredentialError, SigningError, VerificationFailure
from shaken_plugin.ports import Signer

_DAY: Final = 86_400.0
EXPIRY_SHARE: Final = 1 / 3
"""Share of a certificate's life that is left when warnings begin, as ACME clients renew; 46 % of
real certificates live seven days or less, so a fixed number of days will not do."""
EXPIRY_MOST: Final = 30 * _DAY
"""Seconds before the end at which even a certificate of several years is warned about."""


def expiry_warning(credential: Credential, now: float) -> str | None:
    """What to tell an operator of a credential that ends soon or cannot sign now, else None.

    Args:
        credential: with a pair at least, or nothing is said.
        now: POSIX seconds.
    """
    current = credential.current(now)
    if current is None:
        if not credential.pairs:
            return None
        return f"credential {credential.name}: no certificate is live and valid now; calls go unsigned"
    left = credential.lasts_until(now) - now
    life = current.certificate.not_after - current.certificate.not_before
    if left >= min(life * EXPIRY_SHARE, EXPIRY_MOST):
        return None
    return (
        f"credential {credential.name}: no certificate is valid beyond {left / 3600:.1f} hours from now; "
        "add the next pair: 'shaken key add', or in the settings, and 'shaken apply'"
    )


class LocalSigner:
    """A `ports.Signer` on a P-256 key in this process's memory."""

    __slots__ = ("__key",)

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self.__key = key

    def sign(self, data: bytes) -> bytes:
        """See `ports.Signer.sign`."""
        try:
            return sign_es256(self.__key, data)
        except Exception as exc:  # whatever the library raises, the call must go on
            raise SigningError(f"signing failed: {type(exc).__name__}") from None

    def __repr__(self) -> str:
        return "LocalSigner(…)"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not handed around")


def load_signer(key: bytes) -> tuple[Signer, ec.EllipticCurvePublicKey]:
    """A signer on an unencrypted PEM or DER private key, and its public half.

    Raises:
        CredentialError: not a key, encrypted, or not on P-256. The text never quotes the key.
    """
    private = _private(key)
    return LocalSigner(private), private.public_key()


def key_der(key: bytes) -> bytes:
    """A private key as `load_signer` takes it, in the one form in which it is sealed: PKCS #8, DER.

    Raises:
        CredentialError: as for `load_signer`.
    """
    return _private(key).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    load = load_der_private_key if key[:1] == b"\x30" else load_pem_private_key
    try:
        private = load(key, password=None)
    except TypeError:
        raise CredentialError("the private key is encrypted; decrypt it for the switch to use") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CredentialError("not a private key in PEM or DER") from None
    # RFC 8225 §4.2: ES256, which is ECDSA on P-256 (RFC 7518 §3.4).
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise CredentialError("the private key is not on P-256; ES256 needs one")
    return private


def load_pair(
    *,
    key: bytes,
    chain: bytes,
    x5u: str,
    live_from: float,
    spc: str | None,
    lab_hosts: frozenset[str] = frozenset(),
) -> SigningPair:
    """A signing pair, checked as a whole.

    Args:
        key: private key, PEM or DER.
        chain: certificate chain, signer first.
        x5u: URL at which the chain is published.
        live_from: POSIX seconds from which it signs.
        spc: the Service Provider Code it must carry, None where it carries numbers instead.
        lab_hosts: see `core.x5u.check`.

    Raises:
        CredentialError: they do not belong together, cannot sign, or carry another SPC. An
            expired certificate is no error here: it is never used, and another pair may serve.
    """
    signer = load_signer(key)
    check_x5u(x5u, lab_hosts)
    certificate = load_certificate(chain)
    for text in misfits(signer, certificate, live_from, spc):
        raise CredentialError(text)
    return SigningPair(signer[0], certificate, x5u, live_from)


def check_x5u(url: str, lab_hosts: frozenset[str] = frozenset()) -> None:
    """Refuse a URL of our own that verifiers would refuse.

    Raises:
        CredentialError: it breaks the rules of `core.x5u`.
    """
    try:
        x5u_rules.check(url, lab_hosts)
    except VerificationFailure as exc:
        # What is no URL may be a key in the wrong line: never quoted.
        raise CredentialError(f"x5u{f' {url}' if '://' in url else ''}: {exc.detail}; verifiers refuse it") from exc


def load_certificate(chain: bytes) -> SigningCertificate:
    """The signer of a chain of our own.

    Raises:
        CredentialError: it cannot be read, or cannot sign PASSporTs.
    """
    try:
        return SigningCertificate.load(parse_chain(chain)[0])
    except VerificationFailure as exc:
        raise CredentialError(f"the certificate cannot sign PASSporTs: {exc.detail}") from exc


def misfits(
    signer: tuple[Signer, ec.EllipticCurvePublicKey],
    certificate: SigningCertificate,
    live_from: float | None,
    spc: str | None,
) -> Iterator[str]:
    """Why a key, a certificate and what the settings say of them do not belong together.

    Args:
        signer: from `load_signer`.
        certificate: from `load_certificate`.
        live_from: as in `load_pair`; None leaves it unchecked.
        spc: as in `load_pair`.
    """
    probe = b"shaken"
    matches = verify_es256(certificate.public_key, probe, signer[0].sign(probe))
    if not matches or signer[1] != certificate.public_key:
        yield "the private key does not match the certificate"
    if live_from is not None and live_from > certificate.not_after:
        yield f"live_from lies after the certificate's end on {_day(certificate.not_after)}"
    if spc is not None and certificate.spc != spc:
        found = ", ".join(certificate.tnauthlist.spcs) or "none"
        yield f"the certificate's SPC is {found}, the settings say {spc}"


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
