"""``python -m bench.page results/…``: publish the figures of a run in docs/benchmarks.md, with its pictures.

Nobody copies a figure by hand: the page's last part is made from the JSON that lies beside it, and a test
compares the two.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from bench import plots, table
from bench.results import BenchError, Report, from_json

PAGE: Final = Path("docs/benchmarks.md")
PUBLISHED: Final = Path("docs/benchmarks")
"""Where the JSON and the pictures of the page lie."""

HEADING: Final = "## Figures"
"""All after it is made by this."""

NONE: Final = (
    "None are published yet: they will stand here with the machine that they were measured on. `make bench` prints\n"
    "yours.\n"
)

_HEAD: Final = (
    "Measured {day} on the machine below by `make bench`; made by `python -m bench.page` from\n"
    "[its results](benchmarks/results.json), where the values of all rounds are."
)


@click.command()
@click.argument("results", type=click.Path(path_type=Path, file_okay=False, exists=True))
def main(results: Path) -> None:
    """Publish the figures of the run whose folder is RESULTS."""
    PUBLISHED.mkdir(exist_ok=True)
    content = json.loads((results / "results.json").read_text("utf-8"))
    if content["quick"]:
        raise click.ClickException("figures of the short run are not published: use those of `make bench`")
    try:
        from_json(content)
    except BenchError as exc:
        raise click.ClickException(str(exc)) from exc
    for old in PUBLISHED.glob("*.png"):
        old.unlink()
    for found in (results / "results.json", *sorted(results.glob("*.png"))):
        shutil.copy(found, PUBLISHED)
    PAGE.write_text(with_figures(PAGE.read_text("utf-8"), published()), "utf-8")
    click.echo(f"Written to {PAGE}")


def published() -> str:
    """The part of the page that is made, from the JSON that lies beside it."""
    path = PUBLISHED / "results.json"
    return figures(json.loads(path.read_text("utf-8"))) if path.exists() else NONE


def with_figures(page: str, made: str) -> str:
    """The page with another last part.

    Raises:
        ValueError: it has no place for it.
    """
    head, heading, _ = page.partition(f"\n{HEADING}\n")
    if not heading:
        raise ValueError(f"no line {HEADING!r}")
    return f"{head}{heading}\n{made}"


def figures(content: Mapping[str, Any]) -> str:
    """Targets, then each section with its pictures, then the machine.

    Args:
        content: of ``results.json``.
    """
    reports = from_json(content)
    machine = [[name, value] for name, value in content["machine"].items()]
    parts = [
        _HEAD.format(day=content["made"][:10]),
        *_targets(reports),
        *(_section(report) for report in reports),
        "### The machine\n\n" + _markdown(["", ""], machine),
    ]
    return "\n\n".join(parts) + "\n"


def _targets(reports: Sequence[Report]) -> list[str]:
    found = table.judged(reports)
    rows = [
        [one.section, one.what, one.found, one.bounds, str(one.target), "met" if one.met else "**missed**"]
        for one in found
    ]
    text = _markdown(["section", "what", "measured", "95 %", "target", "verdict"], rows)
    return [f"### Targets: {sum(one.met for one in found)} of {len(found)} met\n\n{text}"] if found else []


def _section(report: Report) -> str:
    rows = [list(row[:6]) for row in table.rows(report)]
    parts = [f"### {report.section}", f"{report.title}. Measured in {report.seconds} s."]
    if rows:
        parts.append(_markdown(list(table.HEADINGS), rows))
    parts += [f"![{report.title}](benchmarks/{name})" for name in plots.names(report)]
    if report.notes:
        parts.append("\n".join(f"- {_inline(note)}" for note in report.notes))
    return "\n\n".join(parts)


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if name in table.RIGHT else "---" for name in headings]
    return "\n".join("| " + " | ".join(map(_inline, line)) + " |" for line in (headings, rule, *rows))


def _inline(text: str) -> str:
    """In one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
