"""Steps about folders, the rights of files that are there, and the local store.

SQLite makes its files 0644 minus the umask. Under the usual umask another user then gets "attempt to
write a readonly database", under a strict one "unable to open database file", even to read: who
opens a WAL database first makes the -shm beside it, to which all others must write. But SQLite
gives -wal and -shm the mode of the main file, and the folder's setgid bit gives them its group. So
the folder is 2770 and the database is made beforehand, 0660; then it does not matter who starts
first, or with which umask.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from shaken_plugin.errors import StoreError
from shaken_plugin.setup.machine import GROUP, USER, Machine, SetupError
from shaken_plugin.setup.steps import Case, Notes, Rights, Step, make_parents, remove_empty, set_rights, to_make
from shaken_plugin.stores import sqlite

SHARED: Final = 0o2770
"""Folders in which the switches and the command write."""
READ: Final = 0o2750
"""Folders in which root writes and the switches read. With 2770 anybody in the group could put
another key in the place of one that is 0640."""
OPEN: Final = 0o755
"""Folders of programs and scripts."""
SECRET: Final = 0o640
"""Files that root writes and the switches read."""


@dataclass(frozen=True, slots=True)
class MakeFolder(Step):
    """A folder with its rights, owned by root."""

    kind: ClassVar[str] = "folder"
    subject: str
    mode: int
    group: str | None
    purpose: str

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return f"folder {self.subject} with {self.mode:04o} root:{self.group or 'root'}, for {self.purpose}"

    def _wish(self, machine: Machine) -> Rights:
        return Rights.wanted(machine, self.mode, owner=True, group=self.group)

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        path = case.machine.at(self.subject)
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise SetupError(f"{path} is not a folder, or a symbolic link to one; setup follows none: use a bind mount")
        found = Rights.of(path)
        return found is not None and found.meets(self._wish(case.machine))

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        found = Rights.of(case.machine.at(self.subject))
        return {"rights": found and found.as_notes(), "made": to_make(case.machine, self.subject)}

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        path = case.machine.at(self.subject)
        make_parents(case.machine, path)
        if Rights.of(path) is None:
            path.mkdir(0o700)
        set_rights(path, self._wish(case.machine))

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        path = case.machine.at(case.noted.subject)
        if not path.is_dir():
            return None
        if (old := case.noted.before["rights"]) is not None:
            set_rights(path, Rights(*old))
            return None
        if content := sorted(entry.name for entry in path.iterdir()):
            return f"it holds {', '.join(content[:4])}"
        path.rmdir()
        remove_empty(*map(case.machine.at, case.noted.before["made"]))
        return None


@dataclass(frozen=True, slots=True)
class SetRights(Step):
    """Files and folders that lay below a folder before, or that were put there since."""

    kind: ClassVar[str] = "rights"
    subject: str
    paths: tuple[str, ...]
    """What lies there and is not a symbolic link."""
    keys: frozenset[str]
    """Those of them that hold private keys; root owns these. Others keep their owner, who may be
    the account of a program that writes records."""

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return (
            f"let the group {GROUP} read what lies in {self.subject}, and nobody else "
            f"(files {SECRET:04o}, folders {READ:04o}, keys owned by root): {self._list()}"
        )

    def _list(self) -> str:
        names = [path.removeprefix(self.subject).lstrip("/") for path in self.paths]
        return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"

    def _wish(self, machine: Machine, path: str) -> Rights:
        mode = READ if machine.at(path).is_dir() else SECRET
        return Rights.wanted(machine, mode, owner=path in self.keys)

    def _wrong(self, machine: Machine) -> list[str]:
        found = ((path, Rights.of(machine.at(path))) for path in self.paths)
        return [path for path, rights in found if rights and not rights.meets(self._wish(machine, path))]

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        return not self._wrong(case.machine)

    def narrowed(self, case: Case) -> SetRights:
        """See `Step.narrowed`."""
        return replace(self, paths=tuple(self._wrong(case.machine) or self.paths))

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        found = ((path, Rights.of(case.machine.at(path))) for path in self._wrong(case.machine))
        return {path: rights.as_notes() for path, rights in found if rights}

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        for path in self._wrong(case.machine):
            set_rights(case.machine.at(path), self._wish(case.machine, path))

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        # From the innermost, so that a folder that was closed is not needed any more.
        for path, old in sorted(case.noted.before.items(), reverse=True):
            if Rights.of(case.machine.at(path)) is not None:
                set_rights(case.machine.at(path), Rights(*old))
        return None


@dataclass(frozen=True, slots=True)
class CreateDatabase(Step):
    """The local store, empty, with the rights that SQLite would not give it."""

    kind: ClassVar[str] = "database"
    subject: str

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return f"database {self.subject} with {sqlite.FILE_MODE:04o} {USER}:{GROUP}, empty if there is none yet"

    def _wish(self, machine: Machine) -> Rights:
        return Rights.wanted(machine, sqlite.FILE_MODE, owner=False)

    def _files(self, machine: Machine) -> list[Path]:
        """The database, and the files that SQLite has beside it while somebody has it open."""
        return [machine.at(self.subject + end) for end in ("", "-wal", "-shm")]

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        found = [Rights.of(path) for path in self._files(case.machine)]
        return found[0] is not None and all(rights.meets(self._wish(case.machine)) for rights in found if rights)

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        found = Rights.of(case.machine.at(self.subject))
        return {"rights": found and found.as_notes()}

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        path = case.machine.at(self.subject)
        account = None if case.machine.staged or not case.machine.privileged else case.machine.user(USER)
        try:
            if account is not None:
                case.machine.as_account(account, lambda: sqlite.create(path))
            else:
                sqlite.create(path)
        except StoreError as exc:
            raise SetupError(str(exc)) from exc
        for file in self._files(case.machine):
            rights = Rights.of(file)
            if rights is not None and not rights.meets(self._wish(case.machine)):
                set_rights(file, self._wish(case.machine))

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        step = cls(case.noted.subject)
        path, log, shared = step._files(case.machine)
        if Rights.of(path) is None:
            return None
        if (old := case.noted.before["rights"]) is not None:
            set_rights(path, Rights(*old))
            return None
        # Judged from the sizes: root opens no database in a folder that others can write to. An
        # empty one has one page, and each of our tables would add another.
        sizes = [file.lstat().st_size if Rights.of(file) else 0 for file in (path, log)]
        if not stat.S_ISREG(path.lstat().st_mode) or sizes[0] > _EMPTY or sizes[1] > 0:
            return "it holds records"
        for file in (path, log, shared):
            file.unlink(missing_ok=True)
        return None


_EMPTY: Final = 4096
"""Bytes of a database without tables: SQLite's page size since 2016, on every system we build for."""
