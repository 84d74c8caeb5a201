"""Calls to outside: signed once on each leg that leaves, whoever makes it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from shaken_plugin.core.sip import format_date
from shaken_plugin.lab.freeswitch import HOOK, FreeSwitchServer, Way
from shaken_plugin.lab.provider import Provider, sample_policy
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start, action, choose, claims, said, when
from tests.e2e.freeswitch.party import ANSWERS, RINGS, Message, Party, Step, called_call

CALLED, THIRD = "+12025550143", "+12025550199"
MOVED, CHALLENGED, BUSY, RINGING = "+12025550302", "+12025550407", "+12025550503", "+12025550180"


@pytest.fixture(scope="module")
def provider(shared: Network) -> Provider:
    policy = sample_policy(time.time())
    policy["customers"][0]["trunks"].append({"id": "acme-users", "users": ["dialler"]})
    return shared.provider("origin", policy=policy)


@pytest.fixture(scope="module")
def carrier() -> Iterator[Party]:
    """A carrier with numbers that behave in a way of their own."""

    def behave(request: Message) -> tuple[Step, ...]:
        if MOVED in request.uri:
            return ((0.0, f"302 Moved Temporarily\r\nContact: <sip:{THIRD}@{party.target}>".encode()),)
        if CHALLENGED in request.uri and not request.all("Proxy-Authorization"):
            challenge = b'Proxy-Authenticate: Digest realm="127.0.0.1", nonce="1", algorithm=MD5'
            return ((0.0, b"407 Proxy Authentication Required\r\n" + challenge),)
        if BUSY in request.uri:
            return ((0.0, b"503 Service Unavailable"),)
        return (RINGS,) if RINGING in request.uri else (RINGS, ANSWERS)

    with Party() as party:
        party.behave = behave
        yield party


@pytest.fixture(scope="module")
def switch(start: Start, provider: Provider, carrier: Party, way: Way) -> FreeSwitchServer:
    """Signs by a hook on its gateway; in some extensions by an action, or twice."""
    direct = f"sofia/outside/$1@{carrier.target}"
    hook = action("export", f"nolocal:{HOOK}={way.application}")
    extensions = [
        when("dialplan", way.sign + action("bridge", direct)),
        when("twice", way.sign + way.sign + action("bridge", "sofia/gateway/carrier/$1")),
        when("failover", hook + action("bridge", f"sofia/gateway/carrier/{BUSY}|{direct}")),
        when("fork", hook + action("bridge", f"sofia/gateway/carrier/{RINGING},{direct}")),
        when("plain", action("bridge", direct)),
    ]
    return start(provider, outside_peer=carrier.target, hook=way.hook, dialplan={"inside": "".join(extensions)})


@pytest.fixture(scope="module")
def by_global(start: Start, provider: Provider, carrier: Party, way: Way) -> FreeSwitchServer:
    """Signs by a variable of the whole switch; in an extension by way of a loopback channel."""
    bridge = action("bridge", "sofia/gateway/carrier/$1")
    return start(
        provider,
        outside_peer=carrier.target,
        variables={HOOK: way.application},
        dialplan={
            "inside": when(
                "loopback", action("export", "shaken_account=dialler") + action("bridge", "loopback/$1/outside")
            ),
            "outside": when("x", bridge),
        },
        inside_peer=carrier.target,
    )


def test_by_way_of_a_loopback_channel(by_global: FreeSwitchServer, caller: Party, carrier: Party) -> None:
    """A leg that never becomes an INVITE is none that leaves; for whom the call is made has to be exported."""
    before = len(said(by_global, "sign"))
    assert caller.ask(by_global.inside_port, choose("loopback")).status == 200
    signed(carrier.invite())
    (event,) = said(by_global, "sign")[before:]
    assert event["source"] == "acme/acme-users"


@pytest.fixture(scope="module", params=["gateway", "dialplan", "global"])
def asked(request: pytest.FixtureRequest, way: Way) -> tuple[FreeSwitchServer, bytes]:
    """Each place from which signing can be asked for: a switch, and the header that selects it."""
    server = request.getfixturevalue("by_global" if request.param == "global" else "switch")
    return server, choose(request.param)


@pytest.fixture(autouse=True)
def hung_up(switch: FreeSwitchServer) -> Iterator[None]:
    yield
    switch.api("hupall")


def signed(invite: Message, orig: str = "12155551212", dest: str = CALLED[1:], attest: str = "A") -> None:
    """One Identity, about the numbers of this INVITE, and a Date that is its iat."""
    (value,) = invite.identity()
    found = claims(value)
    assert found["orig"] == {"tn": orig}
    assert found["dest"] == {"tn": [dest]}
    assert found["attest"] == attest
    assert abs(found["iat"] - time.time()) < 5
    assert invite.one("Date") == format_date(found["iat"])
    assert f"+{orig}@" in invite.one("From")
    assert f"+{dest}@" in invite.one("To")
    assert f"+{dest}@" in invite.uri


def reached(carrier: Party, number: str) -> Message:
    """The INVITE to a number."""
    carrier.wait(lambda message: message.method == "INVITE" and number in message.uri)
    (invite,) = [message for message in carrier.invites() if number in message.uri]
    return invite


def test_wherever_signing_is_asked_for_it_is_done_once(
    asked: tuple[FreeSwitchServer, bytes], caller: Party, carrier: Party
) -> None:
    server, header = asked
    before = len(said(server, "sign"))
    assert caller.ask(server.inside_port, header).status == 200
    signed(carrier.invite())
    (event,) = said(server, "sign")[before:]
    assert (event["level"], event["source"]) == ("A", "acme/acme-dialler")


def test_a_leg_with_the_hook_twice_is_signed_once(switch: FreeSwitchServer, carrier: Party, caller: Party) -> None:
    before = len(said(switch, "sign"))
    assert caller.ask(switch.inside_port, choose("twice")).status == 200
    signed(carrier.invite())
    assert len(said(switch, "sign")) == before + 1


def test_where_it_is_not_asked_for_nothing_is_signed(switch: FreeSwitchServer, carrier: Party, caller: Party) -> None:
    assert caller.ask(switch.inside_port, choose("plain")).status == 200
    assert carrier.invite().identity() == []
    assert carrier.invite().all("Date") == []


def test_every_route_that_is_tried_is_signed_once(switch: FreeSwitchServer, caller: Party, carrier: Party) -> None:
    assert caller.ask(switch.inside_port, choose("failover")).status == 200
    signed(reached(carrier, BUSY), dest=BUSY[1:])
    signed(reached(carrier, CALLED))


def test_legs_that_ring_at_the_same_time_are_signed_each(
    switch: FreeSwitchServer, caller: Party, carrier: Party
) -> None:
    assert caller.ask(switch.inside_port, choose("fork")).status == 200
    signed(reached(carrier, RINGING), dest=RINGING[1:])
    signed(reached(carrier, CALLED))


def test_a_dialler_that_originates_without_a_leg_that_came(switch: FreeSwitchServer, carrier: Party) -> None:
    """By the API, as by the event socket: the account is what the dialler says."""
    variables = "origination_caller_id_number=+12155551213,shaken_account=dialler"
    answer = switch.api(f"originate {{{variables}}}sofia/gateway/carrier/{CALLED} &park")
    assert answer is not None
    assert answer.startswith("+OK")
    signed(reached(carrier, CALLED), orig="12155551213")
    assert switch.api(f"originate {{origination_caller_id_number=+12155551213}}sofia/gateway/carrier/{THIRD} &park")
    assert reached(carrier, THIRD).identity() == []  # nobody says for whom it is made
    assert said(switch, "sign")[-1]["skip"] == "policy_unsigned"


def test_a_dialler_that_bridges_two_legs(switch: FreeSwitchServer, carrier: Party) -> None:
    numbers = "origination_caller_id_number=+12155551213,effective_caller_id_number=+12155551214"
    answer = switch.api(
        f"originate {{{numbers},shaken_account=dialler}}sofia/gateway/carrier/{CALLED} "
        f"&bridge(sofia/gateway/carrier/{THIRD})"
    )
    assert answer is not None
    assert answer.startswith("+OK")
    signed(reached(carrier, THIRD), orig="12155551214", dest=THIRD[1:])
    signed(reached(carrier, CALLED), orig="12155551213")


def test_blind_transfer_by_the_caller(asked: tuple[FreeSwitchServer, bytes], caller: Party, carrier: Party) -> None:
    """The call from the one who was called to the third is the customer's, too, and has a token of its own."""
    server, header = asked
    call = caller.call(server.inside_port, header)
    signed(reached(carrier, CALLED))
    assert call.refer(f"sip:{THIRD}@127.0.0.1").status == 202
    # FreeSWITCH shows the number of the party that is transferred, which is not the customer's own.
    signed(reached(carrier, THIRD), orig=CALLED[1:], dest=THIRD[1:], attest="B")
    server.api("hupall")


