"""The composition root: files into force, and services out of what is in force."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from shaken_plugin import runtime
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import FileProblems, StoreError, StoreUnavailable
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.stores import sqlite
from shaken_plugin.switch import Switch
from shaken_plugin.telemetry import MemoryObserver
from tests.conftest import NOW
from tests.services.builders import CALLER, RANDOM_ORIGID, call, claims_of, sip
from tests.stores.descriptors import open_files

SOURCE = "127.0.0.2"
"""Address of the lab's contact centre."""
CALLERS = (CallerHeader.ASSERTED, CallerHeader.FROM)


def _store(provider: Provider) -> Path:
    return provider.folder / "policy.db"


def _level(services: runtime.Services, source: str = SOURCE) -> str:
    assert services.authentication is not None
    signing = services.authentication.sign(call(source=source), NOW, RANDOM_ORIGID)
    assert signing.decision is not None
    return signing.decision.level.value


def _rename_trunk(provider: Provider, address: str) -> None:
    """Change the policy so that the contact centre calls from another address."""
    policy = yaml.safe_load((provider.folder / "policy.yaml").read_text())
    policy["customers"][0]["trunks"][0]["addresses"] = [address]
    dump(provider.folder / "policy.yaml", policy)


# --- Start --------------------------------------------------------------------------------------


def test_the_first_start_puts_settings_and_policy_in_force(provider: Provider) -> None:
    services = runtime.start(provider.settings, NOW)
    header = sqlite.read_header(_store(provider))
    assert header.policy_version == 1
    assert set(header.digests) == {str(provider.settings), str(provider.folder / "policy.yaml")}
    assert services.warnings == ()
    assert _level(services) == "A"


def test_a_second_start_with_the_same_files_parses_no_policy_and_writes_nothing(provider: Provider) -> None:
    runtime.start(provider.settings, NOW)
    checked = runtime.check(provider.settings, NOW, only_if_changed=True)
    assert (checked.in_force, checked.policy, checked.problems) == (True, None, [])
    services = runtime.start(provider.settings, NOW)
    assert sqlite.read_header(_store(provider)).policy_version == 1
    assert _level(services) == "A"


def test_a_full_check_parses_the_policy_even_if_it_is_in_force(provider: Provider) -> None:
    runtime.start(provider.settings, NOW)
    checked = runtime.check(provider.settings, NOW)
    assert checked.policy is not None
    assert not checked.in_force


@pytest.mark.parametrize("which", ["policy", "settings"])
def test_a_changed_file_is_put_in_force_at_the_next_start(
    provider: Provider, change: Callable[..., None], which: str
) -> None:
    runtime.start(provider.settings, NOW)
    if which == "policy":
        _rename_trunk(provider, "127.0.0.77")
    else:
        change(signing={"unknown_source": "refuse"})
    services = runtime.start(provider.settings, NOW)
    assert sqlite.read_header(_store(provider)).policy_version == 2
    assert _level(services, "127.0.0.77") == ("A" if which == "policy" else "refuse")


def test_start_puts_in_force_again_what_another_file_replaced(provider: Provider, tmp_path: Path) -> None:
    runtime.start(provider.settings, NOW)
    moved = tmp_path / "moved.yaml"
    moved.write_text(provider.settings.read_text().replace("file:", f"file:{provider.folder}/"))
    with pytest.raises(FileProblems):
        runtime.start(moved, NOW)  # its policy.yaml is not there
    assert sqlite.read_header(_store(provider)).policy_version == 1


@pytest.mark.parametrize("which", ["policy", "settings", "both"])
def test_mistakes_refuse_everything_are_told_all_at_once_and_what_was_in_force_stays(
    provider: Provider, change: Callable[..., None], which: str
) -> None:
    runtime.start(provider.settings, NOW)
    before = sqlite.read_header(_store(provider))
    if which != "policy":
        change(signing={"freshness": "soon"}, verification={"verstat": "lax"})
    if which != "settings":
        _rename_trunk(provider, "not an address")
    for put in (runtime.start, runtime.apply):
        with pytest.raises(FileProblems) as refused:
            put(provider.settings, NOW)
        found = {(Path(problem.file).name, problem.path) for problem in refused.value.problems}
        expected = set()
        if which != "policy":
            expected |= {("shaken.yaml", "signing.freshness"), ("shaken.yaml", "verification.verstat")}
        if which != "settings":
            expected |= {("policy.yaml", "customers[0].trunks[0].addresses[0]")}
        assert found == expected
    assert sqlite.read_header(_store(provider)) == before


