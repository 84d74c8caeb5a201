"""What level the calls with a number get, at a time, by the records alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from shaken_plugin import runtime
from shaken_plugin.cli.records.session import Opened
from shaken_plugin.conduct import view
from shaken_plugin.conduct.state import State
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.attestation import AttestationPolicy, CallFacts, Decision, decide, decide_substitute
from shaken_plugin.core.records import (
    Customer,
    DoNotOriginate,
    NumberRight,
    Overrides,
    PolicyFacts,
    Right,
    Route,
    Substitution,
    Trunk,
)
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.ports import PolicyRecords, Standing
from shaken_plugin.stores.standing import worse
from shaken_plugin.stores.statefile import remembered


class To(NamedTuple):
    """Where a call goes to; see `authentication.Way`."""

    party: TelephoneNumber | None = None
    digits: str | None = None
    """By which the route is found."""
    route: str | None = None


NOWHERE: Final = To()
"""No party and no route: what depends on them is not asked."""


@dataclass(frozen=True, slots=True)
class Deciding:
    """Decides as the switch would, over records of any version."""

    records: PolicyRecords
    policy: AttestationPolicy
    trunks: dict[str, list[Trunk]]
    """Of each customer."""
    substitutions: tuple[Substitution, ...]
    routes: tuple[Route, ...]
    standings: dict[str, Standing]
    """What customers were put under beside the policy."""

    @classmethod
    def of(cls, session: Opened, records: PolicyRecords) -> Deciding:
        """By the settings of this host."""
        trunks: dict[str, list[Trunk]] = {}
        for trunk in records.all(Trunk):
            trunks.setdefault(trunk.customer.id, []).append(trunk)
        policy = runtime.attestation_policy(session.settings, runtime.settings_plan(session.settings))
        substitutions, routes = tuple(records.all(Substitution)), tuple(records.all(Route))
        return cls(records, policy, trunks, substitutions, routes, standings(session))

    def metadata(self, number: str) -> str | None:
        """What the numbering plan says against a number: ``invalid``, ``unallocated``, or None."""
        found = None if self.policy.numbering is None else self.policy.numbering(number)
        return None if found is None else found.value

    def standing(self, customer: Customer) -> Customer:
        """A customer in the worse state of policy and standing."""
        if customer.id not in self.standings:
            return customer
        return dataclasses.replace(customer, state=worse(customer.state, self.standings[customer.id].state))

    def sources(self, customer: Customer) -> Iterator[tuple[str | None, Trunk]]:
        """The trunks that a customer's calls may come over: None for all, where they do not differ."""
        customer, trunks = self.standing(customer), self.trunks.get(customer.id, [])
        if any(trunk.rules != Overrides() for trunk in trunks):
            yield from ((trunk.id, dataclasses.replace(trunk, customer=customer)) for trunk in trunks)
        else:
            yield None, Trunk(trunks[0].id if trunks else "none", customer)

    def decide(self, source: Trunk, number: str, at: float, to: To = NOWHERE) -> Decision:
        """What a call of this source with this number gets at a time, with another number in its place where so."""
        call = CallFacts(TelephoneNumber(number), to.party)
        decision = decide(call, self._facts(source, number, to), self.policy, at)
        if decision.substitute is None:
            return decision
        return decide_substitute(decision, call, self._facts(source, decision.substitute, to), self.policy, at)

    def alike(self, number: str) -> Hashable:
        """What sets a number apart: calls with numbers of which this is equal are decided alike."""
        callers = {caller for rule in self.substitutions for caller in rule.callers}
        return (
            tuple(right.id for right, _ in self.records.covering(Right, number)),
            tuple(entry.id for entry, _ in self.records.covering(DoNotOriginate, number)),
            self.metadata(number),
            frozenset(caller for caller in callers if number.startswith(caller)),
            any(rule.number == number for rule in self.substitutions),
        )

    def _facts(self, source: Trunk, number: str, to: To) -> PolicyFacts:
        rights = tuple(NumberRight(right, *span) for right, span in self.records.covering(Right, number))
        named = dict.fromkeys(right.right.customer for right in rights)
        holders = (self.records.get(Customer, name) for name in named)
        return PolicyFacts(
            source,
            rights,
            self.records.version,
            tuple(self.standing(holder) for holder in holders if holder is not None),
            tuple(dict.fromkeys(entry for entry, _ in self.records.covering(DoNotOriginate, number))),
            self._route(to),
            tuple(rule for rule in self.substitutions if rule.customer == source.customer.id),
        )

    def _route(self, to: To) -> Route | None:
        """As `ports.PolicyStore.facts` finds it."""
        if to.route is not None and (named := self.records.get(Route, to.route)) is not None:
            return named
        digits = to.digits or ""
        leading = [(len(p), route) for route in self.routes for p in route.destinations if digits.startswith(p)]
        return max(leading, key=lambda pair: pair[0])[1] if leading else None


def state_file(settings: Settings) -> State | None:
    """The runtime state; None where none was ever made. Reading makes no file: an empty one reinstates everybody."""
    path, policy = Path(settings.store.state), Path(settings.store.path)
    return State(path, policy) if path.exists() or remembered(policy) is not None else None


def standings(session: Opened) -> dict[str, Standing]:
    """Everybody against whom something stands now, by id."""
    state = state_file(session.settings)
    if state is None:
        return {}
    with state.reading() as connection:
        return {standing.customer: standing for standing in view.standings(connection)}


def call_levels(records: PolicyRecords, number: str, deciding: Deciding, at: float) -> list[dict[str, Any]]:
    """For each customer with a right to a number: what its calls with it get, and why not A."""
    customers = dict.fromkeys(right.customer for right, _ in records.covering(Right, number))
    found = []
    for name in customers:
        customer = records.get(Customer, name)
        for trunk, source in deciding.sources(customer) if customer is not None else ():
            decision = deciding.decide(source, number, at)
            found.append(
                {
                    "customer": name,
                    "trunk": trunk,
                    "level": decision.level.value,
                    "missing": list(decision.missing),
                    "trace": [step._asdict() for step in decision.trace],
                }
            )
    return found
