"""Whose policy a file has: the host's own, or a copy of its fleet's; and what it has in common with a fleet."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BUSY_TIMEOUT
from shaken_plugin.sqlitefile import Connections, connect
from shaken_plugin.stores.sqlite.schema import DAMAGE, check_schema, has_material, meta, set_meta


class Shared(NamedTuple):
    """A version that a file and a fleet have in common, or will have once an upload has succeeded."""

    fleet: str
    """The fleet's id."""
    version: int
    txid: str


def has_policy(connection: sqlite3.Connection) -> bool:
    """Whether there ever was a record in a file, or keys or trust anchors are."""
    tables = ("record", "material") if has_material(connection) else ("record",)
    return any(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0] for table in tables)


def is_own(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether an open file has a policy that is no copy of a fleet's.

    Raises:
        StoreError: it is of another schema, or damaged.
    """
    try:
        return check_schema(connection, path) != 0 and "fleet_id" not in meta(connection) and has_policy(connection)
    except DAMAGE as exc:
        raise StoreError(f"{path}: its content is damaged ({exc!r})") from exc


def own_policy(path: Path, timeout: float = BUSY_TIMEOUT) -> bool:
    """The same of a file, which need not be there.

    Raises:
        StoreUnavailable: it cannot be read.
        StoreError: as for `is_own`.
    """
    if not os.path.lexists(path):
        return False
    try:
        with closing(connect(path, timeout)) as connection:
            return is_own(connection, path)
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: {exc}") from exc


class DecidesAlone:
    """Whether a host decides by a policy of its own; where that cannot be read, it is not known to.

    Calls ask, so it is waited for a lock once, and not again while the file stays locked (`Connections`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections = Connections(path, BUSY_TIMEOUT, self._prepare)

    def __call__(self) -> bool:
        """See the class."""
        try:
            return is_own(self._connections.get(), self._path)
        except (sqlite3.Error, StoreError, OSError) as exc:
            self._connections.forget(exc)
            return False

    def _prepare(self, connection: sqlite3.Connection) -> None:
        check_schema(connection, self._path)


def is_copy(connection: sqlite3.Connection) -> bool:
    """Whether an open file is a copy of a fleet's policy; one that nothing was ever written to is none."""
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is not None
    return there and connection.execute("SELECT 1 FROM meta WHERE key = 'fleet_id'").fetchone() is not None


def shared_with(connection: sqlite3.Connection, fleet: str) -> Shared | None:
    """What a file of a host's own has in common with a fleet, None where nothing is known of that."""
    told = [Shared(*one) for one in meta(connection).get("fleet_shared", [])]
    return next((one for one in told if one.fleet == fleet), None)


def remember_shared(connection: sqlite3.Connection, *told: Shared) -> None:
    """Remember such versions, instead of those that were remembered."""
    set_meta(connection, fleet_shared=[list(one) for one in told])


def be_a_copy(connection: sqlite3.Connection, of: Shared) -> None:
    """Have a file be a copy of a fleet's policy."""
    set_meta(connection, fleet_id=of.fleet, fleet_txid=of.txid)
    connection.execute("DELETE FROM meta WHERE key = 'fleet_shared'")


def be_its_own(connection: sqlite3.Connection, shared: Shared) -> None:
    """Have a file be a copy no longer; it remembers what it has in common with the fleet."""
    connection.execute("DELETE FROM meta WHERE key IN ('fleet_id', 'fleet_txid')")
    remember_shared(connection, shared)
