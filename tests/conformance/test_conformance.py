"""The project's own copy of the conformance cases, and the runner itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.verification import Result
from tests.conformance.__main__ import main
from tests.conformance.runner import details, differences, run, verdict_on

FILE = Path(__file__).with_name("cases.json")
CASES: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["cases"]


def case(name: str) -> dict[str, Any]:
    return next(case for case in CASES if case["id"] == name)


@pytest.mark.parametrize("tried", [case for case in CASES if case["strict"]], ids=lambda case: str(case["id"]))
def test_strict_case(tried: dict[str, Any]) -> None:
    outcome = run(tried)
    assert outcome.right, outcome


@pytest.mark.parametrize("tried", [case for case in CASES if not case["strict"]], ids=lambda case: str(case["id"]))
def test_lenient_case_does_not_crash(tried: dict[str, Any]) -> None:
    assert run(tried).crash is None


@pytest.mark.parametrize("tried", CASES, ids=lambda case: str(case["id"]))
def test_rich_data_priority_and_single_headers_are_as_expected(tried: dict[str, Any]) -> None:
    found = details(tried, verdict_on(tried))
    assert found == {name: tried["expect"][name] for name in found}


def test_the_copy_is_whole() -> None:
    data = json.loads(FILE.read_text("utf-8"))
    assert (data["count"], data["strict_count"]) == (len(CASES), sum(case["strict"] for case in CASES))


def test_compact_form_of_a_foreign_signer_is_rebuilt_to_the_octet() -> None:
    """The case has its Date altered; with the one that was signed it passes."""
    altered = case("baseline-compact-date-altered")
    raw = altered["request"]["raw"]
    assert "11:06:39 GMT" in raw
    restored = {**altered, "request": {"raw": raw.replace("11:06:39 GMT", "11:06:37 GMT")}}
    assert verdict_on(restored).result is Result.PASSED
    assert verdict_on({**restored, "policy": {**altered["policy"], "mode": "shaken"}}).result is Result.FAILED


# --- The runner -------------------------------------------------------------------------------


def write(folder: Path, *cases: dict[str, Any]) -> str:
    file = folder / "cases.json"
    file.write_text(json.dumps({"cases": cases}), "utf-8")
    return str(file)


def changed(name: str, strict: bool = True, **expect: Any) -> dict[str, Any]:
    found = case(name)
    return {**found, "strict": strict, "expect": {**found["expect"], **expect}}


@pytest.mark.parametrize(
    ("name", "expect", "what"),
    [
        ("valid-attest-B", {"result": "fail"}, "result: expected fail, actual pass"),
        ("valid-attest-B", {"attest": "A"}, "attest: expected A, actual B"),
        ("valid-attest-B", {"verstat": "x"}, "verstat (atis1000082): expected x, actual TN-Validation-Passed"),
        ("attest-D", {"reject_code": 428}, "status: expected 428, actual 438"),
    ],
)
def test_difference_is_found(name: str, expect: dict[str, Any], what: str) -> None:
    tried = changed(name, **expect)
    assert any(line.startswith(what) for line in differences(tried, verdict_on(tried)))


def test_score_ends_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = case("valid-attest-B"), changed("attest-D", result="pass")
    assert main([write(tmp_path, good, bad, changed("attest-AA", strict=False, result="pass"))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 1 failed"
    assert any(line.startswith("attest-D: FAILED: result: expected pass, actual fail") for line in lines)
    assert any(line.startswith("attest-AA: not as recommended: result") for line in lines)
    assert "not strict: 0 as recommended, 1 otherwise, 0 of them crashed" in lines
    assert main([write(tmp_path, good), write(tmp_path, good)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 0 failed"


@pytest.mark.parametrize("strict", [True, False])
def test_crash_is_reported_and_never_a_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strict: bool
) -> None:
    broken = {**case("valid-attest-B"), "strict": strict, "trust_roots": []}
    assert main([write(tmp_path, broken)]) == 1
    assert "crashed: " in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", '{"cases": [1]}', '{"cases": [{}]}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    assert main([str(file)]) == 2
    assert main([str(tmp_path / "missing.json")]) == 2
    assert main([]) == 2


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    file = write(tmp_path, case("valid-attest-B"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance", file], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "1 passed, 0 failed"


@pytest.mark.parametrize(
    ("name", "where"),
    [("shared.example.com", "10.0.0.1"), ("six.example.com", ["::1", "fe80::1"])],
)
def test_private_address_behind_a_name_is_refused(name: str, where: Any) -> None:
    """The rule of the fetcher, on a case of our own: the address counts, not the name."""
    tried = case("valid-attest-B")
    host = "certs.example.com"
    verdict = verdict_on({**tried, "dns": {host: where}})
    assert verdict.failure is not None
    assert verdict.failure.code == "certificate_unavailable"
    assert "address_not_allowed" in verdict.results[0].detail
    assert verdict_on({**tried, "dns": {name: where}}).failure is None
