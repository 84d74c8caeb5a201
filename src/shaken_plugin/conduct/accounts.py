"""Accounts of customers as rows of the state file, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from math import inf
from typing import Any, Final, NamedTuple

from shaken_plugin.core.offences import Account, Offence, Stage, Window
from shaken_plugin.stores.standing import REINSTATED

MAX_CALLS: Final = 100
"""Calls of an offence that are kept as evidence; of all others it is known how many they are."""
MAX_NUMBERS: Final = 100_000
"""Numbers of an offence that are told apart; further ones are counted as calls alone."""
MAX_OBSERVED: Final = 1_000
"""Numbers of a customer that mode observe lists."""


class Unauthorised(NamedTuple):
    """One call with a caller ID that its customer had no right to.

    ``call`` names its record in the ledger, ``body`` is what is kept of it as evidence.
    """

    call: str
    customer: str
    number: str
    at: float
    body: Mapping[str, Any]
    observed: bool = False
    """Mode observe: it is listed and never counts."""


_OFFENCE: Final = "id, second, stage, opened_at, delivered_at, closed_at"


def offence_of(row: tuple[Any, ...]) -> Offence:
    """An offence from its columns.

    Raises:
        ValueError: they are not what this release writes.
    """
    return Offence(row[0], bool(row[1]), Stage(row[2]), row[3], row[4], row[5])


def read_account(connection: sqlite3.Connection, customer: str) -> Account:
    """A customer's account.

    In a fleet what counts is what all hosts have in the same order: not yet a standing that is `ahead` of it.
    """
    first = second = None
    query = f"SELECT {_OFFENCE} FROM offence WHERE customer = ? AND closed_at IS NULL ORDER BY id"  # noqa: S608  # constant
    for offence in map(offence_of, connection.execute(query, (customer,)).fetchall()):
        first, second = (first, offence) if offence.second else (offence, second)
    closed = connection.execute(
        "SELECT id, closed_at FROM offence WHERE customer = ? AND closed_at IS NOT NULL "
        "ORDER BY closed_at DESC, id DESC LIMIT 1",
        (customer,),
    ).fetchone()
    said = connection.execute(
        "SELECT state, at FROM standing WHERE customer = ? AND uid NOT IN (SELECT uid FROM ahead) ORDER BY stamp, uid",
        (customer,),
    ).fetchall()
    settled, settled_at = closed or (None, -inf)
    settled_at = max([settled_at, *(at for state, at in said if state == REINSTATED)])
    return Account(first, second, bool(said) and said[-1][0] != REINSTATED, settled, settled_at)


def write_offences(
    connection: sqlite3.Connection, before: Account, after: Account, at: float, closed: Stage = Stage.SETTLED
) -> None:
    """Write what changed of the offences that were there.

    Args:
        connection: in a transaction.
        before: the account as it was read.
        after: as it is now.
        at: POSIX seconds, when that was decided.
        closed: the stage of what the account has no longer.
    """
    for old in before.open:
        new = after.find(old.id)
        if new is None:
            connection.execute("UPDATE offence SET stage = ?, closed_at = ? WHERE id = ?", (closed.value, at, old.id))
        elif new != old:
            connection.execute(
                "UPDATE offence SET stage = ?, delivered_at = ? WHERE id = ?",
                (new.stage.value, new.delivered_at, new.id),
            )


def next_offence(connection: sqlite3.Connection) -> int:
    """The id of the next offence; none comes twice."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'offence'").fetchone()
    return int(row[0]) + 1 if row else 1


def add_offence(connection: sqlite3.Connection, customer: str, offence: Offence) -> None:
    """Write a new offence."""
    connection.execute(
        "INSERT INTO offence (id, customer, second, stage, opened_at, last_at) VALUES (?, ?, ?, ?, ?, ?)",
        (offence.id, customer, offence.second, offence.stage.value, offence.opened_at, offence.opened_at),
    )


def window_of(connection: sqlite3.Connection, call: Unauthorised) -> Window | None:
    """The window of the call's customer and number that is nearest to it."""
    row = connection.execute(
        "SELECT offence, begins FROM number WHERE customer = ? AND number = ? "
        "ORDER BY abs(begins - ?), offence LIMIT 1",
        (call.customer, call.number, call.at),
    ).fetchone()
    return None if row is None else Window(*row)


