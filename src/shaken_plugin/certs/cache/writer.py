"""Filling the cache: for the agent alone."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from shaken_plugin.certs.cache.anchors import pack, unpack
from shaken_plugin.certs.cache.file import (
    SCHEMA,
    SCHEMA_VERSION,
    CacheDamaged,
    StoredDocument,
    StoredRevocationList,
    TrustListRow,
    check_version,
    dates,
    serial_key,
)
from shaken_plugin.core.crl import RevocationList
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.sqlitefile import Connections, create

WRITE_TIMEOUT: Final = 0.25
"""Seconds to wait for another writer; the agent writes in a thread of its own, and tries again."""

_Found = TypeVar("_Found")

_COLUMNS: Final = (
    "url, fetched_at, fresh_until, usable_until, etag, last_modified, failure, failures, retry_at, seen_at, trusted"
)
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""Of these SQLITE_ERROR is a table or column that is not there."""


class CacheWriter:
    """Writes whole rows. Use it from one thread.

    Every method raises `CacheDamaged` where the file must be made anew (`renew`), and
    `StoreUnavailable` where it cannot be written now: locked, full, without the right.

    Args:
        path: the file; made with its mode where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections = Connections(path, WRITE_TIMEOUT, self._prepare)
        self.renewed = False
        self.made = 0
        """How often the tables had to be made: then nothing of what was stored is there."""

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        if check_version(connection, self._path):
            return
        with _transaction(connection):
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.made += 1

    def _do(self, work: Callable[[sqlite3.Connection], _Found]) -> _Found:
        try:
            create(self._path)
            return work(self._connections.get())
        except (sqlite3.Error, OSError) as exc:
            self._connections.forget()
            code = getattr(exc, "sqlite_errorcode", 0)
            if code & 0xFF in _DAMAGE:
                raise CacheDamaged(f"{self._path}: {exc}") from exc
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        except CacheDamaged:
            raise
        except StoreError as exc:
            raise StoreUnavailable(str(exc)) from exc

    def check(self) -> None:
        """Look through the whole file for damage; takes a second for 200 MB."""

        def look(connection: sqlite3.Connection) -> None:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise CacheDamaged(f"{self._path}: {found}")

        self._connections.forget()  # it may have in memory what is whole no longer in the file
        self._do(look)

    def renew(self) -> None:
        """Put a damaged file aside, as ``.damaged``, and begin anew.

        Raises:
            StoreUnavailable: the folder cannot be written to.
        """
        self._connections.forget()
        self.renewed = True
        try:
            self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise StoreUnavailable(f"{self._path}: {exc.strerror}") from exc
        for end in ("-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + end).unlink()
        self._do(lambda _: None)

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        self._connections.forget()

    # --- Documents ----------------------------------------------------------------------------

    def documents(self) -> list[tuple[StoredDocument, int | None]]:
        """All rows without their bodies, and the octets of each body, None where there is none."""

        def read(connection: sqlite3.Connection) -> list[tuple[StoredDocument, int | None]]:
            rows = connection.execute(f"SELECT CASE WHEN digest NOT NULL THEN size END, {_COLUMNS} FROM document")
            return [(_document(row[1:]), row[0]) for row in rows if _is_sound(row)]

        return self._do(read)

    def body(self, url: str) -> bytes | None:
        """A document as it was stored, None where there is none or it is damaged."""

        def read(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute("SELECT digest, body FROM document WHERE url = ?", (url,)).fetchone()
            if row is None or not isinstance(row[1], bytes) or hashlib.sha256(row[1]).digest() != row[0]:
                return None
            return row[1]

        return self._do(read)

    def put(self, documents: Sequence[StoredDocument]) -> None:
        """Store documents that have a body in one transaction, in place of what was known of them."""
        names = _COLUMNS.split(", ")
        rows = [
            (*(getattr(document, name) for name in names), hashlib.sha256(body).digest(), len(body), body)
            for document in documents
            if (body := document.body) is not None
        ]
        statement = f"INSERT OR REPLACE INTO document ({_COLUMNS}, digest, size, body) VALUES ({_marks(14)})"
        self._many(statement, rows)

    def update(self, documents: Sequence[StoredDocument]) -> None:
        """Like `put`, but a body that may still be used stays: a failed download, a time seen."""
        names = _COLUMNS.split(", ")
        rows = [tuple(getattr(document, name) for name in names) for document in documents]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[2:])
        for name in ("digest", "body"):
            changes += f", {name} = CASE WHEN excluded.usable_until > 0 THEN {name} END"
        self._many(
            f"INSERT INTO document ({_COLUMNS}, size) VALUES ({_marks(11)}, 0) "
            f"ON CONFLICT (url) DO UPDATE SET {changes}",
            rows,
        )

    def delete(self, urls: Sequence[str]) -> None:
        """Forget URLs."""
        self._many("DELETE FROM document WHERE url = ?", [(url,) for url in urls])

    def _many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany(statement, rows)

        self._do(write)

    # --- Lists --------------------------------------------------------------------------------

    def trust_lists(self) -> Mapping[str, TrustListRow]:
        """The trust lists by name; one that is damaged is left out, so that it is fetched anew."""

        def read(connection: sqlite3.Connection) -> Mapping[str, TrustListRow]:
            found = {}
            for name, sequence, expires, until, digest, anchors, origin in connection.execute(
                "SELECT name, sequence, expires, usable_until, digest, anchors, origin FROM trust_list"
            ):
                with suppress(ValueError, TypeError):
                    if hashlib.sha256(anchors).digest() == digest:
                        ders = tuple(unpack(anchors))
                        found[name] = TrustListRow(name, int(sequence), float(expires), float(until), ders, origin)
            return found

        return self._do(read)

    def put_trust_list(self, row: TrustListRow) -> None:
        """Store a list in place of the one before."""
        packed = pack(row.anchors)
        digest = hashlib.sha256(packed).digest()
        values = (row.name, row.sequence, row.expires, row.usable_until, digest, packed, row.origin)
        self._many(f"INSERT OR REPLACE INTO trust_list VALUES ({_marks(7)})", [values])

    def drop_trust_list(self, name: str) -> None:
        """Forget a list."""
        self._many("DELETE FROM trust_list WHERE name = ?", [(name,)])

    def revocation_lists(self) -> Mapping[tuple[str, str], RevocationList]:
        """The lists by trust list and URL, without their entries; one that is damaged is left out."""

        def read(connection: sqlite3.Connection) -> Mapping[tuple[str, str], RevocationList]:
            found = {}
            for trust_list, url, *row in connection.execute(
                "SELECT trust_list, url, issuer, number, this_update, next_update FROM crl"
            ):
                with suppress(TypeError):
                    found[trust_list, url] = dates(*row)
            return found

        return self._do(read)

    def put_revocation_list(self, row: StoredRevocationList) -> None:
        """Store a list in place of the one before; readers see the old one or the new one."""

        def write(connection: sqlite3.Connection) -> None:
            content, place = row.content, (row.trust_list, row.url)
            with _transaction(connection):
                _drop(connection, place)
                connection.executemany(
                    "INSERT INTO revoked VALUES (?, ?, ?, ?)",
                    (
                        (row.trust_list, issuer, serial_key(serial), row.url)
                        for issuer, serial in sorted(content.revoked)
                    ),
                )
                values = (*place, content.issuer, serial_key(content.number), content.this_update, content.next_update)
                connection.execute(f"INSERT INTO crl VALUES ({_marks(6)})", values)

        self._do(write)

    def drop_revocation_list(self, trust_list: str, url: str) -> None:
        """Forget a list."""

        def write(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                _drop(connection, (trust_list, url))

        self._do(write)


def _drop(connection: sqlite3.Connection, place: tuple[str, str]) -> None:
    for table in ("revoked", "crl"):
        connection.execute(f"DELETE FROM {table} WHERE trust_list = ? AND url = ?", place)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _is_sound(row: Sequence[Any]) -> bool:
    """Whether a row has the types we wrote."""
    size, url, fetched_at, fresh_until, usable_until, *_, failures, retry_at, seen_at, _ = row
    times = (fetched_at, fresh_until, usable_until, retry_at, seen_at)
    return (
        isinstance(size, int | None)
        and isinstance(url, str)
        and isinstance(failures, int)
        and all(isinstance(value, float) for value in times)
    )


def _document(row: Sequence[Any]) -> StoredDocument:
    url, fetched_at, fresh, usable, etag, modified, failure, failures, retry_at, seen_at, trusted = row
    return StoredDocument(
        url, None, fetched_at, fresh, usable, etag, modified, failure, failures, retry_at, seen_at, bool(trusted)
    )
