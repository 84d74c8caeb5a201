"""The little of SIP that STIR needs: header lists, name-addr, URIs, dates, whole requests.

Grammar: RFC 3261 §25.1, RFC 3966 §3. Deliberate deviations, all seen in live traffic: an
unquoted display name may hold any character but ``" < > : ; @``; white space around a URI
inside the angle brackets is dropped. Everything else is refused with `SipSyntaxError`.

All scanners are linear in the length of their input: what comes from the wire is hostile.
"""

from __future__ import annotations

import re
from calendar import timegm
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from shaken_plugin.errors import SipSyntaxError

MAX_ADDRESS_LENGTH: Final = 4096
"""Longest From, To or P-Asserted-Identity value that is looked at, characters. A URI of more
than 256 is unheard of; Kamailio's own read buffer is 64 KiB."""

MAX_MESSAGE_LENGTH: Final = 262_144
"""Longest whole message `Request.parse` accepts, bytes (four times the UDP maximum)."""

_FOLD = re.compile(r"\r?\n[ \t]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_LIST_SPECIAL = re.compile(r'[",<>\\]')
_BAD_DISPLAY = re.compile(r'[:;@">]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# *( SEMI generic-param ): quoted strings are whole, and no second address follows. No possessive
# groups here: Python before 3.11.5 takes half an alternative that failed (gh-106052).
_HEADER_PARAMS = re.compile(r'(?:[ \t]*;(?:[^"<>,]|"(?:[^"\\]|\\.)*")*)?', re.DOTALL)
_PARAM = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_NOT_USER = re.compile(r"[^ -~]|%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_UNRESERVED = re.compile(r"[A-Za-z0-9_.!~*'()-]")


def unescape(text: str) -> str:
    """Text with its percent-escapes decoded, whatever they hide (RFC 3261 §19.1.2)."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), text)


def unfold(value: str) -> str:
    """One line from a folded header value (RFC 3261 §7.3.1), stripped at both ends."""
    if "\n" in value:
        value = _FOLD.sub(" ", value)
    return value.strip(" \t\r\n")


def split_list(value: str) -> list[str]:
    """Split a comma-separated header value; commas in quotes and angle brackets stay.

    Source: RFC 3261 §7.3.1. Empty elements are dropped. Nothing is validated.
    """
    if "," not in value:
        value = value.strip()
        return [value] if value else []
    parts: list[str] = []
    start = 0
    quoted = bracketed = False
    skip = -1
    for match in _LIST_SPECIAL.finditer(value):
        position, char = match.start(), match.group()
        if position == skip:
            continue
        if quoted:
            if char == "\\":
                skip = position + 1
            elif char == '"':
                quoted = False
        elif bracketed:
            bracketed = char != ">"
        elif char == '"':
            quoted = True
        elif char == "<":
            bracketed = True
        elif char == ",":
            parts.append(value[start:position])
            start = position + 1
    parts.append(value[start:])
    return [part for part in map(str.strip, parts) if part]


@dataclass(frozen=True, slots=True)
class NameAddr:
    """A From, To or P-Asserted-Identity value: ``prefix`` + URI + ``suffix`` is the input.

    ``prefix`` holds the display name and the opening bracket, ``suffix`` the closing one and
    the header parameters, so that a caller can change the URI and nothing else.
    """

    prefix: str
    uri: str
    suffix: str

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Parse one name-addr or addr-spec (RFC 3261 §25.1, §20.10).

        Raises:
            SipSyntaxError: the text is neither, or longer than `MAX_ADDRESS_LENGTH`.
        """
        if len(text) > MAX_ADDRESS_LENGTH:
            raise SipSyntaxError(f"address of {len(text)} characters, at most {MAX_ADDRESS_LENGTH}")
        text = unfold(text)
        if _CONTROL.search(text):
            raise SipSyntaxError("control character in an address")
        after_display = 0
        if text.startswith('"'):
            quoted = _QUOTED.match(text)
            if quoted is None:
                raise SipSyntaxError("display name without its closing quote")
            after_display = quoted.end()
        opening = text.find("<", after_display)
        if opening < 0:
            if after_display:
                raise SipSyntaxError("display name without an address in <>")
            # RFC 3261 §20.10: without angle brackets everything after ";" belongs to the header,
            # and a URI with a comma MUST have them.
            uri = text.partition(";")[0]
            if _LIST_SPECIAL.search(uri):
                raise SipSyntaxError("an address without <> that needs them")
            return cls("", uri.rstrip(), _header_params(text, len(uri)))
        between = text[after_display:opening]
        if between.strip() if after_display else _BAD_DISPLAY.search(between):
            raise SipSyntaxError("text between the display name and <")
        closing = text.find(">", opening)
        if closing < 0:
            raise SipSyntaxError("address without its closing >")
        uri = text[opening + 1 : closing].strip()
        return cls(text[: opening + 1], uri, ">" + _header_params(text, closing + 1))

    @property
    def display_name(self) -> str:
        """The display name, its quotation marks and escapes taken off; ``""`` where there is none."""
        name = self.prefix.removesuffix("<").strip()
        return _QUOTED_PAIR.sub(r"\1", name[1:-1]) if name.startswith('"') else name

    def with_uri(self, uri: str) -> str:
        """The header value with another URI, always in angle brackets."""
        return f"{self.prefix}{uri}{self.suffix}" if self.prefix else f"<{uri}>{self.suffix}"

    def param(self, name: str) -> str | None:
        """A header parameter's value, ``""`` for one without a value, None where absent."""
        return _params(self.suffix.lstrip(">")).get(name)


def _header_params(text: str, start: int) -> str:
    params = _HEADER_PARAMS.fullmatch(text, start)
    if params is None:
        raise SipSyntaxError("no header parameters after the address")
    return params.group()


def _params(text: str) -> dict[str, str]:
    """``;a=1;b`` as a mapping with lower-case names; the first of a repeated name wins."""
    params: dict[str, str] = {}
    for item in _PARAM.findall(text) if '"' in text else text.split(";"):
        name, _, value = item.partition("=")
        if name := name.strip(" \t"):
            params.setdefault(name.lower(), value.strip(" \t"))
    return params


def _user(text: str) -> str:
    if _NOT_USER.search(text):
        raise SipSyntaxError("a character in the user part that is not printable ASCII, or a lone %")
    return text


@dataclass(frozen=True, slots=True)
class Uri:
    """A sip:, sips:, tel: or urn: URI, taken apart but not normalised.

    ``user`` is the user part before its parameters and password, percent-escapes undecoded;
    for tel: the number, for urn: everything after the scheme. ``user_params`` are those inside
    the user part (RFC 3261 §19.1.6, RFC 4904; for tel: the URI's own parameters).
    """

    scheme: str
    user: str
    user_params: dict[str, str]
    host: str
    params: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Parse one URI (RFC 3261 §25.1, RFC 3966 §3).

        Raises:
            SipSyntaxError: another scheme, or not a URI of its scheme.
        """
        scheme, colon, rest = text.partition(":")
        scheme = scheme.lower()
        if not colon or not rest:
            raise SipSyntaxError("not a URI")
        if scheme == "tel":
            number, _, tel_params = rest.partition(";")
            return cls(scheme, _user(number), _params(tel_params), "", {})
        if scheme == "urn":
            return cls(scheme, _user(rest), {}, "", {})
        if scheme not in {"sip", "sips"}:
            raise SipSyntaxError("a URI scheme other than sip, sips, tel, urn")
        # RFC 3261 §25.1: the user part may hold "?", so headers are looked for behind it.
        userinfo, at, hostpart = rest.partition("@") if "@" in rest else ("", "", rest)
        hostpart = hostpart.partition("?")[0]
        if "@" in hostpart:
            raise SipSyntaxError("more than one @ in a SIP URI")
        hostport, _, uri_params = hostpart.partition(";")
        host = _HOST.fullmatch(hostport)
        if host is None or (at and not userinfo):
            raise SipSyntaxError("not a SIP URI")
        # RFC 3261 §25.1: userinfo = ( user / telephone-subscriber ) [ ":" password ] "@"
        user, _, user_params = userinfo.partition(":")[0].partition(";")
        return cls(scheme, _user(user), _params(user_params), host.group(1).lower(), _params(uri_params))

    def decoded_user(self) -> str:
        """``user`` with its percent-escapes decoded (RFC 3261 §19.1.2).

        Raises:
            SipSyntaxError: an escape that is not a printable ASCII character.
        """
        if "%" not in self.user:
            return self.user
        decoded = unescape(self.user)
        if not decoded.isascii() or not decoded.isprintable():
            raise SipSyntaxError("a percent-escape that is not printable ASCII")
        return decoded

    def canonical(self) -> str:
        """``scheme:user@host`` by RFC 8224 §8.5, for ``uri`` claims.

        Drops parameters, headers, port and password, lower-cases, and decodes the escapes of
        unreserved characters.
        """

        def decode(match: re.Match[str]) -> str:
            char = chr(int(match.group(1), 16))
            return char if _UNRESERVED.fullmatch(char) else match.group().upper()

        user = _ESCAPE.sub(decode, self.user)
        lowered = re.sub(r"%[0-9A-F]{2}|[^%]+", lambda m: m.group() if m.group()[0] == "%" else m.group().lower(), user)
        if not self.host:
            return f"{self.scheme}:{lowered}"
        return f"{self.scheme}:{lowered}@{self.host}" if lowered else f"{self.scheme}:{self.host}"


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(
    rf"(?:{'|'.join(_WEEKDAYS)}), ([0-9]{{2}}) ({'|'.join(_MONTHS)}) ([0-9]{{4}}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


def parse_date(value: str) -> int:
    """POSIX seconds from a SIP Date header (RFC 3261 §20.17: rfc1123-date, always GMT).

    Raises:
        SipSyntaxError: not such a date.
    """
    match = _DATE.fullmatch(value.strip())
    if match is None:
        raise SipSyntaxError("not a SIP date such as 'Sat, 13 Nov 2010 23:29:00 GMT'")
    day, month, year, hour, minute, second = match.groups()
    try:
        moment = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except ValueError as exc:
        raise SipSyntaxError("a date that does not exist") from exc
    return timegm(moment.timetuple())


def format_date(now: float) -> str:
    """A SIP Date header value for POSIX seconds, the fraction cut off."""
    return _formatted(int(now))


@lru_cache(16)
def _formatted(now: int) -> str:
    moment = datetime.fromtimestamp(now, UTC)
    # Not strftime: %a and %b follow the locale of the switch.
    return (
        f"{_WEEKDAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04} "
        f"{moment:%H:%M:%S} GMT"
    )


COMPACT_NAMES: Final = {
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "v": "via",
    "l": "content-length",
    "c": "content-type",
    "y": "identity",
}
"""Compact header names this package meets (RFC 3261 §7.3.3; ``y`` RFC 8224 §13.1)."""

_REQUEST_LINE = re.compile(r"([A-Z]+) (\S+) SIP/2\.0")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Request:
    """A whole SIP request: start line, headers in order with full lower-case names, body."""

    method: str
    uri: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @classmethod
    def parse(cls, data: bytes) -> Request:
        """Parse a request as captured (RFC 3261 §7); line ends CRLF or LF.

        Bytes that are not UTF-8 survive as surrogate escapes, so that the header they stand in
        can be refused by name.

        Raises:
            SipSyntaxError: not a SIP request, or longer than `MAX_MESSAGE_LENGTH`.
        """
        if len(data) > MAX_MESSAGE_LENGTH:
            raise SipSyntaxError(f"a message of {len(data)} bytes, at most {MAX_MESSAGE_LENGTH}")
        text = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").lstrip("\n")
        head, _, body = text.partition("\n\n")
        first, _, rest = head.partition("\n")
        start = _REQUEST_LINE.fullmatch(first.rstrip())
        if start is None:
            raise SipSyntaxError("the first line is not 'METHOD uri SIP/2.0'")
        headers: list[tuple[str, str]] = []
        for line in _FOLD.sub(" ", rest).split("\n"):
            if not line:
                continue
            name, colon, value = line.partition(":")
            name = name.rstrip(" \t").lower()
            if not colon or _HEADER_NAME.fullmatch(name) is None:
                raise SipSyntaxError(f"header line {len(headers) + 2} has no 'Name:'")
            headers.append((COMPACT_NAMES.get(name, name), value.strip()))
        return cls(start.group(1), start.group(2), tuple(headers), body)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a header, in order; ``name`` in lower case."""
        return tuple(value for header, value in self.headers if header == name)

    def first(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((value for header, value in self.headers if header == name), None)
