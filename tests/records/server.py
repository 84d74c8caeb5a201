"""A PostgreSQL of the test's own: in a temporary folder, on a Unix socket alone, under a user that is not root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
MISSING = "no PostgreSQL: /usr/lib/postgresql/*/bin/initdb is not there"


class Server:
    """See the module. Started and ended with `run`; the folder stays until `remove`."""

    def __init__(self) -> None:
        self._bin = PROGRAMS[-1].parent
        # Short, for a socket's path has at most 107 octets; and outside folders that pytest closes to other users.
        self.folder = Path(tempfile.mkdtemp(prefix="shaken-pg-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody", "nogroup")
        self._as_user("initdb", "-D", self._data, "-U", "shaken", "--auth=trust", "-N")
        self.url = f"postgresql:///postgres?host={self.folder}&user=shaken"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _as_user(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", *command]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=(log := (self.folder / "commands.log").open("ab")),
            stderr=log,
            timeout=60,
            check=False,
        )
        log.close()
        assert done.returncode == 0, (self.folder / "commands.log").read_text("utf-8", "replace")[-2_000:]

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        self._as_user("pg_ctl", "-w", "-D", self._data, "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """``immediate``: without a word to anybody, as in a crash."""
        self._as_user("pg_ctl", "-w", "-D", self._data, "-m", mode, "stop")

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()
