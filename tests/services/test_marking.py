"""What the adapters share, on the verifying side: verstat, rejections, Reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from shaken_plugin.authentication import SigningPair, identity_header
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.core.call import NAMING, CallerHeader, CallMessage
from shaken_plugin.core.passport import div_claims
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import FailureCode
from shaken_plugin.lab.pki import Authority, Issued
from shaken_plugin.switch import AddHeader, Outcome, Reject, RemoveHeader, StripVerstat
from tests.conftest import NOW
from tests.services.bench import Bench
from tests.services.builders import CALLED, CALLER, EMERGENCIES, RANDOM_ORIGID, SPC, X5U, call, identity_of, sip

ASSERTED, FROM = CallerHeader.ASSERTED, CallerHeader.FROM
PASSED, NONE, FAILED = "TN-Validation-Passed", "No-TN-Validation", "TN-Validation-Failed"
FORGED = f"<sip:+{CALLER};verstat=TN-Validation-Passed@example.com;user=phone>"
EVERY_STATUS = [403, 428, 436, 437, 438]


def marked(number: str, verstat: str) -> str:
    return f"<sip:+{number};verstat={verstat}@example.com;user=phone>"


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(spc=SPC, now=NOW)


@pytest.fixture(scope="module")
def theirs(issued: Issued) -> SigningPair:
    return load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=0.0, spc=SPC)


@pytest.fixture
def make(authority: Authority, issued: Issued) -> Callable[..., Bench]:
    """A bench whose verifier has the certificate at hand, with choices for verification."""

    def bench(**verification: Any) -> Bench:
        on_fault = verification.pop("on_fault", "continue")
        return Bench.make(authority, documents={X5U: issued.chain}, verification=verification, on_fault=on_fault)

    return bench


# --- Marking ------------------------------------------------------------------------------------


def test_a_call_that_passes_is_marked_and_told_about(make: Callable[..., Bench], theirs: SigningPair) -> None:
    outcome = make().verify(call(identity=(identity_of(theirs),)))
    assert dict(outcome.variables) == {
        "verstat": PASSED,
        "result": "passed",
        "attest": "A",
        "origid": RANDOM_ORIGID,
        "spc": SPC,
        "orig": CALLER,
    }
    assert outcome.actions == (RemoveHeader(ASSERTED.value), AddHeader(ASSERTED.value, marked(CALLER, PASSED)))
    assert outcome.reject is None


def test_what_else_was_signed_is_told(make: Callable[..., Bench], theirs: SigningPair) -> None:
    jcard = ["vcard", [["fn", {}, "text", "Acme\u202e"]]]
    rcd = {"nam": "Zo\u00eb\r\nX: y", "apn": "12155551299", "jcd": jcard, "icn": "https://b.example/i"}
    base = {"iat": int(NOW), "orig": {"tn": CALLER}, "dest": {"tn": [CALLED]}}
    values = [
        identity_of(theirs),
        identity_header(theirs, base | {"rcd": rcd, "crn": "Alert", "iss": "Zorin"}, "rcd").format(),
        identity_header(theirs, base | {"rph": {"auth": ["esnet.0"]}, "sph": "psap-callback"}, "rph").format(),
        identity_header(theirs, div_claims(base, TelephoneNumber(CALLED), TelephoneNumber(CALLED)), "div").format(),
    ]
    bench = make()
    message = call(identity=tuple(values), resource_priority=("esnet.0",), priority="psap-callback")
    variables = bench.verify(message).variables
    told = {name: variables[name] for name in variables if name[:3] in {"rcd", "rph", "sph", "div"}}
    assert told == {
        "div": CALLED,
        "rcd": "partial",
        "rcd_nam": "Zo\u00ebX: y",
        "rcd_apn": "12155551299",
        "rcd_crn": "Alert",
        "rcd_jcd": '["vcard",[["fn",{},"text","Acme"]]]',
        "rcd_iss": "Zorin",
        "rcd_why": "icn: a URI without the digest of its content",
        "rph": "passed",
        "rph_auth": "esnet.0",
        "sph": "psap-callback",
    }
    (line,) = bench.events("verify")
    assert (line["rcd"], line["rph"], len(line["div"])) == ("partial", "passed", 1)
    assert CALLED not in str(line)


def test_priority_that_was_not_signed_is_named(make: Callable[..., Bench], theirs: SigningPair) -> None:
    base = {"iat": int(NOW), "orig": {"tn": CALLER}, "dest": {"tn": [CALLED]}}
    value = identity_header(theirs, base | {"rph": {"auth": ["ets.0"]}}, "rph").format()
    bench = make()
    outcome = bench.verify(call(identity=(identity_of(theirs), value), resource_priority=("ets.1",)))
    assert (outcome.variables["result"], outcome.variables["rph"]) == ("passed", "rph_mismatch")
    assert "rph_auth" not in outcome.variables
    assert bench.events("verify")[0]["rph"] == "rph_mismatch"


def test_the_level_is_appended_if_wanted(make: Callable[..., Bench], theirs: SigningPair) -> None:
    outcome = make(verstat_level=True).verify(call(identity=(identity_of(theirs),)))
    assert outcome.variables["verstat"] == f"{PASSED}-A"


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        ((sip(CALLER),), [marked(CALLER, NONE)]),
        ((f"<tel:+{CALLER}>",), [f"<tel:+{CALLER};verstat={NONE}>"]),
        ((f'"A, B" {sip(CALLER)}',), [f'"A, B" {marked(CALLER, NONE)}']),
        ((f"<sip:alice@example.com>, {sip(CALLER)}",), ["<sip:alice@example.com>", marked(CALLER, NONE)]),
        ((sip(CALLER), f"<tel:+{CALLER}>"), [marked(CALLER, NONE), f"<tel:+{CALLER}>"]),
        ((f"{sip('13035550100')}, {sip(CALLER)}",), [marked("13035550100", NONE), sip(CALLER)]),
        (("<sip:alice@example.com>",), ["<sip:alice@example.com>"]),
    ],
    ids=["sip", "tel", "display name", "comma", "two lines", "first of two", "no number"],
)
def test_without_verdict_the_first_asserted_number_is_marked(
    make: Callable[..., Bench], lines: tuple[str, ...], values: list[str]
) -> None:
    outcome = make().verify(call(callers={ASSERTED: lines, FROM: (sip(CALLER),)}))
    assert outcome.actions == (
        RemoveHeader(ASSERTED.value),
        *(AddHeader(ASSERTED.value, value) for value in values),
    )


def test_the_verified_number_is_marked_wherever_it_stands(make: Callable[..., Bench], theirs: SigningPair) -> None:
    lines = (f"<sip:alice@example.com>, {sip(CALLER)}", f"<tel:+{CALLER}>")
    message = call(callers={ASSERTED: lines, FROM: (sip(CALLER),)}, identity=(identity_of(theirs),))
    values = [action.value for action in make().verify(message).actions if isinstance(action, AddHeader)]
    assert values == ["<sip:alice@example.com>", marked(CALLER, PASSED), f"<tel:+{CALLER};verstat={PASSED}>"]


def test_a_call_without_asserted_identity_gets_one_from_from(make: Callable[..., Bench], theirs: SigningPair) -> None:
    message = call(callers={FROM: (f'"Bob" {sip(CALLER)};tag=1',)}, identity=(identity_of(theirs),))
    assert make().verify(message).actions == (AddHeader(ASSERTED.value, marked(CALLER, PASSED)),)
    assert make(add_asserted=False).verify(message).actions == ()


@pytest.mark.parametrize("value", ["", "<junk>", "?"])
def test_an_asserted_identity_that_names_nobody_is_as_good_as_none(
    make: Callable[..., Bench], theirs: SigningPair, value: str
) -> None:
    callers = {FROM: (f"{sip(CALLER)};tag=1",), ASSERTED: (value,)}
    message = call(callers=callers, identity=(identity_of(theirs),))
    assert make().verify(message).actions == (
        RemoveHeader(ASSERTED.value),
        AddHeader(ASSERTED.value, marked(CALLER, PASSED)),
    )


def test_foreign_verstat_is_taken_out_wherever_a_party_is_named(make: Callable[..., Bench]) -> None:
    forged, clean = f"<tel:+{CALLER};verstat={PASSED}>", f"<tel:+{CALLER}>"
    message = call(naming={"Diversion": (clean, forged), "Reply-To": (clean,), "History-Info": (clean,) * 9})
    actions = make().verify(message).actions
    assert StripVerstat("Diversion") in actions
    assert StripVerstat("Reply-To") not in actions
    assert StripVerstat("History-Info") in actions  # so many that not all may have been read


@pytest.mark.parametrize("value", ["<sip:anonymous@anonymous.invalid>;tag=1", "<sip:alice@example.com>", "", "<<"])
def test_nothing_is_asserted_for_a_from_without_number(make: Callable[..., Bench], value: str) -> None:
    assert make().verify(call(callers={FROM: (value,)})).actions == ()
    assert make().verify(call(callers={})).actions == ()


def test_from_is_marked_only_if_wanted_and_keeps_its_name_and_tag(make: Callable[..., Bench]) -> None:
    message = call(callers={FROM: (f'"Bob" {FORGED};tag=1',)})
    assert make(add_asserted=False).verify(message).actions == (StripVerstat(FROM.value),)
    assert make(add_asserted=False, mark_from=True).verify(message).actions == (
        RemoveHeader(FROM.value),
        AddHeader(FROM.value, f'"Bob" {marked(CALLER, NONE)};tag=1'),
    )


@pytest.mark.parametrize("header", [header for header in CallerHeader if header is not ASSERTED])
def test_foreign_verstat_is_stripped_in_place(make: Callable[..., Bench], header: CallerHeader) -> None:
    message = call(callers={ASSERTED: (sip(CALLER),), FROM: (sip(CALLER),)} | {header: (FORGED,)})
    assert StripVerstat(header.value) in make().verify(message).actions


def test_foreign_verstat_in_asserted_identities_is_replaced_by_ours(make: Callable[..., Bench]) -> None:
    message = call(callers={ASSERTED: (f"{FORGED}, {FORGED}", f"<tel:+{CALLER};verstat=x>"), FROM: (sip(CALLER),)})
    values = [action.value for action in make().verify(message).actions if isinstance(action, AddHeader)]
    assert values == [marked(CALLER, NONE), sip(CALLER), f"<tel:+{CALLER}>"]


def test_inside_a_dialog_foreign_verstat_is_stripped_and_nothing_marked(make: Callable[..., Bench]) -> None:
    message = call(method="UPDATE", callers=dict.fromkeys(CallerHeader, (FORGED,)))
    outcome = make().verify(message)
    assert set(outcome.actions) == {StripVerstat(header.value) for header in CallerHeader}
    assert (dict(outcome.variables), outcome.reject) == ({}, None)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_observe_changes_nothing_not_even_foreign_verstat(make: Callable[..., Bench], method: str) -> None:
    bench = make(mode="observe", reject=EVERY_STATUS, mark_from=True)
    outcome = bench.verify(call(method=method, callers=dict.fromkeys(CallerHeader, (FORGED,))))
    assert (outcome.actions, outcome.reject) == ((), None)
    assert "reason" not in outcome.variables


def test_verification_that_is_off_says_so(make: Callable[..., Bench]) -> None:
    bench = make(mode="off")
    assert bench.verify(call()) == Outcome({"code": "verification_off"})
    assert bench.observer.lines == []


def test_a_fault_leaves_no_foreign_verstat_to_be_believed(make: Callable[..., Bench]) -> None:
    # A trust domain believes only its own verstat; who can make us stumble must not profit.
    class Raising:
        def begin(self, message: CallMessage, now: float) -> NoReturn:
            raise RuntimeError("a bug")

    def unreadable() -> NoReturn:
        raise ValueError("a bug of the adapter")

    everywhere = {StripVerstat(name) for name in (*(header.value for header in CallerHeader), *NAMING)}
    bench = make()
    assert set(bench.switch.verify(unreadable).actions) == everywhere
    bench.switch.services.verification.begin = Raising().begin  # type: ignore[union-attr,method-assign]  # it is there, and replaced
    assert set(bench.verify(call()).actions) == everywhere
    observing = make(mode="observe")
    assert observing.switch.verify(unreadable).actions == ()


# --- Rejecting ----------------------------------------------------------------------------------


def _failing(theirs: SigningPair) -> dict[int, CallMessage]:
    """A call for each status of RFC 8224 §6.2.2."""
    return {
        403: call(identity=(identity_of(theirs, iat=NOW - 61),)),
        428: call(),
        436: call(identity=(identity_of(replace(theirs, x5u="https://certificates.example.org:444/811K.pem")),)),
        437: call(identity=(identity_of(theirs),)),
        438: call(identity=("nonsense;",)),
    }


@pytest.mark.parametrize("asked", [*EVERY_STATUS, None])
@pytest.mark.parametrize("status", EVERY_STATUS)
def test_a_failure_is_answered_exactly_if_its_status_is_configured(
    make: Callable[..., Bench], authority: Authority, theirs: SigningPair, status: int, asked: int | None
) -> None:
    bench = make(reject=[asked] if asked else [])
    if status == 437:
        bench.source.documents[X5U] = authority.issue(numbers=("13035550100",), now=NOW).chain
    outcome = bench.verify(_failing(theirs)[status])
    failure = FailureCode[outcome.variables["code"].upper()]
    assert failure.value.status == status
    assert outcome.variables["status"] == str(status)
    if asked != status:
        assert outcome.reject is None
        return
    assert outcome.reject is not None
    assert (outcome.reject.status, outcome.reject.phrase) == (status, failure.value.phrase)
    assert outcome.actions == ()
    assert len(outcome.reject.reasons) == (0 if status == 428 else 1)
    assert bench.observer.counts["rejected"] == 1


@pytest.mark.parametrize("emergency", EMERGENCIES.values(), ids=EMERGENCIES)
@pytest.mark.parametrize("status", EVERY_STATUS)
def test_an_emergency_call_is_never_rejected(
    make: Callable[..., Bench], theirs: SigningPair, status: int, emergency: dict[str, Any]
) -> None:
    message = _failing(theirs)[status]
    changes = {"date": message.date, "identity": message.identity} | emergency
    bench = make(reject=EVERY_STATUS)
    outcome = bench.verify(call(**changes))
    assert outcome.reject is None
    assert bench.observer.counts["emergency"] == 1


def test_an_anonymous_caller_is_never_rejected_for_it(make: Callable[..., Bench], theirs: SigningPair) -> None:
    # RFC 8224 §11: withheld, not forged.
    message = call(callers={FROM: ("<sip:anonymous@anonymous.invalid>;tag=1",)}, identity=(identity_of(theirs),))
    outcome = make(reject=EVERY_STATUS).verify(message)
    assert (outcome.variables["verstat"], outcome.variables["code"]) == (NONE, "caller_anonymous")
    assert outcome.reject is None


def test_a_call_that_passes_is_never_rejected(make: Callable[..., Bench], theirs: SigningPair) -> None:
    outcome = make(reject=EVERY_STATUS).verify(call(identity=("nonsense;", identity_of(theirs))))
    assert (outcome.variables["result"], outcome.reject) == ("passed", None)


def test_reasons_are_left_out_if_the_operator_wants_it(make: Callable[..., Bench]) -> None:
    bench = make(reject=[438], reason=False)
    outcome = bench.verify(call(identity=("nonsense;",)))
    assert outcome.reject == Reject(438, "Invalid Identity Header")
    assert "reason" not in outcome.variables


def test_the_profile_decides_about_verstat(make: Callable[..., Bench], theirs: SigningPair) -> None:
    message = call(identity=(identity_of(theirs),), date=format_date(NOW - 600))
    assert make().verify(message).variables["verstat"] == NONE
    assert make(verstat="strict").verify(message).variables["verstat"] == FAILED


# --- Variables and Reasons ----------------------------------------------------------------------


def test_a_failed_identity_is_reported_with_its_own_reason(make: Callable[..., Bench], theirs: SigningPair) -> None:
    # RFC 9410 §5: with more than one Identity, ppi says which.
    stale, good = identity_of(theirs, iat=NOW - 61), identity_of(theirs)
    outcome = make().verify(call(identity=(stale, good)))
    signature = stale.partition(";")[0].rpartition(".")[2]
    assert outcome.variables["result"] == "passed"
    assert outcome.variables["reason"] == f'STIR;cause=403;text="Stale Date";ppi="..{signature}"'


@pytest.mark.parametrize("orig", ["sip:a\r\nX-Evil: 1@h", "sip:\x00@h", "sip:\x1b[2J@h", "sip:\u2028@h"])
def test_variables_are_texts_without_line_breaks(make: Callable[..., Bench], theirs: SigningPair, orig: str) -> None:
    outcome = make().verify(call(identity=(identity_of(theirs, orig={"uri": orig}),)))
    assert outcome.variables["code"] == "orig_mismatch"
    assert all(value.isprintable() for value in outcome.variables.values())


OURS = "..ZmFrZQ"
THEIRS = 'STIR;cause=438;text="Invalid Identity Header";ppi="..b3RoZXI"'


@pytest.mark.parametrize(
    ("lines", "ours", "add", "expected"),
    [
        ([], OURS, None, None),
        (["Q.850;cause=16"], OURS, None, None),
        (["STIR;cause=438"], OURS, None, []),
        ([f'STIR;cause=438;ppi="{OURS}"'], OURS, None, []),
        ([f'SIP;cause=600, STIR;cause=438;ppi="{OURS}"'], OURS, None, ["SIP;cause=600"]),
        ([THEIRS], OURS, None, None),
        (["STIR;cause=438"], None, None, None),
        (["Q.850;cause=16"], None, THEIRS, ["Q.850;cause=16", THEIRS]),
        (["stir ; cause=438", "Q.850;cause=1"], OURS, THEIRS, ["Q.850;cause=1", THEIRS]),
    ],
)
def test_reasons_about_our_passport_go_and_those_of_our_verdict_come(
    make: Callable[..., Bench], lines: list[str], ours: str | None, add: str | None, expected: list[str] | None
) -> None:
    # RFC 9410 §7: the authentication service removes what verifiers say about its own PASSporT.
    bench = make()
    assert bench.switch.reply_reasons(lines, ours, add) == expected
    told = [line for line in lines if "STIR" in line.upper() and ours and line != THEIRS]
    assert bench.observer.counts["reported_by_verifier"] == len(told)


def test_reasons_that_cannot_be_read_leave_the_reply_as_it_is(make: Callable[..., Bench]) -> None:
    bench = make()
    assert bench.switch.reply_reasons([None], OURS, None) is None  # type: ignore[list-item]  # the fault
    assert bench.observer.counts == {"fault_reply": 1}
