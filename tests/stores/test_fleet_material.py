"""Keys and trust anchors of a fleet: through Redis into every host's copy, also one of a neighbouring schema."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shaken_plugin.certs.credentials import key_der
from shaken_plugin.certs.sealing import Kek, Keyring, open_, seal
from shaken_plugin.core.material import Material, StoredAnchors, StoredPair
from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.errors import StoreChanged, StoreError
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.ports import Author
from shaken_plugin.stores.migrations import migrate, plan
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.pieces import Damaged
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.upkeep import renew_snapshot, upload_snapshot
from shaken_plugin.stores.sqlite import SCHEMA_VERSION, SqlitePolicy, SqliteStore, put_settings
from shaken_plugin.stores.sqlite.material import MaterialFile
from shaken_plugin.stores.sqlite.upkeep import POLICY
from tests.conftest import NOW
from tests.services.builders import SPC
from tests.stores.test_neighbours import SCHEMA_2
from tests.stores.test_sqlite import raw

ANNA = Author("anna", "ticket 4711", NOW)
KEY = StoredPair("main-2026", "main", "aes256gcm-1:x", "PEM\n", "https://a.example/1.pem", 5.5)
ROOTS = StoredAnchors("us", "PEM\n")
ACME = Customer("acme", "Acme", CustomerState.VERIFIED)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    # Not compressed, so that a test finds what is in the dump.
    with RedisServer("redis", tmp_path_factory.mktemp("redis"), {"rdbcompression": "no"}) as running:
        yield running


@pytest.fixture
def log(server: RedisServer) -> Iterator[FleetLog]:
    made = FleetLog(server.access, f"t{uuid.uuid4().hex[:20]}")
    yield made
    made.close()


@pytest.fixture
def here(tmp_path: Path, log: FleetLog) -> RedisPolicy:
    """The host that begins the fleet, with keys of its own."""
    path = tmp_path / "here.db"
    put(SqlitePolicy(path), KEY, ROOTS)
    upload_snapshot(path, log)
    return RedisPolicy(path, log)


def put(policy: SqlitePolicy | RedisPolicy, *material: Material) -> None:
    with policy.change(ANNA, "keys") as draft:
        for one in material:
            draft.put_material(one)


def remove(policy: RedisPolicy, name: str) -> None:
    with policy.change(ANNA, "key removed") as draft:
        draft.remove_material(StoredPair, name)


def older(path: Path) -> Path:
    """A host's file of the schema before."""
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.executescript(SCHEMA_2)
    return path


def schema(path: Path) -> int:
    with raw(path) as other:
        return int(other.execute("PRAGMA user_version").fetchone()[0])


# --- Hosts that join ------------------------------------------------------------------------------


def test_a_host_that_joins_gets_what_the_first_began_with_and_what_came_since(
    tmp_path: Path, log: FleetLog, here: RedisPolicy
) -> None:
    there = tmp_path / "there.db"
    Replica(there, log).catch_up()
    assert MaterialFile(there).material() == (ROOTS, KEY)
    more = StoredPair("main-2027", "main", "aes256gcm-1:y", "PEM\n", "https://a.example/2.pem")
    put(here, more)
    remove(here, "main-2026")
    with here.change(ANNA, "customer") as draft:
        draft.put(ACME)
    Replica(there, log).catch_up()
    third = tmp_path / "third.db"
    Replica(third, log).catch_up()
    renew_snapshot(third, log)
    fourth = tmp_path / "fourth.db"
    Replica(fourth, log).catch_up()
    for path in (tmp_path / "here.db", there, third, fourth):
        assert MaterialFile(path).material() == (ROOTS, more)
        head = log.head()
        assert MaterialFile(path).version() == (head.version, json.dumps(head.txid))


def test_a_fleet_that_lost_redis_gets_its_keys_back_from_a_host(
    tmp_path: Path, log: FleetLog, here: RedisPolicy, server: RedisServer
) -> None:
    with server.client() as client:
        client.flushall()
    with pytest.raises(StoreError, match="has lost its data"):
        put(here, ROOTS)
    upload_snapshot(tmp_path / "here.db", log)
    Replica(tmp_path / "there.db", log).catch_up()
    assert MaterialFile(tmp_path / "there.db").material() == (ROOTS, KEY)


