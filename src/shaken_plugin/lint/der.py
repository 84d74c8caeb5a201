"""Reading DER that may be wrong: lengths that are not the shortest are taken and noted.

A linter has to look into certificates that a strict library refuses as a whole, so this reader
knows only tag, length and content (X.690 §8.1). Everything read is bounded by the data itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OBJECT_IDENTIFIER: Final = 0x06
PRINTABLE_STRING: Final = 0x13
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

MAX_ELEMENTS: Final = 2_000
"""Most elements of one sequence that are read; a CRL distribution point has one, a name about six."""

MAX_OID: Final = 40
"""Longest object identifier, octets; those of STI certificates have up to eleven."""

_STRINGS: Final = {0x0C: "utf-8", 0x12: "ascii", PRINTABLE_STRING: "ascii", 0x14: "latin-1", 0x16: "ascii",
                   0x1A: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}  # fmt: skip
"""Character sets of the string types that may stand in a name (RFC 5280 §4.1.2.4)."""


class DerError(ValueError):
    """The data are not the ASN.1 value that should stand there; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Element:
    """One value. ``whole`` are its octets with tag and length; ``is_shortest`` is about the length."""

    tag: int
    content: bytes
    whole: bytes
    is_shortest: bool

    def expect(self, tag: int, what: str) -> Element:
        """This element.

        Raises:
            DerError: it has another tag; ``what`` names it.
        """
        if self.tag != tag:
            raise DerError(f"{what} has the tag {self.tag:#04x} in place of {tag:#04x}")
        return self

    @property
    def children(self) -> list[Element]:
        """The elements inside.

        Raises:
            DerError: the content is no list of elements.
        """
        return elements(self.content)


def first(data: bytes, start: int = 0) -> Element:
    """The element at ``start``; what follows it is left alone.

    Raises:
        DerError: there is none.
    """
    if len(data) < start + 2:
        raise DerError("the data end inside an element")
    tag, length = data[start], data[start + 1]
    if tag & 0x1F == 0x1F:
        raise DerError("a tag of more than one octet")
    content, is_shortest = start + 2, True
    if length >= 0x80:
        size = length & 0x7F
        octets = data[content : content + size]
        if not 1 <= size <= 4 or len(octets) < size:
            raise DerError("an indefinite or impossible length")
        length = int.from_bytes(octets, "big")
        is_shortest = length >= 0x80 and octets[0] != 0
        content += size
    end = content + length
    if end > len(data):
        raise DerError(f"an element announces {length} octets where {len(data) - content} are left")
    return Element(tag, data[content:end], data[start:end], is_shortest)


def only(data: bytes, tag: int, what: str) -> Element:
    """The one element that ``data`` must be.

    Raises:
        DerError: it is something else, or more.
    """
    element = first(data).expect(tag, what)
    if len(element.whole) != len(data):
        raise DerError(f"{what} is followed by {len(data) - len(element.whole)} more octets")
    return element


def elements(data: bytes) -> list[Element]:
    """All the elements that follow one another in ``data``.

    Raises:
        DerError: they do not fill it exactly, or are too many.
    """
    found: list[Element] = []
    position = 0
    while position < len(data):
        if len(found) >= MAX_ELEMENTS:
            raise DerError(f"more than {MAX_ELEMENTS} elements in one")
        found.append(first(data, position))
        position += len(found[-1].whole)
    return found


def oid(element: Element) -> str:
    """An object identifier with dots (X.690 §8.19).

    Raises:
        DerError: it is none.
    """
    content = element.expect(OBJECT_IDENTIFIER, "an object identifier").content
    if not content or content[-1] >= 0x80 or len(content) > MAX_OID:
        raise DerError("an object identifier that cannot be read")
    arcs, value = [], 0
    for octet in content:
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(value)
            value = 0
    head = min(arcs[0] // 40, 2)
    return ".".join(map(str, (head, arcs[0] - 40 * head, *arcs[1:])))


def integer(element: Element, what: str) -> int:
    """An integer.

    Raises:
        DerError: it is none.
    """
    content = element.expect(INTEGER, what).content
    if not content:
        raise DerError(f"{what} is an integer without octets")
    return int.from_bytes(content, "big", signed=True)


def text(element: Element) -> str:
    """A string of any type; what its character set does not have is replaced."""
    return element.content.decode(_STRINGS.get(element.tag, "latin-1"), "replace")


def time(element: Element) -> float:
    """POSIX seconds of a UTCTime or GeneralizedTime (RFC 5280 §4.1.2.5).

    Raises:
        DerError: it is no time in the form of that section.
    """
    written = element.content.decode("latin-1")
    if element.tag == UTC_TIME:
        # RFC 5280 §4.1.2.5.1: "Where YY is greater than or equal to 50, the year SHALL be
        # interpreted as 19YY; and Where YY is less than 50, ... as 20YY."
        written = ("19" if written[:2] >= "50" else "20") + written
    elif element.tag != GENERALIZED_TIME:
        raise DerError(f"a time has the tag {element.tag:#04x}")
    if len(written) != 15 or not written[:14].isascii() or not written[:14].isdigit() or written[14] != "Z":
        raise DerError("a time that is not written YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ")
    try:
        return datetime.strptime(written, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError as exc:
        raise DerError("a time that is in no calendar") from exc
