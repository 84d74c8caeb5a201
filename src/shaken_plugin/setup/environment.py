"""The virtual environment that the switches import the package from.

Both switches embed Debian's libpython, so that the environment must be made with
``/usr/bin/python3``; and their users must be able to read it, which they cannot below a home.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import stat
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import shaken_plugin
from shaken_plugin import __version__
from shaken_plugin.setup.machine import ENVIRONMENT, PYTHON, Machine, SetupError
from shaken_plugin.setup.steps import Case, Notes, Record, Rights, Step, digest, make_parents, remove_empty, to_make

_OLDEST = (3, 11)
"""pyproject.toml, requires-python."""


def python_version() -> str:
    """The version of Debian's Python, as it stands in the names of folders.

    Raises:
        SetupError: there is none, or it is too old.
    """
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([PYTHON, "-I", "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise SetupError(f"{PYTHON} does not run ({exc}); install it with: apt-get install python3") from exc
    version = done.stdout.strip()
    if tuple(map(int, version.split("."))) < _OLDEST:
        raise SetupError(f"{PYTHON} is Python {version}; shaken-plugin needs {'.'.join(map(str, _OLDEST))} or newer")
    return version


def site_packages(environment: str, version: str) -> str:
    """Where an environment has its packages: what goes into PYTHONPATH."""
    return f"{environment}/lib/python{version}/site-packages"


# --- The environment this runs from -----------------------------------------------------------


def unfit(machine: Machine, prefix: Path, package: Path) -> str | None:
    """Why the switches cannot use an environment, None where they can.

    Args:
        machine: knows where people live.
        prefix: the environment.
        package: the package's folder, which must lie in it.
    """
    try:
        made_with = re.search(r"^home *= *(.+)$", (prefix / "pyvenv.cfg").read_text("utf-8"), re.MULTILINE)
    except OSError:
        return f"{prefix} is not a virtual environment"
    if made_with is None or (Path(made_with[1]) / "python3").resolve() != Path(PYTHON).resolve():
        return f"{prefix} was not made with {PYTHON}, whose library the switches load"
    if not package.is_relative_to(prefix):
        return f"the package is not installed in {prefix}, it is imported from {package.parent}"
    for home in machine.homes():
        if prefix.resolve().is_relative_to(home.resolve()):
            return f"{prefix} lies in {home}, where people live and the switches' users may not look"
    return next(_closed(prefix, package), None)


def _closed(prefix: Path, package: Path) -> Iterator[str]:
    file = package / "__init__.py"
    for path in (file, *file.parents):
        found = path.stat()
        if not found.st_mode & (stat.S_IXOTH if path.is_dir() else stat.S_IROTH):
            yield f"{path} is not readable for all"
        # What the switches import, root runs, too.
        writable = found.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if found.st_gid else 0))
        if path.is_relative_to(prefix) and (found.st_uid != 0 or writable):
            yield f"{path} can be changed by others than root"


def running_unfit(machine: Machine) -> str | None:
    """Why the switches cannot use the environment this very command runs from."""
    return unfit(machine, Path(sys.prefix), Path(shaken_plugin.__file__).parent)


# --- The wheel --------------------------------------------------------------------------------


def find_wheel() -> Path | None:
    """The newest wheel of this release at hand: in a checkout's ``dist``, or where pip had it from."""
    package = Path(shaken_plugin.__file__).resolve().parent
    folders = [package.parents[1] / "dist", Path(sys.prefix).parent / "dist"]
    wheels = [wheel for folder in folders for wheel in folder.glob(f"shaken_plugin-{__version__}-*.whl")]
    if (origin := _installed_from()) is not None and origin.is_file():
        wheels.append(origin)
    return max(wheels, key=lambda wheel: wheel.stat().st_mtime, default=None)


def _installed_from() -> Path | None:
    """PEP 610: pip writes down which file a package was installed from."""
    try:
        text = importlib.metadata.distribution("shaken-plugin").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    url = urllib.parse.urlsplit(str(json.loads(text or "{}").get("url", "")))
    path = Path(urllib.parse.unquote(url.path))
    return path if url.scheme == "file" and path.suffix == ".whl" else None


