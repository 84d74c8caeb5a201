"""What every policy store must answer alike. A new store adds a `Backend` to ``BACKENDS``."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

import pytest

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, NumberRight, Trunk
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import PolicyStore
from shaken_plugin.stores import sqlite
from shaken_plugin.stores.last_known import LastKnown
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.sqlite import SqliteStore


class Backend(Protocol):
    """One store, and how a test changes or breaks what lies behind it."""

    @property
    def store(self) -> PolicyStore: ...

    def put(self, policy: Policy) -> None:
        """Put a policy in force; stores that are open already must answer from it."""

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Make the store unreadable for a while."""


class MemoryBackend:
    """`MemoryStore`: a policy is for life, a new one is a new store."""

    def __init__(self, _folder: Path) -> None:
        self._version = 0
        self.put(Policy())

    @property
    def store(self) -> PolicyStore:
        return self._store

    def put(self, policy: Policy) -> None:
        self._version += 1
        self._store = MemoryStore(policy, self._version)

    @contextmanager
    def broken(self) -> Iterator[None]:
        self._store.broken = True
        yield
        self._store.broken = False


class SqliteBackend:
    """`SqliteStore`, one for the whole test."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "policy.db"
        self.store: PolicyStore = SqliteStore(self._path)

    def put(self, policy: Policy) -> None:
        sqlite.replace_policy(self._path, policy, None, {})

    @contextmanager
    def broken(self) -> Iterator[None]:
        away = self._path.with_suffix(".away")
        self._path.rename(away)
        yield
        away.rename(self._path)


class Remembering:
    """Any of them inside `LastKnown`."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._behind: PolicyStore | None = None
        self._around: LastKnown | None = None

    @property
    def store(self) -> PolicyStore:
        if self._around is None or self._behind is not self._inner.store:
            self._behind = self._inner.store
            self._around = LastKnown(self._behind)
        return self._around

    def put(self, policy: Policy) -> None:
        self._inner.put(policy)

    @contextmanager
    def broken(self) -> Iterator[None]:
        with self._inner.broken():
            yield


BACKENDS: dict[str, Callable[[Path], Backend]] = {"memory": MemoryBackend, "sqlite": SqliteBackend}
BACKENDS |= {
    f"last known around {name}": lambda folder, make=make: Remembering(make(folder))  # type: ignore[misc]  # a default
    for name, make in list(BACKENDS.items())
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return BACKENDS[request.param](tmp_path)


ACME = Customer(
    "acme", "Acme Ünïted", CustomerState.VERIFIED, Attest.B, "second", "11111111-2222-4333-8444-555555555555"
)
PLAIN = Customer("plain", "Plain", CustomerState.PENDING)
T1, T2, T3 = Trunk("t1", ACME, "third"), Trunk("t2", ACME), Trunk("t3", PLAIN)
G1, G2 = Gateway("g1", "Gateway 1", "fourth"), Gateway("g2", "Gateway 2")

SOURCES = Policy(
    customers=(ACME, PLAIN),
    trunks=(T1, T2, T3),
    gateways=(G1, G2),
    addresses={
        ip_network("198.51.100.0/24"): T1,
        ip_network("198.51.100.128/25"): G1,
        ip_network("198.51.100.200"): T2,
        ip_network("2001:db8::/32"): T3,
        ip_network("2001:db8:1::5"): G2,
    },
    users={"alice": T2, "bob@example.com": T3, "' OR 1=1 --": T1},
)


# --- Sources ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("198.51.100.1", T1),
        ("198.51.100.0", T1),
        ("198.51.100.127", T1),
        ("198.51.100.128", G1),
        ("198.51.100.255", G1),
        ("198.51.100.200", T2),
        ("198.51.101.0", None),
        ("198.51.99.255", None),
        ("2001:db8:ffff::1", T3),
        ("2001:0DB8:0001:0000:0000:0000:0000:0005", G2),
        ("2001:db9::1", None),
        ("::ffff:198.51.100.200", T2),
        ("::198.51.100.200", None),
    ],
)
def test_the_narrowest_network_that_holds_the_address_is_the_source(
    backend: Backend, address: str, source: Trunk | Gateway | None
) -> None:
    backend.put(SOURCES)
    for _ in range(2):  # the second answer may come from memory
        assert backend.store.facts(address, None, None).source == source


