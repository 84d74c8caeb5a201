"""Usual calls are signed in one go, and all about them is what the slow way says: byte for byte, whatever happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from shaken_plugin import telemetry
from shaken_plugin.authentication import (
    AuthenticationService,
    Credential,
    Credentials,
    Limiter,
    OrigidScope,
    SigningPair,
)
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.limits import SECOND, Bound, Request, Tally, Verdict
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import CustomerState, Limits, Overrides, Rate, Route
from shaken_plugin.core.sip import format_date
from shaken_plugin.errors import SigningError, StoreUnavailable
from shaken_plugin.lab.pki import Authority
from shaken_plugin.ports import Standing
from shaken_plugin.runtime import Services
from shaken_plugin.sqlitefile import LOOK_EVERY
from shaken_plugin.stores.policy import Policy
from shaken_plugin.switch import Outcome, Switch, reports, signing
from shaken_plugin.switch.usual import MAX_TEXT, Told
from shaken_plugin.telemetry import MAX_LINE, MemoryObserver
from tests.conftest import NOW
from tests.property.strategies import examples
from tests.property.test_remembered_decisions import CHOICES, FOREIGN, OTHER, POLICIES, Records, steps
from tests.services.bench import settings as settings_with
from tests.services.builders import (
    CALLED,
    CALLER,
    GATEWAY_ADDRESS,
    RANDOM_ORIGID,
    call,
    identity_of,
    pair,
    policy,
    rules,
    sip,
    with_signer,
)

DAY = 86_400.0


class Lines:
    """A `ports.RecordSink` that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, record: Any) -> None:
        self.lines.append(record.line())


class Counts:
    """A `ports.CallLimiter` by the pure algorithm."""

    def __init__(self, clock: World) -> None:
        self.tally, self.clock, self.gone = Tally(90 * SECOND), clock, False
        self.asked: list[Request] = []
        self.given_back: list[str] = []

    def ahead(self, customer: str, bounds: tuple[Bound, ...], level: str) -> str:
        return ""

    def admit(self, request: Request) -> Verdict:
        self.asked.append(request)
        if self.gone:
            raise StoreUnavailable("the agent does not answer")
        return self.tally.admit(request, int(self.clock.now * SECOND))

    def trouble(self) -> str:
        return ""

    def followed(self, call: str, owner: str = "") -> None: ...

    def ended(self, call: str) -> None:
        self.given_back.append(call)

    def referred(self, call: str, to: str) -> None: ...


class Side:
    """A switch, and what it said."""

    def __init__(self, service: AuthenticationService, clock: World, sections: dict[str, Any]) -> None:
        self.observer, self.records, self.counts = MemoryObserver(), Lines(), Counts(clock)
        chosen = settings_with(**sections)
        made = Services(chosen, rules().plan, service, None, {}, records=self.records, limiter=self.counts)
        service.limiter = Limiter(self.counts, rules().plan, refuse_uncounted=clock.refuses)
        self.switch = Switch(made, self.observer, lambda: clock.now, lambda: RANDOM_ORIGID)
        self.switch.tells_ends = clock.tells_ends
        self.switch.follow = lambda _slot: clock.follows


class World(Records):
    """Two switches on the same records and keys; only one of them ever takes a call for a usual one."""

    def __init__(self, pairs: tuple[SigningPair, ...], sections: dict[str, Any], **choices: Any) -> None:
        super().__init__()
        self.tells_ends, self.refuses = choices.pop("tells_ends", True), choices.pop("refuses", False)
        self.follows = choices.pop("follows", True)
        look_every = choices.pop("look_every", 0.0)
        self.keys = Credentials({"main": Credential("main", pairs)})
        chosen = rules(attestation=CHOICES, **choices)
        self.slow = Side(AuthenticationService(chosen, self.store, self.keys, remembers=False), self, sections)
        self.quick = Side(AuthenticationService(chosen, self.store, self.keys, look_every=look_every), self, sections)

    def sign(self, message: CallMessage) -> Outcome:
        """The outcome, once both say the same."""
        found = []
        for side in (self.slow, self.quick):
            outcome = side.switch.sign(lambda: replace(message))
            found.append((dict(outcome.variables), outcome.actions, outcome.reject))
        assert found[0] == found[1]
        assert self.slow.records.lines == self.quick.records.lines
        assert self.slow.observer.lines == self.quick.observer.lines
        assert self.slow.observer.counts == self.quick.observer.counts
        assert self.slow.counts.asked == self.quick.counts.asked
        if outcome.same is not None:
            changing = {"identity", "ppi", "date", "signed_at", "counted", "slot"}
            assert {name: text for name, text in outcome.variables.items() if name not in changing} == dict(
                outcome.same.variables
            )
        return outcome


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> tuple[SigningPair, ...]:
    """One that is live, and one that begins while calls are made."""
    return pair(authority), pair(authority, x5u="https://certs.example.net/next.pem", live_from=NOW + 30)


