"""Trust lists and revocation lists: what is taken, what is not, and when they are fetched again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.lists import KeptRevocationList, KeptTrustList, TrustListContent
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.recorder import Recorder
from shaken_plugin.agent.trusted import parse_bundle
from shaken_plugin.certs.cache import CacheWriter, RevocationCache
from shaken_plugin.core.crl import RevocationList
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.fetch import FetchCode, Fetched, FetchFailure, Kind
from shaken_plugin.lab.pki import Authority
from shaken_plugin.telemetry import MemoryObserver
from tests.conftest import NOW

DAY = 86_400.0

_Content = TypeVar("_Content")


class Bench:
    """One list of each kind, whose content tests put there as objects."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.path = folder / "certificates.sqlite"
        self.trust: TrustListContent | Exception = TrustListContent(1, NOW + DAY, (b"\x30\x82\x00\x00",))
        self.crl: RevocationList | Exception = crl(NOW, NOW + DAY, (b"i", 1))
        self.failure: FetchFailure | None = None
        self.not_modified = False
        self.changes: list[tuple[bytes, ...]] = []
        self.observer = MemoryObserver()
        self.metrics = Metrics()
        self.alarms = Alarms(self.observer, self.metrics.alarms, lambda: self.now)
        self.recorder = Recorder(CacheWriter(self.path), self.alarms, self.metrics, lambda: None)
        common = (self, self.recorder, self.alarms, self.metrics, lambda: self.now)
        self.list = KeptTrustList(
            "us",
            "list",
            *common,
            parse=lambda _b, _n: given(self.trust),
            grace=100,
            changed=self.changes.append,
            origin=b"1",
        )
        self.revocation = KeptRevocationList(
            "crl", "crl", *common, trust_list="us", parse=lambda _b, _n: given(self.crl)
        )

    async def fetch(self, url: str, kind: Kind, previous: Fetched | None = None) -> Fetched:
        if self.failure is not None:
            raise self.failure
        return Fetched(
            url, b"", self.now, self.now + DAY, None, None, not_modified=self.not_modified and previous is not None
        )

    async def close(self) -> None:
        """Nothing is open."""

    def on(self) -> set[str]:
        return {alarm.name for alarm in self.alarms.now()}

    async def stored(self) -> None:
        """Wait until the trust list is in the file."""
        for _ in range(500):
            if self.sequence() is not None:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it was not stored in time")

    def sequence(self) -> int | None:
        row = CacheWriter(self.path).trust_lists().get("us")
        return None if row is None else row.sequence


def crl(this: float, end: float, *revoked: tuple[bytes, int], number: int = 7) -> RevocationList:
    return RevocationList(b"pa", number, this, end, frozenset(revoked))


def given(content: _Content | Exception) -> _Content:
    if isinstance(content, Exception):
        raise content
    return content


