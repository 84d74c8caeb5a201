"""Changing a fleet's policy: drafted on this host's copy, in force everywhere with one commit in Redis, or nowhere."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shaken_plugin.core.records import Record
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Author, Change, PolicyDraft, PolicyRecords
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.redis.applying import Mark, read_mark
from shaken_plugin.stores.redis.entries import MAX_INLINE, Entry, Head, View
from shaken_plugin.stores.redis.locking import allowed_now
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.operations import RecordingDraft
from shaken_plugin.stores.redis.pieces import Writer
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.upkeep import due, renew_snapshot
from shaken_plugin.stores.replacing import fill
from shaken_plugin.stores.sqlite.schema import patience, set_meta
from shaken_plugin.stores.sqlite.upkeep import Compaction, compaction_in
from shaken_plugin.stores.sqlite.writer import (
    FILES,
    InForce,
    SqlitePolicy,
    record_change,
    refuse_foreign,
    writing,
)

TRIES: Final = 3
"""Times that the copy is brought up to the head before a change, where a writer without the lock was faster."""


class RedisPolicy:
    """A `ports.PolicyWriter` of a fleet. Thread-safe.

    Locks are taken in one order: the fleet's, then this host's file; both honour `patience`. What is read
    comes from this host's copy.

    Args:
        path: the host's copy, made where there is none.
        log: of the fleet.
        replicas: how many of Redis' replicas must have a change before it counts as kept.
        report: told where fewer have it, the change being in force all the same; and of a copy that was made anew.
    """

    def __init__(
        self, path: Path, log: FleetLog, replicas: int = 0, report: Callable[[str], object] = lambda _: None
    ) -> None:
        self._path = path
        self._log = log
        self._replicas = replicas
        self._report = report
        self._local = SqlitePolicy(path)
        self.replica = Replica(path, log)

    @contextmanager
    def change(self, author: Author, what: str) -> Iterator[PolicyDraft]:
        """See `ports.PolicyWriter`.

        Raises:
            StoreUnavailable: Redis cannot be had; the text says whether anything was changed.
        """
        with self._changing() as change:
            yield change.draft
            if change.draft.rows:
                self._commit(change, author, what, applied=False)
        if change.draft.rows:
            self._compact()

    def replace_policy(
        self, policy: Policy, author: Author = FILES, *, origin: str = "", overwrite: bool = True
    ) -> InForce:
        """Make the fleet's policy what a file says, by the changes that it takes. See `sqlite.replace_policy`.

        Raises:
            StoreChanged, ConflictError, NumberError, StoreError: as there.
            StoreUnavailable: Redis cannot be had.
        """
        with self._changing() as change:
            notes = fill(change.draft, policy)
            if not change.draft.rows:
                set_meta(change.connection, applied_version=change.view.head.version)
                change.connection.execute("COMMIT")
                return InForce(change.view.head.version, tuple(notes))
            if not overwrite:
                refuse_foreign(change.connection, self._path)
            what = ": ".join(filter(None, (origin, change.draft.summary())))
            self._commit(change, author, what, applied=True)
        self._compact()
        return InForce(change.draft.version, tuple(notes))

    def compact(self, author: Author, moment: float) -> Compaction:
        """Forget on every host what ended before a time (POSIX seconds), see `sqlite.upkeep.compact`.

        Raises:
            StoreUnavailable, StoreError: as for `change`.
        """
        with self._changing() as change:
            found = compaction_in(change.connection, moment)
            change.draft.forget(found.version)
            self._commit(change, author, f"what ended before version {found.version} forgotten", applied=False)
        self._compact()
        return found

    @contextmanager
    def records(self, version: int | None = None) -> Iterator[PolicyRecords]:
        """See `ports.PolicyWriter`."""
        with self._local.records(version) as records:
            yield records

    def changes(self, since: int = 0, until: int | None = None) -> Iterator[Change]:
        """See `ports.PolicyWriter`."""
        return self._local.changes(since, until)

    def changes_of(self, *named: tuple[type[Record], str]) -> Iterator[Change]:
        """See `ports.PolicyWriter`."""
        return self._local.changes_of(*named)

    def version_at(self, moment: float) -> int:
        """See `ports.PolicyWriter`."""
        return self._local.version_at(moment)

    def _compact(self) -> None:
        """Make a new snapshot where one is long due, because no agent did; the change stands without it, too."""
        with suppress(StoreError, StoreUnavailable):
            if due(self._log.look(), late=True):
                renew_snapshot(self._path, self._log)

    @contextmanager
    def _changing(self) -> Iterator[_Changing]:
        allowed = allowed_now()
        end = time.monotonic() + allowed.seconds
        with self._log.locked("lock", allowed), ExitStack() as stack:
            left = allowed._replace(seconds=max(0.0, end - time.monotonic()))
            token = patience.set(left)
            stack.callback(patience.reset, token)
            connection, view = self._at_the_head(stack)
            writer = stack.enter_context(Writer())
            yield _Changing(connection, view, RecordingDraft(connection, view.head.version + 1, writer), writer)

    def _at_the_head(self, stack: ExitStack) -> tuple[sqlite3.Connection, View]:
        """A connection in a writing transaction to the copy, which is as Redis is."""
        for _ in range(TRIES):
            if (resynced := self.replica.advance().resynced) is not None:  # the agent will not see it any more
                self._report(f"{self._path}: the copy was made anew from the snapshot: {resynced}")
            with ExitStack() as attempt:
                connection = attempt.enter_context(writing(self._path))
                view = self._log.look()
                if read_mark(connection, self._path) == Mark(view.identifier, view.head):
                    stack.push(attempt.pop_all())
                    return connection, view
        raise StoreError(f"{self._log.name}: others change it without its lock; nothing was changed, try again")

    def _commit(self, change: _Changing, author: Author, what: str, *, applied: bool) -> None:
        """Upload, commit in Redis, then here; until then both have nothing of it."""
        txid = uuid.uuid4().hex
        sealed = change.writer.seal()
        inline = b""
        if sealed.length <= MAX_INLINE:
            inline = b"".join(change.writer.pieces())
            self._log.stage(txid)
        else:
            self._log.upload(txid, change.writer)
        head = Head(change.draft.version, txid)
        # All that can fail here comes before; only the end of the transaction comes after Redis has it.
        # No file says anything of keys: applied later it undoes nothing where they alone changed.
        alone = change.draft.rows == change.draft.material_rows
        record_change(change.connection, head.version, author, what, applied=applied or alone)
        set_meta(change.connection, fleet_txid=txid)
        if applied:
            set_meta(change.connection, applied_version=head.version)
        entry = Entry(head, change.view.head.txid, author, what, applied, sealed, inline)
        kept = self._log.commit(change.view, entry, change.draft.handed, self._replicas)
        try:
            change.connection.execute("COMMIT")
        except sqlite3.Error as exc:
            raise StoreError(
                f"{self._path}: cannot be written: {exc}. The change is in force in the fleet as version "
                f"{head.version}; this host takes it over as soon as its file can be written"
            ) from exc
        if kept < self._replicas:
            self._report(
                f"{self._log.name}: version {head.version} is in force, but {kept} of the {self._replicas} replicas of "
                "Redis that should have it said so: a failover now could lose it"
            )


@dataclass(frozen=True, slots=True)
class _Changing:
    """A change under way."""

    connection: sqlite3.Connection
    view: View
    draft: RecordingDraft
    writer: Writer
