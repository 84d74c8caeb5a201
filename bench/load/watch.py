"""Resident memory of its own of every process, as long as a run goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from bench.load.observed import Sample


def memory(pid: int) -> Sample:
    """What a process has in memory now, but for pages of programs and libraries.

    Those are the files' own, and come in when a process first does what it seldom does: of libpython 2 MB
    where a timer process runs Python once.

    Raises:
        OSError: there is no such process, or it belongs to somebody else.
    """
    found = {}
    for file, wanted in (("smaps_rollup", "Anonymous"), ("status", "RssShmem")):
        for line in Path(f"/proc/{pid}/{file}").read_text("utf-8", "replace").splitlines():
            name, _, rest = line.partition(":")
            if name == wanted:
                found[name] = int(rest.split()[0]) * 1024
    if len(found) < 2:
        raise ProcessLookupError(f"process {pid} has ended")
    return Sample(time.time(), sum(found.values()))


class Watch:
    """Looks at all processes again and again, in a thread, until the end of its context.

    Args:
        lasting: those that must not end, by pid.
        others: asked each time: those that may.
        every: seconds between two looks.
        tick: called after each.
    """

    def __init__(
        self,
        lasting: Mapping[int, str],
        others: Callable[[], Mapping[int, str]],
        every: float,
        tick: Callable[[], object],
    ) -> None:
        self.found: dict[tuple[str, int], list[Sample]] = {}
        self.gone: list[str] = []
        self._lasting, self._others, self._every, self._tick = dict(lasting), others, every, tick
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
                self.found.setdefault((name, pid), []).append(memory(pid))
            except OSError:
                if self._lasting.pop(pid, None) is not None:
                    self.gone.append(name)

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self.look()
            self._tick()
