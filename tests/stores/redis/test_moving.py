"""A policy into a fleet's Redis and back: nothing is lost, whoever dies at whatever moment, or given up unsaid."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.records import Customer, CustomerState, Right
from shaken_plugin.errors import ConflictError, StoreError
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.ports import Span
from shaken_plugin.stores.redis import moving
from shaken_plugin.stores.redis.advice import advise
from shaken_plugin.stores.redis.applying import mark_of
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.moving import Relation, join, look_at, move_in, move_out, restore
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.upkeep import SWEEP, sweep, upload_snapshot
from shaken_plugin.stores.sqlite import SqlitePolicy, replace_policy
from shaken_plugin.stores.sqlite.sharing import own_policy
from tests.stores.redis.conftest import ACME, ALICE, RIGHT, Host, everything

BETA = Customer("beta", "Beta", CustomerState.VERIFIED)


@pytest.fixture
def log(server: RedisServer) -> FleetLog:
    return FleetLog(server.access, f"t{uuid.uuid4().hex[:20]}")


def add(path: Path, *records: Any) -> None:
    with SqlitePolicy(path).change(ALICE, "put") as draft:
        for record in records:
            draft.put(record)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A host on its own, with a history."""
    path = tmp_path / "mine.db"
    add(path, ACME, RIGHT)
    with SqlitePolicy(path).change(ALICE, "numbers") as draft:
        draft.add_numbers(Right, "r", [Span("12155551212", "12155551212"), Span("12155551200", "12155551299")])
    add(path, Customer("acme", "Acme Ltd", CustomerState.SUSPENDED))
    return path


def copied(path: Path) -> bool:
    return mark_of(path).fleet is not None


def relation(path: Path, log: FleetLog) -> Relation:
    return look_at(path, log).relation


def test_everything_goes_in_and_comes_out_again(path: Path, log: FleetLog, tmp_path: Path) -> None:
    before = everything(path)
    assert relation(path, log) is Relation.NEW
    assert own_policy(path)
    move_in(path, log)
    assert relation(path, log) is Relation.COPY
    assert copied(path)
    assert everything(path) == before
    other = Host(tmp_path / "other.db", log)
    assert relation(other.path, log) is Relation.EMPTY
    move_in(other.path, log)  # which is nothing else than to join
    other.put(BETA)
    after = everything(other.path)
    assert everything(path) == before
    move_out(path, log)  # at the head, and not as it was
    assert everything(path) == after
    assert own_policy(path)
    add(path, Customer("gamma", "Gamma", CustomerState.PENDING))
    assert everything(other.path) == after
    other.replica.catch_up()
    assert everything(other.path) == after


def test_a_move_to_where_it_was_before_is_none(path: Path, log: FleetLog) -> None:
    move_in(path, log)
    for _ in range(2):
        assert move_in(path, log).relation is Relation.COPY
    move_out(path, log)
    before = everything(path)
    for _ in range(2):
        assert move_out(path, log).relation in (Relation.COPY, Relation.SAME)
    identifier = log.look().identifier
    assert relation(path, log) is Relation.SAME
    move_in(path, log)
    assert mark_of(path).fleet == log.look().identifier == identifier
    assert everything(path) == before


def test_what_was_changed_outside_alone_comes_in_and_what_was_changed_on_both_sides_does_not(
    path: Path, log: FleetLog, tmp_path: Path
) -> None:
    move_in(path, log)
    other = Host(tmp_path / "other.db", log)
    other.replica.catch_up()
    move_out(path, log)
    add(path, BETA)
    assert relation(path, log) is Relation.AHEAD
    move_in(path, log)
    assert other.replica.advance().resynced == "the fleet was begun anew"
    assert everything(other.path) == everything(path)

    move_out(path, log)
    add(path, Customer("gamma", "Gamma", CustomerState.PENDING))
    other.put(Customer("delta", "Delta", CustomerState.PENDING))
    before, theirs = everything(path), everything(other.path)
    assert relation(path, log) is Relation.OWN
    with pytest.raises(ConflictError, match="has a policy already"):
        move_in(path, log)
    with pytest.raises(ConflictError, match="has a policy already"):
        move_in(path, log, "another")
    assert everything(path) == before
    other.replica.catch_up()
    assert everything(other.path) == theirs
    move_in(path, log, log.look().identifier)
    other.replica.catch_up()
    assert everything(path) == everything(other.path) == before


