"""Writing records of calls to append-only files, for the collector to move into the ledger.

Each process has a file of its own, ``<boot id>-<pid>-<start time>-<n>.jsonl``: the start time in
ticks since the boot, ``n`` the time in nanoseconds at which the file was made, so that no name ever
comes back. A record is one line and one ``write()``. As long as a process may still write to its
file it holds a lock on it (flock), which the kernel takes away when the process is gone, however
it ends: whoever gets the lock knows that the file will not grow. No process id is guessed at.

There is no fsync: a crash of the process loses nothing that was written, a power loss may lose the
last lines.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from shaken_plugin.processid import THIS
from shaken_plugin.records.call import CallRecord
from shaken_plugin.records.usual import Filled, FilledVerified, Signed, Verified

FILE_MODE: Final = 0o660
"""The collector runs as another user of the same group."""
FOLDER_MODE: Final = 0o2770

NAME: Final = re.compile(r"[0-9a-f]{32}-[0-9]{1,10}-[0-9]{1,20}-[0-9]{1,20}\.jsonl")
"""Names of spool files; nothing else in the folder is looked at."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_TRIES: Final = 8
"""Files made, in a row, that the collector looked at before they were locked."""


class _File:
    """The file that this process writes to."""

    __slots__ = ("descriptor", "identity", "size")

    def __init__(self, descriptor: int, found: os.stat_result) -> None:
        self.descriptor = descriptor
        self.identity = found[1:4]
        """Inode, device and how many names it has, which is one; so compared at once."""
        self.size = found.st_size

    def close(self) -> None:
        """Close it, which gives up the lock."""
        with suppress(OSError):
            os.close(self.descriptor)


class _Own:
    """What one process has: the lock because threads share the file."""

    __slots__ = ("file", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.file: _File | None = None


class SpoolWriter:
    """A `ports.RecordSink` that writes to the spool.

    Opens its file with the first record, in the process that writes it: what was made before a
    fork is safe to use after it.

    Args:
        folder: on a local disk; made where only it is missing.
        rotate_bytes: size from which on the next record begins a new file.
    """

    def __init__(self, folder: Path, rotate_bytes: int) -> None:
        self._folder = str(folder)
        self._rotate_bytes = rotate_bytes
        self._own: dict[int, _Own] = {}
        """By process id: a child takes neither its parent's file nor a lock held while it was forked."""

    def write(self, record: CallRecord | Signed | Filled | FilledVerified | Verified) -> str | None:
        """See `ports.RecordSink.write`."""
        try:
            line = record.line()
            own = self._own.get(THIS.id) or self._own.setdefault(THIS.id, _Own())
            with own.lock:
                if not self._has_put(own.file, line):
                    self._put(own, line)
        except OSError as exc:
            return f"{exc.filename or self._folder}: {exc.strerror}"
        except Exception as exc:  # whatever stands in a call
            return f"not written: {type(exc).__name__}"
        return None

    def _has_put(self, file: _File | None, line: bytes) -> bool:
        """What `_put` does where all is as it nearly always is; False: it has still to be done."""
        if file is None or file.size >= self._rotate_bytes:
            return False
        try:
            if os.fstat(file.descriptor)[1:4] != file.identity:
                return False
            written = os.write(file.descriptor, line)
        except OSError:
            return False
        if written == len(line):
            file.size += written
            return True
        file.size = self._rotate_bytes  # torn: nothing may ever stand behind it
        return False

    def _put(self, own: _Own, line: bytes) -> None:
        """Write a line, and where only a part of it went, the whole again to a new file.

        Raises:
            OSError: it could not be written.
        """
        for _ in range(2):
            file = self._ready(own)
            try:
                written = os.write(file.descriptor, line)
            except OSError as exc:
                # Nothing was written: the file is as good as another once there is room, and one that is
                # empty as good as a new one. Each call would leave a file more otherwise.
                if exc.errno in _FULL or file.size == 0:
                    raise
                written = 0
            if written == len(line):
                file.size += written
                return
            # Torn, where the disk is full or the size of files is limited. What is there stays for
            # the collector, which counts it; nothing may ever stand behind it.
            own.file = None
            file.close()
        raise OSError(errno.ENOSPC, "no room for a whole line", self._folder)

    def _ready(self, own: _Own) -> _File:
        """The file to write the next line to.

        Raises:
            OSError: there is none.
        """
        file = own.file
        if file is not None:
            try:
                found = os.fstat(file.descriptor)
            except OSError:
                found = None
            if found is None or found[1:3] != file.identity[:2]:
                own.file = file = None  # closed over our head, the number may be somebody else's by now
            elif found.st_nlink == 0 or file.size >= self._rotate_bytes:
                own.file = None
                file.close()
                file = None
        if file is None:
            own.file = file = self._open()
        return file

    def _open(self) -> _File:
        """A new file, locked.

        Raises:
            OSError: it cannot be made.
        """
        refuse_link(self._folder)
        for _ in range(_TRIES):
            path = f"{self._folder}/{process_name()}-{time.time_ns()}.jsonl"
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            except FileExistsError:
                continue
            except FileNotFoundError:
                self._make_folder()
                continue
            try:
                os.fchmod(descriptor, FILE_MODE)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who has the lock and still sees a name has the file: the collector removes one
                # only while it holds the lock itself.
                if (found := os.fstat(descriptor)).st_nlink:
                    return _File(descriptor, found)
            except BlockingIOError:
                pass  # the collector looks at it just now, finds it empty, and removes it
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise OSError(errno.EAGAIN, "no new file could be made", self._folder)

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            Path(self._folder).mkdir()
            Path(self._folder).chmod(FOLDER_MODE)


def refuse_link(folder: str) -> None:
    """Whoever could put a link in the folder's place would have records written, and removed, elsewhere.

    Raises:
        OSError: the folder is a symbolic link.
    """
    if Path(folder).is_symlink():
        raise OSError(errno.ELOOP, "is a link; name the folder itself in the settings", folder)


def process_name() -> str:
    """This process as the names of its files say it: boot, process id, start time."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip().replace("-", "")
        # The second field is the program's name in brackets, with anything in it.
        started = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return f"{'0' * 32}-{os.getpid()}-0"
    return f"{boot}-{os.getpid()}-{started}"
