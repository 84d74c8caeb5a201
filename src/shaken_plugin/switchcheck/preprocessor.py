"""FreeSWITCH's preprocessor: from ``freeswitch.xml`` and all it includes to one text.

It works on lines, before anything looks at them as XML, so that a command inside a comment is a
command, too (switch_xml.c). Here every line remembers where it came from, nothing is executed, and
files, text and depth are bounded: a configuration may come from anybody who wants help.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from shaken_plugin.errors import Problem
from shaken_plugin.switchcheck.findings import Check, Finding

MAX_DEPTH: Final = 100
"""Deepest inclusion; FreeSWITCH's own limit."""

MAX_FILES: Final = 5_000
MAX_TEXT: Final = 32 * 1024 * 1024
"""Characters in all, of files, of the text made of them, and of variables; the sample has a million."""

MAX_LINE: Final = 1024 * 1024

MAX_WILDCARDS: Final = 2
"""Folders of an inclusion that may be patterns: with more of them it would search the whole disk."""

_WILDCARD: Final = re.compile(r"[*?\[]")
_VARIABLE: Final = re.compile(r"\$\$\{([^{}]*)\}")


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int


class Setting(NamedTuple):
    """A global variable and where it is set."""

    name: str
    value: str
    place: Place


@dataclass(slots=True)
class Text:
    """What the preprocessor makes of a configuration."""

    lines: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    """Where each line came from."""
    settings: dict[str, Setting] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    whole: bool = True
    """Whether everything that FreeSWITCH would read was read."""

    def found(self, check: Check, place: Place, message: str, *, whole: bool = False) -> None:
        """Note a finding; unless said otherwise, part of the text is missing by it."""
        self.findings.append(Finding(check, Problem(place.file, place.line, 1, "", message)))
        self.whole &= whole


class _Full(Exception):
    """More text than is looked at."""


def preprocess(file: Path, variables: dict[str, str]) -> Text:
    """Read a configuration as FreeSWITCH does.

    Args:
        file: ``freeswitch.xml``.
        variables: what FreeSWITCH itself sets, for instance ``conf_dir``.
    """
    reader = _Reader(variables)
    with contextlib.suppress(_Full):
        reader.read(file, (), Place(str(file), 0))
    return reader.text


