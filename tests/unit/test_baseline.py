"""PASSporTs without a type, in full and in compact form, where the profile takes them (RFC 8224)."""

from __future__ import annotations

from typing import Any

import pytest

from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.jws import b64url, sign_es256
from shaken_plugin.core.passport import base_claims, media_keys, passport_header, signing_input
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber, UriIdentity
from shaken_plugin.core.verification import Profile, Result, Verdict
from shaken_plugin.errors import FailureCode
from shaken_plugin.lab.pki import Authority
from tests.builders import ABSENT, DEST, ORIG, URL, Bench, claims, jose, message, private_key
from tests.conftest import NOW

DATE = format_date(NOW)
SDP = "v=0\r\na=fingerprint:sha-256 AB:CD\r\na=fingerprint:sha-256 01:23\r\n"
BARE = f";info=<{URL}>"


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


def verify(bench: Bench, call: CallMessage) -> Verdict:
    return bench.verify(call, profile=Profile.RFC8224)


def full(bench: Bench, **changes: Any) -> str:
    members = claims(attest=ABSENT, origid=ABSENT, **changes)
    return bench.identity(claims=members, header=jose(ppt=ABSENT), params=BARE)


def compact(
    bench: Bench, orig: Party | None = None, dest: Party | None = None, *, params: str = BARE, sdp: str = ""
) -> str:
    made = base_claims(orig or TelephoneNumber(ORIG), dest or TelephoneNumber(DEST), int(NOW), media_keys(sdp))
    return f"..{b64url(sign_es256(private_key(bench.issued), signing_input(passport_header(URL, None), made)))}{params}"


def test_full_form(bench: Bench) -> None:
    verdict = verify(bench, message(full(bench)))
    assert (verdict.result, verdict.failure) == (Result.PASSED, None)
    assert verdict.decisive is not None
    assert (verdict.decisive.ppt, verdict.decisive.attest) == (None, None)


def test_the_shaken_profile_takes_none(bench: Bench) -> None:
    for value in (full(bench), compact(bench)):
        verdict = bench.verify(message(value, date=DATE))
        assert verdict.failure in {FailureCode.HEADER_INCOMPLETE, FailureCode.COMPACT_FORM}


@pytest.mark.parametrize("parameter", ["", ";alg=ES256"])
def test_compact_form_is_rebuilt_from_the_message(bench: Bench, parameter: str) -> None:
    value = compact(bench, params=BARE + parameter)
    verdict = verify(bench, message(value, date=DATE))
    assert verdict.result is Result.PASSED
    assert verdict.decisive is not None
    assert (verdict.decisive.orig, verdict.decisive.iat) == (TelephoneNumber(ORIG), int(NOW))


def test_compact_form_takes_the_asserted_caller(bench: Bench) -> None:
    callers = {CallerHeader.FROM: ("<sip:x@y>",), CallerHeader.ASSERTED: (f"<tel:+{ORIG}>",)}
    assert verify(bench, message(compact(bench), date=DATE, callers=callers)).result is Result.PASSED


def test_compact_form_of_uris(bench: Bench) -> None:
    value = compact(bench, UriIdentity("sip:alice@a.example"), UriIdentity("sip:bob@b.example"))
    callers = {CallerHeader.FROM: ("<sip:alice@a.example>;tag=1",)}
    assert verify(bench, message(value, date=DATE, callers=callers, to="<sip:bob@b.example>")).result is Result.PASSED


def test_compact_form_signs_the_fingerprints(bench: Bench) -> None:
    """RFC 8224 §4.1: mky MUST be there where the SDP has fingerprints."""
    value = compact(bench, sdp=SDP)
    assert verify(bench, message(value, date=DATE, sdp=SDP)).result is Result.PASSED
    assert verify(bench, message(value, date=DATE, sdp=SDP + "a=fingerprint:sha-1 00\n")).result is Result.FAILED


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"date": None}, FailureCode.DATE_MISSING),
        ({"date": "yesterday"}, FailureCode.DATE_INVALID),
        ({"date": format_date(NOW - 61)}, FailureCode.DATE_STALE),
        ({"date": format_date(NOW - 1)}, FailureCode.SIGNATURE_INVALID),
        ({"callers": {}}, FailureCode.ORIG_MISMATCH),
        ({"callers": {CallerHeader.FROM: ("<tel:+12155551213>",)}}, FailureCode.SIGNATURE_INVALID),
        ({"to": "<http://x>"}, FailureCode.DEST_MISMATCH),
        ({"to": "<tel:+12025550144>"}, FailureCode.SIGNATURE_INVALID),
    ],
)
def test_message_that_was_altered(bench: Bench, changes: dict[str, Any], failure: FailureCode) -> None:
    assert verify(bench, message(compact(bench), **({"date": DATE} | changes))).failure is failure


@pytest.mark.parametrize("ppt", ["shaken", "rcd", "rph", "div", "div-o"])
def test_typed_passports_stay_in_full_form(bench: Bench, ppt: str) -> None:
    result = verify(bench, message(compact(bench, params=f"{BARE};ppt={ppt}"), date=DATE)).results[0]
    assert result.failure is FailureCode.COMPACT_FORM


def test_type_in_one_place_alone(bench: Bench) -> None:
    """RFC 8224 §4: the ppt parameter mirrors that of the token."""
    value = bench.identity(claims=claims(), header=jose(ppt=ABSENT), params=BARE + ";ppt=shaken")
    assert verify(bench, message(value)).failure is FailureCode.HEADER_INCOMPLETE
    value = bench.identity(claims=claims(), header=jose(ppt="shaken"), params=BARE)
    assert verify(bench, message(value)).result is Result.PASSED
