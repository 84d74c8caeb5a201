"""The ledger of calls: one implementation for SQLite and PostgreSQL.

What was read from a spool file and how far it was read are written in one transaction, so that
whoever is killed at any moment has done both or neither. All writers take turns (SQLite: the
file's lock; PostgreSQL: an advisory lock), and so `tables.CALL.c.seq` grows in the order of commits:
who remembers the last one it saw misses none, with one collector or several.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, func, insert, inspect, select, update
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError

from shaken_plugin import sqlitefile
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.records import engines
from shaken_plugin.records.pieces import Piece, Progress, Refused, Stored, write
from shaken_plugin.records.tables import CALL, DAMAGED, LEDGER, METADATA, SCHEMA_VERSION, SPOOL

TIMEOUT: Final = 2.0
"""Seconds to wait for another who writes. No call ever waits for the ledger."""

_TURN: Final = 0x73_68_61_6B
"""Number of PostgreSQL's advisory lock of whoever writes."""

_PRUNE_AT_ONCE: Final = 1_000


MIGRATIONS: dict[int, tuple[str, Callable[[Connection], None]]] = {}
"""By the version that is left: what is done to come to the next one, in words and in fact."""


class LedgerStatus(NamedTuple):
    """What a ledger says about itself: its schema version, 0 where it is empty, and the rows of each table."""

    schema: int
    tables: dict[str, int]


