"""Servers for tests and the demonstration: own instances, free loopback ports, ended by pid."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Protocol, Self

from shaken_plugin.certs.agent_client import AgentClient
from shaken_plugin.errors import ShakenError

START_TIMEOUT: Final = 20.0
"""Seconds a server has until it answers; on a loaded machine importing alone takes several."""

STOP_TIMEOUT: Final = 10.0
"""Seconds a server has to end after SIGTERM before SIGKILL."""

LOOPBACK: Final = "127.0.0.1"


class LabError(ShakenError):
    """Something the lab needs is missing, or did not work; the text says what to do."""


def share(*parts: str) -> Path:
    """A file that ships with the package: switch scripts, SIPp scenarios."""
    return Path(__file__).resolve().parents[1].joinpath("share", *parts)


PACKAGES: Final = {"kamailio": "kamailio kamailio-python3-modules", "sipp": "sip-tester", "kamcmd": "kamailio"}
"""Debian packages that bring a program."""


def find_program(name: str) -> str:
    """The path of a program.

    Raises:
        LabError: it is not installed; says which command installs it.
    """
    for folder in (None, "/usr/sbin:/usr/local/sbin"):
        if path := shutil.which(name, path=folder):
            return path
    raise LabError(f"{name} is not installed; install it with: apt-get install {PACKAGES.get(name, name)}")


_PORTS: Final = range(20_000, 32_000)
"""None of those the kernel gives to whoever wants any: there somebody could get one meanwhile."""

_TRIES: Final = 300
_KEPT: Final = 200
_marks: deque[int] = deque()
"""Descriptors of the sockets that mark a port, kept open until the process ends."""


def free_port() -> int:
    """A port that is free for UDP and TCP on loopback, for something that starts soon or ends and comes back.

    Tests run side by side, and a server takes a second to bind what it was given. So each port is marked by a socket
    of its name, which only one process can have, until this process asked for 200 others or ended.

    Raises:
        LabError: there is none.
    """
    for port in random.sample(_PORTS, min(_TRIES, len(_PORTS))):
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                mark.bind(f"\0shaken-port-{port}")
                udp.bind((LOOPBACK, port))
                tcp.bind((LOOPBACK, port))
            except OSError:
                mark.close()
                continue
        _marks.append(mark.detach())
        if len(_marks) > _KEPT:
            os.close(_marks.popleft())
        return port
    raise LabError("no free port on loopback")


class Process(Protocol):
    """What is used of a `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its id."""

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises `subprocess.TimeoutExpired`."""


_COMPLAINT: Final = re.compile(r"\b(?:ERROR|CRITICAL|ALERT|Error|error)\b")


class Server:
    """A process in the foreground with its output in a file, ended when the context ends."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.log_path = folder / f"{name}.log"
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._process: Process | None = None

    def launch(self, log: IO[bytes]) -> Process:
        """Start the process as the first of a session, with its output in a file."""
        return subprocess.Popen(
            self._command,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = self.launch(log)
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The main process."""
        assert self._process is not None
        return self._process.pid

    def running(self) -> bool:
        """Whether the main process lives."""
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Whether the server answers; asked until it does."""
        return True

    def wait_until_ready(self) -> None:
        """Return when the server answers.

        Raises:
            LabError: it ended, or did not answer in `START_TIMEOUT`; with the end of its log.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.running():
                raise LabError(f"{self.name} ended at once; its log says:\n{self.log_tail()}")
            if self.is_ready():
                return
            time.sleep(0.05)
        raise LabError(f"{self.name} does not answer after {START_TIMEOUT:.0f} s; its log says:\n{self.log_tail()}")

    def log_text(self) -> str:
        """Everything the process wrote so far."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the log, after the first of those before them that complain."""
        found = self.log_text().splitlines()
        complaints = [line for line in found[:-lines] if _COMPLAINT.search(line)]
        return "\n".join(complaints[:lines] + found[-lines:])

    def stop(self) -> None:
        """End the process and all it started, politely first."""
        process = self._process
        if process is None:
            return
        for number, wait in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                continue
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # children that outlived their parent
        process.wait()


_EVENTS: Final = re.compile(r'^shaken_events_total\{name="(\w+)"\} (\S+)$', re.MULTILINE)


class AgentServer(Server):
    """A ``shaken agent`` with the settings of a provider.

    Args:
        name: for its log.
        folder: of the provider.
        settings: the plugin's settings file.
        socket: where it answers workers.
    """

    def __init__(self, name: str, folder: Path, settings: Path, socket: Path) -> None:
        self._client = AgentClient(socket)
        command = [sys.executable, "-c", "from shaken_plugin.cli import main; main()", "agent"]
        super().__init__(name, [*command, "--settings", str(settings)], folder, {})

    def is_ready(self) -> bool:
        """See `Server.is_ready`: the line with its addresses is written once it serves calls, too."""
        return "/health" in self.log_text() and self._client.alive()

    def counters(self) -> dict[str, int]:
        """What became of the calls that it served, for FreeSWITCHes that ask it."""
        address = self.log_text().rpartition("http://")[2].partition("/health")[0]
        connection = http.client.HTTPConnection(address, timeout=STOP_TIMEOUT)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return {name: int(float(value)) for name, value in _EVENTS.findall(text)}

    def kill(self) -> None:
        """End it as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()


def answers_sip(port: int, host: str = LOOPBACK) -> bool:
    """Whether something answers a SIP OPTIONS on a UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((LOOPBACK, 0))
        client.settimeout(0.2)
        own = client.getsockname()[1]
        request = (
            f"OPTIONS sip:{host}:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {LOOPBACK}:{own};branch=z9hG4bKready{own}\r\n"
            f"Max-Forwards: 5\r\nFrom: <sip:ready@{LOOPBACK}>;tag=r\r\nTo: <sip:{host}:{port}>\r\n"
            f"Call-ID: ready-{own}@{LOOPBACK}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        )
        try:
            client.sendto(request.encode(), (host, port))
            return client.recv(4096).startswith(b"SIP/2.0 ")
        except OSError:
            return False


class KamailioServer(Server):
    """A Kamailio with one of the shipped example configurations.

    Args:
        name: for its folder and log.
        folder: scratch folder of its own.
        settings: the plugin's settings file.
        kemi: routing in Python instead of the native language.
        config: a configuration of one's own with the same defines.
        shared: MB of memory for all its processes (``-m``).
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: Path,
        *,
        inside_peer: str,
        outside_peer: str,
        outside_peer_2: str | None = None,
        kemi: bool = False,
        workers: int = 2,
        config: Path | None = None,
        defines: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        listen: str = LOOPBACK,
        shared: int = 64,
    ) -> None:
        self.inside_port, self.outside_port = free_port(), free_port()
        self.listen = listen
        # The name of a Unix socket has room for 104 characters, less than a scratch folder of tests may take.
        short = tempfile.mkdtemp(prefix="shaken-")
        weakref.finalize(self, shutil.rmtree, short, ignore_errors=True)
        self._control = Path(short, "ctl")
        script = config or share("kamailio", "kamailio-kemi.cfg" if kemi else "kamailio-native.cfg")
        values = {
            "INSIDE_LISTEN": f"udp:{listen}:{self.inside_port}",
            "INSIDE_PORT": str(self.inside_port),
            "OUTSIDE_LISTEN": f"udp:{listen}:{self.outside_port}",
            "INSIDE_PEER": f'"{inside_peer}"',
            "OUTSIDE_PEER": f'"{outside_peer}"',
            "OUTSIDE_PEER_2": f'"{outside_peer_2 or outside_peer}"',
            "SHAKEN_SCRIPT": f'"{share("kamailio", "shaken.py")}"',
            "KEMI_SCRIPT": f'"{share("kamailio", "kemi_routing.py")}"',
            "CTL_SOCKET": f'"unix:{self._control}"',
            "WORKERS": str(workers),
            **(defines or {}),
        }
        command = [find_program("kamailio"), "-f", str(script), "-DD", "-E", "-m", str(shared), "-M", "16"]
        command += ["-w", str(folder), "-Y", str(folder), "-P", str(folder / "pid")]
        for define, value in values.items():
            command += ["-A", f"{define}={value}"]
        super().__init__(
            name,
            command,
            folder,
            {
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("site-packages")),
                "SHAKEN_SETTINGS": str(settings),
                "INSIDE_PORT": str(self.inside_port),
                "INSIDE_PEER": inside_peer,
                "OUTSIDE_PEER": outside_peer,
                "OUTSIDE_PEER_2": outside_peer_2 or outside_peer,
                **(environment or {}),
            },
        )

    def is_ready(self) -> bool:
        """See `Server.is_ready`."""
        return answers_sip(self.inside_port, self.listen)

    def rpc(self, *command: str) -> str:
        """The answer to a command on Kamailio's control socket.

        Raises:
            LabError: it is refused.
        """
        done = subprocess.run(
            [find_program("kamcmd"), "-s", f"unix:{self._control}", *command],
            capture_output=True,
            text=True,
            timeout=STOP_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"kamcmd {' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def counters(self) -> dict[str, int]:
        """The plugin's counters."""
        counts: dict[str, int] = {}
        name = ""
        for line in self.rpc("htable.dump", "shaken").splitlines():
            key, _, value = line.strip().partition(": ")
            if key == "name":
                name = value
            elif key == "value":
                counts[name] = int(value)
        return counts
