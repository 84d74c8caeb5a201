"""What calls cost with ten thousand to ten million numbers in the policy store, and what that store costs.

Numbers are drawn at random from the whole North American plan, and each call has another one. Every round begins
a new process for each store, so that nothing of ours remembers a number, a right or a page of the file; the file
itself is in the machine's memory, as on a host that has written it. At last each store begins a fleet in a Redis
of its own, and another host joins it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from phonenumbers import PhoneNumber, is_valid_number

from bench import stage
from bench.processes import one_core
from bench.results import BenchError, Report, Series, Target
from bench.sections import Options, Section
from bench.workers import Measure, Task, Worker, interleave
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.records import Basis, Customer, CustomerState, Right, Trunk
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import LabError
from shaken_plugin.ports import Author, Span
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.stores.sqlite.upkeep import status

SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
QUICK: Final = SIZES[:3]

RIGHTS: Final = 1_000
"""Letters of one contact centre's clients, in every store: what grows is how many numbers they name."""

CALLS: Final = 1_500
"""Of one process, each with another number; one in `RANGED` lies in a range."""
RANGED: Final = 10

KEPT: Final = 200
"""Numbers of each right that calls are made with, at most."""

DECISION, SIGNING, MEMORY, FILE, BUILD = "decision", "complete signing", "worker memory", "file", "build"
REDIS, UPLOAD, JOIN = "in Redis", "fleet begun", "host joins"


# --- The numbers ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Numbering:
    """Every number that is valid in the North American plan, in order; drawn from by place."""

    areas: tuple[int, ...]
    """Area codes."""

    @classmethod
    def make(cls) -> Numbering:
        """By the metadata of ``phonenumbers``."""
        valid = (area for area in range(200, 1000) if is_valid_number(PhoneNumber(1, area * 10_000_000 + 2_345_678)))
        return cls(tuple(valid))

    def __len__(self) -> int:
        return len(self.areas) * 8_000_000

    def at(self, place: int) -> str:
        """The number at a place: area code, then 200 0000 to 999 9999."""
        area, rest = divmod(place, 8_000_000)
        return f"1{self.areas[area]}{2_000_000 + rest}"


