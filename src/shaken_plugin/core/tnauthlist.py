"""TNAuthList, the certificate extension that says for whom a signer may speak (RFC 8226 §9).

    TNAuthorizationList ::= SEQUENCE SIZE (1..MAX) OF TNEntry
    TNEntry ::= CHOICE {
        spc   [0] ServiceProviderCode,       -- IA5String
        range [1] TelephoneNumberRange,      -- SEQUENCE { start, count INTEGER (2..MAX), ... }
        one   [2] TelephoneNumber }          -- IA5String (SIZE (1..15)) (FROM ("0123456789#*"))

The module has EXPLICIT TAGS (Appendix A): every choice wraps a complete inner value.
Strict DER: definite and shortest lengths, nothing left over. A list that breaks any rule is
refused as a whole; real certificates with a wrong length or a bare string exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cryptography.x509 import ObjectIdentifier

OID: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.26")
"""id-pe-TNAuthList."""

MAX_ENTRIES: Final = 10_000
"""Most entries that are read; the list comes from the wire inside a certificate."""

_SEQUENCE, _INTEGER, _IA5STRING = 0x30, 0x02, 0x16
_SPC, _RANGE, _ONE = 0xA0, 0xA1, 0xA2

_NUMBER = re.compile(r"[0-9#*]{1,15}")
_DIGITS = re.compile(r"[0-9]{1,15}")
_SPC_TEXT = re.compile(r"[\x21-\x7e]{1,64}")


class TnAuthListError(ValueError):
    """The extension's content is not a TNAuthorizationList."""


@dataclass(frozen=True, slots=True)
class TnRange:
    """``count`` consecutive numbers from ``start``, all of the same length."""

    start: str
    count: int

    def __post_init__(self) -> None:
        # RFC 8226 §9: the range must not run over the number's length.
        if _DIGITS.fullmatch(self.start) is None or self.count < 2:
            raise TnAuthListError("a range needs a start of 1 to 15 digits and a count of 2 or more")
        if int(self.start) + self.count > 10 ** len(self.start):
            raise TnAuthListError("a range runs past the last number of its length")

    def covers(self, digits: str) -> bool:
        """Whether a number of digits only lies in the range."""
        return len(digits) == len(self.start) and 0 <= int(digits) - int(self.start) < self.count


@dataclass(frozen=True, slots=True)
class TnAuthList:
    """A parsed TNAuthList. Entries add up: any that matches authorises."""

    spcs: tuple[str, ...] = ()
    ranges: tuple[TnRange, ...] = ()
    ones: tuple[str, ...] = ()

    @classmethod
    def from_der(cls, data: bytes) -> TnAuthList:
        """Parse the extension's value.

        Raises:
            TnAuthListError: anything but a TNAuthorizationList in DER.
        """
        spcs: list[str] = []
        ranges: list[TnRange] = []
        ones: list[str] = []
        for count, (tag, content) in enumerate(_elements(_only(data, _SEQUENCE))):
            if count >= MAX_ENTRIES:
                raise TnAuthListError(f"more than {MAX_ENTRIES} entries")
            if tag == _SPC:
                spcs.append(_text(_only(content, _IA5STRING), _SPC_TEXT))
            elif tag == _RANGE:
                ranges.append(_range(_only(content, _SEQUENCE)))
            elif tag == _ONE:
                ones.append(_text(_only(content, _IA5STRING), _NUMBER))
            else:
                raise TnAuthListError(f"an entry with the tag {tag:#04x}")
        if not (spcs or ranges or ones):
            raise TnAuthListError("no entry; the list has SIZE (1..MAX)")
        return cls(tuple(spcs), tuple(ranges), tuple(ones))

    def to_der(self) -> bytes:
        """The extension's value for a certificate or a certificate request."""
        entries = [_encode(_SPC, _encode(_IA5STRING, spc.encode("ascii"))) for spc in self.spcs]
        for numbers in self.ranges:
            size = numbers.count.bit_length() // 8 + 1
            fields = _encode(_IA5STRING, numbers.start.encode("ascii"))
            fields += _encode(_INTEGER, numbers.count.to_bytes(size, "big"))
            entries.append(_encode(_RANGE, _encode(_SEQUENCE, fields)))
        entries += [_encode(_ONE, _encode(_IA5STRING, one.encode("ascii"))) for one in self.ones]
        return _encode(_SEQUENCE, b"".join(entries))

    def lists(self, digits: str) -> bool:
        """Whether the number itself is listed, alone or in a range."""
        if digits in self.ones:
            return True
        return _DIGITS.fullmatch(digits) is not None and any(numbers.covers(digits) for numbers in self.ranges)


def _range(data: bytes) -> TnRange:
    # "..." in the ASN.1: later versions may add fields after count, which are passed over.
    fields = list(_elements(data))
    if [tag for tag, _ in fields[:2]] != [_IA5STRING, _INTEGER]:
        raise TnAuthListError("a range is not start and count")
    start, count = fields[0][1], fields[1][1]
    value = int.from_bytes(count, "big", signed=True)
    if len(count) != value.bit_length() // 8 + 1:
        raise TnAuthListError("a range's count is not a positive integer in DER")
    return TnRange(_text(start, _NUMBER), value)


def _text(data: bytes, pattern: re.Pattern[str]) -> str:
    text = data.decode("latin-1")
    if pattern.fullmatch(text) is None:
        raise TnAuthListError("an entry holds characters that may not stand there")
    return text


def _only(data: bytes, tag: int) -> bytes:
    """The content of the one DER element that ``data`` must be."""
    found, content, end = _element(data, 0)
    if found != tag or end != len(data):
        raise TnAuthListError(f"expected one element with the tag {tag:#04x}")
    return content


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The DER elements that follow one another in ``data``."""
    position = 0
    while position < len(data):
        tag, content, position = _element(data, position)
        yield tag, content


def _element(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Tag, content and end of the DER element at ``position`` (X.690 §8.1, §10.1)."""
    header = data[position : position + 2]
    if len(header) < 2:
        raise TnAuthListError("the data end inside an element")
    tag, length = header
    position += 2
    if length >= 0x80:
        octets = data[position : position + (length & 0x7F)]
        length = int.from_bytes(octets, "big")
        if not 1 <= len(octets) <= 3 or length < 0x80 or octets[0] == 0:
            raise TnAuthListError("a length that is not DER")
        position += len(octets)
    end = position + length
    if end > len(data):
        raise TnAuthListError("an element is longer than the data")
    return tag, data[position:end], end


def _encode(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content
