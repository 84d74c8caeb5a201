"""A host's copy built anew beside the one in force, and brought in as a whole; calls go on being decided meanwhile."""

from __future__ import annotations

import fcntl
import glob
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from shaken_plugin.errors import StoreError
from shaken_plugin.sqlitefile import connect, create, newer
from shaken_plugin.stores.redis.applying import Mark, apply_entries
from shaken_plugin.stores.redis.entries import Head, View
from shaken_plugin.stores.redis.locking import allowed_now
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.operations import write_material
from shaken_plugin.stores.redis.pieces import Reader, damaged
from shaken_plugin.stores.redis.snapshot import read_snapshot
from shaken_plugin.stores.sqlite.draft import SqliteDraft
from shaken_plugin.stores.sqlite.schema import (
    SCHEMA_VERSION,
    check_schema,
    has_material,
    make_tables,
    meta,
    open_writer,
    set_meta,
)
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT

CACHE_KIB: Final = 131_072
"""Memory for pages and for sorting while a copy is built."""

STEP: Final = 8
"""Pages that are brought in at a time: fewer than the tables have with nothing in them, so that there is a second."""

OF_THE_FLEET: Final = frozenset(
    {"policy_version", "applied_version", "oldest_version", "fleet_id", "fleet_txid", "fleet_shared", "reads"}
)
"""What meta says of the policy and of the file; all else there is the host's own, and stays."""

_FAST: Final = ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", f"cache_size = -{CACHE_KIB}")


def rebuild(path: Path, log: FleetLog, view: View, *, keep: bool) -> None:
    """Build the copy anew from a fleet's snapshot and log.

    Args:
        path: the policy's file, made where there is none.
        log: of the fleet.
        view: the fleet as it was seen.
        keep: leave a copy of the file beside it, unless it has no records.

    Raises:
        Damaged: what is in Redis cannot be read.
        StoreUnavailable: Redis cannot be had.
        StoreError: there is no room, or the file cannot be written. It is as it was.
    """
    with _built(path, log, view) as built, closing(open_writer(path)) as live:
        must_be_migrated(live, path)
        _must_not_be_newer(live, path)
        if keep:
            _keep(live, path)
        _bring_in(built, live, path)


def rebuild_damaged(path: Path, log: FleetLog, view: View) -> Path:
    """Build a copy anew whose file is damaged, which gets another name. Arguments and errors as for `rebuild`.

    Returns:
        The damaged file's new name; one that had it before is gone.
    """
    kept, found = path.with_name(f"{path.name}.damaged"), _identity(path)
    with _built(path, log, view) as built:
        if _identity(path) == found:  # else another process was faster
            for suffix in ("", "-wal", "-shm"):  # the log belongs to the file: never to the new one
                with suppress(FileNotFoundError):
                    os.unlink(f"{kept}{suffix}")  # noqa: PTH108  # a name, not a Path
                with suppress(FileNotFoundError):
                    os.rename(f"{path}{suffix}", f"{kept}{suffix}")  # noqa: PTH104  # likewise
            with closing(open_writer(path)) as live:
                _bring_in(built, live, path)
    return kept


