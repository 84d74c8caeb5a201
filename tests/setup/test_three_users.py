"""The local store under three user ids with umask 077, whoever starts, stops or dies first.

A writer and two readers, each another user of one group, in a folder and on a file as `shaken setup`
makes them. Each is a process of its own that lives as long as the test wants. They take turns by
messages, so that nothing depends on how fast the machine is. The parent, which is root, never opens
the store itself: it would be a fourth user, and one that may do everything.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import pytest

from shaken_plugin import runtime
from shaken_plugin.core.records import Basis, Customer, CustomerState, Trunk
from shaken_plugin.errors import FileProblems, StoreError, StoreUnavailable
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import Author
from shaken_plugin.stores import sqlite
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.replacing import fill
from shaken_plugin.stores.sqlite import SqliteStore
from tests.records import number_right, reached

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be three users in turn")

GID: Final = 61_230
"""The group of all three. Numbers alone: no user or group is made."""
SHAKEN, KAMAILIO, FREESWITCH = 61_231, 61_232, 61_233
UIDS: Final = {"writer": SHAKEN, "first": KAMAILIO, "second": FREESWITCH}
ROLES: Final = tuple(UIDS)
READERS: Final = ("first", "second")

SOURCE: Final = "192.0.2.1"
NUMBER: Final = "12155551212"
PATIENCE: Final = 20.0
"""Seconds after which an answer will not come any more."""


# --- What is written, and how it is told whole from torn --------------------------------------


def policy_of(version: int, others: int) -> Policy:
    """A policy in which the customer and every right bear its version, and a right to more numbers beside."""
    customer = Customer("acme", f"policy {version}", CustomerState.VERIFIED)
    trunk = reached(Trunk("main", customer), "192.0.2.0/24")
    ranges = [(NUMBER, NUMBER), ("12155551200", "12155551299"), ("12155551000", "12155551999")]
    rights = [number_right("acme", first, last, Basis.LETTER, f"policy {version}") for first, last in ranges]
    # Of another id each time: all of these are taken out and put in with every version.
    numbers = (str(13_000_000_000 + index) for index in range(others))
    rights += [number_right("acme", one, one, Basis.LETTER, f"policy {version}", id=f"{version}") for one in numbers]
    return Policy((customer,), (trunk,), rights=tuple(rights))


class Answer(NamedTuple):
    """What a reader found."""

    version: int
    whole: bool
    """Customer and rights are of the same version as the policy."""


def ask(store: SqliteStore) -> Answer:
    facts = store.facts(SOURCE, None, NUMBER)
    assert isinstance(facts.source, Trunk)
    labels = {facts.source.customer.name, *(number.right.document for number in facts.rights)}
    return Answer(facts.version, labels == {f"policy {facts.version}"} and len(facts.rights) == 3)


def next_version(path: Path) -> int:
    try:
        return sqlite.read_header(path).policy_version + 1
    except StoreUnavailable:
        return 1


# --- The processes ----------------------------------------------------------------------------


class Actor:
    """A process of one user, that does what it is told."""

    def __init__(self, role: str, path: Path) -> None:
        self.role = role
        self.pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                sys.settrace(None)  # nobody asks what this process covers
                gc.freeze()  # else the end of each goes through all that the tests before it left
                self.pipe.close()
                os.setgroups([])
                os.setgid(GID)
                os.setuid(UIDS[role])
                os.umask(0o077)
                _serve(theirs, path)
            finally:
                os._exit(0)
        theirs.close()

    def tell(self, *command: object) -> None:
        self.pipe.send(command)

    def answer(self) -> Any:
        assert self.pipe.poll(PATIENCE), f"{self.role} does not answer"
        return self.pipe.recv()

    def do(self, *command: object) -> Any:
        self.tell(*command)
        return self.answer()

    def stop(self) -> None:
        """Orderly: its connections are closed."""
        self.tell("stop")
        self._gone()

    def kill(self) -> None:
        if not self.pipe.closed:
            os.kill(self.pid, signal.SIGKILL)
            self._gone()

    def _gone(self) -> None:
        os.waitpid(self.pid, 0)
        self.pipe.close()

    def died(self) -> bool:
        """Whether it ended instead of answering; the answer is dropped."""
        try:
            self.answer()
        except EOFError:
            self._gone()
            return True
        return False


def _serve(pipe: Connection, path: Path) -> None:
    store = SqliteStore(path)
    while True:
        name, *arguments = pipe.recv()
        if name == "stop":
            del store
            gc.collect()
            return
        try:
            pipe.send(_COMMANDS[name](pipe, path, store, *arguments))
        except (StoreError, StoreUnavailable, FileProblems) as exc:
            pipe.send(f"{type(exc).__name__}: {exc}")


def _facts(_pipe: Connection, _path: Path, store: SqliteStore) -> Answer:
    return ask(store)


def _replace(pipe: Connection, path: Path, _store: SqliteStore, others: int, pause: bool = False) -> int:
    version = next_version(path)
    policy = policy_of(version, others)
    if not pause:
        return sqlite.replace_policy(path, policy, None, {}).version
    vars(sqlite.schema)["CACHE_KIB"] = 64  # this process ends here
    with sqlite.SqlitePolicy(path).change(Author("writer", "a test", 0.0), "stops before its end, and waits") as draft:
        fill(draft, policy)
        pipe.send("midway")
        pipe.recv()
    return version


def _replace_for_ever(pipe: Connection, path: Path, store: SqliteStore, others: int) -> int:
    while True:
        pipe.send(_replace(pipe, path, store, others))


def _apply(_pipe: Connection, _path: Path, _store: SqliteStore, settings: Path, now: float) -> int:
    return runtime.apply(settings, now)[1]


def _read_until_told(pipe: Connection, _path: Path, store: SqliteStore) -> tuple[int, set[str]]:
    """Readings without a pause, and everything that was wrong with them."""
    count, wrong, last = 0, set(), 0
    while not pipe.poll():
        try:
            version, whole = ask(store)
        except StoreUnavailable as exc:
            wrong.add(str(exc))
            continue
        count += 1
        if not whole:
            wrong.add(f"torn: version {version}")
        if version < last:
            wrong.add(f"back from version {last} to {version}")
        last = version
    pipe.recv()
    return count, wrong


def _die_at(pipe: Connection, path: Path, store: SqliteStore, line: int, name: str, *arguments: object) -> int:
    """Do something, and die by signal 9 at the given line of the store's code, counted as they run.

    Returns the number of lines where there are fewer.
    """
    done = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal done
        if Path(frame.f_code.co_filename).parent != Path(sqlite.__file__).parent:
            return None
        if event == "line":
            done += 1
            if done == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        _COMMANDS[name](pipe, path, store, *arguments)
    finally:
        sys.settrace(None)
    return done


_COMMANDS: Final[dict[str, Any]] = {
    "facts": _facts,
    "replace": _replace,
    "replace for ever": _replace_for_ever,
    "apply": _apply,
    "read until told": _read_until_told,
    "die at": _die_at,
}


class Cast:
    """The three, and the folder they share."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "policy.db"
        self.actors: dict[str, Actor] = {}
        self.version = 0

    def start(self, *roles: str) -> None:
        for role in roles:
            self.actors[role] = Actor(role, self.path)

    def create(self) -> None:
        """The empty database, as setup makes it: by the user shaken."""
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setgid(GID)
            os.setuid(SHAKEN)
            os.umask(0o077)
            sqlite.create(self.path)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    def leave(self, role: str, *, killed: bool) -> None:
        actor = self.actors.pop(role)
        if killed:
            actor.kill()
        else:
            actor.stop()

    def write(self, others: int = 20) -> None:
        version = self.actors["writer"].do("replace", others)
        assert version == self.version + 1
        self.version = version

    def check(self) -> None:
        """Every reader there is sees the last version, whole."""
        for role in READERS:
            if role in self.actors:
                found = self.actors[role].do("facts")
                if self.version:
                    assert found == Answer(self.version, whole=True), (role, found)
                else:
                    assert "no policy in it yet" in found or "No such file" in found, (role, found)

    def check_rights(self) -> None:
        """All files are open to the group, and closed to others."""
        for file in self.path.parent.glob("policy.db*"):
            found = file.lstat()
            assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, GID), file.name

    def end(self) -> None:
        for actor in self.actors.values():
            actor.kill()
        self.actors.clear()


