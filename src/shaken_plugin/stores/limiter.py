"""Counting calls, and PASSporTs over all hosts, by asking the agent of this host."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from pathlib import Path
from typing import Final

from shaken_plugin.core.limits import AHEAD, MAX_AHEAD, OF_ALLOWANCE, SECOND, Bound, Outcome, Request, Verdict
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import ReplayMemory
from shaken_plugin.processid import THIS
from shaken_plugin.stores.agent_line import AgentLine, NotAsked, line_to, message
from shaken_plugin.stores.presence import Presence

MAX_VERDICTS: Final = 128
MAX_ALLOWANCES: Final = 1_000
"""Customers and levels that a process looks ahead for."""

_SPAN: Final = AHEAD / SECOND
_SHORTEST: Final = _SPAN / 4
"""Seconds: calls of less are too few to tell by how many will come."""


def uptime() -> float:
    """Seconds since this host was started, also while it slept: nobody sets this clock, and it survives the agent."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Allowance:
    """Calls of one customer and level that were admitted ahead, and how many there were."""

    __slots__ = ("bounds", "calls", "names", "since", "until")

    def __init__(self, bounds: tuple[Bound, ...], since: float) -> None:
        self.bounds = bounds
        self.names: list[str] = []
        self.until = 0.0
        self.since, self.calls = since, 0
        """When the agent was asked last, and calls from then on."""

    def wanted(self, now: float) -> int:
        """As many calls as will come while it may be used, if they come as they did; of one, often none would."""
        found = int(self.calls * _SPAN / max(now - self.since, _SHORTEST))
        return min(found, MAX_AHEAD) if found > 1 else 0


class AgentLimiter:
    """A `ports.CallLimiter` that asks the agent, and with it for calls to come, where many do.

    Args:
        line: to the agent.
        presence: this process.
        clock: gives seconds that only grow.
    """

    def __init__(self, line: AgentLine, presence: Presence, clock: Callable[[], float] = uptime) -> None:
        self._line = line
        self._presence = presence
        self._asks = itertools.count(1)
        self._verdicts: dict[bytes, Verdict] = {}
        """Answers that came before: there are few."""
        self._allowances: dict[tuple[str, str], _Allowance] = {}
        self._pid = 0
        """Of the process that these are of."""
        self._clock = clock

    @classmethod
    def at(cls, socket: Path, beside: Path) -> AgentLimiter:
        """One by the line of this process.

        Args:
            socket: the agent's.
            beside: the folder of the policy's file.
        """
        return cls(line_to(socket), Presence(beside))

    def admit(self, request: Request) -> Verdict:
        """See `ports.CallLimiter.admit`."""
        owner, ask = self._presence.name(), next(self._asks)
        if not owner and request.takes_slot:
            # Nobody would notice if this process ended: its calls are counted by the second, and no slot is theirs.
            verdict = self._asked(request._replace(slot=False), owner, ask)
            if verdict.outcome.passes:
                raise StoreUnavailable(self.trouble())
            return verdict
        try:
            return self._admitted(request, owner, ask)
        except StoreUnavailable as exc:
            if request.takes_slot and not isinstance(exc, NotAsked):
                # It may have been counted all the same, and may be refused now; what goes on is not counted.
                undo = message({"op": "undo", "call": request.call, "owner": owner, "ask": ask})
                if not self._presence.leave(undo):
                    self._say(undo)
            raise

    def _admitted(self, request: Request, owner: str, ask: int) -> Verdict:
        """What the agent says to a call, which may be asked for more like it."""
        known = self._allowances.get((request.customer, request.level)) if request.takes_slot else None
        if known is None or request.sent:
            return self._asked(request, owner, ask)
        # From before the question on: so it is over here before it is where it was given.
        now = self._clock()
        wanted, known.since, known.calls, known.names = known.wanted(now), now, 0, []
        verdict = self._asked(request._replace(ahead=wanted) if wanted else request, owner, ask)
        if not verdict.ahead:
            return verdict
        known.bounds, known.until, name = request.bounds, now + _SPAN, f"{owner}{OF_ALLOWANCE}{ask}{OF_ALLOWANCE}"
        known.names = [f"{name}{number}" for number in range(min(verdict.ahead, wanted))]
        return verdict._replace(ahead=0)

    def ahead(self, customer: str, bounds: tuple[Bound, ...], level: str) -> str:
        """See `ports.CallLimiter.ahead`."""
        if self._pid != THIS.id:  # those of a parent are the parent's
            self._allowances, self._pid = {}, THIS.id
        known = self._allowances.get((customer, level))
        if known is None:
            if len(self._allowances) >= MAX_ALLOWANCES:
                self._allowances.clear()  # of most, nobody may have called for long
            self._allowances[customer, level] = _Allowance(bounds, self._clock())
            return ""
        known.calls += 1
        if not known.names or known.bounds != bounds or self._clock() >= known.until:
            return ""
        try:
            return known.names.pop()
        except IndexError:  # another thread took the last
            return ""

    def trouble(self) -> str:
        """See `ports.CallLimiter.trouble`."""
        return "" if self._presence.name() else f"concurrent calls are not counted: {self._presence.trouble}"

    def _asked(self, request: Request, owner: str, ask: int) -> Verdict:
        line = self._line.exchange(admitting(request, owner, ask))
        if (known := self._verdicts.get(line)) is not None:
            return known
        answer = self._line.read(line)
        try:
            verdict = Verdict(Outcome(answer.get("outcome")), str(answer.get("scope", "")), int(answer.get("ahead", 0)))
        except (ValueError, TypeError):
            raise StoreUnavailable("the agent's answer is none; is it of another release?") from None
        if len(self._verdicts) < MAX_VERDICTS:
            self._verdicts[line] = verdict
        return verdict

    def followed(self, call: str, owner: str = "") -> None:
        """See `ports.CallLimiter.followed`."""
        if owner:
            self._tell(message({"op": "followed", "call": call, "owner": owner}))
        elif not self._presence.leave(line := _about(b"followed", call)):
            self._say(line)

    def ended(self, call: str) -> None:
        """See `ports.CallLimiter.ended`."""
        if not self._presence.leave(line := _about(b"ended", call)):
            self._say(line)

    def referred(self, call: str, to: str) -> None:
        """See `ports.CallLimiter.referred`."""
        # At once: the call that comes of it may be here within milliseconds.
        self._tell(message({"op": "refer", "call": call, "to": to}))

    def _say(self, line: bytes) -> None:
        """What there is no room for where the agent would find it in a moment."""
        with suppress(StoreUnavailable):
            self._line.read(self._line.exchange(line))

    def _tell(self, line: bytes) -> None:
        """Now, or else where the agent finds it."""
        try:
            self._line.read(self._line.exchange(line))
        except StoreUnavailable:
            self._presence.leave(line)