def test_a_mistake_in_signing_does_not_make_the_policys_credentials_unknown(
    provider: Provider, change: Callable[..., None]
) -> None:
    policy = yaml.safe_load((provider.folder / "policy.yaml").read_text())
    policy["customers"][0]["credential"] = "main"
    dump(provider.folder / "policy.yaml", policy)
    change(signing={"freshness": "soon"})
    problems = runtime.check(provider.settings, NOW).problems
    assert [problem.path for problem in problems] == ["signing.freshness"]


MANY = """\
signing:
  freshness: 0
  credentials:
    - name: main
      spc: 811K
      pairs:
        - {key: file:gone.key, chain: file:chain.pem, x5u: "http://certificates.example.com/1.pem"}
        - {key: file:signing.key, chain: file:policy.yaml, x5u: "https://certificates.example.com/2.pem", live: x}
        - {key: file:signing.key, chain: file:chain.pem, x5u: "https://10.0.0.1/3.pem", live_from: 2099-01-01}
    - {name: main, spc: no, pairs: [{key: file:signing.key, chain: file:chain.pem, x5u: "https://lab:9000/4.pem"}]}
    - pairs: [{key: signing.key, chain: file:gone.pem, x5u: "https://certificates.example.com/5.pem"}]
verification:
  mode: activ
  trust_anchors: [file:gone.pem, anchors.pem, file:policy.yaml]
  lab_hosts: ["lab:9000"]
"""


def test_one_round_tells_everything_down_to_keys_and_certificates(provider: Provider) -> None:
    provider.settings.write_text(MANY)
    found = [(problem.line, problem.path) for problem in runtime.check(provider.settings, NOW).problems]
    one = "signing.credentials[0].pairs"
    assert found == [
        (2, "signing.freshness"),
        (7, f"{one}[0].key"),
        (7, f"{one}[0].x5u"),
        (8, f"{one}[1].chain"),
        (8, f"{one}[1].live"),
        (9, f"{one}[2]"),
        (9, f"{one}[2]"),
        (9, f"{one}[2].x5u"),
        (10, "signing.credentials[1].name"),
        (10, "signing.credentials[1].spc"),
        (11, "signing.credentials[2]"),
        (11, "signing.credentials[2].pairs[0].key"),
        (11, "signing.credentials[2].pairs[0].chain"),
        (13, "verification.mode"),
        (14, "verification.trust_anchors[0]"),
        (14, "verification.trust_anchors[1]"),
        (14, "verification.trust_anchors[2]"),
    ]


@pytest.mark.parametrize("hosts", ["lab:9000", ["lab:9000", []]], ids=["no list", "one is no name"])
def test_urls_are_not_judged_while_lab_hosts_are_a_mistake(
    provider: Provider, change: Callable[..., None], hosts: object
) -> None:
    pair = {"key": "file:signing.key", "chain": "file:chain.pem", "x5u": "https://lab:9000/1.pem"}
    change(signing={"credentials": [{"name": "main", "pairs": [pair]}]}, verification={"lab_hosts": hosts})
    (problem,) = runtime.check(provider.settings, NOW).problems
    assert problem.path.startswith("verification.lab_hosts")


def test_sections_that_are_off_or_missing_load_nothing(provider: Provider) -> None:
    provider.settings.write_text("signing: {mode: off, credentials: [{name: a, pairs: [{key: file:x}]}]}\n")
    paths = [problem.path for problem in runtime.check(provider.settings, NOW).problems]
    assert paths == ["", "signing.credentials[0].pairs[0]", "signing.credentials[0].pairs[0]"]


def test_an_unknown_credential_in_the_policy_is_found_with_the_names_that_are_known(provider: Provider) -> None:
    policy = yaml.safe_load((provider.folder / "policy.yaml").read_text())
    policy["gateways"][0]["credential"] = "mian"
    dump(provider.folder / "policy.yaml", policy)
    (problem,) = runtime.check(provider.settings, NOW).problems
    assert (problem.path, "main" in problem.message) == ("gateways[0].credential", True)


@pytest.mark.parametrize("place", ["folder that is missing", "no rights", "newer release", "a folder"])
def test_a_store_that_cannot_be_written_is_a_warning_and_not_an_error(
    provider: Provider, change: Callable[..., None], place: str
) -> None:
    if place == "folder that is missing":
        change(store={"path": "missing/policy.db"})
    elif place == "a folder":
        _store(provider).mkdir()
    elif place == "newer release":
        sqlite.replace_policy(_store(provider), None, None, {})
        with closing(sqlite3.connect(_store(provider))) as other:
            other.execute("PRAGMA user_version = 99")
    else:
        change(store={"path": "/proc/policy.db"})
    services = runtime.start(provider.settings, NOW)
    assert services.authentication is not None
    assert services.verification is not None
    (warning,) = services.warnings
    assert warning.startswith("policy not put in force: ")


