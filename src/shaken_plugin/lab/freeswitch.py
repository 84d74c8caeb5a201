"""A real FreeSWITCH for tests and the laboratory: found, not built; own instances on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from xml.sax.saxutils import quoteattr

from shaken_plugin.lab.servers import (
    LOOPBACK,
    STOP_TIMEOUT,
    AgentServer,
    LabError,
    Server,
    answers_sip,
    free_port,
    share,
)

PREFIX: Final = "FREESWITCH_PREFIX"
"""Environment variable with the folder a FreeSWITCH was installed in."""

_MODULES: Final = (
    "mod_console",
    "mod_logfile",
    "mod_commands", "mod_dptools", "mod_dialplan_xml", "mod_loopback", "mod_tone_stream",
    "mod_event_socket", "mod_sofia",
)  # fmt: skip

_SWITCH: Final = {
    "max-sessions": "2000",
    "sessions-per-second": "1000",
    "loglevel": "info",
    "rtp-start-port": "16384",
    "rtp-end-port": "19998",  # below those that `free_port` gives
}
_CONSOLE: Final = (
    '<mappings><map name="all" value="console,crit,alert"/></mappings>'
    '<settings><param name="colorize" value="false"/><param name="loglevel" value="crit"/></settings>'
)

# Not by way of the console, which goes through a buffer where its output is a file.
_LOG: Final = (
    '<settings><param name="rollover" value="0"/></settings><profiles><profile name="default"><settings>'
    '<param name="rollover" value="0"/></settings><mappings>'
    '<map name="all" value="console,info,notice,warning,err,crit,alert"/></mappings></profile></profiles>'
)

HOOK: Final = "execute_on_originate_shaken"
"""The variable that has an application run on each leg that leaves, before its INVITE."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the functions get into FreeSWITCH: what stands in the dialplan, and on a gateway.

    ``sign``, ``verify`` and ``pass_through`` are dialplan actions; ``hook`` is the variable of a
    gateway, or of all, that has each leaving leg signed; ``application`` what it executes.
    """

    name: str
    sign: str
    verify: str
    pass_through: str
    application: str
    python: bool = True

    @property
    def hook(self) -> str:
        """A gateway's variable."""
        value = quoteattr(self.application)
        return f'<variable name="{HOOK}" value={value} direction="outbound"/>'

    @classmethod
    def mod_python3(cls) -> Way:
        """In the switch's own process."""

        def action(function: str) -> str:
            return f'<action application="python" data="shaken::{function}"/>'

        sign, verify, pass_through = map(action, ("sign", "verify", "pass_through"))
        return cls("mod_python3", sign, verify, pass_through, "python shaken::sign")

    @classmethod
    def esl(cls, port: int) -> Way:
        """In the agent that listens on this port of loopback."""

        def action(function: str) -> str:
            return f'<action application="socket" data="{LOOPBACK}:{port}/{function} full"/>'

        sign, verify, pass_through = map(action, ("sign", "verify", "pass_through"))
        return cls("esl", sign, verify, pass_through, f"socket {LOOPBACK}:{port}/sign full", python=False)


def find_freeswitch() -> Path:
    """The folder a FreeSWITCH is installed in, with ``bin/freeswitch`` or ``usr/bin`` beneath it.

    Raises:
        LabError: none is found; says how to name one.
    """
    if prefix := os.environ.get(PREFIX):
        if (Path(prefix) / "bin" / "freeswitch").exists():
            return Path(prefix)
        raise LabError(f"{PREFIX}={prefix} has no bin/freeswitch")
    if program := shutil.which("freeswitch"):
        return Path(program).resolve().parents[1]
    raise LabError(f"no FreeSWITCH: not on PATH, and {PREFIX} does not name the folder of one")


def module_folder(prefix: Path) -> Path:
    """The folder with the modules of a FreeSWITCH.

    Raises:
        LabError: there is none, or mod_python3 is not in it.
    """
    for folder in (prefix / "lib/freeswitch/mod", prefix / "mod"):
        if (folder / "mod_sofia.so").exists():
            return folder
    raise LabError(f"no folder with mod_sofia.so in {prefix}")


