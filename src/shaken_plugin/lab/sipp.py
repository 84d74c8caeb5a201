"""Running SIPp: one scenario, its counts, and the messages it saw."""

from __future__ import annotations

import csv
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from shaken_plugin.lab.servers import LOOPBACK, LabError, Server, find_program, free_port, share

_SEPARATOR = re.compile(r"^-{20,} (.*)$", re.MULTILINE)
_DIRECTION = re.compile(r"^\w+ message (sent|received) (?:\[\d+\] bytes ?:?|\(\d+ bytes\):)\s*$", re.MULTILINE)

TIMEOUT: Final = 60
"""Seconds after which a run that should have ended is an error, beyond the calls' own time."""


PATIENCE: Final = "20000"
"""Milliseconds without a message after which a call has failed, so that a lost one is counted and ends the run."""


@dataclass(frozen=True, slots=True)
class Traced:
    """One SIP message that SIPp sent or received; ``at`` in POSIX seconds."""

    sent: bool
    text: str
    at: float

    @property
    def first_line(self) -> str:
        """Request or status line."""
        return self.text.partition("\n")[0].strip()

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        values = []
        for line in self.text.splitlines()[1:]:
            head, colon, value = line.partition(":")
            if colon and head.strip().lower() == name.lower():
                values.append(value.strip())
        return values


def read_trace(path: Path, since: int = 0) -> list[Traced]:
    """The messages of a ``-trace_msg`` file from an offset on, in order."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(since)
        _, *found = _SEPARATOR.split(file.read().decode("utf-8", "surrogateescape"))
    messages = []
    for stamp, block in zip(found[::2], found[1::2], strict=True):
        match = _DIRECTION.search(block)
        if match is not None:
            text = block[match.end() :].strip("\r\n").replace("\r\n", "\n")
            at = datetime.fromisoformat(stamp.strip()).timestamp()
            messages.append(Traced(match.group(1) == "sent", text, at))
    return messages


@dataclass(frozen=True, slots=True)
class Counts:
    """What SIPp counted in one run."""

    successful: int
    failed: int
    retransmissions: int


def read_counts(path: Path) -> Counts:
    """The last line of a ``-trace_stat`` file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    if not rows:
        raise LabError(f"SIPp wrote no statistics to {path}")
    last = rows[-1]
    return Counts(int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"]), int(last["Retransmissions(C)"]))


def scenario(name: str) -> Path:
    """A shipped scenario."""
    return share("sipp_scenarios", f"{name}.xml")


def _command(
    file: Path, folder: Path, label: str, port: int, address: str, keys: Mapping[str, str], *, trace: bool
) -> list[str]:
    command = [find_program("sipp"), "-sf", str(file), "-i", address, "-p", str(port), "-nostdin"]
    command += ["-trace_stat", "-stf", str(folder / f"{label}.csv"), "-fd", "1"]
    command += ["-trace_err", "-error_file", str(folder / f"{label}.err")]
    if trace:
        command += ["-trace_msg", "-message_file", str(folder / f"{label}.msg")]
    for key, value in keys.items():
        command += ["-key", key, value]
    return command


@dataclass(frozen=True, slots=True)
class Run:
    """The outcome of a caller's run."""

    counts: Counts
    messages: list[Traced]
    errors: str


def call(
    name: str,
    folder: Path,
    target: str,
    *,
    label: str,
    address: str = LOOPBACK,
    keys: Mapping[str, str] | None = None,
    calls: int = 1,
    rate: int = 10,
    trace: bool = True,
    file: Path | None = None,
    arguments: tuple[str, ...] = (),
) -> Run:
    """Place calls and wait for their end.

    Args:
        name: of a shipped scenario.
        folder: for its files.
        target: ``host:port``.
        label: for the names of its files.
        address: source address.
        keys: values for the scenario's ``[keywords]``.
        calls: how many.
        rate: calls a second.
        trace: keep the messages.
        file: a scenario of one's own instead.
        arguments: more options for SIPp.
    """
    command = _command(file or scenario(name), folder, label, free_port(), address, keys or {}, trace=trace)
    command += ["-m", str(calls), "-r", str(rate), "-l", str(max(calls, 10)), "-recv_timeout", PATIENCE]
    command += [*arguments, target]
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT + calls / rate,
        check=False,
        text=True,
        errors="replace",
    )
    errors_file = folder / f"{label}.err"
    errors = errors_file.read_text("utf-8", "replace") if errors_file.exists() else ""
    if done.returncode not in {0, 1} or not (folder / f"{label}.csv").exists():
        raise LabError(f"SIPp ended with {done.returncode}: {errors or done.stdout[-2000:]}")
    return Run(read_counts(folder / f"{label}.csv"), read_trace(folder / f"{label}.msg"), errors)


class Caller(Server):
    """SIPp as the calling side, placing calls until it is told to end.

    Args:
        folder: for its files.
        name: of a shipped scenario.
        target: ``host:port``.
        label: for the names of its files.
        address: source address.
        keys: values for the scenario's ``[keywords]``.
        rate: calls a second.
        file: a scenario of one's own instead.
        arguments: more options for SIPp.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        target: str,
        *,
        label: str,
        address: str = LOOPBACK,
        keys: Mapping[str, str] | None = None,
        rate: int = 10,
        file: Path | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.trace = folder / f"{label}.msg"
        self._statistics, self._errors = folder / f"{label}.csv", folder / f"{label}.err"
        self._control = free_port()
        command = _command(file or scenario(name), folder, label, free_port(), address, keys or {}, trace=True)
        command += ["-ci", LOOPBACK, "-cp", str(self._control), "-r", str(rate), "-l", "1000"]
        super().__init__(label, [*command, "-recv_timeout", PATIENCE, *arguments, target], folder, {})

    def is_ready(self) -> bool:
        """See `Server.is_ready`."""
        return self._statistics.exists()

    def end(self) -> Run:
        """Place no more calls, and wait for the end of those that are under way."""
        assert self._process is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            control.sendto(b"q", (LOOPBACK, self._control))
        self._process.wait(TIMEOUT)
        errors = self._errors.read_text("utf-8", "replace") if self._errors.exists() else ""
        return Run(read_counts(self._statistics), read_trace(self.trace), errors)


class Answerer(Server):
    """SIPp as the called side, until its context ends."""

    def __init__(
        self,
        folder: Path,
        name: str = "uas_answer",
        *,
        label: str | None = None,
        keys: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.port = free_port()
        label = label or name
        self.trace = folder / f"{label}.msg"
        self.statistics = folder / f"{label}.csv"
        command = _command(scenario(name), folder, label, self.port, LOOPBACK, keys or {}, trace=True)
        super().__init__(label, [*command, *arguments], folder, {})

    def is_ready(self) -> bool:
        """See `Server.is_ready`: SIPp writes its statistics file when it listens."""
        return self.statistics.exists()

    @property
    def uri(self) -> str:
        """Where it listens."""
        return f"sip:{LOOPBACK}:{self.port}"

    def messages(self) -> list[Traced]:
        """What it saw so far."""
        return read_trace(self.trace)

    def invites(self) -> list[Traced]:
        """The INVITEs it received."""
        return [message for message in self.messages() if not message.sent and message.first_line.startswith("INVITE")]
