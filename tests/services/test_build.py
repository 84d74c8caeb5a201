"""Settings put together into services: every choice arrives, every fault has its place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin import runtime
from shaken_plugin.authentication import OrigidScope, StoreDown
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import parse_settings
from shaken_plugin.config.yamlfile import render
from shaken_plugin.core.attestation import Level
from shaken_plugin.core.verification import Profile, VerificationRules
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.lab.provider import Provider
from shaken_plugin.stores import sqlite
from shaken_plugin.stores.last_known import LastKnown, LastStanding
from shaken_plugin.stores.sqlite import SqliteStore
from shaken_plugin.stores.standing import StandingFile, WithStanding
from tests.conftest import NOW
from tests.services.builders import RANDOM_ORIGID, call

SOURCE = "127.0.0.2"
"""Address of the lab's contact centre."""


@pytest.fixture
def build(provider: Provider, change: Callable[..., None]) -> Callable[..., tuple[runtime.Services, list[str]]]:
    """Services from changed settings, and what was reported."""

    def make(**sections: Any) -> tuple[runtime.Services, list[str]]:
        change(**sections)
        settings, document = parse_settings(provider.settings)
        assert settings is not None, document.problems
        reported: list[str] = []
        services = runtime.build(settings, NOW, lambda place, text: reported.append(f"{render(place)}: {text}"))
        return services, reported

    return make


Build = Callable[..., tuple[runtime.Services, list[str]]]


def test_a_part_that_is_off_is_not_built(build: Build) -> None:
    services, reported = build(signing={"mode": "off"}, verification={"mode": "off", "trust_anchors": ["file:gone"]})
    assert (services.authentication, services.verification, reported) == (None, None, [])


def test_settings_become_signing_rules(build: Build) -> None:
    services, _ = build(
        country="GB",
        numeric_users=False,
        emergency_numbers=["110"],
        signing={
            "sources": ["From"],
            "existing_identity": "add",
            "stale_date": "replace",
            "freshness": 30,
            "unknown_source": "refuse",
            "pending_customer": "B",
            "sign_international": False,
            "leave_alone": ["+4470"],
            "origid": {"per": "call"},
            "quote_ppt": False,
            "mky": False,
        },
        store={"when_unavailable": "refuse"},
    )
    assert services.authentication is not None
    rules = services.authentication._rules
    assert (rules.plan.country_code, rules.plan.numeric_users) == ("44", False)
    assert rules.plan.emergency_numbers.fullmatch("110")
    assert [header.value for header in rules.sources] == ["From"]
    assert (rules.existing.value, rules.stale_date.value, rules.freshness) == ("add", "replace", 30)
    assert (rules.store_down, rules.origid) == (StoreDown.REFUSE, OrigidScope.CALL)
    assert (rules.quote_ppt, rules.mky, rules.default_credential) == (False, False, "main")
    policy = rules.attestation
    assert (policy.unknown_source, policy.pending_customer) == (Level.REFUSE, Level.B)
    assert (policy.sign_international, policy.leave_alone, policy.home_country_code) == (False, ("4470",), "44")


def test_settings_become_verification_rules(build: Build) -> None:
    services, _ = build(
        verification={
            "freshness": 45,
            "inner_freshness": 10_800,
            "profile": "rfc8224",
            "mky": False,
            "lab_hosts": ["127.0.0.1:8443"],
        }
    )
    assert services.verification is not None
    assert services.verification._rules == VerificationRules(
        services.plan, 45, frozenset({"127.0.0.1:8443"}), Profile.RFC8224, 10_800, media_keys=False
    )


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ("last_known", (LastKnown, LastStanding)),
        ("unsigned", (SqliteStore, StandingFile)),
        ("refuse", (SqliteStore, StandingFile)),
    ],
)
def test_only_last_known_remembers_answers(build: Build, mode: str, kinds: tuple[type, type]) -> None:
    services, _ = build(store={"when_unavailable": mode})
    assert services.authentication is not None
    store = services.authentication.store
    assert isinstance(store, WithStanding)
    assert (type(store._store), type(store._source)) == kinds


