"""The rules, in order; see the package."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from shaken_plugin.core.attestation.callerid import (
    do_not_originate_rule,
    listed_rule,
    number_rule,
    right_rule,
    substitution_rule,
    unauthorised_rule,
)
from shaken_plugin.core.attestation.decision import AttestationPolicy, CallFacts, Case, Decision, Level, Rule, judge
from shaken_plugin.core.attestation.source import (
    ceiling_rule,
    customer_active_rule,
    customer_verified_rule,
    destination_rule,
    gateway_rule,
    kind_rule,
    source_rule,
)
from shaken_plugin.core.records import PolicyFacts
from shaken_plugin.core.telephone import TelephoneNumber

RULES: Final = (
    Rule(
        "do_not_originate",
        "May the caller ID originate calls?",
        do_not_originate_rule,
        "refused, whoever calls; a number that only the numbering plan does not know as `signing.invalid_numbers` says",
        "the do-not-originate list; the numbering plans' metadata, over which a documented right in force or an "
        "entry `allocated` wins",
        "another caller ID, or an entry that says that this one is allocated",
    ),
    Rule(
        "source",
        "Did the call come over a trunk or gateway we know?",
        source_rule,
        "`signing.unknown_source`: unsigned or refused; ends the list",
        "trunk, gateway",
        "a trunk or gateway with this source address or user",
    ),
    Rule(
        "customer_active",
        "Is the customer neither suspended nor terminated?",
        customer_active_rule,
        "refused",
        "customer; its standing in the runtime state",
        "the customer reinstated",
    ),
    Rule(
        "customer_verified",
        "Is know-your-customer complete?",
        customer_verified_rule,
        "`pending` of the nearest record, else `signing.pending_customer`: B, C, unsigned or refused; never A",
        "customer; `pending` of right, trunk, customer, route",
        "a complete know-your-customer file",
    ),
    Rule(
        "kind",
        "May a customer of this kind get A?",
        kind_rule,
        "`gateway`: C at most; `wholesale` without `carrier.form_499` or `carrier.rmd`: B at most",
        "customer",
        "the Form 499 Filer ID, the number in the Robocall Mitigation Database, another kind",
    ),
    Rule(
        "destination",
        "Are such calls signed?",
        destination_rule,
        "unsigned",
        "`sign` of right, trunk, customer, route, else `signing.leave_alone` and `signing.sign_international`",
    ),
    Rule(
        "gateway",
        "Did it enter over a customer's trunk, not at a gateway?",
        gateway_rule,
        "C; ends the list",
        "gateway",
        "a customer's trunk",
    ),
    Rule(
        "ceiling",
        "May these calls get A?",
        ceiling_rule,
        "the lowest ceiling of all",
        "`ceiling` of route, customer, trunk, and of every right of the customer to the number",
        "a higher ceiling for each record that has one below A",
    ),
    Rule(
        "number",
        "Is the caller ID a telephone number?",
        number_rule,
        "B at most; ends the list",
        missing="a telephone number as caller ID",
    ),
    Rule(
        "substitution",
        "Does the call keep its caller ID?",
        substitution_rule,
        "all rules are asked once more, about the number that takes its place",
        "substitution rules of the customer",
    ),
    Rule(
        "right",
        "Has the customer a documented right to it that holds now? Else B.",
        right_rule,
        "B at most",
        "the customer's rights to the number",
        "a record, a documented one, its renewal, its beginning, its suspension lifted, its approval",
    ),
    Rule(
        "unauthorised",
        "Has the customer any record of it at all?",
        unauthorised_rule,
        "`unauthorised` of the nearest record, else `signing.unauthorised`: B at most, refused, or substituted; an "
        "offence where `offences` says so, by default of end users and contact centres",
        "`unauthorised`, `substitute`, `offences` of trunk, customer, route",
    ),
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
        The decision. An emergency call is never refused: it goes on unsigned instead. Where it names a
        ``substitute`` the level is not final (unsigned): ask the store about that number, then `decide_substitute`.
    """
    return judge(RULES, Level.A, Case(call, facts, policy, now))


def decide_beside(
    call: CallFacts, header: str, facts: PolicyFacts, policy: AttestationPolicy, now: float
) -> Decision | None:
    """The refusal of a call because of a number that it shows beside the caller that is decided on.

    Args:
        call: the call with that number.
        header: where the number stands.
        facts: what the store knows of its source and of that number.
        policy: as for `decide`.
        now: likewise.

    Returns:
        None where the number is on no do-not-originate list.
    """
    decision = judge((RULES[0]._replace(ask=listed_rule),), Level.A, Case(call, facts, policy, now, beside=header))
    return decision if decision.level is Level.REFUSE else None


def decide_substitute(
    first: Decision, call: CallFacts, facts: PolicyFacts, policy: AttestationPolicy, now: float
) -> Decision:
    """The decision on a call with the number that took the place of its caller ID. None takes that one's place.

    Args:
        first: the decision that named the substitute.
        call: the call as it came.
        facts: what the store knows of its source and of the substitute.
        policy: as for `decide`.
        now: likewise.

    Returns:
        Level and refusal of the substitute; what is held against the number that came; both traces.
    """
    assert first.substitute is not None
    changed = replace(call, orig=TelephoneNumber(first.substitute))
    again = judge(RULES, Level.A, Case(changed, facts, policy, now, replaced=call.orig))
    return replace(
        again,
        trace=(*first.trace, *again.trace),
        unauthorised=first.unauthorised,
        offence=first.offence,
        substitute=None if again.level is Level.REFUSE else first.substitute,
    )
