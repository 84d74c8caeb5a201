"""Pictures for the results folder; without matplotlib there are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from bench.results import CALLS, RATE, Report, Series
from bench.table import short

OTHERS: Final = (
    "OpenSSL",
    "cryptography",
    "PyJWT",
    "libsecsipid",
    "secsipid",
    "plain",
    "native signing",
    "idle",
    "floor",
)
"""What stands in the names of series that are not ours."""

OURS_COLOUR, OTHERS_COLOUR, TARGET_COLOUR = "#2b6ca3", "#a9b4bf", "#b03030"

DECADES: Final = 50
"""How many times the least the greatest is where a scale of powers is easier to read."""

Panels = Mapping[str, Mapping[str, Sequence[Series]]]
"""By the title of each panel the lines in it, by their names."""


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
    single, growing = _parts(report)
    bars, lines = names(report, all_of_them=True)
    found = []
    if single:
        found.append(_bars(report, single, folder / bars))
    if growing:
        panels = _by_percentile(growing) if report.axis == RATE else _by_unit(growing)
        found.append(_lines(report, panels, folder / lines))
    return found


def names(report: Report, *, all_of_them: bool = False) -> list[str]:
    """The files that there are of a section, or that there could be."""
    parts = zip(_parts(report), (f"{report.section}.png", f"{report.section}-growth.png"), strict=True)
    return [name for part, name in parts if part or all_of_them]


def _parts(report: Report) -> tuple[list[Series], list[Series]]:
    """What is compared, and what grows."""
    single = [one for one in report.series if one.at is None]
    growing = [one for one in report.series if one.at is not None]
    return single, growing if len({one.at for one in growing}) > 1 else []


def _bars(report: Report, series: Sequence[Series], path: Path) -> Path:
    units = _grouped(series, lambda one: one.unit)
    heights = [len(part) for part in units.values()]
    figure, axes = _figure(10, 1.6 * len(units) + 0.38 * sum(heights), len(units), {"height_ratios": heights})
    for each, (unit, part) in zip(axes, units.items(), strict=True):
        spans = [one.interval for one in part]
        middle = [one.median for one in spans]
        errors = [[one.median - one.low for one in spans], [one.high - one.median for one in spans]]
        colours = [OTHERS_COLOUR if _is_other(one.name) else OURS_COLOUR for one in part]
        logarithmic = min(middle) > 0 and max(middle) > DECADES * min(middle)
        each.barh([one.name for one in part], middle, xerr=errors, color=colours, ecolor="#444444", capsize=3)
        each.invert_yaxis()  # the first on top
        if logarithmic:
            each.set_xscale("log")
        for number, span in enumerate(spans):
            text = f"{span.median:,.0f}".replace(",", " ") if span.median >= 1000 else f"{span.median:.3g}"
            each.annotate(text, (max(span.high, 0), number), (5, 0), textcoords="offset points", va="center")
        better = "more" if part[0].more else "less"
        each.set_xlabel(f"{unit}; {better} is better{'; logarithmic' if logarithmic else ''}")
        each.margins(x=0.12)
        each.spines[["top", "right"]].set_visible(False)
        _mark_target(each, part, vertical=True)
    if any(_is_other(one.name) for one in series):
        _legend(figure)
    return _save(figure, report.title, path)


def _lines(report: Report, panels: Panels, path: Path) -> Path:
    figure, axes = _figure(10, 3.2 * len(panels), len(panels), {})
    for each, (title, lines) in zip(axes, panels.items(), strict=True):
        medians = [one.median for part in lines.values() for one in part]
        for (name, part), marker in zip(lines.items(), itertools.cycle("os^vD"), strict=False):
            points = sorted((one.at or 0, one.interval) for one in part)
            errors = [[span.median - span.low for _, span in points], [span.high - span.median for _, span in points]]
            middle = [span.median for _, span in points]
            each.errorbar(
                [at for at, _ in points],
                middle,
                yerr=errors,
                marker=marker,
                ms=5,
                fillstyle="none",
                capsize=3,
                label=name,
            )
        # What spans decades is read from its exponents, what does not from a scale that begins at 0.
        if min(medians) > 0 and max(medians) > DECADES * min(medians):
            each.set_yscale("log")
        else:
            each.axhline(0, color="#444444", lw=0.8)
        places = sorted({one.at or 0 for part in lines.values() for one in part})
        if report.axis == CALLS:
            each.xaxis.set_major_formatter(lambda place, _: short(round(place)))
        else:
            each.set_xscale("log")
            each.set_xticks(places, [short(place) for place in places], minor=False)
            each.set_xticks([], minor=True)
        each.set_ylabel(title)
        each.grid(alpha=0.3)
        _mark_target(each, report.series if report.axis == CALLS else (), vertical=False)
        each.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes[-1].set_xlabel(report.axis)
    return _save(figure, report.title, path)


def _by_unit(series: Sequence[Series]) -> Panels:
    units = _grouped(series, lambda one: one.unit)
    return {unit: _grouped(part, lambda one: one.name) for unit, part in units.items()}


def _by_percentile(series: Sequence[Series]) -> Panels:
    """The last part of the name has a panel of its own, what is before it a line in it."""
    parts = _grouped(series, lambda one: f"{one.name.rpartition(', ')[2]}, {one.unit}")
    return {title: _grouped(part, lambda one: one.name.rpartition(", ")[0]) for title, part in parts.items()}


def _grouped(series: Sequence[Series], key: Callable[[Series], str]) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for one in series:
        found.setdefault(key(one), []).append(one)
    return found


def _is_other(name: str) -> bool:
    return any(word in name for word in OTHERS)


def _mark_target(axes: Any, series: Sequence[Series], *, vertical: bool) -> None:
    """A line at the one target that all of these have."""
    limits = {one.target.limit for one in series if one.target is not None and one.name.startswith("largest")}
    for limit in limits:
        (axes.axvline if vertical else axes.axhline)(limit, color=TARGET_COLOUR, ls="--", lw=1, label="target")


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415  # optional

    handles = [Patch(color=OURS_COLOUR, label="this plugin"), Patch(color=OTHERS_COLOUR, label="others")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)


def _figure(width: float, height: float, rows: int, ratios: Mapping[str, Any]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415  # optional

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, squeeze=False, gridspec_kw=dict(ratios))[:, 0]


def _save(figure: Any, title: str, path: Path) -> Path:
    figure.suptitle(title, x=0.01, ha="left")
    figure.savefig(path, dpi=110)
    return path
