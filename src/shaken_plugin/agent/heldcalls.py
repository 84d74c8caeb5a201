"""The calls that run on this host and have a slot, kept in a file, so that an agent that is restarted forgets none."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from shaken_plugin import sqlitefile
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.errors import StoreError

UNSENT: Final = 5.0
"""Seconds for which a call has its slot that a switch will tell the leaving of, and does not: it was answered by the
script, or lost."""
SETUP: Final = 300.0
"""Seconds after which a call has no slot any more whose end nobody promised to tell."""
RINGS_ON: Final = 3_600.0
"""Seconds for which such a call is known, because it takes its slot again where that is promised after all."""
LONGEST: Final = 86_400.0
"""Seconds after which a call gives its slot back that nobody told the end of."""

MAX_CALLS: Final = 1_000_000
"""Calls that are known at one time; further ones are not counted."""

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    customer TEXT NOT NULL, call TEXT NOT NULL, level TEXT NOT NULL, owner TEXT NOT NULL, since REAL NOT NULL,
    ask INTEGER NOT NULL, stage INTEGER NOT NULL, lapsed INTEGER NOT NULL, PRIMARY KEY (call, customer)
) WITHOUT ROWID;
"""


_NOT_OURS: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""What is said of a file that is damaged or has other tables: it is made anew. All else, as of a full disk, passes."""


class Stage(IntEnum):
    """How far a call is."""

    UNSENT = 0
    SENT = 1
    FOLLOWED = 2
    """Its switch tells its end, whenever that is."""


@dataclass(frozen=True, slots=True)
class Held:
    """A call that runs here.

    ``owner`` as in `stores.presence`, ``ask`` the number of its question that was answered last. ``since`` in seconds
    of this host since it was started. ``lapsed``: it has no slot any more, and takes it again if it goes on.
    """

    customer: str
    call: str
    level: str
    owner: str
    since: float
    ask: int = 0
    stage: Stage = Stage.SENT
    lapsed: bool = False

    def is_over(self, now: float) -> bool:
        """Whether its time has run out."""
        return now - self.since >= (_KNOWN if self.lapsed else _SLOT)[self.stage]


_SLOT: Final = (UNSENT, SETUP, LONGEST)
_KNOWN: Final = (SETUP, RINGS_ON, LONGEST)


class HeldCalls:
    """See the module.

    Args:
        file: where they are kept.
        alarms: of the agent.
    """

    def __init__(self, file: Path, alarms: Alarms) -> None:
        self._file = file
        self._alarms = alarms
        self._calls: dict[str, dict[str, Held]] = {}
        """By call and customer: one that comes back by another customer's trunk may have the same key."""
        self._connection: sqlite3.Connection | None = None
        self.has_restored = False
        """Whether it is known what an agent before this one left."""
        self._changed: dict[tuple[str, str], None] | None = None
        """Calls and customers that are to be written together."""
        self._is_written = False
        """Whether the file says what is known here."""
        self.lapsed = 0
        """How many of them are."""
        self.known = 0
        """How many there are."""

    @property
    def slots(self) -> int:
        """How many have one."""
        return self.known - self.lapsed

    def __iter__(self) -> Iterator[Held]:
        """Each, while others may come and go."""
        return iter([held for named in self._calls.values() for held in named.values()])

    def of(self, call: str) -> list[Held]:
        """Those with a key: one, but for a call that came by several customers."""
        return list(self._calls.get(call, {}).values())

    def get(self, customer: str, call: str) -> Held | None:
        """One of them."""
        return self._calls.get(call, {}).get(customer)

    def keep(self, held: Held) -> None:
        """Add one, or change it."""
        self._put(held)
        self._write(held)

    def drop(self, held: Held) -> None:
        """Forget one."""
        named = self._calls.get(held.call, {})
        if named.pop(held.customer, None) is None:
            return
        self.known -= 1
        self.lapsed -= held.lapsed
        if not named:
            del self._calls[held.call]
        self._write(held)

    @contextlib.contextmanager
    def written_together(self) -> Iterator[None]:
        """What changes meanwhile is written at its end, each call once; nothing may be awaited meanwhile."""
        self._changed = {}
        try:
            yield
        finally:
            changed, self._changed = self._changed, None
            if changed and self._connection is not None:
                with self._writing() as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    for call, customer in changed:
                        connection.execute(*self._statement(call, customer))
                    connection.execute("COMMIT")

    def _write(self, held: Held) -> None:
        if self._changed is not None:
            self._changed[held.call, held.customer] = None
        elif self._connection is not None:
            with self._writing() as connection:
                connection.execute(*self._statement(held.call, held.customer))

    def _statement(self, call: str, customer: str) -> tuple[str, tuple[Any, ...]]:
        """What has the file say what is known here of a call."""
        held = self.get(customer, call)
        return _DROP if held is None else _KEEP, (call, customer) if held is None else _row(held)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        assert self._connection is not None
        try:
            yield self._connection
        except sqlite3.Error as exc:
            self._broken(exc)

    @property
    def is_open(self) -> bool:
        """Whether they are kept now."""
        return self._connection is not None

    def open(self) -> list[Held]:
        """Take over what an agent before this one left, and return that; then keep in the file what is known here.

        Nobody is waited for who has the file locked: calls wait for this agent.
        """
        found: list[Held] = []
        try:
            sqlitefile.create(self._file)
            self._connection = sqlitefile.connect(self._file, 0.0)
            boot = _BOOT.read_text("ascii").strip()
            if not self.has_restored:
                found = self._left(self._connection, boot)  # first: to read it needs no lock that a writer has
                self.has_restored = True
                for held in found:
                    self._put(held)
            if not self._is_written:
                self._rewrite(self._connection, boot)
        except (sqlite3.Error, StoreError, OSError, ValueError) as exc:
            self._broken(exc)
            if isinstance(exc, ValueError) or getattr(exc, "sqlite_errorcode", 0) & 0xFF in _NOT_OURS:
                for ending in ("", "-wal", "-shm"):
                    with contextlib.suppress(OSError):
                        Path(f"{self._file}{ending}").unlink()
        else:
            self._alarms.clear("slots_not_kept")
        return found

    def close(self) -> None:
        """Leave them to the next agent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _put(self, held: Held) -> None:
        named = self._calls.setdefault(held.call, {})
        before = named.get(held.customer)
        self.known += before is None
        self.lapsed += held.lapsed - (before is not None and before.lapsed)
        named[held.customer] = held

    def _left(self, connection: sqlite3.Connection, boot: str) -> list[Held]:
        """What is in the file since this host was started, but for what is known better here."""
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            return []
        if connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone() != (boot,):
            return []
        found = [
            Held(customer, call, level, owner, since, ask, Stage(stage), bool(lapsed))
            for customer, call, level, owner, since, ask, stage, lapsed in connection.execute("SELECT * FROM calls")
        ]
        self._is_written = not self.known
        return [held for held in found if self.get(held.customer, held.call) is None]

    def _rewrite(self, connection: sqlite3.Connection, boot: str) -> None:
        """Have the file say what is known here, and nothing else."""
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM calls")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot,))
        connection.executemany(_KEEP, map(_row, self))
        connection.execute("COMMIT")
        self._is_written = True

    def _broken(self, exc: Exception) -> None:
        """Until it can be written again a restart of the agent would forget calls."""
        self.close()
        self._is_written = False
        self._alarms.on(
            "slots_not_kept",
            f"{self._file}: {exc}: calls are counted, and forgotten when the agent is restarted",
        )


_DROP: Final = "DELETE FROM calls WHERE call = ? AND customer = ?"
_KEEP: Final = "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def _row(held: Held) -> tuple[Any, ...]:
    return held.customer, held.call, held.level, held.owner, held.since, held.ask, int(held.stage), int(held.lapsed)
