"""The authentication service (RFC 8224 §6.1): who is the caller, what is signed, and what is not."""

from __future__ import annotations

import pytest

from shaken_plugin.authentication import SigningPair, StoreDown
from shaken_plugin.core.attestation import AttestationPolicy, Level
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import TelephoneNumber, UriIdentity
from shaken_plugin.errors import SkipReason
from shaken_plugin.lab.pki import Authority
from shaken_plugin.stores.last_known import LastKnown
from shaken_plugin.stores.memory import MemoryStore
from tests.conftest import NOW
from tests.services.builders import (
    CALLED,
    CALLER,
    CUSTOMER_ADDRESS,
    GATEWAY_ADDRESS,
    PENDING_ADDRESS,
    RANDOM_ORIGID,
    STRANGE_ADDRESS,
    SUSPENDED_ADDRESS,
    X5U,
    FailingSigner,
    call,
    claims_of,
    pair,
    policy,
    service,
    sip,
    token_part,
    with_signer,
)

ASSERTED, FROM = CallerHeader.ASSERTED, CallerHeader.FROM
PREFERRED, REMOTE = CallerHeader.PREFERRED, CallerHeader.REMOTE_PARTY


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


# --- What is signed ---------------------------------------------------------------------------


def test_an_owned_number_is_signed_with_the_claims_of_rfc_8588(ours: SigningPair) -> None:
    signing = service(ours).sign(call(), NOW + 0.9, RANDOM_ORIGID)
    assert signing.skip is None
    assert token_part(signing.identity, 0) == {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": X5U}
    assert claims_of(signing.identity) == {
        "attest": "A",
        "dest": {"tn": [CALLED]},
        "iat": int(NOW),
        "orig": {"tn": CALLER},
        "origid": signing.origid,
    }
    assert signing.identity is not None
    assert signing.identity.endswith(f';info=<{X5U}>;alg=ES256;ppt="shaken"')


def test_ppt_goes_without_quotes_if_the_operator_wants_it(ours: SigningPair) -> None:
    identity = service(ours, quote_ppt=False).sign(call(), NOW, RANDOM_ORIGID).identity
    assert identity is not None
    assert identity.endswith(";ppt=shaken")


@pytest.mark.parametrize(
    ("source", "level"),
    [
        (CUSTOMER_ADDRESS, Level.A),
        (GATEWAY_ADDRESS, Level.C),
        (PENDING_ADDRESS, Level.UNSIGNED),
        (STRANGE_ADDRESS, Level.UNSIGNED),
        (SUSPENDED_ADDRESS, Level.REFUSE),
    ],
)
def test_the_level_is_the_decision_from_the_records(ours: SigningPair, source: str, level: Level) -> None:
    signing = service(ours).sign(call(source=source), NOW, RANDOM_ORIGID)
    assert signing.decision is not None
    assert signing.decision.level is level
    assert (signing.identity is not None) == (level.attest is not None)
    assert signing.refuse == (level is Level.REFUSE)


@pytest.mark.parametrize(
    "message",
    [call(method="BYE"), call(to=f"{sip(CALLED)};tag=remote"), call(to=f"{sip(CALLED)};TAG=remote")],
    ids=["BYE", "re-INVITE", "re-INVITE, TAG"],
)
def test_a_request_inside_a_dialog_is_left_alone(ours: SigningPair, message: object) -> None:
    signing = service(ours).sign(message, NOW, RANDOM_ORIGID)  # type: ignore[arg-type]  # a CallMessage
    assert signing.skip is SkipReason.NOT_INITIAL_INVITE
    assert signing.decision is None


# --- Who is the caller ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "headers", "orig"),
    [
        ((ASSERTED, FROM), {ASSERTED: (sip("12155551201"),), FROM: (sip("12155551202"),)}, "12155551201"),
        ((FROM, ASSERTED), {ASSERTED: (sip("12155551201"),), FROM: (sip("12155551202"),)}, "12155551202"),
        ((ASSERTED, FROM), {FROM: (sip("12155551202"),)}, "12155551202"),
        ((PREFERRED, FROM), {FROM: (sip("12155551202"),), PREFERRED: (sip("12155551203"),)}, "12155551203"),
        ((REMOTE,), {FROM: (sip("12155551202"),), REMOTE: (sip("12155551204"),)}, "12155551204"),
        ((ASSERTED,), {ASSERTED: (f"<sip:alice@example.com>, {sip('12155551205')}",)}, "12155551205"),
        ((ASSERTED,), {ASSERTED: ("<sip:alice@example.com>", "<tel:+12155551206>")}, "12155551206"),
        ((ASSERTED, FROM), {ASSERTED: ("not an address",), FROM: (sip("12155551202"),)}, "12155551202"),
    ],
    ids=["PAI first", "From first", "PAI absent", "PPI", "RPID", "number before URI", "second line", "PAI broken"],
)
def test_the_caller_is_the_first_number_of_the_first_header_that_names_anybody(
    ours: SigningPair,
    sources: tuple[CallerHeader, ...],
    headers: dict[CallerHeader, tuple[str, ...]],
    orig: str,
) -> None:
    signing = service(ours, sources=sources).sign(call(callers=headers), NOW, RANDOM_ORIGID)
    assert signing.orig == TelephoneNumber(orig)
    assert claims_of(signing.identity)["orig"] == {"tn": orig}


