"""What is fetched when, and what is forgotten: inside one process, with a clock that tests turn."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import TypeVar

import pytest

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.clock import ClockCheck
from shaken_plugin.agent.documents import Documents, Limits
from shaken_plugin.agent.index import Index
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.recorder import Recorder
from shaken_plugin.agent.schedule import Schedule
from shaken_plugin.agent.trust import Trust, distribution_points
from shaken_plugin.certs.cache import CacheWriter, CertificateCache, StoredDocument
from shaken_plugin.core.certificates import parse_chain
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.fetch import FetchCode, Fetched, FetchFailure, Kind
from shaken_plugin.lab.pki import Authority
from shaken_plugin.telemetry import MemoryObserver
from tests.conftest import NOW

URL = "https://certificates.example.com/a.pem"
HOUR = 3600.0
DAY = 24 * HOUR

_Found = TypeVar("_Found")


class Downloads:
    """Answers what tests put there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.body = b"document"
        self.failure: FetchFailure | None = None
        self.not_modified = False
        self.hang = False
        self.asked: list[tuple[str, Fetched | None]] = []
        self._clock = clock

    async def fetch(self, url: str, kind: Kind, previous: Fetched | None = None) -> Fetched:
        assert kind is Kind.CERTIFICATE
        self.asked.append((url, previous))
        if self.hang:
            await asyncio.sleep(3600)
        if self.failure is not None:
            raise self.failure
        now = self._clock()
        return Fetched(url, self.body, now, now + DAY, '"1"', None, not_modified=self.not_modified)

    async def close(self) -> None:
        """Nothing is open."""


class Bench:
    """The documents of an agent, with everything around them."""

    def __init__(self, folder: Path, limits: Limits | None = None, *, room: int = 100) -> None:
        self.now = NOW
        self.path = folder / "certificates.sqlite"
        self.metrics = Metrics()
        self.observer = MemoryObserver()
        self.alarms = Alarms(self.observer, self.metrics.alarms, lambda: self.now)
        self.downloads = Downloads(lambda: self.now)
        self.recorder = Recorder(CacheWriter(self.path), self.alarms, self.metrics, self._lost)
        self.documents = Documents(
            self.downloads,
            self.recorder,
            Index(room, 10_000_000),
            self._judge,
            limits or Limits(),
            lambda: self.now,
            self.alarms,
            self.metrics,
        )
        self.cache = CertificateCache(self.path)

    def _judge(self, document: bytes, now: float) -> bool:
        if document == b"junk":
            Trust((), None).judge(document, now)
        return document.startswith(b"trusted")

    def _lost(self) -> None:
        self.documents.lost()

    async def refresh(self) -> None:
        """Let the documents that are due be fetched."""
        self.documents.refresh()
        await asyncio.gather(*self.documents._flying.values())


def played(folder: Path, play: Callable[[Bench], Awaitable[_Found]], **bench: object) -> _Found:
    async def whole() -> _Found:
        made = Bench(folder, **bench)  # type: ignore[arg-type]  # a test says what fits
        await made.recorder.open()
        try:
            return await play(made)
        finally:
            await made.documents.close()
            await made.recorder.close()

    return asyncio.run(whole())