class FreeSwitchServer(Server):
    """A FreeSWITCH with two profiles, one to the inside and one to the outside.

    Calls that come in from the inside go to ``outside_peer`` by the gateway ``carrier``, then to
    ``outside_peer_2``; calls from the outside go to ``inside_peer``.

    Args:
        name: for its log.
        folder: scratch folder of its own.
        settings: the plugin's settings file; None for a FreeSWITCH without the plugin.
        inside_peer: ``host:port``.
        outside_peer: likewise.
        outside_peer_2: a route to fail over to.
        from_inside: dialplan actions before the bridge to the outside.
        from_outside: dialplan actions before the bridge to the inside.
        hook: variables of the gateway.
        dialplan: extensions of one's own before those, for both contexts: ``{"inside": …, "outside": …}``.
        directory: domains with users.
        profile: further parameters of both profiles.
        sofia: parameters of mod_sofia as a whole (``global_settings``).
        gateway: further parameters of the gateway ``carrier``.
        gateways: more of them, by name, with what differs from it.
        variables: global variables.
        python: load mod_python3.
        python_path: a folder with modules that come first.
        agent: serves its calls, where that is not done in its own process.
        without: modules that are not loaded.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: Path | None,
        *,
        inside_peer: str = f"{LOOPBACK}:9",
        outside_peer: str = f"{LOOPBACK}:9",
        outside_peer_2: str | None = None,
        from_inside: str = "",
        from_outside: str = "",
        hook: str = "",
        dialplan: Mapping[str, str] | None = None,
        directory: str = "",
        profile: Mapping[str, str] | None = None,
        sofia: Mapping[str, str] | None = None,
        gateway: Mapping[str, str] | None = None,
        gateways: Mapping[str, Mapping[str, str]] | None = None,
        variables: Mapping[str, str] | None = None,
        python: bool = True,
        python_path: Path | None = None,
        agent: AgentServer | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.prefix = find_freeswitch()
        modules = module_folder(self.prefix)
        if python and not (modules / "mod_python3.so").exists():
            raise LabError(f"{modules} has no mod_python3.so; build FreeSWITCH with languages/mod_python3")
        self.inside_port, self.outside_port, self.event_port = free_port(), free_port(), free_port()
        self._agent = agent
        self._password = "lab"  # of an event socket on loopback
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("conf", "log", "db", "run", "scripts", "temp"):
            (folder / part).mkdir(exist_ok=True)
        bridge = "sofia/gateway/carrier/$1"
        if outside_peer_2:
            bridge += f"|sofia/outside/$1@{outside_peer_2}"
        contexts = {
            "inside": _context("inside", (dialplan or {}).get("inside", ""), from_inside, bridge),
            "outside": _context(
                "outside", (dialplan or {}).get("outside", ""), from_outside, f"sofia/inside/$1@{inside_peer}"
            ),
        }
        carrier = {
            "username": "none",
            "password": "none",
            "realm": LOOPBACK,
            "register": "false",
            "caller-id-in-from": "true",
            "proxy": outside_peer,
        }
        carriers = "".join(
            f'<gateway name="{name}">{_params(carrier | dict(parameters))}<variables>{hook}</variables></gateway>'
            for name, parameters in {"carrier": gateway or {}, **(gateways or {})}.items()
        )
        profiles = _profile("inside", self.inside_port, "", profile or {})
        profiles += _profile("outside", self.outside_port, carriers, profile or {})
        control = {"listen-ip": LOOPBACK, "listen-port": str(self.event_port), "password": self._password}
        warm_up = {"startup-script": "shaken"} if settings and python else {}
        modules_to_load = [name for name in (*_MODULES, *(["mod_python3"] if python else [])) if name not in without]
        configurations = {
            "switch.conf": f"<settings>{_params(_SWITCH)}</settings>",
            "modules.conf": f"<modules>{_loads(modules_to_load)}</modules>",
            "console.conf": _CONSOLE,
            "logfile.conf": _LOG,
            "event_socket.conf": f"<settings>{_params(control)}</settings>",
            "python.conf": f"<settings>{_params(warm_up)}</settings>",
            "acl.conf": "<network-lists/>",
            "sofia.conf": f"<global_settings>{_params(sofia or {})}</global_settings><profiles>{profiles}</profiles>",
        }
        (folder / "conf" / "freeswitch.xml").write_text(
            '<?xml version="1.0"?>\n<document type="freeswitch/xml">\n'
            + "".join(_global(key, value) for key, value in (variables or {}).items())
            + f'<section name="configuration">{_configurations(configurations)}</section>\n'
            + f'<section name="dialplan">{"".join(contexts.values())}</section>\n'
            + f'<section name="directory">{directory}</section>\n</document>\n'
        )
        command = [str(self.prefix / "bin" / "freeswitch"), "-nf", "-nc", "-nonat", "-nosql", "-mod", str(modules)]
        for part in ("conf", "log", "db", "run", "scripts", "temp"):
            command += [f"-{part}", str(folder / part)]
        first = [str(python_path)] if python_path else []
        paths = [
            *first,
            str(share("freeswitch", "scripts")),
            *(path for path in sys.path if path.endswith("site-packages")),
        ]
        super().__init__(
            name,
            command,
            folder,
            {
                "LD_LIBRARY_PATH": str(self.prefix / "lib"),
                "PYTHONPATH": os.pathsep.join(paths),
                **({"SHAKEN_SETTINGS": str(settings)} if settings is not None else {}),
            },
        )

    def log_text(self) -> str:
        """See `Server.log_text`: the switch's own log, what went to its console, and the log of its agent."""
        log = self.folder / "log" / "freeswitch.log"
        text = super().log_text() + (log.read_text("utf-8", "replace") if log.exists() else "")
        return text + (self._agent.log_text() if self._agent is not None else "")

    def is_ready(self) -> bool:
        """See `Server.is_ready`: its modules are loaded in order, and then both profiles answer."""
        return answers_sip(self.inside_port) and answers_sip(self.outside_port) and self.api("status") is not None

    def api(self, command: str) -> str | None:
        """The answer to an API command; None where nobody answers yet."""
        try:
            with (
                socket.create_connection((LOOPBACK, self.event_port), STOP_TIMEOUT) as client,
                client.makefile("rb") as file,
            ):
                _read(file)
                client.sendall(f"auth {self._password}\n\n".encode())
                _read(file)
                client.sendall(f"api {command}\n\n".encode())
                return _read(file)
        except (OSError, ValueError):
            return None

    def counters(self) -> dict[str, int]:
        """The plugin's counters."""
        if self._agent is not None:
            return self._agent.counters()
        return dict(json.loads(self.api("python shaken status") or "{}"))

    def version(self) -> str:
        """What it says of itself."""
        done = subprocess.run(
            [*self._command[:1], "-version"], env=self._environment, capture_output=True, text=True, check=False
        )
        match = re.search(r"FreeSWITCH version: (\S+)", done.stdout)
        return match[1] if match else done.stdout.strip()