@pytest.mark.parametrize("uri", ["<sip:alice@example.com>", "<sip:anonymous@anonymous.invalid>"])
def test_a_uri_of_the_first_header_hides_no_number_of_the_second(ours: SigningPair, uri: str) -> None:
    headers = {ASSERTED: (uri,), FROM: (sip(CALLER),)}
    signing = service(ours).sign(call(callers=headers), NOW, RANDOM_ORIGID)
    assert signing.orig == TelephoneNumber(CALLER)
    assert signing.decision is not None
    assert signing.decision.level is Level.A
    # A verifier compares the URI: a PASSporT for the number would be taken for a forged one.
    assert signing.skip is SkipReason.CALLER_AMBIGUOUS
    from_alone = service(ours, sources=(FROM,)).sign(call(callers=headers), NOW, RANDOM_ORIGID)
    assert claims_of(from_alone.identity)["orig"] == {"tn": CALLER}


def test_without_a_number_the_first_uri_is_the_caller(ours: SigningPair) -> None:
    headers = {ASSERTED: ("<sip:alice@example.com>",), FROM: (f"<sip:+{CALLER}x@example.com>",)}
    signing = service(ours).sign(call(callers=headers), NOW, RANDOM_ORIGID)
    assert signing.orig == UriIdentity("sip:alice@example.com")
    assert claims_of(signing.identity)["orig"] == {"uri": "sip:alice@example.com"}
    assert claims_of(signing.identity)["attest"] == "B"


def test_a_call_without_a_caller_is_not_signed(ours: SigningPair) -> None:
    signing = service(ours, sources=(ASSERTED,)).sign(call(callers={FROM: (sip(CALLER),)}), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity) == (SkipReason.CALLER_MISSING, None)


@pytest.mark.parametrize("to", ["", "<sip:>", "<http://example.com>", "<tel:+nobody>"])
def test_a_call_to_nobody_is_not_signed(ours: SigningPair, to: str) -> None:
    signing = service(ours).sign(call(to=to), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity) == (SkipReason.CALLED_MISSING, None)


@pytest.mark.parametrize(
    "value", ['"Anonymous" <sip:anonymous@anonymous.invalid>;tag=1', "<sips:x@ANONYMOUS.INVALID:5061>"]
)
def test_an_anonymous_caller_is_not_signed_for(ours: SigningPair, value: str) -> None:
    # RFC 8224 §11: nobody is authoritative for anonymous.invalid.
    signing = service(ours).sign(call(callers={FROM: (value,)}), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity) == (SkipReason.CALLER_ANONYMOUS, None)


def test_an_anonymous_from_with_an_asserted_number_is_signed_for_the_number(ours: SigningPair) -> None:
    headers = {ASSERTED: (sip(CALLER),), FROM: ("<sip:anonymous@anonymous.invalid>;tag=1",)}
    signing = service(ours).sign(call(callers=headers), NOW, RANDOM_ORIGID)
    assert claims_of(signing.identity)["orig"] == {"tn": CALLER}


