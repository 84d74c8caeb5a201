"""What the machine brings: the search path of FreeSWITCH's Python, the settings file, the stack."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shaken_plugin.setup.freeswitch import Layout
from shaken_plugin.setup.machine import SETTINGS, Machine
from shaken_plugin.switchcheck.environment import Environment, stack_bytes
from shaken_plugin.switchcheck.findings import Check, Finding, at_whole

BUILT_STACK: Final = 240 * 1024
"""SWITCH_THREAD_STACKSIZE: bytes of stack of every thread that serves a call."""

_LARGEST_STACK: Final = 8 * 1024 * 1024
_PACKAGE: Final = "shaken_plugin"
_VERSIONED: Final = re.compile(r"/python(\d+\.\d+)(?:/|$)")
_LARGEST_SCRIPT: Final = 1024 * 1024


def check_start(environment: Environment) -> Iterator[Finding]:
    """Variables and limits that FreeSWITCH is started with."""
    variables, source = environment.variables, environment.source
    if home := variables.get("PYTHONHOME"):
        yield at_whole(
            Check.PYTHONHOME,
            source,
            f"PYTHONHOME={home}: mod_python3 finds no standard library, and FreeSWITCH ends at its start; take it out, "
            "PYTHONPATH is enough",
        )
    if folder := variables.get("VIRTUAL_ENV"):
        yield at_whole(
            Check.VIRTUAL_ENV,
            source,
            f"VIRTUAL_ENV={folder} is ignored; the environment's site-packages belong into PYTHONPATH",
        )
    if environment.stack is not None:
        yield from _stack(environment.stack, source)


def _stack(limit: str, source: str) -> Iterator[Finding]:
    # Measured with 1.11: threads that serve calls have their 240 KiB under every limit; threads that
    # Python starts have the limit itself, and 2 MiB where it is infinity.
    usual = "write LimitSTACK=250000, as the unit of FreeSWITCH's packages"
    try:
        size = stack_bytes(limit)
    except ValueError:
        yield at_whole(Check.STACK_LIMIT, source, f"LimitSTACK={limit} is no size; {usual}")
        return
    if size is None or size > _LARGEST_STACK:
        yield at_whole(
            Check.STACK_LIMIT,
            source,
            f"LimitSTACK={limit} gives calls nothing: their threads have 240 KiB whatever it says; "
            f"it only makes other threads larger; {usual}",
        )
    elif size < BUILT_STACK:
        yield at_whole(
            Check.STACK_LIMIT,
            source,
            f"LimitSTACK={limit} is below the 240 KiB that FreeSWITCH is built for: its main thread and threads that "
            f"Python starts have no more, and one that overflows ends the switch; {usual}",
        )


# --- The search path ------------------------------------------------------------------------------


def search_path(machine: Machine, environment: Environment, layout: Layout, version: str | None) -> list[Path]:
    """Where FreeSWITCH's Python looks for modules: PYTHONPATH, the script directory, Debian's own."""
    given = [Path(part) for part in environment.variables.get("PYTHONPATH", "").split(os.pathsep) if part]
    last = [f"/usr/local/lib/python{version}/dist-packages"] if version else []
    last.append("/usr/lib/python3/dist-packages")
    return [*map(machine.at, given), layout.script_folder, *map(machine.at, last)]


def _providers(path: list[Path], name: str) -> Iterator[Path]:
    """The files that a module of a name would be read from, in the order they are found.

    A folder with ``__init__.py`` is found before the file beside it; one without is found only if
    nothing else is.
    """
    for folder in path:
        for file in (folder / name / "__init__.py", folder / f"{name}.py"):
            if file.is_file():
                yield file


def check_path(machine: Machine, environment: Environment, layout: Layout, version: str | None) -> Iterator[Finding]:
    """The search path: our package for the right Python, our script, and the switch's module."""
    path = search_path(machine, environment, layout, version)
    source = environment.source
    value = environment.variables.get("PYTHONPATH", "")
    for part in value.split(os.pathsep):
        match = _VERSIONED.search(part)
        if match and version and match[1] != version:
            yield at_whole(
                Check.PYTHON_MISMATCH,
                source,
                f"PYTHONPATH has {part}, which is for Python {match[1]}; mod_python3 links Python {version}: make the "
                f"environment with python{version}",
            )
    if next(_providers(path, _PACKAGE), None) is None:
        has = f"PYTHONPATH={value} does" if value else "there is no PYTHONPATH, and the usual folders do"
        yield at_whole(
            Check.PACKAGE_MISSING,
            source,
            f"{has} not lead to {_PACKAGE}; set PYTHONPATH=VENV/lib/python{version or 'X.Y'}/site-packages:"
            "INSTALL/freeswitch/scripts ('shaken setup' does) and restart FreeSWITCH",
        )
    yield from _script(path, source, layout.script_folder)
    yield from _switch_module(path)