variants = st.fixed_dictionaries(
    {},
    optional={
        "date": st.sampled_from((format_date(NOW), format_date(NOW - 61), "no date")),
        "identity": st.just(("a.b.c;info=<https://x>",)),
        "sdp": st.sampled_from(("v=0\r\n", "a=fingerprint:sha-256 AA:BB\r\n")),
        "naming": st.just({"Diversion": (f"<sip:{CALLER}@x;verstat=No>",)}),
        "call_id": st.sampled_from(
            ("", 'quoted "é"\x7f\x1b', "<call-id>", "x" * MAX_TEXT, "x" * (MAX_TEXT + 1), "é" * MAX_TEXT)
        ),
        "user": st.sampled_from(("<dest>", "<call-id>", "alice")),
        "to": st.sampled_from((sip(CALLED), "<sip:bob@example.net>", "<sip:<dest>@example.net>", "nobody")),
        "unreadable": st.just(("From",)),
        "callers": st.sampled_from(
            (
                {CallerHeader.FROM: (f"<sip:+{CALLER}@x;verstat=TN-Validation-Passed>;tag=1",)},
                {CallerHeader.FROM: (f"<sip:+{CALLER}@x>;tag=1%3Bverstat",)},
                {CallerHeader.FROM: (f"<sip:+{CALLER}@x>;tag=1",), CallerHeader.ASSERTED: (sip(CALLER),) * 9},
                {CallerHeader.FROM: ("<sip:anonymous@anonymous.invalid>;tag=1",)},
                {CallerHeader.FROM: (f"<sip:+{CALLER}@x>;tag=a.b",), CallerHeader.ASSERTED: (sip(OTHER),)},
            )
        ),
    },
)
sections = st.fixed_dictionaries(
    {
        "log": st.fixed_dictionaries({"full_numbers": st.booleans(), "trace": st.booleans()}),
        "signing": st.fixed_dictionaries({"mode": st.sampled_from(("active", "active", "active", "observe"))}),
    }
)
choices = st.fixed_dictionaries(
    {"origid": st.sampled_from((OrigidScope.TRUNK, OrigidScope.CUSTOMER, OrigidScope.CALL))},
    optional={"mky": st.booleans(), "quote_ppt": st.booleans()},
)


@settings(examples, max_examples=150)
@given(
    sequence=st.lists(st.one_of(steps, st.tuples(st.just("variant"), variants)), min_size=6, max_size=24),
    chosen=sections,
    choice=choices,
)
def test_all_that_is_said_of_a_call_is_what_the_slow_way_says(
    pairs: tuple[SigningPair, ...], sequence: list[tuple[str, Any]], chosen: dict[str, Any], choice: dict[str, Any]
) -> None:
    world, made = World(pairs, chosen, **choice), [call()]
    for what, value in sequence:
        if not world.change(what, value):
            message = made[value % len(made)] if what == "again" else value
            message = replace(call(), **value) if what == "variant" else message
            made.append(message)
            for _ in range(3):
                outcome = world.sign(message)
            event(f"usual {outcome.same is not None}")


@pytest.mark.parametrize("message", [call(), call(source=GATEWAY_ADDRESS), call(user="alice")])
@pytest.mark.parametrize("log", [{"trace": False}, {"trace": True, "full_numbers": True}])
def test_usual_calls_are_signed_in_one_go(
    pairs: tuple[SigningPair, ...], message: CallMessage, log: dict[str, bool]
) -> None:
    """Otherwise the test above would compare nothing."""
    world = World(pairs, {"log": log})
    found = [world.sign(replace(message, call_id=f"{number}@x")).same for number in range(4)]
    assert [same is not None for same in found] == [False, False, True, True]
    assert found[2] is found[3]


LIMITS = (
    Limits(Rate(1_000.0, None)),
    Limits(Rate(2.0, 3)),
    Limits(Rate(None, 2), ((Attest.A, Rate(5.0, 2)),)),
)


