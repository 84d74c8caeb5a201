"""``shaken explain``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.conduct import decisions
from shaken_plugin.conduct.state import State
from shaken_plugin.core.attestation import RULES
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.lab.provider import Provider
from tests.cli.conftest import Run, invite

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
    right, unauthorised, *final = data["trace"][-4:]
    assert (right["rule"], right["held"]) == ("right", False)
    assert (unauthorised["rule"], unauthorised["held"]) == ("unauthorised", True)
    assert "LOA-2025-007" in right["record"]
    assert [(step["rule"], step["held"]) for step in final] == [("credential", True), ("scope", True)]
    assert "for a better level: a renewal of LOA-2025-007" in run(*arguments).stdout


@pytest.mark.usefixtures("in_force")
def test_an_unauthorised_caller_id_is_told_with_what_becomes_of_it(
    run: Run, run_json: Callable[..., Any], change: Callable[..., None]
) -> None:
    strange = ["explain", "--from", "+19175550100", "--to", "2025550143", "--source", CUSTOMER]
    data = run_json(*strange)
    assert (data["level"], data["refusal"], data["unauthorised"], data["offence"]) == ("B", None, True, True)
    assert "unauthorised caller ID, counted as an offence" in run(*strange).stdout
    change(signing={"unauthorised": "substitute", "substitute": "+12155551212"})
    data = run_json(*strange)
    assert (data["level"], data["substitute"]) == ("A", "12155551212")
    assert "with the caller ID +12155551212 in place of its own" in run(*strange).stdout
    change(signing={"unauthorised": "refuse"})
    data = run_json(*strange, "--route", "none-of-that-name", code=1)
    assert (data["level"], data["refusal"]) == ("refuse", "unauthorised")
    assert "refused: unauthorised" in run(*strange, code=1).stdout


@pytest.mark.usefixtures("in_force")
def test_a_number_that_no_plan_knows_is_refused(run_json: Callable[..., Any]) -> None:
    data = run_json("explain", "--from", "+19995550100", *CALL[2:], "--source", CUSTOMER, code=1)
    assert (data["level"], data["refusal"]) == ("refuse", "do_not_originate")


def test_a_suspended_customer_is_refused_whatever_the_policy_says(
    run_json: Callable[..., Any], in_force: Provider
) -> None:
    state = State(in_force.folder / "state.db")
    asked = ("explain", *CALL, "--source", CUSTOMER)
    decisions.suspend(state, "acme", "Ann", "because", time.time())
    assert run_json(*asked, code=1)["level"] == "refuse"
    decisions.reinstate(state, "acme", "Ann", "over", time.time())
    assert run_json(*asked)["level"] == "A"


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
    later = run_json(*letter, "--at", str(present + 200 * 86_400), code=1)
    assert (later["level"], later["at"]) == ("unsigned", present + 200 * 86_400)
    assert later["level_by_records"] == "B"
    assert later["trace"][-1]["rule"] == "credential"  # no certificate that is known lasts so long


# --- What the switch needs besides records --------------------------------------------------------


@pytest.fixture
def certified(provider: Provider, living: Authority, present: float) -> Callable[..., None]:
    """Puts another certificate in place of the provider's."""

    def put(**how: Any) -> None:
        issued = living.issue(now=present, **how)
        (provider.folder / "signing.key").write_bytes(issued.key)
        (provider.folder / "chain.pem").write_bytes(issued.chain)

    return put


@pytest.mark.usefixtures("in_force")
def test_with_an_expired_certificate_nothing_is_promised(
    run: Run, run_json: Callable[..., Any], certified: Callable[..., None], tmp_path: Path
) -> None:
    certified(spc="709J", defect=Defect.EXPIRED)
    data = run_json("explain", *CALL, "--source", CUSTOMER, code=1)
    assert (data["level"], data["level_by_records"]) == ("unsigned", "A")
    last = data["trace"][-1]
    assert (last["rule"], last["held"], last["record"]) == ("credential", False, "credential main")
    assert data["missing"] == ["a certificate that is live and valid"]
    told = run("explain", *CALL, "--source", CUSTOMER, code=1).stdout
    assert told.startswith("level unsigned (by the records: A)\n")
    message = tmp_path / "invite.sip"
    message.write_text(invite())
    assert run_json("sign", message, "--source", CUSTOMER, code=1)["skip"] == "credential_not_valid"


