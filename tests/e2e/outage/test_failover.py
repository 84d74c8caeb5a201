"""A Redis of Sentinels killed under load: another takes over, no call is lost or late, and each has one record."""

from __future__ import annotations

import pytest

from shaken_plugin.lab.redis import Sentinels
from tests.e2e.conftest import Network
from tests.e2e.edge import Edge
from tests.e2e.outage.riding import ride

pytestmark = pytest.mark.alone


def test_redis_fails_over(network: Network) -> None:
    with Sentinels(network.folder / "sentinels") as sentinels:
        access = sentinels.access
        servers = [f"{host}:{port}" for host, port in access.servers]
        edge = Edge(network, access, servers=servers, mode="sentinel", master=access.master)
        old = sentinels.master
        assert ride(edge, old.kill, lambda: sentinels.wait_for_failover(old), lambda: None).trouble() is None