@pytest.mark.parametrize(
    "evasion",
    [
        {"identity": ("nonsense",)},
        {"callers": {}},
        {"callers": {FROM: ("<sip:anonymous@anonymous.invalid>",)}},
        {"to": "<tel:nobody>"},
        {"date": "yesterday"},
    ],
    ids=["Identity added", "caller left out", "anonymous", "To spoiled", "Date spoiled"],
)
def test_no_header_spares_a_suspended_customer_the_refusal(
    ours: SigningPair, evasion: dict[str, tuple[str, ...]]
) -> None:
    signing = service(ours).sign(call(source=SUSPENDED_ADDRESS, **evasion), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.refuse) == (SkipReason.POLICY_REFUSED, True)


# --- When something is down -------------------------------------------------------------------


@pytest.mark.parametrize("mode", StoreDown)
def test_a_broken_store_refuses_only_if_the_operator_says_so(ours: SigningPair, mode: StoreDown) -> None:
    store = MemoryStore(policy())
    store.broken = True
    signing = service(ours, store=store, store_down=mode).sign(call(), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity) == (SkipReason.STORE_UNAVAILABLE, None)
    assert signing.refuse == (mode is StoreDown.REFUSE)
    assert signing.detail


def test_last_known_goes_on_signing_for_sources_and_numbers_seen_before(ours: SigningPair) -> None:
    store = MemoryStore(policy())
    signer = service(ours, store=LastKnown(store))
    before = signer.sign(call(), NOW, RANDOM_ORIGID)
    store.broken = True
    assert signer.sign(call(), NOW, RANDOM_ORIGID) == before
    unseen = call(callers={FROM: (sip("12155551213"),)})
    assert signer.sign(unseen, NOW, RANDOM_ORIGID).skip is SkipReason.STORE_UNAVAILABLE


def test_a_call_signed_again_has_the_present_time_whatever_its_date_was(ours: SigningPair) -> None:
    message = call(date=format_date(NOW - 50))
    first = service(ours).sign(message, NOW, RANDOM_ORIGID)
    assert (first.iat, first.replace_date, first.date) == (NOW - 50, False, None)
    again = service(ours).sign(message, NOW + 40, RANDOM_ORIGID, again=True)
    assert (again.iat, again.replace_date, again.date) == (NOW + 40, True, format_date(NOW + 40))
    assert again.identity != first.identity
    undated = service(ours).sign(call(), NOW, RANDOM_ORIGID, again=True)
    assert (undated.iat, undated.replace_date, undated.date) == (NOW, False, format_date(NOW))


def test_two_numbers_in_one_header_are_signed_for_by_nobody(ours: SigningPair) -> None:
    def sign(*values: str) -> SkipReason | None:
        return service(ours).sign(call(callers={CallerHeader.ASSERTED: values}), NOW, RANDOM_ORIGID).skip

    assert sign(f"{sip(CALLER)}, <tel:+12155559999>") is SkipReason.CALLER_AMBIGUOUS
    assert sign(sip(CALLER), "<tel:+12155559999>") is SkipReason.CALLER_AMBIGUOUS
    # RFC 3325 §9.1: one sip: and one tel: URI of the same caller.
    assert sign(f"{sip(CALLER)}, <tel:+{CALLER}>") is None
    assert sign(f"<sip:alice@example.com>, <tel:+{CALLER}>") is None


def test_a_signer_that_fails_leaves_the_call_unsigned_and_says_why(ours: SigningPair) -> None:
    signing = service(with_signer(ours, FailingSigner())).sign(call(), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity, signing.refuse) == (SkipReason.SIGNER_FAILED, None, False)
    assert signing.detail == "the security module does not answer"
    assert signing.credential is not None


def test_policy_choices_reach_the_decision(ours: SigningPair) -> None:
    choices = AttestationPolicy(unknown_source=Level.REFUSE, leave_alone=("1202",))
    left = service(ours, attestation=choices).sign(call(), NOW, RANDOM_ORIGID)
    assert left.skip is SkipReason.POLICY_UNSIGNED
    elsewhere = call(source=STRANGE_ADDRESS, to=sip("13035550100"))
    assert service(ours, attestation=choices).sign(elsewhere, NOW, RANDOM_ORIGID).refuse
