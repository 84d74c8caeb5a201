"""The embedded policy store: one local SQLite file in WAL mode, many readers, one writer.

Readers see a change as soon as its transaction ends, and never wait for a writer. Connections
open lazily in the process and thread that use them: a connection must not cross a fork. No read
transaction outlives a call. The file is made by `create`, readers never make one.

The file also carries the settings that were checked with the policy, so that a worker can take
them at a reload without parsing YAML.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, NumberRight, PolicyFacts, Trunk
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.stores.policy import Policy, address_keys, network_key, number_keys, right_keys

SCHEMA_VERSION: Final = 1
"""Version of the tables below; a file with a newer one is refused."""

BUSY_TIMEOUT: Final = 0.02
"""Seconds a reader waits for a lock. A call must not; Python's default is 5."""

WRITER_TIMEOUT: Final = 10.0
"""Seconds the writing command waits for another writer."""

MAX_SOURCES: Final = 4_096
"""Sources (address and user) remembered per process between two policy versions."""

FILE_MODE: Final = 0o660
"""The switch's user and the administrator's group both read and write (WAL needs both)."""

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
_COVERING = """
SELECT r.customer, r.first, r.last, r.basis, r.document, r.use_case, r.valid_from, r.valid_until
FROM number_key AS k JOIN number_right AS r ON r.id = k.id
WHERE k.key IN ({}) ORDER BY length(k.key) DESC, r.id
"""
_CONTENT = ("number_key", "number_right", "source_user", "source_address", "gateway", "trunk", "customer")


class Header(NamedTuple):
    """What the file says about its content."""

    policy_version: int
    settings: dict[str, Any] | None
    """The checked settings as plain values; secrets are references, never the secrets."""
    digests: dict[str, str]
    """SHA-256 of each file this was compiled from, by path."""


class _Index(NamedTuple):
    """What a reader must know of the content before it can ask for a call's records."""

    version: int
    bits: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    sources: Bounded[tuple[str | None, str | None], tuple[Trunk | Gateway | None]]


def create(path: Path) -> None:
    """Make an empty store where there is none; WAL mode stays with the file.

    Raises:
        StoreError: the folder cannot be written to.
    """
    if path.exists():
        return
    try:
        # SQLite gives its own files 0644 minus the umask, and the -wal and -shm beside them the
        # mode of the main file: so the mode is set here, once.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        os.fchmod(descriptor, FILE_MODE)
        os.close(descriptor)
    except FileExistsError:
        return
    except OSError as exc:
        raise StoreError(f"{path}: cannot be created: {exc.strerror}") from exc
    with closing(_connect(path, WRITER_TIMEOUT)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    # mode=rw: a missing file is an error here, not an empty database.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)


def _check_schema(connection: sqlite3.Connection, path: Path) -> int:
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
        with closing(_connect(path, WRITER_TIMEOUT)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if _check_schema(connection, path) == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                _set_meta(connection, policy_version=0, network_bits=[], prefix_lengths=[])
            version = int(_meta(connection)["policy_version"]) + 1
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


def _meta(connection: sqlite3.Connection) -> dict[str, Any]:
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
        with closing(_connect(path, BUSY_TIMEOUT)) as connection:
            if _check_schema(connection, path) == 0:
                raise StoreUnavailable(f"{path}: no policy in it yet; run 'shaken apply'")
            meta = _meta(connection)
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: {exc}") from exc
    return Header(meta["policy_version"], meta["settings"], meta["digests"])


class SqliteStore:
    """Answers from a file that `replace_policy` wrote.

    Args:
        path: the file. It need not exist yet: until it does, every question fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def facts(self, source: str | None, user: str | None, number: str | None) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                index = self._index(connection)
                known = index.sources.get((source, user))
                if known is None:
                    known = (_source(connection, index.bits, source, user),)
                    index.sources.put((source, user), known)
                rights = () if number is None else _rights(connection, number_keys(number, index.lengths))
            finally:
                connection.execute("COMMIT")
        except (sqlite3.Error, StoreError) as exc:
            self._forget()
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        return PolicyFacts(known[0], rights, index.version)

    def _connection(self) -> sqlite3.Connection:
        local = self._local
        if getattr(local, "pid", None) != os.getpid():
            # First use in this thread, or the first after a fork. What was opened before the
            # fork is left alone: closing it here would drop the parent's locks.
            connection = _connect(self._path, BUSY_TIMEOUT)
            connection.execute("PRAGMA query_only = 1")
            if _check_schema(connection, self._path) == 0:
                connection.close()
                raise StoreError("no policy in it yet; run 'shaken apply'")
            local.connection, local.pid, local.index = connection, os.getpid(), None
        return local.connection  # type: ignore[no-any-return]  # threading.local is untyped

    def _forget(self) -> None:
        """Close the connection, so that a file put in place of a broken one is found."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.pid = None
            self._local.connection.close()

    def _index(self, connection: sqlite3.Connection) -> _Index:
        index: _Index | None = self._local.index
        (text,) = connection.execute("SELECT value FROM meta WHERE key = 'policy_version'").fetchone()
        version = int(text)
        if index is None or index.version != version:
            meta = _meta(connection)
            index = _Index(
                version,
                tuple((family, bits) for family, bits in meta["network_bits"]),
                tuple(meta["prefix_lengths"]),
                Bounded(MAX_SOURCES),
            )
            self._local.index = index
        return index


def _source(
    connection: sqlite3.Connection, bits: Iterable[tuple[int, int]], source: str | None, user: str | None
) -> Trunk | Gateway | None:
    if user is not None:
        row = connection.execute("SELECT trunk FROM source_user WHERE name = ?", (user,)).fetchone()
        if row is not None:
            return _trunk(connection, row[0])
    for key in address_keys(source or "", bits):
        row = connection.execute("SELECT kind, id FROM source_address WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return _trunk(connection, row[1]) if row[0] == "trunk" else _gateway(connection, row[1])
    return None


def _trunk(connection: sqlite3.Connection, trunk: str) -> Trunk:
    row = connection.execute(
        "SELECT t.id, t.credential, c.id, c.name, c.state, c.ceiling, c.credential, c.origid "
        "FROM trunk AS t JOIN customer AS c ON c.id = t.customer WHERE t.id = ?",
        (trunk,),
    ).fetchone()
    if row is None:
        raise StoreError(f"trunk {trunk} is named but not there; run 'shaken apply' again")
    customer = Customer(row[2], row[3], CustomerState(row[4]), row[5] and Attest(row[5]), row[6], row[7])
    return Trunk(row[0], customer, row[1])


def _gateway(connection: sqlite3.Connection, gateway: str) -> Gateway:
    row = connection.execute("SELECT id, name, credential FROM gateway WHERE id = ?", (gateway,)).fetchone()
    if row is None:
        raise StoreError(f"gateway {gateway} is named but not there; run 'shaken apply' again")
    return Gateway(*row)


def _rights(connection: sqlite3.Connection, keys: list[str]) -> tuple[NumberRight, ...]:
    marks = ",".join("?" * len(keys))
    rows = connection.execute(_COVERING.format(marks), keys).fetchall()
    return tuple(NumberRight(row[0], row[1], row[2], Basis(row[3]), *row[4:]) for row in rows)
