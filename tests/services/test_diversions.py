"""Calls that are sent on: what the authentication service signs (RFC 8946), the verification service believes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from shaken_plugin.authentication import (
    Credential,
    DiversionMode,
    ExistingIdentity,
    Signing,
    SigningPair,
    StoreDown,
    identity_header,
)
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.core.attestation import AttestationPolicy, Level
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.diverting import MAX_RINGING
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Customer, CustomerState, NumberRight
from shaken_plugin.core.sip import format_date, parse_date
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.core.verification import Result, Verdict, VerificationRules
from shaken_plugin.errors import FailureCode, SkipReason
from shaken_plugin.lab.pki import Authority
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.switch import AddHeader, RemoveHeader, attach
from shaken_plugin.verification import VerificationService
from tests.conftest import NOW
from tests.records import number_right
from tests.services.bench import Bench
from tests.services.builders import (
    CALLED,
    CALLER,
    CUSTOMER_ADDRESS,
    EMERGENCIES,
    GATEWAY_ADDRESS,
    RANDOM_ORIGID,
    SPC,
    STRANGE_ADDRESS,
    SUSPENDED_ADDRESS,
    X5U,
    FailingSigner,
    call,
    claims_of,
    identity_of,
    policy,
    rules,
    service,
    sip,
    token_part,
    with_signer,
)

SECOND, THIRD = "12025550188", "13125550142"
FOREIGN, OTHER = "https://certificates.example.org/811K.pem", "https://certificates.example.net/722X.pem"
NARROW = "https://certificates.example.com/numbers.pem"
CLINIC = Customer("clinic", "Example Clinic", CustomerState.VERIFIED)


def records(*rights: NumberRight, customers: Iterable[Customer] = (CLINIC,), **changes: Any) -> MemoryStore:
    """The records of `policy`, and that the clinic may use CALLED and SECOND, or these rights instead."""
    held = rights or tuple(number_right("clinic", number, number, Basis.ASSIGNED) for number in (CALLED, SECOND))
    whole = policy(**changes)
    return MemoryStore(replace(whole, customers=(*whole.customers, *customers), rights=(*whole.rights, *held)))


def sent_on(
    *identity: str, by: str = CALLED, target: str = SECOND, proxied: bool = False, **changes: Any
) -> CallMessage:
    """A call from outside that ``by`` sends on to ``target``; a proxy leaves To as it was."""
    plain: dict[str, Any] = {
        "identity": identity,
        "diverting": sip(by),
        "request_uri": f"sip:+{target}@example.org;user=phone",
        "to": sip(CALLED if proxied else target),
        "source": STRANGE_ADDRESS,
    }
    return call(**(plain | changes))


class World:
    """811K signs the original, 709J (we) and 722X send the call on; a fourth provider verifies."""

    def __init__(self, authority: Authority) -> None:
        self.documents: dict[str, bytes] = {}
        self.ours = self._pair(authority, X5U, spc=SPC)
        self.foreign = self._pair(authority, FOREIGN, spc="811K")
        self.other = self._pair(authority, OTHER, spc="722X")
        self.narrow = self._pair(authority, NARROW, numbers=(CALLED,))
        self.anchors = TrustAnchors([authority.root])

    def _pair(self, authority: Authority, x5u: str, **issue: Any) -> SigningPair:
        issued = authority.issue(now=NOW, **issue)
        self.documents[x5u] = issued.chain
        return load_pair(key=issued.key, chain=issued.chain, x5u=x5u, live_from=0, spc=issue.get("spc"))

    def divert(
        self,
        message: CallMessage,
        now: float = NOW,
        *,
        by: SigningPair | None = None,
        store: MemoryStore | None = None,
        **changes: Any,
    ) -> Signing:
        """What the authentication service makes of a call that is sent on, by us unless told."""
        signer = service(by or self.ours, store=store or records(), **changes)
        return signer.sign(message, now, RANDOM_ORIGID)

    def verify(self, message: CallMessage, now: float = NOW, **choices: Any) -> Verdict:
        """What the provider it goes to makes of it."""
        verifier = VerificationService(
            VerificationRules(rules().plan, **choices), self.anchors, CertificateMemory(self.documents)
        )
        return verifier.verify(message, now)


def leaving(message: CallMessage, signing: Signing) -> CallMessage:
    """The call as it leaves, by the actions that an adapter executes, with no trace of `diverting`."""
    variables = {
        "identity": signing.identity or "",
        "date": signing.date or "",
        "replace_date": "1" if signing.replace_date else "",
    }
    identity, date = list(message.identity), message.date
    for action in attach(variables):
        if isinstance(action, AddHeader) and action.name == "Identity":
            identity.append(action.value)
        elif isinstance(action, AddHeader):
            date = action.value
        else:
            assert action == RemoveHeader("Date")
    return replace(message, identity=tuple(identity), date=date, diverting="")


@pytest.fixture(scope="module")
def world(authority: Authority) -> World:
    return World(authority)


# --- What is signed, and that it is believed ---------------------------------------------------


@pytest.mark.parametrize("proxied", [False, True], ids=["B2BUA", "proxy, To as it was"])
def test_a_diversion_is_signed_beside_the_original_and_believed(world: World, proxied: bool) -> None:
    original = identity_of(world.foreign)
    message = sent_on(original, proxied=proxied)
    signing = world.divert(message)
    assert (signing.skip, signing.drop, signing.ppt, signing.origid) == (None, (), "div", None)
    assert (signing.diverting, signing.dest) == (TelephoneNumber(CALLED), TelephoneNumber(SECOND))
    assert signing.holder == CLINIC
    assert signing.decision is not None
    assert signing.decision.level is Level.DIV
    assert token_part(signing.identity, 0) == {"alg": "ES256", "ppt": "div", "typ": "passport", "x5u": X5U}
    assert claims_of(signing.identity) == {
        "dest": {"tn": [SECOND]},
        "div": {"tn": CALLED},
        "iat": int(NOW),
        "orig": {"tn": CALLER},
    }
    there = leaving(message, signing)
    assert there.identity == (original, signing.identity)
    verdict = world.verify(there)
    assert (verdict.result, verdict.failure) == (Result.PASSED, None)
    assert verdict.diversions == (TelephoneNumber(CALLED),)
    assert verdict.decisive is not None
    assert (verdict.decisive.attest, verdict.decisive.spc) == (Attest.A, "811K")


def test_without_the_div_the_same_call_fails(world: World) -> None:
    there = replace(sent_on(identity_of(world.foreign)), diverting="")
    assert world.verify(there).failure is FailureCode.DEST_MISMATCH


@pytest.mark.parametrize("proxied", [False, True], ids=["B2BUA", "proxy"])
@pytest.mark.parametrize("hops", [2, 3])
def test_a_div_on_top_of_a_div_is_believed(world: World, hops: int, proxied: bool) -> None:
    numbers = (CALLED, SECOND, THIRD, "13125550143")[: hops + 1]
    held = [number_right("clinic", number, number, Basis.ASSIGNED) for number in numbers]
    identity: tuple[str, ...] = (identity_of(world.foreign),)
    pairs = (world.ours, world.other, world.ours)
    for by, before, after in zip(pairs, numbers, numbers[1:], strict=False):
        message = sent_on(*identity, by=before, target=after, proxied=proxied)
        there = leaving(message, world.divert(message, by=by, store=records(*held)))
        identity = there.identity
    assert len(identity) == hops + 1
    verdict = world.verify(there)
    assert (verdict.result, verdict.failure) == (Result.PASSED, None)
    assert verdict.diversions == tuple(map(TelephoneNumber, numbers[:-1]))


def test_several_passports_of_the_call_share_one_div(world: World) -> None:
    # RFC 8946 §4.1: one div for all whose orig and dest are the same.
    rcd = {"rcd": {"nam": "Acme"}, "dest": {"tn": [CALLED]}, "iat": int(NOW) - 1, "orig": {"tn": CALLER}}
    message = sent_on(identity_header(world.foreign, rcd, "rcd").format(), identity_of(world.foreign))
    signing = world.divert(message)
    assert claims_of(signing.identity)["iat"] == int(NOW)
    assert world.verify(leaving(message, signing)).result is Result.PASSED


def test_to_a_uri(world: World) -> None:
    message = sent_on(identity_of(world.foreign), request_uri="sip:bob@b.example", to="<sip:bob@b.example>")
    signing = world.divert(message)
    assert claims_of(signing.identity)["dest"] == {"uri": ["sip:bob@b.example"]}
    assert world.verify(leaving(message, signing)).result is Result.PASSED


@pytest.mark.parametrize(
    "existing", [ExistingIdentity.SKIP, ExistingIdentity.ADD, ExistingIdentity.REPLACE_OURS], ids=lambda one: one.value
)
def test_existing_identity_is_not_about_diversions(world: World, existing: ExistingIdentity) -> None:
    signing = world.divert(sent_on(identity_of(world.ours)), existing=existing)
    assert (signing.skip, signing.drop, signing.ppt) == (None, (), "div")


def test_the_holders_credential_signs(world: World) -> None:
    theirs = Credential("theirs", (world.other,))
    clinic = replace(CLINIC, credential="theirs")
    signing = world.divert(sent_on(identity_of(world.foreign)), store=records(customers=[clinic]), others=[theirs])
    assert signing.credential == theirs
    assert token_part(signing.identity, 0)["x5u"] == OTHER
    missing = world.divert(sent_on(identity_of(world.foreign)), store=records(customers=[clinic]))
    assert missing.skip is SkipReason.NO_CREDENTIAL


# --- iat and Date ------------------------------------------------------------------------------


@pytest.mark.parametrize("rang", [-30, 0, 7, 30])
@pytest.mark.parametrize("with_date", [False, True])
def test_iat_and_date_of_the_original_are_retained(world: World, rang: int, with_date: bool) -> None:
    # RFC 8946 §3: "SHOULD retain the 'iat' element from the original PASSporT".
    at = NOW - rang
    message = sent_on(identity_of(world.foreign, iat=at), date=format_date(at) if with_date else None)
    signing = world.divert(message)
    assert (signing.iat, signing.replace_date) == (at, False)
    assert claims_of(signing.identity)["iat"] == at
    assert signing.date == (None if with_date else format_date(at))
    assert world.verify(leaving(message, signing), NOW + 1).result is Result.PASSED


@pytest.mark.parametrize("rang", [31, 59, 61, 180, 60 + MAX_RINGING])
@pytest.mark.parametrize("with_date", [False, True])
def test_after_long_ringing_both_are_of_now(world: World, rang: int, with_date: bool) -> None:
    at = NOW - rang
    message = sent_on(identity_of(world.foreign, iat=at), date=format_date(at) if with_date else None)
    signing = world.divert(message)
    assert (signing.iat, signing.replace_date) == (NOW, with_date)
    assert signing.date is not None
    assert parse_date(signing.date) == claims_of(signing.identity)["iat"] == NOW
    there = leaving(message, signing)
    # RFC 8946 §4.2: the outermost must be fresh; how old the others may be is the verifier's choice.
    assert world.verify(there, NOW + 29, inner_freshness=600).result is Result.PASSED
    assert world.verify(there, NOW + 29).failure is (None if rang == 31 else FailureCode.IAT_STALE)


@pytest.mark.parametrize("age", [-61, 61 + MAX_RINGING])
def test_a_passport_of_another_time_is_carried_on_by_no_div(world: World, age: int) -> None:
    assert skip_of(world.divert(sent_on(identity_of(world.foreign, iat=NOW - age)))) == "diversion_no_original"


def skip_of(signing: Signing) -> str | None:
    """The reason; whatever it is, nothing is signed, added, changed or taken away."""
    if signing.skip is None:
        return None
    assert (signing.identity, signing.date, signing.replace_date, signing.drop) == (None, None, False, ())
    return signing.skip.code


# --- Whose number diverts ----------------------------------------------------------------------

DAY = 86_400.0


@pytest.mark.parametrize(
    ("right", "skip"),
    [
        (number_right("clinic", CALLED, CALLED, Basis.ASSIGNED), None),
        (number_right("clinic", "12025550100", "12025550199", Basis.PORTED), None),
        (number_right("clinic", CALLED, CALLED, Basis.RESPORG), None),
        (number_right("clinic", CALLED, CALLED, Basis.LETTER, "LOA-1", valid_until=NOW + 1), None),
        (number_right("clinic", CALLED, CALLED, Basis.LETTER, "LOA-1", valid_until=NOW), "diversion_not_ours"),
        (number_right("clinic", CALLED, CALLED, Basis.LETTER, "LOA-1", valid_from=NOW + 1), "diversion_not_ours"),
        (number_right("clinic", CALLED, CALLED, Basis.CUSTOMER_WORD), "diversion_not_ours"),
        (number_right("clinic", SECOND, SECOND, Basis.ASSIGNED), "diversion_not_ours"),
        (number_right("acme", CALLED, CALLED, Basis.ASSIGNED), None),
        (number_right("pending", CALLED, CALLED, Basis.ASSIGNED), "diversion_not_ours"),
        (number_right("banned", CALLED, CALLED, Basis.ASSIGNED), "diversion_not_ours"),
    ],
    ids=lambda value: f"{value.right.customer} {value.right.basis.value}" if isinstance(value, NumberRight) else "",
)
def test_only_a_documented_right_of_a_verified_customer_signs(
    world: World, right: NumberRight, skip: str | None
) -> None:
    assert skip_of(world.divert(sent_on(identity_of(world.foreign)), store=records(right))) == skip


def test_one_right_that_holds_is_enough(world: World) -> None:
    gone = number_right("clinic", CALLED, CALLED, Basis.LETTER, valid_until=NOW - DAY)
    suspended = number_right("banned", CALLED, CALLED, Basis.ASSIGNED)
    held = number_right("acme", CALLED, CALLED, Basis.PORTED)
    signing = world.divert(sent_on(identity_of(world.foreign)), store=records(gone, suspended, held))
    assert signing.holder is not None
    assert signing.holder.id == "acme"


@pytest.mark.parametrize("source", [STRANGE_ADDRESS, GATEWAY_ADDRESS, None])
def test_where_the_call_came_from_gives_and_takes_no_right(world: World, source: str | None) -> None:
    refusing = AttestationPolicy(unknown_source=Level.REFUSE)
    signing = world.divert(sent_on(identity_of(world.foreign), source=source), attestation=refusing)
    assert skip_of(signing) is None


def test_a_suspended_caller_is_refused_whoever_sends_the_call_on(world: World) -> None:
    signing = world.divert(sent_on(identity_of(world.foreign), source=SUSPENDED_ADDRESS))
    assert (signing.skip, signing.refuse) == (SkipReason.POLICY_REFUSED, True)


@pytest.mark.parametrize("changes", EMERGENCIES.values(), ids=EMERGENCIES)
def test_an_emergency_call_is_never_refused(world: World, changes: dict[str, Any]) -> None:
    message = sent_on(identity_of(world.foreign), source=SUSPENDED_ADDRESS, **changes)
    signing = world.divert(message)
    assert signing.emergency
    assert not signing.refuse
    assert signing.identity is None
    down = records()
    down.broken = True
    assert not world.divert(message, store=down, store_down=StoreDown.REFUSE).refuse


def test_destinations_that_are_left_alone_are_so_for_diversions(world: World) -> None:
    alone = AttestationPolicy(leave_alone=("1202555",))
    assert skip_of(world.divert(sent_on(identity_of(world.foreign)), attestation=alone)) == "policy_unsigned"


def test_a_store_that_cannot_be_read(world: World) -> None:
    down = records()
    down.broken = True
    assert skip_of(world.divert(sent_on(identity_of(world.foreign)), store=down)) == "store_unavailable"


def test_the_certificate_must_cover_the_diverting_number(world: World) -> None:
    # RFC 8946 §4.2: who diverts speaks for the number in div, and for no other.
    message = sent_on(identity_of(world.foreign))
    signing = world.divert(message, by=world.narrow)
    assert skip_of(signing) is None
    assert world.verify(leaving(message, signing)).result is Result.PASSED
    assert skip_of(world.divert(sent_on(identity_of(world.foreign), by=SECOND, target=THIRD), by=world.narrow)) == (
        "diversion_no_original"
    )
    further = identity_of(world.foreign, dest={"tn": [SECOND]})
    assert skip_of(world.divert(sent_on(further, by=SECOND, target=THIRD), by=world.narrow)) == "credential_scope"


def test_a_key_that_cannot_be_used(world: World) -> None:
    broken = with_signer(world.ours, FailingSigner())
    assert skip_of(world.divert(sent_on(identity_of(world.foreign)), by=broken)) == "signer_failed"


# --- Nothing to go on from ---------------------------------------------------------------------


def _compact(world: World) -> str:
    value = identity_of(world.foreign)
    token, _, params = value.partition(";")
    return f"..{token.rpartition('.')[2]};{params}"


def _without(world: World, name: str) -> str:
    claims = {key: value for key, value in claims_of(identity_of(world.foreign)).items() if key != name}
    return identity_header(world.foreign, claims).format()


NO_ORIGINAL: dict[str, Any] = {
    "nonsense": lambda _: "nonsense; info",
    "not UTF-8": lambda _: "\udce9",
    "compact form": _compact,
    "a type that verifiers ignore": lambda world: identity_header(
        world.foreign, claims_of(identity_of(world.foreign)), "msg"
    ).format(),
    "for another number": lambda world: identity_of(world.foreign, dest={"tn": [THIRD]}),
    "of another caller": lambda world: identity_of(world.foreign, orig={"tn": THIRD}),
    "no dest": lambda world: _without(world, "dest"),
    "no iat": lambda world: _without(world, "iat"),
    "no orig": lambda world: _without(world, "orig"),
    "iat a text": lambda world: identity_header(
        world.foreign, claims_of(identity_of(world.foreign)) | {"iat": "1795000000"}
    ).format(),
    "dest not a list": lambda world: identity_of(world.foreign, dest={"tn": CALLED}),
    "div not an object": lambda world: identity_of(world.foreign, div="x"),
}


@pytest.mark.parametrize("make", NO_ORIGINAL.values(), ids=NO_ORIGINAL)
def test_without_a_passport_for_the_diverting_number_nothing_is_added(world: World, make: Any) -> None:
    assert skip_of(world.divert(sent_on(make(world)))) == "diversion_no_original"
    assert skip_of(world.divert(sent_on(make(world), identity_of(world.foreign)))) is None


def test_a_withheld_caller_has_no_original(world: World) -> None:
    anonymous = {CallerHeader.FROM: ("<sip:anonymous@anonymous.invalid>;tag=1",)}
    assert skip_of(world.divert(sent_on(identity_of(world.foreign), callers=anonymous))) == "diversion_no_original"
    assert skip_of(world.divert(sent_on(identity_of(world.foreign), callers={}))) == "diversion_no_original"


def test_the_same_diversion_is_signed_once(world: World) -> None:
    message = sent_on(identity_of(world.foreign))
    there = leaving(message, world.divert(message))
    again = replace(there, diverting=message.diverting)
    assert skip_of(world.divert(again)) == "diversion_signed"
    # Back to the first number and out once more: another one.
    back = sent_on(*there.identity, by=SECOND, target=CALLED)
    there = leaving(back, world.divert(back))
    out = sent_on(*there.identity, by=CALLED, target=THIRD)
    there = leaving(out, world.divert(out))
    assert len(there.identity) == 4
    assert world.verify(there).result is Result.PASSED


# --- No diversion ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"diverting": ""},
        {"diverting": "not; an <address"},
        {"diverting": "<sip:bob@example.org>"},
        {"diverting": sip(SECOND)},
        {"diverting": f"tel:+{SECOND}"},
        {"request_uri": "not a URI", "to": sip(CALLED)},
    ],
    ids=["none", "unreadable", "a URI", "same number", "same number, another spelling", "nobody new"],
)
def test_what_is_no_diversion_is_a_call_like_any_other(world: World, changes: dict[str, Any]) -> None:
    message = sent_on(identity_of(world.foreign), source=CUSTOMER_ADDRESS, **changes)
    signing = world.divert(message)
    assert (signing.skip, signing.diverting) == (SkipReason.ALREADY_SIGNED, None)


def test_leave_signs_no_div(world: World) -> None:
    message = sent_on(identity_of(world.foreign), source=CUSTOMER_ADDRESS)
    signing = world.divert(message, diversion=DiversionMode.LEAVE)
    assert (signing.skip, signing.diverting) == (SkipReason.ALREADY_SIGNED, None)


def test_without_identity_it_is_signed_by_its_own_decision(world: World) -> None:
    # RFC 8946 §4.1: "MUST NOT add a 'div' PASSporT to a request that contains no other Identity headers".
    message = sent_on(source=CUSTOMER_ADDRESS)
    signing = world.divert(message)
    assert (signing.ppt, claims_of(signing.identity)["attest"]) == ("shaken", "A")
    assert claims_of(signing.identity)["dest"] == {"tn": [SECOND]}
    assert world.verify(leaving(message, signing)).result is Result.PASSED


def test_inside_a_dialog_nothing_is_signed(world: World) -> None:
    message = sent_on(identity_of(world.foreign), to=f"{sip(SECOND)};tag=2")
    assert skip_of(world.divert(message)) == "not_initial_invite"


# --- At the switch -----------------------------------------------------------------------------


def test_what_script_log_and_counters_learn(world: World, authority: Authority) -> None:
    bench = Bench.make(authority, world.ours, store=records())
    outcome = bench.sign(sent_on(identity_of(world.foreign)))
    assert outcome.variables["ppt"] == "div"
    assert outcome.variables["customer"] == "clinic"
    assert not outcome.variables.keys() & {"level", "skip", "origid", "drop"}
    assert [type(action) for action in attach(outcome.variables)] == [AddHeader, AddHeader]
    assert bench.observer.counts["signed_div"] == 1
    (line,) = bench.events("sign")
    assert (line["level"], line["div"], line["dest"], line["holder"]) == ("div", "1202*****43", "1202*****88", "clinic")


def test_a_level_of_our_own_is_told_with_its_type(world: World, authority: Authority) -> None:
    bench = Bench.make(authority, world.ours)
    variables = bench.sign(call()).variables
    assert (variables["ppt"], variables["level"]) == ("shaken", "A")


def test_observing_changes_nothing(world: World, authority: Authority) -> None:
    bench = Bench.make(authority, world.ours, store=records(), signing={"mode": "observe"})
    variables = bench.sign(sent_on(identity_of(world.foreign))).variables
    assert variables["ppt"] == "div"
    assert attach(variables) == ()


def test_a_diversion_that_is_not_ours_is_told_with_its_reason(world: World, authority: Authority) -> None:
    bench = Bench.make(authority, world.ours)
    variables = bench.sign(sent_on(identity_of(world.foreign))).variables
    assert variables == {
        "skip": "diversion_not_ours",
        "rules": "caller_active,destination,diverting_right",
        "policy": "1",
    }
    (line,) = bench.events("sign")
    assert line["trace"][-1] == "- diverting_right: nobody vouched for the diverting number"
    assert line["missing"] == ["a record of the customer who may use 1202*****43"]
