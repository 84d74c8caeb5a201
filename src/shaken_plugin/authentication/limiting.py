"""Calls counted against the limits of their customer, after everything else about them is decided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from shaken_plugin.authentication.model import Fresh, Signing, drawn
from shaken_plugin.core.attestation import Decision, Level, Refusal, Step
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.limits import Bound, Outcome, Request, Verdict, bounds, call_key, dialog_of, key, replaced_keys
from shaken_plugin.core.records import Limits, Rate, Trunk
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.errors import SkipReason, StoreUnavailable
from shaken_plugin.ports import CallLimiter

RULE: Final = "limits"
"""The name of this step in a trace."""


@dataclass(frozen=True, slots=True)
class Limiter:
    """Has calls counted, and says what becomes of those that are over a limit.

    ``enforce`` refuses them, else they are marked and go on. ``refuse_uncounted`` refuses calls of
    customers with limits while nobody counts.
    """

    counts: CallLimiter
    plan: DialPlan
    enforce: bool = True
    refuse_uncounted: bool = False

    def limited(self, base: Signing, message: CallMessage, random: Fresh, *, slot: bool) -> Signing:
        """The outcome for a call that would go on; without limits nobody is asked.

        Args:
            base: what is decided; it is filled in.
            message: the call.
            random: names this INVITE, unless it was counted before.
            slot: whether the switch will tell its end; and without a leg, when it leaves.
        """
        decision = base.decision
        if decision is None or base.emergency or not isinstance(decision.source, Trunk):
            return base
        customer = decision.source.customer
        found = decision.once(_bounds)
        if not found:
            return base
        if not slot and decision.once(_bounds_concurrency):
            base.slotless = True
        to, level = message.request_party(self.plan), decision.level.attest
        replaces = tuple(replaced_keys(customer.id, message.replaces)) if message.replaces else ()
        request = Request(
            customer.id,
            _call(customer.id, message, random),
            found,
            level.value if level else "",
            slot,
            (*replaces, message.slot) if message.slot else replaces,
            key(str(to)) if to else "",
            bool(message.leg),
        )
        try:
            verdict = self.counts.admit(request)
        except StoreUnavailable as exc:
            base.uncounted = str(exc)
            if self.refuse_uncounted:
                base.skip, base.refuse, base.detail = SkipReason.LIMITS_UNAVAILABLE, True, str(exc)
            return base
        traced = base.decision = decision.once(_traced, verdict)
        if verdict.outcome.passes:
            base.counted = request.call
            if slot and decision.once(_bounds_concurrency):
                base.slot = request.call
            return base
        base.over_limit = f"{verdict.outcome.value}{verdict.scope and ' '}{verdict.scope}"
        if not self.enforce:
            return base
        if base.substitute is not None:
            base.orig, base.substitute, base.substituted_for = base.substituted_for, None, None
        base.decision = replace(traced, level=Level.REFUSE, refusal=Refusal.OVER_LIMIT, substitute=None)
        base.skip, base.refuse = SkipReason.POLICY_REFUSED, True
        return base


def _bounds(decision: Decision) -> tuple[Bound, ...]:
    return bounds(decision.source.customer.limits, decision.level.attest) if isinstance(decision.source, Trunk) else ()


def _bounds_concurrency(decision: Decision) -> bool:
    return any(bound.concurrent for bound in _bounds(decision))


def _traced(decision: Decision, verdict: Verdict) -> Decision:
    assert isinstance(decision.source, Trunk)
    customer = decision.source.customer
    step = Step(RULE, verdict.outcome.passes, f"customer {customer.id}", *_said(verdict, customer.limits))
    return replace(decision, trace=(*decision.trace, step))


def _call(customer: str, message: CallMessage, random: Fresh) -> str:
    """The key of a call, the same each time that one INVITE, or a leg's call, is looked at."""
    if message.leg:
        return key(customer, message.leg)
    new = call_key(customer, message.call_id, message.from_tag, drawn(random))
    return message.counted if dialog_of(message.counted) == dialog_of(new) else new


_PASSES: Final = {
    Outcome.ADMITTED: "within the limits",
    Outcome.KNOWN: "within the limits, and counted before",
    Outcome.REPLACES: "takes the place of another call, with its slot",
}


def _said(verdict: Verdict, limits: Limits) -> tuple[str, str | None]:
    """The finding, and what is missing."""
    if verdict.outcome.passes:
        return _PASSES[verdict.outcome], None
    if verdict.outcome is Outcome.REPEATED:
        return "the same call has come too often", "a Call-ID of its own for each call"
    rates = {own.value: rate for own, rate in limits.by_level}
    rate = rates.get(verdict.scope, Rate()) if verdict.scope else limits.total
    of = f" with level {verdict.scope}" if verdict.scope else ""
    if verdict.outcome is Outcome.RATE:
        return f"over the limit of {rate.calls_per_second:g} calls per second{of}", "fewer calls, or a higher limit"
    return f"over the limit of {rate.concurrent} calls at a time{of}", "a call that ends, or a higher limit"
