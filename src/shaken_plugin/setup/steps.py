"""What a step is, and rights of files as steps see and set them."""

from __future__ import annotations

import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from shaken_plugin.setup.machine import GROUP, Machine, SetupError

Notes = dict[str, Any]
"""Plain values that go into the manifest."""


@dataclass(slots=True)
class Record:
    """What the manifest keeps of a step, enough to take it back by another release."""

    kind: str
    subject: str
    what: str
    before: Notes = field(default_factory=dict)
    """What was there before the first run; later runs do not change it."""
    after: Notes = field(default_factory=dict)
    """What the last run left, or was about to leave."""
    finished: bool = False

    @property
    def key(self) -> str:
        """Identifies the step from run to run."""
        return f"{self.kind} {self.subject}"


@dataclass(frozen=True, slots=True)
class Case:
    """What a step has before it."""

    machine: Machine
    record: Record | None = None
    """What earlier runs wrote down of this step, None where there was none."""
    kept: bool = False
    """Undoing: whether something made after it was kept."""

    @property
    def noted(self) -> Record:
        """The record where there must be one: while a step is done, and when it is undone."""
        assert self.record is not None
        return self.record


class Step(ABC):
    """One thing that setup does. ``subject`` is the path or name it is about."""

    kind: ClassVar[str]
    accounts: ClassVar[bool] = False
    """Whether it is about users and groups: listed for a staged tree, never done there."""
    subject: str

    @property
    def key(self) -> str:
        """Identifies the step from run to run."""
        return f"{self.kind} {self.subject}"

    @property
    @abstractmethod
    def what(self) -> str:
        """What it will do, in one line."""

    @abstractmethod
    def is_done(self, case: Case) -> bool:
        """Whether everything is already as this step would leave it."""

    def narrowed(self, case: Case) -> Step:  # noqa: ARG002  # for those that have parts
        """The same step with what is left to do of it, so that it says no more than it does."""
        return self

    @abstractmethod
    def before(self, case: Case) -> Notes:
        """What has to be known to take it back."""

    def after(self, case: Case) -> Notes:  # noqa: ARG002  # likewise
        """What it will leave, to tell it later from what somebody else left."""
        return {}

    @abstractmethod
    def do(self, case: Case) -> None:
        """Do it. Doing it again after an interruption does the rest."""

    def remarks(self, case: Case) -> list[str]:  # noqa: ARG002  # likewise
        """What people should know beside the plan, for instance which changed file is kept."""
        return []

    @classmethod
    @abstractmethod
    def undo(cls, case: Case) -> str | None:
        """Take it back.

        Returns:
            Why it is kept, None where it is gone.
        """


# --- Rights -----------------------------------------------------------------------------------

ANY: Final = -1
"""An id that stays as it is, in chown(2), too."""
NOBODYS: Final = -2
"""The id of a group that is not there."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Mode, user id and group id of a file. In a wish, `ANY` leaves an id as it is."""

    mode: int
    uid: int
    gid: int

    @classmethod
    def wanted(cls, machine: Machine, mode: int, *, owner: bool, group: str | None = GROUP) -> Self:
        """A wish: root as owner, or whoever it is; a group by name, or root's."""
        if machine.staged and not machine.privileged:
            return cls(mode, ANY, ANY)
        known = None if group is None else machine.group(group)
        if group is None:
            gid = 0
        elif known is not None:
            gid = known.gid
        else:
            # Not made yet, so that nothing can have it; a staged tree may never get it.
            gid = ANY if machine.staged else NOBODYS
        return cls(mode, 0 if owner else ANY, gid)

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """The rights of what lies at a path, a symbolic link's own; None where nothing does."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        return cls(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def meets(self, wish: Rights) -> bool:
        """Whether these are as wished."""
        return self.mode == wish.mode and wish.uid in {ANY, self.uid} and wish.gid in {ANY, self.gid}

    def as_notes(self) -> list[int]:
        """For the manifest."""
        return [self.mode, self.uid, self.gid]


def set_rights(path: Path, rights: Rights) -> None:
    """Set the rights of a plain file or a folder.

    Through a descriptor that was looked at first: in a folder that a switch's user can write to,
    the name may stand for a link to somebody else's file.

    Raises:
        SetupError: it is a link, a device, or a file with a second name.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise SetupError(f"{path}: its rights cannot be set: {exc.strerror}; symbolic links are not followed") from exc
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISDIR(found.st_mode) and not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
            raise SetupError(f"{path}: neither a folder nor a plain file with one name; look at it and take it away")
        if os.geteuid() == 0:
            os.fchown(descriptor, rights.uid, rights.gid)
        # After the owner, because changing that takes setuid and setgid bits away.
        os.fchmod(descriptor, rights.mode)
    finally:
        os.close(descriptor)


def draft_of(path: Path) -> Path:
    """Where a file is written before it takes its place. An interruption leaves it behind."""
    return path.with_name(f".{path.name}.shaken-setup")


def write_file(path: Path, content: bytes, rights: Rights) -> None:
    """Write a whole file, or nothing of it: a reader sees the old one or the new one."""
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    set_rights(draft, rights)
    draft.replace(path)


def to_make(machine: Machine, path: str) -> list[str]:
    """The folders above a path that are not there yet, innermost first, for the manifest."""
    missing = (folder for folder in machine.at(path).parents if not folder.exists())
    return [f"/{folder.relative_to(machine.root)}" for folder in missing]


def make_parents(machine: Machine, path: Path) -> None:
    """Make the folders above a path that are missing, readable for all."""
    for folder in reversed([folder for folder in path.parents if not folder.exists()]):
        folder.mkdir(0o700)
        set_rights(folder, Rights.wanted(machine, 0o755, owner=True, group=None))


def remove_empty(*folders: Path) -> None:
    """Remove folders that are there and hold nothing."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Operating-system errors as `SetupError`, with what was being done."""
    try:
        yield
    except OSError as exc:
        place = f"{exc.filename}: " if exc.filename else ""
        raise SetupError(f"could not {what}: {place}{exc.strerror}") from exc
