"""Changes of a fleet's policy: in force everywhere or nowhere, whoever dies or does not answer meanwhile."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from shaken_plugin.core.material import StoredAnchors
from shaken_plugin.core.records import Customer, CustomerState, Right
from shaken_plugin.errors import ConflictError, StoreChanged, StoreError, StoreUnavailable
from shaken_plugin.lab.redis import RedisServer, Sentinels, has_valkey, wait_until
from shaken_plugin.ports import Span
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.redis.applying import mark_of
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.moving import let_go
from shaken_plugin.stores.redis.upkeep import sweep
from shaken_plugin.stores.sqlite import SqlitePolicy, replace_policy
from shaken_plugin.stores.sqlite.schema import Patience, patience
from shaken_plugin.stores.sqlite.upkeep import compact
from tests.contract.fleet import NO_VALKEY
from tests.stores.redis.conftest import ACME, ALICE, RIGHT, Host, NewHost, changes, everything, hosts_of
from tests.stores.redis.test_copies import chunks, expire, scattered

BETA = Customer("beta", "Beta", CustomerState.VERIFIED)
GAMMA = Customer("gamma", "Gamma", CustomerState.VERIFIED)


@contextmanager
def patient(seconds: float, told: list[str] | None = None) -> Iterator[None]:
    token = patience.set(Patience(seconds, (told if told is not None else []).append))
    try:
        yield
    finally:
        patience.reset(token)


# --- Several writers ----------------------------------------------------------------------------


def test_writers_on_two_hosts_make_one_history(host: NewHost) -> None:
    here, there = host("here"), host("there")

    def write(one: Host, name: str) -> None:
        for number in range(6):
            one.put(Customer(f"{name}{number}", "C", CustomerState.VERIFIED), why=name)

    threads = [threading.Thread(target=write, args=args) for args in ((here, "a"), (there, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in (here, there):
        one.replica.catch_up()
    assert [change.version for change in changes(here.path)] == list(range(1, 13))
    assert everything(here.path) == everything(there.path)
    assert here.log.command("EXISTS", here.log.key("lock")) == 0


def test_a_writer_waits_for_another_host_and_says_so(host: NewHost) -> None:
    here, there = host("here"), host("there")
    told: list[str] = []
    with here.policy.change(ALICE, "long") as draft:
        draft.put(ACME)
        began = time.monotonic()
        with (
            patient(0.4, told),
            pytest.raises(StoreError, match=r"is locked by another writer, on .* for more than 0\.4"),
        ):
            there.put(BETA)
        assert 0.4 <= time.monotonic() - began < 2
    assert "another change of fleet" in told[0]
    assert "waiting for it, 0.4 s at most" in told[0]
    there.put(BETA)
    assert there.version == 2


def test_a_writer_waits_for_a_change_of_this_hosts_file_and_says_so(host: NewHost) -> None:
    here = host("here")
    here.put(ACME)
    told: list[str] = []
    with closing(sqlite3.connect(here.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with patient(0.8, told), pytest.raises(StoreError, match=r"here\.db: is locked by another writer"):
            here.put(BETA)
    assert "another change of" in told[0]
    assert here.log.command("EXISTS", here.log.key("lock")) == 0
    here.put(BETA)
    assert here.version == 2


def test_a_writer_that_lost_its_lock_does_not_undo_what_another_did(host: NewHost) -> None:
    here, there = host("here"), host("there")
    there.replica.catch_up()
    with pytest.raises(StoreError, match="another writer was faster; nothing was changed, try again"):  # noqa: SIM117  # reads better
        with here.policy.change(ALICE, "slow") as draft:
            draft.put(ACME)
            here.log.command("DEL", here.log.key("lock"))
            there.put(BETA)
    here.replica.catch_up()
    assert everything(here.path) == everything(there.path)
    here.put(ACME)
    assert here.version == 2


def test_a_lock_is_renewed_as_long_as_its_writer_lives(host: NewHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shaken_plugin.stores.redis.locking.LOCK", 0.3)
    here = host("here")
    with here.policy.change(ALICE, "slow") as draft:
        draft.put(ACME)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert here.log.command("EXISTS", here.log.key("lock")) == 1
            time.sleep(0.02)
    assert here.version == 1


def test_a_change_that_fails_leaves_nothing(host: NewHost) -> None:
    here = host("here")
    here.put(ACME)
    with pytest.raises(ConflictError), here.policy.change(ALICE, "bad") as draft:
        draft.put(BETA)
        draft.put(Right("x", "nobody", RIGHT.basis))
    assert here.version == 1
    assert here.log.head().version == 1
    assert here.log.command("ZCARD", here.log.key("staged")) == 0


# --- No answer ------------------------------------------------------------------------------------


def test_who_asked_a_redis_that_hung_and_went_away_keeps_nobody_out(own: RedisServer, own_host: NewHost) -> None:
    here, there = own_host("here"), own_host("there")
    own.pause()
    with pytest.raises(StoreUnavailable, match="does not answer in time"):
        here.put(ACME)
    own.resume()
    with patient(1.0):
        there.put(BETA)
    assert there.version == 1


class Deaf:
    """A connection whose answer to the commit is lost, or that never gets there, or only later."""

    def __init__(
        self, inner: Any, before: Callable[[], object], late: list[Callable[[], Any]] | None, lose: bool
    ) -> None:
        self._inner, self._before, self._late, self._lose = inner, before, late, lose

    def execute_command(self, *words: Any) -> Any:
        self._before()
        if self._late is not None:
            self._late.append(lambda: self._inner.execute_command(*words))
        elif self._lose:
            self._inner.execute_command(*words)
        raise redis.TimeoutError("no answer")


def deaf(
    monkeypatch: pytest.MonkeyPatch,
    late: list[Callable[[], Any]] | None = None,
    before: Callable[[], object] = lambda: None,
    *,
    lose: bool = False,
) -> None:
    original = FleetLog._one

    @contextmanager
    def one(self: FleetLog) -> Iterator[Any]:
        with original(self) as inner:
            yield Deaf(self.client if late is not None else inner, before, late, lose)

    monkeypatch.setattr(FleetLog, "_one", one)


def test_a_commit_whose_answer_is_lost_is_found_to_be_done(host: NewHost, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = host("here"), host("there")
    deaf(monkeypatch, lose=True)
    here.put(ACME)
    assert here.version == 1
    assert mark_of(here.path).head == here.log.head()
    there.replica.catch_up()
    assert everything(here.path) == everything(there.path)


def test_a_commit_that_never_arrived_changed_nothing(host: NewHost, monkeypatch: pytest.MonkeyPatch) -> None:
    here = host("here")
    with monkeypatch.context() as patched:
        deaf(patched)
        with pytest.raises(StoreUnavailable, match=r"does not answer in time.*; nothing was changed"):
            here.put(ACME)
    assert here.version == 0
    here.put(ACME)
    assert here.version == 1


def test_a_commit_that_was_given_up_is_not_done_when_it_arrives_after_all(
    host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = host("here")
    late: list[Callable[[], Any]] = []
    with monkeypatch.context() as patched:
        deaf(patched, late)
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            here.put(ACME)
    assert late[0]() == b"late"
    assert here.log.head().version == 0
    assert here.version == 0


def test_a_commit_of_which_nobody_knows_is_taken_from_the_log_later(
    own: RedisServer, own_host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = own_host("here")
    with monkeypatch.context() as patched:
        deaf(patched, lose=True)
        original = FleetLog._settle

        def settle(*arguments: Any) -> None:
            own.pause()
            original(*arguments)

        patched.setattr(FleetLog, "_settle", settle)
        with patient(0.5), pytest.raises(StoreUnavailable, match="it is not known whether version 1 was made"):
            here.put(ACME)
    assert here.version == 0
    own.resume()
    here.replica.catch_up()
    assert [change.what for change in changes(here.path)] == ["put"]
    assert here.version == 1


def test_a_redis_that_hangs_is_told_within_its_timeout_and_nothing_is_changed(
    own: RedisServer, own_host: NewHost
) -> None:
    here = own_host("here")
    here.put(ACME)
    own.pause()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{own.port}: does not answer in time"):
        here.put(BETA)
    with pytest.raises(StoreUnavailable):
        here.replica.follow(1)
    assert time.monotonic() - began < 4
    own.resume()
    here.put(BETA)
    assert here.version == 2


def test_a_redis_that_is_gone_is_told_and_comes_back(own: RedisServer, own_host: NewHost) -> None:
    here = own_host("here")
    here.put(ACME)
    own.command("SAVE")
    own.kill()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        here.put(BETA)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        here.replica.catch_up()
    assert here.version == 1
    own.restart()
    here.put(BETA)
    assert here.version == 2


# --- Deaths ----------------------------------------------------------------------------------------

_DIES: str = """
import os, sys
from pathlib import Path
from shaken_plugin.stores.redis.connection import RedisAccess
from shaken_plugin.stores.redis import pieces
from shaken_plugin.stores.redis.log import FleetLog
from tests.stores.redis.conftest import ACME, RIGHT, Host
from tests.stores.redis.test_copies import scattered
pieces.PIECE = 65_536
port, fleet, path, where = sys.argv[1:]
log = FleetLog(RedisAccess((("127.0.0.1", int(port)),)), fleet)
original = getattr(FleetLog, where)
def die(self, *arguments):
    if where == "commit":
        original(self, *arguments)  # Redis has it
    elif arguments[0] == "SET" and ":chunk:" in str(arguments[1]):
        original(self, *arguments)  # one chunk of several
    else:
        return original(self, *arguments)
    os._exit(7)