@dataclass(frozen=True, slots=True)
class Content:
    """The numbers of one store: nine tenths of the plan hold single ones, the rest ranges."""

    numbering: Numbering
    numbers: int
    ranges: int

    def of_right(self, index: int) -> list[str]:
        """Its single numbers, each different, in no order; the rights divide the plan among them."""
        width = len(self.numbering) * 9 // 10 // RIGHTS
        count = self.numbers // RIGHTS + (index < self.numbers % RIGHTS)
        places = random.Random(index).sample(range(index * width, (index + 1) * width), count)
        return [self.numbering.at(place) for place in places]

    def spans(self) -> Iterator[Span]:
        """The ranges, of 2 to 1,000 numbers within one area code, none touching another."""
        draw, first = random.Random(self.ranges), len(self.numbering) * 9 // 10
        width = (len(self.numbering) - first) // max(self.ranges, 1)
        for index in range(self.ranges):
            length = draw.randint(2, min(1_000, width // 2))
            begin = first + index * width + draw.randrange(width - length)
            begin -= max(0, begin % 8_000_000 + length - 8_000_000)
            yield Span(self.numbering.at(begin), self.numbering.at(begin + length - 1))


@dataclass(frozen=True, slots=True)
class Store:
    """A store that was built, and numbers in it to call with."""

    settings: Path
    seconds: float
    octets: int
    numbers: list[str]
    spans: list[Span]

    def callers(self, draw: random.Random, count: int) -> list[str]:
        """Different random numbers, one in `RANGED` within a range."""
        ranged = [
            str(draw.randint(int(span.first), int(span.last)))
            for span in draw.sample(self.spans, min(len(self.spans), count // RANGED))
        ]
        found = ranged + draw.sample(self.numbers, min(len(self.numbers), count - len(ranged)))
        draw.shuffle(found)
        return found


def build(folder: Path, authority: Authority, content: Content, advance: Callable[[], object] = lambda: None) -> Store:
    """A provider whose store has this content, written by the public interface in one change, in the order of keys.

    Args:
        folder: where; made.
        authority: issues its certificate.
        content: the numbers.
        advance: told after each right.

    Raises:
        BenchError: the store does not hold what was put in.
    """
    made = stage.provider(folder, authority, policy={}, agent={"enabled": False})
    stage.SwitchSide(made.settings)  # puts the settings in force
    path, kept, spans = folder / "policy.db", list[str](), list(content.spans())
    began = time.perf_counter()
    with SqlitePolicy(path).change(Author("bench", "content", time.time()), "content") as draft:
        customer = Customer("acme", "Acme Contact Centre", CustomerState.VERIFIED)
        draft.put(customer)
        draft.put(Trunk("acme-dialler", customer, addresses=(ip_network(stage.TRUNK),)))
        for index in range(RIGHTS):
            draft.put(Right(f"r{index:04}", "acme", Basis.LETTER, f"LOA-{index}"))
            numbers = content.of_right(index)
            draft.add_numbers(Right, f"r{index:04}", (Span(number, number) for number in numbers))
            kept += numbers[:KEPT]
            advance()
        draft.put(Right("ranges", "acme", Basis.ASSIGNED))
        draft.add_numbers(Right, "ranges", spans)
    seconds, held = time.perf_counter() - began, status(path)
    if (held.numbers, held.ranges) != (content.numbers, content.ranges):
        raise BenchError(f"the store holds {held.numbers} numbers and {held.ranges} ranges, not {content}")
    return Store(made.settings, seconds, held.size, kept, spans)


# --- What is measured -------------------------------------------------------------------------


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
    sizes, rounds = (QUICK, 4) if options.quick else (SIZES, 15)
    report, numbering, authority = Report("scale", TITLE), Numbering.make(), Authority.new(time.time())
    stores = {}
    advance = options.begin("scale: stores", len(sizes) * RIGHTS)
    for size in sizes:
        stores[size] = build(options.folder / str(size), authority, Content(numbering, size, size // 100), advance)
    with one_core():
        draw = random.Random(8224)
        subjects = [_fresh(store, size, what, draw) for size, store in stores.items() for what in (DECISION, SIGNING)]
        found = interleave(subjects, rounds, options.begin("scale: calls", len(subjects) * (rounds + 1)))
    for what, unit in ((DECISION, "µs"), (SIGNING, "µs"), (MEMORY, "MiB")):
        report.series += [Series(what, unit, found[what, size], size) for size in sizes]
    report.series += [Series(FILE, "MB", (store.octets / 1e6,), size) for size, store in stores.items()]
    report.series += [Series(BUILD, "s", (store.seconds,), size) for size, store in stores.items()]
    try:
        advance = options.begin("scale: fleets", len(sizes))
        for size, store in stores.items():
            report.series += in_a_fleet(store, size, options.folder / f"fleet-{size}")
            advance()
    except LabError as exc:
        report.notes.append(f"fleets not measured: {exc}")
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
        target = Target(1.10, at_least=False) if what == SIGNING else None
        for size in sizes[1:]:
            report.compare(what, what, at=size, to_at=sizes[0], target=target if size == SIZES[-1] else None)


def _fresh(store: Store, size: int, what: str, draw: random.Random) -> Measure[tuple[str, int]]:
    """A turn in a process that begins with it and ends after it."""
    make = signing if what == SIGNING else deciding
    count = min(CALLS, len(store.numbers) // 2)

    def measure() -> Mapping[tuple[str, int], float]:
        with Worker(make, store.settings, store.callers(draw, count + 1)) as worker:
            turn = worker.turn(count)
        values = {(what, size): turn.cpu / count * 1e6}
        return values | {(MEMORY, size): turn.memory / 2**20} if what == SIGNING else values

    return measure


TITLE: Final = "Growth of the policy store: a new process in each round, another random number in each call"
SECTION: Final = Section("scale", TITLE, run)
