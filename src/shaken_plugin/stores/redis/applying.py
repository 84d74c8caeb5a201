"""Entries of the log done to a file, and what a file says it is a copy of."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from shaken_plugin.errors import StoreError
from shaken_plugin.sqlitefile import connect
from shaken_plugin.stores.redis.entries import Entry, Head
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.operations import replay
from shaken_plugin.stores.sqlite.draft import SqliteDraft
from shaken_plugin.stores.sqlite.schema import DAMAGE, check_schema, meta, set_meta
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT, record_change

BATCH: Final = 64
"""Entries that are fetched, and applied in one transaction, at most."""


class Mark(NamedTuple):
    """What a file is a copy of."""

    fleet: str | None
    """The fleet's id; None for a file that is no copy."""
    head: Head
    """The version that it has."""


class CopyDamaged(StoreError):
    """A host's file is damaged, as a file or in what it says of itself."""


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite says that a file is damaged, or no database."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # of our own connection, which met text that is none
        return type(error) is sqlite3.DatabaseError
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


NOTHING: Final = Mark(None, Head(0, ""))
"""The mark of a file that nothing was ever written to."""


def read_mark(connection: sqlite3.Connection, path: Path) -> Mark:
    """The mark of an open file.

    Raises:
        CopyDamaged: its content is damaged.
        StoreError: it is of another schema.
    """
    if check_schema(connection, path) == 0:
        return NOTHING
    try:
        content = meta(connection)
        fleet = content.get("fleet_id")
        head = Head(int(content["policy_version"]), str(content.get("fleet_txid", "")))
        return Mark(None if fleet is None else str(fleet), head)
    except DAMAGE as exc:
        raise CopyDamaged(f"{path}: its content is damaged ({exc!r})") from exc


def mark_of(path: Path) -> Mark:
    """The mark of a file, which need not be there.

    Raises:
        CopyDamaged: it is damaged.
        StoreError: it cannot be read, or is of another schema.
    """
    if not os.path.lexists(path):
        return NOTHING
    try:
        with closing(connect(path, READER_TIMEOUT)) as connection:
            connection.execute("BEGIN")
            return read_mark(connection, path)
    except sqlite3.Error as exc:
        raise (CopyDamaged if is_damage(exc) else StoreError)(f"{path}: cannot be read: {exc}") from exc


def apply_entries(connection: sqlite3.Connection, log: FleetLog, mark: Mark) -> tuple[Mark, str | None]:
    """Do the next entries, `BATCH` at most, to a file that is in a writing transaction.

    Returns:
        The mark it has then, and why it cannot go on with the log, None where it can.

    Raises:
        Damaged: an entry is damaged, or does not fit what the file has.
        StoreUnavailable: Redis cannot be had.
    """
    for entry in log.entries(mark.head.version, BATCH):
        if entry.head.version != mark.head.version + 1:
            return mark, f"the log begins at version {entry.head.version} by now, the copy was at {mark.head.version}"
        if entry.after != mark.head.txid:
            return mark, f"version {mark.head.version} was lost, by a failover or a restored backup, and made anew"
        _apply(connection, log, entry)
        mark = mark._replace(head=entry.head)
    return mark, None


def _apply(connection: sqlite3.Connection, log: FleetLog, entry: Entry) -> None:
    version = entry.head.version
    draft = SqliteDraft(connection, version)
    replay(draft, log.reader(entry), f"{log.name}, version {version}", lambda name: log.material([name])[name])
    alone = draft.rows == draft.material_rows  # see RedisPolicy
    record_change(connection, version, entry.author, entry.what, applied=entry.applied or alone)
    set_meta(connection, fleet_txid=entry.head.txid)
    if entry.applied:
        set_meta(connection, applied_version=version)
