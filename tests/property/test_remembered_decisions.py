"""A service that remembers decisions answers as one that asks the records at every call, whatever happens between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from shaken_plugin.authentication import AuthenticationService, Credential, Credentials, Signing, SigningPair
from shaken_plugin.authentication.memory import Memory
from shaken_plugin.core.attestation import AttestationPolicy
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.records import (
    Basis,
    CustomerState,
    DoNotOriginate,
    Overrides,
    Route,
    Substitution,
    TimeWindow,
    Trunk,
    Unauthorised,
    Withheld,
)
from shaken_plugin.lab.pki import Authority
from shaken_plugin.ports import Author, Standing
from shaken_plugin.stores.memory import MemoryPolicy
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.replacing import replace_all
from shaken_plugin.stores.standing import StandingInMemory, WithStanding
from tests.conftest import NOW
from tests.property.strategies import examples
from tests.records import number_right, reached
from tests.services.builders import (
    ACME,
    CALLED,
    CALLER,
    CUSTOMER_ADDRESS,
    GATEWAY_ADDRESS,
    PENDING,
    PENDING_ADDRESS,
    RANDOM_ORIGID,
    STRANGE_ADDRESS,
    SUSPENDED,
    SUSPENDED_ADDRESS,
    call,
    identity_of,
    pair,
    policy,
    rules,
    sip,
)

OTHER = "12155551299"
"""Acme's, by a letter that begins and ends while calls are made."""
FOREIGN = "13125550100"
LISTED = "12025550199"
CHOICES = AttestationPolicy(leave_alone=("1900",), sign_international=False)
"""So that the called number matters."""

POLICIES: tuple[Policy, ...] = (
    policy(rights=(number_right("acme", CALLER, CALLER, Basis.ASSIGNED), *(
        number_right("acme", OTHER, OTHER, Basis.LETTER, document="LOA-1", valid_from=NOW + 20, valid_until=NOW + 60),
    ))),
    policy(routes=(Route("intl", ("44", "1202555"), Overrides(sign=True, unauthorised=Unauthorised.REFUSE)),)),
    policy(customers=(replace(ACME, state=CustomerState.SUSPENDED), PENDING, SUSPENDED)),
    policy(withheld=((DoNotOriginate("list", Withheld.UNUSED), LISTED, LISTED),)),
    policy(substitutions=(
        Substitution("night", "acme", CALLER, callers=("1215555129",), window=TimeWindow(begins=0, ends=2)),
        Substitution("once", "acme", CALLER, callers=("1312",), valid_from=NOW + 30, valid_until=NOW + 50),
    )),
)  # fmt: skip


SOURCES = (CUSTOMER_ADDRESS, CUSTOMER_ADDRESS, GATEWAY_ADDRESS, PENDING_ADDRESS, SUSPENDED_ADDRESS, STRANGE_ADDRESS)


def _said(number: str, tag: str) -> str:
    return f"{sip(number)};tag={tag}"


callers = st.fixed_dictionaries(
    {CallerHeader.FROM: st.builds(_said, st.sampled_from((CALLER, OTHER, FOREIGN)), st.sampled_from("abc")).map(
        lambda line: (line,)
    )},
    optional={
        CallerHeader.ASSERTED: st.sampled_from((CALLER, OTHER, FOREIGN)).map(lambda number: (sip(number),)),
        CallerHeader.REMOTE_PARTY: st.sampled_from((LISTED, CALLER)).map(lambda number: (sip(number),)),
        CallerHeader.PREFERRED: st.sampled_from(("<sip:alice@example.com>", sip(OTHER))).map(lambda line: (line,)),
    },
)  # fmt: skip

numbers = st.sampled_from((CALLED, "12025550144", "13125550143", "19005550100", "442071838750", "911"))

calls = st.builds(
    lambda uri, to, tag, **rest: call(
        request_uri=f"sip:+{uri}@example.net;user=phone" if uri != "911" else "sip:911@example.net",
        to=sip(to) + tag,
        **rest,
    ),
    uri=numbers,
    to=numbers,
    tag=st.sampled_from(("", "", "", ";tag=9")),
    callers=callers,
    source=st.sampled_from((*SOURCES, None)),
    user=st.sampled_from((None, None, "alice")),
    route=st.sampled_from(("", "", "intl")),
    priority=st.sampled_from(("", "", "psap-callback")),
    call_id=st.sampled_from("xyz"),
)  # fmt: skip

