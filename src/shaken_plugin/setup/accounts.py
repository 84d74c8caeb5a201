"""Steps about users and groups. The commands are those of shadow, which every Debian has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shaken_plugin.setup.machine import DATA, GROUP, USER
from shaken_plugin.setup.steps import Case, Notes, Step

_STILL_OWNS = "it still owns what was kept; when that is gone, run 'shaken setup --undo' again"
# A group that is deleted while files carry its number hands them to the next group that is made.


@dataclass(frozen=True, slots=True)
class CreateGroup(Step):
    """The group through which the switches reach settings, keys and the local store."""

    kind: ClassVar[str] = "group"
    accounts: ClassVar[bool] = True
    subject: str = GROUP

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return f"create the system group {self.subject}"

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        return case.machine.group(self.subject) is not None

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        return {"existed": case.machine.group(self.subject) is not None}

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        if case.machine.group(self.subject) is None:
            case.machine.run(["groupadd", "--system", self.subject])

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        # userdel takes a user's own group along where login.defs says so.
        if case.noted.before["existed"] or case.machine.group(case.noted.subject) is None:
            return None
        if case.kept:
            return _STILL_OWNS
        case.machine.run(["groupdel", case.noted.subject])
        return None


@dataclass(frozen=True, slots=True)
class CreateUser(Step):
    """The user that owns the local store and runs the commands that write to it."""

    kind: ClassVar[str] = "user"
    accounts: ClassVar[bool] = True
    subject: str = USER

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return f"create the system user {self.subject} (group {GROUP}, no login, no home of its own)"

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        return case.machine.user(self.subject) is not None

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        return {"existed": case.machine.user(self.subject) is not None}

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        if case.machine.user(self.subject) is None:
            case.machine.run(
                [
                    *("useradd", "--system", "--gid", GROUP, "--home-dir", DATA, "--no-create-home"),
                    *("--shell", "/usr/sbin/nologin", "--comment", "STIR/SHAKEN", self.subject),
                ]
            )

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        if case.noted.before["existed"] or case.machine.user(case.noted.subject) is None:
            return None
        if case.kept:
            return _STILL_OWNS
        case.machine.run(["userdel", case.noted.subject])
        return None


@dataclass(frozen=True, slots=True)
class AddToGroup(Step):
    """A switch's user into the group. A running switch has the groups it was started with."""

    kind: ClassVar[str] = "member"
    accounts: ClassVar[bool] = True
    subject: str

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return f"add the user {self.subject} to the group {GROUP}"

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        group, user = case.machine.group(GROUP), case.machine.user(self.subject)
        return group is not None and (self.subject in group.members or (user is not None and user.gid == group.gid))

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        return {"member": self.is_done(case)}

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        if not self.is_done(case):
            case.machine.run(["usermod", "--append", "--groups", GROUP, self.subject])

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        group = case.machine.group(GROUP)
        if not case.noted.before["member"] and group is not None and case.noted.subject in group.members:
            case.machine.run(["gpasswd", "--delete", case.noted.subject, GROUP])
        return None
