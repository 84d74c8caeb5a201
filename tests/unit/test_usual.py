"""The usual call, judged in one go: which calls are usual, and that it says what the table of checks says.

`Bench.verify` compares both for every call of the tests of that table, too.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.constraints import ClaimConstraints
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import Result, VerificationRules
from shaken_plugin.core.verification.usual import MAX_KNOWN, usual
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority
from tests.builders import ABSENT, DEST, ORIG, PARAMS, URL, Bench, claims, jose, message
from tests.conftest import NOW
from tests.property.strategies import examples, mutated


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


USUAL: dict[str, dict[str, Any]] = {
    "as it is": {},
    "level C": {"claims": {"attest": "C"}},
    "without quotes": {"params": f";info=<{URL}>;alg=ES256;ppt=shaken"},
    "parameters folded": {"params": f"\r\n ;info=<{URL}> ; alg=ES256;ppt=shaken  "},
    "no alg, another parameter": {"params": f";info=<{URL}>;ppt=shaken;x=y"},
    "as old as may be": {"claims": {"iat": int(NOW) - 60}},
    "with a Date": {"call": {"date": format_date(NOW - 5)}},
    "To rewritten": {"call": {"to": "<sip:+12025550199@b.example.com>"}},
    "Request-URI rewritten": {"call": {"request_uri": "sip:gateway@b.example.com"}},
    "asserted": {"call": {"callers": {
        CallerHeader.ASSERTED: (f"<tel:+{ORIG}>",), CallerHeader.FROM: ("<sip:anonymous@anonymous.invalid>;tag=1",)}}},
    "asserted with a tag": {"call": {"callers": {CallerHeader.ASSERTED: (f"<sip:+{ORIG}@a.example.com>;tag=1",)}}},
}  # fmt: skip

RARE: dict[str, dict[str, Any]] = {
    "another claim": {"claims": {"rcd": {"nam": "Acme"}}},
    "a claim missing": {"claims": {"origid": ABSENT}},
    "two called": {"claims": {"dest": {"tn": [DEST, "12025550144"]}}},
    "a URI": {"claims": {"dest": {"uri": ["sip:a@b"]}}},
    "too old": {"claims": {"iat": int(NOW) - 61}},
    "of the future": {"claims": {"iat": int(NOW) + 61}},
    "a Date too old": {"call": {"date": format_date(NOW - 61)}},
    "no Date": {"call": {"date": "yesterday"}},
    "a Date, and more far behind it": {"call": {"date": f"{format_date(NOW)}{' ' * MAX_KNOWN}x"}},
    "another caller": {"claims": {"orig": {"tn": "12155551213"}}},
    "a service number calls": {"claims": {"orig": {"tn": "112"}}, "call": {"callers": {
        CallerHeader.FROM: ("<sip:112@a.example.com>",)}}},
    "another called": {"claims": {"dest": {"tn": ["12025550144"]}}},
    "nobody called": {"call": {"to": "", "request_uri": ""}},
    "no caller": {"call": {"callers": {}}},
    "two lines": {"call": {"callers": {CallerHeader.ASSERTED: (f"<tel:+{ORIG}>", f"<tel:+{ORIG}>")}}},
    "two values": {"call": {"callers": {CallerHeader.ASSERTED: (f"<tel:+{ORIG}>, <tel:+{ORIG}>",)}}},
    "a caller without a number": {"call": {"callers": {CallerHeader.ASSERTED: ("<sip:alice@a.example.com>",)}}},
    "a header that is long": {"header": jose(x="y" * MAX_KNOWN)},
    "parameters that are long": {"params": f"{PARAMS};x={'y' * MAX_KNOWN}"},
    "claims that are long": {"claims": {"origid": "x" * MAX_KNOWN}},
    "a header that is wrong": {"header": jose(typ="JWT")},
    "another type": {"header": jose(ppt="div"), "params": f";info=<{URL}>;ppt=div"},
    "no URL": {"params": ";ppt=shaken"},
}  # fmt: skip


def call_of(bench: Bench, parts: dict[str, Any]) -> CallMessage:
    rest = {name: value for name, value in parts.items() if name not in {"claims", "call"}}
    return message(bench.identity(claims=claims(**parts.get("claims", {})), **rest), **parts.get("call", {}))


@pytest.mark.parametrize("parts", USUAL.values(), ids=USUAL)
def test_usual_calls_are_judged_in_one_go(parts: dict[str, Any], bench: Bench) -> None:
    call = call_of(bench, parts)
    for _ in range(2):
        assert bench.verify(call).result is Result.PASSED
        assert bench.quickly(call) == bench.verify(call)


@pytest.mark.parametrize("parts", RARE.values(), ids=RARE)
def test_others_go_through_the_table(parts: dict[str, Any], bench: Bench) -> None:
    assert bench.quickly(call_of(bench, parts)) is None


@pytest.mark.parametrize("count", [0, 2])
def test_several_or_no_headers_go_through_the_table(count: int, bench: Bench) -> None:
    assert bench.quickly(message(*[bench.identity()] * count)) is None


@pytest.mark.parametrize(
    ("cut", "instead"),
    [(0, " "), (0, "\r\n "), (0, "."), (-1, " "), (-1, "A"), (-3, "="), (60, "é"), (-1, "\udcff")],
)
def test_a_token_that_is_spelled_in_another_way_goes_through_the_table(cut: int, instead: str, bench: Bench) -> None:
    value = bench.identity(params="")
    spoilt = value[:cut] + instead + value[cut:]
    assert bench.quickly(message(spoilt + PARAMS)) is None


def test_a_signature_that_does_not_hold_is_said_at_once(bench: Bench) -> None:
    first, second = bench.identity(), bench.identity(claims=claims(attest="B"))
    forged = message(".".join((*second.split(".")[:2], first.split(".", 2)[2])))
    verdict = bench.quickly(forged)
    assert verdict is not None
    assert verdict == bench.verify(forged)
    assert (verdict.result, verdict.failure) == (Result.FAILED, FailureCode.SIGNATURE_INVALID)


@pytest.mark.parametrize(
    ("issue", "changes"),
    [
        ({"spc": "709J", "constraints": ClaimConstraints(permitted=(("attest", frozenset("A")),))}, {}),
        ({"numbers": ["12155550000"]}, {}),
        ({"spc": "709J", "age": timedelta(seconds=10)}, {"claims": {"iat": int(NOW) - 30}}),
        ({"spc": "709J", "age": timedelta(seconds=10)}, {"call": {"date": format_date(NOW - 30)}}),
    ],
    ids=["constraints", "scope", "iat before the certificate", "Date before the certificate"],
)
def test_what_the_certificate_may_have_against_it_goes_through_the_table(
    issue: dict[str, Any], changes: dict[str, Any], authority: Authority, bench: Bench
) -> None:
    other = Bench.make(authority, bench.plan, **issue)
    assert other.quickly(call_of(other, changes)) is None


def test_a_path_that_ended_since_goes_through_the_table(authority: Authority, bench: Bench) -> None:
    path = bench.path()
    call = bench.identity()
    assert not isinstance(path, VerificationFailure)
    asked = replace(path, not_after=NOW - 1)
    found = usual(message(call), VerificationRules(bench.plan), NOW)
    assert found is not None
    assert found.verdict(asked, NOW) is None
    assert found.verdict(path, NOW) is not None


@given(data=st.data())
@settings(examples)
def test_whatever_is_changed_both_say_the_same(bench: Bench, data: Any) -> None:
    call = message(bench.identity(), date=data.draw(st.sampled_from((None, format_date(NOW)))))
    edited = data.draw(st.sampled_from(("identity", "to", "request_uri", "callers", "date")))
    if edited == "identity":
        call = replace(call, identity=(data.draw(mutated(call.identity[0])),))
    elif edited == "callers":
        header = data.draw(st.sampled_from((CallerHeader.FROM, CallerHeader.ASSERTED)))
        line = data.draw(mutated(call.callers[CallerHeader.FROM][0]))
        call = replace(call, callers={**call.callers, header: (line,)})
    else:
        call = replace(call, **{edited: data.draw(mutated(getattr(call, edited) or ""))})
    bench.verify(call)  # which compares them
