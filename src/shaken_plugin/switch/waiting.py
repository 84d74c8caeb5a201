"""Places for calls that wait for a certificate: a bounded number over all processes of a switch."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, Self

_PLACE: Final = struct.Struct("d")
MAX_PLACES: Final = 1_024
"""Most places there can be; 8 KiB of memory."""


class Held(NamedTuple):
    """A call that is being held: its place, and when it came (POSIX seconds)."""

    place: int
    arrived: float

    def __str__(self) -> str:
        return f"{self.place} {self.arrived:.3f}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """From the text of `str`; None for an empty one."""
        if not text:
            return None
        place, arrived = text.split()
        return cls(int(place), float(arrived))


class WaitingRoom:
    """Counts waiting calls in memory that a fork shares.

    A place holds the time until which it is taken, so that one whose call was lost becomes free by
    itself. To be made before the switch forks; a copy made later counts for its process alone.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("shaken-waiting")
        os.truncate(self._file, MAX_PLACES * _PLACE.size)
        self._lock = threading.Lock()  # POSIX locks keep out other processes, not other threads

    def enter(self, places: int, until: float, now: float) -> int | None:
        """Take a place, if one of the first ``places`` is free.

        Args:
            places: how many calls may wait, at most `MAX_PLACES`.
            until: POSIX seconds until which the place is taken, unless `leave` frees it before.
            now: POSIX seconds.

        Returns:
            The place, or None where all are taken.
        """
        with self._locked():
            taken = os.pread(self._file, min(places, MAX_PLACES) * _PLACE.size, 0)
            for place, (end,) in enumerate(_PLACE.iter_unpack(taken)):
                if end <= now:
                    os.pwrite(self._file, _PLACE.pack(until), place * _PLACE.size)
                    return place
        return None

    def leave(self, place: int) -> None:
        """Free a place."""
        os.pwrite(self._file, _PLACE.pack(0.0), place * _PLACE.size)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
