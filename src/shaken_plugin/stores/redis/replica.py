"""A host's copy of a fleet's policy: brought up to the log's head, or built anew where the log leads there no more."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.stores.redis import lost as losses
from shaken_plugin.stores.redis.applying import CopyDamaged, Mark, apply_entries, is_damage, mark_of, read_mark
from shaken_plugin.stores.redis.building import rebuild, rebuild_damaged
from shaken_plugin.stores.redis.entries import View
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.pieces import Damaged
from shaken_plugin.stores.sqlite.sharing import own_policy
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT, writing

TRIES: Final = 4
"""Times that a copy is brought up to a log which goes on meanwhile, or whose snapshot changes."""

SLICE: Final = 0.5
"""Seconds after which who waits for news looks whether Redis is still there, and still the same."""


class Progress(NamedTuple):
    """How far the copy is."""

    version: int
    """Of the copy."""
    head: int
    """Of the fleet, as it was last seen."""
    resynced: str | None
    """Why the copy had to be built anew, where it was: an alarm, for changes may have been lost."""


class OwnPolicy(StoreError):
    """This host has a policy of its own, which is not given up for the fleet's by itself."""


class Replica:
    """The copy of one host. Thread-safe.

    Args:
        path: the policy's file, made where there is none.
        log: of the fleet.
    """

    def __init__(self, path: Path, log: FleetLog) -> None:
        self.path = path
        self.log = log
        self._working = threading.Lock()
        self._hopeless: tuple[Mark, View] | None = None
        self._at: int | None = None
        """The head, where the copy was at it when it was looked at last."""

    def catch_up(self) -> int:
        """Bring the copy up to the log's head; from a snapshot where the log does not lead there.

        Returns:
            The version it has then.

        Raises:
            StoreUnavailable: Redis cannot be had.
            StoreError: Redis has no such fleet, or it is damaged, or of another release; or the file cannot be written.
                The copy stays as it was; a damaged one (CopyDamaged) is built anew as soon as Redis has all of it.
        """
        return self.advance().version

    def advance(self, *, give_up: bool = False) -> Progress:
        """As `catch_up`; says more of it.

        Args:
            give_up: a policy of the host's own, too, makes room for the fleet's; it is kept beside it.

        Raises:
            OwnPolicy: it has one, and that was not said.
        """
        return self._brought_up(give_up=give_up)[0]

    def _brought_up(self, *, give_up: bool = False) -> tuple[Progress, bool]:
        """How far the copy is now, and whether there was news."""
        with self._working:
            self._at = None
            try:
                progress, news = self._advance(give_up=give_up)
            except CopyDamaged as exc:
                progress, news = self._heal(exc), True
            self._at = progress.version
            return progress, news

    def _advance(self, *, give_up: bool = False) -> tuple[Progress, bool]:
        resynced: str | None = None
        for tried in range(TRIES):
            # In this order: a change that was made here is in Redis before it is in the file, and a mark
            # that is read after the look could seem to be ahead of Redis.
            mark = mark_of(self.path)
            view = self.log.look()
            if mark == Mark(view.identifier, view.head):
                return Progress(mark.head.version, view.head.version, resynced), tried > 0
            if mark.fleet is None and not give_up:
                self._check_own()
            lost = _lost(mark, view) or self._follow_log(mark, view)
            if lost is not None and (losing := self._rebuild(mark, view)) is not None and mark.fleet is not None:
                resynced = resynced or "; ".join(filter(None, (lost, losing)))
        raise StoreError(f"{self.log.name}: it changes faster than {self.path} can be brought up to it")

    def _heal(self, damage: CopyDamaged) -> Progress:
        """Build a damaged file anew; until that is done it stays, for some calls may still be decided from it."""
        try:
            kept = rebuild_damaged(self.path, self.log, self.log.look())
            progress, _ = self._advance()
        except (StoreUnavailable, StoreError) as exc:
            raise CopyDamaged(f"{damage}; it cannot be made anew now: {exc}") from exc
        return progress._replace(resynced=f"{damage}; what was damaged is kept as {kept.name}")

    def follow(self, wait: float) -> Progress:
        """Wait for news and take them over.

        Args:
            wait: seconds after which there being none is an answer, too.

        Returns:
            How far the copy is; where version and head are equal, it is as Redis was a moment ago.

        Raises:
            StoreUnavailable, StoreError: as for `catch_up`.
        """
        end = time.monotonic() + wait
        while True:
            left, at = end - time.monotonic(), self._at
            if at is not None and left > 0:
                try:
                    self.log.wait(at, min(left, SLICE, self.log.access.timeout / 2))
                except (StoreUnavailable, StoreError):
                    self._at = None  # the next turn begins with the copy itself: something may be wrong with that, too
                    raise
            progress, news = self._brought_up()
            if news or time.monotonic() >= end:
                return progress

    def probe(self) -> None:
        """Ask Redis alone, whatever the copy is like.

        Raises:
            StoreUnavailable, StoreError: as for `FleetLog.look`.
        """
        self.log.look()

    def _follow_log(self, mark: Mark, view: View) -> str | None:
        """Apply the entries up to a view's head; why that cannot be, None where it could."""
        try:
            while True:
                with writing(self.path) as connection:
                    now = read_mark(connection, self.path)
                    if now.fleet != mark.fleet or now.head.version >= view.head.version:
                        return None
                    after, lost = apply_entries(connection, self.log, now)
                    if after == now:
                        return lost or f"the log has nothing behind version {now.head.version}"
                    connection.execute("COMMIT")
        except Damaged as exc:
            if self._hopeless == (mark, view):
                raise
            return f"{exc}; or else the copy was"
        except StoreError as exc:
            if is_damage(exc.__cause__):
                raise CopyDamaged(str(exc)) from exc
            raise

    def _check_own(self) -> None:
        if own_policy(self.path, READER_TIMEOUT):
            raise OwnPolicy(
                f"{self.path}: this host has a policy of its own, by which it decides, and {self.log.name} has "
                "another: see what differs with 'shaken fleet join --dry-run', give it up with 'shaken fleet join'"
            )

    def _rebuild(self, mark: Mark, view: View) -> str | None:
        """Build the copy anew; what that loses, None where what it is built from was replaced meanwhile."""
        same = mark.fleet == view.identifier
        kept = losses.keep(self.path, mark) if same and losses.is_lost(mark, view, self.log) else None
        before = losses.recent(self.path, mark.head.version) if same else []
        try:
            rebuild(self.path, self.log, view, keep=not same)
        except Damaged:
            if self.log.look().snapshot != view.snapshot:
                return None
            self._hopeless = mark, view
            raise
        lost = losses.text_of(before, losses.recent(self.path, mark.head.version)) if before else ""
        return "; ".join(filter(None, (lost, f"the copy as it was is kept as {kept}" if kept else "")))


def _lost(mark: Mark, view: View) -> str | None:
    """Why a copy is not of a fleet's past."""
    mine, theirs = mark.head, view.head
    if mark.fleet is None:
        return "the host is new to the fleet"
    if mark.fleet != view.identifier:
        return "the fleet was begun anew"
    if mine.version > theirs.version:
        return (
            f"Redis is at version {theirs.version} and the copy was at {mine.version}: what was changed since is lost, "
            "by a failover or a restored backup"
        )
    if mine.version == theirs.version and mine.txid != theirs.txid:
        return f"version {mine.version} was lost, by a failover or a restored backup, and made anew"
    return None
