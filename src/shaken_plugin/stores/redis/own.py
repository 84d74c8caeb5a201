"""What is a host's own in its file, kept by its agent for when the file is lost: Redis has the policy alone."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from shaken_plugin.errors import StoreError
from shaken_plugin.sqlitefile import connect
from shaken_plugin.stores.redis.building import OF_THE_FLEET
from shaken_plugin.stores.sqlite.schema import DAMAGE, check_schema, meta, set_meta
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT, writing
from shaken_plugin.stores.statefile import identity


class Own:
    """The settings in force on a host, and the id of its state file. For one thread.

    Args:
        path: the policy's file.
        state: the state file, which has its id itself.
        settings: the settings of the agent as plain values, where it never saw those in force.
    """

    def __init__(self, path: Path, state: Path, settings: dict[str, Any]) -> None:
        self._path = path
        self._state = state
        self._known: dict[str, Any] = {"settings": settings, "digests": {}}

    def keep(self) -> None:
        """Learn what the file says, or write it back into one that was made anew.

        A host on which nothing was ever in force has no state file, and stays as it is: its switch begins both.

        Raises:
            StoreError: the file cannot be read, or written.
        """
        found = self._read()
        if found is None or found.get("settings") is not None:
            self._known = found or self._known
            return
        lost = {"state_id": self._state_id(), **self._known}
        if lost["state_id"] is None:
            return
        with writing(self._path) as connection:
            there = meta(connection)
            set_meta(connection, **{key: value for key, value in lost.items() if there.get(key) is None})
            connection.execute("COMMIT")

    def _read(self) -> dict[str, Any] | None:
        """What is the host's own; None where nothing is in the file."""
        if not os.path.lexists(self._path):
            return None
        try:
            with closing(connect(self._path, READER_TIMEOUT)) as connection:
                connection.execute("BEGIN")
                if check_schema(connection, self._path) == 0:
                    return None
                return {key: value for key, value in meta(connection).items() if key not in OF_THE_FLEET}
        except (sqlite3.Error, *DAMAGE) as exc:
            raise StoreError(f"{self._path}: cannot be read: {exc}") from exc

    def _state_id(self) -> str | None:
        try:
            with closing(connect(self._state, READER_TIMEOUT)) as connection:
                return identity(connection)
        except (sqlite3.Error, StoreError):
            return None  # what is wrong with it is said elsewhere
