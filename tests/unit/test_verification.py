"""The checks on one Identity header: each failure, and that the checks run in their order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.constraints import ClaimConstraints
from shaken_plugin.core.jws import b64url
from shaken_plugin.core.passport import MAX_TOKEN_LENGTH, serialise
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import AFTER_FETCH, BEFORE_FETCH, Pending, Result, Verdict, finish
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority, Defect
from tests.builders import ABSENT, DEST, ORIG, PARAMS, URL, Bench, claims, jose, message, private_key, token
from tests.conftest import NOW


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


@dataclass(frozen=True)
class Case:
    """One thing that is wrong with a call, and what is said about it.

    ``check`` is the check that finds it, None where it is found in the certificate.
    """

    code: FailureCode
    check: str | None
    claims: Mapping[str, Any] = field(default_factory=dict)
    jose: Mapping[str, Any] = field(default_factory=dict)
    params: str = PARAMS
    call: Mapping[str, Any] = field(default_factory=dict)
    issue: Mapping[str, Any] = field(default_factory=dict)
    value: str | None = None
    ignored: bool = False


def case(code: str, check: str | None, **parts: Any) -> Any:
    return pytest.param(Case(FailureCode[code], check, **parts), id=f"{code.lower()}: {parts}"[:70])


def url(info: str) -> dict[str, Any]:
    """Another certificate URL in both places."""
    return {"jose": {"x5u": info}, "params": f";info=<{info}>"}


def caller(value: str, header: CallerHeader = CallerHeader.FROM) -> dict[str, Any]:
    return {"callers": {header: (value,)}}


ANONYMOUS = '"Anonymous" <sip:anonymous@anonymous.invalid>;tag=1'
YOUNG = {"age": timedelta(seconds=10)}
DATED = ClaimConstraints(must_include=("iat",))
FAR = {"numbers": ["12155550000"], "ranges": [("12155550001", 10)]}

CASES = [
    case("IDENTITY_UNREADABLE", "grammar", value="\udcff.b.c;info=<x>"),
    case("IDENTITY_TOO_LARGE", "grammar", value="a" * 100_000),
    case("IDENTITY_MALFORMED", "grammar", value="a.b.c;info"),
    case("IDENTITY_MALFORMED", "grammar", value=""),
    case("IDENTITY_TOO_LARGE", "type", value="a" * (MAX_TOKEN_LENGTH + 1) + PARAMS),
    case("TOKEN_MALFORMED", "type", value="a.b.c" + PARAMS),
    case("TOKEN_MALFORMED", "type", value="abc" + PARAMS),
    case("INFO_MISSING", "info", params=";ppt=shaken"),
    case("INFO_NOT_ALLOWED", "info", **url("http://certificates.example.com/a.pem")),
    case("INFO_NOT_ALLOWED", "info", **url("https://127.0.0.1/a.pem")),
    case("COMPACT_FORM", "compact", value="..c2ln" + PARAMS),
    case("COMPACT_FORM", "compact", value=f"..c2ln;info=<{URL}>"),
    case("CRITICAL_UNKNOWN", "jose_header", jose={"crit": ["exp"]}),
    case("CRITICAL_UNKNOWN", "jose_header", jose={"crit": []}),
    case("HEADER_INCOMPLETE", "jose_header", jose={"alg": ABSENT}),
    case("HEADER_INCOMPLETE", "jose_header", jose={"typ": ABSENT}),
    case("HEADER_INCOMPLETE", "jose_header", jose={"x5u": ABSENT}),
    case("HEADER_INCOMPLETE", "jose_header", jose={"ppt": ABSENT}),
    case("HEADER_INCOMPLETE", "jose_header", jose={"ppt": ABSENT}, params=f";info=<{URL}>"),
    case("X5U_MISMATCH", "jose_header", jose={"x5u": URL.upper()}),
    case("X5U_MISMATCH", "jose_header", jose={"x5u": [URL]}),
    case("TYP_UNSUPPORTED", "jose_header", jose={"typ": "JWT"}),
    case("TYP_UNSUPPORTED", "jose_header", jose={"typ": "PASSPORT"}),
    case("ALG_UNSUPPORTED", "jose_header", jose={"alg": "none"}),
    case("ALG_UNSUPPORTED", "jose_header", jose={"alg": "HS256"}),
    case("ALG_UNSUPPORTED", "jose_header", jose={"alg": "es256"}),
    case("ALG_MISMATCH", "jose_header", params=f";info=<{URL}>;alg=ES384;ppt=shaken"),
    case("PPT_MISMATCH", "jose_header", jose={"ppt": "div"}),
    case("PPT_MISMATCH", "jose_header", jose={"ppt": ["shaken"]}),
    case("PPT_MISMATCH", "jose_header", jose={"ppt": None}, params=f";info=<{URL}>"),
    *(case("CLAIM_MISSING", "claims", claims={name: ABSENT}) for name in claims()),
    case("CLAIM_INVALID", "claims", claims={"iat": str(int(NOW))}),
    case("CLAIM_INVALID", "claims", claims={"orig": {"tn": ORIG, "uri": "sip:a@b"}}),
    case("CLAIM_INVALID", "claims", claims={"dest": {"tn": DEST}}),
    case("CLAIM_INVALID", "claims", claims={"origid": "ref"}),
    case("ATTEST_INVALID", "claims", claims={"attest": "AA"}),
    case("DATE_INVALID", "date", call={"date": "yesterday"}),
    case("DATE_STALE", "date", call={"date": format_date(NOW - 61)}),
    case("DATE_STALE", "date", call={"date": format_date(NOW + 61)}),
    case("IAT_STALE", "freshness", claims={"iat": int(NOW) - 61}),
    case("IAT_IN_FUTURE", "freshness", claims={"iat": int(NOW) + 61}),
    case("ORIG_MISMATCH", "orig", claims={"orig": {"tn": "12155551213"}}),
    case("ORIG_MISMATCH", "orig", claims={"orig": {"uri": f"sip:{ORIG}@a.example.com"}}),
    case("ORIG_MISMATCH", "orig", call={"callers": {}}),
    case("ORIG_MISMATCH", "orig", call=caller("<tel:alice>")),
    case("ORIG_MISMATCH", "orig", call={"callers": {
        CallerHeader.FROM: (f"<tel:+{ORIG}>",), CallerHeader.ASSERTED: ("<tel:+12155551213>",)}}),
    case("CALLER_ANONYMOUS", "orig", call=caller(ANONYMOUS), ignored=True),
    case("DEST_MISMATCH", "dest", claims={"dest": {"tn": ["12025550144"]}}),
    case("DEST_MISMATCH", "dest", call={"to": "<sip:x", "request_uri": "http://x"}),
    case("MKY_MISMATCH", "media_keys", claims={"mky": []}, call={"sdp": "a=fingerprint:sha-256 AB:CD\n"}),
    case("CERTIFICATE_NOT_VALID_AT_SIGNING", "validity", claims={"iat": int(NOW) - 30}, issue=YOUNG),
    case("CERTIFICATE_NOT_VALID_AT_SIGNING", "validity", call={"date": format_date(NOW - 30)}, issue=YOUNG),
    case("CERTIFICATE_SCOPE", "scope", issue=FAR),
    case("CLAIM_NOT_PERMITTED", "constraints", issue={"enhanced": ClaimConstraints(must_exclude=("attest",))}),
    case("CLAIM_NOT_PERMITTED", "constraints",
         issue={"constraints": ClaimConstraints(permitted=(("attest", frozenset("BC")),))}),
    case("SIGNATURE_INVALID", "signature", issue={"defect": Defect.KEY_MISMATCH}),
    case("CERTIFICATE_EXPIRED", None, issue={"defect": Defect.EXPIRED}),
    case("CERTIFICATE_NOT_YET_VALID", None, issue={"defect": Defect.NOT_YET_VALID}),
    case("CERTIFICATE_UNTRUSTED", None, issue={"defect": Defect.UNTRUSTED}),
    case("CERTIFICATE_CONSTRAINTS", None, issue={"constraints": DATED, "enhanced": DATED}),
    case("CERTIFICATE_NO_TNAUTHLIST", None, issue={"defect": Defect.NO_TNAUTHLIST}),
]  # fmt: skip


def call_of(tried: Case, bench: Bench) -> CallMessage:
    value = tried.value
    if value is None:
        value = bench.identity(claims=claims(**tried.claims), header=jose(**tried.jose), params=tried.params)
    return message(value, **tried.call)


def judge(tried: Case, authority: Authority, bench: Bench) -> Verdict:
    if tried.issue:
        issue = dict(tried.issue) if "numbers" in tried.issue else {"spc": "709J"} | dict(tried.issue)
        bench = Bench.make(authority, bench.plan, **issue)
    return bench.verify(call_of(tried, bench))


@pytest.mark.parametrize("tried", CASES)
def test_what_is_wrong_has_its_code(tried: Case, authority: Authority, bench: Bench) -> None:
    verdict = judge(tried, authority, bench)
    assert verdict.failure is tried.code
    assert verdict.results[0].failure is tried.code
    assert verdict.results[0].ignored is tried.ignored
    assert verdict.result is (Result.NONE if tried.ignored else Result.FAILED)


OTHERS = {
    FailureCode.NO_IDENTITY: "tests/unit/test_verdict.py",
    FailureCode.NO_SUPPORTED_PPT: "tests/unit/test_verdict.py",
    FailureCode.NUMBER_NOT_SIGNED: "tests/unit/test_rich_call_data.py",
    FailureCode.DATE_MISSING: "tests/unit/test_baseline.py",
    FailureCode.DIV_NOT_LINKED: "tests/unit/test_diversion.py",
    FailureCode.DIV_ORIG_CHANGED: "tests/unit/test_diversion.py",
    FailureCode.DIV_CHAIN_BROKEN: "tests/unit/test_diversion.py",
    FailureCode.DIV_NESTED_TOO_DEEP: "tests/unit/test_diversion.py",
    FailureCode.RPH_MISMATCH: "tests/unit/test_priority.py",
    FailureCode.SPH_INVALID: "tests/unit/test_priority.py",
    FailureCode.SPH_MISMATCH: "tests/unit/test_priority.py",
    FailureCode.CERTIFICATE_UNAVAILABLE: "tests/unit/test_verdict.py",
    FailureCode.REPLAYED: "tests/services/test_replay.py",
    FailureCode.INFO_TOO_MANY: "tests/unit/test_verdict.py",
    FailureCode.CERTIFICATE_NOT_YET: "tests/services/test_verification_service.py",
    FailureCode.TRUST_LIST_UNAVAILABLE: "tests/agent/test_cache.py",
    FailureCode.CERTIFICATE_MALFORMED: "tests/unit/test_certificate_documents.py",
    FailureCode.CERTIFICATE_KEY_USAGE: "tests/unit/test_certificates.py",
    FailureCode.CERTIFICATE_NOT_ENCOMPASSED: "tests/unit/test_delegation.py",
    FailureCode.CERTIFICATE_REVOKED: "tests/services/test_revocation.py",
    FailureCode.CERTIFICATE_REVOCATION_UNKNOWN: "tests/services/test_revocation.py",
}
"""Codes that say something about a whole call, or a certificate without a call, and where they are tested."""


def test_every_failure_code_is_produced_by_a_test() -> None:
    produced = {parameter.values[0].code for parameter in CASES}
    assert produced | OTHERS.keys() == set(FailureCode)
    assert not produced & OTHERS.keys()


def test_every_check_is_seen_to_fail() -> None:
    failing = {parameter.values[0].check for parameter in CASES} - {None}
    assert failing | {"chain"} == {check.name for check in (*BEFORE_FETCH, *AFTER_FETCH)}  # see test_diversion.py


BY_CHECK = {parameter.values[0].check: parameter.values[0] for parameter in CASES if parameter.values[0].value is None}
ORDER = [check.name for check in (*BEFORE_FETCH, *AFTER_FETCH) if check.name in BY_CHECK]
STAGES = [(name, after) for position, name in enumerate(ORDER) for after in ORDER[position + 1 :]]


@pytest.mark.parametrize(("first", "then"), STAGES)
def test_earlier_check_speaks_where_two_would_fail(first: str, then: str, authority: Authority, bench: Bench) -> None:
    """Cheap checks come first, so that a hostile INVITE cannot make anybody fetch."""
    one, two = BY_CHECK[first], BY_CHECK[then]
    both = Case(
        one.code,
        first,
        {**two.claims, **one.claims},
        {**two.jose, **one.jose},
        one.params if one.params != PARAMS else two.params,
        {**two.call, **one.call},
        {**two.issue, **one.issue},
        ignored=one.ignored,
    )
    assert judge(both, authority, bench).failure is one.code


@pytest.mark.parametrize("tried", CASES)
def test_no_certificate_is_asked_for_before_every_cheap_check_held(tried: Case, bench: Bench) -> None:
    cheap = {check.name for check in BEFORE_FETCH}
    assert isinstance(bench.pending(call_of(tried, bench)), Verdict) is (tried.check in cheap)


MKY_SDP = "v=0\r\na=fingerprint:sha-256 AB:CD\r\na=fingerprint:SHA-1 01:23\r\n"
MKY = [{"alg": "sha-1", "dig": "0123"}, {"alg": "sha-256", "dig": "abcd"}]


@pytest.mark.parametrize(
    ("mky", "sdp", "checked", "passes"),
    [
        (MKY, MKY_SDP, True, True),
        ([*MKY, {"alg": "sha-512", "dig": "00"}], MKY_SDP, True, True),
        (MKY, "", True, True),
        (MKY, "v=0\r\n", True, True),
        ("x", "v=0\r\n", True, True),
        (MKY[:1], MKY_SDP, True, False),
        (["x", 1], MKY_SDP, True, False),
        ("x", MKY_SDP, True, False),
        (7, MKY_SDP, True, False),
        ({"alg": "sha-256"}, "v=0\r\n", True, True),
        ([{}], MKY_SDP, True, False),
        (MKY[:1], MKY_SDP, False, True),
    ],
)
def test_fingerprints_of_the_sdp_were_signed(bench: Bench, mky: Any, sdp: str, checked: bool, passes: bool) -> None:
    """RFC 8225 §5.2.2, RFC 8224 §4.1."""
    call = message(bench.identity(claims=claims(mky=mky)), sdp=sdp)
    assert (bench.verify(call, media_keys=checked).result is Result.PASSED) is passes


def test_what_another_type_says_is_ignored(bench: Bench) -> None:
    """RFC 9475 §3.2: msgi counts in PASSporTs of type msg alone; likewise opt, div and sph."""
    value = bench.identity(claims=claims(msgi="sha256-x", opt=1, div=7, sph="x", rph=None))
    verdict = bench.verify(message(value))
    assert verdict.result is Result.PASSED
    assert (verdict.diversions, verdict.priority, verdict.rich) == ((), None, None)


def test_second_half_may_be_asked_again(bench: Bench) -> None:
    """A call that waited is asked when its certificate is there; the first answer does not stick."""
    pending = bench.pending(message(bench.identity()))
    assert isinstance(pending, Pending)
    assert finish(pending, {}, NOW).failure is FailureCode.CERTIFICATE_UNAVAILABLE
    assert finish(pending, {URL: bench.path()}, NOW).result is Result.PASSED
    assert finish(pending, {}, NOW).failure is FailureCode.CERTIFICATE_UNAVAILABLE


def test_octets_are_verified_as_they_came(bench: Bench) -> None:
    """RFC 8225 §9 orders members for the signer; the signature covers what was received."""
    header = json.dumps(jose(), indent=1).encode()
    payload = json.dumps(dict(reversed(claims(extra={"é": [1]}).items())), indent=2).encode()
    call = message(token(private_key(bench.issued), header, payload) + PARAMS)
    assert bench.verify(call).result is Result.PASSED


@pytest.mark.parametrize("part", [0, 1, 2])
def test_token_with_a_segment_of_another_fails(bench: Bench, part: int) -> None:
    one = bench.identity().partition(";")[0].split(".")
    two = bench.identity(claims=claims(attest="B"), header=jose(extra="x")).partition(";")[0].split(".")
    one[part] = two[part]
    assert bench.verify(message(".".join(one) + PARAMS)).failure is FailureCode.SIGNATURE_INVALID


def test_signature_in_der_fails(bench: Bench) -> None:
    signed = f"{b64url(serialise(jose()))}.{b64url(serialise(claims()))}"
    signature = private_key(bench.issued).sign(signed.encode(), ec.ECDSA(SHA256()))
    call = message(f"{signed}.{b64url(signature)}{PARAMS}")
    assert bench.verify(call).failure is FailureCode.SIGNATURE_INVALID


@pytest.mark.parametrize("age", [-60, -1, 0, 59, 60])
def test_freshness_window_is_the_same_in_both_directions(bench: Bench, age: int) -> None:
    """RFC 8224 §12.1: 60 seconds RECOMMENDED."""
    value = bench.identity(claims=claims(iat=int(NOW) - age))
    assert bench.verify(message(value, date=format_date(NOW - age))).result is Result.PASSED
    assert bench.verify(message(value), freshness=abs(age) - 1).result is Result.FAILED


def test_fraction_of_a_second_counts(bench: Bench) -> None:
    value = bench.identity(claims=claims(iat=int(NOW) - 60))
    assert bench.verify(message(value), NOW + 0.5).failure is FailureCode.IAT_STALE


def test_lab_host_may_serve_certificates(bench: Bench) -> None:
    info = "https://127.0.0.1:9443/a.pem"
    call = message(bench.identity(header=jose(x5u=info), params=f";info=<{info}>"))
    assert bench.verify(call).failure is FailureCode.INFO_NOT_ALLOWED
    assert bench.verify(call, lab_hosts=frozenset({"127.0.0.1:9443"})).result is Result.PASSED


def test_failure_of_a_certificate_keeps_its_detail(bench: Bench) -> None:
    pending = bench.pending(message(bench.identity()))
    assert isinstance(pending, Pending)
    verdict = finish(pending, {URL: VerificationFailure(FailureCode.CERTIFICATE_MALFORMED, "why")}, NOW)
    assert (verdict.failure, verdict.results[0].detail) == (FailureCode.CERTIFICATE_MALFORMED, "why")
