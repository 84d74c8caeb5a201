"""Clocks around functions: how much of a call's time passes in which part of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from statistics import median
from time import perf_counter_ns
from typing import Any, Final

from bench.workers import Task

Parts = Mapping[str, Sequence[str]]
"""By the name of each part where its functions lie, as ``module:Class.function``. A function that a module has from
another is that which it calls by its name. The first part is the whole call, and gets what no other has."""

TOGETHER: Final = "together"


class Clocks:
    """Put around functions; time inside one that has a clock of its own does not count outside.

    What a clock costs itself is some 0.2 µs each time, a part of it in the part around. It is not taken off.

    Args:
        parts: what is told apart.
    """

    def __init__(self, parts: Parts) -> None:
        self._names = list(parts)
        self._calls: list[list[int]] = []
        self._took = [0] * len(self._names)
        self._outer: list[int] = []
        self._since = 0
        for part, places in enumerate(parts.values()):
            for place in places:
                self._put_around(part, place)

    def taken(self) -> dict[str, float]:
        """Seconds of each part in one call, medians of those since this was last asked, and of all parts together."""
        calls, self._calls = self._calls, []
        found = {name: median(took) / 1e9 for name, took in zip(self._names, zip(*calls, strict=True), strict=True)}
        return found | {TOGETHER: median(map(sum, calls)) / 1e9}

    def _put_around(self, part: int, place: str) -> None:
        owner = resolve_name(place.rpartition(".")[0] if "." in place.partition(":")[2] else place.partition(":")[0])
        name = place.replace(":", ".").rpartition(".")[2]
        setattr(owner, name, self._around(part, getattr(owner, name)))

    def _around(self, part: int, function: Callable[..., Any]) -> Callable[..., Any]:
        outer = self._outer

        @functools.wraps(function)
        def around(*arguments: Any, **named: Any) -> Any:
            now = perf_counter_ns()
            if outer:
                self._took[outer[-1]] += now - self._since
            outer.append(part)
            self._since = perf_counter_ns()
            try:
                return function(*arguments, **named)
            finally:
                now = perf_counter_ns()
                self._took[outer.pop()] += now - self._since
                if not outer:
                    self._calls.append(self._took)
                    self._took = [0] * len(self._took)
                self._since = perf_counter_ns()

        return around


class Clocked:
    """A task whose functions have clocks; how long its parts took is told beside its time. In a process of its own.

    Args:
        make: makes the task.
        parts: of one operation of it.
        arguments: for ``make``.
    """

    def __init__(self, make: Callable[..., Task], parts: Parts, *arguments: Any) -> None:
        self._task = make(*arguments)
        self._clocks = Clocks(parts)

    def prepare(self, count: int) -> None:
        """See `Task`."""
        self._task.prepare(count)

    def run(self, count: int) -> None:
        """See `Task`."""
        self._task.run(count)

    def check(self) -> Mapping[str, float]:
        """See `Task`."""
        self._task.check()
        return self._clocks.taken()
