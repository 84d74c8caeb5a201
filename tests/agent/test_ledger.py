"""The daemon moves records of calls into the ledger, whatever happens to it, and says when it cannot."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.ledger import LedgerKeeper
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.config.sections import Settings
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.records import collector
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.spool import SpoolWriter, process_name
from shaken_plugin.telemetry import MemoryObserver
from tests.agent.host import Host, until
from tests.records.builders import call_ids, record

DAY = 86_400.0


def write(folder: Path, *call_ids: str, at: float | None = None) -> SpoolWriter:
    writer = SpoolWriter(folder / "calls", 1 << 20)
    for call_id in call_ids:
        assert writer.write(record(call_id=call_id, at=time.time() if at is None else at)) is None
    return writer


def known(ledger: Ledger) -> list[str]:
    """The records, none where the ledger is only being made."""
    try:
        return call_ids(ledger)
    except StoreUnavailable:
        return []


def metric(host: Host, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", host.get("/metrics")[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_records_reach_the_ledger_at_once_and_over_kills(host: Host) -> None:
    ledger = Ledger(f"sqlite:{host.folder / 'ledger.db'}")
    writer = write(host.folder, "before the agent")
    host.start()
    until(lambda: known(ledger) == ["before the agent"])
    assert writer.write(record(call_id="while it runs", at=time.time())) is None
    until(lambda: call_ids(ledger) == ["before the agent", "while it runs"])
    assert metric(host, "shaken_records_collected_total") == 2
    host.kill()
    assert writer.write(record(call_id="while it is dead", at=time.time())) is None
    host.start()
    until(lambda: len(call_ids(ledger)) == 3)
    assert host.alarms() == set()
    assert host.stop() == 0


def test_a_ledger_that_is_locked_is_an_alarm_and_loses_nothing(host: Host) -> None:
    host.start()
    writer = write(host.folder, "first")
    path = host.folder / "ledger.db"
    ledger = Ledger(f"sqlite:{path}")
    until(lambda: known(ledger) == ["first"])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert writer.write(record(call_id="second", at=time.time())) is None
        until(lambda: "ledger_unavailable" in host.alarms())
        other.execute("ROLLBACK")
    until(lambda: host.alarms() == set())
    assert call_ids(ledger) == ["first", "second"]


# --- By hand ----------------------------------------------------------------------------------


class Hand:
    """A keeper without a daemon around it."""

    def __init__(self, folder: Path, seen_until: Callable[[], int] | None = None, **records: object) -> None:
        self.now = time.time()
        self.metrics = Metrics()
        self.alarms = Alarms(MemoryObserver(), self.metrics.alarms, lambda: self.now)
        self.keeper = LedgerKeeper(self.alarms, self.metrics, lambda: self.now, seen_until)
        self.folder = folder
        self.configure(**records)

    def configure(self, **records: object) -> None:
        chosen = {"folder": str(self.folder / "calls"), "ledger": f"sqlite:{self.folder / 'ledger.db'}", **records}
        off = {"mode": "off"}
        self.keeper.configure(Settings.model_validate({"signing": off, "verification": off, "records": chosen}))

    def do(self, *names: str) -> set[str]:
        for name in names:
            asyncio.run(getattr(self.keeper, name)())
        return {alarm.name for alarm in self.alarms.now()}

    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:{self.folder / 'ledger.db'}")


def test_nothing_is_made_where_there_is_nothing_to_do(tmp_path: Path) -> None:
    hand = Hand(tmp_path)
    assert hand.do("measure", "prune", "collect", "measure", "prune") == set()
    hand.configure(enabled=False)
    write(tmp_path, "a")
    assert hand.do("collect", "measure", "prune") == set()
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize(("later", "moved"), [(0.0, 1), (0.99, 1), (1.0, 2), (-60.0, 2)])
def test_records_gather_for_a_second_after_some_were_moved_whatever_becomes_of_the_clock(
    tmp_path: Path, later: float, moved: int
) -> None:
    hand = Hand(tmp_path)
    hand.do("collect_when_due")
    writer = write(tmp_path, "at once: there was nothing")
    hand.do("collect_when_due")
    assert len(call_ids(hand.ledger())) == 1
    writer.write(record(call_id="a moment later", at=time.time()))
    hand.now += later
    hand.do("collect_when_due")
    assert len(call_ids(hand.ledger())) == moved


def test_what_was_left_behind_is_moved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "MAX_BATCH", 200)
    monkeypatch.setattr(collector, "MAX_READ", 400)
    monkeypatch.setattr(collector, "MAX_BATCHES", 1)
    hand = Hand(tmp_path)
    for name in "abc":
        write(tmp_path, name)
    found = []
    for _ in range(4):
        hand.do("collect_when_due")
        found.append(len(call_ids(hand.ledger())))
    assert found == [1, 2, 3, 3]


def test_old_records_are_removed_unless_somebody_has_not_seen_them(tmp_path: Path) -> None:
    seen = [2]
    hand = Hand(tmp_path, lambda: seen[0], keep_days=30)
    for call_id, days in (("latest", 0), ("old and seen", 31), ("old and not seen", 31), ("young", 29)):
        write(tmp_path, call_id, at=hand.now - days * DAY)
    hand.do("collect", "prune")
    assert call_ids(hand.ledger()) == ["latest", "old and not seen", "young"]
    seen[0] = 4
    hand.do("prune")
    assert call_ids(hand.ledger()) == ["latest", "young"]
    # The number of one that was removed never comes back.
    hand.configure(keep_days=1)
    hand.do("prune")
    write(tmp_path, "new")
    hand.do("collect")
    assert call_ids(hand.ledger()) == ["latest", "new"]
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("SELECT seq FROM call").fetchall() == [(1,), (5,)]


def test_nothing_is_removed_while_the_clock_is_off(tmp_path: Path) -> None:
    hand = Hand(tmp_path, keep_days=30)
    write(tmp_path, "a", at=hand.now - 31 * DAY)
    write(tmp_path, "b", at=hand.now)
    hand.alarms.on("clock_off", "our clock is off")
    assert hand.do("collect", "prune") == {"clock_off", "records_not_pruned"}
    assert call_ids(hand.ledger()) == ["a", "b"]
    hand.alarms.clear("clock_off")
    assert hand.do("prune") == set()
    assert call_ids(hand.ledger()) == ["b"]


def test_a_removal_that_failed_is_tried_again_and_one_that_succeeded_not_for_an_hour(tmp_path: Path) -> None:
    hand = Hand(tmp_path, keep_days=1)
    write(tmp_path, "a", at=hand.now - DAY + 60)
    write(tmp_path, "b", at=hand.now + DAY)
    hand.do("collect")
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert hand.do("prune_when_due") == {"records_not_pruned"}
        other.execute("ROLLBACK")
    assert hand.do("prune_when_due") == set()
    for passed, left in ((3_599, ["a", "b"]), (2, ["b"])):
        hand.now += passed
        hand.do("prune_when_due")
        assert call_ids(hand.ledger()) == left


def test_what_was_moved_is_counted_although_the_ledger_then_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand(tmp_path)
    for own in write(tmp_path, "a", "b")._own.values():
        assert own.file is not None
        own.file.close()  # as if the process had ended

    def fail(self: Ledger, files: object) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "forget", fail)
        assert hand.do("collect_when_due") == {"ledger_unavailable"}
    assert hand.metrics.collected._value.get() == 2
    assert hand.do("collect_when_due") == set()  # at once: some may be left


def test_a_spool_that_grows_or_waits_is_an_alarm(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 100)
    hand = Hand(tmp_path, alarm_bytes=1_048_576)
    writer = write(tmp_path, "a")
    assert hand.do("collect", "measure") == {"ledger_unavailable"}
    hand.now += 61
    assert hand.do("measure") == {"ledger_unavailable", "spool_growing"}
    (tmp_path / "ledger.db").unlink()
    assert hand.do("collect", "measure", "prune") == set()
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 100)
    while (tmp_path / "calls").stat().st_size >= 0 and hand.metrics.spool_bytes._value.get() < 1_048_576:
        for _ in range(500):
            assert writer.write(record()) is None
        hand.do("measure")
    assert hand.do("collect", "prune") == {"ledger_unavailable", "records_not_pruned", "spool_growing"}


def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(tmp_path)
    write(tmp_path, "a")
    hand.do("collect")
    monkeypatch.setattr("shaken_plugin.agent.ledger._free", lambda _folder: 0.04)
    assert hand.do("measure") == {"spool_growing"}
    monkeypatch.undo()
    assert hand.do("measure") == set()


def test_damaged_lines_and_strange_files_are_alarms(tmp_path: Path) -> None:
    hand = Hand(tmp_path)
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls" / f"{process_name()}-1.jsonl").write_bytes(b"{}\n")
    (tmp_path / "calls" / f"{process_name()}-2.jsonl").mkdir()
    assert hand.do("collect") == {"records_damaged", "spool_unusable"}
    (tmp_path / "calls" / f"{process_name()}-2.jsonl").rmdir()
    assert hand.do("collect") == {"records_damaged"}
    hand.now += 3_601
    hand.alarms.tick()
    assert hand.do("collect") == set()


def test_a_password_that_is_not_there_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEDGER_PASSWORD", raising=False)
    url = "postgresql://shaken@127.0.0.1:1/shaken"
    hand = Hand(tmp_path, ledger=url, ledger_password="env:LEDGER_PASSWORD")
    write(tmp_path, "a")
    assert hand.do("collect") == {"ledger_unavailable"}
    assert "LEDGER_PASSWORD is not set" in hand.alarms.now()[0].text
    monkeypatch.setenv("LEDGER_PASSWORD", "secret\n")
    assert hand.do("collect") == {"ledger_unavailable"}  # nobody answers there
    hand.configure()
    assert hand.do("collect") == set()
    assert call_ids(hand.ledger()) == ["a"]
    hand.keeper.close()
