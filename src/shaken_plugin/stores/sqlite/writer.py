"""Changing the policy in the store's file, and looking back at it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from shaken_plugin.core.records import Record
from shaken_plugin.errors import StoreChanged, StoreError, StoreUnavailable
from shaken_plugin.ports import Author, Change, PolicyDraft, PolicyRecords
from shaken_plugin.sqlitefile import connect
from shaken_plugin.stores.policy import KIND_NAMES, Policy
from shaken_plugin.stores.replacing import fill
from shaken_plugin.stores.snapshot import Snapshot
from shaken_plugin.stores.sqlite.draft import SqliteDraft
from shaken_plugin.stores.sqlite.records import SqliteRecords
from shaken_plugin.stores.sqlite.repair import repair
from shaken_plugin.stores.sqlite.schema import (
    DAMAGE,
    begin,
    check_schema,
    cut_log,
    make_tables,
    meta,
    open_writer,
    set_meta,
)

_CHANGE: Final = "SELECT version, at, who, why, what FROM change"

_OWNER: Final = "owner = (SELECT number FROM owner WHERE kind = :kind AND id = :id)"
_TOUCHED: Final = "SELECT version FROM ({}) WHERE version IS NOT NULL".format(
    " UNION ".join(
        f"SELECT {bound} AS version FROM {table}"
        for table in (
            "record WHERE kind = :kind AND id = :id",
            f"span WHERE {_OWNER}",
            f"number WHERE span = 0 AND {_OWNER}",
        )
        for bound in ("since", "until")
    )
)
"""Versions with which anything of a record began or ended."""

_DAMAGED: Final = "its content is damaged; restore it, or remove it and run 'shaken apply'"

READER_TIMEOUT: Final = 2.0
"""Seconds that a tool waits for a lock, where a call would not."""


class SqlitePolicy:
    """A `ports.PolicyWriter` in a file, which is made where there is none.

    Connections are opened for each use and closed after it. `change` holds the lock of writers from its
    beginning; calls and other readers go on reading what was in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def change(self, author: Author, what: str) -> Iterator[PolicyDraft]:
        """See `ports.PolicyWriter`."""
        with writing(self._path) as connection:
            must_be_its_own(connection, self._path)
            draft = SqliteDraft(connection, _version(connection, self._path) + 1)
            yield draft
            if draft.rows:
                # No file says anything of keys: applied later it undoes nothing where they alone changed.
                applied = draft.rows == draft.material_rows
                record_change(connection, draft.version, author, what, applied=applied)
                connection.execute("COMMIT")

    @contextmanager
    def records(self, version: int | None = None) -> Iterator[PolicyRecords]:
        """See `ports.PolicyWriter`."""
        with self._reading() as connection:
            # A change that was taken back leaves a file with nothing in it: the policy before the first.
            newest, oldest = _versions(connection, self._path) if policy_known(connection, self._path) else (0, 0)
            wanted = newest if version is None else version
            if not oldest <= wanted <= newest:
                raise StoreError(f"{self._path}: there is no version {wanted}; it has {oldest} to {newest}")
            yield SqliteRecords(connection, wanted) if newest else Snapshot(0)

    def changes(self, since: int = 0, until: int | None = None) -> Iterator[Change]:
        """See `ports.PolicyWriter`."""
        with self._reading() as connection:
            if policy_known(connection, self._path):
                last = 2**62 if until is None else until
                query = f"{_CHANGE} WHERE version > ? AND version <= ? ORDER BY version"
                for row in connection.execute(query, (since, last)):
                    yield Change(*row)

    def changes_of(self, *named: tuple[type[Record], str]) -> Iterator[Change]:
        """See `ports.PolicyWriter`."""
        with self._reading() as connection:
            if policy_known(connection, self._path):
                versions: set[int] = set()
                for kind, identifier in named:
                    which = {"kind": KIND_NAMES[kind], "id": identifier}
                    versions.update(version for (version,) in connection.execute(_TOUCHED, which))
                for version in sorted(versions, reverse=True):
                    for row in connection.execute(f"{_CHANGE} WHERE version = ?", (version,)):
                        yield Change(*row)

    def version_at(self, moment: float) -> int:
        """See `ports.PolicyWriter`."""
        with self._reading() as connection:
            if not policy_known(connection, self._path):
                return 0
            query = "SELECT coalesce(max(version), 0) FROM change WHERE at <= ?"
            return int(connection.execute(query, (moment,)).fetchone()[0])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not os.path.lexists(self._path):  # SQLite says that it cannot open it, and not why
            raise StoreUnavailable(f"{self._path}: there is no store yet; the first change makes it ('shaken apply')")
        try:
            with closing(connect(self._path, READER_TIMEOUT)) as connection:
                connection.execute("PRAGMA query_only = 1")
                connection.execute("BEGIN")
                yield connection
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"{self._path}: {exc}") from exc