def add_evidence(connection: sqlite3.Connection, offence: int, call: Unauthorised, window: Window | None) -> None:
    """Write that a call belongs to an offence.

    Args:
        connection: in a transaction.
        offence: which.
        call: the call.
        window: the one that covered it; without any, the number's begins here.
    """
    calls, numbers = connection.execute("SELECT calls, numbers FROM offence WHERE id = ?", (offence,)).fetchone()
    if calls < MAX_CALLS:
        connection.execute(
            "INSERT INTO evidence (offence, at, call, body) VALUES (?, ?, ?, ?)",
            (offence, call.at, call.call, json.dumps(call.body)),
        )
    renew = {"begins": call.at if window is None else window.begins}
    values = {"offence": offence, "number": call.number, "customer": call.customer, "at": call.at, **renew}
    known = connection.execute(
        "UPDATE number SET calls = calls + 1, begins = :begins, first_at = min(first_at, :at), "
        "last_at = max(last_at, :at) WHERE offence = :offence AND number = :number",
        values,
    ).rowcount
    if not known and numbers < MAX_NUMBERS:
        connection.execute(
            "INSERT INTO number (offence, number, customer, begins, first_at, last_at, calls) "
            "VALUES (:offence, :number, :customer, :begins, :at, :at, 1)",
            values,
        )
        numbers += 1
    connection.execute(
        "UPDATE offence SET calls = calls + 1, numbers = ?, last_at = max(last_at, ?) WHERE id = ?",
        (numbers, call.at, offence),
    )


def add_observed(connection: sqlite3.Connection, call: Unauthorised) -> None:
    """List a call of mode observe, which counts for nothing."""
    values = {"customer": call.customer, "number": call.number, "at": call.at, "most": MAX_OBSERVED}
    known = connection.execute(
        "UPDATE observed SET calls = calls + 1, first_at = min(first_at, :at), last_at = max(last_at, :at) "
        "WHERE customer = :customer AND number = :number",
        values,
    ).rowcount
    if not known:
        connection.execute(
            "INSERT INTO observed SELECT :customer, :number, :at, :at, 1 "
            "WHERE (SELECT count(*) FROM observed WHERE customer = :customer) < :most",
            values,
        )


def add_event(
    connection: sqlite3.Connection, customer: str, offence: int | None, at: float, what: str, who: str, why: str
) -> None:
    """Write into the history that is kept for good."""
    connection.execute(
        "INSERT INTO event (customer, offence, at, what, who, why) VALUES (?, ?, ?, ?, ?, ?)",
        (customer, offence, at, what, who, why),
    )


class Said(NamedTuple):
    """Something that was said of a customer's standing: the row of the file.

    ``state`` is ``suspended``, ``terminated`` or ``reinstated``; of a customer the greatest (``stamp``, ``uid``) holds.
    """

    uid: str
    customer: str
    state: str
    stamp: float
    at: float
    who: str
    why: str
    offence: int | None


def add_standing(connection: sqlite3.Connection, said: Said) -> bool:
    """Write what a customer is under; whether it was not there yet."""
    statement = "INSERT INTO standing VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uid) DO NOTHING"
    return connection.execute(statement, said).rowcount > 0


def last_said(connection: sqlite3.Connection, customer: str, *, counted: bool = False) -> Said | None:
    """What holds of a customer; ``counted``: of what all hosts of the fleet have in the same order."""
    row = connection.execute(
        "SELECT uid, customer, state, stamp, at, who, why, offence FROM standing WHERE customer = ? "
        "AND NOT (? AND uid IN (SELECT uid FROM ahead)) ORDER BY stamp DESC, uid DESC LIMIT 1",
        (customer, counted),
    ).fetchone()
    return None if row is None else Said(*row)


def customer_of(connection: sqlite3.Connection, offence: int) -> str | None:
    """Whose offence it is; None where there is none of this id."""
    row = connection.execute("SELECT customer FROM offence WHERE id = ?", (offence,)).fetchone()
    return None if row is None else str(row[0])


def waits_for_warning(account: Account, offence: int) -> bool:
    """Whether an offence is one whose warning was not delivered yet."""
    return account.first is not None and account.first.id == offence and account.first.stage is Stage.OPEN


def write_warned(connection: sqlite3.Connection, offence: int, at: float, who: str, why: str) -> bool:
    """Write that a warning was delivered; whether one waited for that."""
    customer = customer_of(connection, offence)
    if customer is None or not waits_for_warning(account := read_account(connection, customer), offence):
        return False  # told twice, or dismissed meanwhile
    write_offences(connection, account, account.warned(at), at)
    add_event(connection, customer, offence, at, "warning delivered", who, why)
    return True


def write_over(connection: sqlite3.Connection, before: Account, after: Account, at: float) -> None:
    """Nothing is sent any more about offences that were closed."""
    for offence in before.open:
        if after.find(offence.id) is None:
            connection.execute("UPDATE message SET done_at = ? WHERE offence = ? AND done_at IS NULL", (at, offence.id))
