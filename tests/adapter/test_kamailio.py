"""The Kamailio adapter on the shipped stand-in for KSR: what it reads, adds, removes and answers."""

from __future__ import annotations

import bisect
import gc
import itertools
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from shaken_plugin import runtime
from shaken_plugin.adapters.fake_kamailio import FakeKsr, Lumps, _full
from shaken_plugin.adapters.kamailio import (
    ANSWERED,
    ASKED,
    GO_ON,
    NOTHING,
    OFF,
    ROUTES,
    SIGNING,
    SUBSTITUTED,
    VERIFYING,
    Kamailio,
    KamailioObserver,
)
from shaken_plugin.adapters.kamailio_state import pack, unpack
from shaken_plugin.authentication import AuthenticationService, Limiter, identity_header
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.directory import file_name
from shaken_plugin.core.call import NAMING, CallMessage
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.limits import Bound, Outcome, Request, Verdict, dialog_of, key
from shaken_plugin.core.passport import Attest, Passport, base_claims, shaken_claims
from shaken_plugin.core.records import Customer, Limits, Rate
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.core.verification.usual import Usual
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import Author
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.switch import Outcome as SwitchOutcome
from shaken_plugin.switch import Switch, passing
from shaken_plugin.switch.process import Process
from shaken_plugin.switch.usual import Told
from shaken_plugin.switch.waiting import WaitingRoom
from tests.conftest import NOW

CUSTOMER, GATEWAY, STRANGER, PENDING, BANNED = (f"127.0.0.{last}" for last in (2, 3, 4, 5, 6))
OWN = "+12155551212"
CALLED = "+12025550143"


