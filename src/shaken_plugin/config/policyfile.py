"""The policy file: customers, trunks, gateways, and who may use which numbers.

    customers:
      - id: acme
        name: Acme Contact Centre
        state: verified
        trunks:
          - id: acme-main
            addresses: [198.51.100.0/24]
    gateways:
      - id: intl
        name: International gateway
        addresses: [203.0.113.7]
    rights:
      - customer: acme
        basis: letter
        document: LOA-2026-113
        use_case: appointment reminders for Example Clinic
        valid_until: 2027-06-30
        numbers: ["+12155551212", "+12155551300..+12155551399"]

A day as ``valid_from`` begins at 00:00 UTC, as ``valid_until`` it is the last day, ending at
24:00 UTC; a time with an offset is taken exactly.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from shaken_plugin.config import yamlfile
from shaken_plugin.config.fields import Moment, UuidText, moment
from shaken_plugin.config.models import Label, Matching, Name, Section, present, salvage, validate
from shaken_plugin.config.settings import read_text
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, NumberRight, Trunk
from shaken_plugin.stores.policy import Network, Policy

TOLL_FREE = re.compile(r"18(?:00|33|44|55|66|77|88)[2-9][0-9]{6}")
"""Toll-free numbers of the North American plan, the only ones a RespOrg answers for."""

_SECONDS_OF_DAY = 86_400


def _last_moment(value: object) -> object:
    parsed = moment(value)
    if isinstance(value, str) and isinstance(parsed, float) and _is_day(value):
        return parsed + _SECONDS_OF_DAY
    return parsed


def _is_day(value: str) -> bool:
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError as exc:
        raise ValueError(f"not an IP address or network: {exc}") from None
    if isinstance(network, ipaddress.IPv6Network) and (mapped := network.network_address.ipv4_mapped) is not None:
        # Calls from there are known by their IPv4 address, in either spelling.
        raise ValueError(f"write it as {mapped}{f'/{network.prefixlen - 96}' if network.prefixlen < 128 else ''}")
    return value


_NUMBERS = re.compile(r"\+([1-9][0-9]{3,14})(?:\.\.\+([1-9][0-9]{3,14}))?")


def _numbers(value: str) -> str:
    match = _NUMBERS.fullmatch(value)
    if match is None:
        raise ValueError("neither a number such as +12155551212 nor a range such as +12155551300..+12155551399")
    first, last = match.groups()
    if last is not None and (len(first) != len(last) or first > last):
        raise ValueError("the end of the range is not a number of the same length behind its start")
    return value


LastMoment = Annotated[float, BeforeValidator(_last_moment), WithJsonSchema({"type": ["string", "number"]})]
Address = Annotated[str, AfterValidator(_network)]
Numbers = Annotated[str, AfterValidator(_numbers)]
UserName = Annotated[
    str, Matching(r"[^\s\x00-\x1f\x7f]{1,128}", "not an account name (no spaces, at most 128 characters)")
]


class TrunkEntry(Section):
    """One way a customer's calls reach us."""

    id: Name
    """Unique name of the trunk."""
    addresses: list[Address] = []
    """Source addresses or networks; the narrowest that matches wins."""
    users: list[UserName] = []
    """Accounts that the switch authenticates; an account wins over an address."""
    credential: Name | None = None
    """Credential that signs this trunk's calls, instead of the customer's."""


class CustomerEntry(Section):
    """Who is accountable for calls."""

    id: Name
    """Unique name of the customer."""
    name: Label
    """The customer's name for people."""
    state: CustomerState
    """Know-your-customer: pending, verified, suspended or terminated."""
    ceiling: Attest | None = None
    """Highest level this customer's calls may get."""
    credential: Name | None = None
    """Credential that signs for them, instead of the default."""
    origid: UuidText | None = None
    """A fixed origid instead of the derived one."""
    trunks: list[TrunkEntry] = []
    """How their calls reach us."""


class GatewayEntry(Section):
    """A declared point at which calls of unknown origin enter; they get C."""

    id: Name
    """Unique name of the gateway."""
    name: Label
    """The gateway's name for people."""
    addresses: Annotated[list[Address], Field(min_length=1)]
    """Source addresses or networks."""
    credential: Name | None = None
    """Credential that signs its calls, instead of the default."""


class RightEntry(Section):
    """A customer's right to use numbers."""

    customer: Name
    """Whose right it is."""
    basis: Basis
    """assigned, ported, resporg, letter, or customer_word (which never gives A)."""
    document: Label | None = None
    """Reference of the evidence; a letter of authorisation needs one."""
    use_case: Label | None = None
    """What the numbers are used for."""
    valid_from: Moment | None = None
    """First day or moment at which it holds."""
    valid_until: LastMoment | None = None
    """Last day, or the moment at which it no longer holds."""
    numbers: Annotated[list[Numbers], Field(min_length=1)]
    """Numbers and ranges in E.164 with +."""


class PolicyFile(Section):
    """The records attestation levels are decided from."""

    customers: list[CustomerEntry] = []
    """Customers with their trunks."""
    gateways: list[GatewayEntry] = []
    """Gateways."""
    rights: list[RightEntry] = []
    """Who may use which numbers."""


