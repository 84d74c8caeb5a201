"""Counting calls, and PASSporTs over all hosts, by asking the agent of this host."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from pathlib import Path
from typing import Final

from shaken_plugin.core.limits import Bound, Outcome, Request, Verdict
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import ReplayMemory
from shaken_plugin.stores.agent_line import AgentLine, NotAsked, line_to, message
from shaken_plugin.stores.presence import Presence

MAX_VERDICTS: Final = 64


class AgentLimiter:
    """A `ports.CallLimiter` that asks the agent.

    Args:
        line: to the agent.
        presence: this process.
    """

    def __init__(self, line: AgentLine, presence: Presence) -> None:
        self._line = line
        self._presence = presence
        self._asks = itertools.count(1)
        self._verdicts: dict[bytes, Verdict] = {}
        """Answers that came before: there are few."""

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
            return self._asked(request, owner, ask)
        except StoreUnavailable as exc:
            if request.takes_slot and not isinstance(exc, NotAsked):
                # It may have been counted all the same, and may be refused now; what goes on is not counted.
                self._leave(message({"op": "undo", "call": request.call, "owner": owner, "ask": ask}))
            raise

    def trouble(self) -> str:
        """See `ports.CallLimiter.trouble`."""
        return "" if self._presence.name() else f"concurrent calls are not counted: {self._presence.trouble}"

    def _asked(self, request: Request, owner: str, ask: int) -> Verdict:
        line = self._line.exchange(admitting(request, owner, ask))
        if (known := self._verdicts.get(line)) is not None:
            return known
        answer = self._line.read(line)
        try:
            verdict = Verdict(Outcome(answer.get("outcome")), str(answer.get("scope", "")))
        except ValueError:
            raise StoreUnavailable("the agent's answer is none; is it of another release?") from None
        if len(self._verdicts) < MAX_VERDICTS:
            self._verdicts[line] = verdict
        return verdict

    def sent(self, call: str) -> None:
        """See `ports.CallLimiter.sent`."""
        self._presence.leave(_about("sent", call))

    def answered(self, call: str, owner: str = "") -> None:
        """See `ports.CallLimiter.answered`."""
        if owner:
            self._tell(message({"op": "answered", "call": call, "owner": owner}))
        else:
            self._leave(_about("answered", call))

    def ended(self, call: str) -> None:
        """See `ports.CallLimiter.ended`."""
        self._leave(_about("ended", call))

    def referred(self, call: str, to: str) -> None:
        """See `ports.CallLimiter.referred`."""
        # At once: the call that comes of it may be here within milliseconds.
        self._tell(message({"op": "refer", "call": call, "to": to}))

    def _leave(self, line: bytes) -> None:
        """Where the agent finds it in a moment; said to it where there is no room."""
        if not self._presence.leave(line):
            with suppress(StoreUnavailable):
                self._line.read(self._line.exchange(line))

    def _tell(self, line: bytes) -> None:
        """Now, or else where the agent finds it."""
        try:
            self._line.read(self._line.exchange(line))
        except StoreUnavailable:
            self._presence.leave(line)


def admitting(request: Request, owner: str, ask: int) -> bytes:
    """The line of `agent_line.message` that asks about a call, written out: an encoder takes most of the time."""
    customer, call, bounds, level, slot, replaces, to, sent = request
    return (
        f'{_usual(customer, bounds, level, (slot, sent), owner)}"call":{_text(call)},'
        f'"replaces":[{",".join(map(_text, replaces)) if replaces else ""}],"to":{_text(to)},"ask":{ask}}}\n'
    ).encode()


def _about(what: str, call: str) -> bytes:
    """Likewise, one about a call that has a slot."""
    return f'{{"v":1,"op":"{what}","call":{_text(call)}}}\n'.encode()


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
