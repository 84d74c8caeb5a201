"""Processes forked from one that has loaded the daemon already: each start is spared a second of imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

from shaken_plugin.cli import main
from shaken_plugin.cli.agent import run
from shaken_plugin.lab.servers import AgentServer
from tests.agent import scripted

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])

Program = Callable[[], object]


class Prepared:
    """What a program does with its arguments, in a folder, with its output at the end of a file; like a `Popen`."""

    def __init__(
        self, program: Program, arguments: list[str], folder: Path, log: Path, environment: Mapping[str, str]
    ) -> None:
        given = (program, arguments, folder, log, dict(environment))
        # As a daemon in the sense of multiprocessing it ends with the test run.
        self._process = _CONTEXT.Process(target=_run, args=given, daemon=True)
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
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def scripted_agent(folder: Path, log: Path) -> Prepared:
    """``python -m tests.agent.scripted shaken.yaml .``."""
    return Prepared(_scripted, [scripted.__file__, "shaken.yaml", "."], folder, log, os.environ)


class PreparedAgent(AgentServer):
    """An `AgentServer`; that its command loads by itself is what others show, tests/agent/test_calls.py among them."""

    def launch(self, _log: IO[bytes]) -> Prepared:
        arguments = self._command[self._command.index("agent") :]
        return Prepared(_shaken, ["shaken", *arguments], self.folder, self.log_path, self._environment)


def _shaken() -> None:
    main()


def _scripted() -> None:
    run(Path(sys.argv[1]), scripted.parts(Path()))


def _run(program: Program, arguments: list[str], folder: Path, log: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = arguments
    program()
