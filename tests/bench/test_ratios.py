"""Medians, and how far chance may have moved them."""

from __future__ import annotations

import random

import pytest
from bench.ratios import interval, ratio


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
