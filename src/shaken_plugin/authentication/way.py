"""What the records decide of a call, by how it came and where it goes to."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from shaken_plugin.core.attestation import (
    AttestationPolicy,
    CallFacts,
    Decision,
    Level,
    Refusal,
    decide,
    decide_substitute,
)
from shaken_plugin.core.diverting import decide_diversion
from shaken_plugin.core.records import PolicyFacts
from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.ports import PolicyStore

_OF_THE_SOURCE: Final = frozenset({Refusal.UNAUTHORISED, Refusal.UNKNOWN_SOURCE})
"""Refusals of a source that speaks for a caller; who sends a call on speaks for the diverting number."""


class Way(NamedTuple):
    """How a call came and where it goes to; see `ports.PolicyStore.facts`."""

    source: str | None
    user: str | None
    called: str | None
    route: str | None = None

    def facts(self, store: PolicyStore, number: Party | None) -> PolicyFacts:
        """What the store knows of it with this caller.

        Raises:
            StoreUnavailable: the records cannot be read.
        """
        digits = number.digits if isinstance(number, TelephoneNumber) else None
        return store.facts(self.source, self.user, digits, self.called, self.route)

    def decide(self, store: PolicyStore, call: CallFacts, policy: AttestationPolicy, now: float) -> Decision:
        """The decision on a call, made anew for the number that takes the place of its caller ID, where one does.

        Raises:
            StoreUnavailable: likewise.
        """
        decision = decide(call, self.facts(store, call.orig), policy, now)
        if decision.substitute is None:
            return decision
        facts = self.facts(store, TelephoneNumber(decision.substitute))
        return decide_substitute(decision, call, facts, policy, now)

    def divert(
        self,
        store: PolicyStore,
        call: CallFacts,
        diverting: TelephoneNumber,
        policy: AttestationPolicy,
        now: float,
        *,
        goes_on: bool,
    ) -> tuple[Decision, PolicyFacts | None]:
        """The decision on a call that is sent on: an Identity header must not spare its caller a refusal.

        Args:
            store: the records.
            call: the call; ``dest`` is the new target.
            diverting: the number that the call was for.
            policy: the operator's choices.
            now: POSIX seconds.
            goes_on: whether it carries a PASSporT that was for that number. Then somebody else has vouched for
                the caller, and the source need not have a right to it.

        Returns:
            The decision, with the facts about the diverting number; without where it is that of any other call.

        Raises:
            StoreUnavailable: likewise.
        """
        assert call.dest is not None
        facts = self.facts(store, diverting)
        decision = decide_diversion(diverting, call.dest, facts, policy, now, emergency=call.emergency)
        plain = self.decide(store, call, policy, now)
        is_diversion = goes_on and decision.level is Level.DIV
        if plain.level is Level.REFUSE and not (is_diversion and plain.refusal in _OF_THE_SOURCE):
            return plain, None
        if is_diversion:
            return decision, facts
        if plain.substitute is not None:
            return plain, None
        return replace(decision, unauthorised=plain.unauthorised, offence=plain.offence), facts