def test_blind_transfer_by_the_called(asked: tuple[FreeSwitchServer, bytes], caller: Party, carrier: Party) -> None:
    server, header = asked
    caller.call(server.inside_port, header)
    invite = reached(carrier, CALLED)
    assert called_call(carrier, invite).refer(f"sip:{THIRD}@127.0.0.1").status == 202
    signed(reached(carrier, THIRD), dest=THIRD[1:])
    signed(invite)
    server.api("hupall")


def test_attended_transfer(asked: tuple[FreeSwitchServer, bytes], caller: Party, carrier: Party) -> None:
    """The two called parties are put together without another INVITE."""
    server, header = asked
    first = caller.call(server.inside_port, header)
    second = caller.call(server.inside_port, header, to=THIRD)
    assert first.refer(f"sip:{THIRD}@127.0.0.1?Replaces={second.replaces}").status == 202
    caller.wait(lambda message: message.method == "BYE" and message.one("Call-ID") == second.call_id)
    signed(reached(carrier, CALLED))
    signed(reached(carrier, THIRD), dest=THIRD[1:])
    assert len(carrier.invites()) == 2
    server.api("hupall")


def test_a_carrier_that_asks_for_the_password(switch: FreeSwitchServer, caller: Party, carrier: Party) -> None:
    assert caller.ask(switch.inside_port, to=CHALLENGED).status == 200
    without, with_password = carrier.invites()
    signed(without, dest=CHALLENGED[1:])
    assert with_password.one("Proxy-Authorization")
    assert without.identity() == with_password.identity()
    assert without.one("Date") == with_password.one("Date")


