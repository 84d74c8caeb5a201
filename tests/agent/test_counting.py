"""The agent counts calls: for one host, and together with the other hosts of a fleet."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.agent import counting, heldcalls
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.allowances import KEPT, REMEMBERED
from shaken_plugin.agent.breaker import Breaker
from shaken_plugin.agent.callrequests import MAX_REPLACES, CallRequests
from shaken_plugin.agent.counting import OVERTAKEN, Counting
from shaken_plugin.agent.heldcalls import LONGEST, RINGS_ON, SETUP, UNSENT
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.shared import PATIENCE, FleetCounts
from shaken_plugin.agent.told import Told
from shaken_plugin.core.limits import SECOND, Outcome, Request, Verdict
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.stores.agent_line import message
from shaken_plugin.stores.limiter import uptime
from shaken_plugin.stores.presence import FOLDER, Presence, leg_owner
from shaken_plugin.stores.redis.limits import RedisCounts
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.telemetry import MemoryObserver
from tests.conftest import NOW
from tests.property.test_limit_properties import START, of
from tests.stores.locking import recovering

ONE = of(("", None, 1))
_names = itertools.count()


class Bench:
    """One host's counting, with a clock that stands where it is put."""

    def __init__(self, folder: Path, shared: FleetCounts | None = None) -> None:
        self.folder, self.shared, self.now = folder, shared, NOW
        self.follower: Follower | None = None
        self.metrics, self.observer = Metrics(), MemoryObserver()
        self.alarms = Alarms(self.observer, self.metrics.alarms, lambda: self.now)
        self.counting = self.started()

    def started(self) -> Counting:
        """A new agent, on what the one before left."""
        file = self.folder / "agent.slots.sqlite"
        made = Counting(file, self.folder, self.alarms, Metrics(), lambda: self.now, self.shared, self.follower)
        made.open()
        return made

    def restart(self) -> None:
        self.counting.close()
        self.counting = self.started()

    def admit(self, call: str, owner: str = "", **parts: Any) -> Outcome:
        request = Request("acme", call, **{"bounds": ONE, "level": "A", **parts})
        outcome: Outcome = run(self.counting.admit(request, owner)).outcome
        return outcome

    def end(self, call: str) -> None:
        run(self.tell("ended", call))

    def tell(self, op: str, call: str, **parts: Any) -> Coroutine[Any, Any, None]:
        return self.counting.tell([Told(op, call, **parts)])

    def followed(self, call: str, owner: str = "") -> Coroutine[Any, Any, None]:
        return self.tell("followed", call, owner=owner)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        run(self.counting.look())

    @property
    def slots(self) -> Any:
        return self.counting.status()["slots"]


_loop = asyncio.new_event_loop()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return _loop.run_until_complete(work)


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[None]:
    yield
    _loop.run_until_complete(_loop.shutdown_default_executor())
    _loop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.counting.close()


def test_an_agent_that_is_restarted_forgets_no_call(bench: Bench) -> None:
    assert bench.admit("a") is Outcome.ADMITTED
    run(bench.followed("a"))
    bench.restart()
    assert bench.admit("b") is Outcome.CONCURRENT
    bench.pass_time(6 * 3600)
    assert bench.admit("b") is Outcome.CONCURRENT
    bench.restart()
    bench.end("a")
    bench.end("a")
    assert bench.admit("b") is Outcome.ADMITTED
    bench.restart()
    assert bench.slots == 1


class Follower:
    """Is told of the ends of some calls."""

    def __init__(self, *owners: str) -> None:
        self.owners = set(owners)
        self.resumed: list[tuple[str, str]] = []

    def resume(self, owner: str, call: str) -> None:
        self.resumed.append((owner, call))

    def follows(self, owner: str) -> bool:
        return owner in self.owners


LEG_A, LEG_B = leg_owner("core", "a"), leg_owner("core", "b")


def followed(bench: Bench) -> Follower:
    """Calls of two legs that this agent was told the ends of; it is another one now."""
    two = of(("", None, 2))
    for call, owner in (("call a", LEG_A), ("call b", LEG_B)):
        assert bench.admit(call, owner="1-1", bounds=two) is Outcome.ADMITTED
        run(bench.followed(call, owner))
    bench.follower = follower = Follower(LEG_A, LEG_B)
    bench.restart()
    return follower


def test_calls_whose_ends_the_agent_is_told_itself_keep_their_slots_when_it_is_restarted(bench: Bench) -> None:
    follower = followed(bench)
    assert sorted(follower.resumed) == [(LEG_A, "call a"), (LEG_B, "call b")]
    bench.pass_time(1)
    bench.pass_time(6 * 3600)
    assert bench.slots == 2
    assert bench.admit("new", bounds=of(("", None, 2))) is Outcome.CONCURRENT
    follower.owners.remove(LEG_A)
    bench.pass_time(1)
    assert bench.slots == 1
    bench.end("call b")
    assert bench.slots == 0


def test_where_no_agent_is_told_any_more_such_calls_have_no_slots(bench: Bench) -> None:
    followed(bench)
    bench.follower = None
    bench.restart()
    bench.pass_time(1)
    assert bench.slots == 0


def test_such_a_call_goes_on_also_if_the_answer_for_another_route_is_not_heard(bench: Bench) -> None:
    followed(bench)
    run(bench.counting.admit(Request("acme", "call a", ONE, "A"), "1-1", 7))
    run(bench.tell("undo", "call a", owner="1-1", ask=7))
    bench.pass_time(1)
    assert bench.slots == 2


@pytest.mark.parametrize("owner", [7, "1-1", "leg:", "leg:a:b c"])
def test_who_is_no_leg_owns_no_call(bench: Bench, owner: object) -> None:
    told = {"op": "followed", "call": "a", "owner": owner}
    assert answered(bench, told) == {"error": "a request for followed that is none"}


def test_an_end_that_overtakes_its_beginning_frees_the_slot(bench: Bench) -> None:
    """Of a worker that waited no longer, and told it over another connection."""
    bench.end("a")
    assert bench.admit("a") is Outcome.ADMITTED
    assert bench.slots == 0
    assert bench.admit("a") is Outcome.ADMITTED
    assert bench.slots == 1
    bench.end("a")
    bench.end("b")
    bench.pass_time(OVERTAKEN + 1)
    assert bench.admit("b") is Outcome.ADMITTED
    assert bench.slots == 1


def test_an_end_while_redis_is_asked_frees_the_slot(fleet: Fleet) -> None:
    host = fleet.hosts[0]

    async def both() -> None:
        beginning = asyncio.create_task(host.counting.admit(Request("acme", "a", ONE, "A"), ""))
        await asyncio.sleep(0)
        await host.tell("ended", "a")
        assert (await beginning).outcome is Outcome.ADMITTED

    run(both())
    assert host.slots == 0
    assert fleet.counts[0].slots("acme") == 0


