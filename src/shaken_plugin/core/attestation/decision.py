"""What a decision is made of: the call, the operator's choices, what rules find, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Customer,
    Gateway,
    NumberRight,
    Overrides,
    PendingLevel,
    PolicyFacts,
    Trunk,
    Unauthorised,
    Withheld,
)
from shaken_plugin.core.telephone import Party

T = TypeVar("T")


class Level(Enum):
    """What becomes of a call, best first: a level of attestation, no signature, or refusal.

    DIV is that of a call sent on whose diversion is signed (`core.diverting`): it has no level of ours.
    """

    A = "A"
    B = "B"
    C = "C"
    DIV = "div"
    UNSIGNED = "unsigned"
    REFUSE = "refuse"

    __hash__ = object.__hash__  # by identity, as they are compared; see `core.call.CallerHeader`

    @property
    def attest(self) -> Attest | None:
        """The ``attest`` claim, None where the call is not signed."""
        return _ATTEST.get(self)

    @property
    def signs(self) -> bool:
        """Whether a PASSporT is signed."""
        return self in _ATTEST or self is Level.DIV


_ATTEST = {Level.A: Attest.A, Level.B: Attest.B, Level.C: Attest.C}
_RANK = {level: rank for rank, level in enumerate(Level)}


def worse(one: Level, other: Level) -> Level:
    """The one that stands further down in `Level`."""
    return one if one is other or _RANK[one] > _RANK[other] else other


WITHOUT_RECORD = (Level.UNSIGNED, Level.REFUSE)
"""What a policy may choose for sources it does not know; never C (47 CFR 64.6301, ATIS-1000074:
C is for declared gateways)."""


class Refusal(StrEnum):
    """Why a call is refused; each has an answer of its own (``signing.answers``)."""

    SUSPENDED = "suspended"
    TERMINATED = "terminated"
    DO_NOT_ORIGINATE = "do_not_originate"
    UNAUTHORISED = "unauthorised"
    UNKNOWN_SOURCE = "unknown_source"
    PENDING = "pending"
    OVER_LIMIT = "over_limit"
    """More calls than the customer's limits allow; answered as ``limits`` says."""


class InvalidNumbers(Enum):
    """What happens to a caller ID that the metadata of the numbering plan knows to be none."""

    REFUSE = "refuse"
    DOWNGRADE = "downgrade"
    """It gets B at most."""
    IGNORE = "ignore"


Numbering = Callable[[str], Withheld | None]
"""What is wrong with a canonical E.164 number by the numbering plans: INVALID (its form), UNALLOCATED, or nothing."""


