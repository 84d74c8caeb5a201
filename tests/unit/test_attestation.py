"""The attestation decision: every rule held and not held, every level, and the way to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shaken_plugin.core.attestation import (
    RULES,
    WITHOUT_RECORD,
    AttestationPolicy,
    CallFacts,
    Decision,
    Level,
    Step,
    decide,
    is_documented,
)
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    BASIS_TEXT,
    Basis,
    CarrierStatus,
    Customer,
    CustomerKind,
    CustomerState,
    DoNotOriginate,
    Gateway,
    NumberRight,
    PolicyFacts,
    Route,
    Substitution,
    Trunk,
    Withheld,
)
from shaken_plugin.core.telephone import Party, TelephoneNumber, UriIdentity
from tests.builders import DEST, ORIG
from tests.conftest import NOW
from tests.records import changed, number_right

CALLER, CALLED = TelephoneNumber(ORIG), TelephoneNumber(DEST)
ACME = Customer("acme", "Acme Ltd", CustomerState.VERIFIED)
TRUNK = Trunk("acme-main", ACME)
GATEWAY = Gateway("intl", "International")
RIGHT = number_right("acme", ORIG, ORIG, Basis.ASSIGNED)
NAMES = tuple(rule.name for rule in RULES)
OTHER_RIGHT = changed(RIGHT, customer="other")
OURS = f"{ORIG} (assigned by us)"
LISTED = DoNotOriginate("inbound", Withheld.INBOUND_ONLY)
MAIN = Substitution("main", "acme", "12155551200")
WANTED = f"a record that acme may use {ORIG}"


def customer(**changes: Any) -> Trunk:
    """A trunk of a customer like Acme."""
    return replace(TRUNK, customer=replace(ACME, **changes))


def judged(
    *rights: NumberRight,
    source: Trunk | Gateway | None = TRUNK,
    orig: Party | None = CALLER,
    dest: Party | None = CALLED,
    emergency: bool = False,
    now: float = NOW,
    withheld: tuple[DoNotOriginate, ...] = (),
    route: Route | None = None,
    substitutions: tuple[Substitution, ...] = (),
    **policy: Any,
) -> Decision:
    """The decision on a call over Acme's trunk."""
    call = CallFacts(orig, dest, emergency)
    facts = PolicyFacts(source, rights, 7, withheld=withheld, route=route, substitutions=substitutions)
    return decide(call, facts, AttestationPolicy(**policy), now)


def step(decision: Decision, rule: str = "right") -> Step:
    """What a rule reported."""
    (found,) = [step for step in decision.trace if step.rule == rule]
    return found