def test_what_a_process_left_while_nobody_answered_is_taken_once(bench: Bench) -> None:
    worker = Presence(bench.folder)
    run(bench.counting.collect())
    assert bench.admit("a", worker.name()) is Outcome.ADMITTED
    lines = [
        b"no JSON", b"[" * 10_000, b"7", b"{}", b"", b'{"op": "ended", "call": 7}', b'{"op": "ping"}',
        b'{"op": "followed", "call": "a"}',
    ]  # fmt: skip
    for line in lines:
        worker.leave(line + b"\n")
    run(bench.counting.collect())
    bench.pass_time(SETUP + 1)
    assert bench.slots == 1  # its end will be told
    worker.leave(message({"op": "ended", "call": "a"})[:-1])
    run(bench.counting.collect())
    assert bench.slots == 1  # the rest of the line is under way
    worker.leave(b"\n")
    run(bench.counting.collect())
    assert bench.slots == 0
    bench.pass_time(OVERTAKEN + 1)
    assert bench.admit("a", worker.name()) is Outcome.ADMITTED
    run(bench.counting.collect())
    assert bench.slots == 1


def ends(worker: Presence, calls: Sequence[str]) -> None:
    for call in calls:
        assert worker.leave(message({"op": "ended", "call": call}))


def test_what_a_process_left_makes_room_before_a_call_is_refused(bench: Bench) -> None:
    worker = Presence(bench.folder)
    assert bench.admit("a", worker.name()) is Outcome.ADMITTED
    assert bench.admit("b", worker.name()) is Outcome.CONCURRENT
    ends(worker, "a")
    assert bench.admit("b", worker.name()) is Outcome.ADMITTED
    assert bench.slots == 1


def test_files_are_looked_at_while_there_are_calls(bench: Bench) -> None:
    worker = Presence(bench.folder)
    ends(worker, ["of a call that nobody knows"])
    run(bench.counting.collect_when_due())
    assert bench.admit("a", worker.name()) is Outcome.ADMITTED
    ends(worker, "a")
    run(bench.counting.collect_when_due())
    assert bench.slots == 0


def test_a_process_that_is_gone_is_believed_to_the_end(bench: Bench) -> None:
    """What it told of a call that another one runs."""
    gone, other = bench.folder / FOLDER / "1-1", Presence(bench.folder)
    assert bench.admit("a", other.name()) is Outcome.ADMITTED
    gone.write_bytes(message({"op": "ended", "call": "a"}))
    bench.pass_time(1)
    assert bench.slots == 0
    assert not gone.exists()


def test_after_a_reboot_there_are_no_calls(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench.admit("a")
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr(heldcalls, "_BOOT", tmp_path / "boot")
    bench.restart()
    assert bench.slots == 0
    assert bench.admit("b") is Outcome.ADMITTED


def test_a_process_that_ended_frees_its_slots_also_while_no_agent_ran(bench: Bench, tmp_path: Path) -> None:
    mine = Presence(tmp_path).name()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, Presence(tmp_path).name().encode())
        time.sleep(60)
        os._exit(0)
    theirs = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    two = of(("", None, 2))
    assert bench.admit("a", mine, bounds=two) is bench.admit("b", theirs, bounds=two) is Outcome.ADMITTED
    bench.pass_time(1)
    assert bench.slots == 2
    bench.counting.close()
    os.kill(child, 9)
    os.waitpid(child, 0)
    bench.counting = bench.started()
    bench.pass_time(1)
    assert bench.slots == 1
    assert bench.admit("c", mine, bounds=two) is Outcome.ADMITTED
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_call_that_nobody_ends_has_its_slot_for_a_time(bench: Bench) -> None:
    bench.admit("rings")
    bench.pass_time(SETUP - 1)
    assert bench.slots == 1
    bench.pass_time(1)
    assert bench.slots == 0
    run(bench.followed("rings"))  # after all
    assert bench.slots == 1
    assert bench.admit("other") is Outcome.CONCURRENT
    bench.end("rings")
    bench.admit("rings on")
    bench.pass_time(SETUP)
    bench.restart()
    bench.pass_time(RINGS_ON - SETUP - 1)
    assert (bench.slots, bench.counting._calls.known) == (0, 1)
    bench.pass_time(1)
    assert bench.counting._calls.known == 0
    bench.admit("talks")
    run(bench.followed("talks"))
    run(bench.followed("nobody"))
    bench.pass_time(LONGEST - 1)
    assert bench.slots == 1
    bench.pass_time(1)
    assert bench.slots == 0


def test_a_call_that_does_not_leave_has_its_slot_for_seconds(bench: Bench) -> None:
    """The script answered it itself, and no module tells the end of what never left."""
    bench.admit("refused by the script", sent=False)
    bench.pass_time(UNSENT - 1)
    assert bench.admit("x", sent=False) is Outcome.CONCURRENT
    bench.pass_time(1)
    assert bench.admit("x", sent=False) is Outcome.ADMITTED
    run(bench.followed("x"))
    bench.pass_time(SETUP - 1)
    assert bench.slots == 1
    bench.end("x")
    assert bench.admit("late", sent=False) is Outcome.ADMITTED
    bench.pass_time(UNSENT)
    assert bench.slots == 0
    run(bench.followed("late"))
    bench.pass_time(SETUP)
    assert bench.slots == 1
    assert bench.admit("late", sent=False) is Outcome.KNOWN
    bench.end("late")
    assert bench.admit("later", sent=False) is Outcome.ADMITTED
    bench.pass_time(SETUP)
    assert bench.admit("later", sent=False) is Outcome.ADMITTED  # the same, asked about again
    assert (bench.slots, bench.counting._calls.known) == (1, 1)


def test_one_call_through_two_customers_frees_both_slots(bench: Bench) -> None:
    for _ in range(3):
        for customer in ("a", "b"):
            request = Request(customer, "k", ONE, "A")
            assert run(bench.counting.admit(request, "")).outcome is Outcome.ADMITTED
        assert bench.slots == 2
        bench.end("k")
        assert bench.slots == 0
    bench.restart()
    assert bench.slots == 0


def test_the_clock_is_one_that_nobody_sets() -> None:
    first = uptime()
    assert 0 < first <= uptime() < time.time() - 86_400


def test_what_is_not_concurrent_is_not_kept_and_nothing_stays_of_a_customer(bench: Bench) -> None:
    rate = of(("", 1, None))
    assert bench.admit("a", bounds=rate) is Outcome.ADMITTED
    assert bench.admit("b", bounds=rate) is Outcome.RATE
    assert bench.admit("a", bounds=rate) is Outcome.KNOWN
    assert bench.counting.status() == {
        "calls_per_second": 0.2,
        "slots": 0,
        "customers_with_slots": 0,
        "over_limit": 1,
    }
    bench.pass_time(200)
    assert bench.counting._tallies == {}
    assert bench.counting.status()["calls_per_second"] == 0.0


