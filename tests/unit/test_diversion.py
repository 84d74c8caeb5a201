"""Diverted calls: div chains in any order, div-o, and what makes them invalid (RFC 8946)."""

from __future__ import annotations

from typing import Any

import pytest

from shaken_plugin.core.passport import div_claims
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber, UriIdentity
from shaken_plugin.core.verification import IdentityResult, Pending, Result, Verdict, finish
from shaken_plugin.core.verification.diversion import MAX_NESTED
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority
from tests.builders import ABSENT, DEST, ORIG, URL, Bench, claims, jose, message
from tests.conftest import NOW

SECOND, THIRD, ELSEWHERE = "12025550177", "12025550188", "12025550199"


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


def to(number: str) -> dict[str, str]:
    """A message whose To and Request-URI were rewritten."""
    return {"to": f"<tel:+{number}>", "request_uri": f"sip:+{number}@pbx.example"}


def typed(bench: Bench, ppt: str, members: dict[str, Any]) -> str:
    return bench.identity(claims=members, header=jose(ppt=ppt), params=f";info=<{URL}>;ppt={ppt}")


def plain(**changes: Any) -> dict[str, Any]:
    """Claims of a type that has no attest and origid."""
    return claims(attest=ABSENT, origid=ABSENT, **changes)


def div(bench: Bench, before: str, after: str, **changes: Any) -> str:
    return typed(bench, "div", plain(div={"tn": before}, dest={"tn": [after]}, **changes))


def div_o(bench: Bench, before: str, after: str, opt: Any, **changes: Any) -> str:
    return typed(bench, "div-o", plain(div={"tn": before}, dest={"tn": [after]}, opt=opt, **changes))


def token_of(value: str) -> str:
    return value.partition(";")[0]


def unsigned(value: str) -> str:
    token, _, params = value.partition(";")
    return f"{token[:-4]}AAAA;{params}"


def failures(verdict: Verdict) -> list[FailureCode | None]:
    return [result.failure for result in verdict.results]


def test_one_hop(bench: Bench) -> None:
    verdict = bench.verify(message(bench.identity(), div(bench, DEST, SECOND), **to(SECOND)))
    assert verdict.result is Result.PASSED
    assert verdict.decisive is verdict.results[0]
    assert verdict.diversions == (TelephoneNumber(DEST),)
    assert verdict.results[1].div == TelephoneNumber(DEST)
    assert verdict.results[1].passed


def test_hops_are_given_from_first_to_last_whatever_their_order(bench: Bench) -> None:
    values = [div(bench, SECOND, THIRD), bench.identity(), div(bench, DEST, SECOND)]
    verdict = bench.verify(message(*values, **to(THIRD)))
    assert verdict.result is Result.PASSED
    assert verdict.diversions == (TelephoneNumber(DEST), TelephoneNumber(SECOND))


def test_to_may_stay_as_it_was(bench: Bench) -> None:
    call = message(bench.identity(), div(bench, DEST, SECOND), request_uri=f"sip:+{SECOND}@pbx.example")
    assert bench.verify(call).diversions == (TelephoneNumber(DEST),)


def test_history_index_may_stand_in_div(bench: Bench) -> None:
    """RFC 8946 §8."""
    value = typed(bench, "div", plain(div={"tn": DEST, "hi": "1.1"}, dest={"tn": [SECOND]}))
    assert bench.verify(message(bench.identity(), value, **to(SECOND))).result is Result.PASSED


def test_uris_are_diverted_too(bench: Bench) -> None:
    base = bench.identity(claims=claims(dest={"uri": ["sip:bob@b.example"]}))
    value = typed(bench, "div", plain(div={"uri": "sip:bob@b.example"}, dest={"tn": [SECOND]}))
    assert bench.verify(message(base, value, **to(SECOND))).diversions == (UriIdentity("sip:bob@b.example"),)


