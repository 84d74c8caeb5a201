"""The verdict on a whole call: several Identity headers, who is compared with whom, and verstat."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.certificates import TrustedPath
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.core.verification import (
    AFTER_FETCH,
    BEFORE_FETCH,
    MAX_IDENTITIES,
    MAX_URLS,
    IdentityResult,
    Pending,
    Result,
    Verdict,
    VerstatProfile,
    finish,
)
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority
from tests.builders import DEST, ORIG, ORIGID, PARAMS, URL, Bench, claims, jose, message
from tests.conftest import NOW


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


def other_type(bench: Bench, ppt: str = "vvp") -> str:
    return bench.identity(header=jose(ppt=ppt), params=f';info=<{URL}>;ppt="{ppt}"')


def test_right_call_passes_with_all_that_was_learned(bench: Bench) -> None:
    value = bench.identity()
    verdict = bench.verify(message(value))
    assert verdict.result is Result.PASSED
    assert verdict.failure is None
    assert verdict.results == (verdict.decisive,)
    assert verdict.decisive == IdentityResult(
        index=0,
        ppt="shaken",
        x5u=URL,
        spc="709J",
        attest=Attest.A,
        origid=ORIGID,
        orig=TelephoneNumber(ORIG),
        iat=int(NOW),
        ppi=".." + value.partition(";")[0].rpartition(".")[2],
        digest=sha256(value.partition(";")[0].rpartition(".")[0].encode()).digest(),
        held=len(BEFORE_FETCH) + len(AFTER_FETCH),
    )
    assert verdict.decisive.passed


def test_failed_header_keeps_what_was_learned_before(bench: Bench) -> None:
    failed = bench.verify(message(bench.identity(claims=claims(iat=int(NOW) - 100)))).results[0]
    assert (failed.attest, failed.origid, failed.iat, failed.x5u, failed.spc) == (
        Attest.A, ORIGID, int(NOW) - 100, URL, None,
    )  # fmt: skip
    assert failed.detail == "100 s old"
    assert not failed.passed
    unread = bench.verify(message("?")).results[0]
    assert (unread.ppt, unread.x5u, unread.ppi, unread.orig, unread.iat) == (None, None, None, None, None)


def test_call_without_identity_has_nothing_to_verify(bench: Bench) -> None:
    """RFC 8224 §6.2.2: 428 only where policy demands an Identity."""
    assert bench.verify(message()) == Verdict(Result.NONE, FailureCode.NO_IDENTITY)


def test_type_that_is_not_supported_is_ignored(bench: Bench) -> None:
    """RFC 8224 §6.2 step 1: MUST ignore; the token of an unknown type is not even read."""
    verdict = bench.verify(message(other_type(bench), 'garbage;ppt="msg"'))
    assert (verdict.result, verdict.failure) == (Result.NONE, FailureCode.NO_SUPPORTED_PPT)
    assert [(result.ignored, result.ppt) for result in verdict.results] == [(True, "vvp"), (True, "msg")]
    assert not any(result.passed for result in verdict.results)


def test_type_may_stand_in_the_token_alone(bench: Bench) -> None:
    bare = f";info=<{URL}>"
    assert bench.verify(message(bench.identity(params=bare))).result is Result.PASSED
    ignored = bench.verify(message(bench.identity(header=jose(ppt="vvp"), params=bare)))
    assert (ignored.result, ignored.results[0].ppt) == (Result.NONE, "vvp")


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_valid_identity_is_enough(bench: Bench, position: int) -> None:
    """RFC 8224 §6.2.1: a bad one beside it does not fail the call."""
    values = ["?", other_type(bench)]
    values.insert(position, bench.identity(claims=claims(attest="B")))
    verdict = bench.verify(message(*values))
    assert verdict.result is Result.PASSED
    assert verdict.decisive is verdict.results[position]
    assert [result.index for result in verdict.results] == [0, 1, 2]


def test_first_of_two_valid_ones_speaks(bench: Bench) -> None:
    verdict = bench.verify(message(*(bench.identity(claims=claims(attest=level)) for level in "CA")))
    assert verdict.decisive is not None
    assert verdict.decisive.attest is Attest.C


def test_where_all_fail_the_one_that_came_furthest_speaks(bench: Bench) -> None:
    malformed, stale, misled = "?", claims(iat=0), claims(dest={"tn": ["12025550199"]})
    values = (malformed, bench.identity(claims=misled), bench.identity(claims=stale), other_type(bench))
    verdict = bench.verify(message(*values))
    assert (verdict.result, verdict.failure) == (Result.FAILED, FailureCode.DEST_MISMATCH)
    assert verdict.decisive is verdict.results[1]
    twice = bench.verify(message(bench.identity(claims=stale), bench.identity(claims=claims(iat=1))))
    assert twice.decisive is twice.results[0]


def test_ignored_header_with_a_reason_gives_the_call_its_reason(bench: Bench) -> None:
    anonymous = {CallerHeader.FROM: ("<sip:anonymous@anonymous.invalid>",)}
    verdict = bench.verify(message(other_type(bench), bench.identity(), callers=anonymous))
    assert (verdict.result, verdict.failure) == (Result.NONE, FailureCode.CALLER_ANONYMOUS)


def test_number_of_headers_is_limited(bench: Bench) -> None:
    junk = ["?"] * MAX_IDENTITIES
    assert bench.verify(message(*junk[1:], bench.identity())).result is Result.PASSED
    verdict = bench.verify(message(*junk, bench.identity()))
    assert (verdict.result, len(verdict.results)) == (Result.FAILED, MAX_IDENTITIES)


def test_each_certificate_is_asked_for_once(bench: Bench) -> None:
    other = "https://other.example.com/a.pem"
    values = [bench.identity(), bench.identity(header=jose(x5u=other), params=f";info=<{other}>"), bench.identity()]
    pending = bench.pending(message(*values, "?"))
    assert isinstance(pending, Pending)
    assert pending.urls == (URL, other)


def test_a_call_makes_nobody_look_up_more_than_a_few_certificates(bench: Bench) -> None:
    """Ten headers with five nested PASSporTs each made us ask fifty strangers' servers."""
    urls = [f"https://certificates.example.com/{each}.pem" for each in range(MAX_URLS + 1)]
    values = [bench.identity(header=jose(x5u=url), params=f";info=<{url}>") for url in (urls[0], *urls)]
    pending = bench.pending(message(*values))
    assert isinstance(pending, Pending)
    assert pending.urls == tuple(urls[:MAX_URLS])
    bad = VerificationFailure(FailureCode.CERTIFICATE_UNTRUSTED)
    verdict = finish(pending, dict.fromkeys(pending.urls, bad), NOW)
    assert [result.failure for result in verdict.results] == [
        *[FailureCode.CERTIFICATE_UNTRUSTED] * (MAX_URLS + 1),
        FailureCode.INFO_TOO_MANY,
    ]