def test_a_transfer_is_told_by_the_call_that_is_sent_on(bench: Bench) -> None:
    bench.admit("a")
    run(bench.tell("refer", "a", to="12025550199"))
    run(bench.tell("refer", "unknown", to="12025550199"))
    assert bench.admit("b", to="12025550199") is Outcome.REPLACES
    assert bench.admit("c") is Outcome.CONCURRENT


@pytest.mark.parametrize("damage", ["full", "junk", "folder"])
def test_with_a_file_that_cannot_be_had_calls_are_counted_all_the_same(bench: Bench, damage: str) -> None:
    file = bench.folder / "agent.slots.sqlite"
    bench.admit("a")
    if damage == "full":
        with closing(sqlite3.connect(file)) as other:
            other.execute("DROP TABLE calls")
    else:
        bench.counting.close()
        for path in bench.folder.glob("agent.slots.sqlite*"):
            path.unlink()
        file.write_bytes(b"junk" * 2_000) if damage == "junk" else file.mkdir()
        bench.counting.open()
    bench.admit("b", bounds=of(("", None, 9)))
    run(bench.followed("b"))
    bench.end("b")
    assert {alarm.name for alarm in bench.alarms.now()} == {"slots_not_kept"}
    assert bench.admit("c") is Outcome.CONCURRENT
    if damage == "folder":
        file.rmdir()
    bench.pass_time(1)
    bench.pass_time(1)
    assert bench.alarms.now() == []
    bench.restart()
    assert bench.slots == 1


def test_a_call_that_ends_while_the_file_is_locked_is_not_found_in_it_afterwards(bench: Bench) -> None:
    """Nor does anybody wait for whoever has it locked: every call of the host would."""
    connection = bench.counting._calls._connection
    assert connection is not None
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
    bench.admit("a", bounds=of(("", None, 9)))
    with locked(bench.folder / "agent.slots.sqlite"):
        bench.end("a")
        bench.admit("b", bounds=of(("", None, 9)))
        bench.pass_time(1)
        assert {alarm.name for alarm in bench.alarms.now()} == {"slots_not_kept"}
    bench.pass_time(1)
    assert bench.alarms.now() == []
    assert bench.slots == 1
    bench.restart()
    assert bench.slots == 1
    bench.end("b")
    assert bench.slots == 0


def test_a_file_that_nobody_may_write_to_when_the_agent_starts_is_read_at_once(bench: Bench) -> None:
    bench.admit("a", sent=False, bounds=of(("", None, 9)))
    with locked(bench.folder / "agent.slots.sqlite"):
        bench.restart()
        assert bench.admit("b") is Outcome.CONCURRENT
        run(bench.followed("a"))
        bench.pass_time(UNSENT)
    bench.pass_time(1)
    assert bench.alarms.now() == []
    bench.restart()
    bench.pass_time(SETUP)
    assert bench.slots == 1


def test_a_file_that_cannot_be_read_when_the_agent_starts_is_read_later(bench: Bench) -> None:
    many = of(("", None, 9))
    for call in ("ends", "is asked for", "has left", "goes to a leg", "goes on"):
        bench.admit(call, bounds=many, sent=call != "has left")
    bench.follower = Follower(leg := leg_owner("core", "1"))
    with recovering(bench.folder / "agent.slots.sqlite"):
        bench.restart()
        bench.end("ends")
        bench.admit("is asked for", bounds=many)
        bench.admit("new", bounds=many)
        run(bench.followed("has left"))
        run(bench.followed("goes to a leg", leg))
        bench.pass_time(OVERTAKEN)
        assert bench.slots == 2
        assert {alarm.name for alarm in bench.alarms.now()} == {"slots_not_kept"}
    bench.pass_time(1)
    assert bench.alarms.now() == []
    assert bench.slots == 5
    assert bench.follower.resumed == [(leg, "goes to a leg")]
    assert bench.admit("d", bounds=of(("", None, 5))) is Outcome.CONCURRENT
    bench.restart()
    assert bench.slots == 5
    bench.pass_time(SETUP)
    assert bench.slots == 2


def test_a_disk_without_room_forgets_no_call(bench: Bench) -> None:
    for number in range(3_000):
        bench.admit(f"{number}", bounds=of(("", None, 9_999)))
    bench.counting.close()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        bench.counting = bench.started()
        assert bench.slots == 3_000
        bench.admit("one more", bounds=of(("", None, 9_999)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    bench.pass_time(1)
    bench.restart()
    assert bench.slots == 3_001


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program writes to it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_there_is_an_end_to_what_is_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MAX_CALLS", 2)
    many = of(("", None, 9))
    assert bench.admit("a", bounds=many) is bench.admit("b", bounds=many) is Outcome.ADMITTED
    with pytest.raises(StoreUnavailable, match="2 calls are known"):
        bench.admit("c", bounds=many)


# --- What workers send ------------------------------------------------------------------------------

ASKED: dict[str, Any] = {
    "v": 1,
    "op": "admit",
    "customer": "acme",
    "call": "a",
    "bounds": [["", 100_000, 900_000, 5], ["A", 0, 0, 1]],
    "level": "A",
    "slot": True,
    "replaces": [],
    "to": "",
    "owner": "1-1",
    "ask": 7,
}


def answered(bench: Bench, request: dict[str, Any], shared: FleetCounts | None = None) -> Any:
    return run(CallRequests(bench.counting, shared).answer(request))


def test_requests_are_answered(bench: Bench) -> None:
    assert answered(bench, ASKED) == {"outcome": "admitted", "scope": ""}
    assert answered(bench, ASKED | {"call": "b"}) == {"outcome": "concurrent", "scope": "A"}
    assert answered(bench, {"op": "refer", "call": "a", "to": "x"}) == {}
    assert "error" in answered(bench, {"op": "followed", "call": 7})
    assert answered(bench, {"op": "followed", "call": "a"}) == answered(bench, {"op": "ended", "call": "a"}) == {}
    assert answered(bench, ASKED | {"call": "b"})["outcome"] == "admitted"
    assert answered(bench, {"op": "ping"}) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"customer": 7},
        {"customer": "x" * 257},
        {"call": None},
        {"bounds": 7},
        {"bounds": [["", 1, 2]]},
        {"bounds": [["", 1, 2, 3, 4]]},
        {"bounds": [["", -1, 2, 3]]},
        {"bounds": [["", 1.5, 2, 3]]},
        {"bounds": [["", True, 2, 3]]},
        {"bounds": [["", 2**60, 2, 3]]},
        {"bounds": [["B", 1, 2, 3]]},
        {"bounds": [7]},
        {"bounds": [["", 1, 2, 3]] * 5},
        {"level": "D"},
        {"level": []},
        {"replaces": "a"},
        {"replaces": ["a"] * (MAX_REPLACES + 1)},
        {"to": 7},
        {"owner": "../../etc/passwd"},
        {"owner": None},
        {"ask": "1"},
    ],
    ids=range(21),
)
def test_a_request_that_is_none_is_said_to_be_so(bench: Bench, wrong: dict[str, Any]) -> None:
    assert answered(bench, ASKED | wrong) == {"error": "a request for admit that is none"}
    if "ask" in wrong:
        return  # one without it is of a worker of another release
    missing = {name: value for name, value in ASKED.items() if name not in wrong}
    assert "error" in answered(bench, missing)
    assert bench.slots == 0