# --- The file of an operator ----------------------------------------------------------------------


def test_a_change_of_keys_is_nothing_that_a_file_undoes_on_any_host(
    tmp_path: Path, log: FleetLog, here: RedisPolicy
) -> None:
    there = RedisPolicy(tmp_path / "there.db", log)
    policy = Policy(customers=(ACME,))
    here.replace_policy(policy, ANNA, overwrite=False)
    put(here, StoredAnchors("us", "PEM 2\n"))
    there.replica.catch_up()
    other = Policy(customers=(ACME, Customer("beta", "Beta", CustomerState.PENDING)))
    there.replace_policy(other, ANNA, overwrite=False)
    # What a person changed in the records is, although keys were changed since.
    with here.change(ANNA, "customer") as draft:
        draft.put(Customer("gamma", "Gamma", CustomerState.PENDING))
    remove(here, "main-2026")
    there.replica.catch_up()
    for one in (there, here):
        with pytest.raises(StoreChanged, match="by anna: ticket 4711"):
            one.replace_policy(policy, ANNA, overwrite=False)


# --- Hosts of the schema before and after ---------------------------------------------------------


def test_a_host_with_a_file_of_the_schema_before_joins_once_it_is_migrated(
    tmp_path: Path, log: FleetLog, here: RedisPolicy
) -> None:
    # The release before knows no fleets: such a file is one of an embedded installation, and its workers may be old.
    path = older(tmp_path / "older.db")
    replica = Replica(path, log)
    with pytest.raises(StoreError, match="run 'shaken store migrate' first"):
        replica.advance(give_up=True)
    assert schema(path) == 2
    worker = SqliteStore(path)
    assert worker.facts(None, None, None).version == 3
    planned = plan(path, POLICY)
    assert planned is not None
    migrate(planned, ANNA)
    replica.advance(give_up=True)
    assert MaterialFile(path).material() == (ROOTS, KEY)
    assert worker.facts(None, None, None).version == log.head().version


def test_a_copy_that_the_next_release_brought_up_is_followed_and_never_built_anew(
    tmp_path: Path, log: FleetLog, here: RedisPolicy
) -> None:
    path = tmp_path / "newer.db"
    replica = Replica(path, log)
    replica.catch_up()
    with raw(path) as other:
        other.execute("CREATE TABLE promise (key TEXT)")
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    put(here, StoredAnchors("more", "PEM\n"))
    assert replica.catch_up() == log.head().version
    assert MaterialFile(path).material() == (StoredAnchors("more", "PEM\n"), ROOTS, KEY)
    with raw(path) as other:
        other.execute("INSERT OR REPLACE INTO meta VALUES ('fleet_txid', '\"another\"')")
    with pytest.raises(StoreError, match=f"schema version {SCHEMA_VERSION + 1} is newer"):
        replica.catch_up()
    with raw(path) as other:
        assert other.execute("SELECT count(*) FROM promise").fetchone() == (0,)


def test_keys_of_another_version_of_the_same_number_are_looked_at_anew(
    tmp_path: Path, log: FleetLog, here: RedisPolicy
) -> None:
    # A failover of Redis may have lost the version, and another one bears its number since.
    replica = Replica(tmp_path / "copy.db", log)
    replica.catch_up()
    keys = MaterialFile(tmp_path / "copy.db")
    before = keys.version()
    assert keys.version() == before
    with raw(tmp_path / "copy.db") as other:
        other.execute("UPDATE meta SET value = '\"another\"' WHERE key = 'fleet_txid'")
    assert keys.version() != before


# --- What cannot be -------------------------------------------------------------------------------


def test_names_that_no_release_gave_are_refused(tmp_path: Path, log: FleetLog, here: RedisPolicy) -> None:
    for name in ("key", "key/", "other/name", ""):
        log.command("HSET", log.key("material"), name, "{}")
        with pytest.raises(Damaged, match="no name of keys or trust anchors"):
            Replica(tmp_path / "there.db", log).catch_up()
        log.command("HDEL", log.key("material"), name)
    Replica(tmp_path / "there.db", log).catch_up()


