"""The counts of all hosts of a fleet, asked from the agent's loop: in threads, in bounded time, behind breakers.

Beside the breaker that says whether Redis can be had at all, there is one for calls alone: a Redis that answers too
late for a call, or has no memory to count, is good enough for all else. A probe closes it, for which no call waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

from shaken_plugin.agent.breaker import Breaker
from shaken_plugin.core.limits import Request, Verdict
from shaken_plugin.errors import StoreError, StoreUnavailable

PATIENCE: Final = 0.03
"""Seconds that a call waits for Redis; of those that it waits for us (`stores.agent_line.TIMEOUT`)."""
RENEWAL: Final = 2.0
"""Seconds that a renewal may take, for which no call waits."""
THREADS: Final = 8
PROBE_EVERY: Final = 0.5
"""Seconds between two looks whether Redis counts again, after it did not."""

_Given = TypeVar("_Given")


@contextlib.asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """No longer than a call waits for Redis.

    Raises:
        StoreUnavailable: it took longer.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError as exc:
        raise StoreUnavailable(f"Redis was not told within {PATIENCE * 1000:.0f} ms what it missed") from exc


class Counts(Protocol):
    """See `stores.redis.limits.RedisCounts`."""

    def admit(self, request: Request) -> Verdict:
        """Count a call."""

    def end(self, customer: str, calls: Sequence[str]) -> None:
        """They have ended."""

    def refer(self, customer: str, call: str, to: str) -> None:
        """It is to be sent on."""

    def hold(self, customer: str, calls: Sequence[tuple[str, str]]) -> None:
        """Renew leases."""

    def take(self, customer: str, taken: Sequence[tuple[str, str, str]]) -> None:
        """Calls have come in the place of some that were admitted ahead."""

    def first_use(self, token: str, call: str, milliseconds: int) -> bool:
        """Whether a PASSporT came with no other call."""


class Shared(Protocol):
    """The counts of all hosts."""

    @property
    def hosts(self) -> int:
        """How many hosts were there when it was last known."""

    @property
    def why(self) -> str | None:
        """Why nobody is asked now; None where that is not so."""

    async def admit(self, request: Request) -> Verdict:
        """See `Tally.admit`.

        Raises:
            StoreUnavailable: they cannot be had now.
        """

    async def end(self, customer: str, calls: Sequence[str]) -> None:
        """See `Tally.end`. Likewise."""

    async def refer(self, customer: str, call: str, to: str) -> None:
        """See `Tally.refer`. Likewise."""

    async def hold(self, customer: str, calls: Sequence[tuple[str, str]]) -> None:
        """Renew the leases of calls, each with its level; one that is not there gets one. Likewise."""

    async def take(self, customer: str, taken: Sequence[tuple[str, str, str]]) -> None:
        """See `Tally.take`; names, calls and levels. Likewise."""


class FleetCounts:
    """A `Shared`, and `callrequests.Replays`.

    Args:
        counts: in Redis.
        breaker: while it is open nobody asks.
        live: gives how many hosts there are.
    """

    def __init__(self, counts: Counts, breaker: Breaker, live: Callable[[], int]) -> None:
        self._counts = counts
        self._breaker = breaker
        self._live = live
        self._for_calls = Breaker()
        self._threads = ThreadPoolExecutor(THREADS, "limits")

    @property
    def hosts(self) -> int:
        """See `Shared`."""
        return self._live()

    @property
    def why(self) -> str | None:
        """See `Shared`."""
        return self._breaker.why or self._for_calls.why

    async def look(self) -> None:
        """Where Redis answered too late for calls, or could not count, see whether it does again."""
        if not self._for_calls.is_open or self._breaker.is_open:
            return
        try:
            seconds = await self._run(self._probe)
        except (StoreError, StoreUnavailable) as exc:
            self._for_calls.failed(str(exc))
        else:
            if seconds <= PATIENCE:
                self._for_calls.worked()

    def _probe(self) -> float:
        """Write something that nobody looks at; seconds until that was answered."""
        begin = time.monotonic()
        self._counts.first_use(f"probe{secrets.token_hex(8)}", "", 1)
        return time.monotonic() - begin

    async def admit(self, request: Request) -> Verdict:
        """See `Shared`."""
        return await self._ask(lambda: self._counts.admit(request))

    async def end(self, customer: str, calls: Sequence[str]) -> None:
        """Likewise."""
        await self._ask(lambda: self._counts.end(customer, calls))

    async def refer(self, customer: str, call: str, to: str) -> None:
        """Likewise."""
        await self._ask(lambda: self._counts.refer(customer, call, to))

    async def hold(self, customer: str, calls: Sequence[tuple[str, str]]) -> None:
        """Likewise."""
        try:
            with self._breaker.asking():
                async with asyncio.timeout(RENEWAL):
                    await self._run(lambda: self._counts.hold(customer, calls))
        except (TimeoutError, StoreError) as exc:
            raise StoreUnavailable(f"leases are not renewed: {exc}") from exc

    async def take(self, customer: str, taken: Sequence[tuple[str, str, str]]) -> None:
        """Likewise."""
        await self._ask(lambda: self._counts.take(customer, taken))

    async def first_use(self, token: str, call: str, milliseconds: int) -> bool:
        """See `callrequests.Replays`."""
        return await self._ask(lambda: self._counts.first_use(token, call, milliseconds))

    async def _ask(self, ask: Callable[[], _Given]) -> _Given:
        """What a call waits for.

        Raises:
            StoreUnavailable: Redis cannot be had, or not in time, or does not count.
        """
        if (why := self._for_calls.why) is not None:
            raise StoreUnavailable(why)
        try:
            with self._breaker.asking():
                async with asyncio.timeout(PATIENCE):  # costs less than wait_for, which makes two more futures
                    return await self._run(ask)
        except (TimeoutError, StoreError) as exc:  # it is too slow, or answers and does not count
            trouble = str(exc) or f"Redis did not answer within {PATIENCE * 1000:.0f} ms"
            self._for_calls.failed(trouble)
            raise StoreUnavailable(trouble) from exc

    def _run(self, work: Callable[[], _Given]) -> asyncio.Future[_Given]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """End."""
        self._threads.shutdown(wait=False, cancel_futures=True)
