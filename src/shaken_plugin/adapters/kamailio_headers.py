"""The headers that we need out of a whole message, in one pass: thirty questions to Kamailio cost more."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from shaken_plugin.core.call import NAMING, CallerHeader
from shaken_plugin.core.sip import COMPACT_NAMES

MAX_HEADERS: Final = 32
"""Most header lines of one name that are read."""

MAX_NAME: Final = 64
"""Longest name that is remembered: whoever sends calls chooses them."""

_WANTED_AS_WRITTEN: Final = (
    *(header.value for header in CallerHeader), *NAMING,
    "To", "Call-ID", "Date", "Identity", "Priority", "Resource-Priority", "Replaces",
)  # fmt: skip
_WANTED: Final = frozenset(name.lower() for name in _WANTED_AS_WRITTEN)
_NAMES: Final = {name: name for name in _WANTED} | {
    short: name for short, name in COMPACT_NAMES.items() if name in _WANTED
}

_UNWANTED: Final = (
    "Via", "Max-Forwards", "CSeq", "Contact", "Content-Type", "Content-Length", "Content-Disposition", "User-Agent",
    "Route", "Record-Route", "Allow", "Allow-Events", "Supported", "Require", "Accept", "Session-Expires", "Min-SE",
    "Expires", "Subject", "Privacy", "P-Access-Network-Info", "P-Charging-Vector",
)  # fmt: skip
_WRITTEN: Final = {name: name.lower() for name in _WANTED_AS_WRITTEN} | dict.fromkeys(_UNWANTED, "")
"""What names stand for that are written as nearly all write them; `_meaning` says the same."""


class Headers(NamedTuple):
    """The method, values by the name in small letters, as they stand on their lines, and the body."""

    method: str
    headers: dict[str, tuple[str, ...]]
    body: str


def _line(name: str, group: int) -> str:
    """A header that is there at most once, its value in a group."""
    return rf"{name}:(?({group})(?!))[ \t]*+([^\r]*)(?<![ \t])"


_USUAL: Final = re.compile(
    r"([A-Z]+) [^\r]*+(?:\r\n(?:"
    rf"(?:{'|'.join(_UNWANTED)}):[^\r]*+"
    rf"|{_line('From', 2)}|{_line('To', 3)}|{_line('Call-ID', 4)}"
    rf"|{_line('P-Asserted-Identity', 5)}|{_line('Identity', 6)}|{_line('Date', 7)}"
    # No line in two ways, so that a message that does not match is found out in one pass.
    rf"|(?!(?i:{'|'.join(_WANTED_AS_WRITTEN)})[ \t]*+:|(?:{'|'.join(_UNWANTED)}):)[A-Za-z][A-Za-z0-9-]++:[^\r]*+"
    r"))*\r\n\r\n"
)
"""A message as nearly all are: of what is wanted it has these six at most, and each once.

To look for one character is many times faster than for three: what else must not be in a line is looked for after it.
"""


UsualHeaders = tuple[str, str, str, str, str | None, str | None, str | None, str]
"""What `headers_of` would have found: method, From, To, Call-ID, P-Asserted-Identity, Identity, Date, body."""


def usual_headers_of(message: str) -> UsualHeaders | None:
    """The same in a third less time; None of a message that has less, or more, and `headers_of` has to read."""
    found = _USUAL.match(message)
    if found is None:
        return None
    method, caller, to, call_id, asserted, identity, date = found.groups()
    end = found.end()
    if caller is None or to is None or call_id is None or message.find("\0", 0, end) >= 0:
        return None
    if message.count("\n", 0, end) != message.count("\r", 0, end):  # one that ends no line
        return None
    return method, caller, to, call_id, asserted, identity, date, message[end:]


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
    method = lines[0].partition(" ")[0]
    if (
        not method
        or not end
        or head.count("\n") != len(lines) - 1
        or head.count("\r") != len(lines) - 1
        or "\0" in head
    ):
        return None
    found: dict[str, tuple[str, ...]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        wanted = _WRITTEN.get(name)
        if wanted is None:
            wanted = (_wanted if len(name) <= MAX_NAME else _meaning)(name)
        if wanted is None or not colon:
            return None
        if not wanted:
            continue
        if wanted not in found:
            found[wanted] = (value.strip(" \t"),)
        elif len(before := found[wanted]) < MAX_HEADERS:
            found[wanted] = (*before, value.strip(" \t"))
        else:
            return None
    return Headers(method, found, body)


def _meaning(written: str) -> str | None:
    """What a name on a line stands for: empty where nobody wants it, None where Kamailio has to say."""
    name = written.rstrip(" \t").lower()
    found = _NAMES.get(name, "")
    return found if found or name in COMPACT_NAMES or (len(name) > 1 and name[0] not in " \t") else None


_wanted: Final = lru_cache(512)(_meaning)