setattr(FleetLog, where, die)
host = Host(Path(path), log)
host.put(ACME, RIGHT) if where == "commit" else host.add(*scattered(60_000))
"""


def dies(host: Host, where: str) -> None:
    """Change the policy in a process that is gone in the middle of it."""
    (_, port), *_ = host.log.access.servers
    words = [sys.executable, "-c", _DIES, str(port), host.log.fleet, str(host.path), where]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 7, done.stderr


def test_a_writer_killed_between_redis_and_its_own_file_loses_nothing(host: NewHost) -> None:
    here, there = host("here"), host("there")
    dies(here, "commit")
    assert here.version == 0
    assert here.replica.catch_up() == 1
    there.replica.catch_up()
    assert everything(here.path) == everything(there.path)


def test_a_writer_killed_among_its_chunks_leaves_nothing_but_waste(host: NewHost) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    dies(here, "command")
    assert chunks(here) == 1
    here.log.command("DEL", here.log.key("lock"))  # it would run out
    assert here.replica.catch_up() == there.replica.catch_up() == 1
    assert sweep(here.log) == 0  # for all that anybody knows it lives
    expire(here)
    assert sweep(there.log) == 1
    assert chunks(here) == 0
    here.add(12155551212)
    assert here.version == 2


def test_a_file_that_cannot_take_its_own_change_takes_it_from_the_log(
    host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = host("here")
    original = FleetLog.commit

    def commit(*arguments: Any) -> int:
        found = original(*arguments)
        frame = sys._getframe(1)
        frame.f_locals["change"].connection.execute("ROLLBACK")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(FleetLog, "commit", commit)
        with pytest.raises(StoreError, match="The change is in force in the fleet as version 1"):
            here.put(ACME)
    assert here.version == 0
    assert here.replica.catch_up() == 1


# --- Memory, replicas, failover --------------------------------------------------------------------


def test_a_redis_without_memory_changes_nothing_and_says_so(own: RedisServer, own_host: NewHost) -> None:
    here = own_host("here")
    here.put(ACME, RIGHT)
    own.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreError, match="has no memory left, so nothing was changed; raise its maxmemory"):
        here.add(12155551212)
    own.command("CONFIG", "SET", "maxmemory", "0")
    assert here.version == here.log.head().version == 1
    here.add(12155551212)
    assert here.version == 2


@pytest.mark.parametrize("numbers", [1, 60_000])
def test_memory_that_ends_in_the_commit_itself_changes_nothing(
    own: RedisServer, own_host: NewHost, monkeypatch: pytest.MonkeyPatch, numbers: int
) -> None:
    here = own_host("here")
    here.put(ACME, RIGHT)

    def kept() -> list[Any]:
        key = here.log.key
        hashes = [own.command("HGETALL", key(name)) for name in ("head", "meta")]
        return [*hashes, own.command("XLEN", key("log")), own.command("ZCARD", key("chunked"))]

    before = kept()
    original = FleetLog._one

    @contextmanager
    def full(self: FleetLog) -> Iterator[Any]:
        own.command("CONFIG", "SET", "maxmemory", "1")
        with original(self) as one:
            yield one

    with monkeypatch.context() as patched:
        patched.setattr(FleetLog, "_one", full)
        with pytest.raises(StoreError, match="has no memory left"):
            here.add(*scattered(numbers))
    own.command("CONFIG", "SET", "maxmemory", "0")
    assert kept() == before
    assert here.version == 1


def test_a_change_that_too_few_replicas_have_is_reported_and_stands(host: NewHost) -> None:
    told: list[str] = []
    here = host("here", replicas=1, report=told.append)
    here.put(ACME)
    assert here.version == 1
    (text,) = told
    assert "version 1 is in force, but 0 of the 1 replicas of Redis" in text


def test_a_failover_of_sentinels_loses_no_change_that_a_replica_has(tmp_path: Path) -> None:
    with Sentinels(tmp_path / "sentinels") as sentinels:
        told: list[str] = []
        make = hosts_of(sentinels, tmp_path)
        here, there = make("here", replicas=1, report=told.append), make("there")
        here.put(ACME, RIGHT)
        here.add(*scattered(100_000))
        there.replica.catch_up()
        assert told == []
        old = sentinels.master
        old.kill()
        with pytest.raises(StoreUnavailable, match="Redis shaken of the Sentinels"):
            here.put(BETA)
        sentinels.wait_for_failover(old)

        def goes_on() -> bool:
            try:
                here.put(BETA)
            except StoreUnavailable:
                return False
            return True

        wait_until(goes_on, "a change after the failover")
        assert "0 of the 1 replicas" in told[0]
        assert there.replica.advance() == (3, 3, None)
        assert everything(here.path) == everything(there.path)


def test_valkey_serves_a_fleet_as_redis_does(tmp_path: Path) -> None:
    # All contract tests run with it, too.
    if not has_valkey():
        pytest.skip(NO_VALKEY)
    with RedisServer("valkey", tmp_path / "valkey", program="valkey-server") as server:
        make = hosts_of(server, tmp_path)
        here, there = make("here"), make("there")
        here.put(ACME, RIGHT)
        here.add(*scattered(60_000))
        assert there.replica.advance() == (2, 2, None)
        assert everything(here.path) == everything(there.path)


# --- Whole policies -------------------------------------------------------------------------------


def test_a_whole_policy_is_put_in_force_by_what_it_changes(host: NewHost) -> None:
    here, there = host("here"), host("there")
    done = here.policy.replace_policy(Policy((ACME,)), ALICE, origin="policy.yaml")
    assert (done.version, done.notes) == (1, ())
    assert here.policy.replace_policy(Policy((ACME,)), ALICE).version == 1
    there.put(BETA)
    with pytest.raises(StoreChanged):
        here.policy.replace_policy(Policy((ACME,)), ALICE, overwrite=False)
    assert here.log.head().version == 2
    assert here.policy.replace_policy(Policy((ACME,)), ALICE).version == 3
    assert there.policy.replace_policy(Policy((ACME, BETA)), ALICE, overwrite=False).version == 4
    here.replica.catch_up()
    assert [change.what for change in changes(here.path)] == [
        "policy.yaml: 1 customer",
        "put",
        "1 customer",
        "1 customer",
    ]
    assert everything(here.path) == everything(there.path)


def test_a_key_does_not_hide_from_files_what_was_changed_before_it(host: NewHost) -> None:
    here, there = host("here"), host("there")
    here.policy.replace_policy(Policy((ACME,)), ALICE)
    here.put(BETA)
    with here.policy.change(ALICE, "anchors") as draft:
        draft.put_material(StoredAnchors("us", "roots"))
    there.replica.catch_up()
    for one in (here, there):
        with pytest.raises(StoreChanged):
            one.policy.replace_policy(Policy((ACME,)), ALICE, overwrite=False)
    assert here.policy.replace_policy(Policy((ACME, BETA, GAMMA)), ALICE).version == 4
    with there.policy.change(ALICE, "no anchors") as draft:
        draft.remove_material(StoredAnchors, "us")
    assert there.policy.replace_policy(Policy((ACME,)), ALICE, overwrite=False).version == 6


def test_a_copy_is_changed_through_its_fleet_alone_until_it_leaves_that(host: NewHost) -> None:
    here = host("here")
    here.put(ACME)
    alone = SqlitePolicy(here.path)
    with pytest.raises(StoreError, match="is a copy of a fleet's policy"), alone.change(ALICE, "past it") as draft:
        draft.put(BETA)
    with pytest.raises(StoreError, match="is a copy of a fleet's policy"):
        replace_policy(here.path, Policy(), None, {}, ALICE)
    with pytest.raises(StoreError, match="is a copy of a fleet's policy"):
        compact(here.path, 2e9)
    assert here.replica.advance() == (1, 1, None)
    let_go(here.path)
    with alone.change(ALICE, "on its own") as draft:
        draft.put(BETA)
    assert [change.version for change in alone.changes()] == [1, 2]
    assert mark_of(here.path).fleet is None
    assert here.log.head().version == 1
    let_go(here.path)


def test_numbers_of_both_kinds_go_through_the_log_in_any_order(host: NewHost) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    with here.policy.change(ALICE, "all at once") as draft:
        assert draft.add_numbers(Right, "r", [Span("9999", "9999"), Span("4420", "4429"), Span("1000", "1000")]) == 3
        assert draft.remove_numbers(Right, "r", [Span("9999", "9999"), Span("1", "x")]) == 1
        assert draft.add_numbers(Right, "r", [Span("1000", "1000")]) == 0
        draft.remove(Right, "r")
        draft.put(RIGHT)
        assert draft.add_numbers(Right, "r", [Span("123456789012345", "123456789012345"), Span("1000", "1000")]) == 2
    there.replica.catch_up()
    assert everything(here.path) == everything(there.path)
    assert there.rights("123456789012345") == there.rights("1000") == ["r"]
    assert there.rights("4420") == there.rights("9999") == []
