"""Reading a systemd unit as far as setup must know it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from shaken_plugin.setup.machine import Machine
from shaken_plugin.setup.variables import assigned

_FOLDERS: Final = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""systemd.unit(5), "Unit File Load Path": the first that has the unit wins."""


@dataclass(slots=True)
class Service:
    """The ``[Service]`` section of a unit with its drop-ins: all values of each name, in order."""

    values: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, machine: Machine, name: str, *, without: str) -> Self | None:
        """A service's settings, None where the machine has no such unit.

        Args:
            machine: where.
            name: for instance ``freeswitch.service``.
            without: the name of a drop-in to leave out, our own.
        """
        files = [machine.at(f"{folder}/{name}") for folder in _FOLDERS]
        unit = next((file for file in files if file.is_file()), None)
        if unit is None:
            return None
        service = cls()
        drop_ins = {
            file.name: file
            for folder in reversed(_FOLDERS)
            for file in machine.at(f"{folder}/{name}.d").glob("*.conf")
            if file.name != without
        }
        for file in (unit, *(drop_ins[key] for key in sorted(drop_ins))):
            for key, value in _service_lines(file.read_text("utf-8", "replace")):
                # An empty value takes back the ones before it.
                service.values[key] = [*service.values.get(key, []), value] if value else []
        return service

    def last(self, name: str) -> str | None:
        """The value in force of a setting that has one."""
        return next(reversed(self.values.get(name, [])), None)

    def variable(self, machine: Machine, name: str) -> str | None:
        """An environment variable that the unit gives the service. Files win over the unit."""
        text = "\n".join(line for value in self.values.get("Environment", []) for line in _assignments(value))
        for file in self.values.get("EnvironmentFile", []):
            path = machine.at(file.removeprefix("-"))
            if path.is_file():
                text += "\n" + path.read_text("utf-8", "replace")
        return assigned(text, name)


def _assignments(value: str) -> Iterator[str]:
    """The assignments of an ``Environment=``, which may have several, each quoted as a whole."""
    try:
        words = shlex.split(value)
    except ValueError:
        words = [value]
    for word in words:
        name, _, content = word.partition("=")
        yield f"{name}={shlex.quote(content)}"


def _service_lines(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in map(str.strip, re.sub(r"\\\n", " ", text).splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and not line.startswith(("#", ";")) and "=" in line:
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()


_GROUP_OPTION: Final = re.compile(r"\s-g\s+(\S+)")


def start_with_all_groups(machine: Machine, service: Service) -> tuple[str | None, str | None]:
    """How to start FreeSWITCH so that it keeps the groups of its user.

    Started by root as ``freeswitch -u USER -g GROUP`` it gives up every group but that one
    (change_user_group in its switch_core.c); with ``-u`` alone it takes all groups of the user.
    A unit that starts it as the user already (``User=``) needs nothing.

    Returns:
        The command line to start it with, None where the unit's is right; and what to tell people
        where it is not and cannot be put right.
    """
    commands = service.values.get("ExecStart", [])
    command = commands[-1] if commands else ""
    match = _GROUP_OPTION.search(command)
    if match is None or service.last("User"):
        return None, None
    name = match[1].strip("\"'")
    if variable := re.fullmatch(r"\$\{?(\w+)\}?", name):
        name = service.variable(machine, variable[1]) or ""
    user, group = machine.user("freeswitch"), machine.group(name)
    if len(commands) != 1 or user is None or group is None or group.gid != user.gid:
        return None, (
            f"freeswitch.service starts FreeSWITCH with -g {name or match[1]}, and then it is in no other group: "
            "it will not reach the local store. Start it without -g, or make that the first group of its user"
        )
    return " ".join(_GROUP_OPTION.sub("", command).split()), None
