"""A Redis for the tests of a session, and the hosts of a fleet."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.records import Basis, Customer, CustomerState, Right
from shaken_plugin.lab.redis import RedisServer, Sentinels
from shaken_plugin.ports import Author, Change, Span
from shaken_plugin.stores.policy import KINDS, NUMBER_KINDS
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from shaken_plugin.stores.sqlite import SqlitePolicy, SqliteStore

ALICE = Author("alice", "letter received", 1_795_000_000.0)
ACME = Customer("acme", "Acme", CustomerState.VERIFIED)
RIGHT = Right("r", "acme", Basis.ASSIGNED)


class Host:
    """One host of a fleet."""

    def __init__(self, path: Path, log: FleetLog, **options: Any) -> None:
        self.path = path
        self.log = log
        self.policy = RedisPolicy(path, log, **options)
        self.replica = self.policy.replica
        self.store = SqliteStore(path)

    def put(self, *records: Any, why: str = "put") -> None:
        with self.policy.change(ALICE, why) as draft:
            for record in records:
                draft.put(record)

    def add(self, *numbers: int) -> None:
        with self.policy.change(ALICE, "numbers") as draft:
            draft.add_numbers(Right, "r", [Span(str(number), str(number)) for number in numbers])

    def rights(self, number: str) -> list[str]:
        return [one.right.id for one in self.store.facts(None, None, number).rights]

    @property
    def version(self) -> int:
        with self.policy.records() as records:
            return records.version


def everything(path: Path) -> list[Any]:
    """All that a file says of all its versions."""
    policy = SqlitePolicy(path)
    with policy.records() as newest:
        last = newest.version
    told: list[Any] = [list(policy.changes()), last]
    for version in range(last + 1):
        with policy.records(version) as records:
            told += [
                [(record, list(policy.changes_of((kind, record.id)))) for record in records.all(kind)]
                for kind in KINDS.values()
            ]
            for owner in NUMBER_KINDS:
                told += [
                    (list(records.numbers(owner, one.id)), records.count(owner, one.id)) for one in records.all(owner)
                ]
            told.append([list(records.covering(Right, number)) for number in ("12155551212", "12155551250")])
    return told


def changes(path: Path) -> list[Change]:
    return list(SqlitePolicy(path).changes())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """For tests that leave it as it was."""
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """For a test that breaks it."""
    with RedisServer("own", tmp_path / "own") as running:
        yield running


NewHost = Callable[..., Host]


def hosts_of(server: RedisServer | Sentinels, folder: Path) -> NewHost:
    """Makes hosts of a new fleet, the first of which begins it."""
    fleet = f"t{uuid.uuid4().hex[:20]}"

    def make(name: str, **options: Any) -> Host:
        log = FleetLog(server.access, fleet)
        if not make.begun:  # type: ignore[attr-defined]  # of this very function
            make.begun = True  # type: ignore[attr-defined]  # likewise
            upload_snapshot(folder / f"{name}.db", log)
        return Host(folder / f"{name}.db", log, **options)

    make.begun = False  # type: ignore[attr-defined]  # likewise
    return make


@pytest.fixture
def host(server: RedisServer, tmp_path: Path) -> NewHost:
    return hosts_of(server, tmp_path)


@pytest.fixture
def own_host(own: RedisServer, tmp_path: Path) -> NewHost:
    return hosts_of(own, tmp_path)