class Ledger:
    """A ledger; nothing is opened before it is used.

    Args:
        url: ``sqlite:PATH`` or ``postgresql://USER@HOST/DATABASE``.
        password: for PostgreSQL.
        timeout: seconds to wait for another who writes.

    Raises:
        StoreError: the URL cannot be used, or the library for it is missing.
    """

    def __init__(self, url: str, password: str | None = None, timeout: float = TIMEOUT) -> None:
        self.name = engines.shown(url)
        """The URL, without what is secret in it."""
        self._path = Path(url.removeprefix("sqlite:")) if url.startswith("sqlite:") else None
        self._sound = False
        try:
            if self._path is not None:
                self.engine = engines.sqlite(self._path, timeout)
            else:
                self.engine = engines.postgresql(url, password, timeout)
        except ModuleNotFoundError as exc:
            raise StoreError(f"{self.name}: needs {exc.name}: install shaken-plugin[postgresql]") from exc
        except (ArgumentError, ValueError) as exc:
            raise StoreError(f"{self.name}: not a database that can be named so") from exc

    def close(self) -> None:
        """Close what is open; it opens again when it is used."""
        self.engine.dispose()

    # --- Schema -------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the tables where there are none.

        Raises:
            StoreUnavailable: it cannot be used now.
            StoreError: it is of another schema.
        """
        if self._path is not None and not self._path.exists():
            sqlitefile.create(self._path)
        with self._told():
            if self._path is not None:
                with self.engine.connect() as connection:
                    connection.connection.execute("PRAGMA journal_mode = WAL")
            with self.writing() as connection:
                version = _version(connection)
                if version == 0:
                    METADATA.create_all(connection)
                    connection.execute(insert(LEDGER).values(version=SCHEMA_VERSION))
                else:
                    self._check(version)
        self._sound = True

    def _check(self, version: int) -> None:
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name}: schema version {version} is newer than this release knows ({SCHEMA_VERSION}); "
                "install the release that wrote it"
            )
        if version < SCHEMA_VERSION:
            raise StoreError(f"{self.name}: of an older release (schema version {version}); run 'shaken store migrate'")

    def status(self) -> LedgerStatus:
        """What it says about itself, of whatever schema.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        with self._told(), self.reading(checked=False) as connection:
            schema = _version(connection)
            tables = {
                table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
                for table in (CALL, SPOOL, DAMAGED)
                if schema
            }
        return LedgerStatus(schema, tables)

    def describe_migration(self) -> list[str]:
        """What `migrate` would do, one line a step; empty where there is nothing to do.

        Raises:
            StoreUnavailable: it cannot be read now.
            StoreError: it is of a newer schema.
        """
        with self._told(), self.reading(checked=False) as connection:
            version = _version(connection)
        if version > SCHEMA_VERSION:
            self._check(version)
        return [f"{one} -> {one + 1}: {MIGRATIONS[one][0]}" for one in range(version, SCHEMA_VERSION) if version]

    def migrate(self) -> None:
        """Bring an older ledger to this release's schema, in one transaction.

        Raises:
            StoreUnavailable: it cannot be written now.
            StoreError: it is of a newer schema.
        """
        with self._told(), self.writing() as connection:
            version = _version(connection)
            if version > SCHEMA_VERSION:
                self._check(version)
            if version:
                for one in range(version, SCHEMA_VERSION):
                    MIGRATIONS[one][1](connection)
                connection.execute(update(LEDGER).values(version=SCHEMA_VERSION))

    # --- Transactions -------------------------------------------------------------------------

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the database as ours, without the statement and its values."""
        try:
            yield
        except SQLAlchemyError as exc:
            self._sound = False
            origin = getattr(exc, "orig", None) or exc
            said = re.sub(r"\s+", " ", str(origin)).strip()[:300]
            kind = Refused if isinstance(exc, IntegrityError | DataError) else StoreUnavailable
            raise kind(f"{self.name}: {said or type(origin).__name__}") from exc
        except sqlite3.Error as exc:
            self._sound = False
            raise StoreUnavailable(f"{self.name}: {exc}") from exc
        except OSError as exc:
            raise StoreUnavailable(f"{self.name}: {exc.strerror}") from exc

    @contextmanager
    def reading(self, *, checked: bool = True) -> Iterator[Connection]:
        """A transaction that reads.

        Raises:
            StoreUnavailable: it cannot be read now.
            StoreError: it is of another schema.
        """
        with self._told(), self.engine.connect() as connection:
            if checked:
                version = _version(connection)
                if version == 0:
                    raise StoreUnavailable(f"{self.name}: no record in it yet")
                self._check(version)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; one at a time, whoever begins it."""
        with self.engine.connect().execution_options(shaken_writes=True) as connection, connection.begin():
            if self._path is None:
                connection.execute(select(func.pg_advisory_xact_lock(_TURN)))
            yield connection

    @contextmanager
    def _ready(self) -> Iterator[Connection]:
        """A transaction that writes to tables that are there."""
        if not self._sound or (self._path is not None and not self._path.exists()):
            self.prepare()
        with self._told(), self.writing() as connection:
            # Each time: another release may have migrated it, or it was exchanged, since this process began.
            self._check(connection.execute(select(func.max(LEDGER.c.version))).scalar() or 0)
            yield connection

    # --- For the collector --------------------------------------------------------------------

    def progress(self, files: Sequence[str]) -> dict[str, Progress]:
        """How far files were read; those of which nothing was read are left out.

        Raises:
            StoreUnavailable: it cannot be read now.
            StoreError: it is of another schema.
        """
        with self._ready() as connection:
            rows = connection.execute(select(SPOOL.c.file, SPOOL.c.offset, SPOOL.c.done).where(SPOOL.c.file.in_(files)))
            return {row.file: Progress(row.offset, row.done) for row in rows}

    def store(self, pieces: Sequence[Piece], now: float) -> Stored:
        """Write what was read, and how far: all or nothing. What is there already is not written again.

        Raises:
            Moved: somebody else was faster; nothing was written.
            Refused: the database does not take what one of the pieces holds; nothing was written.
            StoreUnavailable: it cannot be written now. Whether it was is not known: ask `progress`.
            StoreError: it is of another schema.
        """
        with self._ready() as connection:
            return write(connection, pieces, now)

    def forget(self, files: Sequence[str]) -> None:
        """Files that were removed: their names never come back.

        Raises:
            StoreUnavailable: it cannot be written now.
            StoreError: it is of another schema.
        """
        with self._ready() as connection:
            connection.execute(delete(SPOOL).where(SPOOL.c.file.in_(files)))

    def prune(self, now: float, keep: float, seen_until: int | None = None) -> int:
        """Remove old records, at most `_PRUNE_AT_ONCE` of them.

        Args:
            now: POSIX seconds.
            keep: seconds for which a record stays, counted back from now, and from the time of the latest
                record: a clock that runs ahead does not empty the ledger.
            seen_until: ``seq`` of the last one that those who must see all have seen; later ones stay.

        Returns:
            How many were removed; 0 where none is left to remove.

        Raises:
            StoreUnavailable: it cannot be written now.
            StoreError: it is of another schema.
        """
        if self._path is not None and not self._path.exists():
            return 0
        with self._ready() as connection:
            latest = connection.execute(select(func.max(CALL.c.at))).scalar()
            before = (now if latest is None else min(now, latest)) - keep
            old = select(CALL.c.seq).where(CALL.c.at < before).order_by(CALL.c.at).limit(_PRUNE_AT_ONCE)
            if seen_until is not None:
                old = old.where(CALL.c.seq <= seen_until)
            removed = connection.execute(delete(CALL).where(CALL.c.seq.in_(old))).rowcount
            if not removed:
                connection.execute(delete(DAMAGED).where(DAMAGED.c.at < before))
                # Left by a collector that was killed between removing a file and forgetting it.
                connection.execute(delete(SPOOL).where(SPOOL.c.done, SPOOL.c.updated < before))
            return removed


def _version(connection: Connection) -> int:
    """The schema version, 0 where there are no tables."""
    if not inspect(connection).has_table(LEDGER.name):
        return 0
    return connection.execute(select(func.max(LEDGER.c.version))).scalar() or 0
