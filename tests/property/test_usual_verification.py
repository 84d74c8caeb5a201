"""Usual calls that pass are told from forms, and all about them is what the slow way says: byte for byte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import TelephoneNumber, masked
from shaken_plugin.core.verification import ReplayMode, VerificationRules
from shaken_plugin.lab.pki import Authority
from shaken_plugin.runtime import Services
from shaken_plugin.stores.memory import ReplayInMemory
from shaken_plugin.switch import Outcome, Switch, passing
from shaken_plugin.switch.usual import MAX_TEXT
from shaken_plugin.telemetry import MemoryObserver
from shaken_plugin.verification import VerificationService
from tests.conftest import NOW
from tests.property.strategies import examples, mutated
from tests.property.test_usual_signing import Lines
from tests.services.bench import settings as settings_with
from tests.services.builders import CALLED, CALLER, RANDOM_ORIGID, SPC, X5U, call, identity_of, rules, sip

OTHER = "https://certificates.example.org/811K.pem"
FROM, ASSERTED = CallerHeader.FROM, CallerHeader.ASSERTED


class Side:
    """A switch, and what it said."""

    def __init__(
        self, world: World, authority: Authority, replays: ReplayInMemory, replay: ReplayMode, sections: dict[str, Any]
    ) -> None:
        documents = CertificateMemory(CHAINS)
        service = VerificationService(
            VerificationRules(rules().plan), TrustAnchors([authority.root]), documents,
            replays=replays, replay_mode=replay,
        )  # fmt: skip
        self.observer, self.records, self.service, self.documents = MemoryObserver(), Lines(), service, documents
        chosen = settings_with(**sections)
        made = Services(chosen, rules().plan, None, service, {}, records=self.records)
        self.switch = Switch(made, self.observer, lambda: world.now, lambda: RANDOM_ORIGID)


class World:
    """Two switches that verify by the same certificates; only one of them takes a call for a usual one."""

    def __init__(self, authority: Authority, sections: dict[str, Any], replay: ReplayMode) -> None:
        self.now, self.replays = NOW, [ReplayInMemory(), ReplayInMemory()]
        self.slow, self.quick = (Side(self, authority, replays, replay, sections) for replays in self.replays)

    def verify(self, message: CallMessage) -> Outcome:
        """The outcome, once both say the same."""
        found = []
        with mock.patch.object(self.slow.service, "usually", return_value=None):
            found.append(self.slow.switch.verify(lambda: replace(message)))
        found.append(self.quick.switch.verify(lambda: replace(message)))
        said = [(dict(outcome.variables), outcome.actions, outcome.reject) for outcome in found]
        assert said[0] == said[1]
        assert self.slow.records.lines == self.quick.records.lines
        assert self.slow.observer.lines == self.quick.observer.lines
        assert self.slow.observer.counts == self.quick.observer.counts
        assert self.replays[0].seen == self.replays[1].seen
        assert found[0].same is None
        if (same := found[1].same) is not None:
            own = {name: found[1].variables[name] for name in ("orig", "origid")}
            assert same.variables.keys().isdisjoint(own)
            assert {**same.variables, **own} == found[1].variables
        return found[1]


CHAINS: dict[str, bytes] = {}


@pytest.fixture(scope="module")
def signers(authority: Authority) -> list[SigningPair]:
    """One with a Service Provider Code, and one that may speak for one number."""
    found = []
    for x5u, spc, numbers in ((X5U, SPC, ()), (OTHER, None, (CALLER,))):
        issued = authority.issue(spc=spc, numbers=numbers, now=NOW)
        CHAINS[x5u] = issued.chain
        found.append(load_pair(key=issued.key, chain=issued.chain, x5u=x5u, live_from=0.0, spc=spc))
    return found


def whether_unmarked(message: CallMessage) -> CallMessage:
    """With the note that whoever reads headers makes."""
    named = "".join(line for lines in (*message.callers.values(), *message.naming.values()) for line in lines)
    message.unmarked = "%" not in named and "verstat" not in named.lower()
    return message


AT = "@a.example;user=phone>"
variants = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(("INVITE", "UPDATE")),
        "date": st.sampled_from((format_date(NOW), format_date(NOW - 61), "no date")),
        "priority": st.sampled_from(("psap-callback", "urgent")),
        "naming": st.just({"Diversion": (f"<sip:{CALLER}@x;verstat=No>",)}),
        "call_id": st.sampled_from(
            ("", 'quoted "é"\x7f\x1b', "<call-id>", "x" * MAX_TEXT, "x" * (MAX_TEXT + 1), "é" * MAX_TEXT)
        ),
        "to": st.sampled_from((sip(CALLED), f"{sip(CALLED)};tag=2", "<sip:911@example.net>", "nobody", sip(CALLER))),
        "request_uri": st.sampled_from((f"sip:+{CALLED}@b", "sip:911@b", "urn:service:sos", "tel:+1")),
        "unreadable": st.just(("From",)),
        "callers": st.one_of(
            st.sampled_from(
                (
                    {FROM: (f"<sip:+{CALLER}{AT};tag=1",)},
                    {FROM: (f'"Caller 1" <sip:+{CALLER}{AT};tag=1.2',), ASSERTED: ()},
                    {FROM: (f"<sip:+{CALLER}@x;verstat=TN-Validation-Passed>;tag=1",)},
                    {FROM: (f"<sip:+{CALLER}{AT};tag=1",), ASSERTED: (sip(CALLER),) * 2},
                    {FROM: ("<sip:anonymous@anonymous.invalid>;tag=1",), ASSERTED: (f"<tel:+{CALLER}>",)},
                    {FROM: ("<sip:anonymous@anonymous.invalid>;tag=1",), ASSERTED: (f"<sip:+{CALLER}{AT};tag=1",)},
                    {FROM: (f"<sip:+{CALLER}@{'a' * 250}:5060>;tag=1",)},
                    {FROM: (f"<sip:+{CALLER}{AT};tag=1",), ASSERTED: (f"<sip:+{CALLER}@{'a' * 250}:5060>",)},
                )
            ),
            mutated(f'"Caller 1" <sip:+{CALLER}{AT};tag=1').map(lambda line: {FROM: (line,)}),
            mutated(f'"Caller 1" <sip:+{CALLER}{AT}').map(lambda line: {FROM: ("<sip:a@b>;tag=1",), ASSERTED: (line,)}),
        ),
    },
)
sections = st.fixed_dictionaries(
    {
        "log": st.fixed_dictionaries({"full_numbers": st.booleans()}),
        "verification": st.fixed_dictionaries(
            {"mode": st.sampled_from(("active", "active", "active", "observe"))},
            optional={
                "verstat_level": st.booleans(),
                "add_asserted": st.booleans(),
                "mark_from": st.booleans(),
                "reject": st.just([436, 437, 438]),
            },
        ),
    }
)
steps = st.one_of(
    st.tuples(st.just("call"), st.tuples(st.sampled_from((0, 0, 1)), st.sampled_from(Attest))),
    st.tuples(st.just("variant"), variants),
    st.tuples(st.just("again"), st.sampled_from(("call-1@example.com", "another"))),
    st.tuples(st.just("forged"), st.none()),
    st.tuples(st.just("clock"), st.sampled_from((0.5, 1.0, 30.0))),
    st.tuples(st.just("broken"), st.booleans()),
)


@settings(examples, max_examples=200)
@given(sequence=st.lists(steps, min_size=3, max_size=16), chosen=sections, replay=st.sampled_from(ReplayMode))
def test_all_that_is_said_of_a_call_is_what_the_slow_way_says(
    authority: Authority,
    signers: list[SigningPair],
    sequence: list[tuple[str, Any]],
    chosen: dict[str, Any],
    replay: ReplayMode,
) -> None:
    world = World(authority, chosen, replay)
    signed = identity_of(signers[0])
    for number, (what, value) in enumerate(sequence):
        message = call(call_id=f"{number}@x", identity=(signed,))
        if what == "clock":
            world.now += value
            continue
        if what == "broken":
            for replays in world.replays:
                replays.broken = value
            continue
        if what == "again":
            message = replace(message, call_id=value)
        elif what == "forged":
            message = replace(message, identity=(signed.replace(signed[300:310], "AAAAAAAAAA"),))
        else:
            index, attest = value if what == "call" else (0, Attest.A)
            origid = f"{number:08x}-7d45-4b8e-9a53-1f2e6f7c8d90"
            fresh = identity_of(signers[index], attest=attest, iat=world.now, origid=origid)
            message = replace(message, identity=(fresh,), **(value if what == "variant" else {}))
        for _ in range(2):
            outcome = world.verify(whether_unmarked(message))
            event(f"usual {outcome.same is not None}")


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("callers", [{}, {"callers": {FROM: (f"<sip:+{CALLER}{AT};tag=1",)}}])
@pytest.mark.parametrize("verification", [{}, {"verstat_level": True, "add_asserted": False}])
def test_usual_calls_are_told_from_a_form(
    authority: Authority,
    signers: list[SigningPair],
    index: int,
    callers: dict[str, Any],
    verification: dict[str, bool],
) -> None:
    """Otherwise the test above would compare nothing."""
    world = World(authority, {"verification": verification}, ReplayMode.ENFORCE)
    found = []
    for number in range(3):
        origid = f"{number:08x}-7d45-4b8e-9a53-1f2e6f7c8d90"
        message = call(identity=(identity_of(signers[index], origid=origid),), call_id=f"{number}", **callers)
        found.append(world.verify(whether_unmarked(message)).same)
    assert [same is not None for same in found] == [False, True, True]
    assert found[1] is found[2]


def test_a_signer_with_another_certificate_has_another_form(authority: Authority, signers: list[SigningPair]) -> None:
    world = World(authority, {}, ReplayMode.OFF)
    message = whether_unmarked(call(identity=(identity_of(signers[0]),)))
    before = [world.verify(message) for _ in range(2)][-1]
    assert before.variables["spc"] == SPC
    issued = authority.issue(spc="811K", now=NOW)
    other = load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=0.0, spc="811K")
    for side in (world.slow, world.quick):
        side.documents.documents[X5U] = issued.chain
    world.now += 2
    message = whether_unmarked(call(identity=(identity_of(other),)))
    after = [world.verify(message) for _ in range(2)][-1]
    assert (after.variables["spc"], after.same is before.same, after.same is None) == ("811K", False, False)


def test_forms_are_bounded(authority: Authority, signers: list[SigningPair], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "MAX_FORMS", 1)
    world = World(authority, {}, ReplayMode.OFF)
    for _ in range(2):
        for attest in Attest:
            message = whether_unmarked(call(identity=(identity_of(signers[0], attest=attest),)))
            world.verify(message)
    assert world.quick.switch._passing is not None
    assert len(world.quick.switch._passing._forms) == 1


def test_a_line_that_has_to_be_cut_is_told_at_length(
    authority: Authority, signers: list[SigningPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(authority, {}, ReplayMode.OFF)
    message = whether_unmarked(call(identity=(identity_of(signers[0]),)))
    assert [world.verify(message).same is not None for _ in range(2)] == [False, True]
    monkeypatch.setattr(passing, "MAX_LINE", 100)
    assert world.verify(message).same is None
    monkeypatch.setattr(passing, "MAX_FORM", 100)
    fresh = whether_unmarked(call(identity=(identity_of(signers[0], attest=Attest.B),)))
    assert [world.verify(fresh).same for _ in range(2)] == [None, None]


@given(st.text("0123456789", min_size=1, max_size=32))
@settings(examples)
def test_digits_are_masked_as_a_number_is(digits: str) -> None:
    shown = 4 if len(digits) > 6 else 1
    hidden = "*" * (len(digits) - shown - 2)
    assert masked(digits) == (digits if len(digits) <= 4 else f"{digits[:shown]}{hidden}{digits[-2:]}")
    assert TelephoneNumber(digits).masked == masked(digits)


@given(st.one_of(mutated(f'"A" <sip:+{CALLER}{AT};tag=1'), mutated(f"<sip:+{CALLER}@a>"), mutated(f"<tel:{CALLER}>")))
@settings(examples, max_examples=400)
def test_a_line_taken_apart_is_that_of_the_only_caller(line: str) -> None:
    plans = (rules().plan, replace(rules().plan, numeric_users=False))
    cases: list[dict[CallerHeader, tuple[str, ...]]] = [
        {FROM: (line,)},
        {FROM: ("<sip:+1@a>",), ASSERTED: (line,)},
        {FROM: (line,), ASSERTED: ()},
    ]
    for callers in cases:
        message = CallMessage("INVITE", "", "", callers)
        for plan in plans:
            found = message.only_line(plan)
            if found is not None:
                assert message.only_caller(plan) == TelephoneNumber(found[2])
