"""Medians over interleaved rounds, and how far chance may have moved them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist, median, quantiles
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


def differences(of: Sequence[float], to: Sequence[float]) -> tuple[float, ...]:
    """By how much each value exceeds that of the same round.

    Raises:
        ValueError: they are not as many.
    """
    return tuple(one - other for one, other in zip(of, to, strict=True))


def percentiles(values: Sequence[float], wanted: Sequence[int]) -> list[float]:
    """The least values that so many of a hundred do not exceed, interpolated between neighbours.

    Raises:
        ValueError: there are less than two values.
    """
    if len(values) < 2:
        raise ValueError("no percentiles of less than two values")
    cuts = quantiles(values, n=100, method="inclusive")
    return [cuts[one - 1] for one in wanted]


def slope(points: Sequence[tuple[float, float]]) -> Interval:
    """How much the second number grows with the first: the median of the slopes between all pairs of points.

    A step or an outlier hardly moves it. The interval is Sen's (1968), from the distribution of Kendall's S
    where nothing grows; it supposes points that have different first numbers.

    Raises:
        ValueError: there are less than three points, or all have the same first number.
    """
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2)
    if len(points) < 3 or not slopes:
        raise ValueError("no slope through so few points")
    count, total = len(points), len(slopes)
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * deviation
    low, high = math.floor((total - reach) / 2), math.ceil((total + reach) / 2)
    return Interval(median(slopes), slopes[max(low, 0)], slopes[min(high, total - 1)])
