"""The rules about the caller ID: do-not-originate, substitution, rights in every state, unauthorised numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shaken_plugin.core.attestation import (
    AttestationPolicy,
    CallFacts,
    InvalidNumbers,
    Level,
    Refusal,
    decide_substitute,
    is_open,
)
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Basis,
    CustomerKind,
    CustomerState,
    DoNotOriginate,
    NumberRight,
    Overrides,
    PendingLevel,
    PolicyFacts,
    Route,
    Substitution,
    TimeWindow,
    Unauthorised,
    Withheld,
)
from shaken_plugin.core.telephone import TelephoneNumber, UriIdentity
from tests.builders import DEST, ORIG
from tests.conftest import NOW
from tests.records import changed, number_right
from tests.unit.test_attestation import (
    ACME,
    CALLED,
    CALLER,
    GATEWAY,
    LISTED,
    MAIN,
    RIGHT,
    TRUNK,
    customer,
    judged,
    step,
)

DAY = 86_400
LETTER = number_right("acme", ORIG, ORIG, Basis.LETTER, "LOA-7", owner="Example Clinic", id="LOA-7")


def says(withheld: Withheld | None) -> Callable[[str], Withheld | None]:
    """A numbering plan that says the same of every number."""
    return lambda digits: withheld


# --- Do not originate -------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [reason for reason in Withheld if reason is not Withheld.ALLOCATED])
@pytest.mark.parametrize("source", [TRUNK, GATEWAY, None])
def test_a_number_on_the_list_is_refused_whoever_calls(reason: Withheld, source: Any) -> None:
    decision = judged(RIGHT, source=source, withheld=(DoNotOriginate("x", reason),))
    assert (decision.level, decision.refusal, decision.unauthorised) == (Level.REFUSE, Refusal.DO_NOT_ORIGINATE, True)
    assert decision.offence == (source is TRUNK)
    assert decision.rules == ("do_not_originate",)
    assert step(decision, "do_not_originate").record == "do-not-originate x"


@pytest.mark.parametrize("entries", [(DoNotOriginate("a", Withheld.ALLOCATED), LISTED), (LISTED,)])
def test_neither_right_nor_exception_overrides_the_list(entries: tuple[DoNotOriginate, ...]) -> None:
    assert judged(RIGHT, withheld=entries).refusal is Refusal.DO_NOT_ORIGINATE


@pytest.mark.parametrize(
    ("how", "level", "refusal"),
    [
        (InvalidNumbers.REFUSE, Level.REFUSE, Refusal.DO_NOT_ORIGINATE),
        (InvalidNumbers.DOWNGRADE, Level.B, None),
        (InvalidNumbers.IGNORE, Level.B, None),
    ],
)
@pytest.mark.parametrize("wrong", [Withheld.INVALID, Withheld.UNALLOCATED])
def test_a_number_that_no_plan_knows_is_treated_as_set(
    wrong: Withheld, how: InvalidNumbers, level: Level, refusal: Refusal | None
) -> None:
    word = changed(RIGHT, basis=Basis.CUSTOMER_WORD)
    decision = judged(word, numbering=says(wrong), invalid_numbers=how)
    assert (decision.level, decision.refusal) == (level, refusal)
    assert decision.unauthorised == decision.offence == (how is not InvalidNumbers.IGNORE)
    assert step(decision, "do_not_originate").held == (how is InvalidNumbers.IGNORE)


def test_a_documented_right_in_force_knows_better_than_the_numbering_plan() -> None:
    unknown = says(Withheld.UNALLOCATED)
    found = judged(RIGHT, numbering=unknown)
    assert (found.level, step(found, "do_not_originate").record) == (Level.A, RIGHT.label)
    others = judged(changed(RIGHT, customer="other"), numbering=unknown)
    assert (others.level, step(others, "do_not_originate").record) == (Level.B, None)
    for right in (changed(RIGHT, suspended=True), changed(RIGHT, valid_until=NOW), changed(RIGHT, valid_from=NOW + 1)):
        assert judged(right, numbering=unknown).level is Level.REFUSE


def test_an_entry_says_that_a_number_is_allocated() -> None:
    allocated = DoNotOriginate("new-block", Withheld.ALLOCATED)
    decision = judged(numbering=says(Withheld.UNALLOCATED), withheld=(allocated,))
    assert (decision.level, step(decision, "do_not_originate").record) == (Level.B, "do-not-originate new-block")
    assert judged(RIGHT, numbering=says(None), withheld=(allocated,)).level is Level.A


def test_the_numbering_plan_is_asked_only_where_nobody_vouches_for_the_number() -> None:
    asked: list[str] = []

    def plan(digits: str) -> None:
        asked.append(digits)

    entry = DoNotOriginate("new-block", Withheld.ALLOCATED)
    judged(RIGHT, numbering=plan)
    judged(numbering=plan, withheld=(entry,))
    judged(numbering=plan, withheld=(LISTED,))
    assert asked == []
    decision = judged(changed(RIGHT, basis=Basis.CUSTOMER_WORD), numbering=plan)
    assert asked == [ORIG]
    assert step(decision, "do_not_originate").finding == "the caller ID is valid, and on no do-not-originate list"


def test_a_suspended_entry_refuses_and_excepts_nothing() -> None:
    entry = DoNotOriginate("x", Withheld.INBOUND_ONLY, suspended=True)
    decision = judged(RIGHT, withheld=(entry,))
    assert (decision.level, step(decision, "do_not_originate").record) == (Level.A, "do-not-originate x, suspended")
    assert judged(RIGHT, withheld=(entry, LISTED)).refusal is Refusal.DO_NOT_ORIGINATE
    allocated = DoNotOriginate("y", Withheld.ALLOCATED, suspended=True)
    assert judged(numbering=says(Withheld.UNALLOCATED), withheld=(allocated,)).level is Level.REFUSE


@pytest.mark.parametrize("orig", [TelephoneNumber("1001", is_e164=False), UriIdentity("sip:a@b"), None])
def test_what_is_no_number_of_a_plan_is_none_of_its_business(orig: Any) -> None:
    assert judged(orig=orig, numbering=says(Withheld.INVALID)).level is Level.B


# --- Rights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("approved", [None, "Ann Lee"])
@pytest.mark.parametrize("required", [False, True])
def test_where_approval_is_required_a_right_gives_a_only_with_it(
    basis: Basis, approved: str | None, required: bool
) -> None:
    decision = judged(changed(RIGHT, basis=basis, document="D-1", approved_by=approved), require_approval=required)
    needs = required and basis is not Basis.ASSIGNED and approved is None
    assert (decision.level is Level.A) == (basis is not Basis.CUSTOMER_WORD and not needs)
    if needs and basis is not Basis.CUSTOMER_WORD:
        assert step(decision).finding.startswith("nobody has approved the right")


def test_all_that_a_right_lacks_is_told_at_once() -> None:
    right = changed(LETTER, suspended=True, valid_until=NOW)
    found = step(judged(right, require_approval=True))
    assert found.finding == (
        "the right (letter of authorisation) ended on 2026-11-18 11:06 UTC; "
        "the right (letter of authorisation) is suspended; nobody has approved the right (letter of authorisation)"
    )
    assert found.missing == "a renewal of LOA-7 and LOA-7 put in force again and the approval of LOA-7"


def test_a_suspended_right_gives_b_and_says_so() -> None:
    decision = judged(changed(RIGHT, suspended=True))
    assert (decision.level, decision.unauthorised) == (Level.B, False)
    assert decision.missing == ("assigned by us put in force again",)


def test_of_several_rights_the_one_nearest_to_a_is_told() -> None:
    word = changed(RIGHT, basis=Basis.CUSTOMER_WORD)
    ended = changed(LETTER, valid_until=NOW)
    both = changed(LETTER, valid_until=NOW, suspended=True, document="LOA-8")
    assert step(judged(word, both, ended)).missing == "a renewal of LOA-7"
    assert step(judged(word, both, ended, RIGHT)).record == RIGHT.label


def test_a_number_of_somebody_elses_customer_is_visible_as_such() -> None:
    found = step(judged(LETTER))
    assert found.finding == "Acme Ltd may use the number of Example Clinic: letter of authorisation"
    assert found.record == f"{ORIG} of Example Clinic (letter of authorisation LOA-7)"


# --- Unauthorised -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "level", "refusal", "substitute"),
    [
        (Unauthorised.DOWNGRADE, Level.B, None, None),
        (Unauthorised.REFUSE, Level.REFUSE, Refusal.UNAUTHORISED, None),
        (Unauthorised.SUBSTITUTE, Level.UNSIGNED, None, "12155551200"),
    ],
)
@pytest.mark.parametrize("rights", [(), (changed(RIGHT, customer="other"),)])
def test_an_unauthorised_caller_id_is_treated_as_set(
    said: Unauthorised, level: Level, refusal: Refusal | None, substitute: str | None, rights: tuple[NumberRight, ...]
) -> None:
    decision = judged(*rights, unauthorised=said, substitute="12155551200")
    assert (decision.level, decision.refusal, decision.substitute) == (level, refusal, substitute)
    assert decision.unauthorised
    assert decision.offence
    assert step(decision, "unauthorised").finding.endswith("by the settings")


@pytest.mark.parametrize(
    "changes",
    [
        {"basis": Basis.CUSTOMER_WORD},
        {"valid_until": NOW},
        {"valid_from": NOW + 1},
        {"suspended": True},
        {"basis": Basis.LETTER},
    ],
)
def test_a_number_with_any_record_is_not_unauthorised(changes: dict[str, Any]) -> None:
    decision = judged(changed(RIGHT, **changes), unauthorised=Unauthorised.REFUSE, require_approval=True)
    assert (decision.level, decision.unauthorised, decision.offence) == (Level.B, False, False)


@pytest.mark.parametrize("kind", CustomerKind)
@pytest.mark.parametrize("said", [None, True, False])
def test_whose_offences_count(kind: CustomerKind, said: bool | None) -> None:
    decision = judged(source=customer(kind=kind, rules=Overrides(offences=said)))
    assert decision.unauthorised
    expected = kind in {CustomerKind.END_USER, CustomerKind.CONTACT_CENTRE} if said is None else said
    assert decision.offence is expected


@pytest.mark.parametrize("number", [None, ORIG])
def test_without_another_number_nothing_is_substituted(number: str | None) -> None:
    decision = judged(unauthorised=Unauthorised.SUBSTITUTE, substitute=number)
    assert (decision.level, decision.substitute, decision.offence) == (Level.B, None, True)
    assert "by no other number" in step(decision, "unauthorised").finding


@pytest.mark.parametrize("state", [CustomerState.PENDING, CustomerState.VERIFIED])
@pytest.mark.parametrize("policy", [{"leave_alone": ("1",)}, {"sign_international": False}, {}])
def test_no_other_rule_spares_an_unauthorised_call_the_refusal(state: CustomerState, policy: dict[str, Any]) -> None:
    decision = judged(source=customer(state=state), unauthorised=Unauthorised.REFUSE, **policy)
    assert decision.refusal is Refusal.UNAUTHORISED


@pytest.mark.parametrize("action", Unauthorised)
@pytest.mark.parametrize(
    "more", [{}, {"substitutions": (MAIN,)}, {"withheld": (LISTED,)}, {"numbering": says(Withheld.INVALID)}]
)
def test_an_emergency_call_passes_all_of_it_untouched(action: Unauthorised, more: dict[str, Any]) -> None:
    decision = judged(emergency=True, unauthorised=action, substitute="12155551200", **more)
    assert decision.level in {Level.B, Level.UNSIGNED}
    assert (decision.refusal, decision.substitute, decision.offence) == (None, None, False)


# --- Substitution -----------------------------------------------------------------------------


def substituted(**changes: Any) -> str | None:
    """The number that a rule like `MAIN` puts in place."""
    arguments = {name: changes.pop(name) for name in ("orig", "route", "source", "now") if name in changes}
    return judged(RIGHT, substitutions=(replace(MAIN, **changes),), **arguments).substitute


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"customer": "other"}, False),
        ({"number": ORIG}, False),
        ({"callers": ("1215", "44")}, True),
        ({"callers": ("1216",)}, False),
        ({"routes": ("intl",)}, False),
        ({"routes": ("intl",), "route": Route("home")}, False),
        ({"routes": ("home", "intl"), "route": Route("intl")}, True),
        ({"valid_from": NOW}, True),
        ({"valid_from": NOW + 1}, False),
        ({"valid_until": NOW + 1}, True),
        ({"valid_until": NOW}, False),
        ({"window": TimeWindow()}, True),
        ({"window": TimeWindow(days=())}, False),
        ({"orig": UriIdentity("sip:a@b")}, False),
        ({"orig": TelephoneNumber("1001", is_e164=False)}, True),
        ({"source": GATEWAY}, False),
    ],
)
def test_a_rule_holds_for_its_customer_route_callers_and_time(changes: dict[str, Any], holds: bool) -> None:
    assert (substituted(**changes) is not None) == holds


def test_rules_are_asked_in_the_order_of_their_ids() -> None:
    second = replace(MAIN, id="a-first", number="12155551299")
    assert judged(substitutions=(MAIN, second)).substitute == "12155551299"


@pytest.mark.parametrize(
    ("window", "now", "is_in"),
    [
        # NOW is a Wednesday, 11:06 UTC
        (TimeWindow(), NOW, True),
        (TimeWindow(days=(2,)), NOW, True),
        (TimeWindow(days=(1, 3)), NOW, False),
        (TimeWindow(begins=666, ends=667), NOW, True),
        (TimeWindow(begins=667), NOW, False),
        (TimeWindow(ends=666), NOW, False),
        (TimeWindow(begins=366, ends=367, utc_offset=-300), NOW, True),
        (TimeWindow(days=(1,), utc_offset=-720), NOW, True),
        (TimeWindow(days=(3,), utc_offset=780), NOW, True),
        (TimeWindow(begins=1320, ends=360), NOW, False),
        (TimeWindow(days=(2,), begins=1320, ends=360), NOW + DAY / 2, True),
        (TimeWindow(days=(2,), begins=1320, ends=360), NOW + 18 * 3600, True),
        (TimeWindow(days=(3,), begins=1320, ends=360), NOW + 18 * 3600, False),
        (TimeWindow(days=(6,), begins=1320, ends=360), NOW + 4 * DAY + 18 * 3600, True),
        (TimeWindow(days=(2,), begins=0, ends=0), NOW, True),
    ],
)
def test_a_window_is_local_and_may_go_past_midnight(window: TimeWindow, now: float, is_in: bool) -> None:
    assert is_open(window, now) is is_in


def replaced(*rights: NumberRight, first: dict[str, Any] | None = None, **more: Any) -> Any:
    """The decision about the substitute `MAIN.number`, which these rights cover."""
    policy = {name: more.pop(name) for name in ("require_approval", "unauthorised", "substitute") if name in more}
    came = judged(**({"substitutions": (MAIN,)} if first is None else first), **policy)
    facts = PolicyFacts(TRUNK, rights, 8, substitutions=(replace(MAIN, number="12155551299"),), **more)
    return decide_substitute(came, CallFacts(CALLER, CALLED), facts, AttestationPolicy(**policy), NOW)


OURS = number_right("acme", "12155551200", "12155551299", Basis.ASSIGNED)


def test_the_level_is_that_of_the_substitute_and_the_trace_holds_both() -> None:
    decision = replaced(OURS)
    assert (decision.level, decision.substitute, decision.policy_version) == (Level.A, "12155551200", 8)
    assert (decision.unauthorised, decision.offence) == (False, False)
    told = [found.finding for found in decision.trace if found.rule == "substitution"]
    assert told == [
        "the call goes on with the caller ID 12155551200",
        f"12155551200 is the caller ID in the place of {ORIG}",
    ]
    assert decision.trace[-2].record == OURS.label


def test_a_substitute_that_is_not_the_customers_gets_b_and_no_second_one() -> None:
    unauthorised = {"unauthorised": Unauthorised.SUBSTITUTE, "substitute": "12155551200"}
    for action in ({}, unauthorised, {"unauthorised": Unauthorised.REFUSE}):
        decision = replaced(**action)
        assert (decision.level, decision.substitute, decision.refusal) == (Level.B, "12155551200", None)
        assert not decision.offence


def test_the_number_that_came_stays_an_offence_whatever_takes_its_place() -> None:
    decision = replaced(OURS, first={}, unauthorised=Unauthorised.SUBSTITUTE, substitute="12155551200")
    assert (decision.level, decision.unauthorised, decision.offence) == (Level.A, True, True)


def test_a_substitute_that_must_not_originate_is_refused_and_held_against_nobody() -> None:
    decision = replaced(OURS, withheld=(LISTED,))
    assert (decision.level, decision.refusal, decision.substitute) == (Level.REFUSE, Refusal.DO_NOT_ORIGINATE, None)
    assert not decision.unauthorised


@pytest.mark.parametrize("number", ["+12155551200", "", "1" * 16, "1215#", "\uff11"])
def test_a_number_that_is_not_canonical_takes_nobodys_place(number: str) -> None:
    with pytest.raises(ValueError, match="canonical"):
        Substitution("x", "acme", number)
    with pytest.raises(ValueError, match="canonical"):
        Overrides(substitute=number)


# --- Inheritance ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "mine", "trunk", "right", "by"),
    [
        (None, None, None, None, "the settings"),
        ("x", None, None, None, "route intl"),
        ("x", "x", None, None, "customer acme"),
        ("x", "x", "x", None, "trunk acme-main"),
        (None, None, "x", None, "trunk acme-main"),
        ("x", None, "x", "x", "right LOA-7"),
    ],
)
def test_the_most_specific_that_says_something_decides_and_is_named(
    route: str | None, mine: str | None, trunk: str | None, right: str | None, by: str
) -> None:
    """Pending customers' levels: C where a record says so, unsigned by the settings."""

    def rules(said: str | None) -> Overrides:
        return Overrides(pending=PendingLevel.C if said else None)

    source = replace(TRUNK, customer=replace(ACME, state=CustomerState.PENDING, rules=rules(mine)), rules=rules(trunk))
    decision = judged(changed(LETTER, rules=rules(right)), RIGHT, source=source, route=Route("intl", (), rules(route)))
    assert step(decision, "customer_verified").finding.endswith(f" by {by}")
    assert decision.level is (Level.UNSIGNED if by == "the settings" else Level.C)


