"""What a section found, and its form as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from bench import ratios
from bench.ratios import Interval

FORM: Final = 1
"""Of the JSON; another number where a reader of the old one would be wrong."""


class BenchError(Exception):
    """Something cannot be measured; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity, a value each round; less is better in all of them.

    ``at`` is the number of records it was measured with, where a section measures growth.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    at: int | None = None

    @property
    def median(self) -> float:
        """Of the rounds."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio is meant to be."""

    limit: float
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Whether a ratio reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:.2f}"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two series compared: by ``rate`` how many times as many in the same time, else how many times the cost."""

    of: str
    to: str
    interval: Interval
    rate: bool = False
    at: int | None = None
    to_at: int | None = None
    target: Target | None = None


@dataclass(slots=True)
class Report:
    """What a section found. ``notes`` say what was not measured and why, and what to bear in mind."""

    section: str
    title: str
    series: list[Series] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, name: str, at: int | None = None) -> Series | None:
        """The series of a name, where it was measured."""
        return next((one for one in self.series if (one.name, one.at) == (name, at)), None)

    def compare(
        self,
        of: str,
        to: str,
        *,
        rate: bool = False,
        at: int | None = None,
        to_at: int | None = None,
        target: Target | None = None,
    ) -> None:
        """Add a ratio, where both series were measured."""
        one, other = self.find(of, at), self.find(to, to_at)
        if one is None or other is None:
            return
        pair = (other.values, one.values) if rate else (one.values, other.values)
        self.ratios.append(Ratio(of, to, ratios.ratio(*pair), rate, at, to_at, target))


def to_json(reports: Sequence[Report], machine: Mapping[str, str], *, made: str, quick: bool) -> dict[str, Any]:
    """All that was found, as plain values.

    Args:
        reports: of the sections that ran.
        machine: see `machine.describe`.
        made: when, ISO 8601.
        quick: whether it was the short run.
    """
    sections = [asdict(report) | {"ratios": [_plain(one) for one in report.ratios]} for report in reports]
    return {"form": FORM, "made": made, "quick": quick, "machine": dict(machine), "sections": sections}


def _plain(one: Ratio) -> dict[str, Any]:
    found = asdict(one) | one.interval._asdict()
    del found["interval"]
    return found
