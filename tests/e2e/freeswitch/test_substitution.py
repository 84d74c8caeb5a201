"""Another caller ID on the legs that leave a real FreeSWITCH, and answers to calls that are refused."""

from __future__ import annotations

import re
import time

import pytest

from shaken_plugin.core.call import NAMING
from shaken_plugin.lab.freeswitch import HOOK, FreeSwitchServer, Way
from shaken_plugin.lab.provider import Provider, sample_policy
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start, action, choose, claims, said, when
from tests.e2e.freeswitch.party import ANSWERS, RINGS, Message, Party, called_call

UNOWNED, OTHER, CALLED = "+19175550199", "+12155551299", "+12025550143"
CALLER_HEADERS = ("From", "P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID", "Privacy", *NAMING)
SUBSTITUTE = {"unauthorised": "substitute", "substitute": OTHER}


@pytest.fixture(scope="module")
def provider(shared: Network) -> Provider:
    return shared.provider("origin", policy=sample_policy(time.time()), signing=SUBSTITUTE)


@pytest.fixture(scope="module")
def switch(start: Start, provider: Provider, carrier: Party, way: Way) -> FreeSwitchServer:
    direct = f"sofia/outside/$1@{carrier.target}"
    hook = action("export", f"nolocal:{HOOK}={way.application}")
    display = action("set", "effective_caller_id_name=Acme ${caller_id_number}")

    def by(name: str, more: str, to: str = direct) -> str:
        return when(name, display + more + hook + action("bridge", to))

    extensions = [
        by("rpid", ""),
        by("pid", action("export", "nolocal:sip_cid_type=pid")),
        by("none", action("export", "nolocal:sip_cid_type=none")),
        by("from-uri", action("export", f"nolocal:sip_from_uri=sip:{UNOWNED}@customer.example")),
        by("full-from", action("export", f"nolocal:sip_invite_full_from=<sip:{UNOWNED}@customer.example>;tag=own")),
        by("dialplan", way.sign),
        by("gateway", "", "sofia/gateway/carrier/$1"),
        by("private", action("privacy", "full")),
        by("diverted", action("set", f"sip_h_Diversion=<sip:{UNOWNED}@h>, <sip:+12155551299@h>")),
    ]
    return start(provider, outside_peer=carrier.target, hook=way.hook, dialplan={"inside": "".join(extensions)})


def assert_substituted(invite: Message) -> None:
    shown = "\n".join(f"{name}: {value}" for name in CALLER_HEADERS for value in invite.all(name))
    assert UNOWNED[1:] not in shown, shown
    assert f"sip:{OTHER}@" in invite.one("From"), shown
    assert invite.one("From").startswith("<sip:"), shown
    assert invite.one("P-Asserted-Identity").startswith(f"<sip:{OTHER}@"), shown
    assert invite.all("Remote-Party-ID") == []
    (identity,) = invite.identity()
    assert claims(identity)["orig"] == {"tn": OTHER[1:]}
    assert claims(identity)["attest"] == "A"


@pytest.mark.parametrize(
    "name", ["rpid", "pid", "none", "from-uri", "full-from", "dialplan", "gateway", "private", "diverted"]
)
def test_every_header_that_says_who_calls(switch: FreeSwitchServer, carrier: Party, caller: Party, name: str) -> None:
    names = ("P-Preferred-Identity", "Remote-Party-ID", "P-Served-User", "Diversion", "Referred-By", "Reply-To")
    shown = "".join(f"{header}: <sip:{UNOWNED}@h>\r\n" for header in names)
    asserted = f"P-Asserted-Identity: <sip:{UNOWNED}@h>\r\n" if name == "pid" else ""
    call = caller.call(switch.inside_port, (asserted + shown).encode() + choose(name), number=UNOWNED)
    assert call.final.status == 200
    assert_substituted(carrier.invite())
    assert all(UNOWNED in answer.one("From") for answer in call.answers())
    if name == "private":
        assert "id" in carrier.invite().one("Privacy")
    (event,) = [event for event in said(switch, "sign") if event["call_id"] == call.call_id]
    assert (event["orig"], event["substituted_for"]) == (OTHER[1:], UNOWNED[1:])
    assert event["unauthorised"]
    call.bye()


