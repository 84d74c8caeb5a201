"""What a policy file holds, and forgetting what it was long ago."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import Change
from shaken_plugin.sqlitefile import connect
from shaken_plugin.stores.migrations import Schema, size_of
from shaken_plugin.stores.policy import KINDS
from shaken_plugin.stores.sqlite.draft import VERSIONED, SqliteDraft
from shaken_plugin.stores.sqlite.from_v1 import from_v1
from shaken_plugin.stores.sqlite.records import material_of
from shaken_plugin.stores.sqlite.schema import (
    DAMAGE,
    OLDEST,
    READS,
    SCHEMA_VERSION,
    check_schema,
    from_v2,
    meta,
)
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT, must_be_its_own, writing

POLICY: Final = Schema("policy", SCHEMA_VERSION, {1: from_v1, 2: from_v2}, oldest=OLDEST, reads=READS)


class Status(NamedTuple):
    """What the file holds."""

    schema: int
    policy_version: int
    oldest_version: int
    """The oldest version that can be looked back at."""
    applied_version: int
    """The version with which a policy file was last put in force; 0 for never."""
    changed: Change | None
    """The last change."""
    records: dict[str, int]
    """Records in force, by kind."""
    numbers: int
    """Single numbers in force, of rights and do-not-originate entries."""
    ranges: int
    material: int
    """Keys and trust anchors."""
    history: int
    """Rows that are no longer in force."""
    size: int
    """Octets, with the log."""


class Compaction(NamedTuple):
    """What `compact` drops, or dropped."""

    version: int
    """The version that becomes the oldest."""
    changes: int
    rows: dict[str, int]
    """By table."""


def status(path: Path) -> Status:
    """What the file holds.

    Raises:
        StoreUnavailable: it cannot be read, or nothing was ever written to it.
        StoreError: it is of another schema.
    """
    with _reading(path) as connection:
        content = meta(connection)
        row = connection.execute(
            "SELECT version, at, who, why, what FROM change ORDER BY version DESC LIMIT 1"
        ).fetchone()
        kinds = connection.execute("SELECT kind, count(*) FROM record WHERE until IS NULL GROUP BY kind")
        records = dict.fromkeys(KINDS, 0) | dict(kinds.fetchall())
        return Status(
            check_schema(connection, path),
            int(content["policy_version"]),
            int(content.get("oldest_version", 0)),
            int(content.get("applied_version", 0)),
            Change(*row) if row else None,
            records,
            _count(connection, "number WHERE span = 0 AND until IS NULL"),
            _count(connection, "span WHERE until IS NULL"),
            len(material_of(connection)),
            sum(_count(connection, f"{table} WHERE until IS NOT NULL") for table in VERSIONED),
            size_of(path),
        )


def compaction(path: Path, moment: float) -> Compaction:
    """What `compact` would drop: all that ended with the version in force at a time (POSIX seconds), or before.

    Raises:
        StoreUnavailable, StoreError: as for `status`.
    """
    with _reading(path) as connection:
        return compaction_in(connection, moment)


def compact(path: Path, moment: float) -> Compaction:
    """Drop what ended before a time; the version in force then is the oldest that can still be looked at.

    The room is used again; the file does not become smaller.

    Raises:
        StoreError: the file cannot be written now, or is of another schema.
    """
    with writing(path) as connection:
        must_be_its_own(connection, path)
        found = compaction_in(connection, moment)
        SqliteDraft(connection, found.version).forget(found.version)
        connection.execute("COMMIT")
        return found


def compaction_in(connection: sqlite3.Connection, moment: float) -> Compaction:
    """As `compaction`, of a file that is open."""
    query = "SELECT coalesce(max(version), 0) FROM change WHERE at <= ?"
    version = int(connection.execute(query, (moment,)).fetchone()[0])
    rows = {table: _count(connection, f"{table} WHERE until <= {version}") for table in VERSIONED}
    return Compaction(version, _count(connection, f"change WHERE version < {version}"), rows)


def _count(connection: sqlite3.Connection, which: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {which}").fetchone()[0])


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(connect(path, READER_TIMEOUT)) as connection:
            connection.execute("BEGIN")
            if check_schema(connection, path) == 0:
                raise StoreUnavailable(f"{path}: no policy in it yet; run 'shaken apply'")
            yield connection
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: {exc}") from exc
    except DAMAGE as exc:
        raise StoreUnavailable(f"{path}: its content is damaged: {exc!r}") from exc
