"""What every writer of policies checks: whom a record refers to, and what no two records may have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TypeVar

from shaken_plugin.core.material import Material, StoredPair
from shaken_plugin.core.records import Customer, Gateway, Record, Right, Route, Substitution, Trunk
from shaken_plugin.errors import ConflictError
from shaken_plugin.stores.material import MAX_KEPT, NAMES, Place, encode, named, place_of
from shaken_plugin.stores.policy import KIND_NAMES, network_key

R = TypeVar("R", bound=Record)


def references(record: Record) -> Iterator[tuple[type[Record], str]]:
    """The records that have to be there before this one."""
    match record:
        case Trunk():
            yield Customer, record.customer.id
        case Right():
            yield Customer, record.customer
        case Substitution():
            yield Customer, record.customer
            for route in record.routes:
                yield Route, route


def claims(record: Record) -> Iterator[tuple[str, str]]:
    """What belongs to one record alone: as a key, and for people."""
    match record:
        case Trunk() | Gateway():
            for network in record.addresses:
                yield f"address/{network_key(network)}", f"the address {network}"
    match record:
        case Trunk():
            for user in record.users:
                yield f"user/{user}", f"the user {user}"
        case Route():
            for prefix in record.destinations:
                yield f"destination/{prefix}", f"the destination {prefix}"


def reference_key(kind: type[Record], identifier: str) -> str:
    """The key under which those are found that refer to a record."""
    return f"{KIND_NAMES[kind]}/{identifier}"


def link_keys(record: Record) -> Iterator[str]:
    """Every key that a record is found by: what it claims, and whom it refers to."""
    seen: set[str] = set()
    for key in (*(key for key, _ in claims(record)), *(reference_key(*other) for other in references(record))):
        if key not in seen:
            seen.add(key)
            yield key


class Draft(ABC):
    """The rules of `ports.PolicyDraft`, over what a store can do."""

    @abstractmethod
    def get(self, kind: type[R], identifier: str) -> R | None:
        """See `ports.PolicyRecords`."""

    @abstractmethod
    def linked(self, key: str) -> Iterable[tuple[type[Record], str]]:
        """The records that have a link key."""

    @abstractmethod
    def write(self, record: Record) -> None:
        """Set a record that was checked."""

    @abstractmethod
    def erase(self, kind: type[Record], identifier: str) -> None:
        """Take out a record that is there, with its numbers."""

    @abstractmethod
    def material(self) -> tuple[Material, ...]:
        """See `ports.PolicyRecords`."""

    @abstractmethod
    def write_material(self, place: Place, body: str | None) -> bool:
        """Set a key or trust anchors that were checked; None takes them out. Whether there were any before."""

    def put(self, record: Record) -> None:
        """See `ports.PolicyDraft`."""
        me = (type(record), record.id)
        for kind, identifier in references(record):
            if self.get(kind, identifier) is None:
                raise ConflictError(f"{_named(*me)}: there is no {_named(kind, identifier)}")
        for key, text in claims(record):
            for other in self.linked(key):
                if other != me:
                    raise ConflictError(f"{_named(*me)}: {text} belongs to {_named(*other)} already")
        self.write(record)

    def remove(self, kind: type[Record], identifier: str) -> None:
        """See `ports.PolicyDraft`."""
        self.require(kind, identifier)
        linked = self.linked(reference_key(kind, identifier))
        others = sorted(linked, key=lambda other: (KIND_NAMES[other[0]], other[1]))
        trunks = [name for other, name in others if other is Trunk]
        if rest := [other for other in others if other[0] is not Trunk]:
            count = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
            raise ConflictError(f"{_named(kind, identifier)}: {_named(*rest[0])}{count} still refers to it")
        for trunk in trunks:
            self.erase(Trunk, trunk)
        self.erase(kind, identifier)

    def put_material(self, material: Material) -> None:
        """See `ports.PolicyDraft`."""
        place = place_of(material)
        others = [other for other in self.material() if place_of(other) != place]
        if len(others) >= MAX_KEPT:
            raise ConflictError(f"{named(place)}: there are {len(others)} keys and trust anchors already, the most")
        for other in others:
            # RFC 8224 §7.4: a new credential needs a new "info" URL, or verifiers that cached the old
            # document refuse the new signatures.
            if isinstance(material, StoredPair) and isinstance(other, StoredPair) and material.x5u == other.x5u:
                text = f"the URL {material.x5u} belongs to {named(place_of(other))} already; every pair needs its own"
                raise ConflictError(f"{named(place)}: {text}")
        self.write_material(place, encode(material))

    def remove_material(self, kind: type[Material], name: str) -> None:
        """See `ports.PolicyDraft`."""
        place = NAMES[kind], name
        if not self.write_material(place, None):  # also what is damaged
            raise ConflictError(f"there is no {named(place)}")

    def require(self, kind: type[Record], identifier: str) -> None:
        """Raise `ConflictError` where a record is not there."""
        if self.get(kind, identifier) is None:
            raise ConflictError(f"there is no {_named(kind, identifier)}")


def _named(kind: type[Record], identifier: str) -> str:
    return f"{KIND_NAMES[kind].replace('_', '-')} {identifier}"
