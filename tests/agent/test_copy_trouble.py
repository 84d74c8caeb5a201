"""A copy that cannot follow a real Redis: what the agent says of it, and what it does about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.breaker import Breaker
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.parts import Fleet
from shaken_plugin.agent.replication import Replication
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import LabError, find_program
from shaken_plugin.stores.redis.hosts import HostTable
from shaken_plugin.stores.redis.log import SCHEMA
from shaken_plugin.telemetry import MemoryObserver
from tests.stores.redis.conftest import ACME, RIGHT, Host, NewHost, hosts_of


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))
    with RedisServer("redis", tmp_path / "redis") as server:
        yield server


@pytest.fixture
def new_host(redis: RedisServer, tmp_path: Path) -> Iterator[NewHost]:
    make, made = hosts_of(redis, tmp_path), list[Host]()

    def new(name: str) -> Host:
        made.append(make(name))
        return made[-1]

    yield new
    for host in made:
        host.log.close()


class Following:
    """The agent's part that follows, for one host."""

    def __init__(self, host: Host) -> None:
        metrics, self.breaker = Metrics(), Breaker()
        self.alarms = Alarms(MemoryObserver(), metrics.alarms, time.time)
        fleet = Fleet("edge1", host.replica, HostTable(host.log), lambda: None, SCHEMA)
        self.replication = Replication(host.path, 300.0, fleet, self.breaker, self.alarms, metrics, time.time)

    def turn(self) -> dict[str, str]:
        """One look; the alarms after it."""
        outcome, _ = self.replication._turn()
        self.replication._told(outcome)
        asyncio.run(self.replication.look())
        return {alarm.name: alarm.text for alarm in self.alarms.now()}


def test_a_redis_that_is_back_without_its_data_closes_the_breaker(redis: RedisServer, new_host: NewHost) -> None:
    here = new_host("here")
    here.put(ACME, RIGHT)
    following = Following(here)
    assert following.turn() == {}
    redis.pause()
    try:
        assert "breaker_open" in following.turn()
    finally:
        redis.resume()
    redis.command("FLUSHALL")
    alarms = following.turn()
    assert not following.breaker.is_open
    assert "there is none" in alarms["copy_not_updated"]
    assert "breaker_open" not in alarms


def test_a_damaged_copy_is_said_and_made_anew_once_redis_answers(redis: RedisServer, new_host: NewHost) -> None:
    here = new_host("here")
    here.put(ACME, RIGHT)
    following = Following(here)
    here.path.write_bytes(b"no database " * 1_000)
    redis.pause()
    try:
        assert "breaker_open" in following.turn()  # that of Redis is seen first
        alarms = following.turn()
    finally:
        redis.resume()
    assert "file is not a database; it cannot be made anew now: Redis" in alarms["copy_not_updated"]
    assert "go on from the copy" not in alarms["copy_not_updated"]
    assert "breaker_open" in alarms
    alarms = following.turn()
    assert list(alarms) == ["resynced"]
    assert "what was damaged is kept as here.db.damaged" in alarms["resynced"]
    assert not following.breaker.is_open
    assert here.version == 1
