"""A policy at one version, read for tools: nothing is remembered, everything streams."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from shaken_plugin.core.material import Material
from shaken_plugin.core.records import Customer, Record
from shaken_plugin.ports import NumbersOf, Span
from shaken_plugin.stores.material import decode_all
from shaken_plugin.stores.policy import KIND_NAMES, narrowest_first, number_keys
from shaken_plugin.stores.sqlite.codec import decode
from shaken_plugin.stores.sqlite.schema import has_material, policy_version

R = TypeVar("R", bound=Record)

HELD: Final = "since <= :version AND (until IS NULL OR until > :version)"
"""That a row belongs to a version."""

_COVERING: Final = """
SELECT o.id, s.first, s.last FROM number AS n JOIN owner AS o ON o.number = n.owner LEFT JOIN span AS s ON s.id = n.span
WHERE n.key IN ({}) AND o.kind = :kind AND n.since <= :version AND (n.until IS NULL OR n.until > :version)
"""


class SqliteRecords:
    """A `ports.PolicyRecords`, through a connection that is in a transaction."""

    def __init__(self, connection: sqlite3.Connection, version: int) -> None:
        self._connection = connection
        self.version = version

    def get(self, kind: type[R], identifier: str) -> R | None:
        """See `ports.PolicyRecords`."""
        query = f"SELECT body FROM record WHERE kind = :kind AND id = :id AND {HELD}"
        row = self._execute(query, kind=KIND_NAMES[kind], id=identifier).fetchone()
        return None if row is None else self._decode(kind, row[0])

    def all(self, kind: type[R]) -> Iterator[R]:
        """See `ports.PolicyRecords`."""
        query = f"SELECT body FROM record WHERE kind = :kind AND {HELD} ORDER BY id"
        return (self._decode(kind, body) for (body,) in self._execute(query, kind=KIND_NAMES[kind]))

    def numbers(self, kind: NumbersOf, identifier: str) -> Iterator[Span]:
        """See `ports.PolicyRecords`."""
        owner = self.owner(kind, identifier)
        singles = self._execute(
            f"SELECT key % 1000000000000000 AS first, NULL FROM number "
            f"WHERE span = 0 AND owner = :owner AND {HELD} ORDER BY key",
            owner=owner,
        )
        ranges = self._execute(
            f"SELECT first, last FROM span WHERE owner = :owner AND {HELD} ORDER BY first, last", owner=owner
        )
        for first, last in heapq.merge(singles, ranges, key=lambda row: (row[0], row[1] or row[0])):
            text = str(first)
            yield Span(text, text if last is None else str(last))

    def count(self, kind: NumbersOf, identifier: str) -> int:
        """See `ports.PolicyRecords`."""
        owner = self.owner(kind, identifier)
        queries = (
            f"SELECT count(*) FROM number WHERE span = 0 AND owner = :owner AND {HELD}",
            f"SELECT count(*) FROM span WHERE owner = :owner AND {HELD}",
        )
        return sum(int(self._execute(query, owner=owner).fetchone()[0]) for query in queries)

    def covering(self, kind: type[R], number: str) -> Iterator[tuple[R, Span]]:
        """See `ports.PolicyRecords`."""
        shapes = {value for (value,) in self._execute("SELECT value FROM shape WHERE kind = 'number'")}
        keys = number_keys(number, shapes)
        marks = ",".join(f":k{index}" for index in range(len(keys)))
        rows = self._execute(
            _COVERING.format(marks), kind=KIND_NAMES[kind], **{f"k{index}": key for index, key in enumerate(keys)}
        )
        found = [
            (identifier, Span(number, number) if first is None else Span(str(first), str(last)))
            for identifier, first, last in rows
        ]
        for identifier, span in sorted(found, key=lambda one: (*narrowest_first(one[1]), one[0])):
            if (record := self.get(kind, identifier)) is not None:
                yield record, span

    def material(self) -> tuple[Material, ...]:
        """See `ports.PolicyRecords`."""
        return material_of(self._connection) if self.version >= policy_version(self._connection) else ()

    def owner(self, kind: NumbersOf, identifier: str) -> int | None:
        """The number that stands for a record in the tables of numbers."""
        row = self._execute(
            "SELECT number FROM owner WHERE kind = :kind AND id = :id", kind=KIND_NAMES[kind], id=identifier
        ).fetchone()
        return None if row is None else int(row[0])

    def _execute(self, query: str, **values: Any) -> sqlite3.Cursor:
        return self._connection.execute(query, {"version": self.version, **values})

    def _decode(self, kind: type[Any], body: str) -> Any:
        return decode(kind, body, lambda name: self.get(Customer, name))


def material_of(connection: sqlite3.Connection) -> tuple[Material, ...]:
    """The keys and trust anchors in force.

    Raises:
        StoreError: one of them is damaged.
    """
    if not has_material(connection):
        return ()
    return decode_all(connection.execute("SELECT kind, id, body FROM material").fetchall())
