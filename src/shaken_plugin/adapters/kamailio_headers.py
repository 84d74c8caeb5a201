"""The headers that we need out of a whole message, in one pass: thirty questions to Kamailio cost more."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from shaken_plugin.core.call import NAMING, CallerHeader
from shaken_plugin.core.sip import COMPACT_NAMES

MAX_HEADERS: Final = 32
"""Most header lines of one name that are read."""

_WANTED: Final = frozenset(
    name.lower()
    for name in (
        *(header.value for header in CallerHeader),
        *NAMING,
        "To", "Call-ID", "Date", "Identity", "Priority", "Resource-Priority", "Replaces",
    )
)  # fmt: skip
_NAMES: Final = {name: name for name in _WANTED} | {
    short: name if name in _WANTED else "" for short, name in COMPACT_NAMES.items()
}
"""What a name on a line stands for; nothing where nobody wants it."""

T = TypeVar("T")


class Headers(NamedTuple):
    """Values by the name in small letters, as they stand on their lines, and the body."""

    headers: dict[str, tuple[str, ...]]
    body: str

    def first(self, name: str, other: T) -> str | T:
        """The first value of a header, or else the other."""
        values = self.headers.get(name)
        return values[0] if values else other


def headers_of(message: str) -> Headers | None:
    """The headers of a request as it came.

    Args:
        message: all of it.

    Returns:
        None where it is not so simple, and Kamailio has to be asked: folded lines, lines that do not end with
        CRLF, unknown compact names, very many lines.
    """
    head, end, body = message.partition("\r\n\r\n")
    lines = head.split("\r\n")
    if not end or head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1 or "\0" in head:
        return None
    found: dict[str, tuple[str, ...]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.rstrip(" \t").lower()
        if wanted := _NAMES.get(name):
            found[wanted] = (*found.get(wanted, ()), value.strip(" \t"))
        elif wanted is None and (len(name) < 2 or name[0] in " \t" or not colon):
            return None
    if any(len(values) > MAX_HEADERS for values in found.values()):
        return None
    return Headers(found, body)
