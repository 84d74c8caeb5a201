"""What hosts say of themselves, each under its own name."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner

from shaken_plugin.cli import fleet as command
from shaken_plugin.cli import main
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.stores.redis.hosts import HostStatus, HostTable
from shaken_plugin.stores.redis.log import FleetLog


@pytest.fixture
def log(server: RedisServer) -> FleetLog:
    return FleetLog(server.access, f"t{uuid.uuid4().hex[:20]}")


def say(log: FleetLog, name: str, **said: object) -> None:
    log.command("HSET", log.key("hosts"), name, f"{time.time():.0f} {json.dumps(said)}")


def test_a_report_does_not_pass_as_another_hosts(
    log: FleetLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.command("HSET", log.key("meta"), "id", "f", "schema", 1, "reads", 1, "snapshot", "", "waiting", 0)
    log.command("HSET", log.key("head"), "version", 1, "txid", "t")
    say(log, "edge1", host="edge2", age=0.0)
    say(log, "edge3", age=0.0)  # says no name: it is not this host either
    found = HostTable(log).read().found
    assert [(one.name, one.status and one.status.host) for one in found] == [("edge1", "edge1"), ("edge3", "edge3")]
    monkeypatch.setattr(command, "_log", lambda _: log)
    (tmp_path / "settings.yaml").write_text("")
    for form in ([], ["--json"]):
        shown = CliRunner().invoke(main, ["fleet", "--settings", str(tmp_path / "settings.yaml"), *form])
        assert "edge1" in shown.output
        assert "edge2" not in shown.output


def test_what_stood_in_the_place_of_a_report_is_of_that_host(log: FleetLog) -> None:
    say(log, "edge1", host="edge2", instance="other")
    before = HostTable(log).report(HostStatus(host="edge1")).before
    assert before is not None
    assert before.status is not None
    assert (before.status.host, before.status.instance) == ("edge1", "other")
