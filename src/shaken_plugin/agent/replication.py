"""Keeping this host's copy of its fleet's policy: a thread follows the changes in Redis, for ever.

Another makes new snapshots where they are due. What they find is told to the agent's loop, which raises alarms and
counts. Both end with the process, whatever they are doing: a copy that is half written is not committed nor marked.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.breaker import Breaker
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.parts import Fleet, Progress
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.stores.freshness import CopyAge, mark, mark_of, too_old
from shaken_plugin.stores.redis.applying import CopyDamaged
from shaken_plugin.stores.redis.replica import OwnPolicy
from shaken_plugin.stores.sqlite.sharing import DecidesAlone

WAIT: Final = 0.4
"""Seconds for which Redis is asked to wait with its answer until there is news; the copy is marked as often."""
PATIENCE: Final = 5.0
"""Seconds after the start in which a host without a copy is no alarm: it is joining."""
RESYNCED_LASTS: Final = 600.0
"""Seconds for which the alarm about a copy that was made anew stays on."""
COMPACT_EVERY: Final = 60.0
"""Seconds between two looks whether the log needs a new snapshot."""
_END: Final = 2.0
"""Seconds that the thread has to end by itself."""

_Told = TypeVar("_Told")


class Replication:
    """Follows the changes of a fleet's policy.

    Args:
        path: the copy.
        max_age: seconds for which it may decide calls without being known to be whole.
        fleet: whose policy it is.
        breaker: told how Redis answers.
        alarms: told of trouble, from the loop.
        metrics: count.
        clock: POSIX seconds.
    """

    def __init__(
        self,
        path: Path,
        max_age: float,
        fleet: Fleet,
        breaker: Breaker,
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._decides_alone = DecidesAlone(path)
        self._max_age = max_age
        self._fleet = fleet
        self._breaker = breaker
        self._alarms = alarms
        self._metrics = metrics
        self._clock = clock
        self._age = CopyAge(path, clock)
        self._begun = clock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.head: int | None = None
        """Version of the fleet's policy, as far as it is known."""

    def start(self) -> None:
        """Begin, in the loop that runs."""
        loop = asyncio.get_running_loop()
        for work in (self._follow, self._compact):
            self._threads.append(threading.Thread(target=work, args=(loop,), name=work.__name__, daemon=True))
            self._threads[-1].start()

    async def close(self) -> None:
        """End; a thread that loads millions of numbers is left behind."""
        self._ended.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _END)

    # --- The threads --------------------------------------------------------------------------

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            outcome, pause = self._turn()
            self._tell(loop, self._told, outcome)

    def _compact(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._ended.wait(COMPACT_EVERY):
            try:
                with self._breaker.asking():
                    self._fleet.compact()
            except StoreUnavailable:
                continue  # the breaker is open, which `look` says
            except Exception as exc:  # whatever it is must not end the upkeep
                self._tell(loop, self._compacted, exc)
            else:
                self._tell(loop, self._compacted, None)

    def _tell(self, loop: asyncio.AbstractEventLoop, what: Callable[[_Told], object], outcome: _Told) -> None:
        try:
            loop.call_soon_threadsafe(what, outcome)
        except RuntimeError:
            self._ended.set()  # the loop is closed: the agent has ended

    def _turn(self) -> tuple[Progress | Exception, float]:
        """One look; what it found, and seconds until the next."""
        began = self._clock()
        try:
            progress = self._fleet.replica.follow(WAIT)
            self._breaker.worked()
            self._fleet.own()  # before it counts as whole
            if progress.version == progress.head:
                # Known when Redis was asked, not when it answered.
                mark(self._path, began)
        except StoreUnavailable as exc:
            self._breaker.failed(str(exc))
            return exc, self._breaker.pause()
        except Exception as exc:  # whatever it is must not end the copy's life
            self._probe()
            return exc, self._breaker.pause()
        return progress, 0.0

    def _probe(self) -> None:
        """Have the breaker be as Redis is, where the copy's trouble says nothing of that."""
        try:
            self._fleet.replica.probe()
        except StoreUnavailable as exc:
            self._breaker.failed(str(exc))
        except Exception:  # an answer, though nothing that a copy can follow
            self._breaker.worked()
        else:
            self._breaker.worked()

    # --- The loop -----------------------------------------------------------------------------

    def _told(self, outcome: Progress | Exception) -> None:
        if isinstance(outcome, StoreUnavailable):
            return  # the breaker is open, which `look` says
        if isinstance(outcome, OSError):
            self._alarms.on("copy_not_updated", f"{mark_of(self._path)}: {outcome.strerror}; calls go on from the copy")
        elif isinstance(outcome, OwnPolicy):
            self._alarms.on("not_in_fleet", str(outcome))
        elif isinstance(outcome, CopyDamaged):
            text = "calls that need what is damaged are decided as store.when_unavailable says"
            self._alarms.on("copy_not_updated", f"{outcome}; {text}")
        elif isinstance(outcome, StoreError):
            self._alarms.on("copy_not_updated", f"{outcome}; calls go on from the copy")
        elif isinstance(outcome, Exception):
            self._alarms.on("fault", f"replication: {outcome!r}", lasts=60.0)
        else:
            self._alarms.clear("not_in_fleet")
            self._alarms.clear("copy_not_updated")
            self.head = outcome.head
            self._metrics.head.set(outcome.head)
            if outcome.resynced is not None:
                self._metrics.resynced.inc()
                text = f"the copy was made anew from the snapshot: {outcome.resynced}"
                self._alarms.on("resynced", text, lasts=RESYNCED_LASTS)

    def _compacted(self, outcome: Exception | None) -> None:
        if outcome is None:
            self._alarms.clear("log_growing")
        else:
            text = f"{outcome}; Redis keeps all changes since the last snapshot until it can be made"
            self._alarms.on("log_growing", text)

    def age(self) -> float | None:
        """Seconds since the copy was known to be the head; None where there is none, infinite where nobody knows."""
        try:
            return self._age.seconds()
        except OSError:
            return math.inf

    async def look(self) -> None:
        """Raise and clear what depends on time."""
        age = self.age()
        self._metrics.copy_age.set(math.inf if age is None else age)
        self._metrics.breaker_open.set(self._breaker.is_open)
        self._metrics.breaker_opened.set(self._breaker.opened)
        if (why := self._breaker.why) is not None:
            self._alarms.on("breaker_open", f"{why}; calls go on from the copy, and it is tried again")
        else:
            self._alarms.clear("breaker_open")
        if age is not None and age > self._max_age and not await asyncio.to_thread(self._decides_alone):
            self._alarms.on("copy_stale", f"{too_old(self._path, age, self._max_age)}, and store.when_unavailable")
        elif age is None and await asyncio.to_thread(self._decides_alone):
            self._alarms.clear("copy_stale")
        elif age is None and self._clock() - self._begun > PATIENCE:
            self._alarms.on(
                "copy_stale", f"{self._path}: no copy of the fleet's policy yet; calls go unsigned, or refused"
            )
        elif age is not None:
            self._alarms.clear("copy_stale")
