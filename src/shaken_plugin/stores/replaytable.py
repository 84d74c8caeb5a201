"""The file of `stores.replay` as one process has it open: a hash table in sets.

A token has one place among the 16 of its set; a worker locks the set, reads it, and writes it back. The lock is one of
the kernel (fcntl), which is gone with the process that held it, however that ends; the file is read and written, not
mapped, because whoever truncates a mapped file kills all who have it.

    header   one block of 4,096 octets: magic, number of sets, key of the hash, SHA-256 of these
    set      512 octets: 16 tags of 16 octets, 16 calls of 8 octets, 16 times of 8 octets

Tags and calls are hashes with a key that only the file knows: nobody can make tokens that all fall into one set. The
set follows from the tag, so that a larger file takes over what a smaller one knows.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from contextlib import suppress
from hashlib import blake2b, sha256
from typing import Final

from shaken_plugin.patience import BUSY_TIMEOUT, PATIENCE

MAX_AHEAD: Final = 400_000.0
"""Seconds: no token lasts longer, settings allow a day. A later time in the file is damage, and the place is free."""

_OURS: Final = b"shaken replay "
_MAGIC: Final = _OURS + b"1\n"
_HEADER: Final = struct.Struct("<16sI16s")
_DIGEST: Final = 32
_FIRST_SET: Final = 4_096
PLACES: Final = 16
_TAG, _CALL = 16, 8
_CALLS: Final = PLACES * _TAG
_UNTIL: Final = _CALLS + PLACES * _CALL
_TIMES: Final = struct.Struct(f"<{PLACES}d")
SET: Final = _UNTIL + _TIMES.size
_TIME: Final = struct.Struct("<d")
_ALONE: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_TAKEN: Final = {errno.EAGAIN, errno.EACCES}


class Damaged(Exception):
    """The file is ours, and not what this release wrote; the text says in what way."""


class Replaced(Exception):
    """Another worker put a new file in its place: what were written here, nobody would read."""


class Table:
    """An open file.

    Args:
        descriptor: of the file; whoever calls closes it where no table is made of it.

    Raises:
        OSError: it cannot be read, or is none of ours.
        Damaged: it is ours, and empty, damaged, or of another release.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        found = os.fstat(descriptor)
        self.identity = (found.st_dev, found.st_ino)
        is_file = stat.S_ISREG(found.st_mode)
        head = os.pread(descriptor, _HEADER.size + _DIGEST, 0) if is_file else b""
        # A key or the policy, named by mistake, must not be lost by it. The beginning of ours is ours, cut off.
        if not is_file or not _OURS.startswith(head[: len(_OURS)]):
            raise OSError(
                errno.EINVAL,
                "is no replay memory, and is left as it is; "
                "name another file in verification.replay_memory, or remove that setting",
            )
        if head[: len(_MAGIC)] != _MAGIC or sha256(head[: _HEADER.size]).digest() != head[_HEADER.size :]:
            raise Damaged("its header is not what was written" if head else "empty")
        self.sets: int
        self.key: bytes
        _, self.sets, self.key = _HEADER.unpack_from(head)
        if not self.sets or found.st_size != _FIRST_SET + self.sets * SET:
            raise Damaged(f"{found.st_size} octets long instead of {_FIRST_SET + self.sets * SET}")

    @classmethod
    def write(cls, descriptor: int, sets: int, old: Table | None, now: float) -> None:
        """Make a table in an empty file.

        Args:
            descriptor: of the file, which nobody else has open.
            sets: how many it gets.
            old: where it takes over from one that is locked and smaller, that one.
            now: POSIX seconds.

        Raises:
            OSError: it cannot be written, or the old one not be read.
            Damaged: the old one is shorter than it was.
        """
        header = _HEADER.pack(_MAGIC, sets, old.key if old else os.urandom(16))
        os.write(descriptor, header + sha256(header).digest())
        os.truncate(descriptor, _FIRST_SET + sets * SET)
        if old:
            old.copy_to(cls(descriptor), now)

    def copy_to(self, new: Table, now: float) -> None:
        """Tell it all that is not stale. What finds no place there is forgotten: too many tokens, and it was said."""
        for start in range(_FIRST_SET, _FIRST_SET + self.sets * SET, SET):
            content = self._content(start)
            for place, until in enumerate(_TIMES.unpack_from(content, _UNTIL)):
                if now <= until <= now + MAX_AHEAD:
                    tag, call = place * _TAG, _CALLS + place * _CALL
                    owner, name = bytes(content[call : call + _CALL]), bytes(content[tag : tag + _TAG])
                    new._remember(new._start(name), name, owner, until, now)

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
            Damaged: it is shorter than it was.
            Replaced: another worker replaced it.
        """
        tag = blake2b(token, key=self.key, digest_size=_TAG).digest()
        owner = blake2b(call, key=self.key, digest_size=_CALL).digest()
        descriptor, start = self.descriptor, self._start(tag)
        lock(descriptor, SET, start)
        try:
            found = os.fstat(descriptor)
            if not found.st_nlink or (found.st_dev, found.st_ino) != self.identity:
                raise Replaced  # while it was waited for
            return self._remember(start, tag, owner, until, now)
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, SET, start)

    def _start(self, tag: bytes) -> int:
        return _FIRST_SET + int.from_bytes(tag[:4]) % self.sets * SET

    def _content(self, start: int) -> bytearray:
        content = bytearray(os.pread(self.descriptor, SET, start))
        if len(content) != SET:
            raise Damaged("cut off")
        return content

    def _remember(self, start: int, tag: bytes, owner: bytes, until: float, now: float) -> bool | None:
        content = self._content(start)
        place, times = place_of(tag, content), _TIMES.unpack_from(content, _UNTIL)
        if place is None:
            place, latest = 0, now + MAX_AHEAD
            while place < PLACES and now <= times[place] <= latest:
                place += 1
            if place == PLACES:
                return None
        elif now <= times[place] and content[_CALLS + place * _CALL :][:_CALL] != owner:
            return False
        content[place * _TAG : (place + 1) * _TAG] = tag
        content[_CALLS + place * _CALL : _CALLS + (place + 1) * _CALL] = owner
        _TIME.pack_into(content, _UNTIL + place * _TIME.size, until)
        if os.pwrite(self.descriptor, content, start) != SET:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True


def lock(descriptor: int, length: int = 0, start: int = 0) -> None:
    """Keep other processes out of a part of the file, or of all of it.

    Raises:
        OSError: one of them keeps us out.
    """
    end = 0.0
    while True:
        try:
            fcntl.lockf(descriptor, _ALONE, length, start)
            return
        except OSError as exc:
            if exc.errno not in _TAKEN:
                raise
        end = end or time.monotonic() + PATIENCE.left()  # another worker has it for some µs
        if time.monotonic() >= end:
            PATIENCE.spend()
            raise TimeoutError(errno.ETIMEDOUT, "another process has it locked")
        time.sleep(BUSY_TIMEOUT / 50)


def place_of(tag: bytes, content: bytearray) -> int | None:
    """Which of the places of a set has the tag."""
    at = content.find(tag, 0, _CALLS)
    if at < 0:
        return None
    while at % _TAG and at >= 0:  # across two tags: nothing but chance or damage makes that
        at = content.find(tag, at + 1, _CALLS)
    return at // _TAG if at >= 0 else None
