"""Bounds on a customer's calls: how many in a second, how many at a time.

Calls per second are counted by the generic cell rate algorithm (ITU-T I.371, Annex A; the "virtual
scheduling" form): each call moves a theoretical arrival time one interval on, and one that comes too far
ahead of it does not conform. As many calls as a second may have can come at once. So no span of s
seconds ever has more than (s + 1) times the rate.

Concurrent calls are counted by leases: a call has a slot until it ends or its lease runs out, whichever
comes first. Whoever runs the call renews the lease; so a host that is gone gives its slots back.

Whoever has many calls of one customer may get an allowance with one: calls to come that count as if they were there
(`Request.ahead`), each by a name of its own, whose place the call that comes takes (`Tally.take`); who gave them ends
those that did not come. They are given while less than half of each bound is in use, and may be used for `AHEAD`. To
calls per second they count as if all came at the end of that time. So no bound is exceeded by them. One may be reached
earlier: that on calls at a time by as many as nobody took yet, that on calls per second by up to half of the calls
that may come at once.

One call counts once, however often it is asked about. A call that takes the place of another of its level (a
transfer) takes its slot over; the other one is spared for `SPARED`, and counts again if it is still there
then. Neither can be replaced meanwhile, no more are spared at a time than may be counted, and while too many
are counted none is: so there are never more than twice as many calls as the bound.

Times are integers, microseconds: the same algorithm runs inside Redis (`agent.limits`, a script), whose
numbers are exact as far as 2^53, and a test compares the two.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from enum import Enum
from hashlib import blake2b
from math import ceil
from typing import Final, NamedTuple

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Limits, Rate

SECOND: Final = 1_000_000
"""Microseconds of a second."""

SPARED: Final = 60 * SECOND
"""How long a call that was replaced is not counted, in which transfers end it (RFC 3891 §3, RFC 5589 §6)."""

NOTED: Final = 180 * SECOND
"""How long a call that takes no slot is known, so that it counts once: longer than telephones ring."""

AHEAD: Final = SECOND // 5
"""How long after it was asked for an allowance may be used."""

MAX_AHEAD: Final = 64
"""Calls of one allowance."""

OF_CALL: Final = "/"
"""In the key of a call: before the name of its INVITE."""

OF_ALLOWANCE: Final = "+"
"""In the name of a call of an allowance: before its number. Other names have none."""

REPEATS: Final = 32
"""How often one call may be asked about: branches and routes that are tried."""

LONGEST: Final = 1_000_000 * SECOND
"""The longest interval between calls; and so the lowest rate is one call in eleven days."""

_STALE: Final = 64
"""Entries without effect that may lie about, beside as many as there are in effect."""


class Outcome(Enum):
    """What becomes of a call at the bounds."""

    ADMITTED = "admitted"
    KNOWN = "known"
    """It was counted before."""
    REPLACES = "replaces"
    """It takes over the slot of another call."""
    RATE = "rate"
    """Too many calls in this second."""
    CONCURRENT = "concurrent"
    """Too many calls at a time."""
    REPEATED = "repeated"
    """The same call too often."""
    UNFOLLOWED = "unfollowed"
    """Nobody would tell its end: it would keep its slot for long."""

    @property
    def passes(self) -> bool:
        """Whether the call may go on."""
        return self in _PASSING

    # There is one object of each. That of `Enum` is written in Python, and asked for several times a call.
    __hash__ = object.__hash__


_PASSING: Final = frozenset({Outcome.ADMITTED, Outcome.KNOWN, Outcome.REPLACES})


class Bound(NamedTuple):
    """Bounds on calls of one scope; 0 for none.

    ``scope`` is a level of attestation, empty for all calls. ``interval`` and ``tolerance`` are
    microseconds: between two calls, and how far ahead of its time one may come.
    """

    scope: str
    interval: int
    tolerance: int
    concurrent: int

    @classmethod
    def of(cls, scope: str, rate: Rate) -> Bound:
        """From a record."""
        interval = tolerance = 0
        if rate.calls_per_second:
            interval = min(max(1, ceil(SECOND / rate.calls_per_second)), LONGEST)
            tolerance = (max(1, int(rate.calls_per_second)) - 1) * interval
        return cls(scope, interval, tolerance, rate.concurrent or 0)

    @property
    def furthest(self) -> int:
        """How far ahead an arrival time is at most: one beyond is of another clock, or another bound."""
        return self.tolerance + self.interval

    def share(self, hosts: int) -> Bound:
        """The part of one of so many hosts, rounded up."""
        return Bound(self.scope, self.interval * hosts, self.tolerance, -(-self.concurrent // hosts))


def bounds(limits: Limits, level: Attest | None) -> tuple[Bound, ...]:
    """The bounds in force for a call of this level, None for one without; empty where there are none."""
    if limits.suspended:
        return ()
    rates = [("", limits.total), *((own.value, rate) for own, rate in limits.by_level if own is level)]
    return tuple(Bound.of(scope, rate) for scope, rate in rates if rate != Rate())


_TAG: Final = re.compile(r"[ \t]*(?:to|from)-tag[ \t]*=[ \t]*([^;\s]+)[ \t]*", re.IGNORECASE)
_LONGEST_REPLACES: Final = 1_024


def key(*parts: str) -> str:
    """A short name for these texts, whatever is in them."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def call_key(customer: str, call_id: str, tag: str, invite: str) -> str:
    """What one INVITE is known by: whose it is, its Call-ID, the tag of who began it (RFC 3261 §12), and a name.

    The name is the switch's own, because all else is the caller's to choose: many calls at a time may come with
    the same Call-ID and tag, and each counts.
    """
    return f"{key(customer, call_id, tag)}{OF_CALL}{invite}"


