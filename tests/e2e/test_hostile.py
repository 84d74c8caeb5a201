"""Hostile SIP against a real Kamailio: every call gets an answer, and the workers live on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Network
from tests.e2e.phone import Phone

Mangle = Callable[[bytes], bytes]


def insert(line: bytes) -> Mangle:
    return lambda text: text.replace(b"CSeq:", line + b"\r\nCSeq:", 1)


HOSTILE: dict[str, Mangle] = {
    "From not UTF-8": lambda text: text.replace(b"From: <", b'From: "Jos\xe9" <', 1),
    "Identity not UTF-8": insert(b"Identity: \xff\xfe\x80"),
    "PAI not UTF-8": insert(b'P-Asserted-Identity: "\xe9" <sip:+12155551212@a.example>'),
    "Date not UTF-8": insert(b"Date: \xff"),
    "Date of nonsense": insert(b"Date: yesterday"),
    "Priority not UTF-8": insert(b"Priority: \xff"),
    "huge Identity": insert(b"Identity: " + b"A" * 28_000),
    "Identity with 4000 parameters": insert(b"Identity: a" + b";x=1" * 4_000),
    "deep JSON": insert(b"Identity: " + b"W1tb" * 3_000 + b"." + b"W1tb" * 3_000 + b".AAAA;info=<https://a.example/x>"),
    "200 Identity headers": insert(b"\r\n".join([b"Identity: x"] * 200)),
    "200 PAI values": insert(b"P-Asserted-Identity: " + b", ".join([b"<sip:+12155551212@a>"] * 200)),
    "open quotes in PAI": insert(b'P-Asserted-Identity: "' + b'\\"' * 10_000),
    "empty headers": insert(b"Identity:\r\nDate:\r\nP-Asserted-Identity:\r\nPriority:"),
    "folded Identity": insert(b"Identity: a\r\n b\r\n\t;info=<https://a.example/x>"),
    "percent escapes": lambda text: text.replace(b"From: <sip:+12155551212@", b"From: <sip:%00%0d%0a%ff@", 1),
    "no PAI, anonymous": lambda text: text.replace(
        b"From: <sip:+12155551212@127.0.0.2", b"From: <sip:anonymous@anonymous.invalid", 1
    ),
    "log injection": insert(b"Identity: e30.e30.AA;info=<https://a.example/%0a%0dERROR>;ppt=shaken"),
}


@pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])
def test_every_hostile_call_is_answered_and_no_worker_is_lost(network: Network, kemi: bool) -> None:
    called = network.called()
    proxy = network.kamailio(network.provider("origin"), inside_peer=called.uri, outside_peer=called.uri, kemi=kemi)
    caller = Phone()
    answers = {}
    for title, mangle in HOSTILE.items():
        for port in (proxy.inside_port, proxy.outside_port):
            answer = caller.ask(mangle(caller.invite()), port)
            answers[title, port == proxy.inside_port] = answer[0] if answer else None
    assert {key: status for key, status in answers.items() if status != 200} == {}
    counters = proxy.counters()
    assert not {name: count for name, count in counters.items() if name.startswith("fault")}
    log = proxy.log_text()
    assert "exited" not in log.replace("exited normally", "")
    assert "Unhandled exception" not in log
    # After all that an ordinary call is signed.
    run = network.call("uac_call", proxy.inside_port)
    assert (run.counts.successful, run.counts.failed) == (1, 0), run.errors
    caller.close()


def test_a_message_without_the_headers_we_read_does_not_hurt(network: Network) -> None:
    called = network.called()
    proxy = network.kamailio(network.provider("origin"), inside_peer=called.uri, outside_peer=called.uri)
    caller = Phone()
    whole = caller.invite()
    for name in (b"From", b"To", b"Call-ID", b"Contact", b"Max-Forwards"):
        for port in (proxy.inside_port, proxy.outside_port):
            caller.send(whole.replace(name + b":", b"X-" + name + b":", 1), port)
    for garbage in (b"", b"\x00" * 100, b"INVITE\r\n\r\n", whole[:80], b"SIP/2.0 200 OK\r\n\r\n"):
        caller.send(garbage, proxy.inside_port)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and caller.receive(0.2) is not None:
        continue
    answer = caller.ask(caller.invite(), proxy.inside_port)
    assert answer is not None
    assert answer[0] == 200
    assert proxy.running()
    caller.close()
