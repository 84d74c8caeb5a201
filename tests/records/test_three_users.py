"""The spool under three user ids with umask 077: whoever starts first, the agent reads and removes all."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from shaken_plugin import sqlitefile
from shaken_plugin.records.collector import Counts, collect
from shaken_plugin.records.spool import SpoolWriter
from tests.records.builders import call_ids, record, sqlite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be three users in turn")

GID: Final = 61_230
UIDS: Final = {"agent": 61_231, "kamailio": 61_232, "freeswitch": 61_233}
"""Numbers alone: no user or group is made."""


class User:
    """A process of one user that does one thing, and another when it is told to go on."""

    def __init__(self, name: str, *work: Callable[[], object]) -> None:
        self.name = name
        ours, self._go_on = os.pipe()
        self._done, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setgroups([])
                os.setgid(GID)
                os.setuid(UIDS[name])
                os.umask(0o077)
                for one in work:
                    one()
                    os.write(theirs, b".")
                    if os.read(ours, 1) != b".":
                        break
                os._exit(0)
            except BaseException as exc:
                os.write(theirs, repr(exc).encode())
            finally:
                os._exit(1)
        os.close(ours)
        os.close(theirs)
        self.wait()

    def wait(self) -> None:
        assert (said := os.read(self._done, 4_096)) == b".", (self.name, said)

    def go_on(self) -> None:
        os.write(self._go_on, b".")
        self.wait()

    def end(self) -> None:
        os.write(self._go_on, b"!")
        os.close(self._go_on)
        os.close(self._done)
        os.waitpid(self.pid, 0)


@pytest.fixture
def data() -> Iterator[Path]:
    """The folder as setup makes it, with an empty ledger in it."""
    # Not tmp_path: pytest closes its folders to other users.
    folder = Path(tempfile.mkdtemp(prefix="shaken-records-"))
    os.chown(folder, 0, GID)
    folder.chmod(0o2770)
    User("agent", lambda: sqlitefile.create(folder / "ledger.db")).end()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("made", [True, False], ids=["folder made", "no folder"])
@pytest.mark.parametrize("order", list(itertools.permutations(UIDS)), ids="-".join)
def test_every_order_of_start(data: Path, order: tuple[str, ...], made: bool) -> None:
    calls = data / "calls"
    if made:
        calls.mkdir()
        os.chown(calls, 0, GID)
        calls.chmod(0o2770)

    def write(name: str) -> Callable[[], None]:
        writer = SpoolWriter(calls, 1 << 20)

        def one() -> None:
            trouble = writer.write(record(call_id=name))
            assert trouble is None, trouble

        return one

    def move() -> None:
        counts = collect(calls, sqlite(data))
        assert counts.troubles == [], counts

    users = []
    for name in order:
        # The agent writes records, too, of the calls that it serves itself.
        work = write(name)
        users.append(User(name, work, move, work, move) if name == "agent" else User(name, work, work))
    for user in users:
        user.go_on()
    assert {(stat.S_IMODE(file.stat().st_mode), file.stat().st_gid) for file in calls.iterdir()} == {(0o660, GID)}
    for user in users:
        if user.name == "agent":
            user.go_on()
            user.go_on()
    for user in users:
        user.end()

    def move_all() -> None:
        assert collect(calls, sqlite(data)).removed == 3

    User("agent", move_all).end()
    assert list(calls.iterdir()) == []
    assert sorted(call_ids(sqlite(data))) == sorted(2 * list(UIDS))
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o660 for file in data.glob("ledger.db*"))


def test_who_may_not_write_is_told_and_goes_on(data: Path) -> None:
    def refused() -> None:
        writer = SpoolWriter(data / "calls", 1 << 20)
        assert writer.write(record()) == f"{data / 'calls'}: Permission denied"

    data.chmod(0o750)
    User("kamailio", refused).end()
    data.chmod(0o2770)
    assert collect(data / "calls", sqlite(data)) == Counts()
