"""What every `ports.ReplayMemory` does."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import ReplayMemory
from shaken_plugin.stores.memory import ReplayInMemory
from shaken_plugin.stores.replay import LOOK_AFTER, MAX_SIZE, ReplayFile
from shaken_plugin.stores.replaytable import Table, place_of
from tests.conftest import NOW

TOKEN, OTHER = bytes(32), bytes(31) + b"\1"
CALL, ANOTHER = b"a" * 32, b"b" * 32
UNTIL = NOW + 60


@pytest.fixture(params=["memory", "file"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayMemory:
    return ReplayInMemory() if request.param == "memory" else ReplayFile(tmp_path / "replay.memory")


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
    file = tmp_path / "replay.memory"
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
    memory = ReplayFile(tmp_path / "replay.memory")
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


def test_a_new_process_knows_what_the_one_before_saw(tmp_path: Path) -> None:
    assert ReplayFile(tmp_path / "replay.memory").first_use(TOKEN, CALL, UNTIL, NOW)
    assert not ReplayFile(tmp_path / "replay.memory").first_use(TOKEN, ANOTHER, UNTIL, NOW)


def test_a_worker_that_dies_with_a_set_keeps_nobody_out(tmp_path: Path) -> None:
    file = tmp_path / "replay.memory"
    ReplayFile(file).first_use(OTHER, CALL, UNTIL, NOW)
    with _locked(file), pytest.raises(StoreUnavailable, match="another process has it locked"):
        ReplayFile(file).first_use(TOKEN, CALL, UNTIL, NOW)
    assert ReplayFile(file).first_use(TOKEN, CALL, UNTIL, NOW)


def test_a_set_that_is_locked_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "replay.memory"
    memory = ReplayFile(file)
    memory.first_use(OTHER, CALL, UNTIL, NOW)
    with ExitStack() as stack:
        stack.enter_context(_locked(file))
        monkeypatch.setattr("shaken_plugin.stores.replaytable.time.sleep", lambda _seconds: stack.close())
        assert memory.first_use(TOKEN, CALL, UNTIL, NOW)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Another process has all of it, and is killed in the end."""
    ready_out, ready_in = os.pipe()
    child = os.fork()
    if child == 0:
        fcntl.lockf(os.open(file, os.O_RDWR), fcntl.LOCK_EX)
        os.write(ready_in, b".")
        while True:
            signal.pause()
    os.read(ready_out, 1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready_in)
        os.close(ready_out)


def test_a_child_opens_the_file_itself(tmp_path: Path) -> None:
    memory = ReplayFile(tmp_path / "replay.memory")
    memory.first_use(OTHER, CALL, UNTIL, NOW)
    child = os.fork()
    if child == 0:
        os._exit(memory.first_use(TOKEN, CALL, UNTIL, NOW))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, NOW)


def test_the_file_has_one_size_and_takes_the_room_that_is_used(tmp_path: Path) -> None:
    file = tmp_path / "replay.memory"
    memory = ReplayFile(file, 120)
    memory.first_use(TOKEN, CALL, UNTIL, NOW)
    size = file.stat().st_size
    for index in range(500):
        memory.first_use(index.to_bytes(32), CALL, NOW + index + 1, NOW + index)
    assert file.stat().st_size == size < 8_000_000
    assert file.stat().st_blocks * 512 < size
    ReplayFile(tmp_path / "large", 90_000).first_use(TOKEN, CALL, UNTIL, NOW)
    assert (tmp_path / "large").stat().st_size <= MAX_SIZE + 4_096


def test_a_set_that_is_full_is_told_and_forgets_nothing(tmp_path: Path) -> None:
    memory = ReplayFile(tmp_path / "replay.memory", lifetime=0.008)  # one set of 16
    tokens = [index.to_bytes(32) for index in range(16)]
    assert all(memory.first_use(token, CALL, UNTIL, NOW) for token in tokens)
    with pytest.raises(StoreUnavailable, match="full, this PASSporT is not remembered"):
        memory.first_use(OTHER[::-1], CALL, UNTIL, NOW)
    assert not any(memory.first_use(token, ANOTHER, UNTIL, NOW) for token in tokens)
    assert memory.first_use(OTHER[::-1], CALL, UNTIL + 60, UNTIL + 1)