@pytest.fixture
def cast() -> Iterator[Cast]:
    # Not tmp_path: pytest closes its folders to other users.
    folder = Path(tempfile.mkdtemp(prefix="shaken-three-users-"))
    os.chown(folder, 0, GID)
    folder.chmod(0o2770)
    made = Cast(folder)
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(folder)


# --- Every order ------------------------------------------------------------------------------

ORDERS: Final = tuple(itertools.permutations(ROLES))


def play(cast: Cast, start: tuple[str, ...], stop: tuple[str, ...], *, killed: bool) -> None:
    for role in start:
        cast.start(role)
        if "writer" in cast.actors:
            cast.write()
        cast.check()
    for role in stop:
        cast.leave(role, killed=killed)
        if "writer" in cast.actors:
            cast.write()
        cast.check()
        cast.check_rights()
    # Newcomers, the readers first: nobody is left who has the file open.
    cast.start(*reversed(start))
    cast.check()
    cast.write()
    cast.check()
    cast.check_rights()


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("start", ORDERS, ids="-".join)
def test_every_start_and_stop_order(cast: Cast, start: tuple[str, ...], killed: bool) -> None:
    cast.create()
    for stop in ORDERS:
        play(cast, start, stop, killed=killed)
        cast.end()


@pytest.mark.parametrize("start", ORDERS, ids="-".join)
def test_without_a_database_made_beforehand_the_first_writer_makes_it_for_all(
    cast: Cast, start: tuple[str, ...]
) -> None:
    play(cast, start, start, killed=True)


