"""What is written fast is what the slow, obvious way beside it writes."""

from __future__ import annotations

import base64
import uuid
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from shaken_plugin.authentication import Credential, Signing, SigningPair, identity_header, identity_value
from shaken_plugin.core.attestation import Decision, Level, Step
from shaken_plugin.core.call import (
    _NUMBER_ALONE,
    _NUMBER_URI,
    SHORT,
    CallerHeader,
    CallMessage,
    Target,
    _any_target,
    _usual_target,
    without_tag,
)
from shaken_plugin.core.jws import _der, _raw, b64url
from shaken_plugin.core.passport import Attest, media_keys, serialise, shaken_claims, shaken_payload
from shaken_plugin.core.records import Customer, CustomerState, Gateway, Trunk
from shaken_plugin.core.sip import NameAddr, Uri
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber, UriIdentity, canonical_party
from shaken_plugin.core.verification import IdentityResult, ResourcePriority, Result, RichCallData, Verdict
from shaken_plugin.core.verstat import (
    _RUN,
    asserted_from,
    asserted_from_number,
    mark_asserted,
    mark_single,
    strip_verstat,
)
from shaken_plugin.errors import FailureCode, NumberError, SipSyntaxError, SkipReason
from shaken_plugin.lab.pki import Authority
from shaken_plugin.records.call import signed, verified
from shaken_plugin.records.usual import Signed, Verified
from shaken_plugin.switch.process import random_uuid
from shaken_plugin.switch.reports import signing_line, usual_line, usual_verification, verification_line
from tests.conftest import NOW
from tests.property.strategies import examples, mutated, texts, wire_text
from tests.services.bench import settings as settings_with
from tests.services.builders import pair, rules, sip

PLAN = rules().plan

parties: st.SearchStrategy[Party] = st.one_of(
    st.text("0123456789*#", min_size=1, max_size=20).map(TelephoneNumber), texts.map(UriIdentity)
)
fingerprints = st.sampled_from(
    ("", "a=fingerprint:sha-256 AA:BB\r\n", "a=fingerprint:sha-1 01:02\na=fingerprint:x 00\n")
)


@given(st.sampled_from(Attest), parties, parties, st.integers(0, 2**53), texts, fingerprints)
@settings(examples)
def test_claims_put_together_are_the_claims_sorted(
    attest: Attest, orig: Party, dest: Party, iat: int, origid: str, sdp: str
) -> None:
    made: dict[str, Any] = {"attest": attest, "orig": orig, "dest": dest, "iat": iat, "origid": origid}
    made["mky"] = media_keys(sdp)
    assert shaken_payload(**made) == serialise(shaken_claims(**made))


@given(st.binary(max_size=80))
@settings(examples)
def test_base64url_is_that_of_the_library(data: bytes) -> None:
    assert b64url(data) == base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@given(
    st.one_of(st.binary(min_size=64, max_size=64), st.lists(st.integers(0, 255).map(lambda o: bytes([o])), max_size=9))
)
@settings(examples)
def test_a_signature_in_der_is_that_of_the_library(signature: bytes | list[bytes]) -> None:
    octets = signature if isinstance(signature, bytes) else b"".join(signature).rjust(9, b"\0") * 7 + b"\1"
    r, s = int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:], "big")
    assert _der(octets) == encode_dss_signature(r, s)
    if r and s:
        assert _raw(_der(octets)) == octets


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


@pytest.mark.parametrize("quote_ppt", [True, False])
def test_the_value_of_a_header_is_the_header_written(ours: SigningPair, quote_ppt: bool) -> None:
    """Signatures are deterministic (RFC 6979)."""
    claims = shaken_claims(
        attest=Attest.A, orig=TelephoneNumber("1"), dest=TelephoneNumber("2"), iat=int(NOW), origid="x"
    )
    for ppt in ("shaken", "div"):
        value = identity_value(ours, serialise(claims), ppt, quote_ppt=quote_ppt)
        assert value == identity_header(ours, claims, ppt).format(quote_ppt=quote_ppt)


# --- Header lines -------------------------------------------------------------------------------


def _parsed(line: str) -> tuple[str, str] | None:
    try:
        address = NameAddr.parse(line)
    except SipSyntaxError:
        return None
    return address.prefix, address.uri


lines = st.one_of(
    wire_text, mutated('"A" <sip:+12155551212@a.example>;tag=1a.-~'), wire_text.map(lambda text: f"{text}>;tag=1")
)


@given(lines)
@settings(examples, max_examples=400)
def test_a_line_without_its_tag_names_the_same(line: str) -> None:
    assert _parsed(without_tag(line)) == _parsed(line)