# --- Making one -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MakeEnvironment(Step):
    """A virtual environment with the package in it."""

    kind: ClassVar[str] = "environment"
    subject: str
    wheel: Path
    version: str
    """Of Python."""

    @property
    def what(self) -> str:
        """See `Step.what`."""
        return f"make the virtual environment {self.subject} with {PYTHON}, and install {self.wheel} and what it needs"

    def _packages(self, machine: Machine) -> Path:
        return machine.at(site_packages(self.subject, self.version))

    def is_done(self, case: Case) -> bool:
        """See `Step.is_done`."""
        installed = (self._packages(case.machine) / "shaken_plugin" / "__init__.py").exists()
        return (
            installed
            and case.record is not None
            and bool(case.record.after["wheel"] == digest(self.wheel.read_bytes()))
        )

    def before(self, case: Case) -> Notes:
        """See `Step.before`."""
        return {"existed": case.machine.at(self.subject).exists(), "made": to_make(case.machine, self.subject)}

    def after(self, case: Case) -> Notes:  # noqa: ARG002  # the same on every machine
        """See `Step.after`."""
        return {"wheel": digest(self.wheel.read_bytes())}

    def do(self, case: Case) -> None:
        """See `Step.do`."""
        path = case.machine.at(self.subject)
        make_parents(case.machine, path)
        # Debian's own packages may have brought another Python since; its folder has another name.
        clear = ["--clear"] if path.exists() and not self._packages(case.machine).exists() else []
        try:
            case.machine.run([PYTHON, "-I", "-m", "venv", *clear, str(path)])
        except SetupError as exc:
            raise SetupError(f"{exc}\nIf ensurepip is missing: apt-get install python3-venv") from exc
        # Isolated: neither a PYTHONPATH nor the folder we stand in may shine through.
        install = [str(path / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--no-input"]
        install += ["--disable-pip-version-check", "--root-user-action=ignore"]
        try:
            case.machine.run([*install, str(self.wheel)])
            # pip takes the same version for the same wheel.
            case.machine.run([*install, "--no-deps", "--force-reinstall", str(self.wheel)])
        except SetupError as exc:
            raise SetupError(
                f"{exc}\nWithout a package index: set PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder of wheels"
            ) from exc
        if case.machine.staged:
            _relocate(path, self.subject)

    @classmethod
    def undo(cls, case: Case) -> str | None:
        """See `Step.undo`."""
        path = case.machine.at(case.noted.subject)
        if case.noted.before["existed"] and Rights.of(path):
            return "it was there before"
        if Rights.of(path):
            shutil.rmtree(path)
        remove_empty(*map(case.machine.at, case.noted.before["made"]))
        return None


def _relocate(path: Path, subject: str) -> None:
    """Take the staging folder out of an environment's scripts; they name their interpreter."""
    for file in (path / "pyvenv.cfg", *(path / "bin").iterdir()):
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            if (moved := content.replace(str(path).encode(), subject.encode())) != content:
                mode = file.stat().st_mode
                file.write_bytes(moved)
                file.chmod(mode)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which environment the switches will use."""

    prefix: str
    step: MakeEnvironment | None
    """How it comes about, None where it is there."""
    remark: str | None = None


def choose(machine: Machine, version: str, given: str | None, wheel: Path | None, record: Record | None) -> Choice:
    """Find the environment to use, or how to make one.

    Args:
        machine: where.
        version: of Python.
        given: an environment that somebody keeps ready.
        wheel: a wheel to install, instead of one that lies at hand.
        record: of the environment an earlier run made.

    Raises:
        SetupError: the one that was given cannot be used; or there is no wheel.
    """
    if given is not None:
        package = Path(site_packages(given, version)) / "shaken_plugin"
        if not machine.staged and (why := unfit(machine, Path(given), package)):
            raise SetupError(f"the environment that was given cannot be used: {why}")
        return Choice(given, None)
    if wheel is None and not machine.staged:
        why = running_unfit(machine)
        if why is None:
            return Choice(sys.prefix, None)
    else:
        why = None
    if wheel is not None and not wheel.name.startswith(f"shaken_plugin-{__version__}-"):
        raise SetupError(f"{wheel.name} is not release {__version__} of shaken-plugin, which this command belongs to")
    wheel = wheel or find_wheel()
    if wheel is None:
        if record is not None and record.finished:
            return Choice(ENVIRONMENT, None, f"there is no wheel at hand; {ENVIRONMENT} stays as it is")
        reason = f"the switches cannot use the environment this runs from: {why}" if why else "nothing to install"
        raise SetupError(
            f"{reason}. One is to be made in {ENVIRONMENT}, but there is no wheel of release {__version__} to install: "
            "build it with 'make wheel' in the checkout, or name one with --wheel FILE"
        )
    return Choice(ENVIRONMENT, MakeEnvironment(ENVIRONMENT, wheel.resolve(), version), why)
