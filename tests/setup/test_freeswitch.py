"""`shaken setup` for FreeSWITCH: finding it, its files, and the lines that are printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shaken_plugin.setup.freeswitch import PREFIX_VARIABLE, installed, layout_of
from shaken_plugin.setup.machine import Machine, SetupError
from shaken_plugin.setup.routing import FREESWITCH, routing_lines
from shaken_plugin.setup.shipped import shipped
from tests.setup.staging import put, setup, tree_of


def test_the_packages_freeswitch_is_found(root: Path) -> None:
    put(root / "etc/freeswitch/freeswitch.xml", "<document/>")
    (root / "usr/lib/freeswitch/mod").mkdir(parents=True)
    (root / "usr/share/freeswitch/scripts").mkdir(parents=True)
    said = setup(root, "--yes").output
    assert f"note: FreeSWITCH with its configuration in {root}/etc/freeswitch" in said
    assert "has no mod_python3.so: install freeswitch-mod-python3" in said
    assert f"shaken check-config --freeswitch {root}/etc/freeswitch" in said
    layout = installed(Machine(root), None)
    assert layout is not None
    assert layout.module_folder == root / "usr/lib/freeswitch/mod"
    assert layout.script_folder == root / "usr/share/freeswitch/scripts"


def test_with_mod_python3_nothing_is_said_of_it(root: Path) -> None:
    put(root / "etc/freeswitch/freeswitch.xml", "<document/>")
    put(root / "usr/lib/freeswitch/mod/mod_python3.so", "")
    assert "mod_python3.so" not in setup(root, "--dry-run").output


def test_a_user_without_a_configuration_is_told_so(root: Path) -> None:
    assert "no freeswitch.xml in /etc/freeswitch: name the folder" in setup(root, "--dry-run").output


def test_a_freeswitch_from_source_is_named(root: Path, tmp_path: Path) -> None:
    put(root / "etc/passwd", "root:x:0:0::/root:/bin/sh\nswitch:x:120:120::/:/bin/false\n")
    prefix = tmp_path / "fs"
    put(prefix / "etc/freeswitch/freeswitch.xml", "<document/>")
    plan = json.loads(setup(root, "--dry-run", "--json", "--freeswitch", str(prefix), "--user", "switch").stdout)
    assert plan["switches"] == ["freeswitch"]
    assert not any("name the one that FreeSWITCH runs as" in note for note in plan["notes"])
    assert "add the user switch to the group shaken" in [step["what"] for step in plan["steps"]]
    assert not any("add the user freeswitch" in step["what"] for step in plan["steps"])
    said = setup(root, "--dry-run", "--freeswitch", str(prefix)).output
    assert "name the one that FreeSWITCH runs as with --user" in said


def test_a_folder_without_one_is_refused(root: Path, tmp_path: Path) -> None:
    assert "there is no freeswitch.xml in" in setup(root, "--dry-run", "--freeswitch", str(tmp_path), code=3).output
    with pytest.raises(SetupError, match=r"nor in its etc/freeswitch or conf"):
        installed(Machine(root), tmp_path)


def test_the_prefix_may_be_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "fs/conf/freeswitch.xml", "<document/>")
    monkeypatch.setenv(PREFIX_VARIABLE, str(tmp_path / "fs"))
    found = installed(Machine(), None)
    assert found is not None
    assert found.configuration == tmp_path / "fs/conf"
    # A staged tree has a FreeSWITCH of its own, or none.
    assert installed(Machine(tmp_path), None) is None


@pytest.mark.parametrize(
    ("configuration", "modules", "scripts"),
    [
        ("etc/freeswitch", "lib/freeswitch/mod", "share/freeswitch/scripts"),
        ("conf", "mod", "scripts"),
    ],
)
def test_the_folders_of_a_prefix(tmp_path: Path, configuration: str, modules: str, scripts: str) -> None:
    put(tmp_path / configuration / "freeswitch.xml", "<document/>")
    (tmp_path / modules).mkdir(parents=True)
    (tmp_path / scripts).mkdir(parents=True)
    for given in (tmp_path, tmp_path / configuration):
        layout = layout_of(Machine(), given)
        assert layout is not None
        assert layout.configuration == tmp_path / configuration
        assert layout.module_folder == tmp_path / modules
        assert layout.script_folder == tmp_path / scripts


def test_the_files_are_put_in_place_and_taken_back(root: Path) -> None:
    before = tree_of(root)
    setup(root, "--yes")
    for name in ("README.md", "dialplan/shaken.xml", "sip_profiles/external/shaken-carrier.xml"):
        assert (root / "opt/shaken/freeswitch" / name).is_file()
    setup(root, "--undo", "--yes")
    assert tree_of(root) == before


def test_nothing_that_ships_hides_the_switchs_module() -> None:
    """An __init__.py in a folder called freeswitch would, once its parent is on the search path."""
    names = [(folder, name) for folder, files in shipped() for name in files if folder.startswith("freeswitch")]
    assert names
    assert not [entry for entry in names if entry[1] in {"__init__.py", "freeswitch.py"}]


def test_the_printed_lines_stand_in_the_readme() -> None:
    readme = dict(shipped())["freeswitch"]["README.md"].decode()
    lines = [line.strip() for line in FREESWITCH.splitlines() if line.startswith("    ")]
    assert len(lines) == 6
    assert [line for line in lines if line not in readme] == []
    assert list(routing_lines(("freeswitch",)).values()) == [FREESWITCH]
    # The lines marked in the shipped files are among them.
    marked = [
        line.partition("<!--")[0].strip()
        for folder, files in shipped() if folder.startswith("freeswitch")
        for content in files.values()
        for line in content.decode().splitlines() if re.search(r"<!-- shaken -->$", line)
    ]  # fmt: skip
    assert len(marked) == 3
    assert set(marked) <= set(lines)
