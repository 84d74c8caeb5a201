"""Rights of what is there, and users and groups by the commands that would be run."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from shaken_plugin.setup import Machine, SetupError
from shaken_plugin.setup.accounts import AddToGroup, CreateGroup, CreateUser
from shaken_plugin.setup.machine import GROUP, USER, Account, Group, run_command
from shaken_plugin.setup.manifest import STEPS
from shaken_plugin.setup.plan import network_disk
from shaken_plugin.setup.steps import Case, Record, Rights, Step, set_rights
from shaken_plugin.stores import sqlite
from tests.setup.staging import put, setup, tree_of

# --- Rights of what is there ------------------------------------------------------------------


def test_keys_and_settings_that_are_there_become_readable_for_the_group_alone(root: Path) -> None:
    key = put(root / "etc/shaken/keys/signing.key", "-----BEGIN PRIVATE KEY-----\n", 0o600)
    anchors = put(root / "etc/shaken/anchors/roots.pem", "-----BEGIN CERTIFICATE-----\n", 0o644)
    (root / "etc/shaken/keys/link.key").symlink_to("/srv/keys/link.key")
    (root / "etc/shaken/anchors").chmod(0o700)
    before = tree_of(root)
    said = setup(root, "--yes").output
    assert "anchors/roots.pem" in said
    assert "/etc/shaken/keys/link.key is a symbolic link" in said
    assert {stat.S_IMODE(path.stat().st_mode) for path in (key, anchors)} == {0o640}
    assert stat.S_IMODE(anchors.parent.stat().st_mode) == 0o2750
    # What was put there since, with a strict umask, is found by the next run.
    late = put(root / "etc/shaken/keys/next.key", "-----BEGIN PRIVATE KEY-----\n", 0o600)
    assert "keys/next.key" in setup(root, "--yes").output
    assert stat.S_IMODE(late.stat().st_mode) == 0o640
    late.unlink()
    setup(root, "--undo", "--yes")
    assert tree_of(root) == before


def test_a_database_that_is_there_keeps_its_records_and_gets_its_rights(root: Path) -> None:
    path = root / "var/lib/shaken/policy.db"
    path.parent.mkdir(parents=True)
    sqlite.replace_policy(path, None, None, {})
    path.chmod(0o644)
    setup(root, "--yes")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    setup(root, "--undo", "--yes")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert sqlite.read_header(path).policy_version == 1


def test_what_the_settings_name_elsewhere_is_left_to_people_and_named(root: Path) -> None:
    pair = "{key: 'file:/srv/keys/a.key', chain: 'file:a.pem', x5u: 'https://c.example.com/a.pem'}"
    settings = f"store: {{path: /srv/policy.db}}\nsigning: {{credentials: [{{name: a, pairs: [{pair}]}}]}}\n"
    put(root / "etc/shaken/shaken.yaml", settings + "verification: {mode: off}\n")
    said = setup(root, "--yes").output
    assert "/srv/keys/a.key lies outside /etc/shaken" in said
    assert "keep the store in /srv/policy.db" in said
    assert not (root / "var/lib/shaken/policy.db").exists()


@pytest.mark.parametrize("text", ["signing: [", "signing: {mode: of}\n", "", "\x00"])
def test_settings_with_mistakes_are_no_obstacle(root: Path, text: str) -> None:
    put(root / "etc/shaken/shaken.yaml", text)
    assert "shaken.yaml" in setup(root, "--yes").output
    assert (root / "etc/shaken/shaken.yaml").read_text() == text


def test_rights_are_set_on_nothing_that_might_be_somebody_elses(tmp_path: Path) -> None:
    victim = put(tmp_path / "victim", "", 0o600)
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "second").hardlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "second", "fifo", "missing"):
        with pytest.raises(SetupError, match=name):
            set_rights(tmp_path / name, Rights(0o666, -1, -1))
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_a_folder_that_is_a_link_is_refused(root: Path) -> None:
    (root / "srv").mkdir()
    (root / "var/lib").mkdir(parents=True)
    (root / "var/lib/shaken").symlink_to("../../srv")
    assert "symbolic link to one" in setup(root, "--yes", code=3).output


def test_disks_of_other_machines_are_recognised() -> None:
    mounts = "/dev/sda1 / ext4 rw 0 0\nhost:/x /var/lib nfs4 rw 0 0\n/dev/sdb1 /var/lib/shaken xfs rw 0 0\n"
    assert network_disk(Path("/var/lib/other"), mounts) == "nfs4"
    assert network_disk(Path("/var/lib/shaken"), mounts) is None
    assert network_disk(Path("/etc"), mounts) is None


# --- Users and groups -------------------------------------------------------------------------


@dataclass(frozen=True)
class Imagined(Machine):
    """A machine with invented accounts, that writes commands down instead of running them."""

    users: dict[str, Account] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, users: Sequence[Account] = (), groups: Sequence[Group] = ()) -> Imagined:
        commands: list[str] = []
        return cls(
            run=lambda command: commands.append(" ".join(command)),
            users={user.name: user for user in users},
            groups={group.name: group for group in groups},
            commands=commands,
        )

    def user(self, name: str) -> Account | None:
        return self.users.get(name)

    def group(self, name: str) -> Group | None:
        return self.groups.get(name)


KAMAILIO: Final = Account("kamailio", 102, 105)
OURS: Final = Account(USER, 900, 900)


def record_of(step: Step, machine: Machine) -> Record:
    return Record(step.kind, step.subject, step.what, step.before(Case(machine)))


def test_the_commands_that_make_accounts() -> None:
    machine = Imagined.new([KAMAILIO])
    for step in (CreateGroup(), CreateUser(), AddToGroup("kamailio")):
        assert not step.is_done(Case(machine))
        step.do(Case(machine, record_of(step, machine)))
    useradd = "useradd --system --gid shaken --home-dir /var/lib/shaken --no-create-home --shell /usr/sbin/nologin"
    assert machine.commands == [
        "groupadd --system shaken",
        f"{useradd} --comment STIR/SHAKEN shaken",
        "usermod --append --groups shaken kamailio",
    ]


def test_the_commands_that_take_accounts_back() -> None:
    bare = Imagined.new([KAMAILIO])
    records = [record_of(step, bare) for step in (AddToGroup("kamailio"), CreateUser(), CreateGroup())]
    machine = Imagined.new([KAMAILIO, OURS], [Group(GROUP, 900, ("kamailio",))])
    for record in records:
        assert STEPS[record.kind].undo(Case(machine, record)) is None
    assert machine.commands == ["gpasswd --delete kamailio shaken", "userdel shaken", "groupdel shaken"]


def test_accounts_that_own_kept_files_stay_but_the_switch_loses_its_way_in() -> None:
    # A number that is free again goes to the next group that is made, and the keys with it.
    bare = Imagined.new([KAMAILIO])
    records = [record_of(step, bare) for step in (AddToGroup("kamailio"), CreateUser(), CreateGroup())]
    machine = Imagined.new([KAMAILIO, OURS], [Group(GROUP, 900, ("kamailio",))])
    reasons = [STEPS[record.kind].undo(Case(machine, record, kept=True)) for record in records]
    assert reasons[0] is None
    assert all("still owns" in str(reason) for reason in reasons[1:])
    assert machine.commands == ["gpasswd --delete kamailio shaken"]


def test_accounts_that_were_there_are_used_and_kept() -> None:
    machine = Imagined.new([KAMAILIO, OURS], [Group(GROUP, 900, ("kamailio",))])
    for step in (CreateGroup(), CreateUser(), AddToGroup("kamailio"), AddToGroup(USER)):
        assert step.is_done(Case(machine))
        record = record_of(step, machine)
        step.do(Case(machine, record))
        assert STEPS[step.kind].undo(Case(machine, record)) is None
    assert machine.commands == []


def test_commands_that_fail_or_are_missing_are_explained() -> None:
    with pytest.raises(SetupError, match=r"this command failed: sh -c echo why >&2; exit 3\nwhy"):
        run_command(["sh", "-c", "echo why >&2; exit 3"])
    with pytest.raises(SetupError, match="no-such-program is not installed"):
        run_command(["no-such-program", "now"])
