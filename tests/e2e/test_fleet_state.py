"""Two Kamailios of one fleet, each with its agent, and one Redis: who is suspended on one is on the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import pytest

from shaken_plugin.conduct import view
from shaken_plugin.conduct.state import State
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import KamailioServer, LabError, find_program
from shaken_plugin.stores.freshness import CopyAge
from tests.agent.fleet import Member, begin
from tests.agent.hook import SECRET, Hook
from tests.agent.host import until
from tests.e2e.conftest import Network
from tests.e2e.phone import Phone
from tests.e2e.test_offences import Placed

WHY = ("--by", "Ann", "--why", "a test")


class Host(NamedTuple):
    """One host of the fleet: its files and agent, and its switch."""

    member: Member
    switch: KamailioServer

    def call(self, number: str = "+12155551212") -> int:
        """How one call over it is answered."""
        phone = Phone()
        request = phone.invite(number=number)
        phone.send(request, self.switch.inside_port)
        answer = phone.final(request)
        phone.close()
        return answer[0] if answer else 0

    def stages(self) -> list[str]:
        with State(self.member.provider.folder / "state.db").reading() as connection:
            return [case.offence.stage.value for case in view.cases(connection)]

    def decide(self, verb: str) -> tuple[float, str]:
        """A command on this host: when it ended, and what it said."""
        done = self.member.run("customer", verb, "acme", *WHY)
        assert done.exit_code == 0, done.output
        return time.time(), " ".join(done.output.split())


class Fleet(NamedTuple):
    """Two hosts that have joined, their Redis, and the webhook of both."""

    one: Host
    two: Host
    redis: RedisServer
    hook: Hook


@pytest.fixture(scope="module")
def fleet(shared: Network) -> Fleet:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))
    redis = shared.stack.enter_context(RedisServer("redis", shared.folder / "redis"))  # outlives the agents
    hook = shared.stack.enter_context(Hook())
    called = shared.called()
    begin(redis, shared.folder / "begun", shared.authority)
    webhook = {"url": hook.url, "secret": "file:secret"}
    offences = {"suspend": "automatic", "grace": 0, "gather": 5, "webhook": webhook}
    addresses = {"edge1": "127.0.0.11", "edge2": "127.0.0.12"}
    members = [
        Member(shared.folder / name, name, address, redis, shared.authority, shared.stack, offences=offences)
        for name, address in addresses.items()
    ]
    for member in members:
        (member.provider.folder / "secret").write_bytes(SECRET)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Member.start, members))
    for member in members:
        until(partial(_has_copy, member))
    one, two = (Host(member, shared.kamailio(member.provider, outside_peer=called.uri)) for member in members)
    until(lambda: one.call() == two.call() == 200)
    return Fleet(one, two, redis, hook)


def _has_copy(member: Member) -> bool:
    return CopyAge(member.path).seconds() is not None


@contextmanager
def calling(host: Host) -> Iterator[list[Placed]]:
    """A telephone that calls over a host again and again until the end of the context."""
    placed: list[Placed] = []
    end = threading.Event()

    def telephone() -> None:
        while not end.is_set():
            at = time.time()
            placed.append(Placed(at, host.call()))
            end.wait(0.01)

    thread = threading.Thread(target=telephone)
    thread.start()
    try:
        yield placed
    finally:
        end.set()
        thread.join(10)


def test_a_suspension_on_one_host_refuses_calls_on_the_other_within_a_second(fleet: Fleet) -> None:
    one, two = fleet.one, fleet.two
    with calling(two) as placed:
        until(lambda: len(placed) > 10)
        suspended, said = one.decide("suspend")
        assert "were told" in said
        assert one.call() == 403
        until(lambda: placed[-1].status == 403)
        refusing = time.time()
        time.sleep(0.5)
        still = time.time()
        reinstated, _ = two.decide("reinstate")
        until(lambda: one.call() == 200)
        assert time.time() - reinstated < 1
    assert {call.status for call in placed if call.at < suspended - 1} == {200}
    assert {call.status for call in placed if refusing <= call.at < still} == {403}
    assert min(call.at for call in placed if call.status == 403) - suspended < 1


def test_a_suspension_while_redis_hangs_and_the_agent_dies_reaches_the_others_after_that(fleet: Fleet) -> None:
    one, two, redis = fleet.one, fleet.two, fleet.redis
    redis.pause()
    try:
        _, said = one.decide("suspend")
        assert "are not told yet" in said
        assert (one.call(), two.call()) == (403, 200)
        one.member.agent.kill()
    finally:
        redis.resume()
    assert two.call() == 200
    one.member.start()
    until(lambda: two.call() == 403)
    two.decide("reinstate")
    until(lambda: one.call() == 200)


def test_a_dialler_that_calls_over_both_hosts_gets_one_warning_and_is_then_suspended_on_both(fleet: Fleet) -> None:
    one, two, hook = fleet.one, fleet.two, fleet.hook
    assert {host.call(f"+131255599{index:02}") for index in range(6) for host in (one, two)} == {200}
    until(lambda: one.stages() == two.stages() == ["warned"])
    assert [request.told["data"]["calls"] for request in hook.requests] == [12]
    assert two.call("+13125559999") == 200
    until(lambda: one.stages() == two.stages() == ["suspended", "warned"])
    assert one.call() == two.call() == 403
    until(lambda: len(hook.requests) == 2)
    assert hook.requests[1].told["type"] == "offence.suspended"
