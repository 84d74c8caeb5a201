"""DER, the few pieces that STIR's own certificate extensions need (X.690 §8.1, §10.1).

The library reads certificates; it does not know TNAuthList and JWTClaimConstraints. Strict:
definite and shortest lengths, one octet of tag, nothing left over. The data come from the wire,
but inside a document whose size is bounded; nothing here recurses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

SEQUENCE: Final = 0x30
INTEGER: Final = 0x02
UTF8STRING: Final = 0x0C
IA5STRING: Final = 0x16


class DerError(ValueError):
    """The data are not DER, or not of the type expected."""


def only(data: bytes, tag: int) -> bytes:
    """The content of the one element that ``data`` must be.

    Raises:
        DerError: it is another element, or there is more than one.
    """
    found, content, end = _element(data, 0)
    if found != tag or end != len(data):
        raise DerError(f"expected one element with the tag {tag:#04x}")
    return content


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of the elements that follow one another in ``data``.

    Raises:
        DerError: at the first place that is not DER.
    """
    position = 0
    while position < len(data):
        tag, content, position = _element(data, position)
        yield tag, content


def _element(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Tag, content and end of the element at ``position``."""
    header = data[position : position + 2]
    if len(header) < 2:
        raise DerError("the data end inside an element")
    tag, length = header
    position += 2
    if length >= 0x80:
        octets = data[position : position + (length & 0x7F)]
        length = int.from_bytes(octets, "big")
        if not 1 <= len(octets) <= 3 or length < 0x80 or octets[0] == 0:
            raise DerError("a length that is not DER")
        position += len(octets)
    end = position + length
    if end > len(data):
        raise DerError("an element is longer than the data")
    return tag, data[position:end], end


def encode(tag: int, *content: bytes) -> bytes:
    """One element."""
    whole = b"".join(content)
    size = len(whole)
    if size < 0x80:
        return bytes((tag, size)) + whole
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + whole
