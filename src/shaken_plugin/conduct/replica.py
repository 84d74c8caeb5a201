"""The state file kept the same as those of all other hosts of a fleet, through the fleet's Redis."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shaken_plugin.conduct import fleet
from shaken_plugin.conduct.acts import Outcome
from shaken_plugin.conduct.state import State
from shaken_plugin.errors import ConflictError, StoreError, StoreUnavailable
from shaken_plugin.sqlitefile import connect, create
from shaken_plugin.stores import statefile
from shaken_plugin.stores.redis.state import Entry, Gap, Head, Snapshot, StateStream

AT_ONCE: Final = 200
"""Entries of one transaction."""

COMPACT_AFTER: Final = 5_000
"""Entries behind the snapshot after which a host makes a newer one."""

_PARTS: Final = ("", "-wal", "-shm", "-journal")
"""A database, and what SQLite keeps beside it."""

_TRIES: Final = 3
"""Of a round, where another host is changing the same at the same time."""


class _Late(Exception):
    """Another host has begun the fleet; nothing is changed here."""


@dataclass(slots=True)
class Synced:
    """What a round did."""

    position: int = 0
    published: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """For people: the file joined, or was filled anew; an entry was passed over."""


class StateReplica:
    """One host's part in the state of a fleet. Several processes of the host may have one each.

    Args:
        state: the file.
        stream: the fleet's.
        ledger: names the ledger that this host's calls are read from; hosts that share one name it alike.
        clock: POSIX seconds.
        may_join: whether the host may become one of the fleet; it may not while its policy is its own.
    """

    def __init__(
        self,
        state: State,
        stream: StateStream,
        ledger: str,
        clock: Callable[[], float] = time.time,
        may_join: Callable[[], bool] = lambda: True,
    ) -> None:
        self._state = state
        self._stream = stream
        self._ledger = ledger
        self._clock = clock
        self._may_join = may_join

    def sync(self) -> Synced:
        """Publish what waits, and take over what others said; the first time, join or begin the fleet.

        Raises:
            StoreUnavailable: Redis or the file cannot be used now. What was said stays in the file.
            StoreError: an entry is of a newer release, or the content of Redis is damaged.
        """
        synced = Synced()
        for _ in range(_TRIES):
            head = self._stream.head()
            if head is None:
                self._begin(synced)
                continue
            place = self._place()
            if place is None or _differs(place, head):
                self._fill(synced)
                place = None
            if place is None or place.position != head.position:
                self._catch_up(synced)
            self._publish_again()
            if self._publish(head.fleet, synced):
                if synced.published:
                    self._catch_up(synced)
                place = self._place()
                synced.position = 0 if place is None else place.position
                return synced
        raise StoreUnavailable(f"{self._stream.access.name}: its content changes again and again")

    def wait(self, position: int, seconds: float) -> bool:
        """Wait for an entry behind a position; see `StateStream.wait`."""
        return self._stream.wait(position, seconds)

    # --- Joining ------------------------------------------------------------------------------

    def publish_everything(self) -> Synced:
        """Begin the fleet with what is in this state file, for a host that moves into it.

        Raises:
            ConflictError: the fleet has begun already.
            StoreUnavailable, StoreError: as for `sync`.
        """
        synced = Synced()
        if self._stream.head() is not None or not self._begin(synced):
            raise ConflictError(f"{self._stream.access.name}: the fleet has customers' standings already; nothing done")
        return synced

    def _begin(self, synced: Synced) -> bool:
        """Begin the fleet with this file, unless another host is faster."""
        identifier = str(uuid.uuid4())
        try:
            with self._state.changing() as connection:
                before = fleet.place_of(connection)
                self._check(before)
                fleet.begin(connection, identifier, self._ledger)
                if not self._stream.found(identifier, fleet.dump(connection)):
                    raise _Late
        except _Late:
            return False
        why = "" if before is None else "; Redis had lost everything"
        synced.notes.append(f"the fleet's standings and offences begin with those of this host{why}")
        return True

    def _place(self) -> fleet.Place | None:
        with self._state.reading() as connection:
            return fleet.place_of(connection)

    def _fill(self, synced: Synced) -> None:
        """Take over the fleet's snapshot; what the fleet does not have is published again after that."""
        snapshot = self._stream.snapshot()
        with self._state.reading() as connection:
            before = fleet.place_of(connection)
            known = connection.execute("SELECT count(*) FROM offence").fetchone()[0]
        self._check(before)
        kept = self._keep() if known and (before is None or before.fleet != snapshot.fleet) else None
        with self._state.changing() as connection:
            self._check(fleet.place_of(connection))  # it may just have left
            fleet.take_over(connection, fleet.Place(*snapshot[:3]), self._ledger, snapshot.pieces)
        if before is None:
            text = "standings and offences are those of the fleet from now on"
        else:
            text = "standings and offences were filled anew from the fleet: entries between were gone, or others"
        synced.notes.append(text if kept is None else f"{text}; what was here is kept as {kept}")

    def _check(self, place: fleet.Place | None) -> None:
        """Nobody is made one of a fleet who decides by a policy of its own."""
        if place is None and not self._may_join():
            raise StoreUnavailable(
                f"{self._state.path}: this host has a policy of its own; 'shaken fleet move' or 'shaken fleet join' "
                "has it be one of its fleet"
            )

    def _keep(self) -> Path:
        """Copy the file: its offences are those of another fleet, or of a host of its own."""
        path = self._state.path
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        kept = path.with_name(f"{path.name}.before-fleet-{stamp}")
        create(kept)
        with closing(connect(path, 5.0)) as source, closing(connect(kept, 5.0)) as target:
            source.backup(target)
        return kept

    # --- There and back -------------------------------------------------------------------------

    def _publish_again(self) -> None:
        with self._state.reading() as connection:
            due = fleet.meta(connection, "again") is not None
        if due:
            with self._state.changing() as connection:
                fleet.publish_again(connection, self._clock())

    def _publish(self, identifier: str, synced: Synced) -> bool:
        """Publish what waits; whether the fleet is still the same."""
        while True:
            with self._state.reading() as connection:
                source, rows = fleet.source_of(connection), fleet.waiting(connection, AT_ONCE)
            if not rows:
                return True
            for row in rows:
                # Killed before it is marked, it is published twice, and no act counts twice.
                if not self._stream.publish(identifier, source, row.seq, row.uid, row.body):
                    return False
                synced.published += 1
            with self._state.changing() as connection:
                fleet.mark_published(connection, rows[-1].seq, self._clock())

    def _catch_up(self, synced: Synced) -> None:
        """Do the entries that are new; where they do not go on from ours, fill the file anew."""
        try:
            self._read_on(synced)
        except Gap:
            self._fill(synced)
            try:
                self._read_on(synced)
            except Gap:
                text = "the stream of the state does not go on where its snapshot ends"
                raise StoreUnavailable(f"{self._stream.access.name}: {text}") from None

    def _read_on(self, synced: Synced) -> None:
        more = True
        while more:
            place = self._place()
            assert place is not None
            entries = self._stream.after(place.position, place.last, AT_ONCE)
            if entries:
                self._apply(entries, synced)
            more = bool(entries)  # fewer than were asked for are not the last, where they are long

    def _apply(self, entries: list[Entry], synced: Synced) -> None:
        newer: StoreError | None = None
        with self._state.changing() as connection:
            for entry in entries:
                try:
                    done = fleet.apply(connection, entry)
                except StoreError as exc:
                    newer = exc  # those before it stay done
                    break
                if done is not None:
                    synced.outcomes.append(done.outcome)
                    synced.notes += [done.fault] if done.fault else []
        if newer is not None:
            raise newer

    def compact(self, after: int = COMPACT_AFTER) -> bool:
        """Make a newer snapshot where the other is old; whether that was done.

        Raises:
            StoreUnavailable, StoreError: as for `sync`.
        """
        head = self._stream.head()
        if head is None or head.position - head.snapshot < after:
            return False
        with self._state.reading() as connection:
            place = fleet.place_of(connection)
            if place is None or _differs(place, head) or place.position - head.snapshot < after:
                return False
            pieces = tuple(fleet.dump(connection))
        try:
            self._stream.after(place.position, place.last, 1)
        except Gap:
            return False  # this file is to be filled anew itself
        return self._stream.replace_snapshot(Snapshot(*place, pieces))

    # --- Messages -------------------------------------------------------------------------------

    def claim(self, message: str, seconds: int, body: bytes) -> bytes | None:
        """See `StateStream.claim`."""
        with self._state.reading() as connection:
            joined, source = fleet.place_of(connection), fleet.source_of(connection)
        if joined is None:
            raise StoreUnavailable(f"{self._state.path}: this host has not joined its fleet yet")
        return self._stream.claim(message, source, seconds, body)


