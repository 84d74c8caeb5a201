"""A host's policy taken into a fleet's Redis and back: what stands in the way is found out first, and said.

Each step is one transaction of the file, or one script in Redis, and what was done is seen in both; so whoever was
killed runs the same again.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from shaken_plugin.errors import ConflictError, StoreError
from shaken_plugin.sqlitefile import connect
from shaken_plugin.stores.redis.applying import Mark, mark_of, read_mark
from shaken_plugin.stores.redis.entries import Head, View
from shaken_plugin.stores.redis.log import FleetLog, NoFleet
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from shaken_plugin.stores.sqlite.sharing import Shared, be_a_copy, be_its_own, has_policy, shared_with
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT, writing

_TRIES = 5
"""Times that a copy is brought to the head before it becomes a policy of its own, where others change it meanwhile."""


class Relation(Enum):
    """What a host's policy is to the fleet that its settings name."""

    NEW = "new"
    """Redis has no such fleet; the policy is the host's own, or there is none."""
    LOST = "lost"
    """Redis has no such fleet, and the file is a copy of one."""
    COPY = "copy"
    """The file is a copy of it."""
    ANOTHER = "another"
    """The file is a copy of another fleet, or of this one before it was begun anew."""
    EMPTY = "empty"
    """There is a fleet, and the host has no policy."""
    SAME = "same"
    """The policy is the host's own and as the fleet had it: it went out of the fleet, or was just taken into it."""
    AHEAD = "ahead"
    """The same, but changed here alone since, and in the fleet not."""
    OWN = "own"
    """There is a fleet, and the host has a policy that the fleet never had."""


class Situation(NamedTuple):
    """A host and its fleet, as they are now."""

    relation: Relation
    mark: Mark
    """Of the host's file."""
    view: View | None
    """Of the fleet; None where Redis has none."""
    shared: Shared | None = None
    """What a policy of the host's own has in common with the fleet."""


def look_at(path: Path, log: FleetLog) -> Situation:
    """How a host's policy and the fleet that its settings name are to each other; nothing is changed.

    Raises:
        StoreUnavailable: Redis cannot be had.
        StoreError: the fleet, or the file, is of another release or damaged.
    """
    try:
        view = log.look()
    except NoFleet:
        view = None
    mark = mark_of(path)
    if view is None:
        return Situation(Relation.NEW if mark.fleet is None else Relation.LOST, mark, None)
    if mark.fleet is not None:
        return Situation(Relation.COPY if mark.fleet == view.identifier else Relation.ANOTHER, mark, view)
    if mark.head.version == 0:
        return Situation(Relation.EMPTY, mark, view)
    try:
        with closing(connect(path, READER_TIMEOUT)) as connection:
            connection.execute("BEGIN")
            found = Situation(Relation.OWN, read_mark(connection, path), view, shared_with(connection, view.identifier))
            return _own(found, view, has_policy=has_policy(connection))
    except sqlite3.Error as exc:
        raise StoreError(f"{path}: cannot be read: {exc}") from exc


def _own(found: Situation, view: View, *, has_policy: bool) -> Situation:
    """The same, where the file is no copy."""
    shared = found.shared
    if shared is not None and view.head < (shared.version, ""):
        shared = None  # Redis has lost what they had in common
    if shared is not None and found.mark.head.version == shared.version:
        return found._replace(relation=Relation.SAME)
    if shared is not None and view.head == Head(shared.version, shared.txid):
        return found._replace(relation=Relation.AHEAD)
    return found if has_policy else found._replace(relation=Relation.EMPTY)


def move_in(path: Path, log: FleetLog, instead: str = "") -> Situation:
    """Have the fleet's policy be this host's, and this host's file a copy of it.

    Args:
        path: the host's file.
        log: of the fleet.
        instead: id of a fleet that is in the way and given up.

    Returns:
        How it was before.

    Raises:
        ConflictError: the fleet has another policy already, or Redis lost it. Nothing was changed.
        StoreUnavailable, StoreError: as for `look_at`, and `upload_snapshot`.
    """
    found = look_at(path, log)
    named = bool(instead) and found.view is not None and found.view.identifier == instead
    match found.relation:
        case Relation.NEW:
            upload_snapshot(path, log)
        case Relation.AHEAD:
            assert found.view is not None
            upload_snapshot(path, log, found.view.identifier, found.view.head)
        case Relation.SAME:
            _take_up(path, found)
            Replica(path, log).catch_up()
        case Relation.COPY | Relation.EMPTY:
            Replica(path, log).catch_up()
        case Relation.OWN if named:
            upload_snapshot(path, log, instead)
        case _:
            raise ConflictError(why_not(path, log, found))
    return found


