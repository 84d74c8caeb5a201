"""The file of the runtime state: its tables, and who may open it.

It has the standing of customers and the offences that lead to it, apart from the policy: an import locks
that for seconds, and a suspension must not wait. Nothing else says who is suspended, so every change is
synced to the disk, and a file that is damaged or lost is left for people to restore, never made anew by itself:
it has an id, which the policy's file remembers, so an empty one in its place is no answer.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from shaken_plugin import sqlitefile
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.sqlitefile import connect, create
from shaken_plugin.stores.migrations import Schema
from shaken_plugin.stores.sqlite.schema import read_header
from shaken_plugin.stores.statetables import SCHEMA_VERSION, from_v1, make_tables

WRITER_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer; each has it for milliseconds."""

_DAMAGED: Final = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}

STATE: Final = Schema("state", SCHEMA_VERSION, {1: from_v1})
"""For `shaken store`, which brings older files up to this."""


def check_schema(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables are there.

    Raises:
        StoreError: they are of a newer release, or of an older one and not brought up to this.
    """
    return sqlitefile.check_schema(connection, path, SCHEMA_VERSION) > 0


def lost(path: Path, what: str) -> str:
    """What is to be done about a state file that is not there any more, or is another one."""
    return (
        f"{path}: {what}, so it is not known who is suspended; restore it from a backup, or begin anew with nobody "
        "suspended: 'shaken store forget-state --by NAME --why TEXT'"
    )


def remembered(policy: Path | None) -> str | None:
    """The id of the state file that was made for a policy's file, None where none was, or it cannot be read."""
    try:
        return None if policy is None else read_header(policy).state_id
    except (StoreUnavailable, StoreError):
        return None  # a policy that cannot be read must not hide who is suspended


def never_made(path: Path, policy: Path | None) -> bool:
    """Whether nobody ever made the file: it is not there, or empty as `shaken setup` leaves it, and none was lost."""
    return remembered(policy) is None and not (path.exists() and path.stat().st_size)


def missing(path: Path, policy: Path | None) -> StoreError:
    """Why there is no file: it is lost, or none was ever made."""
    if remembered(policy) is not None:
        return StoreError(lost(path, "it is gone"))
    return StoreError(f"{path}: is not there yet; run 'shaken apply'")


def check(connection: sqlite3.Connection, path: Path, policy: Path | None, oldest: int = SCHEMA_VERSION) -> int:
    """Raise where this is not the state file that belongs to a policy.

    Args:
        connection: to the file.
        path: for the text.
        policy: the policy's file; None where it is nobody's.
        oldest: whoever asks can do with this schema, too; see `sqlitefile.check_schema`.

    Returns:
        Its schema version.

    Raises:
        StoreError: it is empty, of another release, or another file than was made for the policy.
    """
    version = sqlitefile.check_schema(connection, path, SCHEMA_VERSION, oldest)
    made = remembered(policy)  # last: where both files are locked, a call waits for this one alone
    if not version:
        raise StoreError(lost(path, "it is empty") if made else f"{path}: nothing in it yet; run 'shaken apply'")
    if made is not None and made != identity(connection):
        raise StoreError(lost(path, "it is not the file that was made for this policy"))
    return version


def identity(connection: sqlite3.Connection) -> str | None:
    """The file's id."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
    return None if row is None else str(row[0])


def for_writing(connection: sqlite3.Connection) -> None:
    """Make a connection fit to write with."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a suspension outlives a power loss


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One change: all of it, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def ensure(path: Path, policy: Path | None = None) -> str:
    """Make the file and its tables, unless it was made before.

    Args:
        path: the file.
        policy: the policy's file, which may remember one that was made.

    Returns:
        Its id, for the policy's file to remember.

    Raises:
        StoreUnavailable: one was made, and is not there any more, or damaged.
        StoreError: it cannot be made, or is of another release.
    """
    made = remembered(policy)
    if made is None:
        create(path)
    elif not os.path.lexists(path):
        raise StoreUnavailable(lost(path, "it is gone"))
    try:
        with closing(connect(path, WRITER_TIMEOUT)) as connection:
            for_writing(connection)
            with transaction(connection):
                if made is None:
                    return _make(connection, path)
                check_schema(connection, path)  # of another release is not lost
                try:
                    check(connection, path, policy)
                except StoreError as exc:
                    raise StoreUnavailable(str(exc)) from exc
                return made
    except sqlite3.Error as exc:
        if made is not None and getattr(exc, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            raise StoreUnavailable(lost(path, f"it is damaged ({exc})")) from exc
        raise StoreError(f"{path}: cannot be written: {exc}") from exc


def _make(connection: sqlite3.Connection, path: Path) -> str:
    if not check_schema(connection, path):
        make_tables(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (str(uuid.uuid4()),))
    found = identity(connection)
    assert found is not None
    return found


def make_anew(path: Path) -> tuple[str, Path | None]:
    """Make a new file; one that is there is kept under another name.

    Returns:
        The new one's id, and where the old one is now.

    Raises:
        StoreError: it cannot be made.
    """
    kept = put_away(path, "forgotten")
    return ensure(path), kept


def put_away(path: Path, why: str) -> Path | None:
    """Give a file that is there another name, with its log; which.

    Raises:
        StoreError: it cannot be renamed.
    """
    if not os.path.lexists(path):
        return None
    kept = path.with_name(f"{path.name}.{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    try:
        for suffix in ("", "-wal", "-shm"):  # the log belongs to the file: never to the new one
            if os.path.lexists(f"{path}{suffix}"):
                os.rename(f"{path}{suffix}", f"{kept}{suffix}")  # noqa: PTH104  # names, not Paths
    except OSError as exc:
        raise StoreError(f"{path}: cannot be renamed: {exc.strerror}") from exc
    return kept


def is_lost(path: Path) -> bool:
    """Whether a file that was made is gone, empty or damaged; another file in its place is for people to judge."""
    try:
        with closing(connect(path, WRITER_TIMEOUT)) as connection:
            return not check_schema(connection, path)
    except sqlite3.Error as exc:
        return not os.path.lexists(path) or getattr(exc, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
    except StoreError:
        return False
