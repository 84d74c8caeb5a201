"""Changes that Redis no longer has, by a failover or a restored backup: a host's copy may be the last that knows them.

They are not brought back by themselves, for the others may have changed the same since; but they are kept, and named.
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from glob import escape
from pathlib import Path
from typing import Final

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Change
from shaken_plugin.sqlitefile import connect, create
from shaken_plugin.stores.redis.applying import Mark
from shaken_plugin.stores.redis.entries import View
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.pieces import Damaged
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT, SqlitePolicy

MAX_KEPT: Final = 3
"""Copies that stay beside a file; the oldest go first."""

RECENT: Final = 1_000
"""Versions that are compared; a failover loses the last seconds."""

_NAMED: Final = 5
"""Changes that a text names."""


def is_lost(mark: Mark, view: View, log: FleetLog) -> bool:
    """Whether a fleet does not have the version of a copy; of one long ago that is not known, and False.

    Raises:
        StoreUnavailable, StoreError: Redis cannot be had.
    """
    version, txid = mark.head
    if version >= view.head.version:
        return mark.head != view.head
    try:
        entries = log.entries(version - 1, 2)
    except Damaged:
        return False
    for entry in entries:
        if entry.head.version == version:
            return entry.head.txid != txid
        if entry.head.version == version + 1:
            return entry.after != txid
    return False


def keep(path: Path, mark: Mark) -> Path:
    """Leave a copy of a file beside it, once for each state of it.

    Raises:
        StoreError: it cannot be read, or there is no room.
    """
    name = f"{mark.head.version}-{zlib.crc32(mark.head.txid.encode()):08x}"
    kept = path.with_name(f"{path.name}.lost-{name}")
    if kept.exists():
        return kept
    draft = path.with_name(f".{path.name}.lost")  # one name, so that who is killed leaves one at most
    draft.unlink(missing_ok=True)
    create(draft)
    try:
        with closing(connect(path, READER_TIMEOUT)) as source, closing(connect(draft, 0)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file that gets the name
        draft.replace(kept)
        others = sorted(path.parent.glob(f"{escape(path.name)}.lost-*"), key=lambda one: one.stat().st_mtime)
        for old in others[:-MAX_KEPT]:
            old.unlink(missing_ok=True)
    except (sqlite3.Error, OSError) as exc:
        draft.unlink(missing_ok=True)
        raise StoreError(f"{path}: has changes that Redis lost, and cannot be kept as {kept}: {exc}") from exc
    return kept


def recent(path: Path, version: int) -> list[Change]:
    """The last changes of a file that is at a version; none where they cannot be read: it must not stay broken."""
    try:
        return list(SqlitePolicy(path).changes(max(0, version - RECENT)))
    except (StoreError, StoreUnavailable):
        return []


def text_of(before: list[Change], now: list[Change]) -> str:
    """What is lost, for people: the changes that were there, and are not, or are others; '' for none."""
    oldest, there = now[0].version if now else 0, set(now)
    gone = [change for change in before if change not in there and change.version >= oldest]
    if not gone:
        return ""
    said = "; ".join(f"version {one.version} ({one.who}, {one.why}: {one.what[:200]})" for one in gone[:_NAMED])
    more = f"; and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
    return f"lost: {said}{more}"
