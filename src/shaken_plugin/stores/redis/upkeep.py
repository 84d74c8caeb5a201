"""A fleet begun, its log kept short by new snapshots, and the waste of writers that died removed."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Final

from shaken_plugin.errors import StoreError
from shaken_plugin.sqlitefile import connect
from shaken_plugin.stores.redis import scripts
from shaken_plugin.stores.redis.applying import mark_of, read_mark
from shaken_plugin.stores.redis.building import must_be_migrated
from shaken_plugin.stores.redis.entries import SCHEMA, Head, Snapshot, View, snapshot_text
from shaken_plugin.stores.redis.locking import Locked
from shaken_plugin.stores.redis.log import FleetLog, late
from shaken_plugin.stores.redis.operations import material_name
from shaken_plugin.stores.redis.pieces import Writer
from shaken_plugin.stores.redis.snapshot import write_snapshot
from shaken_plugin.stores.sqlite.schema import Patience
from shaken_plugin.stores.sqlite.sharing import Shared, be_a_copy, remember_shared, shared_with
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT, writing

MAX_ENTRIES: Final = 1_000
"""Versions behind the snapshot from which on a new one is due."""

MAX_WAITING: Final = 16_777_216
"""Octets of operations behind it, likewise, where the snapshot itself is not larger."""

TAIL: Final = 100
"""Versions behind a new snapshot that stay in the log, for hosts that are a little late."""

READING: Final = 900
"""Seconds for which who still reads an old snapshot, or a change that left the log, finds its chunks."""

SWEEP: Final = 16
"""Changes or snapshots whose chunks are removed at a time."""


def upload_snapshot(path: Path, log: FleetLog, instead: str = "", still: Head | None = None) -> View:
    """Begin a fleet with the policy of a host, or bring one back into a Redis that lost it. Deliberately, by a person.

    A host's file that is a copy of a fleet keeps that fleet's id and version: other hosts that are as far go on
    as if nothing had been. Killed at any point, nothing is lost: a policy of the host's own first remembers the id
    that it is about to give the fleet, by which it is known the next time (`moving.look_at`).

    Args:
        path: the host's file, locked for writers meanwhile.
        log: of the fleet, of which Redis must have none.
        instead: id of one that it has and that is given up.
        still: what that one must still be at.

    Returns:
        The fleet as it is then.

    Raises:
        StoreUnavailable: Redis cannot be had.
        StoreError: there is a fleet already, or the file cannot be used.
    """
    promised = _promise(path, instead)
    with writing(path) as connection:
        mark = read_mark(connection, path)
        if mark.head.version != promised.version:
            raise StoreError(f"{path}: was changed meanwhile; nothing else was changed, try again")
        identifier, head = promised.fleet, Head(promised.version, promised.txid)
        snapshot = _upload(connection, head, log) if head.version else None
        names = ("meta", "head", "log", "staged", "chunked", "material")
        text, txid = (snapshot_text(snapshot), snapshot.txid) if snapshot else ("", "")
        words: list[str | int] = [instead, identifier, SCHEMA, SCHEMA, text, head.version, head.txid, txid]
        words += ["" if still is None else f"{still.version} {still.txid}", READING]
        for kind, name, body in connection.execute("SELECT kind, id, body FROM material"):
            words += [material_name((kind, name)), body]
        other = log.run(scripts.FOUND, names, *words)
        if other == 0:
            raise late(log.name)
        if other is not None:
            raise StoreError(
                f"{log.name}: it has a policy already (id {other.decode('utf-8', 'replace')}); nothing was changed"
            )
        be_a_copy(connection, promised)
        connection.execute("COMMIT")
    return log.look()


def _promise(path: Path, instead: str) -> Shared:
    """What a file will be a copy of, remembered in it: so an upload whose end it did not live to see is known as its.

    Whatever it has in common with the fleet that it takes the place of stays remembered beside that.
    """
    with writing(path) as connection:
        must_be_migrated(connection, path)
        mark = read_mark(connection, path)
        if mark.fleet is not None:
            return Shared(mark.fleet, *mark.head)
        known = shared_with(connection, instead)
        promised = Shared(uuid.uuid4().hex, mark.head.version, uuid.uuid4().hex if mark.head.version else "")
        remember_shared(connection, promised, *([known] if known else []))
        connection.execute("COMMIT")
        return promised


def due(view: View, *, late: bool = False) -> bool:
    """Whether a new snapshot is due; with ``late``, whether it should have been made by an agent long ago."""
    of_snapshot, size = (view.snapshot.head.version, view.snapshot.sealed.length) if view.snapshot else (0, 0)
    times = 2 if late else 1
    return view.head.version - of_snapshot >= times * MAX_ENTRIES or view.waiting > times * max(MAX_WAITING, size)


def compact(path: Path, log: FleetLog) -> bool:
    """Make a new snapshot of this host's copy, if one is due and nobody else is at it; and remove waste.

    Returns:
        Whether it made one.

    Raises:
        StoreUnavailable: Redis cannot be had.
        StoreError: the copy cannot be read, or Redis has no memory.
    """
    sweep(log)
    return due(log.look()) and renew_snapshot(path, log)


def renew_snapshot(path: Path, log: FleetLog) -> bool:
    """Make a new snapshot of this host's copy, unless somebody else is at it; cut the log off behind it.

    Returns:
        Whether it took the place of the one before.

    Raises:
        StoreUnavailable, StoreError: as for `compact`.
    """
    try:
        with log.locked("compacting", Patience(0.0)):
            return _renew(path, log)
    except Locked:
        return False


def _renew(path: Path, log: FleetLog) -> bool:
    before = log.look().snapshot
    if mark_of(path).fleet is None:
        return False
    try:
        with closing(connect(path, READER_TIMEOUT)) as connection:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("BEGIN")
            mark = read_mark(connection, path)
            if mark.head.version <= (before.head.version if before else 0):
                return False
            snapshot = _upload(connection, mark.head, log)
    except sqlite3.Error as exc:
        raise StoreError(f"{path}: cannot be read: {exc}") from exc
    first = max(1, mark.head.version + 1 - TAIL)
    head, names = mark.head, ("meta", "head", "log", "staged", "chunked")
    words = (mark.fleet, f"{head.version}-0", head.txid, snapshot_text(snapshot), snapshot.txid, f"{first}-0", first)
    return bool(log.run(scripts.SWAP, names, *words, READING) == b"done")


def _upload(connection: sqlite3.Connection, head: Head, log: FleetLog) -> Snapshot:
    with Writer() as writer:
        write_snapshot(connection, head, writer)
        snapshot = Snapshot(head, uuid.uuid4().hex, writer.seal())
        log.upload(snapshot.txid, writer)
        return snapshot


def sweep(log: FleetLog) -> int:
    """Remove the chunks that nobody needs: of writers that died, old snapshots, changes that left the log.

    Returns:
        How many chunks.
    """
    removed = 0
    for word in log.run(scripts.WASTE, ("staged",), SWEEP):
        txid = word.decode("utf-8", "replace")
        removed += log.remove_chunks(txid)
        log.command("ZREM", log.key("staged"), txid)
    return removed