def _script(path: list[Path], source: str, scripts: Path) -> Iterator[Finding]:
    first = next(_providers(path, "shaken"), None)
    if first is None:
        yield at_whole(
            Check.SCRIPT_MISSING,
            source,
            "shaken.py is neither on PYTHONPATH nor in the script directory "
            f"{scripts}; add INSTALL/freeswitch/scripts to PYTHONPATH",
        )
    elif _PACKAGE not in _text(first):
        yield at_whole(
            Check.SCRIPT_SHADOWED, first, "it is not ours, and comes before ours; give it another name, or move it"
        )


def _switch_module(path: list[Path]) -> Iterator[Finding]:
    # The switch's own is made by SWIG and imports the module that is built into mod_python3.
    for file in _providers(path, "freeswitch"):
        if "_freeswitch" in _text(file):
            return
        what = "a package" if file.name == "__init__.py" else "a module"
        yield at_whole(
            Check.SWITCH_MODULE_SHADOWED,
            file,
            f"{what} named freeswitch that is not the switch's own: every script that says 'import freeswitch' gets "
            "this one, and calls go on unsigned; give it another name, or take its folder out of the search path",
        )


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LARGEST_SCRIPT).decode("utf-8", "replace")
    except OSError:
        return ""


# --- Settings -------------------------------------------------------------------------------------


def check_settings(machine: Machine, environment: Environment) -> Iterator[Finding]:
    """Whether the settings file is there, and the switch's user can read it."""
    name = environment.variables.get("SHAKEN_SETTINGS", f"{SETTINGS}/shaken.yaml")
    file = machine.at(name)
    try:
        file.stat()
    except PermissionError:
        return  # whoever runs the check may not look there; nothing is known
    except OSError:
        yield at_whole(
            Check.SETTINGS_MISSING, name, f"there is none ({environment.source}); write it, or set SHAKEN_SETTINGS"
        )
        return
    user = machine.user(environment.user) if environment.user else None
    if user is None or user.uid == 0:
        return
    groups = {user.gid} | (machine.groups_of(user) if environment.keeps_groups else set())
    for part in (file, *file.parents):
        if part == machine.root.parent:
            break
        if not _permits(part, user.uid, groups, directory=part != file):
            yield at_whole(
                Check.SETTINGS_UNREADABLE,
                name,
                f"user {user.name} cannot {'pass' if part != file else 'read'} {part}: put it into the group shaken "
                "('shaken setup' does), and start FreeSWITCH without -g",
            )
            return


def not_checked(machine: Machine, environment: Environment) -> str | None:
    """What cannot be told of the settings file, for people; None where all was looked at."""
    if environment.user is None:
        return "whether FreeSWITCH can read the settings: nothing says whom it runs as; name it with --user"
    if machine.user(environment.user) is None:
        return f"whether FreeSWITCH can read the settings: there is no user {environment.user} here"
    return None


def _permits(path: Path, uid: int, groups: set[int], *, directory: bool) -> bool:
    """Whether the mode of a file lets a user read it, or that of a folder lets it pass."""
    found = path.stat()
    bit = stat.S_IXOTH if directory else stat.S_IROTH
    if found.st_uid == uid:
        return bool(found.st_mode & bit << 6)
    if found.st_gid in groups:
        return bool(found.st_mode & bit << 3)
    return bool(found.st_mode & bit)
