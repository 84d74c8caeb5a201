"""What has to be done on this machine, from what it has and what is wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import PATH_VARIABLE, pairs_in, parse_settings, sound_settings
from shaken_plugin.errors import FileProblems
from shaken_plugin.setup.accounts import AddToGroup, CreateGroup, CreateUser
from shaken_plugin.setup.environment import MakeEnvironment, choose, python_version, site_packages
from shaken_plugin.setup.files import DropIn, MakeLink, PutFiles
from shaken_plugin.setup.folders import OPEN, READ, SHARED, CreateDatabase, MakeFolder, SetRights
from shaken_plugin.setup.freeswitch import Layout, installed
from shaken_plugin.setup.machine import (
    CALLS,
    CERTIFICATES,
    COMMAND,
    DATA,
    DATABASE,
    ENVIRONMENT,
    GROUP,
    KEYS,
    LEDGER,
    PRODUCT,
    SETTINGS,
    STATE,
    USER,
    Machine,
    SetupError,
)
from shaken_plugin.setup.manifest import Manifest, is_done
from shaken_plugin.setup.shipped import SWITCHES, samples, shipped, shipped_units
from shaken_plugin.setup.steps import Case, Step
from shaken_plugin.setup.units import Service, start_with_all_groups
from shaken_plugin.setup.variables import SetVariables, assigned

_DEFAULTS: Final = "/etc/default/kamailio"
_MORE_DEFAULTS: Final = "/etc/default/kamailio.d"
_DROP_INS: Final = "/etc/systemd/system/freeswitch.service.d"
_DROP_IN: Final = "shaken.conf"
SCRIPTS: Final = f"{PRODUCT}/freeswitch/scripts"
"""Has ``shaken.py``, which the dialplan's ``python shaken::…`` names."""

_UNITS: Final = "/etc/systemd/system"
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "ceph", "afs", "lustre", "gfs2", "ocfs2"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.ceph", "fuse.rclone"}
)
"""File systems on which SQLite's documentation forbids WAL, or that more than one machine mounts."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the person who runs setup wants beside the usual."""

    wheel: Path | None = None
    environment: str | None = None
    users: tuple[str, ...] = ()
    """Further users that a switch runs as."""
    freeswitch: Path | None = None
    """Prefix or configuration folder of a FreeSWITCH, where it is not that of the packages."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, by what is to become of them, and what people should know."""

    todo: list[Step] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    listed: list[Step] = field(default_factory=list)
    """Steps about accounts of a staged tree: for whoever finishes it."""
    remarks: list[str] = field(default_factory=list)
    switches: tuple[str, ...] = ()
    environment: str = ENVIRONMENT
    freeswitch: Layout | None = None
    """The FreeSWITCH that was found."""


def make_plan(machine: Machine, manifest: Manifest, options: Options) -> Plan:
    """The plan for a machine. Nothing is changed.

    Raises:
        SetupError: something needed is missing, or in the way.
    """
    _refuse_network_disks(machine)
    remarks: list[str] = []
    layout = installed(machine, options.freeswitch)
    switches = tuple(
        name for name in SWITCHES if machine.user(name) is not None or (name == "freeswitch" and layout is not None)
    )
    remarks += [f"there is no user {name} here: {name} is left out" for name in SWITCHES if name not in switches]
    remarks += _about_freeswitch(machine, layout, options) if "freeswitch" in switches else []
    for name in options.users:
        if machine.user(name) is None:
            raise SetupError(f"there is no user {name} here; --user names one that a switch runs as")
    steps, environment = _steps(machine, manifest, options, switches, remarks)
    plan = Plan(remarks=remarks, switches=switches, environment=environment, freeswitch=layout)
    for step in steps:
        remarks += step.remarks(Case(machine, manifest.get(step)))
        if step.accounts and machine.staged:
            plan.listed.append(step)
        elif is_done(step, machine, manifest):
            plan.done.append(step)
        else:
            plan.todo.append(step.narrowed(Case(machine, manifest.get(step))))
    return plan


