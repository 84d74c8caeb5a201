"""Writers, collector and ledger killed at any moment under load: nothing that was written is lost or doubled.

Real processes. A writer tells the name of each record once `SpoolWriter.write` has returned; in the end
each of these is in the ledger once, and every line that was torn is counted.
"""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.records import collector, ledger
from shaken_plugin.records.collector import Collector, collect
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.spool import SpoolWriter
from tests.records.builders import call_ids, damaged, record, spool_rows, sqlite
from tests.records.conftest import emptied
from tests.records.server import Server

ROTATE = 16_384
LIMIT = 40_000
"""Octets that a file of a writer with a limit may have: the line that reaches it is torn by the kernel."""


def fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(60)
            work()
        finally:
            os._exit(1)
    return pid


def left_over(ledger: Ledger) -> int:
    """Rows of files that were removed by a collector which then died; there must be no others."""
    rows = spool_rows(ledger)
    assert all(progress.done for progress in ledger.progress(list(rows)).values())
    return len(rows)


class Writer:
    """A process that writes records without end and tells which."""

    def __init__(self, folder: Path, number: int, *, limited: bool) -> None:
        self.told = b""
        self.pipe, theirs = os.pipe()
        self.pid = fork(lambda: _write(folder, number, theirs, limited=limited))
        os.close(theirs)

    def read(self) -> None:
        while select.select([self.pipe], [], [], 0)[0] and (octets := os.read(self.pipe, 65_536)):
            self.told += octets

    def kill(self) -> list[str]:
        """All that it told."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.read()
        os.close(self.pipe)
        return self.told.decode().split()


def _write(folder: Path, number: int, pipe: int, *, limited: bool) -> NoReturn:
    write = os.write

    def told(descriptor: int, octets: bytes) -> int:
        if (written := write(descriptor, octets)) != len(octets):
            write(pipe, b"TORN\n")
        return written

    if limited:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    os.write = told  # type: ignore[assignment]  # in this process alone
    writer = SpoolWriter(folder, LIMIT * 10 if limited else ROTATE)
    count = 0
    while True:
        for _ in range(8):
            count += 1
            name = f"{number}-{count}"
            assert writer.write(record(call_id=name)) is None
            write(pipe, f"{name}\n".encode())
        time.sleep(0.004)


def _collect(folder: Path, make: Callable[[], Ledger]) -> NoReturn:
    one = Collector(folder, make())
    while True:
        try:
            one.collect()
        except StoreUnavailable:
            time.sleep(0.02)
        time.sleep(0.001)


class Play:
    """Writers and a collector, of which one is killed and replaced every few milliseconds."""

    def __init__(self, folder: Path, make: Callable[[], Ledger], seed: int) -> None:
        self.folder, self.make = folder, make
        self.random = random.Random(seed)
        self.told: list[str] = []
        self.started = 0
        self.writers = [self._writer() for _ in range(4)]
        self.collector = fork(lambda: _collect(folder, make))

    def _writer(self) -> Writer:
        self.started += 1
        return Writer(self.folder, self.started, limited=self.started % 2 == 0)

    def kill_a_writer(self) -> None:
        index = self.random.randrange(len(self.writers))
        self.told += self.writers[index].kill()
        self.writers[index] = self._writer()

    def kill_the_collector(self) -> None:
        os.kill(self.collector, signal.SIGKILL)
        os.waitpid(self.collector, 0)
        self.collector = fork(lambda: _collect(self.folder, self.make))

    def go_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
            for writer in self.writers:
                writer.read()

    def end(self) -> None:
        os.kill(self.collector, signal.SIGKILL)
        os.waitpid(self.collector, 0)
        while self.writers:
            self.told += self.writers.pop().kill()

    def check(self) -> None:
        """All that was told is in the ledger once, and what was torn is counted."""
        counts, last = Counter(self.told), self.make()
        torn = counts.pop("TORN")
        collect(self.folder, last)
        assert list(self.folder.iterdir()) == []
        assert left_over(last) <= self.started + torn  # whoever tears a line goes on in a new file
        found = Counter(call_ids(last))
        assert [name for name, times in found.items() if times > 1] == []
        assert counts.keys() - found.keys() == set()
        # Beyond that at most the line that each was writing when it was killed.
        assert len(found) - len(counts) <= self.started
        pieces = damaged(last)
        assert torn <= len(pieces) <= torn + self.started
        assert torn > 0
        assert all(why.startswith("torn") and b'{"v":1,"kind":"sign"'.startswith(octets[:20]) for why, octets in pieces)
        assert len(counts) > 1_000, "hardly any load"
        last.close()


@pytest.mark.alone
def test_workers_and_collector_killed_at_random_and_a_ledger_that_is_locked(tmp_path: Path) -> None:
    play = Play(tmp_path / "calls", lambda: sqlite(tmp_path, timeout=0.05), seed=5)
    try:
        for turn in range(40):
            play.go_on(play.random.uniform(0.01, 0.08))
            (play.kill_the_collector if turn % 2 else play.kill_a_writer)()
            if turn % 10 == 9:
                with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=5, isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    play.go_on(0.2)
                    other.execute("ROLLBACK")
    finally:
        play.end()
    play.check()


@pytest.mark.alone
def test_workers_collector_and_postgresql_killed_at_random(server: Server, tmp_path: Path) -> None:
    emptied(server).close()
    play = Play(tmp_path / "calls", lambda: Ledger(server.url), seed=7)
    try:
        for turn in range(24):
            play.go_on(play.random.uniform(0.02, 0.1))
            (play.kill_the_collector if turn % 2 else play.kill_a_writer)()
            if turn % 8 == 7:
                server.stop("immediate")
                play.go_on(0.1)
                server.start()
    finally:
        play.end()
    play.check()


# --- At every line ----------------------------------------------------------------------------


def _die_at(line: int, work: Callable[[], object]) -> int:
    """Do something, and die by signal 9 at the given line of the collector and the ledger, counted as they run.

    Returns the number of lines where there are fewer.
    """
    files, done = {collector.__file__, ledger.__file__}, 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal done
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            done += 1
            if done == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return done


def _rounds(folder: Path, make: Callable[[], Ledger], step: int) -> None:
    """One call after another, and a collector that dies a little later each time."""
    with_end, names, line = record(call_id="x").line(), [], 0
    while True:
        line += step
        writer = SpoolWriter(folder, ROTATE)
        names += [f"{line}-1", f"{line}-2"]
        assert writer.write(record(call_id=names[-2])) is None
        assert writer.write(record(call_id=names[-1])) is None
        (own,) = writer._own.values()
        assert own.file is not None
        os.write(own.file.descriptor, with_end[:50])
        own.file.close()
        pid = fork(lambda at=line: (_die_at(at, lambda: collect(folder, make())), os._exit(0)))  # type: ignore[misc]  # a default
        died = os.waitpid(pid, 0)[1] != 0
        last = make()
        collect(folder, last)
        last.close()
        if not died:
            break
    assert line > 20 * step
    assert call_ids(last) == names
    assert [octets for _, octets in damaged(last)] == [with_end[:50]] * (len(names) // 2)
    assert list(folder.iterdir()) == []
    assert left_over(last) < len(names)
    last.close()


def test_the_collector_dies_at_every_fifth_line(tmp_path: Path) -> None:
    _rounds(tmp_path / "calls", lambda: sqlite(tmp_path), step=5)


def test_the_collector_dies_at_many_lines_with_postgresql(server: Server, tmp_path: Path) -> None:
    emptied(server).close()
    _rounds(tmp_path / "calls", lambda: Ledger(server.url), step=10)