def test_of_two_rights_the_narrowest_decides() -> None:
    wide = changed(OURS, rules=Overrides(sign=False))
    narrow = changed(LETTER, rules=Overrides(sign=True))
    assert step(judged(narrow, wide), "destination").finding == "such calls are signed by right LOA-7"
    assert judged(LETTER, wide).level is Level.UNSIGNED


@pytest.mark.parametrize("sign", [None, True, False])
def test_a_record_may_sign_what_the_settings_leave_alone(sign: bool | None) -> None:
    decision = judged(RIGHT, route=Route("x", (), Overrides(sign=sign)), leave_alone=(DEST[:4],))
    assert decision.level is (Level.A if sign else Level.UNSIGNED)
    assert step(decision, "destination").held is bool(sign)


def test_the_route_speaks_for_gateways_too() -> None:
    assert judged(source=GATEWAY, route=Route("x", (), Overrides(sign=False))).level is Level.UNSIGNED


@pytest.mark.parametrize("route", [None, *Attest])
@pytest.mark.parametrize("mine", [None, *Attest])
@pytest.mark.parametrize("trunk", [None, *Attest])
def test_the_lowest_ceiling_wins_wherever_it_stands(
    route: Attest | None, mine: Attest | None, trunk: Attest | None
) -> None:
    source = replace(TRUNK, customer=replace(ACME, ceiling=mine), rules=Overrides(ceiling=trunk))
    decision = judged(RIGHT, source=source, route=Route("intl", (), Overrides(ceiling=route)))
    lowest = max(ceiling.value for ceiling in (Attest.A, route, mine, trunk) if ceiling is not None)
    assert decision.level.value == lowest
    below = {
        name
        for name, ceiling in {"route intl": route, "customer acme": mine, "trunk acme-main": trunk}.items()
        if ceiling not in {None, Attest.A}
    }
    assert (
        set("".join(decision.missing).removeprefix("a higher attestation ceiling for ").split(" and ")) - {""} == below
    )


@pytest.mark.parametrize("changes", [{}, {"suspended": True}, {"valid_until": NOW}])
def test_a_ceiling_on_a_right_holds_even_if_the_right_does_not(changes: dict[str, Any]) -> None:
    capped = changed(LETTER, rules=Overrides(ceiling=Attest.C), **changes)
    decision = judged(RIGHT, capped)
    assert (decision.level, step(decision, "ceiling").record) == (Level.C, "right LOA-7")
    others = judged(RIGHT, changed(capped, customer="other"))
    assert others.level is Level.A