def _steps(
    machine: Machine, manifest: Manifest, options: Options, switches: Sequence[str], remarks: list[str]
) -> tuple[list[Step], str]:
    version = python_version()
    earlier = next((record for record in manifest.records if record.kind == MakeEnvironment.kind), None)
    choice = choose(machine, version, options.environment, options.wheel, earlier)
    if choice.remark:
        remarks.append(choice.remark)
    members = [*(name for name in switches if machine.user(name) is not None), *options.users]
    user, group = machine.user(USER), machine.group(GROUP)
    if user is not None and (group is None or user.gid != group.gid):
        members.append(USER)
    steps: list[Step] = [CreateGroup(), CreateUser(), *map(AddToGroup, members)]
    steps += [
        MakeFolder(PRODUCT, OPEN, None, "the program and scripts"),
        MakeFolder(SETTINGS, READ, GROUP, "settings and records, which the switches may read"),
        MakeFolder(KEYS, READ, GROUP, "keys and certificates"),
        MakeFolder(DATA, SHARED, GROUP, "the local store, to which the switches and the command write"),
        MakeFolder(CERTIFICATES, SHARED, GROUP, "certificates of other signers"),
        MakeFolder(CALLS, SHARED, GROUP, "records of calls on their way into the ledger"),
    ]
    steps += [choice.step] if choice.step else []
    steps.append(MakeLink(COMMAND, f"{choice.prefix}/bin/shaken"))
    steps += [PutFiles(f"{PRODUCT}/{name}", files, "scripts and examples") for name, files in shipped()]
    steps.append(PutFiles(SETTINGS, samples(), "samples, where there are none", secret=True, update=False))
    settings = _settings(machine, remarks)
    rights = _rights(machine, settings, remarks)
    steps += [rights] if rights else []
    steps += _databases(settings, remarks)
    if members or switches:
        steps.append(DropIn(_UNITS, shipped_units(), "the unit of the agent, which downloads certificates"))
    python_path = site_packages(choice.prefix, version)
    if "kamailio" in switches:
        steps.append(SetVariables(_DEFAULTS, _variables(python_path)))
        remarks += _overridden(machine)
    if "freeswitch" in switches:
        steps.append(_drop_in(machine, python_path, remarks))
    return steps, choice.prefix


def _variables(python_path: str) -> dict[str, str]:
    return {"PYTHONPATH": python_path, PATH_VARIABLE: f"{SETTINGS}/shaken.yaml"}


# --- What is there ----------------------------------------------------------------------------


def _settings(machine: Machine, remarks: list[str]) -> Settings | None:
    """The settings that are there, as far as they are sound."""
    path = machine.at(f"{SETTINGS}/shaken.yaml")
    try:
        if not path.exists():
            return None
        settings, document = parse_settings(path)
    except (FileProblems, OSError):
        remarks.append(f"{path} cannot be read now; which keys and which store it names is not known")
        return None
    if settings is None:
        remarks.append(f"{path} has mistakes; see: shaken check-config --settings {path}")
    return settings or sound_settings(document)


def _rights(machine: Machine, settings: Settings | None, remarks: list[str]) -> SetRights | None:
    """The step for what lies in the settings' folder already."""
    top = machine.at(SETTINGS)
    named = _named_keys(machine, settings)
    remarks += [f"{key} lies outside {SETTINGS}: its rights are left to you" for key in named if top not in key.parents]
    paths: list[str] = []
    keys: set[str] = set()
    for folder, folders, files in os.walk(top):
        for name in sorted([*folders, *files]):
            path = Path(folder) / name
            final = f"/{path.relative_to(machine.root)}"
            if path.is_symlink():
                remarks.append(f"{final} is a symbolic link: the rights of what it leads to are left to you")
            elif final != KEYS:
                paths.append(final)
                if path.is_file() and (path in named or path.parent == machine.at(KEYS) or _holds_key(path)):
                    keys.add(final)
    return SetRights(SETTINGS, tuple(paths), frozenset(keys)) if paths else None


def _named_keys(machine: Machine, settings: Settings | None) -> list[Path]:
    if settings is None:
        return []
    references = [pair.key for _, _, pair in pairs_in(settings)]
    names = [key.removeprefix("file:") for key in references if key is not None and key.startswith("file:")]
    # Relative names were made absolute where the file lies now, absolute ones are the machine's.
    return [Path(name) if Path(name).is_relative_to(machine.root) else machine.at(name) for name in names]


