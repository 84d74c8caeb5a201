"""One core for what is compared; CPU time and memory of processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its threads, user and system, in seconds.

    By its own clock (`clock_getcpuclockid(3)`): ``/proc/PID/stat`` tells the same in hundredths of a second.

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)  # include/linux/posix-timers.h: CPUCLOCK_SCHED of a process
    except OSError as exc:
        raise ProcessLookupError(f"no process {pid}") from exc


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that run."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(word) for word in text.split()]


def proportional_memory(pid: int) -> int:
    """Octets of memory of a process: what it shares counts by its share (PSS).

    Raises:
        OSError: there is no such process, or it belongs to somebody else.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss":
            return int(rest.split()[0]) * 1024
    raise OSError(f"the memory of process {pid} is not told")


def leave_nothing_behind() -> None:
    """Have SIGTERM end this program as any exception does: with it ends what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def one_core() -> Iterator[int]:
    """This process, and what it starts meanwhile, on one core: the last that it may use."""
    allowed = os.sched_getaffinity(0)
    core = max(allowed)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)
