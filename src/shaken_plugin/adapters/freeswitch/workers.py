"""Threads that do work for those who wait for it, a bounded time.

What the executor of the standard library does, for less: a call of FreeSWITCH pays for each time that one thread
wakes another, and for all code that is not in the processor's caches any more, which is most of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
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


class Workers:
    """Threads, all of them begun at once.

    Args:
        number: of them.
        stack: octets that each has.
        name: what their names begin with.
    """

    def __init__(self, number: int, stack: int, name: str) -> None:
        self._jobs: SimpleQueue[Job[object] | None] = SimpleQueue()
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
        self._jobs.put(job)  # type: ignore[arg-type]  # whoever takes it out does not look at the result
        if not job.waiting.acquire(timeout=patience) and job.claim.acquire(blocking=False):
            job.work = None  # as long as all threads hang it stays in the queue: without the leg
            raise TimeoutError("no thread has done the work in time")
        if job.failure is not None:
            raise job.failure
        return job.result  # type: ignore[return-value]  # it is one, where the work did not fail

    def begin(self, work: Callable[[], object]) -> None:
        """Have work done that nobody waits for."""
        self._jobs.put(Job(work, lambda _: None))

    def close(self) -> None:
        """Let the threads end after what was asked of them, and wait for that."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.do()
            del job  # what is in it must not live on until the next one
