"""Which PASSporT came with which call: one file of fixed size for all workers of a host (`stores.replaytable`).

What is lost with the file are the tokens of the last minute, so nothing waits for the disk. A file that is damaged, or
too small for new settings, is replaced by the worker that has all of it locked and finds it still under its name: so
one of them does it, and what one wrote no other discards.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.processid import THIS
from shaken_plugin.sqlitefile import FILE_MODE
from shaken_plugin.stores.replaytable import PLACES, SET, Damaged, Replaced, Table, lock

PER_SECOND: Final = 1_000
"""Verified calls a second and host that there is room for; twice as many places, so that no set is full by chance."""

MAX_SIZE: Final = 64 * 2**20
"""Largest file, octets: a million tokens. Its blocks are taken from the disk as they are used."""

LOOK_AFTER: Final = 1.0
"""Seconds after which it is looked whether the file still has its name. One that was removed is noticed at once."""

_ATTEMPTS: Final = 4
"""To find a file that nobody replaces or damages just then."""

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
        lifetime: seconds for which a token lasts at most. The size follows from it; what a file knows that is
            smaller, from before the settings were changed, goes into a larger one, and workers wait for that.
    """

    def __init__(self, path: Path, lifetime: float = 120.0) -> None:
        self._path = path
        places = min(2 * PER_SECOND * lifetime, MAX_SIZE / SET * PLACES)
        self._sets = max(1, math.floor(places / PLACES))
        self._table: Table | None = None
        self._pid = 0
        self._looked_at = float("-inf")

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """See `ports.ReplayMemory.first_use`."""
        try:
            pid = THIS.id
            with _LOCKS.get(pid) or _LOCKS.setdefault(pid, threading.Lock()):
                first = self._asked(pid, token, call, until, now)
        except Damaged as exc:
            raise StoreUnavailable(f"{self._path}: it was damaged, and is made anew: {exc}") from exc
        except OSError as exc:
            raise StoreUnavailable(f"{self._path}: {exc.strerror or exc}") from exc
        if first is None:
            raise StoreUnavailable(
                f"{self._path}: full, this PASSporT is not remembered: more than {PER_SECOND} verified calls a second?"
            )
        return first

    def _asked(self, pid: int, token: bytes, call: bytes, until: float, now: float) -> bool | None:
        for _ in range(_ATTEMPTS):
            known = pid == self._pid and 0 <= now - self._looked_at < LOOK_AFTER
            table = self._table if known else None
            try:
                table = table or self._opened(pid, now)
                return table.first_use(token, call, until, now)
            except OSError:
                if table is None or table.is_there():
                    raise
                self._forget()  # closed over our head, the number may be another file's by now
            except Replaced:
                self._forget()
            except Damaged:
                # Whether it is ours still, or was overwritten by something else, is seen when it is opened.
                if self._table is None:
                    raise
                self._forget()
        raise OSError(errno.EAGAIN, "is replaced or damaged again and again")

    def _opened(self, pid: int, now: float) -> Table:
        """The table of the file that now has the name, opened by this process.

        Raises:
            OSError: there is none, and none can be made.
            Damaged: it was damaged; there is a new one in its place.
        """
        table = self._table
        if table is not None and pid == self._pid and table.is_there() and self._has_the_name(table.identity):
            self._looked_at = now
            return table
        self._forget()
        self._table = table = self._open(now)
        self._pid, self._looked_at = pid, now
        return table

    def _has_the_name(self, identity: tuple[int, int]) -> bool:
        with suppress(OSError):
            found = os.lstat(self._path)
            return (found.st_dev, found.st_ino) == identity
        return False

    def _open(self, now: float) -> Table:
        for _ in range(_ATTEMPTS):
            try:
                descriptor = self._descriptor()
            except FileNotFoundError:
                self._make(None, now, anew=False)
                continue
            table = None
            try:
                table = self._table_or_replaced(descriptor, now)
            finally:
                if table is None:
                    os.close(descriptor)
            if table is not None:
                return table
        raise OSError(errno.EAGAIN, "is replaced again and again")

    def _table_or_replaced(self, descriptor: int, now: float) -> Table | None:
        """The table of a file; None where another is in its place now.

        Raises:
            OSError: it is none of ours, or cannot be replaced now.
            Damaged: it was damaged; there is a new one in its place.
        """
        try:
            table = Table(descriptor)
            if table.sets >= self._sets:
                return table
            self._replace(descriptor, table, now)
        except Damaged:
            if self._replace(descriptor, None, now):
                raise
        return None

    def _replace(self, descriptor: int, old: Table | None, now: float) -> bool:
        """Put a new file in the place of one that is damaged or, where a table is given, too small.

        Nobody writes into it meanwhile, and whoever waited for that finds that it has no name any more.

        Returns:
            Whether this worker did so; else another was faster.
        """
        lock(descriptor)
        try:
            found = os.fstat(descriptor)
            if not self._has_the_name((found.st_dev, found.st_ino)):
                return False
            self._make(old, now, anew=True)
            return True
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)

    def _descriptor(self) -> int:
        # Who may write to the folder could make a switch write to another file by a link.
        try:
            return os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "is a link; name the file itself in the settings") from exc
            raise

    def _make(self, old: Table | None, now: float, *, anew: bool) -> None:
        """Put a table in place: whole at once, so that nobody ever opens half of one.

        Args:
            old: of which it takes over what is not stale.
            now: POSIX seconds.
            anew: also where there is a file, whose readers notice that it lost its name.

        Raises:
            OSError: it cannot be made.
        """
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            os.fchmod(descriptor, FILE_MODE)
            Table.write(descriptor, self._sets, old, now)
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
