"""Opening SQLite files that several processes and users share.

Connections open lazily in the process and thread that use them: a connection must not cross a
fork. Nobody waits long for a lock, and files are made with a mode that lets the group write.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from shaken_plugin.errors import StoreError
from shaken_plugin.patience import BLIND, BUSY_TIMEOUT, PATIENCE
from shaken_plugin.processid import THIS

LOOK_EVERY: Final = 0.1
"""Seconds between two looks whether another file has taken the place of one that is watched by `Connections.stamp`,
and between two of usual calls whether records have changed."""

INDEX_HEADER: Final = 96
"""Octets of the header of a WAL index, two copies of 48 ("The WAL-Index File Format", sqlite.org/walformat.html)."""

_BLIND_AFTER: Final = {
    sqlite3.SQLITE_BUSY: BLIND,
    sqlite3.SQLITE_LOCKED: BLIND,
    sqlite3.SQLITE_PROTOCOL: 10.0,  # SQLite's own wait for a slot of the WAL index, which heeds no timeout
}

FILE_MODE: Final = 0o660
"""The switch's user and the administrator's group both read and write (WAL needs both)."""


class _Connection(sqlite3.Connection):
    """Closes itself: from Python 3.13 on, a connection that is merely dropped is warned about."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """As its parent does; but what SQLite says of damaged pages may be no text."""
        try:
            return super().execute(*arguments)
        except UnicodeDecodeError as exc:
            raise sqlite3.DatabaseError(f"the file is damaged: {exc}") from exc

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it was never open
            self.close()


def create(path: Path) -> None:
    """Make an empty file where there is none.

    Raises:
        StoreError: the folder cannot be written to.
    """
    try:
        # SQLite gives its own files 0644 minus the umask, and the -wal and -shm beside them the
        # mode of the main file: so the mode is set here, once.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        os.fchmod(descriptor, FILE_MODE)
        os.close(descriptor)
    except FileExistsError:
        return
    except OSError as exc:
        raise StoreError(f"{path}: cannot be created: {exc.strerror}") from exc


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """A connection in autocommit mode to a file that exists.

    Raises:
        sqlite3.Error: it cannot be opened.
        StoreError: the name is a link.
    """
    # Who may write to the folder could make root write to another database.
    if os.path.islink(path):  # not Path.is_symlink, which raises where the folder cannot be read
        raise StoreError(f"{path}: is a link; name the file itself in the settings")
    # mode=rw: a missing file is an error here, not an empty database.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(
        uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False, factory=_Connection
    )


def check_schema(connection: sqlite3.Connection, path: Path, known: int, oldest: int | None = None) -> int:
    """The schema version of an open file, 0 for an empty one.

    Releases one version apart work on the same file, so that an upgrade needs no outage: this one on files that
    are older, down to ``oldest``; and on one that is newer by one, where that says that it may (`reads`).

    Args:
        connection: to the file.
        path: its name, for messages.
        known: the version of this release.
        oldest: the oldest one that it reads and writes as it is; by default no older one.

    Raises:
        StoreError: it is another.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > known and not (version == known + 1 and reads(connection) <= known):
        raise newer(path, version, known)
    if 0 < version < (known if oldest is None else oldest):
        raise StoreError(
            f"{path}: schema version {version} is older than this release's ({known}); "
            "run 'shaken store migrate', which says first what it will do"
        )
    return version


def newer(path: Path, version: int, known: int) -> StoreError:
    """That a file is of a release which this one does not know."""
    return StoreError(
        f"{path}: schema version {version} is newer than this release knows ({known}); "
        "install the release that wrote it"
    )


def reads(connection: sqlite3.Connection) -> float:
    """The oldest schema version whose releases may work on a file as it is, by what it says itself.

    Without a word of it none but those of its own version and newer may: infinity.
    """
    try:
        row = connection.execute("SELECT value FROM meta WHERE key = 'reads'").fetchone()
        return math.inf if row is None else int(row[0])
    except (sqlite3.OperationalError, ValueError, TypeError):
        return math.inf


class Stamp(NamedTuple):
    """What a file is at one moment, see `Connections.stamp`."""

    file: tuple[int, int, int]
    """The process that opened it, its device and inode."""
    written: tuple[int, int]
    """When the file itself was written last, and its size: a log that is taken in, or empty again, changes them."""
    header: bytes
    """Of the WAL index, which every commit writes."""


@dataclass(slots=True)
class _Watch:
    """The WAL index of an open file, through the descriptor that SQLite itself has of it.

    One of our own must never be closed: that takes away the locks that SQLite holds on the same file (POSIX).
    """

    index: int
    file: tuple[int, int, int]
    written: tuple[int, int]
    """As in `Stamp`: should a log that is empty again have an older's header."""
    looked: float
    header: bytes = b""
    stamp: Stamp | None = None


