"""The store's file: its tables, its schema version, and what it says about itself.

Every row bears the policy versions it belongs to: ``since`` the first, ``until`` the first one that it no
longer belongs to, NULL while it is in force. So two versions can be compared, and one can be read as it was.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, NamedTuple

from shaken_plugin import sqlitefile
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BUSY_TIMEOUT
from shaken_plugin.sqlitefile import connect, create

SCHEMA_VERSION: Final = 3
"""Version of the tables below. Files of `OLDEST` are read and written as they are, and brought up by a command; what
is newer by more than one is refused, and what is newer by one unless it says that this release may (`READS`)."""

OLDEST: Final = 2
"""The oldest schema that this release works on. It has no room for keys and trust anchors."""

READS: Final = 3
"""The oldest schema whose releases may work on a file of this one: 2's refuse whatever is newer."""

MATERIAL: Final = (
    "CREATE TABLE IF NOT EXISTS material (kind TEXT, id TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID"
)
"""Keys and trust anchors in force; they have no history."""

WRITER_TIMEOUT: Final = 10.0
"""Seconds that whoever says nothing else waits for another writer: a switch that starts, the agent."""

_CUT_WAIT: Final = 0.2
"""Seconds that `cut_log` waits for readers; meanwhile nobody else writes."""

_FIRST_WAIT: Final = 0.5
"""Seconds after which who waits patiently says so."""


class Patience(NamedTuple):
    """How long to wait for another writer."""

    seconds: float
    waits: Callable[[str], object] = lambda _: None
    """Told once, where it takes longer than a moment."""


patience: Final[ContextVar[Patience | None]] = ContextVar("patience", default=None)
"""Of the command that runs: people wait for an import to end, a switch does not."""

CACHE_KIB: Final = 65_536
"""Memory for pages that a change touches; more are written to the log before its end."""

MAX_LOG: Final = 67_108_864
"""Octets to which the log is cut back after a change that made it larger."""

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE change (
    version INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, what TEXT NOT NULL,
    applied INTEGER NOT NULL
);
CREATE TABLE record (
    kind TEXT, id TEXT, since INTEGER, until INTEGER, body TEXT NOT NULL, PRIMARY KEY (kind, id, since)
) WITHOUT ROWID;
CREATE TABLE owner (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, UNIQUE (kind, id));
CREATE TABLE span (
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    since INTEGER NOT NULL, until INTEGER
);
CREATE INDEX span_owner ON span (owner, first, last);
CREATE TABLE number (
    key INTEGER, owner INTEGER, span INTEGER, since INTEGER, until INTEGER, PRIMARY KEY (key, owner, span, since)
) WITHOUT ROWID;
CREATE INDEX number_owner ON number (owner, key, since, until) WHERE span = 0;
CREATE TABLE link (key TEXT, kind TEXT, id TEXT, PRIMARY KEY (key, kind, id)) WITHOUT ROWID;
CREATE INDEX link_owner ON link (kind, id);
CREATE TABLE shape (kind TEXT, value INTEGER, PRIMARY KEY (kind, value)) WITHOUT ROWID;
"""
# record   every record but its numbers, as JSON
# owner    a number for each record that has numbers: 10 million rows carry it
# span     ranges; a single number is a row of `number` alone, with span 0
# number   the look-up: one row for each prefix (stores.policy.span_keys)
# link     what records in force are found by: addresses, accounts, destinations, and whom they refer to
# shape    the lengths of prefixes that were ever used, so that no other is asked for

DAMAGE: Final = (ValueError, TypeError, LookupError, ArithmeticError)
"""What reading a value raises that this release never wrote."""


class Header(NamedTuple):
    """What the file says about its content."""

    policy_version: int
    settings: dict[str, Any] | None
    """The checked settings as plain values; secrets are references, never the secrets."""
    digests: dict[str, str]
    """SHA-256 of each file this was compiled from, by path."""
    settings_version: int = 0
    """Another one with other settings: the policy version with which they came, in a fleet a count."""
    state_id: str | None = None
    """The id of the state file that was made for this policy, see `stores.statefile`."""


def check_schema(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of an open file, 0 for an empty one.

    Raises:
        StoreError: it is none that this release may work on.
    """
    return sqlitefile.check_schema(connection, path, SCHEMA_VERSION, OLDEST)


