"""JSON Web Signature, the two pieces PASSporT uses: base64url and ES256.

RFC 7515 (JWS compact serialisation), RFC 7518 §3.4 (ES256: ECDSA P-256 with SHA-256, the
signature is R‖S, 64 octets). Nothing else: "none", HMAC and RSA do not exist here, so no
header can select them.
"""

from __future__ import annotations

import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from shaken_plugin.core.sha2 import sha256

# The other alphabet, and padding, become what stands in no alphabet.
_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_PADDING = (b"", b"!", b"==", b"=")
"""By the length modulo 4; no octets make a text that is one character beyond a multiple."""
_WITHOUT_BITS = (None, None, frozenset(b"AQgw"), frozenset(b"AEIMQUYcgkosw048"))
"""Last characters whose bits beyond the last octet, four or two, are zero."""
# RFC 8225 asks for deterministic signatures (RFC 6979): no generator of random numbers can betray the key.
_SIGN = ec.ECDSA(SHA256(), deterministic_signing=True)
_VERIFY = ec.ECDSA(utils.Prehashed(SHA256()))


def b64url(data: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii").rstrip("=").replace("+", "-").replace("/", "_")


def unb64url(text: str) -> bytes:
    """Decode base64url, strictly: no padding, no other alphabet, no stray bits.

    Raises:
        ValueError: the text is not exactly what `b64url` makes. A second spelling of the same
            octets would let one PASSporT pass for two.
    """
    try:
        return unb64url_octets(text.encode("ascii"))
    except UnicodeEncodeError as exc:
        raise ValueError("not base64url") from exc


def unb64url_octets(text: bytes) -> bytes:
    """The same of a text in octets."""
    over = len(text) % 4
    try:
        data = binascii.a2b_base64(text.translate(_STANDARD) + _PADDING[over], strict_mode=True)
    except ValueError as exc:
        raise ValueError("not base64url") from exc
    if (allowed := _WITHOUT_BITS[over]) is not None and text[-1] not in allowed:
        raise ValueError("base64url with stray bits")
    return data


def sign_es256(key: ec.EllipticCurvePrivateKey, signing_input: bytes) -> bytes:
    """The 64 octets R‖S of an ES256 signature over ``signing_input``."""
    return _raw(key.sign(signing_input, _SIGN))


def _raw(signature: bytes) -> bytes:
    """R‖S of a signature in DER as `cryptography` makes them for P-256 (`utils.decode_dss_signature` reads any).

    SEQUENCE of two INTEGERs, all lengths in one octet: 48, length, 2, length, R, 2, length, S. An INTEGER has a zero
    in front where its first bit is set, and none of its own.
    """
    end = 4 + signature[3]
    return signature[4:end][-32:].rjust(32, b"\0") + signature[end + 2 :][-32:].rjust(32, b"\0")


def _der(signature: bytes) -> bytes:
    """R‖S, 64 octets, in DER: what `_raw` takes apart (`utils.encode_dss_signature` makes it of any two numbers)."""
    r, s = signature[:32].lstrip(b"\0") or b"\0", signature[32:].lstrip(b"\0") or b"\0"
    if r[0] > 127:
        r = b"\0" + r
    if s[0] > 127:
        s = b"\0" + s
    return b"0%c\2%c%b\2%c%b" % (len(r) + len(s) + 4, len(r), r, len(s), s)


def verify_es256(key: ec.EllipticCurvePublicKey, signing_input: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (R‖S, 64 octets) is this P-256 key's over ``signing_input``."""
    return verify_es256_digest(key, sha256(signing_input).digest(), signature)


def verify_es256_digest(key: ec.EllipticCurvePublicKey, digest: bytes, signature: bytes) -> bool:
    """The same, over what has this SHA-256."""
    if len(signature) != 64:
        return False
    try:
        key.verify(_der(signature), digest, _VERIFY)
    except InvalidSignature:
        return False
    return True
