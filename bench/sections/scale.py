"""What calls cost with ten thousand to ten million numbers in the policy store, and what that store costs.

Each call has another number. Every round begins a new process for each store, so that nothing of ours remembers a
number, a right or a page of the file; the file itself is read into the machine's memory before, where a host that
has written it has it anyway. At last each store begins a fleet in a Redis of its own, and another host joins it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench import stage
from bench.processes import one_core
from bench.results import BenchError, Report, Series, Target
from bench.sections import Options, Section
from bench.stores import Store
from bench.workers import Measure, Task, Worker, interleave
from shaken_plugin.core.call import CallMessage
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import LabError
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from shaken_plugin.stores.sqlite.upkeep import status

SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
QUICK: Final = (10_000, 1_000_000)
QUICK_FLEET: Final = 10_000
"""The largest store that the short run begins a fleet with."""

DECISION, SIGNING, MEMORY, FILE, BUILD = "decision", "complete signing", "worker memory", "file", "build"
REDIS, UPLOAD, JOIN = "in Redis", "fleet begun", "host joins"


class Calls:
    """Calls with numbers that were not asked for before.

    Args:
        settings: the provider's.
        callers: one a call; the first is not measured, and loads what does not depend on the number.
        whole: sign; otherwise decide only.
    """

    def __init__(self, settings: Path, callers: list[str], *, whole: bool) -> None:
        self._side, self._whole = stage.SwitchSide(settings), whole
        self._waiting = [stage.message(caller) for caller in callers]
        self._calls: list[dict[str, Any]] = []
        self._side.sign(self._waiting.pop())

    def prepare(self, count: int) -> None:
        """See `Task`."""
        self._calls, self._waiting = self._waiting[:count], self._waiting[count:]
        if len(self._calls) < count:
            raise BenchError("there are not so many numbers left")

    def run(self, _count: int) -> None:
        """See `Task`."""
        if self._whole:
            for call in self._calls:
                self._side.sign(call)
            return
        service = self._side.switch.services.authentication
        assert service is not None
        for call in self._calls:
            if service.admit(CallMessage(**call), time.time(), "").refuse:
                raise BenchError(f"a call was refused: {call}")

    def check(self) -> None:
        """See `Task`: what was decided is level A, which `SwitchSide.sign` demands."""
        self._side.sign(self._calls[-1])


def deciding(settings: Path, callers: list[str]) -> Task:
    """Decisions alone."""
    return Calls(settings, callers, whole=False)


def signing(settings: Path, callers: list[str]) -> Task:
    """Complete signing."""
    return Calls(settings, callers, whole=True)


def run(options: Options) -> Report:
    """See `Section`."""
    sizes, rounds, calls = (QUICK, 3, 500) if options.quick else (SIZES, 10, 1_500)
    report = Report("scale", TITLE)
    stores = {size: options.stores.of(size) for size in sizes}
    with one_core():
        draw = random.Random(8224)
        subjects = [
            _fresh(store, size, what, calls, draw) for size, store in stores.items() for what in (DECISION, SIGNING)
        ]
        found = interleave(subjects, rounds, options.begin("scale: calls", len(subjects) * (rounds + 1)))
    for what, unit in ((DECISION, "µs"), (SIGNING, "µs"), (MEMORY, "MiB")):
        report.series += [Series(what, unit, found[what, size], size) for size in sizes]
    report.series += [Series(FILE, "MB", (store.octets / 1e6,), size) for size, store in stores.items()]
    report.series += [Series(BUILD, "s", (store.seconds,), size) for size, store in stores.items()]
    begun = [size for size in sizes if not options.quick or size <= QUICK_FLEET]
    advance, fleets = options.begin("scale: fleets", len(begun)), list[Series]()
    try:
        for size in begun:
            fleets += in_a_fleet(stores[size], size, options.folder / f"fleet-{size}")
            advance()
    except LabError as exc:
        report.notes.append(f"fleets not measured: {exc}")
        report.failed = True
    report.series += [one for name in (REDIS, UPLOAD, JOIN) for one in fleets if one.name == name]
    compare(report, sizes)
    return report


def in_a_fleet(store: Store, size: int, folder: Path) -> list[Series]:
    """What a store takes in Redis, how long it takes to get there, and until another host is in service with it.

    Raises:
        BenchError: that host has something else.
        LabError: there is no Redis.
    """
    path, copy = store.settings.with_name("policy.db"), folder / "policy.db"
    folder.mkdir()
    with RedisServer("redis", folder / "redis") as server:
        log, began = FleetLog(server.access, "bench"), time.perf_counter()
        upload_snapshot(path, log)
        begun, memory = time.perf_counter() - began, server.command("INFO", "memory")["used_memory"]
        began = time.perf_counter()
        Replica(copy, log).advance()
        joined = time.perf_counter() - began
        log.close()
    held, wanted = status(copy), status(path)
    if (held.records, held.numbers, held.ranges) != (wanted.records, wanted.numbers, wanted.ranges):
        raise BenchError("the copy of the host that joined has not what the first has")
    copy.unlink()
    found = ((REDIS, "MB", memory / 1e6), (UPLOAD, "s", begun), (JOIN, "s", joined))
    return [Series(name, unit, (value,), size) for name, unit, value in found]


def compare(report: Report, sizes: tuple[int, ...]) -> None:
    """The ratios of the section: each size to the smallest."""
    for what in (DECISION, SIGNING, MEMORY, FILE, BUILD):
        target = Target(1.10) if what == SIGNING else None
        for size in sizes[1:]:
            report.compare(what, what, at=size, to_at=sizes[0], target=target if size == SIZES[-1] else None)


def _fresh(store: Store, size: int, what: str, calls: int, draw: random.Random) -> Measure[tuple[str, int]]:
    """A turn in a process that begins with it and ends after it."""
    make = signing if what == SIGNING else deciding
    count = min(calls, len(store.numbers) // 2)

    def measure() -> Mapping[tuple[str, int], float]:
        _into_memory(store.settings.with_name("policy.db"))
        with Worker(make, store.settings, store.callers(draw, count + 1)) as worker:
            turn = worker.turn(count)
        values = {(what, size): turn.cpu / count * 1e6}
        return values | {(MEMORY, size): turn.memory / 2**20} if what == SIGNING else values

    return measure


def _into_memory(path: Path) -> None:
    """Read a file, so that nobody measures how fast a disk is: the machine may have given its memory to others."""
    with path.open("rb", buffering=0) as file:
        while file.read(2**20):
            pass


TITLE: Final = "Growth of the policy store: a new process in each round, another random number in each call"
SECTION: Final = Section("scale", TITLE, run)
