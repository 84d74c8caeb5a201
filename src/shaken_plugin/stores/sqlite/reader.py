"""Answering questions about calls from the store's file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any, Final

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.records import (
    Customer,
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
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BUSY_TIMEOUT
from shaken_plugin.ports import Span
from shaken_plugin.sqlitefile import Connections
from shaken_plugin.stores.policy import (
    KIND_NAMES,
    KINDS,
    address_keys,
    destination_keys,
    narrowest_first,
    number_keys,
)
from shaken_plugin.stores.sqlite.codec import decode
from shaken_plugin.stores.sqlite.schema import DAMAGE, check_schema, version_and_which

MAX_SOURCES: Final = 4_096
"""Sources (address and user) remembered per process between two policy versions."""

MAX_RECORDS: Final = 4_096
"""Records likewise, about 1 KB each."""

_COVERING: Final = """
SELECT n.owner, s.first, s.last FROM number AS n LEFT JOIN span AS s ON s.id = n.span
WHERE n.key IN ({}) AND n.until IS NULL
"""


_OWNER: Final = """
SELECT o.kind, o.id, r.body FROM owner AS o
LEFT JOIN record AS r ON r.kind = o.kind AND r.id = o.id AND r.until IS NULL WHERE o.number = ?
"""

_LIMITED: Final = """
SELECT EXISTS (
    SELECT 1 FROM record WHERE kind = ? AND until IS NULL AND body LIKE '%"concurrent":%' AND body LIKE '%"limits":%'
)
"""
"""A name or address with that in it makes a warning too many."""


_Question = tuple[str | None, str | None, str, str, str | None]


class SqliteStore:
    """Answers from a file that `SqlitePolicy` or `replace_policy` wrote.

    Args:
        path: the file. It need not exist yet: until it does, every question fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections = Connections(path, BUSY_TIMEOUT, self._prepare)

    def limits_concurrency(self) -> bool:
        """Whether any customer has a limit on concurrent calls.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        try:
            return bool(self._connections.get().execute(_LIMITED, (KIND_NAMES[Customer],)).fetchone()[0])
        except (sqlite3.Error, StoreError, OSError) as exc:
            self._connections.forget(exc)
            raise StoreUnavailable(f"{self._path}: {exc}") from exc

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        question = source, user, number or "", called or "", route
        try:
            return self._facts_unchanged(question) or self._facts(question)
        except (sqlite3.Error, StoreError, OSError) as exc:
            self._connections.forget(exc)
            self._local.content = None
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        except DAMAGE as exc:
            raise StoreUnavailable(f"{self._path}: its content is damaged: {exc!r}") from exc

    def _facts(self, question: _Question) -> PolicyFacts:
        """The answer, read in one transaction, so that it is of one version."""
        connection = self._connections.get()  # first: whether it can be had is found out once
        before = self._connections.stamp()
        connection.execute("BEGIN")
        try:
            content = self._content(connection)
            content.stamp = before
            return content.facts(*question)
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")

    def _facts_unchanged(self, question: _Question) -> PolicyFacts | None:
        """The answer without a transaction; None where there may have been a commit since the last one, or meanwhile.

        That is three statements less for a number with which nobody called before.
        """
        if getattr(self._local, "content", None) is None:
            return None
        stamp = self._connections.stamp(look=True)  # first: it may open the file anew
        content: _Content | None = self._local.content
        if content is None or stamp is None or content.stamp != stamp:
            return None
        try:
            facts = content.facts(*question)
        except (StoreError, *DAMAGE):
            self._local.content = None  # it may know something of two versions
            return None  # two statements saw two versions, or it is damaged: told in a transaction
        return facts if self._connections.stamp() == content.stamp else None

    def stamp(self) -> Hashable | None:
        """See `ports.PolicyStore.stamp`."""
        return self._connections.stamp()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = 1")
        if check_schema(connection, self._path) == 0:
            raise StoreError("no policy in it yet; run 'shaken apply'")
        self._local.content = None

    def _content(self, connection: sqlite3.Connection) -> _Content:
        content: _Content | None = self._local.content
        version, which = version_and_which(connection)
        if content is None or (content.version, content.which) != (version, which):
            content = self._local.content = _Content(connection, version, which)
        return content


class _Content:
    """What one version says, read through one connection; what was read before is remembered."""

    def __init__(self, connection: sqlite3.Connection, version: int, which: str | None) -> None:
        self._connection = connection
        self.stamp: Hashable | None = None
        """Of the file, from before the version was read; None where that could not be told."""
        self.version = version
        self.which = which
        shapes: dict[str, list[int]] = {"number": [], "address": [], "destination": []}
        for kind, value in connection.execute("SELECT kind, value FROM shape"):
            shapes[kind].append(value)
        self._numbers, self._destinations = frozenset(shapes["number"]), frozenset(shapes["destination"])
        self._route_digits = max(self._destinations, default=0)
        self._bits = sorted((divmod(value, 1000) for value in shapes["address"]), key=lambda pair: -pair[1])
        self._sources: Bounded[tuple[str | None, str | None], tuple[Trunk | Gateway | None]] = Bounded(MAX_SOURCES)
        self._records: Bounded[tuple[type[Record], str], Any] = Bounded(MAX_RECORDS)
        self._owners: Bounded[int, Any] = Bounded(MAX_RECORDS)
        self._rules: Bounded[str, tuple[Substitution, ...]] = Bounded(MAX_RECORDS)

    def facts(self, source: str | None, user: str | None, number: str, called: str, route: str | None) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        known = self._sources.get((source, user))
        if known is None:
            known = (self._source(source, user),)
            self._sources.put((source, user), known)
        covering = self._covering(number)
        rights = tuple(
            NumberRight(owner, span.first, span.last) for owner, span in covering if isinstance(owner, Right)
        )
        holders = (self._get(Customer, name) for name in dict.fromkeys(right.right.customer for right in rights))
        return PolicyFacts(
            known[0],
            rights,
            self.version,
            tuple(holder for holder in holders if holder is not None),
            tuple(dict.fromkeys(owner for owner, _ in covering if isinstance(owner, DoNotOriginate))),
            self._route(called, route),
            self._substitutions(known[0]),
            self._route_digits,
        )

    def _source(self, source: str | None, user: str | None) -> Trunk | Gateway | None:
        keys = [f"user/{user}"] if user is not None and _is_text(user) else []
        keys += [f"address/{key}" for key in address_keys(source or "", self._bits)]
        for key in keys:
            if (found := self._linked(key)) is not None:
                record: Trunk | Gateway = self._must(*found)
                return record
        return None

    def _covering(self, number: str) -> list[tuple[Right | DoNotOriginate, Span]]:
        keys = number_keys(number, self._numbers)
        rows = self._connection.execute(_covering(len(keys)), keys).fetchall()
        found = [
            (self._owner(owner), Span(number, number) if first is None else Span(str(first), str(last)))
            for owner, first, last in rows
        ]
        return sorted(found, key=lambda one: (*narrowest_first(one[1]), one[0].id)) if len(found) > 1 else found

    def _owner(self, number: int) -> Any:
        known = self._owners.get(number)
        if known is None:
            kind, identifier, body = self._connection.execute(_OWNER, (number,)).fetchone()
            if body is None:
                raise _not_there(kind, identifier)
            known = decode(KINDS[kind], body, lambda name: self._get(Customer, name))
            self._owners.put(number, known)
        return known

    def _route(self, called: str, named: str | None) -> Route | None:
        if named is not None and _is_text(named):
            chosen: Route | None = self._get(Route, named)
            if chosen is not None:
                return chosen
        for prefix in destination_keys(called, self._destinations) if _is_text(called) else ():
            if (found := self._linked(f"destination/{prefix}")) is not None:
                route: Route = self._must(*found)
                return route
        return None

    def _substitutions(self, source: Trunk | Gateway | None) -> tuple[Substitution, ...]:
        if not isinstance(source, Trunk):
            return ()
        customer = source.customer.id
        known = self._rules.get(customer)
        if known is None:
            rows = self._connection.execute(
                "SELECT id FROM link WHERE key = ? AND kind = 'substitution' ORDER BY id", (f"customer/{customer}",)
            )
            known = tuple(self._must(Substitution, identifier) for (identifier,) in rows.fetchall())
            self._rules.put(customer, known)
        return known

    def _linked(self, key: str) -> tuple[type[Record], str] | None:
        row = self._connection.execute("SELECT kind, id FROM link WHERE key = ?", (key,)).fetchone()
        return None if row is None else (KINDS[row[0]], row[1])

    def _must(self, kind: type[Record], identifier: str) -> Any:
        record = self._get(kind, identifier)
        if record is None:
            raise _not_there(KIND_NAMES[kind], identifier)
        return record

    def _get(self, kind: type[Record], identifier: str) -> Any:
        known = self._records.get((kind, identifier))
        if known is None:
            row = self._connection.execute(
                "SELECT body FROM record WHERE kind = ? AND id = ? AND until IS NULL", (KIND_NAMES[kind], identifier)
            ).fetchone()
            if row is None:
                return None
            known = decode(kind, row[0], lambda name: self._get(Customer, name))
            self._records.put((kind, identifier), known)
        return known


@cache
def _covering(keys: int) -> str:
    return _COVERING.format(",".join("?" * keys))


def _not_there(kind: str, identifier: str) -> StoreError:
    return StoreError(f"{kind} {identifier} is named but not there: the content is damaged")


def _is_text(value: str) -> bool:
    """Whether SQLite can be asked for it: names with bytes that are not UTF-8 are nobody's."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
