"""What changes the accounts of customers, as values that can be kept, sent to other hosts, and done there again.

A host on its own does an act at once (`submit`). In a fleet acts get one order for all hosts, and each host does
them in that order: so all have the same accounts, down to the numbers of offences. A standing alone holds at
once where it was said; what follows from it for the accounts comes with its place in the order.
"""

from __future__ import annotations

import json
import math
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from shaken_plugin.conduct.accounts import (
    Said,
    Unauthorised,
    add_event,
    add_evidence,
    add_observed,
    add_offence,
    add_standing,
    customer_of,
    last_said,
    next_offence,
    read_account,
    window_of,
    write_offences,
    write_over,
    write_warned,
)
from shaken_plugin.conduct.message import Kind
from shaken_plugin.core.offences import Finding, OffenceRules, Stage, judge
from shaken_plugin.core.records import CustomerState
from shaken_plugin.errors import StoreError
from shaken_plugin.stores.standing import REINSTATED
from shaken_plugin.stores.statetables import after

VERSION: Final = 1
"""Version of the acts; a host that does not know one waits for its upgrade rather than count otherwise than others."""

AUTOMATIC: Final = "offences"
"""Who suspends a customer where the settings say that no person is needed."""

WEBHOOK: Final = "webhook"
"""Who delivers a warning where no person did."""

_STATES: Final = frozenset({CustomerState.SUSPENDED.value, CustomerState.TERMINATED.value, REINSTATED})

Act = Mapping[str, Any]
"""``do`` says which, see `_DOES`; the rest are its values, all of which JSON knows."""

Draw = Callable[[], str]
"""Gives ids for messages and standings: at random, or the same on every host that does the same act."""


class Outcome(NamedTuple):
    """What an act led to: ids of offences."""

    opened: tuple[int, ...] = ()
    suspended: tuple[str, ...] = ()
    """Customers who were suspended by it, without a person."""
    refused: bool = False
    """Its calls were read from a place of the ledger from which others have been counted meanwhile."""


def fleet_of(connection: sqlite3.Connection) -> str | None:
    """The id of the fleet that the file is part of; None on a host of its own."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'fleet'").fetchone()
    return None if row is None else str(row[0])


def submit(connection: sqlite3.Connection, act: Act, at: float) -> Outcome:
    """Do an act, or in a fleet have it sent to where all acts get their order; within a transaction.

    Args:
        connection: to the state file.
        act: what.
        at: POSIX seconds.
    """
    if fleet_of(connection) is None:
        return perform(connection, act, draw_any)
    enqueue(connection, act, at)
    if act["do"] == "standing":
        said = said_of(act)
        add_standing(connection, said)
        connection.execute("INSERT OR IGNORE INTO ahead VALUES (?)", (said.uid,))
    return Outcome()


def enqueue(connection: sqlite3.Connection, act: Act, at: float) -> None:
    """Put an act among those that are to be published."""
    text = json.dumps({"v": VERSION, **act}, separators=(",", ":"))
    connection.execute("INSERT INTO outbox (uid, at, body) VALUES (?, ?, ?)", (draw_any(), at, text))


def draw_any() -> str:
    """An id that is nobody else's."""
    return str(uuid.uuid4())


def perform(connection: sqlite3.Connection, act: Act, draw: Draw) -> Outcome:
    """Do an act; within a transaction.

    Raises:
        StoreError: it is of a newer release.
        ValueError, TypeError, LookupError, sqlite3.Error: it is none.
    """
    if act.get("v", VERSION) != VERSION or act["do"] not in _DOES:
        raise StoreError("a newer release runs in the fleet, and says what this one does not know; upgrade this host")
    return _DOES[act["do"]](connection, act, draw)


# --- Calls ----------------------------------------------------------------------------------------


def _calls(connection: sqlite3.Connection, act: Act, draw: Draw) -> Outcome:
    ledger = str(act["ledger"])
    row = connection.execute("SELECT place FROM mark WHERE ledger = ?", (ledger,)).fetchone()
    if row is not None and row[0] != act["since"]:
        return Outcome(refused=True)
    connection.execute("INSERT OR REPLACE INTO mark VALUES (?, ?)", (ledger, str(act["until"])))
    return judge_calls(connection, act, draw)


def judge_calls(connection: sqlite3.Connection, act: Act, draw: Draw) -> Outcome:
    """Judge the calls of an act, in their order."""
    rules = OffenceRules(float(act["grace"]), automatic=bool(act["automatic"]))
    opened: list[int] = []
    suspended: list[str] = []
    for call in (Unauthorised(*values) for values in act["calls"]):
        if call.observed:
            add_observed(connection, call)
        elif (found := _judge(connection, call, rules, act, draw)) is not None:
            opened.append(found[0])
            suspended += [call.customer] if found[1] else []
    return Outcome(tuple(opened), tuple(suspended))


