"""Rich call data: what may be shown, and why the rest may not (RFC 9795)."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.passport import serialise
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import Result, RichCallData, Shown, Verdict
from shaken_plugin.core.verification.richcalldata import MAX_DIGESTS, judge, matches
from shaken_plugin.errors import FailureCode
from shaken_plugin.lab.pki import Authority
from tests.builders import ABSENT, ORIG, URL, Bench, claims, jose, message
from tests.unit.test_vectors import VECTORS

NAME = "Acme Bank"
ICON = "https://brand.example.com/logo.png"
CARD = ["vcard", [["version", {}, "text", "4.0"], ["fn", {}, "text", NAME], ["tel", {}, "uri", "tel:+12155551212"]]]
LOGO = ["logo", {}, "uri", ICON]


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


def digest(value: Any, algorithm: str = "sha256", *, padded: bool = True) -> str:
    text = base64.b64encode(hashlib.new(algorithm, serialise(value)).digest()).decode()
    return f"{algorithm}-{text if padded else text.rstrip('=')}"


def rcd(bench: Bench, **members: Any) -> str:
    made = claims(attest=ABSENT, origid=ABSENT, **members)
    return bench.identity(claims=made, header=jose(ppt="rcd"), params=f";info=<{URL}>;ppt=rcd")


def rich(verdict: Verdict) -> RichCallData:
    assert verdict.rich is not None
    return verdict.rich


def of(rcd: Any, rcdi: Any = None, display: str = "") -> RichCallData:
    return judge({"rcd": rcd} | ({} if rcdi is None else {"rcdi": rcdi}), display)


def test_in_a_shaken_passport(bench: Bench) -> None:
    verdict = bench.verify(message(bench.identity(claims=claims(rcd={"nam": NAME}, crn="Fraud alert"))))
    assert verdict.result is Result.PASSED
    assert rich(verdict) == RichCallData(nam=NAME, crn="Fraud alert")
    assert rich(verdict).shown is Shown.VERIFIED


def test_in_a_passport_of_its_own(bench: Bench) -> None:
    verdict = bench.verify(message(rcd(bench, rcd={"nam": NAME}), bench.identity()))
    assert rich(verdict) == RichCallData(nam=NAME)
    assert rich(bench.verify(message(rcd(bench, crn="Fraud alert"), bench.identity()))).crn == "Fraud alert"


def test_empty_one_fails_and_the_call_passes(bench: Bench) -> None:
    """RFC 9795 §8."""
    verdict = bench.verify(message(bench.identity(), rcd(bench)))
    assert verdict.result is Result.PASSED
    assert verdict.results[1].failure is FailureCode.CLAIM_MISSING
    assert rich(verdict) == RichCallData(withheld=(("rcd", "claim_missing"),))


def test_name_without_a_verified_number_is_not_shown(bench: Bench) -> None:
    for values in ((rcd(bench, rcd={"nam": NAME}),), (rcd(bench, rcd={"nam": NAME}), "?")):
        verdict = bench.verify(message(*values))
        assert verdict.result is not Result.PASSED
        assert rich(verdict).shown is Shown.WITHHELD
    assert bench.verify(message(rcd(bench, rcd={"nam": NAME}))).failure is FailureCode.NUMBER_NOT_SIGNED


def test_call_without_rich_data_has_none(bench: Bench) -> None:
    assert bench.verify(message(bench.identity(), "?")).rich is None
    assert bench.verify(message(bench.identity(claims=claims(rcdi={})))).rich is None


def test_who_diverts_or_grants_priority_does_not_name_the_caller(bench: Bench) -> None:
    members = claims(attest=ABSENT, origid=ABSENT, rph={"auth": ["ets.0"]}, rcd={"nam": NAME})
    value = bench.identity(claims=members, header=jose(ppt="rph"), params=f";info=<{URL}>;ppt=rph")
    verdict = bench.verify(message(bench.identity(), value, resource_priority=("ets.0",)))
    assert verdict.rich is None


def test_first_that_has_something_to_show_counts(bench: Bench) -> None:
    values = [rcd(bench), rcd(bench, rcd={"nam": NAME}), rcd(bench, rcd={"nam": "Other"})]
    assert rich(bench.verify(message(bench.identity(), *values))).nam == NAME


def test_third_party_needs_no_authority_over_the_number(authority: Authority, us: DialPlan) -> None:
    """RFC 9795 §10: it accompanies a PASSporT of the caller's."""
    third = Bench.make(authority, us, numbers=["19995550100"])
    value = rcd(third, rcd={"nam": NAME}, iss="Zorin Industries")
    assert third.verify(message(value)).results[0].passed
    assert third.verify(message(value)).result is Result.NONE
    assert third.verify(message(rcd(third, rcd={"nam": NAME}))).results[0].failure is FailureCode.CERTIFICATE_SCOPE
    bad = third.verify(message(rcd(third, rcd={"nam": NAME}, iss=7)))
    assert bad.results[0].failure is FailureCode.CLAIM_INVALID


