"""The FreeSWITCH adapter on the shipped stand-in for the switch's module: what it reads, sets and answers."""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import itertools
import json
import re
import socket
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from shaken_plugin import runtime
from shaken_plugin.adapters.fake_freeswitch import FakeFreeSwitch, FakeSession
from shaken_plugin.adapters.freeswitch import functions, mod_python, reading, size
from shaken_plugin.adapters.freeswitch.headers import passes_unharmed
from shaken_plugin.adapters.freeswitch.kept import keep
from shaken_plugin.adapters.freeswitch.leg import Command, Leg, MappedLeg, ReadLeg, Set, sendable
from shaken_plugin.adapters.freeswitch.mod_python import ModPython, Script
from shaken_plugin.adapters.freeswitch.others import OtherLegs
from shaken_plugin.adapters.freeswitch.reading import FROM_VARIABLES, leaving
from shaken_plugin.adapters.freeswitch.workers import Workers
from shaken_plugin.authentication import Limiter
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.call import is_emergency
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.limits import Bound, Outcome, Request, Verdict
from shaken_plugin.core.passport import Passport
from shaken_plugin.core.records import Customer, Limits, Rate
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import Author
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.switch import Outcome as SwitchOutcome
from shaken_plugin.switch import Switch
from shaken_plugin.switch.process import Process
from tests.adapter.test_kamailio import SUBSTITUTE, UNOWNED, Bench, Clock, invite, substituting
from tests.conftest import NOW

CUSTOMER, STRANGER, BANNED = "127.0.0.2", "127.0.0.4", "127.0.0.6"
OWN, CALLED = "+12155551212", "+12025550143"
PLAN = dial_plan("US")
OTHER = "eyJhIjoxfQ.eyJiIjoyfQ.c2ln"
SCRIPT = Path(__file__).parents[2] / "freeswitch" / "scripts" / "shaken.py"


