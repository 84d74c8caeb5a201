"""A signed list of trust anchors, as the STI-PA publishes it (ATIS-1000084, "CA list").

A JWS in compact form, ES256, whose signer is configured itself or lies in ``x5c``, below a
configured CA certificate; ``x5u`` is not followed::

    {"alg": "ES256", "typ": "JWT", "x5u": "https://…"}
    {"version": "…", "sequence": 7, "exp": 1795000000, "trustList": ["-----BEGIN CERTIFICATE-----…", …]}

The STI-PA's interface hands it out as ``{"status": "success", "caList": "<JWS>"}``; both are read.
The text of ATIS-1000084 was not at hand: members beyond those above are passed over.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shaken_plugin.core.certificates import TrustAnchors, parse_anchor_file
from shaken_plugin.core.claims import MAX_IAT
from shaken_plugin.core.extensions import extension
from shaken_plugin.core.issuers import MAX_CHAIN
from shaken_plugin.core.jws import unb64url, verify_es256
from shaken_plugin.core.passport import parse_object
from shaken_plugin.core.signers import NoSigner, check_signer
from shaken_plugin.errors import TrustListError, VerificationFailure

MAX_LENGTH: Final = 2 * 1024 * 1024
"""Longest list, octets: about 1,500 certificates of 1 KiB. The 50 CA certificates in use take 60 KiB."""


@dataclass(frozen=True, slots=True, eq=False)
class TrustList:
    """The anchors of a list whose signature was checked. ``expires`` in POSIX seconds."""

    sequence: int
    expires: float
    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


def parse_trust_list(
    document: bytes, signers: Sequence[x509.Certificate], now: float, *, last_sequence: int = 0
) -> TrustList:
    """Read and check a list.

    Args:
        document: as fetched.
        signers: from the settings: those who sign such lists, or CA certificates above them.
        now: POSIX seconds.
        last_sequence: that of the list in use; an older one is refused.

    Raises:
        TrustListError: it cannot be read, is not signed by one who may, has expired, is older than
            the one in use, or holds something else than CA certificates.
    """
    token = _token(document)
    # RFC 7515 §4.1.11: no critical header parameter is understood here.
    if token.header.get("alg") != "ES256" or "crit" in token.header:
        raise TrustListError('its header does not say "alg":"ES256", or has a "crit"')
    if str(token.header.get("typ", "JWT")).upper() != "JWT":
        raise TrustListError("its typ is not JWT")
    try:
        check_signer(signers, _x5c(token.header), now, lambda one: _signed_by(token, one))
    except NoSigner as exc:
        raise TrustListError(str(exc)) from exc
    expires, sequence = _integer(token.claims, "exp"), _integer(token.claims, "sequence")
    # RFC 7519 §4.1.4: "on or after which the JWT MUST NOT be accepted".
    if now >= expires:
        raise TrustListError(f"it has expired {now - expires:.0f} s ago")
    if sequence < last_sequence:
        raise TrustListError(f"its sequence {sequence} lies before {last_sequence}, which is in use")
    return TrustList(sequence, float(expires), _anchors(token.claims.get("trustList")))


def _token(document: bytes) -> _Token:
    if len(document) > MAX_LENGTH:
        raise TrustListError(f"{len(document)} octets, at most {MAX_LENGTH}")
    document = document.strip()
    try:
        if document.startswith(b"{"):
            document = str(parse_object(document).get("caList")).encode()
        head, body, tail = document.decode("ascii").split(".")
        claims = parse_object(unb64url(body))
        return _Token(parse_object(unb64url(head)), claims, f"{head}.{body}".encode("ascii"), unb64url(tail))
    except ValueError as exc:
        raise TrustListError(f"not a JWS in compact form: {exc}") from exc


def _x5c(header: Mapping[str, Any]) -> list[x509.Certificate]:
    """The certificates in the header, signer first (RFC 7515 §4.1.6: base64 of DER)."""
    texts = header.get("x5c", [])
    try:
        if not isinstance(texts, list) or len(texts) > MAX_CHAIN:
            raise ValueError(f"not a list of at most {MAX_CHAIN}")
        return [x509.load_der_x509_certificate(base64.b64decode(text, validate=True)) for text in texts]
    except (ValueError, TypeError, binascii.Error, x509.InvalidVersion) as exc:
        raise TrustListError(f"its x5c cannot be read: {exc}") from exc


def _signed_by(token: _Token, certificate: x509.Certificate) -> bool:
    key, usage = certificate.public_key(), extension(certificate, x509.KeyUsage)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return False
    return (usage is None or usage.digital_signature) and verify_es256(key, token.signing_input, token.signature)


def _integer(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= MAX_IAT:
        raise TrustListError(f"{name} is not a whole number")
    return value


def _anchors(entries: Any) -> tuple[x509.Certificate, ...]:
    """Every certificate of the list, each fit to be an anchor: a list is taken as a whole or not at all."""
    if not isinstance(entries, list) or not entries:
        raise TrustListError("trustList is not a list with entries")
    certificates: list[x509.Certificate] = []
    for index, entry in enumerate(entries):
        try:
            found = parse_anchor_file(str(entry).encode())
            TrustAnchors(found)
        except (VerificationFailure, ValueError) as exc:
            raise TrustListError(f"trustList[{index}]: {exc}") from exc
        certificates += found
    return tuple(certificates)