def invite(*extra: bytes, number: str = OWN, to: str = f"<sip:{CALLED}@b.example>", ruri: str | None = None) -> bytes:
    lines = [
        f"INVITE {ruri or f'sip:{CALLED}@b.example'} SIP/2.0".encode(),
        b"Via: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK1",
        f'From: "J" <sip:{number}@a.example>;tag=1'.encode(),
        f"To: {to}".encode(),
        b"Call-ID: call-1",
        b"CSeq: 1 INVITE",
        *extra,
        b"Content-Length: 0",
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def reply(status: int, *extra: bytes) -> bytes:
    return b"\r\n".join([f"SIP/2.0 {status} X".encode(), b"Call-ID: call-1", b"CSeq: 1 INVITE", *extra]) + b"\r\n\r\n"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Bench:
    """A provider in a folder, and adapters on it."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder, self.authority, self.clock = folder, authority, Clock()
        self.provider = Provider.make(folder, authority, NOW)
        self.provider.publish(self.provider.x5u, self.provider.credential.chain)
        self.configure()

    def configure(self, **sections: dict[str, object] | str) -> None:
        self.provider = Provider.make(self.folder, self.authority, NOW, **sections)  # type: ignore[arg-type]  # a test says what fits
        self.provider.publish(self.provider.x5u, self.provider.credential.chain)
        checked, _ = runtime.apply(self.provider.settings, NOW)
        assert checked.services is not None
        self.services = checked.services

    def kamailio(self, message: bytes, source: str = CUSTOMER) -> tuple[Kamailio, FakeKsr]:
        ksr = FakeKsr(message, source)
        numbers = itertools.count()
        observer = KamailioObserver(ksr)
        observer.find_counters()
        switch = Switch(self.services, observer, self.clock, lambda: f"00000000-0000-4000-8000-{next(numbers):012}")
        return Kamailio(ksr, switch=switch), ksr

    def signed(self, message: bytes, source: str = CUSTOMER) -> FakeKsr:
        """The message after the request route and the first branch."""
        kamailio, ksr = self.kamailio(message, source)
        assert kamailio.shaken_sign() == GO_ON
        ksr.begin_branch(0)
        kamailio.shaken_branch()
        return ksr

    def identity_of(self, number: str = OWN) -> str:
        return self.signed(invite(number=number)).sent_values("identity")[0]


@pytest.fixture
def bench(tmp_path: Path, authority: Authority) -> Bench:
    return Bench(tmp_path, authority)


def claims(value: str) -> dict[str, object]:
    return dict(Passport.parse(IdentityHeader.parse(value).digest).claims)


# --- Signing ----------------------------------------------------------------------------------


def test_signs_in_the_branch_and_not_before(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    assert kamailio.shaken_sign() == GO_ON
    assert ksr.sent_values("identity") == []
    ksr.begin_branch(0)
    assert kamailio.shaken_branch() == GO_ON
    (value,) = ksr.sent_values("identity")
    assert claims(value)["attest"] == "A"
    assert ksr.sent_values("date") == ["Wed, 18 Nov 2026 11:06:40 GMT"]
    assert ksr.xavps[SIGNING, "level"] == "A"
    assert ksr.xavps[SIGNING, "customer"] == "acme"


def test_it_says_which_calls_have_to_pass_the_branch_and_the_reply_route(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    assert not kamailio.shaken_routes()
    kamailio.shaken_sign()
    assert kamailio.shaken_routes()
    assert ksr.xavps[ROUTES, "routes"] == "1"
    unsigned, _ = bench.kamailio(invite(b"Identity: a.b.c;info=<http://x>"))
    unsigned.shaken_sign()
    assert not unsigned.shaken_routes()
    later, _ = bench.kamailio(b"BYE sip:b SIP/2.0\r\nRoute: <sip:p;lr;shaken=1.x>\r\nTo: <sip:b>;tag=2\r\n\r\n")
    assert later.shaken_routes()
    verified, ksr = bench.kamailio(invite(b"Identity: a.b.c;info=<http://x>"), STRANGER)
    verified.shaken_verify()
    assert ksr.xavps[VERIFYING, "reason"]
    assert verified.shaken_routes()
    ksr.pvx = Broken(SystemError("bad"))  # type: ignore[assignment]  # a stand-in
    assert verified.shaken_routes()


@pytest.mark.parametrize(("written", "left"), [("verstat=x", ""), ("%76erstat=x", ""), ("other=x", ";other=x")])
def test_later_requests_lose_a_verstat_however_it_is_written(bench: Bench, written: str, left: str) -> None:
    bye = f"BYE sip:b SIP/2.0\r\nFrom: <sip:+12155551212;{written}@a>\r\nTo: <sip:b>;tag=2\r\n\r\n"
    kamailio, ksr = bench.kamailio(bye.encode(), STRANGER)
    assert kamailio.shaken_verify() == GO_ON
    assert ksr.sent_values("from") == [f"<sip:+12155551212{left}@a>"]


def test_iat_is_a_fresh_date_and_no_second_date_is_added(bench: Bench) -> None:
    ksr = bench.signed(invite(b"Date: Wed, 18 Nov 2026 11:06:31 GMT"))
    assert claims(ksr.sent_values("identity")[0])["iat"] == int(NOW) - 9
    assert ksr.sent_values("date") == ["Wed, 18 Nov 2026 11:06:31 GMT"]


def test_a_stale_date_is_not_signed_and_the_reason_is_named(bench: Bench) -> None:
    ksr = bench.signed(invite(b"Date: Wed, 18 Nov 2026 11:05:31 GMT"))
    assert ksr.sent_values("identity") == []
    assert ksr.xavps[SIGNING, "skip"] == "date_stale"
    assert ksr.counters["unsigned_date_stale"] == 1


def test_a_stale_date_is_replaced_by_setting_on_a_customers_call_only(bench: Bench) -> None:
    bench.configure(signing={"stale_date": "replace"})
    stale = b"Date: Wed, 18 Nov 2026 11:05:31 GMT"
    ksr = bench.signed(invite(stale))
    assert ksr.sent_values("date") == ["Wed, 18 Nov 2026 11:06:40 GMT"]
    assert len(ksr.sent_values("identity")) == 1
    assert bench.signed(invite(stale), GATEWAY).sent_values("identity") == []


def test_every_branch_carries_exactly_one_of_ours(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()
    for index in range(3):
        ksr.begin_branch(index)
        kamailio.shaken_branch()
        assert len(ksr.sent_values("identity")) == 1
        ksr.end_branch()


def test_a_failover_within_30_seconds_repeats_the_token_and_after_them_signs_anew(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()

    def branch(index: int) -> str:
        ksr.begin_branch(index)
        kamailio.shaken_branch()
        ksr.end_branch()
        values = [line[10:] for line in map(bytes.decode, ksr.lumps.appended)]
        assert values == []  # nothing stays on the request
        return ksr.xavps[SIGNING, "identity"]

    first = branch(0)
    bench.clock.now += 30
    assert kamailio.shaken_sign() == GO_ON  # a failure route that calls it again changes nothing
    assert branch(1) == first
    bench.clock.now += 1
    second = branch(2)
    assert second != first
    assert claims(second)["iat"] == int(NOW) + 31
    ksr.begin_branch(3)
    kamailio.shaken_branch()
    assert ksr.sent_values("identity") == [second]
    assert ksr.sent_values("date") == ["Wed, 18 Nov 2026 11:07:11 GMT"]


def test_a_failover_whose_customer_was_suspended_meanwhile_goes_unsigned(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()
    policy = (bench.folder / "policy.yaml").read_text()
    (bench.folder / "policy.yaml").write_text(policy.replace("state: verified", "state: suspended"))
    runtime.apply(bench.provider.settings, NOW)
    bench.clock.now += 31
    ksr.begin_branch(1)
    assert kamailio.shaken_branch() == GO_ON
    assert ksr.sent_values("identity") == []


@pytest.mark.parametrize(
    ("mode", "kept", "ours"), [("skip", True, False), ("add", True, True), ("replace_ours", True, False)]
)
def test_a_foreign_identity_is_kept_in_every_mode(bench: Bench, mode: str, kept: bool, ours: bool) -> None:
    bench.configure(signing={"existing_identity": mode})
    foreign = "e30.e30.AAAA;info=<https://other.example.com/x.pem>"
    values = bench.signed(invite(f"Identity: {foreign}".encode())).sent_values("identity")
    assert (foreign in values) is kept
    assert len(values) == 1 + ours


def test_replace_ours_takes_out_ours_alone_compact_names_included(bench: Bench) -> None:
    bench.configure(signing={"existing_identity": "replace_ours"})
    foreign = "e30.e30.AAAA;info=<https://other.example.com/x.pem>"
    old = f"e30.e30.AAAA;info=<{bench.provider.x5u}>"
    message = invite(f"y: {old}".encode(), f"Identity: {foreign}".encode(), f"identity: {old}".encode())
    values = bench.signed(message).sent_values("identity")
    assert foreign in values
    assert old not in values
    assert len(values) == 2


def test_an_unknown_source_is_unsigned_by_default_and_refused_by_setting(bench: Bench) -> None:
    assert bench.signed(invite(), STRANGER).sent_values("identity") == []
    bench.configure(signing={"unknown_source": "refuse"})
    kamailio, ksr = bench.kamailio(invite(), STRANGER)
    assert kamailio.shaken_sign() == ANSWERED
    assert ksr.reply == (403, "Source Not Known")
    assert ksr.has_transaction  # a retransmission gets the same answer, and leaves no record of its own


def test_a_declared_gateway_gets_c(bench: Bench) -> None:
    ksr = bench.signed(invite(), GATEWAY)
    assert claims(ksr.sent_values("identity")[0])["attest"] == "C"


def test_the_authenticated_user_decides_and_a_null_one_does_not(tmp_path: Path, authority: Authority) -> None:
    bench = Bench(tmp_path, authority)
    bench.configure(
        policy={
            "customers": [
                {"id": "u", "name": "U", "state": "verified", "trunks": [{"id": "t", "users": ["alice"]}]},
            ]
        }
    )
    for user, level in (("alice", "B"), ("<null>", "unsigned"), ("", "unsigned"), (None, "unsigned")):
        kamailio, ksr = bench.kamailio(invite(), STRANGER)
        kamailio.shaken_sign(None, user)
        assert ksr.xavps[SIGNING, "level"] == level


def test_a_reinvite_is_left_alone(bench: Bench) -> None:
    ksr = bench.signed(invite(to=f"<sip:{CALLED}@b.example>;tag=2"))
    assert ksr.sent_values("identity") == []
    assert ksr.xavps[SIGNING, "skip"] == "not_initial_invite"


def test_observe_mode_decides_and_logs_and_changes_nothing(bench: Bench) -> None:
    bench.configure(signing={"mode": "observe", "unknown_source": "refuse"}, verification={"mode": "observe"})
    message = invite(b"P-Asserted-Identity: <sip:+12155551212;verstat=TN-Validation-Passed@a.example>")
    for source in (CUSTOMER, STRANGER, BANNED):
        kamailio, ksr = bench.kamailio(message, source)
        before = ksr.sent()
        assert kamailio.shaken_sign() == GO_ON
        ksr.begin_branch(0)
        assert kamailio.shaken_branch() == GO_ON
        assert kamailio.shaken_verify() == GO_ON
        assert ksr.sent() == before
        assert ksr.reply is None
        assert ksr.xavps[SIGNING, "level"] in {"A", "refuse"}
        assert ksr.xavps[VERIFYING, "verstat"] == "No-TN-Validation"
        assert any("sign" in text for _, text in ksr.logged)


# --- Emergency calls --------------------------------------------------------------------------

EMERGENCY = [
    {"ruri": "sip:911@b.example", "to": "<sip:911@b.example>"},
    {"ruri": "sip:933@b.example", "to": "<sip:933@b.example;user=phone>"},
    {"ruri": "tel:112", "to": "<tel:112>"},
    {"ruri": "sip:+1911@b.example", "to": "<sip:+1911@b.example>"},
    {"ruri": "urn:service:sos", "to": "<urn:service:sos>"},
    {"ruri": "urn:service:sos.police", "to": "<sip:psap@b.example>"},
    {"ruri": "sip:psap@b.example", "to": "<urn:service:SOS.fire>"},
    {"ruri": "sip:911@b.example;x=a@b"},  # Kamailio has no $ru for it
]


@pytest.mark.parametrize("where", [*EMERGENCY, {"psap": True}])
@pytest.mark.parametrize("source", [STRANGER, PENDING, BANNED])
def test_no_refusal_there_is_touches_an_emergency_call(bench: Bench, where: dict[str, str], source: str) -> None:
    bench.configure(
        signing={"unknown_source": "refuse", "pending_customer": "refuse"},
        verification={"reject": [403, 428, 436, 437, 438]},
        store={"path": "policy.db", "when_unavailable": "refuse"},
        on_fault="refuse",
    )
    extra = b"Priority: psap-callback" if where.get("psap") else b"X-Nothing: x"
    parts = {name: value for name, value in where.items() if name != "psap"}
    message = invite(extra, b"Identity: broken", **parts)
    control = invite(b"Identity: broken")

    def outcomes(text: bytes) -> Iterator[tuple[int, tuple[int, str] | None]]:
        for name in ("shaken_sign", "shaken_verify"):
            kamailio, ksr = bench.kamailio(
                text.replace(b"Identity: broken\r\n", b"") if "sign" in name else text, source
            )
            yield getattr(kamailio, name)(), ksr.reply

    assert list(outcomes(message)) == [(GO_ON, None)] * 2
    assert [code for code, _ in outcomes(control)] == [ANSWERED] * 2


def test_a_store_that_is_gone_refuses_others_but_not_emergency_calls(bench: Bench) -> None:
    bench.configure(store={"path": "policy.db", "when_unavailable": "refuse"})
    (bench.folder / "policy.db").unlink()
    kamailio, ksr = bench.kamailio(invite())
    assert kamailio.shaken_sign() == ANSWERED
    kamailio, ksr = bench.kamailio(invite(ruri="sip:911@b.example", to="<sip:911@b.example>"))
    assert kamailio.shaken_sign() == GO_ON
    assert ksr.reply is None


# --- Calls that are sent on ---------------------------------------------------------------------

FIRST, SECOND, OUTSIDE = CALLED, "+13125550143", "+14155550177"


class Forwarding:
    """A call from another network to our customer's number, which the script sends on."""

    def __init__(self, bench: Bench, *extra: bytes) -> None:
        self.bench = bench
        foreign = bench.authority.issue(spc="811K", now=NOW)
        url = "https://certificates.example.org/811K.pem"
        bench.provider.publish(url, foreign.chain)
        by = load_pair(key=foreign.key, chain=foreign.chain, x5u=url, live_from=0, spc=None)
        made = shaken_claims(
            attest=Attest.A,
            orig=TelephoneNumber(OUTSIDE[1:]),
            dest=TelephoneNumber(OWN[1:]),
            iat=int(NOW),
            origid="00000000-0000-4000-8000-000000000000",
        )
        self.original = identity_header(by, made).format()
        self.came = f"sip:{OWN}@b.example"
        lines = (f"Identity: {self.original}".encode(), *extra)
        self.kamailio, self.ksr = bench.kamailio(
            invite(*lines, number=OUTSIDE, to=f"<{self.came}>", ruri=self.came), STRANGER
        )

    def divert(self, number: str, *, host: str = "c.example") -> int:
        self.ksr.uri = f"sip:{number}@{host}"
        return self.kamailio.shaken_divert(None, self.came)

    def branch(self, index: int, number: str | None = None) -> list[str]:
        if number is not None:
            self.ksr.uri = f"sip:{number}@c.example"
        self.ksr.begin_branch(index)
        assert self.kamailio.shaken_branch() == GO_ON
        values = self.ksr.sent_values("identity")
        self.ksr.end_branch()
        return values

    def verified(self, values: Sequence[str], number: str) -> dict[str, str]:
        lines = [f"Identity: {value}".encode() for value in values]
        message = invite(*lines, number=OUTSIDE, to=f"<{self.came}>", ruri=f"sip:{number}@c.example")
        kamailio, ksr = self.bench.kamailio(message, STRANGER)
        kamailio.shaken_verify()
        return {name: value for (root, name), value in ksr.xavps.items() if root == VERIFYING}


def test_a_diversion_is_signed_in_the_branch_beside_the_original(bench: Bench) -> None:
    call = Forwarding(bench)
    assert call.divert(FIRST) == GO_ON
    assert call.ksr.sent_values("identity") == [call.original]
    original, div = call.branch(0)
    assert original == call.original
    assert claims(div) == {
        "dest": {"tn": [FIRST[1:]]},
        "div": {"tn": OWN[1:]},
        "iat": int(NOW),
        "orig": {"tn": OUTSIDE[1:]},
    }
    told = {name: value for (root, name), value in call.ksr.xavps.items() if root == SIGNING}
    assert (told["ppt"], told["customer"], told["level"], told["skip"]) == ("div", "acme", "", "")
    assert call.ksr.counters["signed_div"] == 1
    verified = call.verified((original, div), FIRST)
    assert (verified["result"], verified["div"]) == ("passed", OWN[1:])


def test_a_branch_to_another_number_has_a_div_of_its_own(bench: Bench) -> None:
    call = Forwarding(bench)
    call.divert(FIRST)
    targets = [FIRST, SECOND, FIRST]
    for index, number in enumerate(targets):
        values = call.branch(index, number)
        assert len(values) == 2
        assert claims(values[1])["dest"] == {"tn": [number[1:]]}
        assert call.verified(values, number)["result"] == "passed"
    assert len(call.ksr.xavps[SIGNING, "ppi"].split(",")) == len(targets)


def test_a_branch_to_where_nothing_is_signed_does_not_silence_the_next(bench: Bench) -> None:
    bench.configure(signing={"leave_alone": ["1312"]})
    call = Forwarding(bench)
    call.divert(SECOND)
    assert call.ksr.xavps[SIGNING, "skip"] == "policy_unsigned"
    assert [len(call.branch(index, number)) for index, number in enumerate([SECOND, FIRST, SECOND])] == [1, 2, 1]


def test_a_diversion_after_long_ringing_replaces_the_date(bench: Bench) -> None:
    call = Forwarding(bench, b"Date: Wed, 18 Nov 2026 11:06:40 GMT")
    bench.clock.now += 45
    call.divert(FIRST)
    call.branch(0)
    call.ksr.begin_branch(1)
    call.kamailio.shaken_branch()
    assert call.ksr.sent_values("date") == ["Wed, 18 Nov 2026 11:07:25 GMT"]
    assert claims(call.ksr.sent_values("identity")[1])["iat"] == NOW + 45


def test_a_call_of_a_customer_is_signed_anew_for_where_it_is_sent_on(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()
    bench.clock.now += 20
    ksr.uri = f"sip:{SECOND}@c.example"
    assert kamailio.shaken_divert(None, f"sip:{CALLED}@b.example") == GO_ON
    ksr.begin_branch(1)
    kamailio.shaken_branch()
    (value,) = ksr.sent_values("identity")
    assert (claims(value)["attest"], claims(value)["iat"]) == ("A", NOW + 20)
    assert ksr.xavps[SIGNING, "ppt"] == "shaken"


def test_diversions_are_left_alone_by_setting(bench: Bench) -> None:
    bench.configure(signing={"diversion": "leave"})
    call = Forwarding(bench)
    call.divert(FIRST)
    assert call.branch(0) == [call.original]
    assert call.ksr.xavps[SIGNING, "skip"] == "policy_unsigned"  # by the decision on any call of a stranger


def test_a_number_that_is_not_ours_is_sent_on_with_nothing_added(bench: Bench) -> None:
    call = Forwarding(bench)
    call.came = f"sip:{SECOND}@b.example"
    call.divert(FIRST)
    assert call.branch(0) == [call.original]
    assert call.ksr.xavps[SIGNING, "skip"] == "diversion_not_ours"
    assert call.ksr.counters["unsigned_diversion_not_ours"] == 1


def test_a_suspended_customer_is_refused_when_its_call_is_sent_on(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite(b"Identity: x"), BANNED)
    ksr.uri = f"sip:{SECOND}@c.example"
    assert kamailio.shaken_divert(None, f"sip:{CALLED}@b.example") == ANSWERED
    assert ksr.reply is not None


@pytest.mark.parametrize("diverting", ["", "<null>", "nonsense", "sip:\udce9@x", "x" * 70_000, "sip:a@b>;<"])
def test_who_diverts_may_be_any_text(bench: Bench, diverting: str) -> None:
    call = Forwarding(bench)
    call.came = diverting
    assert call.divert(FIRST) == GO_ON
    assert call.branch(0) == [call.original]
    assert not [name for name in call.ksr.counters if name.startswith("fault")]


# --- Verifying --------------------------------------------------------------------------------


def verified(bench: Bench, message: bytes, source: str = "203.0.113.9") -> tuple[FakeKsr, int]:
    kamailio, ksr = bench.kamailio(message, source)
    return ksr, kamailio.shaken_verify()


def test_a_good_call_is_marked_on_its_asserted_identity(bench: Bench) -> None:
    identity = bench.identity_of()
    ksr, code = verified(
        bench,
        invite(f"Identity: {identity}".encode(), b'P-Asserted-Identity: "J" <sip:+12155551212@a.example>'),
    )
    assert code == GO_ON
    assert ksr.sent_values("p-asserted-identity") == ['"J" <sip:+12155551212;verstat=TN-Validation-Passed@a.example>']
    assert ksr.sent_values("identity") == [identity]
    assert ksr.xavps[VERIFYING, "attest"] == "A"
    assert ksr.xavps[VERIFYING, "spc"] == "709J"
    assert ksr.counters["verified_passed"] == 1


def test_priority_and_fingerprints_are_read(bench: Bench) -> None:
    orig, dest = TelephoneNumber(OWN[1:]), TelephoneNumber(CALLED[1:])
    claims = base_claims(orig, dest, int(NOW), [{"alg": "sha-256", "dig": "AB"}])
    claims |= {"rph": {"auth": ["ets.0", "wps.1"]}}
    pair = bench.services.credentials["main"].current(NOW)
    assert pair is not None
    rph = identity_header(pair, claims, "rph").format().encode()
    headers = [b"Identity: " + rph, b"Resource-Priority: ets.0", b"Resource-Priority: wps.1"]
    for body, found in ((b"a=fingerprint:sha-256 AB\r\n", "passed"), (b"a=fingerprint:sha-256 00\r\n", "mky_mismatch")):
        ksr, _ = verified(bench, invite(*headers) + body)
        assert ksr.xavps[VERIFYING, "rph"] == found
    assert ksr.xavps[VERIFYING, "code"] == "number_not_signed"


def test_a_call_without_asserted_identity_gets_one_and_from_stays(bench: Bench) -> None:
    ksr, _ = verified(bench, invite(f"y: {bench.identity_of()}".encode()))
    assert ksr.sent_values("p-asserted-identity") == ["<sip:+12155551212;verstat=TN-Validation-Passed@a.example>"]
    assert ksr.sent_values("from") == ['"J" <sip:+12155551212@a.example>;tag=1']


def test_from_is_marked_by_setting(bench: Bench) -> None:
    bench.configure(verification={"mark_from": "true", "add_asserted": "false"})
    ksr, _ = verified(bench, invite(f"Identity: {bench.identity_of()}".encode()))
    assert ksr.sent_values("p-asserted-identity") == []
    assert ksr.sent_values("from") == ['"J" <sip:+12155551212;verstat=TN-Validation-Passed@a.example>;tag=1']


def test_verstat_from_outside_never_gets_in(bench: Bench) -> None:
    forged = "sip:+12155551212;verstat=TN-Validation-Passed@a.example"
    ksr, _ = verified(
        bench,
        invite(
            f"P-Asserted-Identity: <{forged}>, <tel:+12155551212;VERSTAT=TN-Validation-Passed-A>".encode(),
            f"P-Preferred-Identity: <{forged}>".encode(),
            f"Remote-Party-ID: <{forged}>;party=calling".encode(),
            number="+12155551212;verstat=TN-Validation-Passed",
        ),
    )
    assert ksr.sent_values("p-asserted-identity") == [
        "<sip:+12155551212;verstat=No-TN-Validation@a.example>",
        "<tel:+12155551212>",
    ]
    for name in ("from", "p-preferred-identity", "remote-party-id"):
        (value,) = ksr.sent_values(name)
        assert "verstat" not in value


def test_inside_a_dialog_foreign_verstat_is_stripped_and_nothing_else_done(bench: Bench) -> None:
    message = invite(
        b"P-Asserted-Identity: <sip:+12155551212;verstat=TN-Validation-Passed@a.example>",
        to=f"<sip:{CALLED}@b.example>;tag=9",
    )
    ksr, code = verified(bench, message)
    assert code == GO_ON
    assert ksr.sent_values("p-asserted-identity") == ["<sip:+12155551212@a.example>"]
    assert (VERIFYING, "result") not in ksr.xavps


def test_a_failure_goes_on_by_default_with_its_reason_in_later_replies(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite(b"Identity: nonsense"))
    assert kamailio.shaken_verify() == GO_ON
    assert ksr.xavps[VERIFYING, "code"] == "token_malformed"
    assert ksr.xavps[VERIFYING, "status"] == "438"
    ksr.receive(reply(183))
    kamailio.shaken_reply()
    assert ksr.sent_values("reason") == ['STIR;cause=438;text="Invalid Identity Header"']
    ksr.receive(reply(486, b"Reason: Q.850;cause=17"))
    kamailio.shaken_reply()
    assert ksr.sent_values("reason") == ["Q.850;cause=17", 'STIR;cause=438;text="Invalid Identity Header"']


def test_a_failure_is_answered_where_the_policy_says_so(bench: Bench) -> None:
    bench.configure(verification={"reject": [438]})
    ksr, code = verified(bench, invite(b"Identity: nonsense"))
    assert code == ANSWERED
    assert ksr.reply == (438, "Invalid Identity Header")
    assert ksr.has_transaction
    assert ksr.reply_headers == ['Reason: STIR;cause=438;text="Invalid Identity Header"']
    bench.configure(verification={"reject": [428]})
    ksr, code = verified(bench, invite())
    assert ksr.reply == (428, "Use Identity Header")


@pytest.mark.parametrize("asserted", [(), (b"P-Asserted-Identity: <sip:+12155551212@a.example>",)])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("dated", [False, True])
def test_a_usual_call_that_passes_is_published_and_marked_as_any_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, asserted: tuple[bytes, ...], before: bool, dated: bool
) -> None:
    """However much of it is done in one go; another call of the signer came before it."""
    found = []
    for missing in ("", "_explode", "_is_null", "usually"):
        verified(bench, invite(f"Identity: {bench.identity_of()}".encode()))
        identity = f"Identity: {bench.identity_of()}".encode()
        # RFC 8224 §6.1: a signer MUST add a Date where there is none.
        date = (f"Date: {format_date(bench.clock())}".encode(),) if dated else ()
        kamailio, ksr = bench.kamailio(invite(*date, identity, *asserted), STRANGER)
        if before:
            ksr.xavps[VERIFYING, "note"] = "of the script"
        with monkeypatch.context() as patch:
            if missing == "usually":
                patch.setattr(kamailio.switch.services.verification, missing, lambda _message, _now: None)
            elif missing:
                patch.setattr(kamailio, missing, None)
            assert kamailio.shaken_verify() == GO_ON
        known = kamailio.switch._passing
        assert known is not None
        assert [bool(forms.line) for forms in known._forms.values()] == [True] * (missing != "usually")
        marks = ksr.sent_values("p-asserted-identity")
        found.append((ksr.xavps[VERIFYING, "result"], marks, ksr.counters, ksr.reply))
        own = {name: text for (root, name), text in ksr.xavps.items() if root == VERIFYING and name != "note"}
        assert own.keys() == {"verstat", "result", "attest", "origid", "spc", "orig"}
        assert own["origid"] in claims(identity.decode().partition(" ")[2]).values()
    assert found == [found[0]] * 4
    assert found[0][0] == "passed"
    assert found[0][1] == ["<sip:+12155551212;verstat=TN-Validation-Passed@a.example>"]


def test_a_signer_whose_calls_have_no_form_is_tried_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "is_clean", lambda _: False)
    made, make = list[int](), passing.Passing._made

    def counted(self: passing.Passing, usual: Usual, message: CallMessage) -> passing.Forms:
        made.append(1)
        return make(self, usual, message)

    monkeypatch.setattr(passing.Passing, "_made", counted)
    switch = bench.kamailio(invite())[0].switch
    for _ in range(3):
        ksr = FakeKsr(invite(f"Identity: {bench.identity_of()}".encode()), STRANGER)
        assert Kamailio(ksr, switch=switch).shaken_verify() == GO_ON
        assert ksr.xavps[VERIFYING, "result"] == "passed"
    assert made == [1]


