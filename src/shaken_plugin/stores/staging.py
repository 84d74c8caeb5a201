"""Numbers collected and sorted before a change begins, so that an import holds the lock of writers for seconds only.

Reading a file of a million lines takes as long as it takes; while it is read nothing is locked. What was
read lies in a temporary database of this process, in memory where it is small and on disk where it is not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final, Self

from shaken_plugin.errors import NumberError, StoreError
from shaken_plugin.ports import NumbersOf, Span
from shaken_plugin.stores.policy import is_number

CHUNK: Final = 10_000
"""Numbers that are held as objects at a time."""

_CACHE_KIB: Final = 32_768
"""Memory for pages, before they go to the disk."""

# As they come: sorted once at the end they are there many times faster than into an index one by one.
_STAGED: Final = "CREATE TABLE staged (owner INTEGER, first INTEGER, last INTEGER)"
_SORT: Final = (
    "CREATE TABLE sorted (owner INTEGER, first INTEGER, last INTEGER, PRIMARY KEY (owner, first, last)) WITHOUT ROWID",
    "INSERT INTO sorted SELECT DISTINCT owner, first, last FROM staged ORDER BY owner, first, last",
    "DROP TABLE staged",
)


class Staging:
    """Numbers of many rights and do-not-originate entries, for `ports.PolicyDraft.add_numbers`.

    First all of them are added; then, from `sort` on, they are read.
    """

    def __init__(self) -> None:
        # The empty name is a private file that SQLite removes by itself.
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.execute(_STAGED)
        self._owners: dict[tuple[NumbersOf, str], int] = {}

    def add(self, rows: Iterable[tuple[NumbersOf, str, Span]]) -> None:
        """Take over numbers, each with the kind and id of its record, in any order.

        Raises:
            NumberError: a span is none (see `ports.PolicyDraft.add_numbers`).
            StoreError: there is no room for them.
        """
        waiting = iter(rows)
        with _room():
            while chunk := list(islice(waiting, CHUNK)):
                self._connection.execute("BEGIN")
                self._connection.executemany("INSERT INTO staged VALUES (?, ?, ?)", map(self._row, chunk))
                self._connection.execute("COMMIT")

    def sort(self) -> None:
        """All are there: bring them in order, each once.

        Raises:
            StoreError: there is no room for that.
        """
        with _room():
            for statement in _SORT:
                self._connection.execute(statement)

    def owners(self) -> list[tuple[NumbersOf, str, int]]:
        """The records that have numbers, as they first came, with how many."""
        counts = dict(self._connection.execute("SELECT owner, count(*) FROM sorted GROUP BY owner").fetchall())
        return [(kind, identifier, counts[owner]) for (kind, identifier), owner in self._owners.items()]

    def numbers(self, kind: NumbersOf, identifier: str) -> Iterator[Span]:
        """The numbers of a record, sorted by value."""
        owner = self._owners.get((kind, identifier))
        rows = self._connection.execute("SELECT first, last FROM sorted WHERE owner = ? ORDER BY first, last", (owner,))
        return (Span(str(first), str(last)) for first, last in rows)

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _row(self, row: tuple[NumbersOf, str, Span]) -> tuple[int, int, int]:
        kind, identifier, (first, last) = row
        single = first == last
        if not (is_number(first) and (single or (is_number(last) and len(first) == len(last) and first < last))):
            raise NumberError(
                f"neither a number nor a range of numbers of equal length: {first[:32]!r} to {last[:32]!r}"
            )
        value = int(first)
        owner = self._owners.setdefault((kind, identifier), len(self._owners))
        return owner, value, value if single else int(last)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreError(f"no room for the numbers until they are all there: {exc}") from exc
