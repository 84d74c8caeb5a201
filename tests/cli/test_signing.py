"""``shaken sign``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.attestation import RULES
from shaken_plugin.core.sip import format_date
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.lab.provider import Provider
from tests.cli.conftest import Run, invite
from tests.services.builders import claims_of, token_part

CLAIMS = ["--attest", "B", "--from", "+12155551212", "--to", "2025550143"]


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "invite.sip"
    path.write_text(invite())
    return path


# --- A message, by the records --------------------------------------------------------------------


@pytest.mark.usefixtures("in_force")
def test_a_call_is_decided_and_signed_as_the_switch_would(
    run: Run, run_json: Callable[..., Any], message: Path
) -> None:
    data = run_json("sign", message, "--source", "127.0.0.2")
    assert (data["level"], data["skip"], data["refuse"], data["missing"]) == ("A", None, False, [])
    assert claims_of(data["identity"])["orig"] == {"tn": "12155551212"}
    assert data["date"].endswith(" GMT")
    assert [step["rule"] for step in data["trace"]] == [rule.name for rule in RULES]
    lines = run("sign", message, "--source", "127.0.0.2").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Date", "Identity"]


@pytest.mark.usefixtures("in_force")
def test_a_message_may_come_from_standard_input(run_json: Callable[..., Any]) -> None:
    assert run_json("sign", "-", "--source", "127.0.0.2", stdin=invite())["level"] == "A"


@pytest.mark.usefixtures("in_force")
def test_a_date_of_the_message_is_not_given_again(run: Run, present: float) -> None:
    stamped = invite("+12155551212", "+12025550143", f"Date: {format_date(present)}")
    out = run("sign", "-", "--source", "127.0.0.2", "--at", present, stdin=stamped).stdout
    assert out.startswith("Identity: ")
    assert "Date:" not in out


@pytest.mark.parametrize(
    ("source", "skip", "refuse"), [("127.0.0.9", "policy_unsigned", False), ("127.0.0.6", "policy_refused", True)]
)
@pytest.mark.usefixtures("in_force")
def test_a_call_that_is_not_signed_is_1_and_explained(
    run: Run, run_json: Callable[..., Any], message: Path, source: str, skip: str, refuse: bool
) -> None:
    data = run_json("sign", message, "--source", source, code=1)
    assert (data["identity"], data["skip"], data["refuse"]) == (None, skip, refuse)
    told = run("sign", message, "--source", source, code=1)
    assert f"not signed: {skip}" in told.stderr
    assert "level " in told.stdout


@pytest.mark.usefixtures("in_force")
def test_an_account_is_an_option(run_json: Callable[..., Any], message: Path) -> None:
    assert run_json("sign", message, "--user", "nobody", code=1)["skip"] == "policy_unsigned"


@pytest.mark.usefixtures("provider")
def test_records_that_are_not_in_force_are_3(run: Run, message: Path) -> None:
    assert "store_unavailable" in run("sign", message, "--source", "127.0.0.2", code=3).stderr


@pytest.mark.usefixtures("in_force")
@pytest.mark.parametrize("text", ["", "SIP/2.0 200 OK\r\n\r\n", "hello\r\n\r\n"])
def test_what_is_no_request_is_1(run: Run, text: str) -> None:
    assert "not a SIP request" in run("sign", "-", stdin=text, code=1).stderr


@pytest.mark.usefixtures("in_force")
def test_a_file_that_is_not_there_is_3(run: Run, tmp_path: Path) -> None:
    assert "No such file" in run("sign", tmp_path / "gone", code=3).stderr


def test_signing_that_is_off_is_3(run: Run, change: Callable[..., None], message: Path) -> None:
    change(signing={"mode": "off"})
    assert "signing is off" in run("sign", message, code=3).stderr


def test_settings_with_mistakes_are_1_and_missing_ones_3(
    run: Run, provider: Provider, change: Callable[..., None], message: Path
) -> None:
    change(signing={"freshness": "soon"})
    assert "signing.freshness" in run("sign", message, code=1).stderr
    provider.settings.unlink()
    assert "cannot be read" in run("sign", message, code=3).stderr


@pytest.mark.parametrize("name", ["signing.key", "anchors.pem"])
def test_a_key_or_anchor_that_is_not_there_is_3(run: Run, provider: Provider, message: Path, name: str) -> None:
    (provider.folder / name).unlink()
    assert name in run("sign", message, code=3).stderr


# --- Claims as told -------------------------------------------------------------------------------


@pytest.mark.usefixtures("provider")
def test_claims_are_signed_as_told(run: Run, run_json: Callable[..., Any], present: float) -> None:
    origid = "11111111-2222-4333-8444-555555555555"
    data = run_json("sign", *CLAIMS, "--origid", origid, "--iat", int(present) - 9)
    assert data["claims"] == claims_of(data["identity"])
    assert data["claims"] == {
        "attest": "B",
        "dest": {"tn": ["12025550143"]},
        "iat": int(present) - 9,
        "orig": {"tn": "12155551212"},
        "origid": origid,
    }
    assert run("sign", *CLAIMS).stdout.count(";info=<") == 1


FORGED = {
    "iat before the certificate": (["--iat", "1700000000"], "credential_not_valid", 1),
    "iat before the epoch": (["--iat", "-5"], "credential_not_valid", 1),
    "time behind the certificate": (["--at", "2090-01-01"], "valid at this time", 1),
    "origid": (["--origid", "nonsense"], "is not a UUID", 2),
    "origid in braces": (["--origid", "{11111111-2222-4333-8444-555555555555}"], "is not a UUID", 2),
}


@pytest.mark.parametrize(("arguments", "told", "code"), FORGED.values(), ids=FORGED)
@pytest.mark.usefixtures("provider")
def test_what_verifiers_would_refuse_is_signed_only_if_forced(
    run: Run, arguments: list[str], told: str, code: int
) -> None:
    refused = run("sign", *CLAIMS, *arguments, code=code)
    assert told in refused.stderr
    assert refused.stdout == ""
    assert ";info=<" in run("sign", *CLAIMS, *arguments, "--force-invalid").stdout


@pytest.mark.parametrize(
    ("how", "skip"),
    [
        ({"spc": "709J", "defect": Defect.EXPIRED}, "credential_not_valid"),
        ({"spc": "709J", "defect": Defect.NOT_YET_VALID}, "credential_not_valid"),
        ({"numbers": ("12155559999",)}, "credential_scope"),
    ],
    ids=["expired", "not yet valid", "other number"],
)
def test_a_certificate_of_the_command_line_is_no_exception(
    run: Run, run_json: Callable[..., Any], tmp_path: Path, living: Authority, present: float,
    how: dict[str, Any], skip: str,
) -> None:  # fmt: skip
    issued = living.issue(now=present, **how)
    (tmp_path / "a.key").write_bytes(issued.key)
    (tmp_path / "a.pem").write_bytes(issued.chain)
    files = ["--key", tmp_path / "a.key", "--chain", tmp_path / "a.pem", "--x5u", "https://a.example/b.pem"]
    assert f"not signed: {skip}" in run("sign", *CLAIMS, *files, code=1).stderr
    assert skip in run_json("sign", *CLAIMS, *files, code=1)["error"]
    assert run_json("sign", *CLAIMS, *files, "--force-invalid")["claims"]["attest"] == "B"


@pytest.mark.usefixtures("provider")
def test_iat_is_the_time_that_is_pretended(run_json: Callable[..., Any], present: float) -> None:
    data = run_json("sign", *CLAIMS, "--at", str(present - 5))
    assert data["claims"]["iat"] == int(present - 5)


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    ("caller", "claim"), [("sip:alice@example.com", {"uri": "sip:alice@example.com"}), ("tel:911", {"tn": "911"})]
)
def test_callers_may_be_uris(run_json: Callable[..., Any], caller: str, claim: dict[str, str]) -> None:
    data = run_json("sign", "--attest", "A", "--from", caller, "--to", "2025550143")
    assert data["claims"]["orig"] == claim


def test_a_key_of_the_command_line_needs_no_settings(
    run_json: Callable[..., Any], provider: Provider, tmp_path: Path
) -> None:
    files = ["--key", provider.folder / "signing.key", "--chain", provider.folder / "chain.pem"]
    data = run_json("sign", *CLAIMS, *files, "--x5u", "https://a.example/b.pem", "--settings", tmp_path / "gone")
    assert token_part(data["identity"], 0)["x5u"] == "https://a.example/b.pem"


def test_a_key_that_does_not_match_is_1(run: Run, provider: Provider, living: Authority, present: float) -> None:
    other = provider.folder / "other.key"
    other.write_bytes(living.issue(spc="709J", now=present).key)
    files = ["--key", other, "--chain", provider.folder / "chain.pem", "--x5u", "https://a.example/b.pem"]
    assert "does not match" in run("sign", *CLAIMS, *files, code=1).stderr


@pytest.mark.usefixtures("provider")
def test_a_credential_that_is_not_there_or_not_valid_is_1(run: Run) -> None:
    assert "no credential gone" in run("sign", *CLAIMS, "--credential", "gone", code=1).stderr
    assert "valid at this time" in run("sign", *CLAIMS, "--at", "2001-01-01", code=1).stderr


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--attest", "A"],
        ["--attest", "A", "--from", "+12155551212"],
        ["--attest", "D", "--from", "+12155551212", "--to", "911"],
        ["--attest", "A", "--from", "nobody!", "--to", "911"],
        ["--attest", "A", "--from", "+12155551212", "--to", "http://a.example"],
        [*CLAIMS, "--iat", "now"],
        [*CLAIMS, "--at", "someday"],
        [*CLAIMS, "--at", "nan"],
        [*CLAIMS, "--at", "inf"],
        [*CLAIMS, "--at", "1e300"],
        [*CLAIMS, "--at", "-1"],
        [*CLAIMS, "--x5u", "https://a.example/b.pem"],
        [*CLAIMS, "--key", "/nonexistent"],
        [*CLAIMS, "--key", ".", "--chain", ".", "--x5u", "https://a.example/b.pem"],
        ["-", "--attest", "A"],
        ["-", "--force-invalid"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    assert "Error: " in run("sign", *arguments, code=2, stdin="").stderr


# --- A message that is sent on -----------------------------------------------------------------


@pytest.mark.usefixtures("in_force")
def test_a_div_is_signed_for_a_message_that_is_sent_on(run: Run, run_json: Callable[..., Any]) -> None:
    # The call came to +12155551212 with this Identity, and goes on to +17185550111.
    original = run("sign", "--attest", "A", "--from", "+12025550143", "--to", "+12155551212").stdout.strip()
    leaves = invite("+12025550143", "+17185550111", f"Identity: {original}")
    data = run_json("sign", "-", "--diverted-from", "+12155551212", stdin=leaves)
    assert (data["ppt"], data["level"]) == ("div", "div")
    claims = claims_of(data["identity"])
    assert (claims["div"], claims["dest"]) == ({"tn": "12155551212"}, {"tn": ["17185550111"]})
    assert claims["orig"] == {"tn": "12025550143"}
    without = invite("+12025550143", "+17185550111", "Identity: nonsense")
    assert run_json("sign", "-", "--diverted-from", "+12155551212", stdin=without, code=1)["skip"] == (
        "diversion_no_original"
    )
    told = run("sign", "--diverted-from", "+12155551212", code=2)
    assert "--diverted-from goes with a message" in told.stderr