@pytest.mark.parametrize("position", [0, 1])
def test_what_may_still_be_valid_keeps_a_bad_one_from_failing_the_call(bench: Bench, position: int) -> None:
    """RFC 8224 §6.2.1: one valid Identity is enough, and nothing is known against this one."""
    other = "https://other.example.com/a.pem"
    unknown = bench.identity(header=jose(x5u=other), params=f";info=<{other}>")
    values = [bench.identity(claims=claims(iat=0))]
    values.insert(position, unknown)
    pending = bench.pending(message(*values))
    assert isinstance(pending, Pending)
    verdict = finish(pending, {other: VerificationFailure(FailureCode.CERTIFICATE_NOT_YET)}, NOW)
    assert (verdict.result, verdict.failure) == (Result.NONE, FailureCode.CERTIFICATE_NOT_YET)


def test_certificate_that_is_not_at_hand_fails_its_header_only(bench: Bench) -> None:
    other = "https://other.example.com/a.pem"
    values = [bench.identity(header=jose(x5u=other), params=f";info=<{other}>"), bench.identity()]
    pending = bench.pending(message(*values))
    assert isinstance(pending, Pending)
    path = bench.path()
    verdict = finish(pending, {URL: path}, NOW)
    assert [result.failure for result in verdict.results] == [FailureCode.CERTIFICATE_UNAVAILABLE, None]
    assert verdict.result is Result.PASSED


def test_path_that_no_longer_holds_fails(bench: Bench) -> None:
    """RFC 8224 §6.2 step 4: a path that was valid when it was found need not be any more."""
    path = bench.path()
    assert isinstance(path, TrustedPath)
    for late, code in ((path.not_after + 1, FailureCode.CERTIFICATE_EXPIRED),
                       (path.not_before - 1, FailureCode.CERTIFICATE_NOT_YET_VALID)):  # fmt: skip
        pending = bench.pending(message(bench.identity()))
        assert isinstance(pending, Pending)
        assert finish(pending, dict.fromkeys(pending.urls, path), late).failure is code


def test_nothing_at_hand_fails_the_call(bench: Bench) -> None:
    pending = bench.pending(message(bench.identity()))
    assert isinstance(pending, Pending)
    assert finish(pending, {}, NOW).failure is FailureCode.CERTIFICATE_UNAVAILABLE


ASSERTED, FROM = CallerHeader.ASSERTED, CallerHeader.FROM
ANONYMOUS = "<sip:anonymous@anonymous.invalid>"


