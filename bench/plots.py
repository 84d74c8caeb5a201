"""Pictures for the results folder; without matplotlib there are none."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.ratios import Interval, interval
from bench.results import Report, Series


def available() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def draw(report: Report, folder: Path) -> list[Path]:
    """Pictures of a section: bars of what was compared, and lines of what grows.

    Args:
        report: of the section.
        folder: where the PNG files go.

    Returns:
        The files.
    """
    found = []
    single = [one for one in report.series if one.at is None]
    if single:
        found.append(_bars(report, single, folder / f"{report.section}.png"))
    growing = [one for one in report.series if one.at is not None]
    if growing:
        found.append(_lines(report, growing, folder / f"{report.section}-growth.png"))
    return found


def _bars(report: Report, series: Sequence[Series], path: Path) -> Path:
    figure, axes = _figure(9, 1.2 + 0.42 * len(series))
    ordered = sorted(series, key=lambda one: -one.median)
    spans = [interval(one.values) for one in ordered]
    middle = [one.median for one in spans]
    bars = axes.barh([one.name for one in ordered], middle, xerr=_errors(spans), color="#4878a8")
    axes.bar_label(bars, [f" {one.median:.3g}" for one in spans], padding=6)
    axes.set_xlabel(f"{ordered[0].unit}, less is better")
    axes.set_title(report.title, loc="left")
    axes.margins(x=0.12)
    return _save(figure, path)


def _lines(report: Report, series: Sequence[Series], path: Path) -> Path:
    units = list(dict.fromkeys(one.unit for one in series))
    figure, axes = _figure(9, 3.0 * len(units), len(units))
    for unit, part in zip(units, axes if len(units) > 1 else [axes], strict=True):
        for name in dict.fromkeys(one.name for one in series if one.unit == unit):
            points = sorted(
                (one.at or 0, interval(one.values)) for one in series if (one.name, one.unit) == (name, unit)
            )
            middle = [span.median for _, span in points]
            errors = [[span.median - span.low for _, span in points], [span.high - span.median for _, span in points]]
            part.errorbar([at for at, _ in points], middle, yerr=errors, marker="o", capsize=3, label=name)
        part.set_xscale("log")
        # What spans decades is read from its exponents, what does not from a scale that begins at 0.
        medians = [one.median for one in series if one.unit == unit]
        part.set_yscale("log") if max(medians) > 50 * min(medians) else part.set_ylim(bottom=0)
        part.set_ylabel(unit)
        part.grid(alpha=0.3)
        part.legend()
    part.set_xlabel("numbers in the store")
    figure.suptitle(report.title, x=0.01, ha="left")
    return _save(figure, path)


def _errors(spans: Sequence[Interval]) -> list[list[float]]:
    """How far each reaches below and above its median."""
    return [[one.median - one.low for one in spans], [one.high - one.median for one in spans]]


def _figure(width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415  # optional

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
