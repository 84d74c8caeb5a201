"""What the policy says of a call, before anything is signed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from shaken_plugin.authentication.memory import Asked, Looks, Memory, Question
from shaken_plugin.authentication.model import (
    DiversionMode,
    Signing,
    SigningRules,
    StoreDown,
)
from shaken_plugin.authentication.usual import Ready
from shaken_plugin.authentication.way import Way
from shaken_plugin.core.attestation import (
    CallFacts,
    Decision,
    Level,
    decide_beside,
    left_alone,
)
from shaken_plugin.core.call import Caller, CallMessage, is_callback
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
    judgement: Judgement | None = None
    diversion: tuple[TelephoneNumber, Party] | None = None
    facts: PolicyFacts | None = None


@dataclass(slots=True)
class Judgement:
    """What the records decide of a caller, the same for all calls with the same `Question`."""

    decision: Decision
    caller: Caller | None
    ambiguous: bool
    """Whether a verifier would not know the caller, or take somebody else for it."""
    orig: Party | None
    """Whom the decision is about: the caller, or another number that the call shows and that refuses it."""
    substitute: TelephoneNumber | None
    ready: Ready | None = None
    """What usual calls are signed with, once there was a second."""


class Judge:
    """Asks the policy about calls.

    Args:
        rules: the operator's choices.
        store: the records.
        remembers: ask the records once for all calls with the same `Question`, as long as the answer holds.
        look_every: seconds between two looks of usual calls whether the records have changed.
    """

    def __init__(
        self, rules: SigningRules, store: PolicyStore, *, remembers: bool = True, look_every: float = 0.0
    ) -> None:
        self._rules = rules
        self.store = store
        self._looks = Looks(look_every)
        self._memory: Memory[Judgement] | None = Memory() if remembers else None

    def _judged(self, message: CallMessage, now: float) -> Judged:
        """What the policy says of a call."""
        rules = self._rules
        if not message.is_initial_invite:
            return Judged(Signing(SkipReason.NOT_INITIAL_INVITE))
        target = message.target(rules.plan)
        diversion = self._diversion(message)
        base = Signing(
            emergency=target.emergency or is_callback(message.priority),
            dest=diversion[1] if diversion else target.to,
            diverting=diversion[0] if diversion else None,
        )
        base.routed_by = number_digits(target.uri) or number_digits(base.dest)
        # Decided before anything else about the call is looked at: a header that a suspended
        # customer adds, spoils or leaves out must not spare it the refusal.
        facts = None
        try:
            if diversion is None:
                judgement = self._recalled(base, message, now)
            else:
                judgement, facts = self._diverted_to(base, diversion, message, now)
        except StoreUnavailable as exc:
            caller = message.caller(rules.sources, rules.plan)
            base.orig = caller.party if caller else None
            base.skip, base.detail = SkipReason.STORE_UNAVAILABLE, str(exc)
            base.refuse = rules.store_down is StoreDown.REFUSE and not base.emergency
            return Judged(base)
        base.decision, base.orig = judgement.decision, judgement.orig
        if judgement.decision.level is Level.REFUSE:
            base.skip, base.refuse = SkipReason.POLICY_REFUSED, True
            return Judged(base)
        if judgement.substitute is not None:
            if diversion is not None:  # that no div of ours can vouch for
                base.diverting, base.dest = None, target.to
            base.orig, base.substitute, base.substituted_for = judgement.substitute, judgement.substitute, base.orig
        return Judged(base, judgement, diversion, facts)

    def _recalled(self, base: Signing, message: CallMessage, now: float) -> Judgement:
        """The judgement on a call that nobody sends on, from memory where it is known.

        Raises:
            StoreUnavailable: the records cannot be read.
        """
        memory = self._memory
        stamp = self._looks.look(self.store, now) if memory is not None else None
        if memory is None or stamp is None:
            return self._plainly(base, message, self.store, now)
        question = self._question(message, base.dest, base.routed_by, base.emergency, stamp)
        known = memory.find(question, stamp, now)
        if known is None:
            asked = Asked(self.store, now)
            known = self._plainly(base, message, asked, now)
            # Another stamp: a commit came between two answers, or one of them was what the store last knew.
            if self.store.stamp() == stamp:
                memory.keep(question, stamp, now, asked, known)
        return known

    def _known(self, message: CallMessage, dest: Party, routed_by: str | None, now: float) -> Judgement | None:
        """The judgement on a call that is no emergency, where it is remembered and holds."""
        stamp = self._looks.last(self.store, now) if self._memory is not None else None
        if self._memory is None or stamp is None:
            return None
        return self._memory.find(self._question(message, dest, routed_by, False, stamp), stamp, now)

    def _question(
        self, message: CallMessage, dest: Party | None, routed_by: str | None, emergency: bool, stamp: Hashable
    ) -> Question:
        """All that `_plainly` looks at, but for the records and the time."""
        assert self._memory is not None
        return Question(
            message.source,
            message.user,
            message.route,
            message.caller_lines(),
            self._memory.routed_by(routed_by, stamp),
            left_alone(dest, self._rules.attestation),
            emergency,
        )

    def _plainly(self, base: Signing, message: CallMessage, store: PolicyStore, now: float) -> Judgement:
        """The judgement on a call that nobody sends on, from the records.

        Raises:
            StoreUnavailable: they cannot be read.
        """
        caller = message.caller(self._rules.sources, self._rules.plan)
        call = CallFacts(caller.party if caller else None, base.dest, base.emergency)
        decision = _way(base, message).decide(store, call, self._rules.attestation, now)
        return self._judgement(call, caller, decision, _way(base, message), message, store, now)

    def _diverted_to(
        self, base: Signing, diversion: tuple[TelephoneNumber, Party], message: CallMessage, now: float
    ) -> tuple[Judgement, PolicyFacts | None]:
        """The judgement on a call that is sent on, and the facts about the number that diverts.

        Raises:
            StoreUnavailable: the records cannot be read.
        """
        self._looks.look(self.store, now)  # no later call may be decided by what was before this one
        policy, way = self._rules.attestation, _way(base, message)
        caller = message.caller(self._rules.sources, self._rules.plan)
        call = CallFacts(caller.party if caller else None, base.dest, base.emergency)
        original = diverted(links(message.identity), call.orig, diversion[0], now, self._rules.freshness)
        decision, facts = way.divert(self.store, call, diversion[0], policy, now, goes_on=original is not None)
        return self._judgement(call, caller, decision, way, message, self.store, now), facts

    def _judgement(
        self,
        call: CallFacts,
        caller: Caller | None,
        decision: Decision,
        way: Way,
        message: CallMessage,
        store: PolicyStore,
        now: float,
    ) -> Judgement:
        """The decision, or the refusal for another number that the call shows; and whom it is about.

        Raises:
            StoreUnavailable: the records cannot be read.
        """
        if decision.level is not Level.REFUSE and not call.emergency:
            for number, header in message.caller_numbers(self._rules.plan).items():
                if number == call.orig:
                    continue
                beside, facts = CallFacts(number, call.dest), way.facts(store, number)
                refusal = decide_beside(beside, header.value, facts, self._rules.attestation, now)
                if refusal is not None:
                    return Judgement(refusal, caller, False, number, None)
        substitute = None if decision.substitute is None else TelephoneNumber(decision.substitute)
        return Judgement(decision, caller, self._is_ambiguous(message, caller), call.orig, substitute)

    def _is_ambiguous(self, message: CallMessage, caller: Caller | None) -> bool:
        """Whether a verifier would not know the caller, or take somebody else for it.

        The caller's header names another number, too; or one that is asked before it names a URI,
        which verifiers compare (RFC 8224 §6.2.4: orig must be the identity in the message).
        """
        if caller is None:
            return False
        rules = self._rules
        before = rules.sources[: rules.sources.index(caller.header)]
        if any(True for header in before for _ in message.callers_in(header, rules.plan)):
            return True
        parties = {other.party for other in message.callers_in(caller.header, rules.plan)}
        return any(isinstance(party, TelephoneNumber) and party != caller.party for party in parties)

    def _diversion(self, message: CallMessage) -> tuple[TelephoneNumber, Party] | None:
        """Who diverts the call to whom, None where no ``div`` is asked for.

        RFC 8946 §4.1: only a request that carries Identity already gets a div;
        such a call is signed like any other.
        """
        if not message.identity or self._rules.diversion is DiversionMode.LEAVE:
            return None
        return message.diversion(self._rules.plan)


def _way(base: Signing, message: CallMessage) -> Way:
    return Way(message.source, message.user, base.routed_by, message.route or None)


def number_digits(called: Party | None) -> str | None:
    """The number by which a route is found: that of the Request-URI, which To need not say, else of To."""
    return called.digits if isinstance(called, TelephoneNumber) and called.is_e164 else None
