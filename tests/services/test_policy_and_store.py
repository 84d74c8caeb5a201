"""The policy file beside a store that other commands change: who may undo what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from shaken_plugin import runtime
from shaken_plugin.core.records import Basis, Customer, CustomerState, Right, Route
from shaken_plugin.errors import FileProblems, SkipReason, StoreChanged
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.ports import Author, Change, Span
from shaken_plugin.stores.sqlite import SqlitePolicy, read_header
from tests.conftest import NOW
from tests.services.builders import RANDOM_ORIGID, call
from tests.stores.test_migrations import make_old


@pytest.fixture
def store(provider: Provider) -> SqlitePolicy:
    runtime.start(provider.settings, NOW)
    return SqlitePolicy(provider.folder / "policy.db")


def edit(provider: Provider, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the policy file."""
    path = provider.folder / "policy.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    dump(path, content)


def rename(provider: Provider, name: str) -> None:
    edit(provider, lambda content: content["customers"][0].update(name=name))


def by_hand(store: SqlitePolicy, change: Callable[[Customer], Customer] | None = None) -> str:
    """Change the first customer of the file in the store, or add a route; the customer's id."""
    with store.change(Author("alice", "asked for by phone", NOW), "by hand") as draft:
        customer = next(draft.all(Customer))
        draft.put(change(customer) if change else Route("by-hand", ("44",)))
    return customer.id


def names(store: SqlitePolicy) -> list[str]:
    with store.records() as records:
        return [customer.name for customer in records.all(Customer)]


def test_what_files_change_is_said_in_the_history(store: SqlitePolicy, provider: Provider) -> None:
    rename(provider, "Renamed")
    runtime.apply(provider.settings, NOW + 5)
    first, second = store.changes()
    assert first.what.partition(": ")[2].startswith("settings, ")
    assert second == Change(
        2, NOW + 5, "shaken apply", "put in force", f"file {provider.folder}/policy.yaml: 1 customer"
    )


def test_apply_refuses_to_undo_what_was_changed_otherwise(store: SqlitePolicy, provider: Provider) -> None:
    by_hand(store, lambda customer: replace(customer, name="By hand"))
    rename(provider, "By file")
    with pytest.raises(StoreChanged, match=r"version 2, by alice: asked for by phone.*shaken policy diff") as refused:
        runtime.apply(provider.settings, NOW)
    assert "--overwrite" in str(refused.value)
    assert "By hand" in names(store)
    assert runtime.apply(provider.settings, NOW, overwrite=True)[1] == 3
    assert "By file" in names(store)
    rename(provider, "By file again")
    assert runtime.apply(provider.settings, NOW)[1] == 4


def test_apply_takes_a_file_that_says_what_was_changed_otherwise(store: SqlitePolicy, provider: Provider) -> None:
    by_hand(store, lambda customer: replace(customer, name="Renamed"))
    rename(provider, "Renamed")
    assert runtime.apply(provider.settings, NOW)[1] == 2
    rename(provider, "Renamed again")
    assert runtime.apply(provider.settings, NOW)[1] == 3


def test_new_settings_alone_do_not_make_the_store_that_of_the_file(
    store: SqlitePolicy, provider: Provider, change: Callable[..., None]
) -> None:
    by_hand(store)
    change(policy=None)
    assert runtime.apply(provider.settings, NOW)[1] == 3
    change(policy="policy.yaml")
    with pytest.raises(StoreChanged, match="by alice"):
        runtime.apply(provider.settings, NOW)


def test_a_start_keeps_what_was_changed_otherwise_warns_and_takes_the_settings(
    store: SqlitePolicy, provider: Provider, change: Callable[..., None]
) -> None:
    by_hand(store)
    change(signing={"freshness": 33})
    rename(provider, "By file")
    for _ in range(2):
        services = runtime.start(provider.settings, NOW)
        (warning,) = services.warnings
        assert "policy not put in force" in warning
        assert "by alice" in warning
    with store.records() as records:
        assert records.get(Route, "by-hand") is not None
    assert "By file" not in names(store)
    services, _ = runtime.reload(provider.folder / "policy.db", NOW)
    assert services.settings.signing.freshness == 33
    (warning,) = services.warnings
    assert f"{provider.folder}/policy.yaml differs from what is in force" in warning


def test_a_start_with_files_in_force_says_nothing_of_other_changes(store: SqlitePolicy, provider: Provider) -> None:
    by_hand(store)
    assert runtime.start(provider.settings, NOW).warnings == ()
    with store.records() as records:
        assert records.get(Route, "by-hand") is not None


