"""The state file as one host's part of a fleet: what it has to tell, what it was told, and all of it for a new host.

Everything here happens within a transaction of the file. Who talks to Redis is `conduct.replica`.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from shaken_plugin.conduct.accounts import Said
from shaken_plugin.conduct.acts import Draw, Outcome, draw_any, enqueue, perform, standing_act
from shaken_plugin.errors import StoreError
from shaken_plugin.stores.redis.state import Entry

KEPT: Final = 7 * 86_400.0
"""Seconds that published acts stay in the outbox: should Redis lose them, they are published again."""

PIECE: Final = 262_144
"""Characters of a piece of a snapshot, but for one row."""

_SPACE: Final = uuid.UUID("6b0e7a52-3b5e-4a53-9c53-0d5f5a1d9a10")
"""Ids of what an act leads to are made from its own, so that they are the same on every host."""

_COUNTED: Final = ("offence", "number", "evidence", "event", "message", "observed", "source", "mark")
"""Tables that follow from the acts alone: of two hosts at one position they are the same."""

_OURS: Final = frozenset({"body", "tries", "failure"})
"""Columns of a message that are of the host that sends it."""

_NOT_AN_ACT: Final = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)
"""What doing it raises where an entry is damaged; never a file that is locked or a disk that is full."""


class Place(NamedTuple):
    """How far a file is: in which fleet, behind which entry, and that one's uid."""

    fleet: str
    position: int
    last: str


class Waiting(NamedTuple):
    """An act that is to be published."""

    seq: int
    uid: str
    body: str


class Done(NamedTuple):
    """What an entry led to; ``fault`` says what is wrong with one that was passed over, on all hosts alike."""

    outcome: Outcome
    fault: str | None = None


def meta(connection: sqlite3.Connection, key: str) -> str | None:
    """What the file says about itself."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _set(connection: sqlite3.Connection, **values: str | int) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))


def place_of(connection: sqlite3.Connection) -> Place | None:
    """How far the file is; None where it is in no fleet."""
    fleet = meta(connection, "fleet")
    return (
        None if fleet is None else Place(fleet, int(meta(connection, "position") or 0), meta(connection, "last") or "")
    )


def source_of(connection: sqlite3.Connection) -> str:
    """The name of the file's outbox; drawn with it, so that a file made anew is another source."""
    return meta(connection, "source") or ""


# --- What this host has to tell -------------------------------------------------------------------


def waiting(connection: sqlite3.Connection, most: int) -> list[Waiting]:
    """What is to be published next, in order."""
    query = "SELECT seq, uid, body FROM outbox WHERE NOT published ORDER BY seq LIMIT ?"
    return [Waiting(*row) for row in connection.execute(query, (most,)).fetchall()]


def mark_published(connection: sqlite3.Connection, seq: int, now: float) -> None:
    """Everything up to one has been published; what was long ago is let go."""
    connection.execute("UPDATE outbox SET published = 1 WHERE NOT published AND seq <= ?", (seq,))
    connection.execute("DELETE FROM outbox WHERE published AND at < ?", (now - KEPT,))


def publish_again(connection: sqlite3.Connection, now: float) -> int:
    """Put what the fleet does not have among what waits: Redis lost it, or it was said outside of the fleet.

    That is due once the file has begun, joined or been filled anew and caught up.

    Returns:
        How many there are.
    """
    if meta(connection, "again") is None:
        return 0
    row = connection.execute("SELECT seq FROM source WHERE id = ?", (source_of(connection),)).fetchone()
    again = connection.execute(
        "UPDATE outbox SET published = 0 WHERE published AND seq > ?", (row[0] if row else 0,)
    ).rowcount
    mine = {act["said"][0] for act in _acts(connection) if act["do"] == "standing"}
    for said in _ahead(connection):
        if said.uid not in mine:
            enqueue(connection, standing_act(said), now)
            again += 1
    _read_on(connection)
    connection.execute("DELETE FROM meta WHERE key = 'again'")
    return again


def _ahead(connection: sqlite3.Connection) -> list[Said]:
    query = "SELECT standing.* FROM standing JOIN ahead USING (uid) ORDER BY stamp, uid"
    return [Said(*row) for row in connection.execute(query).fetchall()]


def _acts(connection: sqlite3.Connection, behind: int = -1) -> list[dict[str, Any]]:
    """The acts of the outbox that wait, or those behind one."""
    query = "SELECT body FROM outbox WHERE NOT published OR (? >= 0 AND seq > ?) ORDER BY seq"
    return [json.loads(body) for (body,) in connection.execute(query, (behind, behind)).fetchall()]


# --- What it is told ------------------------------------------------------------------------------


def apply(connection: sqlite3.Connection, entry: Entry) -> Done | None:
    """Do the act of the next entry; None where another process of this host has done it.

    Raises:
        StoreError: it is of a newer release; this host waits until it is upgraded.
    """
    here = place_of(connection)
    if here is None or entry.position != here.position + 1:
        return None
    connection.execute("SAVEPOINT act")
    try:
        done = Done(perform(connection, json.loads(entry.body), _draw(entry.uid)))
    except StoreError:
        connection.execute("ROLLBACK TO act")
        connection.execute("RELEASE act")
        raise
    except _NOT_AN_ACT as exc:
        connection.execute("ROLLBACK TO act")
        done = Done(Outcome(), f"entry {entry.position} of {entry.source} is none: {exc!r}")
    connection.execute("RELEASE act")
    connection.execute("INSERT OR REPLACE INTO source VALUES (?, ?)", (entry.source, entry.seq))
    _set(connection, position=entry.position, last=entry.uid)
    if done.outcome.refused and entry.source == source_of(connection):
        _read_on(connection)
    return done


