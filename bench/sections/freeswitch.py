"""Calls bridged by FreeSWITCH: signed by us and by itself, beside a plain bridge; CPU time of one call."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import quoteattr

from elftools.elf.elffile import ELFFile

from bench import stage
from bench.phones import Phones
from bench.processes import cpu_seconds
from bench.proxies import CALLER, COLD
from bench.results import BenchError, Report, Series, Target
from bench.sections import Options, Section
from bench.servers import RECORDED, Called
from bench.workers import Measure, interleave
from shaken_plugin.lab import sipp
from shaken_plugin.lab.freeswitch import HOOK, FreeSwitchServer, Way, find_freeswitch, module_folder
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.servers import AgentServer, LabError, find_program, free_port

RATE: Final = 25
"""Calls a second; a FreeSWITCH takes some hundredth of a core's second for each."""

WARMING: Final = 30

RUNNING_IN: Final = 20
"""Calls before those of a turn, as in the section *kamailio*."""

PLAIN, NATIVE = "plain bridge", "native signing"
PYTHON, ESL = "signed by mod_python3", "signed over the event socket"
EMPTY, LEG, IDLE = "two empty scripts", "on the leg alone", "idle"
PYTHON_LEG, ESL_LEG = f"{PYTHON}, {LEG}", f"{ESL}, {LEG}"
SIGNED: Final = (PYTHON, PYTHON_LEG, ESL, ESL_LEG)
AGENTS: Final = tuple(f"{name}: the agent's" for name in (ESL, ESL_LEG))
NAMES: Final = (PLAIN, NATIVE, EMPTY, *SIGNED, *AGENTS, IDLE)

OWN_SCRIPTS: Final = Path(__file__).parents[1] / "freeswitch"


@dataclass(frozen=True, slots=True)
class Bridge:
    """A FreeSWITCH, and the agent that signs for it, if one does."""

    name: str
    server: FreeSwitchServer
    agent: AgentServer | None = None


def run(options: Options) -> Report:
    """See `Section`."""
    report = Report("freeswitch", TITLE)
    try:
        find_program("sipp")
        modules = module_folder(find_freeswitch())
    except LabError as exc:
        report.notes.append(f"not measured: {exc}")
        return report
    rounds, before, calls = (3, 0, 25) if options.quick else (8, RUNNING_IN, 100)
    with ExitStack() as stack:
        try:
            house = House(options.folder, stack)
            bridges = [house.plain()]
            if (modules / "mod_python3.so").exists():
                floor = [] if options.quick else [house.empty()]
                bridges += [*floor, house.python(), house.python(leg=True)]
            else:
                report.notes.append(f"{PYTHON} not measured: no mod_python3.so in this FreeSWITCH")
            bridges += [house.esl(), house.esl(leg=True)]
            if signs_by_itself(modules):
                bridges.append(house.native())
            else:
                report.notes.append(
                    f"{NATIVE} not measured: this FreeSWITCH's mod_sofia was built without libstirshaken"
                )
            for bridge in bridges:
                prove(house, bridge)
            report.notes.append(f"FreeSWITCH {bridges[0].server.version()}; {RATE} calls a second, no media is sent")
            stack.enter_context(house.answering())
            subjects = [*(_cost(house, one, before, calls) for one in bridges), lambda: _idle(bridges[0])]
            advance = options.begin("freeswitch", len(subjects) * rounds)
            found = interleave(subjects, rounds, advance, warm=True)
        except LabError as exc:
            raise BenchError(str(exc)) from exc
    units = {IDLE: "ms in a second"}
    report.series = [Series(name, units.get(name, "ms"), found[name]) for name in NAMES if name in found]
    for name in SIGNED:
        report.compare(name, PLAIN, rate=True, target=Target(0.90, at_least=True))
        report.compare(name, NATIVE, rate=True, target=Target(1.00, at_least=True))
    report.compare(NATIVE, PLAIN, rate=True)
    report.compare(EMPTY, PLAIN, rate=True)
    return report


def signs_by_itself(modules: Path) -> bool:
    """Whether mod_sofia is linked to libstirshaken; built without, it has the settings and does nothing."""
    with (modules / "mod_sofia.so").open("rb") as file:
        dynamic: Any = ELFFile(file).get_section_by_name(".dynamic")
        needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
    return any(name.startswith("libstirshaken") for name in needed)