def limited(content: Policy, limits: Limits) -> Policy:
    """A policy whose customers have these limits."""
    acme = {customer.id: replace(customer, limits=limits) for customer in content.customers}
    trunks = tuple(replace(trunk, customer=acme[trunk.customer.id]) for trunk in content.trunks)
    return replace(content, customers=tuple(acme.values()), trunks=trunks)


@settings(examples, max_examples=60)
@given(
    limits=st.sampled_from(LIMITS),
    sequence=st.lists(
        st.one_of(
            st.tuples(st.just("call"), st.integers(0, 2)),
            st.tuples(st.just("clock"), st.sampled_from((0.0, 0.3, 2.0, 100.0))),
            st.tuples(st.just("gone"), st.booleans()),
        ),
        min_size=6,
        max_size=24,
    ),
    choice=st.fixed_dictionaries({name: st.booleans() for name in ("tells_ends", "refuses", "follows")}),
    mode=st.sampled_from(("active", "active", "observe")),
)
def test_calls_at_limits_are_asked_about_once_and_the_same_is_said_of_them(
    pairs: tuple[SigningPair, ...], limits: Limits, sequence: list[tuple[str, Any]], choice: dict[str, Any], mode: str
) -> None:
    world = World(pairs, {"signing": {"mode": mode}}, **choice)
    world.put(limited(POLICIES[0], limits))
    for number, (what, value) in enumerate(sequence):
        if what == "clock":
            world.now += value
        elif what == "gone":
            world.slow.counts.gone = world.quick.counts.gone = value
        else:
            before = len(world.slow.counts.asked)
            outcome = world.sign(call(call_id=f"{value}@x" if value else f"new-{number}@x"))
            assert len(world.slow.counts.asked) == before + 1
            event(f"usual {outcome.same is not None}")


def test_usual_calls_at_limits_are_signed_in_one_go(pairs: tuple[SigningPair, ...]) -> None:
    world = World(pairs, {})
    world.put(limited(POLICIES[0], Limits(Rate(None, 3))))
    found = [world.sign(call(call_id=f"{number}@x")) for number in range(5)]
    assert [outcome.same is not None for outcome in found] == [False, False, True, False, False]
    assert found[2].variables["slot"] == found[2].variables["counted"]
    assert [outcome.reject is None for outcome in found] == [True] * 3 + [False] * 2


def test_what_changes_is_seen_by_the_next_call(pairs: tuple[SigningPair, ...]) -> None:
    world = World(pairs, {})
    for _ in range(3):
        outcome = world.sign(call())
    assert outcome.same is not None
    world.now = NOW + 30  # the next pair is live
    assert "next.pem" in world.sign(call()).variables["identity"]
    world.standing.standings = {"acme": Standing("acme", CustomerState.SUSPENDED, world.now, "Ann", "x")}
    assert world.sign(call()).reject is not None
    world.standing.standings = {}
    assert world.sign(call()).reject is None
    world.now = NOW + 400 * DAY  # all certificates have ended
    assert [world.sign(call()).variables.get("skip") for _ in range(3)] == ["credential_not_valid"] * 3


def told(outcome: Outcome) -> tuple[str | None, bool]:
    """What somebody hears of a call."""
    return outcome.variables.get("level"), outcome.reject is not None


@settings(examples, max_examples=150)
@given(
    sequence=st.lists(
        st.one_of(
            st.tuples(st.just("call"), st.sampled_from((call(), call(), call(), call(user="alice")))),
            st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
            st.tuples(st.just("standing"), st.sampled_from((None, CustomerState.SUSPENDED))),
            st.tuples(st.just("clock"), st.sampled_from((0.01, 0.04, 0.05, 0.1, 1.0))),
        ),
        min_size=8,
        max_size=40,
    )
)
def test_a_change_decides_calls_when_it_is_looked_for_next(
    pairs: tuple[SigningPair, ...], sequence: list[tuple[str, Any]]
) -> None:
    world, message = World(pairs, {}, look_every=LOOK_EVERY), call()
    was: list[tuple[float, object]] = []  # until when what was said of the call
    for _ in range(3):
        world.sign(message)
    for what, value in sequence:
        if what in {"policy", "standing"}:
            was.append((world.now, told(world.slow.switch.sign(lambda: message))))
        if world.change(what, value):
            continue
        if value != message:  # in between, one that may be anything
            world.quick.switch.sign(lambda: value)  # noqa: B023  # called at once
        else:
            found, now = told(world.quick.switch.sign(lambda: message)), told(world.slow.switch.sign(lambda: message))
            assert found in [now, *(then for until, then in was if world.now < until + LOOK_EVERY)]
            event(f"as it was before {found != now}")


