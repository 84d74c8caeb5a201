"""How the agent follows its fleet's policy, and what it says of that: with a stand-in for Redis."""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from shaken_plugin import __version__
from shaken_plugin.agent import replication
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.breaker import LONGEST_PAUSE, Breaker
from shaken_plugin.agent.hoststatus import HostReport, Rate, ThisHost
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.parts import Fleet
from shaken_plugin.agent.replication import Replication
from shaken_plugin.config.sections import Settings, SigningSettings, StoreSettings, VerificationSettings
from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Author
from shaken_plugin.stores.freshness import CopyAge, mark, mark_of
from shaken_plugin.stores.redis.hosts import LAG, Host, Hosts, HostStatus
from shaken_plugin.stores.sqlite import SCHEMA_VERSION, SqlitePolicy
from shaken_plugin.telemetry import MemoryObserver
from tests.agent.host import until

NOW = 1_800_000_000.0


class Found(NamedTuple):
    """A `parts.Progress`."""

    version: int
    head: int
    resynced: str | None = None


class Scripted:
    """A replica that does as it is told."""

    def __init__(self, outcome: Found | Exception) -> None:
        self.outcome: Found | Exception = outcome
        self.asked = 0
        self.away: Exception | None = None
        """What Redis itself says."""

    def follow(self, wait: float) -> Found:
        self.asked += 1
        time.sleep(min(wait, 0.02))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def probe(self) -> None:
        if self.away is not None:
            raise self.away


class Table:
    """A table of hosts in memory."""

    def __init__(self, *others: Host) -> None:
        self.others = others
        self.before: Host | None = None
        self.reports: list[HostStatus] = []
        self.broken: Exception | None = None

    def report(self, status: HostStatus) -> Hosts:
        if self.broken is not None:
            raise self.broken
        before = self.before or (Host(status.host, 2.0, self.reports[-1]) if self.reports else None)
        self.reports.append(status)
        return Hosts((*self.others, Host(status.host, 0.0, status)), before)


class Bench:
    """A replication with everything around it."""

    def __init__(self, path: Path, outcome: Found | Exception) -> None:
        self.path, self.now = path, [time.time()]
        self.observer, self.metrics, self.breaker = MemoryObserver(), Metrics(), Breaker()
        self.alarms = Alarms(self.observer, self.metrics.alarms, lambda: self.now[0])
        self.replica = Scripted(outcome)
        self.compacted: list[float] = []
        self.refused: Exception | None = None
        self.own_refused: Exception | None = None
        fleet = Fleet("edge1", self.replica, Table(), self.compact, 3, own=self.own)
        self.replication = Replication(path, 300.0, fleet, self.breaker, self.alarms, self.metrics, lambda: self.now[0])

    def compact(self) -> None:
        self.compacted.append(self.now[0])
        if self.refused is not None:
            raise self.refused

    def own(self) -> None:
        if self.own_refused is not None:
            raise self.own_refused

    def turn(self) -> float:
        outcome, pause = self.replication._turn()
        self.replication._told(outcome)
        asyncio.run(self.replication.look())
        return pause

    def on(self) -> dict[str, str]:
        return {alarm.name: alarm.text for alarm in self.alarms.now()}

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.db"


@pytest.fixture
def bench(path: Path) -> Bench:
    return Bench(path, Found(7, 7))


# --- The copy -----------------------------------------------------------------------------------


def test_a_copy_that_is_the_head_is_marked_with_the_time_at_which_that_was_asked(bench: Bench) -> None:
    asked = bench.now[0]
    real = bench.replica.follow

    def follow(wait: float) -> Found:
        bench.now[0] += 0.4
        return real(wait)

    bench.replica.follow = follow  # type: ignore[method-assign]  # a stand-in
    assert bench.turn() == 0
    assert mark_of(bench.path).stat().st_mtime == pytest.approx(asked, abs=1e-6)
    assert bench.replication.age() == pytest.approx(0.4, abs=0.2)
    assert (bench.replication.head, bench.on()) == (7, {})
    assert bench.metric("shaken_fleet_policy_version") == 7
    assert bench.metric("shaken_copy_age_seconds") == pytest.approx(0.4, abs=0.2)


