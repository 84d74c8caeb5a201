"""Two Kamailios of one fleet, each with its agent, and one Redis: what one host changes decides calls on the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import LabError, find_program
from shaken_plugin.ports import Author
from shaken_plugin.stores.freshness import CopyAge
from tests.agent.fleet import Member, begin
from tests.agent.host import until
from tests.e2e.conftest import Network, pair_of
from tests.e2e.phone import Phone
from tests.e2e.test_policy import Edge
from tests.e2e.test_verifying import header


@pytest.fixture
def redis(network: Network) -> Iterator[RedisServer]:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))
    with RedisServer("redis", network.folder / "redis") as server:
        yield server


def members_of(network: Network, redis: RedisServer, **settings: object) -> list[Member]:
    """Two hosts that have joined."""
    begin(redis, network.folder / "begun", network.authority)
    members = [
        Member(network.folder / name, name, address, redis, network.authority, network.stack, **settings)
        for name, address in (("edge1", "127.0.0.11"), ("edge2", "127.0.0.12"))
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Member.start, members))
    for member in members:
        age = CopyAge(member.path)
        until(lambda age=age: age.seconds() is not None)  # type: ignore[misc]  # mypy and defaults of a lambda
    return members


@pytest.mark.alone
def test_a_change_on_one_host_decides_calls_on_the_other_within_a_second(network: Network, redis: RedisServer) -> None:
    one, two = members_of(network, redis)
    first, second = Edge(network, one.provider), Edge(network, two.provider)
    assert first.ask()[0] == second.ask()[0] == "A"
    took = []
    for changer, asked in ((one, second), (two, first)):
        for state, answer in ((CustomerState.SUSPENDED, "403 Customer Suspended"), (CustomerState.VERIFIED, "A")):
            with changer.policy().change(Author("Ann", "test", time.time()), str(state)) as draft:
                customer = draft.get(Customer, "acme")
                assert customer is not None
                draft.put(replace(customer, state=state))
            committed = time.monotonic()
            until(lambda asked=asked, answer=answer: asked.ask()[0] == answer)  # type: ignore[misc]  # a default
            took.append(time.monotonic() - committed)
    assert max(took) < 1.0, took


@pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])
def test_a_passport_that_came_over_one_host_is_a_replay_on_the_other(
    network: Network, redis: RedisServer, kemi: bool
) -> None:
    members = members_of(network, redis, verification={"replay": "enforce", "reject": [438]})
    called, origin = network.called(), members[0].provider
    switches = []
    for member in members:
        member.provider.publish(origin.x5u, origin.credential.chain)
        switches.append(network.kamailio(member.provider, inside_peer=called.uri, kemi=kemi))
    first, second = (f"Identity: {header(pair_of(origin), age=age).format()}\r\n".encode() for age in (1, 2))
    caller = Phone()
    answers = [
        caller.ask(caller.invite(identity), switches[host].outside_port)
        for identity, host in ((first, 0), (first, 1), (second, 1), (second, 0), (first, 0))
    ]
    caller.close()
    assert [answer[0] if answer else None for answer in answers] == [200, 438, 200, 438, 438]
    assert [switch.counters()["replayed"] for switch in switches] == [2, 1]
    assert len(called.invites()) == 2