def test_a_tag_is_left_out_where_it_is_one() -> None:
    assert without_tag("<sip:a@b>;tag=1") == "<sip:a@b>"
    for other in ("<sip:a@b>;tag=1;x=y", "<sip:a@b>;x=y;tag=1", "sip:a@b;tag=1", '<sip:a@b>;tag="1"', "<sip:a@b>"):
        assert without_tag(other) == other


@given(wire_text)
@settings(examples)
def test_a_value_without_the_letters_has_no_verstat(value: str) -> None:
    assert strip_verstat(value) == _RUN.sub(lambda match: "" if match["verstat"] else match.group(), value)


@pytest.mark.parametrize("length", [SHORT, SHORT + 1, 3 * SHORT])
def test_a_long_line_is_read_as_a_short_one(length: int) -> None:
    name = "x" * (length - 60)
    number = "<sip:+12155551212@a.example>"
    callers: dict[CallerHeader, tuple[str, ...]] = {CallerHeader.FROM: (f'"{name}" {number};tag=1',)}
    message = CallMessage("INVITE", f"sip:+12025550143@{name}", f'"{name}" <tel:911>;tag=7', callers)
    for _ in range(2):
        (caller,) = message.callers_in(CallerHeader.FROM, PLAN)
        assert caller.party == TelephoneNumber("12155551212")
        target = message.target(PLAN)
        assert (str(target.uri), str(target.to), target.to_tag, target.emergency) == ("12025550143", "911", "7", True)


def _read_at_length(uri: str, plan: DialPlan) -> Party | None:
    try:
        return canonical_party(Uri.parse(uri), plan)
    except (SipSyntaxError, NumberError):
        return None


@given(
    st.one_of(wire_text, mutated("sip:+12155551212@a.example:5060;user=phone"), mutated("sips:+911@a.example")),
    st.sampled_from(('"A. Caller" <{}>', "<{}>", '"" <{}>;tag=1', "{}")),
    st.booleans(),
)
@settings(examples, max_examples=400)
def test_a_number_read_fast_is_the_number(uri: str, around: str, numeric_users: bool) -> None:
    plan, line = replace(PLAN, numeric_users=numeric_users), around.format(uri)
    target = CallMessage("INVITE", uri, line, {}).target(plan)
    address = _parsed(line)
    assert target.uri == _read_at_length(uri, plan)
    assert target.to == (_read_at_length(address[1], plan) if address else None)


_numbers = st.sampled_from(("12155551212", "12025550143", "911", "1911", "933", "442079460000"))
_forms = st.sampled_from(("sip:+{}@a.example", "sips:+{}@192.0.2.1:5061;user=phone", "sip:{}@a.example", "tel:+{}"))


@given(_numbers, _numbers, _forms, _forms, st.sampled_from(("<{}>", '"A" <{}>', "<{}>;tag=1", "{}")), st.booleans())
@settings(examples, max_examples=400)
def test_whom_a_usual_call_is_for_is_what_is_read_of_any(
    number: str, other: str, form: str, other_form: str, around: str, numeric_users: bool
) -> None:
    plan, to = replace(PLAN, numeric_users=numeric_users), around.format(other_form.format(other))
    usual = _usual_target(form.format(number), to, plan)
    assert usual is None or usual == _any_target(form.format(number), to, plan)


@given(mutated("sip:+12155551212@a.example;user=phone"), mutated("<sip:+12155551212@a.example;user=phone>"))
@settings(examples, max_examples=400)
def test_whom_a_nearly_usual_call_is_for_is_what_is_read_of_any(uri: str, to: str) -> None:
    usual = _usual_target(uri, to, PLAN)
    assert usual is None or usual == _any_target(uri, to, PLAN)


def test_usual_calls_are_for_somebody_and_emergencies_are_never_usual() -> None:
    def usual(number: str) -> Target | None:
        return _usual_target(f"sip:+{number}@a.example", f"<sip:+{number}@b.example;user=phone>", PLAN)

    assert usual("12155551212") is not None
    assert usual("911") is usual("1911") is None


def test_usual_lines_are_read_the_fast_way() -> None:
    """Otherwise the test above would compare nothing."""
    for uri in ("sip:+12155551212@a.example", "sips:+12155551212@192.0.2.1:5061;user=phone"):
        assert _NUMBER_URI.fullmatch(uri)
        assert _NUMBER_ALONE.fullmatch(f'"Caller" <{uri}>')


def _tag_read(line: str) -> str | None:
    try:
        return NameAddr.parse(line).param("tag")
    except SipSyntaxError:
        return None


@given(st.one_of(lines, mutated("<sip:+12155551212@a.example;user=phone>;tag=1a.-~")))
@settings(examples, max_examples=400)
def test_a_tag_read_fast_is_the_tag(line: str) -> None:
    message = CallMessage("INVITE", "", line, {CallerHeader.FROM: (line,)})
    assert message.to_tag == message.from_tag == (_tag_read(line) or "")


