"""A caller and a called party on loopback who measure how long a call takes to get through what is between them.

Measured is what passes between INVITE being sent and its arriving at the called party, and between the 200 being sent
and its arriving at the caller. Arrivals are stamped by the kernel; so neither the time in which these two answer
counts, nor how late Python gets its turn. SIPp's own clock moves in steps of four milliseconds.
"""

from __future__ import annotations

import random
import re
import select
import socket
import struct
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from bench.results import BenchError
from bench.stage import CALLED
from shaken_plugin.lab.servers import LOOPBACK

PATIENCE: Final = 2.0
"""Seconds after the last INVITE; a call that is not through by then is lost."""

_STAMPS: Final = 35  # SO_TIMESTAMPNS of asm-generic/socket.h: a struct timespec beside each datagram
_STAMP: Final = struct.Struct("@qq")
_CALL_ID: Final = re.compile(rb"^Call-ID: (\S+)", re.MULTILINE | re.IGNORECASE)
_KEPT: Final = re.compile(rb"^(?:Via|Record-Route|From|Call-ID|CSeq): [^\r]*\r\n", re.MULTILINE | re.IGNORECASE)
_TO: Final = re.compile(rb"^(To: [^\r]*)", re.MULTILINE | re.IGNORECASE)
_FROM: Final = re.compile(rb"^(From: [^\r]*)", re.MULTILINE | re.IGNORECASE)
_ROUTE: Final = re.compile(rb"^Record-Route: ([^\r]*)", re.MULTILINE | re.IGNORECASE)
_CONTACT: Final = re.compile(rb"^Contact: <([^>]*)>", re.MULTILINE | re.IGNORECASE)


@dataclass(slots=True)
class _Times:
    """When the messages of one call were sent and arrived; nanoseconds."""

    sent: int
    arrived: int = 0
    answered: int = 0
    through: int = 0

    def setup(self) -> float:
        """Seconds that its INVITE and its 200 were between the two."""
        return (self.arrived - self.sent + self.through - self.answered) / 1e9


@dataclass(slots=True)
class Outcome:
    """Of calls: how long each was under way, how many did not get through, and the INVITEs that arrived.

    Behind a B2BUA, which gives calls other Call-IDs, it is not known how long.
    """

    setups: list[float] = field(default_factory=list)
    lost: int = 0
    invites: list[bytes] = field(default_factory=list)


