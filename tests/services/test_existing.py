"""Calls that carry Identity or Date already (RFC 8224 §6.1)."""

from __future__ import annotations

import pytest

from shaken_plugin.authentication import ExistingIdentity, SigningPair, StaleDate
from shaken_plugin.core.sip import format_date
from shaken_plugin.errors import SkipReason
from shaken_plugin.lab.pki import Authority
from tests.conftest import NOW
from tests.services.builders import (
    CUSTOMER_ADDRESS,
    GATEWAY_ADDRESS,
    RANDOM_ORIGID,
    call,
    claims_of,
    identity_of,
    pair,
    service,
)

FOREIGN = "https://certificates.example.org/other.pem"


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


# --- A call that carries Identity already -----------------------------------------------------


def _values(ours: SigningPair, authority: Authority, kinds: str) -> tuple[str, ...]:
    foreign = pair(authority, x5u=FOREIGN, spc="811K")
    made = {"ours": identity_of(ours), "foreign": identity_of(foreign), "bad": "nonsense; info"}
    return tuple(made[kind] for kind in kinds.split())


@pytest.mark.parametrize("kinds", ["ours", "foreign", "bad", "foreign ours"])
def test_skip_keeps_every_identity_and_does_not_sign(ours: SigningPair, authority: Authority, kinds: str) -> None:
    signing = service(ours).sign(call(identity=_values(ours, authority, kinds)), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity, signing.drop) == (SkipReason.ALREADY_SIGNED, None, ())


@pytest.mark.parametrize("kinds", ["ours", "foreign", "bad", "foreign ours"])
def test_add_keeps_every_identity_and_signs(ours: SigningPair, authority: Authority, kinds: str) -> None:
    adding = service(ours, existing=ExistingIdentity.ADD)
    signing = adding.sign(call(identity=_values(ours, authority, kinds)), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.drop) == (None, ())
    assert signing.identity is not None


@pytest.mark.parametrize(
    ("kinds", "drop"),
    [("ours", (0,)), ("foreign ours", (1,)), ("ours foreign ours", (0, 2)), ("bad ours", (1,))],
)
def test_replace_ours_removes_our_own_identities_and_no_other(
    ours: SigningPair, authority: Authority, kinds: str, drop: tuple[int, ...]
) -> None:
    replacing = service(ours, existing=ExistingIdentity.REPLACE_OURS)
    signing = replacing.sign(call(identity=_values(ours, authority, kinds)), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.drop) == (None, drop)
    assert signing.identity is not None


@pytest.mark.parametrize("kinds", ["foreign", "bad", "foreign bad"])
def test_replace_ours_leaves_a_call_with_foreign_identities_alone(
    ours: SigningPair, authority: Authority, kinds: str
) -> None:
    replacing = service(ours, existing=ExistingIdentity.REPLACE_OURS)
    signing = replacing.sign(call(identity=_values(ours, authority, kinds)), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity, signing.drop) == (SkipReason.ALREADY_SIGNED, None, ())


def test_an_identity_of_a_pair_in_waiting_is_ours_too(ours: SigningPair, authority: Authority) -> None:
    waiting = pair(authority, x5u="https://certificates.example.com/next.pem", live_from=NOW + 3600)
    replacing = service(ours, waiting, existing=ExistingIdentity.REPLACE_OURS)
    signing = replacing.sign(call(identity=(identity_of(waiting),)), NOW, RANDOM_ORIGID)
    assert signing.drop == (0,)


# --- Date -------------------------------------------------------------------------------------


def test_a_call_without_date_gets_one_that_equals_iat(ours: SigningPair) -> None:
    # RFC 8224 §6.1 step 3: "If the Date is not present, the authentication service MUST add one".
    signing = service(ours).sign(call(), NOW + 0.7, RANDOM_ORIGID)
    assert (signing.date, signing.replace_date, signing.iat) == (format_date(NOW), False, int(NOW))


@pytest.mark.parametrize("age", [0, 60, -60, 37])
def test_a_fresh_date_stays_and_becomes_iat(ours: SigningPair, age: int) -> None:
    signing = service(ours).sign(call(date=format_date(NOW - age)), NOW, RANDOM_ORIGID)
    assert (signing.date, signing.replace_date) == (None, False)
    assert claims_of(signing.identity)["iat"] == int(NOW) - age


BAD_DATES = {
    "too old": (format_date(NOW - 61), SkipReason.DATE_STALE),
    "too far ahead": (format_date(NOW + 61), SkipReason.DATE_STALE),
    "unreadable": ("2026-11-18T11:06:40Z", SkipReason.DATE_INVALID),
    "a day that does not exist": ("Tue, 31 Feb 2026 11:06:40 GMT", SkipReason.DATE_INVALID),
    "empty": ("", SkipReason.DATE_INVALID),
}


@pytest.mark.parametrize("source", [CUSTOMER_ADDRESS, GATEWAY_ADDRESS])
@pytest.mark.parametrize(("date", "skip"), BAD_DATES.values(), ids=BAD_DATES)
def test_leave_signs_no_stale_or_unreadable_date(ours: SigningPair, source: str, date: str, skip: SkipReason) -> None:
    # RFC 8224 §6.1 step 3: "the authentication service MUST NOT" sign an outdated Date.
    signing = service(ours).sign(call(source=source, date=date), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity, signing.date) == (skip, None, None)


@pytest.mark.parametrize(("date", "_skip"), BAD_DATES.values(), ids=BAD_DATES)
def test_replace_repairs_the_date_of_a_customers_own_call(ours: SigningPair, date: str, _skip: SkipReason) -> None:
    signing = service(ours, stale_date=StaleDate.REPLACE).sign(call(date=date), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.date, signing.replace_date) == (None, format_date(NOW), True)
    assert claims_of(signing.identity)["iat"] == int(NOW)


@pytest.mark.parametrize(("date", "skip"), BAD_DATES.values(), ids=BAD_DATES)
def test_replace_does_not_touch_the_date_of_a_call_from_another_network(
    ours: SigningPair, date: str, skip: SkipReason
) -> None:
    replacing = service(ours, stale_date=StaleDate.REPLACE)
    signing = replacing.sign(call(source=GATEWAY_ADDRESS, date=date), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity, signing.replace_date) == (skip, None, False)


def test_the_freshness_window_is_the_operators(ours: SigningPair) -> None:
    message = call(date=format_date(NOW - 11))
    assert service(ours, freshness=11).sign(message, NOW, RANDOM_ORIGID).skip is None
    assert service(ours, freshness=10).sign(message, NOW, RANDOM_ORIGID).skip is SkipReason.DATE_STALE