def test_a_copy_that_lacks_what_is_the_hosts_own_is_not_marked(bench: Bench) -> None:
    bench.own_refused = StoreError("policy.db: is locked by another writer")
    assert bench.turn() > 0
    assert not mark_of(bench.path).exists()
    assert "is locked by another writer" in bench.on()["copy_not_updated"]
    bench.own_refused = None
    assert bench.turn() == 0
    assert mark_of(bench.path).exists()


def test_a_copy_behind_the_head_is_not_marked(bench: Bench) -> None:
    bench.replica.outcome = Found(6, 7)
    bench.turn()
    assert not mark_of(bench.path).exists()
    assert bench.replication.age() is None


def test_a_failure_opens_the_breaker_and_the_first_success_closes_it(bench: Bench) -> None:
    bench.turn()
    bench.replica.outcome = StoreUnavailable("Redis 127.0.0.1:1: does not answer in time")
    pauses = [bench.turn() for _ in range(10)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.1, LONGEST_PAUSE)
    assert bench.breaker.is_open
    assert "does not answer in time; calls go on from the copy" in bench.on()["breaker_open"]
    assert (bench.metric("shaken_breaker_open"), bench.metric("shaken_breaker_opened")) == (1, 1)
    bench.replica.outcome = Found(7, 7)
    assert bench.turn() == 0
    assert (bench.breaker.is_open, bench.on()) == (False, {})
    assert bench.metric("shaken_breaker_open") == 0
    bench.replica.outcome = StoreUnavailable("again")
    assert bench.turn() == 0.1


@pytest.mark.parametrize("said", [None, StoreError("there is no such fleet")])
def test_any_answer_of_redis_closes_the_breaker_although_the_copy_cannot_follow(
    bench: Bench, said: StoreError | None
) -> None:
    bench.replica.outcome = bench.replica.away = StoreUnavailable("away")
    bench.turn()
    bench.replica.outcome = StoreError("policy.db: is locked by another writer")
    bench.turn()
    assert bench.breaker.why == "away"  # the file was looked at first, and Redis not asked
    assert "is locked by another writer" in bench.on()["copy_not_updated"]
    bench.replica.away = said
    assert bench.turn() > 0
    assert not bench.breaker.is_open
    assert list(bench.on()) == ["copy_not_updated"]


def test_the_age_goes_on_while_redis_is_away_and_is_an_alarm_once_it_is_too_old(bench: Bench) -> None:
    bench.turn()
    bench.replica.outcome = StoreUnavailable("away")
    bench.now[0] += 299
    bench.turn()
    assert "copy_stale" not in bench.on()
    bench.now[0] += 2
    bench.turn()
    assert "last known to be whole 301 s ago, store.max_age is 300 s" in bench.on()["copy_stale"]
    bench.replica.outcome = Found(8, 8)
    bench.turn()
    assert bench.on() == {}


def test_a_host_that_cannot_join_is_an_alarm_after_some_seconds(bench: Bench) -> None:
    bench.replica.outcome = StoreUnavailable("away")
    bench.turn()
    assert "copy_stale" not in bench.on()
    bench.now[0] += 6
    bench.turn()
    assert "no copy of the fleet's policy yet" in bench.on()["copy_stale"]
    assert bench.metric("shaken_copy_age_seconds") == math.inf


@pytest.mark.parametrize(
    ("outcome", "alarm", "said"),
    [
        (StoreError("policy.db: is locked by another writer"), "copy_not_updated", "is locked by another writer"),
        (OSError(28, "No space left on device"), "copy_not_updated", "policy.db.known: No space left on device"),
        (RuntimeError("a fault of ours"), "fault", "a fault of ours"),
    ],
)
def test_trouble_that_is_not_redis_leaves_the_breaker_closed(
    bench: Bench, outcome: Exception, alarm: str, said: str
) -> None:
    bench.replica.outcome = outcome
    assert bench.turn() > 0
    assert not bench.breaker.is_open
    assert said in bench.on()[alarm]
    bench.replica.outcome = Found(7, 7)
    bench.turn()
    bench.now[0] += 61
    bench.alarms.tick()
    assert bench.on() == {}