class Phones:
    """Both parties, each with one socket.

    Args:
        caller: address of the calling one.
        number: from which it calls, digits.
        port: of the called one; 0 for any.
    """

    def __init__(self, caller: str, number: str, port: int = 0) -> None:
        self._caller, self._called = _socket(caller, 0), _socket(LOOPBACK, port)
        self._address = "{}:{}".format(*self._caller.getsockname())
        self._number, self._open, self._seen = number, dict[bytes, _Times](), set[bytes]()
        self._outcome = Outcome()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caller.close()
        self._called.close()

    @property
    def port(self) -> int:
        """Where the called one listens."""
        return int(self._called.getsockname()[1])

    def place(
        self, proxy: int, headers: Sequence[str], rate: float, draw: random.Random, patience: float = PATIENCE
    ) -> Outcome:
        """Place calls and wait for their end; they come by chance, as calls do (exponential gaps).

        Args:
            proxy: port of what is between the two.
            headers: of each call a line, or nothing.
            rate: calls a second, on average.
            draw: the chance.
            patience: seconds after the last INVITE.
        """
        self._outcome, self._open, self._seen = Outcome(), {}, set()
        due = time.monotonic()
        for header in headers:
            due += draw.expovariate(rate)
            self._serve(due, proxy)
            call_id = uuid.uuid4().hex
            text = self._invite(call_id, header)
            self._open[call_id.encode()] = _Times(time.time_ns())
            self._caller.sendto(text, (LOOPBACK, proxy))
        self._serve(time.monotonic() + patience, proxy, until_done=True)
        self._outcome.lost = len(self._open)
        return self._outcome

    def _serve(self, until: float, proxy: int, *, until_done: bool = False) -> None:
        """Answer what arrives until a moment, or until no call is open."""
        while (wait := until - time.monotonic()) > 0 and not (until_done and not self._open):
            for ready in select.select([self._caller, self._called], (), (), wait)[0]:
                data, ancillary, _, source = ready.recvmsg(65_535, 64)
                seconds, rest = _STAMP.unpack(ancillary[0][2][: _STAMP.size])
                if ready is self._called:
                    self._take_request(data, seconds * 10**9 + rest, source)
                else:
                    self._take_answer(data, seconds * 10**9 + rest, proxy)

    def _take_request(self, data: bytes, at: int, source: tuple[str, int]) -> None:
        method, found = data.partition(b" ")[0], _CALL_ID.search(data)
        if method == b"ACK" or found is None:
            return
        is_new = method == b"INVITE" and found[1] not in self._seen
        answer = _answer(data, self.port, _SDP if method == b"INVITE" else "")
        if is_new:
            self._seen.add(found[1])
            self._outcome.invites.append(data)
        if is_new and (times := self._open.get(found[1])) is not None:
            times.arrived, times.answered = at, time.time_ns()
        self._called.sendto(answer, source)

    def _take_answer(self, data: bytes, at: int, proxy: int) -> None:
        found = _CALL_ID.search(data)
        times = self._open.get(found[1]) if found else None
        if found is None or times is None or not data.startswith(b"SIP/2.0 2"):
            return
        if b" BYE\r\n" in data:
            if times.arrived:
                self._outcome.setups.append(times.setup())
            del self._open[found[1]]
            return
        times.through = times.through or at
        for method in ("ACK", "BYE"):
            self._caller.sendto(self._within(method, data), (LOOPBACK, proxy))

    def _invite(self, call_id: str, header: str) -> bytes:
        return (
            f"INVITE sip:+{CALLED}@{LOOPBACK};user=phone SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self._address};branch=z9hG4bK{call_id}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:+{self._number}@{self._address};user=phone>;tag={call_id[:8]}\r\n"
            f"To: <sip:+{CALLED}@{LOOPBACK};user=phone>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n"
            f"Contact: <sip:{self._address}>\r\n{header}"
            f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n\r\n{_SDP}"
        ).encode()

    def _within(self, method: str, answer: bytes) -> bytes:
        """A request of the caller in the dialog that an answer has made."""
        contact, to, by, call_id = (_in(answer, field) for field in (_CONTACT, _TO, _FROM, _CALL_ID))
        routes = b"".join(b"Route: %b\r\n" % route for route in reversed(_ROUTE.findall(answer)))
        name, number = method.encode(), 1 if method == "ACK" else 2
        via = f"SIP/2.0/UDP {self._address};branch=z9hG4bK{uuid.uuid4().hex}".encode()
        return b"%b %b SIP/2.0\r\nVia: %b\r\nMax-Forwards: 70\r\n%b%b\r\n%b\r\nCall-ID: %b\r\nCSeq: %d %b\r\n%b" % (
            name, contact, via, routes, by, to, call_id, number, name, b"Content-Length: 0\r\n\r\n",
        )  # fmt: skip


_SDP: Final = f"v=0\r\no=- 1 1 IN IP4 {LOOPBACK}\r\ns=-\r\nc=IN IP4 {LOOPBACK}\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n"


def _answer(request: bytes, port: int, body: str) -> bytes:
    """200 to a request, with a tag of the called party's."""
    to = _in(request, _TO)
    tag = b"" if b";tag=" in to else b";tag=called"
    kept = b"".join(_KEPT.findall(request))
    kind = "Content-Type: application/sdp\r\n" if body else ""
    rest = f"Contact: <sip:{LOOPBACK}:{port}>\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}"
    return b"SIP/2.0 200 OK\r\n%b%b%b\r\n%b" % (kept, to, tag, rest.encode())


def _in(message: bytes, field: re.Pattern[bytes]) -> bytes:
    """What a message has in a field that each of its kind has."""
    found = field.search(message)
    if found is None:
        raise BenchError(f"a message without a field that it must have: {message!r}")
    return found[1]


def _socket(address: str, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
    found.setsockopt(socket.SOL_SOCKET, _STAMPS, 1)
    found.bind((address, port))
    return found