def test_one_div_goes_on_from_several(bench: Bench) -> None:
    """RFC 8946 §4.1: one div is shared by PASSporTs with the same orig and dest."""
    rph = typed(bench, "rph", plain(rph={"auth": ["ets.0"]}))
    call = message(bench.identity(), rph, div(bench, DEST, SECOND), resource_priority=("ets.0",), **to(SECOND))
    verdict = bench.verify(call)
    assert failures(verdict) == [None, None, None]
    assert verdict.priority is not None
    assert verdict.priority.failure is None


def test_call_that_came_back(bench: Bench) -> None:
    """A forwards to B, B back to A: a loop in the numbers is none in the chain."""
    verdict = bench.verify(message(bench.identity(), div(bench, DEST, SECOND), div(bench, SECOND, DEST)))
    assert verdict.result is Result.PASSED
    assert verdict.diversions == (TelephoneNumber(DEST), TelephoneNumber(SECOND))


def test_fork_that_did_not_come_here_is_no_part_of_the_chain(bench: Bench) -> None:
    values = [bench.identity(), div(bench, DEST, THIRD), div(bench, DEST, SECOND)]
    verdict = bench.verify(message(*values, **to(SECOND)))
    assert verdict.result is Result.PASSED
    assert verdict.results[1].failure is FailureCode.DEST_MISMATCH
    assert verdict.diversions == (TelephoneNumber(DEST),)


def test_div_alone_is_nothing(bench: Bench) -> None:
    verdict = bench.verify(message(div(bench, DEST, SECOND), **to(SECOND)))
    assert (verdict.result, verdict.failure) == (Result.FAILED, FailureCode.DIV_NOT_LINKED)
    assert verdict.diversions == ()


def test_two_divs_do_not_hold_each_other(bench: Bench) -> None:
    verdict = bench.verify(message(div(bench, SECOND, THIRD), div(bench, THIRD, SECOND), **to(SECOND)))
    assert verdict.result is Result.FAILED
    assert failures(verdict) == [FailureCode.DIV_NOT_LINKED] * 2


def test_missing_hop(bench: Bench) -> None:
    """RFC 8946 §4.2: each div is the dest of an earlier PASSporT."""
    verdict = bench.verify(message(bench.identity(), div(bench, SECOND, THIRD), **to(THIRD)))
    assert failures(verdict) == [FailureCode.DEST_MISMATCH, FailureCode.DIV_NOT_LINKED]


def test_chain_that_leads_elsewhere(bench: Bench) -> None:
    verdict = bench.verify(message(bench.identity(), div(bench, DEST, SECOND), **to(ELSEWHERE)))
    assert verdict.result is Result.FAILED
    assert failures(verdict) == [FailureCode.DIV_CHAIN_BROKEN, FailureCode.DEST_MISMATCH]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_invalid_hop_breaks_what_stands_on_it(bench: Bench, order: tuple[int, ...]) -> None:
    forged = token_of(div(bench, DEST, SECOND))[:-4] + f"AAAA;info=<{URL}>;ppt=div"
    values = [bench.identity(), forged, div(bench, SECOND, THIRD)]
    expected = [FailureCode.DIV_CHAIN_BROKEN, FailureCode.SIGNATURE_INVALID, FailureCode.DIV_NOT_LINKED]
    verdict = bench.verify(message(*(values[index] for index in order), **to(THIRD)))
    assert failures(verdict) == [expected[index] for index in order]
    assert verdict.failure is FailureCode.DIV_CHAIN_BROKEN


def test_call_that_still_goes_to_dest_needs_no_chain(bench: Bench) -> None:
    """RFC 8946 §4.2: where the chain is incomplete, the others may still be verified by RFC 8224."""
    forged = token_of(div(bench, DEST, SECOND))[:-4] + f"AAAA;info=<{URL}>;ppt=div"
    verdict = bench.verify(message(bench.identity(), forged))
    assert verdict.result is Result.PASSED
    assert verdict.diversions == ()


