"""What every policy store must answer alike to questions about calls."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Basis,
    Customer,
    CustomerState,
    DoNotOriginate,
    Gateway,
    NumberRight,
    PolicyFacts,
    Route,
    Substitution,
    Trunk,
    Withheld,
)
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores.last_known import LastKnown
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.stores.policy import Policy
from tests.contract.backends import BACKENDS, Backend, put
from tests.records import number_right, reached


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return BACKENDS[request.param](tmp_path)


ACME = Customer(
    "acme", "Acme Ünïted", CustomerState.VERIFIED, Attest.B, "second", "11111111-2222-4333-8444-555555555555"
)
PLAIN = Customer("plain", "Plain", CustomerState.PENDING)
T1 = reached(Trunk("t1", ACME, "third"), "198.51.100.0/24", users=["' OR 1=1 --"])
T2 = reached(Trunk("t2", ACME), "198.51.100.200", users=["alice"])
T3 = reached(Trunk("t3", PLAIN), "2001:db8::/32", users=["bob@example.com"])
G1 = reached(Gateway("g1", "Gateway 1", "fourth"), "198.51.100.128/25")
G2 = reached(Gateway("g2", "Gateway 2"), "2001:db8:1::5")

SOURCES = Policy(customers=(ACME, PLAIN), trunks=(T1, T2, T3), gateways=(G1, G2))


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
    put(backend, SOURCES)
    for _ in range(2):  # the second answer may come from memory
        assert backend.store.facts(address, None, None).source == source


@pytest.mark.parametrize(
    "address",
    [None, "", "nonsense", "198.51.100", "198.51.100.1.", "198.51.100.01", "198.51.100.1/24", "\x00", "\udcff"],
)
def test_what_is_no_address_is_no_source(backend: Backend, address: str | None) -> None:
    put(backend, SOURCES)
    assert backend.store.facts(address, None, None).source is None


@pytest.mark.parametrize(
    ("user", "source"),
    [("alice", T2), ("bob@example.com", T3), ("' OR 1=1 --", T1)],
)
def test_an_authenticated_user_wins_over_the_address(backend: Backend, user: str, source: Trunk) -> None:
    put(backend, SOURCES)
    assert backend.store.facts("198.51.100.128", user, None).source == source
    assert backend.store.facts(None, user, None).source == source


@pytest.mark.parametrize("user", ["Alice", "alice ", "", "alice\x00", "%", "' OR 1=1", "x" * 10_000, "\udcff"])
def test_an_unknown_user_leaves_the_address_to_decide(backend: Backend, user: str) -> None:
    put(backend, SOURCES)
    assert backend.store.facts("198.51.100.200", user, None).source == T2
    assert backend.store.facts(None, user, None).source is None


def test_an_empty_policy_knows_nobody(backend: Backend) -> None:
    put(backend, Policy())
    facts = backend.store.facts("198.51.100.1", "alice", "12155551212")
    assert (facts.source, facts.rights) == (None, ())


@pytest.mark.parametrize("state", CustomerState)
@pytest.mark.parametrize("ceiling", [None, *Attest])
def test_every_field_of_a_customer_comes_back(backend: Backend, state: CustomerState, ceiling: Attest | None) -> None:
    customer = Customer("c", "Ñame; DROP TABLE customer", state, ceiling, "cred", "origid")
    trunk = reached(Trunk("t", customer, "own"), "192.0.2.1")
    put(backend, Policy((customer,), (trunk,)))
    assert backend.store.facts("192.0.2.1", None, None).source == trunk


# --- Rights -----------------------------------------------------------------------------------


def _right(first: str, last: str | None = None, customer: str = "acme", **more: Any) -> NumberRight:
    return number_right(customer, first, last or first, more.pop("basis", Basis.ASSIGNED), **more)


@pytest.mark.parametrize("basis", Basis)
def test_every_field_of_a_right_comes_back(backend: Backend, basis: Basis) -> None:
    right = number_right("acme", "12155551200", "12155551299", basis, "LOA-é-7", "reminders", 1.5, 2_000_000_000.25)
    put(backend, Policy((ACME,), rights=(right,)))
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
    put(backend, Policy((ACME,), rights=(_right("12155551195", "12155551301"),)))
    assert bool(backend.store.facts(None, None, number).rights) == covered


def test_all_rights_that_cover_a_number_are_told_other_customers_too(backend: Backend) -> None:
    rights = (
        _right("12155551200", "12155551299"),
        _right("12155551212", customer="plain"),
        _right("12155550000", "12155559999", customer="plain"),
        _right("12155551213"),
    )
    put(backend, Policy((ACME, PLAIN), rights=rights))
    assert set(backend.store.facts(None, None, "12155551212").rights) == set(rights[:3])


def test_the_customers_of_those_rights_are_told_once_each(backend: Backend) -> None:
    rights = (
        _right("12155551212"),
        _right("12155551212", customer="plain"),
        _right("12155551200", "12155551299"),
    )
    put(backend, Policy((ACME, PLAIN), rights=rights))
    facts = backend.store.facts(None, None, "12155551212")
    assert facts.holders == (ACME, PLAIN)
    assert [facts.holder(right) for right in facts.rights] == [ACME, PLAIN, ACME]
    assert backend.store.facts(None, None, "12155551213").holders == (ACME,)
    assert backend.store.facts(None, None, "12155550000").holders == ()


def test_narrower_rights_come_first_and_equal_ones_by_their_ids(backend: Backend) -> None:
    rights = (
        _right("12155550000", "12155559999", document="wide"),
        _right("12155551212", document="first"),
        _right("12155551212", document="second"),
        _right("12155551200", "12155551299", document="middle"),
    )
    put(backend, Policy((ACME,), rights=rights))
    found = backend.store.facts(None, None, "12155551212").rights
    assert [number.right.document for number in found] == ["first", "second", "middle", "wide"]


def test_no_number_has_no_rights(backend: Backend) -> None:
    put(backend, Policy((ACME,), rights=(_right("1000", "9999"),)))
    assert backend.store.facts(None, None, None).rights == ()


def test_ranges_of_any_shape_cover_exactly_what_lies_between_their_ends(backend: Backend) -> None:
    draw = random.Random(8224)
    rights: list[NumberRight] = []
    for _ in range(200):
        first = draw.randrange(10_000)
        last = min(9_999, first + draw.choice([0, 1, 9, 10, 99, 100, 1_234, 9_999]))
        rights.append(_right(f"1215{first:04}", f"1215{last:04}", document=f"{first}-{last}-{len(rights)}"))
    put(backend, Policy((ACME,), rights=tuple(rights)))
    for number in [f"1215{draw.randrange(10_000):04}" for _ in range(300)] + ["12150000", "12159999"]:
        expected = {right for right in rights if right.first <= number <= right.last}
        found = backend.store.facts(None, None, number).rights
        assert len(found) == len(expected)
        assert set(found) == expected


def test_a_range_of_two_spans_of_one_right_is_told_with_each(backend: Backend) -> None:
    wide, narrow = _right("12155550000", "12155559999", id="r"), _right("12155551200", "12155551299", id="r")
    put(backend, Policy((ACME,), rights=(wide, narrow)))
    assert backend.store.facts(None, None, "12155551212").rights == (narrow, wide)


# --- Do-not-originate list, routes, substitutions ----------------------------------------------

UNUSED = DoNotOriginate("unused", Withheld.UNUSED, "returned in May")
INBOUND = DoNotOriginate("inbound", Withheld.INBOUND_ONLY)
UK, LONDON, ALL = Route("uk", ("44", "4487")), Route("london", ("4420",)), Route("all")
RULES = (
    Substitution("2", "acme", "12155551212", routes=("uk",)),
    Substitution("10", "acme", "12155551213"),
    Substitution("1", "plain", "12155551214"),
)


def _withheld(backend: Backend, number: str) -> list[str]:
    return [entry.id for entry in backend.store.facts(None, None, number).withheld]


def test_the_entries_that_withhold_a_number_are_told_once_each(backend: Backend) -> None:
    entries = (
        (INBOUND, "18005550000", "18005559999"),
        (UNUSED, "18005550100", "18005550199"),
        (UNUSED, "18005550123", "18005550123"),
    )
    put(backend, Policy((ACME,), rights=(_right("18005550123"),), withheld=entries))
    facts = backend.store.facts(None, None, "18005550123")
    assert facts.withheld == (UNUSED, INBOUND)
    assert len(facts.rights) == 1
    assert _withheld(backend, "18005550200") == ["inbound"]
    assert _withheld(backend, "18005560000") == []


@pytest.mark.parametrize(
    ("called", "named", "found"),
    [
        ("442079460000", None, LONDON),
        ("441619460000", None, UK),
        ("448799999999", None, UK),
        ("44", None, UK),
        ("4", None, None),
        ("12155551212", None, None),
        (None, None, None),
        ("", None, None),
        ("*67", None, None),
        ("\udcff", None, None),
        ("9" * 10_000, None, None),
        ("442079460000", "uk", UK),
        (None, "all", ALL),
        ("442079460000", "nowhere", LONDON),
        ("442079460000", "", LONDON),
        ("442079460000", "\udcff", LONDON),
        ("442079460000", "l" * 10_000, LONDON),
    ],
)
def test_a_route_is_named_or_has_the_longest_prefix(
    backend: Backend, called: str | None, named: str | None, found: Route | None
) -> None:
    put(backend, Policy(routes=(UK, LONDON, ALL)))
    for _ in range(2):
        assert backend.store.facts(None, None, None, called, named).route == found


def test_substitutions_are_those_of_the_sources_customer_by_id(backend: Backend) -> None:
    put(backend, replace(SOURCES, routes=(UK,), substitutions=RULES))
    for _ in range(2):
        assert backend.store.facts("198.51.100.1", None, None).substitutions == (RULES[1], RULES[0])
        assert backend.store.facts(None, "bob@example.com", None).substitutions == (RULES[2],)
        assert backend.store.facts("198.51.100.128", None, None).substitutions == ()
        assert backend.store.facts(None, None, None).substitutions == ()


def test_a_store_made_of_a_whole_policy_answers_as_one_that_was_filled_with_it(backend: Backend) -> None:
    policy = replace(
        SOURCES,
        rights=(_right("12155551200", "12155551299"), _right("12155551212", customer="plain")),
        withheld=((UNUSED, "12155551212", "12155551212"),),
        routes=(UK, LONDON),
        substitutions=RULES,
    )
    put(backend, policy)
    whole = MemoryStore(policy)
    for question in (
        ("198.51.100.1", None, "12155551212", "442079460000", None),
        ("198.51.100.128", "alice", "12155551213", "441619460000", "london"),
        (None, None, None, None, None),
    ):
        answer = backend.store.facts(*question)
        assert replace(answer, version=1) == whole.facts(*question)


# --- Changes and faults -----------------------------------------------------------------------


def test_a_change_is_seen_by_the_next_question(backend: Backend) -> None:
    put(backend, SOURCES)
    before = backend.store.facts("198.51.100.200", "alice", "12155551212")
    moved = reached(T3, "198.51.100.200", users=["alice"])
    put(backend, Policy((PLAIN,), (moved,), rights=(_right("12155551212", customer="plain"),)))
    after = backend.store.facts("198.51.100.200", "alice", "12155551212")
    assert (before.source, len(before.rights)) == (T2, 0)
    assert (after.source, len(after.rights)) == (moved, 1)
    assert after.version > before.version


def test_the_version_stays_while_the_policy_does(backend: Backend) -> None:
    put(backend, SOURCES)
    assert len({backend.store.facts(None, None, None).version for _ in range(3)}) == 1


def test_many_threads_get_the_same_answers(backend: Backend) -> None:
    put(backend, SOURCES)
    questions = ["198.51.100.1", "198.51.100.128", "198.51.100.200", "2001:db8::1"] * 50
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda address: backend.store.facts(address, None, None).source, questions))
    assert found == [T1, G1, T2, T3] * 50


def test_a_store_that_cannot_be_read_says_so_and_recovers_by_itself(backend: Backend) -> None:
    put(backend, SOURCES)
    assert backend.store.facts("198.51.100.1", None, None).source == T1
    with backend.broken(), pytest.raises(StoreUnavailable):
        backend.store.facts("198.51.100.200", None, None)
    assert backend.store.facts("198.51.100.200", None, None).source == T2


def test_only_last_known_answers_a_question_again_while_the_store_cannot_be_read(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    put(backend, SOURCES)
    store = backend.store
    before = store.facts("198.51.100.1", "x", "12155551212")
    with backend.broken():
        if isinstance(store, LastKnown):
            assert store.facts("198.51.100.1", "x", "12155551212") == before
        else:
            with pytest.raises(StoreUnavailable):
                store.facts("198.51.100.1", "x", "12155551212")


def test_last_known_knows_callers_whoever_they_call(backend: Backend) -> None:
    put(backend, replace(SOURCES, rights=(_right("12155551212"),), routes=(UK, LONDON)))
    store = backend.store
    if not isinstance(store, LastKnown):
        pytest.skip("is about what wraps a store")
    for called in ("442079460000", "441619460000"):
        before = store.facts("198.51.100.1", None, "12155551212", called)
    assert store.facts("198.51.100.128", None, "12155551213", "12125550000").rights == ()

    def ask(source: str, number: str | None, called: str | None, route: str | None = None) -> PolicyFacts:
        return store.facts(source, None, number, called, route)

    with backend.broken():
        assert ask("198.51.100.1", "12155551212", "441619460001") == before
        assert ask("198.51.100.1", "12155551212", "442079460001").route == LONDON
        assert ask("198.51.100.1", "12155551212", "441619460001", "london").route == LONDON
        assert ask("198.51.100.1", "12155551212", "33123456789").route is None
        assert ask("198.51.100.128", "12155551212", None) == replace(before, source=G1, route=None)
        for source, number in (
            ("198.51.100.2", "12155551212"),
            ("198.51.100.1", "12155551214"),
            ("198.51.100.1", None),
        ):
            with pytest.raises(StoreUnavailable):
                ask(source, number, "441619460001")