class Pbx:
    """A process with the script, on a provider's settings."""

    def __init__(self, bench: Bench, source: str = CUSTOMER) -> None:
        self.freeswitch = FakeFreeSwitch(source)
        numbers = itertools.count()
        self.process = ModPython.__new__(ModPython)
        observer = mod_python.FreeSwitchObserver(self.freeswitch)
        switch = Switch(bench.services, observer, bench.clock, lambda: f"00000000-0000-4000-8000-{next(numbers):012}")
        self.process.__init__(self.freeswitch, switch=switch)  # type: ignore[misc]  # the observer has to be the same
        self.process.observer = observer
        Script.process = self.process
        self.script = self._script()

    def _script(self) -> ModuleType:
        sys.modules["freeswitch"] = cast("ModuleType", self.freeswitch)
        spec = util.spec_from_file_location("shaken", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def run(self, session: FakeSession, function: str) -> None:
        getattr(self.script, function)(session, "")

    def arrive(self, message: bytes, function: str | None = None) -> FakeSession:
        session = self.freeswitch.arrive(message)
        if function:
            self.run(session, function)
        return session

    def leave(self, partner: FakeSession | None, number: str = CALLED, **variables: str) -> FakeSession:
        return self.freeswitch.leave(partner, number, self.run, variables)

    def sign(self, message: bytes, number: str = CALLED, **variables: str) -> FakeSession:
        """The leg that leaves, signed by the gateway's hook."""
        variables.setdefault("execute_on_originate_shaken", "python shaken::sign")
        return self.leave(self.arrive(message), number, **variables)

    def log(self) -> str:
        return "\n".join(text for _, text in self.freeswitch.logged)


@pytest.fixture
def bench(tmp_path: Path, authority: Authority) -> Bench:
    return Bench(tmp_path, authority)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    Script.process, Script._refused_at = None, float("-inf")
    Process.switch = Process.observer = None
    sys.modules.pop("freeswitch", None)


def claims(value: str) -> dict[str, object]:
    return dict(Passport.parse(IdentityHeader.parse(value).digest).claims)


def with_identity(*values: str, name: str = "Identity", **parts: Any) -> bytes:
    return invite(*(f"{name}: {value}".encode() for value in values), **parts)


# --- Signing ----------------------------------------------------------------------------------


def test_a_leg_that_leaves_carries_one_identity_and_a_date(bench: Bench) -> None:
    leg = Pbx(bench).sign(invite())
    (value,) = leg.sent("Identity")
    assert claims(value)["attest"] == "A"
    assert claims(value)["orig"] == {"tn": OWN[1:]}
    assert claims(value)["dest"] == {"tn": [CALLED[1:]]}
    assert leg.sent("Date") == ["Wed, 18 Nov 2026 11:06:40 GMT"]
    assert (leg.getVariable("shaken_as_level"), leg.getVariable("shaken_as_customer")) == ("A", "acme")
    assert not any(value in text for text in map(leg.getVariable, ["shaken_as_identity"]) if text)


def test_a_leg_for_which_it_runs_twice_carries_one_identity(bench: Bench) -> None:
    pbx = Pbx(bench)
    pbx.freeswitch.global_variables["execute_on_originate_everywhere"] = "python shaken::sign"
    leg = pbx.sign(invite())
    assert len(leg.sent("Identity")) == 1
    assert json.loads(pbx.process.status())["signed_a"] == 1


def test_what_is_signed_is_what_leaves(bench: Bench) -> None:
    leg = Pbx(bench).sign(invite(number="+14155550100"), caller_id_number="%2B12155551213")
    (value,) = leg.sent("Identity")
    assert claims(value)["orig"] == {"tn": "12155551213"}


def test_every_route_that_is_tried_is_signed(bench: Bench) -> None:
    pbx = Pbx(bench)
    partner = pbx.arrive(invite())
    hook = "python shaken::sign"
    legs = [pbx.leave(partner, number, execute_on_originate_shaken=hook) for number in (CALLED, "%2B12025550144")]
    assert [claims(leg.sent("Identity")[0])["dest"] for leg in legs] == [
        {"tn": ["12025550143"]},
        {"tn": ["12025550144"]},
    ]


def test_a_technical_prefix_is_not_signed(bench: Bench) -> None:
    leg = Pbx(bench).sign(invite(), f"9911%23{CALLED}", shaken_to=CALLED)
    assert claims(leg.sent("Identity")[0])["dest"] == {"tn": [CALLED[1:]]}


def test_a_call_without_a_leg_that_came_is_its_accounts(bench: Bench) -> None:
    policy = {
        "customers": [
            {"id": "acme", "name": "Acme", "state": "verified", "trunks": [{"id": "t", "users": ["dialler"]}]}
        ],
        "rights": [{"customer": "acme", "basis": "assigned", "numbers": [OWN]}],
    }
    bench.configure(policy=policy)
    pbx = Pbx(bench)
    leg = pbx.leave(
        None,
        caller_id_number=OWN,
        shaken_account="dialler",
        execute_on_originate_shaken="python shaken::sign",
    )
    assert claims(leg.sent("Identity")[0])["attest"] == "A"


def test_an_account_is_believed_only_where_the_switch_checked_it(bench: Bench) -> None:
    policy = {
        "customers": [{"id": "acme", "name": "Acme", "state": "verified", "trunks": [{"id": "t", "users": ["desk"]}]}],
        "rights": [{"customer": "acme", "basis": "assigned", "numbers": [OWN]}],
    }
    bench.configure(policy=policy)
    for authorized, level in (("true", "A"), ("false", None)):
        pbx = Pbx(bench, STRANGER)
        partner = pbx.arrive(invite())
        partner.put("user_name", "desk")
        partner.put("sip_authorized", authorized)
        leg = pbx.leave(partner, execute_on_originate_shaken="python shaken::sign")
        assert [claims(value).get("attest") for value in leg.sent("Identity")] == ([level] if level else [])


def test_on_the_leg_that_came_it_arranges_for_those_that_leave(bench: Bench) -> None:
    pbx = Pbx(bench)
    partner = pbx.arrive(invite(), "sign")
    assert partner.answered is None
    assert json.loads(pbx.process.status()) == {}  # nothing is counted twice
    assert len(pbx.leave(partner).sent("Identity")) == 1
    pbx.run(partner, "sign")
    assert (partner.getVariable("export_vars") or "").count("execute_on_originate_shaken") == 1


def test_what_was_exported_before_stays_exported(bench: Bench) -> None:
    pbx = Pbx(bench)
    partner = pbx.arrive(invite())
    partner.put("export_vars", "mine")
    partner.put("mine", "1")
    pbx.run(partner, "sign")
    assert pbx.leave(partner).getVariable("mine") == "1"


def test_a_refused_call_is_answered_in_the_words_of_the_policy(bench: Bench) -> None:
    pbx = Pbx(bench, BANNED)
    partner = pbx.arrive(invite(), "sign")
    assert partner.answered == "403 Customer Suspended"
    assert json.loads(pbx.process.status())["refused"] == 1


def test_a_refused_leg_is_given_up_before_its_invite_and_never_as_a_603(bench: Bench) -> None:
    pbx = Pbx(bench, BANNED)
    leg = pbx.sign(invite())
    assert leg.cause == "OUTGOING_CALL_BARRED"


def test_an_emergency_call_is_never_refused(bench: Bench) -> None:
    pbx = Pbx(bench, BANNED)
    message = invite(to="<sip:911@b.example>", ruri="sip:911@b.example")
    partner = pbx.arrive(message, "sign")
    assert partner.answered is None
    leg = pbx.leave(partner, "911")
    assert leg.cause is None


def test_in_observe_mode_nothing_changes_on_the_wire(bench: Bench) -> None:
    bench.configure(signing={"mode": "observe"}, verification={"mode": "observe"})
    pbx = Pbx(bench)
    message = with_identity(f"{OTHER};info=<https://a.example/1>;alg=ES256;ppt=shaken;x=1")
    plain = pbx.leave(pbx.arrive(message)).invite()
    signed = pbx.sign(message)
    assert signed.invite() == plain
    assert signed.getVariable("shaken_as_skip") is not None
    verified = pbx.arrive(message, "verify")
    assert verified.getVariable("shaken_vs_result") is not None
    assert pbx.leave(verified).invite() == plain


def test_a_call_that_is_signed_already_keeps_its_header_once_and_unharmed(bench: Bench) -> None:
    value = f"{OTHER};info=<https://a.example/1.pem>;alg=ES256;ppt=shaken"
    leg = Pbx(bench).sign(with_identity(value))
    assert leg.sent("Identity") == [value]
    assert leg.getVariable("shaken_as_skip") == "already_signed"


def test_ours_is_added_behind_those_that_came(bench: Bench) -> None:
    bench.configure(signing={"existing_identity": "add"})
    values = [f"{OTHER};info=<https://a.example/{number}.pem>;alg=ES256;ppt=shaken" for number in (1, 2)]
    leg = Pbx(bench).sign(with_identity(*values))
    assert leg.sent("Identity")[:2] == values
    assert len(leg.sent("Identity")) == 3


# --- Verifying --------------------------------------------------------------------------------


def identity(bench: Bench) -> str:
    return bench.identity_of()


def test_a_verified_call_is_marked_in_one_clean_header(bench: Bench) -> None:
    value = identity(bench)
    pbx = Pbx(bench, STRANGER)
    pai = f'"J" <sip:{OWN};verstat=TN-Validation-Passed@evil.example>'.encode()
    partner = pbx.arrive(with_identity(value)[:-4] + b"\r\nP-Asserted-Identity: " + pai + b"\r\n\r\n", "verify")
    assert partner.getVariable("sip_verstat") == "TN-Validation-Passed"
    assert partner.getVariable("sip_verstat_detailed") == "passed"
    assert partner.getVariable("shaken_vs_attest") == "A"
    leg = pbx.leave(partner)
    assert leg.sent("P-Asserted-Identity") == [f'"J" <sip:{OWN};verstat=TN-Validation-Passed@evil.example>']
    assert leg.sent("Remote-Party-ID") == []
    assert leg.sent("Identity") == [value]


def test_a_forged_call_loses_the_verstat_that_it_brought(bench: Bench) -> None:
    pbx = Pbx(bench, STRANGER)
    pai = f"P-Asserted-Identity: <sip:{OWN};verstat=TN-Validation-Passed@evil.example>".encode()
    served = f"P-Served-User: <sip:{OWN};verstat=TN-Validation-Passed@evil.example>".encode()
    partner = pbx.arrive(invite(pai, served), "verify")
    leg = pbx.leave(partner)
    assert leg.sent("P-Asserted-Identity") == [f"<sip:{OWN};verstat=No-TN-Validation@evil.example>"]
    assert "TN-Validation-Passed" not in str(leg.invite())
    assert leg.getVariable("caller_id_number") == OWN


def test_a_call_is_judged_once_however_often_it_comes_by(bench: Bench) -> None:
    value = identity(bench)
    pbx = Pbx(bench, STRANGER)
    partner = pbx.arrive(with_identity(value), "verify")
    before = dict(partner.variables)
    pbx.run(partner, "verify")
    assert partner.variables == before
    assert json.loads(pbx.process.status())["verified_passed"] == 1


def test_a_rejected_call_gets_one_reason(bench: Bench) -> None:
    bench.configure(verification={"reject": [438]})
    value = identity(bench)
    pbx = Pbx(bench, STRANGER)
    damaged = value.replace(";info", "A;info", 1)
    partner = pbx.arrive(with_identity(damaged), "verify")
    assert partner.answered == "438 Invalid Identity Header"
    reason = partner.getVariable("sip_reason")
    assert reason is not None
    assert reason.startswith(("STIR ;cause=438", "STIR;cause=438"))
    assert reason.count("cause=") == 1


def test_what_the_settings_put_into_from_is_sent(bench: Bench) -> None:
    bench.configure(verification={"mark_from": "yes", "add_asserted": "no"})
    value = identity(bench)
    pbx = Pbx(bench, STRANGER)
    leg = pbx.leave(pbx.arrive(with_identity(value), "verify"))
    assert leg.sent("From") == [f"sip:{OWN};verstat=TN-Validation-Passed@a.example"]
    assert leg.sent("P-Asserted-Identity") == []


# --- Passing through --------------------------------------------------------------------------

WHOLE = "https://a.example/1.pem"


@pytest.mark.parametrize(
    ("value", "unharmed"),
    [
        (f"{OTHER};info=<{WHOLE}>;alg=ES256;ppt=shaken", True),
        (f'{OTHER};info=<{WHOLE}>;alg=ES256;ppt="shaken"', True),
        (f"{OTHER};info=<{WHOLE}>;ppt=shaken;x=1;y", True),
        (f"{OTHER};info=<{WHOLE}>;alg=ES256", True),
        (f"{OTHER};info=<{WHOLE}>;alg=ES256;x=1;ppt=shaken", False),
        (f"{OTHER};info=<{WHOLE}?alg=x;v=1>;alg=ES256;ppt=shaken", False),
        (f"{OTHER} ;info=<{WHOLE}>;alg=ES256;ppt=shaken", False),
        (f"{OTHER};ppt=shaken;info=<{WHOLE}>", False),
        (f"{OTHER};info={WHOLE}", False),
        ("nothing", False),
    ],
)
def test_it_knows_what_the_switch_leaves_alone(value: str, unharmed: bool) -> None:
    assert passes_unharmed(value) is unharmed


@pytest.mark.parametrize("function", ["pass_through", "verify"])
def test_every_identity_leaves_once_and_in_order(bench: Bench, function: str) -> None:
    values = [f"{OTHER};info=<https://a.example/{number}.pem>;alg=ES256;ppt=shaken" for number in range(3)]
    pbx = Pbx(bench, STRANGER)
    leg = pbx.leave(pbx.arrive(with_identity(*values), function))
    assert leg.sent("Identity") == values
    assert leg.sent("Y") == []


def test_where_one_would_be_damaged_all_leave_under_the_compact_name(bench: Bench) -> None:
    values = [f"{OTHER};x=1;info=<{WHOLE}>", f"{OTHER};info=<{WHOLE}>;alg=ES256;ppt=shaken"]
    pbx = Pbx(bench, STRANGER)
    leg = pbx.leave(pbx.arrive(with_identity(*values), "pass_through"))
    assert (leg.sent("Identity"), leg.sent("Y")) == ([], values)


@pytest.mark.parametrize(("name", "full", "compact"), [("full", 1, 0), ("compact", 0, 1)])
def test_the_name_can_be_set(bench: Bench, name: str, full: int, compact: int) -> None:
    bench.configure(freeswitch={"identity_name": name})
    pbx = Pbx(bench, STRANGER)
    leg = pbx.leave(pbx.arrive(with_identity(f"{OTHER};info=<{WHOLE}>;x=1"), "pass_through"))
    assert (len(leg.sent("Identity")), len(leg.sent("Y"))) == (full, compact)


def test_those_under_the_compact_name_are_passed_on_and_verified(bench: Bench) -> None:
    value = identity(bench)
    pbx = Pbx(bench, STRANGER)
    partner = pbx.arrive(with_identity(value, name="y"), "verify")
    assert partner.getVariable("shaken_vs_result") == "passed"
    assert pbx.leave(partner).sent("Identity") == [value]


def test_the_date_goes_with_them(bench: Bench) -> None:
    date = b"Date: Wed, 18 Nov 2026 11:06:40 GMT"
    pbx = Pbx(bench, STRANGER)
    message = invite(date, f"Identity: {OTHER};info=<{WHOLE}>".encode())
    assert pbx.leave(pbx.arrive(message, "pass_through")).sent("Date") == [date.decode().partition(": ")[2]]


def test_on_a_leg_that_leaves_it_fetches_what_came(bench: Bench) -> None:
    values = [f"{OTHER};info=<https://a.example/{number}.pem>;alg=ES256;ppt=shaken" for number in range(3)]
    pbx = Pbx(bench, STRANGER)
    leg = pbx.leave(pbx.arrive(with_identity(*values)), execute_on_originate_x="python shaken::pass_through")
    assert leg.sent("Identity") == values


# --- Hostile input ----------------------------------------------------------------------------


def test_a_line_break_makes_no_header(bench: Bench) -> None:
    pbx = Pbx(bench, STRANGER)
    partner = pbx.arrive(invite())
    partner.put("sip_identity", f"{OTHER};info=<{WHOLE}>\r\nX-Evil: 1\x00")
    pbx.run(partner, "pass_through")
    leg = pbx.leave(partner)
    assert leg.sent("X-Evil") == []
    assert len(leg.sent("Y")) == 1


@given(st.text() | st.text("a \r\n\0\x85\u2028\u00e9\ud800\U0001f600"))
def test_what_is_sent_has_no_line_breaks_and_is_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        assert sendable(value) is None
    else:
        assert sendable(value) == value.replace("\r", " ").replace("\n", " ").replace("\0", "")


def test_what_is_no_text_is_dropped_and_said(bench: Bench) -> None:
    pbx = Pbx(bench, STRANGER)
    partner = pbx.arrive(with_identity(f"{OTHER};info=<{WHOLE}>")[:-4] + b"\r\nIdentity: \xff;info=<x>\r\n\r\n")
    pbx.run(partner, "pass_through")
    assert pbx.leave(partner).sent("Identity") == [f"{OTHER};info=<{WHOLE}>"]
    assert "was not passed on" in pbx.log()


def test_a_value_cannot_pretend_to_be_several(bench: Bench) -> None:
    pbx = Pbx(bench, STRANGER)
    partner = pbx.arrive(with_identity(f"a;x=ARRAY::{OTHER}|:b"), "pass_through")
    assert pbx.leave(partner).sent("Y") == [f"a;x=ARRAY::{OTHER}|:b"]


def test_what_fails_is_logged_without_a_word_of_the_call_and_the_call_goes_on(bench: Bench) -> None:
    pbx = Pbx(bench)

    def fail(name: str) -> str | None:
        raise ValueError(f"sip:secret@example.com {name}")

    session = pbx.arrive(invite())
    session.getVariable = fail  # type: ignore[method-assign]  # a switch that fails
    pbx.run(session, "verify")
    assert session.answered is None
    assert "fault" in pbx.log()
    assert "secret" not in pbx.log()


def test_the_declared_mode_holds_where_the_adapter_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.configure(on_fault="refuse")
    pbx = Pbx(bench)
    assert bench.services.authentication is not None

    def fail(*_: object, **__: object) -> None:
        raise ValueError("x")

    monkeypatch.setattr(type(bench.services.authentication), "admit", fail)
    assert pbx.arrive(invite(), "sign").answered == "500 Server Internal Error"


def test_a_call_waits_for_the_work_a_bounded_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mod_python, "PATIENCE", 0.05)
    bench.configure(verification={"wait": "0"})
    pbx = Pbx(bench)
    over = threading.Event()
    session = pbx.arrive(invite())

    def work(_switch: Switch, _leg: object) -> list[Any]:
        over.wait(10)
        return []

    pbx.process.run("sign", session, work)
    over.set()
    assert "TimeoutError" in pbx.log()