@pytest.mark.parametrize(
    "address",
    [None, "", "nonsense", "198.51.100", "198.51.100.1.", "198.51.100.01", "198.51.100.1/24", "\x00", "\udcff"],
)
def test_what_is_no_address_is_no_source(backend: Backend, address: str | None) -> None:
    backend.put(SOURCES)
    assert backend.store.facts(address, None, None).source is None


@pytest.mark.parametrize(
    ("user", "source"),
    [("alice", T2), ("bob@example.com", T3), ("' OR 1=1 --", T1)],
)
def test_an_authenticated_user_wins_over_the_address(backend: Backend, user: str, source: Trunk) -> None:
    backend.put(SOURCES)
    assert backend.store.facts("198.51.100.128", user, None).source == source
    assert backend.store.facts(None, user, None).source == source


@pytest.mark.parametrize("user", ["Alice", "alice ", "", "alice\x00", "%", "' OR 1=1", "x" * 10_000, "\udcff"])
def test_an_unknown_user_leaves_the_address_to_decide(backend: Backend, user: str) -> None:
    backend.put(SOURCES)
    assert backend.store.facts("198.51.100.200", user, None).source == T2
    assert backend.store.facts(None, user, None).source is None


def test_an_empty_policy_knows_nobody(backend: Backend) -> None:
    backend.put(Policy())
    facts = backend.store.facts("198.51.100.1", "alice", "12155551212")
    assert (facts.source, facts.rights) == (None, ())


@pytest.mark.parametrize("state", CustomerState)
@pytest.mark.parametrize("ceiling", [None, *Attest])
def test_every_field_of_a_customer_comes_back(backend: Backend, state: CustomerState, ceiling: Attest | None) -> None:
    customer = Customer("c", "Ñame; DROP TABLE customer", state, ceiling, "cred", "origid")
    trunk = Trunk("t", customer, "own")
    backend.put(Policy((customer,), (trunk,), (), {ip_network("192.0.2.1"): trunk}))
    assert backend.store.facts("192.0.2.1", None, None).source == trunk


# --- Rights -----------------------------------------------------------------------------------


def _right(first: str, last: str | None = None, customer: str = "acme", **more: Any) -> NumberRight:
    return NumberRight(customer, first, last or first, more.pop("basis", Basis.ASSIGNED), **more)


@pytest.mark.parametrize("basis", Basis)
def test_every_field_of_a_right_comes_back(backend: Backend, basis: Basis) -> None:
    right = NumberRight("acme", "12155551200", "12155551299", basis, "LOA-é-7", "reminders", 1.5, 2_000_000_000.25)
    backend.put(Policy((ACME,), rights=(right,)))
    assert backend.store.facts(None, None, "12155551212").rights == (right,)


@pytest.mark.parametrize(
    ("number", "covered"),
    [
        ("12155551195", True),
        ("12155551194", False),
        ("12155551200", True),
        ("12155551299", True),
        ("12155551301", True),
        ("12155551302", False),
        ("1215555120", False),
        ("121555512000", False),
        ("12155551", False),
        ("", False),
        ("*67", False),
        ("1215555120#", False),
    ],
)
def test_a_range_covers_its_numbers_from_first_to_last_and_no_longer_ones(
    backend: Backend, number: str, covered: bool
) -> None:
    backend.put(Policy((ACME,), rights=(_right("12155551195", "12155551301"),)))
    assert bool(backend.store.facts(None, None, number).rights) == covered


def test_all_rights_that_cover_a_number_are_told_other_customers_too(backend: Backend) -> None:
    rights = (
        _right("12155551200", "12155551299"),
        _right("12155551212", customer="plain"),
        _right("12155550000", "12155559999", customer="plain"),
        _right("12155551213"),
    )
    backend.put(Policy((ACME, PLAIN), rights=rights))
    assert set(backend.store.facts(None, None, "12155551212").rights) == set(rights[:3])