@pytest.mark.usefixtures("in_force")
def test_a_certificate_for_other_numbers_promises_nothing(
    run_json: Callable[..., Any], certified: Callable[..., None], change: Callable[..., None], in_force: Provider
) -> None:
    certified(numbers=("12155559999",))
    pair = {"key": "file:signing.key", "chain": "file:chain.pem", "x5u": in_force.x5u}
    change(signing={"credentials": [{"name": "main", "pairs": [pair]}]})
    data = run_json("explain", *CALL, "--source", CUSTOMER, code=1)
    assert [(step["rule"], step["held"]) for step in data["trace"][-2:]] == [("credential", True), ("scope", False)]


@pytest.mark.usefixtures("in_force")
def test_with_signing_off_nothing_is_promised(run_json: Callable[..., Any], change: Callable[..., None]) -> None:
    change(signing={"mode": "off", "credentials": []})
    data = run_json("explain", *CALL, "--source", CUSTOMER, code=1)
    assert (data["level"], data["level_by_records"], data["trace"][-1]["rule"]) == ("unsigned", "A", "mode")


@pytest.mark.usefixtures("in_force")
def test_a_key_that_cannot_be_read_is_3_and_told(run: Run, run_json: Callable[..., Any], in_force: Provider) -> None:
    (in_force.folder / "signing.key").unlink()
    (in_force.folder / "anchors.pem").unlink()
    assert "pairs[0].key: " in run("explain", *CALL, "--source", CUSTOMER, code=3).stderr
    (problem,) = run_json("explain", *CALL, "--source", CUSTOMER, code=3)["problems"]
    assert problem["line"] > 1
    run_json("explain", *CALL, "--source", SUSPENDED, code=1)


@pytest.mark.usefixtures("in_force")
def test_a_credential_of_the_policy_that_is_not_in_the_settings_is_told(
    run_json: Callable[..., Any], in_force: Provider
) -> None:
    policy = in_force.folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("- id: acme\n", "- id: acme\n  credential: gone\n"))
    data = run_json("explain", *CALL, "--source", CUSTOMER, "--policy", policy, code=1)
    assert data["trace"][-1]["finding"] == "no credential is configured for this customer"


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


# --- Calls that are sent on --------------------------------------------------------------------

OUTSIDE = ["--from", "+12025550143", "--source", "192.0.2.1"]


@pytest.mark.parametrize(
    ("diverting", "level", "why"),
    [
        ("+12155551212", "div", "Acme Contact Centre may use the diverting number: assigned by us"),
        ("+13125550142", "div", "Acme Contact Centre may use the diverting number: letter of authorisation"),
        ("+14155550177", "unsigned", "the right (letter of authorisation) ended"),
        ("+19175550100", "unsigned", "nobody vouched for the diverting number"),
    ],
)
@pytest.mark.usefixtures("in_force")
def test_a_call_that_is_sent_on_needs_a_right_to_the_diverting_number(
    run: Run, run_json: Callable[..., Any], diverting: str, level: str, why: str
) -> None:
    arguments = ["explain", *OUTSIDE, "--to", "+17185550111", "--diverted-from", diverting]
    code = 0 if level == "div" else 1
    data = run_json(*arguments, code=code)
    assert data["level"] == level
    steps = {step["rule"]: step for step in data["trace"]}
    assert steps["diverting_right"]["finding"].startswith(why)
    assert ("scope" in steps) is (level == "div")
    assert run(*arguments, code=code).stdout.startswith(f"level {level}\n")


@pytest.mark.parametrize("diverting", ["sip:bob@example.com", "+17185550111", "nonsense:"])
@pytest.mark.usefixtures("in_force")
def test_what_is_no_other_number_sends_no_call_on(run: Run, diverting: str) -> None:
    told = run("explain", *OUTSIDE, "--to", "+17185550111", "--diverted-from", diverting, code=2)
    assert "Usage" in told.stderr
