"""The embedded store: one file, seen at once by every reader, and no transaction left open."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from shaken_plugin.core.records import Customer, CustomerState, PolicyFacts, Record, Trunk
from shaken_plugin.errors import ConflictError, StoreError, StoreUnavailable
from shaken_plugin.ports import Author, PolicyStore
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.sqlite import (
    FILE_MODE,
    SCHEMA_VERSION,
    SqlitePolicy,
    SqliteStore,
    read_header,
    replace_policy,
    schema,
)
from shaken_plugin.stores.sqlite.reader import _Content
from tests.records import reached

ADDRESS = "192.0.2.1"


def policy(name: str = "one") -> Policy:
    """One customer with one trunk at `ADDRESS`, both named so."""
    customer = Customer(name, name, CustomerState.VERIFIED)
    return Policy((customer,), (reached(Trunk(name, customer), ADDRESS),))


def ask(store: PolicyStore) -> PolicyFacts:
    return store.facts(ADDRESS, None, "12155551212")


def trunk_of(facts: PolicyFacts) -> str | None:
    return facts.source.id if facts.source else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.db"


def raw(path: Path) -> closing[sqlite3.Connection]:
    """A connection of somebody else's."""
    return closing(sqlite3.connect(path, timeout=0.0, isolation_level=None))


# --- Writing ----------------------------------------------------------------------------------


def test_every_change_gets_the_next_version(path: Path) -> None:
    store = SqliteStore(path)
    for version in (1, 2, 3):
        assert replace_policy(path, policy(str(version)), None, {}) == (version, ())
        assert ask(store).version == version
        assert read_header(path).policy_version == version


def test_the_header_gives_back_settings_and_digests(path: Path) -> None:
    settings = {"signing": {"mode": "off", "list": [1, None, "ü"]}}
    replace_policy(path, policy(), settings, {"/etc/shaken/shaken.yaml": "ab12"})
    assert read_header(path)[:4] == (1, settings, {"/etc/shaken/shaken.yaml": "ab12"}, 1)


def test_no_policy_keeps_the_records_and_replaces_the_settings(path: Path) -> None:
    replace_policy(path, policy(), {"a": 1}, {"x": "1"})
    assert replace_policy(path, None, {"b": 2}, {}).version == 2
    assert trunk_of(ask(SqliteStore(path))) == "one"
    assert read_header(path)[:4] == (2, {"b": 2}, {}, 2)


def test_what_is_in_force_already_is_no_new_version_and_changes_no_row(path: Path) -> None:
    replace_policy(path, policy(), {"a": 1}, {"x": "1"})
    with raw(path) as other:
        before = other.execute("SELECT * FROM record").fetchall()
        assert replace_policy(path, policy(), {"a": 1}, {"x": "2"}).version == 1
        assert other.execute("SELECT * FROM record").fetchall() == before
    assert read_header(path)[:4] == (1, {"a": 1}, {"x": "2"}, 1)
    assert replace_policy(path, policy("two"), {"a": 1}, {"x": "2"}).version == 2
    assert read_header(path).settings_version == 1


def test_no_policy_in_a_new_file_knows_nobody(path: Path) -> None:
    replace_policy(path, None, {}, {})
    assert ask(SqliteStore(path)) == PolicyFacts(None, (), 1)


def test_a_policy_that_cannot_be_written_whole_is_not_written_at_all(path: Path) -> None:
    replace_policy(path, policy("one"), {"a": 1}, {})
    twice = (*policy("two").customers, replace(policy("two").customers[0], name="other"))
    with pytest.raises(ConflictError, match="two different records are called customer two"):
        replace_policy(path, Policy(customers=twice), {"b": 2}, {})
    elsewhere = replace(policy("two").trunks[0], id="three")
    with pytest.raises(ConflictError, match=ADDRESS):
        replace_policy(path, replace(policy("two"), trunks=(*policy("two").trunks, elsewhere)), {"b": 2}, {})
    assert trunk_of(ask(SqliteStore(path))) == "one"
    assert read_header(path)[:4] == (1, {"a": 1}, {}, 1)


