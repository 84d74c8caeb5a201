"""The commands that take a host's policy into its fleet's Redis and back: what they say first, and what they do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner

from shaken_plugin import runtime
from shaken_plugin.cli import main, moving
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import LabError, find_program
from shaken_plugin.stores.freshness import CopyAge
from shaken_plugin.stores.redis.applying import mark_of
from shaken_plugin.stores.sqlite.sharing import own_policy
from tests.agent.fleet import everything


def copied(path: Path) -> bool:
    """Whether a file is a copy of a fleet's policy."""
    return mark_of(path).fleet is not None


class Host(NamedTuple):
    """One host, without an agent."""

    provider: Provider

    @property
    def path(self) -> Path:
        return self.provider.folder / "policy.db"

    def run(self, *words: str, code: int = 0) -> Any:
        """What a command told, as JSON."""
        group = ["fleet", "--settings", str(self.provider.settings), *words, "--json"]
        plain = [*words, "--settings", str(self.provider.settings), "--json"]
        done = CliRunner().invoke(main, group if words[0] in ("move", "join", "restore") else plain)
        assert done.exit_code == code, (done.output, done.exc_info)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return json.loads(done.stdout)

    def said(self, *words: str, code: int = 0) -> str:
        """The same, as people read it."""
        done = CliRunner().invoke(main, ["fleet", "--settings", str(self.provider.settings), *words])
        assert done.exit_code == code, done.output
        return " ".join(done.output.split())

    def settings(self, **sections: Any) -> None:
        found = yaml.safe_load(self.provider.settings.read_text())
        for name, section in sections.items():
            found[name] = None if section is None else {**found.get(name, {}), **section}
        dump(self.provider.settings, found)

    def customer(self, *words: str, code: int = 0) -> Any:
        return self.run("customer", *words, "--by", "Ann", "--why", "a test", code=code)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as server:
        yield server


Make = Callable[[str], Host]


