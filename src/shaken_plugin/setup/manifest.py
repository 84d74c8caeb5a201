"""What setup did, written down before and after every step; doing the steps and taking them back.

The manifest lies in a folder of its own that root alone can enter: root acts on what it says, and
``/var/lib/shaken`` is open to the switches' users.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

from shaken_plugin import __version__
from shaken_plugin.setup.accounts import AddToGroup, CreateGroup, CreateUser
from shaken_plugin.setup.environment import MakeEnvironment
from shaken_plugin.setup.files import DropIn, MakeLink, PutFiles
from shaken_plugin.setup.folders import CreateDatabase, MakeFolder, SetRights
from shaken_plugin.setup.machine import Machine, SetupError
from shaken_plugin.setup.steps import (
    Case,
    Record,
    Rights,
    Step,
    explained,
    make_parents,
    remove_empty,
    set_rights,
    to_make,
    write_file,
)
from shaken_plugin.setup.variables import SetVariables

PLACE: Final = "/var/lib/shaken-setup/manifest.json"
FORMAT: Final = 1
"""Version of the manifest; one with a newer version is refused."""

STEPS: Final[dict[str, type[Step]]] = {
    step.kind: step
    for step in (
        CreateGroup,
        CreateUser,
        AddToGroup,
        MakeFolder,
        MakeEnvironment,
        MakeLink,
        PutFiles,
        SetRights,
        CreateDatabase,
        SetVariables,
        DropIn,
    )
}
"""Every kind of step, by the name it has in a manifest."""


class Manifest:
    """The records of all steps that were begun, in order.

    Raises:
        SetupError: there is one that cannot be read or trusted.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._path = machine.at(PLACE)
        self._made: list[str] = []
        self._records: dict[str, Record] = {}
        try:
            text = self._path.read_text("utf-8")
            rights = Rights.of(self._path)
        except FileNotFoundError:
            self._made = to_make(machine, PLACE)
            return
        except OSError as exc:
            raise SetupError(f"{self._path} cannot be read: {exc.strerror}") from exc
        if rights is None or rights.uid not in {0, os.geteuid()} or rights.mode & 0o022:
            raise SetupError(f"{self._path} can be changed by others than root; it is not acted on: look at it")
        try:
            data = json.loads(text)
            if data["format"] > FORMAT:
                raise SetupError(f"{self._path} is of release {data['release']}; use the 'shaken setup' of that one")
            self._made = data["made"]
            for row in data["steps"]:
                record = Record(**row)
                self._records[record.key] = record
        except (ValueError, KeyError, TypeError) as exc:
            raise SetupError(f"{self._path} is damaged ({exc}); put its backup in place, or take it away") from exc

    def get(self, step: Step) -> Record | None:
        """What is known of a step from earlier runs."""
        return self._records.get(step.key)

    @property
    def records(self) -> list[Record]:
        """All records, first to last."""
        return list(self._records.values())

    def put(self, record: Record) -> None:
        """Add or replace a record, on the disk, too."""
        self._records[record.key] = record
        self._save()

    def drop(self, record: Record) -> None:
        """Take a record out, on the disk, too; the last one takes the file along."""
        del self._records[record.key]
        self._save()

    def _save(self) -> None:
        with explained("write down what was done"):
            if not self._records:
                self._path.unlink(missing_ok=True)
                remove_empty(*map(self._machine.at, self._made))
                return
            make_parents(self._machine, self._path)
            set_rights(self._path.parent, Rights.wanted(self._machine, 0o700, owner=True, group=None))
            steps = [asdict(record) for record in self._records.values()]
            data = {"format": FORMAT, "release": __version__, "made": self._made, "steps": steps}
            text = json.dumps(data, indent=1, ensure_ascii=True) + "\n"
            write_file(self._path, text.encode(), Rights.wanted(self._machine, 0o600, owner=True, group=None))


def is_done(step: Step, machine: Machine, manifest: Manifest) -> bool:
    """Whether a step has nothing to do; one that was interrupted always has."""
    record = manifest.get(step)
    return (record is None or record.finished) and step.is_done(Case(machine, record))


def execute(steps: Sequence[Step], machine: Machine, manifest: Manifest, report: Callable[[Step, bool], None]) -> None:
    """Do steps that are not done.

    Args:
        steps: in order.
        machine: where.
        manifest: written before and after each step.
        report: told of each step before it begins (False) and when it is done (True).

    Raises:
        SetupError: a step failed; those before it are done, the rest was not begun.
    """
    for step in steps:
        old = manifest.get(step)
        with explained(step.what):
            record = Record(
                step.kind,
                step.subject,
                step.what,
                # What was there before the first run is what has to come back.
                {**step.before(Case(machine, old)), **(old.before if old else {})},
                step.after(Case(machine, old)),
            )
            manifest.put(record)
            report(step, False)
            step.do(Case(machine, record))
            record.finished = True
            manifest.put(record)
            report(step, True)


def take_back(machine: Machine, manifest: Manifest, report: Callable[[Record, str | None], None]) -> list[Record]:
    """Undo everything in the manifest, last step first.

    Args:
        machine: where.
        manifest: loses what is taken back.
        report: told of each record, and why it is kept if it is.

    Returns:
        The records of what was kept, because it is not ours to delete; they stay in the manifest.

    Raises:
        SetupError: a step could not be undone; those after it are.
    """
    kept: list[Record] = []
    for record in reversed(manifest.records):
        if record.kind not in STEPS:
            raise SetupError(f"the manifest names a step '{record.kind}' that this release does not know")
        with explained(f"undo: {record.what}"):
            reason = STEPS[record.kind].undo(Case(machine, record, bool(kept)))
        if reason is None:
            manifest.drop(record)
        else:
            kept.append(record)
        report(record, reason)
    return kept