def test_the_customers_of_those_rights_are_told_once_each(backend: Backend) -> None:
    rights = (
        _right("12155551212"),
        replace(_right("12155551212"), customer="plain"),
        _right("12155551200", "12155551299"),
    )
    backend.put(Policy((ACME, PLAIN), rights=rights))
    facts = backend.store.facts(None, None, "12155551212")
    assert facts.holders == (ACME, PLAIN)
    assert [facts.holder(right) for right in facts.rights] == [ACME, PLAIN, ACME]
    assert backend.store.facts(None, None, "12155551213").holders == (ACME,)
    assert backend.store.facts(None, None, "12155550000").holders == ()


def test_narrower_rights_come_first_and_equal_ones_in_the_order_of_the_file(backend: Backend) -> None:
    rights = (
        _right("12155550000", "12155559999", document="wide"),
        _right("12155551212", document="first"),
        _right("12155551212", document="second"),
        _right("12155551200", "12155551299", document="middle"),
    )
    backend.put(Policy((ACME,), rights=rights))
    found = backend.store.facts(None, None, "12155551212").rights
    assert [right.document for right in found] == ["first", "second", "middle", "wide"]


def test_no_number_has_no_rights(backend: Backend) -> None:
    backend.put(Policy((ACME,), rights=(_right("1000", "9999"),)))
    assert backend.store.facts(None, None, None).rights == ()


def test_ranges_of_any_shape_cover_exactly_what_lies_between_their_ends(backend: Backend) -> None:
    draw = random.Random(8224)
    rights: list[NumberRight] = []
    for _ in range(200):
        first = draw.randrange(10_000)
        last = min(9_999, first + draw.choice([0, 1, 9, 10, 99, 100, 1_234, 9_999]))
        rights.append(_right(f"1215{first:04}", f"1215{last:04}", document=f"{first}-{last}-{len(rights)}"))
    backend.put(Policy((ACME,), rights=tuple(rights)))
    for number in [f"1215{draw.randrange(10_000):04}" for _ in range(300)] + ["12150000", "12159999"]:
        expected = {right for right in rights if right.first <= number <= right.last}
        found = backend.store.facts(None, None, number).rights
        assert len(found) == len(expected)
        assert set(found) == expected


# --- Changes and faults -----------------------------------------------------------------------


def test_a_change_is_seen_by_the_next_question(backend: Backend) -> None:
    backend.put(SOURCES)
    before = backend.store.facts("198.51.100.200", "alice", "12155551212")
    backend.put(Policy((PLAIN,), (T3,), (), {ip_network("198.51.100.200"): T3}, rights=(_right("12155551212"),)))
    after = backend.store.facts("198.51.100.200", "alice", "12155551212")
    assert (before.source, len(before.rights)) == (T2, 0)
    assert (after.source, len(after.rights)) == (T3, 1)
    assert after.version > before.version


def test_the_version_stays_while_the_policy_does(backend: Backend) -> None:
    backend.put(SOURCES)
    assert len({backend.store.facts(None, None, None).version for _ in range(3)}) == 1


def test_many_threads_get_the_same_answers(backend: Backend) -> None:
    backend.put(SOURCES)
    questions = ["198.51.100.1", "198.51.100.128", "198.51.100.200", "2001:db8::1"] * 50
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda address: backend.store.facts(address, None, None).source, questions))
    assert found == [T1, G1, T2, T3] * 50


def test_a_store_that_cannot_be_read_says_so_and_recovers_by_itself(backend: Backend) -> None:
    backend.put(SOURCES)
    assert backend.store.facts("198.51.100.1", None, None).source == T1
    with backend.broken(), pytest.raises(StoreUnavailable):
        backend.store.facts("198.51.100.200", None, None)
    assert backend.store.facts("198.51.100.200", None, None).source == T2


def test_only_last_known_answers_a_question_again_while_the_store_cannot_be_read(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    backend.put(SOURCES)
    store = backend.store
    before = store.facts("198.51.100.1", "x", "12155551212")
    with backend.broken():
        if isinstance(store, LastKnown):
            assert store.facts("198.51.100.1", "x", "12155551212") == before
        else:
            with pytest.raises(StoreUnavailable):
                store.facts("198.51.100.1", "x", "12155551212")
