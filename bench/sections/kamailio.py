"""Whole calls through Kamailio, INVITE to BYE: CPU time of all its processes, ours beside a plain relay and secsipid.

All load the same modules and use the same allocator; the configurations of ours are the shipped examples, the
others the same without the lines that are ours.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from bench import proxies
from bench.proxies import (
    FLEET,
    FLEET_KEMI,
    FLOORS,
    IDLE,
    IDLE_KEMI,
    NAMES,
    PLAIN,
    PLAIN_KEMI,
    SIGN,
    SIGN_KEMI,
    SIGN_OTHER,
    SIGNED,
    VERIFY,
    VERIFY_FLEET,
    VERIFY_FLEET_KEMI,
    VERIFY_KEMI,
    VERIFY_OTHER,
    Stage,
    Variant,
)
from bench.results import BenchError, Report, Series, Target
from bench.sections import TOO_BUSY, Options, Section
from bench.servers import RECORDED
from bench.workers import Measure, interleave
from shaken_plugin.lab import sipp
from shaken_plugin.lab.servers import LabError

RATE: Final = 300
"""Calls a second."""

WARMING: Final = 600
"""Calls from the customer's hundred numbers by chance: each of two workers decides for 95 of them at least once."""

RUNNING_IN: Final = 200
"""Calls before those of a turn: while the others had theirs its processes did nothing, caches became those of others,
and what a fleet's host was given ahead is of long ago. What is measured is a fixed rate, not how it begins."""


_QUICK: Final = tuple(name for name in NAMES if name not in {VERIFY_FLEET, VERIFY_FLEET_KEMI})
"""Those that have a target, and what they are compared with."""


def run(options: Options) -> Report:
    """See `Section`."""
    report, secsipid = Report("kamailio", TITLE), proxies.need_programs()
    if not secsipid:
        report.notes.append(proxies.NO_SECSIPID)
    rounds, calls = (3, 150) if options.quick else (16, 600)
    with ExitStack() as stack:
        try:
            stage = Stage(options.folder, stack, secsipid=secsipid)
            variants = stage.variants(_QUICK if options.quick else (*NAMES, *FLOORS))
            stack.enter_context(stage.answering())
            advance = options.begin("kamailio", len(variants) * rounds)
            for variant in variants:
                if variant.counter == SIGNED:
                    _place(stage, variant, WARMING)
            trouble: Counter[str] = Counter()
            subjects = [
                _cost(stage, one, 0 if options.quick and not one.fleet else RUNNING_IN, calls, trouble)
                for one in variants
            ]
            found = interleave(subjects, rounds, advance, warm=True)
        except LabError as exc:
            raise BenchError(str(exc)) from exc
    names = [name + part for name in (*NAMES, *FLOORS) for part in ("", *_BESIDE)]
    report.series = [Series(name, "ms", found[name]) for name in names if name in found]
    # What retransmissions and refusals cost is not what is asked for.
    much = {what: count for what, count in trouble.items() if count > rounds * calls // 100}
    report.notes += [f"{what}: {count} calls of {rounds * calls}; {TOO_BUSY}" for what, count in much.items()]
    report.failed = bool(much)
    whose = ", in a fleet alone" if options.quick else ""
    ahead = f"after {RUNNING_IN} that do not count{whose}"
    report.notes.append(f"{RATE} calls a second, {calls} in a turn {ahead}; two SIP workers on each side")
    compare(report)
    return report


_AGENT, _REDIS = _BESIDE = ": the agent's", ": Redis's"


def compare(report: Report) -> None:
    """The ratios of the section."""

    def cost(of: str, to: str, at_most: float | None = None) -> None:
        report.compare(of, to, target=None if at_most is None else Target(at_most))

    cost(PLAIN_KEMI, PLAIN)
    cost(IDLE, PLAIN, 1.10)
    cost(IDLE_KEMI, PLAIN_KEMI, 1.10)
    for name in (*NAMES, *FLOORS):
        if name not in {PLAIN, PLAIN_KEMI, IDLE, IDLE_KEMI}:
            cost(name, PLAIN)
    cost(SIGN, SIGN_OTHER, 1.00)
    cost(SIGN_KEMI, SIGN_OTHER, 1.10)
    cost(FLEET, SIGN_OTHER, 1.15)
    cost(FLEET_KEMI, SIGN_OTHER, 1.15)
    cost(VERIFY, VERIFY_OTHER, 0.95)
    cost(VERIFY_KEMI, VERIFY_OTHER, 1.05)
    cost(VERIFY_FLEET, VERIFY_OTHER)
    cost(VERIFY_FLEET_KEMI, VERIFY_OTHER)


def _place(on: Stage, variant: Variant, calls: int) -> sipp.Counts:
    """Place calls that do not count; it has none in hand afterwards."""
    counts = on.call(variant, calls, RATE).counts
    if counts.failed or counts.retransmissions:
        variant.proxy.settle()
    return counts


def _cost(on: Stage, variant: Variant, before: int, calls: int, trouble: Counter[str]) -> Measure[str]:
    """A turn, after calls that do not count: CPU milliseconds of a call.

    In a fleet also those of agent and Redis, who have work with a call for a while: of all calls, to the end of it.
    """
    name, fleet = variant.name, variant.fleet

    def beside() -> dict[str, float]:
        return {name + _AGENT: fleet.agent_cpu(), name + _REDIS: fleet.redis_cpu()} if fleet else {}

    def measure() -> Mapping[str, float]:
        idle = beside()
        found = [_place(on, variant, before)] if before else []
        counted, begun = variant.counted(), variant.proxy.cpu()
        counts = on.call(variant, calls, RATE).counts
        cost = {name: (variant.proxy.cpu() - begun) / calls * 1e3}
        if fleet:
            time.sleep(RECORDED)
            cost |= {what: (spent - idle[what]) / (before + calls) * 1e3 for what, spent in beside().items()}
        if counts.failed or counts.retransmissions:
            variant.proxy.settle()  # what it has still in hand would be work of the next turn
        for one in (*found, counts):
            trouble.update({f"{name}, failed": one.failed, f"{name}, retransmitted": one.retransmissions})
        # More: a retransmission that comes while another worker has its INVITE at hand is taken for a call, too.
        if variant.counter and variant.counted() - counted < counts.successful:
            raise BenchError(f"{name}: {variant.proxy.counters()}, before {counts.successful} calls {counted}")
        return cost

    return measure


TITLE: Final = "Whole calls through Kamailio, INVITE to BYE: CPU time of all its processes for one call"
SECTION: Final = Section("kamailio", TITLE, run)
