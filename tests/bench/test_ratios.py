"""Medians, and how far chance may have moved them."""

from __future__ import annotations

import random

import pytest
from bench.ratios import differences, interval, percentiles, ratio, slope


def test_the_median_lies_within_its_interval_and_that_within_the_values() -> None:
    values = [5.0, 1.0, 9.0, 4.0, 6.0, 5.5, 4.5]
    found = interval(values)
    assert found.median == 5.0
    assert 1.0 <= found.low < 5.0 < found.high <= 9.0
    assert interval(values) == found


def test_one_value_has_no_spread() -> None:
    assert interval([3.0]) == (3.0, 3.0, 3.0)


def test_more_rounds_narrow_the_interval() -> None:
    draw = random.Random(1)
    few, many = (interval([draw.gauss(100, 10) for _ in range(count)]) for count in (7, 200))
    assert many.high - many.low < (few.high - few.low) / 2


def test_the_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    draw = random.Random(2)
    held = sum(
        low <= 100 <= high for _, low, high in (interval([draw.gauss(100, 5) for _ in range(21)]) for _ in range(100))
    )
    assert 85 <= held <= 100


def test_a_ratio_is_taken_round_by_round() -> None:
    """A machine that is half as fast in every other round changes nothing about it."""
    base = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    assert ratio([value * 1.5 for value in base], base) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(("of", "to"), [([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([], [])])
def test_what_cannot_be_compared_is_refused(of: list[float], to: list[float]) -> None:
    with pytest.raises(ValueError, match=r"compared|no values"):
        ratio(of, to)


def test_differences_are_taken_round_by_round() -> None:
    assert differences([1.5, 2.5], [1.0, 3.0]) == (0.5, -0.5)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        differences([1.0, 2.0], [1.0])


def test_percentiles_are_interpolated_between_neighbours() -> None:
    assert percentiles([float(one) for one in range(101)], (50, 90, 99)) == pytest.approx([50.0, 90.0, 99.0])
    assert percentiles([2.0, 1.0], (50,)) == [1.5]
    with pytest.raises(ValueError, match="less than two"):
        percentiles([1.0], (50,))


def test_a_slope_is_not_moved_by_an_outlier_and_its_interval_holds_it() -> None:
    points = [(float(at), 3.0 + 0.5 * at) for at in range(20)]
    assert slope(points) == pytest.approx((0.5, 0.5, 0.5))
    points[7] = (7.0, 1_000.0)
    found = slope(points)
    assert found.median == pytest.approx(0.5)
    assert found.low <= 0.5 <= found.high


def test_the_interval_of_a_slope_holds_the_true_one_about_as_often_as_it_says() -> None:
    draw, held = random.Random(3), 0
    for _ in range(200):
        found = slope([(float(at), 0.1 * at + draw.gauss(0, 1)) for at in range(20)])
        held += found.low <= 0.1 <= found.high
    assert 182 <= held <= 199


@pytest.mark.parametrize("points", [[(1.0, 1.0), (2.0, 2.0)], [(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]])
def test_a_slope_needs_points_that_differ(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="so few"):
        slope(points)
