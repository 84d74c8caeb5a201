"""The machine that is set up: its accounts, its paths, and running commands on it.

A machine is the one this runs on, or a tree below a folder that is staged for a package, an image
or a test. In a staged tree accounts are looked up in its own ``/etc/passwd`` and ``/etc/group`` and
never made: on the finished machine they may have other numbers.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shaken_plugin.errors import ShakenError

USER: Final = "shaken"
GROUP: Final = "shaken"
PRODUCT: Final = "/opt/shaken"
SETTINGS: Final = "/etc/shaken"
KEYS: Final = "/etc/shaken/keys"
DATA: Final = "/var/lib/shaken"
CERTIFICATES: Final = "/var/lib/shaken/certificates"
DATABASE: Final = "/var/lib/shaken/policy.db"
STATE: Final = "/var/lib/shaken/state.db"
CALLS: Final = "/var/lib/shaken/calls"
LEDGER: Final = "/var/lib/shaken/ledger.db"
ENVIRONMENT: Final = "/opt/shaken/venv"
COMMAND: Final = "/usr/local/bin/shaken"
PYTHON: Final = "/usr/bin/python3"
"""The interpreter whose library Debian's Kamailio and FreeSWITCH's mod_python3 link."""

_SYSTEM_FOLDERS: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Where account commands lie; ``su`` without a dash leaves them out of PATH."""

_FIRST_PERSON: Final = 1000
"""Debian gives people user ids from here on (login.defs, UID_MIN)."""


class SetupError(ShakenError):
    """A step is not possible; the text says what, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Group:
    """A group, with the users that belong to it beside those whose first group it is."""

    name: str
    gid: int
    members: tuple[str, ...]


def run_command(command: Sequence[str]) -> None:
    """Run a command to its end, with a umask that lets the switches' users read what it makes.

    Raises:
        SetupError: it is not installed, or failed; with the end of what it said.
    """
    program = shutil.which(command[0], path=os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_FOLDERS)))
    if program is None:
        raise SetupError(f"{command[0]} is not installed; it is needed for: {' '.join(command)}")
    done = subprocess.run(
        [program, *command[1:]],
        umask=0o022,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise SetupError(f"this command failed: {' '.join(command)}\n{said}")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where steps are done.

    Args:
        root: ``/``, or the folder of a staged tree.
        run: runs a command or raises `SetupError`.
    """

    root: Path = Path("/")
    run: Callable[[Sequence[str]], None] = run_command

    @property
    def staged(self) -> bool:
        """Whether this is a tree and not the running machine."""
        return self.root != Path("/")

    @property
    def privileged(self) -> bool:
        """Whether owners can be set."""
        return os.geteuid() == 0

    def at(self, path: str | Path) -> Path:
        """Where a path of the finished machine lies now."""
        return self.root / str(path).lstrip("/")

    # --- Accounts -----------------------------------------------------------------------------

    def user(self, name: str) -> Account | None:
        """A user, None where there is none of that name."""
        if self.staged:
            row = self._row("etc/passwd", name)
            return None if row is None else Account(name, int(row[2]), int(row[3]))
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return Account(name, entry.pw_uid, entry.pw_gid)

    def group(self, name: str) -> Group | None:
        """A group, None where there is none of that name."""
        if self.staged:
            row = self._row("etc/group", name)
            return None if row is None else Group(name, int(row[2]), tuple(filter(None, row[3].split(","))))
        try:
            entry = grp.getgrnam(name)
        except KeyError:
            return None
        return Group(name, entry.gr_gid, tuple(entry.gr_mem))

    def groups_of(self, user: Account) -> set[int]:
        """The numbers of all groups of a user."""
        if not self.staged:
            return set(os.getgrouplist(user.name, user.gid))
        try:
            lines = (self.root / "etc/group").read_text("utf-8").splitlines()
        except FileNotFoundError:
            lines = []
        rows = [row for line in lines if len(row := line.split(":")) > 3 and row[2].isdigit()]
        return {user.gid} | {int(row[2]) for row in rows if user.name in row[3].split(",")}

    def _row(self, file: str, name: str) -> list[str] | None:
        try:
            lines = (self.root / file).read_text("utf-8").splitlines()
        except FileNotFoundError:
            return None
        return next((row for line in lines if (row := line.split(":"))[0] == name and len(row) > 3), None)

    def homes(self) -> list[Path]:
        """The folders in which people live; what lies below may be closed to the switches."""
        people = (Path(entry.pw_dir) for entry in pwd.getpwall() if entry.pw_uid >= _FIRST_PERSON)
        # "nobody" lives in /nonexistent, and some people in /: that says nothing of all paths.
        return [Path("/root"), Path("/home"), *(home for home in people if len(home.parts) > 1)]

    def as_account(self, account: Account, work: Callable[[], None]) -> None:
        """Do something as another user and in that user's first group alone.

        For work in folders the switches' users can write to: what they may have put there cannot
        be turned against root.

        Raises:
            SetupError: what the work raised, as text.
        """
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgroups([])
                os.setgid(account.gid)
                os.setuid(account.uid)
                os.umask(0o007)
                work()
                code = 0
            except BaseException as exc:  # the parent reports it
                os.write(writing, str(exc).encode("utf-8", "replace")[:4000])
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read().decode("utf-8", "replace")
        if os.waitpid(child, 0)[1] != 0:
            raise SetupError(f"as user {account.name}: {text}")