steps = st.one_of(
    st.tuples(st.just("call"), calls),
    st.tuples(st.just("again"), st.integers(0, 5)),
    st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
    st.tuples(st.just("standing"), st.sampled_from((None, CustomerState.SUSPENDED, CustomerState.TERMINATED))),
    st.tuples(st.just("clock"), st.sampled_from((1.0, 5.0, 9.5, 20.0, 61.0, -15.0))),
    st.tuples(st.just("broken"), st.booleans()),
)


class Records:
    """What calls are decided from, and the time."""

    def __init__(self) -> None:
        self.policy, self.standing, self.now = MemoryPolicy(), StandingInMemory(), NOW
        self.store = WithStanding(self.policy, self.standing)
        self.put(POLICIES[0])

    def put(self, content: Policy) -> None:
        replace_all(self.policy, content, Author("test", "x", self.now), "x")

    def change(self, what: str, value: Any) -> bool:
        """Take one of `steps`; False for one that is a call."""
        if what == "policy":
            self.put(value)
        elif what == "standing":
            said = [] if value is None else [Standing("acme", value, self.now, "Ann", "x")]
            self.standing.standings = {standing.customer: standing for standing in said}
        elif what == "clock":
            self.now += value
        elif what == "broken":
            self.policy.broken = value
        else:
            return False
        return True


class World(Records):
    """Two services on the same records, one of which remembers."""

    def __init__(self, ours: SigningPair) -> None:
        super().__init__()
        keys = Credentials({"main": Credential("main", (ours,))})
        chosen = rules(attestation=CHOICES)
        self.asks = AuthenticationService(chosen, self.store, keys, remembers=False)
        self.remembers = AuthenticationService(chosen, self.store, keys)

    def both(self, message: CallMessage) -> tuple[Signing, Signing]:
        return (
            self.asks.sign(message, self.now, RANDOM_ORIGID),
            self.remembers.sign(message, self.now, RANDOM_ORIGID),
        )


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


@settings(examples, max_examples=120)
@given(sequence=st.lists(steps, min_size=4, max_size=24))
def test_what_is_remembered_is_what_would_be_decided(ours: SigningPair, sequence: list[tuple[str, Any]]) -> None:
    world, made = World(ours), list[CallMessage]()
    for what, value in sequence:
        if not world.change(what, value):
            message = value if what == "call" else made[value % len(made)] if made else call()
            made.append(message)
            asked, remembered = world.both(message)
            assert _plain(remembered) == _plain(asked)
            event(f"skip {asked.skip}")


def _plain(signing: Signing) -> Signing:
    """Without the signature, which stands for the rest of the header's value."""
    identity = signing.identity.partition(";")[0].rpartition(".")[0] if signing.identity else None
    return replace(signing, identity=identity)