def played(folder: Path, play: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        bench = Bench(folder)
        await bench.recorder.open()
        await play(bench)
        await bench.recorder.close()

    asyncio.run(whole())


def test_a_list_is_taken_and_fetched_again_before_its_end(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        assert await bench.list.fetch() == 43_200
        bench.trust = TrustListContent(2, NOW + 1000, (b"\x30\x82\x00\x00",))
        assert await bench.list.fetch() == 800
        assert await bench.revocation.fetch() == 3_600
        assert bench.sequence() == 2
        assert bench.on() == set()
        assert len(bench.changes) == 2

    played(tmp_path, play)


@pytest.mark.parametrize(
    "wrong",
    [
        TrustListContent(4, NOW + DAY, (b"\x30\x82\x00\x00",)),
        TrustListContent(6, NOW + DAY, ()),
        ValueError("not a trust list"),
        VerificationFailure(FailureCode.CERTIFICATE_MALFORMED, "no certificate"),
    ],
    ids=["older", "empty", "malformed", "no certificates"],
)
def test_what_is_wrong_changes_nothing_and_is_tried_again_soon(
    tmp_path: Path, wrong: TrustListContent | Exception
) -> None:
    async def play(bench: Bench) -> None:
        bench.trust = TrustListContent(5, NOW + DAY, (b"\x30\x82\x00\x00",))
        await bench.list.fetch()
        bench.trust = wrong
        assert [await bench.list.fetch() for _ in range(4)] == [15, 30, 60, 120]
        assert bench.sequence() == 5
        assert len(bench.changes) == 1
        assert bench.on() == {"trust_list_refused"}
        bench.trust = TrustListContent(5, NOW + DAY, (b"\x30\x82\x00\x00",))
        await bench.list.fetch()
        assert bench.on() == set()

    played(tmp_path, play)


def test_another_list_under_the_same_name_begins_anew(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.trust = TrustListContent(7, NOW + DAY, (b"\x30\x82\x00\x00",))
        await bench.list.fetch()
        moved = Bench(tmp_path)
        moved.list._origin = b"2"
        moved.failure = FetchFailure(FetchCode.TIMEOUT, "")
        await moved.list.restore()
        await moved.list.fetch()
        assert moved.sequence() is None
        assert moved.changes == []
        moved.failure, moved.trust = None, TrustListContent(0, None, (b"\x30\x82\x00\x00",))
        await moved.list.fetch()
        assert moved.on() == set()
        assert moved.sequence() == 0
        await moved.recorder.close()

    played(tmp_path, play)


def test_reading_a_list_does_not_stop_the_agent(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        def slow(_body: bytes, _now: float) -> RevocationList:
            time.sleep(0.3)
            return crl(NOW, NOW + DAY)

        bench.revocation._parse = slow
        task, ticks = asyncio.create_task(bench.revocation.fetch()), 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 10
        assert bench.on() == set()

    played(tmp_path, play)


def test_a_list_that_cannot_be_had_ends_with_an_alarm(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.list.fetch()
        bench.failure = FetchFailure(FetchCode.TIMEOUT, "")
        await bench.list.fetch()
        assert bench.on() == {"trust_list_unavailable"}
        bench.now += DAY
        bench.list.look(bench.now)
        assert bench.on() == {"trust_list_unavailable", "trust_list_expired"}
        row = CacheWriter(bench.path).trust_lists()["us"]
        assert (row.expires, row.usable_until) == (NOW + DAY, NOW + DAY + 100)
        bench.failure = None
        bench.trust = TrustListContent(2, bench.now + DAY, (b"\x30\x82\x00\x00",))
        await bench.list.fetch()
        assert bench.on() == set()
        bench.failure = FetchFailure(FetchCode.TIMEOUT, "")
        await bench.list.fetch()
        bench.list.gone()
        assert bench.on() == set()

    played(tmp_path, play)


def test_a_list_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.list.fetch()
        bench.not_modified = True
        bench.trust = ValueError("must not be read")
        await bench.list.fetch()
        assert bench.on() == set()

    played(tmp_path, play)


def test_a_revocation_list_never_pardons_by_going_back(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.revocation.fetch()
        for wrong in (
            crl(NOW - 1, NOW + DAY),
            crl(NOW, NOW + DAY, number=6),
            crl(NOW + 1, NOW + DAY),
            crl(NOW, NOW - 0.5),
            ValueError("its signature is wrong"),
        ):
            bench.crl = wrong
            await bench.revocation.fetch()
            assert bench.on() == {"crl_refused"}
            assert RevocationCache(bench.path, "us", ["crl"]).revoked(b"i", 1)
        restarted = Bench(tmp_path)
        await restarted.recorder.open()
        await restarted.revocation.restore()
        for wrong in (crl(NOW - 1, NOW + DAY), crl(NOW, NOW + DAY, number=6)):
            restarted.crl = wrong
            await restarted.revocation.fetch()
            assert restarted.on() == {"crl_refused"}
            restarted.crl = crl(NOW, NOW + DAY, (b"i", 1))
            await restarted.revocation.fetch()
            assert restarted.on() == set()
        await restarted.recorder.close()

    played(tmp_path, play)


def test_a_lost_file_gets_the_list_back_even_if_its_server_is_down(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        task = asyncio.create_task(bench.list.keep())
        await bench.stored()
        bench.failure = FetchFailure(FetchCode.CONNECT_FAILED, "")
        CacheWriter(bench.path).renew()
        assert bench.sequence() is None
        bench.list.again()
        await bench.stored()
        assert bench.sequence() == 1
        task.cancel()

    played(tmp_path, play)


def test_a_plain_bundle_is_a_list_without_end_and_of_authorities_alone(authority: Authority) -> None:
    content = parse_bundle(authority.root_pem, NOW)
    assert content == TrustListContent(0, None, (authority.root.public_bytes(Encoding.DER),))
    for wrong in (b"", b"<html>", authority.issue(spc="709J", now=NOW).chain):
        with pytest.raises((ValueError, VerificationFailure)):
            parse_bundle(wrong, NOW)
