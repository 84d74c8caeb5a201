"""Revocation lists that only certificates name: which are fetched, how many, and for how long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509

from shaken_plugin.agent import trust
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.recorder import Recorder
from shaken_plugin.agent.trust import Trust
from shaken_plugin.agent.trusted import KEEP_FOUND, Keeping
from shaken_plugin.certs.cache import CacheWriter
from shaken_plugin.cli.agent import load
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.certificates import parse_chain
from shaken_plugin.lab.pki import Authority
from shaken_plugin.telemetry import MemoryObserver
from tests.agent.scripted import parts

OWN = "https://pa.example.com/crl/a"


class Bench:
    """The lists of an agent whose settings name one revocation list and follow certificates."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.ahead = 0.0
        self.path = folder / "certificates.sqlite"
        self.folder = folder
        (folder / "root.pem").write_bytes(authority.root_pem)
        metrics = Metrics()
        self.alarms = Alarms(MemoryObserver(), metrics.alarms, self.now)
        self.recorder = Recorder(CacheWriter(self.path), self.alarms, metrics, lambda: None)
        given = parts(folder)
        self.settings = self.read()
        downloader = given.downloader(self.settings)
        self.keeping = Keeping(given, downloader, self.recorder, self.alarms, metrics, self.now)

    def now(self) -> float:
        return time.time() + self.ahead

    def read(self, name: str = "root.pem") -> Settings:
        (self.folder / "shaken.yaml").write_text(
            f"""
signing: {{mode: "off"}}
verification: {{trust_list: us, cache: {self.path}}}
trust_lists:
  us:
    anchors: ["file:root.pem"]
    crl: {{urls: ["https://pa.example.com/crl/a"], signers: ["file:{name}"], from_certificates: true}}
"""
        )
        return load(self.folder / "shaken.yaml")

    def crl(self) -> None:
        now = self.now()
        (self.folder / "crl").write_text(f'{{"this": {now - 10}, "next": {now + 3e6}, "revoked": [["3000", 7]]}}')

    def urls(self) -> list[str]:
        return [one["url"] for one in self.keeping.status(self.now())]

    async def arrived(self, *urls: str) -> None:
        """Wait until lists are there."""
        for _ in range(500):
            there = {one["url"] for one in self.keeping.status(self.now()) if one["ends_in_seconds"] is not None}
            if there >= set(urls):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("they did not arrive in time")


def played(folder: Path, authority: Authority, play: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        bench = Bench(folder, authority)
        await bench.recorder.open()
        bench.keeping.configure(bench.settings)
        bench.keeping.start()
        await play(bench)
        await bench.keeping.stop()
        await bench.recorder.close()

    asyncio.run(whole())


def test_only_what_the_fetcher_may_fetch_is_kept_and_two_of_each_certificate(tmp_path: Path, today: Authority) -> None:
    async def play(bench: Bench) -> None:
        bench.keeping._add(["ldap://directory.example.com/cn=crl", "https://127.0.0.1/crl/x"])
        assert bench.urls() == [OWN]
        bench.keeping._add([f"http://crl{number}.example.com/missing/x" for number in range(5)])
        assert len(bench.urls()) == 3
        assert "crl_not_kept" not in {alarm.name for alarm in bench.alarms.now()}

    played(tmp_path, today, play)


def test_made_up_lists_do_not_keep_out_the_right_one_for_good(tmp_path: Path, today: Authority) -> None:
    right = "http://right.example.com/crl/x"

    async def play(bench: Bench) -> None:
        bench.crl()
        for number in range(20):
            bench.keeping._add([f"http://made-up{number}.example.com/missing/x"])
        assert len(bench.urls()) == 1 + 8
        bench.keeping._add([right])
        await bench.arrived(right)
        for number in range(20):
            bench.keeping._add([f"http://again{number}.example.com/missing/x"])
        assert right in bench.urls()
        assert len(bench.urls()) == 1 + 8
        alarmed = {alarm.about for alarm in bench.alarms.now()}
        assert not any("made-up" in about for about in alarmed)

    played(tmp_path, today, play)


def test_more_lists_than_there_is_room_for_are_told(tmp_path: Path, today: Authority) -> None:
    async def play(bench: Bench) -> None:
        bench.crl()
        urls = [f"http://crl{number}.example.com/crl/x" for number in range(8)]
        for url in urls:
            bench.keeping._add([url])
        await bench.arrived(*urls)
        bench.keeping._add(["http://ninth.example.com/crl/x"])
        assert len(bench.urls()) == 1 + 8
        assert "crl_not_kept" in {alarm.name for alarm in bench.alarms.now()}

    played(tmp_path, today, play)


def test_a_list_that_no_certificate_names_any_more_is_forgotten(tmp_path: Path, today: Authority) -> None:
    gone, named = "http://gone.example.com/crl/x", "http://named.example.com/crl/x"

    async def play(bench: Bench) -> None:
        bench.crl()
        bench.keeping._add([gone, named])
        await bench.arrived(OWN, gone, named)
        bench.ahead = KEEP_FOUND - 60
        bench.keeping._add([named])
        await bench.keeping.tidy()
        assert len(bench.urls()) == 3
        bench.ahead = KEEP_FOUND + 60
        await bench.keeping.tidy()
        assert bench.urls() == [OWN, named]
        stored = await bench.recorder.run(CacheWriter.revocation_lists)
        assert {url for _, url in stored} == {OWN, named}

    played(tmp_path, today, play)


def test_new_signers_under_the_same_file_name_are_taken_and_what_was_found_stays(
    tmp_path: Path, today: Authority
) -> None:
    async def play(bench: Bench) -> None:
        bench.keeping._add(["http://named.example.com/missing/x"])
        before = dict(bench.keeping._lists)
        bench.keeping.configure(bench.settings)
        assert bench.keeping._lists == before
        (bench.folder / "signer.pem").write_bytes(today.root_pem)
        bench.keeping.configure(bench.read("signer.pem"))
        between = dict(bench.keeping._lists)
        (bench.folder / "signer.pem").write_bytes(Authority.new(time.time()).root_pem)
        bench.keeping.configure(bench.read("signer.pem"))
        assert bench.urls() == list(between) == list(before)
        assert all(bench.keeping._lists[url] is not between[url] for url in between)

    played(tmp_path, today, play)


def test_every_certificate_of_the_path_is_asked_for_its_list(
    today: Authority, chain: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serial(certificate: x509.Certificate) -> list[str]:
        return [str(certificate.serial_number)]

    monkeypatch.setattr(trust, "distribution_points", serial)
    found: list[list[str]] = []
    assert Trust([today.root], found.append).judge(chain, time.time())
    assert found == [serial(one) for one in (*parse_chain(chain), today.root)]
