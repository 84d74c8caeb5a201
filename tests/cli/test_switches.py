"""``shaken check-config --freeswitch``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.switchcheck.switches import Switch, make_switch


@pytest.fixture
def switch(tmp_path: Path) -> Switch:
    """A FreeSWITCH whose environment is in a file, on the machine that runs the test."""
    root = tmp_path / "root"
    root.mkdir(0o755)
    made = make_switch(root)
    # Paths of the running machine: without a staged root they are taken as they are.
    packages = root / "opt/shaken/venv/lib/python3.11/site-packages"
    made.write("/opt/shaken/freeswitch/scripts/freeswitch.py", "import _freeswitch\n")
    made.write(
        "/environment",
        f"PYTHONPATH={packages}:{root}/opt/shaken/freeswitch/scripts\nSHAKEN_SETTINGS={root}/etc/shaken/shaken.yaml\n",
    )
    return made


@pytest.fixture
def arguments(switch: Switch) -> list[object]:
    return ["check-config", "--freeswitch", switch.folder, "--environment", switch.root / "environment",
            "--modules", switch.module.parent, "--user", "root"]  # fmt: skip


def test_a_clean_one_is_0(run: Run, run_json: Callable[..., Any], switch: Switch, arguments: list[object]) -> None:
    assert run(*arguments).stdout.splitlines() == [
        f"{switch.folder}: 0 problems, 0 warnings; nothing was changed",
        f"environment: {switch.root}/environment",
        "mod_python3 links Python 3.11",
    ]
    assert run_json(*arguments) == {
        "ok": True,
        "problems": [],
        "warnings": [],
        "configuration": str(switch.folder),
        "environment": str(switch.root / "environment"),
        "python": "3.11",
        "over_socket": False,
        "not_checked": None,
    }


def test_what_could_not_be_checked_is_said(run: Run, arguments: list[object]) -> None:
    assert "not checked: whether FreeSWITCH can read the settings: nothing says whom" in run(*arguments[:-2]).stdout
    told = run(*arguments[:-1], "no-such-user-here").stdout
    assert "not checked: whether FreeSWITCH can read the settings: there is no user no-such-user-here here" in told


def test_a_problem_is_1_and_told_with_its_place(
    run: Run, run_json: Callable[..., Any], switch: Switch, arguments: list[object]
) -> None:
    switch.action("set", "sip_stir_shaken_attest=A")
    told = run(*arguments, code=1)
    assert told.stderr.startswith(f"{switch.folder}/dialplan/more.xml:4:1: context default > extension more: sets sip_")
    assert told.stdout.startswith(f"{switch.folder}: 1 problem, 0 warnings")
    data = run_json(*arguments, code=1)
    (problem,) = data["problems"]
    assert data["ok"] is False
    assert (problem["code"], problem["line"], problem["column"]) == ("native_signing", 4, 1)
    assert problem["file"].endswith("dialplan/more.xml")


def test_a_warning_is_0(run: Run, run_json: Callable[..., Any], switch: Switch, arguments: list[object]) -> None:
    (switch.folder / "autoload_configs/python.conf.xml").unlink()
    assert run(*arguments).stderr.startswith(
        f"warning: {switch.folder}/autoload_configs/python.conf.xml: there is none"
    )
    data = run_json(*arguments)
    assert data["ok"] is True
    assert [warning["code"] for warning in data["warnings"]] == ["python_conf_missing"]


def test_what_a_terminal_might_act_on_is_shown(run: Run, switch: Switch, arguments: list[object]) -> None:
    switch.action("python", "shaken::\x9b31mx")
    switch.action("set", "sip_copy_custom_headers=\x9b[red]no")
    told = run(*arguments, code=1).stderr
    assert "\x9b" not in told
    assert "\\x9b[red]no" in told


def test_over_the_event_socket(run: Run, switch: Switch, arguments: list[object]) -> None:
    switch.write("shaken.xml", "")
    switch.action("socket", "127.0.0.1:8086/verify full")
    switch.replace("sip_profiles/external/shaken-carrier.xml", "python shaken::sign", "socket 127.0.0.1:8086/sign full")
    assert "over the event socket" in run(*arguments).stdout


def test_a_prefix_will_do(run: Run, tmp_path: Path) -> None:
    for below in ("etc/freeswitch", "conf"):
        file = tmp_path / below.replace("/", "-") / below / "freeswitch.xml"
        file.parent.mkdir(parents=True)
        file.write_text("<document/>")
        told = run("check-config", "--freeswitch", tmp_path / below.replace("/", "-"), code=1)
        assert told.stdout.startswith(f"{file.parent}: ")


def test_a_folder_that_is_no_freeswitch_is_3(run: Run, run_json: Callable[..., Any], tmp_path: Path) -> None:
    assert "there is no freeswitch.xml in" in run("check-config", "--freeswitch", tmp_path, code=3).stderr
    assert run_json("check-config", "--freeswitch", tmp_path, code=3)["ok"] is False


def test_the_options_go_together(run: Run, switch: Switch) -> None:
    assert "go with --freeswitch" in run("check-config", "--modules", switch.folder, code=2).stderr
