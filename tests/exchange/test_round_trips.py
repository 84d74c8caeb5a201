"""What is exported is imported as it was, to the last bit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings

from shaken_plugin.core.records import Customer, CustomerState, Right
from shaken_plugin.exchange.columns import RIGHTS, TABLES, WITHHELD, Table, shielded, unshielded
from shaken_plugin.exchange.yamlfiles import merge, read_policy
from shaken_plugin.ports import PolicyWriter
from shaken_plugin.stores.memory import MemoryPolicy
from shaken_plugin.stores.replacing import replace_all
from tests.exchange.policies import AUTHOR, as_csv, as_yaml, content, labels, load, policies

_random = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def _read(text: str, into: PolicyWriter) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_bytes(text.encode())
        policy = read_policy(path, None)
    with into.change(AUTHOR, "import") as draft:
        merge(draft, policy)


@_random
@given(policies())
def test_a_policy_file_says_all_that_the_store_says(store: MemoryPolicy) -> None:
    text = as_yaml(store)
    again = MemoryPolicy()
    _read(text, again)
    assert content(again) == content(store)
    assert as_yaml(again) == text


@_random
@given(policies())
def test_a_policy_file_is_put_in_force_as_it_was_exported(store: MemoryPolicy) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_bytes(as_yaml(store).encode())
        policy = read_policy(path, None)
    again = MemoryPolicy()
    assert replace_all(again, policy, AUTHOR, "apply") == []
    assert content(again) == content(store)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
@_random
@given(store=policies())
def test_csv_says_all_that_the_store_says_of_numbers(table: Table, store: MemoryPolicy) -> None:
    text = as_csv(store, table)
    again = MemoryPolicy()
    with store.records() as records, again.change(AUTHOR, "customers") as draft:
        for customer in records.all(Customer):
            draft.put(customer)
    assert load(again, text, table=table).rejected == 0
    with store.records() as one, again.records() as other:
        assert list(one.all(table.kind)) == list(other.all(table.kind))
        for record in one.all(table.kind):
            assert list(one.numbers(table.kind, record.id)) == list(other.numbers(table.kind, record.id))
    assert as_csv(again, table) == text


@_random
@given(policies())
def test_importing_what_is_there_changes_nothing_and_makes_no_version(store: MemoryPolicy) -> None:
    before = content(store)
    _read(as_yaml(store), store)
    load(store, as_csv(store, RIGHTS), table=RIGHTS)
    load(store, as_csv(store, WITHHELD), table=WITHHELD)
    assert content(store) == before
    assert len(list(store.changes())) <= 1


@_random
@given(policies())
def test_numbers_may_be_exported_apart_from_their_records(store: MemoryPolicy) -> None:
    again = MemoryPolicy()
    _read(as_yaml(store, numbers=False), again)
    load(again, as_csv(store, RIGHTS), table=RIGHTS)
    load(again, as_csv(store, WITHHELD), table=WITHHELD)
    assert content(again) == content(store)


@_random
@given(policies())
def test_a_customer_is_exported_with_what_is_theirs_and_nothing_else(store: MemoryPolicy) -> None:
    records, numbers = content(store)
    for customer in [one for one in records if isinstance(one, Customer)]:
        again = MemoryPolicy()
        _read(as_yaml(store, customers=[customer.id]), again)
        theirs, their_numbers = content(again)
        assert [one for one in theirs if isinstance(one, Customer)] == [customer]
        rights = [one for one in records if isinstance(one, Right) and one.customer == customer.id]
        assert [one for one in theirs if isinstance(one, Right)] == rights
        assert their_numbers == {(Right, right.id): numbers[Right, right.id] for right in rights}


def test_an_empty_store_is_a_file_that_can_be_read() -> None:
    text = as_yaml(MemoryPolicy())
    again = MemoryPolicy()
    _read(text, again)
    assert content(again) == ([], {})


@given(labels)
def test_no_cell_is_a_formula_and_every_text_comes_back(text: str) -> None:
    cell = shielded(text)
    assert unshielded(cell) == text
    assert cell[0] not in "=-@"
    assert cell[0] != "+" or cell[1:].replace("..+", "").isdecimal()


def test_nobody_who_is_suspended_is_reinstated_by_a_file() -> None:
    from tests.exchange.policies import made

    acme = Customer("acme", "Acme", CustomerState.VERIFIED)
    text = as_yaml(made([acme]))
    suspended = made([Customer("acme", "Acme", CustomerState.SUSPENDED)])
    _read(text, suspended)
    (found,) = content(suspended)[0]
    assert isinstance(found, Customer)
    assert found.state is CustomerState.SUSPENDED