class InForce(NamedTuple):
    """What `replace_policy` did."""

    version: int
    """The policy version that is in force now."""
    notes: tuple[str, ...] = ()
    """What stayed otherwise than the policy says, for people."""


FILES: Final = Author("file", "put in force", 0.0)
"""Whoever puts files in force and says no more of it."""


def replace_policy(
    path: Path,
    policy: Policy | None,
    settings: dict[str, Any] | None,
    digests: dict[str, str],
    author: Author = FILES,
    *,
    origin: str = "",
    overwrite: bool = True,
    mend: bool = False,
) -> InForce:
    """Put a whole policy and the settings in force, in one transaction, by the changes that it takes.

    Args:
        path: the file, made if it is not there.
        policy: the records; None keeps those that are in force.
        settings: checked settings as plain values.
        digests: SHA-256 of each file this comes from, by path.
        author: who puts it in force.
        origin: where it comes from, for the history.
        overwrite: False refuses to undo what was changed otherwise since the last time.
        mend: also look for what was written to the file past us, see `repair`; makes a new version in any case.

    Raises:
        StoreChanged: the policy was changed otherwise, and ``overwrite`` does not allow to undo it.
        ConflictError, NumberError: the policy contradicts itself.
        StoreError: the file cannot be written, is of another schema, or a copy of a fleet's policy.
    """
    with writing(path) as connection:
        before = _version(connection, path)
        must_be_its_own(connection, path)
        if mend:
            repair(connection, before)
        draft, notes = SqliteDraft(connection, before + 1), []
        if policy is not None:
            notes = fill(draft, policy)
            if draft.rows and not overwrite:
                refuse_foreign(connection, path)
        kept = _meta(connection, path)
        same_settings = "settings" in kept and kept["settings"] == settings
        version = before + bool(draft.rows or not same_settings or mend)
        if version > before:
            parts = [
                "" if same_settings else "settings",
                draft.summary() if draft.rows else "",
                "mended" if mend else "",
            ]
            what = ": ".join(filter(None, (origin, ", ".join(filter(None, parts)))))
            record_change(connection, version, author, what, applied=True)
        if not same_settings:
            set_meta(connection, settings=settings, settings_version=version)
        if policy is not None:
            set_meta(connection, applied_version=version)
        set_meta(connection, digests=digests)
        connection.execute("COMMIT")
        return InForce(version, tuple(notes))


def put_settings(path: Path, settings: dict[str, Any], digests: dict[str, str]) -> int:
    """Put settings in force and leave the policy alone: in a fleet that is shared, and settings are each host's own.

    Args:
        path: the file, made if it is not there.
        settings: checked settings as plain values.
        digests: SHA-256 of each file that is in force, by path.

    Returns:
        The policy version that is in force, as before.

    Raises:
        StoreError: the file cannot be written, or is of another schema.
    """
    with writing(path) as connection:
        kept = _meta(connection, path)
        if kept.get("settings") != settings:
            # No version of the policy comes with them, but whoever looks must see that they are others.
            set_meta(connection, settings=settings, settings_version=int(kept.get("settings_version", 0)) + 1)
        set_meta(connection, digests=digests)
        connection.execute("COMMIT")
        return _version(connection, path)


