"""The environment in which FreeSWITCH is started: who says so, and what it says."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shaken_plugin.setup.machine import Machine
from shaken_plugin.setup.units import Service

UNIT: Final = "freeswitch.service"
NAMES: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SHAKEN_SETTINGS")
"""The variables that matter to us."""

_LARGEST: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables, and what else the start of FreeSWITCH decides."""

    source: str
    """For people: where this was read."""
    variables: Mapping[str, str] = field(default_factory=dict)
    stack: str | None = None
    """LimitSTACK of the unit as it is written, None where it says nothing."""
    user: str | None = None
    """Whom FreeSWITCH runs as, None where that is not known."""
    keeps_groups: bool = True
    """Whether it is in all groups of that user; not when it is started with ``-g``."""


def read_environment(machine: Machine, file: Path | None) -> Environment:
    """The environment from a file, from the unit of the machine, or that of this process.

    Args:
        machine: where the unit is.
        file: ``NAME=value`` a line, as in EnvironmentFile=; or ``/proc/PID/environ``.

    Raises:
        OSError: the file cannot be read.
    """
    service = Service.load(machine, UNIT, without="")
    user, keeps_groups = (None, True) if service is None else _user(machine, service)
    stack = service.last("LimitSTACK") if service else None
    if file is not None:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST).decode("utf-8", "replace")
        return Environment(str(file), _assignments(content), stack, user, keeps_groups)
    if service is not None:
        values = {name: service.variable(machine, name) for name in NAMES}
        set_ = {name: value for name, value in values.items() if value is not None}
        return Environment(f"{UNIT} with its drop-ins", set_, stack, user, keeps_groups)
    here = {name: os.environ[name] for name in NAMES if name in os.environ}
    return Environment(f"this process (there is no {UNIT} here; name a file with --environment)", here)


def _assignments(content: str) -> dict[str, str]:
    if "\0" in content:
        return {name: value for line in content.split("\0") if (name := line.partition("=")[0]) in NAMES
                for value in [line.partition("=")[2]]}  # fmt: skip
    found = {}
    for line in content.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and name in NAMES:
            try:
                found[name] = next(iter(shlex.split(value, comments=True)), "")
            except ValueError:
                found[name] = value
    return found


def _user(machine: Machine, service: Service) -> tuple[str | None, bool]:
    """Whom the unit runs FreeSWITCH as, and whether that user's groups are kept."""
    if user := service.last("User"):
        return _resolved(machine, service, user), True
    command = service.last("ExecStart") or ""
    match = re.search(r"\s-u\s+(\S+)", command)
    group = re.search(r"\s-g\s+(\S+)", command)
    return (_resolved(machine, service, match[1]) if match else "root"), group is None


def _resolved(machine: Machine, service: Service, text: str) -> str | None:
    text = text.strip("\"'")
    variable = re.fullmatch(r"\$\{?(\w+)\}?", text)
    return service.variable(machine, variable[1]) if variable else text


_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def stack_bytes(limit: str) -> int | None:
    """A LimitSTACK of systemd.exec(5) in bytes: its soft limit; None for infinity.

    Raises:
        ValueError: it is not a size.
    """
    soft = limit.split(":", maxsplit=1)[0].strip()
    if soft == "infinity":
        return None
    match = re.fullmatch(r"(\d{1,15})([KMGT]?)", soft)
    if match is None:
        raise ValueError(soft)
    return int(match[1]) * _UNITS[match[2]]