@pytest.fixture
def make(tmp_path: Path, redis: RedisServer, living: Authority, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A host with a policy of its own, whose settings name the fleet by now."""
    monkeypatch.setattr(moving, "FOLLOWS", 0.1)
    redis.command("FLUSHALL")

    def made(name: str) -> Host:
        host = Host(Provider.make(tmp_path / name, living, time.time(), store={"path": "policy.db"}))
        runtime.apply(host.provider.settings, time.time())
        chosen = {"servers": [f"127.0.0.1:{redis.port}"], "host": name}
        host.settings(store={"redis": chosen})
        return host

    return made


def test_a_host_moves_into_redis_and_back_with_everything(make: Make, redis: RedisServer) -> None:
    one = make("one")
    one.customer("suspend", "acme")
    before = everything(one.path)
    planned = one.run("move", "--dry-run")
    assert everything(one.path) == before
    assert redis.command("KEYS", "*") == []
    assert own_policy(one.path)
    assert planned["ok"]
    assert planned["dry_run"]
    assert (planned["has"]["customer"], planned["has"]["standings"]) == (3, 1)
    assert "begins with the policy of" in planned["does"][0]
    assert any("appendonly" in line for line in planned["redis"])
    assert planned["next"][0].startswith("shaken apply --settings")

    assert one.run("move")["ok"]
    assert copied(one.path)
    assert everything(one.path) == before
    assert (CopyAge(one.path).seconds() or 0) < 5
    one.run("apply")  # the settings, and the same policy
    assert everything(one.path) == before
    one.customer("add", "new", "--name", "New")
    after = everything(one.path)
    assert after != before

    planned = one.run("move", "--to", "embedded", "--dry-run")
    assert copied(one.path)
    assert "take store.redis out of" in planned["next"][0]
    one.run("move", "--to", "embedded")
    one.run("move", "--to", "embedded")
    assert own_policy(one.path)
    assert everything(one.path) == after
    assert CopyAge(one.path).seconds() is None
    refused = one.customer("add", "newer", "--name", "Newer", code=3)
    assert "has a policy of its own" in refused["error"]
    one.settings(store={"redis": None}, policy=None)
    one.run("apply")
    one.customer("add", "newer", "--name", "Newer")
    assert one.customer("reinstate", "acme")


def test_a_second_hosts_differences_are_said_and_given_up_on_purpose(make: Make, tmp_path: Path) -> None:
    one, two = make("one"), make("two")
    one.run("move")
    two.settings(store={"redis": None})
    two.customer("add", "mine", "--name", "Mine")
    two.customer("suspend", "mine")
    two.settings(store={"redis": {"servers": one_servers(one), "host": "two"}})
    before = everything(two.path)
    for words in (("move",), ("move", "--dry-run"), ("join",), ("join", "--dry-run")):
        refused = two.run(*words, code=1)
        assert not refused["ok"]
        assert [(row["kind"], row["id"], row["change"]) for row in refused["differences"]] == [
            ("customer", "mine", "removed")
        ]
        assert refused["standings"] == [{"customer": "mine", "here": "suspended", "fleet": ""}]
        assert everything(two.path) == before
    assert "- customer mine" in two.said("join", "--dry-run", code=1)
    assert two.run("join", "--give-up", "--dry-run")["ok"]
    assert everything(two.path) == before
    joined = two.run("join", "--give-up")
    (kept,) = tmp_path.glob("two/policy.db.before-fleet-*")
    assert any(str(kept) in line for line in joined["does"])
    assert everything(kept) == before
    assert everything(two.path) == everything(one.path)
    assert not list(tmp_path.glob("two/.policy.db.*"))  # what was compared with


def one_servers(host: Host) -> list[str]:
    found: list[str] = yaml.safe_load(host.provider.settings.read_text())["store"]["redis"]["servers"]
    return found


def test_a_host_with_the_same_policy_joins_without_more_words(make: Make) -> None:
    one, two = make("one"), make("two")
    one.run("move")
    assert "this host and the fleet have the same" in two.said("join", "--dry-run")
    two.run("join")
    assert everything(two.path) == everything(one.path)


def test_a_fleet_that_redis_lost_is_restored_from_the_newest_copy(make: Make, redis: RedisServer) -> None:
    one = make("one")
    assert "there is none" in one.run("join", code=1)["error"]
    assert "is no copy of a fleet" in one.run("restore", code=1)["error"]
    one.run("move")
    before = everything(one.path)
    assert "is there, and" in one.said("restore")
    redis.command("FLUSHALL")
    assert "'shaken fleet restore'" in one.run("move", code=1)["error"]
    assert "'shaken fleet restore' brings one back" in one.customer("add", "x", "--name", "X", code=3)["error"]
    assert "would be done" in one.said("restore", "--dry-run")
    assert redis.command("DBSIZE") == 0
    moving_hosts = {"two": 9}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "_others", lambda _: moving_hosts)
        assert "is on two (version 9): run it there" in one.run("restore", code=1)["error"]
        assert one.run("restore", "--even-so", "--dry-run")["ok"]
    one.run("restore")
    assert everything(one.path) == before
    one.customer("add", "x", "--name", "X")


def test_a_host_leaves_a_fleet_whose_redis_is_gone(make: Make, redis: RedisServer) -> None:
    one = make("one")
    one.run("move")
    before = everything(one.path)
    one.settings(store={"redis": {"servers": ["127.0.0.1:1"], "host": "one"}})
    assert "127.0.0.1:1" in one.run("move", "--to", "embedded", code=3)["error"]
    assert copied(one.path)
    one.run("move", "--to", "embedded", "--without-redis")
    assert own_policy(one.path)
    assert everything(one.path) == before


def test_wrong_use_is_said(make: Make) -> None:
    one = make("one")
    one.run("move", "--without-redis", code=2)
    one.run("move", "--to", "embedded", "--instead-of", "x", code=2)
    assert "is no copy of" in one.run("move", "--to", "embedded", code=1)["error"]
    one.settings(store={"redis": None})
    assert "has no store.redis. Write it there first" in one.run("move", code=3)["error"]