def test_a_copy_that_was_made_anew_is_said(bench: Bench) -> None:
    bench.replica.outcome = Found(7, 7, "Redis is at version 7, the copy was at 9")
    bench.turn()
    assert "made anew from the snapshot: Redis is at version 7" in bench.on()["resynced"]
    assert bench.metric("shaken_copy_resyncs_total") == 1
    bench.now[0] += 601
    bench.alarms.tick()
    assert bench.on() == {}


def test_the_thread_follows_until_it_is_ended(bench: Bench) -> None:
    async def whole() -> None:
        bench.replication.start()
        await asyncio.to_thread(until, lambda: bench.replica.asked >= 3)
        bench.replica.outcome = StoreUnavailable("away")
        await asyncio.to_thread(until, lambda: bench.breaker.is_open)
        bench.replica.outcome = Found(9, 9)
        await asyncio.to_thread(until, lambda: bench.replication.head == 9)
        await bench.replication.close()

    asyncio.run(asyncio.wait_for(whole(), 20))
    assert not any(thread.is_alive() for thread in bench.replication._threads)


def test_a_thread_that_outlives_the_loop_ends(bench: Bench) -> None:
    async def whole() -> None:
        bench.replication.start()

    asyncio.run(whole())
    follower = bench.replication._threads[0]
    until(lambda: not follower.is_alive())


def test_the_log_is_kept_short_and_what_hinders_that_is_an_alarm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "COMPACT_EVERY", 0.01)
    bench.refused = StoreError("Redis: has no memory left")

    async def whole() -> None:
        bench.replication.start()
        await asyncio.to_thread(until, lambda: "log_growing" in bench.on())
        assert "has no memory left; Redis keeps all changes" in bench.on()["log_growing"]
        bench.refused = None
        await asyncio.to_thread(until, lambda: "log_growing" not in bench.on())
        bench.replica.outcome = bench.refused = StoreUnavailable("away")
        await asyncio.to_thread(until, lambda: bench.breaker.is_open)
        asked = len(bench.compacted)
        await asyncio.sleep(0.1)
        assert len(bench.compacted) <= asked + 1
        assert "log_growing" not in bench.on()
        await bench.replication.close()

    asyncio.run(asyncio.wait_for(whole(), 20))


# --- The breaker --------------------------------------------------------------------------------


def test_while_the_breaker_is_open_nobody_else_asks() -> None:
    breaker, asked = Breaker(), []

    def ask(outcome: Exception | None) -> None:
        with breaker.asking():
            asked.append(outcome)
            if outcome is not None:
                raise outcome

    ask(None)
    with pytest.raises(StoreError):
        ask(StoreError("a mistake of ours opens nothing"))
    assert breaker.why is None
    with pytest.raises(StoreUnavailable, match="no answer"):
        ask(StoreUnavailable("no answer"))
    with pytest.raises(StoreUnavailable, match="not asked just now: no answer"):
        ask(None)
    assert len(asked) == 3
    breaker.worked()
    ask(None)
    assert (len(asked), breaker.opened) == (4, 1)


# --- What the host says -------------------------------------------------------------------------


class Reporting:
    """A host's report with everything around it."""

    def __init__(self, path: Path, table: Table | None) -> None:
        self.bench = Bench(path, Found(7, 7))
        self.calls: int | None = 0
        fleet = None if table is None else Fleet("edge1", self.bench.replica, table, self.bench.compact, 3)
        replication = self.bench.replication if table is not None else None
        self.report = HostReport(
            path,
            lambda: self.calls,
            fleet,
            replication,
            self.bench.breaker,
            self.bench.alarms,
            self.bench.metrics,
            lambda: self.bench.now[0],
        )

    def look(self) -> HostStatus:
        self.bench.now[0] += 2
        asyncio.run(self.report.look())
        return self.report.status


@pytest.fixture
def reporting(path: Path) -> Iterator[Callable[..., Reporting]]:
    made: list[Reporting] = []

    def make(table: Table | None) -> Reporting:
        made.append(Reporting(path, table))
        return made[-1]

    yield make
    for one in made:
        one.report.close()