def test_a_document_in_use_is_fetched_ahead_of_its_end_and_asked_for_by_its_tag(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.documents.want([URL], 1)
        bench.now += 0.79 * DAY
        await bench.refresh()
        assert len(bench.downloads.asked) == 1
        bench.documents.seen([URL])
        bench.now = NOW + 0.951 * DAY
        bench.downloads.not_modified, bench.downloads.body = True, b""
        await bench.refresh()
        _, previous = bench.downloads.asked[1]
        assert previous is not None
        assert (previous.etag, previous.body) == ('"1"', b"document")
        assert bench.cache.read(URL) == b"document"
        assert bench.cache.version(URL, NOW + 1.9 * DAY) is not None

    played(tmp_path, play)


def test_a_document_that_no_call_asks_for_is_left_and_swept_in_the_end(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.documents.want([URL], 1)
        for _ in range(9):
            bench.now += DAY
            await bench.refresh()
            bench.documents.sweep()
        assert 7 <= len(bench.downloads.asked) <= 10
        bench.now += 3 * DAY
        bench.documents.sweep()
        await bench.recorder.flush()
        assert len(bench.documents.index) == 0
        with pytest.raises(VerificationFailure, match="not in the certificate cache"):
            bench.cache.read(URL)

    played(tmp_path, play)


def test_a_repository_that_fails_leaves_the_document_for_a_while(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.documents.want([URL], 1)
        bench.downloads.failure = FetchFailure(FetchCode.TIMEOUT, "")
        bench.now += DAY
        bench.documents.seen([URL])
        for _ in range(10):
            await bench.refresh()
            assert bench.cache.version(URL, bench.now) is not None
            bench.now += HOUR
        tries = len(bench.downloads.asked)
        assert 5 < tries <= 11
        bench.now = NOW + 2 * DAY + 1
        assert bench.cache.version(URL, bench.now) is None
        bench.downloads.failure = None
        bench.now += HOUR
        assert await bench.documents.want([URL], 1) == {URL: "stored"}
        assert bench.cache.version(URL, bench.now) is not None

    played(tmp_path, play)


def test_failures_are_believed_longer_and_longer_up_to_an_hour(tmp_path: Path) -> None:
    async def play(bench: Bench) -> list[float]:
        bench.downloads.failure = FetchFailure(FetchCode.TIMEOUT, "")
        pauses = []
        for _ in range(12):
            await bench.documents.want([URL], 1)
            known = bench.documents.index.get(URL)
            assert known is not None
            pauses.append(known.document.retry_at - bench.now)
            bench.now = known.document.retry_at
        return pauses

    pauses = played(tmp_path, play)
    assert 27 <= pauses[0] <= 33
    assert 54 <= pauses[1] <= 66
    assert max(pauses) <= 3960
    assert pauses[-1] >= 3240


def test_a_failure_is_believed_too_where_a_document_grew_too_old(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.documents.want([URL], 1)
        bench.downloads.failure = FetchFailure(FetchCode.STATUS, "404")
        bench.now += 2 * DAY + 1
        for _ in range(10):
            assert await bench.documents.want([URL], 1) == {URL: "failed"}
        assert len(bench.downloads.asked) == 2
        assert bench.cache.version(URL, bench.now) is not None
        with pytest.raises(VerificationFailure, match="its download failed"):
            bench.cache.read(URL)

    played(tmp_path, play)


def test_a_document_that_grows_too_old_while_a_failure_is_believed_fails_at_once(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.documents.want([URL], 1)
        bench.downloads.failure = FetchFailure(FetchCode.STATUS, "404")
        bench.now = NOW + 2 * DAY - 10
        bench.documents.seen([URL])
        await bench.refresh()
        bench.now += 11
        assert await bench.documents.want([URL], 1) == {URL: "failed"}
        assert len(bench.downloads.asked) == 2
        await bench.recorder.flush()
        with pytest.raises(VerificationFailure, match="its download failed"):
            bench.cache.read(URL)
        bench.downloads.failure = None
        bench.now += HOUR
        assert await bench.documents.want([URL], 1) == {URL: "stored"}
        assert bench.cache.read(URL) == b"document"

    played(tmp_path, play)


def test_a_damaged_row_is_not_fetched_again_and_again(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.documents.want([URL], 1)
        await bench.recorder.run(lambda writer: writer.delete([URL]))
        bench.downloads.failure = FetchFailure(FetchCode.STATUS, "404")
        for _ in range(10):
            assert await bench.documents.want([URL], 1) == {URL: "failed"}
        assert len(bench.downloads.asked) == 2

    played(tmp_path, play)


def test_failures_are_remembered_where_all_room_is_taken(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.downloads.body = b"trusted"
        for first in (0, 40, 80):
            await bench.documents.want([f"https://good{first + n}.example.com/a.pem" for n in range(40)], 5)
        bench.downloads.failure = FetchFailure(FetchCode.STATUS, "404")
        before = len(bench.downloads.asked)
        for _ in range(10):
            assert await bench.documents.want([URL], 1) == {URL: "failed"}
        assert len(bench.downloads.asked) == before + 1
        assert len(bench.documents.index) <= 100

    played(tmp_path, play, room=100)


@pytest.mark.parametrize(("asked", "low", "high"), [(100.0, 100, 100), (1.0, 27, 33), (1e9, 3600, 3600)])
def test_a_server_that_asks_for_peace_gets_it_within_reason(
    tmp_path: Path, asked: float, low: float, high: float
) -> None:
    async def play(bench: Bench) -> float:
        bench.downloads.failure = FetchFailure(FetchCode.STATUS, "429", asked)
        await bench.documents.want([URL], 1)
        known = bench.documents.index.get(URL)
        assert known is not None
        return known.document.retry_at - bench.now

    assert low <= played(tmp_path, play) <= high


def test_an_overloaded_downloader_says_nothing_of_the_url(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.downloads.failure = FetchFailure(FetchCode.OVERLOADED, "")
        assert await bench.documents.want([URL], 1) == {URL: "overloaded"}
        bench.downloads.failure = None
        assert await bench.documents.want([URL], 1) == {URL: "stored"}

    played(tmp_path, play)


def test_what_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.downloads.body = b"junk"
        assert await bench.documents.want([URL], 1) == {URL: "failed"}
        with pytest.raises(VerificationFailure, match="certificate_malformed"):
            bench.cache.read(URL)

    played(tmp_path, play)


def test_what_a_worker_saw_and_nobody_has_is_fetched_for_the_next_call(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.documents.seen([URL, "http://refused.example.com/"])
        await asyncio.gather(*bench.documents._flying.values())
        assert bench.cache.read(URL) == b"document"
        assert [url for url, _ in bench.downloads.asked] == [URL]

    played(tmp_path, play)


def test_reports_do_not_pile_up_plans(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.documents.want([URL], 1)
        for _ in range(1000):
            bench.now += 61
            bench.documents.seen([URL])
        assert len(bench.documents._schedule._heap) == 1

    played(tmp_path, play)


def test_a_flood_does_not_drive_out_who_is_trusted_or_in_use(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.downloads.body = b"trusted"
        trusted = [f"https://good{number}.example.com/a.pem" for number in range(50)]
        for first in (0, 25):
            await bench.documents.want(trusted[first : first + 25], 5)
        bench.downloads.body = b"stranger"
        for number in range(0, 500, 10):
            await bench.documents.want([f"https://bad{number + part}.example.com/a.pem" for part in range(10)], 5)
        bench.downloads.failure = FetchFailure(FetchCode.TIMEOUT, "")
        for number in range(0, 200, 10):
            await bench.documents.want([f"https://fail{number + part}.example.com/a.pem" for part in range(10)], 5)
        await bench.recorder.flush()
        assert len(bench.documents.index) <= 100
        assert all(bench.cache.version(url, bench.now) for url in trusted)
        assert len(CacheWriter(bench.path).documents()) == len(bench.documents.index)

    played(tmp_path, play, room=100)


def test_refreshing_leaves_half_the_places_to_calls(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        urls = [f"https://host{number}.example.com/a.pem" for number in range(12)]
        for url in urls:
            await bench.documents.want([url], 1)
        bench.now += DAY
        bench.documents.seen(urls)
        bench.documents.refresh()
        assert len(bench.documents._flying) == 4
        for _ in range(5):
            await bench.refresh()
            bench.now += 2
        assert len(bench.downloads.asked) == 24

    played(tmp_path, play, limits=Limits(max_fetches=8))


def test_a_flood_leaves_nothing_planned_nor_to_be_deleted_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shaken_plugin.agent.recorder.MAX_DELETED", 50)
    monkeypatch.setattr("shaken_plugin.certs.cache.writer.WRITE_TIMEOUT", 0.0)

    async def play(bench: Bench) -> None:
        with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
            for number in range(300):
                if number == 200:
                    other.execute("BEGIN IMMEDIATE")
                await bench.documents.want([f"https://bad{number}.example.com/a.pem"], 5)
            schedule = bench.documents._schedule
            assert len(schedule._times) == len(bench.documents.index) <= 20
            assert len(schedule._heap) <= 2 * len(schedule._times) + 64
            assert len(bench.recorder._deleted) == 50
            other.execute("ROLLBACK")
        await bench.recorder.flush()
        assert len(bench.recorder._deleted) == 0

    played(tmp_path, play, room=20)


def test_a_flood_of_strangers_leaves_places_to_signers_we_know(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.downloads.body = b"trusted"
        await bench.documents.want([URL], 1)
        bench.downloads.hang = True
        bench.now += 3 * DAY
        strangers = [f"https://bad{number}.example.com/a.pem" for number in range(20)]
        results = list((await bench.documents.want(strangers, 0.05)).values())
        assert (results.count("waiting"), results.count("overloaded")) == (6, 14)
        assert await bench.documents.want([URL], 0.05) == {URL: "waiting"}

    played(tmp_path, play, limits=Limits(max_fetches=8))


def test_judging_a_document_does_not_stop_the_agent(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        def slow(_document: bytes, _now: float) -> bool:
            time.sleep(0.3)
            return True

        bench.documents._judge = slow
        task, ticks = asyncio.create_task(bench.documents.want([URL], 5)), 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 10
        assert task.result() == {URL: "stored"}

    played(tmp_path, play)


def test_the_index_keeps_to_its_octets() -> None:
    index = Index(1000, 1000)
    forgotten = []
    for number in range(20):
        document = StoredDocument(f"u{number}", None, NOW, NOW, NOW, trusted=True)
        forgotten += index.put(document, 100)
    assert index.bytes == 1000
    assert forgotten == [f"u{number}" for number in range(10)]
    index.put(replace(document, trusted=False), 50)
    assert (index.bytes, len(index)) == (950, 10)
    index.remove("u19")
    assert index.bytes == 900


def test_the_schedule_gives_each_url_once() -> None:
    schedule = Schedule()
    schedule.put("a", 10)
    schedule.put("a", 5)
    schedule.put("b", 7)
    assert list(schedule.take(4)) == []
    assert list(schedule.take(20)) == ["a", "b"]
    assert "a" not in schedule


# --- Clock, alarms, trust --------------------------------------------------------------------------


def checked(offsets: dict[str, float]) -> set[str]:
    metrics, observer = Metrics(), MemoryObserver()
    alarms = Alarms(observer, metrics.alarms, lambda: NOW)
    check = ClockCheck(alarms, metrics.clock)
    for host, offset in offsets.items():
        date = ("date", formatdate(NOW - offset, usegmt=True))
        check.saw(Fetched(f"https://{host}/a.pem", b"", NOW, NOW, None, None, headers=(date,)))
    # What says nothing of the time: no date, no date that can be read, one out of a cache.
    for headers in ((), (("date", "soon"),), (("date", formatdate(0)), ("age", "7"))):
        check.saw(Fetched("https://silent.example.com/", b"", NOW, NOW, None, None, headers=headers))
    return {alarm.name for alarm in alarms.now()}


@pytest.mark.parametrize(
    ("offsets", "off"),
    [
        ({"a": 90.0}, False),
        ({"a": 90.0, "b": 91.0}, True),
        ({"a": -90.0, "b": -91.0, "c": -90.0}, True),
        ({"a": 90.0, "b": 0.0}, False),
        ({"a": 90.0, "b": 0.0, "c": 1.0}, False),
        ({"a": 90.0, "b": -90.0}, False),
        ({"a": 59.0, "b": 59.0, "c": 59.0}, False),
        ({"a": 90.0, "b": 90.0, "c": 90.0, "d": 0.0}, True),
    ],
)
def test_one_server_may_be_wrong_several_are_right(offsets: dict[str, float], off: bool) -> None:
    assert checked(offsets) == ({"clock_off"} if off else set())


def test_an_alarm_is_one_line_and_a_metric_and_clears() -> None:
    metrics, observer = Metrics(), MemoryObserver()
    moment = [NOW]
    alarms = Alarms(observer, metrics.alarms, lambda: moment[0])

    def value() -> float | None:
        return metrics.registry.get_sample_value("shaken_alarm", {"name": "n", "about": "a"})

    for _ in range(3):
        alarms.on("n", "text\nmore", "a", lasts=60)
    assert [line for _, line in observer.lines] == ["alarm n a: text\\nmore"]
    assert value() == 1
    moment[0] += 59
    alarms.tick()
    assert len(alarms.now()) == 1
    moment[0] += 1
    alarms.tick()
    assert (alarms.now(), value()) == ([], 0)
    assert observer.lines[-1][1] == "alarm n a: over"
    alarms.clear("n", "a")
    assert len(observer.lines) == 2


def test_a_revocation_list_is_looked_for_only_behind_a_path_that_holds(authority: Authority) -> None:
    document = authority.issue(spc="709J", now=NOW).chain
    urls = distribution_points(parse_chain(document)[0])
    assert urls
    found: list[list[str]] = []
    assert not Trust([Authority.new(NOW).root], found.append).judge(document, NOW)
    assert not Trust((), found.append).judge(document, NOW)
    assert not Trust([authority.root], found.append).judge(document, NOW + 1e9)
    assert found == []
    assert Trust([authority.root], found.append).judge(document, NOW)
    assert found == [urls]
    assert Trust([authority.root], None).judge(document, NOW)
    assert distribution_points(authority.root) == []
