"""The state file as whoever changes it has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.sqlitefile import Connections
from shaken_plugin.stores.statefile import WRITER_TIMEOUT, check, for_writing, missing, transaction


class State:
    """The state file. Threads and processes may share it.

    Nothing here makes it (`stores.statefile.ensure`): an empty one says that nobody is suspended.

    Args:
        path: the file.
        policy: the policy's file, which remembers whose state file this must be.
        timeout: seconds to wait for another writer.
    """

    def __init__(self, path: Path, policy: Path | None = None, timeout: float = WRITER_TIMEOUT) -> None:
        self.path = path
        self._policy = policy
        self._connections = Connections(path, timeout, self._prepare)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        check(connection, self.path, self._policy)
        for_writing(connection)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The file as it is at one moment, for `conduct.view`.

        Raises:
            StoreUnavailable: it cannot be used now.
        """
        with self._opened() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One change: all of it, or nothing.

        Raises:
            StoreUnavailable: it cannot be written now.
        """
        with self._opened() as connection, transaction(connection):
            yield connection

    def close(self) -> None:
        """Close this thread's connection; the next question opens another."""
        self._connections.forget()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connections.get()
        except FileNotFoundError as exc:
            self._connections.forget()
            raise StoreUnavailable(str(missing(self.path, self._policy))) from exc
        except StoreError as exc:
            self._connections.forget()
            raise StoreUnavailable(str(exc)) from exc
        except (sqlite3.Error, OSError, ValueError, TypeError) as exc:
            self._connections.forget()
            raise StoreUnavailable(f"{self.path}: {exc}") from exc
