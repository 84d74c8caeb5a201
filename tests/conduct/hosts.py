"""Hosts of a fleet for tests: each with a state file and a book of its own, all with one Redis."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from shaken_plugin.conduct import decisions, fleet, view
from shaken_plugin.conduct.replica import StateReplica, Synced
from shaken_plugin.core.offences import OffenceRules
from shaken_plugin.stores.redis.connection import RedisAccess
from shaken_plugin.stores.redis.state import StateStream
from shaken_plugin.stores.standing import StandingFile
from tests.conduct.book import ACME, Bench
from tests.offences import HOUR

COUNTED = {
    "standing": "*",
    "offence": "*",
    "number": "*",
    "evidence": "*",
    "event": "*",
    "message": "id, offence, kind, done_at",
    "observed": "*",
    "source": "*",
    "mark": "*",
}
"""What is the same on all hosts of a fleet that are at one position."""


class FleetHost(Bench):
    """One host. ``ledger`` is its own unless it is said to be shared."""

    def __init__(self, path: Path, access: RedisAccess, name: str, ledger: str | None = None) -> None:
        super().__init__(path, OffenceRules(24 * HOUR), sync=False)
        self.stream = StateStream(access, name)
        self.ledger = ledger or path.stem
        self.replica = StateReplica(self.state, self.stream, self.ledger, lambda: self.at(100))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def sync(self) -> Synced:
        return self.replica.sync()

    def standing(self, customer: str = ACME) -> str | None:
        """As a worker of this host sees it."""
        found = StandingFile(self.path).of(customer)
        return None if found is None else found.state.value

    def history(self, customer: str = ACME) -> list[tuple[str, str]]:
        with self.state.reading() as connection:
            return [(said.state, said.who) for said in view.standing_history(connection, customer)]

    def put(self, what: str, hours: float, by: str = "Ann", customer: str = ACME) -> None:
        """Suspend, terminate or reinstate."""
        getattr(decisions, what)(self.state, customer, by, "because", self.at(hours))

    def content(self) -> dict[str, list[Any]]:
        """Everything that all hosts have alike."""
        with closing(sqlite3.connect(self.path)) as other:
            assert other.execute("SELECT count(*) FROM ahead").fetchone() == (0,)
            return {
                table: sorted(other.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
                for table, columns in COUNTED.items()
            }

    def waiting(self) -> int:
        """How many acts are to be published."""
        with self.state.reading() as connection:
            return len(fleet.waiting(connection, 10_000))

    def position(self) -> int:
        with self.state.reading() as connection:
            place = fleet.place_of(connection)
        return -1 if place is None else place.position


def agree(hosts: Iterable[FleetHost]) -> dict[str, list[Any]]:
    """All of them take over what the others said, and then have the same; what that is."""
    hosts = tuple(hosts)
    for _ in range(2):
        for host in hosts:
            host.sync()
    contents = [host.content() for host in hosts]
    assert all(content == contents[0] for content in contents), contents
    return contents[0]
