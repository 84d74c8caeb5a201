"""A policy with all its kept versions as one document, out of one host's file and into another's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.ports import Span
from shaken_plugin.stores.drafts import link_keys
from shaken_plugin.stores.policy import KINDS, number_key, span_keys
from shaken_plugin.stores.redis.entries import Head
from shaken_plugin.stores.redis.operations import number_kind
from shaken_plugin.stores.redis.pieces import BLOCK, Reader, Writer, blocks, damaged
from shaken_plugin.stores.sqlite.codec import decode
from shaken_plugin.stores.sqlite.draft import shapes_of
from shaken_plugin.stores.sqlite.schema import meta, set_meta

FORMAT: Final = 1

_DIGITS = 10**15
_HELD: Final = 1_000_000
"""Numbers of one right that wait for others that began and ended with them."""

_INCOMING: Final = "CREATE TABLE incoming (key INTEGER, owner INTEGER, span INTEGER, since INTEGER, until INTEGER)"
_INTO_PLACE: Final = (
    "INSERT INTO number SELECT key, owner, span, since, until FROM incoming ORDER BY key, owner, span, since",
    "DROP TABLE incoming",
)

Bounds = tuple[int, int | None]
"""The first version that a row belongs to, and the first that it no longer does."""


# --- Out of a file --------------------------------------------------------------------------------


def write_snapshot(connection: sqlite3.Connection, head: Head, writer: Writer) -> None:
    """Write down what a file has.

    Args:
        connection: in a transaction.
        head: the version that it has.
        writer: takes it.
    """
    content = meta(connection)
    writer.line(
        "snapshot", FORMAT, head.version, head.txid, content.get("applied_version", 0), content.get("oldest_version", 0)
    )
    for row in connection.execute("SELECT version, at, who, why, what, applied FROM change ORDER BY version"):
        writer.line("change", *row)
    for row in connection.execute("SELECT kind, id, since, until, body FROM record ORDER BY kind, id, since"):
        writer.line("record", *row)
    for owner, kind, identifier in connection.execute(
        "SELECT number, kind, id FROM owner ORDER BY kind, id"
    ).fetchall():
        for (since, until), keys in _numbers(connection, owner):
            writer.line("numbers", kind, identifier, since, until, len(keys))
            writer.numbers(keys)
        for (since, until), pairs in _ranges(connection, owner):
            writer.line("ranges", kind, identifier, since, until, len(pairs))
            writer.pairs(pairs)
    writer.line("end")


def _numbers(connection: sqlite3.Connection, owner: int) -> Iterator[tuple[Bounds, list[int]]]:
    """The numbers of a right, those together that began and ended with the same versions."""
    rows = connection.execute(
        f"SELECT key % {_DIGITS}, since, until FROM number WHERE span = 0 AND owner = ? ORDER BY key", (owner,)
    )
    held: dict[Bounds, list[int]] = {}
    count = 0
    while some := rows.fetchmany(BLOCK):
        for number, since, until in some:
            held.setdefault((since, until), []).append(number)
        count += len(some)
        if count >= _HELD:
            yield from held.items()
            held, count = {}, 0
    yield from held.items()


def _ranges(connection: sqlite3.Connection, owner: int) -> Iterator[tuple[Bounds, list[tuple[int, int]]]]:
    rows = connection.execute(
        "SELECT first, last, since, until FROM span WHERE owner = ? ORDER BY first, last, since", (owner,)
    )
    while some := rows.fetchmany(BLOCK):
        held: dict[Bounds, list[tuple[int, int]]] = {}
        for first, last, since, until in some:
            held.setdefault((since, until), []).append((first, last))
        yield from held.items()


# --- Into a file ----------------------------------------------------------------------------------


def read_snapshot(connection: sqlite3.Connection, reader: Reader, name: str) -> Head:
    """Fill the tables of a file, which have nothing in them, with what was written down.

    Args:
        connection: in a transaction; the file is of no use where this raises.
        reader: has it.
        name: what it is, for messages.

    Returns:
        The version it has then.

    Raises:
        Damaged: no release wrote this.
        StoreUnavailable: the rest of it cannot be fetched.
    """
    try:
        (index,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'number_owner'").fetchone()
        connection.execute("DROP INDEX number_owner")  # made faster once all is there
        connection.execute(_INCOMING)
        head = _Loading(connection, reader).run()
        for statement in (*_INTO_PLACE, index):
            connection.execute(statement)
        _index(connection)
        return head
    except (LookupError, TypeError, ValueError, sqlite3.IntegrityError, OverflowError) as exc:
        raise damaged(name, repr(exc)[:200]) from exc


class _Loading:
    """A snapshot on its way into a file."""

    def __init__(self, connection: sqlite3.Connection, reader: Reader) -> None:
        self._connection = connection
        self._reader = reader
        self._owners: dict[tuple[str, str], int] = {}

    def run(self) -> Head:
        """All of it."""
        match self._reader.line():
            case ["snapshot", int(form), int(version), str(txid), int(applied), int(oldest)] if form == FORMAT:
                pass
            case _:
                raise ValueError("no snapshot that this release knows")
        set_meta(self._connection, policy_version=version, applied_version=applied, oldest_version=oldest)
        while (line := self._reader.line()) != ["end"]:
            self._take(line)
        if self._reader.line() is not None:
            raise ValueError("something follows its end")
        return Head(version, txid)

    def _take(self, line: list[Any] | None) -> None:
        match line:
            case ["change", int(), int() | float(), str(), str(), str(), int()]:
                self._connection.execute("INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)", line[1:])
            case ["record", str(), str(), int(), int() | None, str()]:
                self._connection.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?)", line[1:])
            case ["numbers", str(kind), str(identifier), int(since), int() | None as until, int(count)]:
                self._numbers(self._owner(kind, identifier), since, until, count)
            case ["ranges", str(kind), str(identifier), int(since), int() | None as until, int(count)]:
                self._ranges(self._owner(kind, identifier), since, until, count)
            case _:
                raise ValueError("a line that this release does not know")

    def _owner(self, kind: str, identifier: str) -> int:
        number_kind(kind)
        known = self._owners.get((kind, identifier))
        if known is None:
            known = self._owners[kind, identifier] = len(self._owners) + 1
            self._connection.execute("INSERT INTO owner VALUES (?, ?, ?)", (known, kind, identifier))
        return known

    def _numbers(self, owner: int, since: int, until: int | None, count: int) -> None:
        for block in blocks(self._reader.numbers(count)):
            shortest, longest = number_key(str(min(block))), number_key(str(max(block)))
            if shortest // _DIGITS == longest // _DIGITS:  # then so are all between
                base = shortest - min(block)
                keys: Iterator[int] = (base + number for number in block)
            else:
                keys = (number_key(str(number)) for number in block)
            self._put((key, owner, 0, since, until) for key in keys)

    def _ranges(self, owner: int, since: int, until: int | None, count: int) -> None:
        for first, last in self._reader.pairs(count):
            identifier = self._connection.execute(
                "INSERT INTO span (owner, first, last, since, until) VALUES (?, ?, ?, ?, ?)",
                (owner, first, last, since, until),
            ).lastrowid
            keys = span_keys(Span(str(first), str(last)))
            self._put((key, owner, identifier, since, until) for key in keys)

    def _put(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._connection.executemany("INSERT INTO incoming VALUES (?, ?, ?, ?, ?)", rows)


def _index(connection: sqlite3.Connection) -> None:
    """Note what records and numbers are found by."""
    rows = connection.execute("SELECT kind, id, body FROM record WHERE until IS NULL").fetchall()
    for kind, identifier, body in rows:
        record = decode(KINDS[kind], body, lambda name: Customer(name, "", CustomerState.PENDING))
        if record.id != identifier:
            raise ValueError("a record says that it is another")
        connection.executemany(
            "INSERT INTO link VALUES (?, ?, ?)", [(key, kind, identifier) for key in link_keys(record)]
        )
        connection.executemany("INSERT OR IGNORE INTO shape VALUES (?, ?)", shapes_of(record))
    found: int | None = connection.execute("SELECT min(key) FROM number").fetchone()[0]
    while found is not None:
        shape = found // _DIGITS
        connection.execute("INSERT OR IGNORE INTO shape VALUES ('number', ?)", (shape,))
        following = connection.execute("SELECT min(key) FROM number WHERE key >= ?", ((shape + 1) * _DIGITS,))
        found = following.fetchone()[0]