def test_third_party_is_named(bench: Bench) -> None:
    verdict = bench.verify(message(bench.identity(), rcd(bench, rcd={"nam": NAME}, iss="Zorin Industries")))
    assert rich(verdict) == RichCallData(nam=NAME, iss="Zorin Industries")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"<tel:+{ORIG}>", True),
        (f'"{NAME}" <tel:+{ORIG}>', True),
        (f"{NAME} <tel:+{ORIG}>", True),
        (f'"+1 (215) 555-1212" <tel:+{ORIG}>', True),
        (f'"Another Bank" <tel:+{ORIG}>', False),
        (f'"acme bank" <tel:+{ORIG}>', False),
        (f'"Acme \\"Bank" <tel:+{ORIG}>', False),
    ],
)
def test_name_is_compared_with_the_display_name(bench: Bench, line: str, shown: bool) -> None:
    """RFC 9795 §12.2."""
    call = message(bench.identity(claims=claims(rcd={"nam": NAME})), callers={CallerHeader.FROM: (line,)})
    verdict = bench.verify(call)
    assert verdict.result is Result.PASSED
    assert (rich(verdict).nam == NAME) is shown


@pytest.mark.parametrize("callers", [{}, {CallerHeader.FROM: ("<x",)}])
def test_from_that_cannot_be_read_names_nobody(bench: Bench, callers: dict[CallerHeader, tuple[str, ...]]) -> None:
    call = message(
        bench.identity(claims=claims(rcd={"nam": NAME})), callers=callers | {CallerHeader.ASSERTED: (f"<tel:{ORIG}>",)}
    )
    assert rich(bench.verify(call)).nam == NAME


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("padded", [True, False])
def test_digests(algorithm: str, padded: bool) -> None:
    """RFC 9795 §6.1; its examples have no padding."""
    value = {"nam": "Zoë", "apn": "12155551299", "jcd": CARD}
    digests = {f"/{name}": digest(part, algorithm, padded=padded) for name, part in value.items()}
    digests["/jcd/1/1/3"] = digest(NAME, algorithm, padded=padded)
    found = of(value, digests)
    assert (found.nam, found.apn, found.shown) == ("Zoë", "12155551299", Shown.VERIFIED)
    assert json.loads(found.jcd or "") == CARD
    wrong = of(value, digests | {"/jcd/1/1/3": digest("Other", algorithm)})
    assert wrong == RichCallData(withheld=(("rcd", "/jcd/1/1/3 does not match its digest"),))


@pytest.mark.parametrize("name", [name for name in VECTORS if "digest_checks" in VECTORS[name]])
def test_digests_that_the_rfc_prints(name: str) -> None:
    for check in VECTORS[name]["digest_checks"]:
        assert matches(check["published"], check["input"].encode()) is check["matches"]
        assert matches(check["published"] + "=", check["input"].encode()) is check["matches"]
        assert not matches(check["published"], check["input"].encode() + b" ")


