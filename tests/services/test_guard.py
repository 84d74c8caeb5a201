"""The guard: nothing of ours may drop a call, whatever is raised wherever."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from shaken_plugin.authentication import OrigidScope, SigningPair
from shaken_plugin.lab.pki import Authority
from shaken_plugin.ports import Severity
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.switch import Outcome, Reject
from shaken_plugin.switch.reports import Reporter
from tests.services.bench import Bench
from tests.services.builders import (
    RANDOM_ORIGID,
    BrokenStore,
    call,
    pair,
    policy,
)

FAULT = {"skip": "internal_error", "code": "internal_error"}


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


def _broken() -> MemoryStore:
    store = MemoryStore(policy())
    store.broken = True
    return store


FAULTS = [
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "hostile text"),
    ValueError("hostile text"),
    MemoryError(),
    RecursionError("hostile text"),
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    AssertionError("hostile text"),
]
each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)


def _raise(fault: BaseException) -> Callable[[], NoReturn]:
    def read() -> NoReturn:
        raise fault

    return read


@each_fault
@pytest.mark.parametrize("on_fault", ["continue", "refuse"])
@pytest.mark.parametrize("where", ["sign", "verify"])
def test_a_reader_that_raises_lets_the_call_go_on(
    authority: Authority, ours: SigningPair, fault: BaseException, on_fault: str, where: str
) -> None:
    # Even with ``refuse``: without a message there is no telling whether it is an emergency call.
    bench = Bench.make(authority, ours, on_fault=on_fault)
    outcome: Outcome = getattr(bench.switch, where)(_raise(fault))
    assert (dict(outcome.variables), outcome.reject) == (FAULT, None)
    assert bench.observer.counts == {f"fault_{where}": 1}
    (line,) = bench.lines(Severity.ERROR)
    assert type(fault).__name__ in line
    assert "hostile" not in line


@each_fault
def test_a_service_that_raises_is_a_fault_answered_by_on_fault(
    authority: Authority, ours: SigningPair, fault: BaseException
) -> None:
    class Raising:
        def facts(self, *question: str | None, **more: str | None) -> NoReturn:
            raise fault

        def stamp(self) -> None:
            return None

    going_on = Bench.make(authority, ours, store=Raising())
    assert going_on.sign(call()) == Outcome(FAULT)
    refusing = Bench.make(authority, ours, store=Raising(), on_fault="refuse")
    assert refusing.sign(call()) == Outcome(FAULT, (), Reject(500, "Server Internal Error"))
    observing = Bench.make(authority, ours, store=Raising(), on_fault="refuse", signing={"mode": "observe"})
    assert observing.sign(call()) == Outcome(FAULT)


def test_the_same_fault_is_counted_each_time_and_logged_once_a_minute(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, store=BrokenStore())
    for _ in range(5):
        bench.sign(call())
    bench.clock[0] += 60
    bench.sign(call())
    assert bench.observer.counts["fault_sign"] == 6
    assert len(bench.events("fault")) == 2


def test_a_fault_says_where_it_happened(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, store=BrokenStore())
    bench.sign(call())
    (fault,) = bench.events("fault")
    assert (fault["where"], fault["type"]) == ("sign", "RuntimeError")
    assert fault["at"].startswith("builders.py:")
    assert "way.py:" in fault["at"]


class BrokenObserver:
    """The switch's log and counters, failing."""

    def log(self, severity: Severity, text: str) -> NoReturn:
        raise OSError("log")

    def count(self, name: str) -> NoReturn:
        raise OSError("count")


def test_an_observer_that_raises_does_not_drop_the_call(authority: Authority, ours: SigningPair) -> None:
    switch = Bench.make(authority, ours, on_fault="refuse").switch
    switch._reports = Reporter(BrokenObserver())
    assert switch.sign(call).reject is None
    assert switch.verify(call).reject is None
    assert switch.reply_reasons(["STIR;cause=438"], "..x", None) is None
    switch.fault("branch", ValueError())


def test_a_fault_of_an_adapter_is_logged_and_counted(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours)
    bench.switch.fault("branch", ValueError("hostile text"))
    assert bench.observer.counts == {"fault_branch": 1}
    assert bench.events("fault")[0]["type"] == "ValueError"


def test_a_store_that_this_process_cannot_read_is_warned_about(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, store=_broken())
    bench.switch.check_store()
    assert bench.observer.counts == {"store_unavailable": 1}
    assert "cannot be read" in bench.lines(Severity.WARNING)[0]


def test_a_store_that_can_be_read_or_is_not_needed_is_not_mentioned(authority: Authority, ours: SigningPair) -> None:
    for bench in (Bench.make(authority, ours), Bench.make(authority, store=_broken(), signing={"mode": "off"})):
        bench.switch.check_store()
        assert bench.observer.lines == []


def test_a_fault_while_the_store_is_checked_is_survived(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, store=BrokenStore())
    bench.switch.check_store()
    assert bench.observer.counts == {"fault_check_store": 1}


def test_new_services_take_effect_with_the_next_call(authority: Authority, ours: SigningPair) -> None:
    bench, other = Bench.make(authority, ours), Bench.make(authority, signing={"mode": "off"})
    assert bench.sign(call()).variables["level"] == "A"
    bench.switch.services = other.switch.services
    assert bench.sign(call()).variables == {"skip": "signing_off"}


def test_the_random_origid_is_drawn_anew_for_each_call(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, choices={"origid": OrigidScope.CALL})
    assert bench.sign(call()).variables["origid"] == RANDOM_ORIGID
