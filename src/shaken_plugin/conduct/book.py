"""The accounts of all customers: what calls do to them, and what is to be told about it.

Every change is one transaction, with the mark up to which the ledger was read: so killed at any moment,
or read twice, a call counts once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from shaken_plugin.conduct import view
from shaken_plugin.conduct.accounts import Unauthorised
from shaken_plugin.conduct.acts import Draw, Outcome, draw_any, fleet_of, judge_calls, submit
from shaken_plugin.conduct.message import Kind, Message, body_of
from shaken_plugin.conduct.state import State
from shaken_plugin.core.offences import OffenceRules
from shaken_plugin.records.place import Place


class Calls(NamedTuple):
    """What was read of the ledger between two places, in its order."""

    since: Place
    until: Place
    calls: Sequence[Unauthorised]


class Book:
    """Accounts in the state file.

    Args:
        state: the file.
        draw: gives ids for messages.
    """

    def __init__(self, state: State, draw: Draw = draw_any) -> None:
        self._state = state
        self._draw = draw

    # --- Calls --------------------------------------------------------------------------------

    def mark(self) -> Place:
        """How far the ledger was read."""
        with self._state.reading() as connection:
            return _mark(connection)

    def counted(self) -> Place:
        """How far its calls count: in a fleet those that have their place in the order of all hosts."""
        with self._state.reading() as connection:
            if fleet_of(connection) is None:
                return _mark(connection)
            row = connection.execute(
                "SELECT place FROM mark WHERE ledger = (SELECT value FROM meta WHERE key = 'ledger')"
            ).fetchone()
            return Place() if row is None else _place(row[0])

    def take(self, read: Calls, rules: OffenceRules, now: float, gather: float = 0.0) -> Outcome | None:
        """Judge calls, and move the mark.

        Args:
            read: the calls, and between which places they were read.
            rules: the operator's choices.
            now: POSIX seconds. No call is younger than that.
            gather: seconds after an offence is found until its warning is sent, so that it has more to show.

        In a fleet nothing is judged here: the calls wait for their place in the order of all hosts.

        Returns:
            What they led to; None where somebody else has moved the mark: nothing was done, read on from theirs.

        Raises:
            StoreUnavailable: it cannot be written now; nothing was done.
        """
        act = {
            "do": "calls",
            "since": _text(read.since),
            "until": _text(read.until),
            "now": now,
            "grace": rules.grace,
            "automatic": rules.automatic,
            "gather": gather,
            "calls": read.calls,
        }
        with self._state.changing() as connection:
            if _mark(connection) != read.since:
                return None
            if fleet_of(connection) is None:
                outcome = judge_calls(connection, act, self._draw)
            else:
                (ledger,) = connection.execute("SELECT value FROM meta WHERE key = 'ledger'").fetchone()
                outcome = submit(connection, act | {"ledger": ledger}, now)
            _move(connection, read.until)
        return outcome

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
            submit(connection, {"do": "told", "message": message.id, "at": at}, at)

    def later(self, message: Message, again_at: float) -> None:
        """A message is being sent by another host of the fleet.

        Raises:
            StoreUnavailable: it cannot be written now.
        """
        with self._state.changing() as connection:
            connection.execute("UPDATE message SET due_at = ? WHERE id = ?", (again_at, message.id))

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
    return Place() if row is None else _place(row[0])


def _place(text: str) -> Place:
    seq, _, identifier = text.partition(" ")
    return Place(int(seq), identifier)


def _text(place: Place) -> str:
    return f"{place.seq} {place.id}"


def _move(connection: sqlite3.Connection, mark: Place) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (_text(mark),))
