"""Calls over the limits of their customer: counted once, last of all, refused or marked; emergency calls never."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin import runtime
from shaken_plugin.authentication import Limiter, SigningPair
from shaken_plugin.authentication.limiting import RULE
from shaken_plugin.core.attestation import AttestationPolicy, Level, Refusal
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.limits import (
    REPEATS,
    SECOND,
    Bound,
    Outcome,
    Request,
    Tally,
    Verdict,
    dialog_of,
    key,
    replaced_keys,
)
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, CustomerState, Limits, Overrides, Rate, Trunk, Unauthorised
from shaken_plugin.core.verification import ReplayMode
from shaken_plugin.errors import SkipReason, StoreUnavailable
from shaken_plugin.lab.pki import Authority
from shaken_plugin.records.call import signed
from shaken_plugin.records.spool import SpoolWriter
from shaken_plugin.stores.limiter import AgentLimiter, FleetReplay
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.stores.policy import Policy
from shaken_plugin.switch import Reject
from tests.conftest import NOW
from tests.records import number_right, reached
from tests.services.bench import Bench, settings
from tests.services.builders import (
    ACME,
    CALLER,
    CUSTOMER_ADDRESS,
    EMERGENCIES,
    GATEWAY,
    GATEWAY_ADDRESS,
    RANDOM_ORIGID,
    STRANGE_ADDRESS,
    call,
    pair,
    rules,
    sip,
)
from tests.services.builders import service as plain_service

OVER = Reject(480, "Call Limit Reached")
OTHER = "12155551299"


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


class Counts:
    """A `ports.CallLimiter` in memory, whose agent may be gone."""

    def __init__(self) -> None:
        self.tally = Tally(90 * SECOND)
        self.asked: list[Request] = []
        self.told: list[tuple[str, Any]] = []
        self.gone = False
        self.names: list[str] = []
        """Of calls that were admitted ahead."""

    def ahead(self, customer: str, bounds: tuple[Bound, ...], level: str) -> str:
        return self.names.pop() if self.names and (customer, level) == ("acme", "A") else ""

    def admit(self, request: Request) -> Verdict:
        if self.gone:
            raise StoreUnavailable("the agent does not answer")
        self.asked.append(request)
        return self.tally.admit(request, int(NOW * SECOND))

    def trouble(self) -> str:
        return ""

    def followed(self, call: str, owner: str = "") -> None:
        self.told.append(("followed", call))

    def ended(self, call: str) -> None:
        self.told.append(("ended", call))
        self.tally.end(call)

    def referred(self, call: str, to: str) -> None:
        self.told.append(("referred", to))
        self.tally.refer(call, to, int(NOW * SECOND))


def store(limits: Limits, **customer: Any) -> MemoryStore:
    acme = replace(ACME, limits=limits, **customer)
    trunk = Trunk("acme-main", acme)
    return MemoryStore(
        Policy(
            customers=(acme,),
            trunks=(reached(trunk, CUSTOMER_ADDRESS),),
            gateways=(reached(GATEWAY, GATEWAY_ADDRESS),),
            rights=(number_right("acme", "12155551200", "12155551299", Basis.ASSIGNED),),
        )
    )


def bench(authority: Authority, ours: SigningPair, limits: Limits, counts: Counts, **more: Any) -> Bench:
    """A switch that tells ends, with these limits for Acme."""
    how = {name: more.pop(name) for name in ("enforce", "refuse_uncounted") if name in more}
    customer = more.pop("customer", {})
    made = Bench.make(authority, ours, store=store(limits, **customer), **more)
    assert made.switch.services.authentication is not None
    made.switch.services.authentication.limiter = Limiter(counts, rules().plan, **how)
    made.switch.services = replace(made.switch.services, limiter=counts)
    made.switch.tells_ends = True
    made.switch._new_uuid = lambda: str(uuid.uuid4())
    return made


def numbered(number: int, **changes: Any) -> CallMessage:
    return call(call_id=f"call-{number}", **changes)


def always(_slot: str) -> bool:
    return True


def never(_slot: str) -> bool:
    raise AssertionError("asked")


ONE = Limits(Rate(None, 1))
KEY = key("acme", "call-1", "1")


def test_a_call_over_a_limit_is_refused_in_the_words_of_the_settings(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, ONE, counts)
    first = switch.sign(numbered(1))
    assert (first.reject, first.variables["level"], dialog_of(first.variables["slot"])) == (None, "A", KEY)
    over = switch.sign(numbered(2))
    assert over.reject == OVER
    assert over.reject.retry_after == 0
    variables = {name: over.variables[name] for name in ("level", "refusal", "over_limit", "skip", "customer")}
    assert variables == {
        "level": "refuse",
        "refusal": "over_limit",
        "over_limit": "concurrent",
        "skip": "policy_refused",
        "customer": "acme",
    }
    assert not over.variables.keys() & {"identity", "slot", "counted"}
    assert (switch.observer.counts["over_limit"], switch.observer.counts["refused_over_limit"]) == (1, 1)
    event = switch.events("sign")[-1]
    assert event["over_limit"] == "concurrent"
    assert event["trace"][-1] == "- limits: over the limit of 1 calls at a time [customer acme]"
    assert event["missing"] == ["a call that ends, or a higher limit"]
    switch.switch.ended(first.variables["slot"])
    assert switch.sign(numbered(3)).reject is None


@pytest.mark.parametrize("ahead", [False, True])
def test_a_call_whose_end_nobody_would_tell_is_refused_and_recorded_so(
    authority: Authority, ours: SigningPair, tmp_path: Path, ahead: bool
) -> None:
    counts, asked = Counts(), list[str]()
    switch = bench(authority, ours, ONE, counts)
    switch.switch.services = replace(switch.switch.services, records=SpoolWriter(tmp_path / "calls", 1_000_000))

    def follow(slot: str) -> bool:
        asked.append(slot)
        return False

    switch.switch.follow = follow
    counts.names = ["2-2+1+0"] * ahead
    over = switch.sign(numbered(1))
    assert over.reject == OVER
    assert over.variables["over_limit"] == "unfollowed"
    assert not over.variables.keys() & {"identity", "slot", "counted"}
    (slot,) = asked
    assert dialog_of(slot) == KEY
    assert counts.told == [("ended", slot)]
    assert (switch.observer.counts["over_limit"], switch.observer.counts["refused_over_limit"]) == (1, 1)
    assert switch.events("sign")[-1]["trace"][-1] == "- limits: nobody would tell its end [customer acme]"
    (file,) = (tmp_path / "calls").iterdir()
    (record,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (record["refused"], record["refusal"], record["over_limit"]) == (True, "over_limit", "unfollowed")
    assert "signature" not in record


def test_a_call_that_had_its_slot_before_is_not_asked_about_its_end(authority: Authority, ours: SigningPair) -> None:
    switch = bench(authority, ours, ONE, Counts())
    slot = switch.sign(numbered(1)).variables["slot"]
    switch.switch.follow = never
    again = switch.sign(numbered(1, counted=slot))
    assert (again.reject, again.variables["slot"]) == (None, slot)


def test_a_call_that_was_admitted_ahead_is_not_asked_about(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, Limits(Rate(None, 10)), counts)
    counts.names = ["2-2+1+0"]
    ahead, asked = switch.sign(numbered(1)), switch.sign(numbered(2))
    assert ahead.variables["slot"] == ahead.variables["counted"] == f"{KEY}/2-2+1+0"
    assert [request.call for request in counts.asked] == [asked.variables["slot"]]
    own = {"counted", "slot", "identity", "ppi", "origid"}
    assert {name: text for name, text in ahead.variables.items() if name not in own} == {
        name: text for name, text in asked.variables.items() if name not in own
    }
    first, second = switch.events("sign")
    assert first | {"call_id": ""} == second | {"call_id": ""}


@pytest.mark.parametrize(
    "changes",
    [
        {"leg": "a-leg"},
        {"counted": f"{KEY}/2-2+1+0"},
        {"slot": "another"},
        {"replaces": "call-0;to-tag=1;from-tag=2"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_who_may_be_known_or_takes_the_place_of_a_call_is_asked_about(
    authority: Authority, ours: SigningPair, changes: dict[str, str]
) -> None:
    counts = Counts()
    switch = bench(authority, ours, Limits(Rate(None, 10)), counts)
    counts.names = ["2-2+1+1"]
    switch.sign(numbered(1, **changes))
    assert (len(counts.asked), counts.names) == (1, ["2-2+1+1"])


def test_where_nobody_tells_ends_each_call_is_asked_about(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, Limits(Rate(5, 10)), counts)
    switch.switch.tells_ends = False
    counts.names = ["2-2+1+1"]
    switch.sign(numbered(1))
    switch = bench(authority, ours, Limits(Rate(5, None)), counts)
    switch.sign(numbered(2))
    assert (len(counts.asked), counts.names) == (2, ["2-2+1+1"])


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (Limits(Rate(1, None)), ("rate", "over the limit of 1 calls per second")),
        (Limits(Rate(0.5, None)), ("rate", "over the limit of 0.5 calls per second")),
        (
            Limits(Rate(), ((Attest.A, Rate(2.5, None)), (Attest.B, Rate(0.1)))),
            ("rate A", "over the limit of 2.5 calls per second with level A"),
        ),
        (
            Limits(Rate(None, 9), ((Attest.A, Rate(None, 2)),)),
            ("concurrent A", "over the limit of 2 calls at a time with level A"),
        ),
    ],
)
def test_which_limit_it_is_over(
    authority: Authority, ours: SigningPair, limits: Limits, found: tuple[str, str]
) -> None:
    switch = bench(authority, ours, limits, Counts())
    outcomes = [switch.sign(numbered(number)).variables.get("over_limit") for number in range(3)]
    assert outcomes[-1] == found[0]
    assert found[1] in switch.events("sign")[-1]["trace"][-1]


def test_the_record_has_it_too(authority: Authority, ours: SigningPair) -> None:
    service = plain_service(ours, store=store(ONE))
    service.limiter = Limiter(Counts(), rules().plan)
    assert service.sign(numbered(1), NOW, RANDOM_ORIGID, follow=always).identity is not None
    signing = service.sign(numbered(2), NOW, RANDOM_ORIGID, follow=always)
    assert (signing.refuse, signing.refusal, signing.skip) == (True, Refusal.OVER_LIMIT, SkipReason.POLICY_REFUSED)
    record = json.loads(signed(numbered(2), signing, NOW, observe=False).line())
    assert (record["refused"], record["refusal"], record["over_limit"]) == (True, "over_limit", "concurrent")
    assert record["trace"][-1]["rule"] == record["rules"][-1] == RULE


@pytest.mark.parametrize("emergency", EMERGENCIES.values(), ids=EMERGENCIES)
def test_an_emergency_call_is_not_even_counted(
    authority: Authority, ours: SigningPair, emergency: dict[str, Any]
) -> None:
    counts = Counts()
    switch = bench(authority, ours, ONE, counts)
    switch.sign(numbered(1))
    assert switch.sign(numbered(2, **emergency)).reject is None
    counts.gone = True
    assert switch.sign(numbered(3, **emergency)).reject is None
    assert len(counts.asked) == 1


@pytest.mark.parametrize(
    ("limits", "changes"),
    [
        (Limits(), {}),
        (Limits(Rate(1, 1), suspended=True), {}),
        (Limits(Rate(), ((Attest.B, Rate(1, 1)),)), {}),
        (Limits(Rate(1, 1)), {"source": GATEWAY_ADDRESS}),
        (Limits(Rate(1, 1)), {"source": STRANGE_ADDRESS}),
        (Limits(Rate(1, 1)), {"method": "OPTIONS"}),
        (Limits(Rate(1, 1)), {"to": f"{sip('12025550143')};tag=1"}),
    ],
    ids=["none", "suspended", "of another level", "gateway", "stranger", "OPTIONS", "within a dialog"],
)
def test_who_has_no_limits_asks_nobody(
    authority: Authority, ours: SigningPair, limits: Limits, changes: dict[str, Any]
) -> None:
    counts = Counts()
    counts.gone = True
    switch = bench(authority, ours, limits, counts, refuse_uncounted=True)
    assert switch.sign(call(**changes)).reject is None
    assert "limits_unavailable" not in switch.observer.counts


def test_whoever_is_refused_by_the_records_takes_no_slot(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, ONE, counts, customer={"state": CustomerState.SUSPENDED})
    assert switch.sign(call()).reject == Reject(403, "Customer Suspended")
    assert counts.asked == []


def test_a_call_counts_once_however_often_it_leaves(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, Limits(Rate(1, 1)), counts)
    slot = switch.sign(numbered(1)).variables["counted"]
    slots = {switch.sign(numbered(1, counted=slot)).variables["slot"] for _ in range(2)}
    assert slots == {slot}
    assert switch.switch.sign(lambda: numbered(2), again=True).reject is None
    assert len(counts.asked) == 3
    assert switch.switch.admit(lambda: numbered(1, counted=slot)).variables["slot"] in slots
    # With another tag it is another call, whatever its Call-ID; and what another was counted as helps none.
    other = numbered(3, counted=slot)
    assert switch.sign(other).reject == OVER
    assert switch.sign(numbered(1, callers={CallerHeader.FROM: (f"{sip(CALLER)};tag=2",)})).reject == OVER
    # A switch that makes a Call-ID for each leg names the leg that came.
    assert switch.sign(numbered(1, leg="uuid")).reject == OVER
    assert counts.asked[-1].call == key("acme", "uuid")


def test_one_call_id_gives_nobody_a_second_call(authority: Authority, ours: SigningPair) -> None:
    """Whatever else an INVITE has in common with one before: only the switch knows that it is the same."""
    switch = bench(authority, ours, Limits(Rate(2, 2)), Counts())
    outcomes = [switch.sign(numbered(1)) for _ in range(6)]
    assert [outcome.reject for outcome in outcomes] == [None] * 2 + [OVER] * 4
    switch.switch.ended(outcomes[0].variables["slot"])
    assert switch.sign(numbered(1)).variables["over_limit"] == "rate"
    switch.switch.ended(outcomes[1].variables["slot"])
    assert switch.sign(numbered(1)).variables["over_limit"] == "rate"


def test_asked_before_the_call_is_sent_on(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, ONE, counts)
    outcome = switch.switch.admit(lambda: numbered(1))
    assert (outcome.reject, list(outcome.variables)) == (None, ["slot"])
    assert not switch.observer.lines
    over = switch.switch.admit(lambda: numbered(2))
    assert over.reject == OVER
    assert len(counts.asked) == 2
    assert len(switch.events("sign")) == 1
    unlimited = bench(authority, ours, Limits(), counts)
    assert unlimited.switch.admit(lambda: numbered(3)).variables == {}


def test_a_substituted_call_is_counted_and_one_over_the_limit_is_not_substituted(
    authority: Authority, ours: SigningPair
) -> None:
    policy = AttestationPolicy(unauthorised=Unauthorised.SUBSTITUTE, substitute=OTHER)
    switch = bench(authority, ours, ONE, Counts(), choices={"attestation": policy})
    unowned = {"callers": {CallerHeader.FROM: (f"{sip('13125550142')};tag=1",)}}
    first = switch.sign(numbered(1, **unowned))
    assert (first.variables["substitute"], first.variables["level"]) == (OTHER, "A")
    over = switch.sign(numbered(2, **unowned))
    assert over.reject == OVER
    assert "substitute" not in over.variables
    assert over.variables["unauthorised"] == "1"
    assert switch.events("sign")[-1]["orig"].startswith("1312")


def test_unsigned_calls_count_too(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, ONE, counts, customer={"rules": Overrides(sign=False)})
    assert switch.sign(numbered(1)).variables["level"] == Level.UNSIGNED.value
    assert switch.sign(numbered(2)).reject == OVER
    assert {request.level for request in counts.asked} == {""}


def test_one_call_that_comes_for_ever_is_over_the_limit_some_time(authority: Authority, ours: SigningPair) -> None:
    switch = bench(authority, ours, Limits(Rate(None, 9)), Counts())
    slot = switch.sign(numbered(1)).variables["slot"]
    outcomes = [switch.sign(numbered(1, counted=slot)) for _ in range(REPEATS + 1)]
    assert [outcome.reject for outcome in outcomes] == [None] * REPEATS + [OVER]
    assert outcomes[-1].variables["over_limit"] == "repeated"
    assert switch.events("sign")[-1]["missing"] == ["a Call-ID of its own for each call"]


@pytest.mark.parametrize("how", ["report", "observe"])
def test_a_mode_that_only_watches_marks_and_refuses_nobody(authority: Authority, ours: SigningPair, how: str) -> None:
    sections = {"signing": {"mode": "observe"}} if how == "observe" else {}
    switch = bench(authority, ours, ONE, Counts(), enforce=how != "report", **sections)
    switch.sign(numbered(1))
    over = switch.sign(numbered(2))
    assert (over.reject, over.variables["over_limit"]) == (None, "concurrent")
    assert ("identity" in over.variables) == (how == "report")
    assert switch.observer.counts["over_limit"] == 1
    assert switch.events("sign")[-1].get("observe") == (True if how == "observe" else None)


def test_calls_go_on_uncounted_while_nobody_counts_or_are_refused_by_choice(
    authority: Authority, ours: SigningPair
) -> None:
    counts = Counts()
    counts.gone = True
    switch = bench(authority, ours, ONE, counts)
    outcome = switch.sign(numbered(1))
    assert outcome.reject is None
    assert "identity" in outcome.variables
    assert "slot" not in outcome.variables
    assert switch.observer.counts["limits_unavailable"] == 1
    assert "calls of customers with limits are not counted: the agent" in switch.observer.lines[0][1]
    strict = bench(authority, ours, ONE, counts, refuse_uncounted=True)
    outcome = strict.sign(numbered(1))
    assert outcome.reject == Reject(500, "Server Internal Error")
    assert outcome.variables["skip"] == "limits_unavailable"


def test_a_switch_that_tells_no_ends_counts_calls_per_second_alone_and_says_so(
    authority: Authority, ours: SigningPair
) -> None:
    switch = bench(authority, ours, Limits(Rate(2, 1)), Counts())
    switch.switch.tells_ends = False
    switch.switch.to_tell_ends = "load the module"
    outcomes = [switch.sign(numbered(number)) for number in range(3)]
    assert [outcome.variables.get("over_limit") for outcome in outcomes] == [None, None, "rate"]
    assert not any("slot" in outcome.variables for outcome in outcomes)
    assert switch.observer.counts["limits_without_ends"] == 3
    (said,) = [text for _, text in switch.observer.lines if "NOT enforced" in text]
    assert "load the module" in said


def test_a_transfer_takes_the_slot_over(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, ONE, counts)
    slot = switch.sign(numbered(1)).variables["slot"]
    second = switch.sign(numbered(2, replaces="call-1;to-tag=9;from-tag=1"))
    assert second.reject is None
    switch.switch.ended(slot)
    assert switch.sign(numbered(3)).reject == OVER
    switch.switch.ended(second.variables["slot"])
    first = switch.sign(numbered(4)).variables["slot"]
    switch.switch.referred(first, "<sip:+12025550143@x.example?Replaces=a>")
    switch.switch.referred(first, "not an address <")
    switch.switch.referred(first, "<sip:>")
    assert counts.told[-1] == ("referred", key("12025550143"))
    assert switch.sign(numbered(5)).reject is None
    assert switch.sign(numbered(6)).reject == OVER
    switch.switch.followed(first)
    assert counts.told[-1] == ("followed", first)


def test_whatever_a_call_is_for_its_name_at_the_limits_is_short(authority: Authority, ours: SigningPair) -> None:
    counts = Counts()
    switch = bench(authority, ours, Limits(Rate(None, 9)), counts)
    for number, target in enumerate((f"sip:+12025550143,{'w' * 300}@b.example", f"sip:bob@{'a.' * 200}com")):
        assert switch.sign(numbered(number, request_uri=target)).reject is None
    assert [len(request.to) for request in counts.asked] == [32, 32]


def test_what_a_replaces_header_names() -> None:
    keys = list(replaced_keys("acme", " a@b ; to-tag = x ;From-Tag=y;early-only"))
    assert keys == [key("acme", "a@b", "x"), key("acme", "a@b", "y")]
    assert list(replaced_keys("acme", "")) == list(replaced_keys("acme", "a;to-tag=;" + "x" * 2_000)) == []
    assert len(list(replaced_keys("acme", "a" + ";to-tag=x" * 50))) <= 8


@pytest.mark.parametrize("mode", ["enforce", "report", "off"])
def test_settings_become_a_limiter(tmp_path: Path, authority: Authority, mode: str) -> None:
    chosen = settings(limits={"mode": mode, "when_unavailable": "refuse"}, store={"path": str(tmp_path / "policy.db")})
    counts = runtime.services.call_limiter(chosen)
    assert isinstance(counts, AgentLimiter) == (mode != "off")
    found = runtime.services._limits(chosen, rules().plan, counts)
    assert (found is None) == (mode == "off")
    if found is not None:
        assert (found.enforce, found.refuse_uncounted) == (mode == "enforce", True)


def test_replays_are_looked_for_over_the_fleet_where_there_is_one(tmp_path: Path) -> None:
    assert not isinstance(runtime.services.replay_memory(settings()), FleetReplay)
    fleet = settings(store={"redis": {"servers": ["127.0.0.1:1"]}})
    assert isinstance(runtime.services.replay_memory(fleet), FleetReplay)
    assert ReplayMode(fleet.verification.replay) is ReplayMode.REPORT
    assert Outcome.KNOWN.passes
