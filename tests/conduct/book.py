"""A book of accounts for tests, with times in hours as `tests.offences` has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from shaken_plugin.conduct import decisions, view
from shaken_plugin.conduct.accounts import Unauthorised
from shaken_plugin.conduct.acts import Outcome
from shaken_plugin.conduct.book import Book, Calls
from shaken_plugin.conduct.state import State
from shaken_plugin.core.offences import OffenceRules
from shaken_plugin.core.records import Customer
from shaken_plugin.ports import PolicyRecords
from shaken_plugin.records.place import Place
from shaken_plugin.stores import statefile
from tests.offences import HOUR

ACME = "acme"
BEGIN = 0.0
"""Hour 0, as `tests.offences.Story` has it, so that both can be compared."""


class Bench:
    """A state file and its book. ``sync`` False waits for no disk."""

    def __init__(self, path: Path, rules: OffenceRules | None = None, *, sync: bool = True) -> None:
        self.path = path
        statefile.ensure(path)
        self.state = State(path)
        self.book = Book(self.state)
        self.rules = rules or OffenceRules(24 * HOUR)
        self.gather = 0.0
        self.seq = 0
        if not sync:
            with self.state.reading() as connection:
                connection.execute("COMMIT")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute("BEGIN")

    @staticmethod
    def at(hours: float) -> float:
        return BEGIN + hours * HOUR

    def read(self, calls: Iterable[tuple[float, str]], *, observed: bool = False) -> Calls:
        """Calls as if they were next in the ledger."""
        since = self.book.mark()
        made = [
            Unauthorised(
                f"spool:{self.seq + index}",
                ACME,
                number,
                self.at(hours),
                {"call_id": f"call-{self.seq + index}", "orig": number},
                observed,
            )
            for index, (hours, number) in enumerate(calls, 1)
        ]
        self.seq += len(made)
        return Calls(since, Place(self.seq, f"spool:{self.seq}"), made)

    def calls(self, calls: Iterable[tuple[float, str]], now: float | None = None, *, observed: bool = False) -> Outcome:
        """Calls that came, and what they led to; by default it is the hour of the last."""
        read = self.read(calls, observed=observed)
        moment = max(call.at for call in read.calls) if now is None else self.at(now)
        outcome = self.book.take(read, self.rules, moment, self.gather)
        assert outcome is not None
        return outcome

    def deliver(self, offence: int, hours: float) -> None:
        decisions.delivered(self.state, offence, "Ann", "called them", self.at(hours))

    def suspend(self, hours: float) -> None:
        decisions.suspend(self.state, ACME, "Ann", "because", self.at(hours))

    def cases(self) -> list[view.Case]:
        with self.state.reading() as connection:
            return view.cases(connection)

    def details(self, offence: int) -> view.Details:
        with self.state.reading() as connection:
            found = view.details(connection, offence)
        assert found is not None
        return found

    def end(self) -> str:
        """As `tests.offences.Story.end` says it."""
        texts = [
            f"{case.offence.id} {case.offence.stage.value}: {case.calls} call{'s' if case.calls != 1 else ''}"
            for case in reversed(self.cases())
        ]
        with self.state.reading() as connection:
            suspended = [standing.customer for standing in view.standings(connection)]
        return ", ".join([*texts, *(["customer suspended"] if ACME in suspended else [])])

    @staticmethod
    def policy(customers: Sequence[Customer]) -> Callable[[], AbstractContextManager[PolicyRecords]]:
        """What `ports.PolicyWriter.records` of a policy with these customers is."""

        @contextmanager
        def records() -> Iterator[PolicyRecords]:
            found: Any = SimpleNamespace(
                get=lambda _kind, one: next((each for each in customers if each.id == one), None),
                all=lambda _kind: iter(customers),
            )
            yield cast("PolicyRecords", found)

        return records