def _about(what: bytes, call: str) -> bytes:
    """The line of `agent_line.message` that says no more about a call, written out likewise."""
    return b'{"v":1,"op":"%b","call":%b}\n' % (what, _text(call).encode())


def admitting(request: Request, owner: str, ask: int) -> bytes:
    """The line of `agent_line.message` that asks about a call, written out: an encoder takes most of the time."""
    customer, call, bounds, level, slot, replaces, to, sent, ahead, _ = request
    more = f',"ahead":{ahead}' if ahead else ""
    return (
        f'{_usual(customer, bounds, level, (slot, sent), owner)}"call":{_text(call)},'
        f'"replaces":[{",".join(map(_text, replaces)) if replaces else ""}],"to":{_text(to)},"ask":{ask}{more}}}\n'
    ).encode()


@lru_cache(256)
def _usual(customer: str, bounds: tuple[Bound, ...], level: str, flags: tuple[bool, bool], owner: str) -> str:
    """The beginning of a line, the same for many calls; the flags are ``slot`` and ``sent``."""
    slot, sent = flags
    content = {"customer": customer, "bounds": bounds, "level": level, "slot": slot, "sent": sent, "owner": owner}
    return f'{{"v":1,"op":"admit",{json.dumps(content, separators=(",", ":"))[1:-1]},'


class FleetReplay:
    """A `ports.ReplayMemory` over all hosts: the local one is asked first, and either alone where the other fails.

    Args:
        local: of this host.
        line: to the agent.
    """

    def __init__(self, local: ReplayMemory, line: AgentLine) -> None:
        self._local = local
        self._line = line

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """See `ports.ReplayMemory.first_use`."""
        trouble: StoreUnavailable | None = None
        try:
            if not self._local.first_use(token, call, until, now):
                return False
        except StoreUnavailable as exc:
            trouble = exc
        milliseconds = max(1, int((until - now) * 1000))
        asked = {"op": "first_use", "token": token.hex(), "call": call.hex(), "milliseconds": milliseconds}
        first: object = None
        with suppress(StoreUnavailable):
            first = self._line.ask(asked).get("first")
        if trouble and not isinstance(first, bool):
            raise trouble
        return first is not False