@pytest.mark.parametrize(
    ("callers", "failure"),
    [
        ({FROM: (f"tel:+{ORIG}",)}, None),
        ({FROM: ("<sip:2155551212@a>",)}, None),
        ({FROM: (ANONYMOUS,), ASSERTED: (f"<tel:+{ORIG}>",)}, None),
        ({FROM: (ANONYMOUS,), ASSERTED: (f"<sip:a@b>, <tel:+{ORIG}>",)}, None),
        ({FROM: (ANONYMOUS,), ASSERTED: ("<sip:a@b>", f"<tel:+{ORIG}>")}, None),
        ({FROM: (f"<tel:+{ORIG}>",), ASSERTED: ()}, None),
        ({FROM: (f"<tel:+{ORIG}>",), ASSERTED: ("<junk>",)}, None),  # names nobody: the signer took From, too
        ({FROM: (f"<tel:+{ORIG}>",), ASSERTED: ("",)}, None),
        ({FROM: (ANONYMOUS,), ASSERTED: (ANONYMOUS, "<tel:+12155551213>")}, FailureCode.ORIG_MISMATCH),
        # which of two numbers a telephone shows is luck: both must be the signed one
        ({ASSERTED: (f"<tel:+12155551213>, <tel:+{ORIG}>",)}, FailureCode.ORIG_MISMATCH),
        ({ASSERTED: (f"<tel:+{ORIG}>", "<tel:+12155551213>")}, FailureCode.ORIG_MISMATCH),
        ({ASSERTED: (f"<tel:+{ORIG}>, <sip:{ORIG}@a>",)}, None),
        ({CallerHeader.PREFERRED: (f"<tel:+{ORIG}>",)}, FailureCode.ORIG_MISMATCH),
    ],
)
def test_caller_is_who_is_asserted_or_else_who_stands_in_from(
    bench: Bench, callers: Any, failure: FailureCode | None
) -> None:
    """RFC 8224 §6.2.4: the identity comes from the message, never from the token."""
    assert bench.verify(message(bench.identity(), callers=callers)).failure is failure


@pytest.mark.parametrize(
    ("to", "request_uri", "passes"),
    [
        (f"<tel:+{DEST}>", "sip:gateway@b", True),
        ("<tel:+12025550199>", f"sip:+{DEST}@b", True),
        ("<sip:bob@b>", f"sip:{DEST}@b", True),
        ("<tel:+12025550199>", "tel:+12025550198", False),
    ],
)
def test_called_party_is_in_to_or_the_request_uri(bench: Bench, to: str, request_uri: str, passes: bool) -> None:
    """RFC 8224 §6.2 step 2; a third number would be cut and paste."""
    verdict = bench.verify(message(bench.identity(), to=to, request_uri=request_uri))
    assert (verdict.result is Result.PASSED) is passes


def test_one_of_several_destinations_is_enough(bench: Bench) -> None:
    dest = {"tn": ["12025550199", DEST], "uri": ["sip:bob@b"]}
    assert bench.verify(message(bench.identity(claims=claims(dest=dest)))).result is Result.PASSED


def test_uri_identities_are_compared_in_canonical_form(bench: Bench) -> None:
    """RFC 8224 §8.5."""
    value = bench.identity(claims=claims(orig={"uri": "sip:alice@a.example"}, dest={"uri": ["sip:bob@b.example"]}))
    callers = {FROM: ('"A" <SIP:Alice:pw@A.Example:5060;transport=tcp>;tag=1',)}
    call = message(value, callers=callers, to="<sip:Bob@b.example>", request_uri="sip:x@y")
    assert bench.verify(call).result is Result.PASSED


PASSED = Verdict(Result.PASSED, None, IdentityResult(0, attest=Attest.B))
ATIS, STRICT = VerstatProfile.ATIS1000082, VerstatProfile.STRICT


@pytest.mark.parametrize(
    ("verdict", "profile", "level", "expected"),
    [
        (PASSED, ATIS, False, "TN-Validation-Passed"),
        (PASSED, ATIS, True, "TN-Validation-Passed-B"),
        (PASSED, STRICT, False, "TN-Validation-Passed"),
        (PASSED, STRICT, True, "TN-Validation-Passed-B"),
        (Verdict(Result.PASSED, None, IdentityResult(0)), ATIS, True, "TN-Validation-Passed"),
        (Verdict(Result.PASSED), ATIS, True, "TN-Validation-Passed"),
        (Verdict(Result.FAILED, FailureCode.IAT_STALE), ATIS, True, "No-TN-Validation"),
        (Verdict(Result.FAILED, FailureCode.IAT_STALE), STRICT, True, "TN-Validation-Failed"),
        (Verdict(Result.FAILED, FailureCode.SIGNATURE_INVALID), ATIS, False, "TN-Validation-Failed"),
        (Verdict(Result.FAILED, FailureCode.SIGNATURE_INVALID), STRICT, False, "TN-Validation-Failed"),
        (Verdict(Result.NONE, FailureCode.NO_IDENTITY), ATIS, True, "No-TN-Validation"),
        (Verdict(Result.NONE, FailureCode.NO_IDENTITY), STRICT, True, "No-TN-Validation"),
    ],
)
def test_verstat_follows_the_profile(verdict: Verdict, profile: VerstatProfile, level: bool, expected: str) -> None:
    assert verdict.verstat(profile, level=level) == expected


def test_verstat_is_by_atis_1000082_unless_told_otherwise(bench: Bench) -> None:
    assert bench.verify(message("?" + PARAMS)).verstat() == "No-TN-Validation"
    assert bench.verify(message(bench.identity())).verstat() == "TN-Validation-Passed"
