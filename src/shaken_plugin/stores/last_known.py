"""The declared mode ``last_known``: go on deciding from what was last read."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Final

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.records import PolicyFacts, Route
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import PolicyStore, Standing, StandingSource

MAX_REMEMBERED: Final = 10_000
"""Sources, and numbers, kept per process, surely the half of them that was asked for last; about 300 bytes each."""

MAX_ROUTES: Final = 1_000
"""Routes likewise."""


class _Stamped:
    """The stamp of a source, made another by every answer that was given in its place.

    Whoever asks for it before and after a question thereby knows whether the answer is the source's own. Of the
    failure the source's stamp may tell nothing: one read that fails is no commit.
    """

    def __init__(self, source: PolicyStore | StandingSource) -> None:
        self._stamped = source
        self._answered_for = object()

    def _answers_for_it(self) -> None:
        self._answered_for = object()  # not a count, which two threads could raise by one

    def stamp(self) -> Hashable | None:
        """See `ports.PolicyStore.stamp`."""
        stamp = self._stamped.stamp()
        return None if stamp is None else (stamp, self._answered_for)


class LastKnown(_Stamped):
    """Wraps a store; while it cannot be read, answers what it last answered.

    Source, calling number and route are remembered apart: whoever is called for the first time while the
    store is down must not cost a known caller its level.
    """

    def __init__(self, store: PolicyStore) -> None:
        super().__init__(store)
        self._store = store
        self._sources: Bounded[tuple[str | None, str | None], PolicyFacts] = Bounded(MAX_REMEMBERED)
        self._numbers: Bounded[str | None, PolicyFacts] = Bounded(MAX_REMEMBERED)
        self._routes: dict[str, Route] = {}
        self._version = 0

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        """See `ports.PolicyStore.facts`; raises only for a source or number never asked for before."""
        try:
            answer = self._store.facts(source, user, number, called, route)
        except StoreUnavailable:
            came, holds = self._sources.peek((source, user)), self._numbers.peek(number)
            if came is None or holds is None:
                raise
            self._answers_for_it()
            return replace(
                holds, source=came.source, substitutions=came.substitutions, route=self._route(called or "", route)
            )
        self._sources.put((source, user), answer)
        self._numbers.put(number, answer)
        if answer.version != self._version:
            self._routes, self._version = {}, answer.version
        if answer.route is not None and len(self._routes) < MAX_ROUTES:
            self._routes[answer.route.id] = answer.route
        return answer

    def _route(self, called: str, named: str | None) -> Route | None:
        routes = dict(self._routes)
        if named is not None and named in routes:
            return routes[named]
        matching = [
            (len(prefix), route)
            for route in routes.values()
            for prefix in route.destinations
            if called.startswith(prefix)
        ]
        return max(matching, key=lambda pair: pair[0])[1] if matching else None


class LastStanding(_Stamped):
    """Wraps the standings of customers; while they cannot be read, answers what it last answered."""

    def __init__(self, source: StandingSource) -> None:
        super().__init__(source)
        self._source = source
        self._known: Bounded[str, tuple[Standing | None]] = Bounded(MAX_REMEMBERED)

    def of(self, customer: str) -> Standing | None:
        """See `ports.StandingSource.of`; raises only for a customer never asked for before."""
        try:
            standing = self._source.of(customer)
        except StoreUnavailable:
            known = self._known.peek(customer)
            if known is None:
                raise
            self._answers_for_it()
            return known[0]
        self._known.put(customer, (standing,))
        return standing