def test_the_work_is_done_on_a_stack_of_its_own(bench: Bench) -> None:
    pbx = Pbx(bench)
    seen: list[str] = []
    before = threading.stack_size()

    def work(_switch: Switch, _leg: object) -> list[Any]:
        seen.append(threading.current_thread().name)
        return []

    pbx.process.run("sign", pbx.arrive(invite()), work)
    assert seen[0].startswith("shaken")
    assert threading.stack_size() == before


# --- The process ------------------------------------------------------------------------------


def test_a_process_starts_from_its_settings_and_takes_new_ones(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAKEN_SETTINGS", str(bench.provider.settings))
    pbx = Pbx(bench)
    Script.process = None
    pbx.script.runtime("")
    assert "shaken-plugin" in pbx.log()
    stream: list[str] = []

    class Stream:
        write = stream.append

    pbx.script.fsapi("na", Stream, None, "status")
    assert json.loads(stream[-1]) == {}
    Provider.make(bench.folder, bench.authority, NOW, signing={"mode": "observe"})
    runtime.apply(bench.provider.settings, NOW)
    pbx.script.fsapi("na", Stream, None, "reload")
    assert stream[-1].startswith("+OK")
    assert "settings reloaded" in pbx.log()


def test_refused_settings_are_said_and_calls_go_on(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbx = Pbx(bench)
    Script.process = None
    (tmp_path / "bad.yaml").write_text("nonsense: 1\n")
    monkeypatch.setenv("SHAKEN_SETTINGS", str(tmp_path / "bad.yaml"))
    leg = pbx.sign(invite())
    assert leg.sent("Identity") == []
    assert leg.cause is None
    assert "calls go on unsigned and unverified" in pbx.log()
    said = len(pbx.freeswitch.logged)
    pbx.sign(invite())
    assert len(pbx.freeswitch.logged) == said  # not at every call


def test_a_leg_whose_variables_were_read_at_once() -> None:
    leg = MappedLeg({"a": "1"}, {"b": "2"})
    assert (leg.get("a"), leg.get("b"), leg.partner("b"), leg.partner("a")) == ("1", None, "2", None)


@pytest.mark.parametrize(("result", "diverting"), [("passed", "<sip:1@a>"), ("none", ""), ("", ""), ("failed", "")])
def test_only_a_call_that_passed_is_vouched_for_and_whom_it_was_for_is_in_its_request_uri(
    result: str, diverting: str
) -> None:
    partner = {
        "direction": "inbound", "sip_req_uri": "1@a", "sip_full_to": "<sip:3@c>", "shaken_vs_result": result
    }  # fmt: skip
    leg = MappedLeg({"direction": "outbound", "sip_destination_url": "sip:2@b"}, partner)
    assert leaving(leg, PLAN).diverting == diverting


@pytest.mark.parametrize(
    "came",
    [
        {"sip_req_uri": "911@a", "sip_full_to": "<sip:911@a>"},
        {"sip_req_uri": "psap@a", "sip_full_to": "<sip:911@a>"},
        {"destination_number": "911"},
        {"sip_full_to": "<urn:service:sos>"},
        {"sip_priority": "psap-callback"},
    ],
)
def test_an_emergency_call_stays_one_whatever_number_the_dialplan_puts_in_its_place(came: dict[str, str]) -> None:
    leg = MappedLeg(
        {"direction": "outbound", "sip_destination_url": "sip:+12025550911@b"}, {"direction": "inbound", **came}
    )
    message = leaving(leg, PLAN)
    assert is_emergency(message.request_uri, message.to, message.priority, PLAN)


def test_a_rewritten_emergency_call_of_a_suspended_customer_leaves(bench: Bench) -> None:
    pbx = Pbx(bench, BANNED)
    partner = pbx.arrive(invite(to="<sip:911@b.example>", ruri="sip:911@b.example"), "sign")
    assert partner.answered is None
    assert pbx.leave(partner, "+12025550911").cause is None


def test_nothing_that_a_stranger_signed_is_expanded_by_a_dialplan(bench: Bench) -> None:
    pbx = Pbx(bench, STRANGER)
    asserted = b'P-Asserted-Identity: "${system(x)}" <sip:+12155551212@evil.example>'
    partner = pbx.arrive(invite(asserted), "verify")
    written = {name: value for name, value in partner.variables.items() if not name.startswith(("sip_i_", "sip_p-"))}
    assert "${" not in str(written)


def test_a_header_that_resembles_p_asserted_identity_is_none(bench: Bench) -> None:
    pbx = Pbx(bench, STRANGER)
    smuggled = b"P_Asserted-Identity: <sip:+16665550100@evil.example>"
    alone = pbx.leave(pbx.arrive(invite(smuggled), "verify"))
    assert "16665550100" not in str(alone.sent("P-Asserted-Identity"))
    beside = pbx.arrive(invite(f"P-Asserted-Identity: <sip:{OWN}@a.example>".encode(), smuggled), "verify")
    assert "16665550100" not in str(pbx.leave(beside).sent("P-Asserted-Identity"))


def test_trouble_of_ours_is_not_told_as_a_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.configure(on_fault="refuse")
    pbx = Pbx(bench)

    def fail(*_: object, **__: object) -> None:
        raise ValueError("x")

    monkeypatch.setattr(type(bench.services.authentication), "sign", fail)
    assert pbx.sign(invite()).cause == "NORMAL_TEMPORARY_FAILURE"


def test_work_that_nobody_waits_for_any_more_is_not_begun(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mod_python, "PATIENCE", 0.05)
    bench.configure(verification={"wait": "0"}, on_fault="refuse")
    pbx = Pbx(bench)
    over, begun = threading.Event(), list[int]()

    def work(_switch: Switch, _leg: object) -> list[Any]:
        begun.append(1)
        over.wait(10)
        return []

    sessions = [pbx.arrive(invite()) for _ in range(20)]
    callers = [threading.Thread(target=pbx.process.run, args=("sign", session, work)) for session in sessions]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    over.set()
    pbx.process._workers.close()
    assert len(begun) == mod_python.SPARE + bench.services.settings.verification.max_waiting
    assert {session.answered for session in sessions} == {"500 Server Internal Error"}  # the declared mode


def test_a_strange_certificate_is_refused_as_in_kamailio(bench: Bench) -> None:
    forged = bench.identity_of()
    other = Authority.new(NOW)
    issued = other.issue(spc="709J", now=NOW, defect=Defect.EXPIRED)
    bench.provider.publish(bench.provider.x5u, issued.chain)
    partner = Pbx(bench, STRANGER).arrive(with_identity(forged), "verify")
    assert partner.getVariable("sip_verstat") == "TN-Validation-Failed"


def test_the_clock_stands_still() -> None:
    assert Clock()() == NOW


# --- Size -------------------------------------------------------------------------------------


def listener() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"sip:{CALLED}@127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def takes_tcp() -> Iterator[str]:
    yield from listener()


def test_an_invite_that_grows_too_large_is_counted_and_said_once(bench: Bench) -> None:
    pbx = Pbx(bench)
    for _ in range(3):
        leg = pbx.sign(invite())
        assert (leg.getVariable("shaken_as_size"), leg.getVariable("sip_transport")) == (None, None)
    assert json.loads(pbx.process.status())["size_over"] == 3
    assert pbx.log().count("signing.size.threshold") == 1


def test_one_that_fits_is_left_alone(bench: Bench) -> None:
    bench.configure(signing={"size": {"threshold": 9000}})
    assert Pbx(bench).sign(invite()).getVariable("shaken_as_size") is None


def test_it_leaves_by_tcp_where_the_peer_takes_it_and_else_by_udp(bench: Bench, takes_tcp: str) -> None:
    bench.configure(signing={"size": {"action": "tcp"}})
    pbx = Pbx(bench)
    leg = pbx.sign(invite(), sip_destination_url=takes_tcp)
    assert (leg.getVariable("sip_transport"), len(leg.sent("Identity"))) == ("tcp", 1)
    assert (leg.getVariable("shaken_as_size") or "").startswith("size_tcp 1")
    closed = pbx.sign(invite(), sip_destination_url=f"sip:{CALLED}@127.0.0.1:9")
    assert (closed.getVariable("sip_transport"), len(closed.sent("Identity"))) == (None, 1)
    named = pbx.sign(invite(), sip_destination_url=f"sip:{CALLED}@carrier.example")
    assert named.getVariable("sip_transport") is None
    counts = json.loads(pbx.process.status())
    assert (counts["size_tcp"], counts["size_tcp_refused"]) == (1, 2)


def test_a_gateway_keeps_its_transport_and_it_is_said(bench: Bench, takes_tcp: str) -> None:
    bench.configure(signing={"size": {"action": "tcp"}})
    pbx = Pbx(bench)
    leg = pbx.sign(invite(), sip_destination_url=takes_tcp, sip_gateway_name="carrier")
    assert leg.getVariable("sip_transport") is None
    assert json.loads(pbx.process.status())["size_tcp_refused"] == 1
    by_tcp = pbx.sign(invite(), sip_gateway_name="carrier", shaken_transport="tcp")
    assert by_tcp.getVariable("shaken_as_size") is None


@pytest.mark.parametrize("more", [{"sip_destination_url": f"sip:{CALLED}@h;transport=TLS"}, {"sip_transport": "tcp"}])
def test_other_transports_take_any_size(bench: Bench, more: dict[str, str]) -> None:
    assert Pbx(bench).sign(invite(), **more).getVariable("shaken_as_size") is None


def test_it_is_shortened_and_still_verifies(bench: Bench) -> None:
    pbx = Pbx(bench)
    pbx.sign(invite())
    size = int(pbx.log().partition(" has about ")[2].partition(" ")[0])
    bench.configure(signing={"size": {"action": "shorten", "threshold": size - 16}})
    leg = Pbx(bench).sign(invite())
    assert (leg.getVariable("shaken_as_size") or "").startswith("size_shortened")
    (value,) = leg.sent("Y") or leg.sent("Identity")
    name = "y" if leg.sent("Y") else "Identity"
    partner = Pbx(bench, STRANGER).arrive(with_identity(value, name=name), "verify")
    assert partner.getVariable("shaken_vs_result") == "passed"


@pytest.mark.parametrize(
    ("uri", "peer"),
    [
        ("sip:1@127.0.0.1:9", ("127.0.0.1", 9)),
        ("sip:1@127.0.0.1;lr", ("127.0.0.1", 5060)),
        ("sip:1@[::1]:5070", ("::1", 5070)),
        ("sip:1@carrier.example", None),
        ("sip:1@999.1.1.1", None),
        ("nonsense", None),
    ],
)
def test_only_addresses_are_asked(uri: str, peer: tuple[str, int] | None) -> None:
    assert size._peer(uri) == peer


# --- Another caller ID ------------------------------------------------------------------------


def test_a_substituted_leg_says_the_other_number_everywhere_and_is_signed_for_it(bench: Bench) -> None:
    substituting(bench)
    pbx = Pbx(bench)
    came = invite(f"Diversion: <sip:{UNOWNED}@a.example>".encode(), number=UNOWNED)
    leg = pbx.sign(came, privacy_hide_number="true", sip_h_Diversion=f"<sip:{UNOWNED}@a>, <sip:+{SUBSTITUTE}@a>")
    shown = [f"{name}: {value}" for name, value in leg.invite() if name not in {"Identity", "Date"}]
    assert not [line for line in shown if UNOWNED[1:] in line]
    assert leg.sent("From") == [f"<sip:+{SUBSTITUTE}@invalid>"]
    assert leg.sent("P-Asserted-Identity") == [f"<sip:+{SUBSTITUTE}@invalid>"]
    assert leg.sent("Remote-Party-ID") == []
    assert leg.sent("Diversion") == [f"<sip:+{SUBSTITUTE}@a>"]
    assert leg.sent("Privacy") == ["id"]
    assert [leg.getVariable(name) for name in ("caller_id_number", "caller_id_name")] == [f"+{SUBSTITUTE}"] * 2
    assert claims(leg.sent("Identity")[0])["orig"] == {"tn": SUBSTITUTE}
    assert leg.getVariable("shaken_as_substituted_for") == UNOWNED[1:]
    assert leg.getVariable("shaken_as_unauthorised") == "1"
    assert leg.getVariable("shaken_as_substitute") is None


@pytest.mark.parametrize(
    ("user", "sent"), [(UNOWNED, f"+{SUBSTITUTE}"), (UNOWNED[2:], f"+{SUBSTITUTE}"), ("pbx7", "pbx7"), ("", None)]
)
def test_who_is_charged_and_the_user_part_of_contact(bench: Bench, user: str, sent: str | None) -> None:
    """FreeSWITCH sends P-Charge-Info on by itself; its Contact names a caller only where a dialplan wants that."""
    substituting(bench)
    came = invite(f"P-Charge-Info: <sip:{UNOWNED}@a.example>".encode(), number=UNOWNED)
    leg = Pbx(bench).sign(came, sip_contact_user=user, **{"sip_h_P-Charge-Info": f"<sip:{UNOWNED}@a.example>"})
    assert leg.sent("P-Charge-Info") == []
    assert leg.getVariable("sip_contact_user") == sent


@pytest.mark.parametrize("name", FROM_VARIABLES)
def test_whatever_decides_from_says_the_other_number(bench: Bench, name: str) -> None:
    substituting(bench)
    written = f"<sip:{UNOWNED}@b.example>" if "full" in name else f"sip:{UNOWNED}@b.example"
    leg = Pbx(bench).sign(invite(number=UNOWNED), **{name: written})
    assert leg.getVariable(name) == written.replace(UNOWNED, f"+{SUBSTITUTE}")


def test_where_from_is_to_stay_it_stays(bench: Bench) -> None:
    substituting(bench, substitute_in=["asserted"])
    leg = Pbx(bench).sign(invite(number=UNOWNED))
    assert leg.sent("From") == [f"<sip:{UNOWNED}@127.0.0.1>"]
    assert leg.getVariable("sip_force_full_from") is None
    assert leg.sent("P-Asserted-Identity") == [f"<sip:+{SUBSTITUTE}@invalid>"]


def test_where_observed_the_leg_keeps_its_number(bench: Bench) -> None:
    substituting(bench, mode="observe")
    leg = Pbx(bench).sign(invite(number=UNOWNED))
    assert leg.getVariable("caller_id_number") == UNOWNED
    assert leg.getVariable("sip_force_full_from") is None
    assert leg.getVariable("shaken_as_substituted_for") is None


def test_a_leg_that_came_names_the_route_for_those_that_leave(bench: Bench) -> None:
    pbx = Pbx(bench)
    partner = pbx.arrive(invite())
    partner.put("shaken_route", "cheap")
    legs = [pbx.leave(partner), pbx.leave(partner, shaken_route="other")]
    routes = [leaving(mod_python.SessionLeg(pbx.freeswitch, leg), PLAN).route for leg in legs]
    assert routes == ["cheap", "other"]


# --- Limits -----------------------------------------------------------------------------------------


class Counts:
    """A `ports.CallLimiter` with room for so many calls, by their keys."""

    def __init__(self, room: int = 1) -> None:
        self.room = room
        self.running: list[str] = []
        self.asked: list[Request] = []
        self.told: list[tuple[str, str]] = []
        self.owners: list[str] = []

    def ahead(self, customer: str, bounds: tuple[Bound, ...], level: str) -> str:
        return ""

    def admit(self, request: Request) -> Verdict:
        self.asked.append(request)
        if request.call in self.running:
            return Verdict(Outcome.KNOWN)
        if len(self.running) >= self.room:
            return Verdict(Outcome.CONCURRENT)
        self.running.append(request.call)
        return Verdict(Outcome.ADMITTED)

    def trouble(self) -> str:
        return ""

    def followed(self, call: str, owner: str = "") -> None:
        self.told.append(("followed", call))
        self.owners.append(owner)

    def ended(self, call: str) -> None:
        self.told.append(("ended", call))
        self.running = [other for other in self.running if other != call]

    def referred(self, call: str, to: str) -> None:
        raise AssertionError("FreeSWITCH answers REFER itself")


@pytest.fixture
def limited(bench: Bench) -> tuple[Pbx, Counts]:
    """A switch whose customer has a limit on concurrent calls."""
    return limited_pbx(bench)


def limited_pbx(bench: Bench, **limits: object) -> tuple[Pbx, Counts]:
    bench.configure(limits=limits)
    with SqlitePolicy(bench.folder / "policy.db").change(Author("test", "limits", NOW), "limits") as draft:
        acme = draft.get(Customer, "acme")
        assert acme is not None
        draft.put(replace(acme, limits=Limits(Rate(None, 1))))
    counts = Counts()
    assert bench.services.authentication is not None
    bench.services.authentication.limiter = Limiter(counts, bench.services.plan)
    bench.services = replace(bench.services, limiter=counts)
    return Pbx(bench), counts


def told(pbx: Pbx, counts: Counts, number: int) -> list[tuple[str, str]]:
    """What was told: a leg that ends does not wait for its thread."""
    until = time.monotonic() + 5
    while len(counts.told) < number and time.monotonic() < until:
        time.sleep(0.001)
    pbx.process._workers.done(int, 5, print)
    assert len(counts.told) == number
    return counts.told


def hooks(leg: FakeSession) -> tuple[str | None, str | None]:
    return leg.getVariable("api_reporting_hook"), leg.getVariable("api_hangup_hook")


def test_the_leg_that_came_tells_the_end_of_its_call(limited: tuple[Pbx, Counts]) -> None:
    pbx, counts = limited
    came = pbx.arrive(invite(), "sign")
    (slot,) = counts.running
    assert came.answered is None
    assert hooks(came) == (f"python shaken ended {slot}", None)
    assert told(pbx, counts, 1) == [("followed", slot)]
    left = pbx.leave(came, execute_on_originate_shaken="python shaken::sign")
    assert len(counts.running) == 1
    assert len(counts.asked) == 2
    assert left.getVariable("shaken_as_slot") == slot
    pbx.run(left, "answered")
    assert told(pbx, counts, 2)[-1] == ("followed", slot)
    refused = pbx.arrive(invite(), "sign")
    assert (refused.answered, hooks(refused)) == ("480 Call Limit Reached", (None, None))
    assert pbx.script.Script(pbx.freeswitch).command(f"ended {slot}") == "+OK"
    assert told(pbx, counts, 3)[-1] == ("ended", slot)
    assert pbx.arrive(invite(), "sign").answered is None


def test_a_leg_that_is_signed_by_its_gateway_has_the_leg_that_came_tell_it(limited: tuple[Pbx, Counts]) -> None:
    pbx, counts = limited
    came = pbx.arrive(invite())
    left = pbx.leave(came, execute_on_originate_shaken="python shaken::sign")
    (slot,) = counts.running
    assert hooks(came)[0] == f"python shaken ended {slot}"
    assert hooks(left) == (None, None)
    assert left.getVariable("execute_on_answer_shaken_3") == "python shaken::answered"
    second = pbx.leave(came, execute_on_originate_shaken="python shaken::sign")
    assert second.getVariable("shaken_as_slot") == slot
    assert counts.told == []
    over = pbx.leave(pbx.arrive(invite()), execute_on_originate_shaken="python shaken::sign")
    assert over.cause == "NO_ANSWER"  # of which FreeSWITCH makes 480


def test_a_leg_that_nobody_came_for_tells_its_own_end(limited: tuple[Pbx, Counts]) -> None:
    pbx, counts = limited
    left = pbx.leave(None, shaken_source=CUSTOMER, execute_on_originate_shaken="python shaken::sign")
    (slot,) = counts.running
    assert hooks(left)[0] == f"python shaken ended {slot}"


def test_a_slot_that_was_given_when_nobody_waited_any_more_is_given_back(
    limited: tuple[Pbx, Counts], monkeypatch: pytest.MonkeyPatch
) -> None:
    pbx, counts = limited
    monkeypatch.setattr(mod_python, "PATIENCE", 0.05 - pbx.process.switch.services.settings.verification.wait)
    over, done = threading.Event(), threading.Event()

    def late(switch: Switch, leg: Leg) -> list[Command]:
        commands = functions.sign(switch, leg)
        assert over.wait(10)
        return commands

    came = pbx.arrive(invite())
    pbx.process.run("sign", came, late)
    assert hooks(came) == (None, None)
    (slot,) = counts.running

    def ended(call: str) -> None:
        Counts.ended(counts, call)
        done.set()

    monkeypatch.setattr(counts, "ended", ended)
    over.set()
    assert done.wait(10)
    assert (counts.running, counts.told[-1]) == ([], ("ended", slot))


def test_hooks_of_others_stay(limited: tuple[Pbx, Counts]) -> None:
    pbx, counts = limited
    came = pbx.arrive(invite())
    came.setVariable("api_reporting_hook", "theirs")
    pbx.run(came, "sign")
    (slot,) = counts.running
    assert hooks(came) == ("theirs", f"python shaken ended {slot}")
    counts.ended(slot)
    both = pbx.arrive(invite())
    both.setVariable("api_reporting_hook", "theirs")
    both.setVariable("api_hangup_hook", "theirs")
    pbx.run(both, "sign")
    assert hooks(both) == ("theirs", "theirs")
    assert counts.running == []
    assert "limits on concurrent calls are NOT enforced" in pbx.log()


def test_retry_after_where_the_settings_want_it(bench: Bench) -> None:
    pbx, counts = limited_pbx(bench, status=503, retry_after=9)
    counts.room = 0
    refused = pbx.arrive(invite(), "sign")
    assert refused.answered == "503 Call Limit Reached"
    assert refused.getVariable("sip_rh_Retry-After") == "9"


# --- What it costs ----------------------------------------------------------------------------------


def test_nothing_is_asked_of_a_leg_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pbx = Pbx(bench)
    left = pbx.leave(pbx.arrive(invite()))
    api, asked = pbx.freeswitch.API(), list[str]()
    answer, variable = api.executeString, left.getVariable

    def noting(answers: Callable[[str], str | None]) -> Callable[[str], str | None]:
        return lambda asked_for: [asked.append(asked_for), answers(asked_for)][-1]  # type: ignore[func-returns-value]  # noted on the way

    monkeypatch.setattr(api, "executeString", noting(answer))
    monkeypatch.setattr(left, "getVariable", noting(variable))
    monkeypatch.setattr(pbx.freeswitch, "API", lambda: api)
    pbx.run(left, "sign")
    times = Counter(asked)
    assert left.getVariable("shaken_as_level") == "A"
    assert len(times) > 50
    assert {name for name, found in times.items() if found > 1} == set()


class Library:
    """FreeSWITCH's functions, on the legs of a fake one."""

    def __init__(self, freeswitch: FakeFreeSwitch) -> None:
        self.locked: list[str] = []
        self.hung_up: set[str] = set()
        legs = dict(enumerate(freeswitch.legs, 1))

        def locate(uuid: bytes, *where: bytes) -> int | None:
            return None if uuid.decode() in self.hung_up else locate_any(uuid, *where)

        def locate_any(uuid: bytes, *_: bytes) -> int | None:
            found = [number for number, name in legs.items() if name == uuid.decode() and name in freeswitch.legs]
            self.locked += [legs[number] for number in found]
            return found[0] if found else None

        def variable(channel: int, name: bytes, copied: int, which: int) -> bytes | None:
            assert (copied, which) == (1, -1)
            assert self.locked == [legs[channel]]
            value = freeswitch.legs[legs[channel]].getVariable(name.decode())
            return None if value is None else value.encode("utf-8", "surrogateescape")

        def expand(channel: int, form: int, permitted: None, commands: Any, depth: int) -> int:
            assert (permitted, commands.value) == (None, 1)
            assert depth in {100, 101}
            if self.depth < depth:
                return form
            self.expanded += 1

            def written(name: re.Match[bytes]) -> bytes:
                assert b" " not in name[1]  # it would be run as a command
                return variable(channel, name[1], 1, -1) or b""

            text = ctypes.create_string_buffer(re.sub(rb"[$][{](.*?)[}]", written, ctypes.string_at(form)))
            self.made[ctypes.addressof(text)] = text
            return ctypes.addressof(text)

        def create(*arguments: Any) -> None:
            arguments[3]._obj.value = 1

        self.depth, self.expanded, self.made = 100, 0, dict[int, Any]()
        self.switch_channel_expand_variables_check = expand
        self.switch_event_create_subclass_detailed = create
        self.free = lambda text: self.made.pop(text)  # noqa: PLW0108  # it gets attributes
        self.switch_core_session_perform_locate = locate
        self.switch_core_session_perform_force_locate = locate_any
        self.switch_core_session_get_channel = lambda session: session
        self.switch_channel_get_variable_dup = variable
        self.switch_core_session_rwunlock = lambda session: self.locked.remove(legs[session])


def test_the_library_says_of_another_leg_what_commands_say(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pbx = Pbx(bench)
    came = pbx.arrive(with_identity("a;info=<x>", "b;info=<y>"))
    came.put("Shaken_Account", "acme")
    came.put("sip_h_X-Name", "\udcff")
    pbx.freeswitch.global_variables["shaken_route"] = "cheap"
    left = pbx.leave(came)
    library = Library(pbx.freeswitch)
    others = OtherLegs(library)
    names = [*came.variables, "shaken_account", "shaken_route", "sip_h_Date", "nothing"]

    def told(others: OtherLegs | None) -> dict[str, str | None]:
        leg = mod_python.SessionLeg(pbx.freeswitch, left, others)
        return {name: leg.partner(name) for name in names}

    by_commands = told(None)
    assert (by_commands["shaken_route"], by_commands["shaken_account"]) == ("cheap", "acme")
    monkeypatch.setattr(pbx.freeswitch, "API", None)
    assert told(others) == by_commands
    assert library.locked == []
    library.hung_up.add(came.uuid)  # it is there for a while longer, but commands say nothing of it, and set nothing
    assert set(told(others).values()) == {None}
    library.hung_up.clear()
    del pbx.freeswitch.legs[came.uuid]
    assert set(told(others).values()) == {None}


def test_what_a_usual_leg_is_asked_is_read_in_one_go(bench: Bench) -> None:
    pbx = Pbx(bench)
    came = pbx.arrive(invite())
    left = pbx.leave(came, sip_gateway_name="a|b", caller_id_name="ARRAY::${uuid}|:\udcff")
    library = Library(pbx.freeswitch)
    asked = list[str]()

    class Noted:
        get_uuid = left.get_uuid

        @staticmethod
        def getVariable(name: str) -> str | None:  # noqa: N802  # the switch's name
            asked.append(name)
            return left.getVariable(name)

    def read(others: OtherLegs | None) -> dict[str, str | None]:
        leg = mod_python.SessionLeg(pbx.freeswitch, Noted, others).read(functions.ASKED)
        return {name: leg.get(name) for name in functions.ASKED} | {"partner": leg.partner("sip_call_id")}

    by_session = read(None)
    assert asked == list(functions.ASKED)
    asked.clear()
    assert by_session["caller_id_name"] == "ARRAY::${uuid}|:\udcff"
    assert read(OtherLegs(library)) == by_session
    assert (asked, library.expanded, library.locked, library.made) == ([], 2, [], {})
    left.put("shaken_route", "a\x1fb")  # what stands between two values
    assert read(OtherLegs(library)) == {**by_session, "shaken_route": "a\x1fb"}
    library.depth = 50  # a FreeSWITCH that does not go so deep
    assert read(OtherLegs(library)) == {**by_session, "shaken_route": "a\x1fb"}
    library.depth, library.expanded = 101, 0  # one that goes deeper would expand what callers say
    assert read(OtherLegs(library)) == {**by_session, "shaken_route": "a\x1fb"}
    assert library.expanded == 1  # to see whether it does
    assert (asked, library.locked, library.made) == ([], [], {})
    library.hung_up.add(left.uuid)
    left.put("shaken_route", "")
    assert read(OtherLegs(library)) == by_session
    assert asked == list(functions.ASKED)


def test_all_that_a_usual_leg_is_asked_is_known_to_be(bench: Bench) -> None:
    pbx = Pbx(bench)
    left = pbx.leave(pbx.arrive(invite()), sip_gateway_name="carrier", chan_name="sofia/external/1")
    asked = set[str]()
    leg = mod_python.SessionLeg(pbx.freeswitch, left)

    def get(name: str) -> str | None:
        asked.add(name)
        return leg.get(name)

    commands = functions.sign(pbx.process.switch, ReadLeg(get, leg.partner))
    assert any(getattr(command, "name", "").startswith("sip_h_Identity") for command in commands)
    assert asked == set(functions.ASKED)


def test_a_process_that_makes_no_event_is_no_freeswitch(bench: Bench) -> None:
    library = Library(Pbx(bench).freeswitch)
    library.switch_event_create_subclass_detailed = lambda *_: None
    with pytest.raises(OSError, match="no event"):
        OtherLegs(library)


def test_a_usual_call_looks_once_at_the_leg_that_came(bench: Bench) -> None:
    pbx = Pbx(bench)
    came = pbx.arrive(invite())
    came.put("sip_i_to", f"<sip:{CALLED}@example.net>")  # with parse-all-invite-headers
    left = pbx.leave(came)
    library = Library(pbx.freeswitch)
    looks = list[set[str]]()

    class Looked(OtherLegs):
        def get(self, uuid: str, names: tuple[str, ...]) -> dict[str, str | None]:
            looks.append(set(names))
            return super().get(uuid, names)

    asked = set[str]()

    class Noted(mod_python.SessionLeg):
        def partner(self, name: str) -> str | None:
            asked.add(name)
            return super().partner(name)

    commands = functions.sign(pbx.process.switch, Noted(pbx.freeswitch, left, Looked(library)))
    assert any(getattr(command, "name", "").startswith("sip_h_Identity") for command in commands)
    assert looks == [asked] == [set(functions.ASKED_OF_PARTNER)]  # and at nothing that is not needed
    leg = mod_python.SessionLeg(pbx.freeswitch, left, Looked(library))
    assert (leg.partner("uuid"), leg.partner("nothing")) == (leg.get("originating_leg_uuid"), None)
    assert looks[1:] == [{"uuid"}, {"nothing"}]


def test_the_variables_of_usual_calls_are_those_of_any(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pbx = Pbx(bench)
    for _ in range(2):  # the third call is the first that can be a usual one
        pbx.sign(invite())
    outcomes = list[SwitchOutcome]()
    sign = pbx.process.switch.sign

    def noted(*arguments: Any, **more: Any) -> SwitchOutcome:
        outcomes.append(sign(*arguments, **more))
        return outcomes[-1]

    monkeypatch.setattr(pbx.process.switch, "sign", noted)
    for called in (CALLED, "+12025550144"):
        left = pbx.sign(invite(), called)
        outcome = outcomes[-1]
        assert outcome.same is not None
        expected = functions._publish("shaken_as_", outcome.variables)
        assert Set("shaken_as_level", "A") in expected
        assert all(left.getVariable(one.name) == one.value for one in expected if isinstance(one, Set))
        assert sorted(map(str, functions._publish_signing(outcome))) == sorted(map(str, expected))
    assert outcomes[0].same is outcomes[1].same


def test_without_the_library_other_legs_are_asked_by_commands(bench: Bench) -> None:
    pbx = Pbx(bench)  # in a process that is no FreeSWITCH
    assert "asked by API commands" in pbx.log()
    left = pbx.leave(pbx.arrive(invite()))
    leg = mod_python.SessionLeg(pbx.freeswitch, left)
    assert (leg.partner("direction"), leg.partner("nothing")) == ("inbound", None)
    pbx.freeswitch.legs.clear()
    assert mod_python.SessionLeg(pbx.freeswitch, left).partner("direction") is None


def answer(leg: FakeSession) -> None:
    """Have FreeSWITCH run the command that a leg has for when it is answered."""
    command, uuid, pairs = (leg.getVariable("api_on_answer_shaken") or "").split(" ", 2)
    assert (command, uuid) == ("uuid_setvar_multi", leg.uuid)
    for pair in pairs.split(";"):
        name, _, value = pair.partition("=")
        leg.put(name, value)


@pytest.mark.parametrize("before", [(), ("a;info=<x>", "b;info=<y>")])
def test_headers_of_ours_are_in_the_first_invite_only(bench: Bench, before: tuple[str, ...]) -> None:
    left = Pbx(bench).sign(with_identity(*before) if before else invite())
    assert len(left.sent("Identity")) + len(left.sent("Y")) == (len(before) or 1)
    answer(left)
    assert (left.sent("Identity"), left.sent("Y"), left.sent("Date")) == ([], [], [])
    assert [name for name in left.variables if name.startswith(("api_on", "execute_on", "sip_h_"))] == []


def test_an_expression_of_the_operators_is_kept(bench: Bench) -> None:
    left = Pbx(bench).sign(invite(), exclude_outgoing_extra_header=r"^sip_h_X\ y$")
    answer(left)
    assert left.getVariable("exclude_outgoing_extra_header") == r"^sip_h_X\ y$"
    assert left.sent("Identity") == []


def test_a_name_of_a_leg_that_no_command_can_have_needs_none(bench: Bench) -> None:
    left = Pbx(bench).sign(invite(), exclude_outgoing_extra_header=r"^sip_h_X\ y$", uuid="a b;c")
    assert left.getVariable("api_on_answer_shaken") is None
    assert left.getVariable("execute_on_answer_shaken_1") == (
        r"set exclude_outgoing_extra_header=(^sip_h_X\ y$)|(?i)^sip_h_(identity|y)"
    )
    assert left.getVariable("execute_on_answer_shaken_2") == "unset sip_h_Date"


def test_what_had_a_leg_signed_is_not_copied_with_it_any_more(bench: Bench) -> None:
    pbx = Pbx(bench)
    notes = {"current_application": "python", "current_application_data": "shaken::sign"}
    left = pbx.sign(invite(), **notes)
    assert left.getVariable("shaken_as_level") == "A"
    assert not {"execute_on_originate_shaken", *notes} & left.variables.keys()
    came = pbx.arrive(invite())
    for name, value in notes.items():
        came.put(name, value)
    pbx.run(came, "sign")
    assert notes.keys() <= came.variables.keys()  # there the dialplan goes on


_OWN: dict[str, tuple[str | None, ...]] = {
    "direction": ("outbound", "outbound", "outbound", "inbound"),
    "originating_leg_uuid": ("a", "a", None),
    "sip_destination_url": (
        f"sip:{CALLED}@127.0.0.1",
        f"sip:{CALLED}@127.0.0.1",
        f"sips:{CALLED}@x",
        "x",
        "sip:x",
        None,
    ),
    "destination_number": (CALLED, f"{CALLED}^911", None),
    "caller_id_number": (OWN, OWN, "anonymous", "", None),
    "sip_cid_type": (None, None, None, "", "pid", "rpid", "none"),
    **dict.fromkeys(("sip_invite_domain", "sip_local_network_addr"), (None, "example.net")),
    **dict.fromkeys(("shaken_account", "shaken_source", "shaken_route"), (None, None, "x")),
    "uuid": ("b", None),
}
_CAME: dict[str, tuple[str | None, ...]] = {
    "direction": ("inbound", "inbound", "inbound", "outbound", None),
    "sip_req_uri": (f"{CALLED}@127.0.0.1", f"{CALLED}@127.0.0.1", "911@127.0.0.1", None),
    "sip_i_to": (f"<sip:{CALLED}@127.0.0.1>", "<urn:service:sos>", None),
    "shaken_vs_result": (None, "passed", "failed"),
    **dict.fromkeys(("sip_call_id", "sip_network_ip", "sip_authorized", "sip_auth_username"), (None, "true")),
    **dict.fromkeys(("shaken_account", "shaken_source", "shaken_route", "shaken_as_slot"), (None, None, "x")),
    "sip_i_date": (None, "x"),
    "sip_date_epoch_time": (None, "x", "1"),
}


def variables(usual: dict[str, tuple[str | None, ...]], changing: Collection[str]) -> st.SearchStrategy[dict[str, str]]:
    """Variables of a leg that is mostly usual, with a few of those that change what it says."""
    drawn = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in usual.items()})
    few = st.sampled_from(["", "x", f"<sip:{OWN}@x>"])
    more = st.dictionaries(st.sampled_from(sorted(changing)), few, max_size=2)
    return st.builds(lambda one, two: {name: v for name, v in {**one, **two}.items() if v is not None}, drawn, more)


@settings(max_examples=400)
@given(variables(_OWN, reading._CHANGING), variables(_CAME, reading._CHANGING_OF_PARTNER))
def test_a_usual_leg_is_read_as_any(own: dict[str, str], other: dict[str, str]) -> None:
    leg = MappedLeg(own, other if "originating_leg_uuid" in own else {})
    usual = reading._usual(leg, PLAN)
    assert usual is None or usual == reading._any(leg, PLAN)
    event(f"usual: {usual is not None}")


def test_calls_that_are_usual_are_read_so(bench: Bench) -> None:
    pbx = Pbx(bench)
    came = pbx.arrive(invite())
    left = pbx.leave(came)
    for leg in (came, left):
        assert reading._usual(mod_python.SessionLeg(pbx.freeswitch, leg), PLAN) is not None


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sip_h_Date": "x"},
        {"sip_h_Identity ": "a;info=<x>"},
        {"sip_h_identity": "a;info=<x>"},
        {"sip_h_y": "a;info=<x>"},
    ],
)
@pytest.mark.parametrize("name", ["auto", "full", "compact"])
@pytest.mark.parametrize("action", ["warn", "shorten"])
def test_what_a_usual_leg_carries_is_what_any_would(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], name: str, action: str
) -> None:
    bench.configure(freeswitch={"identity_name": name}, signing={"size": {"action": action}})
    pbx = Pbx(bench)
    came = pbx.arrive(invite())
    plain = mod_python.SessionLeg(pbx.freeswitch, pbx.leave(came))
    outcome = pbx.process.switch.sign(lambda: leaving(plain, PLAN))
    assert outcome.variables["identity"]
    left = mod_python.SessionLeg(pbx.freeswitch, pbx.leave(came, CALLED, **more))
    message = leaving(left, PLAN)
    usual = functions._attached(pbx.process.switch, left, outcome, message)
    used = functions._usually_attached(pbx.process.switch, left, outcome.variables, []) is not None
    assert used is (not more and name != "compact")
    monkeypatch.setattr(functions, "_usually_attached", lambda *_: None)
    assert usual == functions._attached(pbx.process.switch, left, outcome, message)