def dialog_of(call: str) -> str:
    """What calls with the same Call-ID and tag have in common; a key without an INVITE's name is that itself."""
    return call.partition(OF_CALL)[0]


def replaced_keys(customer: str, value: str) -> Iterator[str]:
    """The dialogs that a Replaces header may name (RFC 3891 §6.1), whichever side began it: see `dialog_of`."""
    if len(value) <= _LONGEST_REPLACES:
        call_id, *parameters = value.split(";", 8)
        for parameter in parameters:
            if found := _TAG.fullmatch(parameter):
                yield key(customer, call_id.strip(), found.group(1))


class Request(NamedTuple):
    """A call that asks to be admitted.

    ``customer`` and ``call`` are any texts that name them. ``slot``: whether somebody will tell its end,
    else it takes none. ``replaces`` are calls, or their dialogs, in whose place it may come, the first that has a
    slot counts; ``to`` names whom it is for: the call that was asked to be sent there (`Tally.refer`) is one of
    them, too. ``sent``: it has left, else somebody will tell that, too. ``ahead``: how many calls more like it are
    asked for, which get the names ``name`` with "+0", "+1" and so on.
    """

    customer: str
    call: str
    bounds: tuple[Bound, ...]
    level: str = ""
    slot: bool = True
    replaces: tuple[str, ...] = ()
    to: str = ""
    sent: bool = True
    ahead: int = 0
    name: str = ""

    @property
    def takes_slot(self) -> bool:
        """Whether it is counted until its end."""
        return self.slot and any(bound.concurrent for bound in self.bounds)


class Verdict(NamedTuple):
    """What becomes of it; ``scope`` of the bound that it is over, ``ahead`` how many calls more may come."""

    outcome: Outcome
    scope: str = ""
    ahead: int = 0