def test_a_call_is_counted_without_what_is_too_long_and_without_an_owner_it_has_no_slot(bench: Bench) -> None:
    assert answered(bench, ASKED | {"to": "x" * 10_000})["outcome"] == "admitted"
    assert answered(bench, ASKED | {"call": "b"})["outcome"] == "concurrent"
    assert answered(bench, ASKED | {"call": "c", "owner": ""})["outcome"] == "admitted"
    assert bench.slots == 1


def test_a_question_that_nobody_heard_the_answer_to_is_taken_back(bench: Bench) -> None:
    undo = {"op": "undo", "call": "a", "owner": "1-1", "ask": 7}
    assert answered(bench, ASKED)["outcome"] == "admitted"
    bench.restart()
    assert answered(bench, undo) == {}
    assert bench.slots == 0
    # Before it came: it overtook.
    assert answered(bench, ASKED | {"ask": 8})["outcome"] == "admitted"
    answered(bench, {"op": "ended", "call": "a"})
    answered(bench, undo | {"ask": 9})
    assert answered(bench, ASKED | {"ask": 9})["outcome"] == "admitted"
    assert bench.slots == 0
    # The same call was asked about again, and that was heard.
    assert answered(bench, ASKED | {"ask": 10})["outcome"] == "admitted"
    assert answered(bench, ASKED | {"ask": 11})["outcome"] == "known"
    answered(bench, undo | {"ask": 10})
    assert bench.slots == 1
    assert answered(bench, ASKED | {"ask": 11, "call": "x"})["outcome"] == "concurrent"
    answered(bench, undo | {"ask": 12})
    assert answered(bench, ASKED | {"ask": 13})["outcome"] == "known"
    assert bench.slots == 1


def test_passports_are_remembered_in_a_fleet_alone(bench: Bench) -> None:
    asked = {"op": "first_use", "token": "ab", "call": "cd", "milliseconds": 60_000}
    assert answered(bench, asked) == {"error": "this host is in no fleet"}
    for wrong in ({"token": "zz"}, {"call": ""}, {"milliseconds": "1"}):
        assert answered(bench, asked | wrong) == {"error": "a request for first_use that is none"}


# --- Calls that are admitted ahead -----------------------------------------------------------------

MANY = [["", 0, 0, 20]]


def wants(call: str, ask: int, **parts: Any) -> dict[str, Any]:
    """A question for more calls."""
    return ASKED | {"call": call, "bounds": MANY, "sent": False, "ask": ask, "ahead": 4} | parts


def allowance(bench: Bench, worker: Presence, shared: FleetCounts | None = None) -> list[str]:
    """The keys that calls have whose names were given with a call that has left."""
    asked = wants("first", 1, owner=worker.name())
    assert answered(bench, asked, shared) == {"outcome": "admitted", "scope": "", "ahead": 4}
    worker.leave(message({"op": "followed", "call": "first"}))
    return [f"dialog/{worker.name()}+1+{number}" for number in range(4)]


def tells(worker: Presence, op: str, *calls: str) -> None:
    for call in calls:
        assert worker.leave(message({"op": op, "call": call}))


def test_a_call_that_was_admitted_ahead_has_a_slot_from_when_it_leaves_until_it_ends(bench: Bench) -> None:
    worker = Presence(bench.folder)
    calls = allowance(bench, worker)
    tells(worker, "followed", *calls[:2])
    run(bench.counting.collect_when_due())
    assert bench.slots == 3
    room = [bench.admit(f"{number}", worker.name(), bounds=of(("", None, 20))).passes for number in range(16)]
    assert room == [True] * 15 + [False]  # of 20 there are three, and two may still come
    bench.pass_time(KEPT)
    assert [bench.admit(f"x{n}", worker.name(), bounds=of(("", None, 20))).passes for n in range(3)] == [
        True,
        True,
        False,
    ]
    bench.pass_time(SETUP + 1)
    assert bench.slots == 3  # those that were told to have left
    tells(worker, "ended", "first", *calls[:2])
    bench.pass_time(1)
    assert bench.slots == 0


def test_what_is_told_of_such_a_call_may_be_read_in_any_order(bench: Bench) -> None:
    """Each process has a file of its own."""
    worker = Presence(bench.folder)
    calls = allowance(bench, worker)
    run(bench.counting.collect())
    tells(worker, "ended", calls[0])
    tells(worker, "followed", *calls[:2], calls[1], calls[0])
    run(bench.counting.collect())
    assert bench.slots == 2
    bench.pass_time(SETUP + 1)
    assert bench.slots == 2


def test_a_call_that_was_admitted_ahead_is_known_when_it_is_asked_about(bench: Bench) -> None:
    worker = Presence(bench.folder)
    calls = allowance(bench, worker)
    tells(worker, "followed", calls[0])
    assert bench.admit(calls[0], worker.name(), bounds=of(("", None, 20))) is Outcome.KNOWN
    assert bench.slots == 2


def test_a_call_that_was_admitted_ahead_and_is_decided_again_before_it_leaves_counts_once(bench: Bench) -> None:
    worker = Presence(bench.folder)
    calls = allowance(bench, worker)
    assert bench.admit(calls[0], worker.name(), bounds=of(("", None, 20)), sent=False) is Outcome.KNOWN
    assert bench.slots == 2
    bench.pass_time(UNSENT + 1)  # the first has left meanwhile, this one has not
    assert bench.slots == 1


def test_nobody_gets_a_slot_by_a_name_that_was_not_given(bench: Bench) -> None:
    worker = Presence(bench.folder)
    calls = allowance(bench, worker)
    tells(worker, "followed", f"dialog/{worker.name()}+2+0", "dialog/1-1+1+0", "dialog/+", "+", "+0", "a/b+")
    run(bench.counting.collect())
    assert bench.slots == 1
    bench.pass_time(REMEMBERED)
    tells(worker, "followed", *calls)
    bench.pass_time(1)
    assert bench.slots == 1