def test_the_script_is_not_loaded_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pbx = Pbx(bench)
    monkeypatch.setitem(sys.modules, "shaken", pbx.script)
    monkeypatch.setattr(pbx.script, "sign", "mine", raising=True)
    for _ in range(2):  # the first ends a loading that has just begun
        assert importlib.reload(pbx.script) is pbx.script
        assert pbx.script.sign == "mine"
    assert sys.modules["shaken"] is pbx.script
    assert importlib.util.find_spec("json") is not None
    monkeypatch.setattr(sys, "meta_path", [])  # nothing is looked for
    keep("shaken")
    assert importlib.reload(pbx.script) is pbx.script
    assert pbx.script.sign == "mine"


# --- Threads ----------------------------------------------------------------------------------------


def test_work_returns_or_raises_to_whoever_waits() -> None:
    workers = Workers(1, mod_python.STACK, "test")
    assert workers.done(lambda: threading.current_thread().name, 5, print) == "test_0"
    with pytest.raises(SystemExit):
        workers.done(sys.exit, 5, print)
    begun = list[int]()
    workers.begin(lambda: begun.append(1))
    workers.close()
    assert begun == [1]
    assert not any(thread.is_alive() for thread in workers._threads)


def test_the_thread_that_was_at_work_last_does_the_next_job() -> None:
    workers = Workers(4, mod_python.STACK, "test")
    used = set[str]()
    for _ in range(20):
        used.add(workers.done(lambda: threading.current_thread().name, 5, print))
        while len(workers._idle) < 4:  # it is idle a moment after it has told the result
            time.sleep(0.001)
    assert len(used) == 1
    workers.close()


