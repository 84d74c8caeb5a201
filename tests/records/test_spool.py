"""Writing records: one write a line, files of one's own, and never an exception."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.records import spool
from shaken_plugin.records.call import CallRecord
from shaken_plugin.records.spool import NAME, SpoolWriter
from tests.records.builders import record

LARGE = 1 << 24


def lines(folder: Path) -> list[str]:
    """The Call-IDs in all files."""
    text = "".join(file.read_text() for file in sorted(folder.iterdir()))
    return [json.loads(line)["call_id"] for line in text.splitlines()]


def is_locked(file: Path) -> bool:
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_nothing_is_opened_before_the_first_record(tmp_path: Path) -> None:
    SpoolWriter(tmp_path / "calls", LARGE)
    assert not (tmp_path / "calls").exists()


def test_a_file_is_named_by_the_process_closed_to_others_and_locked(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LARGE)
    assert writer.write(record()) is None
    (file,) = tmp_path.iterdir()
    assert NAME.fullmatch(file.name)
    assert f"-{os.getpid()}-" in file.name
    assert file.stat().st_mode & 0o777 == 0o660
    assert is_locked(file)


def test_a_record_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write

    def noted(descriptor: int, octets: bytes) -> int:
        written.append(octets)
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", noted)
    writer = SpoolWriter(tmp_path, LARGE)
    for _ in range(3):
        assert writer.write(record()) is None
    assert written == [record().line()] * 3


def test_a_file_that_is_large_enough_is_followed_by_another(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 1_000)
    for number in range(20):
        assert writer.write(record(call_id=str(number))) is None
    files = sorted(tmp_path.iterdir())
    assert len(files) > 3
    assert [is_locked(file) for file in files] == [False] * (len(files) - 1) + [True]
    assert lines(tmp_path) == [str(number) for number in range(20)]


def test_a_child_takes_neither_the_file_nor_the_lock_of_its_parent(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LARGE)
    assert writer.write(record(call_id="parent")) is None
    with writer._own[os.getpid()].lock:  # as if another thread were writing
        pid = os.fork()
        if pid == 0:
            os._exit(0 if writer.write(record(call_id="child")) is None else 1)
        assert os.waitpid(pid, 0)[1] == 0
    assert writer.write(record(call_id="parent again")) is None
    assert len(list(tmp_path.iterdir())) == 2
    assert sorted(lines(tmp_path)) == ["child", "parent", "parent again"]


def test_threads_share_a_file(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 100_000)

    def work(name: int) -> None:
        for number in range(200):
            assert writer.write(record(call_id=f"{name}-{number}")) is None

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lines(tmp_path)) == sorted(f"{name}-{number}" for name in range(8) for number in range(200))


def test_a_file_that_somebody_removed_is_not_written_to(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LARGE)
    assert writer.write(record(call_id="a")) is None
    next(tmp_path.iterdir()).unlink()
    assert writer.write(record(call_id="b")) is None
    assert lines(tmp_path) == ["b"]


def test_a_descriptor_that_became_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "calls", LARGE)
    assert writer.write(record(call_id="a")) is None
    own = writer._own[os.getpid()].file
    assert own is not None
    with (tmp_path / "other").open("wb") as other:
        os.dup2(other.fileno(), own.descriptor)  # the switch closed it, and opened another file
        assert writer.write(record(call_id="b")) is None
        os.fstat(own.descriptor)
        os.close(own.descriptor)
    assert (tmp_path / "other").read_bytes() == b""
    assert lines(tmp_path / "calls") == ["a", "b"]


def test_after_the_descriptor_was_closed_over_its_head_it_opens_another_file(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LARGE)
    assert writer.write(record(call_id="a")) is None
    own = writer._own[os.getpid()].file
    assert own is not None
    os.close(own.descriptor)
    assert [writer.write(record(call_id=name)) for name in "bcd"] == [None] * 3
    assert lines(tmp_path) == ["a", "b", "c", "d"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "calls").symlink_to(tmp_path / "elsewhere")
    trouble = SpoolWriter(tmp_path / "calls", LARGE).write(record())
    assert trouble == f"{tmp_path / 'calls'}: is a link; name the folder itself in the settings"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_torn_line_is_written_again_to_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SpoolWriter(tmp_path, LARGE)
    assert writer.write(record(call_id="a")) is None
    write = os.write
    once = iter([40])
    monkeypatch.setattr(os, "write", lambda fd, octets: write(fd, octets[: next(once, None)]))
    assert writer.write(record(call_id="b")) is None
    assert writer.write(record(call_id="c")) is None
    first, second = sorted(tmp_path.iterdir())
    assert first.read_bytes() == record(call_id="a").line() + record(call_id="b").line()[:40]
    assert second.read_bytes() == record(call_id="b").line() + record(call_id="c").line()
    assert not is_locked(first)


@pytest.mark.parametrize(
    ("failure", "files"),
    [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EIO, 2), (errno.EFBIG, 2)],
    ids=["disk full", "quota", "broken disk", "limit of a file"],
)
def test_what_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: int, files: int
) -> None:
    writer = SpoolWriter(tmp_path, LARGE)
    assert writer.write(record(call_id="a")) is None

    def fail(*_: Any) -> int:
        raise OSError(failure, os.strerror(failure))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        trouble = writer.write(record(call_id="b"))
        for _ in range(20):  # leaves no file for each call
            assert writer.write(record(call_id="b")) == trouble
    assert trouble is not None
    assert trouble.startswith(f"{tmp_path}: ")
    assert writer.write(record(call_id="c")) is None
    assert lines(tmp_path) == ["a", "c"]
    assert len(list(tmp_path.iterdir())) == files


def test_no_room_for_a_whole_line_even_in_a_new_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SpoolWriter(tmp_path, LARGE)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, octets: write(fd, octets[:9]))
        assert writer.write(record()) == f"{tmp_path}: no room for a whole line"
    assert sorted(file.read_bytes() for file in tmp_path.iterdir()) == [record().line()[:9]] * 2


def test_a_folder_that_is_not_there_is_made_and_one_without_a_parent_is_told(tmp_path: Path) -> None:
    assert SpoolWriter(tmp_path / "calls", LARGE).write(record()) is None
    assert (tmp_path / "calls").stat().st_mode & 0o7777 == 0o2770
    trouble = SpoolWriter(tmp_path / "no" / "calls", LARGE).write(record())
    assert trouble == f"{tmp_path / 'no' / 'calls'}: No such file or directory"


def test_a_file_that_the_collector_looks_at_before_it_is_locked_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    held: list[tuple[str, int]] = []

    def late(descriptor: int, operation: int) -> None:
        if len(held) < 2:
            (file,) = [one for one in tmp_path.iterdir() if one.name not in {name for name, _ in held}]
            opened = os.open(file, os.O_RDONLY)
            flock(opened, fcntl.LOCK_EX)
            held.append((file.name, opened))
            if len(held) == 2:
                file.unlink()
                os.close(opened)  # removed, and its lock is free again
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert SpoolWriter(tmp_path, LARGE).write(record(call_id="a")) is None
    assert lines(tmp_path) == ["a"]
    os.close(held[0][1])


def test_who_never_gets_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> None:
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", busy)
    assert SpoolWriter(tmp_path, LARGE).write(record()) == f"{tmp_path}: no new file could be made"
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    assert SpoolWriter(tmp_path, LARGE).write(record()) == f"{tmp_path}: No locks"
    monkeypatch.undo()
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    (tmp_path / f"{spool.process_name()}-5.jsonl").touch()
    assert SpoolWriter(tmp_path, LARGE).write(record()) == f"{tmp_path}: no new file could be made"


def test_a_record_that_cannot_be_written_as_json_is_told(tmp_path: Path) -> None:
    class Broken(CallRecord):
        def line(self) -> bytes:
            raise ValueError("hostile text")

    broken = Broken(kind="sign", at=0.0, node="n")
    assert SpoolWriter(tmp_path, LARGE).write(broken) == "not written: ValueError"


def test_without_proc_a_process_has_a_name_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", none)
    assert NAME.fullmatch(f"{spool.process_name()}-1.jsonl")
