"""Whether the memory of a process is flat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

from bench.load.observed import Facts, Observation, Sample
from bench.ratios import slope

WARM_UP: Final = 1 / 3
"""Of the time for which a process is seen, in which caches fill, ..."""
WARM_UP_SECONDS: Final = 60.0
"""... and no less than this."""
SHORTEST: Final = 50.0
"""Seconds after that, below which nothing is said of a process."""
GROWTH: Final = 1 << 20
"""Octets that a process may have more at the end than after its warm-up, ..."""
GROWTH_SHARE: Final = 0.03
"""... or this share of what it has."""


class Growth(NamedTuple):
    """Memory of a process after its warm-up: octets at its beginning, and how many more there were at its end."""

    name: str
    level: float
    grown: float
    seconds: float

    @property
    def bound(self) -> float:
        """How many more there may be."""
        return max(GROWTH, GROWTH_SHARE * self.level)


def growth(name: str, samples: Sequence[Sample]) -> Growth | None:
    """By the slopes between all pairs of looks after the warm-up: the lower end of Sen's interval, times the time.

    So what a process loads when it first does something, once and late, is no growth, and what it keeps each time is.
    None where the time is too short to say.
    """
    seen = samples[-1].at - samples[0].at
    begin = samples[0].at + max(WARM_UP * seen, WARM_UP_SECONDS)
    after = [one for one in samples if one.at >= begin]
    if len(after) < 4 or after[-1].at - after[0].at < SHORTEST:
        return None
    seconds, level = after[-1].at - after[0].at, median(one.resident for one in after[: len(after) // 4])
    return Growth(name, level, slope([(one.at, one.resident) for one in after]).low * seconds, seconds)


def growths(run: Observation) -> list[Growth]:
    """Of all processes that lived long enough."""
    found = [growth(name, samples) for (name, _), samples in run.memory.items()]
    return [one for one in found if one is not None]


def check(run: Observation, facts: Facts) -> Iterator[str]:
    """No process grows after its warm-up."""
    found = growths(run)
    facts["memory judged"] = f"{len(found)} processes; the others were not there for long enough"
    for one in found:
        if one.grown > one.bound:
            yield (
                f"{one.name} grew by {one.grown / 2**20:.1f} MiB in {one.seconds:.0f} s after its warm-up, "
                f"from {one.level / 2**20:.1f} MiB; {one.bound / 2**20:.1f} are allowed"
            )
    if not found:
        yield "memory of no process was seen long enough: let it run longer"
