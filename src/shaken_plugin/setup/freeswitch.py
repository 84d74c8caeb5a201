"""Where an installed FreeSWITCH keeps its configuration, modules and scripts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shaken_plugin.setup.machine import Machine, SetupError

PREFIX_VARIABLE: Final = "FREESWITCH_PREFIX"
"""Names the folder that FreeSWITCH was built for (``./configure --prefix``)."""

CONFIGURATION: Final = "/etc/freeswitch"
"""Of the packages."""

_BELOW: Final = (".", "etc/freeswitch", "conf")
"""Where ``freeswitch.xml`` lies below a prefix: the folder itself, FHS and the old layout."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one FreeSWITCH."""

    configuration: Path
    """Has ``freeswitch.xml``."""
    modules: tuple[Path, ...]
    """Where its modules can be; the first that exists is it."""
    scripts: tuple[Path, ...]
    """Likewise its script directory, which mod_python3 adds to the search path."""

    @property
    def module_folder(self) -> Path | None:
        """The folder of modules, None where there is none."""
        return next((folder for folder in self.modules if folder.is_dir()), None)

    @property
    def script_folder(self) -> Path:
        """The folder of scripts; it need not be there."""
        return next((folder for folder in self.scripts if folder.is_dir()), self.scripts[0])


def layout_of(machine: Machine, given: Path) -> Layout | None:
    """The FreeSWITCH whose prefix or configuration folder is given, None where there is none.

    Args:
        machine: for the packages' folders.
        given: as it lies on this machine.
    """
    configuration = next((given / name for name in _BELOW if (given / name / "freeswitch.xml").is_file()), None)
    if configuration is None:
        return None
    configuration = Path(os.path.normpath(configuration))
    up = configuration.parent
    modules = [up.parent / "lib/freeswitch/mod", up / "mod"]
    scripts = [up.parent / "share/freeswitch/scripts", up / "scripts"]
    if configuration == machine.at(CONFIGURATION):
        modules.insert(0, machine.at("/usr/lib/freeswitch/mod"))
        scripts.insert(0, machine.at("/usr/share/freeswitch/scripts"))
    return Layout(configuration, tuple(modules), tuple(scripts))


def installed(machine: Machine, given: Path | None) -> Layout | None:
    """The FreeSWITCH of a machine: the one that is named, that of the variable, or the packages'.

    Raises:
        SetupError: the one that is named is none.
    """
    if given is not None:
        found = layout_of(machine, given)
        if found is None:
            raise SetupError(f"there is no freeswitch.xml in {given}, nor in its etc/freeswitch or conf")
        return found
    prefix = os.environ.get(PREFIX_VARIABLE)
    if prefix and not machine.staged and (found := layout_of(machine, Path(prefix))):
        return found
    return layout_of(machine, machine.at(CONFIGURATION))
