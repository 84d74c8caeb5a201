"""Log lines and counters: implementations of `ports.Observer`, and what makes a line safe."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TextIO

from shaken_plugin.jsontext import flat
from shaken_plugin.ports import Observer, Severity

MAX_LINE: Final = 2_000
"""Longest log line, characters; syslog and Kamailio's own buffer cut at some thousands."""

REPEAT_AFTER: Final = 60.0
"""Seconds before the same warning is logged again; every occurrence is counted all the same."""


class Clean(str):
    """A text that is made so that `clean` has nothing to do, and need not look at every character of it."""

    __slots__ = ()


def clean(text: str) -> str:
    """Text without control or non-ASCII characters and at most `MAX_LINE` long: no log injection."""
    if type(text) is Clean:
        return text
    if text.isascii() and text.isprintable() and len(text) <= MAX_LINE:
        return text
    printable = text.encode("ascii", "backslashreplace").decode("ascii")
    if not printable.isprintable():
        printable = "".join(char if char.isprintable() else repr(char)[1:-1] for char in printable)
    return printable if len(printable) <= MAX_LINE else f"{printable[:MAX_LINE]}~"


def event(name: str, fields: Mapping[str, Any]) -> str:
    """One structured log line: ``shaken {"event":…}``, without what is None or empty.

    Always valid JSON: where the line would be longer than `MAX_LINE`, texts and lists are cut.
    """
    present = {"event": name, **{key: value for key, value in fields.items() if value or value == 0}}
    line = _structured(present)
    for longest in _CUTS:
        if len(line) <= MAX_LINE:
            break
        line = _structured({key: _cut(value, longest) for key, value in present.items()})
    return line


_CUTS: Final = (300, 150, 75, 35, 15)
"""Longest texts of an event, as written in JSON; the first with which the line fits is taken. The
last makes 25 fields fit."""


def _structured(fields: Mapping[str, Any]) -> str:
    return f"shaken {flat(fields)}"


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, list | tuple):
        return [_cut(item, longest) for item in value[: longest // 4]]
    if not isinstance(value, str) or len(json.dumps(value)) <= longest + 2:
        return value
    kept = value[:longest]
    while len(json.dumps(kept)) > longest + 1:
        kept = kept[: len(kept) * 3 // 4]
    return f"{kept}~"


class MemoryObserver:
    """Keeps everything, for tests and tools."""

    def __init__(self) -> None:
        self.lines: list[tuple[Severity, str]] = []
        self.counts: Counter[str] = Counter()

    def log(self, severity: Severity, text: str) -> None:
        """See `ports.Observer.log`."""
        self.lines.append((severity, text))

    def count(self, name: str) -> None:
        """See `ports.Observer.count`."""
        self.counts[name] += 1


class StreamObserver:
    """Writes lines to a stream and forgets counts: for command-line tools."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def log(self, severity: Severity, text: str) -> None:
        """See `ports.Observer.log`."""
        with suppress(OSError, ValueError):  # a full disk or a closed pipe: nobody may fail for want of a log
            # In one piece: other threads write, too.
            print(f"{severity.value}: {clean(text)}\n", file=self._stream, end="", flush=True)

    def count(self, name: str) -> None:
        """See `ports.Observer.count`."""


class Throttle:
    """Lets the same warning through once in `REPEAT_AFTER` seconds."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._last: dict[str, float] = {}

    def warn(self, key: str, text: str, now: float, severity: Severity = Severity.WARNING) -> None:
        """Log a warning unless the same key was logged a short time ago."""
        if abs(now - self._last.get(key, float("-inf"))) >= REPEAT_AFTER:  # also after a clock was put back
            self._last[key] = now
            self._observer.log(severity, clean(text))