def _holds_key(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"PRIVATE KEY" in file.read(65_536)
    except OSError:
        return False


def _databases(settings: Settings | None, remarks: list[str]) -> Iterator[Step]:
    """The files that SQLite must not make itself; where the settings name others, they are left to people."""
    records = settings.records if settings else None
    store = settings.store if settings else None
    if records and records.folder and records.folder != CALLS:
        remarks.append(
            f"the settings keep records of calls in {records.folder}, not in {CALLS}: give that folder 2770 and "
            f"the group {GROUP}"
        )
    ledger = (records and records.ledger) or f"sqlite:{LEDGER}"
    files = [("the store", DATABASE, store and store.path), ("the state", STATE, store and store.state)]
    if ledger.startswith("sqlite:"):
        files.append(("the ledger", LEDGER, ledger.removeprefix("sqlite:")))
    for what, usual, path in files:
        if path and path != usual:
            remarks.append(
                f"the settings keep {what} in {path}, not in {usual}: give its folder 2770 and the file 0660, "
                f"both of the group {GROUP}"
            )
        else:
            yield CreateDatabase(usual)


def _overridden(machine: Machine) -> Iterator[str]:
    """Files that Kamailio's unit reads after the one we write to, and that take PYTHONPATH away."""
    for path in sorted(machine.at(_MORE_DEFAULTS).glob("*")):
        if path.is_file() and (value := assigned(path.read_text("utf-8", "replace"), "PYTHONPATH")):
            yield f"{path} sets PYTHONPATH={value}, and is read after {_DEFAULTS}: take it out, or add ours to it"


def _about_freeswitch(machine: Machine, layout: Layout | None, options: Options) -> Iterator[str]:
    """What people should know of the FreeSWITCH that was found."""
    if layout is None:
        yield (
            "there is a user freeswitch, and no freeswitch.xml in /etc/freeswitch: name the folder with --freeswitch, "
            "and its modules are looked at"
        )
        return
    yield f"FreeSWITCH with its configuration in {layout.configuration}"
    modules = layout.module_folder
    if modules is not None and not (modules / "mod_python3.so").is_file():
        yield f"{modules} has no mod_python3.so: install freeswitch-mod-python3, or build languages/mod_python3"
    if machine.user("freeswitch") is None and not options.users:
        yield "there is no user freeswitch here: name the one that FreeSWITCH runs as with --user, unless it is root"


def _drop_in(machine: Machine, python_path: str, remarks: list[str]) -> DropIn:
    variables = _variables(f"{python_path}{os.pathsep}{SCRIPTS}")
    lines = ["# Written by 'shaken setup', which keeps it up to date; 'shaken setup --undo' removes it.", "[Service]"]
    lines += [f'Environment="{name}={value}"' for name, value in variables.items()]
    service = Service.load(machine, "freeswitch.service", without=_DROP_IN)
    if service is None:
        remarks.append(
            "there is no freeswitch.service here: start FreeSWITCH without -g, and with "
            + " ".join(f"{name}={value}" for name, value in variables.items())
        )
    else:
        if other := service.variable(machine, "PYTHONPATH"):
            remarks.append(f"freeswitch.service has PYTHONPATH={other} already: add {variables['PYTHONPATH']} to it")
        command, warning = start_with_all_groups(machine, service)
        remarks += [warning] if warning else []
        if command:
            lines += [
                "# With -g FreeSWITCH gives up every group but that one, and does not reach the local store.",
                "# This is the unit's command without it: the groups are those of the user.",
                "ExecStart=",
                f"ExecStart={command}",
            ]
    content = "\n".join([*lines, ""])
    return DropIn(_DROP_INS, {_DROP_IN: content.encode()}, "a drop-in for FreeSWITCH's unit")


def network_disk(path: Path, mounts: str) -> str | None:
    """The type of the network file system that a path lies on, None where it is on a local disk.

    Args:
        path: absolute, with symbolic links resolved.
        mounts: the text of ``/proc/self/mounts``; a later line covers an earlier one.
    """
    kinds = {Path(row[1]): row[2] for line in mounts.splitlines() if len(row := line.split()) > 2}
    kind = next((kinds[folder] for folder in (path, *path.parents) if folder in kinds), "")
    return kind if kind in _NETWORK else None


def _refuse_network_disks(machine: Machine) -> None:
    # SQLite's WAL needs memory that all who have the file open share: one machine, one disk.
    path = machine.at(DATA).resolve()
    try:
        kind = network_disk(path, Path("/proc/self/mounts").read_text("utf-8", "surrogateescape"))
    except OSError:
        return
    if kind:
        raise SetupError(f"{path} is on a network file system ({kind}); the local store must lie on a local disk")