def differs(path: Path, policy: Policy) -> bool:
    """Whether a policy, put in force here, would change anything; nothing is changed.

    Raises:
        ConflictError, NumberError: the policy contradicts itself.
        StoreError: the file cannot be locked now, or is of another schema.
    """
    with writing(path) as connection:
        draft = SqliteDraft(connection, _version(connection, path) + 1)
        fill(draft, policy)
        return bool(draft.rows)


def remember_state(path: Path, identifier: str, instead: Author | None = None, *, shared: bool = False) -> None:
    """Remember which state file belongs to this policy; the first that was made stays it.

    Args:
        path: the policy's file.
        identifier: the state file's id.
        instead: whoever gives up the one that was remembered, and takes this one in its place.
        shared: the policy is a fleet's: a host cannot make a version of it that says so.

    Raises:
        StoreError: the file cannot be written now.
    """
    with writing(path) as connection:
        kept = _meta(connection, path)
        if instead is not None and not shared:
            what = "state file made anew: nobody is suspended by it"
            # Files that are applied later undo nothing of it.
            record_change(connection, _version(connection, path) + 1, instead, what, applied=True)
        elif instead is None and kept.get("state_id") is not None:
            return
        set_meta(connection, state_id=identifier)
        connection.execute("COMMIT")


def refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Raise where the policy was changed by other means since files were last put in force."""
    applied = _meta(connection, path).get("applied_version", 0)
    row = connection.execute(
        f"{_CHANGE} WHERE version > ? AND NOT applied ORDER BY version DESC LIMIT 1", (applied,)
    ).fetchone()
    if row is not None:
        last = Change(*row)
        raise StoreChanged(
            f"{path}: the policy was changed otherwise since files were put in force (version {last.version}, by "
            f"{last.who}: {last.why}), and the file does not say so; see 'shaken policy diff', take it over with "
            "'shaken export', or give it up with 'shaken apply --overwrite'"
        )


def record_change(connection: sqlite3.Connection, version: int, author: Author, what: str, *, applied: bool) -> None:
    """Note who made a version, and put it in force."""
    row = (version, author.at, author.who, author.why, what, applied)
    connection.execute("INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)", row)
    set_meta(connection, policy_version=version)


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in a writing transaction, with the tables made; what is not committed is undone.

    Raises:
        StoreError: the file cannot be written now, or is of another schema.
    """
    try:
        with closing(open_writer(path)) as connection:
            begin(connection, path)
            if check_schema(connection, path) == 0:
                make_tables(connection)
            yield connection
            cut_log(connection)
    except sqlite3.Error as exc:
        raise StoreError(f"{path}: cannot be written: {exc}") from exc


def must_be_its_own(connection: sqlite3.Connection, path: Path) -> None:
    """Raise where a file is a copy of what a fleet shares: what is changed in it alone would be on no other host.

    Raises:
        StoreError: it is.
    """
    if _meta(connection, path).get("fleet_id") is not None:
        raise StoreError(
            f"{path}: is a copy of a fleet's policy, which is changed through Redis: name it in the settings "
            "(store.redis), or take this host out of the fleet first ('shaken fleet move --to embedded')"
        )


def policy_known(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether anything was ever written to the file."""
    return check_schema(connection, path) != 0


def _meta(connection: sqlite3.Connection, path: Path) -> dict[str, Any]:
    try:
        return meta(connection)
    except DAMAGE as exc:
        raise StoreError(f"{path}: {_DAMAGED}") from exc


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = _meta(connection, path).get("policy_version")
    if not isinstance(version, int):
        raise StoreError(f"{path}: {_DAMAGED}")
    return version


def _versions(connection: sqlite3.Connection, path: Path) -> tuple[int, int]:
    """The version in force, and the oldest that is kept."""
    return _version(connection, path), int(_meta(connection, path).get("oldest_version", 0))
