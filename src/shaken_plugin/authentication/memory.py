"""Decisions that are remembered, for as long as the same question has the same answer.

One rule: what was decided holds for the same `Question`, at the same stamp of the store, from the moment of the
decision until the next one at which a record that was looked at begins or ends. A question is all that a decision
follows from besides the records and the time; what it leaves out of a call can be different in each.

So nothing need be told to forget: a commit to the policy, or a standing that is new, changes the stamp, and entries of
another stamp count no more than none. To look at the stamp takes longer than all else about a decision that is known,
so a usual call may go by one that was seen a moment before (`Looks`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.attestation import facts_hold_until
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.records import PolicyFacts
from shaken_plugin.ports import PolicyStore

MAX_DECISIONS: Final = 2_048
"""Decisions remembered per process, surely the half of them that was used last; some 11 KB each with what is made
of them."""

MAX_LINES: Final = 1_024
"""Longest lines of a question that is remembered, characters in all: whoever sends calls chooses them."""

T = TypeVar("T")


class Question(NamedTuple):
    """What a decision follows from, besides the records and the time."""

    source: str | None
    user: str | None
    route: str | None
    """The one that the switch names."""
    callers: tuple[tuple[CallerHeader, tuple[str, ...]], ...]
    """See `CallMessage.caller_lines`."""
    routed_by: str | None
    """The digits of the called number that may decide the route."""
    destination: str | None
    """See `core.attestation.left_alone`."""
    emergency: bool


class _Answer(NamedTuple, Generic[T]):
    stamp: Hashable
    since: float
    until: float
    said: T


class Asked:
    """A `ports.PolicyStore` that notes how long what it has answered will mean the same.

    Args:
        store: has the answers.
        now: POSIX seconds.
    """

    def __init__(self, store: PolicyStore, now: float) -> None:
        self._store = store
        self._now = now
        self.until = float("inf")
        """The next moment at which a record of an answer begins or ends, POSIX seconds."""
        self.route_digits: int | None = None

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        facts = self._store.facts(source, user, number, called, route)
        self.until = min(self.until, facts_hold_until(facts, self._now))
        self.route_digits = facts.route_digits
        return facts

    def stamp(self) -> Hashable | None:
        """See `ports.PolicyStore.stamp`."""
        return self._store.stamp()


class Looks:
    """The stamp of a store, looked at now and then. Safe for threads.

    Args:
        every: seconds for which a stamp is believed after it was seen; 0: it never is.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._seen: tuple[float, Hashable | None] = (math.inf, None)

    def last(self, store: PolicyStore, now: float) -> Hashable | None:
        """The stamp that was seen last, or a new look at it; ``now``: POSIX seconds."""
        seen, stamp = self._seen
        # A clock that was set back by more than ``every`` makes none hold for longer while calls come.
        return stamp if seen <= now < seen + self._every else self.look(store, now)

    def look(self, store: PolicyStore, now: float) -> Hashable | None:
        """The stamp now, as `ports.PolicyStore.stamp`."""
        stamp = store.stamp()
        known = self._seen[1]
        if stamp == known:
            stamp = known  # the same object, which is compared in no time
        self._seen = now, stamp
        return stamp


class Memory(Generic[T]):
    """What was decided, by question. Safe for threads."""

    def __init__(self) -> None:
        self._answers: Bounded[Question, _Answer[T]] = Bounded(MAX_DECISIONS)
        self._routes: tuple[Hashable, int | None] = (None, None)

    def routed_by(self, called: str | None, stamp: Hashable) -> str | None:
        """The leading digits of a called number by which the store finds its route: all, where that is not known."""
        known, digits = self._routes
        return called if called is None or digits is None or known != stamp else called[:digits]

    def find(self, question: Question, stamp: Hashable, now: float) -> T | None:
        """What was decided on this question, if it holds at this stamp and time."""
        answer = self._answers.get(question)
        if answer is None:
            return None
        at, since, until, said = answer
        return said if at == stamp and since <= now < until else None

    def keep(self, question: Question, stamp: Hashable, now: float, asked: Asked, said: T) -> None:
        """Remember a decision.

        Args:
            question: it answers this.
            stamp: of the store, the same before and after it was asked.
            now: when it was made.
            asked: what was asked for it.
            said: the decision.
        """
        if asked.route_digits is None or sum(len(line) for _, lines in question.callers for line in lines) > MAX_LINES:
            return
        if self._routes != (stamp, asked.route_digits):
            self._routes = stamp, asked.route_digits
        else:
            self._answers.put(question, _Answer(stamp, now, asked.until, said))