def test_a_call_that_is_known_asks_for_no_records(ours: SigningPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above would compare nothing."""
    world = World(ours)
    for _ in range(3):
        assert world.remembers.sign(call(), NOW, RANDOM_ORIGID).identity is not None
    monkeypatch.setattr(world.policy, "facts", None)
    again = world.remembers.sign(
        call(callers={CallerHeader.ASSERTED: (sip(CALLER),), CallerHeader.FROM: (_said(CALLER, "other"),)}),
        NOW,
        RANDOM_ORIGID,
    )
    assert again.identity is not None


CHANGES: dict[str, Iterable[CallMessage]] = {
    "the source": [call(source=address) for address in (GATEWAY_ADDRESS, PENDING_ADDRESS, SUSPENDED_ADDRESS, None)],
    "the account": [call(user="alice")],
    "the caller": [call(callers={CallerHeader.FROM: (_said(FOREIGN, "1"),)})],
    "a number beside the caller": [
        call(callers={header: (sip(LISTED),), CallerHeader.FROM: (_said(CALLER, "1"),)})
        for header in (CallerHeader.PREFERRED, CallerHeader.REMOTE_PARTY)
    ],
    "the destination": [call(to=sip("19005550100")), call(to=sip("442071838750"))],
    "the called number's country": [call(request_uri="sip:+442071838750@example.net;user=phone")],
    "the route that is named": [call(route="shut")],
    "a dialog": [call(to=f"{sip(CALLED)};tag=9")],
}
"""Calls that differ from `call()` in one thing each, which decides."""


@pytest.mark.parametrize("what", CHANGES)
def test_each_thing_that_decides_decides_although_all_others_are_known(ours: SigningPair, what: str) -> None:
    world = World(ours)
    routes = (Route("shut", (), Overrides(sign=False)), Route("abroad", ("44",), Overrides(sign=False)))
    listed = ((DoNotOriginate("list", Withheld.UNUSED), LISTED, LISTED),)
    plain = policy(routes=routes, withheld=listed)
    world.put(replace(plain, trunks=(*plain.trunks, reached(Trunk("alice", PENDING), users=["alice"]))))
    for message in CHANGES[what]:
        for _ in range(3):
            known = world.remembers.sign(call(), NOW, RANDOM_ORIGID)
        asked, remembered = world.both(message)
        assert _plain(remembered) == _plain(asked)
        assert (remembered.decision, remembered.skip) != (known.decision, known.skip)


def test_an_emergency_call_is_not_refused_as_the_call_before_it(ours: SigningPair) -> None:
    world, suspended = World(ours), call(source=SUSPENDED_ADDRESS)
    assert [world.remembers.sign(suspended, NOW, RANDOM_ORIGID).refuse for _ in range(3)] == [True] * 3
    callback = replace(suspended, priority="psap-callback")
    assert not world.remembers.sign(callback, NOW, RANDOM_ORIGID).refuse
    assert world.remembers.sign(suspended, NOW, RANDOM_ORIGID).refuse


def test_a_right_begins_and_ends_on_time_and_the_clock_may_be_set_back(ours: SigningPair) -> None:
    world, message = World(ours), call(callers={CallerHeader.FROM: (_said(OTHER, "1"),)})
    levels = []
    for moment in (0, 19.999, 20, 20, 59.999, 60, 60, 59, 0, 20):
        world.now = NOW + moment
        for _ in range(2):
            asked, remembered = world.both(message)
            assert _plain(remembered) == _plain(asked)
        assert remembered.decision is not None
        levels.append(remembered.decision.level.value)
    assert "".join(levels) == "BBAAABBABA"


def test_hours_begin_and_end_on_the_minute(ours: SigningPair) -> None:
    world, message = World(ours), call(callers={CallerHeader.FROM: (_said(OTHER, "1"),)})
    world.put(POLICIES[-1])
    midnight = NOW // 86_400 * 86_400
    found = []
    for moment in (-0.5, 0, 59.999, 60, 119.999, 120):
        world.now = midnight + moment
        for _ in range(3):
            asked, remembered = world.both(message)
            assert _plain(remembered) == _plain(asked)
        found.append(remembered.substitute is not None)
    assert found == [False, True, True, True, True, False]


def test_a_call_that_is_sent_on_is_not_answered_from_memory(ours: SigningPair) -> None:
    world = World(ours)
    for _ in range(3):
        world.remembers.sign(call(), NOW, RANDOM_ORIGID)
    sent_on = call(identity=(identity_of(ours),), diverting=sip(CALLED), request_uri=f"sip:+{OTHER}@example.net")
    asked, remembered = world.both(sent_on)
    assert _plain(remembered) == _plain(asked)
    assert remembered.diverting is not None


def test_no_more_decisions_are_remembered_than_there_is_room_for(
    ours: SigningPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shaken_plugin.authentication.memory.MAX_DECISIONS", 4)
    world = World(ours)
    assert isinstance(world.remembers._memory, Memory)
    for number in range(12155551200, 12155551210):
        world.remembers.sign(call(callers={CallerHeader.FROM: (_said(str(number), "1"),)}), NOW, RANDOM_ORIGID)
    assert 2 <= len(world.remembers._memory._answers) <= 4
