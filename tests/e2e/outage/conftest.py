"""A host of a fleet, and the Redis that it reaches by a wire of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import LOOPBACK, LabError, find_program
from tests.agent.proxy import Proxy
from tests.e2e.conftest import REQUIRE_ALL, Network
from tests.e2e.edge import Edge


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that keeps what it said it has, also when it is killed."""
    try:
        find_program("redis-server")
    except LabError as exc:
        if os.environ.get(REQUIRE_ALL):
            raise
        pytest.skip(str(exc))
    with RedisServer("redis", tmp_path_factory.mktemp("redis"), {"appendonly": "yes"}) as server:
        yield server


@pytest.fixture(scope="module")
def wire(redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis.port, LOOPBACK) as one:
        yield one


@pytest.fixture(scope="module")
def edge(shared: Network, redis: RedisServer, wire: Proxy) -> Edge:
    return Edge(shared, redis.access, servers=[f"{LOOPBACK}:{wire.port}"])