# --- Death at any point -----------------------------------------------------------------------


def spread(total: int, points: int) -> list[int]:
    """The first and last lines, and some between."""
    return sorted({1, 2, 3, total - 2, total - 1, total, *(1 + index * total // points for index in range(points))})


def test_the_writer_dies_at_any_line_of_a_change(cast: Cast) -> None:
    cast.create()
    cast.start(*ROLES)
    cast.write()
    total = cast.actors["writer"].do("die at", -1, "replace", 60)
    cast.version += 1
    for line in spread(total, 40):
        writer = cast.actors["writer"]
        writer.tell("die at", line, "replace", 60)
        assert writer.died()
        found = cast.actors["first"].do("facts")
        # Either it was in force when the writer died, or nobody will ever see it.
        assert found in (Answer(cast.version, whole=True), Answer(cast.version + 1, whole=True)), (line, found)
        cast.version = found.version
        cast.check()
        cast.start("writer")
        cast.write()
        cast.check()
    cast.check_rights()


def test_the_writer_dies_amid_a_change_too_large_for_memory(cast: Cast) -> None:
    many = 30_000
    cast.create()
    cast.start(*ROLES)
    cast.write(many)
    cast.check()
    log = cast.path.with_name("policy.db-wal")
    for survivors in (READERS, READERS[:1], ()):
        log_before = log.stat().st_mtime_ns
        writer = cast.actors["writer"]
        writer.tell("replace", many, True)
        assert writer.answer() == "midway"
        # Some of it is in the log already, and whoever comes must pass over it.
        assert log.stat().st_mtime_ns > log_before
        cast.check()
        for role in READERS:
            if role not in survivors:
                cast.leave(role, killed=True)
        cast.leave("writer", killed=True)
        cast.check()
        cast.start(*(role for role in ROLES if role not in cast.actors))
        cast.check()
        cast.write(many)
        cast.check()
    cast.check_rights()


def test_a_reader_dies_at_any_line_of_a_question(cast: Cast) -> None:
    cast.create()
    cast.start("writer", "second")
    cast.write()
    for asked_before in (False, True):
        cast.start("first")
        if asked_before:
            cast.check()
        total = cast.actors["first"].do("die at", -1, "facts")
        assert total > 20
        cast.leave("first", killed=True)
        for line in spread(total, 20):
            cast.start("first")
            if asked_before:
                cast.check()
            cast.actors["first"].tell("die at", line, "facts")
            assert cast.actors["first"].died()
            del cast.actors["first"]
            # A reader's death must not hold up the writer, nor show in the other's answer.
            cast.write()
            cast.check()
    cast.check_rights()


def test_writers_die_in_the_middle_of_anything_while_readers_read(cast: Cast) -> None:
    cast.create()
    cast.start(*ROLES)
    cast.write()
    cast.check()
    for role in READERS:
        cast.actors[role].tell("read until told")
    for turn in range(20):
        writer = cast.actors["writer"]
        writer.tell("replace for ever", 50 * (turn % 4))
        # Answers are messages, so that the moment of death wanders over the change under way.
        for _ in range(1 + turn % 5):
            writer.answer()
        cast.leave("writer", killed=True)
        cast.start("writer")
    for role in READERS:
        count, wrong = cast.actors[role].do("enough")
        assert not wrong
        assert count > 0
    cast.version = cast.actors["first"].do("facts").version
    cast.check()
    cast.write()
    cast.check()
    cast.check_rights()


# --- The whole way, from files ----------------------------------------------------------------


def test_apply_by_one_user_is_read_by_the_others(cast: Cast, authority: Authority, now: float) -> None:
    cast.create()
    folder = cast.path.parent / "etc"
    provider = Provider.make(folder, authority, now, store={"path": str(cast.path)})
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 0, GID)
        path.chmod(0o2750 if path.is_dir() else 0o640)
    cast.start(*ROLES)
    for role in ("writer", "writer", *READERS):
        # The readers' own question is about another policy; that they may read, and write, is what counts.
        assert cast.actors[role].do("apply", provider.settings, now) == 1
    cast.check_rights()
