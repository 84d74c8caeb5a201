"""``python -m bench.load``: calls for minutes while everything changes; status 1 where one was not as it must be."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.load import plots, report
from bench.load.judge import judge
from bench.load.observed import Observation
from bench.load.run import Options, run
from bench.machine import describe
from bench.plots import available
from bench.processes import leave_nothing_behind
from bench.results import BenchError
from shaken_plugin.lab.servers import LabError, find_program

PROGRAMS = ("kamailio", "kamcmd", "sipp")


@click.command()
@click.option("--minutes", type=click.FloatRange(0.3, 24 * 60), default=10.0, show_default=True, help="How long.")
@click.option("--rate", type=click.IntRange(1, 5_000), default=50, show_default=True, help="Calls a second.")
@click.option("--embedded", is_flag=True, help="A policy of each host's own instead of one in Redis.")
@click.option("--kemi", is_flag=True, help="Routing in Python instead of Kamailio's own language.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    help="Where the report goes.",
)
def main(minutes: float, rate: int, *, embedded: bool, kemi: bool, results: Path) -> None:
    """Place calls through an originating and a terminating Kamailio, and judge what became of each."""
    leave_nothing_behind()
    console = Console(file=sys.stdout)  # commands are run meanwhile, whose output is caught
    options, machine, made = Options(minutes * 60, rate, embedded=embedded, kemi=kemi), describe(), datetime.now(UTC)
    scratch = Path(tempfile.mkdtemp(prefix="shaken-load-"))
    try:
        for name in (*PROGRAMS, *(() if embedded else ("redis-server",))):
            find_program(name)
        found = _play(options, scratch, console)
    except (BenchError, LabError) as exc:
        raise click.ClickException(f"{exc}\nWhat the hosts left is in {scratch}") from exc
    verdict = judge(found)
    summary = report.text(found, verdict, options, machine)
    folder = results / f"load-{made:%Y-%m-%dT%H%M%SZ}"
    folder.mkdir(parents=True)
    (folder / "summary.txt").write_text(summary, "utf-8")
    content = report.to_json(found, verdict, options, machine, made=made.isoformat(timespec="seconds"))
    (folder / "results.json").write_text(json.dumps(content) + "\n", "utf-8")
    if available():
        plots.draw(found, folder)
    else:
        console.print("No plots: matplotlib is not installed (pip install matplotlib).")
    console.print(summary, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written to {folder}", soft_wrap=True)
    if not verdict.good:
        console.print(f"What the hosts left is in {scratch}", soft_wrap=True)
        raise click.exceptions.Exit(1)
    shutil.rmtree(scratch)


def _play(options: Options, scratch: Path, console: Console) -> Observation:
    columns = (BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task("", total=options.seconds)
        return run(
            options,
            scratch,
            lambda text: progress.update(task, description=text),
            lambda seconds: progress.update(task, completed=seconds),
        )


if __name__ == "__main__":
    main()
