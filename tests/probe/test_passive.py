"""The same verdicts from records and captures of what others sent."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.probe.canaries import BY_NAME, Signer, number_after
from shaken_plugin.probe.capture import CaptureError, Losses, read_capture
from shaken_plugin.probe.dialogs import Dialog, Place, answer
from shaken_plugin.probe.findings import Kind
from shaken_plugin.probe.message import HeaderLine, Message
from shaken_plugin.probe.passive import Watched, from_capture, from_records
from shaken_plugin.probe.records import read_messages
from tests.probe.fake_pbx import changed, identities
from tests.probe.test_session import keep_first, re_encode, rewrite, twice

NOW = 1_795_000_000.0
PLAN = dial_plan("US")
SIGNER = Signer.new(NOW)
CARRIER, PBX, PHONE = ("192.0.2.1", 5060), ("192.0.2.2", 5060), ("192.0.2.3", 5070)
CALLER = "+12155550199"


def invite(name: str, called: str, call_id: str) -> Message:
    lines = SIGNER.sign(BY_NAME[name], CALLER, called, NOW)
    dialog = Dialog.of_caller(
        Place("192.0.2.1", 5060, "udp"), caller=CALLER, called=called, host="192.0.2.2", call_id=call_id
    )
    return Message.parse(dialog.request("INVITE", lines))


def behind(message: Message, change: Any) -> Message:
    """As a B2BUA sends it: another Call-ID and branch, the change made."""
    (left,) = change(message)
    new = {"call-id": f"b-{message.call_id}", "via": "SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK" + message.call_id}
    return changed(left, [HeaderLine(line.name, new.get(line.full_name, line.value)) for line in left.lines])


CHANGES: list[tuple[str, Any, set[Kind]]] = [
    ("one", identities(lambda lines: lines), {Kind.INTACT}),
    ("one", identities(twice), {Kind.DUPLICATED}),
    ("two", identities(keep_first), {Kind.FIRST_ONLY}),
    ("unknown-parameters", identities(re_encode), {Kind.ALTERED}),
    ("one", identities(lambda _: []), {Kind.STRIPPED}),
    ("one", rewrite(CALLER, "anonymous"), {Kind.NUMBER_REWRITTEN}),
    ("control", identities(lambda _: []), set()),
]


def calls() -> list[tuple[Message, Message]]:
    made = []
    for index, (name, change, _) in enumerate(CHANGES):
        message = invite(name, number_after("+12025550110", index), f"c{index}@192.0.2.1")
        made.append((message, behind(message, change)))
    return made


def judged(watched: Watched) -> list[set[Kind]]:
    return [set(verdict.kinds) for verdict in watched.verdicts]


WANTED = [kinds for _, _, kinds in CHANGES if kinds]


def text_of(messages: Sequence[Message]) -> bytes:
    """A log: a line before each message, line ends of the system."""
    blocks = [
        b"2026-11-22 10:00:00.000 recv 900 bytes:\n" + message.raw.replace(b"\r\n", b"\n") + b"\n----\n"
        for message in messages
    ]
    return b"\n".join(blocks)


def test_two_records_give_the_verdicts_of_the_probe() -> None:
    before, after = zip(*calls(), strict=True)
    again = [answer(one, 100, "Trying") for one in before]
    log = text_of([*before, *before, *map(Message.parse, again)])  # retransmissions and answers are in every log
    watched = from_records(read_messages(log), read_messages(text_of(after)), PLAN)
    assert judged(watched) == WANTED
    assert (watched.unsigned, watched.unmatched) == (1, 0)
    assert [verdict.what for verdict in watched.verdicts][:2] == ["to 12025550110", "to 12025550111"]
    intact = watched.verdicts[0].verification
    assert intact is not None
    assert intact.holds
    stripped = watched.verdicts[4].verification
    assert stripped is not None
    assert stripped.code == "no_identity"


def test_a_call_that_is_missing_behind_the_pbx_is_lost_and_a_stranger_is_counted() -> None:
    (one, _), (_, stranger), *_ = calls()
    watched = from_records([one], [stranger], PLAN)
    assert judged(watched) == [{Kind.LOST_CALL}]
    assert watched.unmatched == 1


@given(st.binary(max_size=400), st.integers(0, 3))
def test_any_text_is_read_or_passed_over(noise: bytes, place: int) -> None:
    message = calls()[0][0].raw
    parts = [message, noise, b"INVITE sip:a SIP/2.0\r\n\r\n", message]
    parts.insert(place, noise)
    for found in read_messages(b"\n".join(parts)):
        assert isinstance(found, Message)


def test_records_have_no_times_so_that_too_few_calls_to_a_number_cannot_be_told_apart() -> None:
    one, two = (invite("one", "+12025550130", f"{name}@h") for name in "ab")
    bare = behind(two, identities(lambda _: []))
    watched = from_records([one, two], [bare], PLAN)
    assert judged(watched) == [{Kind.UNCLEAR}, {Kind.UNCLEAR}]
    assert watched.unmatched == 1
    both = from_records([one, two], [behind(one, identities(lambda _: [])), bare], PLAN)
    assert judged(both) == [{Kind.STRIPPED}, {Kind.STRIPPED}]
    assert judged(from_records([one, two], [behind(one, lambda left: [left]), bare], PLAN)) == [
        {Kind.INTACT}, {Kind.STRIPPED},
    ]  # fmt: skip


# --- Answers ----------------------------------------------------------------------------------


def with_cseq(message: Message, number: int) -> Message:
    new = {"cseq": f"{number} INVITE", "via": message.first("via") + str(number)}
    return changed(message, [HeaderLine(line.name, new.get(line.full_name, line.value)) for line in message.lines])


def final(message: Message, status: int) -> Message:
    return Message.parse(answer(message, status, "x", tag="pbx"))


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("one", 486, Kind.REFUSED),
        ("three", 404, Kind.REFUSED),  # longer than the one that passes: no matter
        ("three", 408, Kind.REFUSED),
        ("1k", 513, Kind.LOST_BY_SIZE),
        ("one", 200, Kind.NOT_PASSED_ON),  # voicemail
        ("two", None, Kind.LOST_CALL),  # in one packet
        ("4k", None, Kind.LOST_BY_SIZE),
    ],
)
def test_what_the_pbx_answered_tells_why_a_call_is_not_behind_it(
    name: str, status: int | None, kind: Kind, captured: bool
) -> None:
    passed, missing = invite("one", "+12025550130", "p@h"), invite(name, "+12025550131", "m@h")
    after = behind(passed, lambda one: [one])
    answers = [final(passed, 200), *([final(missing, status)] if status else [])]
    if captured:
        packets = [*udp(CARRIER, PBX, passed.raw), *udp(PBX, PHONE, after.raw), *udp(CARRIER, PBX, missing.raw)]
        packets += [packet for one in answers for packet in udp(PBX, CARRIER, one.raw)]
        watched = from_capture(read_capture(capture(packets)), PLAN)
    else:
        watched = from_records([passed, missing, *answers], [after], PLAN)
    assert judged(watched) == [{Kind.INTACT}, {kind}]
    assert watched.verdicts[1].status == status
    assert "neither" not in watched.verdicts[1].findings[0].text


@pytest.mark.parametrize("captured", [False, True])
def test_a_refused_call_does_not_take_the_next_one_to_the_same_number(captured: bool) -> None:
    busy, again = (invite("one", "+12025550130", f"{name}@h") for name in "ab")
    after = behind(again, identities(lambda _: []))  # only its number tells
    if captured:
        packets = [*udp(CARRIER, PBX, busy.raw), *udp(PBX, CARRIER, final(busy, 503).raw)]
        packets += [*udp(CARRIER, PBX, again.raw), *udp(PBX, PHONE, after.raw)]
        watched = from_capture(read_capture(capture(packets)), PLAN)
        assert judged(watched) == [{Kind.REFUSED}, {Kind.STRIPPED}]
    else:
        watched = from_records([busy, final(busy, 503), again], [after], PLAN)
        assert judged(watched) == [{Kind.UNCLEAR}, {Kind.UNCLEAR}]


def test_without_any_answer_in_a_record_none_is_said_to_be_missing() -> None:
    (verdict,) = from_records([invite("one", "+12025550130", "p@h")], [], PLAN).verdicts
    assert verdict.findings[0].text == "nothing behind the PBX that fits it; no answers were recorded"


@pytest.mark.parametrize("status", [401, 407])
def test_a_call_that_is_sent_again_with_credentials_is_one_call(status: int) -> None:
    first = invite("one", "+12025550130", "p@h")
    again = with_cseq(first, 2)
    after = behind(again, lambda one: [one])
    onward = with_cseq(after, 3)  # the other side asks, too
    answers = [final(first, status), final(again, 200)]
    watched = from_records([first, again, *answers], [after, onward, final(after, status)], PLAN)
    assert judged(watched) == [{Kind.INTACT}]
    assert len(watched.verdicts[0].after) == 1
    unanswered = from_records([first, again], [after], PLAN)
    assert len(unanswered.verdicts) == 2  # no challenge was seen
    given_up = from_records([first, final(first, status)], [], PLAN)
    assert judged(given_up) == [{Kind.REFUSED}]


# --- Captures ---------------------------------------------------------------------------------


def ip(source: tuple[str, int], target: tuple[str, int], protocol: int, payload: bytes, **fields: int) -> bytes:
    packet = dpkt.ip.IP(
        src=ip_address(source[0]).packed, dst=ip_address(target[0]).packed, p=protocol, data=payload, **fields
    )
    packet.len = len(packet)
    return bytes(packet)


def udp(
    source: tuple[str, int], target: tuple[str, int], data: bytes, mtu: int = 65_535, ident: int = 1
) -> list[bytes]:
    """A datagram, in fragments where it is longer than the MTU."""
    whole = bytes(dpkt.udp.UDP(sport=source[1], dport=target[1], data=data, ulen=8 + len(data)))
    step = (mtu - 20) // 8 * 8
    pieces = [(place, whole[place : place + step]) for place in range(0, len(whole), step)]
    return [
        ip(source, target, 17, piece, offset=place // 8, mf=int(place + step < len(whole)), id=ident)
        for place, piece in pieces
    ]


def tcp(
    source: tuple[str, int], target: tuple[str, int], data: bytes, cut: int, first: int = 0xFFFFFF00
) -> list[bytes]:
    """A stream in segments, its sequence numbers beyond the turn."""
    made = [ip(source, target, 6, bytes(dpkt.tcp.TCP(sport=source[1], dport=target[1], seq=first - 1, flags=2)))]
    for place in range(0, len(data), cut):
        segment = dpkt.tcp.TCP(
            sport=source[1], dport=target[1], seq=(first + place) & 0xFFFFFFFF, flags=16, data=data[place : place + cut]
        )
        made.append(ip(source, target, 6, bytes(segment)))
    return made


def ethernet(packet: bytes) -> bytes:
    return bytes(dpkt.ethernet.Ethernet(data=dpkt.ip.IP(packet), type=dpkt.ethernet.ETH_TYPE_IP))


def capture(packets: Sequence[bytes], *, ng: bool = False, link: int = dpkt.pcap.DLT_EN10MB) -> bytes:
    file = io.BytesIO()
    writer: Any = dpkt.pcapng.Writer(file, linktype=link) if ng else dpkt.pcap.Writer(file, linktype=link)
    for index, packet in enumerate(packets):
        writer.writepkt(ethernet(packet) if link == dpkt.pcap.DLT_EN10MB else packet, ts=NOW + index / 100)
    return file.getvalue()


def both_sides(source: Any = CARRIER, middle: Any = PBX, target: Any = PHONE) -> list[bytes]:
    packets = []
    for before, after in calls():
        packets += udp(source, middle, before.raw) + udp(source, middle, before.raw)  # sent twice: no answer in time
        packets += udp(middle, source, answer(before, 100, "Trying"))
        packets += udp(middle, target, after.raw)
    return packets


@pytest.mark.parametrize("ng", [False, True], ids=["pcap", "pcapng"])
@pytest.mark.parametrize(
    "addresses", [(None, None), ("192.0.2.1", None), (None, "192.0.2.3"), ("192.0.2.1", "192.0.2.3:5070")]
)
def test_a_capture_gives_the_verdicts_of_the_probe(ng: bool, addresses: tuple[str | None, str | None]) -> None:
    watched = from_capture(read_capture(capture(both_sides(), ng=ng)), PLAN, *addresses)
    assert judged(watched) == WANTED
    assert (watched.unsigned, watched.unmatched) == (1, 0)


def both_ways() -> list[bytes]:
    """Every host sends INVITEs and gets some."""
    packets = both_sides()
    back = invite("one", "+12025550140", "back@192.0.2.3")
    return [*packets, *udp(PHONE, PBX, back.raw), *udp(PBX, CARRIER, behind(back, lambda one: [one]).raw)]


@pytest.mark.parametrize(
    ("packets", "addresses", "reason"),
    [
        (both_ways(), (None, None), "does not show which host is the PBX; INVITEs went 192.0.2.1 -> 192.0.2.2, 192"),
        (both_sides(), ("192.0.2.9", None), "--before 192.0.2.9 is nowhere in the capture; INVITEs went 192.0.2.1 ->"),
        (both_sides(), (None, "192.0.2.3:5071"), "--after 192.0.2.3:5071 is nowhere in the capture"),
        (both_sides(), ("192.0.2.3", None), "no INVITE comes from 192.0.2.3"),
        (udp(PBX, CARRIER, answer(calls()[0][0], 100, "Trying")), (None, None), "there is no INVITE in the capture"),
        ([], (None, None), "there is no SIP in the capture that can be read"),
    ],
)
def test_sides_that_cannot_be_told_apart_are_told(
    packets: list[bytes], addresses: tuple[str | None, str | None], reason: str
) -> None:
    watched = from_capture(read_capture(capture(packets)), PLAN, *addresses)
    assert watched.verdicts == []
    assert reason in watched.reason


def test_hosts_that_send_and_receive_are_told_apart_by_their_addresses() -> None:
    watched = from_capture(read_capture(capture(both_ways())), PLAN, "192.0.2.1", "192.0.2.3")
    assert judged(watched) == WANTED
    assert watched.reason == ""


def test_on_one_host_the_sides_are_told_apart_by_their_ports() -> None:
    places = [("127.0.0.1", port) for port in (5090, 5060, 5070)]
    watched = from_capture(read_capture(capture(both_sides(*places), link=dpkt.pcap.DLT_RAW)), PLAN)
    assert judged(watched) == WANTED


def test_fragments_are_put_together_in_any_order_and_told() -> None:
    message = invite("4k", "+12025550120", "long@192.0.2.1")
    after = behind(message, lambda one: [one])
    pieces = udp(CARRIER, PBX, message.raw, mtu=1500, ident=7)
    assert len(pieces) == 4
    packets = [*reversed(pieces), pieces[0], *udp(PBX, PHONE, after.raw)]
    (verdict,) = from_capture(read_capture(capture(packets)), PLAN).verdicts
    assert verdict.kinds == {Kind.FRAGMENTED}
    assert verdict.before.fragments == 4
    lost = from_capture(read_capture(capture([*pieces[:2], *pieces[3:], *udp(PBX, PHONE, after.raw)])), PLAN)
    assert lost.verdicts == []  # what never came whole is no call


def test_a_fragment_beyond_the_longest_datagram_is_no_part_of_one() -> None:
    packet = ip(CARRIER, PBX, 17, b"x" * 1480, offset=8191, mf=0, id=1)
    assert list(read_capture(capture([packet]))) == []


@pytest.mark.parametrize("mixed", [False, True], ids=["in order", "out of order and twice"])
def test_tcp_streams_are_put_together(mixed: bool) -> None:
    packets = []
    for index, (before, after) in enumerate(calls()):
        stream = tcp((CARRIER[0], 40_000 + index), PBX, before.raw, 300)
        if mixed:
            stream = [stream[0], *reversed(stream[1:]), stream[1]]
        packets += [*stream, *tcp((PBX[0], 41_000 + index), PHONE, after.raw, 700)]
    watched = from_capture(read_capture(capture(packets)), PLAN)
    assert judged(watched) == WANTED


def test_a_stream_that_is_caught_in_the_middle_begins_with_the_next_message() -> None:
    before = calls()[0][0]
    first = 0xFFFFFF00
    second = tcp(CARRIER, PBX, before.raw, 4000, first=(first + len(before.raw)) & 0xFFFFFFFF)[1:]
    found = list(read_capture(capture([*tcp(CARRIER, PBX, before.raw, 100, first)[3:], *second])))
    assert [one.leg.message for one in found] == [before]
    assert found[0].target == PBX


def nested(kind: str) -> bytes:
    """An IP packet in a packet in a packet, as long as an IP packet may be."""
    four = bytes(dpkt.ip.IP(src=b"\1" * 4, dst=b"\2" * 4, p={"ip": 4, "gre": 47}.get(kind, 4), len=65_000, sum=1))
    six = bytes(dpkt.ip6.IP6(src=b"\1" * 16, dst=b"\2" * 16, nxt=41, plen=65_000))
    layer = {"ip": four, "ip6": six, "gre": four + b"\0\0\x08\0"}[kind]
    return (layer * (65_000 // len(layer)))[:65_000]


@pytest.mark.parametrize("kind", ["ip", "ip6", "gre"])
def test_packets_in_packets_are_passed_over_and_counted(kind: str) -> None:
    before = calls()[0][0]
    losses = Losses()
    data = capture([nested(kind), *udp(CARRIER, PBX, before.raw)], link=dpkt.pcap.DLT_RAW)
    assert [one.leg.message for one in read_capture(data, losses)] == [before]
    assert losses.packets == 1


def numbered(count: int) -> list[Message]:
    return [invite("one", number_after("+12025550110", index), f"n{index}@192.0.2.1") for index in range(count)]


@pytest.mark.parametrize("first", [1000, 0xFFFFFFFF - 9000, 0xFFFFFFFF - 30_000])
@pytest.mark.parametrize("missing", [2, 30])
def test_behind_a_segment_that_was_not_captured_the_stream_goes_on(first: int, missing: int) -> None:
    messages = numbered(40)
    stream = tcp(CARRIER, PBX, b"".join(one.raw for one in messages), 700, first)
    losses = Losses()
    seen = [one.leg.message for one in read_capture(capture([*stream[:missing], *stream[missing + 1 :]]), losses)]
    lost = [one for one in messages if one not in seen]
    assert 1 <= len(lost) <= 2
    assert seen == [one for one in messages if one not in lost]
    assert losses.gaps == 1


def test_a_gap_at_the_end_of_the_file_is_passed_over_and_counted() -> None:
    messages = numbered(3)
    stream = tcp(CARRIER, PBX, b"".join(one.raw for one in messages), len(messages[0].raw))
    losses = Losses()
    seen = [one.leg.message for one in read_capture(capture([*stream[:2], *stream[3:]]), losses)]
    assert seen == [messages[0], messages[2]]
    assert losses.gaps == 1


def test_a_port_that_is_used_again_begins_a_stream() -> None:
    one, two, three = numbered(3)
    cut = len(one.raw)
    earlier = tcp(CARRIER, PBX, one.raw + two.raw, cut, first=5000)
    packets = [earlier[0], earlier[2], *tcp(CARRIER, PBX, three.raw, 300, first=99)]
    losses = Losses()
    assert [found.leg.message for found in read_capture(capture(packets), losses)] == [two, three]
    assert losses.gaps == 1


def test_the_oldest_of_too_many_streams_gives_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shaken_plugin.probe.capture.MAX_STREAMS", 1)
    one, two, three = numbered(3)
    earlier = tcp(CARRIER, PBX, one.raw + two.raw, len(one.raw))
    packets = [earlier[0], earlier[2], *tcp((CARRIER[0], 7), PBX, three.raw, 300)]
    assert [found.leg.message for found in read_capture(capture(packets))] == [two, three]


def test_fragments_that_overlap_or_are_too_many_are_forgotten() -> None:
    message = invite("4k", "+12025550120", "long@192.0.2.1")
    pieces = udp(CARRIER, PBX, message.raw, mtu=1500, ident=7)
    overlap = ip(CARRIER, PBX, 17, b"x" * 1480, offset=100, mf=1, id=7)
    assert list(read_capture(capture([pieces[0], overlap, *pieces[1:]]))) == []
    again = list(read_capture(capture([pieces[0], overlap, *pieces])))
    assert [found.leg.message for found in again] == [message]
    tiny = udp(CARRIER, PBX, message.raw, mtu=68, ident=8)
    assert len(tiny) > 64
    assert list(read_capture(capture(tiny))) == []


def test_an_old_call_to_the_same_number_is_another() -> None:
    before, after = calls()[4]  # stripped: only the number tells
    late = [(NOW, udp(CARRIER, PBX, before.raw)), (NOW + 100, udp(PBX, PHONE, after.raw))]
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file)
    for at, packets in late:
        for packet in packets:
            writer.writepkt(ethernet(packet), ts=at)
    watched = from_capture(read_capture(file.getvalue()), PLAN)
    assert judged(watched) == [{Kind.LOST_CALL}]


@pytest.mark.parametrize("data", [b"", b"no capture", b"\xd4\xc3\xb2\xa1" + bytes(10)])
def test_what_is_no_capture_is_refused(data: bytes) -> None:
    with pytest.raises(CaptureError, match="neither a pcap nor a pcapng"):
        list(read_capture(data))


def test_an_unknown_link_type_is_refused() -> None:
    with pytest.raises(CaptureError, match="link type 147"):
        list(read_capture(capture([b"x"], link=147)))


WHOLE = capture([*both_sides()[:8], *tcp(CARRIER, PBX, calls()[0][0].raw, 500)])


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=40), st.booleans())
def test_a_damaged_capture_gives_messages_or_our_error(place: int, noise: bytes, cut: bool) -> None:
    data = WHOLE[:place] + noise + (b"" if cut else WHOLE[place + len(noise) :])
    with contextlib.suppress(CaptureError):
        from_capture(read_capture(data), PLAN)


@given(st.lists(st.binary(max_size=120), max_size=6), st.sampled_from([1, 0, 101, 113, 276]))
def test_packets_of_noise_give_nothing(frames: list[bytes], link: int) -> None:
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, linktype=link)
    for frame in frames:
        writer.writepkt(frame, ts=NOW)
    assert list(read_capture(file.getvalue())) == []
