"""The one table at the end: medians over interleaved rounds, and their ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.results import Ratio, Report, Series


def summary(reports: Sequence[Report], machine: Mapping[str, str]) -> RenderableType:
    """All sections as one table, what each leaves unsaid, and the machine."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "median", "beside", "ratio", "95 %", "target"):
        table.add_column(name, justify="right" if name in {"median", "ratio", "target"} else "left")
    for report in reports:
        table.add_section()
        table.add_row(Text(report.section, style="bold"))
        for row in rows(report):
            table.add_row(*row)
    titles = [Text(f"{report.section}: {report.title}") for report in reports]
    notes = [Text(f"{report.section}: {note}") for report in reports for note in report.notes]
    about = Text("\n".join(f"{name}: {value}" for name, value in machine.items()), style="dim")
    return Group(table, *titles, *notes, about)


def rows(report: Report) -> list[tuple[str, str, str, str, str, Text]]:
    """The lines of a section: each series with its ratios."""
    found = []
    for one in report.series:
        compared = [ratio for ratio in report.ratios if (ratio.of, ratio.at) == (one.name, one.at)]
        first = (label(one.name, one.at), measured(one))
        if not compared:
            found.append((*first, "", "", "", Text("")))
        for number, ratio in enumerate(compared):
            found.append((*(first if number == 0 else ("", "")), *_compared(ratio)))
    return found


def label(name: str, at: int | None) -> str:
    """A name with the number of records it is about: ``file, 10 M``."""
    if at is None:
        return name
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if at >= size and at % size == 0:
            return f"{name}, {at // size} {unit}"
    return f"{name}, {at}"


def measured(one: Series) -> str:
    """A median with its unit; of times for one operation also how many in a second."""
    text = f"{_rounded(one.median)} {one.unit}"
    return f"{text} ({_rounded(1e6 / one.median)}/s)" if one.unit == "µs" and one.median else text


def _compared(ratio: Ratio) -> tuple[str, str, str, Text]:
    found, target = ratio.interval, ratio.target
    kind = "rate" if ratio.rate else "cost"
    verdict = Text("")
    if target is not None:
        met = target.is_met(found.median)
        verdict = Text(f"{target} {'met' if met else 'missed'}", style="green" if met else "red")
    return (
        label(ratio.to, ratio.to_at),
        f"{found.median:.2f} of its {kind}",
        f"{found.low:.2f} to {found.high:.2f}",
        verdict,
    )


def _rounded(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"
