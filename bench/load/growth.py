"""Whether the memory of processes is flat: what each has of its own, and what is in use of that which they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

from bench.load.observed import REDIS, Facts, Observation, Sample
from bench.ratios import slope

WARM_UP: Final = 1 / 3
"""Of the time for which something is seen, in which caches fill, ..."""
WARM_UP_SECONDS: Final = 60.0
"""... and no less than this."""
SHORTEST: Final = 50.0
"""Seconds after that, below which nothing is said of it."""
GROWTH: Final = 1 << 20
"""Octets that it may have more at the end than after its warm-up, ..."""
GROWTH_SHARE: Final = 0.03
"""... or this share of what it has."""


class Growth(NamedTuple):
    """Memory of a process or a pool after its warm-up: octets at the beginning, and how many more at the end."""

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
    if len(samples) < 4:
        return None
    seen = samples[-1].at - samples[0].at
    begin = samples[0].at + max(WARM_UP * seen, WARM_UP_SECONDS)
    after = [one for one in samples if one.at >= begin]
    if len(after) < 4 or after[-1].at - after[0].at < SHORTEST:
        return None
    seconds, level = after[-1].at - after[0].at, median(one.octets for one in after[: len(after) // 4])
    return Growth(name, level, slope([(one.at, one.octets) for one in after]).low * seconds, seconds)


def processes(run: Observation) -> list[Growth]:
    """Of all that lived long enough, but for Redis, of which is judged what it has in use (`hosts.Hosts.pools`)."""
    found = [growth(name, samples) for (name, _), samples in run.memory.items() if name != REDIS]
    return [one for one in found if one is not None]


def pools(run: Observation) -> list[Growth]:
    """Of all that told their use for long enough."""
    found = [growth(name, samples) for name, samples in run.pools.items()]
    return [one for one in found if one is not None]


def check(run: Observation, facts: Facts) -> Iterator[str]:
    """No process and no pool grows after its warm-up."""
    alone, shared = processes(run), pools(run)
    facts["memory judged"] = (
        f"{len(alone)} processes; the others were not there for long enough; {len(shared)} shared pools"
    )
    for one in alone + shared:
        if one.grown > one.bound:
            yield (
                f"{one.name} grew by {one.grown / 2**20:.1f} MiB in {one.seconds:.0f} s after its warm-up, "
                f"from {one.level / 2**20:.1f} MiB; {one.bound / 2**20:.1f} are allowed"
            )
    if not alone:
        yield "memory of no process was seen long enough: let it run longer"
    judged = {one.name for one in shared}
    for name in run.pools:
        if name not in judged:
            yield f"{name} did not tell its use for long enough: let it run longer"
    if not run.pools:
        yield "no shared pool was seen"
