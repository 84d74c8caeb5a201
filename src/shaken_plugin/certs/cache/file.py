"""The cache's file: its tables, its rows, and questions that do not stall a call."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shaken_plugin.core.crl import RevocationList
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BUSY_TIMEOUT
from shaken_plugin.sqlitefile import Connections

SCHEMA_VERSION: Final = 1
"""Version of the tables below; a file with a newer one is refused."""

BLIND: Final = 0.5
"""Seconds without another question after the file could not be read. Else every call would wait
`BUSY_TIMEOUT` for a file that somebody keeps locked."""

SCHEMA: Final = (
    """CREATE TABLE document (
        url TEXT PRIMARY KEY, digest BLOB, fetched_at REAL NOT NULL, fresh_until REAL NOT NULL,
        usable_until REAL NOT NULL, etag TEXT, last_modified TEXT, failure TEXT, failures INTEGER NOT NULL,
        retry_at REAL NOT NULL, seen_at REAL NOT NULL, trusted INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB
    )""",
    """CREATE TABLE trust_list (
        name TEXT PRIMARY KEY, sequence INTEGER NOT NULL, expires REAL NOT NULL, usable_until REAL NOT NULL,
        digest BLOB NOT NULL, anchors BLOB NOT NULL, origin BLOB NOT NULL
    )""",
    """CREATE TABLE crl (
        trust_list TEXT, url TEXT, issuer BLOB NOT NULL, number BLOB NOT NULL,
        this_update REAL NOT NULL, next_update REAL NOT NULL,
        PRIMARY KEY (trust_list, url)
    ) WITHOUT ROWID""",
    """CREATE TABLE revoked (
        trust_list TEXT, issuer BLOB, serial BLOB, url TEXT, PRIMARY KEY (trust_list, issuer, serial, url)
    ) WITHOUT ROWID""",
)


class CacheDamaged(StoreError):
    """The file, or something in it, is not what this release wrote. It can be made anew."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What is known of one certificate URL. ``body`` is None where no download ever succeeded."""

    url: str
    body: bytes | None
    fetched_at: float
    fresh_until: float
    usable_until: float
    """Until when it serves although it could not be refreshed (RFC 5861 §4)."""
    etag: str | None = None
    last_modified: str | None = None
    failure: str | None = None
    """Name and detail of the last download where that failed, None where it succeeded."""
    failures: int = 0
    """Failed downloads in a row."""
    retry_at: float = 0.0
    """Until when a failure is believed without another try."""
    seen_at: float = 0.0
    """When a call last asked for it, to about a minute."""
    trusted: bool = False
    """Whether its path led to an anchor when it was fetched: such documents are evicted last."""


@dataclass(frozen=True, slots=True)
class TrustListRow:
    """A trust list whose signature was verified. ``anchors`` are certificates in DER."""

    name: str
    sequence: int
    expires: float
    usable_until: float
    anchors: tuple[bytes, ...]
    origin: bytes = b""
    """A digest of its URL and of those who had to sign it."""


@dataclass(frozen=True, slots=True)
class StoredRevocationList:
    """A revocation list whose signature was verified: where it came from, for which trust list it speaks."""

    trust_list: str
    url: str
    content: RevocationList


def dates(issuer: object, number: object, this_update: object, next_update: object) -> RevocationList:
    """A row of ``crl`` as the list without its entries.

    Raises:
        TypeError: it is not what this release wrote.
    """
    if not (isinstance(issuer, bytes) and isinstance(number, bytes)):
        raise TypeError("its row is damaged")
    if not (isinstance(this_update, float) and isinstance(next_update, float)):
        raise TypeError("its row is damaged")
    return RevocationList(issuer, int.from_bytes(number, "big", signed=True), this_update, next_update, frozenset())


def serial_key(serial: int) -> bytes:
    """A serial number as SQLite can compare it: up to 20 octets do not fit its integers."""
    return serial.to_bytes((serial.bit_length() + 8) // 8, "big", signed=True)


def check_version(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables are there.

    Raises:
        StoreError: they are of a newer release.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path}: schema version {version} is newer than this release knows ({SCHEMA_VERSION})")
    return version > 0


class Reader:
    """Point reads for SIP workers: no transaction stays open, a lock costs 20 ms at most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections = Connections(path, BUSY_TIMEOUT, self._prepare)
        self._blind_until = 0.0
        self._trouble = ""

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = 1")
        if not check_version(connection, self.path):
            raise StoreError("nothing in it yet; the agent fills it")

    @property
    def blind(self) -> bool:
        """Whether the file could not be read the last time."""
        return bool(self._trouble)

    def row(self, statement: str, values: Sequence[Any]) -> Any:
        """The first row, None where there is none. One statement, so one short transaction.

        Raises:
            StoreUnavailable: it cannot be read now, or could not a moment ago.
        """
        if self._trouble and time.monotonic() < self._blind_until:
            raise StoreUnavailable(self._trouble)
        try:
            cursor = self._connections.get().execute(statement, values)
            found = cursor.fetchone()
            cursor.close()  # else the read transaction stays open and the -wal file grows
        except (sqlite3.Error, StoreError, OSError, ValueError) as exc:
            self._connections.forget(exc)
            self._trouble = f"{self.path}: {exc}"
            self._blind_until = time.monotonic() + BLIND
            raise StoreUnavailable(self._trouble) from exc
        self._trouble = ""
        return found
