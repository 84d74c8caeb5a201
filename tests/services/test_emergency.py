"""Emergency calls are never refused, limited or left out, whatever the records or faults say.

RFC 5031 §4.2 (urn:service:sos), RFC 7090 §5 (psap-callback); 911, its test number 933, and 112.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shaken_plugin.authentication import ExistingIdentity, Signing, SigningPair, StaleDate, StoreDown
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.attestation import AttestationPolicy, Level
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.records import CustomerState, Trunk
from shaken_plugin.core.sip import format_date
from shaken_plugin.errors import SkipReason
from shaken_plugin.lab.pki import Authority
from shaken_plugin.stores.memory import MemoryStore
from tests.conftest import NOW
from tests.services.builders import (
    ACME,
    EMERGENCIES,
    PENDING_ADDRESS,
    RANDOM_ORIGID,
    STRANGE_ADDRESS,
    SUSPENDED_ADDRESS,
    FailingSigner,
    call,
    claims_of,
    identity_of,
    pair,
    policy,
    policy_of,
    service,
    with_signer,
)

REFUSE_ALL = AttestationPolicy(unknown_source=Level.REFUSE, pending_customer=Level.REFUSE)

each_emergency = pytest.mark.parametrize("emergency", EMERGENCIES.values(), ids=EMERGENCIES)


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


def _broken() -> MemoryStore:
    store = MemoryStore(policy())
    store.broken = True
    return store


def _terminated() -> MemoryStore:
    return MemoryStore(policy_of(Trunk("t", replace(ACME, state=CustomerState.TERMINATED))))


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "suspended customer": ({"source": SUSPENDED_ADDRESS}, {}),
    "terminated customer": ({}, {"store": _terminated}),
    "pending customer": ({"source": PENDING_ADDRESS}, {"attestation": REFUSE_ALL}),
    "unknown source": ({"source": STRANGE_ADDRESS}, {"attestation": REFUSE_ALL}),
    "store down": ({}, {"store": _broken, "store_down": StoreDown.REFUSE}),
    "no caller, suspended": ({"source": SUSPENDED_ADDRESS, "callers": {}}, {}),
    "anonymous, suspended": (
        {"source": SUSPENDED_ADDRESS, "callers": {CallerHeader.FROM: ("<sip:anonymous@anonymous.invalid>",)}},
        {},
    ),
    "Identity added, suspended": ({"source": SUSPENDED_ADDRESS, "identity": ("nonsense",)}, {}),
}
"""Everything that gets an ordinary call refused: changes of the call, and of the service."""


def _sign(ours: SigningPair, changes: dict[str, Any], choices: dict[str, Any]) -> Signing:
    choices = {name: value() if name == "store" else value for name, value in choices.items()}
    return service(ours, **choices).sign(call(**changes), NOW, RANDOM_ORIGID)


@pytest.mark.parametrize(("changes", "choices"), REFUSALS.values(), ids=REFUSALS)
def test_the_same_call_to_anybody_else_is_refused(
    ours: SigningPair, changes: dict[str, Any], choices: dict[str, Any]
) -> None:
    signing = _sign(ours, changes, choices)
    assert signing.refuse
    assert not signing.emergency


@each_emergency
@pytest.mark.parametrize(("changes", "choices"), REFUSALS.values(), ids=REFUSALS)
def test_an_emergency_call_is_never_refused(
    ours: SigningPair, emergency: dict[str, Any], changes: dict[str, Any], choices: dict[str, Any]
) -> None:
    signing = _sign(ours, changes | emergency, choices)
    assert not signing.refuse
    assert signing.emergency
    assert signing.skip in {SkipReason.POLICY_UNSIGNED, SkipReason.STORE_UNAVAILABLE}


@each_emergency
@pytest.mark.parametrize(
    "attestation",
    [AttestationPolicy(leave_alone=("9", "1", "2")), AttestationPolicy(sign_international=False)],
    ids=["leave_alone", "international"],
)
def test_destinations_that_are_left_alone_do_not_leave_emergency_calls_unsigned(
    ours: SigningPair, emergency: dict[str, Any], attestation: AttestationPolicy
) -> None:
    signing = service(ours, attestation=attestation).sign(call(**emergency), NOW, RANDOM_ORIGID)
    assert claims_of(signing.identity)["attest"] == "A"


@each_emergency
def test_an_emergency_call_that_cannot_be_signed_goes_on(ours: SigningPair, emergency: dict[str, Any]) -> None:
    signing = service(with_signer(ours, FailingSigner())).sign(call(**emergency), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.refuse) == (SkipReason.SIGNER_FAILED, False)


@pytest.mark.parametrize(
    ("emergency", "dest"),
    [
        ("911", {"tn": ["911"]}),
        ("933", {"tn": ["933"]}),
        ("112", {"tn": ["112"]}),
        ("sos", {"uri": ["urn:service:sos"]}),
        ("sos.police", {"uri": ["urn:service:sos.police"]}),
    ],
)
def test_service_numbers_and_urns_are_signed_as_dialled(
    ours: SigningPair, emergency: str, dest: dict[str, list[str]]
) -> None:
    # RFC 8224 §8.3: numbers that are not E.164 stay as dialled; RFC 8225 §5.2.1: others are URIs.
    signing = service(ours).sign(call(**EMERGENCIES[emergency]), NOW, RANDOM_ORIGID)
    assert claims_of(signing.identity)["dest"] == dest


@pytest.mark.parametrize(
    "changes",
    [
        {"to": "<sip:9110@example.net>", "request_uri": "sip:9110@example.net"},
        {"to": "<urn:service:sosx>", "request_uri": "urn:service:sosx"},
        {"to": "<urn:service:counseling>", "request_uri": "urn:service:counseling"},
        {"priority": "emergency"},
        {"priority": "psap-callback-not"},
    ],
    ids=["9110", "sosx", "counseling", "Priority: emergency", "another priority"],
)
def test_what_only_looks_like_an_emergency_call_is_refused_as_any_other(
    ours: SigningPair, changes: dict[str, Any]
) -> None:
    signing = service(ours).sign(call(source=SUSPENDED_ADDRESS, **changes), NOW, RANDOM_ORIGID)
    assert (signing.emergency, signing.refuse) == (False, True)


@each_emergency
def test_an_emergency_call_is_one_where_numbers_are_names_elsewhere(
    ours: SigningPair, emergency: dict[str, Any]
) -> None:
    plan = dial_plan("US", numeric_users=False)
    signing = service(ours, plan=plan).sign(call(source=SUSPENDED_ADDRESS, **emergency), NOW, RANDOM_ORIGID)
    assert signing.emergency
    assert not signing.refuse


def test_nothing_of_an_emergency_call_is_replaced(ours: SigningPair) -> None:
    emergency = EMERGENCIES["911"]
    signer = service(ours, stale_date=StaleDate.REPLACE, existing=ExistingIdentity.REPLACE_OURS)
    stale = signer.sign(call(**emergency, date=format_date(NOW - 90)), NOW, RANDOM_ORIGID)
    assert (stale.skip, stale.replace_date, stale.date) == (SkipReason.DATE_STALE, False, None)
    signed = signer.sign(call(**emergency, identity=(identity_of(ours),)), NOW, RANDOM_ORIGID)
    assert (signed.skip, signed.drop) == (SkipReason.ALREADY_SIGNED, ())
    for skipped in ({"date": format_date(NOW - 90)}, {"identity": (identity_of(ours),)}):  # any other call is
        assert signer.sign(call(**skipped), NOW, RANDOM_ORIGID).identity