@given(mutated('"Caller 1" <sip:+12155551212@a.example;user=phone>'))
@settings(examples, max_examples=400)
def test_a_line_marked_alone_is_marked_as_one_of_many(line: str) -> None:
    """Of lines that name one number, as `mark_single` wants it."""
    parties = [caller.party for caller in CallMessage("", "", "", {CallerHeader.ASSERTED: (line,)}).callers_in(
        CallerHeader.ASSERTED, PLAN)]  # fmt: skip
    if len(parties) == 1 and isinstance(parties[0], TelephoneNumber):
        many = mark_asserted([line], parties[0], "TN-Validation-Passed", PLAN)
        assert mark_single(line, "TN-Validation-Passed") in (None, many)


@given(st.one_of(lines, mutated('"Caller 1" <sip:+12155551212@a.example:5060;user=phone>;tag=1a.-~')))
@settings(examples, max_examples=400)
def test_an_identity_made_of_from_fast_is_the_one_made(line: str) -> None:
    """Of lines that name a number, as `asserted_from_number` wants it."""
    made = asserted_from(line, "TN-Validation-Passed", PLAN)
    parties = [caller.party for caller in CallMessage("", "", "", {CallerHeader.FROM: (line,)}).callers_in(
        CallerHeader.FROM, PLAN)]  # fmt: skip
    if len(parties) == 1 and isinstance(parties[0], TelephoneNumber):
        assert asserted_from_number(line, "TN-Validation-Passed") in (None, made)


# --- Records and log lines ----------------------------------------------------------------------

ACME = Customer("acme", "Acme", CustomerState.VERIFIED)
sources = st.sampled_from((None, Trunk("acme-main", ACME), Gateway("intl", "International")))
step = st.builds(
    Step,
    texts,
    st.booleans(),
    st.one_of(st.none(), texts),
    texts,
    st.sampled_from((None, "", "a letter of 12155551212")),
)


@st.composite
def signings(draw: Any) -> tuple[CallMessage, Signing]:
    """A signed call, usual or with something rare about it."""
    level = draw(st.sampled_from((Level.A, Level.A, Level.B, Level.C)))
    decision = Decision(
        level, tuple(draw(st.lists(step, min_size=1, max_size=3))), draw(sources), draw(st.integers(0, 3)),
        unauthorised=draw(st.sampled_from((False, False, True))), offence=draw(st.booleans()),
    )  # fmt: skip
    signing = Signing(
        decision=decision, orig=draw(parties), dest=draw(parties), iat=draw(st.integers(0, 2**40)),
        identity=f"a.b.{draw(st.text('AZaz09-_', max_size=8))};info=<x>", credential=Credential("main", ()),
        origid=draw(st.sampled_from(("3b9f", 'odd "origid"'))),
        routed_by=draw(st.sampled_from((None, "12025550143"))),
    )  # fmt: skip
    rare: dict[str, Any] = {
        "skip": SkipReason.SIGNER_FAILED, "emergency": True, "detail": "x", "over_limit": "rate", "holder": ACME,
        "diverting": TelephoneNumber("1"), "substituted_for": TelephoneNumber("2"), "origid": None, "identity": None,
        "credential": None, "decision": None, "orig": None, "dest": None, "iat": 5,
    }  # fmt: skip
    name = draw(st.one_of(st.none(), st.sampled_from(sorted(rare))))
    if name is not None:
        signing = replace(signing, **{name: rare[name]})
    message = CallMessage(
        "INVITE", "", sip("1"), {}, call_id=draw(st.one_of(st.just("x" * 20_000), wire_text)),
        source=draw(st.sampled_from((None, "", "192.0.2.1"))), user=draw(st.one_of(st.none(), wire_text)),
        route=draw(wire_text),
    )  # fmt: skip
    return message, signing


@given(signings(), st.booleans(), st.sampled_from((NOW, NOW + 0.125, int(NOW))))
@settings(examples, max_examples=150)
def test_the_line_of_a_record_is_that_of_the_whole_record(
    call: tuple[CallMessage, Signing], observe: bool, now: float
) -> None:
    for _ in range(2):
        assert Signed(*call, now, observe=observe).line() == signed(*call, now, observe=observe).line()


@given(signings(), st.booleans(), st.booleans(), st.sampled_from(("active", "observe")))
@settings(examples, max_examples=150)
def test_the_usual_log_line_is_the_log_line(
    call: tuple[CallMessage, Signing], full: bool, trace: bool, mode: str
) -> None:
    chosen = settings_with(log={"full_numbers": full, "trace": trace}, signing={"mode": mode})
    for _ in range(2):
        usual = usual_line(*call, chosen)
        assert usual in {None, signing_line(*call, chosen)}


