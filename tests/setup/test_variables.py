"""The environment variables that setup gives the switches, in files that others write to, too."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Final

import pytest

from shaken_plugin.setup.environment import python_version
from shaken_plugin.setup.variables import BEGIN, END, assigned
from tests.setup.staging import DEFAULTS, UNIT, VENV, put, setup, tree_of

# --- The environment variables ----------------------------------------------------------------

EXPECTED: Final = f"{VENV}/lib/python{python_version()}/site-packages"


@pytest.mark.parametrize(
    "content",
    [None, "", DEFAULTS, DEFAULTS.rstrip("\n"), "A=1\r\nB=2\r\n", "PYTHONPATH=/opt/theirs\n", "# \udcff latin-1\n"],
    ids=["missing", "empty", "debian", "unterminated", "crlf", "theirs", "not-utf-8"],
)
def test_the_default_file_keeps_what_is_there(root: Path, content: str | None) -> None:
    path = root / "etc/default/kamailio"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        path.chmod(0o640)
    before = tree_of(root)
    setup(root, "--yes")
    text = path.read_bytes()
    assert text.startswith((content or "").encode("utf-8", "surrogateescape"))
    if content is not None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    setup(root, "--undo", "--yes")
    assert tree_of(root) == before


def test_a_shell_that_sources_the_file_hands_the_variables_on(root: Path) -> None:
    path = put(root / "etc/default/kamailio", "PYTHONPATH='/opt/their own'\nSHM_MEMORY=128")
    assert "sets PYTHONPATH=/opt/their own already" in setup(root, "--yes").output
    seen = subprocess.run(
        ["sh", "-c", f'. "{path}"; exec env'],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"PYTHONPATH={EXPECTED}:/opt/their own\n" in seen
    assert "SHAKEN_SETTINGS=/etc/shaken/shaken.yaml\n" in seen


def test_systemd_finds_plain_assignments(root: Path) -> None:
    # systemd takes no "export NAME=value", and drops lines without "=" (systemd.exec(5)).
    setup(root, "--yes")
    block = (root / "etc/default/kamailio").read_text().partition(BEGIN)[2].partition(END)[0]
    lines = block.strip().splitlines()
    assert lines[0].startswith("#") or lines[0] == f"PYTHONPATH={EXPECTED}"
    assert [line for line in lines if "=" in line] == [
        f"PYTHONPATH={EXPECTED}",
        "SHAKEN_SETTINGS=/etc/shaken/shaken.yaml",
    ]
    assert lines[-1] == "export PYTHONPATH SHAKEN_SETTINGS"


def test_lines_written_after_ours_survive_an_undo(root: Path) -> None:
    path = put(root / "etc/default/kamailio", "A=1")
    setup(root, "--yes")
    with path.open("a") as file:
        file.write("MINE=2\n")
    assert "nothing to do" in setup(root).output
    setup(root, "--undo", "--yes")
    assert path.read_text() == "A=1\nMINE=2\n"


def test_lines_that_somebody_took_out_are_put_back_and_a_moved_environment_is_followed(root: Path) -> None:
    path = root / "etc/default/kamailio"
    setup(root, "--yes")
    whole = path.read_text()
    path.write_text(DEFAULTS)
    setup(root, "--yes")
    assert path.read_text() == whole
    setup(root, "--yes", "--venv", "/srv/other")
    assert path.read_text() == whole.replace(VENV, "/srv/other")
    assert str((root / "usr/local/bin/shaken").readlink()) == "/srv/other/bin/shaken"
    setup(root, "--undo", "--yes")
    assert path.read_text() == DEFAULTS
    assert not (root / "usr").exists()


def test_a_later_file_that_takes_the_variable_away_is_named(root: Path) -> None:
    put(root / "etc/default/kamailio.d/local", "PYTHONPATH=/elsewhere\n")
    assert "kamailio.d/local sets PYTHONPATH=/elsewhere, and is read after" in setup(root, "--dry-run").output


def test_a_link_in_the_way_is_not_followed(root: Path) -> None:
    path = root / "etc/default/kamailio"
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    assert "is not a plain file" in setup(root, "--yes", code=3).output
    assert path.with_name("elsewhere").read_text() == DEFAULTS


def test_a_command_of_somebody_else_is_left_alone(root: Path) -> None:
    theirs = put(root / "usr/local/bin/shaken", "#!/bin/sh\n", 0o755)
    assert "is somebody else's and stays" in setup(root, "--yes").output
    assert theirs.read_text() == "#!/bin/sh\n"
    setup(root, "--undo", "--yes")
    assert theirs.exists()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ('A="1 2" # why', "1 2"),
        ("#A=1", None),
        ("BA=1", None),
        ("A=", None),
        ("A='", None),
        ("A=1\nA=2", "2"),
    ],
)
def test_reading_assignments(line: str, value: str | None) -> None:
    assert assigned(line, "A") == value


# --- FreeSWITCH's unit ------------------------------------------------------------------------


def drop_in(root: Path) -> list[str]:
    return (root / "etc/systemd/system/freeswitch.service.d/shaken.conf").read_text().splitlines()


def test_freeswitch_is_started_without_the_option_that_drops_its_groups(root: Path) -> None:
    setup(root, "--yes")
    lines = drop_in(root)
    assert f'Environment="PYTHONPATH={EXPECTED}:/opt/shaken/freeswitch/scripts"' in lines
    assert 'Environment="SHAKEN_SETTINGS=/etc/shaken/shaken.yaml"' in lines
    assert lines[-2:] == ["ExecStart=", "ExecStart=/usr/bin/freeswitch -u ${USER} -ncwait ${DAEMON_OPTS}"]


def test_the_command_is_that_of_the_machines_own_drop_ins(root: Path) -> None:
    folder = root / "etc/systemd/system/freeswitch.service.d"
    put(
        folder / "10-local.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/freeswitch -u freeswitch \\\n -g freeswitch\n",
    )
    setup(root, "--yes")
    assert drop_in(root)[-1] == "ExecStart=/usr/bin/freeswitch -u freeswitch"
    setup(root, "--undo", "--yes")
    assert [path.name for path in folder.iterdir()] == ["10-local.conf"]


@pytest.mark.parametrize(
    "unit",
    [UNIT.replace(" -g ${GROUP}", ""), UNIT + "User=freeswitch\n"],
    ids=["no-group-option", "started-as-the-user"],
)
def test_a_unit_that_keeps_the_groups_is_left_as_it_is(root: Path, unit: str) -> None:
    put(root / "lib/systemd/system/freeswitch.service", unit)
    setup(root, "--yes")
    assert not any(line.startswith("ExecStart") for line in drop_in(root))


def test_a_group_that_is_not_the_users_own_is_left_to_people(root: Path) -> None:
    put(root / "etc/default/freeswitch", "GROUP=daemon\n")
    said = setup(root, "--yes").output
    assert "starts FreeSWITCH with -g daemon" in said
    assert not any(line.startswith("ExecStart") for line in drop_in(root))


def test_a_freeswitch_without_a_unit_is_told_how_to_start(root: Path) -> None:
    (root / "lib/systemd/system/freeswitch.service").unlink()
    assert "start FreeSWITCH without -g, and with PYTHONPATH=" in setup(root, "--yes").output


def test_a_pythonpath_of_the_unit_is_named(root: Path) -> None:
    put(root / "etc/default/freeswitch", "PYTHONPATH=/opt/theirs\n")
    assert "has PYTHONPATH=/opt/theirs already" in setup(root, "--dry-run").output
