"""What processes were given ahead (`core.limits`), and whose it is: a call that comes by it says its name alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from shaken_plugin.core.limits import OF_ALLOWANCE, OF_CALL, Request

KEPT: Final = 1.0
"""Seconds for which a call that does not come counts: far longer than from when one comes until that is known."""
REMEMBERED: Final = 60.0
"""Seconds for which an allowance is known: a script may keep a call for so long before it leaves."""


class Allowance(NamedTuple):
    """Whose calls, of which level, it is for; the process that it was given to, and when."""

    customer: str
    level: str
    owner: str
    at: float
    names: set[str]
    """Of calls that have not come: each comes once, so what is told of one that has ended is of the past."""


class Allowances:
    """Those of this host."""

    def __init__(self) -> None:
        self._given: dict[str, Allowance] = {}
        """By name, oldest first."""
        self._counted: deque[Allowance] = deque()
        """Those of which all names count, oldest first."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._given)

    def give(self, request: Request, size: int, owner: str, now: float) -> None:
        """One was given with the answer to a request; ``now`` in seconds that only grow."""
        names = {f"{request.name}{OF_ALLOWANCE}{number}" for number in range(size)}
        made = self._given[request.name] = Allowance(request.customer, request.level, owner, now, names)
        self._counted.append(made)

    def of(self, call: str) -> Allowance | None:
        """That which a call comes by; None for one that was asked about, or has come before."""
        name = name_of(call)
        given = self._given.get(name.rpartition(OF_ALLOWANCE)[0])
        return given if given is not None and name in given.names else None

    def use(self, call: str) -> Allowance | None:
        """The same, and the call has come."""
        if (given := self.of(call)) is not None:
            given.names.discard(name_of(call))
        return given

    def give_back(self, before: float) -> Iterator[tuple[str, str]]:
        """Customers and names of calls that have not come of what was given before a time: they count no more."""
        while self._counted and self._counted[0].at <= before:
            given = self._counted.popleft()
            for name in given.names:
                yield given.customer, name

    def forget(self, now: float) -> None:
        """Those of long ago."""
        for name, given in list(self._given.items()):
            if now - given.at < REMEMBERED:
                return
            del self._given[name]


def name_of(call: str) -> str:
    """The name of its INVITE in a call's key."""
    return call.rpartition(OF_CALL)[2]
