"""The accounts of all customers: what calls do to them, and what is to be told about it.

Every change is one transaction, with the mark up to which the ledger was read: so killed at any moment,
or read twice, a call counts once.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from shaken_plugin.conduct import view
from shaken_plugin.conduct.accounts import (
    Unauthorised,
    add_event,
    add_evidence,
    add_observed,
    add_offence,
    add_standing,
    next_offence,
    read_account,
    window_of,
    write_warned,
)
from shaken_plugin.conduct.message import Kind, Message, body_of
from shaken_plugin.conduct.state import State
from shaken_plugin.core.offences import Finding, OffenceRules, Stage, judge
from shaken_plugin.records.place import Place

AUTOMATIC: Final = "offences"
"""Who suspends a customer where the settings say that no person is needed."""

WEBHOOK: Final = "webhook"
"""Who delivers a warning where no person did."""


class Calls(NamedTuple):
    """What was read of the ledger between two places, in its order."""

    since: Place
    until: Place
    calls: Sequence[Unauthorised]


class Outcome(NamedTuple):
    """What calls led to: ids of offences."""

    opened: tuple[int, ...] = ()
    suspended: tuple[str, ...] = ()
    """Customers who were suspended by it."""


class Book:
    """Accounts in the state file.

    Args:
        state: the file.
        draw: gives ids for messages.
    """

    def __init__(self, state: State, draw: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self._state = state
        self._draw = draw

    # --- Calls --------------------------------------------------------------------------------

    def mark(self) -> Place:
        """How far the ledger was read."""
        with self._state.reading() as connection:
            return _mark(connection)

    def take(self, read: Calls, rules: OffenceRules, now: float, gather: float = 0.0) -> Outcome | None:
        """Judge calls, and move the mark.

        Args:
            read: the calls, and between which places they were read.
            rules: the operator's choices.
            now: POSIX seconds. No call is younger than that.
            gather: seconds after an offence is found until its warning is sent, so that it has more to show.

        Returns:
            None where somebody else has moved the mark: nothing was done, read on from theirs.

        Raises:
            StoreUnavailable: it cannot be written now; nothing was done.
        """
        opened: list[int] = []
        suspended: list[str] = []
        with self._state.changing() as connection:
            if _mark(connection) != read.since:
                return None
            for call in read.calls:
                if call.observed:
                    add_observed(connection, call)
                elif (found := self._judge(connection, call, rules, now, gather)) is not None:
                    opened.append(found[0])
                    suspended += [call.customer] if found[1] else []
            _move(connection, read.until)
        return Outcome(tuple(opened), tuple(suspended))

    def _judge(
        self, connection: sqlite3.Connection, call: Unauthorised, rules: OffenceRules, now: float, gather: float
    ) -> tuple[int, bool] | None:
        """The offence that the call opens and whether it suspends; None where it opens none."""
        call = call._replace(at=min(call.at, now))
        account, window = read_account(connection, call.customer), window_of(connection, call)
        judged = judge(account, window, call.at, rules, next_offence(connection))
        suspends = judged.account.suspended and not account.suspended
        if judged.finding is Finding.OPENED:
            offence = judged.account.open[-1]
            add_offence(connection, call.customer, offence)
            what = "second offence" if offence.second else "first offence"
            add_event(connection, call.customer, offence.id, now, what, AUTOMATIC, f"call {call.call}")
            self._say(connection, call.customer, offence.id, offence.stage, now, gather)
        if suspends:
            why = f"second offence {judged.offence} after a warning, with number {call.number}"
            add_standing(connection, call.customer, "suspended", now, AUTOMATIC, why, judged.offence)
        if judged.offence is not None:
            covered = window if window is not None and window.covers(call.at) else None
            add_evidence(connection, judged.offence, call, covered)
        return None if judged.finding is not Finding.OPENED or judged.offence is None else (judged.offence, suspends)

    def _say(
        self, connection: sqlite3.Connection, customer: str, offence: int, stage: Stage, now: float, gather: float
    ) -> None:
        """Put the message about a new offence among those that wait."""
        kind = {Stage.OPEN: Kind.WARNING, Stage.PROPOSED: Kind.PROPOSED, Stage.SUSPENDED: Kind.SUSPENDED}[stage]
        if stage is not Stage.OPEN:
            what = "suspension proposed" if stage is Stage.PROPOSED else "suspended"
            add_event(connection, customer, offence, now, what, AUTOMATIC, "a second offence after a warning")
        connection.execute(
            "INSERT INTO message (id, offence, kind, due_at) VALUES (?, ?, ?, ?)",
            (self._draw(), offence, kind.value, now + gather if kind is Kind.WARNING else now),
        )

    # --- Messages -----------------------------------------------------------------------------

    def due(self, now: float, most: int) -> list[Message]:
        """Messages to be sent now, each with the body that it will always have.

        Raises:
            StoreUnavailable: it cannot be written now.
        """
        query = "SELECT 1 FROM message WHERE done_at IS NULL AND due_at <= ? LIMIT 1"
        with self._state.reading() as connection:
            if connection.execute(query, (now,)).fetchone() is None:
                return []
        with self._state.changing() as connection:
            rows = connection.execute(
                "SELECT id, offence, kind, body, tries, failure FROM message WHERE done_at IS NULL AND due_at <= ? "
                "ORDER BY due_at, id LIMIT ?",
                (now, most),
            ).fetchall()
            return [self._filled(connection, row, now) for row in rows]

    def _filled(
        self, connection: sqlite3.Connection, row: tuple[str, int, str, bytes | None, int, str], now: float
    ) -> Message:
        identifier, offence, kind, body, tries, failure = row
        if body is None:  # kept from here on: what came later is for the next message
            found = view.details(connection, offence)
            assert found is not None
            body = body_of(identifier, Kind(kind), now, found.as_json())
            connection.execute("UPDATE message SET body = ? WHERE id = ?", (body, identifier))
        return Message(identifier, offence, Kind(kind), body, tries, failure)

    def sent(self, message: Message, at: float) -> None:
        """A message has arrived. A warning counts as delivered from now on.

        Raises:
            StoreUnavailable: it cannot be written now; the message will be sent again.
        """
        with self._state.changing() as connection:
            connection.execute("UPDATE message SET done_at = ?, failure = NULL WHERE id = ?", (at, message.id))
            if message.kind is Kind.WARNING:
                write_warned(connection, message.offence, at, WEBHOOK, f"message {message.id}")

    def failed(self, message: Message, why: str, again_at: float) -> None:
        """A message has not arrived, or nobody knows.

        Raises:
            StoreUnavailable: it cannot be written now; it is sent again all the same.
        """
        with self._state.changing() as connection:
            connection.execute(
                "UPDATE message SET tries = tries + 1, failure = ?, due_at = ? WHERE id = ?",
                (why, again_at, message.id),
            )

    def hurry(self, now: float) -> None:
        """Try everything that waits at once: the settings or the network may be others now."""
        with self._state.changing() as connection:
            connection.execute(
                "UPDATE message SET due_at = ? WHERE done_at IS NULL AND due_at > ? AND tries > 0", (now, now)
            )


def _mark(connection: sqlite3.Connection) -> Place:
    row = connection.execute("SELECT value FROM meta WHERE key = 'mark'").fetchone()
    if row is None:
        return Place()
    seq, _, identifier = str(row[0]).partition(" ")
    return Place(int(seq), identifier)


def _move(connection: sqlite3.Connection, mark: Place) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (f"{mark.seq} {mark.id}",))
