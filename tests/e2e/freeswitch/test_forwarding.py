"""Calls that are sent on to outside: the headers that came stay as they were, and a div is added."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from shaken_plugin.authentication import identity_header
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab.demo import events
from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.servers import KamailioServer
from tests.e2e.conftest import Network, pair_of
from tests.e2e.freeswitch.conftest import Start, action, choose, claims, when
from tests.e2e.freeswitch.party import Party, called_call

OUTSIDE, OWN, ELSEWHERE, FORWARDED = "19175550100", "12155551212", "12025550143", "13125550199"


@pytest.fixture(scope="module")
def providers(shared: Network) -> tuple[Provider, Provider]:
    """One whose customer calls, and ours, whose customer sends the call on."""
    foreign, origin = shared.provider("foreign", spc="555F"), shared.provider("origin")
    origin.publish(foreign.x5u, foreign.credential.chain)
    return foreign, origin


@pytest.fixture(scope="module")
def verifier(shared: Network, providers: tuple[Provider, Provider], carrier: Party) -> KamailioServer:
    target = shared.provider("target", spc="123T", policy={}, verification={"replay": "off"})
    for provider in providers:
        target.publish(provider.x5u, provider.credential.chain)
    return shared.kamailio(target, inside_peer=f"sip:{carrier.target}")


@pytest.fixture(scope="module")
def phone() -> Iterator[Party]:
    """The customer's telephone."""
    with Party() as party:
        yield party


@pytest.fixture(scope="module")
def switch(
    start: Start, providers: tuple[Provider, Provider], verifier: KamailioServer, phone: Party, way: Way
) -> FreeSwitchServer:
    onward = action("bridge", f"sofia/gateway/carrier/+{FORWARDED}")
    extensions = when("verified", way.verify + onward) + when("unverified", onward)
    transferred = f'<condition field="destination_number" expression="^.?{FORWARDED}$">{onward}</condition>'
    extensions += f'<extension name="transferred">{transferred}</extension>'
    return start(
        providers[1],
        outside_peer=f"127.0.0.1:{verifier.outside_port}",
        inside_peer=phone.target,
        hook=way.hook,
        from_outside=way.verify,
        dialplan={"outside": extensions, "inside": extensions},
    )


def original(provider: Provider, dest: str = OWN) -> str:
    made = shaken_claims(
        attest=Attest.A,
        orig=TelephoneNumber(OUTSIDE),
        dest=TelephoneNumber(dest),
        iat=int(time.time()),
        origid="00000000-0000-4000-8000-000000000000",
    )
    return identity_header(pair_of(provider), made).format()


def diverted(carrier: Party, verifier: KamailioServer, first: str) -> None:
    """What arrived has the original and a div, and a verifier believes both."""
    arrived = carrier.invite()
    kept, div = arrived.identity()
    assert kept == first
    found = claims(div)
    assert found["div"] == {"tn": OWN}
    assert (found["orig"], found["dest"]) == ({"tn": OUTSIDE}, {"tn": [FORWARDED]})
    (verdict,) = [event for event in events(verifier.log_text(), arrived.one("Call-ID")) if event["event"] == "verify"]
    assert verdict["verstat"] == "TN-Validation-Passed", verdict
    assert arrived.text.count("verstat") == 1  # the last verifier's


@pytest.mark.parametrize("title", ["verified", "unverified"])
def test_a_call_that_the_dialplan_sends_on(
    switch: FreeSwitchServer, verifier: KamailioServer, providers: tuple[Provider, Provider], carrier: Party, title: str
) -> None:
    first = original(providers[0])
    with Party("127.0.0.4") as caller:
        extra = choose(title) + f"Identity: {first}\r\n".encode()
        assert caller.ask(switch.outside_port, extra, number=f"+{OUTSIDE}", to=f"+{OWN}").status == 200
    if title == "verified":
        diverted(carrier, verifier, first)
    else:  # nobody vouches for what nobody checked
        assert carrier.invite().identity() == [first]


def test_a_call_that_the_called_transfers(
    switch: FreeSwitchServer,
    verifier: KamailioServer,
    providers: tuple[Provider, Provider],
    phone: Party,
    carrier: Party,
) -> None:
    first = original(providers[0])
    with Party("127.0.0.4") as caller:
        caller.call(switch.outside_port, f"Identity: {first}\r\n".encode(), number=f"+{OUTSIDE}", to=f"+{OWN}")
        assert called_call(phone, phone.invite()).refer(f"sip:+{FORWARDED}@127.0.0.1").status == 202
        diverted(carrier, verifier, first)
        switch.api("hupall")


def test_without_the_right_to_the_number_the_original_alone(
    switch: FreeSwitchServer, providers: tuple[Provider, Provider], carrier: Party
) -> None:
    first = original(providers[0], ELSEWHERE)
    with Party("127.0.0.4") as caller:
        extra = choose("verified") + f"Identity: {first}\r\n".encode()
        assert caller.ask(switch.outside_port, extra, number=f"+{OUTSIDE}", to=f"+{ELSEWHERE}").status == 200
    assert carrier.invite().identity() == [first]
    assert '"skip":"diversion_not_ours"' in switch.log_text()


def test_a_call_that_came_without_any_is_not_signed_for_a_stranger(switch: FreeSwitchServer, carrier: Party) -> None:
    with Party("127.0.0.4") as caller:
        answer = caller.ask(switch.outside_port, choose("verified"), number=f"+{OUTSIDE}", to=f"+{OWN}")
        assert answer.status == 200
    assert carrier.invite().identity() == []
