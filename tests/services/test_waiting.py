"""Calls that wait for a certificate: who may, for how long, how many, and what they get."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.errors import FailureCode
from shaken_plugin.lab.pki import Authority, Issued
from shaken_plugin.switch.waiting import MAX_PLACES, Held, WaitingRoom
from tests.conftest import NOW
from tests.services.bench import Bench
from tests.services.builders import EMERGENCIES, SPC, X5U, call, identity_of

# --- The places ---------------------------------------------------------------------------------


@pytest.fixture
def room() -> Iterator[WaitingRoom]:
    room = WaitingRoom()
    yield room
    room.close()


def test_there_are_as_many_places_as_asked_for_and_each_becomes_free_again(room: WaitingRoom) -> None:
    assert [room.enter(3, NOW + 2, NOW) for _ in range(4)] == [0, 1, 2, None]
    room.leave(1)
    assert [room.enter(3, NOW + 2, NOW) for _ in range(2)] == [1, None]


def test_a_place_whose_call_was_lost_becomes_free_by_itself(room: WaitingRoom) -> None:
    assert room.enter(1, NOW + 2, NOW) == 0
    assert room.enter(1, NOW + 3, NOW + 1.9) is None
    assert room.enter(1, NOW + 4, NOW + 2) == 0


def test_no_more_places_than_there_is_memory_for(room: WaitingRoom) -> None:
    assert sum(room.enter(10**9, NOW + 2, NOW) is not None for _ in range(MAX_PLACES + 1)) == MAX_PLACES


def test_all_processes_and_threads_share_the_places(room: WaitingRoom) -> None:
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            os._exit(sum(room.enter(100, NOW + 2, NOW) is not None for _ in range(25)))
        children.append(child)
    taken = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert taken == 100
    found: list[int | None] = []
    threads = [threading.Thread(target=lambda: found.append(room.enter(104, NOW + 2, NOW))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(place for place in found if place is not None) == [100, 101, 102, 103]


def test_what_is_remembered_of_a_held_call_survives_as_text() -> None:
    held = Held(3, NOW + 0.25)
    assert Held.parse(str(held)) == held
    assert Held.parse("") is None


# --- Holding and going on -----------------------------------------------------------------------


class Agent:
    """Fetches by a script of its own, and remembers what it was asked."""

    def __init__(self, bench: Bench, document: bytes | None, takes: float) -> None:
        self.asked: list[tuple[tuple[str, ...], float]] = []
        self._bench, self._document, self._takes = bench, document, takes

    def alive(self) -> bool:
        return True

    def fetch(self, urls: Sequence[str], timeout: float) -> None:
        self.asked.append((tuple(urls), timeout))
        if self._document is not None and self._takes <= timeout:
            self._bench.clock[0] += self._takes
            self._bench.source.documents[X5U] = self._document
        else:
            self._bench.clock[0] += timeout


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(spc=SPC, now=NOW)


@pytest.fixture(scope="module")
def theirs(issued: Issued) -> SigningPair:
    return load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=0, spc=SPC)


def bench_with(
    authority: Authority, room: WaitingRoom, document: bytes | None = None, takes: float = 0.2, **verification: Any
) -> tuple[Bench, Agent]:
    bench = Bench.make(authority, signing={"mode": "off"}, verification=verification)
    agent = Agent(bench, document, takes)
    bench.switch.services = replace(bench.switch.services, fetcher=agent)
    bench.switch.room = room
    return bench, agent


def test_a_held_call_gets_its_verdict_when_the_certificate_has_come(
    authority: Authority, room: WaitingRoom, issued: Issued, theirs: SigningPair
) -> None:
    bench, agent = bench_with(authority, room, issued.chain)
    message = call(identity=(identity_of(theirs),))
    first = bench.switch.verify(lambda: message, may_wait=True)
    assert (first.wait, first.actions, first.reject, agent.asked) == (True, (), None, [])
    bench.clock[0] += 0.01
    second = bench.switch.verify(lambda: message, waited=first.variables["waiting"])
    assert second.variables["result"] == "passed"
    ((urls, timeout),) = agent.asked
    assert urls == (X5U,)
    assert timeout == pytest.approx(1.99)
    assert room.enter(1, NOW, NOW) == 0  # its place is free again
    assert bench.observer.counts["verified_passed"] == 1


def test_a_call_with_a_thread_of_its_own_waits_in_its_place(
    authority: Authority, room: WaitingRoom, issued: Issued, theirs: SigningPair
) -> None:
    bench, agent = bench_with(authority, room, issued.chain, max_waiting=1)
    message = call(identity=(identity_of(theirs),))
    assert room.enter(1, NOW + 2, NOW) == 0
    crowded = bench.switch.verify(lambda: message, in_place=True)
    assert (crowded.wait, crowded.variables["code"]) == (False, "certificate_not_yet")
    room.leave(0)
    waited = bench.switch.verify(lambda: message, in_place=True)
    assert (waited.wait, waited.variables["result"]) == (False, "passed")
    assert agent.asked == [((X5U,), 0.0), ((X5U,), 2.0)]
    assert room.enter(1, NOW + 2, NOW) == 0  # its place is free again


def test_a_certificate_that_does_not_come_in_time_is_not_yet_and_never_refused(
    authority: Authority, room: WaitingRoom, theirs: SigningPair
) -> None:
    bench, agent = bench_with(authority, room, reject=[403, 428, 436, 437, 438])
    message = call(identity=(identity_of(theirs),))
    first = bench.switch.verify(lambda: message, may_wait=True)
    second = bench.switch.verify(lambda: message, waited=first.variables["waiting"])
    assert bench.clock[0] == pytest.approx(NOW + 2.0)
    assert second.reject is None
    assert (second.variables["result"], second.variables["code"]) == ("none", "certificate_not_yet")
    assert second.variables["verstat"] == "No-TN-Validation"
    assert "reason" not in second.variables  # it says nothing about the sender
    assert [line["x5u"] for line in bench.events("verify")] == [X5U]  # whose certificate it is that is missing
    assert room.enter(1, NOW, NOW) == 0
    assert len(agent.asked) == 1


def test_a_held_call_is_judged_by_the_time_it_came(
    authority: Authority, room: WaitingRoom, issued: Issued, theirs: SigningPair
) -> None:
    bench, _ = bench_with(authority, room, issued.chain, takes=1.5)
    message = call(identity=(identity_of(theirs, iat=NOW - 59),))
    first = bench.switch.verify(lambda: message, may_wait=True)
    assert bench.switch.verify(lambda: message, waited=first.variables["waiting"]).variables["result"] == "passed"


def test_no_more_calls_wait_than_there_are_places(authority: Authority, room: WaitingRoom, theirs: SigningPair) -> None:
    bench, agent = bench_with(authority, room, max_waiting=2)
    message = call(identity=(identity_of(theirs),))
    outcomes = [bench.switch.verify(lambda: message, may_wait=True) for _ in range(5)]
    assert [outcome.wait for outcome in outcomes] == [True, True, False, False, False]
    assert {outcome.variables["code"] for outcome in outcomes[2:]} == {"certificate_not_yet"}
    assert bench.observer.counts["waiting_full"] == 3
    # The agent is told, so that the next call finds the certificate; nobody waits for its answer.
    assert agent.asked == [((X5U,), 0.0)] * 3
    assert bench.clock[0] == NOW


def test_a_call_that_waited_too_long_for_a_worker_goes_on_at_once(
    authority: Authority, room: WaitingRoom, theirs: SigningPair
) -> None:
    bench, agent = bench_with(authority, room)
    message = call(identity=(identity_of(theirs),))
    first = bench.switch.verify(lambda: message, may_wait=True)
    bench.clock[0] += 2.5
    second = bench.switch.verify(lambda: message, waited=first.variables["waiting"])
    assert second.variables["code"] == "certificate_not_yet"
    assert agent.asked == []
    assert any("as many workers as verification.max_waiting" in line for _, line in bench.observer.lines)


@pytest.mark.parametrize("emergency", EMERGENCIES.values(), ids=EMERGENCIES)
def test_an_emergency_call_waits_for_nothing(
    authority: Authority, room: WaitingRoom, theirs: SigningPair, emergency: dict[str, Any]
) -> None:
    bench, agent = bench_with(authority, room)
    message = call(identity=(identity_of(theirs),), **emergency)
    assert not bench.switch.verify(lambda: message, may_wait=True).wait
    assert all(timeout == 0.0 for _, timeout in agent.asked)


@pytest.mark.parametrize("changes", [{"mode": "observe"}, {"wait": 0}])
def test_nobody_waits_where_the_settings_say_so(
    authority: Authority, room: WaitingRoom, theirs: SigningPair, changes: dict[str, Any]
) -> None:
    bench, agent = bench_with(authority, room, **changes)
    message = call(identity=(identity_of(theirs),))
    assert not bench.switch.verify(lambda: message, may_wait=True).wait
    assert agent.asked == [((X5U,), 0.0)]


def test_nobody_waits_where_nobody_fetches(authority: Authority, room: WaitingRoom, theirs: SigningPair) -> None:
    bench, _ = bench_with(authority, room)
    bench.switch.services = replace(bench.switch.services, fetcher=None)
    outcome = bench.verify(call(identity=(identity_of(theirs),)))
    assert (outcome.wait, outcome.variables["code"]) == (False, FailureCode.CERTIFICATE_NOT_YET.code)
