"""Hostile SIP against a real FreeSWITCH: every call is answered, nothing is executed, and the switch lives on."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from shaken_plugin.lab.provider import Provider
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start, action, choose, claims, said, when
from tests.e2e.freeswitch.party import LOOPBACK, Party

TOUCH = "${system(touch MARKER)}"

# What stands for MARKER is a file that must not be made.
HEADERS: dict[str, bytes] = {
    "command in Identity": f"Identity: a.b.{TOUCH};info=<https://a.example/$${{x}}>\r\n".encode(),
    "command in a sound shape": (
        f"Identity: a.b.c;info=<https://a.example/{TOUCH.replace(' ', '%20')}>;ppt=shaken\r\n".encode()
    ),
    "command in PAI": f'P-Asserted-Identity: "{TOUCH}" <sip:+12155551212@a.example>\r\n'.encode(),
    "command in Date": f"Date: {TOUCH}\r\n".encode(),
    "command in Priority": f"Priority: {TOUCH}\r\n".encode(),
    "global variable": b"Identity: $${sounds_dir};info=<https://a.example/>\r\n",
    "array": b"Identity: ARRAY::a.b.c|:d.e.f;info=<https://a.example/>\r\n",
    "separator of arrays": b"Identity: a|:b;info=<https://a.example/>\r\nIdentity: c|:d\r\n",
    "not UTF-8": b"Identity: \xff\xfe\x80;info=<https://a.example/\xe9>\r\n",
    "PAI not UTF-8": b'P-Asserted-Identity: "\xe9" <sip:+12155551212@a.example>\r\n',
    "NUL": b"Identity: a.b.c\x00d;info=<https://a.example/>\r\n",
    "lone CR": b"Identity: a.b.c\rInjected: 1;info=<https://a.example/>\r\n",
    "lone LF": b"Identity: a.b.c\nInjected: 1;info=<https://a.example/>\r\n",
    "folded": b"Identity: a.b.c\r\n ;info=\r\n\t<https://a.example/>\r\n",
    "escaped line breaks": b"P-Asserted-Identity: <sip:+12155551212%0d%0aInjected%3a%201%0d%0ax%3a@a.example>\r\n",
    "huge": b"Identity: " + b"A" * 50_000 + b";info=<https://a.example/>\r\n",
    "4000 parameters": b"Identity: a" + b";x=1" * 4_000 + b"\r\n",
    "deep JSON": b"Identity: " + b"W1tb" * 3_000 + b"." + b"W1tb" * 3_000 + b".AAAA;info=<https://a.example/x>\r\n",
    "deep JSON of objects": b"Identity: " + b"eyJhIjp7ImEiOnsiYSI6" * 1_500 + b".e30.AA;info=<https://a.example/x>\r\n",
    "50 fields": b"Identity: x.y.z;info=<https://a.example/x>;ppt=shaken\r\n" * 50,
    "50 compact fields": b"y: x.y.z;info=<https://a.example/x>;ppt=shaken\r\n" * 50,
    "200 PAI values": b"P-Asserted-Identity: " + b", ".join([b"<sip:+12155551212@a>"] * 200) + b"\r\n",
    "empty": b"Identity:\r\nDate:\r\nP-Asserted-Identity:\r\nPriority:\r\n",
    "30,000 characters that break": b"Identity: " + b"%n%s" * 7_500 + b"\r\n",
    "log injection": b"Identity: e30.e30.AA;info=<https://a.example/%0a%0dERROR>;ppt=shaken\r\n",
    "our own variables": b"X-shaken_as_signed_at: 1\r\nP-Shaken: 1\r\nOn-Originate: x\r\n",
}
NUMBERS = {
    "command in From": f"<sip:{TOUCH.replace(' ', '%20')}@a.example>",
    "command as a name": f'"{TOUCH}" <sip:+12155551212@a.example>',
    "line break in From": "<sip:+12155551212%0d%0aInjected%3a%201%0d%0ax%3a@a.example>",
    "NUL in From": "<sip:+1215555%001212@a.example>",
    "From not UTF-8": '"Jos\udce9" <sip:+12155551212@a.example>',
    "From of 5000 digits": f"<sip:+{'1' * 5_000}@a.example>",
    "array in From": "<sip:ARRAY::1|:2@a.example>",
}


@pytest.fixture(scope="module")
def provider(shared: Network) -> Provider:
    provider = shared.provider("origin")
    provider.publish(provider.x5u, provider.credential.chain)
    return provider


@pytest.fixture(scope="module")
def switch(start: Start, provider: Provider, carrier: Party, way: Way) -> FreeSwitchServer:
    return start(
        provider,
        inside_peer=carrier.target,
        outside_peer=carrier.target,
        from_inside=way.sign,
        hook=way.hook,
        from_outside=way.verify,
        dialplan={
            "outside": when("pass", way.pass_through + action("bridge", f"sofia/inside/$1@{carrier.target}")),
            "inside": when("hook", action("bridge", "sofia/gateway/carrier/$1")),
        },
    )


def alive(switch: FreeSwitchServer, caller: Party, carrier: Party) -> None:
    """It still signs."""
    carrier.forget()
    assert switch.running()
    assert caller.ask(switch.inside_port).status == 200
    assert claims(carrier.invite().identity()[0])["attest"] == "A"


@pytest.mark.parametrize("name", [*HEADERS, *NUMBERS])
def test_the_call_goes_on_and_nothing_is_executed(
    switch: FreeSwitchServer, caller: Party, carrier: Party, tmp_path: Path, name: str
) -> None:
    marker = tmp_path / "executed"
    extra = HEADERS.get(name, b"").replace(b"MARKER", str(marker).encode())
    from_value = NUMBERS.get(name, "<sip:+12155551212@a.example>").replace("MARKER", str(marker))
    for port, more in (
        (switch.inside_port, b""),
        (switch.inside_port, choose("hook")),
        (switch.outside_port, b""),
        (switch.outside_port, choose("pass")),
    ):
        answer = caller.ask(port, more + extra, from_value=from_value)
        # FreeSWITCH itself refuses what no SIP parser takes, and lets nobody be called.
        assert answer.status in {200, 400}, (port, answer.text)
    assert switch.running()
    for invite in carrier.invites():
        assert invite.all("Injected") == []
        assert "\x00" not in invite.text
        assert len(invite.all("Date")) <= 1
    assert not marker.exists()
    assert not {name for name in switch.counters() if name.startswith("fault")}


def test_after_all_that_it_still_signs(switch: FreeSwitchServer, caller: Party, carrier: Party) -> None:
    alive(switch, caller, carrier)


def test_a_header_of_100_kb_by_tcp(switch: FreeSwitchServer, caller: Party, carrier: Party) -> None:
    """Whether it can be sent on is the transport's matter; the switch goes on."""
    value = b"A" * 100_000 + b";info=<https://a.example.com/x>;ppt=shaken"
    for port in (switch.inside_port, switch.outside_port):
        data = caller.request(b"Identity: " + value + b"\r\n").replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP", 1)
        with socket.create_connection((LOOPBACK, port), 5) as connection:
            connection.sendall(data)
            connection.settimeout(5)
            assert connection.recv(65_535).startswith(b"SIP/2.0 100")
    deadline = time.monotonic() + 5
    while [event.get("code") for event in said(switch, "verify")[-1:]] != ["identity_too_large"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    alive(switch, caller, carrier)


def test_a_store_that_cannot_be_read(start: Start, shared: Network, caller: Party, carrier: Party, way: Way) -> None:
    """Decided from what was last read, without a wait that a caller would notice; else unsigned, by setting."""
    provider = shared.provider(f"locked-{way.name}", store={"path": "policy.db", "when_unavailable": "last_known"})
    switch = start(provider, outside_peer=carrier.target, hook=way.hook)
    alive(switch, caller, carrier)
    path = provider.folder / "policy.db"
    path.rename(path.with_suffix(".away"))
    for file in provider.folder.glob("policy.db-*"):
        file.unlink()
    path.write_bytes(b"not a database")
    begin = time.monotonic()
    alive(switch, caller, carrier)
    assert time.monotonic() - begin < 1
    carrier.forget()
    assert caller.ask(switch.inside_port, number="+13125550142").status == 200
    assert carrier.invite().identity() == []
    assert said(switch, "sign")[-1]["skip"] == "store_unavailable"
    assert switch.counters()["unsigned_store_unavailable"] == 1


def test_settings_that_are_refused_leave_calls_unsigned_with_a_line_in_the_log(
    start: Start, shared: Network, caller: Party, carrier: Party, way: Way
) -> None:
    if not way.python:
        pytest.skip("an agent with mistakes in its settings does not start; calls without one are in test_esl")
    broken = shared.provider("broken", signing={"freshnes": "60"})
    switch = start(
        broken, outside_peer=carrier.target, inside_peer=carrier.target, hook=way.hook, from_outside=way.verify
    )
    for port in (switch.inside_port, switch.outside_port, switch.inside_port):
        assert caller.ask(port).status == 200
        assert carrier.invite().identity() == []
    log = switch.log_text()
    assert "signing.freshnes: unknown setting (did you mean freshness?)" in log
    assert "not started, calls go on unsigned and unverified" in log
    assert log.count("not started") == 1  # and not for every call


def test_an_agent_that_is_not_there_leaves_calls_unsigned(
    start: Start, caller: Party, carrier: Party, way: Way
) -> None:
    if way.python:
        pytest.skip("the functions are in the switch")
    switch = start(
        None, outside_peer=carrier.target, inside_peer=carrier.target, hook=way.hook, from_outside=way.verify
    )
    for port in (switch.inside_port, switch.outside_port):
        assert caller.ask(port).status == 200
        assert carrier.invite().identity() == []
    assert "Socket Error" in switch.log_text()


SPOILT = """
import sys
from shaken_plugin.adapters.freeswitch import functions

def again(leg, *plan):
    return again(leg, *plan)

def raising(exc):
    def spoilt(leg, *plan):
        raise exc
    return spoilt

FAULTS = [again, raising(ValueError("x" * 30_000)), raising(SystemExit()), raising(ValueError(chr(0xdce9) + chr(10)))]

def spoilt(leg, *plan):
    return FAULTS[int(leg.get("caller_id_number")[-1])](leg, *plan)

functions.leaving = functions.incoming = spoilt
"""
"""Recursion, a long text, an exit, no text, by the caller's last digit."""
KINDS = ("RecursionError", "ValueError", "SystemExit")


def test_a_fault_of_our_own_leaves_the_call_in_the_declared_mode(
    start: Start, shared: Network, provider: Provider, caller: Party, carrier: Party, way: Way
) -> None:
    """A module on the path spoils the functions before they are used."""
    if not way.python:
        pytest.skip("the agent's process has its own tests of faults")
    folder = shared.folder / "spoilt"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SPOILT)
    switch = start(
        provider, outside_peer=carrier.target, inside_peer=carrier.target, hook=way.hook, from_outside=way.verify,
        python_path=folder,
    )  # fmt: skip
    for digit in range(4):
        number = f"+1215555121{digit}"
        carrier.forget()
        assert caller.ask(switch.inside_port, number=number).status == 200
        assert carrier.invite().identity() == []
        carrier.forget()
        mark = f"P-Asserted-Identity: <sip:{number};verstat=TN-Validation-Passed@a.example>\r\n".encode()
        assert caller.ask(switch.outside_port, mark, number=number).status == 200
        assert "verstat" not in carrier.invite().text
        counters = switch.counters()
        assert counters["fault_sign"] == counters["fault_verify"] == digit + 1, counters
    faults = {(event["where"], event["type"]) for event in said(switch, "fault")}
    assert faults == {(where, kind) for where in ("sign", "verify") for kind in KINDS}