class House:
    """All FreeSWITCHes, and those who call through them.

    Args:
        folder: for all files.
        stack: ends the servers.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self._authority, self._number = Authority.new(time.time()), 0
        self.called_port = free_port()
        self._folders: dict[str, Path] = {}

    def _folder(self, name: str) -> Path:
        """With a short name: the agent's socket lies in it, and such names have room for a hundred characters."""
        return self._folders.setdefault(name, self.folder / str(len(self._folders)))

    def plain(self) -> Bridge:
        """Without us: neither mod_python3 nor a line of ours."""
        return self._started(PLAIN, None, python=False)

    def empty(self) -> Bridge:
        """As with `python`, but the scripts do nothing."""
        way = Way.mod_python3()
        hook = f'<action application="export" data={quoteattr(f"nolocal:{HOOK}={way.application}")}/>'
        return self._started(EMPTY, None, from_inside=way.sign + hook, python_path=OWN_SCRIPTS)

    def python(self, *, leg: bool = False) -> Bridge:
        """Signed in the switch's own process, without an agent.

        Args:
            leg: as the gateway has it; else in the dialplan, which has the leg signed, and refuses by itself.
        """
        name = PYTHON_LEG if leg else PYTHON
        return self._started(name, self._provider(name, agent={"enabled": False}), **_where(Way.mod_python3(), leg))

    def esl(self, *, leg: bool = False) -> Bridge:
        """Signed by the agent; where, as with `python`."""
        name, port = ESL_LEG if leg else ESL, free_port()
        made = self._provider(name, agent={"esl": {"listen": f"127.0.0.1:{port}"}})
        agent = AgentServer("agent", made.folder, made.settings, made.folder / "agent.sock")
        self._stack.enter_context(agent)
        return self._started(name, made, agent, python=False, **_where(Way.esl(port), leg))

    def native(self) -> Bridge:
        """Signed by mod_sofia itself, with level A for every call; no decision, no record."""
        made = self._provider(NATIVE, agent={"enabled": False})
        key = {"stir-shaken-as-key": str(made.folder / "signing.key"), "stir-shaken-as-url": made.x5u}
        action = f'<action application="export" data={quoteattr("nolocal:sip_stir_shaken_attest=A")}/>'
        return self._started(NATIVE, None, python=False, from_inside=action, sofia=key)

    def _provider(self, name: str, **settings: Any) -> Provider:
        return stage.provider(self._folder(name) / "provider", self._authority, **settings)

    def _started(self, name: str, made: Provider | None, agent: AgentServer | None = None, **arguments: Any) -> Bridge:
        peer = f"127.0.0.1:{self.called_port}"
        server = FreeSwitchServer(
            "freeswitch",
            self._folder(name) / "switch",
            made.settings if made else None,
            inside_peer=peer,
            outside_peer=peer,
            agent=agent,
            **arguments,
        )
        self._stack.enter_context(server)
        self._stack.callback(_kill, server)
        return Bridge(name, server, agent)

    def answering(self) -> Called:
        """SIPp as the called side of all; to be entered."""
        return Called(self.folder, self.called_port)

    def phones(self) -> Phones:
        """A caller and a called party of our own, instead of SIPp."""
        return Phones(stage.TRUNK, CALLER, self.called_port)

    def call(self, bridge: Bridge, calls: int) -> sipp.Counts:
        """Place calls by SIPp."""
        self._number += 1
        keys = {"from": f"+{CALLER}", "to": f"+{stage.CALLED}", "pai_user": f"+{CALLER}"}
        return sipp.call(
            "uac_call",
            self.folder,
            f"127.0.0.1:{bridge.server.inside_port}",
            label=f"calls-{self._number}",
            address=stage.TRUNK,
            keys=keys,
            calls=calls,
            rate=RATE,
            trace=False,
        ).counts


def _where(way: Way, leg: bool) -> dict[str, Any]:
    return {"hook": way.hook} if leg else {"from_inside": way.sign}


def prove(house: House, bridge: Bridge) -> None:
    """Raise where a bridge does not do what it is measured for; afterwards it is warm.

    Raises:
        BenchError: what it did instead.
    """
    with house.phones() as phones:
        draw = random.Random(bridge.name)
        good = phones.place(bridge.server.inside_port, [""] * WARMING, RATE, draw, COLD)
    if good.lost:
        raise BenchError(f"{bridge.name}: {good.lost} of {WARMING} calls were lost\n{bridge.server.log_tail()}")
    found = {len(re.findall(rb"^(?:Identity|y): ", invite, re.MULTILINE)) for invite in good.invites}
    signs = bridge.name not in {PLAIN, EMPTY}
    if found != {int(signs)}:
        raise BenchError(f"{bridge.name}: INVITEs arrive with {found} Identity headers")
    if signs and (written := stage.levels(good.invites)) != {"A"}:
        raise BenchError(f"{bridge.name}: INVITEs arrive with the levels {sorted(written)}")
    if bridge.name == EMPTY and not ran_scripts(bridge.server.log_text(), 2 * WARMING):
        raise BenchError(f"{bridge.name}: they did not run\n{bridge.server.log_tail()}")


def ran_scripts(log: str, least: int) -> bool:
    """Whether a FreeSWITCH's log says that it ran so many scripts, and of none that it failed (mod_python3.c)."""
    failed = re.search("Error (?:importing|reloading) module|Module does not define|Error calling python script", log)
    return failed is None and log.count("Invoking py module: shaken") >= least


def _cost(house: House, bridge: Bridge, before: int, calls: int) -> Measure[str]:
    """A turn, after calls that do not count: CPU milliseconds of a call.

    Over the event socket the agent's are part of them, and told apart, too.
    """

    def place(count: int) -> None:
        counts = house.call(bridge, count)
        time.sleep(RECORDED if bridge.agent else 0.5)  # legs end, records move
        if counts.successful != count:
            raise BenchError(f"{bridge.name}: of {count} calls {counts}")

    def measure() -> Mapping[str, float]:
        if before:
            place(before)
        agent = cpu_seconds(bridge.agent.pid) if bridge.agent else 0.0
        switch = cpu_seconds(bridge.server.pid)
        place(calls)
        switch = cpu_seconds(bridge.server.pid) - switch
        if bridge.agent is None:
            return {bridge.name: switch / calls * 1e3}
        agent = cpu_seconds(bridge.agent.pid) - agent
        return {bridge.name: (switch + agent) / calls * 1e3, f"{bridge.name}: the agent's": agent / calls * 1e3}

    return measure


def _idle(bridge: Bridge) -> Mapping[str, float]:
    """What a FreeSWITCH without calls takes in a second; it is part of what its calls are said to take."""
    before = cpu_seconds(bridge.server.pid)
    time.sleep(1)
    return {IDLE: (cpu_seconds(bridge.server.pid) - before) * 1e3}


def _kill(server: FreeSwitchServer) -> None:
    """End it at once: a clean end takes it four seconds."""
    if server.running():
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)


TITLE: Final = "Calls bridged by FreeSWITCH: CPU time of one call, both legs"
SECTION: Final = Section("freeswitch", TITLE, run)
