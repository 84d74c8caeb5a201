"""What holds for every decision, whatever the records: nothing gives A but the one thing that may."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.core.attestation import (
    WITHOUT_RECORD,
    AttestationPolicy,
    CallFacts,
    Decision,
    InvalidNumbers,
    Level,
    Refusal,
    decide,
    decide_substitute,
)
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Basis,
    CarrierStatus,
    Customer,
    CustomerKind,
    CustomerState,
    DoNotOriginate,
    Gateway,
    NumberRight,
    Overrides,
    PendingLevel,
    PolicyFacts,
    Route,
    Substitution,
    TimeWindow,
    Trunk,
    Unauthorised,
    Withheld,
)
from shaken_plugin.core.telephone import TelephoneNumber, UriIdentity
from tests.conftest import NOW
from tests.property.strategies import examples, many
from tests.records import changed, number_right

CALLER, SUBSTITUTE = "12155551212", "12155551200"
RANK = list(Level)
maybe = st.sampled_from


def optional(values: Any) -> Any:
    return st.none() | maybe(list(values))


overrides = st.builds(
    Overrides,
    unauthorised=optional(Unauthorised),
    substitute=maybe([None, SUBSTITUTE, CALLER]),
    offences=maybe([None, True, False]),
    ceiling=optional(Attest),
    pending=optional(PendingLevel),
    sign=maybe([None, None, True, False]),
)
moments = st.none() | st.integers(-2, 2).map(lambda offset: NOW + offset)
customers = st.builds(
    Customer,
    id=maybe(["acme", "other"]),
    name=st.just("X"),
    state=maybe([CustomerState.VERIFIED, *CustomerState]),
    ceiling=optional(Attest),
    kind=maybe(CustomerKind),
    carrier=maybe([None, CarrierStatus("829999"), CarrierStatus(rmd="RMD1"), CarrierStatus("829999", "RMD1")]),
    rules=overrides,
)
sources = st.one_of(
    st.none(),
    st.builds(Gateway, id=st.just("g"), name=st.just("G")),
    st.builds(Trunk, id=st.just("t"), customer=customers, rules=overrides),
    st.builds(Trunk, id=st.just("t"), customer=customers),
)
rights = st.builds(
    number_right,
    customer=maybe(["acme", "acme", "other"]),
    first=st.just(CALLER),
    last=st.just(CALLER),
    basis=maybe(Basis),
    document=maybe(["D-1", "D-1", None]),
    valid_from=moments,
    valid_until=moments,
    suspended=st.booleans(),
    approved_by=maybe([None, "Ann Lee"]),
    rules=st.just(Overrides()) | overrides,
)
entries = st.builds(DoNotOriginate, id=st.just("d"), reason=maybe(Withheld))
substitutions = st.builds(
    Substitution,
    id=maybe(["s", "t"]),
    customer=maybe(["acme", "other"]),
    number=maybe([SUBSTITUTE, CALLER]),
    routes=maybe([(), ("r",), ("x",)]),
    window=maybe([None, TimeWindow(), TimeWindow(days=())]),
    valid_from=moments,
    valid_until=moments,
)
known = st.builds(
    PolicyFacts,
    source=sources,
    rights=st.lists(rights, max_size=3).map(tuple),
    version=st.just(1),
    withheld=st.lists(entries, max_size=1).map(tuple),
    route=st.none() | st.builds(Route, id=st.just("r"), rules=overrides),
    substitutions=st.lists(substitutions, max_size=1).map(tuple),
)
policies = st.builds(
    AttestationPolicy,
    unknown_source=maybe(WITHOUT_RECORD),
    pending_customer=maybe([Level(level.value) for level in PendingLevel]),
    sign_international=st.booleans(),
    leave_alone=maybe([(), ("1",)]),
    unauthorised=maybe(Unauthorised),
    substitute=maybe([None, SUBSTITUTE]),
    require_approval=st.booleans(),
    invalid_numbers=maybe(InvalidNumbers),
    numbering=maybe([None, lambda digits: None, lambda digits: Withheld.UNALLOCATED]),
)
parties = maybe(
    [
        None,
        TelephoneNumber(CALLER),
        TelephoneNumber(CALLER),
        TelephoneNumber("1001", is_e164=False),
        UriIdentity("sip:a@b"),
    ]
)
calls = st.builds(CallFacts, orig=parties, dest=maybe([None, TelephoneNumber("442071838750")]), emergency=st.booleans())
cases = st.tuples(calls, known, policies)


def decided(case: Any) -> Decision:
    call, facts, policy = case
    return decide(call, facts, policy, NOW)


def rank(case: Any) -> int:
    return RANK.index(decided(case).level)


def gives_a(right: NumberRight, customer: Customer, policy: AttestationPolicy) -> bool:
    """Written apart from the code: the one thing that A rests on."""
    grant = right.right
    return (
        grant.customer == customer.id
        and grant.basis is not Basis.CUSTOMER_WORD
        and (grant.basis not in {Basis.LETTER, Basis.DELEGATE} or grant.document is not None)
        and not grant.suspended
        and (grant.valid_from is None or grant.valid_from <= NOW)
        and (grant.valid_until is None or grant.valid_until > NOW)
        and (not policy.require_approval or grant.basis is Basis.ASSIGNED or grant.approved_by is not None)
        and right.first <= CALLER <= right.last
    )


def is_free_for_a(call: CallFacts, facts: PolicyFacts, policy: AttestationPolicy) -> bool:
    """Whether the records let a call get A."""
    if not isinstance(facts.source, Trunk) or not isinstance(call.orig, TelephoneNumber):
        return False
    customer = facts.source.customer
    mine = [right for right in facts.rights if right.right.customer == customer.id]
    said = [customer.ceiling, customer.rules.ceiling, facts.source.rules.ceiling]
    said += [facts.route.rules.ceiling] if facts.route else []
    said += [right.right.rules.ceiling for right in mine]
    return (
        customer.state is CustomerState.VERIFIED
        and customer.kind is not CustomerKind.GATEWAY
        and (customer.kind is not CustomerKind.WHOLESALE or customer.carrier == CarrierStatus("829999", "RMD1"))
        and any(gives_a(right, customer, policy) for right in mine)
        and set(said) <= {None, Attest.A}
        and all(entry.reason is Withheld.ALLOCATED for entry in facts.withheld)
    )


@many(3)
@given(case=cases)
def test_nothing_gives_a_but_a_verified_customers_own_documented_right_in_force(case: Any) -> None:
    decision = decided(case)
    if decision.level is Level.A:
        assert is_free_for_a(*case)
        assert not decision.unauthorised
        assert decision.missing == ()
    elif decision.level.attest is not None:
        assert decision.missing
    # A line of the trace that did not hold is a line that costs the call its A, and the other way round.
    assert (decision.level is Level.A) == all(step.held for step in decision.trace)
    assert decided(case) == decision


@examples
@given(case=cases, other=policies)
def test_the_level_of_such_a_call_depends_on_nothing_else(case: Any, other: AttestationPolicy) -> None:
    """Name, offences, holders: whatever is not in the list above cannot change an A."""
    call, facts, policy = case
    if decided(case).level is not Level.A:
        return
    customer = facts.source.customer
    else_ = replace(customer, kind=CustomerKind.RESELLER, name="Y", review_at=0.0, credential="c")
    changed_facts = replace(facts, source=replace(facts.source, customer=else_), version=2, holders=(else_,))
    assert decide(call, changed_facts, policy, NOW).level is Level.A
    chosen = replace(
        policy, unauthorised=other.unauthorised, substitute=other.substitute, unknown_source=other.unknown_source
    )
    assert decide(call, facts, chosen, NOW).level is Level.A


@many(2)
@given(case=cases, level=maybe([Attest.B, Attest.C]), where=maybe(["route", "customer", "rules", "trunk", "right"]))
def test_a_ceiling_never_raises_a_level_and_is_kept(case: Any, level: Attest, where: str) -> None:
    call, facts, policy = case
    source = facts.source
    if where == "route":
        rules = facts.route.rules if facts.route else Overrides()
        lowest = max(level, rules.ceiling or level, key=lambda ceiling: ceiling.value)
        # The route's id stays, or appears: a rule for it might begin to hold.
        facts = replace(facts, route=Route("r", (), replace(rules, ceiling=lowest)), substitutions=())
        case = (call, replace(case[1], substitutions=()), policy)
    elif isinstance(source, Trunk):
        own = source.customer
        if where == "customer":
            source = replace(source, customer=replace(own, ceiling=_lower(own.ceiling, level)))
        elif where == "rules":
            source = replace(source, customer=replace(own, rules=_capped(own.rules, level)))
        elif where == "trunk":
            source = replace(source, rules=_capped(source.rules, level))
        else:
            facts = replace(
                facts, rights=tuple(changed(right, rules=_capped(right.right.rules, level)) for right in facts.rights)
            )
        facts = replace(facts, source=source)
    capped = (call, facts, policy)
    assert rank(capped) >= rank(case)
    if isinstance(source, Trunk) and where != "right":
        assert rank(capped) >= RANK.index(Level(level.value))


def _lower(ceiling: Attest | None, level: Attest) -> Attest:
    return level if ceiling is None else max(ceiling, level, key=lambda one: one.value)


def _capped(rules: Overrides, level: Attest) -> Overrides:
    return replace(rules, ceiling=_lower(rules.ceiling, level))


@many(2)
@given(case=cases, reason=maybe([reason for reason in Withheld if reason is not Withheld.ALLOCATED]), at=st.booleans())
def test_an_entry_of_the_list_never_raises_a_level_and_is_kept(case: Any, reason: Withheld, at: bool) -> None:
    call, facts, policy = case
    entry = (DoNotOriginate("e", reason),)
    listed = (call, replace(facts, withheld=entry + facts.withheld if at else facts.withheld + entry), policy)
    assert rank(listed) >= rank(case) or call.emergency
    if isinstance(call.orig, TelephoneNumber):
        decision = decided(listed)
        assert decision.level is (Level.UNSIGNED if call.emergency else Level.REFUSE)
        assert decision.refusal is (None if call.emergency else Refusal.DO_NOT_ORIGINATE)


@many(2)
@given(case=cases, which=st.integers(0, 2), state=maybe([CustomerState.SUSPENDED, CustomerState.TERMINATED]))
def test_no_suspension_raises_a_level(case: Any, which: int, state: CustomerState) -> None:
    call, facts, policy = case
    held = tuple(changed(right, suspended=True) if i == which else right for i, right in enumerate(facts.rights))
    assert rank((call, replace(facts, rights=held), policy)) >= rank(case)
    if isinstance(facts.source, Trunk):
        barred = replace(facts.source, customer=replace(facts.source.customer, state=state))
        decision = decided((call, replace(facts, source=barred), policy))
        assert decision.level is (Level.UNSIGNED if call.emergency else Level.REFUSE)
        assert decision.refusal in ({None} if call.emergency else {Refusal(state.value), Refusal.DO_NOT_ORIGINATE})


@many(2)
@given(case=cases, again=known)
def test_a_substitute_is_final_and_no_other_number_is_refused_for_it(case: Any, again: PolicyFacts) -> None:
    call, _, policy = case
    first = decided(case)
    if first.substitute is None:
        assert (first.refusal is None) == (first.level is not Level.REFUSE)
        return
    assert first.level is Level.UNSIGNED
    assert not call.emergency
    decision = decide_substitute(first, call, again, policy, NOW)
    assert decision.substitute in {None, first.substitute}
    assert (decision.substitute is None) == (decision.level is Level.REFUSE)
    assert (decision.unauthorised, decision.offence) == (first.unauthorised, first.offence)
    assert decision.refusal is not Refusal.UNAUTHORISED
    if decision.level is Level.A:
        changed_call = replace(call, orig=TelephoneNumber(first.substitute))
        assert is_free_for_a(changed_call, again, policy)


@examples
@given(case=cases)
def test_an_emergency_call_is_never_refused_changed_or_held_against_anybody(case: Any) -> None:
    call, facts, policy = case
    decision = decided((replace(call, emergency=True), facts, policy))
    assert decision.level is not Level.REFUSE
    assert (decision.refusal, decision.substitute, decision.offence) == (None, None, False)
