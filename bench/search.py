"""The highest rate that holds: by doubling, then by bisection."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Highest(NamedTuple):
    """The highest rate that held, and the lowest above it that did not; that is None where none was found."""

    held: int
    failed: int | None


def highest(holds: Callable[[int], bool], first: int, resolution: float, ceiling: int) -> Highest:
    """Between which rates something ceases to hold.

    What holds at a rate is taken to hold at any lower one. A rate that fails is tried again once, so that a
    moment in which the machine did something else is not taken for the limit.

    Args:
        holds: whether it holds at a rate.
        first: rate to begin with; where it does not hold, lower ones are tried by halving.
        resolution: the two rates differ by at most this part of the lower one, or by one.
        ceiling: rates above are not tried.

    Returns:
        The two rates; ``held`` is 0 where none held.
    """

    def tried(rate: int) -> bool:
        return holds(rate) or holds(rate)

    low, high, rate = 0, None, min(first, ceiling)
    while True:
        if tried(rate):
            low = rate
            if rate >= ceiling:
                return Highest(low, None)
            if high is not None:
                break
            rate = min(2 * rate, ceiling)
        else:
            high = rate
            if low or rate == 1:
                break
            rate //= 2
    while low and high - low > max(1, low * resolution):
        middle = (low + high) // 2
        low, high = (middle, high) if tried(middle) else (low, middle)
    return Highest(low, high)
