"""Ends of calls with a slot, told by FreeSWITCH over a connection of its own.

A connection that a leg waits for cannot stay: without ``async`` the leg waits until it is closed, and with it
FreeSWITCH parks the leg for good (tried with 1.11). So there is a *watch*: a channel without media (``null``), which
FreeSWITCH is asked to make when the first call takes a slot, and which connects here. It is told of the end of each leg
that bears `HELD`, and is hung up a while after the last of them.

When the connection breaks, FreeSWITCH is gone, and all its calls with it; or the agent is. Then the channel goes on
to its next `PAUSES`, connects again, and the agent that is there by then asks after each leg that the one before it
followed: so it learns of those that ended meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from shaken_plugin.stores.presence import LEG

HELD: Final = "shaken_held"
"""Variable of a leg whose end is to be told: the slot."""

WATCH: Final = "watch"
"""The path by which a watch connects first."""
AGAIN: Final = "again"
"""The path by which it connects after it lost an agent."""

PAUSES: Final = (1,) * 20 + (30,) * 42
"""Seconds between its attempts to find an agent: after 21 minutes it ends. FreeSWITCH takes 128 applications."""

_BEGIN: Final = 1.0
"""Seconds that a call waits for a watch."""
_IDLE: Final = 5.0
"""Seconds between two looks whether a watch is still needed: FreeSWITCH ends only when it has no channels."""
_BROKEN: Final = 5.0
"""Seconds after which a watch that broke does not come back: FreeSWITCH is gone."""
_BACK: Final = 45.0
"""Seconds in which a watch finds a new agent: longer than its longest pause, and shorter than two minutes."""


def making(address: str) -> str:
    """The command that has FreeSWITCH (mod_loopback) make a watch.

    Without a call record, also when it has as many calls as it may; each agent that it finds is a transfer.
    """
    variables = "process_cdr=false,no_throttle_limits=true,max_session_transfers=10000"
    return f"originate {{{variables}}}null/shaken '{_attempts(address)}' inline"


def beginning_again(uuid: str, address: str) -> str:
    """The command that has a watch connect as at first."""
    return f"uuid_transfer {uuid} '{_attempts(address)}' inline"


def _attempts(address: str) -> str:
    more = "".join(f",sleep:{pause * 1000},socket:{address}/{AGAIN} full" for pause in PAUSES)
    return f"socket:{address}/{WATCH} full{more}"


class Watch(Protocol):
    """The connection of a watch."""

    core: str
    """Which FreeSWITCH process it is."""

    async def watch(self, variable: str, told: Callable[[str], object]) -> None:
        """Have the ends of legs with a variable told, by UUID."""

    async def is_there(self, uuid: str) -> bool:
        """Whether there is such a leg."""

    async def closed(self, seconds: float) -> bool:
        """Whether the connection ended within so many seconds."""


class Ends:
    """Which legs hold slots, and who tells of their ends; an `agent.counting.Follower`.

    Args:
        ended: told the slot of a call that has ended.
        clock: seconds that only grow.
    """

    def __init__(self, ended: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._ended = ended
        self._clock = clock
        self._held: dict[str, dict[str, str]] = {}
        """By FreeSWITCH process and leg: its slot."""
        self._unsure: dict[str, set[str]] = {}
        """By process: legs that may have ended while nobody told."""
        self._until: dict[str, float] = {}
        """By process without a watch: until when one may come back."""
        self._watching: set[str] = set()
        self._asked: dict[str, float] = {}
        """By process: when a leg that connected had it make a watch."""
        self._begun = asyncio.Condition()

    def hold(self, core: str, uuid: str, slot: str) -> None:
        """A leg has a slot from now on."""
        self._held.setdefault(core, {})[uuid] = slot

    def told(self, core: str, uuid: str) -> None:
        """A leg has ended."""
        held = self._held.get(core, {})
        slot = held.pop(uuid, None)
        if slot is not None:
            if not held:
                del self._held[core]
            self._ended(slot)

    def resume(self, owner: str, call: str) -> None:
        """See `agent.counting.Follower`."""
        if found := LEG.fullmatch(owner):
            core, uuid = found.groups()
            self._held.setdefault(core, {})[uuid] = call
            self._unsure.setdefault(core, set()).add(uuid)
            # Anew: a watch may have come back, found no leg held here yet, and been hung up.
            self._until[core] = self._clock() + _BACK

    def follows(self, owner: str) -> bool:
        """See `agent.counting.Follower`."""
        found = LEG.fullmatch(owner)
        core, uuid = found.groups() if found else ("", "")
        if core not in self._watching and self._clock() >= self._until.get(core, float("-inf")):
            self._until.pop(core, None)
            for lost in self._unsure.pop(core, ()):
                self.told(core, lost)
        return uuid in self._held.get(core, {})

    def is_wanted(self, core: str) -> bool:
        """Whether a FreeSWITCH process has legs that hold a slot, and no watch."""
        return bool(self._held.get(core)) and core not in self._watching

    def is_due(self, core: str) -> bool:
        """Whether a leg that connects is to have its process make such a watch: one of those in a second."""
        if not self.is_wanted(core) or self._clock() - self._asked.get(core, float("-inf")) < _BEGIN:
            return False
        self._asked[core] = self._clock()
        return True

    async def watched(self, core: str, begin: Callable[[], Awaitable[str]]) -> bool:
        """Whether the ends of legs that hold a slot are told.

        Args:
            core: the FreeSWITCH process.
            begin: asks it for a watch; its answer begins with ``-`` where it makes none.
        """
        if core in self._watching:
            return True
        try:
            async with asyncio.timeout(_BEGIN):
                if (await begin()).startswith("-"):
                    return False
                async with self._begun:
                    await self._begun.wait_for(lambda: core in self._watching)
        except TimeoutError:
            return False
        return True

    async def serve(self, watch: Watch) -> None:
        """Be told by a watch, until it is needed no more or breaks."""
        core = watch.core
        if core in self._watching:
            return  # two calls asked for one
        await watch.watch(HELD, lambda uuid: self.told(core, uuid))
        try:
            async with self._begun:
                self._watching.add(core)
                self._asked.pop(core, None)
                self._begun.notify_all()
            await self._ask(watch)
            while not await watch.closed(_IDLE) and self._held.get(core):
                await self._ask(watch)
        finally:
            self._watching.discard(core)
            self._unsure[core] = set(self._held.get(core, ()))
            self._until[core] = self._clock() + _BROKEN

    async def _ask(self, watch: Watch) -> None:
        """Ask after the legs that may have ended while nobody told."""
        unsure = self._unsure.get(watch.core, set())
        while unsure:
            if not await watch.is_there(uuid := next(iter(unsure))):
                self.told(watch.core, uuid)
            unsure.discard(uuid)
