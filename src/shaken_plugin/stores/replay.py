"""Which PASSporT came with which call: one file of fixed size for all workers of a host.

A hash table in sets. A token has one place among the 16 of its set; a worker locks the set, reads it, and writes
it back. The lock is one of the kernel (fcntl), which is gone with the process that held it, however that ends; the
file is read and written, not mapped, because whoever truncates a mapped file kills all who have it.

    header   one block of 4,096 octets: magic, number of sets, key of the hash, SHA-256 of these
    set      512 octets: 16 tags of 16 octets, 16 calls of 8 octets, 16 times of 8 octets

Tags and calls are hashes with a key that only the file knows: nobody can make tokens that all fall into one set.
What is lost with the file are the tokens of the last minute, so nothing waits for the disk.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import math
import os
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.sqlitefile import FILE_MODE

PER_SECOND: Final = 1_000
"""Verified calls a second and host that there is room for; twice as many places, so that no set is full by chance."""

MAX_SIZE: Final = 64 * 2**20
"""Largest file, octets: a million tokens. Its blocks are taken from the disk as they are used."""

TIMEOUT: Final = 0.02
"""Seconds to wait for another worker that has the set; each does so for some µs."""

LOOK_AFTER: Final = 1.0
"""Seconds after which it is looked whether the file still has its name. One that was removed is noticed at once."""

MAX_AHEAD: Final = 400_000.0
"""Seconds: no token lasts longer, settings allow a day. A later time in the file is damage, and the place is free."""

_MAGIC: Final = b"shaken replay 1\n"
_HEADER: Final = struct.Struct("<16sI16s")
_DIGEST: Final = 32
_FIRST_SET: Final = 4_096
_PLACES: Final = 16
_TAG, _CALL = 16, 8
_CALLS: Final = _PLACES * _TAG
_UNTIL: Final = _CALLS + _PLACES * _CALL
_TIMES: Final = struct.Struct(f"<{_PLACES}d")
_SET: Final = _UNTIL + _TIMES.size
_TIME: Final = struct.Struct("<d")
_NUMBER: Final = struct.Struct("<I")
_TAKEN: Final = {errno.EAGAIN, errno.EACCES}


class _Damaged(Exception):
    """The file is not what this release wrote; the text says in what way."""


class _Table:
    """The file as one process has it open."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        found = os.fstat(descriptor)
        self.identity = (found.st_dev, found.st_ino)
        head = os.pread(descriptor, _HEADER.size + _DIGEST, 0)
        if head[: len(_MAGIC)] != _MAGIC or hashlib.sha256(head[: _HEADER.size]).digest() != head[_HEADER.size :]:
            raise _Damaged("not a replay memory")
        _, self.sets, key = _HEADER.unpack_from(head)
        if not self.sets or found.st_size != _FIRST_SET + self.sets * _SET:
            raise _Damaged(f"{found.st_size} octets long instead of {_FIRST_SET + self.sets * _SET}")
        self._key = key

    def is_there(self) -> bool:
        """Whether it still has a name, and the number is still that of the file and of no other."""
        try:
            found = os.fstat(self.descriptor)
        except OSError:
            return False
        return found.st_nlink > 0 and (found.st_dev, found.st_ino) == self.identity

    def close(self) -> None:
        """Close it, unless the number is somebody else's by now."""
        with suppress(OSError):
            found = os.fstat(self.descriptor)
            if (found.st_dev, found.st_ino) == self.identity:
                os.close(self.descriptor)

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool | None:
        """See `ports.ReplayMemory.first_use`; None where the set has no free place, and nothing was written.

        Raises:
            OSError: it cannot be read or written, or somebody has the set too long.
            _Damaged: it is shorter than it was.
        """
        hashed = hashlib.blake2b(token, key=self._key, digest_size=_TAG + 4).digest()
        owner = hashlib.blake2b(call, key=self._key, digest_size=_CALL).digest()
        tag, (number,) = hashed[:_TAG], _NUMBER.unpack_from(hashed, _TAG)
        start = _FIRST_SET + number % self.sets * _SET
        self._lock(start)
        try:
            content = bytearray(os.pread(self.descriptor, _SET, start))
            if len(content) != _SET:
                raise _Damaged("cut off")
            times = _TIMES.unpack_from(content, _UNTIL)
            place = _place_of(tag, content)
            if place is None:
                place, latest = 0, now + MAX_AHEAD
                while place < _PLACES and now <= times[place] <= latest:
                    place += 1
                if place == _PLACES:
                    return None
            elif now <= times[place] and content[_CALLS + place * _CALL :][:_CALL] != owner:
                return False
            content[place * _TAG : (place + 1) * _TAG] = tag
            content[_CALLS + place * _CALL : _CALLS + (place + 1) * _CALL] = owner
            _TIME.pack_into(content, _UNTIL + place * _TIME.size, until)
            if os.pwrite(self.descriptor, content, start) != _SET:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return True
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, _SET, start)

    def _lock(self, start: int) -> None:
        """Keep other processes out of the set.

        Raises:
            OSError: one of them keeps us out.
        """
        end = 0.0
        while True:
            try:
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SET, start)
                return
            except OSError as exc:
                if exc.errno not in _TAKEN:
                    raise
            end = end or time.monotonic() + TIMEOUT
            if time.monotonic() >= end:
                raise TimeoutError(errno.ETIMEDOUT, "another process has it locked")
            time.sleep(TIMEOUT / 100)