def why_not(path: Path, log: FleetLog, found: Situation) -> str:
    """What to say where a policy cannot be moved as things are."""
    match found.relation:
        case Relation.LOST:
            return (
                f"{log.name}: there is none, and {path} is a copy of one, of version {found.mark.head.version}. Where "
                "this Redis has lost its data, or is a new one, bring it back: 'shaken fleet restore'"
            )
        case Relation.ANOTHER:
            return (
                f"{log.name}: {path} is a copy of another fleet, or of this one before it was begun anew; the agent "
                "takes the new one over and keeps the old copy beside it"
            )
    identifier = found.view.identifier if found.view else ""
    return (
        f"{log.name}: has a policy already (id {identifier}), and {path} has another. Have this host give its own up "
        f"('shaken fleet join'), or the whole fleet that of the fleet ('shaken fleet move --instead-of {identifier}')"
    )


def _take_up(path: Path, found: Situation) -> None:
    assert found.shared is not None
    with writing(path) as connection:
        if read_mark(connection, path) == found.mark:
            be_a_copy(connection, found.shared)
            connection.execute("COMMIT")


def join(path: Path, log: FleetLog) -> Situation:
    """Give up a policy of the host's own for the fleet's; it is kept beside the file.

    Returns:
        How it was before.

    Raises:
        StoreUnavailable, StoreError: as for `look_at` and `Replica.catch_up`; then nothing was changed.
    """
    found = look_at(path, log)
    Replica(path, log).advance(give_up=True)
    return found


def restore(path: Path, log: FleetLog) -> Situation:
    """Bring a fleet back from this host's copy into a Redis that has it no more.

    Returns:
        How it was before; a copy of a fleet that is there is not touched.

    Raises:
        ConflictError: there is nothing to be brought back, or another fleet is there.
        StoreUnavailable, StoreError: as for `look_at` and `upload_snapshot`.
    """
    found = look_at(path, log)
    if found.relation is Relation.LOST:
        upload_snapshot(path, log)
    elif found.relation is Relation.NEW:
        raise ConflictError(f"{path}: is no copy of a fleet; 'shaken fleet move' begins one with its policy")
    elif found.relation is not Relation.COPY:
        raise ConflictError(f"{log.name}: there is one already, and {path} is no copy of it; nothing was changed")
    return found


def let_go(path: Path) -> Mark:
    """Have this host keep a policy of its own, as its copy is now, where there is no Redis any more to ask.

    Returns:
        What the file was a copy of; of no fleet where it was none.

    Raises:
        StoreError: the file cannot be written.
    """
    with writing(path) as connection:
        mark = read_mark(connection, path)
        if mark.fleet is not None:
            be_its_own(connection, Shared(mark.fleet, *mark.head))
            connection.execute("COMMIT")
        return mark


def move_out(path: Path, log: FleetLog) -> Situation:
    """Have this host keep a policy of its own, as the fleet's is now. The fleet stays as it is.

    Returns:
        How it was before.

    Raises:
        ConflictError: the host has no copy of this fleet.
        StoreUnavailable: Redis cannot be had, so that nobody knows whether the copy is at the head.
        StoreError: as for `Replica.catch_up`, or the fleet changes all the time.
    """
    found = look_at(path, log)
    if found.relation is Relation.SAME or found.relation is Relation.AHEAD:
        return found  # out already
    if found.relation is not Relation.COPY:
        raise ConflictError(f"{path}: is no copy of {log.name}; nothing was changed")
    for _ in range(_TRIES):
        Replica(path, log).catch_up()
        with writing(path) as connection:
            view = log.look()
            if read_mark(connection, path) == Mark(view.identifier, view.head):
                be_its_own(connection, Shared(view.identifier, *view.head))
                connection.execute("COMMIT")
                return found
    raise ConflictError(f"{log.name}: it is being changed all the time; nothing was changed, try again")
