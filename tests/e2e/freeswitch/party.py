"""A telephone that calls, answers, transfers, and keeps every byte: both ends of the calls of these tests."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_numbers = itertools.count(1)

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Message:
    """One SIP message, as it arrived."""

    raw: bytes
    source: tuple[str, int] = (LOOPBACK, 0)

    @property
    def text(self) -> str:
        return self.raw.decode("utf-8", "surrogateescape")

    @property
    def lines(self) -> list[str]:
        return self.text.partition("\r\n\r\n")[0].split("\r\n")

    @property
    def first_line(self) -> str:
        return self.lines[0]

    @property
    def method(self) -> str:
        return self.first_line.partition(" ")[0]

    @property
    def uri(self) -> str:
        return self.first_line.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.first_line.split(" ")[1])

    @property
    def phrase(self) -> str:
        return self.first_line.split(" ", 2)[2]

    def all(self, name: str) -> list[str]:
        """The values of the header fields of exactly this name, in order; names are compared without case."""
        pairs = (line.partition(":") for line in self.lines[1:])
        return [value.strip(" ") for head, _, value in pairs if head.strip().lower() == name.lower()]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    def identity(self) -> list[str]:
        """The Identity fields under either name, in order."""
        pairs = (line.partition(":") for line in self.lines[1:])
        return [value.strip(" ") for head, _, value in pairs if head.strip().lower() in {"identity", "y"}]


Step = tuple[float, bytes]
"""Seconds to wait, then a status line with header fields."""

RINGS: Step = (0.0, b"180 Ringing")
ANSWERS: Step = (0.0, b"200 OK")

Behaviour = Callable[[Message], Sequence[Step]]


class Party:
    """A user agent on a loopback address, by UDP.

    Args:
        address: of its socket.
        behave: what it does about an INVITE; by default it rings and answers.
    """

    def __init__(self, address: str = LOOPBACK, behave: Behaviour | None = None) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self.socket.bind((address, 0))
        self.address, self.port = self.socket.getsockname()
        self.behave: Behaviour = behave or (lambda _: (RINGS, ANSWERS))
        self.received: list[Message] = []
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        # An empty datagram to itself ends the thread.
        self.socket.sendto(b"", (self.address, self.port))
        self._thread.join(5)
        self.socket.close()

    @property
    def target(self) -> str:
        return f"{self.address}:{self.port}"

    # --- what arrived --------------------------------------------------------------------------

    def wait(self, found: Callable[[Message], bool], seconds: float = 5.0, count: int = 1) -> list[Message]:
        """The messages that a test waits for.

        Raises:
            AssertionError: they did not come in time.
        """
        with self._more:
            there = self._more.wait_for(lambda: sum(map(found, self.received)) >= count, seconds)
            assert there, [message.first_line for message in self.received]
            return [message for message in self.received if found(message)]

    def invites(self) -> list[Message]:
        """Each initial INVITE once, in order."""
        seen: dict[str, Message] = {}
        for message in list(self.received):
            if message.method == "INVITE" and "tag=" not in message.one("To"):
                seen.setdefault(message.all("Via")[0], message)
        return list(seen.values())

    def invite(self, number: int = -1, seconds: float = 5.0) -> Message:
        """The last initial INVITE, or another."""
        self.wait(lambda message: message.method == "INVITE", seconds)
        return self.invites()[number]

    def forget(self) -> None:
        """What arrived so far is of no interest."""
        self.received.clear()

    def _run(self) -> None:
        while True:
            data, source = self.socket.recvfrom(65_535)
            if not data:
                return
            message = Message(data, source)
            is_new = data not in (earlier.raw for earlier in list(self.received))
            with self._more:
                self.received.append(message)
                self._more.notify_all()
            if is_new and not data.startswith(b"SIP/2.0"):
                self._serve(message)

    def _serve(self, request: Message) -> None:
        if request.method == "INVITE":
            steps = (ANSWERS,) if "tag=" in request.one("To") else self.behave(request)
            if any(wait for wait, _ in steps):
                threading.Thread(target=self._answer, args=(request, steps), daemon=True).start()
            else:
                self._answer(request, steps)
        elif request.method != "ACK":
            self.answer(request, b"200 OK")

    def _answer(self, request: Message, steps: Sequence[Step]) -> None:
        for wait, status in steps:
            time.sleep(wait)
            self.answer(request, status)

    def answer(self, request: Message, status: bytes) -> None:
        """Answer a request; ``status`` is the status line's end, with further header fields."""
        head, _, extra = status.partition(b"\r\n")
        to = request.one("To")
        if "tag=" not in to:
            to += f";tag=called-{self.port}"
        lines = [b"SIP/2.0 " + head]
        copied = [f"{name}: {value}" for name in ("Via", "Record-Route") for value in request.all(name)]
        copied += [f"{name}: {request.one(name)}" for name in ("From", "Call-ID", "CSeq")]
        lines += [line.encode("utf-8", "surrogateescape") for line in (*copied, f"To: {to}")]
        if b"contact:" not in extra.lower():
            lines += [f"Contact: <sip:{self.target}>".encode()]
        if extra:
            lines += extra.split(b"\r\n")
        body = self.sdp() if request.method == "INVITE" and head.startswith(b"200") else b""
        self.socket.sendto(_finish(lines, body), request.source)

    def sdp(self) -> bytes:
        return (
            f"v=0\r\no=- 1 1 IN IP4 {self.address}\r\ns=-\r\nc=IN IP4 {self.address}\r\nt=0 0\r\n"
            f"m=audio {20_000 + self.port % 10_000} RTP/AVP 0\r\n"
        ).encode()

    # --- calling -------------------------------------------------------------------------------

    def request(
        self, extra: bytes = b"", *, number: str = "+12155551212", to: str = "+12025550143", **parts: str
    ) -> bytes:
        """An INVITE with SDP; ``extra``: header lines with their line breaks; ``parts``: ruri, to_value, from_value."""
        tag = f"{self.port}-{next(_numbers)}"
        lines = [
            f"INVITE {parts.get('ruri') or f'sip:{to}@{LOOPBACK};user=phone'} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.target};branch=z9hG4bK{tag}",
            "Max-Forwards: 70",
            f"From: {parts.get('from_value') or f'<sip:{number}@{self.address};user=phone>'};tag={tag}",
            f"To: {parts.get('to_value') or f'<sip:{to}@{LOOPBACK};user=phone>'}",
            f"Call-ID: {tag}@{self.address}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:caller@{self.target}>",
        ]
        encoded = [line.encode("utf-8", "surrogateescape") for line in lines]
        return _finish([*encoded, *([extra.removesuffix(b"\r\n")] if extra else [])], self.sdp())

    def send(self, data: bytes, port: int) -> None:
        self.socket.sendto(data, (LOOPBACK, port))

    def call(
        self, port: int, extra: bytes = b"", *, seconds: float = 5.0, raw: bytes | None = None, **parts: str
    ) -> Call:
        """Place a call and wait for its final answer, which is acknowledged."""
        data = raw if raw is not None else self.request(extra, **parts)
        call = Call(self, Message(data), port)
        self.send(data, port)
        call.finish(seconds)
        return call

    def ask(
        self, port: int, extra: bytes = b"", *, seconds: float = 5.0, raw: bytes | None = None, **parts: str
    ) -> Message:
        """Place a call, end it at once where it is answered, and return the final answer."""
        call = self.call(port, extra, seconds=seconds, raw=raw, **parts)
        if call.final.status < 300:
            call.bye()
        return call.final