def test_a_damaged_store_is_a_warning_too(provider: Provider) -> None:
    runtime.start(provider.settings, NOW)
    with closing(sqlite3.connect(_store(provider), isolation_level=None)) as other:
        other.execute("DELETE FROM meta")
    (warning,) = runtime.start(provider.settings, NOW).warnings
    assert "damaged" in warning


def test_a_missing_settings_file_is_a_problem_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileProblems, match=r"none\.yaml:1:1: cannot be read: No such file"):
        runtime.start(tmp_path / "none.yaml", NOW)


def test_a_missing_policy_file_is_a_problem_with_its_name(provider: Provider) -> None:
    (provider.folder / "policy.yaml").unlink()
    with pytest.raises(FileProblems, match=r"policy\.yaml:1:1: cannot be read: No such file"):
        runtime.start(provider.settings, NOW)


def test_without_a_policy_file_the_records_in_force_stay(provider: Provider, change: Callable[..., None]) -> None:
    runtime.start(provider.settings, NOW)
    (provider.folder / "policy.yaml").unlink()
    change(policy=None)
    services = runtime.start(provider.settings, NOW)
    assert sqlite.read_header(_store(provider)).policy_version == 2
    assert _level(services) == "A"
    assert runtime.check(provider.settings, NOW, only_if_changed=True).in_force


def test_start_leaves_no_connection_open_that_would_cross_a_fork(provider: Provider) -> None:
    runtime.start(provider.settings, NOW)
    runtime.start(provider.settings, NOW)
    assert open_files(_store(provider)) == []


# --- Apply and reload ---------------------------------------------------------------------------


def test_apply_of_what_is_in_force_reads_everything_and_makes_no_new_version(provider: Provider) -> None:
    assert runtime.apply(provider.settings, NOW)[1] == 1
    checked, version = runtime.apply(provider.settings, NOW)
    assert version == 1
    assert checked.policy is not None
    assert len(checked.policy.customers) == 3


def test_apply_to_a_store_that_cannot_be_written_is_an_error(provider: Provider, change: Callable[..., None]) -> None:
    change(store={"path": "missing/policy.db"})
    with pytest.raises(StoreError, match="cannot be created"):
        runtime.apply(provider.settings, NOW)


def test_records_decide_at_once_and_settings_at_the_reload(provider: Provider, change: Callable[..., None]) -> None:
    services = runtime.start(provider.settings, NOW)
    assert _level(services, "127.0.0.77") == "unsigned"
    change(signing={"unknown_source": "refuse"})
    _rename_trunk(provider, "127.0.0.77")
    runtime.apply(provider.settings, NOW)
    assert (_level(services, "127.0.0.77"), _level(services)) == ("A", "unsigned")
    reloaded, version = runtime.reload(_store(provider), NOW)
    assert (version, _level(reloaded)) == (2, "refuse")


INVALID, ELSEWHERE = "11015550123", "13125550100"
"""No numbering plan has the first; nobody has a right to the second."""


