"""The state file under three user ids with umask 077: the agent, the command and a switch, in any order."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pytest

from shaken_plugin import sqlitefile
from shaken_plugin.conduct import decisions
from shaken_plugin.conduct.state import State
from shaken_plugin.errors import ShakenError
from shaken_plugin.stores import statefile
from shaken_plugin.stores.standing import StandingFile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be three users in turn")

GID: Final = 61_240
USERS: Final = {"agent": 61_241, "command": 61_242, "switch": 61_243}


class Actor:
    """A process of one user, that does what it is told."""

    def __init__(self, user: str, path: Path) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.pipe.close()
                os.setgroups([])
                os.setgid(GID)
                os.setuid(USERS[user])
                os.umask(0o077)
                _serve(theirs, path)
            finally:
                os._exit(0)
        theirs.close()

    def do(self, what: str) -> Any:
        self.pipe.send(what)
        assert self.pipe.poll(20)
        return self.pipe.recv()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pipe.close()


def _serve(pipe: Connection, path: Path) -> None:
    state, source = State(path), StandingFile(path)
    while True:
        what = pipe.recv()
        try:
            if what == "ask":
                found = source.of("acme")
                pipe.send(found and found.why)
                continue
            if what == "reinstate":
                decisions.reinstate(state, "acme", "Ann", "over", 1.0)
            else:
                statefile.ensure(path)
                decisions.suspend(state, "acme", "Ann", what, 1.0)
            pipe.send(None)
        except ShakenError as exc:
            pipe.send(f"{type(exc).__name__}: {exc}")


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: pytest closes its folders to other users.
    made = Path(tempfile.mkdtemp(prefix="shaken-state-"))
    os.chown(made, 0, GID)
    made.chmod(0o2770)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("made", [True, False], ids=["made by setup", "made by whoever is first"])
@pytest.mark.parametrize("order", tuple(itertools.permutations(USERS)), ids="-".join)
def test_whoever_comes_first_all_three_write_and_read(folder: Path, order: tuple[str, ...], made: bool) -> None:
    path = folder / "state.db"
    if made:
        sqlitefile.create(path)
        os.chown(path, USERS["agent"], GID)
    actors: dict[str, Actor] = {}
    try:
        for user in order:
            actors[user] = Actor(user, path)
            assert actors[user].do(f"by {user}") is None
            assert {other.do("ask") for other in actors.values()} == {f"by {user}"}
            assert actors[user].do("reinstate") is None
            assert {other.do("ask") for other in actors.values()} == {None}
        for user in order:  # killed one after the other, in the middle of nothing in particular
            actors.pop(user).end()
            for other in actors.values():
                assert other.do("ask") is None
        actors["switch"] = Actor("switch", path)
        assert actors["switch"].do("ask") is None
    finally:
        for actor in actors.values():
            actor.end()
    for file in folder.glob("state.db*"):
        found = file.lstat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, GID), file.name
