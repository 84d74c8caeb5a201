"""Moving the lines of the spool into the ledger, each exactly once.

Of each file what stands between the offset that the ledger knows and the last line break is
written to the ledger, together with the new offset. A file whose writer is gone (its lock is free)
is removed once the ledger has all of it; what then stands behind the last line break is a line that
was torn. Who is killed in between leaves the file, the offset, or both as they were: the next one
goes on from there.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.lines import Damage, Line, damage, read_line
from shaken_plugin.records.pieces import Moved, Piece, Refused, Stored
from shaken_plugin.records.spool import NAME, refuse_link

MAX_READ: Final = 1_048_576
"""Octets read of one file at a time."""
MAX_BATCH: Final = 4 * MAX_READ
"""Octets of one transaction."""
MAX_FILES: Final = 256
"""Files of one transaction, all open at the same time."""
MAX_BATCHES: Final = 64
"""Transactions of one `Collector.collect`."""


TRY_AGAIN: Final = 60.0
"""Seconds until a file that cannot be removed is tried again."""


@dataclass(slots=True)
class Counts:
    """What was done."""

    collected: int = 0
    known: int = 0
    """Lines that the ledger had already: their file was copied back."""
    torn: int = 0
    """Lines that their writer did not finish."""
    damaged: int = 0
    """Other lines that are no records."""
    removed: int = 0
    """Files."""
    unauthorised: int = 0
    """Of the lines that were collected, or known: calls with a caller ID that the records give no right to."""
    troubles: list[str] = field(default_factory=list)
    """Files that cannot be used, and why."""
    more: bool = False
    """There is more to do."""

    def add(self, other: Counts) -> None:
        """Count together."""
        self.collected += other.collected
        self.known += other.known
        self.torn += other.torn
        self.damaged += other.damaged
        self.removed += other.removed
        self.unauthorised += other.unauthorised
        self.troubles = other.troubles
        self.more = other.more


class Spooled(NamedTuple):
    """What lies in the spool."""

    octets: int
    age: float
    """Seconds for which the oldest line that is not in the ledger has waited, 0 where there is none."""


class Collector:
    """Moves lines from one folder.

    Args:
        folder: of the spool.
        ledger: where to.
        clock: POSIX seconds.
    """

    def __init__(self, folder: Path, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._folder = str(folder)
        self._ledger = ledger
        self._clock = clock
        self._known: dict[str, int] | None = None
        """Offsets, as far as this process brought them itself; None where the ledger has to be asked."""
        self._waiting: dict[str, tuple[int, float]] = {}
        """Of files with lines that are not in the ledger: the offset, and since when it has been that."""
        self._stuck: dict[str, float] = {}
        """Files that are in the ledger and cannot be removed, and when to try again."""

    def collect(self, counts: Counts | None = None) -> Counts:
        """Move what there is, in bounded transactions.

        Args:
            counts: is added to as each of them ends, and so is right even where a later one fails.

        Raises:
            StoreUnavailable: the ledger cannot be used now; nothing is lost.
            StoreError: it is of another schema.
        """
        counts = Counts() if counts is None else counts
        for _ in range(MAX_BATCHES):
            batch = Counts()
            try:
                self._batch(batch)
            except BaseException:
                self._known = None  # whether it was written is not known: the ledger is
                raise
            finally:
                counts.add(batch)
            if not counts.more:
                break
        return counts

    def measure(self) -> Spooled:
        """How much waits, and how long. Needs no ledger."""
        octets, now = 0, self._clock()
        waiting: dict[str, tuple[int, float]] = {}
        known = self._known or {}
        try:
            names = self._names()
        except OSError:
            names = []  # `collect` tells why
        for name in names:
            with suppress(OSError):
                size, offset = os.lstat(f"{self._folder}/{name}").st_size, known.get(name, 0)
                octets += size
                if size > offset:
                    before = self._waiting.get(name)
                    waiting[name] = before if before is not None and before[0] == offset else (offset, now)
        self._waiting = waiting
        return Spooled(octets, max((now - since for _, since in waiting.values()), default=0.0))

    def _names(self) -> list[str]:
        refuse_link(self._folder)
        try:
            with os.scandir(self._folder) as entries:
                return sorted(entry.name for entry in entries if NAME.fullmatch(entry.name))
        except FileNotFoundError:
            return []  # nobody wrote anything yet

    def _batch(self, counts: Counts) -> None:
        """One transaction; or one for each file, where the database refuses what one of them holds."""
        try:
            names = self._names()
        except OSError as exc:
            counts.troubles.append(f"{self._folder}: {exc.strerror}")
            return
        if not names:
            self._known = {}
            return
        if self._known is None:
            self._known = dict(self._progress(names))
        with ExitStack() as opened:
            pieces = self._read_all(names, opened, counts)
            try:
                self._move(pieces, counts)
            except Moved:
                self._known = None
                counts.more = True
            except Refused:
                self._move_each(pieces, counts)

    def _move(self, pieces: list[Piece], counts: Counts) -> None:
        if pieces:
            self._written(pieces, self._ledger.store(pieces, self._clock()), counts)

    def _move_each(self, pieces: list[Piece], counts: Counts) -> None:
        """One bad file keeps no other from the ledger."""
        for piece in pieces:
            try:
                self._move([piece], counts)
            except Refused as exc:
                self._stuck[piece.file] = self._clock() + TRY_AGAIN
                counts.troubles.append(f"{self._folder}/{piece.file}: the ledger refuses it: {exc}")

    def _progress(self, names: list[str]) -> Iterator[tuple[str, int]]:
        for first in range(0, len(names), MAX_FILES):
            found = self._ledger.progress(names[first : first + MAX_FILES])
            yield from ((name, progress.offset) for name, progress in found.items())

    def _read_all(self, names: list[str], opened: ExitStack, counts: Counts) -> list[Piece]:
        """What is to be written; the files of the pieces stay open, and locked where their writer is gone."""
        assert self._known is not None
        pieces: list[Piece] = []
        left = MAX_BATCH
        for name in names:
            if self._stuck.get(name, 0.0) > self._clock():
                continue
            if left <= 0 or len(pieces) >= MAX_FILES:
                counts.more = True
                break
            try:
                piece = self._read(name, self._known.get(name, 0), opened)
            except FileNotFoundError:
                continue
            except OSError as exc:
                counts.troubles.append(f"{self._folder}/{name}: {exc.strerror}")
                continue
            if piece is not None:
                pieces.append(piece)
                left -= piece.end - piece.begin
        return pieces

    def _read(self, name: str, begin: int, opened: ExitStack) -> Piece | None:
        """What one file has from ``begin`` on; None where that is nothing.

        Raises:
            OSError: it cannot be read.
        """
        with ExitStack() as ours:
            path = f"{self._folder}/{name}"
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            ours.callback(os.close, descriptor)
            piece = self._read_opened(name, descriptor, begin)
            if piece is not None:  # only what is moved now stays open: there may be thousands of files
                opened.push(ours.pop_all())
            return piece

    def _read_opened(self, name: str, descriptor: int, begin: int) -> Piece | None:
        """See `_read`."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "is no file")
        if found.st_nlink > 1:
            raise OSError(0, "has another name, too (a hard link), and would come twice; copy spool files instead")
        # First the lock and then the size: who has it knows that the size is the last.
        gone = _is_gone(descriptor)
        size = os.fstat(descriptor).st_size
        if size < begin:
            raise OSError(0, "is shorter than what was read of it; nobody may cut spool files")
        octets = os.pread(descriptor, MAX_READ, begin)
        lines, end = _lines(octets, begin)
        torn = 0
        rest = octets[end - begin :]
        if gone and rest and begin + len(octets) >= size:
            lines.append(damage(rest, end, "torn: its writer did not finish it"))
            end, torn = size, 1
        elif len(rest) == MAX_READ:
            lines.append(damage(rest, end, "longer than any record"))
            end += len(rest)
        done = gone and end >= size
        if not lines and not done:
            return None
        # Another collector that was faster has removed it: looked at within the transaction, which it has behind it.
        return Piece(name, begin, end, tuple(lines), torn, done, lambda: os.fstat(descriptor).st_nlink == 0)

    def _written(self, pieces: list[Piece], stored: Stored, counts: Counts) -> None:
        """Count what the ledger has now, and remove the files that it has all of."""
        assert self._known is not None
        removed = []
        counts.known += stored.known
        counts.collected -= stored.known + stored.different
        counts.damaged += stored.different
        for piece in pieces:
            damaged = sum(isinstance(one, Damage) for one in piece.found)
            counts.collected += len(piece.found) - damaged
            counts.damaged += damaged - piece.torn
            counts.torn += piece.torn
            counts.unauthorised += sum(isinstance(one, Line) and one.columns["unauthorised"] for one in piece.found)
            self._known[piece.file] = piece.end
            if not piece.done:
                counts.more = counts.more or piece.end - piece.begin >= MAX_READ // 2
                continue
            try:
                Path(self._folder, piece.file).unlink(missing_ok=True)
            except OSError as exc:
                self._stuck[piece.file] = self._clock() + TRY_AGAIN
                counts.troubles.append(f"{self._folder}/{piece.file}: cannot be removed: {exc.strerror}")
                continue
            del self._known[piece.file]
            self._stuck.pop(piece.file, None)
            removed.append(piece.file)
        counts.removed += len(removed)
        if removed:
            self._ledger.forget(removed)


def _is_gone(descriptor: int) -> bool:
    """Whether nobody will write to the file any more; then it is locked until it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lines(octets: bytes, begin: int) -> tuple[list[Line | Damage], int]:
    """The lines that are whole, and where the last one ends."""
    found: list[Line | Damage] = []
    offset = begin
    *whole, _ = octets.split(b"\n")
    for line in whole:
        found.append(read_line(line, offset))
        offset += len(line) + 1
    return found, offset


def collect(folder: Path, ledger: Ledger) -> Counts:
    """Move all that is there now, on a host without an agent, and say how much it was.

    Raises:
        StoreUnavailable: the ledger cannot be used now; nothing is lost.
        StoreError: it is of another schema.
    """
    collector, counts = Collector(folder, ledger), Counts(more=True)
    while counts.more:
        counts.add(collector.collect())
    return counts
