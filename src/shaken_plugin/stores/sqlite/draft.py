"""A change of the policy under way: rows begin and end at the version that it makes."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from shaken_plugin.core.material import Material
from shaken_plugin.core.records import Gateway, Record, Route, Trunk
from shaken_plugin.errors import NumberError, StoreError
from shaken_plugin.ports import NumbersOf, Span
from shaken_plugin.stores.drafts import Draft, link_keys
from shaken_plugin.stores.material import Place
from shaken_plugin.stores.policy import KIND_NAMES, KINDS, NUMBER_KINDS, number_key, shape, span_keys
from shaken_plugin.stores.sqlite.codec import encode
from shaken_plugin.stores.sqlite.records import SqliteRecords
from shaken_plugin.stores.sqlite.schema import has_material, meta, overwrite, set_meta

CHUNK: Final = 10_000
"""Numbers that are held as objects at a time."""

VERSIONED: Final = ("record", "span", "number")
"""The tables whose rows bear the versions that they belong to."""

_STAGE: Final = (
    "CREATE TEMP TABLE IF NOT EXISTS staged (key INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS staged_range (first INTEGER, last INTEGER, PRIMARY KEY (first, last))",
    "DELETE FROM staged",
    "DELETE FROM staged_range",
)

# Sorted by key, which is the order of the table and of its index.
_ADD: Final = """
INSERT INTO number (key, owner, span, since) SELECT s.key, :owner, 0, :version FROM staged AS s
WHERE NOT EXISTS (
    SELECT 1 FROM number AS n WHERE n.key = s.key AND n.owner = :owner AND n.span = 0 AND n.until IS NULL
) ORDER BY s.key
"""
_REOPEN: Final = """
UPDATE number SET until = NULL WHERE span = 0 AND owner = :owner AND until = :version
AND key IN (SELECT key FROM staged)
"""
_DROP: Final = "DELETE FROM number WHERE span = 0 AND owner = :owner AND since = :version"
_END: Final = "UPDATE number SET until = :version WHERE span = 0 AND owner = :owner AND until IS NULL"
_STAGED: Final = " AND key IN (SELECT key FROM staged)"


class SqliteDraft(SqliteRecords, Draft):
    """A `ports.PolicyDraft`, through a connection that is in a writing transaction.

    A row that begins and ends in the same change is no row at all, and one that ended and is wanted
    back goes on: so what was changed to and fro leaves no trace. ``rows`` counts what would be left.
    """

    def __init__(self, connection: sqlite3.Connection, version: int) -> None:
        super().__init__(connection, version)
        self.rows = 0
        self._ended = False  # whether any number was taken out, that may be wanted back
        self.touched: Counter[str] = Counter()
        """What was changed, by kind, for people."""
        self.material_rows = 0
        """How many keys and trust anchors are others than before; `rows` counts them, too."""
        self._material_before: dict[Place, str | None] = {}

    # --- Keys and trust anchors ---------------------------------------------------------------

    def put_material(self, material: Material) -> None:
        """See `ports.PolicyDraft`."""
        self._must_have_room()
        super().put_material(material)

    def remove_material(self, kind: type[Material], name: str) -> None:
        """See `ports.PolicyDraft`."""
        self._must_have_room()
        super().remove_material(kind, name)

    def write_material(self, place: Place, body: str | None) -> bool:
        """See `Draft`."""
        kind, name = place
        which = "WHERE kind = :kind AND id = :id"
        row = self._execute(f"SELECT body FROM material {which}", kind=kind, id=name).fetchone()
        now = None if row is None else str(row[0])
        before = self._material_before.setdefault(place, now)
        overwrite(self._connection)
        if body is None:
            self._execute(f"DELETE FROM material {which}", kind=kind, id=name)
        else:
            self._execute("INSERT OR REPLACE INTO material VALUES (:kind, :id, :body)", kind=kind, id=name, body=body)
        change = int(body != before) - int(now != before)
        self.rows += change
        self.material_rows += change
        self.touched[kind] += 1
        return now is not None

    def _must_have_room(self) -> None:
        if not has_material(self._connection):
            raise StoreError(
                "the store is of schema 2, which has no room for keys and trust anchors: run 'shaken store migrate' "
                "first, when every switch and agent of this host is of this release"
            )

    # --- Records ------------------------------------------------------------------------------

    def write(self, record: Record) -> None:
        """See `Draft`."""
        kind, body = KIND_NAMES[type(record)], encode(record)
        if not self._write_body(kind, record.id, body):
            return
        self.touched[kind] += 1
        self._unlink(kind, record.id)
        self._connection.executemany(
            "INSERT INTO link VALUES (?, ?, ?)", [(key, kind, record.id) for key in link_keys(record)]
        )
        self._note_shapes(*shapes_of(record))

    def erase(self, kind: type[Record], identifier: str) -> None:
        """See `Draft`."""
        self.touched[KIND_NAMES[kind]] += 1
        self._end_record(KIND_NAMES[kind], identifier)
        self._unlink(KIND_NAMES[kind], identifier)
        if kind in NUMBER_KINDS and (owner := self.owner(kind, identifier)) is not None:
            self._end_numbers(owner, "")
            for first, last in self._execute(
                "SELECT first, last FROM span WHERE owner = :owner AND until IS NULL", owner=owner
            ).fetchall():
                self._end_range(owner, first, last)

    def linked(self, key: str) -> Iterable[tuple[type[Record], str]]:
        """See `Draft`."""
        rows = self._execute("SELECT kind, id FROM link WHERE key = :key", key=key).fetchall()
        return [(KINDS[kind], identifier) for kind, identifier in rows]

    def _write_body(self, kind: str, identifier: str, body: str) -> bool:
        names = {"kind": kind, "id": identifier, "body": body}
        row = self._execute(
            "SELECT body FROM record WHERE kind = :kind AND id = :id AND until IS NULL", **names
        ).fetchone()
        if row is not None and row[0] == body:
            return False
        self._end_record(kind, identifier)
        back = self._execute(
            "UPDATE record SET until = NULL WHERE kind = :kind AND id = :id AND until = :version AND body = :body",
            **names,
        ).rowcount
        if back:
            self.rows -= back
        else:
            self._execute("INSERT INTO record VALUES (:kind, :id, :version, NULL, :body)", **names)
            self.rows += 1
        return True

    def _end_record(self, kind: str, identifier: str) -> None:
        which = "kind = :kind AND id = :id"
        self.rows -= self._execute(
            f"DELETE FROM record WHERE {which} AND since = :version", kind=kind, id=identifier
        ).rowcount
        self.rows += self._execute(
            f"UPDATE record SET until = :version WHERE {which} AND until IS NULL", kind=kind, id=identifier
        ).rowcount

    def _unlink(self, kind: str, identifier: str) -> None:
        self._execute("DELETE FROM link WHERE kind = :kind AND id = :id", kind=kind, id=identifier)

    def _note_shapes(self, *shapes: tuple[str, int]) -> None:
        self._connection.executemany("INSERT OR IGNORE INTO shape VALUES (?, ?)", shapes)

    # --- Numbers ------------------------------------------------------------------------------

    def add_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """See `ports.PolicyDraft`."""
        self.require(kind, identifier)
        names = {"kind": KIND_NAMES[kind], "id": identifier}
        self._stage(spans, strict=True)
        self._execute("INSERT OR IGNORE INTO owner (kind, id) VALUES (:kind, :id)", **names)
        owner = self.owner(kind, identifier)
        assert owner is not None
        back = self._execute(_REOPEN, owner=owner).rowcount if self._ended else 0
        new = self._execute(_ADD, owner=owner).rowcount
        self.rows += new - back
        ranges = self._execute("SELECT first, last FROM staged_range ORDER BY first, last").fetchall()
        added = new + back + sum(self._begin_range(owner, first, last) for first, last in ranges)
        self.touched["numbers added"] += added
        return added

    def remove_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """See `ports.PolicyDraft`."""
        self.require(kind, identifier)
        self._stage(spans, strict=False)
        owner = self.owner(kind, identifier)
        if owner is None:
            return 0
        gone = self._end_numbers(owner, _STAGED)
        ranges = self._execute("SELECT first, last FROM staged_range").fetchall()
        gone += sum(self._end_range(owner, first, last) for first, last in ranges)
        self.touched["numbers removed"] += gone
        return gone

    def _stage(self, spans: Iterable[Span], *, strict: bool) -> None:
        """Numbers into a table of this connection's own, which sorts them and makes them unique."""
        for statement in _STAGE:
            self._connection.execute(statement)
        shapes: set[int] = set()
        waiting = iter(spans)
        while chunk := list(islice(waiting, CHUNK)):
            self._connection.executemany("INSERT OR IGNORE INTO staged VALUES (?)", _keys(chunk, shapes, strict=strict))
            ranges = _ranges(chunk, shapes, strict=strict)
            self._connection.executemany("INSERT OR IGNORE INTO staged_range VALUES (?, ?)", ranges)
        if strict:
            self._note_shapes(*(("number", value) for value in shapes))

    def _end_numbers(self, owner: int, which: str) -> int:
        dropped = self._execute(_DROP + which, owner=owner).rowcount
        ended = self._execute(_END + which, owner=owner).rowcount
        self.rows += ended - dropped
        self._ended = self._ended or ended > 0
        return dropped + ended

    def _begin_range(self, owner: int, first: int, last: int) -> int:
        values = {"owner": owner, "first": first, "last": last}
        rows = self._execute(
            "SELECT id, until FROM span WHERE owner = :owner AND first = :first AND last = :last "
            "AND (until IS NULL OR until = :version)",
            **values,
        ).fetchall()
        if any(until is None for _, until in rows):
            return 0
        if rows:
            (identifier, _), *_rest = rows
            self._execute("UPDATE span SET until = NULL WHERE id = :span", span=identifier)
            self._set_until(first, last, owner, identifier, None)
            self.rows -= 1
            return 1
        identifier = self._execute(
            "INSERT INTO span (owner, first, last, since) VALUES (:owner, :first, :last, :version)", **values
        ).lastrowid
        self._connection.executemany(
            "INSERT INTO number (key, owner, span, since) VALUES (?, ?, ?, ?)",
            [(key, owner, identifier, self.version) for key in span_keys(Span(str(first), str(last)))],
        )
        self.rows += 1
        return 1

    def _end_range(self, owner: int, first: int, last: int) -> int:
        row = self._execute(
            "SELECT id, since FROM span WHERE owner = :owner AND first = :first AND last = :last AND until IS NULL",
            owner=owner,
            first=first,
            last=last,
        ).fetchone()
        if row is None:
            return 0
        identifier, since = row
        if since == self.version:
            keys = [(key, owner, identifier) for key in span_keys(Span(str(first), str(last)))]
            self._connection.executemany("DELETE FROM number WHERE key = ? AND owner = ? AND span = ?", keys)
            self._execute("DELETE FROM span WHERE id = :span", span=identifier)
            self.rows -= 1
        else:
            self._execute("UPDATE span SET until = :version WHERE id = :span", span=identifier)
            self._set_until(first, last, owner, identifier, self.version)
            self.rows += 1
        return 1

    def _set_until(self, first: int, last: int, owner: int, span: int, until: int | None) -> None:
        self._connection.executemany(
            "UPDATE number SET until = ? WHERE key = ? AND owner = ? AND span = ?",
            [(until, key, owner, span) for key in span_keys(Span(str(first), str(last)))],
        )

    def forget(self, version: int) -> None:
        """Drop what ended with a version or before: it becomes the oldest that can be looked at."""
        for table in VERSIONED:
            self._connection.execute(f"DELETE FROM {table} WHERE until <= ?", (version,))
        self._connection.execute("DELETE FROM change WHERE version < ?", (version,))
        self._connection.execute(
            "DELETE FROM owner WHERE NOT EXISTS (SELECT 1 FROM number WHERE owner = owner.number AND span = 0) "
            "AND NOT EXISTS (SELECT 1 FROM span WHERE owner = owner.number)"
        )
        if version > int(meta(self._connection).get("oldest_version", 0)):
            set_meta(self._connection, oldest_version=version)

    def summary(self) -> str:
        """What was changed, for people: ``2 customer, 1 right, 300 numbers added``."""
        counts = ((count, name.replace("_", "-")) for name, count in self.touched.items() if count)
        return ", ".join(f"{count} {name}" for count, name in counts)


def shapes_of(record: Record) -> Iterator[tuple[str, int]]:
    """The lengths of prefixes that a record is found by."""
    match record:
        case Trunk() | Gateway():
            for network in record.addresses:
                yield "address", network.version * 1000 + network.prefixlen
        case Route():
            for prefix in record.destinations:
                yield "destination", len(prefix)


def _keys(spans: list[Span], shapes: set[int], *, strict: bool) -> Iterator[tuple[int]]:
    """The keys of single numbers; what is none is an error, or where it cannot be there left out."""
    for first, last in spans:
        if first == last:
            try:
                key = number_key(first)
            except NumberError:
                if strict:
                    raise
                continue
            shapes.add(shape(key))
            yield (key,)


def _ranges(spans: list[Span], shapes: set[int], *, strict: bool) -> Iterator[tuple[int, int]]:
    """The ends of ranges, likewise."""
    for first, last in spans:
        if first != last:
            try:
                shapes.update(map(shape, span_keys(Span(first, last))))
            except NumberError:
                if strict:
                    raise
                continue
            yield int(first), int(last)
