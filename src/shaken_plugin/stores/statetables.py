"""The tables of the state file, and how those of an older release become these."""

from __future__ import annotations

import sqlite3
from typing import Final

from shaken_plugin.ports import Author

SCHEMA_VERSION: Final = 2
"""Version of these tables; a file with a newer one is refused unless it says that this release may read it."""

_STANDING: Final = (
    # Of a customer the greatest (stamp, uid) holds, on every host of a fleet; everything else that was said stays.
    # The stamp is the time at which it was said, or just after what was known to have been said before.
    """CREATE TABLE standing (
        uid TEXT PRIMARY KEY, customer TEXT NOT NULL, state TEXT NOT NULL, stamp REAL NOT NULL,
        at REAL NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, offence INTEGER
    )""",
    "CREATE INDEX standing_of ON standing (customer, stamp, uid)",
    """CREATE TRIGGER standing_stays BEFORE UPDATE ON standing
        BEGIN SELECT RAISE(ABORT, 'what was said of a customer is kept'); END""",
    """CREATE TRIGGER standing_is_kept BEFORE DELETE ON standing
        BEGIN SELECT RAISE(ABORT, 'what was said of a customer is kept'); END""",
)

_FLEET: Final = (
    # What this host has to say to the others, in its order; kept for a while, should Redis lose it.
    """CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL,
        published INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX outbox_waits ON outbox (seq) WHERE NOT published",
    # Standings that hold here already, and have no place yet in the order that all hosts count in.
    "CREATE TABLE ahead (uid TEXT PRIMARY KEY) WITHOUT ROWID",
    # How much of each host's outbox is in here.
    "CREATE TABLE source (id TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
    # How far each ledger was read.
    "CREATE TABLE mark (ledger TEXT PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID",
)

_TABLES: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    *_STANDING,
    *_FLEET,
    """CREATE TABLE offence (
        id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, second INTEGER NOT NULL, stage TEXT NOT NULL,
        opened_at REAL NOT NULL, delivered_at REAL, closed_at REAL,
        calls INTEGER NOT NULL DEFAULT 0, numbers INTEGER NOT NULL DEFAULT 0, last_at REAL NOT NULL
    )""",
    "CREATE INDEX offence_of ON offence (customer, id)",
    # A number's calls within an offence. The window begins anew where its 24 hours are over.
    """CREATE TABLE number (
        offence INTEGER NOT NULL REFERENCES offence (id), number TEXT NOT NULL, customer TEXT NOT NULL,
        begins REAL NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY (offence, number)
    ) WITHOUT ROWID""",
    "CREATE INDEX number_of ON number (customer, number)",
    """CREATE TABLE evidence (
        offence INTEGER NOT NULL REFERENCES offence (id), at REAL NOT NULL, call TEXT NOT NULL, body TEXT NOT NULL
    )""",
    "CREATE INDEX evidence_of ON evidence (offence)",
    """CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, offence INTEGER, at REAL NOT NULL,
        what TEXT NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL
    )""",
    "CREATE INDEX event_of ON event (offence)",
    """CREATE TABLE message (
        id TEXT PRIMARY KEY, offence INTEGER NOT NULL REFERENCES offence (id), kind TEXT NOT NULL,
        due_at REAL NOT NULL, body BLOB, tries INTEGER NOT NULL DEFAULT 0, failure TEXT, done_at REAL
    ) WITHOUT ROWID""",
    "CREATE INDEX message_due ON message (due_at) WHERE done_at IS NULL",
    """CREATE TABLE observed (
        customer TEXT NOT NULL, number TEXT NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL,
        calls INTEGER NOT NULL, PRIMARY KEY (customer, number)
    ) WITHOUT ROWID""",
)


def make_tables(connection: sqlite3.Connection) -> None:
    """The tables of this release, with nothing in them; within a transaction."""
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('reads', ?)", (SCHEMA_VERSION,))


def after(known: float | None, at: float) -> float:
    """The stamp of what is said at a time (POSIX seconds) by somebody who knows of another stamp."""
    return at if known is None else max(at, known + 1e-6)


def from_v1(connection: sqlite3.Connection, _author: Author) -> None:
    """Schema 1 knew one host alone: what was said last, by its own number, held."""
    rows = connection.execute("SELECT customer, state, at, who, why, offence, id FROM standing ORDER BY id").fetchall()
    for trigger in ("standing_stays", "standing_is_kept"):
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute("DROP TABLE standing")
    for statement in (*_STANDING, *_FLEET):
        connection.execute(statement)
    (name,) = connection.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
    stamps: dict[str, float] = {}
    for customer, state, at, who, why, offence, number in rows:
        # A clock may have been set back since: the order stays what it was.
        stamps[customer] = stamp = after(stamps.get(customer), at)
        connection.execute(
            "INSERT INTO standing VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (f"{name}:{number}", customer, state, stamp, at, who, why, offence),
        )
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('reads', ?)", (SCHEMA_VERSION,))
