"""When unauthorised caller IDs become an offence, a second one, and a suspension.

A pure function of one customer's account, one call and the operator's rules; whoever keeps accounts
applies it to calls in the order of the ledger. Times are those of the calls, so that one which arrives
late counts as it would have counted in time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

WINDOW: Final = 86_400.0
"""Seconds within which the same customer and number are one offence."""


class Stage(Enum):
    """Where an offence stands."""

    OPEN = "open"
    """The first: its warning has not been delivered."""
    WARNED = "warned"
    """The first, delivered. From here on a grace time passes, then a second counts."""
    PROPOSED = "proposed"
    """The second: a person is to decide whether the customer is suspended."""
    SUSPENDED = "suspended"
    """The second, or any that stood when the customer was suspended for it."""
    DISMISSED = "dismissed"
    """A person found that it was none."""
    SETTLED = "settled"
    """The customer was reinstated, and the count begins anew."""

    @property
    def closed(self) -> bool:
        """Whether nothing follows from it any more."""
        return self in {Stage.DISMISSED, Stage.SETTLED}


class Finding(Enum):
    """What became of a call."""

    OPENED = "opened"
    """It is an offence: the customer's first since the count began, or the second."""
    EVIDENCE = "evidence"
    """It belongs to one that is there."""
    LATE = "late"
    """It is from before a decision that ended the count, and there is no offence that it belongs to."""


@dataclass(frozen=True, slots=True)
class OffenceRules:
    """The operator's choices."""

    grace: float = 86_400.0
    """Seconds after the delivery of a warning before a second offence counts."""
    automatic: bool = False
    """Whether the second suspends by itself; else it is proposed to a person."""


@dataclass(frozen=True, slots=True)
class Offence:
    """One offence. ``second`` tells the second of a count from the first; times are POSIX seconds."""

    id: int
    second: bool
    stage: Stage
    opened_at: float
    """Time of the call that made it one."""
    delivered_at: float | None = None
    """When its warning was delivered."""
    closed_at: float | None = None


class Window(NamedTuple):
    """When a customer's calls with one number began to belong to an offence."""

    offence: int
    begins: float

    def covers(self, at: float) -> bool:
        """Whether a call of this time is the same offence; it may have come before those that arrived first."""
        return abs(at - self.begins) < WINDOW


@dataclass(frozen=True, slots=True)
class Account:
    """What counts against a customer now."""

    first: Offence | None = None
    second: Offence | None = None
    suspended: bool = False
    """Whether the customer is suspended or terminated."""
    settled: int | None = None
    """The offence that was closed last …"""
    settled_at: float = float("-inf")
    """… or the count ended otherwise at this time: calls from before it are covered by that decision."""

    @property
    def open(self) -> tuple[Offence, ...]:
        """The offences that are not closed."""
        return tuple(offence for offence in (self.first, self.second) if offence is not None)

    def find(self, offence: int) -> Offence | None:
        """One of those, by its id."""
        return next((one for one in self.open if one.id == offence), None)

    # --- What people and the webhook do -----------------------------------------------------------

    def warned(self, at: float) -> Account:
        """The first offence's warning was delivered; told twice, the first time counts."""
        if self.first is None or self.first.stage is not Stage.OPEN:
            return self
        return replace(self, first=replace(self.first, stage=Stage.WARNED, delivered_at=at))

    def suspend(self) -> Account:
        """The customer is suspended or terminated: what was proposed is decided."""
        second = self.second and replace(self.second, stage=Stage.SUSPENDED)
        return replace(self, second=second, suspended=True)

    def reinstate(self, at: float) -> Account:
        """The customer may go on, and the count begins anew."""
        last = self.open[-1].id if self.open else self.settled
        return Account(settled=last, settled_at=at)

    def dismiss(self, offence: int, at: float) -> Account:
        """An offence was none. Of two the second goes first, which rests on the warning of the other.

        Raises:
            ValueError: it is not open, is not the last, or the customer is suspended for it.
        """
        if self.find(offence) is None:
            raise ValueError("it is closed already")
        if offence != self.open[-1].id:
            raise ValueError(f"the second, {self.open[-1].id}, rests on its warning: dismiss that one first")
        if self.open[-1].stage is Stage.SUSPENDED:
            raise ValueError("the customer is suspended for it: reinstate the customer")
        kept = replace(self, settled=offence, settled_at=at)
        return replace(kept, first=None) if self.second is None else replace(kept, second=None)


class Judgement(NamedTuple):
    """What a call does to an account. ``offence`` is the one it belongs to, None where it is late."""

    finding: Finding
    offence: int | None
    account: Account


def judge(account: Account, window: Window | None, at: float, rules: OffenceRules, new: int) -> Judgement:
    """Judge one call with a caller ID that its customer had no right to.

    Args:
        account: the customer's.
        window: that of the same customer and number, the nearest to the call where there are several.
        at: the call's time.
        rules: the operator's choices.
        new: the id that an offence gets if this is one.
    """
    if window is not None and window.covers(at):
        return Judgement(Finding.EVIDENCE, window.offence, account)
    if at < account.settled_at:
        return Judgement(Finding.EVIDENCE if account.settled else Finding.LATE, account.settled, account)
    first, second = account.first, account.second
    if first is None:
        opened = Offence(new, second=False, stage=Stage.OPEN, opened_at=at)
        return Judgement(Finding.OPENED, new, replace(account, first=opened))
    # Fifty numbers of one dialler are evidence of one offence until its owner knew and had time.
    if first.delivered_at is None or at < first.delivered_at + rules.grace:
        return Judgement(Finding.EVIDENCE, first.id, account)
    if second is not None:
        return Judgement(Finding.EVIDENCE, second.id, account)
    suspends = rules.automatic or account.suspended
    opened = Offence(new, second=True, stage=Stage.SUSPENDED if suspends else Stage.PROPOSED, opened_at=at)
    return Judgement(Finding.OPENED, new, replace(account, second=opened, suspended=suspends))
