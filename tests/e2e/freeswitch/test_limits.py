"""Limits in a real FreeSWITCH: slots taken when a leg leaves, and given back when the call has ended."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from shaken_plugin.core.records import Customer, Limits, Rate
from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.servers import AgentServer
from shaken_plugin.ports import Author
from shaken_plugin.runtime import apply
from shaken_plugin.stores.sqlite import SqlitePolicy
from tests.agent.host import until
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Agents, Start, action, choose, said, when
from tests.e2e.freeswitch.party import ANSWERS, RINGS, Message, Party, Step

BUSY, RINGING = "+12025550503", "+12025550180"


@pytest.fixture(scope="module")
def provider(shared: Network, way: Way) -> Provider:
    return shared.provider(f"origin-{way.name}")


@pytest.fixture(scope="module")
def agent(agents: Agents, provider: Provider) -> AgentServer:
    return agents.of(provider)[0]


@pytest.fixture(scope="module")
def carrier() -> Iterator[Party]:
    def behave(request: Message) -> tuple[Step, ...]:
        if BUSY in request.uri:
            return ((0.0, b"503 Service Unavailable"),)
        return (RINGS,) if RINGING in request.uri else (RINGS, ANSWERS)

    with Party() as party:
        party.behave = behave
        yield party


@pytest.fixture(scope="module")
def switch(start: Start, provider: Provider, carrier: Party, way: Way, agent: AgentServer) -> FreeSwitchServer:
    direct = f"sofia/outside/$1@{carrier.target}"
    gateway = action("bridge", f"sofia/gateway/carrier/{BUSY}|sofia/gateway/carrier/$1")
    extensions = [
        when("dialplan", way.sign + action("bridge", direct)),
        when("gateway", action("bridge", "sofia/gateway/carrier/$1")),
        when("failover", gateway),
        when("taken", action("set", "api_reporting_hook=status") + action("set", "api_hangup_hook=status") + gateway),
    ]
    apply(provider.settings, time.time())
    store = SqlitePolicy(provider.folder / "policy.db")
    with store.change(Author("test", "limits", time.time()), "limits") as draft:
        acme = draft.get(Customer, "acme")
        assert acme is not None
        draft.put(replace(acme, limits=Limits(Rate(None, 1))))
    return start(provider, outside_peer=carrier.target, hook=way.hook, dialplan={"inside": "".join(extensions)})


@pytest.fixture(autouse=True)
def hung_up(switch: FreeSwitchServer, agent: AgentServer) -> Iterator[None]:
    yield
    switch.api("hupall")
    until(lambda: held(agent) == 0)
    # The watch is hung up, too. A call that comes before the agent has seen that has none, and where the agent is
    # killed just then the next one waits for a watch for longer than these tests do.
    until(lambda: re.search(r"^0 session\(s\) - peak", switch.api("status") or "", re.MULTILINE))
    time.sleep(0.5)  # the agent shows nothing of it


def held(agent: AgentServer) -> int:
    address = agent.log_text().rpartition("http://")[2].partition("/health")[0]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        found = re.search(r"^shaken_limit_slots (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found.group(1)))


@pytest.mark.parametrize("name", ["dialplan", "gateway", "failover"])
def test_a_slot_is_taken_and_given_back(
    switch: FreeSwitchServer, agent: AgentServer, caller: Party, carrier: Party, name: str
) -> None:
    call = caller.call(switch.inside_port, choose(name))
    assert call.final.status == 200
    assert held(agent) == 1
    with Party("127.0.0.2") as another:
        over = another.call(switch.inside_port, choose(name)).final
        assert over.status == 480
        assert over.phrase == ("Call Limit Reached" if name == "dialplan" else over.phrase)
        assert another.ask(switch.inside_port, choose(name), to="911").status == 200
    call.bye()
    until(lambda: held(agent) == 0)
    assert caller.ask(switch.inside_port, choose(name)).status == 200


def test_a_call_that_fails_or_is_given_up_gives_it_back(
    switch: FreeSwitchServer, agent: AgentServer, caller: Party, carrier: Party
) -> None:
    assert caller.ask(switch.inside_port, choose("dialplan"), to=BUSY).status == 503
    until(lambda: held(agent) == 0)
    assert caller.ask(switch.inside_port, choose("gateway"), to=BUSY).status == 503
    until(lambda: held(agent) == 0)
    caller.send(caller.request(choose("gateway"), to=RINGING), switch.inside_port)
    until(lambda: held(agent) == 1)
    switch.api("hupall")
    until(lambda: held(agent) == 0)


def test_a_dialler_that_originates(switch: FreeSwitchServer, agent: AgentServer, carrier: Party) -> None:
    variables = "origination_caller_id_number=+12155551213,shaken_source=127.0.0.2"
    originate = f"originate {{{variables}}}sofia/gateway/carrier/+12025550143 &park"
    assert (switch.api(originate) or "").startswith("+OK")
    assert held(agent) == 1
    assert "-ERR" in (switch.api(originate) or "")
    switch.api("hupall")
    until(lambda: held(agent) == 0)
    assert (switch.api(originate) or "").startswith("+OK")


def test_where_others_use_both_hooks_it_is_said_and_no_slot_is_taken(
    switch: FreeSwitchServer, agent: AgentServer, caller: Party, way: Way
) -> None:
    call = caller.call(switch.inside_port, choose("taken"))
    assert call.final.status == 200
    if not way.python:
        assert held(agent) == 1  # it needs none of the two
        return
    until(lambda: held(agent) == 0)
    assert "limits on concurrent calls are NOT enforced" in switch.log_text()
    call.bye()


def test_a_transferred_call_counts_once(
    switch: FreeSwitchServer, agent: AgentServer, caller: Party, carrier: Party
) -> None:
    call = caller.call(switch.inside_port, choose("gateway"))
    assert call.final.status == 200
    before = len(said(switch, "sign"))
    assert call.refer(f"sip:+12025550199@127.0.0.1:{switch.inside_port}").status == 202
    until(lambda: len(said(switch, "sign")) > before)
    events = said(switch, "sign")[before:]
    assert [event.get("refusal") for event in events] == [None]
    until(lambda: held(agent) == 1)


def test_a_switch_that_is_killed_frees_its_slots(
    shared: Network, start: Start, provider: Provider, carrier: Party, way: Way, agent: AgentServer, caller: Party
) -> None:
    bridge = when("gateway", action("bridge", "sofia/gateway/carrier/$1"))
    other = start(provider, outside_peer=carrier.target, hook=way.hook, dialplan={"inside": bridge})
    assert caller.call(other.inside_port, choose("gateway")).final.status == 200
    assert held(agent) == 1
    os.kill(other.pid, signal.SIGKILL)
    until(lambda: held(agent) == 0)


def begin(agent: AgentServer) -> None:
    """Start it once more."""
    before = agent.log_text().count("/health")
    agent.__enter__()
    until(lambda: agent.log_text().count("/health") > before)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_calls_keep_their_slots_while_the_agent_is_restarted(
    switch: FreeSwitchServer, agent: AgentServer, caller: Party, carrier: Party, killed: bool
) -> None:
    call = caller.call(switch.inside_port, choose("gateway"))
    assert call.final.status == 200
    until(lambda: held(agent) == 1)
    for _ in range(2):
        agent.kill() if killed else agent.stop()
        begin(agent)
        time.sleep(8)  # longer than a watch that broke is waited for
        assert held(agent) == 1
        with Party("127.0.0.2") as another:
            assert another.call(switch.inside_port, choose("gateway")).final.status == 480
    call.bye()
    until(lambda: held(agent) == 0)


def test_the_end_of_a_call_is_learned_that_came_while_the_agent_was_away(
    switch: FreeSwitchServer, agent: AgentServer, caller: Party, carrier: Party
) -> None:
    call = caller.call(switch.inside_port, choose("gateway"))
    assert call.final.status == 200
    until(lambda: held(agent) == 1)
    agent.kill()
    call.bye()
    begin(agent)
    until(lambda: held(agent) == 0)
    assert caller.ask(switch.inside_port, choose("gateway")).status == 200


def test_without_the_module_for_its_watch_it_is_said_and_calls_go_on(
    start: Start, provider: Provider, carrier: Party, way: Way, agent: AgentServer, caller: Party
) -> None:
    if way.python:
        pytest.skip("needs no watch: a hook of the leg tells the end")
    bridge = when("gateway", action("bridge", "sofia/gateway/carrier/$1"))
    dialplan = when("dialplan", way.sign + action("bridge", f"sofia/outside/$1@{carrier.target}"))
    switch = start(
        provider,
        outside_peer=carrier.target,
        hook=way.hook,
        dialplan={"inside": bridge + dialplan},
        without=["mod_loopback"],
    )
    before = len(carrier.invites())
    with Party("127.0.0.2") as another:
        calls = [
            party.call(switch.inside_port, choose(name)) for party, name in ((caller, "gateway"), (another, "dialplan"))
        ]
        assert [call.final.status for call in calls] == [200, 200]
        until(lambda: held(agent) == 0)
        assert all(invite.identity() for invite in carrier.invites()[before:])
        text = "limits on concurrent calls are NOT enforced: FreeSWITCH makes no channel that tells them"
        assert text in agent.log_text()
        switch.api("hupall")


def test_a_watch_that_is_hung_up_is_made_again_for_the_next_leg(
    switch: FreeSwitchServer, agent: AgentServer, caller: Party, carrier: Party, way: Way
) -> None:
    if way.python:
        pytest.skip("needs no watch: a hook of the leg tells the end")
    call = caller.call(switch.inside_port, choose("gateway"))
    assert call.final.status == 200
    made = until(lambda: re.findall(r"EXECUTE \[depth=0\] null/shaken socket\(\S+/watch full\)", switch.log_text()))
    log = (switch.folder / "log" / "freeswitch.log").read_text("utf-8", "replace")
    watch = re.findall(r"New Channel null/shaken \[(\S+)\]", log)[-1]
    assert (switch.api(f"uuid_kill {watch}") or "").startswith("+OK")

    def is_made_again() -> bool:
        with Party("127.0.0.2") as another:
            assert another.call(switch.inside_port, choose("gateway")).final.status == 480
        return switch.log_text().count("/watch full)") > len(made)

    until(is_made_again, 4)
    time.sleep(8)  # longer than a watch that broke is waited for
    assert held(agent) == 1
    call.bye()
    until(lambda: held(agent) == 0)