def test_verifying_twice_marks_once(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite(f"Identity: {bench.identity_of()}".encode()))
    kamailio.shaken_verify()
    kamailio.shaken_verify()
    assert len(ksr.sent_values("p-asserted-identity")) == 1
    assert ksr.counters["verified_passed"] == 1


# --- Replies to calls that we signed -----------------------------------------------------------


def test_stir_reasons_about_our_passport_do_not_reach_the_caller(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    ours = ksr.xavps[SIGNING, "ppi"]
    foreign = 'STIR;cause=436;text="Bad Identity Info";ppi="..AAAA"'
    lines = [
        f'Reason: SIP;cause=480, STIR;cause=438;text="x";ppi="{ours}", {foreign}'.encode(),
        b'reason: stir ;cause=437 ;text="a, b"',
    ]
    ksr.receive(reply(480, *lines))
    assert kamailio.shaken_reply() == GO_ON
    assert ksr.sent_values("reason") == ["SIP;cause=480", foreign]
    assert ksr.counters["reported_by_verifier"] == 1


def test_replies_to_calls_that_are_not_ours_are_untouched(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite(), STRANGER)
    kamailio.shaken_sign()
    ksr.receive(reply(480, b'Reason: STIR;cause=438;text="x"'))
    before = ksr.sent()
    assert kamailio.shaken_reply() == GO_ON
    assert ksr.sent() == before


def test_a_branch_that_missed_the_branch_route_is_found_out(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    ksr.receive(reply(180))
    kamailio.shaken_reply()
    assert "branch_without_identity" not in ksr.counters
    ksr.branch_index = 1  # a failover whose failure route did not arm the branch route
    ksr.receive(reply(180))
    kamailio.shaken_reply()
    assert ksr.counters["branch_without_identity"] == 1
    assert any(level == "warn" and "t_on_branch" in text for level, text in ksr.logged)


@pytest.mark.parametrize("branch", [0, 1])
@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Reason: SIP;cause=480",),
        (b'reason: STIR;cause=438;text="x"',),
        (b'Reason: STIR;cause=438;text="\xff"', b"Reason: Q.850;cause=16"),
    ],
)
def test_a_quiet_reply_is_what_the_whole_way_makes_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lines: tuple[bytes, ...], branch: int
) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    assert ksr.xavps[ROUTES, "quiet"] == "1"
    found = []
    for _ in range(2):
        ksr.branch_index, before = branch, dict(ksr.counters)
        ksr.receive(reply(480, *lines))
        assert kamailio.shaken_reply() == GO_ON
        found.append((ksr.sent(), {name: count - before.get(name, 0) for name, count in ksr.counters.items()}))
        monkeypatch.setattr(kamailio, "_is_quiet", lambda: False)
    assert {name: count for name, count in found[0][1].items() if count} == {
        name: count for name, count in found[1][1].items() if count
    }
    assert found[0][0] == found[1][0]


