"""Refusals, emergency calls, observe mode, and what of a customer goes no further."""

from __future__ import annotations

import re
from typing import Any

import pytest

from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start, action, choose, said, when
from tests.e2e.freeswitch.party import Message, Party

UNKNOWN, PENDING, SUSPENDED = "127.0.0.4", "127.0.0.5", "127.0.0.6"

EMERGENCY: dict[str, dict[str, Any]] = {
    "911": {"to": "911"},
    "933": {"to": "933"},
    "112": {"to": "112"},
    "callback": {"extra": b"Priority: psap-callback\r\n"},
    "in To": {"to_value": "<urn:service:sos>"},
}


@pytest.fixture(scope="module")
def strict(start: Start, shared: Network, carrier: Party, way: Way) -> FreeSwitchServer:
    """Refuses whatever it may, in both directions."""
    provider = shared.provider(
        "strict",
        signing={"unknown_source": "refuse", "pending_customer": "refuse"},
        verification={"reject": [403, 428, 436, 437, 438]},
        on_fault="refuse",
        store={"path": "policy.db", "when_unavailable": "refuse"},
    )
    return start(
        provider,
        outside_peer=carrier.target,
        inside_peer=carrier.target,
        hook=way.hook,
        from_outside=way.verify,
        dialplan={"inside": when("dialplan", way.sign + action("bridge", "sofia/gateway/carrier/$1"))},
    )


@pytest.mark.parametrize(
    ("address", "phrase"),
    [(UNKNOWN, "Source Not Known"), (PENDING, "Customer Not Verified"), (SUSPENDED, "Customer Suspended")],
)
def test_who_may_not_call_gets_403_and_reaches_nobody(
    strict: FreeSwitchServer, carrier: Party, address: str, phrase: str
) -> None:
    with Party(address) as caller:
        answer = caller.ask(strict.inside_port, choose("dialplan"))
        # Before the bridge there is a leg to answer in the policy's own words; after it only a cause.
        assert (answer.status, answer.phrase) == (403, phrase)
        assert caller.ask(strict.inside_port).status == 403
    assert carrier.invites() == []
    refused = [event for event in said(strict, "sign") if event.get("skip") == "policy_refused"]
    assert refused


@pytest.mark.parametrize("name", EMERGENCY)
@pytest.mark.parametrize("address", [UNKNOWN, SUSPENDED])
def test_no_emergency_call_is_refused(strict: FreeSwitchServer, carrier: Party, address: str, name: str) -> None:
    with Party(address) as caller:
        parts = dict(EMERGENCY[name])
        extra = parts.pop("extra", b"")
        assert caller.ask(strict.inside_port, extra, **parts).status == 200
        assert caller.ask(strict.inside_port, extra + choose("dialplan"), **parts).status == 200
        assert caller.ask(strict.outside_port, extra, **parts).status == 200
        assert caller.ask(strict.outside_port, extra + b"Identity: nonsense\r\n", **parts).status == 200
        assert caller.ask(strict.outside_port).status == 428
    assert len(carrier.invites()) == 4


def test_a_customers_verstat_goes_no_further(
    start: Start, shared: Network, carrier: Party, caller: Party, way: Way
) -> None:
    switch = start(shared.provider("customers"), outside_peer=carrier.target, hook=way.hook)
    mark = ";verstat=TN-Validation-Passed"
    lines = [
        f"P-Asserted-Identity: <sip:+12155551212{mark}@a.example>",
        f"Diversion: <sip:+12155551213{mark}@a.example>",
        f"P-Served-User: <sip:+12155551213{mark}@a.example>",
        f"History-Info: <sip:+12155551213{mark}@a.example>;index=1",
        f"Remote-Party-ID: <sip:+12155551212{mark}@a.example>",
    ]
    extra = "".join(f"{line}\r\n" for line in lines).encode()
    assert caller.ask(switch.inside_port, extra, from_value=f"<sip:+12155551212{mark}@a.example>").status == 200
    invite = carrier.invite()
    assert len(invite.identity()) == 1
    assert "verstat" not in invite.text
    assert invite.all("Diversion") == ["<sip:+12155551213@a.example>"]


def alike(text: str) -> str:
    """A message without what differs from run to run."""
    for varying in (
        r"127\.0\.0\.\d+:\d+", r"tag=[-\w]+", r"branch=[-.\w]+", r"(?m)^Call-ID: .*$", r"CSeq: \d+", r"o=.*",
        r"m=audio \d+", r"transport=udp;gw=carrier", r"X-Test: \w+", r"Content-Length: \d+",
    ):  # fmt: skip
        text = re.sub(varying, "…", text)
    return text


def test_observe_mode_changes_nothing_on_the_wire(start: Start, shared: Network, carrier: Party, way: Way) -> None:
    """The same calls with the plugin observing and without it look alike."""
    seen: dict[str, list[str]] = {}
    mark = ";verstat=TN-Validation-Passed"
    for mode in ("without", "observe"):
        watched = mode == "observe"
        provider = None
        if watched:
            provider = shared.provider(
                "observe",
                signing={"mode": mode, "unknown_source": "refuse"},
                verification={"mode": mode, "reject": [403, 428, 436, 437, 438]},
            )
        switch = start(
            provider,
            outside_peer=carrier.target,
            inside_peer=carrier.target,
            hook=way.hook if watched else "",
            from_inside=way.sign if watched else "",
            from_outside=way.verify if watched else "",
            python=watched and way.python,
        )
        carrier.forget()
        replies: list[Message] = []
        for address in ("127.0.0.2", UNKNOWN, SUSPENDED):
            with Party(address) as caller:
                for extra in (b"", b"Identity: nonsense\r\n", f"P-Asserted-Identity: <sip:+1215{mark}@a>\r\n".encode()):
                    for port in (switch.inside_port, switch.outside_port):
                        assert caller.ask(port, extra, from_value=f"<sip:+12155551212{mark}@a.b>").status == 200
                replies += caller.received
        seen[mode] = sorted(alike(message.text) for message in [*replies, *carrier.invites()])
        if watched:
            counters = switch.counters()
            assert (counters["signed_a"], counters["refused"]) == (1, 7)  # +1215 is no number
            assert counters["failure_token_malformed"] == 3
    assert seen["observe"] == seen["without"]
