"""Every verdict of the active probe, provoked by a PBX of our own that misbehaves as told."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trustme

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.sip import format_date
from shaken_plugin.lab.servers import free_port
from shaken_plugin.probe.canaries import BY_NAME, CANARIES, Canary, Scene, Signer
from shaken_plugin.probe.findings import Kind, Verdict
from shaken_plugin.probe.listener import Listener
from shaken_plugin.probe.message import HeaderLine, Message
from shaken_plugin.probe.play import Options, Play
from shaken_plugin.probe.session import Session
from shaken_plugin.probe.transport import Packet, ProbeError, Side
from tests.probe.fake_pbx import NAME, Change, FakePbx, Lines, changed, identities, same

LOOPBACK = "127.0.0.1"
SIGNER = Signer.new(time.time())


def play(
    *names: str,
    change: Change = same,
    options: dict[str, Any] | None = None,
    tls_server: ssl.SSLContext | None = None,
    listen_port: int | None = None,
    **pbx: Any,
) -> dict[str, Verdict]:
    """Send canaries through a fake PBX; the verdicts by name."""

    async def run() -> list[Verdict]:
        given: dict[str, Any] = {"timeout": 1.0, "settle": 0.05, **(options or {})}
        listen = (LOOPBACK, listen_port or free_port())
        over_tls = pbx.get("transport") == "tls"
        fake = FakePbx((LOOPBACK, listen[1] + over_tls), change, **pbx)
        await fake.side.open(LOOPBACK, 0, tls_server)
        try:
            given.setdefault("via", (LOOPBACK, fake.side.place(given.get("transport", "udp")).port))
            chosen: list[Canary] = [BY_NAME[name] for name in names]
            return await Session(Options(listen=listen, plan=dial_plan("US"), **given), chosen, SIGNER).run()
        finally:
            await fake.side.close()

    try:
        return {verdict.name: verdict for verdict in asyncio.run(run())}
    except ProbeError:
        if listen_port is not None:
            raise
        # Somebody took the port, or the next one for TLS, in between: with others.
        return {verdict.name: verdict for verdict in asyncio.run(run())}


def test_a_pbx_that_changes_nothing_leaves_every_canary_intact() -> None:
    verdicts = play(*BY_NAME, transfers=True)
    assert list(verdicts) == [canary.name for canary in CANARIES]
    for name, verdict in verdicts.items():
        assert verdict.kinds == {Kind.INTACT}, (name, verdict.findings)
        assert verdict.preserved
        if name not in {"control", "reinvite"}:
            assert verdict.verification is not None
            assert verdict.verification.holds, (name, verdict.verification)


def drop_all(lines: Lines) -> Lines:
    return []


def keep_first(lines: Lines) -> Lines:
    return lines[:1]


def twice(lines: Lines) -> Lines:
    return [*lines, *lines[:1]]


def backwards(lines: Lines) -> Lines:
    return lines[::-1]


def re_encode(lines: Lines) -> Lines:
    """As FreeSWITCH does: digest, info, alg, ppt, and nothing else."""
    made = []
    for line in lines:
        header = IdentityHeader.parse(line.unfolded)
        made.append(HeaderLine("Identity", header.format()))
    return made


def spoil_token(lines: Lines) -> Lines:
    return [HeaderLine(line.name, line.value.replace(".", ".AAAA", 1)) for line in lines]


def full_name(lines: Lines) -> Lines:
    return [HeaderLine("Identity", line.value) for line in lines]


def join(lines: Lines) -> Lines:
    return [HeaderLine("Identity", ", ".join(line.value for line in lines))]


def second_gone(lines: Lines) -> Lines:
    return [lines[0], *lines[2:]]


def foreign(lines: Lines) -> Lines:
    return [*lines, HeaderLine("Identity", "eyJ9.e30.c2ln;info=<https://pbx.example/a.pem>")]


BAD_LINES: list[tuple[str, str, Callable[[Lines], Lines], set[Kind]]] = [
    ("stripped", "one", drop_all, {Kind.STRIPPED}),
    ("several stripped", "three", drop_all, {Kind.STRIPPED}),
    ("one of three stripped", "three", second_gone, {Kind.STRIPPED}),
    ("first only", "two", keep_first, {Kind.FIRST_ONLY}),
    ("duplicated", "one", twice, {Kind.DUPLICATED}),
    ("reordered", "three", backwards, {Kind.REORDERED}),
    ("re-encoded", "unknown-parameters", re_encode, {Kind.ALTERED}),
    ("spoiled", "one", spoil_token, {Kind.ALTERED}),
    ("joined", "two", join, {Kind.ALTERED}),
]


@pytest.mark.parametrize(("name", "change", "kinds"), [row[1:] for row in BAD_LINES], ids=[row[0] for row in BAD_LINES])
def test_what_a_pbx_does_to_the_lines_is_named(name: str, change: Callable[[Lines], Lines], kinds: set[Kind]) -> None:
    verdict = play(name, change=identities(change))[name]
    assert verdict.kinds == kinds
    assert not verdict.preserved


def test_both_findings_of_a_pbx_that_doubles_and_re_encodes() -> None:
    verdict = play("unknown-parameters", change=identities(lambda lines: [*lines, *re_encode(lines)]))
    found = verdict["unknown-parameters"]
    assert found.kinds == {Kind.DUPLICATED, Kind.ALTERED}
    (altered,) = [finding for finding in found.findings if finding.kind is Kind.ALTERED]
    assert altered.text == ("parameter x-canary: 1 became absent; parameter x-flag: no value became absent")
    assert altered.diff[0].endswith(";x-canary=1;x-flag")
    assert altered.diff[1].endswith('ppt="shaken"')
    assert found.verification is not None
    assert found.verification.holds  # verifiers do not look at parameters that they do not know


def test_what_is_allowed_is_a_note_and_the_canary_preserved() -> None:
    verdicts = play("compact-name", "unquoted-ppt", "info-last", change=identities(re_encode))
    assert verdicts["compact-name"].kinds == {Kind.INTACT, Kind.RENAMED}
    assert verdicts["unquoted-ppt"].kinds == {Kind.INTACT, Kind.RESPELLED}
    assert verdicts["info-last"].kinds == {Kind.INTACT, Kind.RESPELLED}
    assert all(verdict.preserved for verdict in verdicts.values())


def test_an_identity_that_the_pbx_adds_is_told() -> None:
    verdicts = play("control", "one", change=identities(foreign))
    assert verdicts["control"].kinds == verdicts["one"].kinds == {Kind.ADDED}
    assert verdicts["control"].preserved


def test_a_spoiled_token_does_not_verify() -> None:
    verdict = play("one", change=identities(spoil_token))["one"]
    assert verdict.verification is not None
    assert (verdict.verification.holds, verdict.verification.code) == (False, "token_malformed")


def rewrite(old: str, new: str) -> Change:
    def apply(message: Message) -> Sequence[Message]:
        lines = [
            HeaderLine(line.name, line.value.replace(old, new)) if line.full_name in {"from", "to", "date"} else line
            for line in message.lines
        ]
        return [changed(message, lines, message.start.replace(old, new))]

    return apply


@pytest.mark.parametrize(("old", "new", "what"), [("+12155550199", "100", "caller"), ("+1202555", "+1303555", "To")])
def test_a_number_that_is_rewritten_no_longer_fits_the_signature(old: str, new: str, what: str) -> None:
    verdicts = play("one", "two", change=rewrite(old, new))
    for verdict in verdicts.values():
        assert verdict.kinds == {Kind.NUMBER_REWRITTEN}, verdict.findings
        assert any(line.startswith(f"- {what} ") for line in verdict.findings[0].diff)
        assert verdict.verification is not None
        assert not verdict.verification.holds
    assert verdicts["one"].verification is not None
    assert verdicts["one"].verification.code == ("orig_mismatch" if what == "caller" else "dest_mismatch")


def test_the_same_number_in_another_spelling_still_fits() -> None:
    verdict = play("one", change=rewrite("+1202555", "202555"))["one"]
    assert verdict.kinds == {Kind.INTACT}
    assert verdict.verification is not None
    assert verdict.verification.holds


def with_date(change: Callable[[Lines], Lines]) -> Change:
    def apply(message: Message) -> Sequence[Message]:
        others = [line for line in message.lines if line.full_name != "date"]
        return [changed(message, [*others, *change(list(message.all("date")))])]

    return apply


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (drop_all, "the Date header did not arrive"),
        (lambda _: [HeaderLine("Date", "Sat, 01 Jan 2000 00:00:00 GMT")], "moved by -"),
        (lambda _: [HeaderLine("Date", "yesterday")], "what arrived is no date"),
        (lambda lines: [*lines, *lines], "same time, other spelling, 2 times"),
    ],
)
def test_a_date_that_changes_is_named(change: Callable[[Lines], Lines], text: str) -> None:
    verdict = play("date", "compact-passport", change=with_date(change))
    for name in ("date", "compact-passport"):
        assert Kind.DATE_CHANGED in verdict[name].kinds
        assert any(text in finding.text for finding in verdict[name].findings)


def test_without_its_date_a_compact_passport_no_longer_verifies() -> None:
    verdict = play("compact-passport", change=with_date(drop_all))["compact-passport"]
    assert verdict.verification is not None
    assert verdict.verification.code == "date_missing"


def test_a_date_that_is_added_is_a_note() -> None:
    added = with_date(lambda _: [HeaderLine("Date", format_date(time.time()))])
    verdict = play("one", change=added)["one"]
    assert verdict.kinds == {Kind.INTACT, Kind.DATE_ADDED}


def test_what_is_too_large_for_the_pbx_is_lost_by_its_size() -> None:
    verdicts = play("one", "2k", "8k", limit=4000)
    assert verdicts["one"].kinds == verdicts["2k"].kinds == {Kind.INTACT}
    assert verdicts["8k"].kinds == {Kind.LOST_BY_SIZE}
    assert "did not come through" in verdicts["8k"].findings[0].text


def test_over_tcp_the_same_call_comes_through() -> None:
    verdict = play("8k", limit=4000, transport="tcp", options={"transport": "tcp"})["8k"]
    assert verdict.kinds == {Kind.INTACT}
    assert verdict.before.fragments == 1


def test_a_call_that_takes_several_packets_is_fragmented() -> None:
    verdict = play("1k", "4k", options={"mtu": 1500})
    assert verdict["4k"].kinds == {Kind.FRAGMENTED}
    assert verdict["4k"].preserved
    assert "took 4 IP packets" in verdict["4k"].findings[0].text


def test_a_call_that_is_refused_says_with_what() -> None:
    verdict = play("one", refuse=404)["one"]
    assert verdict.kinds == {Kind.REFUSED}
    assert verdict.status == 404
    assert play("one", refuse=513)["one"].kinds == {Kind.LOST_BY_SIZE}


def test_a_call_that_vanishes_is_lost() -> None:
    verdict = play("one", change=lambda _: [])["one"]
    assert verdict.kinds == {Kind.LOST_CALL}
    assert verdict.verification is None
    assert "CANCEL" in [step.label for step in verdict.trace]


def test_a_call_that_is_forked_is_one_call_with_two_copies() -> None:
    verdict = play("one", change=lambda message: [message, message])["one"]
    assert verdict.kinds == {Kind.CALLED_TWICE}
    assert len(verdict.after) == 2


def test_a_b2bua_that_answers_a_reinvite_itself_is_no_loss() -> None:
    verdict = play("reinvite", ends_reinvites=True)["reinvite"]
    assert verdict.kinds == {Kind.NOT_PASSED_ON}
    assert verdict.preserved


def test_a_reinvite_that_loses_its_header_is_stripped() -> None:
    def apply(lines: Lines) -> Lines:
        return []

    verdict = play("reinvite", change_within=apply)["reinvite"]
    assert verdict.kinds == {Kind.STRIPPED}


@pytest.mark.parametrize("transfers", [True, False], ids=["the PBX transfers", "the caller transfers"])
def test_a_transfer_makes_a_leg_that_is_judged(transfers: bool) -> None:
    verdict = play("refer", transfers=transfers)["refer"]
    assert verdict.kinds == {Kind.INTACT}
    assert [step.label for step in verdict.trace].count("REFER") == (1 if transfers else 2)
    lost = play("refer", change=identities(drop_all), transfers=transfers)["refer"]
    assert lost.kinds == {Kind.STRIPPED}


def test_a_transfer_that_nobody_carries_out_is_told() -> None:
    verdict = play("refer", transfers=True, transfer_to_nobody=True)["refer"]
    assert verdict.kinds == {Kind.NOT_PASSED_ON}


def test_credentials_are_given_where_they_are_asked_for() -> None:
    for algorithm in ("MD5", "SHA-256"):
        challenge = f'Digest realm="pbx", nonce="n1", algorithm={algorithm}, qop="auth", opaque="o"'
        options = {"user": "probe", "password": "secret"}
        assert play("one", challenge=challenge, options=options)["one"].kinds == {Kind.INTACT}
        assert play("one", challenge=challenge)["one"].status == 407
    unknown = play("one", challenge="Bearer realm=x", options={"user": "probe"})["one"]
    assert unknown.kinds == {Kind.REFUSED}


def test_one_number_for_all_calls_is_enough_to_tell_them_apart() -> None:
    verdicts = play("one", "two", "date", options={"called": "+12025550143"}, change=identities(drop_all))
    assert {verdict.kinds == {Kind.STRIPPED} for verdict in verdicts.values()} == {True}
    assert all(len(verdict.after) == 1 for verdict in verdicts.values())


def test_the_product_is_recognised_by_its_header() -> None:
    assert play("one")["one"].server == NAME


def test_over_tls_the_certificate_of_the_pbx_is_checked() -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusting, distrusting = ssl.create_default_context(), ssl.create_default_context()
    authority.issue_cert("localhost", LOOPBACK).configure_cert(server)
    authority.configure_trust(trusting)
    options: dict[str, Any] = {"transport": "tls", "name": "localhost", "tls_client": trusting, "tls_server": server}
    pbx: dict[str, Any] = {"transport": "tls", "tls_client": trusting, "tls_server": server}
    assert play("one", "8k", options=options, **pbx)["8k"].kinds == {Kind.INTACT}
    with pytest.raises(ProbeError, match=r"no tls connection to .*: .*certificate"):
        play("one", options={**options, "tls_client": distrusting}, **pbx)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOOPBACK, 0))
        with pytest.raises(ProbeError, match="cannot listen on 127"):
            play("one", listen_port=taken.getsockname()[1])


def test_no_connection_is_said() -> None:
    with pytest.raises(ProbeError, match="no tcp connection to 127"):
        play("one", options={"transport": "tcp", "via": (LOOPBACK, free_port())})


@pytest.mark.parametrize("method", ["INVITE", "BYE"])
def test_over_udp_what_is_lost_once_is_sent_again_and_counts_once(method: str) -> None:
    verdict = play("one", loses=method)["one"]
    assert verdict.kinds == {Kind.INTACT}
    assert [step.label for step in verdict.trace if step.path == (0, 1)].count(method) == 2


def test_an_answer_that_is_not_acknowledged_is_sent_again() -> None:
    verdict = play("one", loses="ACK", options={"settle": 0.8})["one"]
    assert verdict.kinds == {Kind.INTACT}
    assert [step.label for step in verdict.trace if step.path == (2, 1)].count("200 OK") >= 3  # twice, and that of BYE


def test_a_connection_that_fails_later_is_the_verdict_of_that_call(monkeypatch: pytest.MonkeyPatch) -> None:
    sending = Side.send

    async def send(self: Side, data: bytes, *rest: Any) -> None:
        if data.startswith(b"INVITE sip:+12025550101@"):
            raise ProbeError("no tcp connection to 192.0.2.1:5060: refused")
        await sending(self, data, *rest)

    monkeypatch.setattr(Side, "send", send)
    verdicts = play("one", "two", "date")
    assert [verdict.kinds for verdict in verdicts.values()] == [{Kind.INTACT}, {Kind.NOT_SENT}, {Kind.INTACT}]
    assert verdicts["two"].findings[0].text == "no tcp connection to 192.0.2.1:5060: refused"


def test_what_a_pbx_answers_that_got_no_further_is_probably_the_size() -> None:
    def refuse_long(message: Message) -> Sequence[Message]:
        return [message] if len(message.raw) < 4000 else []

    verdicts = play("one", "8k", change=refuse_long, gives_up=504)
    assert verdicts["8k"].kinds == {Kind.LOST_BY_SIZE}
    assert verdicts["8k"].findings[0].text.startswith("probably: ")
    assert verdicts["8k"].findings[0].text.endswith("answered with 504")


# --- Strangers at the listener ----------------------------------------------------------------


def stray(called: str, identity: str = "") -> Message:
    data = (
        f"INVITE sip:{called}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bKs{called}\r\n"
        f"From: <sip:x@192.0.2.66>;tag=x\r\nTo: <sip:{called}@127.0.0.1>\r\nCall-ID: stray{called}\r\n"
        f"CSeq: 1 INVITE\r\n{identity}\r\n"
    )
    return Message.parse(data.encode())


def arrives(message: Message, host: str, called: str | None = None) -> tuple[Listener, Play, list[Message]]:
    """Give a listener whose PBX is 192.0.2.1 a message from a host; what it answers."""
    answers: list[Message] = []
    own = Play(BY_NAME["one"], called or "+12025550100", "+12025550150")
    listener = Listener([own], one_number=called is not None, via="192.0.2.1")

    async def run() -> None:
        await listener.side.open(LOOPBACK, 0)
        for _ in range(2):
            packet = Packet(message, "udp", (host, 5060), 0.0, lambda data: answers.append(Message.parse(data)))
            listener.side._receive(packet)
        await listener.close()

    asyncio.run(run())
    return listener, own, answers


@pytest.mark.parametrize("called", [None, "+12025550143"])
def test_a_call_of_a_stranger_is_no_verdict(called: str | None) -> None:
    listener, own, answers = arrives(stray("100"), "192.0.2.66", called)
    assert [one.status for one in answers] == [404, 404]
    assert own.copies[Scene.CALL] == []
    assert own.trace == []
    assert listener.strangers == {"192.0.2.66": 1}


@pytest.mark.parametrize(
    ("number", "host", "called"),
    [("100", "192.0.2.1", None), ("12025550100", "192.0.2.66", None), ("2025550143", "192.0.2.66", "+2025550143")],
)
def test_a_call_from_the_pbx_or_to_the_number_is_taken(number: str, host: str, called: str | None) -> None:
    listener, own, answers = arrives(stray(number), host, called)
    assert {one.status for one in answers} == {200}
    assert len(own.copies[Scene.CALL]) == 1
    assert listener.strangers == {}
