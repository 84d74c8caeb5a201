"""Random changes of every policy store, compared step by step with the one in memory."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shaken_plugin.core.records import (
    Basis,
    Customer,
    CustomerState,
    DoNotOriginate,
    Gateway,
    Record,
    Right,
    Route,
    Substitution,
    Trunk,
    Withheld,
)
from shaken_plugin.errors import ConflictError, NumberError
from shaken_plugin.ports import Author, NumbersOf, PolicyDraft, PolicyRecords, Span
from shaken_plugin.stores.memory import MemoryPolicy
from shaken_plugin.stores.policy import KINDS, NUMBER_KINDS
from tests.contract.backends import WRITERS, Backend

NAMES = st.sampled_from(["a", "b", "c"])
"""Few, so that records meet."""

ADDRESSES = st.lists(
    st.sampled_from([ip_network(text) for text in ("192.0.2.0/24", "192.0.2.7", "0.0.0.0/0", "2001:db8::/32")]),
    unique=True,
    max_size=2,
).map(tuple)
USERS = st.lists(st.sampled_from(["alice", "bob"]), unique=True, max_size=2).map(tuple)
CUSTOMERS = st.builds(Customer, NAMES, NAMES, st.sampled_from(CustomerState))
RECORDS: st.SearchStrategy[Record] = st.one_of(
    CUSTOMERS,
    st.builds(Trunk, NAMES, CUSTOMERS, addresses=ADDRESSES, users=USERS),
    st.builds(Gateway, NAMES, NAMES, addresses=ADDRESSES),
    st.builds(Right, NAMES, NAMES, st.sampled_from(Basis), suspended=st.booleans()),
    st.builds(DoNotOriginate, NAMES, st.sampled_from(Withheld)),
    st.builds(Route, NAMES, st.lists(st.sampled_from(["1", "121", "1215", "44"]), unique=True, max_size=3).map(tuple)),
    st.builds(Substitution, NAMES, NAMES, st.just("12155551212"), st.lists(NAMES, max_size=2).map(tuple)),
)

NUMBERS = ["1000", "1001", "1010", "1099", "1234", "1999", "12150", "12159"]
SPANS = st.lists(
    st.tuples(st.sampled_from([*NUMBERS, "911", "0123"]), st.sampled_from(NUMBERS)).map(
        lambda pair: Span(*pair) if len(pair[0]) == len(pair[1]) else Span(pair[0], pair[0])
    ),
    max_size=4,
)
OWNERS = st.sampled_from(NUMBER_KINDS)

STEPS = st.one_of(
    st.tuples(st.just("put"), RECORDS),
    st.tuples(st.just("remove"), st.sampled_from([*KINDS.values()]), NAMES),
    st.tuples(st.just("add_numbers"), OWNERS, NAMES, SPANS),
    st.tuples(st.just("add_numbers"), OWNERS, NAMES, SPANS),
    st.tuples(st.just("remove_numbers"), OWNERS, NAMES, SPANS),
)


class Undone(Exception):  # no error: it ends a change
    """Leaves a change."""


def attempt(draft: PolicyDraft, step: tuple[Any, ...]) -> object:
    """Do one step; what it gives, or how it was refused."""
    name, *arguments = step
    try:
        return getattr(draft, name)(*arguments)
    except ConflictError as exc:
        return str(exc)
    except NumberError:
        return NumberError  # which of several is told first is left open


def told(records: PolicyRecords) -> tuple[Any, ...]:
    """All that a version says."""
    owners: list[tuple[NumbersOf, str]] = [(kind, record.id) for kind in NUMBER_KINDS for record in records.all(kind)]
    return (
        records.version,
        [list(records.all(kind)) for kind in KINDS.values()],
        [(list(records.numbers(*owner)), records.count(*owner)) for owner in owners],
        [list(records.covering(kind, number)) for kind in NUMBER_KINDS for number in NUMBERS],
    )


class Compared(RuleBasedStateMachine):
    """A store and the model beside it. Versions of the store run ahead by ``ahead``."""

    make: Any = None

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shaken-model-"))
        self.backend: Backend = type(self).make(self.folder)
        self.model = MemoryPolicy()
        with self.backend.writer.records() as records:
            self.ahead = records.version

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @rule(steps=st.lists(STEPS, max_size=6), undone=st.integers(0, 4))
    def change(self, steps: list[tuple[Any, ...]], undone: int) -> None:
        results = []
        for writer in (self.model, self.backend.writer):
            found: list[object] = []
            try:
                with writer.change(Author("a", "b", 0.0), "c") as draft:
                    found += [attempt(draft, step) for step in steps]
                    found.append(self._shifted(draft, writer is not self.model))
                    if undone == 0:
                        raise Undone
            except Undone:
                pass
            results.append(found)
        assert results[0] == results[1]

    @rule(back=st.integers(0, 12))
    def look_back(self, back: int) -> None:
        newest = self._version()
        version = max(0, newest - back)
        with self.model.records(version) as expected, self.backend.writer.records(version + self.ahead) as found:
            assert self._shifted(found, True) == told(expected)

    @rule(
        source=st.sampled_from([None, "192.0.2.7", "192.0.2.8", "198.51.100.1", "2001:db8::1", "x"]),
        user=st.sampled_from([None, "alice", "bob", "carol"]),
        number=st.sampled_from([None, *NUMBERS, "1050", "12155", "99"]),
        called=st.sampled_from([None, "12155551212", "1610", "4420", "7"]),
        route=st.sampled_from([None, "a", "b", "x"]),
    )
    def ask(self, **question: Any) -> None:
        found = self.backend.store.facts(**question)
        assert replace(found, version=found.version - self.ahead) == self.model.facts(**question)

    @invariant()
    def the_history_is_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        changes = [
            change._replace(version=change.version - self.ahead) for change in self.backend.writer.changes(self.ahead)
        ]
        assert changes == list(self.model.changes())

    def _version(self) -> int:
        with self.model.records() as records:
            return records.version

    def _shifted(self, records: PolicyRecords, shift: bool) -> object:
        version, *rest = told(records)
        return (version - self.ahead if shift else version, *rest)


# The other ways to reach a Redis carry the same bytes.
@pytest.mark.parametrize("name", ["sqlite", "redis", "a second host's copy"])
def test_any_sequence_of_changes_makes_what_the_model_makes(name: str) -> None:
    machine = type("Machine", (Compared,), {"make": staticmethod(WRITERS[name])})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
