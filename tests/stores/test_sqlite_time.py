"""How long a call waits for the store: when the file is in trouble, and while it is written."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from shaken_plugin.core.records import Basis, Right
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Author, Span
from shaken_plugin.stores.sqlite import SqlitePolicy, SqliteStore, replace_policy
from tests.stores.locking import recovering
from tests.stores.test_migrations import make_old
from tests.stores.test_sqlite import ADDRESS, ask, policy, raw, trunk_of
from tests.stores.test_sqlite_faults import BEFORE_OPENING, FAULTS, NOBODY, Fault, locked

LONGEST: Final = 0.050
"""Seconds that a call may wait, whatever happened to the file."""

SOMEBODY = Author("somebody", "a test", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.db"
    replace_policy(path, policy("one"), {"a": 1}, {})
    return path


def spans(count: int) -> Iterator[Span]:
    for number in range(13_000_000_000, 13_000_000_000 + count):
        yield Span(str(number), str(number))


def fill(path: Path, count: int) -> int:
    with SqlitePolicy(path).change(SOMEBODY, "numbers") as draft:
        draft.put(Right("r", "one", Basis.ASSIGNED))
        return draft.add_numbers(Right, "r", spans(count))


@contextmanager
def in_child(work: Callable[[], object]) -> Iterator[multiprocessing.process.BaseProcess]:
    """Another process that does something meanwhile."""
    child = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    child.start()
    try:
        yield child
    finally:
        child.join(60)
        child.kill()
    assert child.exitcode == 0


# --- Trouble ------------------------------------------------------------------------------------


@contextmanager
def _truncated(path: Path) -> Iterator[None]:
    with raw(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    os.truncate(path, len(content) // 2)
    yield
    path.write_bytes(content)


@contextmanager
def _of_schema_1(path: Path) -> Iterator[None]:
    away = path.with_suffix(".away")
    path.rename(away)
    make_old(path)
    yield
    for name in (path, *path.parent.glob("policy.db-*")):
        name.unlink()
    away.rename(path)


TROUBLE: dict[str, Fault] = {
    **FAULTS,
    **BEFORE_OPENING,
    "locked": locked,
    "its index made anew": recovering,
    "truncated": _truncated,
    "of schema 1": _of_schema_1,
}


@pytest.mark.alone
@pytest.mark.parametrize(
    ("fault", "open_before"),
    [pytest.param(fault, False, id=f"new reader, {name}") for name, fault in TROUBLE.items()]
    # Nobody can lock out whoever reads already.
    + [pytest.param(fault, True, id=f"open reader, {name}") for name, fault in TROUBLE.items() if name != "locked"],
)
def test_no_trouble_costs_a_call_more_than_50_ms(path: Path, fault: Fault, open_before: bool) -> None:
    store = SqliteStore(path)
    if open_before:
        ask(store)
    slowest = 0.0
    with fault(path):
        for _ in range(20):
            began = time.perf_counter()
            try:
                found = trunk_of(ask(store))
            except StoreUnavailable:
                found = "one"  # the declared mode decides
            slowest = max(slowest, time.perf_counter() - began)
            assert found == "one"
    assert slowest < LONGEST
    assert trunk_of(ask(SqliteStore(path))) == "one"


def test_pages_damaged_at_random_never_raise_anything_else(path: Path) -> None:
    fill(path, 2_000)
    with raw(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content, draw = path.read_bytes(), random.Random(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 3, 20])):
            place, length = draw.randrange(100, len(damaged)), draw.choice([1, 8, 512, 4_096])
            damaged[place : place + length] = draw.randbytes(len(damaged[place : place + length]))
        path.write_bytes(damaged)
        store = SqliteStore(path)
        for number in ("13000000007", "13000001999", "19999999999", None):
            try:
                store.facts(ADDRESS, "u", number, "4420", "uk")
            except StoreUnavailable:
                refused += 1
        for attempt in (lambda: fill(path, 10), lambda: list(SqlitePolicy(path).changes())):
            try:
                attempt()
            except (StoreError, StoreUnavailable):
                refused += 1
        store._connections.forget()
        for left in path.parent.glob("policy.db-*"):
            left.unlink()
    assert refused > 100
    path.write_bytes(content)
    assert trunk_of(ask(SqliteStore(path))) == "one"


# --- Writers in trouble -------------------------------------------------------------------------


def test_a_full_disk_leaves_the_policy_as_it_was_and_calls_undisturbed(path: Path) -> None:
    store = SqliteStore(path)
    before = ask(store)

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with pytest.raises(StoreError, match="cannot be written"):
            fill(path, 100_000)

    with in_child(write):
        assert ask(store) == before
    assert ask(store) == before
    assert ask(SqliteStore(path)) == before
    assert fill(path, 1_000) == 1_000


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_folder_that_may_only_be_read_is_a_store_error_to_writers(path: Path) -> None:
    with raw(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.parent.chmod(0o555)
    path.chmod(0o444)
    for folder in path.parents[1:4]:
        folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(StoreError):
            fill(path, 10)
        try:
            found = trunk_of(ask(SqliteStore(path)))
        except StoreUnavailable:
            found = "one"  # the declared mode decides
        assert found == "one"
    finally:
        os.seteuid(0)
        path.parent.chmod(0o700)
        path.chmod(0o660)
    assert fill(path, 10) == 10


def test_a_file_deleted_while_it_is_written_is_made_anew_by_the_next_writer(path: Path) -> None:
    store = SqliteStore(path)
    ask(store)
    with SqlitePolicy(path).change(SOMEBODY, "numbers") as draft:
        draft.put(Right("r", "one", Basis.ASSIGNED))
        for name in path.parent.glob("policy.db*"):
            name.unlink()
    with pytest.raises(StoreUnavailable):
        ask(store)
    replace_policy(path, policy("two"), None, {})
    assert trunk_of(ask(store)) == "two"


# --- While much is written ----------------------------------------------------------------------


def _slowest(store: SqliteStore, going_on: Callable[[], bool]) -> tuple[float, int]:
    slowest, count = 0.0, 0
    while going_on():
        began = time.perf_counter()
        assert trunk_of(ask(store)) == "one"
        slowest = max(slowest, time.perf_counter() - began)
        count += 1
        time.sleep(0.001)
    return slowest, count


@pytest.mark.alone
def test_calls_are_not_disturbed_while_200_000_numbers_are_imported(path: Path) -> None:
    store = SqliteStore(path)
    ask(store)
    end = time.perf_counter() + 2
    before, _ = _slowest(store, lambda: time.perf_counter() < end)
    with in_child(lambda: fill(path, 200_000)) as child:
        during, count = _slowest(store, child.is_alive)
    assert count > 50
    assert during < before + LONGEST
    began = time.perf_counter()
    assert store.facts(None, None, "13000199999").rights
    assert time.perf_counter() - began < LONGEST


def test_memory_of_the_writer_does_not_grow_with_the_numbers(path: Path) -> None:
    def write() -> None:
        fill(path, 50_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert fill(path, 600_000) == 550_000
        # The cache of pages, and no object for each number.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 96 * 1024

    with in_child(write):
        pass


@pytest.mark.alone
def test_a_change_decides_calls_within_a_second_in_every_process(path: Path) -> None:
    ready, seen = multiprocessing.Pipe(), multiprocessing.Pipe()

    def reader() -> None:
        store = SqliteStore(path)
        version = ask(store).version
        ready[1].send(version)
        while (facts := ask(store)).version == version:
            time.sleep(0.001)
        seen[1].send((time.monotonic(), trunk_of(facts)))

    with in_child(reader):
        assert ready[0].recv() == 1
        replace_policy(path, policy("two"), {"a": 1}, {})
        changed = time.monotonic()
        at, trunk = seen[0].recv()
    assert trunk == "two"
    assert at - changed < 1


def test_a_warm_decision_reads_little(path: Path) -> None:
    """So the cost of a call does not depend on what else is in the file."""
    fill(path, 10_000)
    store = SqliteStore(path)
    for _ in range(2):
        store.facts(ADDRESS, None, "13000000007", "4420")
    statements: list[str] = []
    store._connections.get().set_trace_callback(statements.append)
    store.facts(ADDRESS, None, "13000000007", "4420")
    read = [text for text in statements if text.lstrip().startswith("SELECT")]
    assert len(read) == 1  # the rights that cover the number; the version where something was committed