def test_trunks_may_exchange_addresses_and_accounts(path: Path) -> None:
    customer = policy().customers[0]
    one, two = Trunk("1", customer), Trunk("2", customer)
    first = reached(one, ADDRESS, users=["a"]), reached(two, "192.0.2.2", users=["b"])
    second = reached(one, "192.0.2.2", users=["b"]), reached(two, ADDRESS, users=["a"])
    for trunks in (first, second, first):
        replace_policy(path, Policy((customer,), trunks), None, {})
        assert SqliteStore(path).facts(ADDRESS, None, None).source == trunks[trunks is second]
        assert SqliteStore(path).facts(None, "b", None).source == trunks[trunks is not second]
    with raw(path) as other:
        assert other.execute("SELECT count(*) FROM record WHERE kind = 'trunk'").fetchone() == (6,)


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o027])
def test_the_files_are_for_user_and_group_whatever_the_umask(path: Path, umask: int) -> None:
    # WAL readers write to the -shm file: the switch's user and the administrator's group need both.
    before = os.umask(umask)
    try:
        replace_policy(path, policy(), None, {})
        store = SqliteStore(path)
        ask(store)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["policy.db", "policy.db-shm", "policy.db-wal"], FILE_MODE)


@pytest.mark.parametrize("made_before", [False, True])
def test_readers_and_writer_do_not_wait_for_one_another(path: Path, made_before: bool) -> None:
    # WAL mode, also in a file that a package or an administrator made in advance.
    if made_before:
        path.touch(0o660)
    replace_policy(path, policy("one"), None, {})
    store = SqliteStore(path)
    with raw(path) as writer:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE record SET body = ''")
        assert trunk_of(ask(store)) == "one"
        writer.execute("ROLLBACK")


def test_a_path_with_characters_of_uris_is_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=ro#c%20d.db"
    replace_policy(path, policy(), None, {})
    assert trunk_of(ask(SqliteStore(path))) == "one"
    assert path.exists()


@pytest.mark.parametrize("place", ["missing/policy.db", "file/policy.db", "."])
def test_a_place_that_cannot_hold_a_file_is_a_store_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be (created|written)"):
        replace_policy(tmp_path / place, policy(), None, {})


def test_a_link_is_refused_by_reader_and_writer(path: Path) -> None:
    """Who may write to the folder could make root write to another database."""
    other = path.with_name("other.db")
    replace_policy(other, None, None, {})
    path.symlink_to(other)
    before = other.read_bytes()
    with pytest.raises(StoreError, match="is a link"):
        replace_policy(path, None, None, {})
    with pytest.raises(StoreError, match="is a link"):
        read_header(path)
    with pytest.raises(StoreUnavailable, match="is a link"):
        SqliteStore(path).facts(None, None, None)
    assert other.read_bytes() == before


def test_a_writer_that_finds_the_file_locked_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "WRITER_TIMEOUT", 0.0)
    replace_policy(path, policy("one"), None, {})
    with raw(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            replace_policy(path, policy("two"), None, {})
        with pytest.raises(StoreError, match="locked"), SqlitePolicy(path).change(Author("a", "b", 0.0), "c"):
            pytest.fail("it is locked")
    assert trunk_of(ask(SqliteStore(path))) == "one"


# --- Schema -----------------------------------------------------------------------------------


def test_a_file_of_a_newer_release_is_refused_by_name_and_left_alone(path: Path) -> None:
    replace_policy(path, policy(), None, {})
    with raw(path) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        other.execute("UPDATE meta SET value = ? WHERE key = 'reads'", (str(SCHEMA_VERSION + 1),))
    message = rf"policy\.db: schema version {SCHEMA_VERSION + 1} is newer than this release knows"
    with pytest.raises(StoreUnavailable, match=message):
        ask(SqliteStore(path))
    with pytest.raises(StoreError, match=message):
        read_header(path)
    with pytest.raises(StoreError, match=message):
        replace_policy(path, policy("two"), None, {})
    with raw(path) as other:
        assert other.execute("SELECT id FROM record WHERE kind = 'trunk'").fetchall() == [("one",)]


def test_a_file_nothing_was_ever_compiled_into_names_the_command(path: Path) -> None:
    with raw(path) as other:
        other.execute("PRAGMA journal_mode = WAL")
    with pytest.raises(StoreUnavailable, match="run 'shaken apply'"):
        ask(SqliteStore(path))
    with pytest.raises(StoreUnavailable, match="run 'shaken apply'"):
        read_header(path)


# --- Reading ----------------------------------------------------------------------------------


def test_no_read_transaction_is_left_open(path: Path) -> None:
    replace_policy(path, policy(), None, {})
    store = SqliteStore(path)
    for number in ("12155551212", None):
        store.facts(ADDRESS, None, number)
        with raw(path) as other:
            other.execute("INSERT OR REPLACE INTO meta VALUES ('other', '1')")
            busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert busy == 0


def test_no_read_transaction_is_left_open_after_a_fault(path: Path) -> None:
    replace_policy(path, policy(), None, {})
    with raw(path) as other:
        other.execute("UPDATE record SET body = 'x' || body")
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable):
        ask(store)
    with raw(path) as other:
        other.execute("UPDATE record SET body = substr(body, 2)")
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert trunk_of(ask(store)) == "one"


