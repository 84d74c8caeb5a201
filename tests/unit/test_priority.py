"""Signed priority: rph and sph (RFC 8443, RFC 9027)."""

from __future__ import annotations

from typing import Any

import pytest

from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import ResourcePriority, Result, Verdict
from shaken_plugin.errors import FailureCode
from shaken_plugin.lab.pki import Authority
from tests.builders import ABSENT, URL, Bench, claims, jose, message


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


def rph(bench: Bench, auth: Any = ("ets.0", "wps.1"), **changes: Any) -> str:
    members = claims(attest=ABSENT, origid=ABSENT, rph={"auth": list(auth)}, **changes)
    return bench.identity(claims=members, header=jose(ppt="rph"), params=f";info=<{URL}>;ppt=rph")


def verify(bench: Bench, value: str, *lines: str, priority: str = "") -> Verdict:
    return bench.verify(message(bench.identity(), value, resource_priority=lines, priority=priority))


@pytest.mark.parametrize("lines", [("ets.0",), ("ets.0, wps.1",), ("wps.1", "ets.0"), ("ETS.0",)], ids="|".join)
def test_priority_that_was_signed(bench: Bench, lines: tuple[str, ...]) -> None:
    verdict = verify(bench, rph(bench), *lines)
    assert verdict.priority == ResourcePriority(None, ("ets.0", "wps.1"))
    assert verdict.result is Result.PASSED


@pytest.mark.parametrize("lines", [(), ("",), ("ets.1",), ("ets.0, dsn.flash",), ("ets.0", "q735.3")])
def test_priority_that_was_not_signed(bench: Bench, lines: tuple[str, ...]) -> None:
    """RFC 8443 §4.2: what the header asks for is compared with what was signed."""
    verdict = verify(bench, rph(bench), *lines)
    assert verdict.priority == ResourcePriority(FailureCode.RPH_MISMATCH)
    assert verdict.result is Result.PASSED


@pytest.mark.parametrize("claim", [{}, {"auth": []}, {"auth": "ets.0"}, {"auth": ["ets.0", 1]}, ["ets.0"], "ets.0"])
def test_shape_of_rph(bench: Bench, claim: Any) -> None:
    members = claims(attest=ABSENT, origid=ABSENT, rph=claim)
    value = bench.identity(claims=members, header=jose(ppt="rph"), params=f";info=<{URL}>;ppt=rph")
    assert verify(bench, value, "ets.0").priority == ResourcePriority(FailureCode.CLAIM_INVALID)


@pytest.mark.parametrize(
    ("auth", "sph", "priority", "failure"),
    [
        (["esnet.0"], "psap-callback", "psap-callback", None),
        (["esnet.0"], "psap-callback", " PSAP-Callback", None),
        (["esnet.0"], "psap-callback", "", FailureCode.SPH_MISMATCH),
        (["esnet.0"], "psap-callback", "emergency", FailureCode.SPH_MISMATCH),
        (["esnet.0"], "emergency", "emergency", FailureCode.SPH_INVALID),
        (["esnet.0"], None, "psap-callback", FailureCode.SPH_INVALID),
        (["ets.0"], "psap-callback", "psap-callback", FailureCode.SPH_INVALID),
        (["ets.0", "esnet.1"], "psap-callback", "psap-callback", None),
    ],
)
def test_psap_callback(bench: Bench, auth: list[str], sph: Any, priority: str, failure: FailureCode | None) -> None:
    """RFC 9027 §4."""
    found = verify(bench, rph(bench, auth, sph=sph), auth[0], priority=priority).priority
    assert found is not None
    assert found.failure is failure
    assert found.sph == (None if failure else "psap-callback")


def test_it_says_nothing_of_the_number(bench: Bench) -> None:
    alone = bench.verify(message(rph(bench), resource_priority=("ets.0",)))
    assert (alone.result, alone.failure) == (Result.NONE, FailureCode.NUMBER_NOT_SIGNED)
    assert alone.priority == ResourcePriority(None, ("ets.0", "wps.1"))
    assert bench.verify(message(bench.identity())).priority is None


def test_first_valid_one_counts(bench: Bench) -> None:
    """RFC 8224 §6.2.1 holds for priority, too."""
    values = [rph(bench, ["ets.1"]), f"junk;ppt=rph;info=<{URL}>", rph(bench, ["ets.0"])]
    verdict = bench.verify(message(bench.identity(), *values, resource_priority=("ets.0",)))
    assert verdict.priority == ResourcePriority(None, ("ets.0",))
    broken = bench.verify(message(bench.identity(), *values[:2], resource_priority=("ets.0",)))
    assert broken.priority == ResourcePriority(FailureCode.RPH_MISMATCH)


def test_forged_one_is_worth_nothing(bench: Bench) -> None:
    head, dot, tail = rph(bench).partition(".")
    value = head + dot + tail.replace(f";info=<{URL}>", f"AAAA;info=<{URL}>")
    found = verify(bench, value, "ets.0").priority
    assert found is not None
    assert found.failure is FailureCode.SIGNATURE_INVALID