def test_a_host_on_its_own_says_how_it_is_to_whoever_asks(path: Path, reporting: Callable[..., Reporting]) -> None:
    one = reporting(None)
    status = one.look()
    assert (status.version, status.file_schema, status.age, status.head) == (None, None, None, None)
    with SqlitePolicy(path).change(Author("test", "test", NOW), "a customer") as draft:
        draft.put(Customer("acme", "Acme", CustomerState.VERIFIED))
    one.calls = 40
    status = one.look()
    assert (status.version, status.file_schema, status.calls_per_second) == (1, SCHEMA_VERSION, 20.0)
    assert one.bench.metric("shaken_policy_version") == 1
    assert one.bench.metric("shaken_calls_per_second") == 20
    one.calls = None
    assert one.look().calls_per_second is None
    path.write_bytes(b"no database" * 100)
    assert one.look().version is None


def test_agent_schema_and_last_errors_are_metrics_too(path: Path, reporting: Callable[..., Reporting]) -> None:
    one = reporting(Table())

    def info() -> list[dict[str, str]]:
        return [sample.labels for metric in one.bench.metrics.agent.collect() for sample in metric.samples]

    one.look()
    assert info() == [{"version": __version__, "schema": "", "redis_schema": "3"}]
    with SqlitePolicy(path).change(Author("test", "test", NOW), "a customer") as draft:
        draft.put(Customer("acme", "Acme", CustomerState.VERIFIED))
    one.bench.alarms.on("host_behind", "it lags", "edge2")
    one.bench.alarms.clear("host_behind", "edge2")
    raised = one.bench.now[0]
    one.look()
    one.look()
    assert info() == [{"version": __version__, "schema": str(SCHEMA_VERSION), "redis_schema": "3"}]
    labels = {"name": "host_behind", "about": "edge2"}
    assert one.bench.metrics.registry.get_sample_value("shaken_agent_info", info()[0]) == 1
    assert one.bench.metrics.registry.get_sample_value("shaken_alarm_raised_timestamp_seconds", labels) == raised


def test_a_host_of_a_fleet_reports_itself(path: Path, reporting: Callable[..., Reporting]) -> None:
    table = Table()
    one = reporting(table)
    one.bench.turn()
    one.bench.alarms.on("clock_off", "our clock is wrong")
    one.bench.alarms.clear("clock_off")
    one.report.parts["slots"] = lambda: {"used": 3}
    said = one.look()
    assert table.reports == [said]
    assert (said.host, said.head, said.redis_schema, said.breaker_open) == ("edge1", 7, 3, False)
    assert said.age == pytest.approx(2, abs=0.5)
    assert said.parts == {"slots": {"used": 3}}
    assert [(error.name, error.text) for error in said.errors] == [("clock_off", "our clock is wrong")]
    assert HostStatus.model_validate_json(said.model_dump_json(exclude_defaults=True)) == said
    mark(path, one.bench.now[0] + 1_000)
    assert one.look().age is None


def status_of(name: str, **more: object) -> HostStatus:
    return HostStatus.model_validate({"host": name, "version": 7, "age": 0.3, **more})


LAGGING = {
    "silent": (Host("edge2", LAG + 1, status_of("edge2")), "says nothing for 11 s.*it decides by version 7"),
    "old": (Host("edge2", 1, status_of("edge2", version=6, age=30)), "is at version 6 of 7, and for 30 s"),
    "joining": (Host("edge2", 1, status_of("edge2", version=None, age=None, up=60)), "has no copy"),
    "unreadable": (Host("edge2", 1, None), "cannot be read"),
    "silent at once": (Host("edge2", LAG + 1, status_of("edge2", version=None)), "decides by no version"),
}


@pytest.mark.parametrize(("host", "said"), LAGGING.values(), ids=LAGGING)
def test_a_host_that_lags_is_an_alarm_about_it(reporting: Callable[..., Reporting], host: Host, said: str) -> None:
    table = Table(host)
    one = reporting(table)
    one.bench.turn()
    one.look()
    (alarm,) = [alarm for alarm in one.bench.alarms.now() if alarm.name == "host_behind"]
    assert alarm.about == "edge2"
    assert one.bench.metric("shaken_fleet_hosts") == 2
    assert re.search(said, alarm.text)
    for fine in (status_of("edge2"), status_of("edge2", version=None, age=None, up=3)):
        table.others = (Host("edge2", 1, fine),)
        one.look()
    assert one.bench.on() == {}


