"""Counting calls, and PASSporTs over all hosts, by asking the agent of this host."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from shaken_plugin.core.limits import Outcome, Request, Verdict
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import ReplayMemory
from shaken_plugin.stores.agent_line import AgentLine, message
from shaken_plugin.stores.presence import Presence


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

    @classmethod
    def at(cls, socket: Path, beside: Path) -> AgentLimiter:
        """One with a line of its own.

        Args:
            socket: the agent's.
            beside: the folder of the policy's file.
        """
        return cls(AgentLine(socket), Presence(beside))

    def admit(self, request: Request) -> Verdict:
        """See `ports.CallLimiter.admit`."""
        owner, ask = self._presence.name(), next(self._asks)
        if request.takes_slot and not owner:
            # Nobody would notice if this process ended: its calls are counted by the second, and no slot is theirs.
            verdict = self._asked(request._replace(slot=False), owner, ask)
            if verdict.outcome.passes:
                raise StoreUnavailable(self.trouble())
            return verdict
        try:
            return self._asked(request, owner, ask)
        except StoreUnavailable:
            if request.takes_slot:
                # It may have been counted all the same, and may be refused now; what goes on is not counted.
                self._tell({"op": "undo", "call": request.call, "owner": owner, "ask": ask})
            raise

    def trouble(self) -> str:
        """See `ports.CallLimiter.trouble`."""
        return "" if self._presence.name() else f"concurrent calls are not counted: {self._presence.trouble}"

    def _asked(self, request: Request, owner: str, ask: int) -> Verdict:
        answer = self._line.ask({"op": "admit", **request._asdict(), "owner": owner, "ask": ask})
        try:
            return Verdict(Outcome(answer.get("outcome")), str(answer.get("scope", "")))
        except ValueError:
            raise StoreUnavailable("the agent's answer is none; is it of another release?") from None

    def sent(self, call: str) -> None:
        """See `ports.CallLimiter.sent`."""
        said = {"op": "sent", "call": call}
        try:
            self._line.tell(said)
        except StoreUnavailable:
            self._presence.leave(message(said))

    def answered(self, call: str, owner: str = "") -> None:
        """See `ports.CallLimiter.answered`."""
        self._tell({"op": "answered", "call": call, **({"owner": owner} if owner else {})})

    def ended(self, call: str) -> None:
        """See `ports.CallLimiter.ended`."""
        self._tell({"op": "ended", "call": call})

    def referred(self, call: str, to: str) -> None:
        """See `ports.CallLimiter.referred`."""
        self._tell({"op": "refer", "call": call, "to": to})

    def _tell(self, said: dict[str, Any]) -> None:
        """Now, or else as soon as the agent looks at what was left for it."""
        try:
            self._line.ask(said)
        except StoreUnavailable:
            self._presence.leave(message(said))


class FleetReplay:
    """A `ports.ReplayMemory` over all hosts: the local one is asked first, and alone where nobody else answers.

    Args:
        local: of this host.
        line: to the agent.
    """

    def __init__(self, local: ReplayMemory, line: AgentLine) -> None:
        self._local = local
        self._line = line

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """See `ports.ReplayMemory.first_use`."""
        if not self._local.first_use(token, call, until, now):
            return False
        milliseconds = max(1, int((until - now) * 1000))
        asked = {"op": "first_use", "token": token.hex(), "call": call.hex(), "milliseconds": milliseconds}
        try:
            return self._line.ask(asked).get("first") is not False
        except StoreUnavailable:
            return True
