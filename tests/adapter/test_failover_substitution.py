"""A call that has left once with another caller ID leaves with it every time, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from shaken_plugin import runtime
from shaken_plugin.adapters.fake_freeswitch import FakeSession
from shaken_plugin.adapters.fake_kamailio import FakeKsr
from shaken_plugin.adapters.freeswitch.mod_python import Script
from shaken_plugin.adapters.kamailio import ANSWERED, GO_ON, SIGNING, Kamailio
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.lab.pki import Authority
from shaken_plugin.switch import Switch
from shaken_plugin.switch.process import Process
from tests.adapter.test_freeswitch import CALLED, Pbx
from tests.adapter.test_kamailio import OWN, SUBSTITUTE, UNOWNED, Bench, claims, invite, substituted, substituting
from tests.conftest import NOW

FROM = f"<sip:+{SUBSTITUTE}@a.example>;tag=1"
FOREIGN = b"Identity: a.b.c;info=<https://x.example/>"


@pytest.fixture
def bench(tmp_path: Path, authority: Authority) -> Bench:
    return Bench(tmp_path, authority)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    Script.process, Script._refused_at = None, float("-inf")
    Process.switch = Process.observer = None


class Gone:
    """A store that raises."""

    def __init__(self, exception: Exception) -> None:
        self.exception = exception

    def facts(self, *_question: str | None, **_more: str | None) -> NoReturn:
        raise self.exception

    def stamp(self) -> None:
        return None


def _raising(exception: Exception, switch: Switch) -> None:
    service = switch.services.authentication
    assert service is not None
    service.store = Gone(exception)


def _edited(bench: Bench, old: str, new: str) -> None:
    path = bench.folder / "policy.yaml"
    policy = path.read_text()
    assert old in policy
    path.write_text(policy.replace(old, new))
    runtime.apply(bench.provider.settings, NOW)


def suspended(bench: Bench, _switch: Switch) -> None:
    _edited(bench, "state: verified", "state: suspended")


def authorised(bench: Bench, _switch: Switch) -> None:
    _edited(bench, "+12155551200..+12155551299", UNOWNED)


def store_away(_bench: Bench, switch: Switch) -> None:
    _raising(StoreUnavailable("gone"), switch)


def a_bug(_bench: Bench, switch: Switch) -> None:
    _raising(RuntimeError("a bug"), switch)


def another_number(bench: Bench, switch: Switch) -> None:
    substituting(bench, substitute=OWN)
    switch.services = bench.services


def downgraded(bench: Bench, switch: Switch) -> None:
    bench.configure()
    switch.services = bench.services


def observed(bench: Bench, switch: Switch) -> None:
    substituting(bench, mode="observe")
    switch.services = bench.services


def switched_off(bench: Bench, switch: Switch) -> None:
    bench.configure(signing={"mode": "off"})
    switch.services = bench.services


Change = Callable[[Bench, Switch], None]
CHANGES: dict[Change, str] = {
    suspended: "policy_refused",
    authorised: "substitute_changed",
    store_away: "store_unavailable",
    a_bug: "internal_error",
    another_number: "substitute_changed",
    downgraded: "substitute_changed",
    observed: "",
    switched_off: "signing_off",
}


def leave(kamailio: Kamailio, ksr: FakeKsr, index: int, host: str = "a.example") -> None:
    ksr.begin_branch(index)
    assert kamailio.shaken_branch() == GO_ON
    assert ksr.sent_values("from") == [FROM]
    assert ksr.sent_values("p-asserted-identity") == [f"<sip:+{SUBSTITUTE}@{host}>"]
    assert FOREIGN[10:].decode() not in ksr.sent_values("identity")
    assert ksr.xavps[SIGNING, "substituted_for"] == UNOWNED[1:]


@pytest.mark.parametrize("change", CHANGES)
def test_a_failover_in_kamailio(bench: Bench, change: Change) -> None:
    substituting(bench)
    kamailio, ksr = substituted(bench, FOREIGN)
    ksr.end_branch()
    change(bench, kamailio.switch)
    bench.clock.now += 31
    for index in range(1, 3):
        leave(kamailio, ksr, index)
        assert ksr.sent_values("identity") == []
        assert ksr.xavps[SIGNING, "skip"] == CHANGES[change]
        ksr.end_branch()
        assert kamailio.shaken_sign() == GO_ON  # in a failure route, too
        assert ksr.reply is None


def test_a_failover_for_which_nothing_changed_is_signed_anew(bench: Bench) -> None:
    substituting(bench)
    kamailio, ksr = substituted(bench, FOREIGN)
    ksr.end_branch()
    bench.clock.now += 31
    leave(kamailio, ksr, 1)
    (value,) = ksr.sent_values("identity")
    assert (claims(value)["orig"], claims(value)["iat"]) == ({"tn": SUBSTITUTE}, int(NOW) + 31)


@pytest.mark.parametrize("change", [suspended, store_away])
@pytest.mark.parametrize("switch", ["Kamailio", "FreeSWITCH"])
def test_a_caller_that_only_the_second_header_names(bench: Bench, change: Change, switch: str) -> None:
    """Who the caller is may itself be judged otherwise then."""
    substituting(bench)
    uri = "<sip:alice@x.example>"
    if switch == "FreeSWITCH":
        pbx, hook = Pbx(bench), {"execute_on_originate_shaken": "python shaken::sign"}
        partner = pbx.arrive(invite(number=UNOWNED))
        more = {**hook, "sip_h_P-Asserted-Identity": uri}
        assert pbx.leave(partner, **more).sent("From") == [f"<sip:+{SUBSTITUTE}@invalid>"]
        change(bench, pbx.process.switch)
        second = pbx.leave(partner, **more)
        assert second.cause or UNOWNED[1:] not in shown(second)
        return
    kamailio, ksr = substituted(bench, f"P-Asserted-Identity: {uri}".encode())
    assert ksr.sent_values("from") == [FROM]
    ksr.end_branch()
    change(bench, kamailio.switch)
    bench.clock.now += 31
    leave(kamailio, ksr, 1, "x.example")


def test_a_call_that_is_sent_on_after_it_left(bench: Bench) -> None:
    """By the failure route, to another number: no div is for the caller that it shows; it is signed anew."""
    substituting(bench)
    kamailio, ksr = substituted(bench, FOREIGN)
    ksr.end_branch()
    ksr.uri = "sip:+17185550111@c.example"
    assert kamailio.shaken_divert(None, f"sip:{OWN}@a.example") == GO_ON
    leave(kamailio, ksr, 1)
    (value,) = ksr.sent_values("identity")
    assert claims(value)["orig"] == {"tn": SUBSTITUTE}
    suspended(bench, kamailio.switch)
    assert kamailio.shaken_divert(None, f"sip:{OWN}@a.example") == ANSWERED


def test_an_emergency_call_says_who_calls_even_then(bench: Bench) -> None:
    substituting(bench)
    kamailio, ksr = substituted(bench)
    ksr.end_branch()
    ksr.uri = "sip:911@b.example"
    assert kamailio.shaken_divert(None, f"sip:{OWN}@a.example") == GO_ON
    ksr.begin_branch(1)
    assert kamailio.shaken_branch() == GO_ON
    assert UNOWNED in ksr.sent_values("from")[0]


def shown(leg: FakeSession) -> str:
    return "\n".join(f"{name}: {value}" for name, value in leg.invite() if name not in {"Identity", "Date"})


@pytest.mark.parametrize("change", [change for change in CHANGES if change is not suspended])
def test_a_second_leg_in_freeswitch(bench: Bench, change: Change) -> None:
    substituting(bench)
    pbx = Pbx(bench)
    partner = pbx.arrive(invite(number=UNOWNED))
    hook = {"execute_on_originate_shaken": "python shaken::sign"}
    first = pbx.leave(partner, **hook)
    assert len(first.sent("Identity")) == 1
    change(bench, pbx.process.switch)
    second = pbx.leave(partner, CALLED[:-1] + "4", **hook)
    assert UNOWNED[1:] not in shown(second)
    assert second.sent("From") == [f"<sip:+{SUBSTITUTE}@invalid>"]
    assert second.sent("Identity") == []
    assert second.getVariable("shaken_as_skip") == (CHANGES[change] or None)


@pytest.mark.parametrize("called", [CALLED, "911"])
def test_a_second_leg_for_which_there_was_no_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch, called: str) -> None:
    substituting(bench)
    pbx = Pbx(bench)
    partner = pbx.arrive(invite(number=UNOWNED))
    hook = {"execute_on_originate_shaken": "python shaken::sign"}
    pbx.leave(partner, **hook)

    def busy(_leg: object, _work: object) -> NoReturn:
        raise TimeoutError("too many calls wait for a thread")

    monkeypatch.setattr(pbx.process, "_worked", busy)
    second = pbx.leave(partner, called, **hook)
    assert second.sent("Identity") == []
    assert (UNOWNED[1:] in shown(second)) == (called == "911")


def test_a_second_leg_of_a_customer_that_was_suspended_does_not_leave(bench: Bench) -> None:
    substituting(bench)
    pbx = Pbx(bench)
    partner = pbx.arrive(invite(number=UNOWNED))
    hook = {"execute_on_originate_shaken": "python shaken::sign"}
    pbx.leave(partner, **hook)
    suspended(bench, pbx.process.switch)
    assert pbx.leave(partner, **hook).cause == "OUTGOING_CALL_BARRED"


def test_a_second_leg_with_a_number_of_its_own_is_judged_by_that(bench: Bench) -> None:
    """The dialplan may show another number by each route."""
    substituting(bench)
    pbx = Pbx(bench)
    partner = pbx.arrive(invite(number=UNOWNED))
    hook = {"execute_on_originate_shaken": "python shaken::sign"}
    pbx.leave(partner, **hook)
    partner.put("effective_caller_id_number", OWN)
    second = pbx.leave(partner, **hook)
    assert claims(second.sent("Identity")[0])["orig"] == {"tn": OWN[1:]}


@pytest.mark.parametrize("text", ["", "x", "1.2", "12155551299.", f"+1.{'0' * 32}", f"{'1' * 99}.{'0' * 32}"])
def test_what_is_no_note_of_ours_is_none(bench: Bench, text: str) -> None:
    substituting(bench)
    pbx = Pbx(bench)
    partner = pbx.arrive(invite(number=OWN))
    partner.put("shaken_left_as", text)
    leg = pbx.leave(partner, execute_on_originate_shaken="python shaken::sign")
    assert claims(leg.sent("Identity")[0])["orig"] == {"tn": OWN[1:]}
