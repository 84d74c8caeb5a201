"""What a section found, and its form as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from bench import ratios
from bench.ratios import Interval

FORM: Final = 2
"""Of the JSON; another number where a reader of the old one would be wrong."""

NUMBERS, RATE, CALLS = "numbers in the store", "calls a second", "calls"
"""What `Series.at` may count."""


class BenchError(Exception):
    """Something cannot be measured; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio, or a quantity, is meant to be."""

    limit: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:.2f}"


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity, a value each round; less is better, unless ``more`` says otherwise.

    ``at`` is what it was measured with, where a section measures growth; `Report.axis` says of what. ``span`` is
    its interval where that does not follow from the values alone. What is not ``listed`` is for pictures only.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    at: int | None = None
    more: bool = False
    target: Target | None = None
    span: Interval | None = None
    listed: bool = True

    @property
    def median(self) -> float:
        """Of the rounds."""
        return self.span.median if self.span else median(self.values)

    @property
    def interval(self) -> Interval:
        """The median with its bounds."""
        return self.span or ratios.interval(self.values)


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
    axis: str = NUMBERS
    series: list[Series] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: bool = False
    """Something could not be measured that should have been; a peer that is not installed is none."""
    seconds: int = 0
    """How long it took, by the clock."""

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
        """Add a ratio, where both series were measured; of a target that cannot be judged a note says so."""
        one, other = self.find(of, at), self.find(to, to_at)
        if one is None or other is None:
            if target is not None:
                self.notes.append(f"target {target} of {of!r} beside {to!r} not judged: not measured")
            return
        # Of times and costs the rate is the inverse; what is a rate itself is compared as it is.
        pair = (other.values, one.values) if rate and not one.more else (one.values, other.values)
        self.ratios.append(Ratio(of, to, ratios.ratio(*pair), rate, at, to_at, target))


def to_json(reports: Sequence[Report], machine: Mapping[str, str], *, made: str, quick: bool) -> dict[str, Any]:
    """All that was found, as plain values.

    Args:
        reports: of the sections that ran.
        machine: see `machine.describe`.
        made: when, ISO 8601.
        quick: whether it was the short run.
    """
    sections = [
        asdict(report)
        | {"ratios": [_ratio(one) for one in report.ratios], "series": [_series(one) for one in report.series]}
        for report in reports
    ]
    return {"form": FORM, "made": made, "quick": quick, "machine": dict(machine), "sections": sections}


def from_json(content: Mapping[str, Any]) -> list[Report]:
    """The reports that `to_json` wrote.

    Raises:
        BenchError: they are in another form.
    """
    if content.get("form") != FORM:
        raise BenchError(f"results of form {content.get('form')}; this reads form {FORM}: measure again")
    return [_report(section) for section in content["sections"]]


def _ratio(one: Ratio) -> dict[str, Any]:
    found = asdict(one) | one.interval._asdict() | _verdict(one.target, one.interval.median)
    del found["interval"]
    return found


def _series(one: Series) -> dict[str, Any]:
    found = asdict(one) | _verdict(one.target, one.median)
    return found | {"span": one.span._asdict() if one.span else None}


def _verdict(target: Target | None, value: float) -> dict[str, Any]:
    return {} if target is None else {"met": target.is_met(value)}


def _report(section: Mapping[str, Any]) -> Report:
    series = [
        Series(**_of(one) | {"values": tuple(one["values"]), "span": one["span"] and Interval(**one["span"])})
        for one in section["series"]
    ]
    found = []
    for one in section["ratios"]:
        bounds = {name: one[name] for name in Interval._fields}
        rest = {name: value for name, value in _of(one).items() if name not in bounds}
        found.append(Ratio(interval=Interval(**bounds), **rest))
    return Report(**dict(section) | {"series": series, "ratios": found})


def _of(one: Mapping[str, Any]) -> dict[str, Any]:
    """Its fields, the target as such, without the verdict, which follows from them."""
    found = {name: value for name, value in one.items() if name != "met"}
    return found | {"target": one["target"] and Target(**one["target"])}
