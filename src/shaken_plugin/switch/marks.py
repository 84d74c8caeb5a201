"""Marks that hold for a time, in memory that the processes of a switch share."""

from __future__ import annotations

import hashlib
import mmap
import struct
from typing import Final

_MARK: Final = struct.Struct("8sd")
SLOTS: Final = 4_096
"""How many marks there are room for; 64 KiB of memory. Of two that meet the later one stays."""


class Marks:
    """Texts, each marked until some time; to be made before the switch forks.

    Nothing is locked: who reads while another writes, or meets another text's mark, finds no mark,
    and at worst warns or tries once more.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOTS * _MARK.size)

    def until(self, text: str) -> float:
        """POSIX seconds until which a text is marked, 0.0 where it is not."""
        digest, place = _place(text)
        found, until = _MARK.unpack_from(self._memory, place)
        return until if found == digest else 0.0

    def mark(self, text: str, until: float) -> None:
        """Mark a text until a time (POSIX seconds)."""
        digest, place = _place(text)
        _MARK.pack_into(self._memory, place, digest, until)


def _place(text: str) -> tuple[bytes, int]:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return digest, int.from_bytes(digest, "big") % SLOTS * _MARK.size
