"""What holds for every diverted call and for all rich call data."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.core.verification import Profile, Result, Shown, Verdict
from shaken_plugin.core.verification.richcalldata import judge
from shaken_plugin.lab.pki import Authority
from tests.builders import ABSENT, DEST, ORIG, ORIGID, URL, Bench, claims, jose, message
from tests.conftest import NOW
from tests.property.strategies import examples, json_objects, json_values

HOPS = st.lists(st.integers(12_025_550_100, 12_025_550_199).map(str), min_size=2, max_size=6, unique=True)


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


def verdict_on(bench: Bench, values: list[str], last: str) -> Verdict:
    return bench.verify(message(*values, to=f"<tel:+{last}>", request_uri=f"tel:+{last}"))


def chain(bench: Bench, hops: list[str]) -> list[str]:
    values = [bench.identity(claims=claims(dest={"tn": [hops[0]]}))]
    for before, after in pairwise(hops):
        members = claims(attest=ABSENT, origid=ABSENT, div={"tn": before}, dest={"tn": [after]})
        values.append(bench.identity(claims=members, header=jose(ppt="div"), params=f";info=<{URL}>;ppt=div"))
    return values


@settings(examples, max_examples=60)
@given(hops=HOPS, data=st.data())
def test_order_of_the_headers_does_not_matter(bench: Bench, hops: list[str], data: st.DataObject) -> None:
    """A whole chain passes in any order, and names whom the call was diverted from, in theirs."""
    values = data.draw(st.permutations(chain(bench, hops)))
    verdict = verdict_on(bench, values, hops[-1])
    assert verdict.result is Result.PASSED
    assert verdict.diversions == tuple(map(TelephoneNumber, hops[:-1]))
    assert all(result.passed for result in verdict.results)


@settings(examples, max_examples=60)
@given(hops=HOPS, data=st.data())
def test_chain_without_one_of_its_links_does_not_pass(bench: Bench, hops: list[str], data: st.DataObject) -> None:
    """Whatever one takes out of a chain: the call does not pass, and nobody is named."""
    values = chain(bench, hops)
    del values[data.draw(st.integers(0, len(values) - 1))]
    verdict = verdict_on(bench, data.draw(st.permutations(values)), hops[-1])
    assert verdict.result is Result.FAILED
    assert verdict.diversions == ()


@settings(examples, max_examples=60)
@given(hops=HOPS, caller=st.integers(13_035_550_100, 13_035_550_199).map(str), data=st.data())
def test_caller_changed_on_the_way_fails_the_call(
    bench: Bench, hops: list[str], caller: str, data: st.DataObject
) -> None:
    """RFC 8946 §4.2: a changed orig makes the entire chain invalid, whoever the message says calls."""
    values = chain(bench, hops)
    place = data.draw(st.integers(1, len(values) - 1))
    members = claims(
        attest=ABSENT, origid=ABSENT, div={"tn": hops[place - 1]}, dest={"tn": [hops[place]]}, orig={"tn": caller}
    )
    values[place] = bench.identity(claims=members, header=jose(ppt="div"), params=f";info=<{URL}>;ppt=div")
    assert caller != ORIG
    assert verdict_on(bench, values, hops[-1]).result is Result.FAILED


PPTS = ["shaken", "div", "div-o", "rcd", "rph", None]


def mostly(valid: Any) -> st.SearchStrategy[Any]:
    """Something right, and now and then anything."""
    return st.integers(0, 7).flatmap(lambda drawn: json_values if drawn == 0 else st.just(valid))


parts = {"orig": mostly({"tn": ORIG}), "dest": mostly({"tn": [DEST]}), "iat": mostly(int(NOW))}
odd = {
    "div": mostly({"tn": DEST}),
    "rph": st.one_of(mostly({"auth": ["ets.0"]}), st.fixed_dictionaries({"auth": json_values})),
    "attest": mostly("A"),
    "origid": mostly(ORIGID),
    **dict.fromkeys(("opt", "mky", "sph", "iss", "rcd", "rcdi", "crn"), json_values),
}


@examples
@given(
    signed=st.lists(
        st.tuples(st.sampled_from(PPTS), st.fixed_dictionaries(parts, optional=odd)), min_size=1, max_size=4
    ),
    profile=st.sampled_from(Profile),
    nest=st.booleans(),
)
def test_whatever_was_signed_gets_a_verdict(
    bench: Bench, signed: list[tuple[str | None, dict[str, Any]]], profile: Profile, nest: bool
) -> None:
    """Claims of any shape, rightly signed: a verdict, never an exception."""
    values: list[str] = []
    for ppt, members in signed:
        if nest and values:
            members["opt"] = values[-1].partition(";")[0]
        header = jose(ppt=ABSENT if ppt is None else ppt)
        values.append(bench.identity(claims=members, header=header, params=f";info=<{URL}>"))
    call = message(*values, resource_priority=("ets.0",), sdp="a=fingerprint:sha-1 AB\r\n")
    verdict = bench.verify(call, profile=profile)
    assert verdict.result in Result
    assert len(verdict.results) >= len(values)


digests = st.sampled_from(["sha256-", "sha512-x", "md5-x", ""])
pointers = st.lists(st.sampled_from(["nam", "jcd", "icn", "jcl", "0", "1", "2", "~0", ""]), max_size=5).map(
    lambda parts: "".join(f"/{part}" for part in parts)
)
cards = st.one_of(json_values, st.tuples(st.just("vcard"), st.lists(json_values, max_size=3)).map(list))
rich = st.fixed_dictionaries(
    {"rcd": st.one_of(json_values, st.fixed_dictionaries({"nam": st.text(max_size=5)}, optional={
        "apn": json_values, "icn": json_values, "jcl": json_values, "jcd": cards}))},
    optional={
        "crn": json_values,
        "rcdi": st.one_of(json_values, st.dictionaries(pointers, digests)),
    },
)  # fmt: skip


@examples
@given(claims=st.one_of(rich, json_objects), display=st.text(max_size=5))
def test_any_rich_data_are_judged(claims: dict[str, Any], display: str) -> None:
    """Whatever was signed: a result, never an exception; nothing of a URI, and a jCard that is one."""
    found = judge(claims, display)
    assert found.shown in Shown
    assert found.jcd is None or json.loads(found.jcd)[0] == "vcard"
    if "rcd" in claims:
        assert found.nam is not None or found.withheld