@pytest.mark.parametrize(
    ("rcd", "rcdi", "why"),
    [
        ("x", None, "rcd is not an object with nam"),
        ({}, None, "rcd is not an object with nam"),
        ({"nam": 1}, None, "rcd is not an object with nam"),
        ({"nam": NAME, "jcd": CARD, "jcl": ICON}, None, "jcd and jcl together"),
        ({"nam": NAME}, [], "rcdi is not an object of texts"),
        ({"nam": NAME}, {"/nam": 1}, "rcdi is not an object of texts"),
        ({"nam": NAME}, {"nam": "sha256-x"}, "rcdi has a key that is no JSON pointer"),
        ({"nam": NAME}, {"/~2": "sha256-x"}, "rcdi has a key that is no JSON pointer"),
        ({"nam": NAME}, {"/icn": "sha256-x"}, "rcdi names /icn, which is not there"),
        ({"nam": NAME, "jcd": CARD}, {"/jcd/2": "sha256-x"}, "rcdi names /jcd/2, which is not there"),
        ({"nam": NAME, "jcd": CARD}, {"/jcd/01": "sha256-x"}, "rcdi names /jcd/01, which is not there"),
        ({"nam": NAME}, {"/nam": "sha256-"}, "/nam does not match its digest"),
        ({"nam": NAME}, {"/nam": digest("Other")}, "/nam does not match its digest"),
        (
            {"nam": NAME},
            {f"/{number}": "x" for number in range(MAX_DIGESTS + 1)},
            f"rcdi has {MAX_DIGESTS + 1} digests, at most {MAX_DIGESTS}",
        ),
    ],
)
def test_what_drops_all(rcd: Any, rcdi: Any, why: str) -> None:
    assert of(rcd, rcdi) == RichCallData(withheld=(("rcd", why),))


def test_names_of_members_are_escaped_in_pointers() -> None:
    """RFC 6901 §4."""
    assert of({"nam": NAME, "a/b~c": 1}, {"/a~1b~0c": digest(1)}).nam == NAME


@pytest.mark.parametrize(
    ("parts", "rcdi", "withheld"),
    [
        ({"icn": ICON}, None, ("icn", "a URI without the digest of its content")),
        ({"jcl": ICON}, {}, ("jcl", "a URI without the digest of its content")),
        ({"icn": ICON}, {"/icn": "md5-x"}, ("icn", "its digest is of an unknown kind")),
        ({"icn": "http://b.example/a.png"}, {"/icn": "sha256-x"}, ("icn", "not an https URI")),
        ({"icn": 7}, None, ("icn", "not an https URI")),
        (
            {"icn": ICON},
            {"/icn": "sha256-x"},
            ("icn", "its content was not checked against the digest: nothing is downloaded in a call"),
        ),
        (
            {"jcl": ICON},
            {"/jcl": "sha256-x", "/jcl/1/3/3": "sha256-y"},
            ("jcl", "its content was not checked against the digest: nothing is downloaded in a call"),
        ),
        ({"apn": "+12155551299"}, None, ("apn", "not a canonical telephone number")),
        ({"apn": 12155551299}, None, ("apn", "not a text")),
        ({"apn": "12155551299"}, {"/apn": "md5-x"}, ("apn", "its digest is of an unknown kind")),
        ({"jcd": "x"}, None, ("jcd", "not a jCard")),
        ({"jcd": ["vcard", [["fn", {}, "text"]]]}, None, ("jcd", "not a jCard")),
    ],
)
def test_what_drops_one_part(parts: dict[str, Any], rcdi: Any, withheld: tuple[str, str]) -> None:
    found = of({"nam": NAME, **parts}, rcdi)
    assert found == RichCallData(nam=NAME, withheld=(withheld,))
    assert found.shown is Shown.PARTIAL


def test_jcard_is_shown_without_what_it_points_to() -> None:
    card = [CARD[0], [*CARD[1], LOGO]]
    found = of({"nam": NAME, "jcd": card}, {"/jcd": digest(card), "/jcd/1/3/3": "sha256-x"})
    assert json.loads(found.jcd or "") == CARD
    assert found.withheld == (("jcd/1/3", "its content was not checked against a digest"),)


def test_reason_must_be_a_text() -> None:
    assert judge({"crn": 1}, "") == RichCallData(withheld=(("crn", "not a text"),))


def test_digest_over_a_uri_is_over_its_content_not_its_text() -> None:
    assert of({"nam": "see https://x"}, {"/nam": digest("Other")}).shown is Shown.WITHHELD
