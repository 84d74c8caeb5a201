"""What differs between two policies, record by record and number by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

from shaken_plugin.core.records import DoNotOriginate, Record, Right, Trunk
from shaken_plugin.exchange.plain import flat, plain
from shaken_plugin.ports import NumbersOf, PolicyRecords, Span
from shaken_plugin.stores.policy import KINDS

R = TypeVar("R", bound=Record)


class Kind(Enum):
    """What happened to a record."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(slots=True)
class Run:
    """Numbers from ``first`` to ``last`` without a gap, made of one or more spans."""

    first: str
    last: str

    @property
    def count(self) -> int:
        """How many numbers those are."""
        return int(self.last) - int(self.first) + 1


@dataclass(slots=True)
class Numbers:
    """Spans that are on one side only."""

    spans: int = 0
    """How many, as they were added to the record."""
    runs: list[Run] = field(default_factory=list)
    """The first of them, joined where they touch."""
    more: int = 0
    """How many further runs there are."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One record that is not the same in both policies."""

    name: str
    """Of its type: ``right``, ``do_not_originate``."""
    id: str
    kind: Kind
    fields: tuple[tuple[str, Any, Any], ...] = ()
    """Name, value before, value after; None where it says nothing."""
    added: Numbers = field(default_factory=Numbers)
    removed: Numbers = field(default_factory=Numbers)


MOST_RUNS: Final = 20
"""Runs of numbers that are kept of a record where nothing else is said."""


def differences(old: PolicyRecords, new: PolicyRecords, most_runs: int | None = MOST_RUNS) -> Iterator[Difference]:
    """What differs, by type and id.

    Args:
        old: the policy before.
        new: the policy after.
        most_runs: runs of numbers that are kept of each record, each way; None for all.

    Raises:
        StoreUnavailable, StoreError: a store cannot be read.
    """
    for name, kind in KINDS.items():
        for before, after in _side_by_side(old.all(kind), new.all(kind), lambda record: record.id):
            found = _difference(name, (old, before), (new, after), most_runs)
            if found is not None:
                yield found


Side = tuple[PolicyRecords, Record | None]


def _difference(name: str, old: Side, new: Side, most_runs: int | None) -> Difference | None:
    (_, before), (_, after) = old, new
    record = before or after
    assert record is not None
    kind = Kind.ADDED if before is None else Kind.REMOVED if after is None else Kind.CHANGED
    said, says = _said(before), _said(after)
    fields = tuple(
        (field, said.get(field), says.get(field))
        for field in dict.fromkeys((*said, *says))
        if said.get(field) != says.get(field)
    )
    added, removed = _Gatherer(most_runs), _Gatherer(most_runs)
    if isinstance(record, Right | DoNotOriginate):
        both = _side_by_side(_numbers(old, type(record)), _numbers(new, type(record)), _value)
        for was, is_ in both:
            if was is None and is_ is not None:
                added.take(is_)
            elif is_ is None and was is not None:
                removed.take(was)
    if kind is Kind.CHANGED and not (fields or added.numbers.spans or removed.numbers.spans):
        return None
    return Difference(name, record.id, kind, fields, added.done(), removed.done())


def _said(record: Record | None) -> dict[str, Any]:
    if record is None:
        return {}
    owner = {"customer": record.customer.id} if isinstance(record, Trunk) else {}
    return {field: value for field, value in flat(plain(record) | owner) if field != "id"}


def _numbers(side: Side, kind: NumbersOf) -> Iterator[Span]:
    records, record = side
    return iter(()) if record is None else records.numbers(kind, record.id)


def _value(span: Span) -> tuple[int, int]:
    return int(span.first), int(span.last)


class _Gatherer:
    """Joins spans that come sorted."""

    def __init__(self, most: int | None) -> None:
        self.numbers = Numbers()
        self._most = most
        self._open: Run | None = None

    def take(self, span: Span) -> None:
        """One more."""
        self.numbers.spans += 1
        run = self._open
        if run is not None and len(run.first) == len(span.first) and int(span.first) <= int(run.last) + 1:
            run.last = max(run.last, span.last)
            return
        self._close()
        self._open = Run(*span)

    def done(self) -> Numbers:
        """What came."""
        self._close()
        self._open = None
        return self.numbers

    def _close(self) -> None:
        if self._open is None:
            return
        if self._most is None or len(self.numbers.runs) < self._most:
            self.numbers.runs.append(self._open)
        else:
            self.numbers.more += 1


T = TypeVar("T")


def _side_by_side(left: Iterator[T], right: Iterator[T], key: Any) -> Iterator[tuple[T | None, T | None]]:
    """Pairs of two sorted streams; None where one of them lacks it."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and key(one) < key(other)):
            yield one, None
            one = next(left, None)
        elif one is None or key(other) < key(one):
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)
