"""What differs between two policies: every record, every field, every number, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings

from shaken_plugin.core.records import Basis, Customer, CustomerState, DoNotOriginate, Right, Trunk, Withheld
from shaken_plugin.exchange.comparing import Difference, Kind, differences
from shaken_plugin.stores.memory import MemoryPolicy
from tests.exchange.policies import content, made, policies

ACME = Customer("acme", "Acme", CustomerState.VERIFIED)
LOA = Right("LOA-1", "acme", Basis.LETTER, "LOA-1", valid_until=1_814_400_000.0)


def found(one: MemoryPolicy, other: MemoryPolicy, most: int | None = 20) -> list[Difference]:
    with one.records() as old, other.records() as new:
        return list(differences(old, new, most))


def runs(numbers: list[str], others: list[str], most: int | None = 20) -> tuple[list[str], list[str], int, int]:
    """What was added, what was removed, and the spans of each, of one right."""
    one, other = made([ACME, LOA], {(Right, "LOA-1"): numbers}), made([ACME, LOA], {(Right, "LOA-1"): others})
    (only,) = found(one, other, most)
    return (
        [f"{run.first}-{run.last}" for run in only.added.runs],
        [f"{run.first}-{run.last}" for run in only.removed.runs],
        only.added.spans,
        only.removed.spans,
    )


def test_records_are_told_field_by_field() -> None:
    changed = replace(ACME, state=CustomerState.SUSPENDED, kyc=replace(ACME.kyc, email="a@example.com"))
    (only,) = found(made([ACME]), made([changed]))
    assert only == Difference(
        "customer",
        "acme",
        Kind.CHANGED,
        (("state", "verified", "suspended"), ("kyc.email", None, "a@example.com")),
    )


def test_records_that_came_and_went_are_told_whole() -> None:
    entry = DoNotOriginate("hotline", Withheld.INBOUND_ONLY, "ours")
    one = made([ACME, LOA], {(Right, "LOA-1"): ["12155551212"]})
    other = made([ACME, entry], {(DoNotOriginate, "hotline"): ["12155550000"]})
    gone, came = found(one, other)
    assert (gone.kind, gone.id, gone.removed.spans, gone.added.spans) == (Kind.REMOVED, "LOA-1", 1, 0)
    assert ("valid_until", "2027-06-30", None) in gone.fields
    assert (came.kind, came.id, came.added.spans) == (Kind.ADDED, "hotline", 1)
    assert came.fields == (("reason", None, "inbound_only"), ("note", None, "ours"))


def test_a_trunk_does_not_change_with_its_customer_but_with_another() -> None:
    trunk = Trunk("t", ACME, addresses=(ip_network("198.51.100.7"),))
    renamed = replace(ACME, name="Acme Ltd")
    assert [one.id for one in found(made([ACME, trunk]), made([renamed, replace(trunk, customer=renamed)]))] == ["acme"]
    other = replace(ACME, id="other")
    both = made([ACME, other, replace(trunk, customer=other)])
    (only,) = found(made([ACME, other, trunk]), both)
    assert only.fields == (("customer", "acme", "other"),)


@pytest.mark.parametrize(
    ("numbers", "others", "expected"),
    [
        ([], ["12155551212"], (["12155551212-12155551212"], [], 1, 0)),
        (["1000", "1001", "1003"], ["1001"], ([], ["1000-1000", "1003-1003"], 0, 2)),
        ([], ["1000", "1001", "1002", "1004"], (["1000-1002", "1004-1004"], [], 4, 0)),
        ([], ["9999", "10000"], (["9999-9999", "10000-10000"], [], 2, 0)),
        ([], ["1000-1009", "1005", "1010-1019"], (["1000-1019"], [], 3, 0)),
        (["1000-1009"], ["1000-1008"], (["1000-1008"], ["1000-1009"], 1, 1)),
    ],
    ids=["one", "two apart", "joined", "of other lengths", "overlapping", "another end"],
)
def test_numbers_are_told_as_runs(
    numbers: list[str], others: list[str], expected: tuple[list[str], list[str], int, int]
) -> None:
    assert runs(numbers, others) == expected


def test_runs_beyond_the_bound_are_counted() -> None:
    one, other = made([ACME, LOA]), made([ACME, LOA], {(Right, "LOA-1"): [str(n) for n in range(1000, 1100, 2)]})
    (only,) = found(one, other, 20)
    assert (len(only.added.runs), only.added.more, only.added.spans) == (20, 30, 50)
    (only,) = found(one, other, None)
    assert (len(only.added.runs), only.added.more) == (50, 0)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies(), policies())
def test_something_differs_if_and_only_if_the_contents_do(one: MemoryPolicy, other: MemoryPolicy) -> None:
    assert bool(found(one, other)) == (content(one) != content(other))
    assert found(one, one) == []
    back = {(entry.name, entry.id): entry for entry in found(other, one)}
    for entry in found(one, other):
        mirror = back.pop((entry.name, entry.id))
        assert (entry.added, entry.removed) == (mirror.removed, mirror.added)
        assert sorted(entry.fields) == sorted((name, new, old) for name, old, new in mirror.fields)
    assert back == {}
