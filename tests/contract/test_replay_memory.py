"""What every `ports.ReplayMemory` does."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import ReplayMemory
from shaken_plugin.stores.memory import ReplayInMemory
from shaken_plugin.stores.replay import FORGET_EVERY, ReplayFile
from tests.conftest import NOW

TOKEN, OTHER = bytes(32), bytes(31) + b"\1"
CALL, ANOTHER = b"a" * 32, b"b" * 32
UNTIL = NOW + 60


@pytest.fixture(params=["memory", "file"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayMemory:
    return ReplayInMemory() if request.param == "memory" else ReplayFile(tmp_path / "replay.sqlite")


def test_a_token_is_for_one_call(memory: ReplayMemory) -> None:
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW)
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, NOW + 1)
    assert memory.first_use(OTHER, ANOTHER, UNTIL, NOW + 1)


def test_a_retransmission_or_fork_is_the_same_call(memory: ReplayMemory) -> None:
    assert all(memory.first_use(TOKEN, CALL, UNTIL, NOW + second) for second in range(3))
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, NOW + 4)
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW + 5)  # the first one stays the first


def test_what_is_stale_is_forgotten(memory: ReplayMemory) -> None:
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW)
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, UNTIL)
    assert memory.first_use(TOKEN, ANOTHER, UNTIL + 60, UNTIL + 1)


# --- The file -----------------------------------------------------------------------------------


def test_all_workers_share_the_file_and_one_of_them_is_first(tmp_path: Path) -> None:
    file = tmp_path / "replay.sqlite"
    rounds, workers = 40, 4
    barrier_in, barrier_out = os.pipe()
    children = []
    for worker in range(workers):
        child = os.fork()
        if child == 0:
            os.read(barrier_in, 1)  # all begin together
            memory, first = ReplayFile(file), 0
            for index in range(rounds):
                while True:
                    try:
                        first += memory.first_use(index.to_bytes(32), bytes([worker]) * 32, UNTIL, NOW)
                        break
                    except StoreUnavailable:
                        continue
            os._exit(first)
        children.append(child)
    os.write(barrier_out, bytes(workers))
    counts = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(barrier_in)
    os.close(barrier_out)
    assert sum(counts) == rounds


def test_threads_share_a_memory(tmp_path: Path) -> None:
    memory = ReplayFile(tmp_path / "replay.sqlite")
    memory.first_use(OTHER, CALL, UNTIL, NOW)
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda call=bytes([index]): found.append(memory.first_use(TOKEN, call, UNTIL, NOW)))
        for index in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 5 + [True]


def test_the_file_stays_small(tmp_path: Path) -> None:
    memory = ReplayFile(tmp_path / "replay.sqlite")
    for index in range(50):
        moment = NOW + index * FORGET_EVERY
        assert memory.first_use(index.to_bytes(32), CALL, moment + FORGET_EVERY / 2, moment)
    with sqlite3.connect(tmp_path / "replay.sqlite") as connection:
        (rows,) = connection.execute("SELECT count(*) FROM seen").fetchone()
    connection.close()
    assert rows <= 2


def _lock(file: Path) -> Callable[[], None]:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection.close


def _lose_the_folder(file: Path) -> Callable[[], None]:
    for part in file.parent.iterdir():
        part.unlink()
    file.parent.rmdir()
    return lambda: None


@pytest.mark.parametrize("spoil", [_lock, _lose_the_folder])
def test_what_cannot_be_remembered_is_said_and_soon(
    tmp_path: Path, spoil: Callable[[Path], Callable[[], None]]
) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    file = folder / "replay.sqlite"
    ReplayFile(file).first_use(TOKEN, CALL, UNTIL, NOW)
    memory = ReplayFile(file)
    undo = spoil(file)
    with pytest.raises(StoreUnavailable, match=r"replay\.sqlite"):
        memory.first_use(TOKEN, ANOTHER, UNTIL, NOW)
    undo()


def test_a_file_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "replay.sqlite"
    memory = ReplayFile(file)
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW)
    for part in tmp_path.iterdir():
        part.unlink()
    assert memory.first_use(TOKEN, ANOTHER, UNTIL, NOW)
    assert not memory.first_use(TOKEN, CALL, UNTIL, NOW)
    assert file.stat().st_mode & 0o777 == 0o660


def test_a_damaged_file_is_said_and_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "replay.sqlite"
    file.write_bytes(b"this is no database, whatever else it is" * 100)
    memory = ReplayFile(file)
    with pytest.raises(StoreUnavailable, match="not a database"):
        memory.first_use(TOKEN, CALL, UNTIL, NOW)
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW)
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, NOW)
