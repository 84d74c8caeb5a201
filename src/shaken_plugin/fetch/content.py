"""Whether a body can be what was asked for: a quick look; the parsing is the core's."""

from __future__ import annotations

import re
from typing import Final

from shaken_plugin.fetch.model import FetchCode, FetchFailure, Kind

_PEM: Final = {Kind.CERTIFICATE: b"CERTIFICATE", Kind.CRL: b"X509 CRL"}
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<")


def check_body(body: bytes, kind: Kind) -> None:
    """Refuse what is certainly not a document of this kind.

    A trust list may be a signed JSON document, a bare JWS or PEM: only its owner can tell.

    Raises:
        FetchFailure: WRONG_CONTENT.
    """
    if not body.strip():
        raise FetchFailure(FetchCode.WRONG_CONTENT, "the body is empty")
    if _MARKUP.match(body):
        raise FetchFailure(FetchCode.WRONG_CONTENT, "a web page, not a document")
    if kind is Kind.TRUST_LIST:
        return
    label = _PEM[kind]
    if body[:1] == b"\x30" and _is_whole_der(body):
        return
    begins, ends = body.count(b"-----BEGIN " + label + b"-----"), body.count(b"-----END " + label + b"-----")
    if not begins:
        raise FetchFailure(FetchCode.WRONG_CONTENT, f"neither PEM ({label.decode()}) nor DER")
    if begins != ends:
        raise FetchFailure(FetchCode.WRONG_CONTENT, f"cut off: {begins} PEM blocks begin, {ends} end")


def _is_whole_der(body: bytes) -> bool:
    """Whether the outermost SEQUENCE is exactly as long as the body (X.690 §8.1.3)."""
    if len(body) < 2:
        return False
    length, octets = body[1], 0
    if length & 0x80:
        octets = length & 0x7F
        length = int.from_bytes(body[2 : 2 + octets], "big")
    return 2 + octets + length == len(body)
