"""Subjects in processes of their own, which take turns.

A process each, so that nobody runs with the heap, the threads or the caches of another. Only one works at a
time, and the order within a round is drawn anew: what the machine does meanwhile meets all of them.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import time
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar

from bench.processes import proportional_memory
from bench.results import BenchError

SHORTEST: Final = 0.02
"""Seconds of CPU time of a turn from which can be told how many operations a longer one takes."""

TIMEOUT: Final = 300.0
"""Seconds after which a worker that does not answer is given up."""


class Task(Protocol):
    """What is measured."""

    def prepare(self, count: int) -> None:
        """Make ready for as many operations; not measured."""

    def run(self, count: int) -> None:
        """Do them."""

    def check(self) -> Mapping[str, float] | None:
        """Raise where the last run did not do what it was measured for; not measured.

        Returns:
            What it has found out about itself, by name.
        """


class Turn(NamedTuple):
    """What one turn took: CPU seconds, and the octets of memory of the process afterwards; what its task has told."""

    cpu: float
    memory: int
    told: Mapping[str, float]


class Worker:
    """A task in a process that is started anew (nothing is inherited but the core).

    Args:
        make: makes the task; a function of a module.
        arguments: for it.
    """

    def __init__(self, make: Callable[..., Task], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
        self._process.start()
        other.close()
        self._count = 0
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def turn(self, count: int) -> Turn:
        """Do as many operations.

        Raises:
            BenchError: they failed.
        """
        try:
            self._pipe.send(count)
        except OSError as exc:
            raise BenchError("a worker ended") from exc
        return Turn(*self._answer())

    def cost(self, seconds: float) -> float:
        """CPU seconds of one operation, from a turn that takes about so many seconds of CPU time."""
        return self._lasting(seconds).cpu / self._count

    def told(self, seconds: float) -> Mapping[str, float]:
        """What the task tells of itself after such a turn."""
        return self._lasting(seconds).told

    def _lasting(self, seconds: float) -> Turn:
        tried = 1
        while not self._count:
            took = self.turn(tried).cpu
            if took >= SHORTEST:
                self._count = max(1, round(tried * seconds / took))
            tried *= 4
        return self.turn(self._count)

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(TIMEOUT):
                raise BenchError(f"a worker did not answer for {TIMEOUT:.0f} s")
            good, answer = self._pipe.recv()
        except EOFError:
            raise BenchError("a worker ended") from None
        if not good:
            raise BenchError(answer)
        return answer


def _serve(pipe: Connection, make: Callable[..., Task], arguments: Sequence[Any]) -> None:
    """The worker's side: a count comes, what it took goes back."""
    try:
        task = make(*arguments)
        gc.collect()
        gc.freeze()  # as a switch's process does at its start (`switch.process`)
        pipe.send((True, None))
        while True:
            count = pipe.recv()
            task.prepare(count)
            gc.collect()
            began = time.process_time()
            task.run(count)
            took = time.process_time() - began
            told = task.check() or {}
            pipe.send((True, (took, proportional_memory(os.getpid()), told)))
    except (EOFError, BrokenPipeError):
        return
    except Exception:  # told to whoever measures
        pipe.send((False, traceback.format_exc()))


K = TypeVar("K", bound=Hashable)

Measure = Callable[[], Mapping[K, float]]
"""One turn of a subject: a value for each name that it measures."""


def interleave(
    subjects: Sequence[Measure[K]], rounds: int, advance: Callable[[], object] = lambda: None, *, warm: bool = False
) -> dict[K, tuple[float, ...]]:
    """Values of each name, a round each.

    Args:
        subjects: each has one turn in a round.
        rounds: how many.
        advance: told after each turn, those that are not counted included.
        warm: the subjects have worked before. Otherwise there is one round more, whose values do not count.
    """
    draw = random.Random(rounds)  # an order, not a secret
    found: dict[K, list[float]] = {}
    for number in range(rounds + (not warm)):
        for subject in draw.sample(subjects, len(subjects)):
            for name, value in subject().items():
                if number or warm:
                    found.setdefault(name, []).append(value)
            advance()
    return {name: tuple(values) for name, values in found.items()}
