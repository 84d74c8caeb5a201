"""What a host and its fleet have, and what of that differs; read, and nothing changed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from shaken_plugin.cli.records.levels import state_file
from shaken_plugin.conduct import view
from shaken_plugin.conduct.replica import StateReplica
from shaken_plugin.conduct.state import State
from shaken_plugin.config.fleet import RedisSettings
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.material import Material
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.exchange.comparing import Difference, differences
from shaken_plugin.runtime.fleet import access
from shaken_plugin.stores import statefile
from shaken_plugin.stores.material import named, place_of
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.state import StateStream
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.stores.sqlite.upkeep import status

SHOWN: Final = 200
"""Records that differ which are told one by one."""


class Compared(NamedTuple):
    """What this host has otherwise than its fleet; ``added`` is what the fleet alone has."""

    records: list[Difference]
    more: int
    """Further records that differ."""
    material: list[str]
    """Keys and trust anchors that differ."""
    standings: list[tuple[str, str, str]]
    """Customer, state on this host, state in the fleet; empty: nothing stands against it."""

    @property
    def policy_differs(self) -> bool:
        """Whether taking the fleet's policy changes how this host decides."""
        return bool(self.records or self.material)


def counts(settings: Settings) -> dict[str, int]:
    """How much this host has."""
    path = Path(settings.store.path)
    try:
        found = status(path)
    except StoreUnavailable:
        return {"policy_version": 0}
    told = {"policy_version": found.policy_version, **found.records, "numbers": found.numbers, "ranges": found.ranges}
    told |= {"keys_and_anchors": found.material, "rows_of_history": found.history}
    state = state_file(settings)
    if state is not None:
        with state.reading() as connection:
            told["standings"] = len(view.standings(connection))
            told["offences"] = len(view.cases(connection))
    return told


def compare(settings: Settings, redis: RedisSettings, log: FleetLog) -> Compared:
    """What differs between a host and its fleet, of which a copy is made for that and removed.

    Raises:
        StoreUnavailable: Redis cannot be had.
        StoreError: the fleet, or a file, cannot be used; or there is no room for the copy.
    """
    path = Path(settings.store.path)
    with _fleets_policy(path, log) as theirs:
        found: list[Difference] = []
        more = 0
        with SqlitePolicy(path).records() as here, theirs.records() as there:
            for one in differences(here, there):
                if len(found) < SHOWN:
                    found.append(one)
                else:
                    more += 1
            ours, others = _named(here.material()), _named(there.material())
    material = sorted(name for name in ours.keys() | others.keys() if ours.get(name) != others.get(name))
    here_now, there_now = standings(settings), _fleets_standings(path, redis)
    customers = sorted(here_now.keys() | there_now.keys())
    differing = [(name, here_now.get(name, ""), there_now.get(name, "")) for name in customers]
    return Compared(found, more, material, [row for row in differing if row[1] != row[2]])


def standings(settings: Settings) -> dict[str, str]:
    """Against whom something stands on this host."""
    state = state_file(settings)
    return {} if state is None else _standings(state)


def _standings(state: State) -> dict[str, str]:
    with state.reading() as connection:
        return {one.customer: one.state.value for one in view.standings(connection)}


def _named(material: tuple[Material, ...]) -> dict[str, Material]:
    return {named(place_of(one)): one for one in material}


@contextmanager
def _fleets_policy(path: Path, log: FleetLog) -> Iterator[SqlitePolicy]:
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        copy = Path(folder) / "fleet.db"
        Replica(copy, log).catch_up()
        yield SqlitePolicy(copy)


def _fleets_standings(path: Path, redis: RedisSettings) -> dict[str, str]:
    stream = StateStream(access(redis), redis.fleet)
    try:
        if stream.head() is None:
            return {}
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            copy = Path(folder) / "state.db"
            statefile.ensure(copy)
            state = State(copy)
            StateReplica(state, stream, "nobody's").sync()
            found = _standings(state)
            state.close()
            return found
    finally:
        stream.close()


def plain(told: Compared) -> dict[str, Any]:
    """Without the records, for programs."""
    rows = [{"customer": name, "here": here, "fleet": there} for name, here, there in told.standings]
    return {"more_records": told.more, "keys_and_anchors": told.material, "standings": rows}
