"""What the adapters share, on the signing side: modes, the guard, variables and actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.authentication import ExistingIdentity, Limiter, SigningPair, StaleDate, StoreDown
from shaken_plugin.core.attestation import RULES
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.records import Limits, Rate, Trunk
from shaken_plugin.core.sip import format_date
from shaken_plugin.errors import SkipReason
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.stores.limiter import AgentLimiter
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.switch import AddHeader, LeftAs, Reject, RemoveHeader, attach
from tests.conftest import NOW
from tests.services.bench import Bench
from tests.services.builders import (
    ACME,
    CALLED,
    CALLER,
    EMERGENCIES,
    STRANGE_ADDRESS,
    SUSPENDED_ADDRESS,
    BrokenStore,
    FailingSigner,
    call,
    identity_of,
    pair,
    policy,
    policy_of,
    rules,
    sip,
    with_signer,
)

REFUSED = Reject(403, "Customer Suspended")
FAULT = {"skip": "internal_error", "code": "internal_error"}


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


def _broken() -> MemoryStore:
    store = MemoryStore(policy())
    store.broken = True
    return store


# --- Every reason for not signing ---------------------------------------------------------------

Situation = Callable[[Authority, SigningPair], tuple[Bench, CallMessage]]


def _bench(message: CallMessage, **how: Any) -> Situation:
    return lambda authority, ours: (Bench.make(authority, ours, **how), message)


SOMEBODY = "12025550188"


def diverting(number: str, **changes: Any) -> CallMessage:
    """A call that ``number`` sends on."""
    return call(diverting=sip(number), **changes)


def _uncounted(authority: Authority, ours: SigningPair) -> Bench:
    """Nobody counts the calls of a customer with limits, and that is to refuse them."""
    acme = replace(ACME, limits=Limits(Rate(1, None)))
    bench = Bench.make(authority, ours, store=MemoryStore(policy_of(Trunk("t", acme))))
    assert bench.switch.services.authentication is not None
    nobody = AgentLimiter.at(Path("/nonexistent/agent.sock"), Path("/nonexistent"))
    bench.switch.services.authentication.limiter = Limiter(nobody, rules().plan, refuse_uncounted=True)
    return bench


SITUATIONS: dict[SkipReason, Situation] = {
    SkipReason.NOT_INITIAL_INVITE: _bench(call(method="REGISTER")),
    SkipReason.SIGNING_OFF: _bench(call(), signing={"mode": "off"}),
    SkipReason.ALREADY_SIGNED: _bench(call(identity=("nonsense",))),
    SkipReason.CALLER_MISSING: _bench(call(callers={})),
    SkipReason.CALLER_AMBIGUOUS: _bench(call(callers={CallerHeader.ASSERTED: (f"{sip(CALLER)}, <tel:+12155559999>",)})),
    SkipReason.CALLED_MISSING: _bench(call(to="")),
    SkipReason.CALLER_ANONYMOUS: _bench(call(callers={CallerHeader.FROM: ("<sip:anonymous@anonymous.invalid>",)})),
    SkipReason.DATE_STALE: _bench(call(date=format_date(NOW - 61))),
    SkipReason.DATE_INVALID: _bench(call(date="yesterday")),
    SkipReason.NO_CREDENTIAL: _bench(call(), store=MemoryStore(policy_of(Trunk("t", ACME, "gone")))),
    SkipReason.CREDENTIAL_NOT_VALID: lambda authority, _: (
        Bench.make(authority, pair(authority, defect=Defect.EXPIRED)),
        call(),
    ),
    SkipReason.CREDENTIAL_SCOPE: lambda authority, _: (
        Bench.make(authority, pair(authority, numbers=("12155550000",))),
        call(),
    ),
    SkipReason.SIGNER_FAILED: lambda authority, ours: (
        Bench.make(authority, with_signer(ours, FailingSigner())),
        call(),
    ),
    SkipReason.DIVERSION_NOT_OURS: _bench(diverting(SOMEBODY, identity=("nonsense",))),
    SkipReason.DIVERSION_NO_ORIGINAL: _bench(diverting(CALLER, identity=("nonsense",))),
    SkipReason.DIVERSION_SIGNED: lambda authority, ours: (
        Bench.make(authority, ours),
        diverting(CALLER, identity=(identity_of(ours, div={"tn": CALLER}),)),
    ),
    SkipReason.POLICY_UNSIGNED: _bench(call(source=STRANGE_ADDRESS)),
    SkipReason.POLICY_REFUSED: _bench(call(source=SUSPENDED_ADDRESS)),
    SkipReason.SUBSTITUTE_CHANGED: lambda authority, ours: (
        replace(Bench.make(authority, ours), left_as=LeftAs.of(SOMEBODY, CALLER)),
        call(),
    ),
    SkipReason.STORE_UNAVAILABLE: _bench(call(), store=_broken()),
    SkipReason.LIMITS_UNAVAILABLE: lambda authority, ours: (_uncounted(authority, ours), call()),
    SkipReason.INTERNAL_ERROR: _bench(call(), store=BrokenStore()),
}


def test_every_skip_reason_is_produced_by_a_situation() -> None:
    assert set(SITUATIONS) == set(SkipReason)


@pytest.mark.parametrize("reason", SITUATIONS, ids=lambda reason: reason.code)
def test_the_reason_is_told_and_nothing_is_attached(
    authority: Authority, ours: SigningPair, reason: SkipReason
) -> None:
    bench, message = SITUATIONS[reason](authority, ours)
    outcome = bench.sign(message)
    assert outcome.variables["skip"] == reason.code
    assert attach(outcome.variables) == ()
    assert outcome.actions == ()
    assert (outcome.reject == REFUSED) == (reason is SkipReason.POLICY_REFUSED)


@pytest.mark.parametrize("reason", SITUATIONS, ids=lambda reason: reason.code)
def test_every_reason_is_counted(authority: Authority, ours: SigningPair, reason: SkipReason) -> None:
    bench, message = SITUATIONS[reason](authority, ours)
    bench.sign(message)
    expected = {
        SkipReason.NOT_INITIAL_INVITE: set(),
        SkipReason.SIGNING_OFF: set(),
        SkipReason.INTERNAL_ERROR: {"fault_sign"},
        SkipReason.POLICY_REFUSED: {"unsigned_policy_refused", "refused", "refused_suspended"},
        SkipReason.LIMITS_UNAVAILABLE: {"unsigned_limits_unavailable", "limits_unavailable", "refused"},
        SkipReason.SUBSTITUTE_CHANGED: {"unsigned_substitute_changed", "substituted"},
        SkipReason.CREDENTIAL_NOT_VALID: {"unsigned_credential_not_valid", "credential_expiring"},
    }.get(reason, {f"unsigned_{reason.code}"})
    assert set(bench.observer.counts) == expected


# --- A signed call ------------------------------------------------------------------------------


def test_a_signed_call_publishes_what_attach_needs_and_changes_nothing_yet(
    authority: Authority, ours: SigningPair
) -> None:
    bench = Bench.make(authority, ours)
    outcome = bench.sign(call())
    variables = dict(outcome.variables)
    assert (outcome.actions, outcome.reject) == ((), None)
    assert variables.pop("identity").count(".") >= 2
    assert variables.pop("ppi").startswith("..")
    assert variables.pop("origid")
    assert variables.pop("rules").split(",") == [rule.name for rule in RULES]
    assert variables == {
        "policy": "1",
        "level": "A",
        "customer": "acme",
        "source": "acme/acme-main",
        "ppt": "shaken",
        "date": format_date(NOW),
        "signed_at": str(int(NOW)),
    }
    assert bench.observer.counts == {"signed_a": 1}


def test_the_ppi_variable_is_the_token_in_compact_form(authority: Authority, ours: SigningPair) -> None:
    # RFC 8225 §7.
    variables = Bench.make(authority, ours).sign(call()).variables
    token = variables["identity"].partition(";")[0]
    assert variables["ppi"] == f"..{token.split('.')[2]}"


def test_attach_adds_date_and_identity(authority: Authority, ours: SigningPair) -> None:
    variables = Bench.make(authority, ours).sign(call()).variables
    assert attach(variables) == (AddHeader("Date", format_date(NOW)), AddHeader("Identity", variables["identity"]))


def test_attach_leaves_a_fresh_date_as_it_is(authority: Authority, ours: SigningPair) -> None:
    variables = Bench.make(authority, ours).sign(call(date=format_date(NOW - 3))).variables
    assert attach(variables) == (AddHeader("Identity", variables["identity"]),)


def test_attach_replaces_a_stale_date(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, choices={"stale_date": StaleDate.REPLACE})
    variables = bench.sign(call(date=format_date(NOW - 600))).variables
    assert attach(variables)[:2] == (RemoveHeader("Date"), AddHeader("Date", format_date(NOW)))


def test_attach_removes_our_old_identities_from_the_back(authority: Authority, ours: SigningPair) -> None:
    # So that an index stays right while those behind it go.
    bench = Bench.make(authority, ours, choices={"existing": ExistingIdentity.REPLACE_OURS})
    old = identity_of(ours)
    variables = bench.sign(call(identity=(old, "foreign;", old))).variables
    assert attach(variables)[:2] == (RemoveHeader("Identity", 2), RemoveHeader("Identity", 0))
    assert attach(variables)[-1] == AddHeader("Identity", variables["identity"])


@pytest.mark.parametrize("variables", [{}, {"identity": ""}, {"identity": "", "date": "x", "drop": "0"}])
def test_attach_does_nothing_without_a_signature(variables: dict[str, str]) -> None:
    assert attach(variables) == ()


def test_attach_takes_out_what_vouches_for_a_number_that_was_replaced() -> None:
    variables = {"identity": "", "substitute": "12155551299", "drop": "0,1"}
    assert attach(variables) == (RemoveHeader("Identity", 1), RemoveHeader("Identity", 0))


@pytest.mark.parametrize(
    ("signed_at", "later", "again"),
    [
        (f"{NOW:.3f}", 0.0, False),
        (f"{NOW:.3f}", 30.0, False),
        (f"{NOW:.3f}", 30.1, True),
        (f"{NOW:.3f}", -5.0, False),
        ("", 99.0, False),
        ("nonsense", 99.0, False),
    ],
)
def test_a_failover_branch_is_signed_anew_after_the_set_seconds(
    authority: Authority, ours: SigningPair, signed_at: str, later: float, again: bool
) -> None:
    bench = Bench.make(authority, ours)
    bench.clock[0] += later
    assert bench.switch.needs_new_signature({"signed_at": signed_at}) == again


def test_nothing_to_sign_again_where_nothing_was_signed(authority: Authority, ours: SigningPair) -> None:
    assert not Bench.make(authority, ours).switch.needs_new_signature({})


# --- Modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [None, SUSPENDED_ADDRESS, STRANGE_ADDRESS])
def test_observe_decides_and_logs_but_changes_and_refuses_nothing(
    authority: Authority, ours: SigningPair, source: str | None
) -> None:
    bench = Bench.make(authority, ours, signing={"mode": "observe"})
    outcome = bench.sign(call(source=source) if source else call())
    assert (outcome.actions, outcome.reject, attach(outcome.variables)) == ((), None, ())
    assert not outcome.variables.keys() & {"identity", "ppi", "date", "drop", "replace_date", "signed_at"}
    assert outcome.variables["level"] in {"A", "unsigned", "refuse"}
    assert bench.events("sign")[0]["observe"] is True


def test_the_answer_to_a_refused_call_is_the_operators(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, signing={"refuse_status": 488, "refuse_phrase": "Ask Sales"})
    assert bench.sign(call(source=SUSPENDED_ADDRESS)).reject == Reject(488, "Ask Sales")


@pytest.mark.parametrize("emergency", EMERGENCIES.values(), ids=EMERGENCIES)
@pytest.mark.parametrize("how", ["policy", "store", "fault"])
def test_an_emergency_call_is_never_answered_by_us(
    authority: Authority, ours: SigningPair, emergency: dict[str, Any], how: str
) -> None:
    message = call(**({"source": SUSPENDED_ADDRESS} if how == "policy" else {}), **emergency)
    store = {"policy": None, "store": _broken(), "fault": BrokenStore()}[how]
    bench = Bench.make(authority, ours, store=store, choices={"store_down": StoreDown.REFUSE}, on_fault="refuse")
    ordinary = bench.sign(replace(message, request_uri=f"tel:+{CALLED}", to=sip(CALLED), priority=""))
    assert ordinary.reject is not None
    assert bench.sign(message).reject is None


def test_admitting_a_call_signs_and_logs_nothing_unless_it_is_refused(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours)
    assert bench.switch.admit(call).reject is None
    assert not bench.observer.lines
    assert bench.switch.admit(lambda: call(source=SUSPENDED_ADDRESS)).reject == REFUSED
    assert bench.observer.counts["refused"] == 1


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_nobody_is_refused_who_is_only_observed(authority: Authority, ours: SigningPair, mode: str) -> None:
    bench = Bench.make(authority, ours, signing={"mode": mode})
    assert bench.switch.admit(lambda: call(source=SUSPENDED_ADDRESS)).reject is None


def test_what_fails_while_a_call_is_admitted_is_survived(authority: Authority, ours: SigningPair) -> None:
    def read() -> CallMessage:
        raise ValueError

    bench = Bench.make(authority, ours)
    assert bench.switch.admit(read).reject is None
    assert bench.observer.counts == {"fault_sign": 1}
