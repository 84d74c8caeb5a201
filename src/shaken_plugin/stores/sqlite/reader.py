"""Answering questions about calls from the store's file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, NumberRight, PolicyFacts, Trunk
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.sqlitefile import BUSY_TIMEOUT, Connections
from shaken_plugin.stores.policy import address_keys, number_keys
from shaken_plugin.stores.sqlite.file import DAMAGE, check_schema, meta

MAX_SOURCES: Final = 4_096
"""Sources (address and user) remembered per process between two policy versions."""

_COVERING = """
SELECT r.customer, r.first, r.last, r.basis, r.document, r.use_case, r.valid_from, r.valid_until
FROM number_key AS k JOIN number_right AS r ON r.id = k.id
WHERE k.key IN ({}) ORDER BY length(k.key) DESC, r.id
"""

_CUSTOMER = "c.id, c.name, c.state, c.ceiling, c.credential, c.origid"


class _Index(NamedTuple):
    """What a reader must know of the content before it can ask for a call's records."""

    version: int
    bits: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    sources: Bounded[tuple[str | None, str | None], tuple[Trunk | Gateway | None]]


class SqliteStore:
    """Answers from a file that `replace_policy` wrote.

    Args:
        path: the file. It need not exist yet: until it does, every question fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections = Connections(path, BUSY_TIMEOUT, self._prepare)

    def facts(self, source: str | None, user: str | None, number: str | None) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        try:
            connection = self._connections.get()
            connection.execute("BEGIN")
            try:
                index = self._index(connection)
                known = index.sources.get((source, user))
                if known is None:
                    known = (_source(connection, index.bits, source, user),)
                    index.sources.put((source, user), known)
                rights = () if number is None else _rights(connection, number_keys(number, index.lengths))
                holders = _holders(connection, rights)
            finally:
                connection.execute("COMMIT")
        except (sqlite3.Error, StoreError, OSError) as exc:
            self._connections.forget()
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        except DAMAGE as exc:
            raise StoreUnavailable(f"{self._path}: its content is damaged: {exc!r}") from exc
        return PolicyFacts(known[0], rights, index.version, holders)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = 1")
        if check_schema(connection, self._path) == 0:
            raise StoreError("no policy in it yet; run 'shaken apply'")
        self._local.index = None

    def _index(self, connection: sqlite3.Connection) -> _Index:
        index: _Index | None = self._local.index
        (text,) = connection.execute("SELECT value FROM meta WHERE key = 'policy_version'").fetchone()
        version = int(text)
        if index is None or index.version != version:
            content = meta(connection)
            index = _Index(
                version,
                tuple((family, bits) for family, bits in content["network_bits"]),
                tuple(content["prefix_lengths"]),
                Bounded(MAX_SOURCES),
            )
            self._local.index = index
        return index


def _source(
    connection: sqlite3.Connection, bits: Iterable[tuple[int, int]], source: str | None, user: str | None
) -> Trunk | Gateway | None:
    if user is not None and _is_text(user):
        row = connection.execute("SELECT trunk FROM source_user WHERE name = ?", (user,)).fetchone()
        if row is not None:
            return _trunk(connection, row[0])
    for key in address_keys(source or "", bits):
        row = connection.execute("SELECT kind, id FROM source_address WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return _trunk(connection, row[1]) if row[0] == "trunk" else _gateway(connection, row[1])
    return None


def _is_text(value: str) -> bool:
    """Whether SQLite can be asked for it: names with bytes that are not UTF-8 are nobody's."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _trunk(connection: sqlite3.Connection, trunk: str) -> Trunk:
    row = connection.execute(
        f"SELECT t.id, t.credential, {_CUSTOMER} "  # noqa: S608  # a constant
        "FROM trunk AS t JOIN customer AS c ON c.id = t.customer WHERE t.id = ?",
        (trunk,),
    ).fetchone()
    if row is None:
        raise StoreError(f"trunk {trunk} is named but not there; run 'shaken apply' again")
    return Trunk(row[0], _customer(row[2:]), row[1])


def _customer(row: tuple[Any, ...]) -> Customer:
    """A row of `_CUSTOMER`."""
    return Customer(row[0], row[1], CustomerState(row[2]), row[3] and Attest(row[3]), row[4], row[5])


def _gateway(connection: sqlite3.Connection, gateway: str) -> Gateway:
    row = connection.execute("SELECT id, name, credential FROM gateway WHERE id = ?", (gateway,)).fetchone()
    if row is None:
        raise StoreError(f"gateway {gateway} is named but not there; run 'shaken apply' again")
    return Gateway(*row)


def _rights(connection: sqlite3.Connection, keys: list[str]) -> tuple[NumberRight, ...]:
    marks = ",".join("?" * len(keys))
    rows = connection.execute(_COVERING.format(marks), keys).fetchall()
    return tuple(NumberRight(row[0], row[1], row[2], Basis(row[3]), *row[4:]) for row in rows)


def _holders(connection: sqlite3.Connection, rights: Iterable[NumberRight]) -> tuple[Customer, ...]:
    named = dict.fromkeys(right.customer for right in rights)
    query = f"SELECT {_CUSTOMER} FROM customer AS c WHERE c.id = ?"  # noqa: S608  # a constant
    rows = (connection.execute(query, (customer,)).fetchone() for customer in named)
    return tuple(_customer(row) for row in rows if row is not None)
