"""The stamps of stores: another after every change, the same while there is none, None where that cannot be told."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from shaken_plugin import sqlitefile
from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.ports import Author
from shaken_plugin.sqlitefile import Connections, Stamp
from shaken_plugin.stores import statefile
from shaken_plugin.stores.last_known import LastKnown, LastStanding
from shaken_plugin.stores.sqlite import SqlitePolicy, SqliteStore, replace_policy
from shaken_plugin.stores.standing import StandingFile, WithStanding
from tests.services.builders import policy

ANN = Author("Ann", "a test", 1_795_000_000.0)


class Clock:
    """Steady seconds that a test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("shaken_plugin.sqlitefile.time.monotonic", lambda: self.now)

    def look_again(self) -> None:
        """Let so much time go by that files are looked at again."""
        self.now += 2 * sqlitefile.LOOK_EVERY


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.db"
    replace_policy(path, policy(), {}, {}, ANN)
    return path


def commit(path: Path, number: int) -> None:
    """A change of the policy, another for each number."""
    with SqlitePolicy(path).change(ANN, f"change {number}") as draft:
        draft.put(Customer("new", f"Name {number}", CustomerState.VERIFIED))


def change(path: Path, name: str) -> None:
    """One commit, by another process."""
    text = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute({name!r}); c.commit(); c.close()"
    subprocess.run([sys.executable, "-c", text], check=True)


def test_every_commit_changes_it_at_once(path: Path, clock: Clock) -> None:
    store = SqliteStore(path)
    seen = [store.stamp()]
    for number in range(5):
        commit(path, number)
        seen.append(store.stamp())
        assert store.stamp() == seen[-1]
    change(path, "CREATE TABLE strange (x)")
    seen.append(store.stamp())
    assert None not in seen
    assert len(set(seen)) == len(seen)
    assert clock.now == 100.0


def test_a_child_sees_commits_at_once_though_its_parent_looked_before(path: Path, clock: Clock) -> None:
    store = SqliteStore(path)
    before = store.stamp()
    asks, answers = os.pipe(), os.pipe()
    if not (child := os.fork()):
        try:
            seen = [store.stamp()]
            os.write(answers[1], b".")
            while os.read(asks[0], 1) == b"?":
                seen.append(store.stamp())
                os.write(answers[1], b"1" if seen[-1] not in {None, seen[-2]} else b"0")
        finally:
            os._exit(0)
    assert os.read(answers[0], 1) == b"."  # a commit while it opens the file could lock it out
    store._connections.forget()
    for number in range(3):
        commit(path, number)
        os.write(asks[1], b"?")
        assert os.read(answers[0], 1) == b"1"
    os.write(asks[1], b".")
    os.waitpid(child, 0)
    for descriptor in (*asks, *answers):
        os.close(descriptor)
    assert store.stamp() not in {None, before}
    assert clock.now == 100.0


def test_no_commit_changes_it_while_calls_are_decided(path: Path, clock: Clock) -> None:
    store = SqliteStore(path)
    before = store.stamp()
    for _ in range(3):
        store.facts("198.51.100.7", None, "12155551212")
        clock.look_again()
        assert store.stamp() == before


def test_a_commit_that_is_not_finished_or_taken_back_does_not(path: Path) -> None:
    store = SqliteStore(path)
    before = store.stamp()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE strange (x)")
        assert store.stamp() == before
        other.execute("ROLLBACK")
        assert store.stamp() == before


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_a_commit_after_a_checkpoint_does(path: Path, clock: Clock, mode: str) -> None:
    store, seen = SqliteStore(path), []
    for number in range(3):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(f"PRAGMA wal_checkpoint({mode})")
        seen.append(store.stamp())
        commit(path, number)
        seen.append(store.stamp())
        clock.look_again()
        seen.append(store.stamp())
    assert None not in seen
    assert all(seen[index] != seen[index + 1] for index in (0, 3, 6))


def test_another_file_in_its_place_is_noticed_a_little_later(path: Path, tmp_path: Path, clock: Clock) -> None:
    store = SqliteStore(path)
    before = store.stamp()
    other = tmp_path / "other.db"
    replace_policy(other, policy(), {}, {}, ANN)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    other.replace(path)
    clock.look_again()
    after = store.stamp()
    assert after is not None
    assert after != before
    path.unlink()
    clock.look_again()
    assert store.stamp() is None


def test_there_is_none_where_nothing_can_be_read(path: Path, tmp_path: Path, clock: Clock) -> None:
    assert SqliteStore(tmp_path / "missing.db").stamp() is None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
    assert SqliteStore(path).stamp() is None
    assert clock.now == 100.0


