"""The laboratory itself: what tests that run side by side must not take from each other."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shaken_plugin.lab import servers
from shaken_plugin.lab.servers import LOOPBACK, LabError, Server, free_port

_ASK = """
import sys
from shaken_plugin.lab.servers import free_port
print(*[free_port() for _ in range(150)], flush=True)
sys.stdin.read()
"""


def test_processes_side_by_side_never_get_the_same_port() -> None:
    # A port that nobody has bound yet was given to another once more: a server then ended at once.
    asking = [
        subprocess.Popen([sys.executable, "-c", _ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        ports = [port for process in asking for port in process.stdout.readline().split()]  # type: ignore[union-attr]  # it is a pipe
    finally:
        for process in asking:
            process.communicate(timeout=20)
    assert len(ports) == 600
    assert len(set(ports)) == 600


def test_no_port_is_one_that_the_kernel_gives_away() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    if lowest < 32_000:
        pytest.skip(f"this kernel gives away ports from {lowest}")
    assert max(free_port() for _ in range(300)) < lowest


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_port_that_is_taken_is_not_free(monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((LOOPBACK, free_port()))
        monkeypatch.setattr(servers, "_marks", type(servers._marks)())  # its mark is gone, the socket is not
        port = taken.getsockname()[1]
        monkeypatch.setattr(servers, "_PORTS", range(port, port + 1))
        with pytest.raises(LabError, match="no free port"):
            free_port()


class Silent(Server):
    """Never ready."""

    def is_ready(self) -> bool:
        return False


def test_what_a_server_complained_of_is_told_before_the_end_of_its_log(tmp_path: Path) -> None:
    says = "print('ERROR: port taken');print(*range(30), sep='\\n')"
    server = Silent("s", [sys.executable, "-c", says], tmp_path, {})
    with pytest.raises(LabError, match="ended at once") as caught, server:
        pass
    told = str(caught.value).splitlines()
    assert "ERROR: port taken" in told
    assert told[-1] == "29"
    assert "3" not in told
