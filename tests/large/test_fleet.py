"""10 million numbers and 100,000 ranges in Redis: the memory they take there, and how soon a host that joins has them.

As many as in `test_ten_million`, but scattered like random ones, which take the most room. Prints what it measured.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shaken_plugin.core.records import Basis, Customer, CustomerState, Record, Right
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.ports import Author
from shaken_plugin.stores.policy import KIND_NAMES
from shaken_plugin.stores.redis import scripts
from shaken_plugin.stores.redis.entries import SCHEMA, Head, Snapshot, snapshot_text
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.pieces import Writer
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.redis.replica import Progress, Replica
from shaken_plugin.stores.redis.upkeep import renew_snapshot
from shaken_plugin.stores.sqlite.codec import encode
from shaken_plugin.stores.sqlite.upkeep import status
from tests.large import test_ten_million as ten
from tests.large.test_ten_million import LOW, NUMBERS, RANGES, ask, questions

pytestmark = [pytest.mark.large, pytest.mark.timeout(3_600)]


def scattered(index: int) -> str:
    """The single number of an index: no two are the same, and no rule leads from one to the next."""
    value = index * 0x5851_F42D % 2**31
    value = (value ^ value >> 15) * 0x2C1B_3C6D % 2**31
    value = (value ^ value >> 13) * 0x297A_2D39 % 2**31
    return str(LOW + (value ^ value >> 16))


def begin(log: FleetLog, numbers: int, ranges: int) -> None:
    """A fleet with so many, at version 1: as a snapshot that was uploaded."""
    head = Head(1, "first")
    with Writer() as writer:
        writer.line("snapshot", 1, *head, 0, 0)
        writer.line("change", 1, 1.0, "large", "a test", "all", 0)
        records: list[Record] = [Customer("acme", "Acme", CustomerState.VERIFIED)]
        records += [Right(f"r{index:04}", "acme", Basis.LETTER, f"LOA-{index}") for index in range(ten.RIGHTS)]
        records.append(Right("ranges", "acme", Basis.ASSIGNED))
        for record in records:
            writer.line("record", KIND_NAMES[type(record)], record.id, 1, None, encode(record))
        for index in range(ten.RIGHTS):
            values = sorted(int(scattered(one)) for one in range(index, numbers, ten.RIGHTS))
            writer.line("numbers", "right", f"r{index:04}", 1, None, len(values))
            writer.numbers(values)
        writer.line("ranges", "right", "ranges", 1, None, ranges)
        writer.pairs((int(first), int(last)) for first, last in map(ten.span, range(ranges)))
        writer.line("end")
        snapshot = Snapshot(head, "chunks", writer.seal())
        log.upload(snapshot.txid, writer)
    keys = ("meta", "head", "log", "staged", "chunked", "material")
    words = ("", "large", SCHEMA, SCHEMA, snapshot_text(snapshot), *head, snapshot.txid, "", 60)
    assert log.run(scripts.FOUND, keys, *words) is None


def join(path: Path, log: FleetLog) -> tuple[float, float]:
    """A host joins; seconds of time, and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    assert Replica(path, log).advance() == Progress(1, 1, None)
    return time.perf_counter() - began, time.process_time() - worked


def join_at_ten_million(folder: Path, numbers: int = NUMBERS, ranges: int = RANGES) -> str:
    """What it measured, for people."""
    here, there = folder / "here.db", folder / "there.db"
    with RedisServer("redis", folder / "redis") as server:
        log = FleetLog(server.access, "large")
        begin(log, numbers, ranges)
        memory = server.command("INFO", "memory")["used_memory"] / 1e6
        join(here, log)
        joined, worked = join(there, log)
        held = status(there)
        assert (held.numbers, held.ranges) == (numbers, ranges)
        asked, expected = questions(numbers, ranges)
        assert ask(there, asked)["found"] == expected
        began = time.perf_counter()
        with RedisPolicy(here, log).change(Author("large", "a test", 99.0), "one more") as draft:
            draft.put(Customer("beta", "Beta", CustomerState.VERIFIED))
        changed = time.perf_counter() - began
        began = time.perf_counter()
        assert Replica(there, log).follow(5) == Progress(2, 2, None)
        followed = time.perf_counter() - began
        assert followed < 1
        began = time.perf_counter()
        assert renew_snapshot(here, log)
        renewed = time.perf_counter() - began
        peak = server.command("INFO", "memory")["used_memory_peak"] / 1e6
    return (
        f"{numbers} numbers and {ranges} ranges: {memory:.0f} MB in Redis ({peak:.0f} MB at most, with the next "
        f"snapshot beside it, which took {renewed:.0f} s); a host that joins is in service after {joined:.0f} s "
        f"({worked:.0f} s of the processor), its copy has {held.size / 1e6:.0f} MB; a change took "
        f"{changed * 1e3:.0f} ms, and was on the other host {followed * 1e3:.0f} ms later"
    )


def test_a_host_joins_a_fleet_with_ten_million_numbers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ten, "number", scattered)
    told = join_at_ten_million(tmp_path)
    with capfd.disabled():
        print(f"\n{told}")
