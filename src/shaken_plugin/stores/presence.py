"""Whether a process of a switch is there: it holds a lock on a file of its own.

In that file lies what it could not tell the agent.

The kernel takes the lock away however the process ends. A process id would say less: in a container it means
another process, or none, and who may not look into ``/proc`` cannot tell one from its successor.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDER: Final = "switches"
"""Name of the folder, beside the policy's file."""
FILE_MODE: Final = 0o660
"""The agent runs as another user of the same group."""
FOLDER_MODE: Final = 0o2770

NAME: Final = re.compile(r"[0-9]{1,10}-[0-9]{1,20}")
"""Process id and time in nanoseconds: no name ever comes back."""

LEG: Final = re.compile(r"leg:([A-Za-z0-9_.@+-]{1,64}):([A-Za-z0-9_.:@+-]{1,255})")
"""In the place of such a name, where the agent itself is told of a call's end: a FreeSWITCH process, and the leg."""

MAX_LEFT: Final = 4_194_304
"""Octets that a process leaves in its file, some 80 a call; what comes after that is lost."""
MAX_TAKEN: Final = 1_048_576
"""Octets that are read of it at a time."""

_TRIES: Final = 8
"""Files made, in a row, that the agent looked at before they were locked."""


def leg_owner(core: str, uuid: str) -> str:
    """See `LEG`."""
    return f"leg:{core}:{uuid}"


class Presence:
    """This process, for as long as it lives.

    Args:
        beside: the folder of the policy's file.
    """

    def __init__(self, beside: Path) -> None:
        self._folder = beside / FOLDER
        self._name = ""
        self._descriptor = -1
        self._pid = 0
        self._left = 0
        self.trouble = ""
        """Why there is no file, once it was asked for."""

    def name(self) -> str:
        """The name of its file, made and locked when it is asked for first; empty where that cannot be."""
        if self._pid != os.getpid():
            self._pid, self._name, self._left = os.getpid(), "", 0
            try:
                self._name = self._made()
                self.trouble = ""
            except OSError as exc:
                self.trouble = f"{self._folder} must be a folder that this process may write to: {exc.strerror or exc}"
        return self._name

    def leave(self, line: bytes) -> None:
        """Leave a line for the agent, if there is room."""
        if self.name() and self._left + len(line) <= MAX_LEFT:
            self._left += len(line)
            with suppress(OSError):
                os.write(self._descriptor, line)

    def _made(self) -> str:
        with suppress(FileExistsError):
            self._folder.mkdir()
            self._folder.chmod(FOLDER_MODE)
        for _ in range(_TRIES):
            name = f"{self._pid}-{time.time_ns()}"
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._folder / name, flags, FILE_MODE)
            os.fchmod(descriptor, FILE_MODE)
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:
                    self._descriptor = descriptor  # open until the process ends
                    return name
            os.close(descriptor)
        raise FileExistsError("no file in it stays unlocked")


class Left:
    """What processes left, each line once.

    Args:
        beside: the folder of the policy's file.
    """

    def __init__(self, beside: Path) -> None:
        self._folder = beside / FOLDER
        self._taken: dict[str, int] = {}
        """Octets, by the name of the file."""

    def take(self) -> list[bytes]:
        """The lines that were not there before."""
        lines: list[bytes] = []
        taken, self._taken = self._taken, {}
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                if NAME.fullmatch(entry.name):
                    before = taken.get(entry.name, 0)
                    found = _read(entry, before)
                    self._taken[entry.name] = before + len(found)
                    lines += found.splitlines()
        return lines


def _read(entry: os.DirEntry[str], offset: int) -> bytes:
    """The whole lines of a file from an offset on; none where it is gone, or no file of ours."""
    try:
        if entry.stat(follow_symlinks=False).st_size <= offset:
            return b""
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.pread(descriptor, MAX_TAKEN, offset)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
    return found[: found.rfind(b"\n") + 1]


def is_alive(beside: Path, name: str) -> bool:
    """Whether the process with this file is there, or cannot be told from one that is; else the file goes."""
    path = beside / FOLDER / name
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def sweep(beside: Path) -> None:
    """Take away the files of processes that are gone."""
    with suppress(OSError):
        for entry in list((beside / FOLDER).iterdir()):
            if NAME.fullmatch(entry.name):
                is_alive(beside, entry.name)
