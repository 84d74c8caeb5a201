"""The fleet's order of acts on a three-node Cluster and over a Sentinel's failover, both real."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.lab.redis import Cluster, Sentinels
from tests.conduct.hosts import FleetHost, agree

_Found = TypeVar("_Found")


def again(work: Callable[[], _Found], seconds: float = 20.0) -> _Found:
    """Do something as an agent does: until Redis is there."""
    end = time.monotonic() + seconds
    while True:
        try:
            return work()
        except StoreUnavailable:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_cluster_keeps_it_in_one_slot_and_its_snapshot_in_many(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path / "cluster") as cluster,
        FleetHost(tmp_path / "one.db", cluster.access, "c") as one,
        FleetHost(tmp_path / "two.db", cluster.access, "c") as two,
    ):
        one.calls((number / 10, f"{number:011}") for number in range(9_000))
        one.sync()
        two.sync()
        pieces = list(one.stream.snapshot().pieces)
        assert len(pieces) > 6
        one.put("suspend", 1)
        one.calls([(2, "1")])
        agree([one, two])
        assert (two.standing(), two.position()) == ("suspended", 2)
        assert one.replica.compact(2)
        assert not two.stream.wait(2, 0.01)
        two.put("reinstate", 2)
        two.sync()
        assert one.replica.wait(2, 5.0)
        agree([one, two])
        assert two.replica.claim("message", 60, b"two") == b"two"
        assert one.replica.claim("message", 60, b"one") is None


@pytest.mark.parametrize("replicated", [True, False])
def test_a_failover_of_sentinel_loses_no_decision(tmp_path: Path, replicated: bool) -> None:
    with (
        Sentinels(tmp_path / "sentinels") as sentinels,
        FleetHost(tmp_path / "one.db", sentinels.access, "s") as one,
        FleetHost(tmp_path / "two.db", sentinels.access, "s") as two,
    ):
        agree([one, two])
        one.put("suspend", 1, customer="before")
        one.sync()
        one.stream._ask("WAIT", 1, 1_000)
        old, replica = sentinels.servers
        if not replicated:
            replica.pause()
            old.command("CLIENT", "KILL", "TYPE", "replica")
        one.put("suspend", 2, customer="last")
        one.calls([(2, "1")])
        one.sync()
        two.sync()
        if replicated:
            one.stream._ask("WAIT", 1, 1_000)
        old.kill()
        replica.resume()
        one.put("suspend", 3)
        sentinels.wait_for_failover(old)
        synced = again(one.sync)
        again(two.sync)
        agree([one, two])
        assert [two.standing(name) for name in ("before", "last", "acme")] == ["suspended"] * 3
        assert two.end() == "1 open: 1 call, customer suspended"
        assert bool(synced.notes) is not replicated