def test_a_time_that_no_token_lasts_until_is_damage_and_no_place_is_lost_by_it(tmp_path: Path) -> None:
    memory = ReplayFile(tmp_path / "replay.memory", lifetime=0.008)
    for index in range(16):
        memory.first_use(index.to_bytes(32), CALL, [float("nan"), float("inf"), 1e300][index % 3], NOW)
    assert memory.first_use(OTHER[::-1], CALL, UNTIL, NOW)


def test_a_file_that_became_too_small_by_new_settings_goes_into_a_larger_one(tmp_path: Path) -> None:
    file = tmp_path / "replay.memory"
    small, large = ReplayFile(file, 60), ReplayFile(file, 600)
    tokens = [index.to_bytes(32) for index in range(200)]
    assert all(small.first_use(token, CALL, UNTIL, NOW) for token in tokens)
    assert small.first_use(TOKEN[:1], CALL, NOW + 1, NOW)
    assert large.first_use(OTHER[::-1], CALL, UNTIL, NOW + 2)
    assert not any(large.first_use(token, ANOTHER, UNTIL, NOW + 2) for token in tokens)
    assert all(large.first_use(token, CALL, UNTIL, NOW + 2) for token in tokens)
    assert large.first_use(TOKEN[:1], ANOTHER, UNTIL, NOW + 2)
    # Whoever still has the old settings takes the larger file.
    assert not small.first_use(OTHER[::-1], ANOTHER, UNTIL, NOW)
    assert not ReplayFile(file, 60).first_use(OTHER[::-1], ANOTHER, UNTIL, NOW)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_cut_while_it_goes_into_a_larger_one_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "replay.memory"
    ReplayFile(file, 60).first_use(TOKEN, CALL, UNTIL, NOW)
    truncate, large = os.truncate, ReplayFile(file, 600)

    def cut(descriptor: int, length: int) -> None:
        monkeypatch.setattr("shaken_plugin.stores.replay.os.truncate", truncate)
        truncate(file, 4_096)
        truncate(descriptor, length)

    monkeypatch.setattr("shaken_plugin.stores.replay.os.truncate", cut)
    for _ in range(2):
        with suppress(StoreUnavailable):
            large.first_use(TOKEN, CALL, UNTIL, NOW)
    assert not large.first_use(TOKEN, ANOTHER, UNTIL, NOW)
    assert list(tmp_path.iterdir()) == [file]


def _in_another_process(file: Path, lifetime: float, token: bytes) -> bool:
    """What a worker is told about a token in its call `CALL`, after it was told of damage at most once."""
    child = os.fork()
    if child == 0:
        memory = ReplayFile(file, lifetime)
        try:
            first = memory.first_use(token, CALL, UNTIL, NOW)
        except StoreUnavailable:
            first = memory.first_use(token, CALL, UNTIL, NOW)
        os._exit(first)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


@pytest.mark.parametrize("change", ["size", "damage"])
def test_what_one_worker_made_anew_no_other_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    file = tmp_path / "replay.memory"
    ReplayFile(file, 60).first_use(OTHER, CALL, UNTIL, NOW)
    if change == "damage":
        os.truncate(file, 4_096)
    lockf, first = fcntl.lockf, []

    def after_another(*arguments: int) -> None:  # who found the same, and was faster
        monkeypatch.setattr("shaken_plugin.stores.replay.fcntl.lockf", lockf)
        first.append(_in_another_process(file, 240, TOKEN))
        lockf(*arguments)

    monkeypatch.setattr("shaken_plugin.stores.replay.fcntl.lockf", after_another)
    assert not ReplayFile(file, 240).first_use(TOKEN, ANOTHER, UNTIL, NOW)
    assert first == [True]
    assert not ReplayFile(file, 240).first_use(TOKEN, ANOTHER, UNTIL, NOW)


