"""What processes were given ahead (`core.limits`), and whose it is: a call that comes by it says its name alone."""

from __future__ import annotations

from typing import Final, NamedTuple

from shaken_plugin.core.limits import OF_ALLOWANCE, OF_CALL, Request

REMEMBERED: Final = 60.0
"""Seconds for which an allowance is known: a script may keep a call for so long before it leaves."""


class Allowance(NamedTuple):
    """Whose calls, of which level, it is for; the process that it was given to, and when."""

    customer: str
    level: str
    owner: str
    at: float


class Allowances:
    """Those of this host."""

    def __init__(self) -> None:
        self._given: dict[str, Allowance] = {}
        """By name, oldest first."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._given)

    def give(self, request: Request, owner: str, now: float) -> None:
        """One was given with the answer to a request; ``now`` in seconds that only grow."""
        self._given[request.name] = Allowance(request.customer, request.level, owner, now)

    def of(self, call: str) -> Allowance | None:
        """That which a call came by; None for one that was asked about."""
        name, of_allowance, _ = name_of(call).rpartition(OF_ALLOWANCE)
        return self._given.get(name) if of_allowance else None

    def forget(self, now: float) -> None:
        """Those of long ago."""
        for name, given in list(self._given.items()):
            if now - given.at < REMEMBERED:
                return
            del self._given[name]


def name_of(call: str) -> str:
    """The name of its INVITE in a call's key."""
    return call.rpartition(OF_CALL)[2]
