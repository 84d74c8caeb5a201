"""A switch of a fleet: it starts and reloads by its own settings, and decides from the copy alone."""

from __future__ import annotations

import sqlite3 as files
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from shaken_plugin import runtime
from shaken_plugin.core.attestation import Level
from shaken_plugin.core.records import Customer, PolicyFacts
from shaken_plugin.errors import SkipReason, StoreError
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.ports import Author, Severity
from shaken_plugin.stores import sqlite
from shaken_plugin.stores.freshness import mark, unmark
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.sqlite.sharing import Shared, be_a_copy
from shaken_plugin.switch import Switch, process
from shaken_plugin.telemetry import MemoryObserver
from tests.conftest import NOW
from tests.services.builders import RANDOM_ORIGID, call

REDIS = {"servers": ["127.0.0.1:1"]}
"""Where nothing answers: a switch never asks."""


@pytest.fixture
def path(provider: Provider, change: Callable[..., None]) -> Path:
    """The copy of a host whose agent has brought the policy of the file."""
    runtime.start(provider.settings, NOW)
    change(store={"path": "policy.db", "redis": REDIS, "max_age": 300})
    path = provider.folder / "policy.db"
    with closing(files.connect(path)) as connection, connection:
        be_a_copy(connection, Shared("a fleet", 1, "a change"))
    mark(path, time.time())
    return path


def customers(path: Path) -> list[str]:
    with sqlite.SqlitePolicy(path).records() as records:
        return [customer.id for customer in records.all(Customer)]


def with_another_customer(provider: Provider) -> None:
    file = provider.folder / "policy.yaml"
    policy = yaml.safe_load(file.read_text())
    policy["customers"].append({"id": "new", "name": "New Ltd", "state": "verified"})
    dump(file, policy)


def test_settings_come_into_force_without_a_version_of_the_policy(
    provider: Provider, path: Path, change: Callable[..., None]
) -> None:
    before = sqlite.read_header(path)
    for freshness in (55, 50):
        change(signing={"freshness": freshness})
        assert runtime.start(provider.settings, NOW).warnings == ()
        after = sqlite.read_header(path)
        assert after.policy_version == before.policy_version == 1
        assert after.settings_version != before.settings_version  # by which the agent sees them (esl)
        assert after.state_id == before.state_id
        services, version = runtime.reload(path, NOW)
        assert (services.settings.signing.freshness, version) == (freshness, 1)
        before = after
    runtime.start(provider.settings, NOW)
    assert sqlite.read_header(path) == before
    assert len(list(sqlite.SqlitePolicy(path).changes())) == 1


def test_a_policy_file_that_says_something_else_is_a_warning_at_every_start(provider: Provider, path: Path) -> None:
    with_another_customer(provider)
    for _ in range(2):
        (warning,) = runtime.start(provider.settings, NOW).warnings
        assert "policy.yaml: says something else than this host's copy" in warning
    assert "new" not in customers(path)
    assert sqlite.read_header(path).policy_version == 1
    services, _ = runtime.reload(path, NOW)
    assert "policy.yaml differs from what is in force" in services.warnings[0]


def test_a_policy_file_that_says_the_same_as_the_copy_is_none(provider: Provider, path: Path) -> None:
    file = provider.folder / "policy.yaml"
    file.write_text(file.read_text() + "# the same\n")
    assert runtime.start(provider.settings, NOW).warnings == ()
    assert runtime.check(provider.settings, NOW, only_if_changed=True).in_force


