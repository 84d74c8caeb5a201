"""Redis gone under load: no call is lost or late, none unsigned, and each has one record."""

from __future__ import annotations

import time

import pytest

from shaken_plugin.lab.redis import RedisServer
from tests.agent.proxy import Proxy
from tests.e2e.edge import Edge, undisturbed
from tests.e2e.outage.riding import alarmed, refused, ride

pytestmark = pytest.mark.alone


def test_redis_is_killed(edge: Edge, redis: RedisServer) -> None:
    def meanwhile() -> None:
        alarmed(edge, "breaker_open")
        refused(edge, "refused")

    undisturbed(lambda: ride(edge, redis.kill, meanwhile, redis.restart))


def test_redis_hangs(edge: Edge, redis: RedisServer) -> None:
    def meanwhile() -> None:
        alarmed(edge, "breaker_open")
        refused(edge, "in time")

    undisturbed(lambda: ride(edge, redis.pause, meanwhile, redis.resume))


def test_redis_has_no_memory(edge: Edge, redis: RedisServer) -> None:
    def meanwhile() -> None:
        refused(edge, "memory")
        alarmed(edge, "status_unreported")
        alarmed(edge, "counted_apart")
        assert "breaker_open" not in edge.alarms()

    undisturbed(
        lambda: ride(
            edge,
            lambda: redis.command("CONFIG", "SET", "maxmemory", 1),
            meanwhile,
            lambda: redis.command("CONFIG", "SET", "maxmemory", 0),
        )
    )


def test_redis_answers_slowly(edge: Edge, wire: Proxy) -> None:
    """Too late for a call, and in time for all else."""

    def delay(seconds: float) -> None:
        wire.delay = seconds

    def meanwhile() -> None:
        alarmed(edge, "counted_apart")
        time.sleep(2.0)
        assert edge.alarms().keys() == {"counted_apart"}

    undisturbed(lambda: ride(edge, lambda: delay(0.2), meanwhile, lambda: delay(0.0)))
