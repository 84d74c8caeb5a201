"""A change of the policy as the operations that make it again on any host, whatever the schema of its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from shaken_plugin.core.records import Customer, Record
from shaken_plugin.errors import ConflictError, StoreError
from shaken_plugin.ports import NumbersOf, Span
from shaken_plugin.stores.material import KINDS as MATERIAL_KINDS
from shaken_plugin.stores.material import Place
from shaken_plugin.stores.material import decode as decode_material
from shaken_plugin.stores.policy import KIND_NAMES, KINDS, NUMBER_KINDS
from shaken_plugin.stores.redis.pieces import Damaged, Reader, Writer, damaged
from shaken_plugin.stores.sqlite.codec import decode
from shaken_plugin.stores.sqlite.draft import SqliteDraft

_DIGITS = 10**15
"""A key of the table of numbers ends with the number (stores.policy)."""

MaterialOf = Callable[[str], str | None]
"""Gives what lies in the fleet's Redis under a name of keys or trust anchors, None where nothing does any more."""


class RecordingDraft(SqliteDraft):
    """A draft on a host's copy that also writes down what was done to it.

    Args:
        connection: as for `SqliteDraft`.
        version: likewise.
        writer: takes the operations.
    """

    def __init__(self, connection: sqlite3.Connection, version: int, writer: Writer) -> None:
        super().__init__(connection, version)
        self._writer = writer
        self.handed: dict[str, str | None] = {}
        """What is to lie in Redis under names of keys and trust anchors; None: nothing."""

    def write_material(self, place: Place, body: str | None) -> bool:
        """See `Draft`. The operation has the name alone, so that no content ever gets into the log."""
        there = super().write_material(place, body)
        name = material_name(place)
        self.handed[name] = body
        self._writer.line("material", name)
        return there

    def _write_body(self, kind: str, identifier: str, body: str) -> bool:
        changed = super()._write_body(kind, identifier, body)
        if changed:
            self._writer.line("put", kind, body)
        return changed

    def erase(self, kind: type[Record], identifier: str) -> None:
        """See `Draft`."""
        super().erase(kind, identifier)
        self._writer.line("erase", KIND_NAMES[kind], identifier)

    def forget(self, version: int) -> None:
        """See `SqliteDraft`."""
        super().forget(version)
        self._writer.line("forget", version)

    def add_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """See `ports.PolicyDraft`."""
        added = super().add_numbers(kind, identifier, spans)
        if added:
            self._record("add", kind, identifier)
        return added

    def remove_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """See `ports.PolicyDraft`."""
        gone = super().remove_numbers(kind, identifier, spans)
        if gone:
            self._record("remove", kind, identifier)
        return gone

    def _record(self, what: str, kind: NumbersOf, identifier: str) -> None:
        """Write down the numbers of the operation just done: they lie staged, sorted, each once."""
        ((singles,), (ranges,)) = (
            self._connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("staged", "staged_range")
        )
        self._writer.line(what, KIND_NAMES[kind], identifier, singles, ranges)
        rows = self._connection.execute(f"SELECT key % {_DIGITS} FROM staged ORDER BY key")
        self._writer.numbers(chain.from_iterable(rows))
        self._writer.pairs(self._connection.execute("SELECT first, last FROM staged_range ORDER BY first, last"))


def material_name(place: Place) -> str:
    """The name in Redis of keys or trust anchors."""
    return "/".join(place)


def write_material(draft: SqliteDraft, name: str, body: str | None) -> None:
    """Have a draft say of keys or trust anchors what Redis says.

    Raises:
        ValueError: the name is none.
        StoreError: the content is damaged.
    """
    kind, _, own = name.partition("/")
    if not own or kind not in MATERIAL_KINDS:
        raise ValueError("no name of keys or trust anchors")
    if body is not None:
        decode_material((kind, own), body)
    draft.write_material((kind, own), body)


def replay(draft: SqliteDraft, reader: Reader, name: str, material: MaterialOf) -> None:
    """Do to a draft what was written down.

    Args:
        draft: of the version that the operations were recorded for.
        reader: has them.
        name: of the change, for messages.
        material: gives keys and trust anchors as they are now, which may be later than the change.

    Raises:
        Damaged: no release wrote this, or it does not fit the policy that it meets.
        StoreUnavailable: the rest of it cannot be fetched.
    """
    while (line := reader.line()) is not None:
        try:
            _do(draft, reader, line, material)
        except Damaged:
            raise
        except (ConflictError, StoreError, LookupError, TypeError, ValueError, OverflowError) as exc:
            raise damaged(name, f"{str(line[0])[:32]}: {exc}") from exc


def _do(draft: SqliteDraft, reader: Reader, line: list[Any], material: MaterialOf) -> None:
    match line:
        case ["put", str(kind), str(body)]:
            draft.put(decode(KINDS[kind], body, lambda identifier: draft.get(Customer, identifier)))
        case ["erase", str(kind), str(identifier)]:
            draft.require(KINDS[kind], identifier)
            draft.erase(KINDS[kind], identifier)
        case ["add", str(kind), str(identifier), int(singles), int(ranges)] if min(singles, ranges) >= 0:
            draft.add_numbers(number_kind(kind), identifier, _spans(reader, singles, ranges))
        case ["remove", str(kind), str(identifier), int(singles), int(ranges)] if min(singles, ranges) >= 0:
            draft.remove_numbers(number_kind(kind), identifier, _spans(reader, singles, ranges))
        case ["forget", int(version)] if 0 <= version < draft.version:
            draft.forget(version)
        case ["material", str(name)]:
            write_material(draft, name, material(name))
        case _:
            raise ValueError("no operation that this release knows")


def number_kind(name: str) -> NumbersOf:
    """The type of records with numbers that has a name.

    Raises:
        ValueError: there is none.
    """
    for kind in NUMBER_KINDS:
        if KIND_NAMES[kind] == name:
            return kind
    raise ValueError("of a kind that has no numbers")


def _spans(reader: Reader, singles: int, ranges: int) -> Iterator[Span]:
    for number in reader.numbers(singles):
        text = str(number)
        yield Span(text, text)
    for first, last in reader.pairs(ranges):
        yield Span(str(first), str(last))