def test_a_worker_that_waited_while_the_file_was_replaced_asks_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "replay.memory"
    memory = ReplayFile(file, 60)
    memory.first_use(OTHER, CALL, UNTIL, NOW)
    lockf, first = fcntl.lockf, []

    def after_another(*arguments: int) -> None:
        monkeypatch.setattr("shaken_plugin.stores.replay.fcntl.lockf", lockf)
        first.append(_in_another_process(file, 240, TOKEN))
        lockf(*arguments)

    monkeypatch.setattr("shaken_plugin.stores.replay.fcntl.lockf", after_another)
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, NOW)
    assert first == [True]


def test_a_file_that_is_in_use_is_replaced_when_nobody_has_it(tmp_path: Path) -> None:
    file = tmp_path / "replay.memory"
    ReplayFile(file, 60).first_use(TOKEN, CALL, UNTIL, NOW)
    large = ReplayFile(file, 240)
    with _locked(file), pytest.raises(StoreUnavailable, match="another process has it locked"):
        large.first_use(TOKEN, CALL, UNTIL, NOW)
    assert not large.first_use(TOKEN, ANOTHER, UNTIL, NOW)


def test_a_file_that_others_replace_all_the_time_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "replay.memory"
    memory = ReplayFile(file)
    memory.first_use(TOKEN, CALL, UNTIL, NOW)
    lockf = fcntl.lockf

    def lose(*arguments: int) -> None:
        file.unlink(missing_ok=True)
        lockf(*arguments)

    monkeypatch.setattr("shaken_plugin.stores.replay.fcntl.lockf", lose)
    with pytest.raises(StoreUnavailable, match="again and again"):
        memory.first_use(TOKEN, CALL, UNTIL, NOW)
    monkeypatch.undo()
    ReplayFile(file, 60).first_use(TOKEN, CALL, UNTIL, NOW)
    monkeypatch.setattr(ReplayFile, "_has_the_name", lambda *_: False)
    with pytest.raises(StoreUnavailable, match="again and again"):
        ReplayFile(file, 240).first_use(TOKEN, CALL, UNTIL, NOW)


def _lose_the_folder(file: Path) -> None:
    for part in file.parent.iterdir():
        part.unlink()
    file.parent.rmdir()


def _make_a_link(file: Path) -> None:
    file.rename(file.with_suffix(".other"))
    file.symlink_to(file.with_suffix(".other"))


def _make_a_database(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE policy (a)")


def _overwrite(file: Path) -> None:
    file.write_bytes(b"this is no memory, whatever else it is" * 100)


def _make_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_lose_the_folder, "No such file"),
        (_make_a_link, "is a link"),
        (_make_a_database, "is no replay memory"),
        (_overwrite, "is no replay memory, and is left as it is; name another file in verification.replay_memory"),
        (_make_a_folder, "Is a directory"),
    ],
)
def test_what_cannot_be_remembered_is_said_each_time(tmp_path: Path, spoil: Callable[[Path], None], why: str) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    file = folder / "replay.memory"
    memory = ReplayFile(file)
    memory.first_use(TOKEN, CALL, UNTIL, NOW)
    spoil(file)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=rf"replay\.memory: .*{why}"):
            memory.first_use(TOKEN, ANOTHER, UNTIL, NOW + 2 * LOOK_AFTER)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ReplayFile(tmp_path / "replay.memory")
    memory.first_use(OTHER, CALL, UNTIL, NOW)
    monkeypatch.setattr("shaken_plugin.stores.replay.os.pwrite", lambda *_: 100)
    with pytest.raises(StoreUnavailable, match="No space left"):
        memory.first_use(TOKEN, CALL, UNTIL, NOW)


def test_a_lock_that_the_file_system_does_not_have_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    memory = ReplayFile(tmp_path / "replay.memory")
    memory.first_use(OTHER, CALL, UNTIL, NOW)
    monkeypatch.setattr("shaken_plugin.stores.replay.fcntl.lockf", no_locks)
    with pytest.raises(StoreUnavailable, match="No locks available"):
        memory.first_use(TOKEN, CALL, UNTIL, NOW)