def test_a_call_with_a_second_branch_or_a_reason_of_ours_is_not_quiet(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()
    for index in (0, 1):
        ksr.begin_branch(index)
        kamailio.shaken_branch()
        assert ksr.xavps[ROUTES, "quiet"] == ("" if index else "1")
        ksr.end_branch()
    ksr.xavps[VERIFYING, "reason"] = 'STIR;cause=437;text="x"'
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    assert ksr.xavps[ROUTES, "quiet"] == ""


# --- Hostile input and the guard ---------------------------------------------------------------


def test_bytes_that_are_not_utf8_in_a_display_name_do_not_stop_signing(bench: Bench) -> None:
    message = invite().replace(b'"J"', b'"Jos\xe9"')
    ksr = bench.signed(message)
    assert claims(ksr.sent_values("identity")[0])["orig"] == {"tn": "12155551212"}


def test_an_identity_that_is_not_utf8_has_its_own_name(bench: Bench) -> None:
    ksr, code = verified(bench, invite(b"Identity: \xff\xfe"))
    assert code == GO_ON
    assert ksr.xavps[VERIFYING, "code"] == "identity_unreadable"


def test_a_display_name_that_is_not_utf8_is_marked_all_the_same_without_a_fault(bench: Bench) -> None:
    message = invite(
        f"Identity: {bench.identity_of()}".encode(), b'P-Asserted-Identity: "Jos\xe9" <sip:+12155551212@a.example>'
    )
    ksr, code = verified(bench, message)
    assert code == GO_ON
    assert ksr.sent_values("p-asserted-identity") == ["<sip:+12155551212;verstat=TN-Validation-Passed@a.example>"]
    assert "fault_verify" not in ksr.counters


@pytest.mark.parametrize(
    "mangled",
    [
        pytest.param(lambda text: text.replace(b"From: ", b"X-From: "), id="no From"),
        pytest.param(lambda text: text.replace(b"\r\nTo: ", b"\r\nX-To: "), id="no To"),
        pytest.param(lambda text: text.replace(b"Call-ID", b"X-Call"), id="no Call-ID"),
        pytest.param(lambda text: text.replace(b'"J"', b'"' + b"J" * 60_000 + b'"'), id="huge From"),
        pytest.param(lambda text: text.replace(b'"J" <', b'"J <'), id="open quote"),
        pytest.param(lambda text: text.replace(b"INVITE sip:", b"INVITE \xff:"), id="R-URI not UTF-8"),
        pytest.param(lambda text: text.replace(b"call-1", b"call-\xff\x00"), id="Call-ID not UTF-8"),
        pytest.param(lambda text: text.replace(b"CSeq", b"Date: \xff\r\nCSeq"), id="Date not UTF-8"),
        pytest.param(
            lambda text: text.replace(b"CSeq", b"Identity: " * 1 + b"a" * 60_000 + b"\r\nCSeq"), id="huge Identity"
        ),
        pytest.param(lambda text: text.replace(b"CSeq", b"Identity: x\r\n" * 500 + b"CSeq"), id="500 Identity headers"),
        pytest.param(lambda text: text + b"a=fingerprint:\xff", id="body not UTF-8"),
    ],
)
def test_hostile_messages_go_on_without_a_fault(bench: Bench, mangled: object) -> None:
    assert callable(mangled)
    for name in ("shaken_sign", "shaken_divert", "shaken_verify"):
        kamailio, ksr = bench.kamailio(mangled(invite()))
        parts = (None, f"sip:{CALLED}@b.example") if name == "shaken_divert" else ()
        assert getattr(kamailio, name)(*parts) == GO_ON
        assert not [key for key in ksr.counters if key.startswith("fault")]
        assert all(text.endswith("\n") and text[:-1].isprintable() for _, text in ksr.logged)


class Broken:
    """Whatever is asked of it fails."""

    def __init__(self, exception: BaseException) -> None:
        self._exception = exception

    def __getattr__(self, _name: str) -> object:
        raise self._exception


@pytest.mark.parametrize("part", ["hdr", "pv", "pvx", "textops", "tm"])
@pytest.mark.parametrize("exception", [SystemError("bad"), UnicodeDecodeError("utf-8", b"", 0, 1, ""), SystemExit(1)])
def test_a_switch_function_that_fails_never_stops_the_call(bench: Bench, part: str, exception: BaseException) -> None:
    identity = bench.identity_of()
    for name in ("shaken_sign", "shaken_divert", "shaken_branch", "shaken_verify", "shaken_reply"):
        kamailio, ksr = bench.kamailio(invite(f"Identity: {identity}".encode()))
        ksr.xavps[SIGNING, "identity"], ksr.xavps[SIGNING, "ppi"] = "x", "..y"
        setattr(ksr, part, Broken(exception))
        assert getattr(kamailio, name)() == GO_ON


@pytest.mark.parametrize("what", ["shaken_left", "shaken_ended"])
def test_what_becomes_of_a_call_is_told_or_a_fault_is_logged(bench: Bench, what: str) -> None:
    kamailio, ksr = bench.kamailio(invite())
    limiter = Broken(SystemError("bad"))
    kamailio.switch.services = replace(bench.services, limiter=limiter)  # type: ignore[arg-type]  # a stand-in
    assert getattr(kamailio, what)(None, "slot") == GO_ON
    assert ksr.counters[f"fault_{what.removeprefix('shaken_')}"] == 1


def test_a_fault_is_logged_by_place_and_without_a_word_of_the_message(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    ksr.pv = Broken(ValueError("secret +12155551212"))  # type: ignore[assignment]  # a stand-in
    kamailio.shaken_sign()
    (line,) = [text for level, text in ksr.logged if level == "err"]
    assert re.search(r'"type":"ValueError","at":"[a-z_]+\.py:\d+', line)
    assert "secret" not in line
    assert "1215" not in line
    assert ksr.counters["fault_sign"] == 1


def test_numbers_are_masked_in_the_log_unless_asked(bench: Bench) -> None:
    bench.configure(log={"trace": "true"})
    ksr = bench.signed(invite())
    assert not [text for _, text in ksr.logged if "12155551212" in text]
    assert [text for _, text in ksr.logged if "1215*****12" in text]


# --- Loading and reloading ----------------------------------------------------------------------


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has loaded nothing yet."""
    monkeypatch.setattr(Process, "switch", None)
    monkeypatch.setattr(Process, "observer", None)


@pytest.mark.usefixtures("process")
def test_a_wrong_setting_stops_the_start_with_every_mistake_in_the_log(bench: Bench) -> None:
    text = bench.provider.settings.read_text()
    bench.provider.settings.write_text(text.replace("signing:", "signing:\n  freshnes: 1\n  mky: perhaps"))
    ksr = FakeKsr(invite())
    with pytest.raises(RuntimeError, match="refused, see the 2 lines above"):
        Kamailio(ksr, bench.provider.settings)
    errors = [line for level, line in ksr.logged if level == "err"]
    assert any("signing.freshnes: unknown setting (did you mean freshness?)" in line for line in errors)
    assert any("signing.mky: neither true nor false" in line for line in errors)


@pytest.mark.usefixtures("process")
def test_the_start_says_what_is_on(bench: Bench) -> None:
    ksr = FakeKsr(invite())
    kamailio = Kamailio(ksr, bench.provider.settings)
    kamailio.child_init(1)
    (line,) = [text for level, text in ksr.logged if level == "info" and "shaken-plugin" in text]
    assert "signing active with main" in line
    assert "verification active with 1 trust anchors" in line
    assert ksr.counters["loads"] == 1
    assert ksr.shared == {OFF: 0}


@pytest.mark.parametrize("mode", ["off", "observe"])
@pytest.mark.usefixtures("process")
def test_a_native_script_may_know_that_nothing_leaves_signed(bench: Bench, mode: str) -> None:
    bench.configure(signing={"mode": mode})
    ksr = FakeKsr(invite())
    kamailio = Kamailio(ksr, bench.provider.settings)
    for rank in (0, 1, -4):
        assert kamailio.child_init(rank) == GO_ON
    assert ksr.shared == {OFF: 1}


def test_what_is_there_at_the_start_is_never_looked_at_again_and_stays_shared(bench: Bench) -> None:
    gc.unfreeze()
    try:
        Kamailio(FakeKsr(invite()), bench.provider.settings)
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


@pytest.mark.usefixtures("process")
def test_a_reload_takes_what_was_applied_and_keeps_the_old_where_it_is_unusable(bench: Bench) -> None:
    ksr = FakeKsr(invite())  # its log is the process's from now on
    Kamailio(ksr, bench.provider.settings)
    bench.configure(signing={"quote_ppt": "false"})
    for name in ("shaken.yaml", "policy.yaml"):
        (bench.folder / name).unlink()  # no YAML is read at a reload
    kamailio = Kamailio(FakeKsr(invite()), bench.provider.settings)
    assert kamailio.switch.services.settings.signing.quote_ppt is False
    assert [text for level, text in ksr.logged if level == "err"] == []

    (bench.folder / "signing.key").unlink()
    old = kamailio.switch.services
    assert Kamailio(FakeKsr(invite()), bench.provider.settings).switch.services is old
    (line,) = [text for level, text in ksr.logged if level == "err"]
    assert "reload refused, the old settings stay" in line


@pytest.mark.usefixtures("process")
def test_a_reload_that_takes_nothing_new_says_why(bench: Bench) -> None:
    ksr = FakeKsr(invite())  # its log is the process's from now on
    Kamailio(ksr, bench.provider.settings)
    bench.configure(store={"path": "moved.db"})
    Kamailio(FakeKsr(invite()), bench.provider.settings)
    (warning,) = [text for level, text in ksr.logged if level == "warn"]
    assert "where store.path was changed, restart the switch" in warning


@pytest.mark.usefixtures("process")
def test_a_process_that_cannot_read_the_policy_says_so_when_it_starts(bench: Bench) -> None:
    ksr = FakeKsr(invite())
    kamailio = Kamailio(ksr, bench.provider.settings)
    (bench.folder / "policy.db").unlink()
    kamailio.child_init(1)
    assert any("the policy cannot be read here" in text for level, text in ksr.logged if level == "warn")


# --- Calls that are held ------------------------------------------------------------------------


class Agent:
    """Puts the certificate in its place when it is asked to wait."""

    def __init__(self, bench: Bench, chain: bytes) -> None:
        self.bench, self.chain = bench, chain

    def alive(self) -> bool:
        return True

    def fetch(self, urls: Sequence[str], timeout: float) -> None:
        if timeout:
            for url in urls:
                self.bench.provider.publish(url, self.chain)


def held(bench: Bench, chain: bytes | None = None) -> tuple[Kamailio, FakeKsr]:
    """A call whose signer nobody knows, and an agent."""
    kamailio, ksr = bench.kamailio(invite(b"Identity: " + bench.identity_of().encode()))
    (bench.folder / "certificates" / file_name(bench.provider.x5u)).unlink()
    switch = kamailio.switch
    switch.room = WaitingRoom()
    switch.services = replace(switch.services, fetcher=Agent(bench, chain or bench.provider.credential.chain))
    return kamailio, ksr


def test_a_call_is_held_until_the_certificate_has_come(bench: Bench) -> None:
    kamailio, ksr = held(bench)
    assert kamailio.shaken_verify(None, "FROM_OUTSIDE") == ANSWERED
    assert ksr.suspended == ("FROM_OUTSIDE", "shaken")
    assert (ksr.reply, ksr.lumps) == (None, Lumps())
    assert kamailio.shaken_verify(None, "FROM_OUTSIDE") == GO_ON
    assert ksr.xavps[VERIFYING, "verstat"] == "TN-Validation-Passed"
    assert "verstat=TN-Validation-Passed" in ksr.sent_values("P-Asserted-Identity")[0]
    assert kamailio.shaken_verify(None, "FROM_OUTSIDE") == GO_ON  # a third time: done already
    assert ksr.counters["verified_passed"] == 1


def test_a_held_call_is_answered_by_its_transaction(bench: Bench) -> None:
    bench.configure(verification={"reject": [437]})
    expired = bench.authority.issue(spc="709J", now=NOW, defect=Defect.EXPIRED)
    kamailio, ksr = held(bench, expired.chain)
    assert [kamailio.shaken_verify(None, "FROM_OUTSIDE") for _ in range(2)] == [ANSWERED] * 2
    assert ksr.reply == (437, "Unsupported Credential")


def test_a_call_that_cannot_be_held_goes_on_without(bench: Bench) -> None:
    def full(ksr: FakeKsr) -> None:
        ksr.can_suspend = False

    def not_loaded(ksr: FakeKsr) -> None:
        delattr(ksr, "async")

    for prevent in (full, not_loaded):
        kamailio, ksr = held(bench)
        prevent(ksr)
        assert kamailio.shaken_verify(None, "FROM_OUTSIDE") == GO_ON
        assert ksr.xavps[VERIFYING, "code"] == "certificate_not_yet"
        assert any("async_workers_group" in text for _, text in ksr.logged)
        assert kamailio.switch.room is not None
        assert kamailio.switch.room.enter(1, NOW, NOW) == 0  # its place is free
        bench.configure()


def test_no_route_to_come_back_to_means_no_waiting(bench: Bench) -> None:
    kamailio, ksr = held(bench)
    assert kamailio.shaken_verify() == GO_ON
    assert (ksr.suspended, ksr.xavps[VERIFYING, "code"]) == (None, "certificate_not_yet")


@pytest.mark.parametrize(("table", "metric"), [(True, True), (True, False), (False, True), (False, False)])
def test_counts_go_where_the_configuration_has_a_place_for_them(bench: Bench, table: bool, metric: bool) -> None:
    ksr = FakeKsr(invite(), CUSTOMER)
    ksr.has_counters, ksr.has_metric = table, metric
    observer = KamailioObserver(ksr)
    observer.find_counters()
    observer.count("signed_a")
    assert ksr.counters == ({"loads": 1, "signed_a": 1} if table else {})
    assert ksr.metrics == ({"loads": 1, "signed_a": 1} if metric else {})


def test_without_the_modules_nothing_is_counted(bench: Bench) -> None:
    ksr = FakeKsr(invite(), CUSTOMER)
    del ksr.htable, ksr.xhttp_prom
    observer = KamailioObserver(ksr)
    observer.find_counters()
    observer.count("signed_a")
    assert (ksr.counters, ksr.metrics) == ({}, {})


# --- Size -----------------------------------------------------------------------------------------

BIG = b"X-Fill: " + 900 * b"f"
NEXT_HOP = "sip:192.0.2.9:5060"


def branch(kamailio: Kamailio, ksr: FakeKsr, index: int = 0) -> str:
    """A branch that was sent, and where it went."""
    ksr.begin_branch(index)
    assert kamailio.shaken_branch() == GO_ON
    assert len(ksr.sent_values("identity")) == 1
    sent = ksr.destination
    ksr.end_branch()
    return sent


def large(bench: Bench, action: str, next_hop: str = NEXT_HOP) -> tuple[Kamailio, FakeKsr]:
    bench.configure(signing={"size": {"action": action}})
    kamailio, ksr = bench.kamailio(invite(BIG))
    ksr.destination = next_hop
    kamailio.shaken_sign()
    return kamailio, ksr


def test_a_small_invite_is_left_alone(bench: Bench) -> None:
    bench.configure(signing={"size": {"action": "tcp"}})
    kamailio, ksr = bench.kamailio(invite())
    ksr.destination = NEXT_HOP
    kamailio.shaken_sign()
    assert branch(kamailio, ksr) == NEXT_HOP
    assert (SIGNING, "size") not in ksr.xavps
    assert not any(name.startswith("size_") for name in ksr.counters)


def test_a_large_one_is_counted_by_its_trunk(bench: Bench) -> None:
    kamailio, ksr = large(bench, "warn")
    assert [branch(kamailio, ksr, index) for index in range(2)] == [NEXT_HOP] * 2
    assert ksr.counters["size_over"] == 2
    assert [level for level, text in ksr.logged if "an INVITE of acme/acme-dialler has" in text] == ["warn"]
    outcome, size = ksr.xavps[SIGNING, "size"].split()
    assert outcome == "size_over"
    assert int(size) > 1300


def test_it_goes_by_tcp_and_by_udp_where_nobody_answered(bench: Bench) -> None:
    kamailio, ksr = large(bench, "tcp")
    assert branch(kamailio, ksr) == f"{NEXT_HOP};transport=tcp"
    assert kamailio.shaken_fallback() == GO_ON
    assert ksr.destination == f"{NEXT_HOP};transport=udp"
    assert branch(kamailio, ksr, 1) == f"{NEXT_HOP};transport=udp"
    assert kamailio.shaken_fallback() == NOTHING  # once
    assert ksr.counters["size_tcp_failed"] == 1


def test_what_was_answered_does_not_fall_back_and_later_calls_go_by_tcp_too(bench: Bench) -> None:
    kamailio, ksr = large(bench, "tcp")
    branch(kamailio, ksr, 3)
    ksr.branch_index = 2
    ksr.xavps[SIGNING, "branches"] = "2,3,"
    kamailio.shaken_reply()  # of another branch
    assert ksr.xavps[SIGNING, "tcp"]
    ksr.branch_index = 3
    kamailio.shaken_reply()
    assert kamailio.shaken_fallback() == NOTHING
    assert branch(kamailio, ksr, 4) == f"{NEXT_HOP};transport=tcp"


def test_a_peer_without_tcp_is_known_whatever_number_is_called(bench: Bench) -> None:
    kamailio, ksr = large(bench, "tcp", "")
    assert branch(kamailio, ksr) == f"sip:{CALLED}@b.example;transport=tcp"
    ksr.destination = "sip:+12025550199@b.example;user=phone"
    assert branch(kamailio, ksr, 1) == ksr.destination
    assert ksr.counters["size_tcp_refused"] == 1


def test_a_cancelled_call_is_not_sent_again(bench: Bench) -> None:
    kamailio, ksr = large(bench, "tcp")
    branch(kamailio, ksr)
    ksr.canceled = True
    assert kamailio.shaken_fallback() == NOTHING
    assert ksr.destination == NEXT_HOP


def test_a_call_without_a_signature_has_nothing_to_fall_back_from(bench: Bench) -> None:
    kamailio, _ = bench.kamailio(invite(BIG), STRANGER)
    kamailio.shaken_sign()
    assert kamailio.shaken_fallback() == NOTHING


@pytest.mark.parametrize(
    ("next_hop", "sent"),
    [
        ("", f"sip:{CALLED}@b.example;transport=tcp"),
        ("sip:p.example;lr", "sip:p.example;lr;transport=tcp"),
        ("sip:p.example;TRANSPORT=UDP", "sip:p.example;TRANSPORT=UDP"),
        ("sip:p.example;transport=tls", "sip:p.example;transport=tls"),
        ("sips:p.example", "sips:p.example"),
        (
            "sip:a;transport=tls@p.example?x=;transport=tls",
            "sip:a;transport=tls@p.example;transport=tcp?x=;transport=tls",
        ),
    ],
)
def test_only_a_destination_that_leaves_the_transport_open_is_switched(bench: Bench, next_hop: str, sent: str) -> None:
    kamailio, ksr = large(bench, "tcp", next_hop)
    assert branch(kamailio, ksr) == sent


def test_a_destination_that_cannot_be_read_does_not_cost_the_signature(bench: Bench) -> None:
    kamailio, ksr = large(bench, "tcp")
    ksr.destination = "sip:\udcff"
    ksr.begin_branch(0)
    assert kamailio.shaken_branch() == GO_ON
    assert len(ksr.sent_values("identity")) == 1
    assert ksr.counters["fault_size"] == 1


def test_a_fault_in_the_fall_back_ends_nothing(bench: Bench) -> None:
    kamailio, ksr = large(bench, "tcp")
    branch(kamailio, ksr)
    ksr.tm = None  # type: ignore[assignment]  # a module that is missing
    assert kamailio.shaken_fallback() == NOTHING
    assert ksr.counters["fault_fallback"] == 1


def test_shortened_under_either_name_it_verifies(bench: Bench) -> None:
    kamailio, ksr = large(bench, "warn")
    branch(kamailio, ksr)
    full = int(ksr.xavps[SIGNING, "size"].split()[1])
    for spare, name in ((10, "Identity"), (12, "Identity"), (19, "y")):
        bench.configure(signing={"size": {"action": "shorten", "threshold": full - spare}})
        kamailio, ksr = bench.kamailio(invite(BIG))
        kamailio.shaken_sign()
        ksr.begin_branch(0)
        kamailio.shaken_branch()
        ((sent, value),) = [line for line in ksr.sent() if line[0] in {"Identity", "y"}]
        assert sent == name
        date = ksr.sent_values("date")[0]
        verifier, received = bench.kamailio(invite(f"{sent}: {value}".encode(), f"Date: {date}".encode()))
        verifier.shaken_verify()
        assert received.xavps[VERIFYING, "result"] == "passed"


# --- Another caller ID ------------------------------------------------------------------------

SUBSTITUTE = "12155551299"
FULL = (
    f"P-Asserted-Identity: <sip:{OWN}@a.example>".encode(),
    f"Remote-Party-ID: <sip:{OWN}@a.example>;party=calling".encode(),
    b"Diversion: <sip:+12155551212@a.example>;reason=x",
)
CALLER_HEADERS = ("from", "p-asserted-identity", "p-preferred-identity", "remote-party-id", *map(str.lower, NAMING))


def substituting(bench: Bench, **signing: object) -> None:
    """Unauthorised caller IDs are substituted; and `UNOWNED` is one."""
    bench.configure(signing={"unauthorised": "substitute", "substitute": f"+{SUBSTITUTE}", **signing})


UNOWNED = "+19175550199"


def shown(ksr: FakeKsr) -> str:
    """All that leaves in headers that say who calls, or who else has to do with the call."""
    return " ".join(value for name, value in ksr.sent() if _full(name) in CALLER_HEADERS)


def test_a_uri_in_p_asserted_identity_does_not_spare_the_number_in_from(bench: Bench) -> None:
    bench.configure(signing={"unauthorised": "refuse"})
    kamailio, _ = bench.kamailio(invite(b"P-Asserted-Identity: <sip:x@y.example>", number=UNOWNED))
    assert kamailio.shaken_sign() == ANSWERED


def substituted(bench: Bench, *extra: bytes) -> tuple[Kamailio, FakeKsr]:
    kamailio, ksr = bench.kamailio(invite(*extra, number=UNOWNED))
    assert kamailio.shaken_sign() == GO_ON
    ksr.begin_branch(0)
    assert kamailio.shaken_branch() == GO_ON
    return kamailio, ksr


def within(method: str, caller: str, called: str, *extra: bytes, route: str) -> bytes:
    """A request inside the dialog, ``caller`` to ``called``, that comes back by our Record-Route."""
    lines = [
        f"{method} sip:x@b.example SIP/2.0".encode(),
        f"Route: <sip:127.0.0.1;lr;ftag=1{route}>".encode(),
        f"From: {caller}".encode(),
        f"To: {called}".encode(),
        b"Call-ID: call-1",
        f"CSeq: 2 {method}".encode(),
        *extra,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_a_substituted_call_says_the_other_number_everywhere_and_is_signed_for_it(bench: Bench) -> None:
    substituting(bench)
    own = [line.replace(OWN.encode(), UNOWNED.encode()) for line in FULL]
    _, ksr = substituted(bench, *own)
    assert UNOWNED[1:] not in shown(ksr)
    assert ksr.sent_values("from") == [f"<sip:+{SUBSTITUTE}@a.example>;tag=1"]
    assert ksr.sent_values("p-asserted-identity") == [f"<sip:+{SUBSTITUTE}@a.example>"]
    found = claims(ksr.sent_values("identity")[0])
    assert (found["orig"], found["attest"]) == ({"tn": SUBSTITUTE}, "A")
    assert ksr.xavps[SIGNING, "substituted_for"] == UNOWNED[1:]
    assert ksr.xavps[SIGNING, "unauthorised"] == "1"
    assert "unauthorised" in ksr.xavps[SIGNING, "rules"].split(",")
    assert ksr.xavps[SIGNING, "policy"] == "2"
    assert (ksr.counters["substituted"], ksr.counters["unauthorised"]) == (1, 1)


def test_who_is_charged_goes_with_the_number_that_was_replaced_and_contact_stays(bench: Bench) -> None:
    """P-Charge-Info (RFC 8496) is for carriers, and they do send it on. Contact is where requests of the dialog go."""
    substituting(bench)
    contact = f"<sip:{UNOWNED}@127.0.0.2:5070>"
    charged = f"P-Charge-Info: <sip:{UNOWNED}@a.example>;noa=3".encode()
    _, ksr = substituted(bench, charged, b"P-Charge-Info: <sip:+12155551200@a.example>", f"Contact: {contact}".encode())
    assert ksr.sent_values("p-charge-info") == ["<sip:+12155551200@a.example>"]
    assert ksr.sent_values("contact") == [contact]


def test_the_request_route_itself_changes_nothing_that_a_branch_will_write(bench: Bench) -> None:
    substituting(bench)
    verstat = f"P-Asserted-Identity: <sip:{UNOWNED};verstat=TN-Validation-Passed@a.example>".encode()
    kamailio, ksr = bench.kamailio(invite(verstat, number=UNOWNED))
    kamailio.shaken_sign()
    assert ksr.lumps == Lumps()
    for index in range(2):  # a failover
        ksr.begin_branch(index)
        kamailio.shaken_branch()
        assert ksr.sent_values("p-asserted-identity") == [f"<sip:+{SUBSTITUTE}@a.example>"]
        assert len(ksr.sent_values("from")) == len(ksr.sent_values("identity")) == len(ksr.record_route) == 1
        ksr.end_branch()


def test_where_observed_nothing_is_substituted(bench: Bench) -> None:
    substituting(bench, mode="observe")
    _, ksr = substituted(bench)
    assert ksr.lumps == Lumps()
    assert (SIGNING, "substituted_for") not in ksr.xavps
    assert ksr.record_route == []


def test_replies_have_the_callers_own_from(bench: Bench) -> None:
    substituting(bench)
    kamailio, ksr = substituted(bench)
    ksr.receive(reply(180, f"From: <sip:+{SUBSTITUTE}@a.example>;tag=1".encode(), b"To: <sip:x@b.example>;tag=2"))
    assert kamailio.shaken_reply() == GO_ON
    assert ksr.sent_values("from") == [f'"J" <sip:{UNOWNED}@a.example>;tag=1']


def test_a_dialog_goes_on_with_each_sides_own_numbers(bench: Bench) -> None:
    substituting(bench)
    kamailio, ksr = substituted(bench)
    (route,) = ksr.record_route
    caller, other = f'"J" <sip:{UNOWNED}@a.example>;tag=1', f"<sip:+{SUBSTITUTE}@a.example>;tag=1"
    called = f"<sip:{CALLED}@b.example>;tag=2"
    # From the caller: as the other number, wherever it was named.
    message = within("INVITE", caller, called, f"P-Asserted-Identity: <sip:{UNOWNED}@a.example>".encode(), route=route)
    ksr = anew(kamailio, message)
    assert kamailio.shaken_dialog() == SUBSTITUTED
    assert ksr.sent_values("from") == [other]
    assert ksr.sent_values("p-asserted-identity") == [f"<sip:+{SUBSTITUTE}@a.example>"]
    ksr.receive(reply(200, f"From: {other}".encode(), f"To: {called}".encode()))
    kamailio.shaken_reply()
    assert ksr.sent_values("from") == [caller]
    # From the called: to the caller as it knows itself.
    ksr = anew(kamailio, within("BYE", called, other, route=route))
    assert kamailio.shaken_dialog() == SUBSTITUTED
    assert (ksr.sent_values("from"), ksr.sent_values("to")) == ([called], [caller])
    ksr.receive(reply(200, f"From: {called}".encode(), f"To: {caller}".encode()))
    kamailio.shaken_reply()
    assert ksr.sent_values("to") == [other]


def anew(kamailio: Kamailio, message: bytes) -> FakeKsr:
    """Another transaction in the same process."""
    ksr = kamailio._ksr
    assert isinstance(ksr, FakeKsr)
    ksr.xavps.clear()
    ksr.receive(message)
    return ksr


@pytest.mark.parametrize(
    "route",
    [
        "",
        ";shaken=",
        ";shaken=x.y",
        ";shaken=12155551299",
        f";shaken={'9' * 40}.x",
        f";shaken={SUBSTITUTE}.{'A' * 9000}",
    ],
)
def test_a_route_that_somebody_else_wrote_changes_nothing_for_the_caller(bench: Bench, route: str) -> None:
    substituting(bench)
    kamailio, ksr = bench.kamailio(within("BYE", "<sip:a@h>;tag=2", "<sip:b@h>;tag=1", route=route))
    assert kamailio.shaken_dialog() == (SUBSTITUTED if route else GO_ON)  # whoever wrote it: replies are looked at
    assert ksr.lumps == Lumps()
    assert not ksr.counters.get("fault_dialog")


def test_after_a_restart_the_other_number_stays_and_the_caller_reads_it(bench: Bench) -> None:
    """What was sealed before is not understood any more; dialogs are known by their tags."""
    substituting(bench)
    _, ksr = substituted(bench)
    (route,) = ksr.record_route
    caller, called = f"<sip:{UNOWNED}@a.example>;tag=1", f"<sip:{CALLED}@b.example>;tag=2"
    kamailio, ksr = bench.kamailio(within("BYE", caller, called, route=route))
    kamailio.shaken_dialog()
    assert ksr.sent_values("from") == [f"<sip:+{SUBSTITUTE}@a.example>;tag=1"]
    ksr = anew(kamailio, within("BYE", called, f"<sip:+{SUBSTITUTE}@a.example>;tag=1", route=route))
    kamailio.shaken_dialog()
    assert ksr.lumps == Lumps()


def test_without_the_module_rr_the_invite_is_substituted_and_it_is_said_what_is_not(bench: Bench) -> None:
    substituting(bench)
    kamailio, ksr = bench.kamailio(invite(number=UNOWNED))
    del ksr.rr
    kamailio.shaken_sign()
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    assert ksr.sent_values("from") == [f"<sip:+{SUBSTITUTE}@a.example>;tag=1"]
    assert ksr.counters["substitution_without_rr"] == 1
    assert any("record_route()" in text for _, text in ksr.logged)


SEEN_TO_BE_MISSING = {"substitution_without_rr", "substitution_without_record_route", "substitution_without_dialog"}


@pytest.mark.parametrize(
    ("status", "route", "missing"),
    [
        (200, f";lr;ftag=1;shaken={SUBSTITUTE}.x", False),
        (200, ";lr;ftag=1", True),
        (200, "", True),
        (180, "", False),  # it need not be there yet
        (486, "", False),
    ],
)
def test_an_answer_shows_whether_later_requests_come_by_here(
    bench: Bench, status: int, route: str, missing: bool
) -> None:
    substituting(bench)
    kamailio, ksr = substituted(bench)
    lines = (f"Record-Route: <sip:127.0.0.9;lr>, <sip:127.0.0.1{route}>".encode(),) if route else ()
    for _ in range(2):
        ksr.receive(reply(status, f"From: <sip:+{SUBSTITUTE}@a.example>;tag=1".encode(), *lines))
        assert kamailio.shaken_reply() == GO_ON
    assert set(ksr.counters) & SEEN_TO_BE_MISSING == ({"substitution_without_record_route"} if missing else set())
    assert len([text for _, text in ksr.logged if "record_route()" in text]) == missing  # once a minute


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("mode", ["active", "observe"])
def test_a_later_request_shows_whether_the_script_calls_shaken_dialog(bench: Bench, called: bool, mode: str) -> None:
    substituting(bench)
    _, ksr = substituted(bench)
    (route,) = ksr.record_route
    if mode != "active":
        substituting(bench, mode=mode)
    caller = f'"J" <sip:{UNOWNED}@a.example>;tag=1'
    kamailio, ksr = bench.kamailio(within("BYE", caller, f"<sip:{CALLED}@b.example>;tag=2", route=route))
    if called:
        assert kamailio.shaken_dialog() == (SUBSTITUTED if mode == "active" else GO_ON)
    ksr.begin_branch(0)
    assert kamailio.shaken_branch() == GO_ON
    missed = not called and mode == "active"
    assert set(ksr.counters) & SEEN_TO_BE_MISSING == ({"substitution_without_dialog"} if missed else set())
    assert len([text for _, text in ksr.logged if 'python_exec("shaken_dialog")' in text]) == missed


def test_a_new_call_with_a_route_of_ours_is_none_inside_a_dialog(bench: Bench) -> None:
    substituting(bench)
    kamailio, ksr = bench.kamailio(invite(b"Route: <sip:127.0.0.1;lr;ftag=1;shaken=1.x>", number=UNOWNED), STRANGER)
    kamailio.shaken_sign()
    ksr.begin_branch(0)
    assert kamailio.shaken_branch() == GO_ON
    assert not set(ksr.counters) & SEEN_TO_BE_MISSING


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("signing", [{}, {"unauthorised": "substitute", "substitute": f"+{SUBSTITUTE}"}])
@pytest.mark.parametrize("loaded", [True, False])
def test_the_start_says_that_what_substitution_needs_is_not_loaded(
    bench: Bench, signing: dict[str, object], loaded: bool
) -> None:
    bench.configure(signing=signing)
    ksr = FakeKsr(invite())
    if not loaded:
        del ksr.rr
    Kamailio(ksr, bench.provider.settings)
    warned = [text for level, text in ksr.logged if level == "warn" and 'loadmodule "rr.so"' in text]
    assert len(warned) == (bool(signing) and not loaded)


@pytest.mark.parametrize(
    ("name", "restored"),
    [
        (b'"\xff" ', "<sip:+19175550199@a.example>;tag=1"),
        (b'"' + b"n" * 300 + b'" ', "<sip:+19175550199@a.example>;tag=1"),
    ],
)
def test_a_name_that_is_no_text_or_very_long_is_not_kept(bench: Bench, name: bytes, restored: str) -> None:
    substituting(bench)
    kamailio, ksr = bench.kamailio(invite(number=UNOWNED).replace(b'"J" ', name))
    kamailio.shaken_sign()
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    assert ksr.sent_values("from") == [f"<sip:+{SUBSTITUTE}@a.example>;tag=1"]
    ksr.receive(reply(180, f"From: <sip:+{SUBSTITUTE}@a.example>;tag=1".encode()))
    kamailio.shaken_reply()
    assert ksr.sent_values("from") == [restored]


def test_identity_headers_of_the_number_of_before_go_even_where_nothing_is_signed(bench: Bench) -> None:
    substituting(bench, stale_date="leave")
    stale = b"Date: Wed, 18 Nov 2026 10:00:00 GMT"
    _, ksr = substituted(bench, stale, b"Identity: a.b.c;info=<https://x.example/>")
    assert ksr.xavps[SIGNING, "skip"] == "date_stale"
    assert ksr.sent_values("identity") == []
    assert ksr.sent_values("from") == [f"<sip:+{SUBSTITUTE}@a.example>;tag=1"]


# --- Refusals and routes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "number", "refusal", "answer"),
    [
        (BANNED, OWN, "suspended", (403, "Customer Suspended")),
        (STRANGER, OWN, "unknown_source", (480, "Who Are You")),
        (PENDING, OWN, "pending", (403, "Customer Not Verified")),
        (CUSTOMER, UNOWNED, "unauthorised", (488, "Caller ID Not Authorised")),
        (CUSTOMER, "+10005551212", "do_not_originate", (403, "Caller ID Must Not Originate Calls")),
    ],
)
def test_each_refusal_has_an_answer_of_its_own_and_is_named(
    bench: Bench, source: str, number: str, refusal: str, answer: tuple[int, str]
) -> None:
    answers = {"unknown_source": {"status": 480, "phrase": "Who Are You"}, "unauthorised": {"status": 488}}
    choices = {"unknown_source": "refuse", "pending_customer": "refuse", "unauthorised": "refuse"}
    bench.configure(signing={**choices, "answers": answers})
    kamailio, ksr = bench.kamailio(invite(number=number), source)
    assert kamailio.shaken_sign() == ANSWERED
    assert ksr.reply == answer
    assert ksr.reply_headers == []  # no Retry-After, no Reason
    assert ksr.xavps[SIGNING, "refusal"] == refusal
    assert ksr.counters[f"refused_{refusal}"] == 1
    kamailio, ksr = bench.kamailio(invite(number=number, to="<sip:911@b.example>"), source)
    assert kamailio.shaken_sign() == GO_ON
    assert ksr.reply is None
    assert (SIGNING, "refusal") not in ksr.xavps


def test_the_script_may_name_the_route(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    assert kamailio._read().route == ""
    ksr.xavps[ASKED, "route"] = "cheap"
    assert kamailio._read().route == "cheap"


# --- Limits -----------------------------------------------------------------------------------------


class Counts:
    """A `ports.CallLimiter` that is asked and told, and has room for one call."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.asked: list[Request] = []
        self.running: set[str] = set()

    def ahead(self, customer: str, bounds: tuple[Bound, ...], level: str) -> str:
        return ""

    def admit(self, request: Request) -> Verdict:
        self.asked.append(request)
        if self.running - {request.call}:
            return Verdict(Outcome.CONCURRENT)
        self.running.add(request.call)
        return Verdict(Outcome.ADMITTED)

    def trouble(self) -> str:
        return ""

    def followed(self, call: str, owner: str = "") -> None:
        self.told.append(("followed", call))

    def ended(self, call: str) -> None:
        self.told.append(("ended", call))
        self.running.discard(call)

    def referred(self, call: str, to: str) -> None:
        self.told.append((to, call))


def limited(bench: Bench, counts: Counts, message: bytes, **limits: object) -> tuple[Kamailio, FakeKsr]:
    """An adapter, for calls of a customer with a limit on concurrent calls."""
    for file in bench.folder.glob("policy.db*"):
        file.unlink()
    bench.configure(limits=limits)
    with SqlitePolicy(bench.folder / "policy.db").change(Author("test", "limits", NOW), "limits") as draft:
        acme = draft.get(Customer, "acme")
        assert acme is not None
        draft.put(replace(acme, limits=Limits(Rate(None, 1))))
    assert bench.services.authentication is not None
    enforce = bench.services.settings.limits.mode == "enforce"
    bench.services.authentication.limiter = Limiter(counts, bench.services.plan, enforce)
    bench.services = replace(bench.services, limiter=counts)
    kamailio, ksr = bench.kamailio(message)
    kamailio.switch._new_uuid = lambda: str(uuid.uuid4())
    return kamailio, ksr


DIALOG = key("acme", "call-1", "1")


def test_a_call_with_a_slot_is_followed_to_its_end(bench: Bench) -> None:
    counts = Counts()
    kamailio, ksr = limited(bench, counts, invite())
    assert kamailio.shaken_sign() == GO_ON
    slot = ksr.xavps["shaken_as", "slot"]
    assert dialog_of(slot) == DIALOG != slot
    assert (ksr.managed, ksr.dialogs) == (True, {"shaken_slot": slot})
    assert not counts.asked[0].sent
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    ksr.end_branch()
    for name in ("dialog:start", "dialog:whatever", "", "dialog:end", "dialog:failed"):
        assert kamailio.shaken_event(None, name) == GO_ON
    told = [("ended", slot), ("ended", slot)]
    assert counts.told == [("followed", slot), *told]
    # As the examples have it, which spares a question; calls without a slot have dialogs, too.
    ksr.dialogs.clear()
    counts.told.clear()
    assert kamailio.shaken_event(None, "dialog:end") == GO_ON
    for value in (slot, "<null>", ""):
        assert kamailio.shaken_left(None, value) == kamailio.shaken_ended(None, value) == GO_ON
    assert counts.told == [("followed", slot), ("ended", slot)]
    # And as they once had it.
    counts.told.clear()
    for name in ("dialog:start", "dialog:whatever", "dialog:end", "dialog:failed"):
        for value in (slot, "<null>", ""):
            assert kamailio.shaken_event(None, f"{name} {value}") == GO_ON
    assert counts.told == told


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_usual_call_at_a_limit_is_published_with_its_slot(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, one_by_one: bool
) -> None:
    counts, told = Counts(), []
    kamailio, ksr = limited(bench, counts, invite())
    for _ in range(4):  # the third call is the first that can be a usual one
        counts.running.clear()
        if one_by_one:
            monkeypatch.setattr(kamailio, "_explode", None)
        assert kamailio.shaken_sign() == GO_ON
        slot = ksr.xavps[SIGNING, "slot"]
        assert (ksr.xavps[SIGNING, "counted"], ksr.dialogs, ksr.xavps[ROUTES, "routes"]) == (
            slot, {"shaken_slot": slot}, "1",
        )  # fmt: skip
        ksr.begin_branch(0)
        kamailio.shaken_branch()
        assert [name for name, _ in ksr.sent() if name in {"Identity", "y"}] == ["Identity"]
        told.append(("followed", slot))
        kamailio, ksr = bench.kamailio(invite())
        kamailio.switch._new_uuid = lambda: str(uuid.uuid4())
    assert counts.told == told
    assert len({slot for _, slot in told}) == len(counts.asked) == 4


def test_a_call_over_the_limit_is_answered_without_retry_after_unless_the_settings_want_it(bench: Bench) -> None:
    counts = Counts()
    for limits, answer, headers in (
        ({}, (480, "Call Limit Reached"), []),
        ({"status": 503, "phrase": "Full", "retry_after": 9}, (503, "Full"), ["Retry-After: 9"]),
    ):
        counts.running = {"another"}
        kamailio, ksr = limited(bench, counts, invite(), **limits)
        assert kamailio.shaken_sign() == ANSWERED
        assert (ksr.reply, ksr.reply_headers, ksr.managed) == (answer, headers, False)
        assert ksr.has_transaction  # a retransmission gets the same answer, whatever has ended meanwhile


def test_events_of_dialogs_that_are_not_ours_and_calls_without_a_slot(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    assert kamailio.shaken_sign() == GO_ON
    assert not ksr.managed
    assert kamailio.shaken_event(None, "dialog:end") == GO_ON
    counts = Counts()
    kamailio, ksr = limited(bench, counts, invite())
    assert kamailio.shaken_event(None, "dialog:end") == GO_ON
    assert counts.told == []


def test_a_call_that_leaves_again_is_the_same_and_another_with_its_call_id_is_not(bench: Bench) -> None:
    counts = Counts()
    kamailio, ksr = limited(bench, counts, invite())
    kamailio.shaken_sign()
    slot = ksr.xavps["shaken_as", "slot"]
    ksr.xavps["shaken_as", "signed_at"] = ""
    kamailio.shaken_sign()
    assert [request.call for request in counts.asked] == [slot, slot]
    # The module dialog takes one with the same Call-ID and tag for the same (detect_spirals): it has no end of its own.
    for limits, answer in (({}, (480, "Call Limit Reached")), ({"mode": "report"}, None)):
        kamailio, ksr = limited(bench, counts, invite(), **limits)
        counts.running, counts.told = set(), []
        ksr.dialogs["shaken_slot"] = slot
        assert kamailio.shaken_sign() == (ANSWERED if answer else GO_ON)
        assert (ksr.reply, ksr.dialogs) == (answer, {"shaken_slot": slot})
        assert counts.told == [("ended", counts.asked[-1].call)]
        assert ksr.xavps["shaken_as", "over_limit"] == "unfollowed"
        assert any("detect_spirals" in text for _, text in ksr.logged)


def test_a_call_that_the_module_dialog_does_not_take_has_no_slot(bench: Bench) -> None:
    for limits, answer in (({}, (480, "Call Limit Reached")), ({"mode": "report"}, None)):
        counts = Counts()
        kamailio, ksr = limited(bench, counts, invite(), **limits)
        ksr.can_manage = False
        assert kamailio.shaken_sign() == (ANSWERED if answer else GO_ON)
        assert (ksr.reply, ksr.dialogs) == (answer, {})
        assert counts.told == [("ended", counts.asked[-1].call)]
        assert ksr.counters["limits_without_dialog"] == 1
        assert any("has no tag" in text for _, text in ksr.logged)


def test_a_dialog_that_the_script_has_begun_itself_is_as_good(bench: Bench) -> None:
    kamailio, ksr = limited(bench, Counts(), invite())
    ksr.managed = True
    assert kamailio.shaken_sign() == GO_ON
    assert ksr.dialogs["shaken_slot"] == ksr.xavps["shaken_as", "slot"]


@pytest.mark.parametrize("again", ["sign", "divert"])
def test_a_fault_of_ours_leaves_no_slot_in_the_dialog(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """The same INVITE is asked about once more, and is not another with its Call-ID."""
    counts = Counts()
    kamailio, ksr = limited(bench, counts, invite())
    with monkeypatch.context() as patched:
        patched.setattr(AuthenticationService, "_attested", None)
        assert kamailio.shaken_sign() == GO_ON
    assert not ksr.dialogs["shaken_slot"]
    assert counts.running == set()  # else it would be its own slot that leaves it no room
    kamailio.shaken_sign() if again == "sign" else kamailio.shaken_divert(None, f"sip:{CALLED}@b.example")
    assert ksr.reply is None
    assert ksr.dialogs["shaken_slot"] == ksr.xavps["shaken_as", "slot"] == counts.asked[-1].call
    assert "limits_same_call_id" not in ksr.counters


def test_a_note_that_cannot_be_taken_back_is_none_of_the_next_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kamailio, ksr = limited(bench, Counts(), invite())

    def sets(name: str, value: str) -> None:
        if not value:
            raise SystemError("the switch does not want to")
        ksr.dialogs[name] = value

    with monkeypatch.context() as patched:
        patched.setattr(AuthenticationService, "_attested", None)
        patched.setattr(ksr.pv, "sets", sets)
        assert kamailio.shaken_sign() == GO_ON
    assert ksr.counters["fault_sign"] == 2  # of what is patched, and of the note
    assert not kamailio._calls.noted


@pytest.mark.parametrize("limits", [Limits(), Limits(Rate(None, 2))])
def test_limits_that_change_while_a_call_is_signed_leave_it_one_slot_or_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    counts = Counts()
    kamailio, ksr = limited(bench, counts, invite())
    for _ in range(2):  # from the third on such a call is a usual one
        kamailio.shaken_sign()
        ksr.xavps.clear()
        ksr.dialogs.clear()
        counts.running.clear()

    def changed(_switch: Switch, *_arguments: object) -> None:
        with SqlitePolicy(bench.folder / "policy.db").change(Author("test", "limits", NOW), "limits") as draft:
            acme = draft.get(Customer, "acme")
            assert acme is not None
            draft.put(replace(acme, limits=limits))
        counts.running.clear()

    monkeypatch.setattr(Switch, "_usually", changed)
    kamailio.shaken_sign()
    slots = [asked.call for asked in counts.asked[2:]]
    assert set(counts.told) == {("ended", slots[0])}
    assert ksr.reply is None
    assert ksr.dialogs["shaken_slot"] == ("" if limits == Limits() else slots[1])


def test_a_refer_inside_a_dialog_is_told_with_its_slot(bench: Bench) -> None:
    counts = Counts()
    message = invite(b"Refer-To: <sip:+12025550199@b.example>", to=f"<sip:{CALLED}@b.example>;tag=2")
    kamailio, ksr = limited(bench, counts, message)
    assert kamailio.shaken_refer() == GO_ON  # of a call without one
    assert counts.told == []
    ksr.dialogs["shaken_slot"] = "slot"
    assert kamailio.shaken_refer() == GO_ON
    assert counts.told == [(key("12025550199"), "slot")]
    kamailio, ksr = limited(bench, counts, invite())
    ksr.dialogs["shaken_slot"] = "slot"
    assert kamailio.shaken_refer() == GO_ON  # none that says where to
    assert len(counts.told) == 1


def test_without_the_module_dialog_it_is_said_at_the_start_and_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FakeKsr.__init__

    def without(self: FakeKsr, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]  # passed on
        self.dialog = None

    monkeypatch.setattr(FakeKsr, "__init__", without)
    counts = Counts()
    kamailio, ksr = limited(bench, counts, invite())
    said = [text for level, text in ksr.logged if level == "warn" and "NOT enforced" in text]
    assert len(said) == 1
    assert 'loadmodule "dialog.so"' in said[0]
    assert kamailio.shaken_sign() == GO_ON
    assert ksr.counters["limits_without_ends"] == 2


def test_a_process_whose_calls_cannot_be_counted_says_so_at_the_start(bench: Bench) -> None:
    class Homeless(Counts):
        def trouble(self) -> str:
            return "the folder cannot be written"

    class Broken(Counts):
        def trouble(self) -> str:
            raise RuntimeError

    kamailio, ksr = limited(bench, Homeless(), invite())
    assert kamailio.child_init(0) == kamailio.child_init(-4) == GO_ON
    assert not ksr.counters.get("limits_unavailable")
    assert kamailio.child_init(1) == GO_ON
    assert ksr.counters["limits_unavailable"] == 1
    text = "shaken: limits on concurrent calls are NOT enforced: the folder cannot be written\n"
    assert ("warn", text) in ksr.logged
    kamailio, ksr = limited(bench, Counts(), invite())
    kamailio.child_init(1)
    assert not ksr.counters.get("limits_unavailable")
    kamailio, ksr = limited(bench, Broken(), invite())
    assert kamailio.child_init(1) == GO_ON
    assert ksr.counters["fault_check_presence"] == 1


def test_what_fails_at_an_event_or_a_refer_is_survived(bench: Bench) -> None:
    class Broken(Counts):
        def ended(self, call: str) -> None:
            raise RuntimeError

        def referred(self, call: str, to: str) -> None:
            raise RuntimeError

    kamailio, ksr = limited(bench, Broken(), invite(b"Refer-To: <sip:+12025550199@b.example>"))
    kamailio.shaken_sign()
    assert kamailio.shaken_event(None, "dialog:end") == GO_ON
    assert kamailio.shaken_refer() == GO_ON
    assert (ksr.counters["fault_ended"], ksr.counters["fault_refer"]) == (1, 1)


# --- Usual calls: fewer calls of Kamailio, the same results ------------------------------------------


def filled(octets: int) -> bytes:
    return b"X-Fill: " + octets * b"f"


@pytest.mark.parametrize("resign", [0, 30, 31])
@pytest.mark.parametrize("fill", [0, 2_000])
@pytest.mark.parametrize(
    "extra", [(), (b"Date: Wed, 18 Nov 2026 11:06:40 GMT",), ("X-Name: Jürgen".encode(),)], ids=["", "Date", "UTF-8"]
)
def test_a_usual_call_is_published_and_attached_as_any_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, extra: tuple[bytes, ...], fill: int, resign: int
) -> None:
    found = []
    for one_by_one in (False, True):
        for _ in range(3):  # the third call is the first that can be a usual one
            kamailio, ksr = bench.kamailio(invite(*extra, filled(fill)))
            if one_by_one:
                monkeypatch.setattr(kamailio, "_explode", None)
            assert kamailio.shaken_sign(user="alice") == GO_ON
            bench.clock.now += resign
            states = [kamailio._state()]
            for index in (0, 1):
                ksr.begin_branch(index)
                assert kamailio.shaken_branch() == GO_ON
                states.append(kamailio._state())
                ksr.end_branch()
            bench.clock.now -= resign
        known = {key: value for key, value in ksr.xavps.items() if key[1] not in {"state", "until"}}
        found.append((known, states, ksr.sent(), ksr.counters))
    assert found[0] == found[1]
    assert found[0][0][SIGNING, "user"] == "alice"
    assert found[0][0][SIGNING, "branches"] == "0,1,"


def test_a_usual_call_is_attached_at_once_up_to_the_octet_that_is_too_much(bench: Bench) -> None:
    def sign(fill: int) -> tuple[bool, bool]:
        for _ in range(3):
            kamailio, ksr = bench.kamailio(invite(filled(fill)))
            kamailio.shaken_sign()
        fits = ksr.xavps[SIGNING, "until"] != ""
        ksr.xavps[SIGNING, "until"] = ""  # the whole way
        before = ksr.counters.get("size_over", 0)
        ksr.begin_branch(0)
        kamailio.shaken_branch()
        return fits, ksr.counters.get("size_over", 0) == before

    assert sign(0) == (True, True)
    assert sign(1_000) == (False, False)
    largest = bisect.bisect(range(1_000), False, key=lambda fill: not sign(fill)[0]) - 1
    assert [sign(largest), sign(largest + 1)] == [(True, True), (False, False)]


UNUSUAL: Sequence[Callable[[bytes], bytes]] = (
    lambda message: message.replace(b"Call-ID:", b"i:"),
    lambda message: message.replace(b"Call-ID:", b"call-id:"),
    lambda message: message.replace(b";branch", b"\r\n ;branch"),
    lambda message: message.replace(b"X-Fill: ff", "X-Fill: \u00fc".encode()),
)


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_the_size_of_a_call_is_its_own_however_it_is_read(bench: Bench, unusual: Callable[[bytes], bytes]) -> None:
    kamailio, ksr = bench.kamailio(invite())
    large = unusual(invite(filled(2_000)))
    for message, until in ((invite(), True), (large, False), (invite(), True)):
        for _ in range(3):
            ksr.xavps.clear()
            ksr.receive(message)
            kamailio.shaken_sign()
        assert (ksr.xavps.get((SIGNING, "until"), "") != "") == until
        before = ksr.counters.get("size_over", 0)
        ksr.begin_branch(0)
        kamailio.shaken_branch()
        ksr.end_branch()
        assert ksr.counters.get("size_over", 0) - before == (0 if until else 1)


def test_where_signing_is_switched_off_nothing_is_said_of_a_call_and_what_was_said_stays(bench: Bench) -> None:
    kamailio, ksr = bench.kamailio(invite())
    kamailio.shaken_sign()
    before = dict(ksr.xavps)
    assert before[SIGNING, "level"] == "A"
    kamailio.switch.services = replace(bench.services, authentication=None)
    assert kamailio.shaken_sign() == GO_ON
    assert ksr.xavps == before
    ksr.xavps.clear()
    assert kamailio.shaken_sign() == GO_ON
    assert ksr.xavps == {}


@pytest.mark.parametrize(("seconds", "at_once"), [(0, True), (29, True), (30, False)])
def test_a_signature_is_attached_at_once_while_it_surely_is_young(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: int, at_once: bool
) -> None:
    for _ in range(3):
        kamailio, ksr = bench.kamailio(invite())
        kamailio.shaken_sign()
    whole: list[str] = []
    state = kamailio._state
    monkeypatch.setattr(kamailio, "_state", lambda: whole.append("asked") or state())  # type: ignore[func-returns-value]  # for both
    bench.clock.now += seconds
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    assert whole == ([] if at_once else ["asked"])
    assert [name for name, _ in ksr.sent() if name in {"Date", "Identity"}] == ["Date", "Identity"]


@pytest.mark.parametrize("how", ["shaken_verify", "shaken_divert", "earlier"])
def test_nothing_is_attached_at_once_where_more_is_to_be_done(bench: Bench, how: str) -> None:
    for _ in range(3):
        kamailio, ksr = bench.kamailio(invite())
        if how == "earlier":
            ksr.xavps[VERIFYING, "reason"] = 'STIR;cause=436;text="x"'
        kamailio.shaken_sign()
    if how == "shaken_verify":
        ksr.receive(invite(b"Identity: x;info=<https://127.0.0.1:9/none.pem>"))
        kamailio.shaken_verify()
        assert ksr.xavps[VERIFYING, "reason"]
    elif how == "shaken_divert":
        kamailio.shaken_divert(None, f"sip:{CALLED}@b.example")
    assert ksr.xavps[SIGNING, "until"] == ""
    ksr.begin_branch(0)
    kamailio.shaken_branch()
    assert ksr.xavps[ROUTES, "quiet"] == ("1" if how == "shaken_divert" else "")


@pytest.mark.parametrize("token", ["good", "none", "quote"])
def test_a_verdict_is_published_together_as_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    found = []
    for one_by_one in (False, True):
        extra = {"good": bench.identity_of(), "none": None, "quote": "x';y='"}[token]
        kamailio, ksr = bench.kamailio(invite(*([] if extra is None else [b"Identity: " + extra.encode()])), STRANGER)
        if one_by_one:
            monkeypatch.setattr(kamailio, "_explode", None)
        assert kamailio.shaken_verify() == GO_ON
        found.append((ksr.xavps, ksr.sent()))
    assert found[0] == found[1]
    assert found[0][0][VERIFYING, "result"]


@pytest.mark.parametrize("fails", ["x5u", "kamailio"])
def test_what_cannot_be_published_at_once_is_published_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    for _ in range(3):
        kamailio, ksr = bench.kamailio(invite())
        if fails == "kamailio":
            monkeypatch.setattr(kamailio, "_explode", lambda *_: -1)
        else:
            monkeypatch.setattr("shaken_plugin.switch.usual.Told.outcome", _with_a_quote)
        kamailio.shaken_sign()
    assert ksr.xavps[SIGNING, "level"] == "A"
    assert ksr.xavps[ROUTES, "routes"] == "1"
    published = {name: value for (root, name), value in ksr.xavps.items() if root == SIGNING}
    assert unpack(pack(published)) == kamailio._state()


def _with_a_quote(
    told: Told, identity: str, signature: str, date: str, now: float, _asked: object = None
) -> SwitchOutcome:
    changing = {"identity": f"{identity}'", "ppi": signature, "signed_at": str(int(now)), "date": date}
    return SwitchOutcome({**told.same.variables, **changing}, same=told.same)
