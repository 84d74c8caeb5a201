"""Medians over interleaved rounds, and how far chance may have moved them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

DRAWS: Final = 2_000
"""Samples of the bootstrap."""

CONFIDENCE: Final = 0.95


class Interval(NamedTuple):
    """A median, and the bounds between which it would lie in 95 of 100 such runs."""

    median: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """The median of values with its confidence interval, by the percentile bootstrap.

    The same values give the same interval.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    draw = random.Random(len(values))  # statistics, not secrets
    drawn = sorted(median(draw.choices(values, k=len(values))) for _ in range(DRAWS))
    outside = round(DRAWS * (1 - CONFIDENCE) / 2)
    return Interval(median(values), drawn[outside], drawn[-1 - outside])


def ratio(of: Sequence[float], to: Sequence[float]) -> Interval:
    """The median of the ratios of values that were measured in the same round.

    The machine's clock and its other tenants move both values of a round alike, so their ratio moves less.

    Raises:
        ValueError: they are not as many, there are none, or one of ``to`` is 0.
    """
    if len(of) != len(to):
        raise ValueError(f"{len(of)} values cannot be compared round by round with {len(to)}")
    if not all(to):
        raise ValueError("nothing can be compared with 0")
    return interval([one / other for one, other in zip(of, to, strict=True)])
