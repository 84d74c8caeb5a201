"""Following a fleet's changes, over every way to reach a Redis."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.redis.replica import Progress, Replica
from shaken_plugin.stores.redis.upkeep import renew_snapshot, sweep
from tests.contract.backends import SOMEBODY
from tests.contract.fleet import FLEETS


@pytest.mark.parametrize("kind", FLEETS)
def test_a_change_arrives_within_a_second_and_by_a_snapshot(kind: str, tmp_path: Path) -> None:
    here = FLEETS[kind](tmp_path)
    there = Replica(tmp_path / "other.db", FleetLog(here.log.access, here.log.fleet))
    there.catch_up()
    found: list[Progress] = []
    following = threading.Thread(target=lambda: found.append(there.follow(10)))
    following.start()
    time.sleep(0.3)  # so that it waits
    told: list[str] = []
    path = tmp_path / "policy.db"
    with RedisPolicy(path, here.log, replicas=2, report=told.append).change(SOMEBODY, "one") as draft:
        draft.put(Customer("acme", "Acme", CustomerState.VERIFIED))
    began = time.monotonic()
    following.join()
    assert time.monotonic() - began < 1
    assert found == [Progress(1, 1, None)]
    (report,) = told  # none of these has two replicas
    assert "of the 2 replicas of Redis" in report
    assert renew_snapshot(path, here.log)
    joined = Replica(tmp_path / "joined.db", here.log)
    assert joined.advance() == Progress(1, 1, None)
    assert sweep(here.log) == 0