class _Reader:
    def __init__(self, variables: dict[str, str]) -> None:
        self.text = Text()
        self._given = variables
        self._files = 0
        self._size = 0

    def read(self, file: Path, above: tuple[Path, ...], asked: Place) -> None:
        """One file, line by line. ``above`` leads to it, and ``asked`` is the line that includes it."""
        content = self._content(file, above, asked)
        above = (*above, _real(file))
        hidden = False
        for number, raw in enumerate(content.split("\n"), 1):
            place = Place(str(file), number)
            line = self._expand(raw, place)
            # "for the sake of validators": lines with these are left out as a whole.
            if "<include>" in raw or "</include>" in raw or "<?" in raw:
                continue
            if hidden:
                _, end, line = line.partition("-->")
                hidden = not end
                if hidden:
                    continue
            start = line.lower().find("x-pre-process")
            if start >= 0:
                if line[start - 1 : start] == "<":
                    self._element(line[start:], file, above, place)
            elif "<!--#" in line:
                head, _, rest = line.partition("<!--#")
                command, end, tail = rest.partition("-->")
                hidden = not end
                self._keep(head + tail, place)
                name, _, argument = command.strip().partition(" ")
                self._command(name, argument.strip().strip('"'), file, above, place)
            else:
                self._keep(line, place)

    def _content(self, file: Path, above: tuple[Path, ...], asked: Place) -> str:
        if _real(file) in above:
            self.text.found(Check.XML_CYCLE, asked, f"includes {file}, which leads here; take one of the two out")
            return ""
        self._files += 1
        if len(above) > MAX_DEPTH or self._files > MAX_FILES:
            self._full(asked, f"includes nested deeper than {MAX_DEPTH}, or more than {MAX_FILES} files")
        try:
            found = file.stat()
            if not stat.S_ISREG(found.st_mode):
                self.text.found(Check.XML_UNREADABLE, asked, f"{file} is not a plain file")
                return ""
            if found.st_size > MAX_TEXT:
                self._full(asked, f"{file} is larger than {MAX_TEXT} bytes")
            content = file.read_text("utf-8", "replace")
        except OSError as exc:
            self.text.found(Check.XML_UNREADABLE, asked, f"{file} cannot be read: {exc.strerror}")
            return ""
        self._count(len(content), asked)
        return content

    def _full(self, place: Place, message: str) -> None:
        self.text.found(Check.XML_TOO_LARGE, place, f"{message}; the check stops here")
        raise _Full

    def _expand(self, line: str, place: Place) -> str:
        room = MAX_LINE

        def value(match: re.Match[str]) -> str:
            nonlocal room
            name = match[1]
            setting = self.text.settings.get(name)
            found = setting.value if setting else self._given.get(name, "")
            room -= len(found)
            return found if room > 0 else ""

        expanded = _VARIABLE.sub(value, line) if "$${" in line else line
        if room <= 0 or len(expanded) > MAX_LINE:
            self._full(place, f"a line longer than {MAX_LINE} characters")
        return expanded

    def _count(self, length: int, place: Place) -> None:
        self._size += length
        if self._size > MAX_TEXT:
            self._full(place, f"more than {MAX_TEXT} characters in all")

    def _keep(self, line: str, place: Place) -> None:
        self._count(len(line) + 1, place)
        self.text.lines.append(line)
        self.text.places.append(place)

    def _element(self, text: str, file: Path, above: tuple[Path, ...], place: Place) -> None:
        command, rest = _quoted(text, "cmd")
        argument, _ = _quoted(rest, "data")
        if command is not None and argument is not None:
            self._command(command, argument, file, above, place)

    def _command(self, command: str, argument: str, file: Path, above: tuple[Path, ...], place: Place) -> None:
        match command.lower():
            case "set":
                name, equals, value = argument.partition("=")
                if equals:
                    self._count(len(argument), place)
                    name = name.rstrip(" ")
                    self.text.settings[name] = Setting(name, value.lstrip(" "), place)
            case "include":
                for path in self._matching(argument, file, place):
                    self.read(Path(os.path.normpath(path)), above, place)
            case "exec":
                self.text.found(
                    Check.XML_NOT_FOLLOWED, place, "includes what a program prints, which was not run", whole=True
                )

    def _matching(self, argument: str, file: Path, place: Place) -> list[str]:
        pattern = argument if argument.startswith("/") else f"{file.parent}/{argument}"
        if "\0" in pattern:
            self.text.found(Check.XML_UNREADABLE, place, "includes a file whose name has a NUL")
            return []
        if sum(1 for part in argument.split("/") if _WILDCARD.search(part)) > MAX_WILDCARDS:
            message = (
                f"includes by a pattern with wildcards in more than {MAX_WILDCARDS} folders, which was not followed"
            )
            self.text.found(Check.XML_TOO_LARGE, place, message)
            return []
        return sorted(itertools.islice(glob.iglob(pattern), MAX_FILES + 1))  # noqa: PTH207  # as glob(3)


def _real(file: Path) -> Path:
    """A file without its links; Path.resolve raises where they lead to each other."""
    return Path(os.path.realpath(file))


def _quoted(text: str, name: str) -> tuple[str | None, str]:
    """The value in double quotes behind a name, and what follows it."""
    start = text.lower().find(name)
    if start < 0:
        return None, ""
    _, equals, rest = text[start:].partition("=")
    _, quote, rest = rest.partition('"')
    value, _, rest = rest.partition('"')
    return (value, rest) if equals and quote else (None, "")
