"""Memory of every process, and of what processes share, as long as a run goes on."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

from bench.load.observed import Sample
from bench.results import BenchError
from shaken_plugin.lab.servers import LabError

_LINE: Final = re.compile(r"^(?:([0-9a-f]+)-([0-9a-f]+) .(.).(.) .*|(Rss|Anonymous|Swap): +(\d+) kB)$", re.MULTILINE)
"""Of ``/proc/PID/smaps``: a mapping's addresses, whether it is writable and shared; or an amount of it."""

_POOL: Final = re.compile(r"^\s*(total|real_used): (\d+)$", re.MULTILINE)


class Pool(NamedTuple):
    """Shared memory of all processes of a switch, in octets: its size, and what is in use of it."""

    size: int
    used: int


def pool_of(answer: str) -> Pool:
    """The pool that Kamailio tells of with ``core.shmmem``.

    Raises:
        BenchError: it tells something else.
    """
    found = {name: int(octets) for name, octets in _POOL.findall(answer)}
    if len(found) < 2:
        raise BenchError(f"core.shmmem does not tell the use of the shared memory: {answer.strip()[:200]}")
    return Pool(found["total"], found["real_used"])


def memory(pid: int, pools: Collection[int] = ()) -> Sample:
    """What a process has of its own now: anonymous memory, swapped out or not, and shared memory but for pools.

    Pages of programs, libraries and files that are read are the files' own, and come in when a process first does what
    it seldom does: of libpython 2 MB where a timer process runs Python once. Likewise it comes to touch one page after
    the other of a pool, in which all its fellows have the same memory: that says nothing of how much is in use there.

    Args:
        pid: of the process.
        pools: sizes of pools, octets; a shared mapping of just that size is one.

    Raises:
        OSError: there is no such process, or it belongs to somebody else.
    """
    own = touched = mappings = 0
    shared = pool = False
    for begin, end, writable, kind, what, amount in _LINE.findall(
        Path(f"/proc/{pid}/smaps").read_text("utf-8", "replace")
    ):
        if begin:
            mappings += 1
            shared = writable == "w" and kind == "s"
            pool = shared and int(end, 16) - int(begin, 16) in pools
        elif pool:
            touched += int(amount) * 1024 * (what == "Rss")
        elif shared or what != "Rss":
            own += int(amount) * 1024
    if not mappings:
        raise ProcessLookupError(f"process {pid} has ended")
    return Sample(time.time(), own, touched)


class Watch:
    """Looks at all processes again and again, in a thread, until the end of its context.

    Args:
        lasting: those that must not end, by pid.
        others: asked each time: those that may.
        pools: what processes share, by its name; asked each time.
        every: seconds between two looks.
        tick: called after each.

    Raises:
        BenchError, LabError: a pool is not told of.
    """

    def __init__(
        self,
        lasting: Mapping[int, str],
        others: Callable[[], Mapping[int, str]],
        pools: Mapping[str, Callable[[], Pool]],
        every: float,
        tick: Callable[[], object],
    ) -> None:
        self.found: dict[tuple[str, int], list[Sample]] = {}
        self.pools: dict[str, list[Sample]] = {name: [] for name in pools}
        self.gone: list[str] = []
        self._lasting, self._others, self._pools = dict(lasting), others, dict(pools)
        self._every, self._tick = every, tick
        self._sizes = {ask().size for ask in pools.values()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Look once."""
        for pid, name in (self._lasting | dict(self._others())).items():
            try:
                self.found.setdefault((name, pid), []).append(memory(pid, self._sizes))
            except OSError:
                if self._lasting.pop(pid, None) is not None:
                    self.gone.append(name)
        for name, ask in self._pools.items():
            try:
                self.pools[name].append(Sample(time.time(), ask().used))
            except (BenchError, LabError, subprocess.TimeoutExpired):
                continue  # its switch is too busy, or gone: one look less, and too few of them are told

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self.look()
            self._tick()
