"""A store file that is missing, empty, damaged, locked or unreadable, and what happens afterwards.

Whatever is wrong, a reader says `StoreUnavailable`, and answers again as soon as the file is right:
no restart, no reload.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import pytest

from shaken_plugin import sqlitefile
from shaken_plugin.agent import shared
from shaken_plugin.core.records import Gateway
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BLIND, BUSY_TIMEOUT
from shaken_plugin.stores import agent_line, freshness
from shaken_plugin.stores.last_known import LastKnown, LastStanding
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.sqlite import SqliteStore, read_header, replace_policy
from shaken_plugin.stores.sqlite.sharing import DecidesAlone
from shaken_plugin.stores.standing import StandingFile, WithStanding
from shaken_plugin.stores.statefile import ensure
from tests.records import reached
from tests.stores.descriptors import open_files
from tests.stores.locking import recovering
from tests.stores.test_sqlite import ask, policy, raw, trunk_of

Fault = Callable[[Path], AbstractContextManager[None]]
"""Breaks a file, and mends it at the end of its context."""

NOBODY = 65_534
"""A user without rights to anything of ours."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.db"
    replace_policy(path, policy("one"), {"a": 1}, {})
    return path


@contextmanager
def _put_away(path: Path) -> Iterator[None]:
    away = path.with_suffix(".away")
    path.rename(away)
    yield
    away.rename(path)


@contextmanager
def _replaced_by(path: Path, make: Callable[[Path], object]) -> Iterator[None]:
    with _put_away(path):
        make(path)
        yield
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


@contextmanager
def _in_place(path: Path, damage: Callable[[bytes], bytes]) -> Iterator[None]:
    with raw(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(damage(content))
    yield
    path.write_bytes(content)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with raw(path) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("COMMIT")


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield
    path.chmod(0o660)


def _sql(statement: str, undo: str) -> Fault:
    @contextmanager
    def fault(path: Path) -> Iterator[None]:
        with raw(path) as other:
            other.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM meta")
            other.execute(statement)
        yield
        with raw(path) as other:
            other.execute(undo)

    return fault


_UNDO_META = "INSERT OR REPLACE INTO meta SELECT * FROM kept"

FAULTS: dict[str, Fault] = {
    "missing": _put_away,
    "empty": lambda path: _replaced_by(path, Path.touch),
    "no database": lambda path: _replaced_by(path, lambda file: file.write_bytes(b"not a database" * 1_000)),
    "a folder": lambda path: _replaced_by(path, Path.mkdir),
    "emptied in place": lambda path: _in_place(path, lambda _: b""),
    "header overwritten in place": lambda path: _in_place(path, lambda content: b"\xff" * 200 + content[200:]),
    "meta without version": _sql("DELETE FROM meta WHERE key = 'policy_version'", _UNDO_META),
    "version is no number": _sql("UPDATE meta SET value = 'x' WHERE key = 'policy_version'", _UNDO_META),
    "version is null": _sql("UPDATE meta SET value = NULL WHERE key = 'policy_version'", _UNDO_META),
}


BEFORE_OPENING: dict[str, Fault] = {"unreadable": _unreadable}
"""Who has the file open already may go on reading it."""


@pytest.mark.parametrize(
    ("fault", "open_before"),
    [pytest.param(fault, False, id=f"new reader, {name}") for name, fault in (FAULTS | BEFORE_OPENING).items()]
    + [pytest.param(fault, True, id=f"open reader, {name}") for name, fault in FAULTS.items()],
)
def test_a_reader_says_unavailable_and_recovers_without_a_restart(
    path: Path,
    fault: Fault,
    open_before: bool,
) -> None:
    store = SqliteStore(path)
    if open_before:
        assert trunk_of(ask(store)) == "one"
    with fault(path):
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=str(path)):
                ask(store)
    assert trunk_of(ask(store)) == "one"
    replace_policy(path, policy("two"), None, {})
    assert trunk_of(ask(store)) == "two"


