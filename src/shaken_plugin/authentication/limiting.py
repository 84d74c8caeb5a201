"""Calls counted against the limits of their customer, after everything else about them is decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from shaken_plugin.authentication.model import Fresh, Signing, drawn
from shaken_plugin.core.attestation import Decision, Level, Refusal, Step
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.limits import Bound, Outcome, Request, Verdict, bounds, call_key, dialog_of, key, replaced_keys
from shaken_plugin.core.records import Limits, Rate, Trunk
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.errors import SkipReason, StoreUnavailable
from shaken_plugin.ports import CallLimiter

_ADMITTED, _UNFOLLOWED = Verdict(Outcome.ADMITTED), Verdict(Outcome.UNFOLLOWED)

Follow = Callable[[str], bool]
"""Of a switch that tells the end of calls: whether it will tell that of the one at hand, whose slot has this key. What
it was given before for the same INVITE holds no more then."""

_About = tuple[str, tuple[Bound, ...], bool, str]

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

    def limited(
        self, base: Signing, message: CallMessage, random: Fresh, *, follow: Follow | None, asked: Asked | None = None
    ) -> Signing:
        """The outcome for a call that would go on; without limits nobody is asked.

        Args:
            base: what is decided; it is filled in.
            message: the call.
            random: names this INVITE, unless it was counted before.
            follow: of a switch that tells ends; and of a call without a leg, when it leaves.
            asked: what `ask` found, where it was asked already.
        """
        decision = base.decision
        if decision is None or base.emergency:
            return base
        if asked is not None and asked.about != decision.once(_bounds):
            # The records have changed since: other limits are in force, or it is another customer's.
            if asked.slot and asked.slot != message.counted:  # else the call has it from before, and keeps it
                self.counts.ended(asked.slot)
            asked = None
        if asked is None and (asked := self.ask(decision, message, random, follow=follow)) is None:
            return base
        base.slotless = asked.slotless
        if asked.verdict is None:
            base.uncounted = asked.trouble
            if self.refuse_uncounted:
                base.skip, base.refuse, base.detail = SkipReason.LIMITS_UNAVAILABLE, True, asked.trouble
            return base
        traced = base.decision = asked.traced(decision)
        outcome, scope, _ = asked.verdict
        if outcome.passes:
            base.counted, base.slot = asked.call, asked.slot
            return base
        base.over_limit = f"{outcome.value}{scope and ' '}{scope}"
        if not self.enforce:
            return base
        if base.substitute is not None:
            base.orig, base.substitute, base.substituted_for = base.substituted_for, None, None
        base.decision = replace(traced, level=Level.REFUSE, refusal=Refusal.OVER_LIMIT, substitute=None)
        base.skip, base.refuse = SkipReason.POLICY_REFUSED, True
        return base

    def ask(self, decision: Decision, message: CallMessage, random: Fresh, *, follow: Follow | None) -> Asked | None:
        """Have a call counted; None where its customer has no limits, or it is of none. The arguments as above.

        Whether its end will be told is asked here and not later: what is refused for that is recorded so, too.
        """
        customer, found, concurrent, level = about = decision.once(_bounds)
        if not found:
            return None
        # Then it is certain that nobody knows of this call yet, and of none whose place it may take. Of a REFER it may
        # come: the call before it keeps its slot, and below half of the bounds nobody misses it.
        is_new = not (message.leg or message.counted or message.slot or message.replaces)
        slot = concurrent and follow is not None
        if slot and is_new and (name := self.counts.ahead(customer, found, level)):
            call = call_key(customer, message.call_id, message.from_tag, name)
            return self._followed(Asked(_ADMITTED, call, call, False, about), message, follow)
        to, leg = message.request_party(self.plan), message.leg
        replaces = tuple(replaced_keys(customer, message.replaces)) if message.replaces else ()
        if message.slot:
            replaces = (*replaces, message.slot)
        call = key(customer, leg) if leg else _call(customer, message, random)
        told = key(str(to)) if to else ""
        request = Request(customer, call, found, level, follow is not None, replaces, told, leg != "")
        try:
            verdict = self.counts.admit(request)
        except StoreUnavailable as exc:
            return Asked(None, call, "", concurrent and not slot, about, str(exc))
        asked = Asked(verdict, call, call if slot else "", concurrent and not slot, about)
        return self._followed(asked, message, follow) if verdict.outcome.passes else asked

    def _followed(self, asked: Asked, message: CallMessage, follow: Follow | None) -> Asked:
        """The same of a call that goes on, unless it has a new slot and nobody would tell its end."""
        slot = asked.slot
        if follow is None or not slot or slot == message.counted or follow(slot):
            return asked
        self.counts.ended(slot)
        return asked._replace(verdict=_UNFOLLOWED, slot="")


class Asked(NamedTuple):
    """What was said to a call whose customer has limits: ``verdict``, or the ``trouble`` why there is none.

    ``call`` is its key, ``slot`` the same where its end is to be told; ``slotless``: it would be, but nobody will.
    ``about``: the customer, the limits and the level that it was asked for.
    """

    verdict: Verdict | None
    call: str
    slot: str
    slotless: bool
    about: _About
    trouble: str = ""

    @property
    def is_usual(self) -> bool:
        """Whether it goes on, and nothing more is to be said."""
        return self.verdict is not None and self.verdict.outcome.passes and not self.slotless

    def traced(self, decision: Decision) -> Decision:
        """The decision with this as its last step; the same for all calls of which the same is said."""
        return decision.once(_traced, self.verdict)


def _bounds(decision: Decision) -> _About:
    """Whose call it is, the bounds in force for it, whether any is on concurrent calls, and its level."""
    if not isinstance(decision.source, Trunk):
        return "", (), False, ""
    customer, level = decision.source.customer, decision.level.attest
    found = bounds(customer.limits, level)
    return customer.id, found, any(bound.concurrent for bound in found), level.value if level else ""


def _traced(decision: Decision, verdict: Verdict) -> Decision:
    assert isinstance(decision.source, Trunk)
    customer = decision.source.customer
    step = Step(RULE, verdict.outcome.passes, f"customer {customer.id}", *_said(verdict, customer.limits))
    return replace(decision, trace=(*decision.trace, step))


def _call(customer: str, message: CallMessage, random: Fresh) -> str:
    """The key of a call without a leg, the same each time that one INVITE is looked at."""
    new = call_key(customer, message.call_id, message.from_tag, drawn(random))
    return message.counted if message.counted and dialog_of(message.counted) == dialog_of(new) else new


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
    if verdict.outcome is Outcome.UNFOLLOWED:
        return "nobody would tell its end", "what the switch knows a call by: its log says what this one has not"
    rates = {own.value: rate for own, rate in limits.by_level}
    rate = rates.get(verdict.scope, Rate()) if verdict.scope else limits.total
    of = f" with level {verdict.scope}" if verdict.scope else ""
    if verdict.outcome is Outcome.RATE:
        return f"over the limit of {rate.calls_per_second:g} calls per second{of}", "fewer calls, or a higher limit"
    return f"over the limit of {rate.concurrent} calls at a time{of}", "a call that ends, or a higher limit"