def test_redis_has_no_byte_of_a_key_and_no_history_of_what_was_sealed(
    tmp_path: Path, log: FleetLog, here: RedisPolicy, server: RedisServer, authority: Authority
) -> None:
    ring, name = Keyring(Kek(bytes(range(100, 132)))), "main-2028"
    issued = authority.issue(spc=SPC, now=NOW)
    key = key_der(issued.key)
    sealed = [seal(ring, name, key) for _ in range(2)]
    for one in sealed:
        put(here, StoredPair(name, "main", one, issued.chain.decode(), "https://a.example/3.pem"))
    Replica(tmp_path / "there.db", log).catch_up()
    server.command("SAVE")
    dump = (server.config.parent / "dump.rdb").read_bytes()
    private = load_pem_private_key(issued.key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    scalar = private.private_numbers().private_value.to_bytes(32)
    assert sealed[1].encode() in dump
    for needle in (key, scalar, scalar.hex().encode(), issued.key.splitlines()[1], sealed[0].encode()):
        assert needle not in dump
    (found,) = [one for one in MaterialFile(tmp_path / "there.db").material() if one.name == name]
    assert isinstance(found, StoredPair)
    assert open_(ring, name, found.sealed) == key


def test_settings_put_in_force_in_a_copy_leave_its_keys(tmp_path: Path, log: FleetLog, here: RedisPolicy) -> None:
    put_settings(tmp_path / "here.db", {"signing": {"mode": "off"}}, {})
    assert MaterialFile(tmp_path / "here.db").material() == (ROOTS, KEY)


# --- What is left in files ------------------------------------------------------------------------


def left(path: Path, sealed: str) -> list[str]:
    """The files of a store that have a sealed key in them."""
    return [file.name for file in path.parent.glob(f"{path.name}*") if sealed.encode() in file.read_bytes()]


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_key_that_went_is_not_left_in_the_log_that_workers_keep_open(tmp_path: Path, how: str) -> None:
    policy, path = SqlitePolicy(tmp_path / "policy.db"), tmp_path / "policy.db"
    sealed = "aes256gcm-1:" + "gone" * 20
    with closing(sqlite3.connect(path)) as worker:  # while it is there nobody else takes the log away
        put(policy, StoredPair("main-2025", "main", sealed, "PEM\n", KEY.x5u))
        worker.execute("SELECT count(*) FROM material").fetchall()
        assert left(path, sealed)
        with policy.change(ANNA, how) as draft:
            if how == "removed":
                draft.remove_material(StoredPair, "main-2025")
            else:
                draft.put_material(StoredPair("main-2025", "main", "aes256gcm-1:other", "PEM\n", KEY.x5u))
        assert left(path, sealed) == []
        assert len(worker.execute("SELECT * FROM material").fetchall()) == (how == "replaced")


def test_a_reader_in_the_middle_of_the_log_keeps_no_change_waiting(tmp_path: Path) -> None:
    policy, path = SqlitePolicy(tmp_path / "policy.db"), tmp_path / "policy.db"
    put(policy, KEY)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        assert len(reader.execute("SELECT * FROM material").fetchall()) == 1
        begun = time.monotonic()
        with policy.change(ANNA, "removed") as draft:
            draft.remove_material(StoredPair, KEY.name)
        assert time.monotonic() - begun < 1.5
        assert len(reader.execute("SELECT * FROM material").fetchall()) == 1
        reader.execute("ROLLBACK")
        assert reader.execute("SELECT * FROM material").fetchall() == []


def test_no_copy_of_a_fleet_has_a_key_that_went(tmp_path: Path, log: FleetLog, here: RedisPolicy) -> None:
    sealed = "aes256gcm-1:" + "gone" * 20
    paths = (tmp_path / "here.db", tmp_path / "there.db")
    there = Replica(paths[1], log)
    there.catch_up()
    with closing(sqlite3.connect(paths[0])) as one, closing(sqlite3.connect(paths[1])) as other:
        put(here, StoredPair("main-2025", "main", sealed, "PEM\n", "https://a.example/0.pem"))
        there.catch_up()
        for worker, path in zip((one, other), paths, strict=True):
            worker.execute("SELECT count(*) FROM material").fetchall()
            assert left(path, sealed)
        remove(here, "main-2025")
        there.catch_up()
        assert [left(path, sealed) for path in paths] == [[], []]
