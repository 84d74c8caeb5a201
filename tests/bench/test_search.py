"""The highest rate that holds."""

from __future__ import annotations

import pytest
from bench.search import Highest, highest


@pytest.mark.parametrize("limit", [1, 2, 17, 199, 200, 201, 730, 1_000, 3_199])
def test_the_limit_lies_between_the_two_rates_that_are_found(limit: int) -> None:
    tried: list[int] = []

    def holds(rate: int) -> bool:
        tried.append(rate)
        return rate <= limit

    found = highest(holds, 200, 0.05, 3_200)
    assert found.failed is not None
    assert found.held <= limit < found.failed
    assert found.failed - found.held <= max(1, found.held * 0.05)
    assert len(tried) <= 32  # twice what fails: a rate every 5 % would be 140 of them


def test_a_moment_of_trouble_is_not_taken_for_the_limit() -> None:
    answers: dict[int, int] = {}

    def holds(rate: int) -> bool:
        answers[rate] = answers.get(rate, 0) + 1
        return rate <= 1_000 and (rate != 400 or answers[rate] == 2)

    assert highest(holds, 200, 0.05, 3_200).held > 950


def test_nothing_is_tried_above_the_ceiling_and_nothing_may_hold() -> None:
    assert highest(lambda _: True, 200, 0.05, 1_000) == Highest(1_000, None)
    assert highest(lambda _: True, 200, 0.05, 100) == Highest(100, None)
    assert highest(lambda _: False, 200, 0.05, 1_000) == Highest(0, 1)