def test_a_change_in_the_fleet_while_another_policy_takes_its_place_is_not_lost(
    path: Path, log: FleetLog, tmp_path: Path
) -> None:
    move_in(path, log)
    other = Host(tmp_path / "other.db", log)
    other.replica.catch_up()
    move_out(path, log)
    add(path, BETA)
    view = log.look()
    other.put(Customer("delta", "Delta", CustomerState.PENDING))  # in that very moment
    with pytest.raises(StoreError, match="it has a policy already"):
        upload_snapshot(path, log, view.identifier, view.head)
    assert log.look().head.version == view.head.version + 1


def test_only_a_person_has_a_host_give_up_its_policy(path: Path, log: FleetLog, tmp_path: Path) -> None:
    move_in(path, log)
    mine = tmp_path / "own.db"
    add(mine, BETA)
    before = everything(mine)
    with pytest.raises(ConflictError, match="'shaken fleet join'"):
        move_in(mine, log)
    assert everything(mine) == before
    assert join(mine, log).relation is Relation.OWN
    assert everything(mine) == everything(path)
    (kept,) = tmp_path.glob("own.db.before-fleet-*")
    assert everything(kept) == before


def test_settings_alone_are_no_policy_of_a_hosts_own(path: Path, log: FleetLog, tmp_path: Path) -> None:
    move_in(path, log)
    mine = tmp_path / "own.db"
    replace_policy(mine, None, {"country": "US"}, {}, ALICE)
    assert relation(mine, log) is Relation.EMPTY
    assert Replica(mine, log).catch_up() == 3


def test_a_copy_brings_its_fleet_back_and_hosts_that_were_behind_follow(
    own: RedisServer, path: Path, tmp_path: Path
) -> None:
    log = FleetLog(own.access, "main")
    move_in(path, log)
    behind, other = Host(tmp_path / "behind.db", log), Host(tmp_path / "other.db", log)
    for host in (behind, other):
        host.replica.catch_up()
    other.put(BETA)
    other.replica.catch_up()
    newest = everything(other.path)
    own.command("FLUSHALL")
    assert relation(path, log) is Relation.LOST
    with pytest.raises(ConflictError, match="'shaken fleet restore'"):
        move_in(path, log)
    add(tmp_path / "own.db", ACME)
    with pytest.raises(ConflictError, match="is no copy of a fleet"):
        restore(tmp_path / "own.db", log)
    assert own.command("DBSIZE") == 0
    assert restore(other.path, log).relation is Relation.LOST
    assert restore(other.path, log).relation is Relation.COPY
    progress = behind.replica.advance()
    assert (progress.version, progress.resynced) == (4, "the log has nothing behind version 3")
    assert everything(behind.path) == newest
    with pytest.raises(ConflictError, match="there is one already"):
        restore(tmp_path / "own.db", log)


def test_nothing_is_taken_out_of_a_fleet_that_it_is_not_of(path: Path, log: FleetLog) -> None:
    with pytest.raises(ConflictError, match="is no copy of fleet"):
        move_out(path, log)
    assert moving.let_go(path).fleet is None
    move_in(path, log)
    assert moving.let_go(path).fleet == log.look().identifier
    assert own_policy(path)
    assert relation(path, log) is Relation.SAME


def test_what_redis_lost_of_a_policy_that_went_out_is_not_taken_from_it(
    own: RedisServer, path: Path, tmp_path: Path
) -> None:
    log = FleetLog(own.access, "main")
    move_in(path, log)
    own.command("SAVE")
    Host(path, log).put(BETA)
    move_out(path, log)
    own.kill()
    own.restart()
    assert relation(path, log) is Relation.OWN


