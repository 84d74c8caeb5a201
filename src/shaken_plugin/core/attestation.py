"""The attestation decision: one pure function of the call, the records and the time.

ATIS-1000074 §5.2.3: A (full) when the provider authenticated the customer and knows their right
to the number, B (partial) when it knows the customer only, C (gateway) when the call entered
through a gateway. The provider itself must make this decision (FCC 24-120).

`RULES` is the whole rule set, in order. A call starts at A; each rule reports whether it held, on
which record, what is missing for a better level, and may bring the level down, never up. A rule
that settles the matter ends the list. Rules that refuse come first, so that no other can spare a
call the refusal. The reports of all rules asked are the trace: the answer to
"why did this call get B?".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NamedTuple

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    BASIS_TEXT,
    Basis,
    Customer,
    CustomerState,
    Gateway,
    NumberRight,
    PolicyFacts,
    Trunk,
)
from shaken_plugin.core.telephone import Party, TelephoneNumber


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

    @property
    def attest(self) -> Attest | None:
        """The ``attest`` claim, None where the call is not signed."""
        return Attest(self.value) if self in _SIGNED else None

    @property
    def signs(self) -> bool:
        """Whether a PASSporT is signed."""
        return self in _SIGNED or self is Level.DIV


_SIGNED = (Level.A, Level.B, Level.C)
_RANK = {level: rank for rank, level in enumerate(Level)}

WITHOUT_RECORD = (Level.UNSIGNED, Level.REFUSE)
"""What a policy may choose for sources it does not know; never C (47 CFR 64.6301, ATIS-1000074:
C is for declared gateways)."""


@dataclass(frozen=True, slots=True)
class AttestationPolicy:
    """The operator's choices where the rules leave one.

    ``leave_alone`` are canonical number prefixes of destinations whose calls are not signed;
    ``sign_international`` False leaves alone every destination outside ``home_country_code``.
    """

    unknown_source: Level = Level.UNSIGNED
    pending_customer: Level = Level.UNSIGNED
    sign_international: bool = True
    leave_alone: tuple[str, ...] = ()
    home_country_code: str = "1"

    def __post_init__(self) -> None:
        if self.unknown_source not in WITHOUT_RECORD:
            raise ValueError("a source we do not know gets no signature: unsigned or refuse")
        if self.pending_customer is Level.A:
            raise ValueError("a customer whose know-your-customer is not complete gets no A")


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
    """The level and the whole way to it."""

    level: Level
    trace: tuple[Step, ...]
    source: Trunk | Gateway | None
    policy_version: int

    @property
    def missing(self) -> tuple[str, ...]:
        """What a better level would need, in the order of the rules."""
        return tuple(step.missing for step in self.trace if step.missing)


class Case(NamedTuple):
    """What rules are asked about."""

    call: CallFacts
    facts: PolicyFacts
    policy: AttestationPolicy
    now: float

    @property
    def customer(self) -> Customer:
        """The customer; only asked where the source is a trunk."""
        assert isinstance(self.facts.source, Trunk)
        return self.facts.source.customer


class Finding(NamedTuple):
    """What a rule found: ``at_most`` brings the level down, ``settled`` ends the list."""

    held: bool
    finding: str
    record: str | None = None
    at_most: Level = Level.A
    missing: str | None = None
    settled: bool = False


def destination_rule(case: Case) -> Finding:
    """Whether calls to this destination are signed at all."""
    dest = case.call.dest
    if isinstance(dest, TelephoneNumber) and not case.call.emergency:
        for prefix in case.policy.leave_alone:
            if dest.digits.startswith(prefix):
                return Finding(False, f"calls to {prefix}… are left alone", at_most=Level.UNSIGNED, settled=True)
        abroad = dest.is_e164 and not dest.digits.startswith(case.policy.home_country_code)
        if abroad and not case.policy.sign_international:
            return Finding(False, "international calls are left alone", at_most=Level.UNSIGNED, settled=True)
    return Finding(True, "calls to this destination are signed")


def _source(case: Case) -> Finding:
    source = case.facts.source
    if source is None:
        return Finding(
            False,
            "the call comes from no trunk or gateway we know",
            at_most=case.policy.unknown_source,
            missing="a customer's trunk, or a declared gateway, with this source address or user",
            settled=True,
        )
    kind = "gateway" if isinstance(source, Gateway) else "trunk"
    return Finding(True, f"the call came over a {kind} we know", f"{kind} {source.id}")


def _gateway(case: Case) -> Finding:
    source = case.facts.source
    if isinstance(source, Gateway):
        return Finding(
            True,
            f"it enters the network at the gateway {source.name}",
            f"gateway {source.id}",
            Level.C,
            "calls over a gateway have no customer; A and B need a customer's trunk",
            settled=True,
        )
    return Finding(False, "the source is a customer's trunk, not a gateway")


def _customer_active(case: Case) -> Finding:
    if isinstance(case.facts.source, Gateway):
        return Finding(True, "a gateway has no customer")
    customer = case.customer
    record = f"customer {customer.id}"
    if customer.state in {CustomerState.SUSPENDED, CustomerState.TERMINATED}:
        return Finding(
            False, f"{customer.name} is {customer.state.value}", record, Level.REFUSE, "the customer reinstated", True
        )
    return Finding(True, f"{customer.name} is neither suspended nor terminated", record)


def _customer_verified(case: Case) -> Finding:
    if isinstance(case.facts.source, Gateway):
        return Finding(True, "a gateway has no customer")
    customer = case.customer
    record = f"customer {customer.id}"
    if customer.state is CustomerState.PENDING:
        return Finding(
            False,
            f"know-your-customer of {customer.name} is not complete",
            record,
            case.policy.pending_customer,
            "a complete know-your-customer file",
            settled=case.policy.pending_customer not in _SIGNED,
        )
    return Finding(True, f"know-your-customer of {customer.name} is complete", record)


def _ceiling(case: Case) -> Finding:
    ceiling = case.customer.ceiling
    record = f"customer {case.customer.id}"
    if ceiling is None or ceiling is Attest.A:
        return Finding(True, "no ceiling below A", record)
    return Finding(
        False,
        f"the customer's ceiling is {ceiling.value}",
        record,
        Level(ceiling.value),
        "a higher attestation ceiling for the customer",
    )


def _number(case: Case) -> Finding:
    if not isinstance(case.call.orig, TelephoneNumber):
        return Finding(
            False,
            "the caller is not a telephone number",
            at_most=Level.B,
            missing="a telephone number as caller ID",
            settled=True,
        )
    return Finding(True, "the caller ID is a telephone number")


DOCUMENTED: Final = frozenset({Basis.ASSIGNED, Basis.PORTED, Basis.RESPORG, Basis.LETTER})
"""Bases that give A, and the right to sign that a call was diverted."""
# The customer's own word is not among them: the Lingo consent decree (FCC, 2024) punished an A
# that rested on the customer's certification alone.


def _right(case: Case) -> Finding:
    mine = [right for right in case.facts.rights if right.customer == case.customer.id]
    for right in mine:
        if right.basis in DOCUMENTED and in_force(right, case.now):
            return Finding(True, f"{case.customer.name} may use the number: {BASIS_TEXT[right.basis]}", right.label)
    if mine:
        finding, missing = lack(mine[0], case.now)
        return Finding(False, finding, mine[0].label, Level.B, missing)
    wanted = f"a record that {case.customer.id} may use {case.call.orig}"
    if case.facts.rights:
        # The other customer is not named: the trace may reach this customer's support desk.
        return Finding(False, "the number belongs to another customer", None, Level.B, wanted)
    return Finding(False, "nobody vouched for the number", None, Level.B, wanted)


def in_force(right: NumberRight, now: float) -> bool:
    """Whether a right holds at this time, POSIX seconds."""
    return (right.valid_from is None or right.valid_from <= now) and (
        right.valid_until is None or now < right.valid_until
    )


def lack(right: NumberRight, now: float) -> tuple[str, str]:
    """Why a right that does not give A does not, and what would."""
    what = BASIS_TEXT[right.basis]
    if right.basis not in DOCUMENTED:
        return f"the right rests on {what} alone", "a letter of authorisation, or another documented right"
    if right.valid_until is not None and now >= right.valid_until:
        return f"the right ({what}) ended on {_day(right.valid_until)}", f"a renewal of {right.document or what}"
    assert right.valid_from is not None  # else it would be in force
    return f"the right ({what}) begins on {_day(right.valid_from)}", f"a call after {_day(right.valid_from)}"


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


class Rule(NamedTuple):
    """One rule of the set: its stable name, what it asks, and how."""

    name: str
    question: str
    ask: Callable[[Case], Finding]


RULES: Final = (
    Rule("source", "Did the call come over a trunk or gateway we know?", _source),
    Rule("customer_active", "Is the customer neither suspended nor terminated?", _customer_active),
    Rule("customer_verified", "Is know-your-customer complete?", _customer_verified),
    Rule("destination", "Are calls to this destination signed?", destination_rule),
    Rule("gateway", "Did it enter at a gateway? Then C.", _gateway),
    Rule("ceiling", "May this customer's calls get A?", _ceiling),
    Rule("number", "Is the caller ID a telephone number?", _number),
    Rule("right", "Has the customer a documented right to it that holds now? Else B.", _right),
)
"""The rule set, in order."""


def decide(call: CallFacts, facts: PolicyFacts, policy: AttestationPolicy, now: float) -> Decision:
    """The attestation level of one call, and why.

    Args:
        call: calling and called party, and whether it is an emergency call.
        facts: what the store knows of its source and number.
        policy: the operator's choices.
        now: POSIX seconds; expiry is compared at this moment.

    Returns:
        The decision. An emergency call is never refused: it goes on unsigned instead.
    """
    return judge(RULES, Level.A, Case(call, facts, policy, now))


def judge(rules: Iterable[Rule], best: Level, case: Case) -> Decision:
    """Ask rules in order; see `decide`.

    Args:
        rules: the rule set.
        best: the level where all rules hold.
        case: the call, the records and the time.
    """
    trace: list[Step] = []
    level = best
    for rule in rules:
        finding = rule.ask(case)
        trace.append(Step(rule.name, finding.held, finding.record, finding.finding, finding.missing))
        level = max(level, finding.at_most, key=_RANK.__getitem__)
        if finding.settled:
            break
    if level is Level.REFUSE and case.call.emergency:
        trace.append(Step("emergency", True, None, "an emergency call is never refused"))
        level = Level.UNSIGNED
    return Decision(level, tuple(trace), case.facts.source, case.facts.version)
