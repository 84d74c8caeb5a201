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
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from cryptography.x509 import ObjectIdentifier

from shaken_plugin.core.der import IA5STRING, INTEGER, SEQUENCE, DerError, elements, encode, only

OID: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.26")
"""id-pe-TNAuthList."""

MAX_ENTRIES: Final = 10_000
"""Most entries that are read; the list comes from the wire inside a certificate."""

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
        try:
            return cls._read(data)
        except DerError as exc:
            raise TnAuthListError(str(exc)) from exc

    @classmethod
    def _read(cls, data: bytes) -> TnAuthList:
        spcs: list[str] = []
        ranges: list[TnRange] = []
        ones: list[str] = []
        for count, (tag, content) in enumerate(elements(only(data, SEQUENCE))):
            if count >= MAX_ENTRIES:
                raise TnAuthListError(f"more than {MAX_ENTRIES} entries")
            if tag == _SPC:
                spcs.append(_text(only(content, IA5STRING), _SPC_TEXT))
            elif tag == _RANGE:
                ranges.append(_range(only(content, SEQUENCE)))
            elif tag == _ONE:
                ones.append(_text(only(content, IA5STRING), _NUMBER))
            else:
                raise TnAuthListError(f"an entry with the tag {tag:#04x}")
        if not (spcs or ranges or ones):
            raise TnAuthListError("no entry; the list has SIZE (1..MAX)")
        return cls(tuple(spcs), tuple(ranges), tuple(ones))

    def to_der(self) -> bytes:
        """The extension's value for a certificate or a certificate request."""
        entries = [encode(_SPC, encode(IA5STRING, spc.encode("ascii"))) for spc in self.spcs]
        for numbers in self.ranges:
            size = numbers.count.bit_length() // 8 + 1
            start = encode(IA5STRING, numbers.start.encode("ascii"))
            count = encode(INTEGER, numbers.count.to_bytes(size, "big"))
            entries.append(encode(_RANGE, encode(SEQUENCE, start, count)))
        entries += [encode(_ONE, encode(IA5STRING, one.encode("ascii"))) for one in self.ones]
        return encode(SEQUENCE, *entries)

    def lists(self, digits: str) -> bool:
        """Whether the number itself is listed, alone or in a range."""
        if digits in self.ones:
            return True
        return _DIGITS.fullmatch(digits) is not None and any(numbers.covers(digits) for numbers in self.ranges)

    def encompasses(self, child: TnAuthList) -> bool:
        """Whether every entry of a delegate's list lies in this one (RFC 9060 §4.1).

        Entries add up: a range may be covered by several that adjoin. An SPC stands for numbers
        that a verifier cannot list (RFC 8226 §9), so a parent with one is taken to cover any
        number, as SHAKEN takes it for a caller; another SPC it does not cover.
        """
        if not set(child.spcs) <= set(self.spcs):
            return False
        if self.spcs:
            return True
        # Numbers with "#" or "*" are in no range.
        if any(_DIGITS.fullmatch(one) is None and one not in self.ones for one in child.ones):
            return False
        ours, theirs = self._spans(), child._spans()
        return all(_lies_in(span, ours.get(length, [])) for length, spans in theirs.items() for span in spans)

    def _spans(self) -> dict[int, list[tuple[int, int]]]:
        """For each length of number the spans, first and one past the last: in order, joined where they adjoin."""
        loose: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for numbers in self.ranges:
            loose[len(numbers.start)].append((int(numbers.start), int(numbers.start) + numbers.count))
        for one in filter(_DIGITS.fullmatch, self.ones):
            loose[len(one)].append((int(one), int(one) + 1))
        joined: dict[int, list[tuple[int, int]]] = {}
        for length, spans in loose.items():
            row: list[tuple[int, int]] = []
            for start, end in sorted(spans):
                if row and start <= row[-1][1]:
                    row[-1] = row[-1][0], max(end, row[-1][1])
                else:
                    row.append((start, end))
            joined[length] = row
        return joined


def _lies_in(span: tuple[int, int], row: list[tuple[int, int]]) -> bool:
    """Whether one span of an ordered row covers ``span``."""
    index = bisect_right(row, span[0], key=lambda other: other[0]) - 1
    return index >= 0 and span[1] <= row[index][1]


def _range(data: bytes) -> TnRange:
    # "..." in the ASN.1: later versions may add fields after count, which are passed over.
    fields = list(elements(data))
    if [tag for tag, _ in fields[:2]] != [IA5STRING, INTEGER]:
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