def test_all_threads_work_at_once_and_what_is_more_waits_its_turn() -> None:
    workers = Workers(3, mod_python.STACK, "test")
    at_once, over, done = threading.Barrier(4), threading.Event(), list[int]()

    def work(number: int) -> None:
        if number < 3:
            at_once.wait(5)
        assert over.wait(5)
        done.append(number)

    for number in range(9):
        workers.begin(partial(work, number))
    at_once.wait(5)  # all three
    over.set()
    workers.close()
    assert sorted(done) == list(range(9))


def test_a_result_that_comes_too_late_is_told() -> None:
    workers = Workers(1, mod_python.STACK, "test")
    over, late = threading.Event(), list[str]()
    with pytest.raises(TimeoutError):
        workers.done(lambda: str(over.wait(10)), 0.01, late.append)
    with pytest.raises(TimeoutError):  # it is not even begun
        workers.done(lambda: "never", 0.01, late.append)
    over.set()
    workers.close()
    assert late == ["True"]


def test_what_nobody_waits_for_any_more_keeps_no_leg() -> None:
    """As long as all threads hang it stays in the queue."""

    class Leg:
        def sign(self) -> None:
            raise AssertionError("nobody waits")

    workers = Workers(1, mod_python.STACK, "test")
    over, leg = threading.Event(), Leg()
    kept = weakref.ref(leg)
    workers.begin(lambda: over.wait(10))
    with pytest.raises(TimeoutError):
        workers.done(leg.sign, 0.01, print)
    del leg
    gc.collect()
    assert kept() is None
    over.set()
    workers.close()


def test_a_failure_that_comes_too_late_ends_no_thread() -> None:
    workers = Workers(1, mod_python.STACK, "test")
    over = threading.Event()

    def fail(*_: object) -> None:
        assert over.wait(10)
        raise ValueError("x")

    for work in (fail, lambda: over.wait(10)):
        over.clear()
        with pytest.raises(TimeoutError):
            workers.done(work, 0.01, fail)
        over.set()
    assert workers.done(lambda: 1, 5, print) == 1
    workers.close()