# --- Killed ---------------------------------------------------------------------------------------


class Killed(BaseException):
    """Nobody catches it; what is open is closed uncommitted, as after SIGKILL."""


@contextmanager
def dies(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[list[str]]:
    """Have whoever works with Redis die at a command: with an even number before it, with an odd one behind it."""
    command, asked = FleetLog.command, list[str]()

    def dying(log: FleetLog, *words: Any) -> Any:
        asked.append(str(words[0]))
        last = len(asked) - 1 == at // 2
        if last and at % 2 == 0:
            raise Killed
        answer = command(log, *words)
        if last:
            raise Killed
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(FleetLog, "command", dying)
        yield asked


def until_done(monkeypatch: pytest.MonkeyPatch, work: Any) -> Iterator[int]:
    """Do a work that is killed, one moment later each time, until it is over before that."""
    for at in range(200):
        with dies(monkeypatch, at) as asked:
            try:
                work(at)
            except Killed:
                yield at
            else:
                assert len(asked) <= at // 2 + 1
                return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("changed", [False, True])
def test_killed_at_any_moment_a_move_is_run_again_and_all_is_there(
    path: Path, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, changed: bool
) -> None:
    source = path.read_bytes()
    seen: set[Relation] = set()

    def place(at: int) -> tuple[Path, FleetLog]:
        return tmp_path / f"at-{at}.db", FleetLog(
            server.access, f"k{at}-{path.parent.name[-20:].lower()}".replace("_", "")
        )

    def work(at: int) -> None:
        mine, log = place(at)
        mine.write_bytes(source)
        move_in(mine, log)

    for at in until_done(monkeypatch, work):
        mine, log = place(at)
        if changed and not copied(mine):
            add(mine, BETA)  # the host goes on, and its people do
        before = everything(mine)
        seen.add(relation(mine, log))
        move_in(mine, log)
        assert everything(mine) == before
        late = Host(tmp_path / f"late-{at}.db", log)
        late.replica.catch_up()
        assert everything(late.path) == before
        move_out(mine, log)
        assert everything(mine) == before
    assert seen == {Relation.NEW, Relation.AHEAD if changed else Relation.SAME, Relation.COPY}


def test_killed_at_any_moment_a_host_leaves_or_stays(
    path: Path, log: FleetLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_in(path, log)
    other = Host(tmp_path / "other.db", log)
    other.put(BETA)
    after = everything(other.path)
    behind = path.read_bytes()
    for at in until_done(monkeypatch, lambda at: (path.write_bytes(behind), move_out(path, log))):
        assert at >= 0
        move_out(path, log)
        assert everything(path) == after
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)


# --- What Redis keeps, and its settings -----------------------------------------------------------


def test_the_chunks_of_a_policy_that_was_given_up_are_swept(
    server: RedisServer, path: Path, log: FleetLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shaken_plugin.stores.redis.upkeep.READING", -1)
    move_in(path, log)
    assert sweep(log) == 0
    mine = tmp_path / "own.db"
    add(mine, BETA)
    move_in(mine, log, log.look().identifier)
    assert 0 < sweep(log) <= SWEEP
    keys = server.command("KEYS", f"shaken:{log.fleet}:chunk:*")
    assert len(keys) == 1
    late = Host(tmp_path / "late.db", log)
    late.replica.catch_up()
    assert everything(late.path) == everything(mine)


def test_settings_that_lose_a_policy_are_told(tmp_path: Path) -> None:
    lost = {"appendonly": "no", "maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}
    with RedisServer("lossy", tmp_path / "lossy", lost) as server:
        told = advise(FleetLog(server.access, "main"))
    assert [one.partition(" ")[0] for one in told] == ["appendonly", "maxmemory-policy"]
    kept = {"appendonly": "yes", "maxmemory": "100mb"}
    with RedisServer("kept", tmp_path / "kept", kept) as server:
        assert advise(FleetLog(server.access, "main")) == []
