"""Threads that do work for those who wait for it, a bounded time.

What the executor of the standard library does, for less: a call of FreeSWITCH pays for each time that one thread
wakes another, and for all code that is not in the processor's caches any more, which is most of it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """Work, and how it ended.

    Whoever gets ``claim`` first, the worker when it is done or the one who waits when the patience is over,
    decides whether anybody takes the result.
    """

    __slots__ = ("claim", "failure", "late", "result", "waiting", "work")

    def __init__(self, work: Callable[[], T], late: Callable[[T], object]) -> None:
        self.work: Callable[[], T] | None = work
        self.late = late
        self.claim, self.waiting = threading.Lock(), threading.Lock()
        self.waiting.acquire()
        self.result: T | None = None
        self.failure: BaseException | None = None

    def do(self) -> None:
        """Do the work, unless nobody waits for it any more."""
        work = self.work
        if work is None or self.claim.locked():
            return
        try:
            self.result = work()
        except BaseException as exc:
            self.failure = exc
        if self.claim.acquire(blocking=False):
            self.waiting.release()
        elif self.failure is None:
            with suppress(BaseException):  # nobody is there to be told
                self.late(self.result)  # type: ignore[arg-type]  # it is one, where the work did not fail


class _Idle:
    """A thread that has nothing to do, until it is given something; None ends it."""

    __slots__ = ("given", "job")

    def __init__(self) -> None:
        self.given = threading.Lock()
        self.given.acquire()
        self.job: Job[object] | None = None


class Workers:
    """Threads, all of them begun at once; the one that was at work last is given the next job.

    Its stack, its connections to databases and what it allocates from are in the processor's caches still. A queue
    that all of them wait for wakes them in turn: each call would be done by the thread that has slept longest.

    Args:
        number: of them.
        stack: octets that each has.
        name: what their names begin with.
    """

    def __init__(self, number: int, stack: int, name: str) -> None:
        self._lock = threading.Lock()
        """For both of these; only one of them has anything in it."""
        self._idle: list[_Idle] = []
        self._jobs: deque[Job[object] | None] = deque()
        before = threading.stack_size(stack)
        try:
            self._threads = [
                threading.Thread(target=self._run, name=f"{name}_{at}", daemon=True) for at in range(number)
            ]
            for thread in self._threads:
                thread.start()
        finally:
            threading.stack_size(before)

    def done(self, work: Callable[[], T], patience: float, late: Callable[[T], object]) -> T:
        """What the work returns, or raises; work that nobody waits for any more is not begun.

        Args:
            work: to be done by one of the threads.
            patience: seconds to wait for it.
            late: told the result that nobody waited for any more.

        Raises:
            TimeoutError: there was none in time.
        """
        job = Job(work, late)
        self._give(job)  # type: ignore[arg-type]  # whoever does it does not look at the result
        if not job.waiting.acquire(timeout=patience) and job.claim.acquire(blocking=False):
            job.work = None  # as long as all threads hang it stays in the queue: without the leg
            raise TimeoutError("no thread has done the work in time")
        if job.failure is not None:
            raise job.failure
        return job.result  # type: ignore[return-value]  # it is one, where the work did not fail

    def begin(self, work: Callable[[], object]) -> None:
        """Have work done that nobody waits for."""
        self._give(Job(work, lambda _: None))

    def close(self) -> None:
        """Let the threads end after what was asked of them, and wait for that."""
        for _ in self._threads:
            self._give(None)
        for thread in self._threads:
            thread.join()

    def _give(self, job: Job[object] | None) -> None:
        with self._lock:
            if not self._idle:
                self._jobs.append(job)
                return
            idle = self._idle.pop()
        idle.job = job
        idle.given.release()

    def _run(self) -> None:
        idle = _Idle()
        while (job := self._next(idle)) is not None:
            job.do()
            del job  # what is in it must not live on until the next one

    def _next(self, idle: _Idle) -> Job[object] | None:
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._idle.append(idle)
        idle.given.acquire()
        job, idle.job = idle.job, None
        return job