def test_a_start_without_a_policy_file_reads_the_store(provider: Provider, change: Callable[..., None]) -> None:
    store = SqlitePolicy(provider.folder / "policy.db")
    with store.change(Author("alice", "by hand", NOW), "by hand") as draft:
        draft.put(Customer("acme", "Acme", CustomerState.VERIFIED))
    change(policy=None)
    assert runtime.start(provider.settings, NOW).warnings == ()
    assert names(store) == ["Acme"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("state", [CustomerState.SUSPENDED, CustomerState.TERMINATED])
def test_no_file_reinstates_a_customer(
    store: SqlitePolicy, provider: Provider, state: CustomerState, overwrite: bool
) -> None:
    identifier = by_hand(store, lambda customer: replace(customer, state=state))
    edit(provider, lambda content: content["customers"][0].update(state="verified"))
    checked, _ = runtime.apply(provider.settings, NOW, overwrite=overwrite)
    assert checked.services is not None
    (warning,) = checked.services.warnings
    assert f"customer {identifier} stays {state.value} although the file says verified" in warning
    with store.records() as records:
        customer = records.get(Customer, identifier)
        assert customer is not None
        assert customer.state is state


def test_a_file_may_make_it_worse(store: SqlitePolicy, provider: Provider) -> None:
    identifier = by_hand(store, lambda customer: replace(customer, state=CustomerState.SUSPENDED))
    edit(provider, lambda content: content["customers"][0].update(id=identifier, state="terminated"))
    runtime.apply(provider.settings, NOW, overwrite=True)
    with store.records() as records:
        customer = records.get(Customer, identifier)
        assert customer is not None
        assert customer.state is CustomerState.TERMINATED


def test_a_suspended_customer_cannot_be_left_out_of_one_file_and_come_back_with_the_next(
    store: SqlitePolicy, provider: Provider
) -> None:
    identifier = by_hand(store, lambda customer: replace(customer, state=CustomerState.SUSPENDED))
    before = (provider.folder / "policy.yaml").read_text()

    def leave_out(content: dict[str, Any]) -> None:
        content["customers"] = [entry for entry in content["customers"] if entry["id"] != identifier]
        content["rights"] = [entry for entry in content["rights"] if entry["customer"] != identifier]

    edit(provider, leave_out)
    checked, _ = runtime.apply(provider.settings, NOW, overwrite=True)
    assert checked.services is not None
    assert "the file has no such customer" in checked.services.warnings[0]
    (provider.folder / "policy.yaml").write_text(before)
    runtime.apply(provider.settings, NOW, overwrite=True)
    with store.records() as records:
        customer = records.get(Customer, identifier)
        assert customer is not None
        assert customer.state is CustomerState.SUSPENDED


def test_a_policy_that_contradicts_itself_is_a_problem_of_the_file(
    store: SqlitePolicy, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The reader of files finds these first; what it may overlook must not put half a policy in force.
    from shaken_plugin.runtime import force

    checked = runtime.check(provider.settings, NOW)
    assert checked.policy is not None
    twice = (Route("a", ("44",)), Route("b", ("44",)))
    checked.policy = replace(checked.policy, routes=twice)
    monkeypatch.setattr(force, "check", lambda *_args, **_kw: checked)
    with pytest.raises(FileProblems, match=r"policy\.yaml:1:1: .*the destination 44 belongs to route a already"):
        runtime.apply(provider.settings, NOW)
    assert read_header(provider.folder / "policy.db").policy_version == 1


def test_applying_many_numbers_again_changes_no_row(store: SqlitePolicy, provider: Provider) -> None:
    many = [f"+1215{5_000_000 + index}" for index in range(2_000)]
    edit(provider, lambda content: content["rights"][0].update(numbers=many))
    _, version = runtime.apply(provider.settings, NOW)
    assert runtime.apply(provider.settings, NOW)[1] == version
    edit(provider, lambda content: content["rights"][0].update(numbers=[*many[1:], "+12159999999"]))
    runtime.apply(provider.settings, NOW)
    assert [change.what.partition(": ")[2] for change in store.changes(version)] == [
        "1 numbers removed, 1 numbers added"
    ]


def test_by_hand_numbers_beside_the_file_are_seen_as_a_change(store: SqlitePolicy, provider: Provider) -> None:
    with store.change(Author("alice", "by hand", NOW), "by hand") as draft:
        customer = next(draft.all(Customer))
        draft.put(Right("mine", customer.id, Basis.ASSIGNED))
        draft.add_numbers(Right, "mine", [Span("12155551299", "12155551299")])
    rename(provider, "By file")
    with pytest.raises(StoreChanged):
        runtime.apply(provider.settings, NOW)


@pytest.mark.parametrize(("mode", "refused"), [("last_known", False), ("unsigned", False), ("refuse", True)])
def test_calls_are_in_the_declared_mode_while_the_store_is_of_an_older_schema(
    provider: Provider, change: Callable[..., None], mode: str, refused: bool
) -> None:
    make_old(provider.folder / "policy.db")
    change(store={"when_unavailable": mode})
    services = runtime.start(provider.settings, NOW)
    assert services.authentication is not None
    signing = services.authentication.sign(call(source="127.0.0.2"), NOW, RANDOM_ORIGID)
    assert signing.skip is SkipReason.STORE_UNAVAILABLE
    assert bool(signing.refuse) == refused
    assert "schema version 1 is older" in (signing.detail or "")
    assert "run 'shaken store migrate'" in (signing.detail or "")
