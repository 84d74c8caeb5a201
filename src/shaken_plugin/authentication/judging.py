"""What the policy says of a call, before anything is signed."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from shaken_plugin.authentication.model import (
    DiversionMode,
    Signing,
    SigningRules,
    StoreDown,
)
from shaken_plugin.authentication.way import Way
from shaken_plugin.core.attestation import (
    CallFacts,
    Decision,
    Level,
    decide_beside,
)
from shaken_plugin.core.call import Caller, CallMessage, is_emergency
from shaken_plugin.core.diverting import diverted, links
from shaken_plugin.core.records import PolicyFacts
from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.errors import (
    SkipReason,
    StoreUnavailable,
)
from shaken_plugin.ports import PolicyStore


class Judged(NamedTuple):
    """What the policy says of a call, and what it was asked with; ``base.skip`` where that is all."""

    base: Signing
    caller: Caller | None = None
    diversion: tuple[TelephoneNumber, Party] | None = None
    facts: PolicyFacts | None = None


class Judge:
    """Asks the policy about calls.

    Args:
        rules: the operator's choices.
        store: the records.
    """

    def __init__(self, rules: SigningRules, store: PolicyStore) -> None:
        self._rules = rules
        self.store = store

    def _judged(self, message: CallMessage, now: float) -> Judged:
        """What the policy says of a call."""
        if not message.is_initial_invite:
            return Judged(Signing(SkipReason.NOT_INITIAL_INVITE))
        rules = self._rules
        caller = message.caller(rules.sources, rules.plan)
        diversion = self._diversion(message)
        base = Signing(
            emergency=is_emergency(message.request_uri, message.to, message.priority, rules.plan),
            orig=caller.party if caller else None,
            dest=diversion[1] if diversion else message.called(rules.plan),
            diverting=diversion[0] if diversion else None,
        )
        base = replace(base, routed_by=self._called(base, message))
        # Decided before anything else about the call is looked at: a header that a suspended
        # customer adds, spoils or leaves out must not spare it the refusal.
        try:
            decision, facts = self._decided(base, diversion, message, now)
            decision, orig = self._beside(base, decision, message, now)
        except StoreUnavailable as exc:
            refuse = rules.store_down is StoreDown.REFUSE and not base.emergency
            return Judged(replace(base, skip=SkipReason.STORE_UNAVAILABLE, refuse=refuse, detail=str(exc)))
        base = replace(base, decision=decision, orig=orig)
        if decision.level is Level.REFUSE:
            return Judged(replace(base, skip=SkipReason.POLICY_REFUSED, refuse=True))
        if decision.substitute is not None:
            if diversion is not None:  # that no div of ours can vouch for
                base = replace(base, diverting=None, dest=message.called(rules.plan))
            number = TelephoneNumber(decision.substitute)
            base = replace(base, orig=number, substitute=number, substituted_for=base.orig)
        return Judged(base, caller, diversion, facts)

    def _decided(
        self, base: Signing, diversion: tuple[TelephoneNumber, Party] | None, message: CallMessage, now: float
    ) -> tuple[Decision, PolicyFacts | None]:
        """The decision, and for a diversion the facts about the number that diverts.

        Raises:
            StoreUnavailable: the records cannot be read.
        """
        policy = self._rules.attestation
        way = self._way(base, message)
        call = CallFacts(base.orig, base.dest, base.emergency)
        if diversion is None:
            return way.decide(self.store, call, policy, now), None
        original = diverted(links(message.identity), base.orig, diversion[0], now, self._rules.freshness)
        return way.divert(self.store, call, diversion[0], policy, now, goes_on=original is not None)

    def _beside(
        self, base: Signing, decision: Decision, message: CallMessage, now: float
    ) -> tuple[Decision, Party | None]:
        """The decision, or the refusal for another number that the call shows; and whom it is about.

        Raises:
            StoreUnavailable: the records cannot be read.
        """
        if decision.level is not Level.REFUSE and not base.emergency:
            way = self._way(base, message)
            for number, header in message.caller_numbers(self._rules.plan).items():
                if number == base.orig:
                    continue
                call = CallFacts(number, base.dest)
                facts = way.facts(self.store, number)
                refusal = decide_beside(call, header.value, facts, self._rules.attestation, now)
                if refusal is not None:
                    return refusal, number
        return decision, base.orig

    def _way(self, base: Signing, message: CallMessage) -> Way:
        return Way(message.source, message.user, base.routed_by, message.route or None)

    def _called(self, base: Signing, message: CallMessage) -> str | None:
        """The number by which the route is found: where the call really goes to, which To need not say."""
        for party in (message.request_party(self._rules.plan), base.dest):
            if isinstance(party, TelephoneNumber) and party.is_e164:
                return party.digits
        return None

    def _diversion(self, message: CallMessage) -> tuple[TelephoneNumber, Party] | None:
        """Who diverts the call to whom, None where no ``div`` is asked for.

        RFC 8946 §4.1: only a request that carries Identity already gets a div;
        such a call is signed like any other.
        """
        if not message.identity or self._rules.diversion is DiversionMode.LEAVE:
            return None
        return message.diversion(self._rules.plan)