def test_an_agent_that_stood_still_takes_nothing_back_that_has_come(bench: Bench) -> None:
    worker = Presence(bench.folder)
    tells(worker, "followed", *allowance(bench, worker))
    bench.now += 10 * KEPT
    outcomes = [bench.admit(f"{number}", worker.name(), bounds=of(("", None, 20))) for number in range(16)]
    assert outcomes == [Outcome.ADMITTED] * 15 + [Outcome.CONCURRENT]


def test_what_is_read_of_such_a_call_after_its_end_gives_it_no_slot(bench: Bench) -> None:
    """The files of processes are read one after the other: of two lines the later one may be read first."""
    older, younger = Presence(bench.folder), Presence(bench.folder)
    calls = allowance(bench, older)
    assert older.name() < younger.name()
    tells(older, "followed", calls[0])
    run(bench.counting.collect())
    tells(younger, "followed", *calls[:2])
    tells(older, "ended", "first", calls[0])
    tells(older, "followed", calls[1])
    tells(older, "ended", calls[1])
    run(bench.counting.collect())
    assert bench.slots == 0
    bench.pass_time(KEPT)
    assert all(bench.admit(f"{number}", older.name(), bounds=of(("", None, 20))).passes for number in range(20))


def test_the_end_of_such_a_call_makes_room_at_once_also_where_it_never_left(bench: Bench) -> None:
    worker = Presence(bench.folder)
    calls = allowance(bench, worker)
    tells(worker, "ended", "first", *calls)
    run(bench.counting.collect())
    assert all(bench.admit(f"{number}", worker.name(), bounds=of(("", None, 20))).passes for number in range(20))


@pytest.mark.parametrize("parts", [{"owner": ""}, {"sent": True}, {"ahead": 0}, {"bounds": [["", 1, 2, 0]]}])
def test_who_does_not_tell_that_calls_leave_gets_none_ahead(bench: Bench, parts: dict[str, Any]) -> None:
    assert answered(bench, wants("a", 1, **parts)) == {"outcome": "admitted", "scope": ""}


def test_a_process_that_is_gone_has_no_calls_that_were_admitted_ahead(bench: Bench) -> None:
    calls = allowance(bench, Presence(bench.folder))
    gone = bench.folder / FOLDER / calls[0].partition("/")[2].partition("+")[0]
    gone.unlink()
    tells(Presence(bench.folder), "followed", *calls)
    bench.pass_time(1)
    bench.pass_time(1)
    assert bench.slots == 0


