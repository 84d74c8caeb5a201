"""The failure table says what the standards say, and every exception is one of ours."""

from __future__ import annotations

import pytest

from shaken_plugin.errors import (
    CredentialError,
    FailureCode,
    FileProblems,
    NumberError,
    Problem,
    ShakenError,
    SigningError,
    SipSyntaxError,
    SkipReason,
    StoreError,
    StoreUnavailable,
    VerificationFailure,
    Verstat,
)

PHRASES = {
    403: {"Stale Date"},
    428: {"Use Identity Header", "Use Supported PASSporT Format"},
    436: {"Bad Identity Info"},
    437: {"Unsupported Credential"},
    438: {"Invalid Identity Header", "Invalid PASSporT"},
}
"""RFC 8224 §6.2.2."""

ATIS_1000082 = {
    "E3": (FailureCode.DATE_STALE, 403, Verstat.NONE),
    "E4": (FailureCode.COMPACT_FORM, 438, Verstat.NONE),
    "E5": (FailureCode.PPT_MISMATCH, 438, Verstat.NONE),
    "E6": (FailureCode.INFO_MISSING, 436, Verstat.NONE),
    "E7": (FailureCode.INFO_NOT_ALLOWED, 436, Verstat.NONE),
    "E8": (FailureCode.CERTIFICATE_UNAVAILABLE, 436, Verstat.NONE),
    "E9": (FailureCode.HEADER_INCOMPLETE, 436, Verstat.NONE),
    "E10": (FailureCode.X5U_MISMATCH, 436, Verstat.NONE),
    "E11": (FailureCode.TYP_UNSUPPORTED, 437, Verstat.NONE),
    "E12": (FailureCode.ALG_UNSUPPORTED, 437, Verstat.NONE),
    "E13": (FailureCode.PPT_MISMATCH, 438, Verstat.NONE),
    "E14": (FailureCode.CLAIM_MISSING, 438, Verstat.NONE),
    "E15": (FailureCode.IAT_STALE, 403, Verstat.NONE),
    "E16": (FailureCode.ORIG_MISMATCH, 438, Verstat.NONE),
    "E17": (FailureCode.CERTIFICATE_UNTRUSTED, 437, Verstat.FAILED),
    "E18": (FailureCode.SIGNATURE_INVALID, 438, Verstat.FAILED),
    "E19": (FailureCode.ATTEST_INVALID, 438, Verstat.NONE),
}


@pytest.mark.parametrize(("row", "expected"), ATIS_1000082.items())
def test_outcome_table_of_atis_1000082_is_kept(row: str, expected: tuple[FailureCode, int, Verstat]) -> None:
    code, status, verstat = expected
    assert (code.value.status, code.value.verstat) == (status, verstat)
    assert row in code.value.section.replace(";", ",").replace(" ", "").split(",")


@pytest.mark.parametrize("code", FailureCode)
def test_failure_has_a_status_and_phrase_of_rfc_8224(code: FailureCode) -> None:
    failure = code.value
    assert failure.phrase in PHRASES[failure.status]
    assert failure.section.startswith(("RFC ", "ATIS-"))
    assert failure.meaning == failure.meaning.strip() != ""


@pytest.mark.parametrize("code", [code for code in FailureCode if code.name.startswith("CERTIFICATE_")])
def test_bad_certificate_fails_the_number_and_a_missing_one_does_not(code: FailureCode) -> None:
    missing = code in {FailureCode.CERTIFICATE_UNAVAILABLE, FailureCode.CERTIFICATE_NOT_YET}
    assert code.value.verstat is (Verstat.NONE if missing else Verstat.FAILED)


@pytest.mark.parametrize("codes", [FailureCode, SkipReason])
def test_two_codes_with_one_meaning_would_be_one_code(codes: type[FailureCode | SkipReason]) -> None:
    assert len(codes.__members__) == len(list(codes))


def test_code_is_the_name_in_lower_case() -> None:
    assert FailureCode.IAT_STALE.code == "iat_stale"
    assert SkipReason.ALREADY_SIGNED.code == "already_signed"


def test_failure_says_its_detail_or_else_its_meaning() -> None:
    assert str(VerificationFailure(FailureCode.IAT_STALE, "90 s old")) == "iat_stale: 90 s old"
    assert str(VerificationFailure(FailureCode.IAT_STALE)) == "iat_stale: iat is older than the freshness window"


@pytest.mark.parametrize(
    "kind", [CredentialError, NumberError, SigningError, SipSyntaxError, StoreError, StoreUnavailable]
)
def test_every_exception_is_one_of_ours(kind: type[Exception]) -> None:
    assert issubclass(kind, ShakenError)


def test_problem_names_place_path_and_mistake() -> None:
    assert str(Problem("a.yaml", 3, 7, "signing.mode", "no such mode")) == "a.yaml:3:7: signing.mode: no such mode"
    assert str(Problem("a.yaml", 1, 1, "", "empty")) == "a.yaml:1:1: empty"


def test_file_problems_list_every_mistake() -> None:
    problems = [Problem("a", 1, 1, "", "one"), Problem("a", 2, 1, "", "two")]
    assert FileProblems(problems).problems == problems
    assert str(FileProblems(problems)) == "a:1:1: one\na:2:1: two"
