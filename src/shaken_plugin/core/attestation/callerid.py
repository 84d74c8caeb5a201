"""The rules about the caller ID: may it originate calls, whose is it, and is it replaced?"""

from __future__ import annotations

from typing import Final

from shaken_plugin.core.attestation.decision import Case, Finding, InvalidNumbers, Level, Refusal
from shaken_plugin.core.attestation.inheritance import chosen
from shaken_plugin.core.attestation.rights import DOCUMENTED, is_documented, lacks
from shaken_plugin.core.attestation.substitution import substitution_for
from shaken_plugin.core.records import BASIS_TEXT, CustomerKind, Trunk, Unauthorised, Withheld
from shaken_plugin.core.telephone import TelephoneNumber

_WITHHELD: Final = {
    Withheld.INVALID: "it is not a valid number",
    Withheld.UNALLOCATED: "it is not allocated",
    Withheld.UNUSED: "it is not in use",
    Withheld.INBOUND_ONLY: "it is for inbound calls only",
}

COUNTS: Final = frozenset({CustomerKind.END_USER, CustomerKind.CONTACT_CENTRE})
"""Kinds of customers whose offences count unless a record says otherwise: the others pass on calls of their own
customers, whom they have to deal with first."""


def do_not_originate_rule(case: Case) -> Finding:
    """Whether the do-not-originate list or the numbering plan speaks against it."""
    finding = listed_rule(case)
    policy, number = case.policy, case.call.orig
    if not finding.held or policy.numbering is None or policy.invalid_numbers is InvalidNumbers.IGNORE:
        return finding
    # What has no country is a service number, or an extension: no numbering plan knows it.
    if not isinstance(number, TelephoneNumber) or not number.is_e164:
        return finding
    # The plan's metadata lags behind what is allocated, and is slow to ask: an entry, or a documented right to the
    # number, knows better.
    for entry in case.facts.withheld:
        if entry.reason is Withheld.ALLOCATED and not entry.suspended:
            return Finding(True, "an entry says that the caller ID is allocated", f"do-not-originate {entry.id}")
    for right in case.facts.rights:
        if is_documented(right.right, case.now):
            # The trace may reach this customer's support desk: another's right is not shown.
            shown = right.label if right in case.own else None
            text = "the caller ID is on no do-not-originate list, and there is a documented right to it"
            return finding._replace(finding=text, record=finding.record or shown)
    reason = policy.numbering(number.digits)
    if reason is None:
        return finding._replace(finding="the caller ID is valid, and on no do-not-originate list")
    level = Level.REFUSE if policy.invalid_numbers is InvalidNumbers.REFUSE else Level.B
    return _withheld(case, reason, level, None, "a valid caller ID, or an entry that says that this one is allocated")


def listed_rule(case: Case) -> Finding:
    """Whether the list alone speaks against it: a From may hold an account, which no numbering plan knows."""
    if not isinstance(case.call.orig, TelephoneNumber):
        return Finding(True, "the caller is not a telephone number")
    seen = None
    for entry in case.facts.withheld:
        if entry.suspended:
            seen = f"do-not-originate {entry.id}, suspended"
        elif entry.reason is Withheld.ALLOCATED:
            seen = f"do-not-originate {entry.id}"
        else:
            missing = "another caller ID: this one is on the do-not-originate list"
            return _withheld(case, entry.reason, Level.REFUSE, f"do-not-originate {entry.id}", missing)
    return Finding(True, "the caller ID is on no do-not-originate list", seen)


def _withheld(case: Case, reason: Withheld, level: Level, record: str | None, missing: str) -> Finding:
    refused = level is Level.REFUSE
    return Finding(
        False,
        f"the caller ID{case.beside and f' in {case.beside}'} must not originate calls: {_WITHHELD[reason]}",
        record,
        level,
        missing,
        settled=refused,
        refusal=Refusal.DO_NOT_ORIGINATE if refused else None,
        unauthorised=case.replaced is None,
        offence=case.replaced is None and _counts(case),
    )


