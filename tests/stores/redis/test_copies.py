"""Copies of a fleet's policy: the same everywhere, or built anew and said so; never taken away by what is not there."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.records import Basis, Customer, CustomerState, Right, Route
from shaken_plugin.errors import StoreChanged, StoreError, StoreUnavailable
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.ports import Change, Span
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.redis import building, lost, replica, upkeep
from shaken_plugin.stores.redis.applying import CopyDamaged, Mark, mark_of
from shaken_plugin.stores.redis.entries import Head
from shaken_plugin.stores.redis.log import FleetLog, View
from shaken_plugin.stores.redis.pieces import Damaged, Writer
from shaken_plugin.stores.redis.replica import OwnPolicy, Progress, Replica
from shaken_plugin.stores.redis.upkeep import compact, due, renew_snapshot, sweep, upload_snapshot
from shaken_plugin.stores.sqlite import SqlitePolicy, put_settings, read_header, replace_policy
from shaken_plugin.stores.sqlite.schema import Patience, meta
from tests.stores.redis.conftest import ACME, ALICE, RIGHT, Host, NewHost, changes, everything


def eventful(host: Host) -> None:
    """Versions with everything that can begin and end."""
    host.put(ACME, RIGHT, Route("uk", ("44",)))
    host.add(12155551212, 12155551250)
    with host.policy.change(ALICE, "ranges") as draft:
        draft.add_numbers(Right, "r", [Span("12155551200", "12155551299"), Span("4420", "4429")])
    with host.policy.change(ALICE, "fewer") as draft:
        draft.remove_numbers(Right, "r", [Span("12155551212", "12155551212"), Span("4420", "4429")])
    host.put(Customer("acme", "Acme Ltd", CustomerState.SUSPENDED))
    host.add(12155551212)
    with host.policy.change(ALICE, "gone") as draft:
        draft.remove(Route, "uk")


# --- Following ----------------------------------------------------------------------------------


def test_a_change_is_on_another_host_within_a_second(host: NewHost) -> None:
    here, there = host("here"), host("there")
    there.replica.catch_up()
    found: list[Progress] = []
    following = threading.Thread(target=lambda: found.append(there.replica.follow(10)))
    following.start()
    here.put(ACME, RIGHT)
    began = time.monotonic()
    following.join()
    assert time.monotonic() - began < 1
    assert found == [Progress(1, 1, None)]
    assert everything(here.path) == everything(there.path)


def test_a_change_made_here_while_redis_is_looked_at_is_no_lost_one(
    host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = host("here")
    here.put(ACME)
    agent = Replica(here.path, FleetLog(here.log.access, here.log.fleet))  # of another process than the command
    real = agent.log.look

    def look() -> View:
        view = real()
        monkeypatch.setattr(agent.log, "look", real)
        here.put(RIGHT)
        return view

    monkeypatch.setattr(agent.log, "look", look)
    assert agent.advance().resynced is None
    assert agent.advance() == Progress(2, 2, None)


def test_without_news_following_ends_in_time_and_says_how_far_it_is(host: NewHost) -> None:
    here = host("here")
    here.put(ACME)
    began = time.monotonic()
    assert here.replica.follow(0.7) == Progress(1, 1, None)
    assert 0.6 < time.monotonic() - began < 2


def test_following_on_looks_once_a_turn_and_before_it_where_the_last_one_failed(
    host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, done = host("here"), list[str]()
    here.put(ACME)
    agent = Replica(here.path, FleetLog(here.log.access, here.log.fleet))
    look, wait = agent.log.look, agent.log.wait

    def looking() -> View:
        done.append("look")
        return look()

    def waiting(after: int, seconds: float) -> None:
        done.append("wait")
        wait(after, seconds)

    monkeypatch.setattr(agent.log, "look", looking)
    monkeypatch.setattr(agent.log, "wait", waiting)
    assert agent.follow(0.2) == Progress(1, 1, None)
    assert done[0] == "look"
    assert set(done[1::2]) == {"wait"}  # Redis may answer a little before the end of a turn: one more pair
    done.clear()
    assert agent.follow(0.2) == Progress(1, 1, None)
    assert (set(done[::2]), set(done[1::2])) == ({"wait"}, {"look"})
    content = here.path.read_bytes()
    here.path.write_bytes(b"no database " * 1_000)
    monkeypatch.setattr(replica, "rebuild_damaged", fails)
    done.clear()
    for _ in range(2):
        with pytest.raises(CopyDamaged):
            agent.follow(0.2)
    assert done == ["wait", "look", "look"]
    here.path.write_bytes(content)
    agent.follow(0)
    done.clear()
    monkeypatch.setattr(agent.log, "wait", is_not_allowed)
    with pytest.raises(StoreUnavailable):  # whoever swallowed that would ask again and again
        agent.follow(0.2)
    assert done == []
    here.path.write_bytes(b"no database " * 1_000)
    with pytest.raises(CopyDamaged):
        agent.follow(0.2)
    here.path.write_bytes(content)


def is_not_allowed(after: int, seconds: float) -> None:
    raise StoreUnavailable("XREAD is not allowed")


def fails(*_: object) -> Path:
    raise StoreError("not now")


def test_history_is_the_same_by_the_log_and_by_a_snapshot(host: NewHost) -> None:
    here, there = host("here"), host("there")
    eventful(here)
    there.replica.catch_up()
    assert renew_snapshot(here.path, here.log)
    here.put(Customer("beta", "Beta", CustomerState.PENDING))
    there.replica.catch_up()
    late = host("late")
    assert late.replica.advance() == Progress(8, 8, None)  # who joins has lost nothing
    assert everything(here.path) == everything(there.path) == everything(late.path)
    for one in (here, there, late):
        assert one.rights("12155551212") == ["r", "r"]
        assert one.rights("4420") == []
        with pytest.raises(StoreError, match="no version 9"), one.policy.records(9):
            pass
    late.add(12155551213)
    here.replica.catch_up()
    assert everything(here.path) == everything(late.path)


def test_what_is_the_hosts_own_outlives_a_copy_built_anew(host: NewHost, tmp_path: Path) -> None:
    host("here").put(ACME)
    path = tmp_path / "there.db"
    replace_policy(path, None, {"country": "US"}, {"file": "digest"}, ALICE)
    there = host("there")
    assert there.replica.advance() == Progress(1, 1, None)
    header = read_header(path)
    assert (header.policy_version, header.settings, header.digests) == (1, {"country": "US"}, {"file": "digest"})


def test_settings_put_in_force_while_the_copy_is_brought_in_stay(host: NewHost) -> None:
    host("here").put(ACME)
    there = host("there")
    there.replica.catch_up()
    put_settings(there.path, {"country": "US"}, {})
    spoil(there)
    other = sqlite3.connect(there.path, isolation_level=None, check_same_thread=False)
    found: list[Progress] = []
    with closing(other):
        other.execute("BEGIN IMMEDIATE")  # as whoever puts settings in force does
        advancing = threading.Thread(target=lambda: found.append(there.replica.advance()))
        advancing.start()
        time.sleep(0.5)
        other.execute("""UPDATE meta SET value = '{"country": "DE"}' WHERE key = 'settings'""")
        other.execute("COMMIT")
        advancing.join()
    assert found[0].resynced is not None
    assert read_header(there.path).settings == {"country": "DE"}


def test_who_asks_the_copy_goes_on_while_it_is_built_anew(host: NewHost) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    here.add(12155551212)
    there.replica.catch_up()
    with closing(sqlite3.connect(there.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        before = meta(reader)
        spoil(there)
        progress = there.replica.advance()
        assert progress.resynced is not None
        assert meta(reader) == before
    assert there.rights("12155551212") == ["r"]


def spoil(host: Host) -> None:
    """Have a copy be of something that never was."""
    with closing(sqlite3.connect(host.path)) as connection, connection:
        connection.execute("""UPDATE meta SET value = '"nothing"' WHERE key = 'fleet_txid'""")


def test_history_is_forgotten_on_every_host_alike(host: NewHost) -> None:
    here, there = host("here"), host("there")
    eventful(here)
    with here.policy.change(ALICE._replace(at=2e9), "later") as draft:
        draft.put(Customer("beta", "Beta", CustomerState.PENDING))
    there.replica.catch_up()
    found = there.policy.compact(ALICE._replace(at=3e9), 1.9e9)
    assert (found.version, found.changes) == (7, 6)
    # That nobody put a file in force by it: what was changed otherwise still is.
    with pytest.raises(StoreChanged):
        there.policy.replace_policy(Policy(), ALICE, overwrite=False)
    here.replica.catch_up()
    assert renew_snapshot(here.path, here.log)
    late = host("late")
    late.replica.catch_up()
    assert [change.version for change in changes(here.path)] == [7, 8, 9]
    for one in (here, there, late):
        assert changes(one.path) == changes(here.path)
        with pytest.raises(StoreError, match="it has 7 to 9"), one.policy.records(6):
            pass
        with one.policy.records(7) as records:
            assert list(records.numbers(Right, "r")) == [
                Span("12155551200", "12155551299"),
                Span("12155551212", "12155551212"),
                Span("12155551250", "12155551250"),
            ]


# --- What Redis lost ------------------------------------------------------------------------------


def test_changes_that_redis_lost_are_lost_everywhere_and_said(own: RedisServer, own_host: NewHost) -> None:
    here, there = own_host("here"), own_host("there")
    here.put(ACME, RIGHT)
    own.command("SAVE")
    here.add(12155551212)
    there.replica.catch_up()
    own.kill()
    own.restart()  # with what it had saved
    progress = here.replica.advance()
    assert progress.version == 1
    assert progress.resynced is not None
    assert "Redis is at version 1 and the copy was at 2" in progress.resynced
    assert here.rights("12155551212") == []
    # Another change takes the number of the one that was lost: a copy, and whoever asks it, must see the difference.
    assert there.rights("12155551212") == ["r"]
    here.add(12155551250)
    progress = there.replica.advance()
    assert progress.version == 2
    assert progress.resynced is not None
    assert "version 2 was lost" in progress.resynced
    assert there.rights("12155551212") == []
    assert there.rights("12155551250") == ["r"]
    assert everything(here.path) == everything(there.path)


def test_a_lost_version_is_noticed_by_what_follows_it(own: RedisServer, own_host: NewHost) -> None:
    here, there = own_host("here"), own_host("there")
    here.put(ACME, RIGHT)
    own.command("SAVE")
    here.add(12155551212)
    there.replica.catch_up()
    own.kill()
    own.restart()
    here.add(12155551250)
    here.add(12155551251)
    progress = there.replica.advance()
    assert progress.resynced is not None
    assert "version 2 was lost" in progress.resynced
    assert everything(here.path) == everything(there.path)


def test_changes_that_redis_lost_are_kept_once_and_named(own: RedisServer, own_host: NewHost) -> None:
    told: list[str] = []
    here, there, writer = own_host("here"), own_host("there"), own_host("writer", report=told.append)
    here.put(ACME, RIGHT)
    own.command("SAVE")
    for number in range(7):
        here.add(12155551210 + number)
    there.replica.catch_up()
    writer.replica.catch_up()
    before = everything(there.path)
    own.kill()
    own.restart()  # with what it had saved
    writer.put(Route("uk", ("44",)))  # a command, before its host's agent knows
    (text,) = told
    assert "writer.db: the copy was made anew from the snapshot: Redis is at version 1 and the copy was at 8" in text
    progress = there.replica.advance()
    (kept,) = there.path.parent.glob("there.db.lost-*")
    assert kept.name.startswith("there.db.lost-8-")
    assert progress.resynced is not None
    for said in (text, progress.resynced):
        assert "lost: version 2 (alice, letter received: numbers); version 3 (alice, " in said
        assert "; and 2 more; the copy as it was is kept as " in said
    assert str(kept) in progress.resynced
    assert everything(kept) == before
    assert everything(there.path) == everything(writer.path)
    assert len(list(there.path.parent.glob("*.lost*"))) == 2


def test_few_copies_of_what_redis_lost_are_kept(host: NewHost) -> None:
    here = host("here")
    here.put(ACME)
    for number in range(5):
        mark = Mark("f", Head(1, f"../{number}"))
        kept = lost.keep(here.path, mark)
        before = kept.stat()
        assert lost.keep(here.path, mark) == kept
        assert kept.stat() == before
        os.utime(kept, (number, number))
        assert len(list(here.path.parent.glob("*.lost-*"))) == min(number + 1, 3)
        assert kept.exists()
    assert not list(here.path.parent.glob(".*"))


def test_nothing_is_built_anew_where_what_is_lost_cannot_be_kept(
    own: RedisServer, own_host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = own_host("here")
    here.put(ACME)
    own.command("SAVE")
    here.put(RIGHT)
    own.kill()
    own.restart()

    def full(_path: Path) -> None:
        raise StoreError("there is no room")

    monkeypatch.setattr(lost, "create", full)
    with pytest.raises(StoreError, match="there is no room"):
        here.replica.catch_up()
    assert here.version == 2


def test_of_a_history_that_was_forgotten_nothing_is_lost() -> None:
    old, other, new = (Change(number, 1.0, "ann", "why", f"what{number}") for number in (1, 2, 3))
    assert lost.text_of([old, other], [other, new]) == ""
    assert lost.text_of([other], []) == "lost: version 2 (ann, why: what2)"


def test_a_history_that_cannot_be_read_keeps_no_copy_from_being_built_anew(host: NewHost) -> None:
    here = host("here")
    here.put(ACME)
    assert len(lost.recent(here.path, 1)) == 1
    with closing(sqlite3.connect(here.path)) as connection, connection:
        connection.execute("DROP TABLE change")
    assert lost.recent(here.path, 1) == []


def test_an_empty_redis_takes_nothing_away_and_gets_it_back_from_a_host(own: RedisServer, own_host: NewHost) -> None:
    here, there = own_host("here"), own_host("there")
    eventful(here)
    there.replica.catch_up()
    own.command("FLUSHALL")
    for one in (here, there):
        with pytest.raises(StoreError, match="there is none: it was never begun, or this Redis has lost its data"):
            one.replica.catch_up()
        with pytest.raises(StoreError, match="there is none"):
            one.put(ACME)
        with pytest.raises(StoreError, match="there is none"):
            compact(one.path, one.log)
        assert one.rights("12155551212") == ["r", "r"]
    assert own.command("DBSIZE") == 0
    upload_snapshot(there.path, there.log)
    assert here.replica.advance() == Progress(7, 7, None)  # nothing was lost
    here.add(12155551260)
    there.replica.catch_up()
    assert everything(here.path) == everything(there.path)


def test_a_fleet_is_not_begun_over_another_unless_that_is_named(host: NewHost, tmp_path: Path) -> None:
    here = host("here")
    here.put(ACME)
    mine = tmp_path / "mine.db"
    with SqlitePolicy(mine).change(ALICE, "own") as draft:
        draft.put(Customer("beta", "Beta", CustomerState.VERIFIED))
    log = FleetLog(here.log.access, here.log.fleet)
    identifier = log.look().identifier
    with pytest.raises(StoreError, match=f"it has a policy already \\(id {identifier}\\); nothing was changed"):
        upload_snapshot(mine, log)
    assert mark_of(mine).fleet is None
    assert log.look().identifier == identifier
    assert upload_snapshot(mine, log, instead=identifier).identifier != identifier
    progress = here.replica.advance()
    assert progress.resynced == "the fleet was begun anew"
    assert everything(here.path) == everything(mine)


def test_a_policy_of_a_hosts_own_is_given_up_on_purpose_alone_and_kept(host: NewHost, tmp_path: Path) -> None:
    host("here").put(ACME)
    path = tmp_path / "there.db"
    with SqlitePolicy(path).change(ALICE, "own") as draft:
        draft.put(Customer("beta", "Beta", CustomerState.VERIFIED))
    before = everything(path)
    there = host("there")
    for attempt in (there.replica.catch_up, lambda: there.put(ACME), lambda: there.replica.follow(0)):
        with pytest.raises(OwnPolicy, match="this host has a policy of its own"):
            attempt()
        assert everything(path) == before
    assert there.replica.advance(give_up=True).version == 1
    (kept,) = tmp_path.glob("there.db.before-fleet-*")
    assert everything(kept) == before
    with SqlitePolicy(path).records() as records:
        assert [one.id for one in records.all(Customer)] == ["acme"]


# --- A damaged copy ---------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    os.truncate(path, 5_000)


def no_database(path: Path) -> None:
    path.write_bytes(b"no database " * 1_000)


def random_page(path: Path) -> None:
    """One that is not read unless a number is."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'number'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(random.Random(8225).randbytes(size))


