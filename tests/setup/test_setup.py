"""`shaken setup` on a staged tree: what it says, does, keeps, and takes back. No root is needed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shaken_plugin.cli import main
from shaken_plugin.setup import Machine, Manifest, Options, SetupError, execute, make_plan, take_back
from shaken_plugin.setup.machine import Account
from shaken_plugin.setup.manifest import PLACE
from shaken_plugin.setup.steps import Record
from shaken_plugin.stores import sqlite
from tests.setup.staging import DEFAULTS, VENV, put, setup, tree_of

# --- Saying and doing -------------------------------------------------------------------------


def test_dry_run_says_everything_and_changes_nothing(root: Path) -> None:
    before = tree_of(root)
    said = setup(root, "--dry-run").output
    assert tree_of(root) == before
    for line in (
        "folder /etc/shaken with 2750 root:shaken",
        "folder /var/lib/shaken with 2770 root:shaken",
        "database /var/lib/shaken/policy.db with 0660 shaken:shaken",
        "scripts and examples into /opt/shaken/kamailio",
        "set PYTHONPATH and SHAKEN_SETTINGS in /etc/default/kamailio",
        "a drop-in for FreeSWITCH's unit",
        "create the system user shaken",
        "add the user kamailio to the group shaken",
        "add the user freeswitch to the group shaken",
    ):
        assert line in said


def test_without_a_yes_nothing_is_changed(root: Path) -> None:
    before = tree_of(root)
    assert "nothing was changed" in setup(root, code=1, stdin="n\n").output
    assert tree_of(root) == before


def test_it_does_what_it_said(root: Path) -> None:
    setup(root, stdin="y\n")
    modes = {
        "opt/shaken": 0o755,
        "opt/shaken/kamailio/shaken.py": 0o644,
        "etc/shaken": 0o2750,
        "etc/shaken/keys": 0o2750,
        "etc/shaken/shaken.yaml": 0o640,
        "etc/shaken/policy.yaml": 0o640,
        "var/lib/shaken": 0o2770,
        "var/lib/shaken/certificates": 0o2770,
        "var/lib/shaken/policy.db": 0o660,
        "var/lib/shaken-setup": 0o700,
        "var/lib/shaken-setup/manifest.json": 0o600,
        "etc/default/kamailio": 0o644,
        "etc/systemd/system/freeswitch.service.d": 0o755,
        "etc/systemd/system/freeswitch.service.d/shaken.conf": 0o644,
        "etc/systemd/system/shaken-agent.service": 0o644,
    }
    tree = tree_of(root)
    assert {path: tree[path][0] for path in modes} == modes
    assert tree["usr/local/bin/shaken"][1] == f"-> {VENV}/bin/shaken"
    assert sqlite.replace_policy(root / "var/lib/shaken/policy.db", None, None, {}).version == 1


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_does_not_matter(root: Path, umask: int) -> None:
    setup(root, "--yes", "--dry-run")
    old = os.umask(umask)
    try:
        setup(root, "--yes")
    finally:
        os.umask(old)
    modes = {path: mode for path, (mode, _) in tree_of(root).items() if "shaken" in path}
    assert modes["etc/shaken"] == 0o2750
    assert modes["opt/shaken/kamailio"] == 0o755
    assert modes["opt/shaken/kamailio/shaken.py"] == 0o644
    assert modes["var/lib/shaken/policy.db"] == 0o660


def test_a_second_run_has_nothing_to_do(root: Path) -> None:
    setup(root, "--yes")
    before = tree_of(root)
    assert "nothing to do" in setup(root).output
    assert tree_of(root) == before


def test_a_machine_without_switches_is_told_so(root: Path) -> None:
    put(root / "etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    said = setup(root, "--yes").output
    assert "no user kamailio here" in said
    assert "no user freeswitch here" in said
    assert "PYTHONPATH" not in (root / "etc/default/kamailio").read_text()
    assert not (root / "etc/systemd").exists()
    assert "add the user" not in said


def test_a_further_user_is_listed_and_must_exist(root: Path) -> None:
    put(root / "etc/passwd", "sip:x:120:120::/:/bin/false\n")
    assert "add the user sip to the group shaken" in setup(root, "--dry-run", "--user", "sip").output
    assert "no user other here" in setup(root, "--dry-run", "--user", "other", code=3).output


def test_json(root: Path) -> None:
    assert "add --yes, or --dry-run" in setup(root, "--json", code=2).output
    plan = json.loads(setup(root, "--json", "--dry-run").stdout)
    assert {step["state"] for step in plan["steps"]} == {"to do", "listed"}
    done = json.loads(setup(root, "--json", "--yes").stdout)
    assert {step["state"] for step in done["steps"]} == {"done now", "listed"}
    again = json.loads(setup(root, "--json", "--yes").stdout)
    assert {step["state"] for step in again["steps"]} == {"was so", "listed"}
    assert again["switches"] == ["kamailio", "freeswitch"]
    assert any("python_exec" in lines for lines in again["lines"].values())
    undone = json.loads(setup(root, "--json", "--yes", "--undo").stdout)
    assert all(step["kept"] is None for step in undone["steps"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who is not")
def test_without_root_it_says_what_to_do() -> None:
    def ordinary() -> None:
        result = CliRunner().invoke(main, ["setup"])
        assert result.exit_code == 3, result.output
        assert "run it as root" in result.output
        assert "--dry-run" in result.output

    Machine().as_account(Account("nobody", 65_534, 65_534), ordinary)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_what_another_user_could_not_do_is_reported(tmp_path: Path) -> None:
    def forbidden() -> None:
        (tmp_path / "file").touch()

    with pytest.raises(SetupError, match=r"as user nobody: .*Permission denied"):
        Machine().as_account(Account("nobody", 65_534, 65_534), forbidden)


# --- Taking back ------------------------------------------------------------------------------


def test_undo_restores_every_file_byte_for_byte(root: Path) -> None:
    before = tree_of(root)
    setup(root, "--yes")
    assert "All taken back" in setup(root, "--undo", "--yes").output
    assert tree_of(root) == before
    assert "nothing to undo" in setup(root, "--undo").output


def test_undo_keeps_what_a_person_changed_or_put_there(root: Path) -> None:
    before = tree_of(root)
    setup(root, "--yes")
    mine = {
        "etc/shaken/shaken.yaml": "signing: {mode: off}\nverification: {mode: off}\n",
        "etc/shaken/keys/signing.key": "-----BEGIN PRIVATE KEY-----\n",
        "opt/shaken/kamailio/kemi_routing.py": "# my own routing\n",
        "var/lib/shaken/certificates/some.pem": "a certificate\n",
    }
    for path, text in mine.items():
        put(root / path, text)
    sqlite.replace_policy(root / "var/lib/shaken/policy.db", None, None, {})
    said = setup(root, "--undo", "--yes").output
    for path, text in mine.items():
        assert (root / path).read_text() == text
    assert sqlite.read_header(root / "var/lib/shaken/policy.db").policy_version == 1
    for line in (
        "kept: database /var/lib/shaken/policy.db: it holds records",
        "kept: files /etc/shaken: somebody changed shaken.yaml",
        "kept: files /opt/shaken/kamailio: somebody changed kemi_routing.py",
        "kept: folder /etc/shaken/keys: it holds signing.key",
        "kept: folder /var/lib/shaken/certificates: it holds some.pem",
    ):
        assert line in said
    assert (root / "etc/default/kamailio").read_text() == DEFAULTS
    # When its owner has deleted it, the rest goes, too.
    for path in [*mine, *(f"var/lib/shaken/policy.db{end}" for end in ("", "-wal", "-shm"))]:
        (root / path).unlink(missing_ok=True)
    assert "All taken back" in setup(root, "--undo", "--yes").output
    assert tree_of(root) == before


def test_setup_after_an_undo_that_kept_things_goes_on_from_there(root: Path) -> None:
    before = tree_of(root)
    setup(root, "--yes")
    changed = put(root / "etc/shaken/policy.yaml", "customers: []\n", 0o640)
    setup(root, "--undo", "--yes")
    setup(root, "--yes")
    assert changed.read_text() == "customers: []\n"
    changed.unlink()
    setup(root, "--undo", "--yes")
    assert tree_of(root) == before


def test_a_script_that_a_person_changed_is_not_replaced_but_named(root: Path) -> None:
    setup(root, "--yes")
    mine = put(root / "opt/shaken/kamailio/kemi_routing.py", "# my own routing\n")
    said = setup(root).output
    assert "nothing to do" in said
    assert "kemi_routing.py was changed by somebody and stays" in said
    assert mine.read_text() == "# my own routing\n"


def test_a_script_of_an_earlier_release_is_replaced(root: Path) -> None:
    setup(root, "--yes")
    script = root / "opt/shaken/kamailio/shaken.py"
    new, old = script.read_bytes(), b"# of an earlier release\n"
    script.write_bytes(old)
    text = (root / PLACE[1:]).read_text()
    known = text.replace(hashlib.sha256(new).hexdigest(), hashlib.sha256(old).hexdigest())
    (root / PLACE[1:]).write_text(known)
    setup(root, "--yes")
    assert script.read_bytes() == new
    setup(root, "--undo", "--yes")
    assert not script.exists()


def test_what_python_compiled_beside_our_scripts_does_not_hold_them(root: Path) -> None:
    before = tree_of(root)
    setup(root, "--yes")
    put(root / "opt/shaken/kamailio/__pycache__/shaken.cpython-311.pyc", "bytes")
    setup(root, "--undo", "--yes")
    assert tree_of(root) == before


class Killed(BaseException):
    """Stands for the signal that ends a run at once."""


class Mortal(Manifest):
    """A manifest whose run is killed when it is about to be written for the n-th time."""

    def __init__(self, machine: Machine, writings: int) -> None:
        super().__init__(machine)
        self._left = writings

    def put(self, record: Record) -> None:
        self._left -= 1
        if not self._left:
            raise Killed
        super().put(record)

    def drop(self, record: Record) -> None:
        self._left -= 1
        if not self._left:
            raise Killed
        super().drop(record)


def say_nothing(_step: object, _state: object) -> None:
    pass


def run(machine: Machine, manifest: Manifest) -> int:
    steps = make_plan(machine, manifest, Options(environment=VENV)).todo
    execute(steps, machine, manifest, say_nothing)
    return len(steps)


@pytest.mark.timeout(300)
def test_a_run_killed_at_any_point_can_be_undone_or_completed(root: Path) -> None:
    machine = Machine(root)
    put(root / "etc/shaken/old.key", "-----BEGIN PRIVATE KEY-----\n", 0o600)
    before = tree_of(root)
    steps = run(machine, Manifest(machine))
    whole = tree_of(root)
    take_back(machine, Manifest(machine), say_nothing)
    assert tree_of(root) == before
    assert steps > 8
    for point in range(1, 2 * steps + 1):
        for complete in (False, True):
            with pytest.raises(Killed):
                run(machine, Mortal(machine, point))
            if complete:
                run(machine, Manifest(machine))
                assert tree_of(root).keys() == whole.keys()
                assert {path: mode for path, (mode, _) in tree_of(root).items()} == {
                    path: mode for path, (mode, _) in whole.items()
                }
                assert run(machine, Manifest(machine)) == 0
            assert take_back(machine, Manifest(machine), say_nothing) == []
            assert tree_of(root) == before, point


def test_an_undo_killed_at_any_point_can_be_completed(root: Path) -> None:
    machine = Machine(root)
    before = tree_of(root)
    point, killed = 0, True
    while killed:
        point += 1
        run(machine, Manifest(machine))
        try:
            take_back(machine, Mortal(machine, point), say_nothing)
            killed = False
        except Killed:
            take_back(machine, Manifest(machine), say_nothing)
        assert tree_of(root) == before, point
    assert point > 8


def test_a_step_that_fails_leaves_those_before_it_and_says_what_to_do(root: Path) -> None:
    before = tree_of(root)
    put(root / "usr", "a file where a folder must be")
    said = setup(root, "--yes", code=3).output
    assert "could not symbolic link" in said or "symbolic link" in said
    assert "Run setup again to go on, or take it back with --undo" in said
    (root / "usr").unlink()
    setup(root, "--undo", "--yes")
    assert tree_of(root) == before


# --- The manifest -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda path: path.chmod(0o620), "can be changed by others"),
        (lambda path: path.write_text("{"), "is damaged"),
        (lambda path: path.write_text("{}"), "is damaged"),
        (lambda path: path.write_text('{"format": 2, "release": "9"}'), "of release 9"),
    ],
    ids=["writable", "not-json", "empty", "newer"],
)
def test_a_manifest_that_cannot_be_trusted_is_not_acted_on(root: Path, change: Any, complaint: str) -> None:
    setup(root, "--yes")
    change(root / PLACE[1:])
    before = tree_of(root)
    assert complaint in setup(root, "--undo", "--yes", code=3).output
    assert complaint in setup(root, "--yes", code=3).output
    assert tree_of(root) == before


def test_a_step_of_a_later_release_is_not_guessed_at(root: Path) -> None:
    setup(root, "--yes")
    path = root / PLACE[1:]
    path.write_text(path.read_text().replace('"drop-in"', '"cron-job"'))
    assert "'cron-job' that this release does not know" in setup(root, "--undo", "--yes", code=3).output
