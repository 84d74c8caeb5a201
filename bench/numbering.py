"""Numbers that calls are made with: of the customer, and of anybody in the North American plan."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Final

from phonenumbers import PhoneNumber, is_valid_number

CALLERS: Final = tuple(str(number) for number in range(12155551200, 12155551300))
"""All numbers of the customer's range in the lab's policy."""


@dataclass(frozen=True, slots=True)
class Numbering:
    """Every number that is valid in the North American plan, in order; drawn from by place."""

    areas: tuple[int, ...]
    """Area codes."""

    @classmethod
    def make(cls) -> Numbering:
        """By the metadata of ``phonenumbers``."""
        valid = (area for area in range(200, 1000) if is_valid_number(PhoneNumber(1, area * 10_000_000 + 2_345_678)))
        return cls(tuple(valid))

    def __len__(self) -> int:
        return len(self.areas) * 8_000_000

    def at(self, place: int) -> str:
        """The number at a place: area code, then 200 0000 to 999 9999."""
        area, rest = divmod(place, 8_000_000)
        return f"1{self.areas[area]}{2_000_000 + rest}"


def anybody(draw: random.Random) -> str:
    """Any number of the plan."""
    plan = _plan()
    return plan.at(draw.randrange(len(plan)))


@cache
def _plan() -> Numbering:
    return Numbering.make()
