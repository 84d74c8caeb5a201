"""The one table at the end: medians over interleaved rounds, their ratios, and what became of the targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.ratios import Interval
from bench.results import RATE, Ratio, Report, Series, Target

HEADINGS = ("", "median", "beside", "ratio", "95 %", "target")
RIGHT = frozenset({"median", "ratio", "target"})
"""Headings of columns whose right ends are in line."""


class Row(NamedTuple):
    """A line of a section; ``met`` is None where there is no target."""

    what: str
    median: str
    beside: str = ""
    ratio: str = ""
    bounds: str = ""
    target: str = ""
    met: bool | None = None


class Judged(NamedTuple):
    """A target, and what was measured."""

    section: str
    what: str
    found: str
    bounds: str
    target: Target
    met: bool


def summary(reports: Sequence[Report], machine: Mapping[str, str]) -> RenderableType:
    """All sections as one table, the targets, what each section leaves unsaid, and the machine."""
    table = _table(HEADINGS)
    for report in reports:
        table.add_section()
        table.add_row(Text(report.section, style="bold"))
        for row in rows(report):
            table.add_row(*row[:5], Text(row.target, style="" if row.met is None else _STYLES[row.met]))
    titles = [Text(f"{report.section}: {report.title} ({report.seconds} s)") for report in reports]
    notes = [Text(f"{report.section}: {note}") for report in reports for note in report.notes]
    about = Text("\n".join(f"{name}: {value}" for name, value in machine.items()), style="dim")
    return Group(table, *_targets(reports), *titles, *notes, about)


def judged(reports: Sequence[Report]) -> list[Judged]:
    """Every target that could be judged, in the order of the sections."""
    found = []
    for report in reports:
        for one in report.ratios:
            if one.target is not None:
                what = f"{label(one.of, one.at, report.axis)} beside {label(one.to, one.to_at, report.axis)}"
                value = f"{one.interval.median:.2f} of its {'rate' if one.rate else 'cost'}"
                met = one.target.is_met(one.interval.median)
                found.append(Judged(report.section, what, value, _bounds(one.interval), one.target, met))
        for each in report.series:
            if each.target is not None:
                what, bounds = label(each.name, each.at, report.axis), _spread(each)
                met = each.target.is_met(each.median)
                found.append(Judged(report.section, what, measured(each), bounds, each.target, met))
    return found


def rows(report: Report) -> list[Row]:
    """The lines of a section: each series with its ratios."""
    return [row for one in report.series if one.listed for row in _rows_of(one, report)]


def label(name: str, at: int | None, axis: str = "") -> str:
    """A name with what it was measured with: ``file, 10 M`` numbers, ``p50, 300/s``."""
    if at is None:
        return name
    return f"{name}, {at}/s" if axis == RATE else f"{name}, {short(at)}"


def short(number: int) -> str:
    """A round number: 10 k, 1 M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size and number % size == 0:
            return f"{number // size} {unit}"
    return str(number)


def measured(one: Series) -> str:
    """A median with its unit; of times for one operation also how many in a second."""
    text = f"{_rounded(one.median)} {one.unit}"
    return f"{text} ({_rounded(1e6 / one.median)}/s)" if one.unit == "µs" and one.median else text


_STYLES = {True: "green", False: "red"}


def _targets(reports: Sequence[Report]) -> Iterator[RenderableType]:
    found = judged(reports)
    if found:
        met = sum(one.met for one in found)
        table = _table(("target of", "", "measured", "95 %", "target", "verdict"))
        for one in found:
            verdict = Text("met" if one.met else "missed", style=_STYLES[one.met])
            table.add_row(one.section, one.what, one.found, one.bounds, str(one.target), verdict)
        yield Text(f"Targets: {met} of {len(found)} met", style="bold")
        yield table


def _table(headings: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in headings:
        table.add_column(name, justify="right" if name in RIGHT else "left")
    return table


def _rows_of(one: Series, report: Report) -> Iterator[Row]:
    compared = [ratio for ratio in report.ratios if (ratio.of, ratio.at) == (one.name, one.at)]
    first = (label(one.name, one.at, report.axis), measured(one))
    if not compared:
        verdict = _verdict(one.target, one.median)
        yield Row(*first, bounds=_spread(one), target=verdict[0], met=verdict[1])
    for number, ratio in enumerate(compared):
        yield _compared(first if number == 0 else ("", ""), ratio, report.axis)


def _compared(first: tuple[str, str], ratio: Ratio, axis: str) -> Row:
    found = ratio.interval
    value = f"{found.median:.2f} of its {'rate' if ratio.rate else 'cost'}"
    target, met = _verdict(ratio.target, found.median)
    return Row(*first, label(ratio.to, ratio.to_at, axis), value, _bounds(found), target, met)


def _verdict(target: Target | None, value: float) -> tuple[str, bool | None]:
    if target is None:
        return "", None
    met = target.is_met(value)
    return f"{target} {'met' if met else 'missed'}", met


def _spread(one: Series) -> str:
    """Its bounds; a single value has none."""
    return _bounds(one.interval)


def _bounds(one: Interval) -> str:
    """Nothing of what has no width: it is of single values."""
    return "" if one.low == one.high else f"{_plain(one.low)} to {_plain(one.high)}"


def _plain(value: float) -> str:
    """With two decimals, or as many figures as a large or a small number needs."""
    return f"{value:.2f}" if 0.1 <= abs(value) < 100 or value == 0 else _rounded(value)


def _rounded(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"
