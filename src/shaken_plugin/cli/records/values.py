"""What options of records take: the types of the policy file, as click types; and how they are shown."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from pydantic import TypeAdapter, ValidationError

from shaken_plugin import runtime
from shaken_plugin.config.policyvalues import Numbers
from shaken_plugin.config.settings import parse_settings, settings_path
from shaken_plugin.errors import FileProblems
from shaken_plugin.ports import Span

_DAY: Final = 86_400


class Checked(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """A value that a type of the policy file accepts."""

    def __init__(self, name: str, annotation: Any) -> None:
        self.name = name
        self._adapter = TypeAdapter[Any](annotation)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError as exc:
            message = str(exc.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
            self.fail(f"{value}: {message}", param, ctx)


class Numbered(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """A number, or a range such as +12155551300..+12155551399, as a `Span`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Span:
        """See `click.ParamType.convert`."""
        if isinstance(value, Span):
            return value
        ends = [_in_full(self, end, param, ctx) for end in str(value).split("..")]
        first, _, last = str(NUMBERS_TEXT.convert("..".join(ends), param, ctx)).replace("+", "").partition("..")
        return Span(first, last or first)


class Digits(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """A number, or the beginning of numbers, as canonical digits."""

    def __init__(self, name: str, example: str, least: int, *, national: bool) -> None:
        self.name = name
        self._example, self._national = example, national
        self._pattern = re.compile(rf"\+([1-9][0-9]{{{least - 1},14}})")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType.convert`."""
        text = _in_full(self, str(value), param, ctx) if self._national else str(value)
        match = self._pattern.fullmatch(text)
        if match is None:
            self.fail(f"{value}: not a {self.name} such as {self._example}", param, ctx)
        return match[1]


_NATIONAL = re.compile(r"[0-9(][0-9 ().-]*")


def is_national(text: str) -> bool:
    """Whether it may be a number without + and country code."""
    return _NATIONAL.fullmatch(text) is not None


def _in_full(
    kind: click.ParamType,  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    text: str,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> str:
    """A number with + and country code, as the switch would read what is dialled; other texts as they are.

    What the dial plan cannot place is wrong usage: it might be another country's number.
    """
    if not is_national(text):
        return text
    path = Path((ctx.params.get("settings_file") if ctx else None) or settings_path())
    try:
        settings, document = parse_settings(path)
        if settings is None:
            raise FileProblems(document.problems)
    except FileProblems as exc:
        kind.fail(f"{text}: without + it needs the dial plan of the settings, and {exc}", param, ctx)
    number = runtime.settings_plan(settings).canonical(text)
    if not number.is_e164:
        told = f"not a number by the dial plan of {settings.country}; with + and country code it is clear"
        kind.fail(f"{text}: {told}", param, ctx)
    return f"+{number}"


class OneOf(click.Choice):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """One of a few words, standing for values; tells which was meant."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(list(values))
        self._values = values

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        if value in self._values.values():
            return value
        if value not in self._values:
            self.fail(f"{value}: not one of {', '.join(self._values)}{meant(str(value), self._values)}", param, ctx)
        return self._values[value]


class Days(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """Days of the week: ``mon-fri``, ``sat,sun``."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """See `click.ParamType.convert`."""
        if isinstance(value, tuple):
            return value
        days: set[int] = set()
        for part in str(value).lower().split(","):
            first, _, last = part.partition("-")
            if first not in WEEK or (last or first) not in WEEK:
                self.fail(f"{value}: not days such as mon-fri or sat,sun", param, ctx)
            start, end = WEEK.index(first), WEEK.index(last or first)
            days.update(day % 7 for day in range(start, end + 1 if end >= start else end + 8))
        return tuple(sorted(days))


class Clock(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """A time of the day, ``08:30``, as minutes; ``24:00`` is its end."""

    name = "hh:mm"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `click.ParamType.convert`."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,2}):([0-5][0-9])", str(value))
        minutes = int(match[1]) * 60 + int(match[2]) if match else 1441
        if minutes > 1440:
            self.fail(f"{value}: not a time of the day such as 08:30", param, ctx)
        return minutes


WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NUMBERS_TEXT: Final = Checked("numbers", Numbers)
NUMBERS: Final = Numbered()
NUMBER: Final = Digits("telephone number", "+12155551212", 4, national=True)
PREFIX: Final = Digits("prefix of numbers", "+1215", 1, national=False)
SWITCH: Final = OneOf({"yes": True, "no": False})


def meant(word: str, known: Any) -> str:
    """`` (did you mean …?)``, or nothing."""
    near = difflib.get_close_matches(word, [str(item) for item in known], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def span_text(span: Span) -> str:
    """Numbers as they are typed: ``+12155551300..+12155551399``."""
    return f"+{span.first}" if span.first == span.last else f"+{span.first}..+{span.last}"


def size(span: Span) -> int:
    """How many numbers it holds."""
    return int(span.last) - int(span.first) + 1


def day(seconds: float, *, last: bool = False) -> str:
    """POSIX seconds as they are typed: a day where it is midnight, else the moment.

    Args:
        seconds: the time.
        last: it is an end, whose day is the last one before it.
    """
    if seconds % _DAY == 0:
        return f"{datetime.fromtimestamp(seconds - (_DAY if last else 0), UTC):%Y-%m-%d}"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