def test_a_change_is_not_looked_for_by_every_usual_call(pairs: tuple[SigningPair, ...]) -> None:
    """Otherwise the test above would compare nothing."""
    world, sign = World(pairs, {}, look_every=LOOK_EVERY), []
    for _ in range(3):
        world.sign(call())
    world.standing.standings = {"acme": Standing("acme", CustomerState.SUSPENDED, world.now, "Ann", "x")}
    for later in (LOOK_EVERY / 2, LOOK_EVERY):
        world.now = NOW + later
        sign.append(told(world.quick.switch.sign(call)))
    assert sign == [("A", False), ("refuse", True)]
    world.standing.standings = {}
    assert told(world.quick.switch.sign(call)) == ("A", False)  # one that was refused is decided anew each time


@pytest.mark.parametrize("is_diverted", [False, True])
def test_one_call_that_is_decided_tells_all_others_of_a_change(
    pairs: tuple[SigningPair, ...], is_diverted: bool
) -> None:
    world = World(pairs, {}, look_every=LOOK_EVERY)
    other = call(source=GATEWAY_ADDRESS)
    if is_diverted:
        uri = f"sip:+{OTHER}@example.net"
        other = replace(other, identity=(identity_of(pairs[0]),), diverting=sip(CALLED), request_uri=uri)
    for _ in range(3):
        world.sign(call())
    world.standing.standings = {"acme": Standing("acme", CustomerState.SUSPENDED, world.now, "Ann", "x")}
    assert not told(world.quick.switch.sign(lambda: other))[1]
    assert told(world.quick.switch.sign(call)) == ("refuse", True)


@pytest.mark.parametrize(
    ("was", "limits"), [(Rate(2.0, None), Limits()), (Rate(None, 3), Limits()), (Rate(None, 3), Limits(Rate(None, 9)))]
)
def test_who_was_over_a_limit_that_is_lifted_is_not_refused(
    pairs: tuple[SigningPair, ...], was: Rate, limits: Limits
) -> None:
    """The call is counted by the limits that were, and decided by the records that are."""
    world = World(pairs, {}, look_every=LOOK_EVERY)
    world.put(limited(POLICIES[0], Limits(was)))
    names = iter(range(100))

    def sign() -> Outcome:
        return world.quick.switch.sign(lambda: call(call_id=f"{next(names)}@x"))

    while not told(sign())[1]:
        pass
    world.put(limited(POLICIES[0], limits))
    assert told(sign()) == ("A", False)
    assert not [name for name in world.quick.observer.counts if name.startswith("fault")]


@pytest.mark.parametrize(("is_known", "given_back"), [(False, 1), (True, 0)])
def test_a_slot_that_nobody_needs_any_more_is_given_back(
    pairs: tuple[SigningPair, ...], is_known: bool, given_back: int
) -> None:
    """But not by a call that was counted before: it has it still."""
    world = World(pairs[:1], {}, look_every=LOOK_EVERY)
    world.put(limited(POLICIES[0], Limits(Rate(None, 3))))
    for number in range(2):
        world.sign(call(call_id=f"{number}@x"))
    message = call(call_id="1@x", counted=world.quick.counts.asked[-1].call) if is_known else call(call_id="2@x")
    world.put(limited(POLICIES[0], Limits(Rate(None, 4))))
    world.keys.named = {"main": Credential("main", (with_signer(pairs[0], Refusing()),))}  # so it is signed at length
    follows: list[str] = []

    def follow(slot: str) -> bool:
        follows.append(slot)
        return True

    world.quick.switch.follow = follow
    world.quick.switch.sign(lambda: message)
    first, second = (asked.call for asked in world.quick.counts.asked[2:])
    assert world.quick.counts.given_back == [first] * given_back
    assert follows == ([] if is_known else [first, second])


def test_a_clock_that_is_set_back_hides_no_change(pairs: tuple[SigningPair, ...]) -> None:
    world = World(pairs, {}, look_every=LOOK_EVERY)
    for _ in range(3):
        world.sign(call())
    world.now += 10
    world.sign(call())
    world.standing.standings = {"acme": Standing("acme", CustomerState.SUSPENDED, world.now, "Ann", "x")}
    world.now -= 5
    assert told(world.quick.switch.sign(call)) == ("refuse", True)


