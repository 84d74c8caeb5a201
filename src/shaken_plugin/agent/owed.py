"""What Redis is to be told of the calls of a host: told together, and kept until it was."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Iterable
from typing import Final

from shaken_plugin.agent.heldcalls import MAX_CALLS, Held, HeldCalls
from shaken_plugin.agent.shared import Shared, in_time
from shaken_plugin.errors import StoreUnavailable

RENEW: Final = 30.0
"""Seconds between two renewals of the leases."""
MAX_AT_ONCE: Final = 500
"""Ends that Redis is told of at a time."""
MAX_REFERRED: Final = 10_000
"""Transfers that Redis is not told of yet; of more the oldest are forgotten, and count as calls like others."""


class Owed:
    """See the module.

    Args:
        calls: of this host.
        shared: the counts of all hosts.
    """

    def __init__(self, calls: HeldCalls, shared: Shared) -> None:
        self._calls = calls
        self._shared = shared
        self.ends: deque[tuple[str, str]] = deque(maxlen=MAX_CALLS)
        """Slots that were given back, by customer and call: the lease ends by itself, this is only sooner."""
        self.apart: deque[tuple[str, str]] = deque(maxlen=MAX_CALLS)
        """Calls that were admitted while Redis was not there, which it is to know of as soon as it is."""
        self.taken: deque[tuple[str, str, str, str]] = deque(maxlen=MAX_CALLS)
        """Calls that came in the place of one that was admitted ahead: customer, name, call and level."""
        self.again: deque[tuple[str, str]] = deque()
        """Calls that have their slot again."""
        self.referred: deque[tuple[str, str, str]] = deque(maxlen=MAX_REFERRED)
        """Calls that are to be sent on, with whom to: as many as strangers like."""
        self._is_behind = False
        """Whether Redis could not be told of all that had come."""
        self.told = 0
        """How often Redis was told of ends."""
        self._settling = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None
        self._renewed_at = float("-inf")

    @property
    def is_behind(self) -> bool:
        """Whether Redis does not know of calls that were admitted, and would admit as many more."""
        return self._is_behind or bool(self.apart)

    def renew_soon(self) -> None:
        """All leases are to be renewed with the next `renew`."""
        self._renewed_at = float("-inf")

    async def settle(self) -> None:
        """Tell what has changed; what cannot be told now is told later."""
        async with self._settling:  # who comes meanwhile relies on what others are about to tell
            with contextlib.suppress(StoreUnavailable):
                await self._take()  # first: some may have ended already
                await self._end()
                while self.again:
                    customer, call = self.again[0]
                    if (held := self._calls.get(customer, call)) is not None:
                        await self._shared.hold(customer, [(call, held.level)])
                    self.again.popleft()
                while self.referred:
                    await self._shared.refer(*self.referred.popleft())

    async def _take(self) -> None:
        """Have Redis know of the calls that were admitted ahead.

        Raises:
            StoreUnavailable: Redis cannot be had.
        """
        try:
            while self.taken and self._shared.why is None:
                await self._take_some()
        finally:
            self._is_behind = bool(self.taken)

    async def _take_some(self) -> None:
        customer = self.taken[0][0]
        some = list(itertools.islice(self.taken, MAX_AT_ONCE))
        here, over = list[tuple[str, str, str]](), list[tuple[str, str]]()
        for of, name, call, level in some:
            if of != customer:
                continue
            if self._calls.get(customer, call) is not None:
                here.append((name, call, level))
            else:
                over.append((customer, name))  # to be taken after its end would give it a slot that nobody ends
        if here:
            await self._shared.take(customer, here)
        self.ends.extend(over)  # told with others, in one question
        for _ in some:
            self.taken.popleft()
        self.taken.extendleft(reversed([one for one in some if one[0] != customer]))

    async def _end(self) -> None:
        """Have the slots that were given back free for other hosts.

        Raises:
            StoreUnavailable: Redis cannot be had.
        """
        while self.ends and self._shared.why is None:
            customer = self.ends[0][0]
            calls = [call for of, call in itertools.islice(self.ends, MAX_AT_ONCE) if of == customer]
            await self._shared.end(customer, calls)
            self.told += 1
            ended = {(customer, call) for call in calls}
            some = [self.ends.popleft() for _ in range(min(len(self.ends), MAX_AT_ONCE))]
            self.ends.extendleft(reversed([one for one in some if one not in ended]))
            for call in calls:  # one may have been answered meanwhile, and has it again
                if (held := self._calls.get(customer, call)) is not None and not held.lapsed:
                    self.apart.append((customer, call))

    async def tell_apart(self) -> None:
        """Have Redis know of the calls that were admitted without it: else it would admit as many more.

        Raises:
            StoreUnavailable: Redis cannot be had.
        """
        async with self._settling:
            await self._take()
            apart = list(self.apart)
            await self._hold(self._calls.get(*call) for call in apart)
            for _ in apart:
                self.apart.popleft()

    async def tell_apart_in_time(self) -> None:
        """`tell_apart` for a call, which waits for it no longer than for an answer; it goes on all the same.

        Raises:
            StoreUnavailable: Redis cannot be had, or does not know of them yet.
        """
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self.tell_apart())
            self._telling.add_done_callback(lambda task: task.cancelled() or task.exception())  # maybe nobody waits
        async with in_time():
            await asyncio.shield(self._telling)

    async def renew(self, now: float) -> None:
        """Renew leases, all that are due; ``now`` as in `Held.since`."""
        with contextlib.suppress(StoreUnavailable):  # tried again in a second
            await self.tell_apart()
            if now - self._renewed_at >= RENEW:
                await self._hold(self._calls)
                self._renewed_at = now

    async def _hold(self, calls: Iterable[Held | None]) -> None:
        by_customer: dict[str, list[tuple[str, str]]] = {}
        for held in calls:
            if held is not None and not held.lapsed:
                by_customer.setdefault(held.customer, []).append((held.call, held.level))
        for customer, leases in by_customer.items():
            await self._shared.hold(customer, leases)