def _judge(
    connection: sqlite3.Connection, call: Unauthorised, rules: OffenceRules, act: Act, draw: Draw
) -> tuple[int, bool] | None:
    """The offence that the call opens and whether it suspends; None where it opens none."""
    now = float(act["now"])
    call = call._replace(at=min(call.at, now))
    account, window = read_account(connection, call.customer), window_of(connection, call)
    judged = judge(account, window, call.at, rules, next_offence(connection))
    suspends = judged.account.suspended and not account.suspended
    if judged.finding is Finding.OPENED:
        offence = judged.account.open[-1]
        add_offence(connection, call.customer, offence)
        what = "second offence" if offence.second else "first offence"
        add_event(connection, call.customer, offence.id, now, what, AUTOMATIC, f"call {call.call}")
        due_at = now + float(act["gather"]) if offence.stage is Stage.OPEN else now
        _say(connection, call.customer, offence.id, offence.stage, now, (draw(), due_at))
    if suspends:
        why = f"second offence {judged.offence} after a warning, with number {call.number}"
        last = last_said(connection, call.customer, counted=True)
        stamp = after(last and last.stamp, now)
        said = Said(draw(), call.customer, "suspended", stamp, now, AUTOMATIC, why, judged.offence)
        add_standing(connection, said)
        connection.execute("DELETE FROM ahead WHERE uid = ?", (said.uid,))
    if judged.offence is not None:
        covered = window if window is not None and window.covers(call.at) else None
        add_evidence(connection, judged.offence, call, covered)
    return None if judged.finding is not Finding.OPENED or judged.offence is None else (judged.offence, suspends)


def _say(
    connection: sqlite3.Connection, customer: str, offence: int, stage: Stage, now: float, message: tuple[str, float]
) -> None:
    """Put the message about a new offence, by its id and when it is due, among those that wait."""
    kind = {Stage.OPEN: Kind.WARNING, Stage.PROPOSED: Kind.PROPOSED, Stage.SUSPENDED: Kind.SUSPENDED}[stage]
    if stage is not Stage.OPEN:
        what = "suspension proposed" if stage is Stage.PROPOSED else "suspended"
        add_event(connection, customer, offence, now, what, AUTOMATIC, "a second offence after a warning")
    identifier, due_at = message
    connection.execute(
        "INSERT INTO message (id, offence, kind, due_at) VALUES (?, ?, ?, ?)", (identifier, offence, kind.value, due_at)
    )


# --- Decisions ------------------------------------------------------------------------------------


def standing_act(said: Said) -> Act:
    """A customer is suspended, terminated or reinstated."""
    return {"do": "standing", "said": list(said)}


def said_of(act: Act) -> Said:
    """What a standing act says.

    Raises:
        ValueError, TypeError, LookupError: nothing that could stand in the file.
    """
    said = Said(*act["said"])
    texts = (said.uid, said.customer, said.state, said.who, said.why)
    if not all(isinstance(text, str) for text in texts) or said.state not in _STATES:
        raise ValueError("no standing")
    if not (math.isfinite(said.stamp) and math.isfinite(said.at) and isinstance(said.offence, int | None)):
        raise ValueError("no time, or no offence")
    return said


def _standing(connection: sqlite3.Connection, act: Act, _draw: Draw) -> Outcome:
    said = said_of(act)
    counted = "SELECT 1 FROM standing WHERE uid = ? AND uid NOT IN (SELECT uid FROM ahead)"
    if connection.execute(counted, (said.uid,)).fetchone():
        return Outcome()  # it has its place already
    account, last = read_account(connection, said.customer), last_said(connection, said.customer, counted=True)
    overruled = last is not None and (last.stamp, last.uid) > (said.stamp, said.uid)
    if not overruled and said.state == REINSTATED:
        settled = account.reinstate(said.at)
        write_offences(connection, account, settled, said.at, Stage.SETTLED)
        write_over(connection, account, settled, said.at)
    elif not overruled:
        write_offences(connection, account, account.suspend(), said.at)
    add_standing(connection, said)
    connection.execute("DELETE FROM ahead WHERE uid = ?", (said.uid,))
    about: tuple[int | None, ...] = (said.offence,)
    if said.state == REINSTATED and not overruled and account.open:
        about = tuple(offence.id for offence in account.open)
    for offence in about:
        add_event(connection, said.customer, offence, said.at, said.state, said.who, said.why)
    return Outcome()


def _delivered(connection: sqlite3.Connection, act: Act, _draw: Draw) -> Outcome:
    """Somebody told the customer."""
    offence, at = int(act["offence"]), float(act["at"])
    if write_warned(connection, offence, at, str(act["who"]), str(act["why"])):
        connection.execute("UPDATE message SET done_at = ? WHERE offence = ? AND done_at IS NULL", (at, offence))
    return Outcome()


def _dismissed(connection: sqlite3.Connection, act: Act, _draw: Draw) -> Outcome:
    """A person finds that an offence was none."""
    offence, at = int(act["offence"]), float(act["at"])
    customer = customer_of(connection, offence)
    account = read_account(connection, customer or "")
    try:
        left = account.dismiss(offence, at)
    except ValueError:
        return Outcome()  # whoever decided it was told why; in a fleet another decision came first
    write_offences(connection, account, left, at, Stage.DISMISSED)
    write_over(connection, account, left, at)
    add_event(connection, str(customer), offence, at, "dismissed", str(act["who"]), str(act["why"]))
    return Outcome()


def _told(connection: sqlite3.Connection, act: Act, _draw: Draw) -> Outcome:
    """The webhook took a message. A warning counts as delivered from then on."""
    identifier, at = str(act["message"]), float(act["at"])
    row = connection.execute("SELECT offence, kind FROM message WHERE id = ?", (identifier,)).fetchone()
    if row is None:
        return Outcome()
    connection.execute("UPDATE message SET done_at = ?, failure = NULL WHERE id = ?", (at, identifier))
    if row[1] == Kind.WARNING.value:
        write_warned(connection, row[0], at, WEBHOOK, f"message {identifier}")
    return Outcome()


_DOES: Final[Mapping[str, Callable[[sqlite3.Connection, Act, Draw], Outcome]]] = {
    "calls": _calls,
    "standing": _standing,
    "delivered": _delivered,
    "dismissed": _dismissed,
    "told": _told,
}
