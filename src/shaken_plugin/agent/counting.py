"""Counting the calls of customers, for all switches of this host; in a fleet together with the other hosts.

Whose calls run here is kept in a file beside the socket, so that an agent that is restarted forgets none; after a
reboot there are none. In a fleet the counts are in Redis (`agent.shared`), where each call's lease is renewed from
here; while Redis is away each host enforces its share of the limits with what it counts itself.

What switches tell of their calls lies in files (`stores.presence`) that are read a few times a second, and
before a call is refused for calls that may have ended: so the ends of many calls cost one write and one question to
Redis together.

With a call a process may be given more that are to come (`agent.allowances`); which of these have come is told when
they leave.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.allowances import KEPT, Allowances, name_of
from shaken_plugin.agent.heldcalls import LONGEST, MAX_CALLS, Held, HeldCalls, Stage
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.owed import Owed
from shaken_plugin.agent.shared import Shared, in_time
from shaken_plugin.agent.told import Told, told_in
from shaken_plugin.core.limits import SECOND, Outcome, Request, Tally, Verdict
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores.presence import LEG, Left, is_alive

OVERTAKEN: Final = 10.0
"""Seconds for which the end of a call that is not known is remembered: who had waited for an answer too long tells it
over another connection, and it may overtake the question."""
SPAN: Final = 10.0
"""Seconds over which calls per second are shown."""
COLLECT_EVERY: Final = 0.2
"""Seconds between two looks at what processes told, while there are calls that it may be about. Each that finds
something writes to the file and asks Redis twice; before a call is refused it is looked at anyway."""


class Follower(Protocol):
    """Is told by switches of the ends of calls, where no process of theirs tells them to the agent."""

    def resume(self, owner: str, call: str) -> None:
        """An agent before this one was to be told the end of this call; ``owner`` as in `stores.presence.LEG`."""

    def follows(self, owner: str) -> bool:
        """Whether the call runs, as far as is known, and its end will be told."""


class Counting:
    """See the module.

    Args:
        file: where the calls are kept.
        beside: the folder of the policy's file, where switches have their files.
        alarms, metrics: of the agent.
        clock: `stores.limiter.uptime`.
        shared: in a fleet.
        follower: where calls are served here.
    """

    def __init__(
        self,
        file: Path,
        beside: Path,
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
        shared: Shared | None = None,
        follower: Follower | None = None,
    ) -> None:
        self._calls = HeldCalls(file, alarms)
        self._follower = follower
        self._beside = beside
        self._left = Left(beside)
        self._collected = 0
        """How much was taken of what processes told."""
        self._alarms = alarms
        self._metrics = metrics
        self._clock = clock
        self._shared = shared
        self._tallies: dict[str, Tally] = {}
        self._ends: dict[str | tuple[str, str, int], float] = {}
        """Of calls, and questions, that were not known: when they were told."""
        self._early: dict[str, str] = {}
        """Calls that were told of before what an agent before this one left could be read, and their new owners."""
        self._allowances = Allowances()
        self._owed = None if shared is None else Owed(self._calls, shared)
        self._arrivals: deque[float] = deque()
        self._over: Counter[str] = Counter()
        metrics.limit_slots.set_function(lambda: self._calls.slots)
        metrics.limit_calls.set_function(self._rate)

    # --- What switches ask ------------------------------------------------------------------------

    async def admit(self, request: Request, owner: str, ask: int = 0) -> Verdict:
        """Count a call; ``ask`` is the number of the question among those of its owner.

        Raises:
            StoreUnavailable: more calls than can be known.
        """
        if self._calls.known >= MAX_CALLS:
            raise StoreUnavailable(f"{MAX_CALLS} calls are known")
        if self._allowances.of(request.call) is not None:
            await self._come(request.call)
        now, ended = self._clock(), self._ended()
        verdict = await self._verdict(request, now)
        if verdict.outcome is Outcome.CONCURRENT:
            await self._collect_in_time()
            if self._ended() != ended:  # there may be room now
                verdict = await self._verdict(request, now)
        self._counted(verdict, now)
        if verdict.ahead:
            self._allowances.give(request, verdict.ahead, owner, now)
        if verdict.outcome.passes and request.takes_slot:
            held = self._calls.get(request.customer, request.call)
            if held is None or held.lapsed:
                stage = Stage.SENT if request.sent else Stage.UNSENT
                self._calls.keep(Held(request.customer, request.call, request.level, owner, now, ask, stage))
            elif held.ask != ask:
                followed = LEG.fullmatch(held.owner)  # it goes on, also if nobody hears this answer
                self._calls.keep(replace(held, owner=held.owner if followed else owner, ask=ask))
            if held is None and self._ends:
                overtaken = [self._ends.pop(told, None) for told in (request.call, (request.call, owner, ask))]
                if any(at is not None for at in overtaken):
                    self._end(self._calls.of(request.call))
                    await self._settle()  # no other call waits for what Redis is being told
        return verdict

    async def _verdict(self, request: Request, now: float) -> Verdict:
        tally, shared, owed = self._tally(request.customer), self._shared, self._owed
        if shared is None or owed is None:
            return tally.admit(request, _micro(now))
        asked = shared.why is None
        try:
            if owed.is_behind and asked:
                await owed.tell_apart_in_time()
            verdict = await shared.admit(request)
        except StoreUnavailable:
            verdict = tally.admit(self._share(request, shared), _micro(now))
            if request.takes_slot and verdict.outcome.passes:
                owed.apart.append((request.customer, request.call))
            elif asked and request.takes_slot:
                # It did not answer in time, and may have counted it all the same.
                owed.ends.append((request.customer, request.call))
        else:
            if verdict.outcome.passes and request.takes_slot:
                tally.hold(request.call, request.level, _micro(now))
        return verdict

    def _ended(self) -> tuple[int, int]:
        """What grows where calls may have ended, here or for Redis."""
        return self._collected, 0 if self._owed is None else self._owed.told

    # --- What switches tell -----------------------------------------------------------------------

    async def tell(self, all_told: Iterable[Told]) -> None:
        """Take what switches tell, in its order."""
        with self._calls.written_together():
            for op, call, owner, ask, to in all_told:
                if op == "followed":
                    self._go_on(call, owner)
                elif op == "ended":
                    self._end(self._calls.of(call), call)
                elif op == "undo":
                    # Nobody heard the answer to this question: it has ended, unless it was asked about again since.
                    found = [held for held in self._calls.of(call) if (held.owner, held.ask) == (owner, ask)]
                    self._end(found, (call, owner, ask))
                else:
                    self._refer(self._calls.of(call), to)
        await self._settle()

    async def collect(self) -> None:
        """Take what processes told; when this returns, Redis knows of it, too."""
        while lines := self._left.take():
            self._collected += 1
            await self.tell(filter(None, map(told_in, lines)))
            if not self._left.has_more:
                break
            await asyncio.sleep(0)  # others have their turn
        self._give_back(self._clock() - KEPT)
        await self._settle()

    async def _collect_in_time(self) -> None:
        """The same for a call: who waits longer for us than for Redis goes on uncounted."""
        with suppress(StoreUnavailable):
            async with in_time():
                await self.collect()

    async def collect_when_due(self) -> None:
        """The same, unless there is nothing that it could be about."""
        if self._calls.known or self._allowances:
            await self.collect()

    def _go_on(self, call: str, owner: str) -> None:
        """A call goes on until its end is told; of another owner than asked, if one is named."""
        self._take(call)
        if not self._calls.has_restored and len(self._early) < MAX_CALLS:
            self._early[call] = owner or self._early.get(call, "")
        for held in self._calls.of(call):
            owned = owner or held.owner
            if held.stage is Stage.FOLLOWED and held.owner == owned:
                continue
            self._calls.keep(replace(held, stage=Stage.FOLLOWED, owner=owned, lapsed=False))
            if held.lapsed:
                self._tally(held.customer).hold(call, held.level, _micro(self._clock()))
                if self._owed is not None:
                    self._owed.again.append((held.customer, call))

    async def _come(self, call: str) -> None:
        """One that was admitted ahead is asked about, and whether it has left is not known here: it counts once."""
        await self._collect_in_time()
        if self._take(call):
            await self._settle()

    def _take(self, call: str) -> bool:
        """A call is there that may have been admitted ahead; whether that was so, and nothing was told of it before."""
        if self._calls.known >= MAX_CALLS or (ahead := self._allowances.use(call)) is None:
            return False
        now, name = self._clock(), name_of(call)
        self._arrivals.append(now)
        self._calls.keep(Held(ahead.customer, call, ahead.level, ahead.owner, now, stage=Stage.UNSENT))
        self._tally(ahead.customer).take(name, call, ahead.level, _micro(now))
        if self._owed is not None:
            self._owed.taken.append((ahead.customer, name, call, ahead.level))
        return True

    def _give_back(self, before: float) -> None:
        """Calls that were admitted ahead before a time, and have not come, count no more."""
        for customer, name in self._allowances.give_back(before):
            self._uncount(customer, name)

    def _uncount(self, customer: str, call: str) -> None:
        self._tally(customer).end(call)
        if self._owed is not None:
            self._owed.ends.append((customer, call))

    def _end(self, found: Sequence[Held], told: str | tuple[str, str, int] | None = None) -> None:
        if not found and told is not None and len(self._ends) < MAX_CALLS:
            self._ends[told] = self._clock()
            if isinstance(told, str) and (ahead := self._allowances.use(told)) is not None:
                self._uncount(ahead.customer, name_of(told))  # its end is read before that it left, or it never did
        for held in found:
            self._calls.drop(held)
            self._free(held)

    def _refer(self, found: Sequence[Held], to: str) -> None:
        """A call is to be sent on to somebody."""
        for held in found:
            self._tally(held.customer).refer(held.call, to, _micro(self._clock()))
            if self._owed is not None:
                self._owed.referred.append((held.customer, held.call, to))

    def _free(self, held: Held) -> None:
        """Give a slot back, unless that was done."""
        if not held.lapsed:
            self._uncount(held.customer, held.call)

    async def _settle(self) -> None:
        """Tell Redis what has changed here."""
        if self._owed is not None:
            await self._owed.settle()

    # --- What happens now and then ----------------------------------------------------------------

    async def look(self) -> None:
        """End the calls of processes that are gone and those that nobody will end; renew leases. Each second."""
        if not self._calls.is_open:
            self.open()
        await self.collect()
        self._left.sweep()
        now = self._clock()
        gone = {owner for owner in {held.owner for held in self._calls} if not self._is_alive(owner)}
        with self._calls.written_together():
            for held in self._calls:
                if held.owner not in gone and not held.is_over(now):
                    continue
                if held.owner in gone or held.lapsed or held.stage is Stage.FOLLOWED:
                    self._calls.drop(held)
                else:
                    self._calls.keep(replace(held, lapsed=True))
                self._free(held)
        await self._settle()
        if self._calls.has_restored:
            self._ends = {call: at for call, at in self._ends.items() if now - at < OVERTAKEN}
        self._allowances.forget(now)
        for customer, tally in list(self._tallies.items()):
            tally.advance(_micro(now))
            if tally.is_idle(_micro(now)):
                del self._tallies[customer]
        if self._shared is not None and self._owed is not None:
            self._say(self._shared.why)
            await self._owed.renew(now)
        while self._arrivals and now - self._arrivals[0] >= SPAN:
            self._arrivals.popleft()

    def open(self) -> None:
        """Take over what an agent before this one left."""
        for left in self._calls.open():
            if left.call in self._ends or (left.call, left.owner, left.ask) in self._ends:
                self._calls.drop(left)  # it has ended while the file could not be read
                if self._owed is not None:
                    self._owed.ends.append((left.customer, left.call))
                continue
            held, owner = left, self._early.get(left.call)
            if owner is not None:
                held = replace(left, stage=Stage.FOLLOWED, owner=owner or left.owner)
                self._calls.keep(held)
            if not held.lapsed:
                self._tally(held.customer).hold(held.call, held.level, _micro(self._clock()))
            if self._follower is not None and LEG.fullmatch(held.owner):
                self._follower.resume(held.owner, held.call)
            if self._owed is not None:
                self._owed.renew_soon()
        if self._calls.has_restored:
            self._early.clear()

    async def leave(self) -> None:
        """Before `close`: the next agent does not know what was given ahead."""
        await self._collect_in_time()
        self._give_back(self._clock())
        await self._settle()

    def close(self) -> None:
        """Leave it to the next agent."""
        self._calls.close()

    def status(self) -> dict[str, object]:
        """Calls per second and slots on this host, for the fleet's status."""
        return {
            "calls_per_second": round(self._rate(), 1),
            "slots": self._calls.slots,
            "customers_with_slots": len({held.customer for held in self._calls if not held.lapsed}),
            "over_limit": self._over.total(),
        }

    def _say(self, why: str | None) -> None:
        """Raise or clear the alarm of a host that counts by itself."""
        if why is None:
            self._alarms.clear("counted_apart")
        else:
            self._alarms.on(
                "counted_apart", f"{why}: this host enforces its share of each limit by what it counts itself"
            )

    @staticmethod
    def _share(request: Request, shared: Shared) -> Request:
        hosts = max(1, shared.hosts)
        return request._replace(bounds=tuple(bound.share(hosts) for bound in request.bounds), ahead=0)

    def _tally(self, customer: str) -> Tally:
        tally = self._tallies.get(customer)
        if tally is None:
            tally = self._tallies[customer] = Tally(int(LONGEST * SECOND))
        return tally

    def _is_alive(self, owner: str) -> bool:
        if LEG.fullmatch(owner):
            return self._follower is not None and self._follower.follows(owner)
        return not owner or is_alive(self._beside, owner)

    # --- What is shown ----------------------------------------------------------------------------

    def _counted(self, verdict: Verdict, now: float) -> None:
        if verdict.outcome.passes:
            self._arrivals.append(now)
        else:
            self._over[verdict.outcome.value] += 1
            self._metrics.limit_over.labels(verdict.outcome.value).inc()

    def _rate(self) -> float:
        now = self._clock()
        return sum(now - arrival < SPAN for arrival in tuple(self._arrivals)) / SPAN


def _micro(now: float) -> int:
    return int(now * SECOND)
