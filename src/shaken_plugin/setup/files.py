"""Steps that write files: scripts and examples, samples, a drop-in, and a link.

A file is replaced only while it still is what setup wrote; what a person changed stays, and is
named. The manifest remembers contents by their SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from shaken_plugin.setup.machine import GROUP, Machine, SetupError
from shaken_plugin.setup.steps import (
    Case,
    Notes,
    Record,
    Rights,
    Step,
    digest,
    draft_of,
    make_parents,
    remove_empty,
    to_make,
    write_file,
)


def content_of(path: Path) -> bytes | None:
    """What a file holds, None where there is none.

    Raises:
        SetupError: something else lies there.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise SetupError(f"{path} is not a plain file; setup follows no links: look at it and take it away")
    return path.read_bytes() if path.exists() else None


@dataclass(frozen=True, slots=True)
class PutFiles(Step):
    """Files of ours into a folder."""

    kind: ClassVar[str] = "files"
    subject: str
    files: Mapping[str, bytes]
    """Contents by name."""
    purpose: str
    secret: bool = False
    """For root and the group alone, instead of for all."""
    update: bool = True
    """Whether a file that still is as an earlier release wrote it is replaced."""

    @property
    def what(self) -> str:
        """See `Step.what`."""
        rights = f" with 0640 root:{GROUP}" if self.secret else ""
        return f"{self.purpose} into {self.subject}{rights}: {', '.join(self.files)}"

    def _wanting(self, machine: Machine, record: Record | None) -> list[str]:
        """The files that have to be written."""
        names = []
        for name, content in self.files.items():
            found = content_of(machine.at(self.subject) / name)
            if found is None or (self.update and found != content and _is_ours(record, name, found)):
                names.append(name)
        return names

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        return not self._wanting(case.machine, case.record)

    def narrowed(self, case: Case) -> PutFiles:
        """See `Step.narrowed`."""
        # One that was interrupted may have written all, and has to write it down yet.
        wanting = self._wanting(case.machine, case.record) or list(self.files)
        return replace(self, files={name: self.files[name] for name in wanting})

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        return {"made": to_make(case.machine, f"{self.subject}/file")}

    def after(self, case: Case) -> Notes:
        """See `Step.after`."""
        # The digests of earlier releases stay: the run may end before the file is replaced.
        ours: Notes = dict(case.record.after) if case.record else {}
        for name in self._wanting(case.machine, case.record):
            ours[name] = [*ours.get(name, []), digest(self.files[name])]
        return ours

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        folder = case.machine.at(self.subject)
        mode, group = (0o640, GROUP) if self.secret else (0o644, None)
        make_parents(case.machine, folder / "file")
        for name in self._wanting(case.machine, case.noted):
            write_file(folder / name, self.files[name], Rights.wanted(case.machine, mode, owner=True, group=group))

    def remarks(self, case: Case) -> list[str]:
        """See `Step.remarks`."""
        if not self.update:
            return []
        wanting = self._wanting(case.machine, case.record)
        return [
            f"{self.subject}/{name} was changed by somebody and stays as it is; this release's lies in the package"
            for name, content in self.files.items()
            if name not in wanting and content_of(case.machine.at(self.subject) / name) != content
        ]

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        folder = case.machine.at(case.noted.subject)
        changed = []
        for name in case.noted.after:
            path = folder / name
            draft_of(path).unlink(missing_ok=True)
            if path.is_symlink() or (path.exists() and not _is_ours(case.noted, name, path.read_bytes())):
                changed.append(name)
                continue
            path.unlink(missing_ok=True)
            for compiled in (folder / "__pycache__").glob(f"{path.stem}.*.pyc"):
                compiled.unlink()
        if changed:
            return f"somebody changed {', '.join(changed)}"
        remove_empty(folder / "__pycache__", *map(case.machine.at, case.noted.before["made"]))
        return None


class DropIn(PutFiles):
    """A systemd unit, or a drop-in for one; systemd is told, no service is started or restarted."""

    kind: ClassVar[str] = "drop-in"

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        super().do(case)
        _reload_units(case.machine)

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        answer = super().undo(case)
        _reload_units(case.machine)
        return answer


def _is_ours(record: Record | None, name: str, content: bytes) -> bool:
    return record is not None and digest(content) in record.after.get(name, [])


def _reload_units(machine: Machine) -> None:
    # The folder is there where systemd runs the machine: sd_booted(3).
    if not machine.staged and Path("/run/systemd/system").is_dir():
        machine.run(["systemctl", "daemon-reload"])


@dataclass(frozen=True, slots=True)
class MakeLink(Step):
    """A symbolic link, so that the command is found without its folder."""

    kind: ClassVar[str] = "link"
    subject: str
    target: str

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return f"symbolic link {self.subject} to {self.target}"

    def _lies_there(self, machine: Machine) -> str | None:
        """Where the link leads, "" for something else, None for nothing."""
        path = machine.at(self.subject)
        if path.is_symlink():
            return str(path.readlink())
        return "" if path.exists() else None

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        found = self._lies_there(case.machine)
        replaceable = [None, *(case.record.after["targets"] if case.record else [])]
        return found == self.target or found not in replaceable

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        return {"made": to_make(case.machine, self.subject)}

    def after(self, case: Case) -> Notes:
        """See `Step.after`."""
        return {"targets": [*(case.record.after["targets"] if case.record else []), self.target]}

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        if self.is_done(case):
            return
        path = case.machine.at(self.subject)
        make_parents(case.machine, path)
        draft = draft_of(path)
        draft.unlink(missing_ok=True)
        draft.symlink_to(self.target)
        draft.replace(path)

    def remarks(self, case: Case) -> list[str]:
        """See `Step.remarks`."""
        if self.is_done(case) and self._lies_there(case.machine) != self.target:
            return [f"{self.subject} is somebody else's and stays; the command is {self.target}"]
        return []

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        path = case.machine.at(case.noted.subject)
        draft_of(path).unlink(missing_ok=True)
        if path.is_symlink() and str(path.readlink()) in case.noted.after["targets"]:
            path.unlink()
        remove_empty(*map(case.machine.at, case.noted.before["made"]))
        return None
