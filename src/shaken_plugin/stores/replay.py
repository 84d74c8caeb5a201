"""Which PASSporT came with which call: one SQLite file for all workers of a host.

What is lost with it are the tokens of the last minute, so nothing waits for the disk.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from shaken_plugin import sqlitefile
from shaken_plugin.errors import StoreError, StoreUnavailable

TIMEOUT: Final = 0.02
"""Seconds to wait for another worker that writes; each does so for some 20 µs."""

FORGET_EVERY: Final = 1.0
"""Seconds between two times that a process throws out what is stale …"""

FORGET: Final = 2_000
"""… and how much at a time, so that no call waits for long: more than comes in a second."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen (
    token BLOB PRIMARY KEY, call BLOB NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_until ON seen (until);
"""

# A stale token may be taken over by another call: it was refused as stale before it comes here.
_TAKE: Final = """
INSERT INTO seen VALUES (:token, :call, :until) ON CONFLICT (token) DO UPDATE
SET call = excluded.call, until = excluded.until WHERE seen.until < :now OR seen.call = excluded.call
"""

_FORGET: Final = "DELETE FROM seen WHERE token IN (SELECT token FROM seen WHERE until < ? LIMIT ?)"


class ReplayFile:
    """A `ports.ReplayMemory` in a file of its own, which is made where there is none.

    Args:
        path: the file, on a local disk; better still in memory, such as ``/run``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections = sqlitefile.Connections(path, TIMEOUT, _prepare)
        self._forgotten_at = float("-inf")

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """See `ports.ReplayMemory.first_use`."""
        try:
            connection = self._connection()
            taken = connection.execute(_TAKE, {"token": token, "call": call, "until": until, "now": now}).rowcount
            if not 0 <= now - self._forgotten_at < FORGET_EVERY:
                self._forgotten_at = now
                connection.execute(_FORGET, (now, FORGET))
        except (sqlite3.Error, StoreError, OSError) as exc:
            self._connections.forget()
            if isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, sqlite3.OperationalError):
                self._remove()
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        return bool(taken)

    def _connection(self) -> sqlite3.Connection:
        try:
            return self._connections.get()
        except FileNotFoundError:
            sqlitefile.create(self._path)
            return self._connections.get()

    def _remove(self) -> None:
        """Away with a damaged file: it is made anew, and other workers notice."""
        for ending in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self._path}{ending}").unlink()


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(_SCHEMA)