@pytest.mark.parametrize("other", ["12155551213", "19995550100"])
def test_changed_caller_makes_the_whole_chain_invalid(bench: Bench, other: str) -> None:
    changed = div(bench, SECOND, THIRD, orig={"tn": other})
    for rewritten in (to(THIRD), to(SECOND), {}):
        verdict = bench.verify(message(changed, bench.identity(), div(bench, DEST, SECOND), **rewritten))
        assert verdict.result is Result.FAILED
        assert verdict.results[1].failure is FailureCode.DIV_ORIG_CHANGED
        assert not any(result.passed for result in verdict.results)


def test_another_callers_passport_beside_the_chain_does_not_break_it(bench: Bench) -> None:
    """RFC 8224 §6.2.1: a bad header beside a valid one does not fail the call."""
    stranger = bench.identity(claims=claims(orig={"tn": "19995550100"}))
    verdict = bench.verify(message(stranger, bench.identity(), div(bench, DEST, SECOND), **to(SECOND)))
    assert verdict.result is Result.PASSED


@pytest.mark.parametrize(
    ("inner_freshness", "age", "failure"),
    [
        (None, 61, FailureCode.IAT_STALE),
        (None, 60, None),
        (10_800, 10_800, None),
        (10_800, 10_801, FailureCode.IAT_STALE),
        (10, 60, None),  # never below that of an outermost one
    ],
)
def test_age_of_what_was_diverted(
    bench: Bench, inner_freshness: int | None, age: int, failure: FailureCode | None
) -> None:
    """RFC 8946 §4.2 item 4: RECOMMENDED for the innermost, may be relaxed to hours."""
    base = bench.identity(claims=claims(iat=int(NOW) - age))
    call = message(base, div(bench, DEST, SECOND), **to(SECOND))
    assert bench.verify(call, inner_freshness=inner_freshness).failure is failure


@pytest.mark.parametrize("where", [DEST, SECOND])
def test_age_is_not_excused_by_a_div_that_nobody_signed(bench: Bench, where: str) -> None:
    stale = bench.identity(claims=claims(iat=int(NOW) - 61))
    verdict = bench.verify(message(stale, unsigned(div(bench, DEST, SECOND)), **to(where)), inner_freshness=10_800)
    assert (verdict.result, verdict.failure) == (Result.FAILED, FailureCode.IAT_STALE)
    # … nor by one that changes the caller, or by stale ones that go on from each other.
    other = div(bench, DEST, SECOND, orig={"tn": "19995550100"})
    assert bench.verify(message(stale, other, **to(where)), inner_freshness=10_800).result is Result.FAILED
    loop = [div(bench, *hop, iat=int(NOW) - 61) for hop in ((DEST, SECOND), (SECOND, DEST))]
    assert bench.verify(message(stale, *loop, **to(where)), inner_freshness=10_800).result is Result.FAILED


def test_age_is_excused_where_the_call_also_still_names_dest(bench: Bench) -> None:
    stale = bench.identity(claims=claims(iat=int(NOW) - 61))
    call = message(stale, div(bench, DEST, SECOND), request_uri=f"sip:+{SECOND}@pbx.example")
    assert bench.verify(call, inner_freshness=10_800).result is Result.PASSED


def test_a_div_that_nobody_signed_cannot_change_the_caller(bench: Bench) -> None:
    """Whoever adds a header on the way would else fail a good call (RFC 8224 §6.2.1)."""
    forged = unsigned(div(bench, DEST, SECOND, orig={"tn": "19995550100"}))
    verdict = bench.verify(message(bench.identity(), forged))
    assert verdict.result is Result.PASSED
    assert failures(verdict) == [None, FailureCode.SIGNATURE_INVALID]


