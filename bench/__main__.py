"""``python -m bench``: measure, print one table, write JSON and pictures."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import plots, table
from bench.machine import describe
from bench.processes import leave_nothing_behind
from bench.results import BenchError, Report, to_json
from bench.sections import Options
from bench.sections.registry import SECTIONS
from bench.stores import Stores

WIDTH: Final = 140
"""Characters of a line where the output is no terminal."""


@click.command()
@click.argument("names", metavar="[SECTION]...", nargs=-1, type=click.Choice(list(SECTIONS)))
@click.option("--quick", is_flag=True, help="The ratios alone: fewer, shorter rounds; stores up to a million numbers.")
@click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), help="Where files go."
)
def main(names: tuple[str, ...], *, quick: bool, results: Path) -> None:
    """Measure the sections named, by default all of them; with --quick all that have ratios.

    Status 1: one could not be measured. A target that is missed is no failure.
    """
    leave_nothing_behind()
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    made = datetime.now(UTC)
    machine = describe()
    reports = list[Report]()
    folder = results / f"{made:%Y-%m-%dT%H%M%SZ}"
    folder.mkdir(parents=True)

    def save() -> None:
        content = to_json(reports, machine, made=made.isoformat(timespec="seconds"), quick=quick)
        (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")

    with _progress(console) as progress, tempfile.TemporaryDirectory(prefix="shaken-bench-") as scratch:
        begin = _begins(progress)
        stores = Stores(Path(scratch) / "stores", begin)
        for name in names or [each.name for each in SECTIONS.values() if each.has_ratios or not quick]:
            own = Path(scratch) / name
            own.mkdir()
            reports.append(_run(name, Options(quick, own, begin, stores)))
            save()  # whatever becomes of the next one
            console.print(f"{name}: {'failed' if reports[-1].failed else 'measured'} in {reports[-1].seconds} s")
    console.print(table.summary(reports, machine))
    if plots.available():
        for report in reports:
            plots.draw(report, folder)
    else:
        console.print("No plots: matplotlib is not installed (pip install matplotlib).")
    console.print(f"Written to {folder}")
    if any(report.failed for report in reports):
        raise click.exceptions.Exit(1)


def _run(name: str, options: Options) -> Report:
    """A section's report, with how long it took; of one that cannot be measured it says why."""
    section, began = SECTIONS[name], time.monotonic()
    try:
        report = section.run(options)
    except BenchError as exc:
        report = Report(name, section.title, notes=[f"not measured: {exc}"], failed=True)
    except Exception:  # what the other sections found must not be lost
        report = Report(name, section.title, notes=[f"not measured:\n{traceback.format_exc()}"], failed=True)
    report.seconds = round(time.monotonic() - began)
    return report


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    return Progress(*columns, console=console, transient=True)


def _begins(progress: Progress) -> Callable[[str, int], Callable[[], object]]:
    def begin(name: str, steps: int) -> Callable[[], object]:
        task = progress.add_task(name, total=steps)
        return lambda: progress.advance(task)

    return begin


if __name__ == "__main__":  # workers import this module, too
    main()