@pytest.mark.parametrize("fault", (FAULTS | BEFORE_OPENING).values(), ids=FAULTS | BEFORE_OPENING)
def test_the_header_of_such_a_file_is_unavailable(path: Path, fault: Fault) -> None:
    with fault(path), pytest.raises((StoreUnavailable, StoreError)):
        read_header(path)
    assert read_header(path).settings == {"a": 1}


def test_a_locked_file_is_unavailable_until_the_lock_ends(path: Path) -> None:
    store = SqliteStore(path)
    with locked(path), pytest.raises(StoreUnavailable, match="locked"):
        ask(store)
    time.sleep(BLIND)
    assert trunk_of(ask(store)) == "one"


@pytest.mark.parametrize("open_before", [True, False])
def test_whoever_reads_already_is_kept_out_as_well_while_the_index_is_made_anew(path: Path, open_before: bool) -> None:
    store = SqliteStore(path)
    if open_before:
        ask(store)
    with recovering(path), pytest.raises(StoreUnavailable, match="locked"):
        ask(store)
    time.sleep(BLIND)
    assert trunk_of(ask(store)) == "one"


WAIT: Final = int(BUSY_TIMEOUT * 1000)


def test_a_call_waits_for_files_and_for_the_agent_50_ms_at_most() -> None:
    assert BUSY_TIMEOUT + agent_line.TIMEOUT <= 0.05
    assert shared.PATIENCE < agent_line.TIMEOUT


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What SQLite refuses, and after how many ms of waiting."""
    found: list[tuple[str, int]] = []
    execute = sqlitefile._Connection.execute

    def watched(connection: sqlitefile._Connection, *arguments: Any) -> sqlite3.Cursor:
        try:
            return execute(connection, *arguments)
        except sqlite3.OperationalError as exc:
            found.append((str(exc), execute(connection, "PRAGMA busy_timeout").fetchone()[0]))
            raise

    monkeypatch.setattr(sqlitefile._Connection, "execute", watched)
    return found


@pytest.mark.parametrize("open_before", [True, False])
def test_a_locked_file_costs_one_short_wait_and_not_one_for_each_call(
    path: Path, refused: list[tuple[str, int]], open_before: bool
) -> None:
    store = SqliteStore(path)
    if open_before:
        ask(store)
    with recovering(path):
        for _ in range(20):
            with pytest.raises(StoreUnavailable, match="locked"):
                ask(store)
            assert store.stamp() is None
        assert refused == [("database is locked", WAIT)]
    time.sleep(BLIND)
    assert trunk_of(ask(store)) == "one"
    assert store._connections.get().execute("PRAGMA busy_timeout").fetchone() == (WAIT,)


@pytest.mark.parametrize("open_before", [True, False])
def test_policy_and_standings_that_are_locked_together_cost_one_wait_as_long_as_they_are(
    path: Path, refused: list[tuple[str, int]], open_before: bool
) -> None:
    state = path.with_name("state.db")
    ensure(state, path)
    store = WithStanding(LastKnown(SqliteStore(path)), LastStanding(StandingFile(state, path)))
    if open_before:
        ask(store)
    with recovering(path, state):
        for _ in range(10):
            store.stamp()
            with nullcontext() if open_before else pytest.raises(StoreUnavailable):
                ask(store)
            time.sleep(0.06)  # sometimes past the time for which nobody asks again
        assert len(refused) > 2
        assert sum(wait for _, wait in refused) == WAIT
    time.sleep(BLIND)
    assert trunk_of(ask(store)) == "one"


def test_whether_a_host_decides_alone_costs_one_wait_as_long_as_the_file_is_locked(
    path: Path, refused: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "ASK_EVERY", 0.0)
    freshness.mark(path, time.time() - 1000)
    alone = DecidesAlone(path)
    store = freshness.Copy(SqliteStore(path), path, 300.0, goes_on=True, own=alone)
    with recovering(path):
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                ask(store)
            time.sleep(0.06)  # sometimes past the time for which nobody asks again
        assert len(refused) > 2
        assert sum(wait for _, wait in refused) == WAIT
    time.sleep(BLIND)
    assert trunk_of(ask(store)) == "one"
    assert alone()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE record SET body = replace(body, 'verified', 'unheard of')",
        'UPDATE record SET body = replace(body, \'"customer":"one"\', \'"customer":"two"\')',
        "UPDATE record SET body = replace(body, '\"customer\":\"one\",', '')",
        "UPDATE record SET body = replace(body, '192.0.2', '192.0.x')",
        "UPDATE record SET body = '{'",
        "UPDATE record SET body = 'null'",
        "UPDATE record SET body = x'ff00'",
        "DELETE FROM record WHERE kind = 'trunk'",
        "DELETE FROM record WHERE kind = 'customer'",
        "UPDATE link SET kind = 'unheard of'",
        "DROP TABLE link",
        "DROP TABLE number",
        "UPDATE shape SET value = 'x'",
        "UPDATE shape SET kind = 'x'",
    ],
)
def test_content_that_makes_no_sense_is_unavailable(path: Path, statement: str) -> None:
    with raw(path) as other:
        other.execute(statement)
    with pytest.raises(StoreUnavailable):
        ask(SqliteStore(path))


def test_a_gateway_that_is_named_but_not_there_is_unavailable(path: Path) -> None:
    gateway = reached(Gateway("intl", "International"), "192.0.2.1")
    replace_policy(path, Policy(gateways=(gateway,)), None, {})
    store = SqliteStore(path)
    assert ask(store).source == gateway
    with raw(path) as other:
        other.execute("DELETE FROM record WHERE kind = 'gateway'")
        other.execute("UPDATE meta SET value = '9' WHERE key = 'policy_version'")
    with pytest.raises(StoreUnavailable, match="gateway intl is named but not there"):
        ask(store)


def test_a_damaged_file_is_not_written_over(path: Path) -> None:
    with raw(path) as other:
        other.execute("DELETE FROM meta")
    with pytest.raises(StoreError, match=str(path)):
        replace_policy(path, policy("two"), None, {})


def test_another_file_in_its_place_is_read_by_readers_that_are_open(path: Path, tmp_path: Path) -> None:
    # Restored from a backup, or removed and made anew by 'shaken apply'.
    store = SqliteStore(path)
    ask(store)
    other = tmp_path / "other.db"
    replace_policy(other, policy("two"), None, {})
    for left in (f"{path}-wal", f"{path}-shm"):
        Path(left).unlink(missing_ok=True)
    other.replace(path)
    assert trunk_of(ask(store)) == "two"


def test_a_folder_without_rights_is_a_store_error_to_writers_and_unavailable_to_readers(path: Path) -> None:
    with _unreadable(path.parent):
        with pytest.raises(StoreError):
            replace_policy(path, policy("two"), None, {})
        with pytest.raises(StoreUnavailable):
            ask(SqliteStore(path))
        with pytest.raises(StoreUnavailable):
            read_header(path)
    path.parent.chmod(0o700)
    assert trunk_of(ask(SqliteStore(path))) == "one"


def test_connections_that_fail_are_closed(path: Path) -> None:
    path.write_bytes(b"not a database" * 1_000)
    store = SqliteStore(path)
    caught: list[StoreUnavailable] = []  # what is caught keeps its frames, and so the connections
    for _ in range(20):
        with pytest.raises(StoreUnavailable) as refused:
            ask(store)
        caught.append(refused.value)
    assert len(caught) == 20
    assert open_files(path) == []


def test_a_fault_in_another_connection_does_not_reach_us(path: Path) -> None:
    store = SqliteStore(path)
    ask(store)
    with closing(sqlite3.connect(path)) as other, pytest.raises(sqlite3.OperationalError):
        other.execute("SELECT nonsense")
    assert trunk_of(ask(store)) == "one"