def test_a_file_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "replay.memory"
    memory = ReplayFile(file)
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW)
    file.unlink()
    assert memory.first_use(TOKEN, ANOTHER, UNTIL, NOW)
    assert not memory.first_use(TOKEN, CALL, UNTIL, NOW)
    assert file.stat().st_mode & 0o777 == 0o660
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_has_another_name_now_is_left_a_second_later(tmp_path: Path) -> None:
    file = tmp_path / "replay.memory"
    memory = ReplayFile(file)
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW)
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, NOW + LOOK_AFTER)
    file.rename(tmp_path / "elsewhere")
    assert memory.first_use(TOKEN, ANOTHER, UNTIL, NOW + 2 * LOOK_AFTER)
    assert not ReplayFile(file).first_use(TOKEN, CALL, UNTIL, NOW + 2 * LOOK_AFTER)


def test_a_descriptor_that_was_closed_over_our_head_is_not_written_to(tmp_path: Path) -> None:
    file, other = tmp_path / "replay.memory", tmp_path / "other"
    memory = ReplayFile(file)
    memory.first_use(OTHER, CALL, UNTIL, NOW)
    os.close(_descriptor(file))
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW)
    descriptor = _descriptor(file)
    other.touch()
    replacement = os.open(other, os.O_RDWR)
    os.dup2(replacement, descriptor)
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, NOW)
    assert other.stat().st_size == 0
    os.close(descriptor)
    os.close(replacement)


def _descriptor(file: Path) -> int:
    (found,) = (link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link) == str(file))
    return int(found.name)


def _cut(file: Path) -> None:
    os.truncate(file, 4_096)


def _cut_in_the_magic(file: Path) -> None:
    os.truncate(file, 3)


def _empty(file: Path) -> None:
    os.truncate(file, 0)


def _spoil_the_header(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(20)
        opened.write(b"?")
    os.truncate(file, 4_608)  # who has it open notices it by that


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("damage", [_cut, _cut_in_the_magic, _empty, _spoil_the_header])
def test_a_damaged_file_is_said_and_made_anew(tmp_path: Path, damage: Callable[[Path], None], new: bool) -> None:
    file = tmp_path / "replay.memory"
    memory = ReplayFile(file)
    memory.first_use(OTHER, CALL, UNTIL, NOW)
    damage(file)
    if new:
        memory = ReplayFile(file)
    with pytest.raises(StoreUnavailable, match="was damaged, and is made anew"):
        memory.first_use(b"\1" * 32, CALL, UNTIL, NOW)
    assert memory.first_use(TOKEN, CALL, UNTIL, NOW)
    assert not memory.first_use(TOKEN, ANOTHER, UNTIL, NOW)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "content",
    [b"-----BEGIN PRIVATE KEY-----\nMIGH", b"customers: []\n", bytes(32), b"\n", b"SQLite format 3\0", b"shaken ca"],
)
def test_what_the_setting_names_by_mistake_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"key: is no replay memory, .* or remove that setting"):
            ReplayFile(file).first_use(TOKEN, CALL, UNTIL, NOW)
    assert file.read_bytes() == content
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_device_or_pipe_is_no_empty_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(OSError, match=r"is no replay memory"):
            Table(descriptor)
        os.close(descriptor)


def test_two_workers_that_make_the_file_at_once_have_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "replay.memory"
    link = os.link

    def after_another(*names: str) -> None:
        monkeypatch.setattr("shaken_plugin.stores.replay.os.link", link)
        child = os.fork()
        if child == 0:
            os._exit(ReplayFile(file).first_use(TOKEN, CALL, UNTIL, NOW))
        os.waitpid(child, 0)
        link(*names)

    monkeypatch.setattr("shaken_plugin.stores.replay.os.link", after_another)
    assert not ReplayFile(file).first_use(TOKEN, ANOTHER, UNTIL, NOW)


def test_half_a_tag_is_no_tag() -> None:
    tag = bytes(range(16))
    content = bytearray(512)
    content[8:24] = tag
    assert place_of(tag, content) is None
    content[32:48] = tag
    assert place_of(tag, content) == 2
