"""SIP out of a pcap or pcapng file: UDP with its fragments put together, TCP streams in order.

The file formats and the packets are read by dpkt; it puts nothing together, so that is done here,
in bounded memory. Whoever can send packets to the captured wire writes this input.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

import dpkt

from shaken_plugin.bounded import Bounded
from shaken_plugin.errors import ShakenError, SipSyntaxError
from shaken_plugin.probe.findings import Leg
from shaken_plugin.probe.message import Message, Stream

MAX_PACKETS: Final = 20_000_000
"""Most packets of a file."""

MAX_DATAGRAMS: Final = 1_024
"""Most fragmented datagrams that are waited for at a time; the older half is given up."""

MAX_STREAMS: Final = 4_096
"""Most TCP directions that are followed at a time; the oldest is given up."""

MAX_PIECES: Final = 64
"""Most fragments of a datagram; one of 64 KiB has 45 on Ethernet."""

MAX_AHEAD: Final = 16
"""Most TCP segments of a direction that are kept until an earlier one comes; then it was not captured."""

MAX_DATAGRAM: Final = 65_535

_BROKEN = (
    dpkt.Error, ValueError, IndexError, struct.error, KeyError, TypeError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip
"""What dpkt raises for packets that are none; `RecursionError` where IP is in IP is in IP, some thousand times."""

_FIRST = re.compile(
    rb"^(?:[A-Z]{1,32} [^\s]{1,2048} SIP/2\.0|SIP/2\.0 [1-6][0-9]{2}(?: [^\r\n]{0,256})?)\r\n", re.MULTILINE
)
"""Where a message begins, for streams that are read from the middle on."""

_LINKS: Final = {
    dpkt.pcap.DLT_EN10MB: dpkt.ethernet.Ethernet,
    dpkt.pcap.DLT_LINUX_SLL: dpkt.sll.SLL,
    dpkt.pcap.DLT_LINUX_SLL2: dpkt.sll2.SLL2,
    dpkt.pcap.DLT_NULL: dpkt.loopback.Loopback,
    dpkt.pcap.DLT_LOOP: dpkt.loopback.Loopback,
}
"""By link type; raw IP is told by its first digit."""

_RAW: Final = {dpkt.pcap.DLT_RAW, 12, 14, 101, 228, 229}


class CaptureError(ShakenError):
    """The file is no capture that can be read; the text says why."""


class Seen(NamedTuple):
    """A message on the wire, and between whom."""

    leg: Leg
    source: tuple[str, int]
    target: tuple[str, int]


@dataclass(slots=True)
class Losses:
    """What of a capture could not be read."""

    packets: int = 0
    """No packets, or nested too deeply."""
    gaps: int = 0
    """Holes in TCP streams: segments that were not captured."""


@dataclass(slots=True)
class _Parts:
    """Fragments of one datagram by offset, how many bytes they are, and its length once the last is there."""

    pieces: dict[int, bytes] = field(default_factory=dict)
    held: int = 0
    length: int | None = None

    def add(self, offset: int, payload: bytes, *, last: bool) -> bool:
        """Take a fragment; False where it contradicts the others, or they are too many."""
        if self.pieces.get(offset) == payload:
            return True  # captured twice, as on the interface "any"
        end = offset + len(payload)
        # RFC 5722 §4: with an overlapping fragment the whole datagram MUST be discarded.
        if any(offset < start + len(piece) and start < end for start, piece in self.pieces.items()):
            return False
        self.pieces[offset] = payload
        self.held += len(payload)
        self.length = end if last else self.length
        return len(self.pieces) <= MAX_PIECES and end <= MAX_DATAGRAM

    def joined(self) -> bytes | None:
        """The datagram, None while a part is missing."""
        if self.held != self.length:
            return None
        return b"".join(self.pieces[start] for start in sorted(self.pieces))


@dataclass(slots=True)
class _Flow:
    """One direction of a TCP connection."""

    expected: int
    seeking: bool
    """Whether it is read from the middle on, and no message has begun yet."""
    stream: Stream = field(default_factory=Stream)
    ahead: dict[int, tuple[float, bytes]] = field(default_factory=dict)


_Key = tuple[str, str, int, int]
"""Addresses and ports of a flow."""


def read_capture(data: bytes, losses: Losses | None = None) -> Iterator[Seen]:
    """The SIP messages of a capture, in order.

    Args:
        data: the file.
        losses: counts what could not be read.

    Raises:
        CaptureError: neither pcap nor pcapng, or a link type that is not known.
    """
    reader = _Reader(losses or Losses())
    try:
        packets = dpkt.pcap.UniversalReader(io.BytesIO(data))
        link = packets.datalink()
    except _BROKEN as exc:
        raise CaptureError("neither a pcap nor a pcapng file") from exc
    if link not in _LINKS and link not in _RAW:
        raise CaptureError(f"link type {link} is not known; capture with: tcpdump -i any -w FILE")
    for at, frame in _packets(packets):
        yield from reader.packet(float(at), bytes(frame), link)
    yield from reader.rest()


def _packets(packets: Any) -> Iterator[tuple[float, bytes]]:
    """What can be read; a file that breaks off ends there."""
    iterator = iter(packets)
    for _ in range(MAX_PACKETS):
        try:
            yield next(iterator)
        except (StopIteration, *_BROKEN):
            return


class _Reader:
    """Puts packets together."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._datagrams: Bounded[tuple[Any, ...], _Parts] = Bounded(MAX_DATAGRAMS)
        self._flows: dict[_Key, _Flow] = {}
        """The one that was used last is the last."""

    def packet(self, at: float, frame: bytes, link: int) -> Iterator[Seen]:
        """The messages that are complete with a frame."""
        try:
            yield from self._packet(at, frame, link)
        except _BROKEN:
            self._losses.packets += 1

    def rest(self) -> Iterator[Seen]:
        """What waits for segments that did not come: the messages behind the gaps."""
        while self._flows:
            yield from self._end(next(iter(self._flows)))

    def _packet(self, at: float, frame: bytes, link: int) -> Iterator[Seen]:
        packet = _LINKS[link](frame).data if link in _LINKS else _raw(frame)
        while not isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6):
            if not isinstance(packet, dpkt.Packet) or not isinstance(packet.data, dpkt.Packet):
                return
            packet = packet.data
        addresses = str(ip_address(packet.src)), str(ip_address(packet.dst))
        whole = self._whole(packet)
        if whole is None:
            return
        protocol, payload, fragments = whole
        if protocol == dpkt.ip.IP_PROTO_UDP:
            yield from _datagram(at, payload, addresses, fragments)
        elif protocol == dpkt.ip.IP_PROTO_TCP:
            yield from self._segment(at, payload, addresses)

    def _whole(self, packet: Any) -> tuple[int, bytes, int] | None:
        """Protocol, payload and number of fragments; None until the last of them came."""
        if isinstance(packet, dpkt.ip.IP):
            offset, more, ident = packet.offset * 8, bool(packet.mf), packet.id
            protocol, payload = packet.p, bytes(packet.data)
        else:
            part = packet.extension_hdrs.get(dpkt.ip.IP_PROTO_FRAGMENT)
            protocol, payload = packet.p, bytes(packet.data)
            if part is None:
                return protocol, payload, 1
            offset, more, ident = part.frag_off * 8, bool(part.m_flag), part.id
            protocol = part.nxt
        if not offset and not more:
            return protocol, payload, 1
        key = (packet.src, packet.dst, ident, protocol)
        parts = self._datagrams.get(key) or _Parts()
        if not parts.add(offset, payload, last=not more):
            self._datagrams.discard(key)
            return None
        joined = parts.joined()
        if joined is None:
            self._datagrams.put(key, parts)
            return None
        self._datagrams.discard(key)
        return protocol, joined, len(parts.pieces)

    def _segment(self, at: float, payload: bytes, addresses: tuple[str, str]) -> Iterator[Seen]:
        segment = dpkt.tcp.TCP(payload)
        key = (*addresses, segment.sport, segment.dport)
        first = bool(segment.flags & dpkt.tcp.TH_SYN)
        start = (segment.seq + first) & _TURN
        if first and key in self._flows:
            yield from self._end(key)  # the port is used again
        flow = self._flows.pop(key, None) or _Flow(start, seeking=not first)
        if len(self._flows) >= MAX_STREAMS:
            yield from self._end(next(iter(self._flows)))
        self._flows[key] = flow
        data = bytes(segment.data)
        if len(data) > len(flow.ahead.get(start, (at, b""))[1]):
            flow.ahead[start] = at, data
        yield from _ready(key, flow)
        while len(flow.ahead) > MAX_AHEAD:
            yield from self._skip(key, flow)

    def _end(self, key: _Key) -> Iterator[Seen]:
        """Forget a flow; what it still gives."""
        flow = self._flows.pop(key)
        while flow.ahead:
            yield from self._skip(key, flow)

    def _skip(self, key: _Key, flow: _Flow) -> Iterator[Seen]:
        """Go on behind a gap; the message that it cut is lost."""
        self._losses.gaps += 1
        # Sequence numbers turn over: the next is the nearest, not the least.
        flow.expected = min(flow.ahead, key=lambda number: (number - flow.expected) & _TURN)
        flow.stream, flow.seeking = Stream(), True
        yield from _ready(key, flow)


