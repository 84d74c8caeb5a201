"""Files of an older schema brought to that of this release: said first, with a copy kept, all or nothing.

Each kind of file (policy, state, ledger) is a `Schema` with its steps. Who keeps a new kind of file adds
one, and `shaken store` knows it.
"""

from __future__ import annotations

import math
import os
import sqlite3
import stat
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Author
from shaken_plugin.sqlitefile import FILE_MODE, connect, newer, reads

TIMEOUT: Final = 10.0
"""Seconds to wait for another writer."""

Step = Callable[[sqlite3.Connection, Author], object]
"""Brings the tables to the next version, within a transaction; told who wants it."""


@dataclass(frozen=True, slots=True)
class Schema:
    """One kind of file.

    ``version`` is what this release makes, kept in SQLite's ``user_version``; ``steps`` lead from each older version
    to the next. ``oldest`` is the oldest that this release works on as it is, ``reads`` the oldest whose releases may
    work on a file of this one (`sqlitefile.check_schema`); None: no other than ``version``.
    """

    kind: str
    version: int
    steps: Mapping[int, Step] = field(default_factory=dict)
    oldest: int | None = None
    reads: int | None = None

    def works_on(self, version: int) -> bool:
        """Whether this release works on a file of an older version as it is."""
        return version >= (self.version if self.oldest is None else self.oldest)


class FileState(NamedTuple):
    """What a file says about itself, of whatever schema."""

    schema: int
    """0 where nothing was ever written to it."""
    tables: dict[str, int]
    """Rows of each table."""
    size: int
    """Octets, with its log."""
    reads: float = math.inf
    """The oldest schema whose releases may work on it, see `sqlitefile.reads`."""


class Plan(NamedTuple):
    """What `migrate` is going to do."""

    path: Path
    schema: Schema
    state: FileState
    backup: Path

    @property
    def lines(self) -> list[str]:
        """For people."""
        others = "then older releases can no longer read it: restart every switch and agent of this host first"
        if self.schema.reads is not None and self.schema.reads <= self.state.schema:
            others = f"then releases of schema {self.state.schema} go on with it"
        rows = ", ".join(f"{name} {count}" for name, count in sorted(self.state.tables.items()))
        return [
            f"{self.path}: {self.schema.kind}, schema {self.state.schema} to {self.schema.version}",
            f"  rows: {rows}",
            f"  size: {self.state.size} octets; a copy stays as {self.backup}",
            f"  in one transaction: until its end everything is as it was; {others}",
        ]


def inspect(path: Path, timeout: float = TIMEOUT) -> FileState:
    """What a file says about itself.

    Raises:
        StoreUnavailable: it cannot be read.
        StoreError: it is a link.
    """
    try:
        with closing(connect(path, timeout)) as connection:
            connection.execute("BEGIN")
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            tables = {name: _count(connection, name) for (name,) in names}
            return FileState(int(schema), tables, size_of(path), reads(connection))
    except (sqlite3.Error, OSError) as exc:
        raise StoreUnavailable(f"{path}: {exc}") from exc


def _count(connection: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608  # a table's own name


def size_of(path: Path) -> int:
    """Octets of a file with its log."""
    found = 0
    for name in (f"{path}", f"{path}-wal"):
        with suppress(OSError):
            found += os.stat(name).st_size  # noqa: PTH116  # a name, not a Path
    return found


def plan(path: Path, schema: Schema) -> Plan | None:
    """What `migrate` would do; None where there is nothing to do.

    Raises:
        StoreUnavailable: the file cannot be read.
        StoreError: it is of a newer schema, or of one that no step leads on from.
    """
    state = inspect(path)
    if state.schema > schema.version and not (state.schema == schema.version + 1 and state.reads <= schema.version):
        raise newer(path, state.schema, schema.version)
    if state.schema == 0 or state.schema >= schema.version:
        return None
    if missing := [version for version in range(state.schema, schema.version) if version not in schema.steps]:
        raise StoreError(f"{path}: this release cannot read schema version {missing[0]}; use an older one first")
    return Plan(path, schema, state, Path(f"{path}.v{state.schema}"))


def migrate(planned: Plan, author: Author) -> None:
    """Do what was planned. The file itself stays, with its owner and mode.

    Args:
        planned: what `plan` found.
        author: who runs the command.

    Raises:
        StoreError: it cannot be done; the file is as it was.
    """
    path, backup = planned.path, planned.backup
    try:
        with closing(connect(path, TIMEOUT)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if (now := connection.execute("PRAGMA user_version").fetchone()[0]) != planned.state.schema:
                raise StoreError(f"{path}: is of schema {now} meanwhile; somebody else migrated it")
            _copy(path, backup)
            try:
                for version in range(planned.state.schema, planned.schema.version):
                    planned.schema.steps[version](connection, author)
                _note_reads(connection, planned.schema)
                connection.execute(f"PRAGMA user_version = {planned.schema.version}")
                connection.execute("COMMIT")
            except BaseException:
                backup.unlink()
                raise
    except (sqlite3.Error, OSError) as exc:
        raise StoreError(f"{path}: cannot be migrated, and is as it was: {exc}") from exc


def _note_reads(connection: sqlite3.Connection, schema: Schema) -> None:
    """Note who may work on the file from now on: what the schema before said of it holds no longer."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'").fetchone():
        reads = schema.version if schema.reads is None else schema.reads
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('reads', ?)", (str(reads),))


def _copy(path: Path, backup: Path) -> None:
    """Copy a database that is locked for writing; with the rights of the file.

    Raises:
        StoreError: there is a copy already.
    """
    try:
        descriptor = os.open(backup, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:
        raise StoreError(f"{backup}: is there already; move it away first") from None
    try:
        found = path.stat()
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        with suppress(PermissionError):  # who is not root owns the copy
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.close(descriptor)
        with closing(connect(path, TIMEOUT)) as source, closing(connect(backup, TIMEOUT)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
    except BaseException:
        backup.unlink()
        raise
