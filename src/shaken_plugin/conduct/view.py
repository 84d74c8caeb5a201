"""What the state file says of customers, for people and for messages."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final, NamedTuple

from shaken_plugin.conduct.accounts import Said, offence_of
from shaken_plugin.core.offences import Offence, Stage
from shaken_plugin.core.records import CustomerState
from shaken_plugin.ports import Standing
from shaken_plugin.stores.standing import REINSTATED

MAX_NUMBERS_SHOWN: Final = 1_000
"""Numbers of an offence that are listed, the first ones."""


class Case(NamedTuple):
    """An offence with how much it is. ``warnings`` are the customer's, all that were ever delivered."""

    offence: Offence
    customer: str
    calls: int
    numbers: int
    last_at: float
    warnings: int
    failure: str | None
    """Why its warning was not delivered the last time it was tried."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        one = self.offence
        return {
            "offence": one.id,
            "customer": self.customer,
            "second": one.second,
            "stage": one.stage.value,
            "opened_at": one.opened_at,
            "last_at": self.last_at,
            "delivered_at": one.delivered_at,
            "closed_at": one.closed_at,
            "calls": self.calls,
            "numbers": self.numbers,
            "warnings": self.warnings,
            "failure": self.failure,
        }


class NumberSeen(NamedTuple):
    """A number of an offence."""

    number: str
    first_at: float
    last_at: float
    calls: int


class Event(NamedTuple):
    """Something that happened to a customer, and by whom."""

    at: float
    customer: str
    offence: int | None
    what: str
    who: str
    why: str


class Details(NamedTuple):
    """An offence with its evidence."""

    case: Case
    numbers: tuple[NumberSeen, ...]
    evidence: tuple[dict[str, Any], ...]
    events: tuple[Event, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, as they stand in a message."""
        return {
            **self.case.as_json(),
            "numbers_used": [number._asdict() for number in self.numbers],
            "evidence": list(self.evidence),
            "events": [event._asdict() for event in self.events],
        }


_CASE: Final = (
    "SELECT o.id, o.second, o.stage, o.opened_at, o.delivered_at, o.closed_at, "
    "o.customer, o.calls, o.numbers, o.last_at, "
    "(SELECT count(*) FROM offence AS w WHERE w.customer = o.customer AND w.delivered_at IS NOT NULL), "
    "(SELECT m.failure FROM message AS m WHERE m.offence = o.id AND m.kind = 'warning' AND m.done_at IS NULL) "
    "FROM offence AS o "
)


def _case(row: tuple[Any, ...]) -> Case:
    return Case(offence_of(row), *row[6:])


def cases(connection: sqlite3.Connection, customer: str | None = None, *, open_only: bool = False) -> list[Case]:
    """Offences, the newest first."""
    rows = connection.execute(
        f"{_CASE} WHERE (:customer IS NULL OR o.customer = :customer) AND (NOT :open OR o.closed_at IS NULL) "
        "ORDER BY o.id DESC",
        {"customer": customer, "open": open_only},
    )
    return [_case(row) for row in rows.fetchall()]


def details(connection: sqlite3.Connection, offence: int) -> Details | None:
    """One offence, None where there never was such."""
    row = connection.execute(f"{_CASE} WHERE o.id = ?", (offence,)).fetchone()
    if row is None:
        return None
    numbers = connection.execute(
        "SELECT number, first_at, last_at, calls FROM number WHERE offence = ? ORDER BY first_at, number LIMIT ?",
        (offence, MAX_NUMBERS_SHOWN),
    ).fetchall()
    bodies = connection.execute("SELECT body FROM evidence WHERE offence = ? ORDER BY at, rowid", (offence,)).fetchall()
    happened = connection.execute(
        "SELECT at, customer, offence, what, who, why FROM event WHERE offence = ? ORDER BY id", (offence,)
    ).fetchall()
    return Details(
        _case(row),
        tuple(NumberSeen(*number) for number in numbers),
        tuple(json.loads(body) for (body,) in bodies),
        tuple(Event(*event) for event in happened),
    )


def warnings(connection: sqlite3.Connection, customer: str) -> int:
    """How many warnings were ever delivered to a customer."""
    query = "SELECT count(*) FROM offence WHERE customer = ? AND delivered_at IS NOT NULL"
    return int(connection.execute(query, (customer,)).fetchone()[0])


def standing_history(connection: sqlite3.Connection, customer: str) -> list[Said]:
    """Everything that was said of a customer's standing, the oldest first."""
    query = (
        "SELECT uid, customer, state, stamp, at, who, why, offence FROM standing WHERE customer = ? ORDER BY stamp, uid"
    )
    return [Said(*row) for row in connection.execute(query, (customer,)).fetchall()]


_DECIDED: Final = ("suspended", "terminated", "reinstated", "dismissed")


def decisions(connection: sqlite3.Connection, since: float = 0.0) -> list[Event]:
    """What was decided of customers after a time (POSIX seconds), the oldest first; of removed ones, too."""
    rows = connection.execute(
        "SELECT at, customer, offence, what, who, why FROM event WHERE at > ? AND what IN (?, ?, ?, ?) "
        "UNION ALL SELECT at, customer, offence, state, who, why FROM standing JOIN ahead USING (uid) WHERE at > ? "
        "ORDER BY at",
        (since, *_DECIDED, since),
    )
    return [Event(*row) for row in rows.fetchall()]


def standings(connection: sqlite3.Connection) -> list[Standing]:
    """Everybody against whom something stands now."""
    from_file = connection.execute(
        "SELECT customer, state, at, who, why FROM (SELECT *, row_number() OVER "
        "(PARTITION BY customer ORDER BY stamp DESC, uid DESC) AS place FROM standing) "
        "WHERE place = 1 AND state <> ? ORDER BY customer",
        (REINSTATED,),
    )
    return [Standing(row[0], CustomerState(row[1]), *row[2:]) for row in from_file.fetchall()]


def observed(connection: sqlite3.Connection, customer: str | None = None) -> list[tuple[str, NumberSeen]]:
    """Customers and numbers of mode observe, which never counted."""
    rows = connection.execute(
        "SELECT customer, number, first_at, last_at, calls FROM observed "
        "WHERE :customer IS NULL OR customer = :customer ORDER BY customer, first_at, number LIMIT :most",
        {"customer": customer, "most": MAX_NUMBERS_SHOWN},
    )
    return [(row[0], NumberSeen(*row[1:])) for row in rows.fetchall()]


def undecided(connection: sqlite3.Connection) -> list[Case]:
    """Offences that wait for a person: proposals, and warnings that have not arrived."""
    rows = connection.execute(
        f"{_CASE} WHERE o.closed_at IS NULL AND o.stage IN (?, ?) ORDER BY o.id",
        (Stage.PROPOSED.value, Stage.OPEN.value),
    )
    return [_case(row) for row in rows.fetchall()]
