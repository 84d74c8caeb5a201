"""``shaken explain``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.attestation import RULES
from shaken_plugin.lab.provider import Provider
from tests.cli.conftest import Run

CALL = ["--from", "+12155551212", "--to", "+12025550143"]
CUSTOMER, GATEWAY, SUSPENDED = "127.0.0.2", "127.0.0.3", "127.0.0.6"


@pytest.mark.parametrize(
    ("arguments", "level", "code"),
    [
        ([*CALL, "--source", CUSTOMER], "A", 0),
        (["--from", "+19175550100", "--to", "2025550143", "--source", CUSTOMER], "B", 0),
        ([*CALL, "--source", GATEWAY], "C", 0),
        ([*CALL, "--source", "192.0.2.1"], "unsigned", 1),
        (CALL, "unsigned", 1),
        ([*CALL, "--source", SUSPENDED], "refuse", 1),
        (["--from", "+12155551212", "--to", "911", "--source", SUSPENDED], "unsigned", 1),
        (["--from", "+12155551212", "--to", "urn:service:sos", "--source", SUSPENDED], "unsigned", 1),
        (["--from", "sip:alice@example.com", "--to", "2025550143", "--source", CUSTOMER], "B", 0),
        ([*CALL, "--user", "nobody", "--source", CUSTOMER], "A", 0),
    ],
)
@pytest.mark.usefixtures("in_force")
def test_the_level_is_that_of_the_records_in_force(
    run: Run, run_json: Callable[..., Any], arguments: list[str], level: str, code: int
) -> None:
    data = run_json("explain", *arguments, code=code)
    assert (data["level"], data["policy_version"]) == (level, 1)
    assert data["trace"][0].keys() == {"rule", "held", "record", "finding", "missing"}
    assert data["trace"][0]["rule"] == RULES[0].name
    assert run("explain", *arguments, code=code).stdout.startswith(f"level {level}\n")


@pytest.mark.usefixtures("in_force")
def test_it_says_why_and_what_is_missing(run: Run, run_json: Callable[..., Any]) -> None:
    arguments = ["explain", "--from", "+14155550177", "--to", "2025550143", "--source", CUSTOMER]
    data = run_json(*arguments)
    assert data["missing"] == ["a renewal of LOA-2025-007"]
    last = data["trace"][-1]
    assert (last["rule"], last["held"]) == ("right", False)
    assert "LOA-2025-007" in last["record"]
    assert "for a better level: a renewal of LOA-2025-007" in run(*arguments).stdout


@pytest.mark.usefixtures("in_force")
def test_what_an_anonymous_caller_gets_is_what_the_switch_does(run_json: Callable[..., Any]) -> None:
    # RFC 8224 §11: nobody signs for anonymous.invalid.
    data = run_json("explain", "--from", "sip:anonymous@anonymous.invalid", *CALL[2:], "--source", CUSTOMER, code=1)
    assert data["level"] == "unsigned"
    assert "anonymous" in data["trace"][-1]["finding"]


@pytest.mark.usefixtures("in_force")
def test_another_time_may_be_pretended(run_json: Callable[..., Any], present: float) -> None:
    letter = ["explain", "--from", "+13125550142", "--to", "2025550143", "--source", CUSTOMER]
    assert run_json(*letter)["level"] == "A"
    later = run_json(*letter, "--at", str(present + 200 * 86_400))
    assert (later["level"], later["at"]) == ("B", present + 200 * 86_400)


def test_a_policy_file_may_be_tried_before_it_is_in_force(
    run: Run, run_json: Callable[..., Any], provider: Provider
) -> None:
    policy = ["--policy", provider.folder / "policy.yaml"]
    assert run_json("explain", *CALL, "--source", CUSTOMER, *policy)["level"] == "A"
    assert "policy in force cannot be read" in run("explain", *CALL, code=3).stderr


def test_a_policy_file_with_mistakes_is_1(run: Run, provider: Provider) -> None:
    policy = provider.folder / "policy.yaml"
    policy.write_text("customers: x\n")
    assert f"{policy}:1:12: customers" in run("explain", *CALL, "--policy", policy, code=1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        CALL[:2],
        ["--from", "nobody!", "--to", "911"],
        ["--from", "911", "--to", "sip:"],
        [*CALL, "--at", "someday"],
        [*CALL, "--at", "nan"],
        [*CALL, "--policy", "/nonexistent"],
        [*CALL, "--policy", "."],
        ["extra", *CALL],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("in_force")
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    assert "Error: " in run("explain", *arguments, code=2).stderr


def test_settings_that_cannot_be_read_are_3(run: Run, tmp_path: Path) -> None:
    run("explain", *CALL, "--settings", tmp_path / "gone.yaml", code=3)
