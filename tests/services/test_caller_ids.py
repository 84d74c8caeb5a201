"""Caller IDs as the service treats them: refused, substituted, by route, and what is signed then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from shaken_plugin.authentication import ExistingIdentity, Signing, SigningPair, StoreDown
from shaken_plugin.config.dialplans import dial_plan, numbering
from shaken_plugin.core.attestation import AttestationPolicy, Level, Refusal
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Basis,
    DoNotOriginate,
    Overrides,
    PolicyFacts,
    Route,
    Substitution,
    Unauthorised,
    Withheld,
)
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import SkipReason, StoreUnavailable
from shaken_plugin.lab.pki import Authority
from shaken_plugin.stores.memory import MemoryStore
from tests.conftest import NOW
from tests.records import number_right, reached
from tests.services.builders import (
    ACME,
    CALLED,
    CALLER,
    CUSTOMER_ADDRESS,
    EMERGENCIES,
    GATEWAY_ADDRESS,
    PENDING_ADDRESS,
    RANDOM_ORIGID,
    STRANGE_ADDRESS,
    SUSPENDED_ADDRESS,
    TRUNK,
    call,
    claims_of,
    identity_of,
    pair,
    policy,
    service,
    sip,
)

MAIN = "12155551200"
STRANGE = "19175550100"
UNAUTHORISED = {CallerHeader.FROM: (f"{sip(STRANGE)};tag=1",)}
TO_MAIN = AttestationPolicy(unauthorised=Unauthorised.SUBSTITUTE, substitute=MAIN)


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


def signed(
    ours: SigningPair,
    attestation: AttestationPolicy = TO_MAIN,
    records: dict[str, Any] | None = None,
    rules: dict[str, Any] | None = None,
    **message: Any,
) -> Signing:
    """What becomes of a call with `STRANGE` as caller ID, unless the message says otherwise."""
    store = MemoryStore(policy(**(records or {})))
    message = {"callers": UNAUTHORISED, **message}
    return service(ours, store=store, attestation=attestation, **(rules or {})).sign(
        call(**message), NOW, RANDOM_ORIGID
    )


# --- Substitution -----------------------------------------------------------------------------


def test_the_substitute_is_the_caller_that_is_signed(ours: SigningPair) -> None:
    signing = signed(ours)
    assert signing.substitute == signing.orig == TelephoneNumber(MAIN)
    assert signing.substituted_for == TelephoneNumber(STRANGE)
    assert signing.decision is not None
    assert (signing.decision.level, signing.decision.offence) == (Level.A, True)
    assert claims_of(signing.identity)["orig"] == {"tn": MAIN}
    assert claims_of(signing.identity)["attest"] == "A"


def test_an_explicit_rule_is_no_offence(ours: SigningPair) -> None:
    rule = Substitution("s", "acme", MAIN)
    signing = signed(ours, AttestationPolicy(), {"substitutions": (rule, Substitution("a", "banned", "12155551299"))})
    assert claims_of(signing.identity)["orig"] == {"tn": MAIN}
    assert signing.decision is not None
    assert not signing.decision.unauthorised


def test_a_substitute_with_no_right_to_it_gets_b(ours: SigningPair) -> None:
    signing = signed(ours, replace(TO_MAIN, substitute="13125550142"))
    assert (claims_of(signing.identity)["orig"], claims_of(signing.identity)["attest"]) == ({"tn": "13125550142"}, "B")


def test_a_call_that_is_not_signed_goes_on_with_the_substitute_all_the_same(ours: SigningPair) -> None:
    signing = signed(ours, replace(TO_MAIN, leave_alone=("1",)))
    assert (signing.skip, signing.substitute) == (SkipReason.POLICY_UNSIGNED, TelephoneNumber(MAIN))


def test_two_numbers_in_the_header_are_no_riddle_where_another_takes_their_place(ours: SigningPair) -> None:
    both = {CallerHeader.ASSERTED: (f"{sip(STRANGE)}, {sip('13125550142')}",)}
    assert signed(ours, callers=both).identity is not None
    assert signed(ours, AttestationPolicy(), callers=both).skip is SkipReason.CALLER_AMBIGUOUS


@pytest.mark.parametrize("existing", ExistingIdentity)
def test_what_vouches_for_the_caller_that_was_goes(ours: SigningPair, existing: ExistingIdentity) -> None:
    came = ("garbage", identity_of(ours, orig={"tn": STRANGE}))
    signing = signed(ours, rules={"existing": existing}, identity=came)
    assert signing.identity is not None
    assert signing.drop == (0, 1)


def test_the_credential_must_cover_the_substitute(authority: Authority) -> None:
    covers_main = pair(authority, numbers=(MAIN,))
    assert signed(covers_main).identity is not None
    assert signed(covers_main, AttestationPolicy()).skip is SkipReason.CREDENTIAL_SCOPE
    covers_strange = pair(authority, numbers=(STRANGE,))
    assert signed(covers_strange).skip is SkipReason.CREDENTIAL_SCOPE


def test_the_date_is_checked_as_ever(ours: SigningPair) -> None:
    assert signed(ours, date="not a date").skip is SkipReason.DATE_INVALID


class ForgetsSubstitutes(MemoryStore):
    """A store that fails on the second question."""

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        if number == MAIN:
            raise StoreUnavailable("locked")
        return super().facts(source, user, number, called, route)


@pytest.mark.parametrize(("mode", "refused"), [(StoreDown.UNSIGNED, False), (StoreDown.REFUSE, True)])
def test_a_store_that_fails_at_the_second_question_is_the_declared_mode(
    ours: SigningPair, mode: StoreDown, refused: bool
) -> None:
    asked = service(ours, store=ForgetsSubstitutes(policy()), attestation=TO_MAIN, store_down=mode)
    signing = asked.sign(call(callers=UNAUTHORISED), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.refuse, signing.substitute) == (SkipReason.STORE_UNAVAILABLE, refused, None)
    assert signing.refusal is None


@pytest.mark.parametrize(("mode", "refused"), [(StoreDown.UNSIGNED, False), (StoreDown.REFUSE, True)])
def test_so_is_one_that_fails_when_a_diversion_is_judged_as_a_plain_call(
    ours: SigningPair, mode: StoreDown, refused: bool
) -> None:
    asked = service(ours, store=ForgetsSubstitutes(policy()), store_down=mode)
    message = call(
        callers={CallerHeader.FROM: (f"{sip(MAIN)};tag=1",)},
        identity=(identity_of(ours),),
        diverting=sip(STRANGE),
    )
    signing = asked.sign(message, NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.refuse) == (SkipReason.STORE_UNAVAILABLE, refused)


# --- Refusal ----------------------------------------------------------------------------------

INBOUND = (DoNotOriginate("inbound", Withheld.INBOUND_ONLY), STRANGE, STRANGE)


@pytest.mark.parametrize("source", [CUSTOMER_ADDRESS, GATEWAY_ADDRESS, STRANGE_ADDRESS])
def test_the_list_is_for_all_sources(ours: SigningPair, source: str) -> None:
    signing = signed(ours, records={"withheld": (INBOUND,)}, source=source)
    assert (signing.skip, signing.refuse) == (SkipReason.POLICY_REFUSED, True)
    assert signing.refusal is Refusal.DO_NOT_ORIGINATE
    assert signing.substitute is None


BEHIND_A_URI = {CallerHeader.ASSERTED: ("<sip:x@pbx.example>",), **UNAUTHORISED}


def test_a_uri_in_front_spares_a_number_nothing(ours: SigningPair) -> None:
    listed = signed(ours, records={"withheld": (INBOUND,)}, callers=BEHIND_A_URI)
    assert listed.refusal is Refusal.DO_NOT_ORIGINATE
    refusing = AttestationPolicy(unauthorised=Unauthorised.REFUSE)
    assert signed(ours, refusing, callers=BEHIND_A_URI).refusal is Refusal.UNAUTHORISED
    counted = signed(ours, AttestationPolicy(), callers=BEHIND_A_URI)
    assert counted.decision is not None
    assert counted.decision.offence
    rule = Substitution("s", "acme", MAIN)
    for attestation, records in ((TO_MAIN, {}), (AttestationPolicy(), {"substitutions": (rule,)})):
        signing = signed(ours, attestation, records, callers=BEHIND_A_URI)
        assert claims_of(signing.identity)["orig"] == {"tn": MAIN}


OWN = {CallerHeader.ASSERTED: (sip(CALLER),)}


@pytest.mark.parametrize(
    ("header", "callers"),
    [
        ("From", OWN | UNAUTHORISED),
        ("P-Asserted-Identity", {CallerHeader.ASSERTED: (f"{sip(CALLER)}, <tel:+{STRANGE}>",)}),
        ("P-Asserted-Identity", {CallerHeader.ASSERTED: (sip(CALLER), f"<tel:+{STRANGE}>")}),
        ("P-Preferred-Identity", OWN | {CallerHeader.PREFERRED: (sip(STRANGE),)}),
        ("Remote-Party-ID", OWN | {CallerHeader.REMOTE_PARTY: (f"{sip(STRANGE)};party=calling",)}),
    ],
)
@pytest.mark.parametrize("source", [CUSTOMER_ADDRESS, GATEWAY_ADDRESS, STRANGE_ADDRESS])
def test_the_list_is_asked_about_every_number_that_is_shown(
    ours: SigningPair, header: str, callers: dict[CallerHeader, tuple[str, ...]], source: str
) -> None:
    records = {"withheld": (INBOUND,)}
    signing = signed(ours, AttestationPolicy(), records, callers=callers, source=source)
    assert (signing.refuse, signing.refusal) == (True, Refusal.DO_NOT_ORIGINATE)
    assert signing.orig == TelephoneNumber(STRANGE)
    assert signing.decision is not None
    assert signing.decision.offence is (source == CUSTOMER_ADDRESS)
    (step,) = signing.decision.trace
    assert step.finding == f"the caller ID in {header} must not originate calls: it is for inbound calls only"
    assert step.record == "do-not-originate inbound"
    emergency = signed(ours, AttestationPolicy(), records, callers=callers, source=source, to="<sip:911@x>")
    assert not emergency.refuse


def test_only_the_list_is_asked_about_numbers_beside_the_caller(ours: SigningPair) -> None:
    """A From may hold an account of ten digits, that no numbering plan knows."""
    asks = AttestationPolicy(numbering=numbering(dial_plan("US")))
    account = OWN | {CallerHeader.FROM: ("<sip:9995550100@pbx.example>;tag=1",)}
    assert claims_of(signed(ours, asks, callers=account).identity)["orig"] == {"tn": CALLER}


class Counted(MemoryStore):
    """A store that keeps what it was asked."""

    asked: ClassVar[list[str | None]] = []

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        self.asked.append(number)
        return super().facts(source, user, number, called, route)


def test_the_store_is_asked_once_for_each_number(ours: SigningPair) -> None:
    store = Counted(policy())
    service(ours, store=store).sign(call(), NOW, RANDOM_ORIGID)
    assert store.asked == [CALLER]
    store.asked.clear()
    both = OWN | UNAUTHORISED | {CallerHeader.REMOTE_PARTY: (sip(STRANGE),)}
    service(ours, store=store).sign(call(callers=both), NOW, RANDOM_ORIGID)
    assert store.asked == [CALLER, STRANGE]


def test_an_invalid_number_is_refused_by_the_metadata(ours: SigningPair) -> None:
    asks = AttestationPolicy(numbering=numbering(dial_plan("US")))
    invalid = {CallerHeader.FROM: (f"{sip('19995550100')};tag=1",)}
    assert signed(ours, asks, callers=invalid).refusal is Refusal.DO_NOT_ORIGINATE
    assert signed(ours, asks).refuse is False
    short = {CallerHeader.FROM: ("<sip:1001@pbx.example>;tag=1",)}
    assert signed(ours, asks, callers=short).refuse is False


def test_unauthorised_is_refused_before_anything_else_about_the_call_counts(ours: SigningPair) -> None:
    refusing = AttestationPolicy(unauthorised=Unauthorised.REFUSE)
    for changes in ({}, {"to": "garbage"}, {"date": "garbage"}, {"identity": ("garbage",)}):
        assert signed(ours, refusing, **changes).refusal is Refusal.UNAUTHORISED
    asked = service(ours, attestation=refusing)
    assert asked.admit(call(callers=UNAUTHORISED), NOW, RANDOM_ORIGID).refuse
    assert not asked.admit(call(), NOW, RANDOM_ORIGID).refuse


def test_a_diversion_that_is_not_ours_does_not_spare_the_refusal(ours: SigningPair) -> None:
    refusing = AttestationPolicy(unauthorised=Unauthorised.REFUSE)
    diverted: dict[str, Any] = {"identity": (identity_of(ours, orig={"tn": STRANGE}, dest={"tn": ["13125550142"]}),)}
    assert signed(ours, refusing, diverting=sip("13125550142"), **diverted).refusal is Refusal.UNAUTHORISED
    ours_too = (*policy().rights, number_right("acme", "13125550142", "13125550142", Basis.ASSIGNED))
    signing = signed(ours, refusing, {"rights": ours_too}, diverting=sip("13125550142"), **diverted)
    assert (signing.ppt, signing.refusal, signing.substitute) == ("div", None, None)
    assert signing.identity is not None


HELD = "13125550142"
OURS_TOO = {"rights": (*policy().rights, number_right("acme", HELD, HELD, Basis.ASSIGNED))}


def sent_on(*identity: str, **changes: Any) -> dict[str, Any]:
    """A call with `STRANGE` as caller ID that `HELD` sends on to `CALLED`, with these Identity headers."""
    return {"identity": identity, "to": sip(HELD), "diverting": sip(HELD), **changes}


def original(ours: SigningPair) -> str:
    """The PASSporT of such a call."""
    return identity_of(ours, orig={"tn": STRANGE}, dest={"tn": [HELD]})


@pytest.mark.parametrize("readable", [True, False], ids=["a PASSporT for it", "garbage"])
@pytest.mark.parametrize("source", [CUSTOMER_ADDRESS, GATEWAY_ADDRESS, STRANGE_ADDRESS])
def test_no_diversion_spares_a_caller_the_list(ours: SigningPair, readable: bool, source: str) -> None:
    records = OURS_TOO | {"withheld": (INBOUND,)}
    message = sent_on(original(ours) if readable else "garbage", source=source)
    signing = signed(ours, AttestationPolicy(), records, **message)
    assert (signing.refuse, signing.refusal) == (True, Refusal.DO_NOT_ORIGINATE)
    beside = {**UNAUTHORISED, CallerHeader.REMOTE_PARTY: (sip(STRANGE),), CallerHeader.ASSERTED: (sip(CALLER),)}
    assert signed(ours, AttestationPolicy(), records, **message, callers=beside).refuse
    emergency = signed(ours, AttestationPolicy(), records, **message, priority="psap-callback")
    assert not emergency.refuse


@pytest.mark.parametrize("readable", [True, False], ids=["a PASSporT for it", "garbage"])
@pytest.mark.parametrize(
    ("source", "refusal"), [(SUSPENDED_ADDRESS, Refusal.SUSPENDED), (PENDING_ADDRESS, Refusal.PENDING)]
)
def test_nor_a_customer_what_stands_against_it(
    ours: SigningPair, readable: bool, source: str, refusal: Refusal
) -> None:
    refusing = AttestationPolicy(pending_customer=Level.REFUSE)
    message = sent_on(original(ours) if readable else "garbage", source=source)
    assert signed(ours, refusing, OURS_TOO, **message).refusal is refusal
    assert not signed(ours, refusing, OURS_TOO, **message, priority="psap-callback").refuse


@pytest.mark.parametrize("records", [{}, OURS_TOO], ids=["not ours", "ours"])
@pytest.mark.parametrize(
    "identity", [{"orig": {"tn": MAIN}}, {"dest": {"tn": [CALLED]}}, {"iat": int(NOW) - 1000}, None]
)
def test_without_a_passport_for_the_diverting_number_the_caller_is_as_any_other(
    ours: SigningPair, identity: dict[str, Any] | None, records: dict[str, Any]
) -> None:
    claims: dict[str, Any] = {"orig": {"tn": STRANGE}, "dest": {"tn": [HELD]}} | (identity or {})
    message = sent_on("garbage" if identity is None else identity_of(ours, **claims))
    refusing = AttestationPolicy(unauthorised=Unauthorised.REFUSE, unknown_source=Level.REFUSE)
    assert signed(ours, refusing, records, **message).refusal is Refusal.UNAUTHORISED
    assert signed(ours, refusing, records, **message, source=STRANGE_ADDRESS).refusal is Refusal.UNKNOWN_SOURCE
    downgraded = signed(ours, AttestationPolicy(), records, **message)
    assert downgraded.identity is None
    assert downgraded.decision is not None
    assert (downgraded.decision.unauthorised, downgraded.decision.offence) == (True, True)
    replaced = signed(ours, TO_MAIN, records, **message)
    assert (replaced.ppt, replaced.substitute, replaced.drop) == ("shaken", TelephoneNumber(MAIN), (0,))
    assert claims_of(replaced.identity) | {"dest": {"tn": [HELD]}, "orig": {"tn": MAIN}} == claims_of(replaced.identity)


def test_with_one_the_source_need_have_no_right_to_the_caller_id(ours: SigningPair) -> None:
    message = sent_on(original(ours))
    for action in Unauthorised:
        attestation = replace(TO_MAIN, unauthorised=action, unknown_source=Level.REFUSE)
        for source in (CUSTOMER_ADDRESS, STRANGE_ADDRESS):
            signing = signed(ours, attestation, OURS_TOO, **message, source=source)
            assert (signing.ppt, signing.refusal, signing.substitute) == ("div", None, None)
            assert signing.identity is not None
            assert signing.decision is not None
            assert not signing.decision.offence


@pytest.mark.parametrize("changes", EMERGENCIES.values(), ids=EMERGENCIES)
@pytest.mark.parametrize("action", Unauthorised)
def test_emergency_calls_pass_all_of_it_untouched(
    ours: SigningPair, changes: dict[str, Any], action: Unauthorised
) -> None:
    attestation = replace(TO_MAIN, unauthorised=action, numbering=lambda digits: Withheld.INVALID)
    for records in ({}, {"withheld": (INBOUND,)}, {"substitutions": (Substitution("s", "acme", MAIN),)}):
        signing = signed(ours, attestation, records, **changes)
        assert (signing.refuse, signing.substitute, signing.drop) == (False, None, ())
        assert signing.decision is not None
        assert not signing.decision.offence


# --- Routes -----------------------------------------------------------------------------------

B_AT_MOST = Overrides(ceiling=Attest.B)
HOME, ABROAD = Route("home", ("1", "1202"), Overrides()), Route("abroad", ("44",), B_AT_MOST)


def level(ours: SigningPair, *routes: Route, **message: Any) -> str | None:
    signing = signed(ours, AttestationPolicy(), {"routes": routes}, **{"callers": call().callers, **message})
    return claims_of(signing.identity)["attest"] if signing.identity else None


def test_the_longest_prefix_of_the_called_number_is_the_route(ours: SigningPair) -> None:
    assert level(ours, HOME, ABROAD) == "A"
    assert level(ours, replace(HOME, rules=B_AT_MOST), replace(ABROAD, destinations=("12025",))) == "B"
    assert level(ours, replace(HOME, rules=B_AT_MOST), Route("near", (CALLED,))) == "A"
    assert level(ours, ABROAD) == "A"


def test_a_route_that_the_switch_names_wins(ours: SigningPair) -> None:
    assert level(ours, HOME, ABROAD, route="abroad") == "B"
    assert level(ours, HOME, ABROAD, route="gone") == "A"


def test_a_to_that_says_otherwise_does_not_choose_the_route(ours: SigningPair) -> None:
    """To is the customer's own word; the Request-URI is where the call goes."""
    away = {"request_uri": "sip:+442071838750@example.net;user=phone"}
    assert level(ours, HOME, ABROAD, **away) == "B"
    assert level(ours, HOME, ABROAD, request_uri="sip:gateway@example.net", to=sip("442071838750")) == "B"
    assert level(ours, HOME, ABROAD, request_uri="sip:gateway@example.net", to="<sip:alice@example.net>") == "A"


def test_the_records_of_a_trunk_decide_for_its_calls_alone(ours: SigningPair) -> None:
    trunk = reached(replace(TRUNK, rules=Overrides(unauthorised=Unauthorised.REFUSE)), CUSTOMER_ADDRESS)
    other = reached(replace(TRUNK, id="acme-second"), "198.51.100.8")
    records = {"trunks": (trunk, other)}
    assert signed(ours, AttestationPolicy(), records).refusal is Refusal.UNAUTHORISED
    assert signed(ours, AttestationPolicy(), records, source="198.51.100.8").identity is not None
    assert ACME.rules == Overrides()


def test_a_letter_ends_in_the_service_to_the_second(ours: SigningPair) -> None:
    letter = number_right("acme", CALLER, CALLER, Basis.LETTER, "LOA-1", valid_until=NOW + 10)
    asked = service(ours, store=MemoryStore(policy(rights=(letter,))))
    attests = [
        claims_of(asked.sign(call(), NOW + after, RANDOM_ORIGID).identity)["attest"] for after in (0, 9.999, 10, 11)
    ]
    assert attests == ["A", "A", "B", "B"]