def test_a_credential_that_is_exchanged_signs_no_more(pairs: tuple[SigningPair, ...]) -> None:
    world = World(pairs[:1], {})
    for _ in range(3):
        world.sign(call())
    world.keys.named = {"main": Credential("main", (replace(pairs[1], live_from=0.0),))}
    assert "next.pem" in world.sign(call()).variables["identity"]
    world.keys.named = {}
    assert world.sign(call()).variables["skip"] == "no_credential"


class Refusing:
    """A signer whose key is gone."""

    def sign(self, _data: bytes) -> bytes:
        raise SigningError("gone")


def test_a_key_that_fails_is_told_as_ever(pairs: tuple[SigningPair, ...]) -> None:
    world = World((with_signer(pairs[0], Refusing()),), {})
    assert [world.sign(call()).variables["skip"] for _ in range(3)] == ["signer_failed"] * 3


def test_a_form_needs_each_mark_once(pairs: tuple[SigningPair, ...]) -> None:
    """An account may be called like a mark: then every call is said in the slow way."""
    world = World(pairs, {})
    service = world.quick.switch.services.authentication
    assert service is not None
    for user in ("<dest>", "<call-id>"):
        message = call(user=user)
        assert [world.sign(message).same for _ in range(3)] == [None] * 3
        usual = service.usual(message, NOW)
        assert usual is not None
        assert Told.of(usual, message, world.quick.switch.services.settings) is None


def test_a_line_that_has_to_be_cut_is_made_in_the_slow_way(pairs: tuple[SigningPair, ...]) -> None:
    world = World(pairs, {"log": {"trace": True, "full_numbers": True}})
    short, long = call(call_id="x"), call(call_id="é" * MAX_TEXT)
    assert [world.sign(short).same is not None for _ in range(3)][-1]
    assert world.sign(long).same is None
    assert len(world.quick.observer.lines[-1][1]) <= MAX_LINE


@pytest.mark.parametrize(
    ("lines", "count"),
    [((f"<sip:+{FOREIGN}@x>;tag=1",), "unauthorised"), ((f"<sip:+{CALLER}@x>;tag=1",), "unsigned_caller_ambiguous")],
)
def test_what_is_rare_about_the_caller_is_never_usual(
    pairs: tuple[SigningPair, ...], lines: tuple[str, ...], count: str
) -> None:
    world = World(pairs, {})
    callers = {CallerHeader.FROM: lines}
    if count != "unauthorised":
        callers[CallerHeader.ASSERTED] = (sip(CALLER), sip(OTHER))
    assert [world.sign(call(callers=callers)).same for _ in range(4)] == [None] * 4
    assert world.quick.observer.counts[count] == 4


def test_a_line_that_has_to_be_cut_makes_no_form(
    pairs: tuple[SigningPair, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is cut depends on the whole of it: the next one may just fit, or be cut elsewhere."""
    log = {"log": {"trace": True, "full_numbers": True}}
    world = World(pairs, log)
    world.sign(call(call_id="x"))
    length, cut = len(world.quick.observer.lines[-1][1]), set()
    for longest in (*range(length - 3, length + 30), 2 * length // 3):
        for module in (telemetry, reports, signing):
            monkeypatch.setattr(module, "MAX_LINE", longest)
        world = World(pairs, log)
        for call_id in ("x", "x", "x", "x" * MAX_TEXT):
            world.sign(call(call_id=call_id))
            cut.add("~" in world.quick.observer.lines[-1][1])
    assert cut == {True, False}


def test_a_number_without_its_country_in_to_hides_no_route(pairs: tuple[SigningPair, ...]) -> None:
    """Its digits may be those of another that the Request-URI names with its country, and by which a route is found."""
    world = World(pairs, {})
    world.put(policy(routes=(Route("abroad", ("44",), Overrides(sign=False)),)))
    to = "<sip:442071@example.net;user=phone>"
    for _ in range(3):
        outcome = world.sign(call(request_uri="sip:442071@example.net;user=phone", to=to))
    assert outcome.same is not None
    assert world.sign(call(request_uri="sip:+442071@example.net;user=phone", to=to)).variables["skip"] == (
        "policy_unsigned"
    )
