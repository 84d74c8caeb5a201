"""Processes forked from one that has loaded the daemon already: each start is spared a second of imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from shaken_plugin.cli.agent import run
from tests.agent import scripted

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([scripted.__name__])


class Process(Protocol):
    """What tests use of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Prepared:
    """``python -m tests.agent.scripted SETTINGS FOLDER`` in a folder, with its output in a file."""

    def __init__(self, settings: str, folder: Path, log: Path) -> None:
        # As a daemon in the sense of multiprocessing it ends with the test run.
        arguments = (settings, folder, log, dict(os.environ))
        self._process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, "it did not end in time"
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(settings: str, folder: Path, log: Path, environment: Mapping[str, str]) -> None:
    with log.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [scripted.__file__, settings, "."]
    run(Path(settings), scripted.parts(Path()))
