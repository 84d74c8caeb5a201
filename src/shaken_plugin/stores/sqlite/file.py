"""The store's file: its schema, who may open it, and putting a whole policy in force."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from shaken_plugin.core.records import Trunk
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.sqlitefile import BUSY_TIMEOUT, connect, create
from shaken_plugin.stores.policy import Policy, network_key, right_keys

SCHEMA_VERSION: Final = 1
"""Version of the tables below; a file with a newer one is refused."""

WRITER_TIMEOUT: Final = 10.0
"""Seconds the writing command waits for another writer."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE customer (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, ceiling TEXT, credential TEXT, origid TEXT
) WITHOUT ROWID;
CREATE TABLE trunk (
    id TEXT PRIMARY KEY, customer TEXT NOT NULL REFERENCES customer (id), credential TEXT
) WITHOUT ROWID;
CREATE TABLE gateway (id TEXT PRIMARY KEY, name TEXT NOT NULL, credential TEXT) WITHOUT ROWID;
CREATE TABLE source_address (key TEXT PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE source_user (name TEXT PRIMARY KEY, trunk TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE number_right (
    id INTEGER PRIMARY KEY, customer TEXT NOT NULL REFERENCES customer (id),
    first TEXT NOT NULL, last TEXT NOT NULL, basis TEXT NOT NULL,
    document TEXT, use_case TEXT, valid_from REAL, valid_until REAL
);
CREATE TABLE number_key (key TEXT, id INTEGER REFERENCES number_right (id), PRIMARY KEY (key, id)) WITHOUT ROWID;
"""
DAMAGE = (ValueError, TypeError, LookupError)
"""What reading a value raises that this release never wrote."""
_CONTENT = ("number_key", "number_right", "source_user", "source_address", "gateway", "trunk", "customer")


class Header(NamedTuple):
    """What the file says about its content."""

    policy_version: int
    settings: dict[str, Any] | None
    """The checked settings as plain values; secrets are references, never the secrets."""
    digests: dict[str, str]
    """SHA-256 of each file this was compiled from, by path."""


def check_schema(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of an open file, 0 for an empty one.

    Raises:
        StoreError: it is newer than this release knows.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema version {version} is newer than this release knows ({SCHEMA_VERSION}); "
            "install the release that wrote it"
        )
    return version


def replace_policy(path: Path, policy: Policy | None, settings: dict[str, Any] | None, digests: dict[str, str]) -> int:
    """Put a whole policy and the settings in force, in one transaction.

    Args:
        path: the file, made if it is not there.
        policy: the records; None keeps those that are in force.
        settings: checked settings as plain values.
        digests: SHA-256 of each file this comes from, by path.

    Returns:
        The new policy version.

    Raises:
        StoreError: the file cannot be written, or is of a newer schema.
    """
    create(path)
    try:
        with closing(connect(path, WRITER_TIMEOUT)) as connection:
            # It stays with the file. Here and not in `create`, because a package or an
            # administrator may have made the file, for its owner and mode.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            if check_schema(connection, path) == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                _set_meta(connection, policy_version=0, network_bits=[], prefix_lengths=[])
            version = int(meta(connection)["policy_version"]) + 1
            if policy is not None:
                for table in _CONTENT:
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608  # constants above
                _insert(connection, policy)
                _set_meta(connection, network_bits=_network_bits(policy), prefix_lengths=_prefix_lengths(connection))
            _set_meta(connection, policy_version=version, settings=settings, digests=digests)
            connection.execute("COMMIT")
            return version
    except sqlite3.Error as exc:
        raise StoreError(f"{path}: cannot be written: {exc}") from exc
    except DAMAGE as exc:
        raise StoreError(f"{path}: its content is damaged; remove it and run 'shaken apply'") from exc


def _insert(connection: sqlite3.Connection, policy: Policy) -> None:
    many = connection.executemany
    many(
        "INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?)",
        (
            (c.id, c.name, c.state.value, c.ceiling and c.ceiling.value, c.credential, c.origid)
            for c in policy.customers
        ),
    )
    many("INSERT INTO trunk VALUES (?, ?, ?)", ((t.id, t.customer.id, t.credential) for t in policy.trunks))
    many("INSERT INTO gateway VALUES (?, ?, ?)", ((g.id, g.name, g.credential) for g in policy.gateways))
    many(
        "INSERT INTO source_address VALUES (?, ?, ?)",
        (
            (network_key(network), "trunk" if isinstance(source, Trunk) else "gateway", source.id)
            for network, source in policy.addresses.items()
        ),
    )
    many("INSERT INTO source_user VALUES (?, ?)", ((name, trunk.id) for name, trunk in policy.users.items()))
    many(
        "INSERT INTO number_right VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (i, r.customer, r.first, r.last, r.basis.value, r.document, r.use_case, r.valid_from, r.valid_until)
            for i, r in enumerate(policy.rights)
        ),
    )
    many(
        "INSERT INTO number_key VALUES (?, ?)",
        ((key, i) for i, right in enumerate(policy.rights) for key in right_keys(right)),
    )


def _prefix_lengths(connection: sqlite3.Connection) -> list[int]:
    rows = connection.execute("SELECT DISTINCT length(key) - instr(key, ':') FROM number_key")
    return sorted((row[0] for row in rows), reverse=True)


def _network_bits(policy: Policy) -> list[tuple[int, int]]:
    return sorted({(network.version, network.prefixlen) for network in policy.addresses}, key=lambda pair: -pair[1])


def meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """The meta table; values are JSON."""
    return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM meta")}


def _set_meta(connection: sqlite3.Connection, **values: Any) -> None:
    rows = [(key, json.dumps(value)) for key, value in values.items()]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def read_header(path: Path) -> Header:
    """What the file says about itself.

    Raises:
        StoreUnavailable: it cannot be read, or nothing was ever compiled into it.
        StoreError: it is of a newer schema.
    """
    try:
        with closing(connect(path, BUSY_TIMEOUT)) as connection:
            if check_schema(connection, path) == 0:
                raise StoreUnavailable(f"{path}: no policy in it yet; run 'shaken apply'")
            content = meta(connection)
            return Header(int(content["policy_version"]), content["settings"], dict(content["digests"]))
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: {exc}") from exc
    except DAMAGE as exc:
        raise StoreUnavailable(f"{path}: its content is damaged: {exc!r}") from exc