def test_while_redis_is_away_nothing_is_reported_and_nothing_new_is_said_of_others(
    reporting: Callable[..., Reporting],
) -> None:
    table = Table(Host("edge2", LAG + 1, status_of("edge2")))
    one = reporting(table)
    one.bench.turn()
    one.look()
    table.broken = StoreUnavailable("away")
    one.look()
    assert one.bench.breaker.is_open
    assert "host_behind" in one.bench.on()
    table.broken = None
    one.look()
    assert len(table.reports) == 1  # only who probes asks
    one.bench.turn()
    one.look()
    assert len(table.reports) == 2


def test_a_report_that_redis_does_not_take_is_an_alarm(reporting: Callable[..., Reporting]) -> None:
    table = Table()
    one = reporting(table)
    table.broken = StoreError("Redis: has no memory left")
    one.look()
    assert "has no memory left; the fleet does not hear of this host" in one.bench.on()["status_unreported"]
    table.broken = None
    one.look()
    assert "status_unreported" not in one.bench.on()


def test_two_hosts_of_one_name_are_an_alarm(reporting: Callable[..., Reporting]) -> None:
    table = Table()
    one = reporting(table)
    one.bench.turn()
    table.before = Host("edge1", 1, status_of("edge1", instance="before this agent was started"))
    one.look()
    assert one.bench.on() == {}
    table.before = None
    one.look()
    assert one.bench.on() == {}
    table.before = Host("edge1", 1, status_of("edge1", instance="another"))
    one.look()
    assert "another agent reports as edge1" in one.bench.on()["host_name_taken"]


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.now(100, NOW) == 0
    assert rate.now(120, NOW + 2) == 10
    for second in range(2, 31):
        found = rate.now(120, NOW + second)
    assert found == 0
    assert rate.now(150, NOW - 1_000) == 0  # the clock was put back
    assert rate.now(160, NOW - 999) == 10
    assert len(rate._counts) == 2


def test_a_host_on_its_own_has_no_replication(path: Path) -> None:
    settings = Settings(
        store=StoreSettings(path=str(path)), signing=SigningSettings(mode="off"), verification=VerificationSettings()
    )
    metrics = Metrics()
    alarms = Alarms(MemoryObserver(), metrics.alarms, lambda: NOW)
    host = ThisHost(settings, None, lambda: 0, alarms, metrics, lambda: NOW)
    assert [name for name, _, _ in host.jobs()] == ["host"]
    host.start()
    asyncio.run(host.close())
    fleet = Fleet("edge1", Scripted(Found(1, 1)), Table(), lambda: None, 1)
    member = ThisHost(settings, fleet, lambda: 0, alarms, metrics, lambda: NOW)
    assert [name for name, _, _ in member.jobs()] == ["host", "copy"]

    async def whole() -> None:
        member.start()
        await asyncio.to_thread(until, lambda: CopyAge(path).seconds() is not None)
        await member.close()

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_the_file_says_what_it_is(path: Path, reporting: Callable[..., Reporting]) -> None:
    one = reporting(None)
    assert one.report._file() == (None, None)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (value)")
    assert one.report._file() == (None, None)


def test_a_change_is_not_the_last_to_close_the_file(path: Path, reporting: Callable[..., Reporting]) -> None:
    one, log = reporting(None), path.with_name("policy.db-wal")
    with SqlitePolicy(path).change(Author("test", "test", NOW), "a customer") as draft:
        draft.put(Customer("acme", "Acme", CustomerState.VERIFIED))
    assert not log.exists()  # its end took the log in, under a lock of the whole file
    one.look()
    with SqlitePolicy(path).change(Author("test", "test", NOW), "another") as draft:
        draft.put(Customer("new", "New", CustomerState.VERIFIED))
    assert log.exists()