def test_origids_differ_from_provider_to_provider_and_stay_over_restarts(tmp_path: Path, authority: Authority) -> None:
    def origid(folder: str, spc: str, **signing: Any) -> str | None:
        made = Provider.make(tmp_path / folder, authority, NOW, spc=spc, signing=signing)
        service = runtime.start(made.settings, NOW).authentication
        assert service is not None
        return service.sign(call(source=SOURCE), NOW, RANDOM_ORIGID).origid

    one = origid("one", "709J")
    assert one is not None
    assert origid("again", "709J") == one
    assert origid("other", "811K") != one
    assert origid("named", "709J", origid={"namespace": "6ba7b810-9dad-41d1-80b4-00c04fd430c8"}) != one


def test_every_key_and_anchor_that_cannot_be_used_is_reported(build: Build, provider: Provider) -> None:
    pair = {"key": "file:signing.key", "chain": "file:gone.pem", "x5u": "https://certificates.example.com/2.pem"}
    wrong = {"key": "file:chain.pem", "chain": "env:GONE", "x5u": "https://certificates.example.com/3.pem"}
    bad = {"key": "file:chain.pem", "chain": "file:chain.pem", "x5u": "https://certificates.example.com/4.pem"}
    (provider.folder / "empty.pem").touch()
    _, reported = build(
        signing={"credentials": [{"name": "a", "pairs": [pair, wrong]}, {"name": "b", "pairs": [bad]}]},
        verification={"trust_anchors": ["file:empty.pem", "file:gone.pem", "file:chain.pem"]},
    )
    places = [text.partition(": ")[0] for text in reported]
    assert places == [
        "signing.credentials[0].pairs[0].chain",
        "signing.credentials[0].pairs[1].key",
        "signing.credentials[0].pairs[1].chain",
        "signing.credentials[1].pairs[0].key",
        "verification.trust_anchors[0]",
        "verification.trust_anchors[1]",
        "verification.trust_anchors[2]",
    ]
    assert "the environment variable GONE is not set" in reported[2]


def test_keys_may_come_from_the_environment(build: Build, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAKEN_KEY", provider.credential.key.decode())
    pair = {"key": "env:SHAKEN_KEY", "chain": "file:chain.pem", "x5u": provider.x5u}
    services, reported = build(signing={"credentials": [{"name": "main", "pairs": [pair]}]})
    assert reported == []
    assert services.credentials["main"].current(NOW) is not None


@pytest.fixture
def issue(provider: Provider, authority: Authority) -> Callable[..., None]:
    def replace_pair(**how: Any) -> None:
        issued = authority.issue(spc="709J", now=NOW, **how)
        (provider.folder / "signing.key").write_bytes(issued.key)
        (provider.folder / "chain.pem").write_bytes(issued.chain)

    return replace_pair


def test_an_expired_certificate_is_a_warning_and_signs_nothing(build: Build, issue: Callable[..., None]) -> None:
    issue(defect=Defect.EXPIRED)
    services, reported = build()
    assert reported == []
    assert [warning.partition(":")[0] for warning in services.warnings] == ["credential main"] * 2
    assert "has expired and signs nothing" in services.warnings[0]
    assert "calls go unsigned" in services.warnings[1]


@pytest.mark.parametrize(("left", "warned"), [(timedelta(days=2), True), (timedelta(days=20), False)])
def test_a_certificate_that_ends_soon_is_a_warning_before_any_call(
    build: Build, issue: Callable[..., None], left: timedelta, warned: bool
) -> None:
    age = timedelta(days=10)
    issue(age=age, lifetime=age + left)
    services, _ = build()
    assert [warning.partition(";")[0] for warning in services.warnings] == [
        "credential main: no certificate is valid beyond 48.0 hours from now"
    ] * warned


def test_a_certificate_that_is_not_valid_yet_is_a_warning(build: Build, issue: Callable[..., None]) -> None:
    issue(age=timedelta(hours=-1))
    services, _ = build()
    assert [warning.partition(";")[0] for warning in services.warnings] == [
        "credential main: no certificate is live and valid now"
    ]


def test_digests_pass_over_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    found = runtime.digests(tmp_path / "a", tmp_path / "gone", tmp_path, None)
    assert found == {str(tmp_path / "a"): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}


def test_compiled_settings_are_equal_after_the_store(provider: Provider) -> None:
    services = runtime.start(provider.settings, NOW)
    kept = sqlite.read_header(provider.folder / "policy.db").settings
    assert Settings.model_validate(kept) == services.settings