@dataclass(frozen=True, slots=True)
class AttestationPolicy:
    """The operator's choices where the rules leave one.

    ``leave_alone`` are canonical number prefixes of destinations whose calls are not signed;
    ``sign_international`` False leaves alone every destination outside ``home_country_code``.
    ``require_approval``: a right that nobody has approved gives no A. ``numbering`` None asks no metadata.
    """

    unknown_source: Level = Level.UNSIGNED
    pending_customer: Level = Level.UNSIGNED
    sign_international: bool = True
    leave_alone: tuple[str, ...] = ()
    home_country_code: str = "1"
    unauthorised: Unauthorised = Unauthorised.DOWNGRADE
    substitute: str | None = None
    require_approval: bool = False
    invalid_numbers: InvalidNumbers = InvalidNumbers.REFUSE
    numbering: Numbering | None = None
    overrides: Overrides = field(init=False, compare=False)
    """The choices that records may make otherwise."""

    def __post_init__(self) -> None:
        if self.unknown_source not in WITHOUT_RECORD:
            raise ValueError("a source we do not know gets no signature: unsigned or refuse")
        if self.pending_customer.value not in {level.value for level in PendingLevel}:
            raise ValueError("a customer whose know-your-customer is not complete gets no A")
        pending = PendingLevel(self.pending_customer.value)
        overrides = Overrides(unauthorised=self.unauthorised, substitute=self.substitute, pending=pending)
        object.__setattr__(self, "overrides", overrides)  # the class is frozen


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What the decision needs to know of the call itself; None where a header names nobody."""

    orig: Party | None
    dest: Party | None
    emergency: bool = False


class Step(NamedTuple):
    """One line of a trace."""

    rule: str
    held: bool
    record: str | None
    finding: str
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The level and the whole way to it.

    ``unauthorised``: the customer has no right of any kind to the caller ID, or it must not originate calls;
    ``offence``: and that counts against them. ``substitute`` is the canonical number that takes the place of
    the caller ID; level and end of the trace are then those of that number. ``refusal`` says why it is refused.
    """

    level: Level
    trace: tuple[Step, ...]
    source: Trunk | Gateway | None
    policy_version: int
    unauthorised: bool = False
    offence: bool = False
    substitute: str | None = None
    refusal: Refusal | None = None
    _made: dict[Any, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def once(self, make: Callable[..., T], *choices: object) -> T:
        """``make(decision, *choices)``, made once: calls that are decided alike share their decision.

        Args:
            make: a function that depends on nothing else.
            choices: the operator's, few.
        """
        try:
            return self._made[make, choices]  # type: ignore[no-any-return]  # of whatever type it was made
        except KeyError:
            made = self._made[make, choices] = make(self, *choices)
            return made

    @property
    def missing(self) -> tuple[str, ...]:
        """What a better level would need, in the order of the rules."""
        return tuple(step.missing for step in self.trace if step.missing)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that were asked, in order."""
        return tuple(step.rule for step in self.trace)


@dataclass(frozen=True)
class Case:
    """What rules are asked about.

    ``replaced`` is the caller ID whose place `call.orig` has taken; ``beside`` the header that names `call.orig`,
    where that is not the caller that is decided on.
    """

    call: CallFacts
    facts: PolicyFacts
    policy: AttestationPolicy
    now: float
    replaced: Party | None = None
    beside: str = ""

    @property
    def customer(self) -> Customer:
        """The customer; only asked where the source is a trunk."""
        assert isinstance(self.facts.source, Trunk)
        return self.facts.source.customer

    @cached_property
    def own(self) -> tuple[NumberRight, ...]:
        """The customer's own rights to the number, in force or not, narrowest first."""
        source = self.facts.source
        mine = source.customer.id if isinstance(source, Trunk) else None
        return tuple(right for right in self.facts.rights if right.right.customer == mine)

    @cached_property
    def general_scopes(self) -> tuple[Scope, ...]:
        """The records that may decide whoever calls, most general first."""
        route = self.facts.route
        settings = Scope(SETTINGS, self.policy.overrides)
        return (settings,) if route is None else (settings, Scope(f"route {route.id}", route.rules))

    @cached_property
    def scopes(self) -> tuple[Scope, ...]:
        """All that may decide this call, most general first.

        A right speaks whether it is in force or not: one that is suspended shall not take its ceiling with it.
        """
        source = self.facts.source
        if not isinstance(source, Trunk):
            return self.general_scopes
        return (
            *self.general_scopes,
            Scope(f"customer {source.customer.id}", source.customer.rules),
            Scope(f"trunk {source.id}", source.rules),
            *(Scope(f"right {right.right.id}", right.right.rules) for right in reversed(self.own)),
        )


class Scope(NamedTuple):
    """A record that may decide, as a trace names it: ``route intl``."""

    name: str
    says: Overrides


SETTINGS = "the settings"


class Finding(NamedTuple):
    """What a rule found: ``at_most`` brings the level down where it did not hold, ``settled`` ends the list."""

    held: bool
    finding: str
    record: str | None = None
    at_most: Level = Level.A
    missing: str | None = None
    settled: bool = False
    refusal: Refusal | None = None
    unauthorised: bool = False
    offence: bool = False
    substitute: str | None = None


class Rule(NamedTuple):
    """One rule of the set: its stable name, what it asks, and how; for the documents what follows from it."""

    name: str
    question: str
    ask: Callable[[Case], Finding]
    effect: str = ""
    records: str = ""
    missing: str = ""


def judge(rules: Iterable[Rule], best: Level, case: Case) -> Decision:
    """Ask rules in order; see `attestation.decide`.

    Args:
        rules: the rule set.
        best: the level where all rules hold.
        case: the call, the records and the time.
    """
    trace: list[Step] = []
    level, unauthorised, offence = best, False, False
    for rule in rules:
        finding = rule.ask(case)
        trace.append(Step(rule.name, finding.held, finding.record, finding.finding, finding.missing))
        level = worse(level, finding.at_most)
        unauthorised = unauthorised or finding.unauthorised
        offence = offence or finding.offence
        if finding.settled:
            break
    refusal = finding.refusal
    if level is Level.REFUSE and case.call.emergency:
        trace.append(Step("emergency", True, None, "an emergency call is never refused"))
        level, refusal = Level.UNSIGNED, None
    return Decision(
        level,
        tuple(trace),
        case.facts.source,
        case.facts.version,
        unauthorised=unauthorised,
        offence=offence and not case.call.emergency,
        substitute=finding.substitute,
        refusal=refusal,
    )
