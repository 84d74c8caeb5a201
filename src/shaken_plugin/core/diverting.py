"""Calls that we send on: may we sign that they were diverted, and from which PASSporT (RFC 8946)?

Whoever sends a call on keeps the Identity headers it came with and adds a ``div`` PASSporT, which
says "this call was for ``div``, I send it on to ``dest``". Two things make it ours to sign: the
records say that a customer of ours may use the number in ``div`` (`decide_diversion`), and the call
carries a PASSporT that was for that number (`diverted`). How a chain of them is verified stands in
`core.verification.diversion`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from shaken_plugin.core.attestation import (
    AttestationPolicy,
    CallFacts,
    Case,
    Decision,
    Finding,
    Level,
    Refusal,
    Rule,
    judge,
    lacks,
    unsigned_destination,
)
from shaken_plugin.core.claims import BASE_CLAIMS, read_dest, read_div, read_iat, read_orig
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.core.records import BASIS_TEXT, Customer, CustomerState, NumberRight, PolicyFacts, Trunk
from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.core.verification import MAX_IDENTITIES
from shaken_plugin.core.verification.types import PASSPORT_TYPES
from shaken_plugin.errors import VerificationFailure

MAX_RINGING: Final = 300
"""Seconds for which a call may have rung before it is sent on; a proxy gives up after little more
than three minutes (timer C, RFC 3261 §16.6). An older PASSporT is not one of this call, and a
fresh div must not carry it on."""

# --- May we? ----------------------------------------------------------------------------------


def _caller_active(case: Case) -> Finding:
    # Sending a call on must not spare a suspended customer the refusal.
    source = case.facts.source
    if isinstance(source, Trunk) and source.customer.state in _BARRED:
        return Finding(
            False,
            f"the call comes from {source.customer.name}, who is {source.customer.state.value}",
            f"customer {source.customer.id}",
            Level.REFUSE,
            "the customer reinstated",
            settled=True,
            refusal=Refusal(source.customer.state.value),
        )
    return Finding(True, "the call comes from no customer who is suspended or terminated")


_BARRED: Final = frozenset({CustomerState.SUSPENDED, CustomerState.TERMINATED})


def diverting_holder(
    facts: PolicyFacts, now: float, *, require_approval: bool = False
) -> tuple[Customer, NumberRight] | None:
    """The verified customer who may use the diverting number now, and the right; None where there is none.

    Args:
        facts: what the store knows of the diverting number.
        now: POSIX seconds.
        require_approval: whether somebody must have approved the right.
    """
    for right in facts.rights:
        holder = facts.holder(right)
        granted = not lacks(right.right, now, require_approval=require_approval)
        if holder is not None and granted and holder.state is CustomerState.VERIFIED:
            return holder, right
    return None


def _shown(case: Case, right: NumberRight) -> bool:
    """Whether the trace may name it: that of a customer's call may reach its support desk, another's is not shown."""
    return not isinstance(case.facts.source, Trunk) or right in case.own


def _diverting_right(case: Case) -> Finding:
    # RFC 8946 §3: the number in div is one "within the scope of the credential" of the signer; a
    # certificate with an SPC covers any, so the records must say whose it is.
    granted = diverting_holder(case.facts, case.now, require_approval=case.policy.require_approval)
    if granted is not None:
        holder, right = granted
        if not _shown(case, right):
            return Finding(True, "another customer may use the diverting number")
        return Finding(
            True, f"{holder.name} may use the diverting number: {BASIS_TEXT[right.right.basis]}", right.label
        )
    shown = [right for right in case.facts.rights if _shown(case, right)]
    if not shown:
        belongs = "the diverting number belongs to another customer"
        finding, record = belongs if case.facts.rights else "nobody vouched for the diverting number", None
        missing = f"a record of the customer who may use {case.call.orig}"
    else:
        right = shown[0]
        record = right.label
        found = lacks(right.right, case.now, require_approval=case.policy.require_approval)
        if found:
            finding, missing = "; ".join(lack.finding for lack in found), " and ".join(lack.missing for lack in found)
        else:
            finding = f"{right.right.customer}, whose number it is, is not a verified customer now"
            missing = "that customer verified and not suspended"
    return Finding(False, finding, record, Level.UNSIGNED, missing, settled=True)


RIGHT: Final = "diverting_right"
"""Name of the rule that asks for it."""

DIVERSION_RULES: Final = (
    Rule("caller_active", "Is the caller, where it is a customer, neither suspended nor terminated?", _caller_active),
    Rule("destination", "Are calls to this destination signed?", unsigned_destination),
    Rule(RIGHT, "Has a verified customer a documented right to the diverting number that holds now?", _diverting_right),
)
"""The rule set, in order. Where the call came from gives no right, and needs none."""


def decide_diversion(
    diverting: TelephoneNumber,
    dest: Party,
    facts: PolicyFacts,
    policy: AttestationPolicy,
    now: float,
    *,
    emergency: bool = False,
) -> Decision:
    """Whether we sign that a call was diverted, and why.

    Args:
        diverting: the number that the call was for.
        dest: whom it goes to now.
        facts: what the store knows of the call's source and of the diverting number.
        policy: the operator's choices.
        now: POSIX seconds.
        emergency: whether it goes to, or comes back from, an emergency service; never refused then.

    Returns:
        The decision, of level DIV, UNSIGNED or REFUSE.
    """
    return judge(DIVERSION_RULES, Level.DIV, Case(CallFacts(diverting, dest, emergency), facts, policy, now))


# --- From which PASSporT? ---------------------------------------------------------------------


class Link(NamedTuple):
    """What a PASSporT of the call says. ``div`` is None but in those that divert."""

    orig: Party
    dest: frozenset[Party]
    iat: int
    div: Party | None
    claims: Mapping[str, Any]


def links(identity: Sequence[str]) -> tuple[Link, ...]:
    """What the Identity headers of a call say, as far as they can be read. No signature is checked.

    Those in compact form say nothing without the message; types that verifiers ignore are left out.

    Args:
        identity: header values; no more than verifiers look at are read.
    """
    return tuple(_links(identity[:MAX_IDENTITIES]))


def _links(identity: Iterable[str]) -> Iterator[Link]:
    for value in identity:
        try:
            passport = Passport.parse(IdentityHeader.parse(value).digest)
            claims = passport.claims
            if passport.ppt not in PASSPORT_TYPES or not claims.keys() >= {*BASE_CLAIMS}:
                continue
            div = read_div(claims) if "div" in claims else None
            yield Link(read_orig(claims), read_dest(claims), read_iat(claims), div, claims)
        except VerificationFailure:
            continue


def diverted(found: Sequence[Link], orig: Party | None, diverting: Party, now: float, freshness: float) -> Link | None:
    """The PASSporT that a ``div`` of ours goes on from, None where there is none.

    Args:
        found: see `links`.
        orig: the caller in the message, None where it names nobody: RFC 8946 §4.2 wants one
            ``orig`` all along the chain.
        diverting: the number that must be the PASSporT's ``dest`` (RFC 8946 §4.2).
        now: POSIX seconds.
        freshness: seconds for which a PASSporT is fresh.
    """
    fitting = [
        link
        for link in found
        if link.orig == orig and diverting in link.dest and -freshness <= now - link.iat <= freshness + MAX_RINGING
    ]
    return max(fitting, key=lambda link: link.iat, default=None)


def is_signed(found: Iterable[Link], orig: Party | None, diverting: Party, dest: Party) -> bool:
    """Whether a div for this very diversion is there already; RFC 8946 §4.1: one for each."""
    return any(link.orig == orig and link.div == diverting and dest in link.dest for link in found)