def test_as_many_calls_as_can_be_known_is_the_end_also_of_those_admitted_ahead(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Presence(bench.folder)
    calls = allowance(bench, worker)
    monkeypatch.setattr(counting, "MAX_CALLS", 3)
    tells(worker, "followed", *calls)
    run(bench.counting.collect())
    assert bench.slots == 3


# --- Over a fleet -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


class Fleet:
    """Two hosts over one Redis; and the clock of all three."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.log = FleetLog(server.access, f"fleet-{next(_names)}")
        self.counts = [RedisCounts(self.log, START) for _ in range(2)]
        self.breakers = [Breaker(), Breaker()]
        self.shared = [FleetCounts(c, b, lambda: 2) for c, b in zip(self.counts, self.breakers, strict=True)]
        self.hosts = []
        for number, shared in enumerate(self.shared):
            (folder / f"{number}").mkdir()
            self.hosts.append(Bench(folder / f"{number}", shared))

    def pass_time(self, seconds: float, hosts: Sequence[int] = (0, 1)) -> None:
        for counts in self.counts:
            assert counts.at is not None
            counts.at += int(seconds * SECOND)
        for number in hosts:
            self.hosts[number].pass_time(seconds)

    def cut(self, number: int) -> None:
        self.breakers[number].failed("cut off")

    def mend(self, number: int) -> None:
        self.breakers[number].worked()

    def close(self) -> None:
        for host, shared in zip(self.hosts, self.shared, strict=True):
            host.counting.close()
            shared.close()
        self.log.close()


@pytest.fixture
def fleet(server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(server, tmp_path)
    # Tests run where others do, too: Redis may take its time.
    yield made
    made.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    from shaken_plugin.agent import shared

    monkeypatch.setattr(shared, "PATIENCE", 2.0)


def test_two_hosts_never_admit_more_than_the_limit(fleet: Fleet) -> None:
    bounds = of(("", None, 7))
    outcomes = [fleet.hosts[n % 2].admit(f"{n}", bounds=bounds) for n in range(20)]
    assert outcomes == [Outcome.ADMITTED] * 7 + [Outcome.CONCURRENT] * 13
    fleet.hosts[0].end("0")
    assert fleet.hosts[1].admit("x", bounds=bounds) is Outcome.ADMITTED
    fleet.hosts[1].end("0")  # not of this host
    assert fleet.hosts[0].admit("y", bounds=bounds) is Outcome.CONCURRENT
    rate = of(("", 5, None))
    outcomes = [fleet.hosts[n % 2].admit(f"r{n}", bounds=rate) for n in range(8)]
    assert outcomes == [Outcome.ADMITTED] * 5 + [Outcome.RATE] * 3


def test_calls_that_were_admitted_ahead_count_on_all_hosts(fleet: Fleet) -> None:
    host, other = fleet.hosts
    worker = Presence(host.folder)
    calls = allowance(host, worker)
    assert fleet.counts[1].slots("acme") == 5
    tells(worker, "followed", *calls[:3])
    tells(worker, "ended", calls[2])
    run(host.counting.collect())
    assert (host.slots, fleet.counts[1].slots("acme")) == (3, 4)
    fleet.pass_time(KEPT)
    assert fleet.counts[1].slots("acme") == 3
    room = [other.admit(f"{number}", bounds=of(("", None, 20))).passes for number in range(18)]
    assert room == [True] * 17 + [False]
    tells(worker, "ended", *calls[:2])
    run(host.counting.collect())
    assert fleet.counts[1].slots("acme") == 18


def test_calls_that_were_admitted_ahead_count_when_redis_is_back(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    worker = Presence(host.folder)
    calls = allowance(host, worker)
    run(host.counting.collect())
    fleet.cut(0)
    tells(worker, "followed", *calls)
    tells(worker, "ended", calls[3])
    run(host.counting.collect())
    assert answered(host, wants("apart", 2, owner=worker.name())) == {"outcome": "admitted", "scope": ""}
    fleet.pass_time(100, hosts=[])
    assert fleet.counts[1].slots("acme") == 0
    fleet.mend(0)
    fleet.pass_time(1)
    assert fleet.counts[1].slots("acme") == 5


def test_once_redis_is_back_it_admits_nobody_beside_calls_that_were_admitted_ahead(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    worker = Presence(host.folder)
    calls = allowance(host, worker)
    tells(worker, "ended", "first")
    run(host.counting.collect())
    fleet.cut(0)
    tells(worker, "followed", *calls)
    run(host.counting.collect())
    fleet.pass_time(100, hosts=[])  # what was given holds no more
    fleet.mend(0)
    twenty = of(("", None, 20))
    assert [host.admit(f"{number}", worker.name(), bounds=twenty).passes for number in range(17)].count(True) <= 16
    assert host.slots <= 20


def test_what_comes_and_ends_while_redis_is_told_of_ends_has_no_slot_there(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, end = fleet.hosts[0], fleet.shared[0].end
    worker, go_on = Presence(host.folder), asyncio.Event()
    calls = allowance(host, worker)
    run(host.counting.collect())

    async def ending(customer: str, ended: Sequence[str]) -> None:
        await go_on.wait()
        await end(customer, ended)

    async def play() -> None:
        tells(worker, "ended", "first")
        first = asyncio.create_task(host.counting.collect())
        await asyncio.sleep(0.05)
        tells(worker, "followed", calls[0])
        tells(worker, "ended", calls[0])
        second = asyncio.create_task(host.counting.collect())
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.gather(first, second)

    monkeypatch.setattr(fleet.shared[0], "end", ending)
    run(play())
    fleet.pass_time(KEPT)
    assert (host.slots, fleet.counts[1].slots("acme")) == (0, 0)


def test_what_a_host_gave_ahead_counts_for_others_also_while_its_agent_stands_still(fleet: Fleet) -> None:
    host, other = fleet.hosts
    worker = Presence(host.folder)
    tells(worker, "followed", *allowance(host, worker))
    fleet.pass_time(30, hosts=[1])
    room = [other.admit(f"{number}", bounds=of(("", None, 20))).passes for number in range(16)]
    assert room == [True] * 15 + [False]


def test_an_agent_that_ends_gives_back_what_nobody_took(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    worker = Presence(host.folder)
    calls = allowance(host, worker)
    tells(worker, "followed", calls[0])
    run(host.counting.leave())
    assert fleet.counts[1].slots("acme") == 2
    host.restart()
    assert host.slots == 2


def test_ends_are_told_in_one_question_also_of_calls_that_came_and_went(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, end, told = fleet.hosts[0], fleet.shared[0].end, list[int]()
    worker = Presence(host.folder)
    calls = allowance(host, worker)
    tells(worker, "followed", *calls[:2])
    run(host.counting.collect())

    async def ending(customer: str, ended: Sequence[str]) -> None:
        told.append(len(ended))
        await end(customer, ended)

    monkeypatch.setattr(fleet.shared[0], "end", ending)
    tells(worker, "followed", *calls[2:])  # and these end before Redis knows of them
    tells(worker, "ended", *calls)
    run(host.counting.collect())
    assert len(told) == 1
    assert (host.slots, fleet.counts[1].slots("acme")) == (1, 1)


def test_calls_of_two_customers_that_were_admitted_ahead_are_told_of_each(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    worker = Presence(host.folder)
    calls = [f"dialog/{worker.name()}+{ask}+0" for ask in (1, 2)]
    for ask, customer in enumerate(("acme", "other"), 1):
        assert answered(host, wants(customer, ask, owner=worker.name(), customer=customer))["ahead"] == 4
    tells(worker, "followed", *calls, f"dialog/{worker.name()}+1+1")
    run(host.counting.collect())
    fleet.pass_time(KEPT)
    assert [fleet.counts[1].slots(customer) for customer in ("acme", "other")] == [3, 2]


def test_many_ends_are_one_question_to_redis_and_make_room_at_once(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, five = fleet.hosts[0], of(("", None, 5))
    worker, asked, end = Presence(host.folder), list[Sequence[str]](), fleet.counts[0].end

    def ending(customer: str, calls: Sequence[str]) -> None:
        asked.append(calls)
        end(customer, calls)

    monkeypatch.setattr(fleet.counts[0], "end", ending)
    for call in "abcde":
        assert host.admit(call, worker.name(), bounds=five) is Outcome.ADMITTED
    ends(worker, "abcd")
    assert host.admit("f", worker.name(), bounds=five) is Outcome.ADMITTED
    assert asked == [list("abcd")]
    assert fleet.counts[1].slots("acme") == 2


def test_ends_that_redis_cannot_be_told_of_are_told_when_it_is_back(fleet: Fleet) -> None:
    host, five = fleet.hosts[0], of(("", None, 5))
    for call in "abcde":
        assert host.admit(call, bounds=five) is Outcome.ADMITTED
    fleet.cut(0)
    for call in "abc":
        host.end(call)
    assert fleet.counts[1].slots("acme") == 5
    fleet.mend(0)
    fleet.pass_time(1)
    assert fleet.counts[1].slots("acme") == 2


def test_a_crashed_host_frees_its_slots_within_two_minutes_and_a_long_call_keeps_its_own(fleet: Fleet) -> None:
    two = of(("", None, 2))
    fleet.hosts[0].admit("of the crashed host", bounds=two)
    fleet.hosts[1].admit("long", bounds=two)
    run(fleet.hosts[1].followed("long"))
    waited = 0
    while fleet.hosts[1].admit("new", bounds=two) is Outcome.CONCURRENT:
        fleet.pass_time(5, [1])
        waited += 5
    assert waited <= 120
    fleet.hosts[1].end("new")
    for _ in range(6 * 3600 // 20):
        fleet.pass_time(20, [1])
    assert fleet.hosts[1].admit("other", bounds=ONE) is Outcome.CONCURRENT
    assert fleet.counts[0].slots("acme") == 1


@pytest.mark.parametrize("owner", ["", leg_owner("core", "a")], ids=["told by the switch", "told to the agent"])
def test_an_agent_that_is_restarted_goes_on_renewing(fleet: Fleet, owner: str) -> None:
    fleet.hosts[0].follower = Follower(owner)
    fleet.hosts[0].admit("a")
    run(fleet.hosts[0].followed("a", owner))
    fleet.hosts[0].restart()
    for _ in range(10):
        fleet.pass_time(30)
    assert fleet.hosts[1].admit("b") is Outcome.CONCURRENT


def test_without_redis_each_host_enforces_its_share_and_gives_its_slots_back_afterwards(fleet: Fleet) -> None:
    five = of(("", None, 5))
    assert fleet.hosts[0].admit("before", bounds=five) is Outcome.ADMITTED
    fleet.cut(0)
    fleet.cut(1)
    first = [fleet.hosts[0].admit(f"one {n}", bounds=five) for n in range(4)]
    assert first == [Outcome.ADMITTED] * 2 + [Outcome.CONCURRENT] * 2  # three in all: half of five, rounded up
    second = [fleet.hosts[1].admit(f"two {n}", bounds=five) for n in range(4)]
    assert second == [Outcome.ADMITTED] * 3 + [Outcome.CONCURRENT]
    fleet.hosts[0].end("before")
    fleet.pass_time(31)
    fleet.mend(0)
    fleet.mend(1)
    fleet.pass_time(1)
    assert fleet.counts[0].slots("acme") == 5
    assert fleet.hosts[0].admit("after", bounds=five) is Outcome.CONCURRENT
    fleet.hosts[1].end("two 0")
    assert fleet.hosts[0].admit("after", bounds=five) is Outcome.ADMITTED


def test_after_a_short_absence_of_redis_what_was_admitted_meanwhile_counts_a_second_later(fleet: Fleet) -> None:
    """And not with the next renewal of all leases, half a minute later: until then others would be admitted besides."""
    host, two = fleet.hosts[0], of(("", None, 2))
    fleet.pass_time(31)  # all leases were renewed just now
    fleet.cut(0)
    assert host.admit("meanwhile", bounds=two) is Outcome.ADMITTED
    assert host.admit("refused", bounds=two) is Outcome.CONCURRENT
    fleet.mend(0)
    fleet.pass_time(1)
    assert fleet.counts[1].slots("acme") == 1
    assert host.counting._owed is not None
    assert not host.counting._owed.apart
    assert host.admit("a", bounds=two) is Outcome.ADMITTED
    assert host.admit("b", bounds=two) is Outcome.CONCURRENT


def test_once_redis_is_back_it_admits_nobody_beside_those_whom_it_does_not_know_yet(fleet: Fleet) -> None:
    """Not for the second either that a host takes until it looks by itself."""
    host, two = fleet.hosts[0], of(("", None, 2))
    fleet.pass_time(31)
    fleet.cut(0)
    assert host.admit("meanwhile", bounds=two) is Outcome.ADMITTED
    fleet.mend(0)
    assert host.admit("a", bounds=two) is Outcome.ADMITTED
    assert host.admit("b", bounds=two) is Outcome.CONCURRENT
    assert fleet.counts[1].slots("acme") == 2


def test_a_transfer_between_hosts_counts_once(fleet: Fleet) -> None:
    fleet.hosts[0].admit("a")
    assert fleet.hosts[1].admit("b", replaces=("a",)) is Outcome.REPLACES
    fleet.hosts[0].end("a")
    run(fleet.hosts[1].tell("refer", "b", to="12025550199"))
    fleet.pass_time(61)
    run(fleet.hosts[1].tell("refer", "b", to="12025550199"))
    assert fleet.hosts[0].admit("c", to="12025550199") is Outcome.REPLACES
    assert fleet.counts[0].slots("acme") == 1


def test_a_redis_that_answers_late_is_not_asked_by_the_next_call(tmp_path: Path, monkeypatch: Any) -> None:
    from shaken_plugin.agent import shared

    monkeypatch.setattr(shared, "PATIENCE", PATIENCE)

    class Slow:
        asked, seconds = 0, 0.5

        def admit(self, request: Request) -> Verdict:
            self.asked += 1
            time.sleep(self.seconds)
            return Verdict(Outcome.ADMITTED)

        def first_use(self, token: str, call: str, milliseconds: int) -> bool:
            time.sleep(self.seconds)
            return True

        def hold(self, customer: str, calls: Sequence[tuple[str, str]]) -> None:
            return

    slow: Any = Slow()
    breaker = Breaker()
    counts = FleetCounts(slow, breaker, lambda: 1)
    bench = Bench(tmp_path, counts)
    begin = time.monotonic()
    assert bench.admit("a") is Outcome.ADMITTED
    assert bench.admit("b") is Outcome.CONCURRENT
    assert time.monotonic() - begin < 0.4
    assert slow.asked == 1
    assert counts.why == "Redis did not answer within 30 ms"
    assert not breaker.is_open  # good enough for all that no call waits for
    run(bench.counting.look())
    (alarm,) = bench.alarms.now()
    assert (alarm.name, alarm.text) == (
        "counted_apart",
        "Redis did not answer within 30 ms: this host enforces its share of each limit by what it counts itself",
    )
    # An answer to the probe that is too late for a call is as good as none.
    slow.seconds = 0.1
    run(counts.look())
    assert bench.admit("c") is Outcome.CONCURRENT
    assert slow.asked == 1
    slow.seconds = 0.0
    breaker.failed("away")
    run(counts.look())
    assert counts.why == "away"
    breaker.worked()
    run(counts.look())
    assert bench.admit("c") is Outcome.ADMITTED
    assert slow.asked == 2
    run(bench.counting.look())
    assert not bench.alarms.now()
    bench.counting.close()
    counts.close()


def test_what_was_refused_here_after_redis_was_late_has_no_slot_there(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, two = fleet.hosts[0], of(("", None, 2))
    assert host.admit("a", bounds=two) is Outcome.ADMITTED
    admit = fleet.counts[0].admit

    def late(request: Request) -> Verdict:
        admit(request)
        raise StoreError("too late")

    monkeypatch.setattr(fleet.counts[0], "admit", late)
    assert host.admit("b", bounds=two) is Outcome.CONCURRENT  # one here, of two on two hosts
    assert host.admit("c", bounds=two) is Outcome.CONCURRENT  # Redis is not asked any more
    assert fleet.counts[1].slots("acme") == 2
    assert host.counting._owed is not None
    assert list(host.counting._owed.ends) == [("acme", "b")]
    run(fleet.shared[0].look())
    fleet.pass_time(1)
    assert fleet.counts[1].slots("acme") == 1


def test_a_call_that_goes_on_while_another_is_freed_keeps_its_slot(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, two = fleet.hosts[0], of(("", None, 2))
    host.admit("a", bounds=two)
    host.admit("b", bounds=two)
    end, answering = FleetCounts.end, list[asyncio.Task[None]]()

    async def ending(shared: FleetCounts, customer: str, calls: Sequence[str]) -> None:
        answering.append(asyncio.create_task(host.followed("b")))
        await asyncio.sleep(0)
        await end(shared, customer, calls)

    monkeypatch.setattr(FleetCounts, "end", ending)
    fleet.pass_time(SETUP, [0])
    assert host.slots == 1
    host.end("b")
    assert host.slots == 0


def test_a_call_that_goes_on_late_has_its_slot_again_over_the_fleet(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    host.admit("a")
    fleet.pass_time(SETUP)
    assert fleet.counts[0].slots("acme") == 0
    run(host.followed("a"))
    assert fleet.counts[0].slots("acme") == 1
    host.end("a")
    assert fleet.counts[0].slots("acme") == 0


def test_a_redis_that_cannot_count_is_as_good_as_none(tmp_path: Path) -> None:
    class Full:
        def admit(self, request: Request) -> None:
            raise StoreError("no memory left")

        def first_use(self, token: str, call: str, milliseconds: int) -> bool:
            raise StoreError("no memory left still")

        def hold(self, customer: str, calls: Sequence[tuple[str, str]]) -> None:
            raise StoreError("no memory left for leases")

    full: Any = Full()
    breaker = Breaker()
    counts = FleetCounts(full, breaker, lambda: 1)
    bench = Bench(tmp_path, counts)
    assert bench.admit("a") is Outcome.ADMITTED
    assert bench.admit("b") is Outcome.CONCURRENT
    run(counts.look())
    run(bench.counting.look())
    assert counts.why == "no memory left still"
    assert not breaker.is_open
    bench.counting.close()
    counts.close()


def test_a_passport_that_came_to_another_host_is_known(fleet: Fleet) -> None:
    asked = {"op": "first_use", "token": "ab", "call": "cd", "milliseconds": 60_000}
    assert answered(fleet.hosts[0], asked, fleet.shared[0]) == {"first": True}
    assert answered(fleet.hosts[1], asked, fleet.shared[1]) == {"first": True}
    assert answered(fleet.hosts[1], asked | {"call": "ef"}, fleet.shared[1]) == {"first": False}
    fleet.cut(1)
    assert "error" in answered(fleet.hosts[1], asked | {"call": "ef"}, fleet.shared[1])


class Slowly:
    """A Redis that a call cannot wait for, but where it admits."""

    def __init__(self) -> None:
        self.held: list[Sequence[tuple[str, str]]] = []

    def admit(self, request: Request) -> Verdict:
        return Verdict(Outcome.CONCURRENT if request.call == "refused" else Outcome.ADMITTED)

    def hold(self, customer: str, calls: Sequence[tuple[str, str]]) -> None:
        time.sleep(0.6)
        self.held.append(calls)

    def end(self, customer: str, calls: Sequence[str]) -> None:
        time.sleep(0.01)


TWO = of(("", None, 2))


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bench, Slowly, Breaker]]:
    """A host with `Slowly` for its Redis, which is not asked just now."""
    from shaken_plugin.agent import shared

    monkeypatch.setattr(shared, "PATIENCE", PATIENCE)
    slowly: Any = Slowly()
    breaker = Breaker()
    counts = FleetCounts(slowly, breaker, lambda: 1)
    bench = Bench(tmp_path, counts)
    breaker.failed("away")
    yield bench, slowly, breaker
    bench.counting.close()
    counts.close()


def test_no_call_waits_for_what_redis_is_told_because_another_ended_that_is_not_known(
    away: tuple[Bench, Slowly, Breaker],
) -> None:
    """One that is shorter than the time between two looks may end before it is known to have left."""
    bench, slowly, breaker = away
    assert bench.admit("apart", bounds=TWO) is Outcome.ADMITTED
    breaker.worked()

    async def meanwhile() -> float:
        await bench.tell("ended", "stranger")
        telling = asyncio.create_task(bench.counting.look())
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        verdict = await bench.counting.admit(Request("acme", "next", TWO, "A"), "")
        took = time.monotonic() - begin
        assert verdict.outcome is Outcome.ADMITTED
        assert not slowly.held  # it is being told still
        await telling
        return took

    assert run(meanwhile()) < 0.3
    assert slowly.held


@pytest.mark.parametrize("call", ["next", "refused"])
def test_no_call_waits_until_redis_knows_all_that_it_missed(away: tuple[Bench, Slowly, Breaker], call: str) -> None:
    """Who waits longer than `stores.agent_line.TIMEOUT` goes on uncounted, and so do the calls behind it."""
    bench, slowly, breaker = away
    if call == "next":
        assert bench.admit("meanwhile", bounds=TWO) is Outcome.ADMITTED
    else:
        assert bench.counting._owed is not None
        bench.counting._owed.ends.extend((f"customer {n}", f"{n}") for n in range(60))
    breaker.worked()

    async def asked() -> tuple[Outcome, float]:
        # As the agent's own look does beside it.
        settling = asyncio.create_task(bench.counting.collect())
        await asyncio.sleep(0)
        begin = time.monotonic()
        verdict = await bench.counting.admit(Request("acme", call, TWO, "A"), "")
        took = time.monotonic() - begin
        await settling
        if bench.counting._owed is not None and bench.counting._owed._telling is not None:
            await bench.counting._owed._telling
        return verdict.outcome, took

    outcome, took = run(asked())
    assert outcome is (Outcome.CONCURRENT if call == "refused" else Outcome.ADMITTED)
    assert took < 0.3
    assert slowly.held == ([[("meanwhile", "A")]] if call == "next" else [])


def test_there_is_an_end_to_the_transfers_that_redis_is_not_told_of(fleet: Fleet) -> None:
    from shaken_plugin.agent.owed import MAX_REFERRED

    host = fleet.hosts[0]
    assert host.counting._owed is not None
    assert host.admit("a") is Outcome.ADMITTED
    fleet.cut(0)
    host.counting._owed.again.append(("acme", "a"))  # answered late: what comes after it waits
    run(host.counting.tell([Told("refer", "a", to=f"{n}") for n in range(MAX_REFERRED + 10)]))
    assert len(host.counting._owed.referred) == MAX_REFERRED


def test_others_are_answered_while_much_is_read_that_processes_left(bench: Bench) -> None:
    worker = Presence(bench.folder)
    assert bench.admit("a", worker.name()) is Outcome.ADMITTED
    many = 10_000
    ends(worker, [f"{n}" for n in range(many)])
    ends(worker, "a")

    async def beside() -> int:
        collecting, most, before = asyncio.create_task(bench.counting.collect()), 0, 0
        while not collecting.done():
            await asyncio.sleep(0)
            most, before = max(most, len(bench.counting._ends) - before), len(bench.counting._ends)
        return most

    assert 0 < run(beside()) < many / 2
    assert len(bench.counting._ends) == many
    assert bench.slots == 0


class Late:
    """A Redis with one slot, which takes its time with ends."""

    def __init__(self) -> None:
        self.taken = 0

    def admit(self, request: Request) -> Verdict:
        if self.taken:
            return Verdict(Outcome.CONCURRENT)
        self.taken += 1
        return Verdict(Outcome.ADMITTED)

    def end(self, customer: str, calls: Sequence[str]) -> None:
        time.sleep(0.05)
        self.taken -= len(calls)


def test_an_end_that_redis_is_just_being_told_of_makes_room_before_a_call_is_refused(tmp_path: Path) -> None:
    late: Any = Late()
    counts = FleetCounts(late, Breaker(), lambda: 1)
    bench = Bench(tmp_path, counts)
    worker = Presence(tmp_path)
    assert bench.admit("a", worker.name()) is Outcome.ADMITTED
    ends(worker, "a")

    async def beside() -> Outcome:
        collecting = asyncio.create_task(bench.counting.collect())
        await asyncio.sleep(0)
        verdict = await bench.counting.admit(Request("acme", "b", ONE, "A"), worker.name())
        await collecting
        return verdict.outcome

    assert run(beside()) is Outcome.ADMITTED
    bench.counting.close()
    counts.close()