def no_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = '\"x\"' WHERE key = 'policy_version'")


DAMAGES = [truncated, no_database, random_page, no_version]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_put_away_and_built_anew(
    host: NewHost, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    here.add(12155551212)
    there.replica.catch_up()
    damage(there.path)
    here.add(12155551213)
    progress = there.replica.follow(0)
    assert progress.version == 3
    assert progress.resynced is not None
    assert "is kept as there.db.damaged" in progress.resynced
    assert (tmp_path / "there.db.damaged").exists()
    assert there.rights("12155551213") == ["r"]
    assert everything(here.path) == everything(there.path)
    # A second time: one such file is kept.
    damage(there.path)
    here.add(12155551214)
    assert there.replica.follow(0).resynced is not None
    assert everything(here.path) == everything(there.path)
    assert {one.name for one in tmp_path.glob("there.db.*")} <= {
        "there.db.damaged", "there.db.damaged-wal", "there.db.damaged-shm"
    }  # fmt: skip


def test_a_damaged_copy_stays_while_redis_cannot_be_had(own: RedisServer, own_host: NewHost) -> None:
    here = own_host("here")
    here.put(ACME, RIGHT)
    here.add(12155551212)
    own.kill()
    truncated(here.path)
    with pytest.raises(CopyDamaged, match="it cannot be made anew now: Redis"):
        here.replica.follow(0)
    assert here.path.stat().st_size == 5_000


# --- Gaps, snapshots, waste ----------------------------------------------------------------------


def test_a_copy_that_the_log_no_longer_reaches_is_built_from_the_snapshot(
    host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "TAIL", 1)
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    there.replica.catch_up()
    for number in range(5):
        here.add(12155551210 + number)
    assert renew_snapshot(here.path, here.log)
    progress = there.replica.advance()
    assert (progress.version, progress.resynced) == (6, "the log begins at version 6 by now, the copy was at 1")
    assert everything(here.path) == everything(there.path)


def test_a_log_with_a_hole_and_no_snapshot_leaves_the_copy_alone(host: NewHost) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    there.replica.catch_up()
    here.add(12155551212)
    here.add(12155551213)
    here.log.command("XDEL", here.log.key("log"), "2-0")
    before = everything(there.path)
    for _ in range(2):
        with pytest.raises(Damaged, match="the log does not go on from its snapshot"):
            there.replica.catch_up()
    assert everything(there.path) == before
    # Whoever has everything heals it.
    assert renew_snapshot(here.path, here.log)
    assert there.replica.advance().resynced is not None
    assert everything(here.path) == everything(there.path)


def test_a_snapshot_is_made_when_it_is_due_by_one_only_and_the_log_is_cut(
    host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "MAX_ENTRIES", 3)
    monkeypatch.setattr(upkeep, "TAIL", 2)
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    here.add(12155551210)
    assert not compact(here.path, here.log)
    here.add(12155551211)
    assert not compact(there.path, there.log)  # it is not there yet, and makes nothing of nothing
    with here.log.locked("compacting", Patience(0.0)):
        assert not compact(here.path, here.log)
    assert compact(here.path, here.log)
    assert not compact(here.path, here.log)
    view = here.log.look()
    assert view.snapshot is not None
    assert (view.snapshot.head, view.waiting) == (view.head, 0)
    assert here.log.command("XLEN", here.log.key("log")) == 2
    assert there.replica.advance() == Progress(3, 3, None)


def test_who_commits_makes_the_snapshot_where_no_agent_does(host: NewHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MAX_ENTRIES", 2)
    here = host("here")
    here.put(ACME, RIGHT)
    for number in range(3):
        assert here.log.look().snapshot is None
        here.add(12155551210 + number)
    view = here.log.look()
    assert view.snapshot is not None
    assert not due(view)


def test_large_changes_make_a_snapshot_due(host: NewHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MAX_WAITING", 3_000)
    here = host("here")
    here.put(ACME, RIGHT)
    assert not due(here.log.look())
    here.add(*scattered(1_000))
    assert due(here.log.look())


def chunks(host: Host) -> int:
    return sum(1 for _ in host.log.client.scan_iter(match=host.log.chunk_key("*", 0)[:-1] + "*"))


def expire(host: Host) -> None:
    """Have the time be over for which waste stays."""
    key = host.log.key("staged")
    for txid in host.log.command("ZRANGE", key, 0, -1):
        host.log.command("ZADD", key, 1, txid)


def test_old_snapshots_and_changes_that_left_the_log_are_swept_later(
    host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "TAIL", 0)
    here = host("here")
    here.put(ACME, RIGHT)
    here.add(*scattered(60_000))
    of_change = chunks(here)
    assert of_change >= 1
    assert renew_snapshot(here.path, here.log)
    here.add(12155551212)
    assert renew_snapshot(here.path, here.log)
    before = chunks(here)
    assert sweep(here.log) == 0  # somebody may be reading them
    expire(here)
    assert sweep(here.log) > 0
    assert here.log.command("ZCARD", here.log.key("staged")) == 0
    view = here.log.look()
    assert view.snapshot is not None
    assert chunks(here) == view.snapshot.sealed.pieces < before
    joined = host("joined")
    joined.replica.catch_up()
    assert everything(joined.path) == everything(here.path)


def test_a_fleet_begun_anew_leaves_no_chunks_of_the_one_before(host: NewHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "TAIL", 0)
    here = host("here")
    here.put(ACME, RIGHT)
    here.add(*scattered(60_000))
    assert renew_snapshot(here.path, here.log)
    here.add(*scattered(50_000)[::2], *range(13_100_000_000, 13_200_000_000, 1_009))
    before = chunks(here)
    assert before >= 2
    upload_snapshot(here.path, here.log, instead=here.log.look().identifier)
    assert sweep(here.log) == 0  # somebody may be reading them
    expire(here)
    assert sweep(here.log) == before
    view = here.log.look()
    assert view.snapshot is not None
    assert chunks(here) == view.snapshot.sealed.pieces
    here.add(12155551212)
    assert renew_snapshot(here.path, here.log)
    expire(here)
    assert sweep(here.log) == view.snapshot.sealed.pieces  # that of the beginning, too, is known
    joined = host("joined")
    joined.replica.catch_up()
    assert everything(joined.path) == everything(here.path)


def test_a_fleet_whose_snapshot_was_given_up_is_not_begun(host: NewHost, monkeypatch: pytest.MonkeyPatch) -> None:
    here = host("here")
    here.put(ACME)
    before = here.log.look()
    upload = FleetLog.upload

    def slow(log: FleetLog, txid: str, writer: Writer) -> None:
        upload(log, txid, writer)
        expire(here)

    monkeypatch.setattr(FleetLog, "upload", slow)
    with pytest.raises(
        StoreError, match="took more than 3600 seconds, or was given up; nothing was changed, try again"
    ):
        upload_snapshot(here.path, here.log, instead=before.identifier)
    assert here.log.look() == before


def scattered(count: int) -> list[int]:
    """Numbers whose differences do not compress away."""
    return random.Random(8224).sample(range(12_000_000_000, 13_000_000_000), count)


# --- A file that is no copy for changes -------------------------------------------------------------


def test_changes_by_hand_to_a_copy_are_undone_with_the_next_damage_they_do(host: NewHost) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    there.replica.catch_up()
    with closing(sqlite3.connect(there.path)) as connection, connection:
        connection.execute("DELETE FROM record WHERE kind = 'right'")
    here.add(12155551212)
    progress = there.replica.advance()
    assert progress.resynced is not None
    assert "there is no right r" in progress.resynced
    assert everything(here.path) == everything(there.path)


def test_one_replica_may_be_used_by_several_threads(host: NewHost) -> None:
    here, there = host("here"), host("there")
    for number in range(8):
        here.put(Customer(f"c{number}", "C", CustomerState.VERIFIED))
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(there.replica.catch_up())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [8] * 4
    assert len(changes(there.path)) == 8


def test_two_processes_of_a_host_may_bring_up_the_same_copy(host: NewHost, tmp_path: Path) -> None:
    here, there = host("here"), host("there")
    for number in range(8):
        here.put(Right(f"r{number}", "acme", Basis.PORTED) if number else ACME)
    both = [Replica(there.path, FleetLog(there.log.access, there.log.fleet)) for _ in range(2)]
    threads = [threading.Thread(target=one.catch_up) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert everything(there.path) == everything(here.path)
    assert not list(tmp_path.glob(".there.db*.new"))


KILLED = """
import os, signal, sys
from pathlib import Path
from shaken_plugin.stores.redis import building
from shaken_plugin.stores.redis.connection import RedisAccess
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.replica import Replica

building._fill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Replica(Path(sys.argv[1]), FleetLog(RedisAccess((("127.0.0.1", int(sys.argv[2])),)), sys.argv[3])).advance()
"""


def test_what_a_killed_rebuild_left_goes_with_the_next_and_what_another_builds_stays(
    server: RedisServer, host: NewHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = host("here"), host("there")
    here.put(ACME)
    words = [sys.executable, "-c", KILLED, str(there.path), str(server.port), there.log.fleet]
    for _ in range(2):
        assert subprocess.run(words, timeout=30, check=False).returncode == -signal.SIGKILL
        assert len(list(tmp_path.glob(".there.db.*.new"))) == 1
    real, seen = building._fill, list[int]()

    def fill(*arguments: Any) -> None:
        monkeypatch.setattr(building, "_fill", real)
        agent = Replica(there.path, FleetLog(there.log.access, there.log.fleet))
        assert agent.catch_up() == 1  # another process, meanwhile
        seen.append(len(list(tmp_path.glob(".there.db.*.new"))))
        real(*arguments)

    monkeypatch.setattr(building, "_fill", fill)
    assert there.replica.catch_up() == 1
    assert seen == [1]
    assert not list(tmp_path.glob(".there.db.*.new"))
    assert everything(there.path) == everything(here.path)
