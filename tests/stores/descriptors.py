"""What this process has open."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def open_files(beginning: Path) -> list[str]:
    """The names of open files that begin so; SQLite's log and index stand beside the database."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            found.append(str(entry.readlink()))
    return [name for name in found if name.startswith(str(beginning))]