def test_a_div_that_is_not_known_yet_neither_breaks_a_chain_nor_makes_one(bench: Bench) -> None:
    """RFC 8224 §6.2.1: nothing is known against the call as long as its chain may hold."""
    other = "https://forwarder.example.com/a.pem"
    members = plain(div={"tn": DEST}, dest={"tn": [SECOND]})
    value = bench.identity(claims=members, header=jose(ppt="div", x5u=other), params=f";info=<{other}>;ppt=div")
    not_yet = VerificationFailure(FailureCode.CERTIFICATE_NOT_YET)
    pending = bench.pending(message(bench.identity(), value, **to(SECOND)))
    assert isinstance(pending, Pending)
    verdict = finish(pending, {URL: bench.path(), other: not_yet}, NOW)
    assert (verdict.result, verdict.failure) == (Result.NONE, FailureCode.CERTIFICATE_NOT_YET)
    assert verdict.diversions == ()
    assert [result.ignored for result in verdict.results] == [True, True]
    elsewhere = bench.pending(message(bench.identity(), value, div(bench, DEST, THIRD), **to(ELSEWHERE)))
    assert isinstance(elsewhere, Pending)
    assert finish(elsewhere, {URL: bench.path(), other: not_yet}, NOW).failure is FailureCode.DIV_CHAIN_BROKEN


def test_outermost_must_be_fresh(bench: Bench) -> None:
    stale = div(bench, DEST, SECOND, iat=int(NOW) - 61)
    verdict = bench.verify(message(bench.identity(), stale, **to(SECOND)), inner_freshness=10_800)
    assert failures(verdict) == [FailureCode.DIV_CHAIN_BROKEN, FailureCode.IAT_STALE]


@pytest.mark.parametrize(("number", "failure"), [(DEST, None), (ORIG, FailureCode.CERTIFICATE_SCOPE)])
def test_signer_of_a_div_speaks_for_the_number_in_div(
    authority: Authority, bench: Bench, us: DialPlan, number: str, failure: FailureCode | None
) -> None:
    forwarder = Bench.make(authority, us, numbers=[number])
    other = "https://forwarder.example.com/a.pem"
    members = plain(div={"tn": DEST}, dest={"tn": [SECOND]})
    value = forwarder.identity(claims=members, header=jose(ppt="div", x5u=other), params=f";info=<{other}>;ppt=div")
    pending = bench.pending(message(bench.identity(), value, **to(SECOND)))
    assert isinstance(pending, Pending)
    assert pending.urls == (URL, other)
    verdict = finish(pending, {URL: bench.path(), other: forwarder.path()}, NOW)
    assert verdict.results[1].failure is failure
    assert (verdict.result is Result.PASSED) is (failure is None)


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"div": ABSENT}, FailureCode.CLAIM_MISSING),
        ({"div": {"tn": [DEST]}}, FailureCode.CLAIM_INVALID),
        ({"div": {"tn": DEST, "uri": "sip:a@b"}}, FailureCode.CLAIM_INVALID),
        ({"div": {"hi": "1.1"}}, FailureCode.CLAIM_INVALID),
        ({"div": {"tn": DEST, "hi": 1}}, FailureCode.CLAIM_INVALID),
        ({"div": DEST}, FailureCode.CLAIM_INVALID),
        ({"opt": "a.b.c"}, FailureCode.CLAIM_INVALID),  # RFC 8946 §3
    ],
)
def test_shape_of_a_div(bench: Bench, changes: dict[str, Any], failure: FailureCode) -> None:
    members = plain(div={"tn": DEST}, dest={"tn": [SECOND]}) | changes
    value = typed(bench, "div", {name: member for name, member in members.items() if member is not ABSENT})
    assert bench.verify(message(bench.identity(), value, **to(SECOND))).results[1].failure is failure


def test_div_is_in_full_form(bench: Bench) -> None:
    """RFC 8946 §3."""
    value = f"..c2ln;info=<{URL}>;ppt=div"
    assert bench.verify(message(bench.identity(), value)).results[1].failure is FailureCode.COMPACT_FORM


# --- div-o ------------------------------------------------------------------------------------


def test_nested_passport_is_verified_like_one_of_its_own(bench: Bench) -> None:
    verdict = bench.verify(message(div_o(bench, DEST, SECOND, token_of(bench.identity())), **to(SECOND)))
    assert verdict.result is Result.PASSED
    assert verdict.decisive is verdict.results[1]
    assert [(result.index, result.depth, result.ppt) for result in verdict.results] == [
        (0, 0, "div-o"),
        (0, 1, "shaken"),
    ]
    assert verdict.diversions == (TelephoneNumber(DEST),)


