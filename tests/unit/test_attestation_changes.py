"""A becomes B by itself, to the second, and is known beforehand."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from shaken_plugin.core.attestation import (
    AttestationPolicy,
    CallFacts,
    Level,
    changes_between,
    decide,
    facts_hold_until,
)
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Overrides, PolicyFacts, Substitution, TimeWindow, Unauthorised
from tests.builders import ORIG
from tests.conftest import NOW
from tests.records import changed, number_right
from tests.unit.test_attestation import CALLED, CALLER, TRUNK

DAY = 86_400
END = NOW + 10 * DAY
LETTER = number_right("acme", ORIG, ORIG, Basis.LETTER, "LOA-7", valid_until=END)
CALL = CallFacts(CALLER, CALLED)


def facts(*rights: object, **more: object) -> PolicyFacts:
    return PolicyFacts(TRUNK, rights, 1, **more)  # type: ignore[arg-type]  # what each test gives


def changes(known: PolicyFacts, until: float = NOW + 30 * DAY) -> list[tuple[float, Level, str | None]]:
    found = changes_between(CALL, known, AttestationPolicy(unauthorised=Unauthorised.REFUSE), NOW, until)
    return [(moment, decision.level, decision.substitute) for moment, decision in found]


@pytest.mark.parametrize(("offset", "level"), [(-1, Level.A), (-0.001, Level.A), (0, Level.B), (1, Level.B)])
def test_the_letter_ends_to_the_second(offset: float, level: Level) -> None:
    assert decide(CALL, facts(LETTER), AttestationPolicy(), END + offset).level is level


def test_what_will_change_is_known_beforehand() -> None:
    assert changes(facts(LETTER)) == [(END, Level.B, None)]
    assert changes(facts(LETTER), END) == [(END, Level.B, None)]
    assert changes(facts(LETTER), END - 1) == []
    assert changes(facts(changed(LETTER, valid_until=NOW))) == []


def test_facts_hold_until_the_next_of_their_dates_and_with_hours_for_a_minute_at_most() -> None:
    rule = Substitution("s", "acme", "12155551200", valid_from=END + DAY)
    assert facts_hold_until(facts(), NOW) == inf
    assert facts_hold_until(facts(LETTER, substitutions=(rule,)), NOW) == END
    assert facts_hold_until(facts(LETTER, substitutions=(rule,)), END) == END + DAY
    assert facts_hold_until(facts(LETTER, substitutions=(rule,)), END + DAY) == inf
    minute = NOW // 60 * 60 + 60
    with_hours = facts(LETTER, substitutions=(replace(rule, window=TimeWindow()),))
    assert [facts_hold_until(with_hours, now) for now in (NOW, minute - 1, minute)] == [minute, minute, minute + 60]


def test_a_renewal_that_lies_ready_leaves_nothing_to_change() -> None:
    renewed = changed(LETTER, valid_from=END, valid_until=None)
    assert changes(facts(LETTER, renewed)) == []
    gap = changed(renewed, valid_from=END + DAY)
    assert changes(facts(LETTER, gap)) == [(END, Level.B, None), (END + DAY, Level.A, None)]


def test_other_peoples_dates_and_those_under_a_ceiling_change_nothing() -> None:
    assert changes(facts(changed(LETTER, customer="other"), changed(LETTER, valid_until=None))) == []
    assert changes(facts(changed(LETTER, rules=Overrides(ceiling=Attest.B)))) == []


def test_a_substitution_that_begins_and_ends_is_a_change() -> None:
    rule = Substitution("s", "acme", "12155551200", valid_from=END, valid_until=END + DAY)
    permanent = changed(LETTER, valid_until=None)
    found = changes(
        facts(
            permanent, substitutions=(rule, replace(rule, id="t", valid_until=None, valid_from=NOW - 1, customer="x"))
        )
    )
    assert found == [(END, Level.UNSIGNED, "12155551200"), (END + DAY, Level.A, None)]
