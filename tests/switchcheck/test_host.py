"""mod_python3, the search path, the environment and the settings file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shaken_plugin.setup.machine import Machine
from shaken_plugin.switchcheck import Check, read_environment
from shaken_plugin.switchcheck.environment import stack_bytes
from shaken_plugin.switchcheck.modules import linked_python
from tests.switchcheck.switches import Switch, shared_library

MODULES = "autoload_configs/modules.conf.xml"
PYTHON = "autoload_configs/python.conf.xml"


# --- The module ---------------------------------------------------------------------------------


def test_the_module_is_not_loaded(switch: Switch) -> None:
    switch.replace(MODULES, '<load module="mod_python3"/>', '<!-- <load module="mod_python3"/> -->')
    assert switch.only(Check.MODULE_NOT_LOADED).problem.file == str(switch.folder / MODULES)


def test_another_list_may_load_it(switch: Switch) -> None:
    switch.replace(MODULES, '<load module="mod_python3"/>', "")
    switch.write(
        "autoload_configs/post_load_modules.conf.xml",
        '<configuration name="post_load_modules.conf">\n<modules>\n<load module="mod_python3.so"/>\n</modules>\n'
        "</configuration>\n",
    )
    assert switch.found() == {}


def test_the_module_for_python_2(switch: Switch) -> None:
    switch.replace(MODULES, "mod_python3", "mod_python")
    found = switch.found()
    assert set(found) == {Check.MODULE_PYTHON2, Check.MODULE_NOT_LOADED}
    assert found[Check.MODULE_PYTHON2].problem.line == 4


def test_the_module_is_missing(switch: Switch) -> None:
    switch.module.unlink()
    assert "freeswitch-mod-python3" in switch.only(Check.MODULE_MISSING).problem.message


def test_the_folder_of_modules_is_unknown(switch: Switch) -> None:
    switch.module.unlink()
    switch.module.parent.rmdir()
    assert "--modules" in switch.only(Check.MODULES_UNKNOWN).problem.message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/bin/sh\n",
        b"\x7fELF" + bytes(60),
        shared_library("libc.so.6"),
        shared_library("libpython3.11.so")[:200],
    ],
    ids=["empty", "a script", "a header alone", "no libpython", "cut off"],
)
def test_a_module_that_is_none(switch: Switch, content: bytes) -> None:
    switch.module.write_bytes(content)
    switch.only(Check.MODULE_UNREADABLE)


def test_every_cut_and_every_changed_byte_of_a_module_is_told_apart(tmp_path: Path) -> None:
    """A version, None, or ValueError; nothing else, whatever the bytes are."""
    whole = shared_library("libpython3.11.so.1.0")
    file = tmp_path / "x.so"
    answers = set()
    for place in range(len(whole)):
        for content in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            file.write_bytes(content)
            try:
                answers.add(linked_python(file))
            except ValueError:
                answers.add("refused")
    assert {"3.11", None, "refused"} <= answers


def test_there_is_no_python_conf(switch: Switch) -> None:
    (switch.folder / PYTHON).unlink()
    switch.only(Check.PYTHON_CONF_MISSING)


@pytest.mark.parametrize("value", ["other", "", "shakenx"])
def test_our_script_is_not_warmed_up(switch: Switch, value: str) -> None:
    switch.replace(PYTHON, 'value="shaken"', f'value="{value}"')
    switch.only(Check.WARM_UP_MISSING)


# --- Variables ----------------------------------------------------------------------------------


def test_pythonhome(switch: Switch) -> None:
    switch.environment(PYTHONHOME="/opt/shaken/venv")
    assert "PYTHONHOME=/opt/shaken/venv" in switch.only(Check.PYTHONHOME).problem.message


def test_virtual_env(switch: Switch) -> None:
    switch.environment(VIRTUAL_ENV="/opt/shaken/venv")
    switch.only(Check.VIRTUAL_ENV)


def test_there_is_no_pythonpath(switch: Switch) -> None:
    switch.environment(PYTHONPATH="")
    found = switch.found()
    assert set(found) == {Check.PACKAGE_MISSING, Check.SCRIPT_MISSING}
    assert "there is no PYTHONPATH" in found[Check.PACKAGE_MISSING].problem.message


def test_pythonpath_leads_elsewhere(switch: Switch) -> None:
    switch.environment(PYTHONPATH="/opt/other:/opt/shaken/freeswitch/scripts")
    assert "PYTHONPATH=/opt/other" in switch.only(Check.PACKAGE_MISSING).problem.message


def test_packages_of_another_python(switch: Switch) -> None:
    switch.module.write_bytes(shared_library("libpython3.13.so.1.0"))
    message = switch.only(Check.PYTHON_MISMATCH).problem.message
    assert "is for Python 3.11; mod_python3 links Python 3.13" in message


def test_the_package_may_lie_among_debians_own(switch: Switch) -> None:
    switch.environment(PYTHONPATH="/opt/shaken/freeswitch/scripts")
    switch.write("/usr/local/lib/python3.11/dist-packages/shaken_plugin/__init__.py", "")
    assert switch.found() == {}


def test_the_script_may_lie_in_the_script_directory(switch: Switch) -> None:
    script = switch.root / "opt/shaken/freeswitch/scripts/shaken.py"
    text = script.read_text()
    script.unlink()
    switch.only(Check.SCRIPT_MISSING)
    switch.write("/usr/share/freeswitch/scripts/shaken.py", text)
    assert switch.found() == {}


@pytest.mark.parametrize("name", ["shaken.py", "shaken/__init__.py"])
def test_another_script_of_that_name_comes_first(switch: Switch, name: str) -> None:
    switch.write(f"/opt/shaken/venv/lib/python3.11/site-packages/{name}", "import os\n")
    assert switch.only(Check.SCRIPT_SHADOWED).problem.file.endswith(name)


@pytest.mark.parametrize("name", ["freeswitch/__init__.py", "freeswitch.py"])
def test_another_module_hides_the_switchs_own(switch: Switch, name: str) -> None:
    switch.write(f"/opt/shaken/freeswitch/scripts/{name}", "")
    finding = switch.only(Check.SWITCH_MODULE_SHADOWED)
    assert finding.problem.file == f"{switch.root}/opt/shaken/freeswitch/scripts/{name}"


def test_one_that_comes_later_hides_nothing(switch: Switch) -> None:
    switch.write("/opt/shaken/freeswitch/scripts/freeswitch.py", "import _freeswitch\n")
    switch.write("/usr/lib/python3/dist-packages/freeswitch/__init__.py", "")
    assert switch.found() == {}


def test_a_folder_without_init_hides_nothing(switch: Switch) -> None:
    switch.write("/opt/shaken/freeswitch/scripts/freeswitch/notes.txt", "")
    assert switch.found() == {}


# --- The unit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("infinity", "gives calls nothing"),
        ("64M", "gives calls nothing"),
        ("100K", "below the 240 KiB"),
        ("much", "is no size"),
        ("8M", None),
        ("245760:infinity", None),
    ],
)
def test_the_limit_of_the_stack(switch: Switch, limit: str, said: str | None) -> None:
    switch.replace("/lib/systemd/system/freeswitch.service", "LimitSTACK=250000", f"LimitSTACK={limit}")
    if said is None:
        assert switch.found() == {}
    else:
        assert said in switch.only(Check.STACK_LIMIT).problem.message


def test_sizes_as_systemd_writes_them() -> None:
    assert [stack_bytes(text) for text in ("5", "1K", "2M", "1G", "1T", "infinity")] == [
        5, 1024, 2 << 20, 1 << 30, 1 << 40, None,
    ]  # fmt: skip


def test_there_are_no_settings(switch: Switch) -> None:
    (switch.root / "etc/shaken/shaken.yaml").unlink()
    assert switch.only(Check.SETTINGS_MISSING).problem.file == "/etc/shaken/shaken.yaml"


def test_settings_that_the_switchs_user_cannot_read(switch: Switch) -> None:
    (switch.root / "etc/shaken/shaken.yaml").chmod(0o600)
    assert "user freeswitch cannot read" in switch.only(Check.SETTINGS_UNREADABLE).problem.message


def test_a_folder_that_the_switchs_user_cannot_pass(switch: Switch) -> None:
    (switch.root / "etc/shaken").chmod(0o700)
    assert "cannot pass" in switch.only(Check.SETTINGS_UNREADABLE).problem.message


def test_with_a_group_on_its_command_line_the_switch_loses_the_others(switch: Switch) -> None:
    switch.replace("/lib/systemd/system/freeswitch.service", "-u ${USER}", "-u ${USER} -g ${USER}")
    assert "start FreeSWITCH without -g" in switch.only(Check.SETTINGS_UNREADABLE).problem.message
    (switch.root / "etc/shaken/shaken.yaml").chmod(0o644)
    assert switch.found() == {}


def test_a_switch_that_owns_the_settings_or_is_root_reads_them(switch: Switch) -> None:
    (switch.root / "etc/shaken/shaken.yaml").chmod(0o600)
    switch.replace("/lib/systemd/system/freeswitch.service", "-u ${USER} ", "")
    assert switch.found() == {}
    switch.replace("/lib/systemd/system/freeswitch.service", "[Service]\n", "[Service]\nUser=freeswitch\n")
    switch.only(Check.SETTINGS_UNREADABLE)
    switch.replace("/etc/passwd", "61234:61234", f"{os.geteuid()}:61234")
    assert switch.found() == {}


# --- Where the environment is from --------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "# comment\nexport PYTHONHOME='/a b'\nOTHER=1\nSHAKEN_SETTINGS=/x.yaml # there\nnonsense\n",
        "PYTHONHOME=/a b\0OTHER=1\0SHAKEN_SETTINGS=/x.yaml\0",
    ],
    ids=["lines", "of a process"],
)
def test_a_file_that_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "environment"
    file.write_text(content)
    found = read_environment(Machine(tmp_path), file)
    assert dict(found.variables) == {"PYTHONHOME": "/a b", "SHAKEN_SETTINGS": "/x.yaml"}
    assert found.source == str(file)


def test_a_unit_may_set_several_in_one_line(switch: Switch) -> None:
    unit = "/lib/systemd/system/freeswitch.service"
    switch.replace(unit, "[Service]\n", '[Service]\nEnvironment="VIRTUAL_ENV=/a b" OTHER=1 PYTHONHOME=/x\n')
    found = switch.found()
    assert set(found) == {Check.VIRTUAL_ENV, Check.PYTHONHOME}
    assert "VIRTUAL_ENV=/a b is" in found[Check.VIRTUAL_ENV].problem.message
    assert "PYTHONHOME=/x:" in found[Check.PYTHONHOME].problem.message


def test_quotes_that_do_not_end_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text("PYTHONPATH='/a\n")
    assert read_environment(Machine(tmp_path), file).variables == {"PYTHONPATH": "'/a"}


def test_without_a_unit_it_is_that_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/here")
    found = read_environment(Machine(tmp_path), None)
    assert found.variables["PYTHONPATH"] == "/here"
    assert "this process" in found.source
    assert found.user is None