def test_nested_twice_and_beside_a_div(bench: Bench) -> None:
    inner = div_o(bench, DEST, SECOND, token_of(bench.identity()))
    twice = bench.verify(message(div_o(bench, SECOND, THIRD, token_of(inner)), **to(THIRD)))
    mixed = bench.verify(message(div(bench, SECOND, THIRD), inner, **to(THIRD)))
    for verdict in (twice, mixed):
        assert verdict.result is Result.PASSED
        assert verdict.diversions == (TelephoneNumber(DEST), TelephoneNumber(SECOND))


@pytest.mark.parametrize(
    ("opt", "failure"),
    [
        (1, FailureCode.CLAIM_INVALID),
        ("a.b.c", FailureCode.TOKEN_MALFORMED),
        ("x", FailureCode.TOKEN_MALFORMED),
        ("..c2ln", FailureCode.INFO_MISSING),
        ("", FailureCode.TOKEN_MALFORMED),
    ],
)
def test_broken_nested_passport(bench: Bench, opt: Any, failure: FailureCode) -> None:
    verdict = bench.verify(message(div_o(bench, DEST, SECOND, opt), **to(SECOND)))
    assert verdict.result is Result.FAILED
    assert verdict.results[-1].failure is failure


@pytest.mark.parametrize("x5u", [ABSENT, 1, "http://certificates.example.com/a.pem"])
def test_nested_passport_has_its_url_in_the_token(bench: Bench, x5u: Any) -> None:
    """RFC 8946 §5: nested there is no info parameter; the same rules hold for x5u."""
    inner = bench.identity(header=jose(x5u=x5u))
    result = bench.verify(message(div_o(bench, DEST, SECOND, token_of(inner)), **to(SECOND))).results[1]
    assert result.failure in {FailureCode.INFO_MISSING, FailureCode.INFO_NOT_ALLOWED}


def test_nested_passport_that_is_no_part_of_the_chain(bench: Bench) -> None:
    inner = bench.identity(claims=claims(dest={"tn": [ELSEWHERE]}))
    verdict = bench.verify(message(div_o(bench, DEST, SECOND, token_of(inner)), **to(SECOND)))
    assert failures(verdict) == [FailureCode.DIV_NOT_LINKED, FailureCode.DEST_MISMATCH]


@pytest.mark.parametrize("depth", [MAX_NESTED, MAX_NESTED + 1, MAX_NESTED + 3])
def test_nesting_is_bounded(bench: Bench, depth: int) -> None:
    value = bench.identity()
    for _ in range(depth):
        value = div_o(bench, DEST, DEST, token_of(value))
    verdict = bench.verify(message(value))
    assert len(verdict.results) == MAX_NESTED + 1
    assert (verdict.result is Result.PASSED) is (depth == MAX_NESTED)
    deepest = verdict.results[-1].failure
    assert deepest is (None if depth == MAX_NESTED else FailureCode.DIV_NESTED_TOO_DEEP)


# --- Making one -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [TelephoneNumber(SECOND), UriIdentity("sip:bob@b.example")])
def test_claims_for_a_diversion(bench: Bench, target: Party) -> None:
    """RFC 8946 §4.1: orig and iat are those of the PASSporT that is diverted."""
    before = claims(iat=int(NOW) - 7)
    made = div_claims(before, TelephoneNumber(DEST), target)
    assert made.keys() == {"dest", "div", "iat", "orig"}
    assert (made["iat"], made["orig"]) == (before["iat"], before["orig"])
    where = f"<tel:+{SECOND}>" if isinstance(target, TelephoneNumber) else "<sip:bob@b.example>"
    call = message(bench.identity(claims=before), typed(bench, "div", made), to=where, request_uri="sip:x@y")
    assert bench.verify(call).result is Result.PASSED


def test_result_of_a_header_counts_the_checks_that_held(bench: Bench) -> None:
    results: list[IdentityResult] = list(bench.verify(message("?", bench.identity())).results)
    assert results[0].held == 0
    assert results[1].held > 10