def test_apply_gives_the_policy_to_the_fleet_and_the_settings_to_the_host(
    provider: Provider, path: Path, change: Callable[..., None]
) -> None:
    with_another_customer(provider)
    change(signing={"freshness": 55})
    with pytest.raises(StoreError, match="a fleet's: only 'shaken apply'"):
        runtime.apply(provider.settings, NOW)
    given: list[tuple[Policy, Author, str, bool]] = []

    def share(settings: object, policy: Policy, author: Author, origin: str, overwrite: bool) -> sqlite.InForce:
        given.append((policy, author, origin, overwrite))
        return sqlite.InForce(8, ("one stays suspended",))

    checked, version = runtime.apply(provider.settings, NOW, who="Ann", why="new", overwrite=True, share=share)
    ((policy, author, origin, overwrite),) = given
    assert "new" in {customer.id for customer in policy.customers}
    assert (author, overwrite) == (Author("Ann", "new", NOW), True)
    assert origin == f"file {provider.folder / 'policy.yaml'}"
    assert checked.services is not None
    assert "one stays suspended" in checked.services.warnings
    header = sqlite.read_header(path)
    assert header.digests == runtime.digests(provider.settings, provider.folder / "policy.yaml")
    assert (version, header.policy_version) == (1, 1)  # of the copy: here nobody brought it
    assert header.settings is not None
    assert header.settings["signing"]["freshness"] == 55


def test_without_a_policy_file_only_the_settings_are_applied(
    provider: Provider, path: Path, change: Callable[..., None]
) -> None:
    change(policy=None, signing={"freshness": 55})
    assert runtime.apply(provider.settings, NOW)[1] == 1
    assert runtime.reload(path, NOW)[0].settings.signing.freshness == 55


def test_a_host_that_never_joined_starts_and_decides_nothing(provider: Provider, change: Callable[..., None]) -> None:
    change(store={"path": "policy.db", "redis": REDIS}, policy=None)
    services = runtime.start(provider.settings, NOW)
    assert "no copy of its fleet's policy yet" in services.warnings[-1]
    assert services.authentication is not None
    signing = services.authentication.sign(call(source="127.0.0.2"), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.refuse) == (SkipReason.STORE_UNAVAILABLE, False)
    assert "see 'shaken agent status'" in signing.detail


@pytest.mark.parametrize(
    ("mode", "level", "refused"), [("last_known", "A", False), ("unsigned", None, False), ("refuse", None, True)]
)
def test_a_copy_that_is_too_old_decides_in_the_declared_mode(
    provider: Provider, path: Path, change: Callable[..., None], mode: str, level: str | None, refused: bool
) -> None:
    change(store={"path": "policy.db", "redis": REDIS, "max_age": 300, "when_unavailable": mode})
    observer, now = MemoryObserver(), [NOW]
    switch = Switch(runtime.start(provider.settings, NOW), observer, lambda: now[0], lambda: RANDOM_ORIGID)

    def ask(**parts: str) -> tuple[str | None, bool]:
        outcome = switch.sign(lambda: call(source="127.0.0.2", **parts))
        return outcome.variables.get("level"), outcome.reject is not None

    def warnings() -> list[str]:
        return [text for severity, text in observer.lines if severity is Severity.WARNING and "too old" in text]

    assert ask() == ("A", False)
    assert warnings() == []
    mark(path, time.time() - 301)
    for _ in range(3):
        assert ask() == (level, refused)
    said = [text for text in warnings() if not text.startswith("shaken {")]
    assert len(said) == 1  # once a minute
    assert observer.counts["copy_stale"] == 3
    assert not ask(to="sip:911@example.com;user=phone")[1]
    now[0] += 61
    ask()
    assert len([text for text in warnings() if not text.startswith("shaken {")]) == 2
    mark(path, time.time())
    assert ask() == ("A", False)


