"""Whether a process of a switch is there: it holds a lock on a file of its own. And what it tells the agent.

The kernel takes the lock away however the process ends. A process id would say less: in a container it means
another process, or none, and who may not look into ``/proc`` cannot tell one from its successor.

What is told lies in that file, a line each; when it is full, in a further one of the same kind, of which the process
keeps only the last open and locked. The agent reads them a few times a second, and removes those that nobody
has locked once it has read all of them. To write a line costs a process one call of the kernel, wakes nobody up, and
waits for nobody; and no agent that is killed, or away, loses one.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from shaken_plugin.processid import THIS

FOLDER: Final = "switches"
"""Name of the folder, beside the policy's file."""
FILE_MODE: Final = 0o660
"""The agent runs as another user of the same group."""
FOLDER_MODE: Final = 0o2770

NAME: Final = re.compile(r"[0-9]{1,10}-[0-9]{1,20}")
"""Process id and time in nanoseconds: no name ever comes back."""

LEG: Final = re.compile(r"leg:([A-Za-z0-9_.@+-]{1,64}):([A-Za-z0-9_.:@+-]{1,255})")
"""In the place of such a name, where the agent itself is told of a call's end: a FreeSWITCH process, and the leg."""

FULL: Final = 65_536
"""Octets after which a process goes on in a further file: what an agent that begins reads once more of each."""
MAX_FILES: Final = 64
"""Files of one process that the agent has not read; what comes after that is lost, a day's calls of a busy worker no
agent was there for."""
MAX_TAKEN: Final = 131_072
"""Octets that are read at a time: calls wait while they are looked at, some milliseconds."""

_TRIES: Final = 8
"""Files made, in a row, that the agent looked at before they were locked."""


def leg_owner(core: str, uuid: str) -> str:
    """See `LEG`."""
    return f"leg:{core}:{uuid}"


class Presence:
    """This process, for as long as it lives. Threads share it.

    Args:
        beside: the folder of the policy's file.
    """

    def __init__(self, beside: Path) -> None:
        self._folder = beside / FOLDER
        self._name = ""
        self._pid = 0
        self._locks: dict[int, threading.Lock] = {}
        """By process id: that of a parent may be held by a thread that is not here."""
        self._own = threading.Lock()
        """That of them which is this process's, once it has a name or none can be had."""
        self._first = self._file = -1
        """Descriptors: of the file with its name, and of the one that is written to."""
        self._left = 0
        """Octets in it."""
        self._earlier: deque[str] = deque()
        """Names of the further files, it among them, that were there when it was looked; the agent takes the oldest
        away first."""
        self._begin = b""
        """A line break, where a line before was torn."""
        self.trouble = ""
        """Why there is no file, once it was asked for."""

    def name(self) -> str:
        """The name of its file, made and locked when it is asked for first; empty where that cannot be."""
        if self._pid != THIS.id:
            with self._lock():
                if self._pid != THIS.id:
                    self._begin_anew()
        return self._name

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(THIS.id, threading.Lock())

    def _begin_anew(self) -> None:
        self._name, self._file, self._left, self._earlier, self._begin = "", -1, 0, deque(), b""
        try:
            self._name, self._first = self._made()
            self._file = self._first
            self.trouble = ""
        except OSError as exc:
            self.trouble = f"{self._folder} must be a folder that this process may write to: {exc.strerror or exc}"
        self._own = self._lock()
        self._pid = THIS.id  # last: other threads wait until then

    def leave(self, line: bytes) -> bool:
        """Leave a line for the agent; False where there is no room."""
        # Twice a call: so the lock of this process is not looked for.
        if self._pid != THIS.id:
            self.name()
        with self._own:
            if self._left >= FULL and not self._has_further():
                return False
            try:
                written = os.write(self._file, self._begin + line if self._begin else line)
            except OSError:  # also where there is no file
                return False
            self._left += written
            if written == len(line) and not self._begin:
                return True
            is_whole = written == len(self._begin) + len(line)
            self._begin = b"" if is_whole else b"\n"
            return is_whole

    def _has_further(self) -> bool:
        """Go on in a further file; False where that cannot be."""
        while self._earlier and not (self._folder / self._earlier[0]).exists():
            self._earlier.popleft()
        if len(self._earlier) >= MAX_FILES:
            return False
        try:
            name, descriptor = self._made()
        except OSError:
            return False
        if self._file != self._first:
            os.close(self._file)
        self._earlier.append(name)
        self._file, self._left, self._begin = descriptor, 0, b""
        return True

    def _made(self) -> tuple[str, int]:
        with suppress(FileExistsError):
            self._folder.mkdir()
            self._folder.chmod(FOLDER_MODE)
        for _ in range(_TRIES):
            name = f"{os.getpid()}-{time.time_ns()}"
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._folder / name, flags, FILE_MODE)
            os.fchmod(descriptor, FILE_MODE)
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:
                    return name, descriptor
            os.close(descriptor)
        raise FileExistsError("no file in it stays unlocked")


class Left:
    """What processes told, each line once.

    Args:
        beside: the folder of the policy's file.
    """

    def __init__(self, beside: Path) -> None:
        self._folder = beside / FOLDER
        self._taken: dict[str, int] = {}
        """Octets, by the name of the file."""
        self.has_more = False
        """Whether there was too much for one time."""

    def take(self) -> list[bytes]:
        """The lines that were not there before, or as many of them as are read at a time."""
        lines: list[bytes] = []
        room = MAX_TAKEN
        with suppress(OSError), os.scandir(self._folder) as entries:
            # In the order in which they were begun.
            found_now = sorted((entry for entry in entries if NAME.fullmatch(entry.name)), key=_begun)
            taken, self._taken = self._taken, {}
            for entry in found_now:
                before = taken.get(entry.name, 0)
                found = _read(entry, before, room) if room > 0 else b""
                room -= len(found)
                self._taken[entry.name] = before + len(found)
                lines += found.splitlines()
        self.has_more = room <= MAX_TAKEN // 2  # of less, no file was cut
        return lines

    def sweep(self) -> None:
        """Take away the files that nobody writes to any more and that were read to the end."""
        for name, taken in self._taken.items():
            with suppress(OSError):
                descriptor = _opened(self._folder / name)
                try:
                    # First the lock and then the size: who has it knows that the size is the last.
                    if _is_free(descriptor) and not os.pread(descriptor, MAX_TAKEN, taken).rpartition(b"\n")[0]:
                        (self._folder / name).unlink()
                finally:
                    os.close(descriptor)


def _begun(entry: os.DirEntry[str]) -> int:
    """When its name was made: of one process they grow."""
    return int(entry.name.partition("-")[2])


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _is_free(descriptor: int) -> bool:
    """Whether nobody has a file locked; now it is."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(entry: os.DirEntry[str], offset: int, room: int) -> bytes:
    """The whole lines of a file from an offset on that have room; none where it is gone, or no file of ours."""
    try:
        if entry.stat(follow_symlinks=False).st_size <= offset:
            return b""
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.pread(descriptor, room, offset)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
    return found[: found.rfind(b"\n") + 1]


def is_alive(beside: Path, name: str) -> bool:
    """Whether the process with this file is there, or cannot be told from one that is."""
    try:
        descriptor = _opened(beside / FOLDER / name)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not _is_free(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
