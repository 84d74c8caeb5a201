"""Files that another process keeps for itself."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

RECOVERING = """
import fcntl, os, sys
index = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(index, fcntl.LOCK_EX, 3, 120)  # the locks to write, to check-point and to recover
os.pwrite(index, bytes(96), 0)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def recovering(*paths: Path) -> Iterator[None]:
    """Another process is stopped while it makes the WAL index anew: nobody can begin to read.

    It has the locks, and the header is empty, as "WAL-Index Recovery" says (sqlite.org/walformat.html). Once it is
    gone, the next one makes the index anew. Unlike an exclusive transaction this keeps those out that read already.
    """
    with ExitStack() as stack:
        for path in paths:
            reader = stack.enter_context(
                closing(sqlite3.connect(path))
            )  # the last one to close the file takes the index with it
            reader.execute("PRAGMA user_version").fetchone()
            command = [sys.executable, "-c", RECOVERING, f"{path}-shm"]
            other = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert other.stdin is not None
            stack.callback(other.stdin.close)
            assert other.stdout is not None
            other.stdout.readline()
        yield