@pytest.mark.parametrize(
    ("mode", "level", "refused"), [("last_known", "A", False), ("unsigned", None, False), ("refuse", None, True)]
)
def test_decisions_that_are_remembered_end_with_the_age_of_the_copy(
    provider: Provider,
    path: Path,
    change: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    level: str | None,
    refused: bool,
) -> None:
    change(store={"path": "policy.db", "redis": REDIS, "max_age": 300, "when_unavailable": mode})
    services, observer, asked = runtime.start(provider.settings, NOW), MemoryObserver(), list[object]()
    real, steady, later = sqlite.SqliteStore.facts, time.monotonic, [0.0]
    switch = Switch(services, observer, lambda: NOW + later[0], lambda: RANDOM_ORIGID)

    def facts(*question: Any) -> PolicyFacts:
        asked.append(question)
        return real(*question)

    monkeypatch.setattr(sqlite.SqliteStore, "facts", facts)
    monkeypatch.setattr(time, "monotonic", lambda: steady() + later[0])
    found = []
    for age in (0, 0, 0, 0, 301, 301, 301):
        mark(path, time.time() - age)
        later[0] += 1  # the mark is looked at again
        outcome = switch.sign(lambda: call(source="127.0.0.2"))
        found.append((outcome.variables.get("level"), outcome.reject is not None, len(asked)))
    assert found[:4] == [("A", False, 1), *[("A", False, 2)] * 3]
    assert [one[:2] for one in found[4:]] == [(level, refused)] * 3
    assert [one[2] for one in found[4:]] == ([3, 4, 5] if mode == "last_known" else [2] * 3)
    assert observer.counts["copy_stale"] == 3
    mark(path, time.time())
    later[0] += 1
    assert switch.sign(lambda: call(source="127.0.0.2")).variables.get("level") == "A"


def test_a_mark_that_is_lost_is_no_copy(provider: Provider, path: Path) -> None:
    unmark(path)
    services = runtime.start(provider.settings, NOW)
    assert services.copy is not None
    assert "no copy" in services.warnings[-1]


def test_the_start_says_whose_policy_it_is(path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("switch", "observer", "inline"):
        monkeypatch.setattr(process.Process, name, None)
    observer = MemoryObserver()
    process.load(lambda: observer, provider.settings)
    assert f"policy in {path}, the copy of fleet main that the agent keeps;" in observer.lines[0][1]


def test_the_state_file_made_anew_makes_no_version_of_a_fleets_policy(path: Path) -> None:
    sqlite.remember_state(path, "another", Author("Ann", "disk lost", NOW), shared=True)
    header = sqlite.read_header(path)
    assert (header.state_id, header.policy_version) == ("another", 1)


@pytest.mark.parametrize("mode", ["last_known", "unsigned", "refuse"])
def test_a_policy_that_is_not_moved_yet_or_not_any_more_decides_and_says_so(
    provider: Provider, change: Callable[..., None], mode: str
) -> None:
    path = provider.folder / "policy.db"
    runtime.start(provider.settings, NOW)
    change(store={"path": "policy.db", "redis": REDIS, "max_age": 300, "when_unavailable": mode})
    for marked in (None, time.time() - 301):  # never a copy; long ago
        if marked is not None:
            mark(path, marked)
        services = runtime.start(provider.settings, NOW)
        (warning,) = services.warnings
        assert "decides by a policy of its own, and store.redis names a fleet" in warning
        assert services.authentication is not None
        signing = services.authentication.sign(call(source="127.0.0.2"), NOW, RANDOM_ORIGID)
        assert signing.decision is not None
        assert signing.decision.level is Level.A
    with closing(files.connect(path)) as connection, connection:
        be_a_copy(connection, Shared("a fleet", 1, "a change"))
    services = runtime.start(provider.settings, NOW)
    assert "is too old" in services.warnings[-1]


def test_a_copy_is_changed_by_its_fleet_alone(provider: Provider, path: Path, change: Callable[..., None]) -> None:
    change(store={"redis": None})  # the section was taken out, and the policy was not
    with_another_customer(provider)
    with pytest.raises(StoreError, match="'shaken fleet move --to embedded'"):
        runtime.apply(provider.settings, NOW)
    author = Author("Ann", "new", NOW)
    with (
        pytest.raises(StoreError, match="take this host out of the fleet first"),
        sqlite.SqlitePolicy(path).change(author, "new"),
    ):
        pass
    (warning,) = runtime.start(provider.settings, NOW).warnings
    assert "is a copy of a fleet's policy" in warning
    assert "new" not in customers(path)
