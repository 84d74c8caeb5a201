"""Questions to the ledger.

Each raises `StoreUnavailable` where it cannot be read now, `StoreError` where it is of another schema.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.lines import searchable
from shaken_plugin.records.tables import CALL

_AFTER_ANY_NUMBER: Final = "~"
"""Comes after all that stands in a number."""


class Found(NamedTuple):
    """One record. ``seq`` is its place in the ledger, ``id`` its file and offset in the spool."""

    seq: int
    id: str
    record: dict[str, Any]


class NumberUse(NamedTuple):
    """A calling number as a customer used it, before any other took its place: how often, when last, what it got."""

    number: str
    calls: int
    last: float
    """POSIX seconds."""
    level: str | None
    dest: str | None = None
    """The called party of the last call."""
    routed_by: str | None = None
    """See `records.call.CallRecord`, likewise."""
    route: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records; what is None is not asked for.

    Numbers are canonical, with ``*`` at the end all that begin so; ``number`` is either party, or
    the one that sends the call on or was replaced. ``since`` and ``until`` in POSIX seconds, the
    latter excluded.
    """

    number: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    since: float | None = None
    until: float | None = None
    customer: str | None = None
    call_id: str | None = None
    kind: str | None = None
    level: str | None = None
    verdict: str | None = None
    refused: bool = False
    unauthorised: bool = False

    def condition(self) -> ColumnElement[bool]:
        """The same for the database."""
        wanted: list[ColumnElement[bool]] = []
        if self.number is not None:
            wanted.append(
                or_(*(_is_number(column, self.number) for column in (CALL.c.orig, CALL.c.dest, CALL.c.other)))
            )
        if self.from_number is not None:
            wanted.append(or_(_is_number(CALL.c.orig, self.from_number), _is_number(CALL.c.other, self.from_number)))
        if self.to_number is not None:
            wanted.append(_is_number(CALL.c.dest, self.to_number))
        wanted += [CALL.c.at >= self.since] if self.since is not None else []
        wanted += [CALL.c.at < self.until] if self.until is not None else []
        for column in (CALL.c.customer, CALL.c.call_id, CALL.c.kind, CALL.c.level, CALL.c.verdict):
            if (value := getattr(self, column.name)) is not None:
                wanted.append(column == searchable(value))
        wanted += [CALL.c.refused] if self.refused else []
        wanted += [CALL.c.unauthorised] if self.unauthorised else []
        return and_(True, *wanted)


def _is_number(column: ColumnElement[Any], number: str) -> ColumnElement[bool]:
    if not number.endswith("*"):
        return column == searchable(number)
    # No LIKE: by its rules of comparison it may not use the index.
    begin = number.removesuffix("*")
    return and_(column >= begin, column < begin + _AFTER_ANY_NUMBER)


def search(ledger: Ledger, wanted: Wanted, limit: int | None = None) -> Generator[Found, None, None]:
    """The records that are wanted, the latest first. To be closed where it is not read to its end."""
    asked = _rows(wanted.condition()).order_by(CALL.c.at.desc(), CALL.c.seq.desc())
    return _found(ledger, asked.limit(limit))


def by_call_id(ledger: Ledger, call_id: str, limit: int | None = None) -> list[Found]:
    """All about one Call-ID, the latest first."""
    return list(search(ledger, Wanted(call_id=call_id), limit))


def nearest(ledger: Ledger, wanted: Wanted, at: float, within: float = 3_600.0) -> Found | None:
    """Of the records that are wanted the one nearest in time, ``within`` so many seconds."""
    near = and_(wanted.condition(), CALL.c.at >= at - within, CALL.c.at <= at + within)
    asked = _rows(near).order_by(func.abs(CALL.c.at - at), CALL.c.seq.desc())
    found = list(_found(ledger, asked.limit(1)))
    return found[0] if found else None


def numbers_of_customer(ledger: Ledger, customer: str, since: float) -> list[NumberUse]:
    """The calling numbers that a customer used, the most used first; not those of calls that were sent on."""
    mine = and_(CALL.c.kind == "sign", CALL.c.customer == customer, CALL.c.at >= since, CALL.c.orig.is_not(None))
    used = (
        select(func.count().label("calls"), func.max(CALL.c.seq).label("latest"))
        .where(mine)
        .group_by(CALL.c.orig, CALL.c.other)
        .subquery()
    )
    asked = select(used.c.calls, CALL.c.record).join(used, CALL.c.seq == used.c.latest).order_by(CALL.c.seq)
    found: dict[str, NumberUse] = {}
    with ledger.reading() as connection, connection.execution_options(yield_per=500).execute(asked) as rows:
        for calls, text in rows:
            record = json.loads(text)
            number = record.get("substituted_for") or record["orig"]
            if not record.get("diverting"):
                before = found[number].calls if number in found else 0
                last = (record.get(name) for name in ("at", "level", "dest", "routed_by", "route"))
                found[number] = NumberUse(number, before + calls, *last)
    return sorted(found.values(), key=lambda use: (-use.calls, use.number))


def _rows(condition: ColumnElement[bool]) -> Select[Any]:
    return select(CALL.c.seq, CALL.c.file, CALL.c.offset, CALL.c.record).where(condition)


def _found(ledger: Ledger, asked: Select[Any]) -> Generator[Found, None, None]:
    with ledger.reading() as connection, connection.execution_options(yield_per=500).execute(asked) as rows:
        for row in rows:
            yield Found(row.seq, f"{row.file}:{row.offset}", json.loads(row.record))
