"""How much longer the set-up of a call takes by us, and how many calls a second get through two cores without loss."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from bench import proxies
from bench.phones import PATIENCE
from bench.proxies import PLAIN, SIGN, SIGN_OTHER, VERIFY, VERIFY_OTHER, Stage, Variant
from bench.ratios import Interval, differences, percentiles
from bench.results import RATE, BenchError, Report, Series
from bench.search import Highest, highest
from bench.sections import Options, Section
from bench.workers import Measure, interleave
from shaken_plugin.lab.servers import LabError

TIMED: Final = (PLAIN, SIGN_OTHER, SIGN, VERIFY_OTHER, VERIFY)
PUSHED: Final = (PLAIN, SIGN_OTHER, SIGN)

PERCENTILES: Final = (50, 90, 99)
NAMES: Final = ("p50", "p90", "p99", "max")

TRIED: Final = 3
"""Seconds for which a rate must hold."""
SHARED: Final = 2048
"""MB that a Kamailio's processes share. A call takes some 45 kB of it until its transactions are forgotten, five
seconds after its end: with the 64 of Kamailio's default any relay refuses calls above 500 a second."""
FIRST: Final = 1_000
RESOLUTION: Final = 0.05
CEILING: Final = 16_000
"""Calls a second, for which that memory is enough."""

HIGHEST: Final = "highest rate"

_Key = tuple[str, str, int]
"""Variant, percentile, rate."""


def run(options: Options) -> Report:
    """See `Section`."""
    report, secsipid = Report("latency", TITLE, axis=RATE), proxies.need_programs()
    if not secsipid:
        report.notes.append(proxies.NO_SECSIPID)
    rates, rounds, calls = ((100,), 3, 100) if options.quick else ((100, 300, 600), 4, 400)
    with ExitStack() as stack:
        try:
            stage = Stage(options.folder, stack, secsipid=secsipid, shared=SHARED)
            variants = stage.variants(TIMED)
            lost: dict[_Key, int] = {}
            subjects = [timed(stage, one, rate, calls, lost) for one in variants for rate in rates]
            advance = options.begin("latency", len(subjects) * rounds)
            found = interleave(subjects, rounds, advance, warm=True)
            if not options.quick:
                pushed = [one for one in variants if one.name in PUSHED]
                report.series += [_pushed(stage, one, options) for one in pushed]
        except LabError as exc:
            raise BenchError(str(exc)) from exc
    report.series = beside(found) + report.series
    report.notes += [
        f"{name} at {rate}/s: {count} calls of {rounds * calls} lost" for (name, _, rate), count in lost.items()
    ]
    report.notes.append(f"{calls} calls in a turn, by chance (exponential gaps); a lost one counts as {PATIENCE:.0f} s")
    if not options.quick:
        report.notes.append(
            f"{HIGHEST}: no call lost in {TRIED} s of SIPp, found to {RESOLUTION:.0%}; SIPp has its share of the "
            f"{len(os.sched_getaffinity(0))} cores"
        )
    for name in (SIGN_OTHER, SIGN):
        report.compare(f"{HIGHEST}: {name}", f"{HIGHEST}: {PLAIN}", rate=True)
    report.compare(f"{HIGHEST}: {SIGN}", f"{HIGHEST}: {SIGN_OTHER}", rate=True)
    return report


def timed(on: Stage, variant: Variant, rate: int, calls: int, lost: dict[_Key, int]) -> Measure[_Key]:
    """A turn: percentiles of the milliseconds for which calls are under way."""
    draw, key = random.Random(rate), (variant.name, "", rate)

    def measure() -> Mapping[_Key, float]:
        with on.phones(variant) as phones:
            outcome = phones.place(variant.port, on.headers(variant, calls), rate, draw)
        if outcome.lost:
            lost[key] = lost.get(key, 0) + outcome.lost
            variant.proxy.settle()  # what it has still in hand would be work of the next turn
        values = [*outcome.setups, *[PATIENCE] * outcome.lost]
        found = [*percentiles(values, PERCENTILES), max(values)]
        return {(variant.name, name, rate): value * 1e3 for name, value in zip(NAMES, found, strict=True)}

    return measure


def beside(found: Mapping[_Key, tuple[float, ...]]) -> list[Series]:
    """Of each variant what it takes, and by how much that is more than the plain relay's of the same round."""
    made = []
    for variant in TIMED:
        for name in NAMES:
            for rate in sorted({rate for one, _, rate in found if one == variant}):
                values, plain = found[variant, name, rate], found[PLAIN, name, rate]
                if variant == PLAIN:
                    made.append(Series(f"{PLAIN}, {name}", "ms", values, rate))
                else:
                    made.append(Series(f"added by {variant}, {name}", "ms", differences(values, plain), rate))
    return made


def _pushed(on: Stage, variant: Variant, options: Options) -> Series:
    """The highest rate of a variant that holds, and as its interval the lowest that does not."""
    advance = options.begin(f"latency: highest rate, {variant.name}", 12)

    def holds(rate: int) -> bool:
        advance()
        try:
            with on.answering():
                # Beyond what a call takes at most, the time for what is sent again after half a second.
                arguments = ("-timeout", f"{TRIED + 2}s", "-recv_timeout", "2000")
                counts = on.call(variant, rate * TRIED, rate, arguments=arguments).counts
            held = counts.failed == 0 and counts.successful == rate * TRIED
        except LabError:  # SIPp did not come to the end of it
            held = False
        if not held:
            variant.proxy.settle()
        return held

    found = highest(holds, FIRST, RESOLUTION, CEILING)
    return Series(f"{HIGHEST}: {variant.name}", "calls/s", (float(found.held),), more=True, span=_between(found))


def _between(found: Highest) -> Interval:
    return Interval(float(found.held), float(found.held), float(found.failed or found.held))


TITLE: Final = "Call set-up: what it takes longer, and the highest rate without a lost call"
SECTION: Final = Section("latency", TITLE, run, has_ratios=False)