def leg_that_leaves(switch: FreeSwitchServer) -> str:
    found: list[str] = re.findall(r"New Channel sofia/outside\S+ \[([-0-9a-f]+)\]", switch.log_text())
    return found[-1]


def test_the_dialog_of_the_leg_that_leaves(switch: FreeSwitchServer, carrier: Party, caller: Party) -> None:
    """A later INVITE of the leg, what both sides end it with, and what each is told in its answers."""
    call = caller.call(switch.inside_port, choose("rpid"), number=UNOWNED)
    invite = carrier.invite()
    assert call.inside("INVITE", f"P-Asserted-Identity: <sip:{UNOWNED}@h>\r\n".encode(), caller.sdp()).status == 200
    uuid = leg_that_leaves(switch)
    answer = switch.api(f"uuid_hold {uuid}")
    assert answer is not None
    assert answer.startswith("+OK")
    (again,) = carrier.wait(lambda message: message.method == "INVITE" and "tag=" in message.one("To"))
    assert again.identity() == []
    assert called_call(carrier, invite).inside("OPTIONS").status == 200
    called_call(carrier, invite).bye()
    caller.wait(lambda message: message.method == "BYE")
    for message in carrier.received:
        for name in CALLER_HEADERS:
            assert not [value for value in message.all(name) if UNOWNED[1:] in value], message.text
    tags = {
        message.one("From").partition("tag=")[2] for message in carrier.received if message.method in {"INVITE", "ACK"}
    }
    assert len(tags) == 1
    own = [message.one("To" if message.method == "BYE" else "From") for message in caller.received]
    assert all(UNOWNED in value and OTHER not in value for value in own)


def test_variables_for_the_operators_own_dialplan(switch: FreeSwitchServer, carrier: Party, caller: Party) -> None:
    call = caller.call(switch.inside_port, choose("rpid"), number=UNOWNED)
    uuid = leg_that_leaves(switch)
    found = {name: switch.api(f"uuid_getvar {uuid} shaken_as_{name}") for name in ("substituted_for", "unauthorised")}
    assert found == {"substituted_for": UNOWNED[1:], "unauthorised": "1"}
    assert (switch.api(f"uuid_getvar {uuid} shaken_as_policy") or "").isdigit()
    rules = switch.api(f"uuid_getvar {uuid} shaken_as_rules") or ""
    assert {"source", "right", "unauthorised"} <= set(rules.split(","))
    assert switch.api(f"uuid_getvar {uuid} shaken_as_substitute") == "_undef_"
    call.bye()


UPDATES = b"200 OK\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE, INFO\r\n"


@pytest.mark.parametrize(
    ("header", "method"),
    [
        (b"X-FS-Support: update_display,send_info", "INFO"),
        (b"User-Agent: snom760/8.7.5.35", "INFO"),
        (b"User-Agent: Yealink", "UPDATE"),
    ],
)
def test_a_peer_that_takes_display_updates(
    switch: FreeSwitchServer, carrier: Party, caller: Party, header: bytes, method: str
) -> None:
    """FreeSWITCH tells some peers who is at the other end when the call is answered."""
    carrier.behave = lambda _: (RINGS, (0.0, UPDATES + header))
    try:
        call = caller.call(switch.inside_port, choose("rpid"), number=UNOWNED)
        (update,) = carrier.wait(lambda message: message.method == method)
        call.bye()
    finally:
        carrier.behave = lambda _: (RINGS, ANSWERS)
    assert OTHER in update.text
    assert not [message.text for message in carrier.received if UNOWNED[1:] in message.text]