@dataclass
class Call:
    """A call that a `Party` placed."""

    party: Party
    invite: Message
    port: int
    _cseq: int = 1

    @property
    def call_id(self) -> str:
        return self.invite.one("Call-ID")

    def answers(self) -> list[Message]:
        """The answers to the INVITE so far."""
        return [
            message
            for message in list(self.party.received)
            if message.raw.startswith(b"SIP/2.0")
            and message.one("Call-ID") == self.call_id
            and message.one("CSeq").endswith("INVITE")
        ]

    def finish(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(answer.status >= 200 for answer in self.answers()):
                self._acknowledge()
                return
            with self.party._more:
                self.party._more.wait(0.05)
        raise AssertionError(f"no final answer, but {[answer.first_line for answer in self.answers()]}")

    @property
    def final(self) -> Message:
        return next(answer for answer in self.answers() if answer.status >= 200)

    def _acknowledge(self) -> None:
        via = self.invite.one("Via") if self.final.status >= 300 else None
        self.party.send(self._inside("ACK", 1, via=via), self.port)

    def _inside(self, method: str, cseq: int, extra: bytes = b"", via: str | None = None, body: bytes = b"") -> bytes:
        contact = re.search(r"<([^>]+)>", (self.final.all("Contact") or ["<sip:x>"])[0])
        assert contact is not None
        uri = contact.group(1) if self.final.status < 300 else self.invite.uri
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: {via or f'SIP/2.0/UDP {self.party.target};branch=z9hG4bK{next(_numbers)}x{self.party.port}'}",
            "Max-Forwards: 70",
            f"From: {self.invite.one('From')}",
            f"To: {self.final.one('To')}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:caller@{self.party.target}>",
        ]
        if self.final.status < 300:  # by the way that the call went (RFC 3261 §12.2.1.1)
            lines += [f"Route: {route}" for route in reversed(self.final.all("Record-Route"))]
        encoded = [line.encode("utf-8", "surrogateescape") for line in lines]
        return _finish([*encoded, *([extra.removesuffix(b"\r\n")] if extra else [])], body)

    def inside(self, method: str, extra: bytes = b"", body: bytes = b"") -> Message:
        """Send a request inside the dialog, and return its final answer."""
        self._cseq += 1
        cseq = f"{self._cseq} {method}"
        self.party.send(self._inside(method, self._cseq, extra, body=body), self.port)
        return self.party.wait(
            lambda message: (
                message.raw.startswith(b"SIP/2.0")
                and message.one("Call-ID") == self.call_id
                and message.one("CSeq") == cseq
                and message.status >= 200
            )
        )[0]

    def bye(self) -> None:
        self.inside("BYE")

    def refer(self, to: str) -> Message:
        """Transfer the other end to a URI (RFC 3515)."""
        return self.inside("REFER", f"Refer-To: <{to}>\r\nReferred-By: <sip:{self.party.target}>\r\n".encode())

    @property
    def replaces(self) -> str:
        """The Replaces parameter of a Refer-To, escaped (RFC 3891)."""
        tags = [re.search(r"tag=([^;>]+)", self.final.one(name)) for name in ("To", "From")]
        assert all(tags)
        to, own = (tag.group(1) for tag in tags if tag)
        return f"{self.call_id}%3Bto-tag%3D{to}%3Bfrom-tag%3D{own}".replace("@", "%40")


def called_call(party: Party, invite: Message) -> Call:
    """The dialog of a call that a party answered, from its own side: ``bye``, ``refer`` work on it."""
    own = Message(
        "\r\n".join(
            [
                "INVITE sip:x SIP/2.0",
                f"From: {invite.one('To')};tag=called-{party.port}",
                f"Call-ID: {invite.one('Call-ID')}",
                "",
                "",
            ]
        ).encode()
    )
    call = _Called(party, own, invite.source[1])
    call.other = invite
    return call


@dataclass
class _Called(Call):
    other: Message | None = None

    @property
    def final(self) -> Message:
        assert self.other is not None
        contact = self.other.one("Contact")
        return Message(f"SIP/2.0 200 OK\r\nTo: {self.other.one('From')}\r\nContact: {contact}\r\n\r\n".encode())


def _finish(lines: Sequence[bytes], body: bytes) -> bytes:
    kind = [b"Content-Type: application/sdp"] if body else []
    head = [*lines, *kind, f"Content-Length: {len(body)}".encode()]
    return b"\r\n".join(head) + b"\r\n\r\n" + body
