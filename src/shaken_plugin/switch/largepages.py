"""Large pages for the memory that a switch process keeps.

What one call touches is a few hundred octets here and there in some twenty megabytes of Python's objects. Between two
messages of a worker other processes run, and then each of those places costs a walk through the page tables first:
with pages of 2 MB instead of 4 KB there are a dozen to find instead of a thousand.

Linux does it by itself, after a while, where ``/sys/kernel/mm/transparent_hugepage/enabled`` says ``always``. What it
says of ``never`` is the operator's word, and is obeyed here.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SYSTEM: Final = Path("/sys/kernel/mm/transparent_hugepage")
_MAPS: Final = Path("/proc/self/maps")

MADV_COLLAPSE: Final = 25
"""Linux 6.1, ``madvise(2)``; the module `mmap` has no name for it, and can advise about its own mappings alone."""

SHARE: Final = 0.5
"""Part of a large page that has to be in memory: what is not there would be taken for nothing."""


def gather() -> int:
    """Have the kernel gather this process's own memory into large pages, where it is mostly in use.

    To be called in each process that has calls, after the fork: a page that is shared with the process before it would
    fall into small ones again at the first write. It takes some milliseconds, and can only fail to help.

    Returns:
        How many octets lie in large pages that were asked for; 0 where the kernel cannot, or the operator forbids it.
    """
    try:
        size = int((_SYSTEM / "hpage_pmd_size").read_text("ascii"))
        if "[never]" in (_SYSTEM / "enabled").read_text("ascii"):
            return 0
        libc = ctypes.CDLL(None)
        gathered = 0
        for begin in _candidates(_MAPS.read_text("utf-8", "replace"), size):
            if _is_used(libc, begin, size) and _collapse(libc, begin, size):
                gathered += size
    except (OSError, ValueError, AttributeError):
        return 0
    return gathered


def _candidates(maps: str, size: int) -> Iterator[int]:
    """Where large pages can begin: in private memory that belongs to no file, and is no thread's stack."""
    guarded = -1  # where pages without any right end: what follows them is a stack
    for line in maps.splitlines():
        where, rights, _, _, inode, *name = line.split(maxsplit=5)
        begin, end = (int(text, 16) for text in where.split("-"))
        if rights == "rw-p" and inode == "0" and name in ([], ["[heap]"]) and begin != guarded:
            yield from range(-(-begin // size) * size, end - size + 1, size)
        guarded = end if rights == "---p" else -1


def _is_used(libc: ctypes.CDLL, begin: int, size: int) -> bool:
    pages = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
    if libc.mincore(ctypes.c_void_p(begin), ctypes.c_size_t(size), pages):
        return False
    return sum(page & 1 for page in pages) >= SHARE * len(pages)


def _collapse(libc: ctypes.CDLL, begin: int, size: int) -> bool:
    return libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), MADV_COLLAPSE) == 0  # type: ignore[no-any-return]
