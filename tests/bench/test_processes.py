"""CPU time, memory and cores of processes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time

import pytest
from bench.processes import children, cpu_seconds, one_core, proportional_memory

_BUSY = "import time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time(), flush=True)\ninput()"


def test_cpu_time_of_another_process_is_what_it_sees_itself() -> None:
    with subprocess.Popen([sys.executable, "-c", _BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        own = float(process.stdout.readline())
        assert own <= cpu_seconds(process.pid) < own + 0.1
        assert process.pid in children(os.getpid())
        process.communicate(b"\n")
    with pytest.raises(ProcessLookupError):
        cpu_seconds(process.pid)


def test_time_that_is_waited_is_not_counted() -> None:
    before = cpu_seconds(os.getpid())
    time.sleep(0.05)
    assert cpu_seconds(os.getpid()) - before < 0.05


def test_memory_grows_by_what_is_written_to() -> None:
    before = proportional_memory(os.getpid())
    held = mmap.mmap(-1, 32 << 20)  # no heap of ours, which may have as much to spare
    held.write(os.urandom(1 << 20) * 32)
    assert proportional_memory(os.getpid()) - before > 30 << 20
    assert len(held) == 32 << 20


def test_one_core_while_it_lasts() -> None:
    before = os.sched_getaffinity(0)
    with one_core() as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