CASES: dict[str, tuple[dict[str, Any], tuple[NumberRight, ...], Level, str, bool, str | None, str | None]] = {
    # what differs: arguments, rights, level, rule that says why, held, its record, what is missing
    "A: a number of ours": ({}, (RIGHT,), Level.A, "right", True, OURS, None),
    "A: the second right": (
        {}, (changed(RIGHT, basis=Basis.CUSTOMER_WORD), RIGHT), Level.A, "right", True, OURS, None),
    "A: another customer may have one, too": (
        {}, (OTHER_RIGHT, RIGHT), Level.A, "right", True, OURS, None),
    "B: nobody's number": (
        {}, (), Level.B, "right", False, None, WANTED),
    "B: another customer's number": (
        {}, (OTHER_RIGHT,), Level.B, "right", False, None, WANTED),
    "B: the customer's own word": (
        {}, (changed(RIGHT, basis=Basis.CUSTOMER_WORD),), Level.B, "right", False,
        f"{ORIG} (the customer's own word)", "a letter of authorisation, or another documented right"),
    "B: no number as caller": (
        {"orig": UriIdentity("sip:a@b")}, (RIGHT,), Level.B, "number", False, None, "a telephone number as caller ID"),
    "B: no caller at all": (
        {"orig": None}, (RIGHT,), Level.B, "number", False, None, "a telephone number as caller ID"),
    "B: by ceiling": (
        {"source": customer(ceiling=Attest.B)}, (RIGHT,), Level.B, "right", True, OURS, None),
    "C: by ceiling": (
        {"source": customer(ceiling=Attest.C)}, (RIGHT,), Level.C, "right", True, OURS, None),
    "C: by ceiling, though B by right": (
        {"source": customer(ceiling=Attest.C)}, (), Level.C, "right", False, None, WANTED),
    "C: a gateway": (
        {"source": GATEWAY}, (RIGHT,), Level.C, "gateway", False, "gateway intl",
        "calls over a gateway have no customer; A and B need a customer's trunk"),
    "C: a pending customer, by policy": (
        {"source": customer(state=CustomerState.PENDING), "pending_customer": Level.C}, (RIGHT,), Level.C, "right",
        True, OURS, None),
    "B: a pending customer, by policy": (
        {"source": customer(state=CustomerState.PENDING), "pending_customer": Level.B}, (RIGHT,), Level.B, "right",
        True, OURS, None),
    "C: a customer that is a gateway": (
        {"source": customer(kind=CustomerKind.GATEWAY)}, (RIGHT,), Level.C, "kind", False, "customer acme",
        "a customer of another kind"),
    "B: a wholesale carrier without registrations": (
        {"source": customer(kind=CustomerKind.WHOLESALE)}, (RIGHT,), Level.B, "kind", False, "customer acme",
        "a Form 499 Filer ID and a number in the Robocall Mitigation Database of acme"),
    "B: a wholesale carrier without Form 499": (
        {"source": customer(kind=CustomerKind.WHOLESALE, carrier=CarrierStatus(rmd="RMD1"))}, (RIGHT,), Level.B,
        "kind", False, "customer acme", "a Form 499 Filer ID of acme"),
    "B: a wholesale carrier without RMD number": (
        {"source": customer(kind=CustomerKind.WHOLESALE, carrier=CarrierStatus("829999"))}, (RIGHT,), Level.B,
        "kind", False, "customer acme", "a number in the Robocall Mitigation Database of acme"),
    "A: a wholesale carrier with both": (
        {"source": customer(kind=CustomerKind.WHOLESALE, carrier=CarrierStatus("829999", "RMD1"))}, (RIGHT,), Level.A,
        "kind", True, "customer acme", None),
    "unsigned: a pending customer": (
        {"source": customer(state=CustomerState.PENDING)}, (RIGHT,), Level.UNSIGNED, "customer_verified", False,
        "customer acme", "a complete know-your-customer file"),
    "refuse: a pending customer, by policy": (
        {"source": customer(state=CustomerState.PENDING), "pending_customer": Level.REFUSE}, (RIGHT,), Level.REFUSE,
        "customer_verified", False, "customer acme", "a complete know-your-customer file"),
    "unsigned: nobody's source": (
        {"source": None}, (RIGHT,), Level.UNSIGNED, "source", False, None,
        "a customer's trunk, or a declared gateway, with this source address or user"),
    "refuse: nobody's source, by policy": (
        {"source": None, "unknown_source": Level.REFUSE}, (RIGHT,), Level.REFUSE, "source", False, None,
        "a customer's trunk, or a declared gateway, with this source address or user"),
    "refuse: suspended": (
        {"source": customer(state=CustomerState.SUSPENDED)}, (RIGHT,), Level.REFUSE, "customer_active", False,
        "customer acme", "the customer reinstated"),
    "refuse: terminated": (
        {"source": customer(state=CustomerState.TERMINATED)}, (RIGHT,), Level.REFUSE, "customer_active", False,
        "customer acme", "the customer reinstated"),
    "unsigned: destination left alone": (
        {"leave_alone": ("44", "1202")}, (RIGHT,), Level.UNSIGNED, "destination", False, None, None),
    "unsigned: abroad": (
        {"sign_international": False, "dest": TelephoneNumber("442071838750")}, (RIGHT,), Level.UNSIGNED,
        "destination", False, None, None),
    "refuse: suspended, though the destination is left alone": (
        {"source": customer(state=CustomerState.SUSPENDED), "leave_alone": ("1202",)}, (RIGHT,), Level.REFUSE,
        "customer_active", False, "customer acme", "the customer reinstated"),
    "refuse: nobody's source, though the destination is left alone": (
        {"source": None, "unknown_source": Level.REFUSE, "leave_alone": ("1202",)}, (RIGHT,), Level.REFUSE, "source",
        False, None, "a customer's trunk, or a declared gateway, with this source address or user"),
    "refuse: pending, though the destination is left alone": (
        {"source": customer(state=CustomerState.PENDING), "pending_customer": Level.REFUSE, "leave_alone": ("1202",)},
        (RIGHT,), Level.REFUSE, "customer_verified", False, "customer acme", "a complete know-your-customer file"),
    "unsigned: a gateway's call to a destination left alone": (
        {"source": GATEWAY, "leave_alone": ("1202",)}, (), Level.UNSIGNED, "destination", False, None, None),
    "A: at home": (
        {"sign_international": False}, (RIGHT,), Level.A, "right", True, OURS, None),
    "a service number is not abroad": (
        {"sign_international": False, "dest": TelephoneNumber("211", is_e164=False)}, (RIGHT,), Level.A,
        "right", True, OURS, None),
    "A: another destination": (
        {"leave_alone": ("44", "1203")}, (RIGHT,), Level.A, "right", True, OURS, None),
    "refuse: on the do-not-originate list": (
        {"withheld": (LISTED,)}, (RIGHT,), Level.REFUSE, "do_not_originate", False, "do-not-originate inbound",
        "another caller ID: this one is on the do-not-originate list"),
    "unsigned: another caller ID by rule, not yet decided on": (
        {"substitutions": (MAIN,)}, (RIGHT,), Level.UNSIGNED, "substitution", False, "substitution main", None),
    "A: destination that is no number": (
        {"sign_international": False, "leave_alone": ("s",), "dest": UriIdentity("sip:a@b")}, (RIGHT,), Level.A,
        "right", True, OURS, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_level_follows_from_the_records(case: Any) -> None:
    arguments, rights, level, rule, held, record, missing = case
    decision = judged(*rights, **arguments)
    assert decision.level is level
    _, was_held, on, finding, lack = step(decision, rule)
    assert (was_held, on, lack) == (held, record, missing)
    assert finding


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_is_seen_both_ways_in_the_table_above(name: str) -> None:
    seen = {
        step.held
        for arguments, rights, *_ in CASES.values()
        for step in judged(*rights, **arguments).trace
        if step.rule == name
    }
    assert seen == {True, False}


def test_trace_has_every_rule_that_was_asked_in_order() -> None:
    assert judged(RIGHT).rules == NAMES
    assert judged(RIGHT, source=None).rules == ("do_not_originate", "source")
    assert judged(RIGHT, source=GATEWAY).rules == (
        "do_not_originate",
        "source",
        "customer_active",
        "customer_verified",
        "kind",
        "destination",
        "gateway",
    )


def test_trace_names_the_records_it_rests_on() -> None:
    records = {step.rule: step.record for step in judged(RIGHT).trace}
    assert records == {
        "do_not_originate": None,
        "destination": None,
        "source": "trunk acme-main",
        "gateway": None,
        "customer_active": "customer acme",
        "customer_verified": "customer acme",
        "kind": "customer acme",
        "ceiling": "customer acme",
        "number": None,
        "substitution": None,
        "right": f"{ORIG} (assigned by us)",
        "unauthorised": None,
    }


def test_decision_knows_its_source_and_the_version_of_the_policy() -> None:
    decision = judged(RIGHT)
    assert (decision.source, decision.policy_version, decision.missing) == (TRUNK, 7, ())


def test_all_that_is_missing_is_told_at_once() -> None:
    source = customer(state=CustomerState.PENDING, ceiling=Attest.B)
    assert judged(source=source, pending_customer=Level.C).missing == (
        "a complete know-your-customer file",
        "a higher attestation ceiling for customer acme",
        f"a record that acme may use {ORIG}",
    )


def test_other_customers_are_not_named() -> None:
    """The trace may reach this customer's support desk."""
    decision = judged(OTHER_RIGHT)
    assert not any("other" in str(step.record) or "Other" in step.finding for step in decision.trace)
    assert step(decision).finding == "the number belongs to another customer"
    assert step(judged()).finding == "nobody vouched for the number"


@pytest.mark.parametrize("ceiling", [None, Attest.A])
def test_ceiling_of_a_is_no_ceiling(ceiling: Attest | None) -> None:
    assert judged(RIGHT, source=customer(ceiling=ceiling)).level is Level.A


@pytest.mark.parametrize("basis", Basis)
def test_only_a_documented_right_gives_a(basis: Basis) -> None:
    """ATIS-1000074 §5.2.3; the customer's certification alone is not enough (Lingo consent decree, FCC 2024)."""
    decision = judged(changed(RIGHT, basis=basis, document="D-1"))
    assert decision.level is (Level.B if basis is Basis.CUSTOMER_WORD else Level.A)
    assert BASIS_TEXT[basis] in step(decision).finding


@pytest.mark.parametrize("basis", [Basis.LETTER, Basis.DELEGATE])
@pytest.mark.parametrize("document", [None, ""])
def test_a_right_that_rests_on_a_document_and_names_none_gives_b(basis: Basis, document: str | None) -> None:
    decision = judged(changed(RIGHT, basis=basis, document=document))
    assert (decision.level, decision.unauthorised) == (Level.B, False)
    assert step(decision).finding == "the right names no document"
    assert step(decision).missing == f"the reference of the {BASIS_TEXT[basis]}"
    assert not is_documented(changed(RIGHT, basis=basis, document=document).right, NOW)


@pytest.mark.parametrize(
    ("valid_from", "valid_until", "level"),
    [
        (None, None, Level.A),
        (NOW, None, Level.A),
        (NOW + 0.001, None, Level.B),
        (NOW - 1, None, Level.A),
        (None, NOW, Level.B),
        (None, NOW + 0.001, Level.A),
        (None, NOW - 1, Level.B),
        (NOW, NOW + 1, Level.A),
        (NOW, NOW, Level.B),
        (NOW + 1, NOW - 1, Level.B),
    ],
)
def test_right_holds_from_its_first_second_to_the_one_before_its_end(
    valid_from: float | None, valid_until: float | None, level: Level
) -> None:
    assert judged(changed(RIGHT, valid_from=valid_from, valid_until=valid_until)).level is level


LETTER = changed(RIGHT, basis=Basis.LETTER, document="LOA-7", last="12155551299", first="12155551200")


@pytest.mark.parametrize(
    ("right", "finding", "missing"),
    [
        (
            changed(LETTER, valid_until=NOW),
            "the right (letter of authorisation) ended on 2026-11-18 11:06 UTC",
            "a renewal of LOA-7",
        ),
        (
            changed(LETTER, basis=Basis.PORTED, document=None, valid_until=NOW),
            "the right (ported in) ended on 2026-11-18 11:06 UTC",
            "a renewal of ported in",
        ),
        (
            changed(LETTER, valid_from=NOW + 60),
            "the right (letter of authorisation) begins on 2026-11-18 11:07 UTC",
            "a call after 2026-11-18 11:07 UTC",
        ),
    ],
)
def test_right_that_does_not_hold_now_says_when_and_what_would_help(
    right: NumberRight, finding: str, missing: str
) -> None:
    name, held, record, found, lack = step(judged(right))
    assert (name, held, found, lack) == ("right", False, finding, missing)
    assert record == right.label


def test_label_of_a_right_names_range_basis_and_document() -> None:
    assert LETTER.label == "12155551200-12155551299 (letter of authorisation LOA-7)"


REFUSING = [name for name, case in CASES.items() if case[2] is Level.REFUSE]


@pytest.mark.parametrize("name", REFUSING)
def test_emergency_call_is_never_refused(name: str) -> None:
    arguments, rights, *_ = CASES[name]
    decision = judged(*rights, **arguments, emergency=True)
    assert decision.level is Level.UNSIGNED
    assert decision.trace[-1] == ("emergency", True, None, "an emergency call is never refused", None)
    assert [step.rule for step in decision.trace[:-1]] == [step.rule for step in judged(*rights, **arguments).trace]


@pytest.mark.parametrize("policy", [{"leave_alone": ("9",)}, {"sign_international": False, "home_country_code": "44"}])
def test_emergency_call_is_signed_whatever_its_destination(policy: dict[str, Any]) -> None:
    assert judged(RIGHT, dest=TelephoneNumber("911"), emergency=True, **policy).level is Level.A


@pytest.mark.parametrize("level", [level for level in Level if level not in WITHOUT_RECORD])
def test_policy_that_would_sign_for_an_unknown_source_cannot_exist(level: Level) -> None:
    """C is for declared gateways (ATIS-1000074), never for whoever turns up."""
    with pytest.raises(ValueError, match="do not know"):
        AttestationPolicy(unknown_source=level)


def test_policy_that_would_give_a_to_a_customer_nobody_has_checked_cannot_exist() -> None:
    for level in (Level.A, Level.DIV):
        with pytest.raises(ValueError, match="gets no A"):
            AttestationPolicy(pending_customer=level)


@pytest.mark.parametrize(
    ("level", "attest"),
    [(Level.A, Attest.A), (Level.B, Attest.B), (Level.C, Attest.C), (Level.UNSIGNED, None), (Level.REFUSE, None)],
)
def test_only_a_b_and_c_are_signed(level: Level, attest: Attest | None) -> None:
    assert level.attest is attest
