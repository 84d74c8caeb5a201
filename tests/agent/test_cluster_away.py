"""A Cluster of which no node answers: the agent's thread and the commands say so, as of a single server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shaken_plugin import runtime
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.breaker import Breaker
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.replication import Replication
from shaken_plugin.agent.wiring import fleet
from shaken_plugin.cli import main
from shaken_plugin.config.settings import parse_settings
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.redis import Cluster
from shaken_plugin.lab.servers import LabError, find_program
from shaken_plugin.runtime.fleet import fleet_log
from shaken_plugin.runtime.fleetstate import state_replica
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from shaken_plugin.telemetry import MemoryObserver


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))
    with Cluster(tmp_path / "cluster") as running:
        yield running


def test_a_cluster_that_is_paused_opens_the_breaker_and_no_command_ends_in_a_fault(
    cluster: Cluster, tmp_path: Path, today: Authority
) -> None:
    chosen = {"servers": [f"127.0.0.1:{one.port}" for one in cluster.servers], "mode": "cluster", "timeout": 0.3}
    store = {"path": "policy.db", "redis": chosen}
    provider = Provider.make(tmp_path / "edge1", today, time.time(), store=store)
    runtime.start(provider.settings, time.time())
    settings, _ = parse_settings(provider.settings)
    assert settings is not None
    path = Path(settings.store.path)
    upload_snapshot(path, fleet_log(settings))

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--settings", str(provider.settings)])

    added = run("customer", "add", "acme", "--name", "Acme", "--why", "order")
    assert added.exit_code == 0, added.output
    mine, redis = fleet(settings), settings.store.redis
    assert mine is not None
    assert redis is not None
    state_replica(settings, redis).sync()  # as the agent joins
    metrics, breaker = Metrics(), Breaker()
    alarms = Alarms(MemoryObserver(), metrics.alarms, time.time)
    replication = Replication(path, 300.0, mine, breaker, alarms, metrics, time.time)
    outcome, _ = replication._turn()
    assert not isinstance(outcome, Exception), outcome
    with ExitStack() as resumed:
        for server in cluster.servers:
            resumed.callback(server.resume)
            server.pause()
        # With connections that stand, then with none: the client finds out in two ways.
        for _ in range(2):
            replication._turn()
            assert breaker.is_open
            assert "Redis Cluster 127.0.0.1:" in str(breaker.why)
            breaker.worked()
        for words in (
            ("fleet",),
            ("customer", "add", "new", "--name", "New", "--why", "order"),
            ("customer", "suspend", "acme", "--why", "bill"),
        ):
            done = run(*words)
            assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)
            assert "Redis Cluster 127.0.0.1:" in " ".join(done.output.split()), (words, done.output)