result = st.builds(
    IdentityResult,
    index=st.just(0),
    detail=st.sampled_from(("", "", "x")),
    ppt=st.sampled_from(("shaken", None)),
    x5u=st.one_of(st.just("https://a.example/b.pem"), st.just("https://a.example/" + "b" * 3_000), texts),
    spc=st.sampled_from(("709J", None)),
    attest=st.sampled_from((Attest.A, Attest.C, None)),
    origid=st.one_of(texts, st.none()),
    orig=st.one_of(parties, st.none()),
    iat=st.one_of(st.integers(0, 2**40), st.none()),
    ppi=st.sampled_from(("..AZ-_", None)),
)


@st.composite
def verdicts(draw: Any) -> tuple[CallMessage, Verdict, dict[str, bool]]:
    """A verified call, usual or with something rare about it, and how it is marked."""
    decisive = draw(result)
    verdict = Verdict(Result.PASSED, None, decisive, (decisive,))
    rare: dict[str, Any] = {
        "result": Result.NONE, "failure": FailureCode.NO_IDENTITY, "decisive": None, "replayed": True,
        "diversions": (TelephoneNumber("1"),), "rich": RichCallData(nam="x"), "priority": ResourcePriority(),
        "alarms": (),
    }  # fmt: skip
    name = draw(st.one_of(st.none(), st.sampled_from(sorted(rare))))
    if name == "failure":
        verdict = Verdict(Result.FAILED, rare[name], decisive, (replace(decisive, failure=rare[name]),))
    elif name is not None:
        verdict = replace(verdict, **{name: rare[name]})
    message = CallMessage(
        "INVITE", "sip:x@y", sip("12025550143"), {}, call_id=draw(st.one_of(st.just("x" * 20_000), wire_text)),
        unreadable=draw(st.sampled_from(((), ("From",)))),
    )  # fmt: skip
    mark = draw(st.sampled_from((None, None, "observe", "emergency", "rejected")))
    return message, verdict, {name: name == mark for name in ("observe", "emergency", "rejected")}


@given(verdicts(), st.sampled_from((NOW, NOW + 0.125)), st.sampled_from(("TN-Validation-Passed-A", "")))
@settings(examples, max_examples=150)
def test_the_line_of_a_verification_is_that_of_the_whole_record(
    call: tuple[CallMessage, Verdict, dict[str, bool]], now: float, verstat: str
) -> None:
    message, verdict, marks = call
    made = Verified(message, verdict, verstat, PLAN, now, **marks)
    assert made.line() == verified(message, verdict, verstat, PLAN, now, **marks).line()


@given(verdicts(), st.booleans(), st.sampled_from(("active", "observe")), st.sampled_from(("TN-Validation-Passed", "")))
@settings(examples, max_examples=150)
def test_the_usual_log_line_of_a_verification_is_the_log_line(
    call: tuple[CallMessage, Verdict, dict[str, bool]], full: bool, mode: str, verstat: str
) -> None:
    message, verdict, marks = call
    del marks["observe"]
    chosen = settings_with(log={"full_numbers": full}, verification={"mode": mode})
    usual = usual_verification(message, verdict, verstat, chosen, **marks)
    assert usual in {None, verification_line(message, verdict, verstat, chosen, **marks)}


def test_usual_verifications_are_written_the_fast_way() -> None:
    """Otherwise the two tests above would compare nothing."""
    party = TelephoneNumber("12155551212")
    by = IdentityResult(0, None, "", False, "shaken", "https://x", "709J", Attest.A, "o", party, 1, "..x")
    verdict, message = Verdict(Result.PASSED, None, by, (by,)), CallMessage("INVITE", "", sip("1"), {}, call_id="x")
    marks = {"emergency": False, "rejected": False}
    assert Verified(message, verdict, "x", PLAN, NOW, observe=False, **marks)._usual() is not None
    assert usual_verification(message, verdict, "x", settings_with(), **marks) is not None


def test_usual_calls_are_written_the_fast_way() -> None:
    """Otherwise the two tests above would compare nothing."""
    decision = Decision(Level.A, (Step("right", True, "x", "y"),), Trunk("acme-main", ACME), 3)
    party = TelephoneNumber("12155551212")
    signing = Signing(decision=decision, orig=party, dest=party, iat=1, identity="a.b.c;x", origid="o")
    signing.credential = Credential("main", ())
    message = CallMessage("INVITE", "", sip("1"), {}, call_id="x", source="192.0.2.1")
    assert Signed(message, signing, NOW, observe=False)._usual() is not None
    assert usual_line(message, signing, settings_with(log={"trace": False})) is not None


@given(st.binary(min_size=16, max_size=16))
def test_a_uuid_put_together_is_one_of_version_4(octets: bytes) -> None:
    with mock.patch("os.urandom", return_value=octets):
        assert random_uuid() == str(uuid.UUID(bytes=octets, version=4))