def _draw(uid: str) -> Draw:
    numbers = itertools.count()
    return lambda: str(uuid.uuid5(_SPACE, f"{uid}:{next(numbers)}"))


def _read_on(connection: sqlite3.Connection) -> None:
    """Read the ledger from where the fleet has counted its calls."""
    connection.execute(
        "INSERT OR REPLACE INTO meta SELECT 'mark', place FROM mark WHERE ledger = ?", (meta(connection, "ledger"),)
    )


# --- Joining and leaving ----------------------------------------------------------------------------


def begin(connection: sqlite3.Connection, fleet: str, ledger: str) -> None:
    """The file is the beginning of a fleet, whose snapshot is what `dump` gives of it."""
    _set(connection, fleet=fleet, position=0, last="", ledger=ledger, again=1)
    if not source_of(connection):
        _set(connection, source=draw_any())
    place = meta(connection, "mark")
    if place is not None:
        connection.execute("INSERT OR IGNORE INTO mark VALUES (?, ?)", (ledger, place))


def take_over(connection: sqlite3.Connection, place: Place, ledger: str, pieces: Iterable[bytes]) -> None:
    """Have the accounts be those of a snapshot. Standings stay, beside those of the fleet.

    Raises:
        StoreError: the snapshot is damaged.
    """
    connection.execute("INSERT OR IGNORE INTO ahead SELECT uid FROM standing")
    for table in _COUNTED:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608  # a constant
    connection.execute("DELETE FROM sqlite_sequence WHERE name IN ('offence', 'event')")
    try:
        for piece in pieces:
            _load(connection, json.loads(piece))
    except _NOT_AN_ACT as exc:
        raise StoreError(f"the snapshot of the fleet's state is damaged: {exc!r}") from exc
    connection.execute("DELETE FROM ahead WHERE uid NOT IN (SELECT uid FROM standing)")
    _set(connection, fleet=place.fleet, position=place.position, last=place.last, ledger=ledger, again=1)
    if not source_of(connection):
        _set(connection, source=draw_any())


def leave(connection: sqlite3.Connection) -> bool:
    """Be a host of its own again: what had no place yet in the order of the fleet counts now; whether it was in one."""
    if place_of(connection) is None:
        return False
    row = connection.execute("SELECT seq FROM source WHERE id = ?", (source_of(connection),)).fetchone()
    alone = [*_acts(connection, row[0] if row else 0), *map(standing_act, _ahead(connection))]
    for act in alone:
        perform(connection, act, draw_any)
    _read_on(connection)
    for table in ("outbox", "ahead", "source", "mark"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608  # a constant
    connection.execute("DELETE FROM meta WHERE key IN ('fleet', 'position', 'last', 'ledger', 'source', 'again')")
    return True


# --- Snapshots --------------------------------------------------------------------------------------


def dump(connection: sqlite3.Connection) -> Iterator[bytes]:
    """Everything that follows from the acts, as pieces of JSON."""
    standings = "SELECT * FROM standing WHERE uid NOT IN (SELECT uid FROM ahead) ORDER BY stamp, uid"
    yield from _dump(connection, "standing", standings)
    for table in _COUNTED:
        columns = [column for column in _columns(connection, table) if table != "message" or column not in _OURS]
        yield from _dump(connection, table, f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608  # our own names


def _dump(connection: sqlite3.Connection, table: str, query: str) -> Iterator[bytes]:
    cursor = connection.execute(query)
    columns = [description[0] for description in cursor.description]
    rows: list[str] = []
    size = 0
    for row in cursor:
        rows.append(json.dumps(row, separators=(",", ":")))
        size += len(rows[-1])
        if size > PIECE:
            yield _piece(table, columns, rows)
            rows, size = [], 0
    if rows:
        yield _piece(table, columns, rows)


def _piece(table: str, columns: list[str], rows: list[str]) -> bytes:
    return f'{{"table":{json.dumps(table)},"columns":{json.dumps(columns)},"rows":[{",".join(rows)}]}}'.encode()


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})").fetchall()]


def _load(connection: sqlite3.Connection, piece: dict[str, Any]) -> None:
    """Write the rows of a piece; tables and columns of a newer release are passed over."""
    table, columns = piece["table"], list(piece["columns"])
    if table not in {"standing", *_COUNTED}:
        return
    known = [index for index, column in enumerate(columns) if column in _columns(connection, table)]
    names, marks = ", ".join(columns[index] for index in known), ", ".join("?" for _ in known)
    kept = " ON CONFLICT (uid) DO NOTHING" if table == "standing" else ""
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks}){kept}"  # noqa: S608  # our own names
    connection.executemany(statement, [[row[index] for index in known] for row in piece["rows"]])
    if table == "standing":
        uids = [(row[columns.index("uid")],) for row in piece["rows"]]
        connection.executemany("DELETE FROM ahead WHERE uid = ?", uids)
