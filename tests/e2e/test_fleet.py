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
from tests.e2e.conftest import Network
from tests.e2e.test_policy import Edge

pytestmark = pytest.mark.alone


@pytest.fixture
def redis(network: Network) -> Iterator[RedisServer]:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))
    with RedisServer("redis", network.folder / "redis") as server:
        yield server


def edges(network: Network, redis: RedisServer, **settings: object) -> tuple[list[Member], list[Edge]]:
    """Two hosts that have joined, and their Kamailios."""
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
    found = [Edge(network, member.provider) for member in members]
    return members, found


def test_a_change_on_one_host_decides_calls_on_the_other_within_a_second(network: Network, redis: RedisServer) -> None:
    (one, two), (first, second) = edges(network, redis)
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
