"""What commands about customers say of a fleet: told at once, or left to the agent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shaken_plugin.conduct.replica import StateReplica
from shaken_plugin.conduct.state import State
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.ports import PolicyWriter
from shaken_plugin.stores import statefile
from shaken_plugin.stores.redis.state import StateStream
from shaken_plugin.stores.standing import StandingFile
from tests.cli.records import WHY, Run, RunJson
from tests.conduct.book import ACME
from tests.conduct.hosts import FleetHost

_NAMES = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def other(in_memory: PolicyWriter, provider: Provider, server: RedisServer, tmp_path: Path) -> Iterator[FleetHost]:
    """Another host of the fleet that the provider's settings name from now on."""
    assert in_memory is not None
    settings: dict[str, Any] = yaml.safe_load(provider.settings.read_text())
    name = f"cli-{next(_NAMES)}"
    settings["store"]["redis"] = {"servers": [f"127.0.0.1:{server.port}"], "fleet": name}
    provider.settings.write_text(yaml.safe_dump(settings))
    with FleetHost(tmp_path / "other.db", server.access, name) as other:
        yield other


def _join(provider: Provider, other: FleetHost) -> None:
    """As the agent of the provider's host does, the first time and later."""
    path = provider.folder / "state.db"
    statefile.ensure(path, provider.folder / "policy.db")
    stream = StateStream(other.stream.access, other.stream._prefix.split("{")[1].rstrip("}"))
    StateReplica(State(path), stream, "here").sync()
    stream.close()
    other.sync()


def test_a_suspension_is_told_by_the_command(run: Run, run_json: RunJson, provider: Provider, other: FleetHost) -> None:
    _join(provider, other)
    told = run("customer", "suspend", ACME, *WHY).stdout
    assert "it decides calls in every worker of this host within a tenth of a second" in told
    assert f"the other hosts of fleet {_name(other)} were told" in " ".join(told.split())
    other.sync()
    assert other.standing() == "suspended"
    other.put("terminate", 500_000)
    other.sync()
    _join(provider, other)
    assert "terminated already, by Ann: because" in " ".join(
        run("customer", "terminate", ACME, *WHY, code=1).stderr.split()
    )
    data = run_json("customer", "reinstate", ACME, *WHY)
    assert data["fleet"] == {"fleet": _name(other), "told": True, "why_not": None}
    other.sync()
    assert other.standing() is None


def test_where_redis_is_away_it_holds_here_and_says_who_will_tell(
    run: Run, run_json: RunJson, provider: Provider, other: FleetHost, server: RedisServer
) -> None:
    _join(provider, other)
    other.calls([(0, "13125550142")])
    other.sync()
    _join(provider, other)
    server.pause()
    try:
        data = run_json("customer", "suspend", ACME, *WHY)
        assert data["fleet"]["told"] is False
        assert "does not answer in time" in data["fleet"]["why_not"]
        told = run("offence", "delivered", "1", *WHY).stdout
        assert "it counts when all hosts of the fleet can be told" in " ".join(told.split())
    finally:
        server.resume()
    found = StandingFile(provider.folder / "state.db").of(ACME)
    assert found is not None
    assert other.standing() is None
    data = run_json("customer", "terminate", ACME, *WHY)
    assert data["fleet"]["told"] is True
    other.sync()
    assert other.standing() == "terminated"
    assert [case.offence.stage.value for case in other.cases()] == ["warned"]


def test_before_the_agent_has_joined_it_says_so(
    run: Run, run_json: RunJson, provider: Provider, other: FleetHost
) -> None:
    told = run("customer", "suspend", ACME, *WHY).stdout
    assert "are not told yet: the agent has not joined it yet" in " ".join(told.split())
    _join(provider, other)
    assert other.standing() == "suspended"
    assert run_json("customer", "reinstate", ACME, *WHY)["fleet"]["told"] is True


def _name(other: FleetHost) -> str:
    return other.stream._prefix.split("{")[1].rstrip("}")