@pytest.mark.parametrize("spoilt", [b"", bytes(96), bytes(47) + b"\1" + bytes(48)], ids=["cut", "empty", "half"])
def test_a_header_that_is_being_written_tells_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: bytes
) -> None:
    store, real = SqliteStore(path), os.pread
    before = store.stamp()
    monkeypatch.setattr(os, "pread", lambda *_: spoilt)
    assert store.stamp() is None
    monkeypatch.setattr(os, "pread", real)
    assert store.stamp() == before


def test_a_descriptor_that_is_gone_is_looked_for_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = SqliteStore(path), os.pread
    before = store.stamp()

    def gone(*_: int) -> bytes:
        raise OSError(9, "gone")

    monkeypatch.setattr(os, "pread", gone)
    assert store.stamp() is None
    monkeypatch.setattr(os, "pread", real)
    assert store.stamp() == before


def test_sqlites_own_descriptor_is_read_and_stays_open(path: Path, clock: Clock) -> None:
    """Closing another one would take away SQLite's locks."""
    connections = Connections(
        path, 0.02, lambda connection: connection.execute("SELECT * FROM meta").fetchone() and None
    )
    connections.get()
    count = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # descriptors, not files
    for _ in range(3):
        assert connections.stamp() is not None
        clock.look_again()
    assert len(os.listdir("/proc/self/fd")) == count  # noqa: PTH208  # numbers alone


# --- Standings ----------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state.db"
    statefile.ensure(state)
    return state


def test_a_standing_changes_the_stamp_and_nothing_else_in_its_file_does(path: Path, state: Path) -> None:
    standings = StandingFile(state)
    store = LastKnown(WithStanding(SqliteStore(path), LastStanding(standings)))
    before = store.stamp()
    assert before is not None
    change(state, "INSERT INTO mark VALUES ('ledger', 'a place')")
    assert store.stamp() == before
    change(state, "INSERT INTO standing VALUES ('u', 'acme', 'suspended', 1.0, 1.0, 'Ann', 'x', NULL)")
    after = store.stamp()
    assert after not in {before, None}
    assert standings.of("acme") is not None


SAID = "INSERT INTO standing VALUES ('{}', '{}', 'suspended', 1.0, 1.0, 'Ann', 'x', NULL)"


@pytest.mark.parametrize("uid", ["u1", "u2"], ids=["and the last of them has the same id", "of others"])
def test_another_state_file_with_as_many_standings_has_another_stamp(
    state: Path, tmp_path: Path, clock: Clock, uid: str
) -> None:
    """As a backup, or one that was filled anew under the id that the policy remembers."""
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(state, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(state, other)
    change(state, SAID.format("u1", "somebody"))
    change(other, SAID.format(uid, "acme"))
    standings = StandingFile(state)
    assert [standings.of("acme") for _ in range(3)] == [None] * 3
    before = standings.stamp()
    for suffix in ("-wal", "-shm"):
        state.with_name(state.name + suffix).unlink(missing_ok=True)
    other.replace(state)
    clock.look_again()
    assert standings.stamp() not in {before, None}
    assert standings.of("acme") is not None


def test_another_last_standing_has_another_stamp_though_the_file_seems_the_same(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inode is used again, and a time of writing can be set."""
    monkeypatch.setattr(Connections, "stamp", lambda *_, **__: Stamp((1, 2, 3), (4, 5), os.urandom(8)))
    standings = StandingFile(state)
    change(state, SAID.format("u1", "somebody"))
    before = standings.stamp()
    assert standings.stamp() == before
    change(state, "DROP TRIGGER standing_is_kept")
    schema = standings.stamp()
    with closing(sqlite3.connect(state, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("DELETE FROM standing")
        other.execute(SAID.format("u1", "acme"))
        other.execute("COMMIT")
    assert len({before, schema, standings.stamp()}) == 3


def test_a_checkpoint_of_the_state_file_keeps_what_is_said(state: Path, clock: Clock) -> None:
    standings = StandingFile(state)
    change(state, SAID.format("u1", "acme"))
    for _ in range(2):
        with closing(sqlite3.connect(state, isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        clock.look_again()
        assert standings.stamp() is not None
        assert standings.of("acme") is not None
        change(state, "INSERT OR REPLACE INTO mark VALUES ('ledger', 'a place')")


def test_without_one_of_the_files_there_is_no_stamp(path: Path, state: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    assert WithStanding(SqliteStore(path), StandingFile(missing)).stamp() is None
    assert WithStanding(SqliteStore(missing), StandingFile(state)).stamp() is None


def test_a_table_that_cannot_be_read_gives_none(state: Path) -> None:
    standings = StandingFile(state)
    assert standings.stamp() is not None
    change(state, "ALTER TABLE standing RENAME TO other")
    assert standings.stamp() is None
