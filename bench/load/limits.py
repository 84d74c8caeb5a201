"""Whether the limited customers had what they may have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bench.load import mix
from bench.load.observed import Facts, Observation

LEAST: Final = 0.8
"""Share of what a limit allows that passes at least, ..."""
LEAST_SHARED: Final = 0.4
"""... in a fleet of two hosts half as many: where Redis answers too late, each host enforces its share."""


_UNEVEN: Final = 2
"""Times its share of the calls that nobody counted may have been one customer's, ..."""
_FEW: Final = 3
"""... and so many more, where they are few; and so many at a time."""


class Stretch(NamedTuple):
    """Time in which the originating host's agent was there all the time."""

    begin: float
    end: float


def stretches(run: Observation) -> list[Stretch]:
    """All of them; a second after it came back each of its calls is counted."""
    found, begin = [], run.begin
    for one in sorted(one for one in run.absences if one.host == "originating"):
        found.append(Stretch(begin, one.begin))
        begin = one.end + 1.0
    return [*found, Stretch(begin, run.end)]


def check(run: Observation, facts: Facts) -> Iterator[str]:
    """The limited customers had what they may have, no more and not much less, while somebody counted."""
    limited = [call for call in run.calls.values() if call.kind == mix.LIMITED.name]
    uncounted, share = _uncounted(run)
    facts["not counted"] = f"{uncounted} calls of customers with limits, though an agent was there"
    least = LEAST_SHARED if run.shared else LEAST
    for one in stretches(run):
        within = [call for call in limited if one.begin <= call.sent < one.end]
        passed, seconds = sum(call.status == 200 for call in within), one.end - one.begin
        rate = run.bounds.per_second
        limit = f"a limit of {rate:g} a second in {seconds:.0f} s"
        # docs/limits.md: as many as in a second more; and where the stretch begins, one may be leaving.
        if passed > rate * (seconds + 1) + 1 + _UNEVEN * share * len(within) + min(uncounted, _FEW):
            yield f"{passed} calls passed {limit}"
        if passed < least * min(len(within), rate * seconds) - 2:
            yield f"only {passed} of {len(within)} calls passed {limit}"
        crowd = _at_once(run, one)
        if crowd > run.bounds.at_a_time + min(uncounted, _FEW):
            yield f"{crowd} calls were there at a time with a limit of {run.bounds.at_a_time}"
    if run.held:
        yield f"{run.held:g} calls have a slot still, though all are over"


def _uncounted(run: Observation) -> tuple[int, float]:
    """Calls that no agent counted though one was there, since it answered too late; and which share that is.

    Of which customer they were, nobody knows.
    """
    sources = {mix.OWNED.source, mix.LIMITED.source, mix.CROWDED.source}
    counted = {kind.name for kind in mix.KINDS if kind.source in sources}
    there = stretches(run)
    calls = [call for call in run.calls.values() if call.kind in counted]
    away = [call for call in calls if not any(one.begin <= call.sent < one.end for one in there)]
    found = max(0, run.counters.get("originating", {}).get("limits_unavailable", 0) - len(away))
    return found, found / max(1, len(calls))


def _at_once(run: Observation, within: Stretch) -> int:
    """How many calls of the crowded customer there surely were at a time: from the ringing to the end."""
    steps: list[tuple[float, int]] = []
    for call in run.calls.values():
        if call.kind == mix.CROWDED.name and within.begin <= call.sent < within.end and call.status == 200:
            steps += [(call.rang or call.sent, 1), (call.hung_up or run.end, -1)]
    most = now = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most
