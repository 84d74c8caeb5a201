"""The step that sets environment variables in a file which others write to, too."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from shaken_plugin.setup.files import content_of
from shaken_plugin.setup.machine import Machine
from shaken_plugin.setup.steps import (
    Case,
    Notes,
    Rights,
    Step,
    draft_of,
    make_parents,
    remove_empty,
    to_make,
    write_file,
)

BEGIN: Final = "# shaken-plugin: begin; 'shaken setup' writes these lines, 'shaken setup --undo' takes them out"
END: Final = "# shaken-plugin: end"
_BLOCK: Final = re.compile(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}(?:\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class SetVariables(Step):
    """Environment variables in a file that both systemd and a shell read.

    systemd (EnvironmentFile=) takes lines NAME=value, and drops a line without "="; an init script
    sources the file, and a program it starts sees only what is exported. Hence the two forms.
    """

    kind: ClassVar[str] = "variables"
    subject: str
    variables: Mapping[str, str]

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return f"set {' and '.join(self.variables)} in {self.subject}, in marked lines at its end"

    def _text(self, machine: Machine) -> str:
        found = content_of(machine.at(self.subject))
        return "" if found is None else found.decode("utf-8", "surrogateescape")

    def _block(self, rest: str) -> str:
        lines = [BEGIN]
        for name, value in self.variables.items():
            # The later assignment wins in both readers: what was set before is carried along.
            other = assigned(rest, name) if name == "PYTHONPATH" else None
            lines.append(f"{name}={shlex.quote(value + (os.pathsep + other if other else ''))}")
        return "\n".join([*lines, f"export {' '.join(self.variables)}", END, ""])

    def _wanted(self, machine: Machine) -> str:
        text = self._text(machine)
        block = self._block(_BLOCK.sub("", text))
        if _BLOCK.search(text):
            return _BLOCK.sub(lambda _: block, text)
        return text + ("\n" if text and not text.endswith("\n") else "") + block

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        return self._text(case.machine) == self._wanted(case.machine)

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        text = self._text(case.machine)
        return {
            "existed": case.machine.at(self.subject).exists(),
            "unterminated": bool(text) and not text.endswith("\n"),
            "made": to_make(case.machine, self.subject),
        }

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        _rewrite(case.machine, self.subject, self._wanted(case.machine))

    def remarks(self, case: Case) -> list[str]:
        """See `Step.remarks`."""
        other = assigned(_BLOCK.sub("", self._text(case.machine)), "PYTHONPATH")
        return [f"{self.subject} sets PYTHONPATH={other} already; ours goes before it"] if other else []

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        path = case.machine.at(case.noted.subject)
        draft_of(path).unlink(missing_ok=True)
        found = content_of(path)
        if found is None:
            return None
        text = found.decode("utf-8", "surrogateescape")
        match = _BLOCK.search(text)
        if match is None:
            return None
        head, tail = text[: match.start()], text[match.end() :]
        if case.noted.before["unterminated"] and not tail:
            head = head.removesuffix("\n")
        if not case.noted.before["existed"] and not head + tail:
            path.unlink()
            remove_empty(*map(case.machine.at, case.noted.before["made"]))
        else:
            _rewrite(case.machine, case.noted.subject, head + tail)
        return None


def _rewrite(machine: Machine, subject: str, text: str) -> None:
    """Put another text into a file, which keeps its rights."""
    path = machine.at(subject)
    make_parents(machine, path)
    rights = Rights.of(path) or Rights.wanted(machine, 0o644, owner=True, group=None)
    write_file(path, text.encode("utf-8", "surrogateescape"), rights)


def assigned(text: str, name: str) -> str | None:
    """The last value that a file of ``NAME=value`` lines gives a name, None where it gives none."""
    value = None
    for line in text.splitlines():
        if match := re.match(rf"\s*(?:export\s+)?{re.escape(name)}=(.*)", line):
            try:
                words = shlex.split(match[1], comments=True)
            except ValueError:
                continue
            value = words[0] if words else None
    return value
