"""The virtual environment, and what ships with the package."""

from __future__ import annotations

import ast
import base64
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

import shaken_plugin
from shaken_plugin import __version__
from shaken_plugin.cli import main
from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.config.settings import parse_settings
from shaken_plugin.setup import Machine
from shaken_plugin.setup import environment as environments
from shaken_plugin.setup.environment import MakeEnvironment, find_wheel, python_version, unfit
from shaken_plugin.setup.machine import DATABASE, PYTHON
from shaken_plugin.setup.routing import KEMI, NATIVE
from shaken_plugin.setup.shipped import shipped
from shaken_plugin.setup.steps import Case, Record
from tests.setup.staging import put, setup, tree_of

# --- The environment --------------------------------------------------------------------------


def tiny_wheel(folder: Path, text: str = "") -> Path:
    """A wheel that bears our name and needs nothing, with a command."""
    name = f"shaken_plugin-{__version__}"
    info = f"{name}.dist-info"
    files = {
        "shaken_plugin/__init__.py": f"__version__ = {__version__!r}\ndef main(): print({text!r})\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: shaken-plugin\nVersion: {__version__}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nshaken = shaken_plugin:main\n",
    }
    digests = {
        path: base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        for path, content in files.items()
    }
    rows = [f"{path},sha256={digests[path]},{len(content)}" for path, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


needs_venv = pytest.mark.skipif(
    subprocess.run([PYTHON, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode != 0,
    reason=f"{PYTHON} cannot make virtual environments (python3-venv is not installed)",
)


@needs_venv
def test_an_environment_is_made_renewed_and_removed(root: Path, tmp_path: Path) -> None:
    before = tree_of(root)
    wheel = tiny_wheel(tmp_path / "dist", "first")
    arguments = ["setup", "--root", str(root), "--yes", "--wheel", str(wheel)]
    old = os.umask(0o077)
    try:
        result = CliRunner().invoke(main, arguments)
    finally:
        os.umask(old)
    assert result.exit_code == 0, result.output
    folder = root / "opt/shaken/venv"
    for path in (folder, *folder.rglob("*")):
        assert path.is_symlink() or path.lstat().st_mode & stat.S_IROTH, path
    script = folder / "bin/shaken"
    assert script.read_text().startswith("#!/opt/shaken/venv/bin/python")
    assert str(root) not in (folder / "pyvenv.cfg").read_text()
    packages = f"/opt/shaken/venv/lib/python{python_version()}/site-packages"
    assert f"PYTHONPATH={packages}\n" in (root / "etc/default/kamailio").read_text()
    assert "nothing to do" in CliRunner().invoke(main, arguments).output
    # The same version with another content, as a build from a checkout makes it.
    tiny_wheel(tmp_path / "dist", "second")
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert "second" in (root / packages[1:] / "shaken_plugin/__init__.py").read_text()
    assert setup(root, "--undo", "--yes").exit_code == 0
    assert tree_of(root) == before


@dataclass(frozen=True)
class Elsewhere(Machine):
    """A machine on which people live where the test says."""

    home: Path = Path("/home")

    def homes(self) -> list[Path]:
        return [self.home]


def make_environment(prefix: Path) -> Path:
    """Something that looks like an environment with the package in it."""
    put(prefix / "pyvenv.cfg", f"home = {Path(PYTHON).parent}\n")
    return put(prefix / "lib/python3/site-packages/shaken_plugin/__init__.py", "").parent


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all may enter; pytest closes its own."""
    folder = Path(tempfile.mkdtemp(prefix="shaken-setup-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which must own an environment that is used as it is")
def test_an_environment_is_used_only_where_every_switch_can_and_nobody_else_could_change_it(open_folder: Path) -> None:
    prefix = open_folder / "venv"
    package = make_environment(prefix)
    machine = Elsewhere(home=Path("/home"))
    assert unfit(machine, prefix, package) is None
    assert "where people live" in str(unfit(Elsewhere(home=open_folder), prefix, package))
    assert "is not a virtual environment" in str(unfit(machine, open_folder, package))
    assert "is not installed in" in str(unfit(machine, prefix, open_folder / "src" / "shaken_plugin"))
    (package / "__init__.py").chmod(0o600)
    assert "not readable for all" in str(unfit(machine, prefix, package))
    (package / "__init__.py").chmod(0o646)
    assert "changed by others than root" in str(unfit(machine, prefix, package))
    (package / "__init__.py").chmod(0o644)
    os.chown(package, 65_534, -1)
    assert "changed by others than root" in str(unfit(machine, prefix, package))
    put(prefix / "pyvenv.cfg", "home = /opt/python/bin\n")
    assert "was not made with /usr/bin/python3" in str(unfit(machine, prefix, package))


def test_a_wheel_of_another_release_is_refused(root: Path, tmp_path: Path) -> None:
    wheel = put(tmp_path / "shaken_plugin-0.0.1-py3-none-any.whl", "")
    result = CliRunner().invoke(main, ["setup", "--root", str(root), "--dry-run", "--wheel", str(wheel)])
    assert result.exit_code == 3
    assert f"is not release {__version__}" in result.output


def test_the_newest_wheel_of_this_release_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = put(tmp_path / "src/shaken_plugin/__init__.py", "")
    monkeypatch.setattr(shaken_plugin, "__file__", str(package))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(environments, "_installed_from", lambda: None)
    assert find_wheel() is None
    old = put(tmp_path / f"dist/shaken_plugin-{__version__}-1-py3-none-any.whl", "")
    new = put(tmp_path / f"dist/shaken_plugin-{__version__}-2-py3-none-any.whl", "")
    put(tmp_path / "dist/shaken_plugin-0.0.1-py3-none-any.whl", "")
    os.utime(old, (1, 1))
    assert find_wheel() == new


def test_without_any_wheel_it_says_how_to_get_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "find_wheel", lambda: None)
    result = CliRunner().invoke(main, ["setup", "--root", str(root), "--dry-run"])
    assert result.exit_code == 3
    assert "make wheel" in result.output
    assert "--wheel FILE" in result.output


def test_the_commands_that_make_an_environment(root: Path, tmp_path: Path) -> None:
    commands: list[list[str]] = []
    machine = Machine(root, run=lambda command: commands.append(list(command)))
    wheel = tiny_wheel(tmp_path / "dist")
    step = MakeEnvironment("/opt/shaken/venv", wheel, "3.11")
    put(root / "opt/shaken/venv/lib/python3.10/site-packages/old.py", "")
    put(root / "opt/shaken/venv/pyvenv.cfg", "")
    (root / "opt/shaken/venv/bin").mkdir()
    step.do(Case(machine, Record(step.kind, step.subject, step.what)))
    # Made anew where the distribution has brought another Python; deaf to what PYTHONPATH says.
    assert commands[0] == [PYTHON, "-I", "-m", "venv", "--clear", str(root / "opt/shaken/venv")]
    assert commands[1][:5] == [str(root / "opt/shaken/venv/bin/python"), "-I", "-m", "pip", "install"]
    assert commands[2][-3:] == ["--no-deps", "--force-reinstall", str(wheel)]


# --- What ships -------------------------------------------------------------------------------


def test_the_samples_are_sound_as_they_stand_and_with_their_examples_switched_on(tmp_path: Path) -> None:
    samples = Path(environments.__file__).parent / "samples"
    for name, parse in (("shaken.yaml", parse_settings), ("policy.yaml", parse_policy)):
        text = (samples / name).read_text("utf-8")
        switched = re.sub(
            r"^(  mode: off|(\w+): \[\])$", lambda m: f"{m[2]}:" if m[2] else "", text, flags=re.MULTILINE
        )
        switched = re.sub(r"^#( {2,}\S)", r"\1", switched, flags=re.MULTILINE)
        assert switched != text
        for content in (text, re.sub(r"^ {10,}runuser.*$", "", switched, flags=re.MULTILINE)):
            found, document = parse(put(tmp_path / name, content))
            assert found is not None, document.problems


def test_every_script_that_ships_is_put_in_place(root: Path) -> None:
    setup(root, "--yes")
    folders = dict(shipped())
    assert "shaken.py" in folders["kamailio"]
    for name, files in folders.items():
        for file, content in files.items():
            assert (root / "opt/shaken" / name / file).read_bytes() == content


def statements(text: str) -> set[str]:
    """Lines of a configuration without comments, defines and white space."""
    text = text.replace("SHAKEN_SCRIPT", '"/opt/shaken/kamailio/shaken.py"')
    lines = (re.sub(r"\s*# .*$", "", line).strip() for line in text.splitlines())
    return {line for line in lines if line and not line.startswith(("#", "}", "request_route", "branch_", "onreply_"))}


def test_the_printed_lines_are_those_of_the_shipped_examples() -> None:
    files = dict(shipped())["kamailio"]
    native = files["kamailio-native.cfg"].decode()
    printed = statements(NATIVE)
    marked = statements("\n".join(line for line in native.splitlines() if re.search(r"# shaken\b", line)))
    assert printed <= statements(native)
    calls = {call for line in marked for call in re.findall(r"\w+\(.*\);?$", line)}
    assert {call for call in calls if "shaken" in call} >= {line for line in printed if "python_exec" in line}
    assert {line for line in marked if "modparam" in line or "loadmodule" in line} <= printed
    kemi = files["kemi_routing.py"].decode()
    for call in (
        "shaken_sign(msg)",
        'shaken_verify(msg, "from_outside")',
        't_on_branch("shaken_branch")',
        't_on_reply("shaken_reply")',
    ):
        assert call in KEMI
        assert call in kemi
    assert imported(KEMI) <= imported(kemi)


def imported(script: str) -> set[str]:
    """What a script takes from us."""
    lines = [node for node in ast.parse(script).body if isinstance(node, ast.ImportFrom)]
    return {f"{line.module}.{alias.name}" for line in lines for alias in line.names}


def test_the_database_is_where_the_settings_look_for_it(tmp_path: Path) -> None:
    settings, _ = parse_settings(put(tmp_path / "shaken.yaml", "signing: {mode: off}\nverification: {mode: off}\n"))
    assert settings is not None
    assert settings.store.path == DATABASE
