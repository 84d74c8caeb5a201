"""Files that a command writes: there once they are complete; until then, what was there stays."""

from __future__ import annotations

import glob
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from shaken_plugin.cli.output import fail


@contextmanager
def appearing(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8 that takes its place when the block ends well; ends the command where it cannot.

    Nothing is put in place where nothing was written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    _remove_stale(path)
    try:
        try:
            _end_as_interrupted()
            # What was no UTF-8 when it was read is written back as it was.
            with beside.open("x", encoding="utf-8", errors="surrogateescape", newline="") as file:
                yield file
                complete = file.tell() > 0
            if complete:
                beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as exc:
        fail(f"{path}: cannot be written: {exc.strerror}")


def _remove_stale(path: Path) -> None:
    """Remove what runs left behind that were killed."""
    for other in path.parent.glob(f"{glob.escape(f'.{path.name}.')}*"):
        number = other.name.rpartition(".")[2]
        if number.isascii() and number.isdecimal() and not _runs(int(number)):
            with suppress(OSError):
                other.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _end_as_interrupted() -> None:
    """Have SIGTERM end the command as Ctrl-C does, so that nothing is left behind."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
