"""Policy stores in memory: for tools, tests, and as the measure for every other store."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from shaken_plugin.core.material import Material
from shaken_plugin.core.records import PolicyFacts, Record
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Author, Change, NumbersOf, PolicyDraft, PolicyRecords, Span
from shaken_plugin.stores.drafts import Draft, link_keys
from shaken_plugin.stores.material import Place
from shaken_plugin.stores.policy import Policy, span_keys
from shaken_plugin.stores.snapshot import Snapshot


class MemoryStore:
    """Answers from a `Policy` held in memory. ``broken`` makes every question fail."""

    def __init__(self, policy: Policy, version: int = 1) -> None:
        self._snapshot = Snapshot(version)
        self._snapshot.fill(policy)
        self.broken = False

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        if self.broken:
            raise StoreUnavailable("the store was told to fail")
        return self._snapshot.facts(source, user, number, called, route)

    def stamp(self) -> Hashable | None:
        """See `ports.PolicyStore.stamp`."""
        return None if self.broken else self._snapshot.version


class MemoryPolicy:
    """A `ports.PolicyWriter` and `ports.PolicyStore` in memory; every version is kept whole.

    ``broken`` makes every question about a call fail.
    """

    def __init__(self) -> None:
        self._versions = [Snapshot(0)]
        self._changes: list[Change] = []
        self._writing = Lock()
        self.broken = False

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        if self.broken:
            raise StoreUnavailable("the store was told to fail")
        return self._versions[-1].facts(source, user, number, called, route)

    def stamp(self) -> Hashable | None:
        """See `ports.PolicyStore.stamp`."""
        return None if self.broken else self._versions[-1].version

    def version(self) -> int:
        """See `ports.MaterialSource`."""
        if self.broken:
            raise StoreUnavailable("the store was told to fail")
        return self._versions[-1].version

    def material(self) -> tuple[Material, ...]:
        """See `ports.MaterialSource`."""
        if self.broken:
            raise StoreUnavailable("the store was told to fail")
        return self._versions[-1].material()

    @contextmanager
    def change(self, author: Author, what: str) -> Iterator[PolicyDraft]:
        """See `ports.PolicyWriter`."""
        with self._writing:
            base = self._versions[-1]
            draft = MemoryDraft(base.version + 1, base)
            yield draft
            if not draft.same_as(base):
                self._changes.append(Change(draft.version, author.at, author.who, author.why, what))
                self._versions.append(Snapshot(draft.version, draft))
                base.kept = {}  # keys have no history

    @contextmanager
    def records(self, version: int | None = None) -> Iterator[PolicyRecords]:
        """See `ports.PolicyWriter`."""
        versions = self._versions
        wanted = len(versions) - 1 if version is None else version
        if not 0 <= wanted < len(versions):
            raise StoreError(f"there is no version {wanted}; the one in force is {len(versions) - 1}")
        yield versions[wanted]

    def changes(self, since: int = 0, until: int | None = None) -> Iterator[Change]:
        """See `ports.PolicyWriter`."""
        return (one for one in tuple(self._changes) if one.version > since and (until is None or one.version <= until))

    def changes_of(self, *named: tuple[type[Record], str]) -> Iterator[Change]:
        """See `ports.PolicyWriter`."""
        versions = self._versions
        for change in reversed(self._changes):
            before, after = versions[change.version - 1], versions[change.version]
            if any(before.said_of(*one) != after.said_of(*one) for one in named):
                yield change

    def version_at(self, moment: float) -> int:
        """See `ports.PolicyWriter`."""
        return max((change.version for change in self._changes if change.at <= moment), default=0)


class MemoryDraft(Snapshot, Draft):
    """A snapshot that is being changed."""

    def write(self, record: Record) -> None:
        """See `Draft`."""
        self._unlink(type(record), record.id)
        self.table(type(record))[record.id] = record
        for key in link_keys(record):
            self.links.setdefault(key, {})[type(record), record.id] = None
        self.forget_index()

    def erase(self, kind: type[Record], identifier: str) -> None:
        """See `Draft`."""
        self._unlink(kind, identifier)
        del self.table(kind)[identifier]
        self.spans.pop((kind, identifier), None)
        self.forget_index()

    def write_material(self, place: Place, body: str | None) -> bool:
        """See `Draft`."""
        before = self.kept.pop(place, None)
        if body is not None:
            self.kept[place] = body
        return before is not None

    def linked(self, key: str) -> Iterable[tuple[type[Record], str]]:
        """See `Draft`."""
        return tuple(self.links.get(key, ()))

    def add_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """See `ports.PolicyDraft`."""
        self.require(kind, identifier)
        # All of them before the first is added: one that is none changes nothing.
        checked = {Span(*span): tuple(span_keys(span)) for span in spans}
        there = self.spans.get((kind, identifier), frozenset())
        self.spans[kind, identifier] = there | checked.keys()
        self.forget_index()
        return len(self.spans[kind, identifier]) - len(there)

    def remove_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """See `ports.PolicyDraft`."""
        self.require(kind, identifier)
        there = self.spans.get((kind, identifier), frozenset())
        self.spans[kind, identifier] = there - {Span(*span) for span in spans}
        self.forget_index()
        return len(there) - len(self.spans[kind, identifier])

    def _unlink(self, kind: type[Record], identifier: str) -> None:
        old = self.table(kind).get(identifier)
        for key in () if old is None else link_keys(old):
            self.links[key].pop((kind, identifier), None)


class ReplayInMemory:
    """A `ports.ReplayMemory` for one process, for tests and tools."""

    def __init__(self) -> None:
        self.seen: dict[bytes, tuple[bytes, float]] = {}
        self.broken = False

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """See `ports.ReplayMemory.first_use`."""
        if self.broken:
            raise StoreUnavailable("broken on purpose")
        known = self.seen.get(token)
        if known is not None and known[0] != call and known[1] >= now:
            return False
        self.seen[token] = (call, until)
        return True
