"""Whether a diversion is ours to sign, and from which PASSporT it goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from shaken_plugin.core.attestation import AttestationPolicy, Decision, Level
from shaken_plugin.core.diverting import (
    DIVERSION_RULES,
    MAX_RINGING,
    RIGHT,
    decide_diversion,
    diverted,
    diverting_holder,
    is_signed,
    links,
)
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, NumberRight, PolicyFacts, Trunk
from shaken_plugin.core.telephone import TelephoneNumber, UriIdentity
from shaken_plugin.core.verification import MAX_IDENTITIES
from tests.builders import DEST, ORIG, URL, Bench, claims, jose, message
from tests.conftest import NOW
from tests.records import changed, number_right

CALLER, DIVERTING, TARGET = TelephoneNumber(ORIG), TelephoneNumber(DEST), TelephoneNumber("13125550142")
CLINIC = Customer("clinic", "Example Clinic", CustomerState.VERIFIED)
HELD = number_right("clinic", DEST, DEST, Basis.ASSIGNED)
OURS = f"{DEST} (assigned by us)"


def judged(
    *rights: NumberRight,
    source: Trunk | Gateway | None = None,
    holder: Customer | None = CLINIC,
    emergency: bool = False,
    **policy: Any,
) -> Decision:
    facts = PolicyFacts(source, rights, 7, (holder,) if holder else ())
    return decide_diversion(DIVERTING, TARGET, facts, AttestationPolicy(**policy), NOW, emergency=emergency)


def test_the_whole_trace_of_a_diversion_that_is_ours() -> None:
    decision = judged(HELD)
    assert (decision.level, decision.policy_version, decision.missing) == (Level.DIV, 7, ())
    assert [step.rule for step in decision.trace] == [rule.name for rule in DIVERSION_RULES]
    assert decision.trace[-1].rule == RIGHT
    assert decision.trace[-1].record == OURS
    assert decision.trace[-1].finding == "Example Clinic may use the diverting number: assigned by us"
    assert decision.level.signs
    assert decision.level.attest is None


@pytest.mark.parametrize(
    ("rights", "holder", "finding", "record", "missing"),
    [
        ((), CLINIC, "nobody vouched for the diverting number", None, f"a record of the customer who may use {DEST}"),
        (
            (changed(HELD, basis=Basis.CUSTOMER_WORD),),
            CLINIC,
            "the right rests on the customer's own word alone",
            f"{DEST} (the customer's own word)",
            "a letter of authorisation, or another documented right",
        ),
        (
            (changed(HELD, valid_until=NOW),),
            CLINIC,
            "the right (assigned by us) ended on 2026-11-18 11:06 UTC",
            OURS,
            "a renewal of assigned by us",
        ),
        *[
            (
                (HELD,),
                holder,
                "clinic, whose number it is, is not a verified customer now",
                OURS,
                "that customer verified and not suspended",
            )
            for holder in (
                replace(CLINIC, state=CustomerState.PENDING),
                replace(CLINIC, state=CustomerState.SUSPENDED),
                replace(CLINIC, state=CustomerState.TERMINATED),
                None,
            )
        ],
    ],
    ids=["no right", "customer's word", "ended", "pending", "suspended", "terminated", "unknown"],
)
def test_a_diversion_that_is_not_ours_says_why(
    rights: tuple[NumberRight, ...], holder: Customer | None, finding: str, record: str | None, missing: str
) -> None:
    decision = judged(*rights, holder=holder)
    step = decision.trace[-1]
    assert decision.level is Level.UNSIGNED
    assert (step.rule, step.held, step.finding, step.record, step.missing) == (RIGHT, False, finding, record, missing)
    assert diverting_holder(PolicyFacts(None, rights, 7, (holder,) if holder else ()), NOW) is None


@pytest.mark.parametrize("state", CustomerState)
@pytest.mark.parametrize("suspended", [False, True])
def test_a_customers_trace_shows_nothing_of_another(state: CustomerState, suspended: bool) -> None:
    source = Trunk("t", Customer("rival", "Rival Ltd", CustomerState.VERIFIED))
    theirs = number_right("clinic", DEST, DEST, Basis.LETTER, "LOA-SECRET", owner="Owner Inc", suspended=suspended)
    decision = judged(theirs, source=source, holder=replace(CLINIC, state=state))
    ours = state is CustomerState.VERIFIED and not suspended
    assert decision.level is (Level.DIV if ours else Level.UNSIGNED)
    told = str(decision.trace[-1]).lower()
    assert not any(secret in told for secret in ("clinic", "loa-secret", "owner", "letter", "suspended", state.value))
    assert decision.trace[-1].finding == (
        "another customer may use the diverting number" if ours else "the diverting number belongs to another customer"
    )
    gateway = judged(theirs, source=Gateway("g", "Gate"), holder=replace(CLINIC, state=state))
    assert gateway.trace[-1].record == theirs.label


def test_a_customers_own_right_is_shown_beside_anothers() -> None:
    own = changed(HELD, customer="rival", basis=Basis.CUSTOMER_WORD)
    theirs = changed(HELD, basis=Basis.LETTER, suspended=True)
    source = Trunk("t", Customer("rival", "Rival Ltd", CustomerState.VERIFIED))
    assert judged(theirs, own, source=source).trace[-1].record == own.label


@pytest.mark.parametrize("state", CustomerState)
@pytest.mark.parametrize("emergency", [False, True])
def test_whose_call_is_sent_on_only_matters_where_it_must_be_refused(state: CustomerState, emergency: bool) -> None:
    trunk = Trunk("t", Customer("other", "Other Ltd", state))
    decision = judged(HELD, source=trunk, emergency=emergency)
    if state in {CustomerState.PENDING, CustomerState.VERIFIED}:
        assert decision.level is Level.DIV
    else:
        assert decision.level is (Level.UNSIGNED if emergency else Level.REFUSE)
        assert decision.trace[0].finding == f"the call comes from Other Ltd, who is {state.value}"
        assert decision.missing == ("the customer reinstated",)


def test_choices_for_unknown_sources_and_ceilings_are_not_about_diversions() -> None:
    assert judged(HELD, unknown_source=Level.REFUSE).level is Level.DIV
    assert judged(HELD, source=Gateway("intl", "International")).level is Level.DIV


def test_a_destination_that_is_left_alone() -> None:
    decision = judged(HELD, leave_alone=("1312",))
    assert (decision.level, decision.trace[-1].rule) == (Level.UNSIGNED, "destination")


# --- Which PASSporT it goes on from ------------------------------------------------------------


@pytest.fixture
def bench(authority: Any, us: Any) -> Bench:
    return Bench.make(authority, us)


def test_the_newest_fitting_passport_is_gone_on_from(bench: Bench) -> None:
    values = [bench.identity(claims=claims(iat=int(NOW) - age)) for age in (9, 3, 5)]
    found = diverted(links(values), CALLER, DIVERTING, NOW, 60)
    assert found is not None
    assert found.iat == NOW - 3
    assert found.claims["attest"] == "A"


def test_one_of_several_dests_is_enough(bench: Bench) -> None:
    value = bench.identity(claims=claims(dest={"tn": ["18005550100", DEST], "uri": ["sip:desk@example.com"]}))
    assert diverted(links([value]), CALLER, DIVERTING, NOW, 60) is not None
    assert diverted(links([value]), CALLER, UriIdentity("sip:desk@example.com"), NOW, 60) is not None
    assert diverted(links([value]), CALLER, TARGET, NOW, 60) is None
    assert diverted(links([value]), None, DIVERTING, NOW, 60) is None


@pytest.mark.parametrize(
    ("age", "fits"), [(60 + MAX_RINGING, True), (61 + MAX_RINGING, False), (-60, True), (-61, False)]
)
def test_its_age_is_bounded(bench: Bench, age: int, fits: bool) -> None:
    value = bench.identity(claims=claims(iat=int(NOW) - age))
    assert (diverted(links([value]), CALLER, DIVERTING, NOW, 60) is not None) is fits


def test_no_more_headers_are_read_than_verifiers_read(bench: Bench) -> None:
    good, padding = bench.identity(), ("x",) * (MAX_IDENTITIES - 1)
    assert len(links([*padding, good])) == 1
    assert links([*padding, "x", good]) == ()


def test_reading_hostile_headers_takes_no_time() -> None:
    value = "eyJ" + "[" * 60_000 + "." + "A" * 5_000 + f".x;info=<{URL}>"
    begin = time.perf_counter()
    assert links([value] * 1_000) == ()
    assert time.perf_counter() - begin < 1.0


def test_a_div_is_known_by_who_diverts_what_to_whom(bench: Bench) -> None:
    made = {"div": {"tn": DEST}, "dest": {"tn": [TARGET.digits]}, "iat": int(NOW), "orig": {"tn": ORIG}}
    params = f";info=<{URL}>;ppt=div"
    value = bench.identity(claims=made, header=jose(ppt="div"), params=params)
    found = links(message(value).identity)
    assert [link.div for link in found] == [DIVERTING]
    assert is_signed(found, CALLER, DIVERTING, TARGET)
    assert not is_signed(found, TARGET, DIVERTING, TARGET)
    assert not is_signed(found, CALLER, CALLER, TARGET)
    assert not is_signed(found, CALLER, DIVERTING, CALLER)
    assert not is_signed(links([bench.identity()]), CALLER, DIVERTING, DIVERTING)
