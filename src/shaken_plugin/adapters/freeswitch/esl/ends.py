"""Ends of calls with a slot, told by FreeSWITCH over a connection of its own.

A connection that a leg waits for cannot stay: without ``async`` the leg waits until it is closed, and with it
FreeSWITCH parks the leg for good (tried with 1.11). So there is a *watch*: a channel without media (``null``), which
FreeSWITCH is asked to make when the first call takes a slot, and which connects here. It is told of the end of each leg
that bears `HELD`, and ends a while after the last of them. When the connection breaks, FreeSWITCH is gone, and all its
calls with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

HELD: Final = "shaken_held"
"""Variable of a leg whose end is to be told: the slot."""

COMMAND: Final = "originate {{process_cdr=false,no_throttle_limits=true}}null/shaken '&socket({}/watch full)'"
"""Has FreeSWITCH (mod_loopback) make a watch, without a call record, and also when it has as many calls as it may."""

_BEGIN: Final = 1.0
"""Seconds that a call waits for a watch."""
_IDLE: Final = 5.0
"""Seconds between two looks whether a watch is still needed: FreeSWITCH ends only when it has no channels."""


class Watch(Protocol):
    """The connection of a watch."""

    core: str
    """Which FreeSWITCH process it is."""

    async def watch(self, variable: str, told: Callable[[str], object]) -> None:
        """Have the ends of legs with a variable told, by UUID."""

    async def closed(self, seconds: float) -> bool:
        """Whether the connection ended within so many seconds."""


class Ends:
    """Which legs hold slots, and who tells of their ends.

    Args:
        ended: told the slot of a call that has ended.
    """

    def __init__(self, ended: Callable[[str], object]) -> None:
        self._ended = ended
        self._held: dict[str, tuple[str, str]] = {}
        self._watching: set[str] = set()
        self._begun = asyncio.Condition()

    def hold(self, core: str, uuid: str, slot: str) -> None:
        """A leg has a slot from now on."""
        self._held[uuid] = core, slot

    def told(self, uuid: str) -> None:
        """A leg has ended."""
        if (found := self._held.pop(uuid, None)) is not None:
            self._ended(found[1])

    async def watched(self, core: str, begin: Callable[[], Awaitable[object]]) -> bool:
        """Whether the ends of legs that hold a slot are told.

        Args:
            core: the FreeSWITCH process.
            begin: asks it for a watch.
        """
        if core in self._watching:
            return True
        try:
            async with asyncio.timeout(_BEGIN):
                await begin()
                async with self._begun:
                    await self._begun.wait_for(lambda: core in self._watching)
        except TimeoutError:
            return False
        return True

    async def serve(self, watch: Watch) -> None:
        """Be told by a watch, until it is needed no more or breaks."""
        if watch.core in self._watching:
            return  # two calls asked for one
        await watch.watch(HELD, self.told)
        try:
            async with self._begun:
                self._watching.add(watch.core)
                self._begun.notify_all()
            while not await watch.closed(_IDLE) and any(core == watch.core for core, _ in self._held.values()):
                pass
        finally:
            self._watching.discard(watch.core)
            for uuid in [uuid for uuid, (core, _) in self._held.items() if core == watch.core]:
                self.told(uuid)