def _read(file: BinaryIO) -> str:
    """One message of the event socket: its body, or else its Reply-Text."""
    headers: dict[str, str] = {}
    while line := file.readline().decode("utf-8", "replace").rstrip("\n"):
        name, _, value = line.partition(": ")
        headers[name] = value
    if not headers:
        raise ValueError("closed")
    if length := int(headers.get("Content-Length", "0")):
        return str(file.read(length).decode("utf-8", "replace"))
    return headers.get("Reply-Text", "")


def _params(values: Mapping[str, str]) -> str:
    return "".join(f"<param name={quoteattr(name)} value={quoteattr(value)}/>" for name, value in values.items())


def _loads(modules: Sequence[str]) -> str:
    return "".join(f"<load module={quoteattr(name)}/>" for name in modules)


def _global(name: str, value: str) -> str:
    return f'<X-PRE-PROCESS cmd="set" data={quoteattr(f"{name}={value}")}/>\n'


def _configurations(contents: Mapping[str, str]) -> str:
    return "".join(f'<configuration name="{name}">{content}</configuration>\n' for name, content in contents.items())


def _context(name: str, first: str, actions: str, bridge: str) -> str:
    last = f'{actions}<action application="bridge" data="{bridge}"/>'
    condition = f'<condition field="destination_number" expression="^(.+)$">{last}</condition>'
    return f'<context name="{name}">{first}<extension name="all">{condition}</extension></context>\n'


def _profile(name: str, port: int, gateways: str, more: Mapping[str, str]) -> str:
    parameters = {
        "sip-ip": LOOPBACK,
        "rtp-ip": LOOPBACK,
        "sip-port": str(port),
        "context": name,
        "dialplan": "XML",
        "auth-calls": "false",
        "parse-all-invite-headers": "true",
        "codec-prefs": "PCMU",
        "manage-presence": "false",
        # Without RTP, as in SIPp's scenarios, a BYE would stall for 5 s.
        "rtp-timer-name": "soft",
        **more,
    }
    return f'<profile name="{name}"><gateways>{gateways}</gateways><settings>{_params(parameters)}</settings></profile>'
