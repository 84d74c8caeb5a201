"""One version of a policy in memory, and how it answers questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from shaken_plugin.core.material import Material
from shaken_plugin.core.records import (
    Customer,
    CustomerState,
    DoNotOriginate,
    Gateway,
    NumberRight,
    PolicyFacts,
    Record,
    Right,
    Route,
    Substitution,
    Trunk,
)
from shaken_plugin.ports import NumbersOf, Span
from shaken_plugin.stores.drafts import link_keys
from shaken_plugin.stores.material import Place, decode_all
from shaken_plugin.stores.policy import (
    KINDS,
    Policy,
    address_keys,
    destination_keys,
    narrowest_first,
    number_keys,
    shape,
    span_keys,
)

R = TypeVar("R", bound=Record)

Owner = tuple[type[Record], str]


class Snapshot:
    """A `ports.PolicyRecords` that nobody changes any more, but for its own draft.

    Args:
        version: its number.
        base: what it begins as a copy of.
    """

    def __init__(self, version: int, base: Snapshot | None = None) -> None:
        self.version = version
        self._tables: dict[type[Record], dict[str, Any]] = {
            kind: dict(base.table(kind)) if base else {} for kind in KINDS.values()
        }
        self.spans: dict[Owner, frozenset[Span]] = dict(base.spans) if base else {}
        self.links: dict[str, dict[Owner, None]] = {k: dict(v) for k, v in base.links.items()} if base else {}
        self.kept: dict[Place, str] = dict(base.kept) if base else {}
        """The bodies of keys and trust anchors."""
        self._index: _Index | None = None

    def fill(self, policy: Policy) -> None:
        """Take over a policy as it stands, unchecked: tests try what no file would be allowed to say."""
        withheld = {entry.id: entry for entry, _, _ in policy.withheld}
        rights = {number.right.id: number.right for number in policy.rights}
        kinds: tuple[Any, ...] = (
            policy.customers, policy.trunks, policy.gateways, policy.routes, policy.substitutions,
            rights.values(), withheld.values(), policy.unnumbered,
        )  # fmt: skip
        for record in (record for records in kinds for record in records):
            self.table(type(record))[record.id] = record
            for key in link_keys(record):
                self.links.setdefault(key, {})[type(record), record.id] = None
        spans: dict[Owner, set[Span]] = defaultdict(set)
        for number in policy.rights:
            spans[Right, number.right.id].add(Span(number.first, number.last))
        for entry, first, last in policy.withheld:
            spans[DoNotOriginate, entry.id].add(Span(first, last))
        self.spans |= {owner: frozenset(found) for owner, found in spans.items()}

    def table(self, kind: type[Any]) -> dict[str, Any]:
        """The records of a type by id, trunks with the customer they were put with."""
        return self._tables[kind]

    def forget_index(self) -> None:
        """Something changed."""
        self._index = None

    def same_as(self, other: Snapshot) -> bool:
        """Whether two versions say the same."""
        mine, theirs = ({owner: spans for owner, spans in one.spans.items() if spans} for one in (self, other))
        return (mine, self.kept) == (theirs, other.kept) and all(
            {record.id: self._whole(record) for record in self.table(kind).values()}
            == {record.id: other._whole(record) for record in other.table(kind).values()}
            for kind in KINDS.values()
        )

    def said_of(self, kind: type[Record], identifier: str) -> tuple[Record | None, frozenset[Span]]:
        """A record, a trunk with no more of its customer than the id, and its numbers."""
        record = self.table(kind).get(identifier)
        if isinstance(record, Trunk):
            record = replace(record, customer=Customer(record.customer.id, "", CustomerState.PENDING))
        return record, self.spans.get((kind, identifier), frozenset())

    # --- As records ---------------------------------------------------------------------------

    def get(self, kind: type[R], identifier: str) -> R | None:
        """See `ports.PolicyRecords`."""
        record = self.table(kind).get(identifier)
        return None if record is None else self._whole(record)

    def all(self, kind: type[R]) -> Iterator[R]:
        """See `ports.PolicyRecords`."""
        return (self._whole(record) for _, record in sorted(self.table(kind).items()))

    def numbers(self, kind: NumbersOf, identifier: str) -> Iterator[Span]:
        """See `ports.PolicyRecords`."""
        found = self.spans.get((kind, identifier), ())
        return iter(sorted(found, key=lambda span: (int(span.first), int(span.last))))

    def count(self, kind: NumbersOf, identifier: str) -> int:
        """See `ports.PolicyRecords`."""
        return len(self.spans.get((kind, identifier), ()))

    def covering(self, kind: type[R], number: str) -> Iterator[tuple[R, Span]]:
        """See `ports.PolicyRecords`."""
        for (owner, identifier), span in self._covering(number):
            if owner is kind:
                yield self.table(kind)[identifier], span

    def material(self) -> tuple[Material, ...]:
        """See `ports.PolicyRecords`."""
        return decode_all((*place, body) for place, body in self.kept.items())

    def _whole(self, record: R) -> R:
        """A record as it is read: a trunk with its customer as that is now."""
        if isinstance(record, Trunk):
            customer = self.table(Customer).get(record.customer.id, record.customer)
            return replace(record, customer=customer)
        return record

    # --- As facts of a call -------------------------------------------------------------------

    def facts(
        self, source: str | None, user: str | None, number: str | None, called: str | None, route: str | None
    ) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        found = self._source(source, user)
        covering = list(self._covering(number or ""))
        rights = tuple(
            NumberRight(self.table(Right)[owner], span.first, span.last)
            for (kind, owner), span in covering
            if kind is Right
        )
        entries = dict.fromkeys(owner for (kind, owner), _ in covering if kind is DoNotOriginate)
        holders = dict.fromkeys(right.right.customer for right in rights)
        return PolicyFacts(
            found,
            rights,
            self.version,
            tuple(self.table(Customer)[name] for name in holders if name in self.table(Customer)),
            tuple(self.table(DoNotOriginate)[name] for name in entries),
            self._route(called, route),
            self._substitutions(found),
            15,
        )

    def _source(self, source: str | None, user: str | None) -> Trunk | Gateway | None:
        keys = [] if user is None else [f"user/{user}"]
        keys += [f"address/{key}" for key in address_keys(source or "", self._indexed.bits)]
        for key in keys:
            for kind, identifier in self.links.get(key, ()):
                record: Trunk | Gateway = self._whole(self._tables[kind][identifier])
                return record
        return None

    def _route(self, called: str | None, named: str | None) -> Route | None:
        if named is not None and named in self.table(Route):
            return self.get(Route, named)
        for prefix in destination_keys(called or "", range(16)):
            for _, identifier in self.links.get(f"destination/{prefix}", ()):
                return self.get(Route, identifier)
        return None

    def _substitutions(self, source: Trunk | Gateway | None) -> tuple[Substitution, ...]:
        if not isinstance(source, Trunk):
            return ()
        mine = (rule for rule in self.table(Substitution).values() if rule.customer == source.customer.id)
        return tuple(sorted(mine, key=lambda rule: rule.id))

    def _covering(self, number: str) -> Iterator[tuple[Owner, Span]]:
        """Owners and their spans that cover a number, narrowest first, then by id."""
        keys = number_keys(number, self._indexed.shapes)
        found = (one for key in keys for one in self._indexed.owners.get(key, ()))
        return iter(sorted(found, key=lambda one: (*narrowest_first(one[1]), one[0][1])))

    @property
    def _indexed(self) -> _Index:
        if self._index is None:
            self._index = _Index(self)
        return self._index


class _Index:
    """What look-ups of a snapshot need, made at the first of them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.owners: dict[int, list[tuple[Owner, Span]]] = defaultdict(list)
        for owner, spans in snapshot.spans.items():
            for span in spans:
                for key in span_keys(span):
                    self.owners[key].append((owner, span))
        self.shapes = {shape(key) for key in self.owners}
        sources: tuple[Trunk | Gateway, ...] = (*snapshot.table(Trunk).values(), *snapshot.table(Gateway).values())
        networks = {(network.version, network.prefixlen) for source in sources for network in source.addresses}
        self.bits = sorted(networks, key=lambda pair: -pair[1])
