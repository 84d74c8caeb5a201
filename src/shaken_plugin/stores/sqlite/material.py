"""The keys and trust anchors of the store's file, for the processes that sign and verify."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

from shaken_plugin.core.material import Material
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BUSY_TIMEOUT
from shaken_plugin.sqlitefile import Connections
from shaken_plugin.stores.sqlite.records import material_of
from shaken_plugin.stores.sqlite.schema import DAMAGE, check_schema, version_and_which

_Found = TypeVar("_Found")


class MaterialFile:
    """A `ports.MaterialSource` in the file that `SqlitePolicy` or `replace_policy` wrote.

    Args:
        path: the file. It need not exist yet: until it does, every question fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections = Connections(path, BUSY_TIMEOUT, self._prepare)

    def version(self) -> Hashable:
        """See `ports.MaterialSource`."""
        return self._asked(version_and_which)

    def material(self) -> tuple[Material, ...]:
        """See `ports.MaterialSource`."""
        return self._asked(material_of)

    def close(self) -> None:
        """Close this thread's connection; the next question opens another."""
        self._connections.forget()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = 1")
        if check_schema(connection, self._path) == 0:
            raise StoreError("no policy in it yet; run 'shaken apply'")

    def _asked(self, question: Callable[[sqlite3.Connection], _Found]) -> _Found:
        try:
            return question(self._connections.get())
        except (sqlite3.Error, StoreError, OSError) as exc:
            self._connections.forget(exc)
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        except DAMAGE as exc:
            raise StoreUnavailable(f"{self._path}: its content is damaged: {exc!r}") from exc