def test_a_called_party_that_redirects(switch: FreeSwitchServer, caller: Party, carrier: Party) -> None:
    """FreeSWITCH makes another leg for it."""
    assert caller.ask(switch.inside_port, to=MOVED).status == 200
    signed(reached(carrier, MOVED), dest=MOVED[1:])
    signed(reached(carrier, THIRD), dest=THIRD[1:])


def test_a_later_invite_of_the_dialog_carries_no_stale_token(
    switch: FreeSwitchServer, caller: Party, carrier: Party
) -> None:
    caller.call(switch.inside_port)
    signed(carrier.invite())
    carrier.wait(lambda message: message.method == "ACK")
    uuid = re.findall(r"New Channel sofia/outside\S+ \[([-0-9a-f]+)\]", switch.log_text())[-1]
    answer = switch.api(f"uuid_hold {uuid}")
    assert answer is not None
    assert answer.startswith("+OK")
    (again,) = carrier.wait(lambda message: message.method == "INVITE" and "tag=" in message.one("To"))
    assert again.identity() == again.all("Date") == []


def test_the_switchs_library_tells_of_other_legs(switch: FreeSwitchServer) -> None:
    """Where its functions are not found, the log says so, and calls are signed all the same, for more."""
    assert "asked by API commands" not in switch.log_text()