def _differs(place: fleet.Place, head: Head) -> bool:
    """Whether a file is of another fleet, or knows what the fleet does not, so that it is to be filled anew."""
    if place.fleet != head.fleet or head.position < place.position:
        return True
    return head.position == place.position and head.last != place.last


def refill(path: Path, policy: Path, stream: StateStream, ledger: str) -> Synced | None:
    """Make a state file that is lost anew, with what the fleet knows; one that is damaged stays under another name.

    Args:
        path: the file.
        policy: the policy's file, which remembers that there was one.
        stream: the fleet's.
        ledger: as for `StateReplica`.

    Returns:
        None where nothing is lost, or the fleet knows nothing: an empty file would reinstate everybody.

    Raises:
        StoreUnavailable, StoreError: it cannot be done now.
    """
    identifier = statefile.remembered(policy)
    if identifier is None or not statefile.is_lost(path) or stream.head() is None:
        return None
    filled = path.with_name(f"{path.name}.filling")
    for suffix in _PARTS:
        path.with_name(f"{filled.name}{suffix}").unlink(missing_ok=True)
    statefile.ensure(filled)
    state = State(filled)
    synced = StateReplica(state, stream, ledger).sync()
    with state.changing() as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'id'", (identifier,))
    state.close()
    try:
        with closing(connect(filled, 5.0)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file that gets the name
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{filled}: {exc}") from exc
    kept = statefile.put_away(path, "lost")
    filled.rename(path)
    text = "the state file was lost, and was made anew from the fleet"
    synced.notes.append(text if kept is None else f"{text}; what was there is kept as {kept}")
    return synced
