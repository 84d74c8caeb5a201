"""What ships with the package for a machine: scripts, examples, units, samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shaken_plugin.lab.servers import share
from shaken_plugin.setup.machine import SetupError

SWITCHES: Final = ("kamailio", "freeswitch")
"""The switches, which are also the names of their users in the packages people take."""


def shipped() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The folders of scripts and examples that ship, with their files.

    Raises:
        SetupError: the package came without them.
    """
    found = False
    for name in (*SWITCHES, "examples"):
        # A wheel has them inside the package, a checkout beside it.
        folders = (share(name), share().parents[2] / name)
        folder = next((folder for folder in folders if folder.is_dir()), None)
        if folder is not None:
            yield from _files_below(folder, name)
            found = True
    if not found:
        raise SetupError(f"the scripts are missing from the package ({share()}); install it anew from its wheel")


def _files_below(folder: Path, name: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    if files := {path.name: path.read_bytes() for path in entries if path.is_file()}:
        yield name, files
    for path in entries:
        if path.is_dir():
            yield from _files_below(path, f"{name}/{path.name}")


def shipped_units() -> dict[str, bytes]:
    """The systemd units that ship.

    Raises:
        SetupError: the package came without them.
    """
    folders = (share("systemd"), share().parents[2] / "systemd")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise SetupError(f"the units are missing from the package ({share()}); install it anew from its wheel")
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.service"))}


def samples() -> dict[str, bytes]:
    """Samples of the settings and the policy file."""
    folder = Path(__file__).parent / "samples"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.yaml"))}
