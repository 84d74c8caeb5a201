"""What is signed is what the INVITE says: by whichever variable caller and called are set.

Every call goes on through a Kamailio that verifies it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from shaken_plugin.lab.demo import events
from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.servers import KamailioServer
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start, action, choose, claims, said, when
from tests.e2e.freeswitch.party import Party

OWN, OTHER, CALLED, SHOWN = "12155551212", "12155551214", "12025550143", "12025550177"


@dataclass(frozen=True)
class Case:
    """How a call is sent, and what is signed for it."""

    bridge: str
    orig: dict[str, str] = field(default_factory=lambda: {"tn": OWN})
    dest: str = CALLED
    before: tuple[str, ...] = ()
    """Values for the application ``set``."""
    invite: dict[str, Any] = field(default_factory=dict)
    """What differs in the customer's INVITE."""


GATEWAY = "sofia/gateway/carrier/$1"


def effective(number: str, orig: str = OTHER) -> Case:
    return Case(GATEWAY, {"tn": orig}, before=(f"effective_caller_id_number={number}",))


def leg(variables: str, orig: str = OWN, dest: str = CALLED, to: str = GATEWAY) -> Case:
    return Case(f"[{variables}]{to}", {"tn": orig}, dest)


CASES = {
    "plain": Case(GATEWAY),
    "effective": effective(f"+{OTHER}"),
    "effective_national": effective("2155551214"),
    "effective_without_plus": effective(OTHER),
    "effective_escaped": effective(f"%2B{OTHER}"),
    "effective_formatted": effective("+1 (215) 555-1214"),
    "origination": leg(f"origination_caller_id_number=+{OTHER}", OTHER),
    "pid": leg(f"sip_cid_type=pid,origination_caller_id_number=+{OTHER}", OTHER),
    "no_other_header": leg("sip_cid_type=none"),
    "hidden": leg("origination_privacy=full"),
    "hidden_pid": leg("origination_privacy=full,sip_cid_type=pid"),
    "from_uri": leg(f"sip_from_uri=sip:+{OTHER}@a.example.com", OTHER),
    "invite_from_uri": leg(f"sip_invite_from_uri=<sip:+{OTHER}@a.example.com>", OTHER),
    "full_from": leg(f"sip_invite_full_from=<sip:+{OTHER}@a.example.com>", OTHER),
    "force_full_from": leg(f"sip_force_full_from=<sip:+{OTHER}@a.example.com>", OTHER),
    "invite_domain": leg("sip_invite_domain=a.example.com"),
    "escaped_called": Case(f"sofia/gateway/carrier/%2B{CALLED}"),
    "shown_to": Case(f"sofia/gateway/carrier/$1^+{SHOWN}", dest=SHOWN),
    "shown_to_outside": leg(f"shaken_to=+{SHOWN}", dest=SHOWN, to=f"sofia/outside/$1@OUTSIDE^+{SHOWN}"),
    "to_uri": leg(f"sip_invite_to_uri=<sip:+{SHOWN}@a.example.com>", dest=SHOWN),
    "full_to": leg(f"sip_force_full_to=<sip:+{SHOWN}@a.example.com>", dest=SHOWN),
    "invite_full_to": leg(f"sip_invite_full_to=<sip:+{SHOWN}@a.example.com>", dest=SHOWN),
    "req_uri": leg(f"sip_invite_req_uri=sip:+{SHOWN}@OUTSIDE", dest=CALLED),
    "prefix": Case("sofia/gateway/carrier/9#$1^$1"),
    "pid_without_from": Case(
        f"[sip_cid_type=pid,origination_caller_id_number=+{OTHER}]sofia/gateway/account/$1", {"tn": OTHER}
    ),
    "name": Case(GATEWAY, {"uri": "sip:alice@127.0.0.1"}, before=("effective_caller_id_number=alice",)),
    "asserted": Case(
        GATEWAY,
        invite={"from_value": "<sip:alice@127.0.0.2>", "extra": f"P-Asserted-Identity: <sip:+{OWN}@a>\r\n".encode()},
    ),
}


@pytest.fixture(scope="module")
def origin(shared: Network) -> Provider:
    return shared.provider("origin")


@pytest.fixture(scope="module")
def verifier(shared: Network, origin: Provider, carrier: Party) -> KamailioServer:
    target = shared.provider("target", spc="123T", policy={}, verification={"replay": "off"})
    target.publish(origin.x5u, origin.credential.chain)
    return shared.kamailio(target, inside_peer=f"sip:{carrier.target}")


@pytest.fixture(scope="module")
def switch(start: Start, origin: Provider, verifier: KamailioServer, way: Way) -> FreeSwitchServer:
    outside = f"127.0.0.1:{verifier.outside_port}"
    extensions = "".join(
        when(
            name,
            "".join(action("set", value) for value in case.before)
            + way.sign
            + action("bridge", case.bridge.replace("OUTSIDE", outside)),
        )
        for name, case in CASES.items()
    )
    return start(
        origin,
        outside_peer=outside,
        dialplan={"inside": extensions},
        from_inside=way.sign,
        gateways={"account": {"caller-id-in-from": "false"}},
    )


@pytest.mark.parametrize("name", CASES)
def test_what_is_signed_is_what_is_sent(
    switch: FreeSwitchServer, verifier: KamailioServer, caller: Party, carrier: Party, name: str
) -> None:
    case = CASES[name]
    invite = dict(case.invite)
    extra = invite.pop("extra", b"")
    assert caller.ask(switch.inside_port, choose(name) + extra, **invite).status == 200
    arrived = carrier.invite()
    (value,) = arrived.identity()
    found = claims(value)
    assert found["orig"] == case.orig
    assert found["dest"] == {"tn": [case.dest]}
    (verdict,) = [event for event in events(verifier.log_text(), arrived.one("Call-ID")) if event["event"] == "verify"]
    assert verdict["verstat"] == "TN-Validation-Passed", (verdict, arrived.text)


def test_a_caller_who_withholds_the_number_is_not_signed(
    switch: FreeSwitchServer, caller: Party, carrier: Party
) -> None:
    answer = caller.ask(switch.inside_port, from_value='"Anonymous" <sip:anonymous@anonymous.invalid>')
    assert answer.status == 200
    assert carrier.invite().identity() == []
    assert said(switch, "sign")[-1]["skip"] == "caller_anonymous"
