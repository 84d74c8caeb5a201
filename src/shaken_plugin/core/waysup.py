"""Which certificates of a document lead from its first one to a trust anchor (RFC 5280 §6, RFC 4158).

A library that is given all of them tries every order that the names allow: a stranger's document of
5 KB, seven certificates of one name and one key, cost it 190 ms. Here the way is sought from the
anchors down, so that a signature is only ever checked with a key that is trusted already, and each
certificate finds its place once. What a stranger put together costs one check for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

MAX_RSA_BITS: Final = 4_096
"""Longest RSA key of an issuer in a document: the time of a check grows with its square."""


def way_up(
    chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: float
) -> list[x509.Certificate] | None:
    """The issuers above ``chain[0]``, lowest first, without the anchor; None where no way leads to one.

    Whether they may issue is not asked: the path is validated afterwards, here it is only found.

    Args:
        chain: a document's certificates, in any order but for the first.
        anchors: certificates that are believed.
        now: POSIX seconds; an issuer that is renewed lies there twice, and the valid one is wanted.
    """
    left = [issuer for issuer in chain[1:] if key_is_bounded(issuer) and _valid_at(issuer, now)]
    reached: list[tuple[x509.Certificate, list[x509.Certificate]]] = [(anchor, []) for anchor in anchors]
    for parent, above in reached:  # grows meanwhile
        if is_signed_by(chain[0], parent):
            return above
        found = [child for child in left if is_signed_by(child, parent)]
        left = [child for child in left if child not in found]
        reached += [(child, [child, *above]) for child in found]
    return None


def key_is_bounded(certificate: x509.Certificate) -> bool:
    """Whether a check with the key takes a bounded time: P-256, P-384, or RSA up to 4,096 bits.

    RFC 8226 §4 demands P-256 and RSA, SHAKEN CP 1.4 §6.1.5 allows P-384; nothing else occurs.
    """
    try:
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    return isinstance(key, rsa.RSAPublicKey) and key.key_size <= MAX_RSA_BITS


def is_signed_by(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """Whether ``parent`` has the name of the child's issuer, and its key made the child's signature."""
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _valid_at(certificate: x509.Certificate, now: float) -> bool:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return start.timestamp() <= now <= end.timestamp()