class Tally:
    """The counts of one customer.

    Args:
        lease: microseconds for which a slot holds unless it is renewed.
    """

    def __init__(self, lease: int) -> None:
        self._lease = lease
        self._arrivals: dict[str, int] = {}
        """By scope: the theoretical arrival time of the next call."""
        self._level: dict[str, str] = {}
        """Of each call that is known."""
        self._until: dict[str, int] = {}
        """By call: when its lease ends; of one that is spared or only noted, when that does."""
        self._slots: dict[str, int] = {}
        """By scope: how many calls are counted."""
        self._uncounted: dict[str, bool] = {}
        """Calls that are not: True for one that is spared."""
        self._spared = 0
        """How many of them are."""
        self._bound: dict[str, int] = {}
        """By call: until when it cannot be replaced."""
        self._repeats: dict[str, int] = {}
        self._latest: dict[str, str] = {}
        """By dialog (`dialog_of`): the call that came last."""
        self._referred: dict[str, tuple[str, int]] = {}
        """By target: the call that is to be sent there, and until when it is believed."""
        self._refers: dict[str, str] = {}
        """By call: where it is to be sent."""
        self._due: list[tuple[int, str]] = []
        self._now = 0

    def admit(self, request: Request, now: int) -> Verdict:
        """Count a call, unless that would be over a bound; then nothing changes."""
        self.advance(now)
        call = request.call
        if call in self._level:
            return self._again(call, now)
        for bound in request.bounds:
            if bound.interval and bound.tolerance < self._arrivals.get(bound.scope, 0) - now <= bound.furthest:
                return Verdict(Outcome.RATE, bound.scope)
        before = self._replaced(request, now) if request.takes_slot else None
        if before is None:
            for bound in request.bounds:
                if request.slot and 0 < bound.concurrent <= self.slots(bound.scope):
                    return Verdict(Outcome.CONCURRENT, bound.scope)
        for bound in request.bounds:
            if bound.interval:
                arrival = self._arrivals.get(bound.scope, 0)
                self._arrivals[bound.scope] = (
                    arrival if now < arrival <= now + bound.furthest else now
                ) + bound.interval
        if before is not None:
            self._spare(before, now + SPARED)
            self.hold(call, request.level, now)
            self._bound[call] = now + SPARED
            return Verdict(Outcome.REPLACES)
        if request.takes_slot:
            self.hold(call, request.level, now)
            return Verdict(Outcome.ADMITTED, ahead=self._ahead(request, now))
        self._know(call, request.level)
        self._note(call, now + NOTED, spared=False)
        return Verdict(Outcome.ADMITTED)

    def _ahead(self, request: Request, now: int) -> int:
        """Count calls to come, as many as may be."""
        for given in range(min(request.ahead, MAX_AHEAD)):
            booked: dict[str, int] = {}
            for scope, interval, tolerance, concurrent in request.bounds:
                if interval:
                    # As if it came when it comes at the latest: so none that comes then is one too many.
                    booked[scope] = max(self._arrivals[scope], now + AHEAD) + interval
                    if 2 * (booked[scope] - now) > tolerance:
                        return given
                if concurrent and 2 * (self.slots(scope) + 1) > concurrent:
                    return given
            self._arrivals |= booked
            name = f"{request.name}{OF_ALLOWANCE}{given}"
            if name not in self._level:
                self._level[name] = request.level
                self._count(request.level, 1)
            self._set_until(name, now + self._lease)
        return min(request.ahead, MAX_AHEAD)

    def take(self, name: str, call: str, level: str, now: int) -> None:
        """A call has come in the place of one of an allowance; also where that counts no more."""
        self.end(name)
        self.hold(call, level, now)

    def hold(self, call: str, level: str, now: int) -> None:
        """Give a call a slot, or renew its lease; for one that was admitted elsewhere, too."""
        if call not in self._level:
            self._know(call, level)
            self._count(level, 1)
        if call not in self._uncounted:
            self._set_until(call, now + self._lease)

    def end(self, call: str) -> None:
        """A call has ended."""
        level = self._level.pop(call, None)
        if level is None:
            return
        spared = self._uncounted.pop(call, None)
        if spared is None:
            self._count(level, -1)
        self._spared -= bool(spared)
        for known in (self._until, self._bound, self._repeats):
            known.pop(call, None)
        if self._latest.get(dialog_of(call)) == call:
            del self._latest[dialog_of(call)]
        self._referred.pop(self._refers.pop(call, ""), None)

    def refer(self, call: str, to: str, now: int) -> None:
        """A call is to be sent on to somebody else (REFER): one of the customer to them comes in its place."""
        if call in self._level:
            self._referred.pop(self._refers.get(call, ""), None)
            self._referred[to], self._refers[call] = (call, now + SPARED), to

    def slots(self, scope: str = "") -> int:
        """How many calls of a scope are counted."""
        return self._slots.get(scope, 0)

    def advance(self, now: int) -> None:
        """Let what has run out by ``now`` run out."""
        if now < self._now:
            self._set_back(now)
        self._now = now
        while self._due and self._due[0][0] <= now:
            due, call = heapq.heappop(self._due)
            if self._until.get(call) != due:  # ended or renewed since
                continue
            if not self._uncounted.get(call):
                self.end(call)
                continue
            del self._uncounted[call]
            self._spared -= 1
            self._count(self._level[call], 1)
            self._set_until(call, due + self._lease)

    def _set_back(self, now: int) -> None:
        """The clock went back: nothing holds for longer than it would if it began now."""
        spans = {None: self._lease, True: SPARED, False: NOTED}
        for call, until in list(self._until.items()):
            self._set_until(call, min(until, now + spans[self._uncounted.get(call)]))

    def is_idle(self, now: int) -> bool:
        """Whether it knows of no call, and none would be too early: then a new one says the same."""
        return not self._level and all(arrival <= now for arrival in self._arrivals.values())

    def _again(self, call: str, now: int) -> Verdict:
        self._repeats[call] = self._repeats.get(call, 0) + 1
        if self._repeats[call] > REPEATS:
            return Verdict(Outcome.REPEATED)
        self.hold(call, self._level[call], now)
        return Verdict(Outcome.KNOWN)

    def _replaced(self, request: Request, now: int) -> str | None:
        """The first that has a slot, unless it is part of a replacement already, or there are too many."""
        for bound in request.bounds:
            if bound.concurrent > 0 and (
                self.slots(bound.scope) > bound.concurrent or self._spared >= bound.concurrent
            ):
                return None
        calls = [self._latest.get(named, named) for named in request.replaces]
        referred, until = self._referred.get(request.to, ("", 0))
        if until > now:
            calls.append(referred)
        call = next((call for call in calls if call in self._level and call not in self._uncounted), None)
        if call is None or self._bound.get(call, 0) > now:
            return None
        # One of another level has room only where no bound is of levels.
        fits = self._level[call] == request.level or all(bound.scope == "" for bound in request.bounds)
        return call if fits else None

    def _spare(self, call: str, until: int) -> None:
        self._count(self._level[call], -1)
        self._note(call, until, spared=True)

    def _know(self, call: str, level: str) -> None:
        self._level[call] = level
        self._latest[dialog_of(call)] = call

    def _note(self, call: str, until: int, *, spared: bool) -> None:
        self._uncounted[call] = spared
        self._spared += spared
        self._set_until(call, until)

    def _set_until(self, call: str, until: int) -> None:
        self._until[call] = until
        heapq.heappush(self._due, (until, call))
        if len(self._due) > 2 * len(self._until) + _STALE:
            self._due = [(until, call) for call, until in self._until.items()]
            heapq.heapify(self._due)

    def _count(self, level: str, change: int) -> None:
        for scope in {"", level}:
            self._slots[scope] = self._slots.get(scope, 0) + change
