"""What customers were put under beside the policy, by a person or by offences.

It lies in a file of its own (`stores.statefile`), which an import of the policy does not lock. A worker asks
for it, or whether it has changed, whenever it looks for changes of the policy (`authentication.memory`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Hashable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.records import Customer, CustomerState, PolicyFacts, Trunk
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BUSY_TIMEOUT
from shaken_plugin.ports import PolicyStore, Standing, StandingSource
from shaken_plugin.sqlitefile import Connections
from shaken_plugin.stores.statefile import check, missing

MAX_KNOWN: Final = 4_096
"""Standings remembered per process."""

REINSTATED: Final = "reinstated"
"""The state of a customer against whom nothing stands any more, in the file."""

_OF: Final = "SELECT state, at, who, why FROM standing WHERE customer = ? ORDER BY stamp DESC, uid DESC LIMIT 1"
_OF_V1: Final = "SELECT state, at, who, why FROM standing WHERE customer = ? ORDER BY id DESC LIMIT 1"
"""Of schema 1, until 'shaken store migrate': an upgrade must let nobody call who is suspended."""

_LAST: Final = """
SELECT (SELECT value FROM meta WHERE key = 'id'), schema_version, last.*
FROM pragma_schema_version LEFT JOIN (SELECT rowid, * FROM standing ORDER BY rowid DESC LIMIT 1) AS last
"""
"""What tells one content of a file's table from all others that it may have, in whichever schema."""

_RANK: Final = {CustomerState.SUSPENDED: 1, CustomerState.TERMINATED: 2}
"""The states that a standing can be; a policy's others are better."""


def worse(policy: CustomerState, standing: CustomerState) -> CustomerState:
    """The state that holds: TERMINATED before SUSPENDED before the others."""
    return max(policy, standing, key=lambda state: _RANK.get(state, 0))


class WithStanding:
    """A `ports.PolicyStore` whose customers are in the worse state of policy and standing.

    Args:
        store: has the policy.
        source: has the standings; while it cannot be read, neither can this.
    """

    def __init__(self, store: PolicyStore, source: StandingSource) -> None:
        self._store = store
        self._source = source

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        facts = self._store.facts(source, user, number, called, route)
        trunk = facts.source if isinstance(facts.source, Trunk) else None
        customers = {customer.id: customer for customer in facts.holders}
        if trunk is not None:
            customers[trunk.customer.id] = trunk.customer
        changed = {
            identifier: replace(customer, state=worse(customer.state, standing.state))
            for identifier, customer in customers.items()
            if (standing := self._source.of(identifier)) is not None
        }
        if not changed:
            return facts
        if trunk is not None and trunk.customer.id in changed:
            facts = replace(facts, source=replace(trunk, customer=changed[trunk.customer.id]))
        return replace(facts, holders=_with(facts.holders, changed))

    def stamp(self) -> Hashable | None:
        """See `ports.PolicyStore.stamp`."""
        policy, standings = self._store.stamp(), self._source.stamp()
        return None if policy is None or standings is None else (policy, standings)


def _with(holders: Iterable[Customer], changed: dict[str, Customer]) -> tuple[Customer, ...]:
    return tuple(changed.get(holder.id, holder) for holder in holders)


class StandingFile:
    """A `ports.StandingSource` in the file of the runtime state, for SIP workers.

    One read by index for each customer of a call, some 10 µs; what was read holds as long as the stamp stays.

    Args:
        path: the file. It need not exist yet: until it does, every question fails.
        policy: the policy's file, which remembers whose state file this must be.
    """

    def __init__(self, path: Path, policy: Path | None = None) -> None:
        self._path = path
        self._policy = policy
        self._connections = Connections(path, BUSY_TIMEOUT, self._prepare)
        self._local = threading.local()
        self._known: Bounded[str, tuple[Hashable | None, Standing | None]] = Bounded(MAX_KNOWN)
        self._of = _OF

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = 1")
        self._of = _OF_V1 if check(connection, self._path, self._policy, oldest=1) == 1 else _OF

    def _rows(self, customer: str) -> list[tuple[Any, ...]]:
        for _ in range(2):
            connection = self._connections.get()
            try:
                return connection.execute(self._of, (customer,)).fetchall()
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                    raise
                self._connections.forget()  # its tables are others: it was migrated a moment ago
        raise StoreUnavailable(f"{self._path}: the table of standings is missing or is another")

    def of(self, customer: str) -> Standing | None:
        """See `ports.StandingSource.of`."""
        known = self._known.get(customer)
        # Not at the first question: a file that is locked costs one wait, and not one for each look.
        stamp = None if known is None else self.stamp(look=True)
        if known is not None and stamp is not None and known[0] == stamp:
            return known[1]
        standing = self._read(customer)
        self._known.put(customer, (stamp, standing))
        return standing

    def _read(self, customer: str) -> Standing | None:
        try:
            rows = self._rows(customer)
        except FileNotFoundError as exc:
            self._connections.forget()
            raise StoreUnavailable(str(missing(self._path, self._policy))) from exc
        except StoreError as exc:
            self._connections.forget()
            raise StoreUnavailable(str(exc)) from exc
        except (sqlite3.Error, OSError) as exc:
            self._connections.forget(exc)
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        if not rows or rows[0][0] == REINSTATED:
            return None
        state, at, who, why = rows[0]
        try:
            standing = Standing(customer, CustomerState(state), float(at), str(who), str(why))
        except (ValueError, TypeError) as exc:
            raise StoreUnavailable(f"{self._path}: its content is damaged: {exc}") from exc
        return standing

    def stamp(self, *, look: bool = False) -> Hashable | None:
        """See `ports.StandingSource.stamp`; ``look`` as for `Connections.stamp`.

        The file changes with every call that counts as an offence, the table of standings seldom: rows are only
        ever added to it, so the last one is asked for when the file has changed. Another file in its place may
        have as many, under the same id: which file it is, and when it was written last, belong to the stamp.
        """
        file = self._connections.stamp(look=look)
        if file is None:
            return None
        known: tuple[Hashable, Hashable] | None = getattr(self._local, "known", None)
        if known is None or known[0] != file:
            try:
                last = self._connections.get().execute(_LAST).fetchone()
            except (sqlite3.Error, StoreError, OSError) as exc:
                self._connections.forget(exc)
                return None
            known = self._local.known = file, (file.file, file.written, last)
        return known[1]


class StandingInMemory:
    """A `ports.StandingSource` for tests and tools. ``broken`` makes every question fail."""

    def __init__(self, *standings: Standing) -> None:
        self.standings = {standing.customer: standing for standing in standings}
        self.broken = False

    def of(self, customer: str) -> Standing | None:
        """See `ports.StandingSource.of`."""
        if self.broken:
            raise StoreUnavailable("the standings were told to fail")
        return self.standings.get(customer)

    def stamp(self) -> Hashable | None:
        """See `ports.StandingSource.stamp`."""
        return None if self.broken else tuple(self.standings.values())