def _identity(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


@contextmanager
def _built(path: Path, log: FleetLog, view: View) -> Iterator[sqlite3.Connection]:
    """A copy built beside the one in force, which goes afterwards."""
    try:
        with _beside(path) as place, closing(connect(place, 0)) as built:
            for pragma in _FAST:
                built.execute(f"PRAGMA {pragma}")
            _fill(built, log, view)
            yield built
    except (sqlite3.Error, OSError) as exc:
        raise StoreError(f"{path}: its copy of {log.name} cannot be built: {exc}") from exc


def must_be_migrated(connection: sqlite3.Connection, path: Path) -> None:
    """Raise where a file is of an older schema: who is at work on it might not know this release's.

    Raises:
        StoreError: it is.
    """
    if check_schema(connection, path) and not has_material(connection):
        raise StoreError(
            f"{path}: is of an older schema, which no fleet has: run 'shaken store migrate' first, when every switch "
            "and agent of this host is of this release"
        )


def _must_not_be_newer(connection: sqlite3.Connection, path: Path) -> None:
    """Raise where the next release brought a file up: it may have more in it than we would bring in.

    Raises:
        StoreError: it is newer. The log is followed all the same.
    """
    found = check_schema(connection, path)
    if found > SCHEMA_VERSION:
        raise newer(path, found, SCHEMA_VERSION)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file beside another, on the same disk, that goes afterwards; with the next one, where we are killed."""
    _remove_left_over(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as we live
        yield Path(name)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108  # a name, not a Path


def _remove_left_over(path: Path) -> None:
    """Remove what was being built by processes that were killed: nobody holds its lock any more."""
    for name in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        with suppress(OSError):  # another user's, or locked by who builds it
            descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                name.unlink()
            finally:
                os.close(descriptor)


def _fill(built: sqlite3.Connection, log: FleetLog, view: View) -> None:
    built.execute("BEGIN")
    make_tables(built)
    head = Head(0, "")
    if view.snapshot is not None:
        name = f"{log.name}, snapshot of version {view.snapshot.head.version}"
        sealed = view.snapshot.sealed
        head = read_snapshot(built, Reader(log.pieces(view.snapshot.txid, sealed, name), sealed, name), name)
        if head != view.snapshot.head:
            raise damaged(name, "it is of another version")
    set_meta(built, fleet_id=view.identifier, fleet_txid=head.txid)
    built.execute("COMMIT")
    mark, before = Mark(view.identifier, head), None
    while mark != before:
        before = mark
        built.execute("BEGIN")
        mark, lost = apply_entries(built, log, mark)
        built.execute("COMMIT")
        if lost is not None:
            raise damaged(log.name, f"the log does not go on from its snapshot: {lost}")
    if mark.head.version < view.head.version:
        raise damaged(log.name, f"the log ends at version {mark.head.version}, and its head is {view.head.version}")
    built.execute("BEGIN")
    built.execute("DELETE FROM material")
    draft = SqliteDraft(built, mark.head.version)
    for name, body in log.material().items():
        try:
            write_material(draft, name, body)
        except (ValueError, StoreError) as exc:
            raise damaged(log.name, str(exc)) from exc
    built.execute("COMMIT")


def _bring_in(built: sqlite3.Connection, live: sqlite3.Connection, path: Path) -> None:
    """Put what was built in the place of what is in force, in one transaction; readers go on."""
    allowed, taken = allowed_now(), False
    end = time.monotonic() + allowed.seconds

    def progress(status: int, _remaining: int, _total: int) -> None:
        nonlocal taken
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            if time.monotonic() > end:
                raise StoreError(f"{path}: is locked by another writer for more than {allowed.seconds:g} seconds")
        elif not taken:
            # Only now nobody else can write the file; what was read before may be others' settings by now.
            taken = True
            _take_over(built, path)

    built.backup(live, pages=STEP, progress=progress, sleep=0.05)
    live.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.Error):  # a reader may still need the log
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _take_over(built: sqlite3.Connection, path: Path) -> None:
    """Have what is the host's own in the file that is brought in, too."""
    with closing(connect(path, READER_TIMEOUT)) as reader:
        reader.execute("BEGIN")
        if check_schema(reader, path):
            set_meta(built, **{key: value for key, value in meta(reader).items() if key not in OF_THE_FLEET})


def _keep(live: sqlite3.Connection, path: Path) -> None:
    """Leave a copy of a policy that was no copy of this fleet's."""
    if not check_schema(live, path) or not live.execute("SELECT EXISTS (SELECT 1 FROM record)").fetchone()[0]:
        return
    kept = path.with_name(f"{path.name}.before-fleet-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    create(kept)
    with closing(connect(kept, 0)) as target:
        live.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
