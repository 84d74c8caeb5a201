"""The declared mode ``last_known``: go on deciding from what was last read."""

from __future__ import annotations

from typing import Final

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.records import PolicyFacts
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import PolicyStore

MAX_REMEMBERED: Final = 10_000
"""Answers kept per process; about 300 bytes each."""


class LastKnown:
    """Wraps a store; while it cannot be read, answers what it last answered to the same question."""

    def __init__(self, store: PolicyStore) -> None:
        self._store = store
        self._known: Bounded[tuple[str | None, str | None, str | None], PolicyFacts] = Bounded(MAX_REMEMBERED)

    def facts(self, source: str | None, user: str | None, number: str | None) -> PolicyFacts:
        """See `ports.PolicyStore.facts`; raises only for a question never answered before."""
        question = (source, user, number)
        try:
            answer = self._store.facts(source, user, number)
        except StoreUnavailable:
            if (known := self._known.get(question)) is not None:
                return known
            raise
        self._known.put(question, answer)
        return answer