def has_material(connection: sqlite3.Connection) -> bool:
    """Whether the file has room for keys and trust anchors."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0]) >= SCHEMA_VERSION


def make_tables(connection: sqlite3.Connection) -> None:
    """The tables of this release, with no policy in them; within a transaction."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    from_v2(connection, None)
    set_meta(connection, policy_version=0, applied_version=0, oldest_version=0)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def from_v2(connection: sqlite3.Connection, _author: object) -> None:
    """Bring the tables of schema 2 to schema 3, within a transaction: room for keys and trust anchors."""
    connection.execute(MATERIAL)
    set_meta(connection, reads=READS)


def open_writer(path: Path, timeout: float | None = None) -> sqlite3.Connection:
    """A connection that writes, with the file made if it is not there.

    Raises:
        StoreError: the file cannot be made.
        sqlite3.Error: it cannot be opened.
    """
    create(path)
    connection = connect(path, WRITER_TIMEOUT if timeout is None else timeout)
    # WAL: readers never wait for a writer. It stays with the file. Here and not in `create`, because
    # a package or an administrator may have made the file, for its owner and mode.
    connection.execute("PRAGMA journal_mode = WAL")
    # A change that was reported as done survives a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    # A million numbers touch many pages; the log they leave is cut back afterwards.
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG}")
    connection.execute("PRAGMA secure_delete = OFF")  # some builds have it on, which `cut_log` would take for a key
    return connection


def overwrite(connection: sqlite3.Connection) -> None:
    """Have what this connection replaces or takes out overwritten, and not merely left where nobody looks."""
    connection.execute("PRAGMA secure_delete = ON")


def cut_log(connection: sqlite3.Connection) -> None:
    """After a change for which `overwrite` was called: take what it replaced out of the log beside the file, too.

    Else it is there for as long as any worker has the file open. A reader that is just in the middle of it keeps it
    until the next such change, or until the log begins anew.
    """
    if connection.in_transaction or not connection.execute("PRAGMA secure_delete").fetchone()[0]:
        return
    connection.execute(f"PRAGMA busy_timeout = {int(_CUT_WAIT * 1000)}")
    with suppress(sqlite3.Error):  # the change itself is done
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def begin(connection: sqlite3.Connection, path: Path) -> None:
    """Begin a change, as soon as no other is under way.

    Raises:
        StoreError: that takes longer than `patience` allows.
        sqlite3.Error: it cannot be begun.
    """
    allowed = patience.get() or Patience(WRITER_TIMEOUT)
    end, told = time.monotonic() + allowed.seconds, False
    while True:
        wait = max(0.0, min(end - time.monotonic(), allowed.seconds if told else _FIRST_WAIT))
        connection.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() >= end:
                text = f"{path}: is locked by another writer for more than {allowed.seconds:g} seconds; try again later"
                raise StoreError(text) from exc
            if not told:
                allowed.waits(f"another change of {path} is under way: waiting for it, {allowed.seconds:g} s at most")
            told = True
        else:
            return


def meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """The meta table; values are JSON."""
    return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM meta")}


def set_meta(connection: sqlite3.Connection, **values: Any) -> None:
    """Set some of its values."""
    rows = [(key, json.dumps(value)) for key, value in values.items()]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def policy_version(connection: sqlite3.Connection) -> int:
    """The version in force."""
    (text,) = connection.execute("SELECT value FROM meta WHERE key = 'policy_version'").fetchone()
    return int(text)


_WHICH: Final = """
SELECT (SELECT value FROM meta WHERE key = 'policy_version'), (SELECT value FROM meta WHERE key = 'fleet_txid')
"""


def version_and_which(connection: sqlite3.Connection) -> tuple[int, str | None]:
    """The version in force, and in a fleet which of several that bore its number.

    A failover of Redis can lose a version that was in force already, and another one is made then.
    """
    version, which = connection.execute(_WHICH).fetchone()
    return int(version), which


def read_header(path: Path) -> Header:
    """What the file says about itself.

    Raises:
        StoreUnavailable: it cannot be read, or nothing was ever put into it.
        StoreError: it is of another schema.
    """
    try:
        with closing(connect(path, BUSY_TIMEOUT)) as connection:
            if check_schema(connection, path) == 0:
                raise StoreUnavailable(f"{path}: no policy in it yet; run 'shaken apply'")
            content = meta(connection)
            return Header(
                int(content["policy_version"]),
                content.get("settings"),
                dict(content.get("digests", {})),
                int(content.get("settings_version", 0)),
                content.get("state_id"),
            )
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: {exc}") from exc
    except DAMAGE as exc:
        raise StoreUnavailable(f"{path}: its content is damaged: {exc!r}") from exc