def _place_of(tag: bytes, content: bytearray) -> int | None:
    at = content.find(tag, 0, _CALLS)
    while at % _TAG and at >= 0:  # across two tags: nothing but chance or damage makes that
        at = content.find(tag, at + 1, _CALLS)
    return at // _TAG if at >= 0 else None


_LOCKS: Final[dict[int, threading.Lock]] = {}
"""For each process a lock, since those of the kernel do not keep out other threads.

One for all files, because closing a file gives up every lock that the process has on it; by process id, because a child
must not take over a lock that was held while it was forked."""


class ReplayFile:
    """A `ports.ReplayMemory` in a file of its own, which is made where there is none.

    A token for which its set has no place is not remembered, and the call told so: `StoreUnavailable`. It takes more
    calls than `PER_SECOND` for that.

    Args:
        path: the file, on a local disk; better still in memory, such as ``/run``.
        lifetime: seconds for which a token lasts at most. The size follows from it; a file that is
            smaller, from before the settings were changed, is made anew.
    """

    def __init__(self, path: Path, lifetime: float = 120.0) -> None:
        self._path = path
        places = min(2 * PER_SECOND * lifetime, MAX_SIZE / _SET * _PLACES)
        self._sets = max(1, math.floor(places / _PLACES))
        self._table: _Table | None = None
        self._pid = 0
        self._looked_at = float("-inf")

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """See `ports.ReplayMemory.first_use`."""
        try:
            pid = os.getpid()
            with _LOCKS.get(pid) or _LOCKS.setdefault(pid, threading.Lock()):
                table = self._opened(pid, now)
                try:
                    first = table.first_use(token, call, until, now)
                except _Damaged:
                    self._forget()
                    raise
        except _Damaged as exc:
            raise StoreUnavailable(f"{self._path}: it was damaged, and is made anew: {exc}") from exc
        except OSError as exc:
            raise StoreUnavailable(f"{self._path}: {exc.strerror or exc}") from exc
        if first is None:
            raise StoreUnavailable(
                f"{self._path}: full, this PASSporT is not remembered: more than {PER_SECOND} verified calls a second?"
            )
        return first

    def _opened(self, pid: int, now: float) -> _Table:
        """The table of the file that now has the name, opened by this process.

        Raises:
            OSError: there is none, and none can be made.
            _Damaged: it was none of ours; there is a new one in its place.
        """
        table = self._table
        if table is not None and pid == self._pid and table.is_there():
            if 0 <= now - self._looked_at < LOOK_AFTER:
                return table
            if self._has_the_name(table):
                self._looked_at = now
                return table
        self._forget()
        self._table = table = self._open()
        self._pid, self._looked_at = pid, now
        return table

    def _has_the_name(self, table: _Table) -> bool:
        with suppress(OSError):
            found = os.lstat(self._path)
            return (found.st_dev, found.st_ino) == table.identity
        return False

    def _open(self) -> _Table:
        try:
            descriptor = self._descriptor()
        except FileNotFoundError:
            self._make(anew=False)
            descriptor = self._descriptor()
        try:
            table = _Table(descriptor)
        except _Damaged:
            self._refuse_database(descriptor)
            os.close(descriptor)
            self._make(anew=True)
            raise
        except OSError:
            os.close(descriptor)
            raise
        if table.sets >= self._sets:
            return table
        table.close()
        self._make(anew=True)
        return self._open()

    def _descriptor(self) -> int:
        # Who may write to the folder could make a switch write to another file by a link.
        try:
            return os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "is a link; name the file itself in the settings") from exc
            raise

    def _refuse_database(self, descriptor: int) -> None:
        """A setting that names the policy or the certificates by mistake must not cost them."""
        if os.pread(descriptor, 15, 0) == b"SQLite format 3":
            os.close(descriptor)
            raise OSError(errno.EINVAL, "is a database; name another file in verification.replay_memory")

    def _make(self, *, anew: bool) -> None:
        """Put an empty table in place: whole at once, so that nobody ever opens half of one.

        Args:
            anew: also where there is a file, whose readers notice that it lost its name.

        Raises:
            OSError: it cannot be made.
        """
        header = _HEADER.pack(_MAGIC, self._sets, os.urandom(16))
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            os.fchmod(descriptor, FILE_MODE)
            os.write(descriptor, header + hashlib.sha256(header).digest())
            os.truncate(descriptor, _FIRST_SET + self._sets * _SET)
            if anew:
                new.replace(self._path)
            else:
                with suppress(FileExistsError):  # another worker was faster
                    os.link(new, self._path)
        finally:
            os.close(descriptor)
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def _forget(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            table.close()