def _is_open_as(descriptor: int, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file)
    except OSError:
        return False  # closed meanwhile


class Connections:
    """One connection for each thread of each process, to the file that now has the name.

    Args:
        path: the file.
        timeout: seconds to wait for a lock; `BUSY_TIMEOUT` is that of a call, of which there is one for all files.
        prepare: told of every new connection; may raise, then it is not used.
    """

    def __init__(self, path: Path, timeout: float, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self._path = path
        self._timeout = timeout
        self._prepare = prepare
        self._local = threading.local()
        self._blind_until = 0.0
        self._was_locked = False

    def get(self) -> sqlite3.Connection:
        """This thread's connection; a new one where there is none to this very file.

        The process is asked for because a connection must not cross a fork, the file because
        another one may stand in its place: removed and made anew, or restored from a backup.

        Raises:
            OSError: there is no such file.
            sqlite3.Error: it cannot be opened, or was locked a moment ago.
            StoreError: it is a link, or what ``prepare`` raises.
        """
        local = self._local
        file = os.stat(self._path)
        opened = (THIS.id, file.st_dev, file.st_ino)
        local.written = (file.st_mtime_ns, file.st_size)
        if getattr(local, "opened", None) != opened:
            # Closed before another is opened: SQLite keeps one book of locks per process and
            # file, and would believe that a child holds the locks that its parent took.
            self.forget()
            if time.monotonic() < self._blind_until:
                raise sqlite3.OperationalError("it was locked a moment ago")
            local.wait = 0.0 if self._was_locked else self._wait()  # who tries whether it is free does not wait, too
            local.connection = connect(self._path, local.wait)
            try:
                self._prepare(local.connection)
            except sqlite3.Error as exc:
                self.forget(exc)
                raise
            self._was_locked = False
            local.opened = opened
        elif local.wait != (wait := self._wait()):
            local.wait = wait
            local.connection.execute(f"PRAGMA busy_timeout = {wait * 1000:.0f}")
        return local.connection  # type: ignore[no-any-return]  # threading.local is untyped

    def _wait(self) -> float:
        """Seconds to wait for a lock now."""
        return self._timeout if self._timeout > BUSY_TIMEOUT else PATIENCE.left(self._timeout)

    def stamp(self, *, look: bool = False) -> Stamp | None:
        """A value that is another after every commit to the file, whoever made it; None where that cannot be told.

        While nothing changes it costs one read of `INDEX_HEADER` octets and takes no lock: a commit in WAL mode
        writes both copies of this header, with its checksum over all that the log holds. Only whether the name is
        another file's by now is looked at every `LOOK_EVERY` seconds, or now, with ``look``.
        """
        watch: _Watch | None = getattr(self._local, "watch", None)
        try:
            if look and watch is not None:
                self.get()
                if (watch.file, watch.written) != (self._local.opened, self._local.written):
                    watch = None
            is_due = watch is None or not 0 <= time.monotonic() - watch.looked < LOOK_EVERY
            if watch is None or is_due or watch.file[0] != THIS.id:  # a child has no lock on what it inherited
                watch = self._local.watch = self._watch()
                if watch is None:
                    return None
            header = os.pread(watch.index, INDEX_HEADER, 0)
        except (OSError, sqlite3.Error, StoreError):
            self._local.watch = None
            return None
        if header != watch.header:
            half = INDEX_HEADER // 2
            if len(header) < INDEX_HEADER or header[:half] != header[half:] or not any(header):
                return None  # it is being written just now
            watch.header, watch.stamp = header, Stamp(watch.file, watch.written, header)
        return watch.stamp

    def _watch(self) -> _Watch | None:
        """What is to be looked at for `stamp`.

        Raises:
            OSError, sqlite3.Error, StoreError: as for `get`; also where there is no log.
        """
        self.get()
        file, written = self._local.opened, self._local.written
        index = os.stat(f"{self._path}-shm")
        known: _Watch | None = getattr(self._local, "watch", None)
        if known is not None and known.file == file and _is_open_as(known.index, index):
            if known.written != written:  # the log was taken into the file
                known.header, known.written = b"", written
            known.looked = time.monotonic()
            return known
        numbers = (int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        descriptor = next((number for number in numbers if _is_open_as(number, index)), None)
        return None if descriptor is None else _Watch(descriptor, file, written, time.monotonic())

    def forget(self, why: Exception | None = None) -> None:
        """Close the connection; the next question opens another, unless the file was locked (``why``) a moment ago."""
        blind = _BLIND_AFTER.get(getattr(why, "sqlite_errorcode", 0) & 0xFF)
        if blind is not None:
            self._was_locked = True
            self._blind_until = time.monotonic() + blind
            PATIENCE.spend()
        connection = getattr(self._local, "connection", None)
        self._local.connection = self._local.opened = self._local.watch = None
        if connection is not None:
            connection.close()
