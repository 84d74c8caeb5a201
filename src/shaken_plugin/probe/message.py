"""SIP messages as they stood on the wire, so that what a PBX did to a header line can be shown.

`core.sip.Request` reads a request for its meaning: it unfolds, strips and lower-cases. Here every
line stays as it came; the meaning is asked for by `Message.values` and `Message.call`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.sip import COMPACT_NAMES, MAX_MESSAGE_LENGTH, Request, unfold
from shaken_plugin.errors import SipSyntaxError

MAX_LINES: Final = 512
"""Most header lines of one message; a real INVITE over several proxies has about forty."""

_REQUEST = re.compile(r"([A-Z]{1,32}) (\S+) SIP/2\.0")
_STATUS = re.compile(r"SIP/2\.0 ([1-6][0-9]{2})(?: (.*))?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """One header line: ``name`` as written, ``value`` with its folds, white space at both ends off."""

    name: str
    value: str

    @property
    def full_name(self) -> str:
        """The full name in lower case."""
        name = self.name.lower()
        return COMPACT_NAMES.get(name, name)

    @property
    def unfolded(self) -> str:
        """The value on one line."""
        return unfold(self.value)

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


@dataclass(frozen=True, slots=True)
class Message:
    """A SIP request or response.

    ``raw`` are its bytes. Bytes that are not UTF-8 are surrogate escapes in the texts.
    """

    raw: bytes
    start: str
    lines: tuple[HeaderLine, ...]
    body: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Message:
        """Take a message apart (RFC 3261 §7); line ends CRLF or LF.

        Raises:
            SipSyntaxError: not SIP, longer than `core.sip.MAX_MESSAGE_LENGTH`, or of too many lines.
        """
        if len(raw) > MAX_MESSAGE_LENGTH:
            raise SipSyntaxError(f"a message of {len(raw)} bytes, at most {MAX_MESSAGE_LENGTH}")
        raw = raw.lstrip(b"\r\n")
        end = re.search(rb"\r?\n\r?\n", raw)
        head, body = (raw, b"") if end is None else (raw[: end.start()], raw[end.end() :])
        first, _, rest = head.decode("utf-8", "surrogateescape").replace("\r\n", "\n").partition("\n")
        if _REQUEST.fullmatch(first.rstrip()) is None and _STATUS.fullmatch(first.rstrip()) is None:
            raise SipSyntaxError("the first line is neither 'METHOD uri SIP/2.0' nor 'SIP/2.0 status'")
        return cls(raw, first.rstrip(), tuple(_header_lines(rest)), body)

    @property
    def method(self) -> str:
        """The request's method; of a response, that of its CSeq."""
        if match := _REQUEST.fullmatch(self.start):
            return match.group(1)
        return self.first("cseq").rpartition(" ")[2]

    @property
    def uri(self) -> str:
        """The Request-URI, empty for a response."""
        match = _REQUEST.fullmatch(self.start)
        return match.group(2) if match else ""

    @property
    def status(self) -> int | None:
        """The status code; None for a request."""
        match = _STATUS.fullmatch(self.start)
        return int(match.group(1)) if match else None

    def all(self, name: str) -> tuple[HeaderLine, ...]:
        """The lines of a header in order, full and compact names alike; ``name`` full, in lower case."""
        return tuple(line for line in self.lines if line.full_name == name)

    def values(self, name: str) -> tuple[str, ...]:
        """The values of a header, each on one line."""
        return tuple(line.unfolded for line in self.all(name))

    def first(self, name: str) -> str:
        """The first value of a header, empty where there is none."""
        return next(iter(self.values(name)), "")

    @property
    def call_id(self) -> str:
        """The Call-ID, empty where there is none."""
        return self.first("call-id")

    @property
    def is_initial_invite(self) -> bool:
        """Whether it is an INVITE that begins a call."""
        return self.status is None and self.method == "INVITE" and "tag" not in _parameters(self.first("to"))

    @property
    def transaction(self) -> tuple[str, str, str]:
        """What a retransmission has in common with the first: branch, Call-ID, CSeq (RFC 3261 §17.2.3)."""
        return _parameters(self.first("via")).get("branch", ""), self.call_id, self.first("cseq")

    def call(self) -> CallMessage | None:
        """The message as a verifier sees it; None where it cannot read it."""
        try:
            return CallMessage.from_request(Request.parse(self.raw))
        except SipSyntaxError:
            return None


def _header_lines(text: str) -> Iterator[HeaderLine]:
    lines: list[list[str]] = []
    for line in text.split("\n"):
        if line[:1] in {" ", "\t"} and lines:
            lines[-1].append(line)
        elif line:
            lines.append([line])
    if len(lines) > MAX_LINES:
        raise SipSyntaxError(f"more than {MAX_LINES} header lines")
    for parts in lines:
        name, colon, value = "\n".join(parts).partition(":")
        if not colon or _NAME.fullmatch(name.rstrip(" \t")) is None:
            raise SipSyntaxError("a header line without 'Name:'")
        yield HeaderLine(name.rstrip(" \t"), value.strip(" \t\r\n"))


def _parameters(value: str) -> dict[str, str]:
    """The header parameters behind an address or a Via; the first of a repeated name wins."""
    tail = value.rpartition(">")[2] if ">" in value else value.partition(";")[2]
    found: dict[str, str] = {}
    for item in tail.split(";"):
        name, _, text = item.partition("=")
        found.setdefault(name.strip().lower(), text.strip())
    return found


def parameter(value: str, name: str) -> str:
    """A header parameter of a From, To or Via value, empty where it is absent."""
    return _parameters(value).get(name, "")


class Stream:
    """Cuts a TCP stream into messages by their Content-Length (RFC 3261 §18.3)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        """Bytes that hold no end of a head."""
        self._needed: int | None = None
        """Bytes of the message that has begun, once its head is there."""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with these bytes.

        Raises:
            SipSyntaxError: what came is not SIP; the connection is of no more use.
        """
        self._buffer += data
        while self._needed is not None or self._begin():
            assert self._needed is not None
            if len(self._buffer) < self._needed:
                return
            raw = bytes(self._buffer[: self._needed])
            del self._buffer[: self._needed]
            self._needed, self._searched = None, 0
            yield Message.parse(raw)

    def _begin(self) -> bool:
        """Whether the head of the next message is there; then it is known how long the message is.

        Bytes that were looked at are not looked at again: they may come one at a time.
        """
        if not self._searched:
            # RFC 5626 §3.5.1: keep-alives are empty lines between the messages.
            del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))]
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self._buffer)
            if len(self._buffer) > MAX_MESSAGE_LENGTH:
                raise SipSyntaxError("a message without an end")
            return False
        length = Message.parse(bytes(self._buffer[: end + 4])).first("content-length")
        # RFC 3261 §20.14: over a stream the header MUST be there; without it there is no body.
        if length and _LENGTH.fullmatch(length) is None:
            raise SipSyntaxError("Content-Length is no number of bytes")
        self._needed = end + 4 + int(length or 0)
        if self._needed > MAX_MESSAGE_LENGTH:
            raise SipSyntaxError(f"a message of {self._needed} bytes, at most {MAX_MESSAGE_LENGTH}")
        return True