def _counts(case: Case) -> bool:
    """Whether an unauthorised caller ID is an offence of the customer."""
    if not isinstance(case.facts.source, Trunk):
        return False
    said, _ = chosen(case.scopes, "offences")
    return case.customer.kind in COUNTS if said is None else bool(said)


def number_rule(case: Case) -> Finding:
    """Whether there is a number at all."""
    if not isinstance(case.call.orig, TelephoneNumber):
        return Finding(
            False,
            "the caller is not a telephone number",
            at_most=Level.B,
            missing="a telephone number as caller ID",
            settled=True,
        )
    return Finding(True, "the caller ID is a telephone number")


def substitution_rule(case: Case) -> Finding:
    """Whether an explicit rule puts another in its place."""
    if case.replaced is not None:
        return Finding(True, f"{case.call.orig} is the caller ID in the place of {case.replaced}")
    rule = None if case.call.emergency else substitution_for(case)
    if rule is None:
        return Finding(True, "no rule gives the call another caller ID")
    text = f"the call goes on with the caller ID {rule.number}"
    return _substituted(text, f"substitution {rule.id}", rule.number)


def _substituted(text: str, record: str, number: str) -> Finding:
    # Unsigned until the other number is decided on: whoever forgets to ask about it signs nothing.
    return Finding(False, text, record, Level.UNSIGNED, settled=True, substitute=number)


def right_rule(case: Case) -> Finding:
    """Whether the customer has a documented right to it that holds now."""
    name = case.customer.name
    if not case.own:
        # The other customer is not named: the trace may reach this customer's support desk.
        finding = "the number belongs to another customer" if case.facts.rights else "nobody vouched for the number"
        return Finding(False, finding, None, Level.B, f"a record that {case.customer.id} may use {case.call.orig}")
    worth = [(lacks(right.right, case.now, require_approval=case.policy.require_approval), right) for right in case.own]
    # The one that lacks least; a document that has ended is nearer to A than somebody's word.
    found, best = min(worth, key=lambda pair: (bool(pair[0]) and pair[1].right.basis not in DOCUMENTED, len(pair[0])))
    if found:
        finding = "; ".join(lack.finding for lack in found)
        return Finding(False, finding, best.label, Level.B, " and ".join(lack.missing for lack in found))
    number = "the number" if best.right.owner is None else f"the number of {best.right.owner}"
    return Finding(True, f"{name} may use {number}: {BASIS_TEXT[best.right.basis]}", best.label)


def unauthorised_rule(case: Case) -> Finding:
    """What happens where the customer has no record of it at all."""
    if case.own:
        return Finding(True, "the customer has a record of the number")
    if case.call.emergency:
        return Finding(False, "nothing is held against an emergency call", at_most=Level.B)
    if case.replaced is not None:
        return Finding(False, "the customer has no record of the number that takes its place", at_most=Level.B)
    return _against(case)._replace(unauthorised=True, offence=_counts(case))


def _against(case: Case) -> Finding:
    action, by = chosen(case.scopes, "unauthorised")
    what = "the caller ID is unauthorised"
    if action is Unauthorised.REFUSE:
        refused = Finding(False, f"{what}: refused by {by}", by, Level.REFUSE)
        return refused._replace(settled=True, refusal=Refusal.UNAUTHORISED)
    if action is Unauthorised.DOWNGRADE:
        return Finding(False, f"{what}: B at most by {by}", by, Level.B)
    number, named_by = chosen(case.scopes, "substitute")
    if number is None or TelephoneNumber(number) == case.call.orig:
        return Finding(False, f"{what}: substituted by {by}, but by no other number", by, Level.B)
    text = f"{what}: the call goes on with the caller ID {number} by {named_by}"
    return _substituted(text, named_by, number)
