"""How the command speaks: to people in tables, to programs in JSON, and by its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from shaken_plugin.config.fields import moment
from shaken_plugin.config.settings import settings_path
from shaken_plugin.errors import FileProblems


class Exit(IntEnum):
    """Exit codes of every command."""

    YES = 0
    NO = 1
    USAGE = 2
    MISSING = 3


def harmless(text: str) -> str:
    """A text without anything a terminal might act on, or that turns its order around; lines stay lines."""
    return text if text.isprintable() else "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    return char if char.isprintable() or char == "\n" else repr(char)[1:-1]


class _Guarded(Console):
    """Whatever is printed passes here, whoever forgot `visible`: only Rich itself speaks to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """See `Console.render`."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else harmless(text), style, control)


console: Console = _Guarded(highlight=False, soft_wrap=True)
errors: Console = _Guarded(stderr=True, highlight=False, soft_wrap=True)


def print_json(data: Any) -> None:
    """One JSON document on standard output; what a terminal might act on is escaped."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    click.echo("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text))


def visible(text: object) -> Text:
    """What stands in a call, for people: neither markup nor anything a terminal might act on."""
    return Text("".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text)))


def fail(what: str | FileProblems, code: Exit = Exit.MISSING) -> NoReturn:
    """Say what is wrong, and end; with ``--json`` on standard output, for programs."""
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("as_json"):
        problems = what.problems if isinstance(what, FileProblems) else []
        print_json({"ok": False, "error": str(what), "problems": [problem._asdict() for problem in problems]})
    else:
        errors.print(str(what), style="red", markup=False)
    sys.exit(code)


class _PlainTable(Table):
    def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
        """See `Table.add_row`; a cell that is text is no markup."""
        super().add_row(*(visible(cell) if isinstance(cell, str) else cell for cell in cells), **how)


def table(*columns: str) -> Table:
    """A table without ornament, of plain text."""
    made = _PlainTable(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def when(seconds: float | None) -> str:
    """POSIX seconds for people."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


_YEAR_10000: Final = 253_402_300_800.0
"""POSIX seconds at which the calendars of Python and X.509 end."""


class Moment(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """A time: ISO 8601, UTC unless it says otherwise, or POSIX seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType.convert`."""
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = float(moment(value))  # type: ignore[arg-type]  # text becomes a number or raises
            except ValueError as exc:
                self.fail(str(exc), param, ctx)
        if not 0 <= seconds < _YEAR_10000:
            self.fail("not a time between the years 1970 and 9999", param, ctx)
        return seconds


EXISTING_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
"""Type of an option that names a file to read."""


def settings_option(function: Any) -> Any:
    """``--settings FILE``."""
    return click.option(
        "--settings",
        "settings_file",
        type=click.Path(path_type=Path, dir_okay=False),
        is_eager=True,  # numbers are read by the dial plan of the settings
        default=settings_path,
        show_default="$SHAKEN_SETTINGS or /etc/shaken/shaken.yaml",
        help="The settings file.",
    )(function)


def json_option(function: Any) -> Any:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def at_option(function: Any) -> Any:
    """``--at TIME``."""
    return click.option("--at", "at", type=Moment(), help="Pretend that it is this time; default: now.")(function)
