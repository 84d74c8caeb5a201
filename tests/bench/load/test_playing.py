"""What is played, read back and reported: in small, without a switch."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bench import stage
from bench.load import __main__ as command
from bench.load import callers, mix, plots, report
from bench.load.events import ENDS, pause_of, schedule
from bench.load.hosts import described
from bench.load.judge import judge
from bench.load.observed import Observation, Recorded
from bench.load.run import Options
from bench.load.watch import Pool, Watch, memory, pool_of
from bench.plots import available
from bench.results import BenchError
from click.testing import CliRunner
from cryptography.hazmat.bindings import _rust

from shaken_plugin import runtime
from shaken_plugin.core.call import CallMessage
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.servers import LabError
from tests.bench.load import made

# --- Calls ------------------------------------------------------------------------------------


def test_calls_of_all_kinds_come_by_their_shares_and_evenly_mixed(tmp_path: Path) -> None:
    assert sum(kind.share for kind in mix.KINDS) == 100
    mix.write_calls(tmp_path / "calls.inf", 1_000)
    first, *lines = (tmp_path / "calls.inf").read_text().splitlines()
    assert first == "SEQUENTIAL"
    fields = [line.split(";") for line in lines]
    kinds = [mix.kind_of(source, number) for source, number, *_ in fields]
    counted = Counter(kind.name for kind in kinds if kind is not None)
    assert counted == {kind.name: kind.share * 10 for kind in mix.KINDS}
    some = Counter(kind.name for kind in kinds[:100] if kind is not None)
    assert all(abs(some[kind.name] - kind.share) <= 1 for kind in mix.KINDS)
    assert {line[3] for line, kind in zip(fields, kinds, strict=True) if kind is mix.CROWDED} == {"1500"}
    assert mix.kind_of("127.0.0.2", "+19995550000") is None


def test_the_limited_customers_ask_for_twice_what_they_may_have() -> None:
    assert mix.Bounds.of(50) == mix.Bounds(1.0, 2)
    assert mix.Bounds.of(1) == mix.Bounds(0.02, 1)


def test_what_is_expected_of_each_kind_is_what_the_product_decides(tmp_path: Path) -> None:
    alone: dict[str, Any] = {"agent": {"enabled": False}}
    found = stage.provider(tmp_path, Authority.new(time.time()), policy=mix.policy(mix.Bounds.of(50)), **alone)
    runtime.apply(found.settings, time.time())
    switch = stage.SwitchSide(found.settings).switch
    for kind in mix.KINDS:
        for number in kind.numbers:
            parts = stage.message(number.lstrip("+")) | {"source": kind.source}
            variables = switch.sign(lambda parts=parts: CallMessage(**parts)).variables  # type: ignore[misc]  # a default
            level = variables.get("level")
            outcome = (
                mix.Outcome(403) if level == "refuse" else mix.Outcome(200, None if level == "unsigned" else level)
            )
            assert outcome in kind.outcome, (kind.name, variables)


def test_things_happen_all_through_and_agents_end_in_the_first_half() -> None:
    for seconds in (60.0, 120.0, 600.0, 6_000.0):
        planned = schedule(seconds)
        times = [at for at, _ in planned]
        assert 0 < times[0] < times[-1] < seconds
        assert {round(later - at, 6) for at, later in pairwise(times)} == {pause_of(seconds)}
        ends = {end: at for at, end in planned if end is not None}
        assert ends.keys() == set(range(len(ENDS)))
        assert max(ends.values()) < seconds / 2
    assert schedule(600)[-1][0] > 570


# --- What SIPp wrote --------------------------------------------------------------------------

TRACE = """\
2026-11-22\t14:43:11.0\t10.000\tS\t1-7@127.0.0.1\tCSeq:1 INVITE\tINVITE sip:+12025550143@127.0.0.1 SIP/2.0
2026-11-22\t14:43:11.0\t10.001\tR\t1-7@127.0.0.1\tCSeq:1 INVITE\tSIP/2.0 100 trying
2026-11-22\t14:43:11.5\t10.500\tS\t1-7@127.0.0.1\tCSeq:1 INVITE\tINVITE sip:+12025550143@127.0.0.1 SIP/2.0
2026-11-22\t14:43:11.6\t10.600\tR\t1-7@127.0.0.1\tCSeq:1 INVITE\tSIP/2.0 180 Ringing
2026-11-22\t14:43:11.7\t10.700\tR\t1-7@127.0.0.1\tCSeq:1 INVITE\tSIP/2.0 200 OK
2026-11-22\t14:43:11.7\t10.701\tS\t1-7@127.0.0.1\tCSeq:1 ACK\tACK sip:127.0.0.1:5070 SIP/2.0
2026-11-22\t14:43:11.8\t10.720\tS\t1-7@127.0.0.1\tCSeq:2 BYE\tBYE sip:127.0.0.1:5070 SIP/2.0
2026-11-22\t14:43:11.9\t10.730\tR\t1-7@127.0.0.1\tCSeq:2 BYE\tSIP/2.0 200 OK
2026-11-22\t14:43:12.0\t11.000\tS\t2-7@127.0.0.1\tCSeq:1 INVITE\tINVITE sip:+12025550143@127.0.0.1 SIP/2.0
2026-11-22\t14:43:12.1\t11.010\tR\t2-7@127.0.0.1\tCSeq:1 INVITE\tSIP/2.0 403 Customer Suspended
2026-11-22\t14:43:12.1\t11.011\tS\t2-7@127.0.0.1\tCSeq:1 ACK\tACK sip:+12025550143@127.0.0.1:5060 SIP/2.0
2026-11-22\t14:43:13.0\t12.000\tS\t3-7@127.0.0.1\tCSeq:1 INVITE\tINVITE sip:+12025550143@127.0.0.1 SIP/2.0
2026-11-22\t14:43:13.0\t12.100\tR\t3-7@127.0.0.1\tCSeq:1 INVITE\tSIP/2.0 200 OK
2026-11-22\t14:43:13.0\t12.200\tS\t3-7@127.0.0.1\tCSeq:2 BYE\tBYE sip:127.0.0.1:5070 SIP/2.0
2026-11-22\t14:43:43.0\t42.200\tR\t3-7@127.0.0.1\tCSeq:2 BYE\tSIP/2.0 408 Request Timeout
2026-11-22\t14:43:44.0\t43.0"""
LOGGED = (
    "1-7@127.0.0.1 127.0.0.2 +12155551000\n2-7@127.0.0.1 127.0.0.4 +12155554000\n3-7@127.0.0.1 127.0.0.6 +16465550100\n"
)


def test_calls_as_the_callers_saw_them(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(TRACE)
    (tmp_path / "logged").write_text(LOGGED)
    kinds = callers.kinds(tmp_path / "logged")
    one, two, three = callers.placed(tmp_path / "trace", kinds.__getitem__).values()
    assert (one.kind, one.sent, one.rang, one.status, one.hung_up, one.ended) == ("owned", 10, 10.6, 200, 10.72, 10.73)
    assert (two.kind, two.rang, two.status, two.ended) == ("suspended", 11.01, 403, None)
    assert (three.kind, three.rang, three.status, three.ended) == ("gateway", 12.1, 200, None)
    assert [call.transmissions for call in (one, two, three)] == [2, 1, 1]
    (tmp_path / "logged").write_text("1-7@127.0.0.1 127.0.0.2 +19995550000\n")
    with pytest.raises(BenchError, match="a call of nobody"):
        callers.kinds(tmp_path / "logged")


def test_calls_as_the_called_side_saw_them(tmp_path: Path) -> None:
    authority = Authority.new(time.time())
    provider = stage.provider(tmp_path / "origin", authority, agent={"enabled": False})
    runtime.apply(provider.settings, time.time())
    identity = stage.SwitchSide(provider.settings).sign(stage.message("12155551212"))
    stamp = "2026-11-22\t14:46:56.9\t"
    (tmp_path / "logged").write_text(
        f"{stamp}10.5| 1-7@x| <sip:+1215@x;verstat=No-TN-Validation>||\n"
        f"{stamp}11.5| 2-7@x| <sip:+1215;verstat=TN-Validation-Passed@x>|\nIdentity: {identity}|\n"
        f"{stamp}12.5| 3-7@x||\nIdentity: no.token|\nIdentity: no.token\r\nX: y\r\nIdentity:\n"
        f"{stamp}13.5| stranger@x|||\n"
    )
    calls = {f"{number}-7@x": made.call(0) for number in (1, 2, 3)}
    for call in calls.values():
        call.arrivals.clear()
    assert callers.arrived(tmp_path / "logged", calls) == ["stranger@x"]
    plain, signed, odd = (call.arrivals[0] for call in calls.values())
    assert plain == (10.5, None, None, "No-TN-Validation", 0)
    assert signed == (11.5, "A", provider.x5u, "TN-Validation-Passed", 1)
    assert (odd.level, odd.verstat, odd.identities) == ("unreadable", None, 2)


# --- What hosts have --------------------------------------------------------------------------


def test_records_are_put_to_their_calls(tmp_path: Path) -> None:
    from sqlalchemy import insert

    from shaken_plugin.records.ledger import Ledger
    from shaken_plugin.records.tables import CALL, DAMAGED

    ledger = Ledger(f"sqlite:{tmp_path / 'ledger.db'}")
    ledger.prepare()
    records: list[dict[str, Any]] = [
        {"kind": "sign", "call_id": "0-1@127.0.0.1", "level": "A", "at": 5.0},
        {"kind": "verify", "call_id": "0-1@127.0.0.1", "verstat": "TN-Validation-Failed", "code": "stale", "at": 6.0},
        {"kind": "sign", "call_id": "nobody@x", "level": "A", "at": 7.0},
    ]
    with ledger.writing() as connection:
        for number, one in enumerate(records):
            row = {"file": "f", "offset": number, "at": one["at"], "kind": one["kind"], "record": json.dumps(one)}
            connection.execute(insert(CALL).values(**row, refused=False, unauthorised=False))
        connection.execute(insert(DAMAGED).values(file="f", offset=9, length=3, why="no record", octets=b"abc", at=8.0))
    ledger.close()
    run = made.run()
    call = run.calls["0-1@127.0.0.1"]
    call.signed, call.verified = [], []
    run.count("originating", tmp_path / "ledger.db")
    assert (call.signed, call.verified) == (
        [Recorded("A", None, 5.0)],
        [Recorded("TN-Validation-Failed", "stale", 6.0)],
    )
    assert (run.strangers, run.damaged["originating"]) == ([("originating", "nobody@x")], 1)


def test_processes_of_a_kamailio_by_what_they_are() -> None:
    listing = (
        "7\nattendant\n8\nudp receiver child=0 sock=127.0.0.1:1\n9\nudp receiver child=1 sock=127.0.0.1:1\n10\nshaken\n"
    )
    assert described(listing + "11\nctl handler\n") == {
        7: "kamailio main 1",
        8: "kamailio SIP worker 1",
        9: "kamailio SIP worker 2",
        10: "kamailio waiting room 1",
        11: "kamailio other 1",
    }


def test_memory_is_watched_and_a_process_that_ends_is_told() -> None:
    ticks: list[int] = []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        lasting = {os.getpid(): "this", child.pid: "child"}
        with Watch(lasting, dict, {}, 0.01, lambda: ticks.append(1)) as watch:
            while len(ticks) < 3:
                time.sleep(0.01)
            child.communicate(b"\n")
    assert watch.gone == ["child"]
    samples = watch.found["this", os.getpid()]
    assert len(samples) >= 3
    assert all(one.octets > 1 << 20 for one in samples)


SHMMEM = """\
{
\ttotal: 67108864
\tfree: 53568752
\tused: 11884288
\treal_used: 13540112
\tmax_used: 13546280
\tfragments: 812
}
"""


def test_what_is_in_use_of_a_pool_is_asked_again_and_again() -> None:
    assert pool_of(SHMMEM) == (67_108_864, 13_540_112)
    with pytest.raises(BenchError, match="does not tell the use of the shared memory: error: 500"):
        pool_of("error: 500 - command core.shmmem not found")
    used = iter(range(1, 1_000_000))
    refusing = {3: LabError("kamcmd"), 4: subprocess.TimeoutExpired("kamcmd", 10), 5: BenchError("another answer")}

    def ask() -> Pool:
        number = next(used)
        if number in refusing:
            raise refusing[number]
        return Pool(1 << 26, number << 20)

    watch = Watch({}, dict, {"pool": ask}, 0.01, int)  # which learns its size
    for _ in range(6):
        watch.look()
    assert [one.octets >> 20 for one in watch.pools["pool"]] == [2, 6, 7]


def test_a_pool_that_does_not_tell_its_size_is_told_at_once() -> None:
    with pytest.raises(BenchError, match="does not tell"):
        Watch({}, dict, {"pool": lambda: pool_of("")}, 1, int)


def test_memory_is_what_a_process_has_of_its_own_or_shares_and_not_the_pages_of_files() -> None:
    size = 16 << 20
    for kind in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
        with mmap.mmap(-1, size, kind) as pages:
            before = memory(os.getpid()).octets
            for place in range(0, size, mmap.PAGESIZE):
                pages[place] = 1
            assert memory(os.getpid()).octets - before > size * 0.9
    library = Path(_rust.__file__)  # no file of ours: those of tests may lie in memory, which is shared memory then
    size = library.stat().st_size
    assert size > 8 << 20
    with library.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as pages:
        before = memory(os.getpid()).octets
        assert sum(pages[place] for place in range(0, size, mmap.PAGESIZE))
        assert memory(os.getpid()).octets - before < size * 0.1


def test_pages_of_a_pool_are_told_apart_from_other_shared_memory() -> None:
    size = 16 << 20
    with mmap.mmap(-1, size) as pool, mmap.mmap(-1, size // 2) as other:
        before = memory(os.getpid(), {size})
        for place in range(0, size, mmap.PAGESIZE):
            pool[place] = 1
        between = memory(os.getpid(), {size})
        assert between.touched - before.touched == size
        assert between.octets - before.octets < size * 0.1
        for place in range(0, size // 2, mmap.PAGESIZE):
            other[place] = 1
        after = memory(os.getpid(), {size})
        assert after.touched == between.touched
        assert after.octets - between.octets > size // 2 * 0.9  # what this process gives back meanwhile is missing


def test_a_process_that_has_ended_has_no_memory() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet reaped
        with pytest.raises(ProcessLookupError, match=f"process {child.pid} has ended"):
            memory(child.pid)


# --- What people get --------------------------------------------------------------------------


def test_the_report_says_it_in_words_as_json_and_in_pictures(tmp_path: Path) -> None:
    run = made.run()
    lost = made.of(run, mix.OWNED, 60)
    lost.status = lost.rang = lost.ended = None
    options = Options(300, 1)
    verdict = judge(run)
    text = report.text(run, verdict, options, {"cores": "2"})
    assert "  NO   no call lost" in text
    assert "  yes  memory flat" in text
    assert "originating kamailio shared pool        13.0 MiB" in text
    assert "NOT TRUE: no call lost: 1 of 300 calls have no final answer: 60-1@127.0.0.1" in text
    assert "numbers added (1), key rotated (1)" in text
    content = json.loads(json.dumps(report.to_json(run, verdict, options, {}, made="2026-11-22T15:00:00+00:00")))
    assert not content["good"]
    assert content["checks"]["no call lost"] is False
    assert content["events"][0] == {"begin": 100.0, "end": 100.0, "what": "numbers added", "kind": "change"}
    assert len(content["calls"]) == 300
    assert content["calls"][0]["latency"]["p50"] == pytest.approx(10)
    assert [one["pool"] for one in content["pools"]] == [
        "originating kamailio shared pool", "terminating kamailio shared pool"
    ]  # fmt: skip
    assert {len(one["samples"]) for one in content["pools"]} == {300}
    assert content["memory"][0]["samples"][299] == [299.0, 60 << 20, 0]
    if not available():
        pytest.skip("matplotlib is not installed: pip install matplotlib")
    files = plots.draw(run, tmp_path)
    assert [file.name for file in files] == ["rate.png", "latency.png", "memory.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 10_000 for file in files)


@pytest.mark.parametrize("good", [True, False])
def test_the_command_ends_with_status_1_where_something_is_not_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    run = made.run()
    if not good:
        run.gone = ["Redis"]
    asked: list[Options] = []

    def play(options: Options, scratch: Path, _: object) -> Observation:
        asked.append(options)
        folders.append(scratch)
        return run

    folders: list[Path] = []
    monkeypatch.setattr(command, "_play", play)
    monkeypatch.setattr(command, "find_program", lambda name: name)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    words = ["--minutes", "2", "--rate", "7", "--embedded", "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(command.main, words)
    assert done.exit_code == (0 if good else 1), done.output
    assert asked == [Options(120.0, 7, embedded=True)]
    assert ("NOT TRUE: no fault, no process ended: Redis ended by itself" in done.output) is not good
    (folder,) = (tmp_path / "results").iterdir()
    assert {"summary.txt", "results.json"} <= {file.name for file in folder.iterdir()}
    assert folders[0].exists() is not good


def test_the_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(command, "PROGRAMS", ("no-such-program",))
    done = CliRunner().invoke(command.main, ["--results", str(tmp_path)])
    assert done.exit_code == 1
    assert "no-such-program is not installed; install it with: apt-get install" in done.output
