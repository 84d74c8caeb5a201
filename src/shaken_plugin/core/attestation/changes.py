"""When will a decision become another by itself?"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from shaken_plugin.core.attestation.decision import AttestationPolicy, CallFacts, Decision
from shaken_plugin.core.attestation.rules import decide
from shaken_plugin.core.records import PolicyFacts, Right, Substitution


def changes_between(
    call: CallFacts, facts: PolicyFacts, policy: AttestationPolicy, now: float, until: float
) -> Iterator[tuple[float, Decision]]:
    """The moments behind ``now``, up to and including ``until``, at which the same call is decided otherwise.

    Only the dates of records are looked at; the hours of a substitution's window come and go every day.

    Args:
        call: the call.
        facts: what the store knows of it now.
        policy: the operator's choices.
        now: POSIX seconds.
        until: likewise.

    Returns:
        Each moment, and the decision from then on: another level, substitute or refusal than before. Of one
        with a substitute the level is not final, see `decide`.
    """
    before = _outcome(decide(call, facts, policy, now))
    for moment in sorted(moment for moment in _dates(facts) if now < moment <= until):
        decision = decide(call, facts, policy, moment)
        if _outcome(decision) != before:
            yield moment, decision
            before = _outcome(decision)


def facts_hold_until(facts: PolicyFacts, now: float) -> float:
    """The next moment behind ``now`` at which a rule may find something else in the same facts; POSIX seconds.

    Args:
        facts: what the store knows.
        now: POSIX seconds.

    Returns:
        When a record begins or ends; with hours in any, the next full minute at the latest; infinity for never.
    """
    moments = [moment for moment in _dates(facts) if moment > now]
    if any(rule.window is not None for rule in facts.substitutions):
        moments.append((now // 60 + 1) * 60)
    return min(moments, default=inf)


def _outcome(decision: Decision) -> tuple[object, ...]:
    return decision.level, decision.substitute, decision.refusal


def _dates(facts: PolicyFacts) -> set[float]:
    dated: tuple[Right | Substitution, ...] = (*(right.right for right in facts.rights), *facts.substitutions)
    return {moment for record in dated for moment in (record.valid_from, record.valid_until) if moment is not None}
