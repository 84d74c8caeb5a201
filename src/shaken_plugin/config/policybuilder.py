"""The entries of a policy file, linked to a policy; what no field shows alone is reported."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from shaken_plugin.config import policyids, policyrecords, yamlfile
from shaken_plugin.config.models import present, salvage, validate
from shaken_plugin.config.policyentries import (
    CustomerEntry,
    GatewayEntry,
    PolicyFile,
    RightEntry,
    RouteEntry,
    SubstitutionEntry,
    TrunkEntry,
    WithheldEntry,
)
from shaken_plugin.config.recordrules import contradictions, wrong_numbers
from shaken_plugin.core.records import (
    Customer,
    CustomerState,
    DoNotOriginate,
    Gateway,
    Network,
    NumberRight,
    Record,
    Right,
    Route,
    Substitution,
    Trunk,
)
from shaken_plugin.ports import Standing
from shaken_plugin.stores.policy import Policy


def _named(source: Trunk | Gateway) -> str:
    kind = "trunk" if isinstance(source, Trunk) else "gateway"
    return f"{kind} {source.id}" if source.id is not None else f"another {kind}"


def span(text: str) -> tuple[str, str]:
    """First and last of ``+12155551300..+12155551399``; of a single number twice that."""
    first, _, last = text.replace("+", "").partition("..")
    return first, last or first


class Builder:
    """Links the entries, and reports what no field shows alone.

    Where a file has mistakes its entries have gaps (`salvage`), and what is built is not used.
    """

    def __init__(self, document: yamlfile.Document, credentials: frozenset[str] | None) -> None:
        self._problem = document.problem
        self._data = document.data
        self._credentials = credentials
        self._customers: dict[str, Customer] = {}
        self._standings: list[Standing] = []
        self._sources: dict[str, Trunk | Gateway] = {}
        self._addresses: dict[Network, Trunk | Gateway] = {}
        self._users: dict[str, Trunk] = {}
        self._routes: dict[str, Route] = {}
        self._destinations: dict[str, Route] = {}
        self._substitutions: dict[str, Substitution] = {}
        self._ids = {"right": policyids.Ids(), "entry": policyids.Ids()}
        self._rights: list[NumberRight] = []
        self._withheld: list[tuple[DoNotOriginate, str, str]] = []
        self._unnumbered: list[Right | DoNotOriginate] = []

    def add(self, file: PolicyFile) -> None:
        """Add everything that stands in a file."""
        for index, customer in present(file.customers):
            self._customer(index, customer)
        for index, gateway in present(file.gateways):
            self._gateway(index, gateway)
        for index, route in present(file.routes):
            self._route(index, route)
        # Ids that the file gives come before those that are made, wherever they stand.
        for index, right in present(file.rights):
            self._given_id("right", ("rights", index, "id"), right.id)
        for index, entry in present(file.do_not_originate):
            self._given_id("entry", ("do_not_originate", index, "id"), entry.id)
        for index, right in present(file.rights):
            self._right(index, right)
        for _, entry in present(file.do_not_originate):
            self._withhold(entry)
        for index, substitution in present(file.substitutions):
            self._substitution(index, substitution)

    def policy(self) -> Policy:
        """What was built."""
        sources = self._sources.values()
        return Policy(
            customers=tuple(self._customers.values()),
            trunks=tuple(source for source in sources if isinstance(source, Trunk)),
            gateways=tuple(source for source in sources if isinstance(source, Gateway)),
            rights=tuple(self._rights),
            withheld=tuple(self._withheld),
            routes=tuple(self._routes.values()),
            substitutions=tuple(self._substitutions.values()),
            unnumbered=tuple(self._unnumbered),
            standings=tuple(self._standings),
        )

    # --- Customers and how their calls come ---------------------------------------------------

    def _customer(self, index: int, entry: CustomerEntry) -> None:
        path: yamlfile.Path = ("customers", index)
        self._credential(path, entry.credential)
        customer = policyrecords.customer(entry)
        if entry.id is not None and self._customers.setdefault(entry.id, customer) is not customer:
            self._problem((*path, "id"), f"a second customer {entry.id}")
        if (said := entry.standing) is not None:
            self._standings.append(Standing(customer.id, CustomerState(said.state), said.at, said.who, said.why))
        for number, trunk in present(entry.trunks):
            self._trunk((*path, "trunks", number), trunk, customer)

    def _trunk(self, path: yamlfile.Path, entry: TrunkEntry, customer: Customer) -> None:
        self._credential(path, entry.credential)
        trunk = Trunk(
            entry.id,
            customer,
            entry.credential,
            tuple(dict.fromkeys(ipaddress.ip_network(text) for _, text in present(entry.addresses))),
            tuple(dict.fromkeys(user for _, user in present(entry.users))),
            policyrecords.overrides(entry.rules),
        )
        self._source(path, trunk)
        self._add_addresses(path, entry.addresses, trunk)
        for place, user in present(entry.users):
            other = self._users.setdefault(user, trunk)
            if other is not trunk:
                self._problem((*path, "users", place), f"the user {user} belongs to {_named(other)} already")
        self._contradictions(path, trunk)

    def _gateway(self, index: int, entry: GatewayEntry) -> None:
        path: yamlfile.Path = ("gateways", index)
        self._credential(path, entry.credential)
        networks = (ipaddress.ip_network(text) for _, text in present(entry.addresses))
        gateway = Gateway(entry.id, entry.name, entry.credential, tuple(dict.fromkeys(networks)))
        self._source(path, gateway)
        self._add_addresses(path, entry.addresses, gateway)

    def _source(self, path: yamlfile.Path, source: Trunk | Gateway) -> None:
        if source.id is not None and self._sources.setdefault(source.id, source) is not source:
            self._problem((*path, "id"), f"a second trunk or gateway {source.id}")

    def _add_addresses(self, path: yamlfile.Path, addresses: list[str], source: Trunk | Gateway) -> None:
        for place, text in present(addresses):
            other = self._addresses.setdefault(ipaddress.ip_network(text), source)
            if other is not source:
                # Two owners of one address would make the level a matter of luck.
                self._problem((*path, "addresses", place), f"{text} belongs to {_named(other)} already")

    def _credential(self, path: yamlfile.Path, name: str | None) -> None:
        if name is not None and self._credentials is not None and name not in self._credentials:
            known = ", ".join(sorted(self._credentials)) or "none at all"
            self._problem((*path, "credential"), f"the settings have no credential {name} (known: {known})")

    # --- Numbers ------------------------------------------------------------------------------

    def _given_id(self, kind: str, path: yamlfile.Path, name: str | None) -> None:
        if name is not None and not self._ids[kind].given(name):
            self._problem(path, f"a second {kind} {name}")

    def _made_id(self, kind: str, wanted: str) -> str:
        return self._ids[kind].made(wanted)

    def _right(self, index: int, entry: RightEntry) -> None:
        path: yamlfile.Path = ("rights", index)
        unnamed = policyrecords.right(entry.id or "", entry)
        self._contradictions(path, unnamed)
        for place, text in present(entry.numbers):
            if wrong := wrong_numbers(unnamed, *span(text)):
                self._problem((*path, "numbers", place), wrong)
        if entry.customer is not None and entry.basis is not None:
            wanted = policyids.right_id(entry.customer, entry.basis, entry.document, entry.use_case)
            right = replace(unnamed, id=entry.id or self._made_id("right", wanted))
            if not entry.numbers:
                self._unnumbered.append(right)
            self._rights += [NumberRight(right, *span(text)) for _, text in present(entry.numbers)]

    def _withhold(self, entry: WithheldEntry) -> None:
        if entry.reason is not None:
            name = entry.id or self._made_id("entry", policyids.withheld_id(entry.reason, entry.note))
            record = DoNotOriginate(name, entry.reason, entry.note, entry.suspended)
            if not entry.numbers:
                self._unnumbered.append(record)
            self._withheld += [(record, *span(text)) for _, text in present(entry.numbers)]

    def _contradictions(self, path: yamlfile.Path, record: Record) -> None:
        """Report them, but none about a field that stands there with a mistake of its own."""
        written: Any = self._data
        for step in path:
            written = written[step]
        for wrong in contradictions(record):
            if all(written.get(name) in (None, []) for name in wrong.needs):
                self._problem((*path, *wrong.field), wrong.message)

    # --- Rules --------------------------------------------------------------------------------

    def _route(self, index: int, entry: RouteEntry) -> None:
        path: yamlfile.Path = ("routes", index)
        destinations = tuple(dict.fromkeys(prefix for _, prefix in present(entry.destinations)))
        route = Route(entry.id, destinations, policyrecords.overrides(entry.rules))
        if entry.id is not None and self._routes.setdefault(entry.id, route) is not route:
            self._problem((*path, "id"), f"a second route {entry.id}")
        for place, prefix in present(entry.destinations):
            other = self._destinations.setdefault(prefix, route)
            if other is not route:
                self._problem((*path, "destinations", place), f"+{prefix} belongs to route {other.id} already")

    def _substitution(self, index: int, entry: SubstitutionEntry) -> None:
        path: yamlfile.Path = ("substitutions", index)
        record = policyrecords.substitution(entry)
        self._contradictions(path, record)
        if entry.id is not None and self._substitutions.setdefault(entry.id, record) is not record:
            self._problem((*path, "id"), f"a second substitution {entry.id}")


def alone(section: str, data: dict[str, Any]) -> tuple[Policy | None, list[tuple[str, str]]]:
    """One entry of a policy file by itself, with what it names unchecked.

    Returns:
        The policy it makes, or None; and what is wrong with it: name in the entry, and message.
    """
    document = yamlfile.Document("", {section: [data]})
    file = validate(PolicyFile, document) or salvage(PolicyFile, document.data)
    builder = Builder(document, None)
    builder.add(file)
    problems = [
        (problem.path.removeprefix(f"{section}[0]").removeprefix("."), problem.message) for problem in document.problems
    ]
    return (None if problems else builder.policy()), problems