def parse_policy(path: Path, credentials: frozenset[str] | None = None) -> tuple[Policy | None, yamlfile.Document]:
    """A policy file: the policy, or None, and the document with all its problems.

    Args:
        path: the file.
        credentials: names that the settings know; None to leave the names unchecked.

    Raises:
        FileProblems: the file cannot be read.
    """
    document = yamlfile.parse(read_text(path), str(path))
    if document.data is None and not document.problems:
        # More likely a full disk than a wish: with no records every call would go on unsigned.
        document.problem((), "the file has no records in it")
    file = validate(PolicyFile, document)
    if file is None:
        # Entries with gaps: a mistake hides no other, in its own entry neither.
        file = salvage(PolicyFile, document.data)
    builder = _Builder(document, credentials)
    if file is not None:
        builder.add(file)
    _check_links(document)
    document.problems.sort(key=lambda problem: (problem.line, problem.column))
    return (None if document.problems else builder.policy()), document


def _check_links(document: yamlfile.Document) -> None:
    """Every right names a customer that stands in the file, with or without other mistakes."""
    known = {str(entry.get("id")) for _, entry in _mappings(document, "customers")}
    for index, entry in _mappings(document, "rights"):
        name = entry.get("customer")
        if isinstance(name, str) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            document.problem(("rights", index, "customer"), f"there is no customer {name}{hint}")


def _mappings(document: yamlfile.Document, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = document.data.get(name) if isinstance(document.data, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield index, entry


def _toll_free(first: str, last: str) -> bool:
    """Whether a range is toll-free from end to end: between 800 and 833 lie other area codes."""
    return all(map(TOLL_FREE.fullmatch, (first, last))) and first[:4] == last[:4]


def _named(source: Trunk | Gateway) -> str:
    kind = "trunk" if isinstance(source, Trunk) else "gateway"
    return f"{kind} {source.id}" if source.id is not None else f"another {kind}"


class _Builder:
    """Links the entries, and reports what no field shows alone.

    Where a file has mistakes its entries have gaps (`salvage`), and what is built is not used.
    """

    def __init__(self, document: yamlfile.Document, credentials: frozenset[str] | None) -> None:
        self._problem = document.problem
        self._data = document.data
        self._credentials = credentials
        self._customers: dict[str, Customer] = {}
        self._sources: dict[str, Trunk | Gateway] = {}
        self._addresses: dict[Network, Trunk | Gateway] = {}
        self._users: dict[str, Trunk] = {}
        self._rights: list[NumberRight] = []

    def add(self, file: PolicyFile) -> None:
        """Add everything that stands in a file."""
        for index, customer in present(file.customers):
            self._customer(index, customer)
        for index, gateway in present(file.gateways):
            self._gateway(index, gateway)
        for index, right in present(file.rights):
            self._right(index, right)

    def policy(self) -> Policy:
        """What was built."""
        sources = self._sources.values()
        return Policy(
            customers=tuple(self._customers.values()),
            trunks=tuple(source for source in sources if isinstance(source, Trunk)),
            gateways=tuple(source for source in sources if isinstance(source, Gateway)),
            addresses=self._addresses,
            users=self._users,
            rights=tuple(self._rights),
        )

    def _customer(self, index: int, entry: CustomerEntry) -> None:
        path: yamlfile.Path = ("customers", index)
        self._credential(path, entry.credential)
        customer = Customer(entry.id, entry.name, entry.state, entry.ceiling, entry.credential, entry.origid)
        if entry.id is not None and self._customers.setdefault(entry.id, customer) is not customer:
            self._problem((*path, "id"), f"a second customer {entry.id}")
        for number, trunk_entry in present(entry.trunks):
            trunk_path = (*path, "trunks", number)
            self._credential(trunk_path, trunk_entry.credential)
            trunk = Trunk(trunk_entry.id, customer, trunk_entry.credential)
            self._source(trunk_path, trunk)
            self._add_addresses(trunk_path, trunk_entry.addresses, trunk)
            for place, user in present(trunk_entry.users):
                other = self._users.setdefault(user, trunk)
                if other is not trunk:
                    self._problem((*trunk_path, "users", place), f"the user {user} belongs to {_named(other)} already")
            if trunk_entry.addresses == [] and trunk_entry.users == []:
                self._problem(trunk_path, "a trunk needs addresses or users, or no call is ever recognised")

    def _gateway(self, index: int, entry: GatewayEntry) -> None:
        path: yamlfile.Path = ("gateways", index)
        self._credential(path, entry.credential)
        gateway = Gateway(entry.id, entry.name, entry.credential)
        self._source(path, gateway)
        self._add_addresses(path, entry.addresses, gateway)

    def _right(self, index: int, entry: RightEntry) -> None:
        """Add a right, one record for each of its numbers and ranges."""
        path: yamlfile.Path = ("rights", index)
        if entry.basis is Basis.LETTER and self._data["rights"][index].get("document") is None:
            self._problem(path, "document is missing: a letter of authorisation is named by its reference")
        if None not in (entry.valid_from, entry.valid_until) and entry.valid_from >= entry.valid_until:  # type: ignore[operator]  # both are numbers here
            self._problem((*path, "valid_until"), "ends before valid_from")
        for place, text in present(entry.numbers):
            first, _, last = text.replace("+", "").partition("..")
            if entry.basis is Basis.RESPORG and not _toll_free(first, last or first):
                self._problem((*path, "numbers", place), "a RespOrg answers for toll-free numbers only")
            self._rights.append(
                NumberRight(
                    entry.customer,
                    first,
                    last or first,
                    entry.basis,
                    entry.document,
                    entry.use_case,
                    entry.valid_from,
                    entry.valid_until,
                )
            )

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