def test_a_reader_never_writes(path: Path) -> None:
    replace_policy(path, policy(), None, {})
    store = SqliteStore(path)
    ask(store)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._connections.get().execute("DELETE FROM record")


def test_a_reader_makes_no_file(path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        ask(SqliteStore(path))
    with pytest.raises(StoreUnavailable):
        read_header(path)
    assert not path.exists()


def test_every_thread_has_its_own_connection(path: Path) -> None:
    replace_policy(path, policy(), None, {})
    store = SqliteStore(path)
    versions: list[int] = []
    connections: list[sqlite3.Connection] = []

    def read() -> None:
        versions.append(ask(store).version)
        connections.append(store._connections.get())

    for _ in range(3):
        thread = Thread(target=read)
        thread.start()
        thread.join()
    read()
    assert versions == [1, 1, 1, 1]
    assert len(set(map(id, connections))) == 4


# --- Forks ------------------------------------------------------------------------------------


@contextmanager
def child(store: SqliteStore) -> Iterator[tuple[int, int]]:
    """A forked process that answers every byte with the policy version that it sees."""
    ask_read, ask_write = os.pipe()
    told_read, told_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ask_write)
            while os.read(ask_read, 1):
                os.write(told_write, bytes([ask(store).version]))
        finally:
            os._exit(0)
    os.close(ask_read)
    try:
        yield ask_write, told_read
    finally:
        os.close(ask_write)
        os.waitpid(pid, 0)
        os.close(told_read)
        os.close(told_write)


def _version_in(pipes: tuple[int, int]) -> int:
    os.write(pipes[0], b"?")
    return os.read(pipes[1], 1)[0]


@pytest.mark.parametrize("read_before", [False, True])
def test_a_forked_process_sees_changes_with_a_connection_of_its_own(path: Path, read_before: bool) -> None:
    replace_policy(path, policy(), None, {})
    store = SqliteStore(path)
    if read_before:
        ask(store)
    with child(store) as pipes:
        assert _version_in(pipes) == 1
        if read_before:
            # The parent's locks end here. Had the child taken them for its own, the next writer
            # would remove the log that the child still reads from.
            store._connections.forget()
        for version in (2, 3):
            replace_policy(path, policy(str(version)), None, {})
            assert _version_in(pipes) == version
    assert ask(store).version == 3


def test_a_fork_does_not_cost_the_parent_its_connection(path: Path) -> None:
    replace_policy(path, policy(), None, {})
    store = SqliteStore(path)
    ask(store)
    with child(store) as pipes:
        assert _version_in(pipes) == 1
    for version in (2, 3):
        replace_policy(path, policy(str(version)), None, {})
        assert ask(store).version == version


def test_a_change_in_the_middle_of_a_question_without_a_transaction_is_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_policy(path, policy("one"), None, {})
    store = SqliteStore(path)
    assert store.facts("192.0.2.99", None, None).source is None  # from now on without a transaction
    must, changes = _Content._must, iter(["two"])

    def late(content: _Content, kind: type[Record], identifier: str) -> object:
        for name in changes:  # the record that was named is gone by now
            replace_policy(path, policy(name), None, {})
        return must(content, kind, identifier)

    monkeypatch.setattr(_Content, "_must", late)
    assert trunk_of(ask(store)) == "two"
    assert next(changes, None) is None
