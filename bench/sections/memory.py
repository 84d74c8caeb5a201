"""Memory of Kamailio's workers while they sign: with small and large policies, and over a hundred thousand calls."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final, Self

from bench import proxies
from bench.processes import proportional_memory
from bench.proxies import Stage, Variant
from bench.ratios import Interval, slope
from bench.results import CALLS, BenchError, Report, Series, Target
from bench.sections import TOO_BUSY, Options, Section
from bench.stores import Store
from bench.table import short
from shaken_plugin.lab.servers import LabError

SIZES: Final = (10_000, 1_000_000, 10_000_000)
"""Numbers in the store; the last is the one with which all calls are made."""
QUICK: Final = SIZES[:1]

RATE: Final = 250
"""Calls a second: well below what two cores carry with SIPp, whose calls would fail."""

STEP: Final = 5_000
LONG: Final = 100_000
"""Calls between two looks at the memory, and in all."""
QUICK_STEP, QUICK_LONG = 300, 1_500

MOST: Final = Target(80.0)
"""Megabytes of a worker."""
FLAT: Final = Target(1.0)
"""Megabytes by which a worker may grow in `LONG` calls."""

Points = dict[int, list[tuple[int, float]]]
"""Of each worker the calls so far, and its megabytes then."""


def run(options: Options) -> Report:
    """See `Section`."""
    report, sizes = Report("memory", TITLE, axis=CALLS), QUICK if options.quick else SIZES
    step, long = (QUICK_STEP, QUICK_LONG) if options.quick else (STEP, LONG)
    proxies.need_programs()
    advance = options.begin("memory", len(sizes) - 1 + long // step)
    failed = 0
    try:
        for size in sizes:
            store, name = options.stores.of(size), f"with {short(size)} numbers"
            with ExitStack() as stack:
                folder = options.folder / str(size)
                folder.mkdir()
                stage = Stage(folder, stack, secsipid=False)
                variant = stack.enter_context(_Watched(stage, stage.signing(name, store.settings), store))
                for _ in range(long // step if size == sizes[-1] else 1):
                    variant.place(step)
                    advance()
                failed += variant.failed
            largest = max(value for points in variant.points.values() for _, value in points)
            report.series.append(Series(f"largest worker {name}", "MB", (largest,), target=MOST))
    except LabError as exc:
        raise BenchError(str(exc)) from exc
    report.series += growth(variant.points, long)
    if options.quick:
        report.notes.append(f"growth is measured in the full run only: {QUICK_LONG} calls are for filling caches")
    report.notes.append(f"{RATE} calls a second, each from another number; the long run {name}")
    if failed > (long + step * (len(sizes) - 1)) // 100:
        report.notes.append(f"{failed} calls failed; {TOO_BUSY}")
        report.failed = True
    return report


class _Watched:
    """A Kamailio whose workers' memory is looked at between calls."""

    def __init__(self, stage: Stage, variant: Variant, store: Store) -> None:
        self._stage, self._variant, self._store = stage, variant, store
        self._draw, self._stack = random.Random(8225), ExitStack()
        self._calls, self.failed = 0, 0
        self.points: Points = {pid: [] for pid in variant.proxy.sip_workers()}

    def __enter__(self) -> Self:
        self._stack.enter_context(self._stage.answering())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def place(self, calls: int) -> None:
        """Calls, each of which must be signed; then a look at each worker.

        Raises:
            BenchError: not all that were answered were signed.
        """
        before = self._variant.counted()
        counts = self._stage.call(self._variant, calls, RATE, callers=self._store.callers(self._draw, calls)).counts
        signed = self._variant.counted() - before
        if signed < counts.successful:
            raise BenchError(f"of {counts.successful} calls {signed} were signed at level A")
        self.failed += counts.failed
        self._calls += calls
        for pid, points in self.points.items():
            points.append((self._calls, proportional_memory(pid) / 1e6))


def growth(points: Mapping[int, Sequence[tuple[int, float]]], long: int) -> list[Series]:
    """Each worker's memory over the calls, and by how much the one grows that grows most.

    The first fifth does not count: caches fill in it; nor does growth in a shorter run.
    """
    found = [
        Series(f"worker {number}", "MB", (value,), calls, listed=False)
        for number, looks in enumerate(points.values(), start=1)
        for calls, value in looks
    ]
    if long < LONG:
        return found
    slopes = [slope([look for look in looks if look[0] > long // 5]) for looks in points.values()]
    most = max(slopes, key=lambda one: one.median)
    span = Interval(*(value * LONG for value in most))
    return [
        *found,
        Series("growth", "MB in 100 000 calls", (span.median,), target=FLAT, span=span),
    ]


TITLE: Final = "Memory of Kamailio's workers while they sign: proportional set size of each"
SECTION: Final = Section("memory", TITLE, run)