_TURN: Final = 0xFFFFFFFF


def _raw(frame: bytes) -> Any:
    return dpkt.ip6.IP6(frame) if frame[:1] and frame[0] >> 4 == 6 else dpkt.ip.IP(frame)


def _ready(key: _Key, flow: _Flow) -> Iterator[Seen]:
    """The messages that are complete with the segments that go on from what was read."""
    source, target, sport, dport = key
    for at, data in _in_order(flow):
        if flow.seeking:
            if (match := _FIRST.search(data)) is None:
                continue
            data, flow.seeking = data[match.start() :], False  # noqa: PLW2901  # the rest of it
        try:
            for message in flow.stream.feed(data):
                yield Seen(Leg(message, at, "tcp", 1, f"{target}:{dport}"), (source, sport), (target, dport))
        except SipSyntaxError:
            flow.stream, flow.seeking = Stream(), True  # no SIP: a later segment may begin a message


def _in_order(flow: _Flow) -> Iterator[tuple[float, bytes]]:
    """Those segments, with their times; of those that were sent again only what is new."""
    while True:
        number = next((one for one in flow.ahead if (flow.expected - one) & _TURN < 1 << 31), None)
        if number is None:
            return
        at, data = flow.ahead.pop(number)
        data = data[(flow.expected - number) & _TURN :]
        if data:
            flow.expected = (flow.expected + len(data)) & _TURN
            yield at, data


def _datagram(at: float, payload: bytes, addresses: tuple[str, str], fragments: int) -> Iterator[Seen]:
    datagram = dpkt.udp.UDP(payload)
    try:
        message = Message.parse(bytes(datagram.data))
    except SipSyntaxError:
        return
    leg = Leg(message, at, "udp", fragments, f"{addresses[1]}:{datagram.dport}")
    yield Seen(leg, (addresses[0], datagram.sport), (addresses[1], datagram.dport))