@pytest.mark.parametrize(
    ("numbers", "choice", "before", "after"),
    [
        ((INVALID,) * 2, {"invalid_numbers": "downgrade"}, ("refuse", INVALID), ("B", INVALID)),
        ((CALLER, ELSEWHERE), {"sources": ["From"]}, ("A", CALLER), ("B", ELSEWHERE)),
        ((CALLER,) * 2, {"origid": {"per": "call"}}, ("A", CALLER), ("A", CALLER)),
        ((CALLER,) * 2, {"origid": {"namespace": RANDOM_ORIGID}}, ("A", CALLER), ("A", CALLER)),
        ((CALLER,) * 2, {"leave_alone": ["1202"]}, ("A", CALLER), ("unsigned", CALLER)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_new_settings_decide_the_next_call_though_the_one_before_is_remembered(
    provider: Provider,
    change: Callable[..., None],
    numbers: tuple[str, str],
    choice: dict[str, Any],
    before: tuple[str, str],
    after: tuple[str, str],
) -> None:
    change(store={"when_unavailable": "unsigned"})  # its stamps say nothing but what the files are
    switch = Switch(runtime.start(provider.settings, NOW), MemoryObserver(), lambda: NOW, lambda: RANDOM_ORIGID)
    shown = {header: (sip(number),) for header, number in zip(CALLERS, numbers, strict=True)}

    def sign() -> tuple[tuple[str, str], str | None]:
        assert switch.services.authentication is not None
        signing = switch.services.authentication.sign(call(source=SOURCE, callers=shown), NOW, RANDOM_ORIGID)
        assert signing.decision is not None
        assert isinstance(signing.orig, TelephoneNumber)
        return (signing.decision.level.value, signing.orig.digits), signing.origid

    change(signing=choice)
    runtime.apply(provider.settings, NOW)  # which is a commit: so calls are made after it
    (known, origid), *others = [sign() for _ in range(4)]
    assert others == [(known, origid)] * 3
    switch.services, _ = runtime.reload(_store(provider), NOW)
    assert (known, sign()[0]) == (before, after)
    if "origid" in choice:
        assert sign()[1] not in {origid, None}


def test_reload_reads_no_yaml(provider: Provider) -> None:
    started = runtime.start(provider.settings, NOW)
    provider.settings.unlink()
    (provider.folder / "policy.yaml").unlink()
    services, version = runtime.reload(_store(provider), NOW)
    assert version == 1
    assert services.settings == started.settings
    assert _level(services) == "A"
    before, after = (each.authentication for each in (started, services))
    assert before is not None
    assert after is not None
    message = call(source=SOURCE)
    assert claims_of(after.sign(message, NOW, RANDOM_ORIGID).identity) == claims_of(
        before.sign(message, NOW, RANDOM_ORIGID).identity
    )


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("signing.key", "signing.credentials[0].pairs[0].key"),
        ("chain.pem", "signing.credentials[0].pairs[0].chain"),
        ("anchors.pem", "verification.trust_anchors[0]"),
    ],
)
def test_reload_with_a_file_that_vanished_refuses_and_names_it(provider: Provider, name: str, path: str) -> None:
    runtime.start(provider.settings, NOW)
    (provider.folder / name).unlink()
    with pytest.raises(FileProblems) as refused:
        runtime.reload(_store(provider), NOW)
    (problem,) = refused.value.problems
    assert problem.path == path
    assert str(provider.folder / name) in problem.message


def test_a_reload_from_the_old_store_says_that_a_restart_is_needed(
    provider: Provider, change: Callable[..., None]
) -> None:
    runtime.start(provider.settings, NOW)
    assert runtime.reload(_store(provider), NOW)[0].warnings == ()
    change(store={"path": "moved.db"}, signing={"freshness": 30})
    checked, _ = runtime.apply(provider.settings, NOW)
    assert checked.services is not None
    assert "moved.db is new" in checked.services.warnings[0]
    services, _ = runtime.reload(_store(provider), NOW)
    assert services.settings.signing.freshness == 60
    (warning,) = services.warnings
    assert warning.startswith(f"{provider.settings} differs from what is in force in {_store(provider)}: run")
    assert "restart the switch" in warning
    assert runtime.reload(provider.folder / "moved.db", NOW)[0].warnings == ()


def test_a_reload_without_an_apply_says_so(provider: Provider, change: Callable[..., None]) -> None:
    runtime.start(provider.settings, NOW)
    change(signing={"freshness": 30})
    (warning,) = runtime.reload(_store(provider), NOW)[0].warnings
    assert "run 'shaken apply'" in warning


def test_reload_of_a_store_without_settings_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "policy.db"
    with pytest.raises(StoreUnavailable):
        runtime.reload(path, NOW)
    sqlite.replace_policy(path, None, None, {})
    with pytest.raises(StoreError, match="run 'shaken apply'"):
        runtime.reload(path, NOW)


def test_reload_of_another_releases_settings_names_the_command_and_quotes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.db"
    sqlite.replace_policy(path, None, {"signing": {"mode": "off"}, "verification": {"mode": "quantum"}}, {})
    with pytest.raises(StoreError, match="not those of this release; run 'shaken apply'") as refused:
        runtime.reload(path, NOW)
    assert "quantum" not in str(refused.value.__cause__)


def test_what_is_kept_in_the_store_has_references_and_no_secrets(provider: Provider) -> None:
    runtime.start(provider.settings, NOW)
    kept = json.dumps(sqlite.read_header(_store(provider)).settings)
    assert f"file:{provider.folder}/signing.key" in kept
    secret = provider.credential.key.decode().splitlines()[1]
    assert secret not in kept
    assert secret.encode() not in _store(provider).read_bytes()
