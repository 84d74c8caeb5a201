"""Standings and offences of several hosts with one real Redis: the same everywhere, whatever is lost or late."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from shaken_plugin.conduct import decisions, fleet, replica, view
from shaken_plugin.conduct.accounts import Said
from shaken_plugin.conduct.acts import enqueue, standing_act
from shaken_plugin.conduct.replica import StateReplica
from shaken_plugin.conduct.state import State
from shaken_plugin.errors import ConflictError, StoreError, StoreUnavailable
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.records.place import Place
from shaken_plugin.stores import statefile
from shaken_plugin.stores.redis import state as stream_module
from tests.conduct.book import ACME
from tests.conduct.hosts import FleetHost, agree
from tests.offences import HOUR

_NAMES = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as server:
        yield server


Make = Callable[..., FleetHost]


@pytest.fixture
def make(server: RedisServer, tmp_path: Path) -> Iterator[Make]:
    """Makes a host, by default of this test's own fleet."""
    name = f"fleet-{next(_NAMES)}"
    with ExitStack() as stack:

        def made(host: str, ledger: str | None = None) -> FleetHost:
            return stack.enter_context(FleetHost(tmp_path / f"{host}.db", server.access, name, ledger))

        yield made


@pytest.fixture
def pair(make: Make) -> tuple[FleetHost, FleetHost]:
    one, two = make("one"), make("two")
    one.sync()
    two.sync()
    return one, two


# --- Standings ----------------------------------------------------------------------------------


def test_a_decision_of_one_host_holds_on_every_other(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    for what, expected in (("suspend", "suspended"), ("terminate", "terminated"), ("reinstate", None)):
        one.put(what, 1)
        assert one.standing() == expected  # at once
        one.sync()
        two.sync()
        assert two.standing() == expected
    two.put("suspend", 1, by="Bob")
    agree(pair)
    assert one.standing() == "suspended"
    assert one.history() == [("suspended", "Ann"), ("terminated", "Ann"), ("reinstated", "Ann"), ("suspended", "Bob")]


def test_who_knows_what_was_decided_overrules_it_whatever_its_clock_says(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    one.put("suspend", 9)
    agree(pair)
    two.put("reinstate", 3)  # six hours slow
    agree(pair)
    assert (one.standing(), two.standing()) == (None, None)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_newest_holds_everywhere_whatever_order_it_arrives_in(make: Make, order: tuple[int, ...]) -> None:
    hosts = [make(f"host{number}") for number in range(3)]
    for host in hosts:
        host.sync()
    hosts[0].put("suspend", 1)
    hosts[1].put("terminate", 2)
    hosts[2].put("suspend", 3)
    decisions.reinstate(hosts[2].state, ACME, "Cid", "enough", hosts[2].at(4))
    for number in order:
        hosts[number].sync()
    content = agree(hosts)
    assert {host.standing() for host in hosts} == {None}
    assert len(content["standing"]) == 4
    hosts[order[0]].put("suspend", 2)
    agree(hosts)
    assert {host.standing() for host in hosts} == {"suspended"}


def test_two_at_the_same_moment_are_decided_alike_everywhere(make: Make) -> None:
    hosts = [make("one"), make("two"), make("three")]
    for host in hosts:
        host.sync()
    hosts[0].put("suspend", 1)
    hosts[1].put("terminate", 1)
    agree(hosts)
    assert len({host.standing() for host in hosts}) == 1


def test_an_older_decision_that_comes_late_changes_no_account(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    one.calls([(0, "1")])
    agree(pair)
    two.put("suspend", 1)  # cut off
    one.put("suspend", 2)
    one.put("reinstate", 3)
    one.sync()
    assert one.end() == "1 settled: 1 call"
    agree(pair)
    assert two.standing() is None
    two.calls([(40, "2")])
    agree(pair)
    assert one.end() == "1 settled: 1 call, 2 open: 1 call"


def test_without_redis_it_holds_here_at_once_and_there_when_it_is_back(
    pair: tuple[FleetHost, FleetHost], server: RedisServer
) -> None:
    one, two = pair
    server.pause()
    try:
        one.put("suspend", 1)
        assert one.standing() == "suspended"
        with pytest.raises(StoreUnavailable, match="does not answer in time"):
            one.sync()
        with one.state.reading() as connection:
            assert [event.what for event in view.decisions(connection)] == ["suspended"]
    finally:
        server.resume()
    assert (one.waiting(), two.standing()) == (1, None)
    agree(pair)
    assert two.standing() == "suspended"
    with two.state.reading() as connection:
        assert [(event.what, event.who) for event in view.decisions(connection)] == [("suspended", "Ann")]


# --- Killed in between ----------------------------------------------------------------------------


def _killed(work: Callable[[], object]) -> None:
    """Do something in a process that dies of signal 9 where it calls `_die`."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), 9)


@pytest.mark.parametrize("function", ["waiting", "mark_published", "apply"])
def test_killed_before_or_after_it_is_published_nothing_is_lost_or_counts_twice(
    pair: tuple[FleetHost, FleetHost], server: RedisServer, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    one.calls([(0, "1"), (1, "2")])
    one.put("suspend", 2)
    name = one.stream._prefix.split("{")[1].rstrip("}")

    def work() -> None:
        monkeypatch.setattr(fleet, function, _die)
        FleetHost(one.path, server.access, name, one.ledger).sync()  # connections must not cross a fork

    _killed(work)
    content = agree(pair)
    assert two.end() == "1 open: 2 calls, customer suspended"
    assert len(content["standing"]) == 1
    one.calls([(3, "3")])
    agree(pair)
    assert two.end() == "1 open: 3 calls, customer suspended"


def test_killed_at_any_statement_of_a_round_nothing_is_lost_or_counts_twice(make: Make, server: RedisServer) -> None:
    one, two = make("one"), make("two")
    one.sync()
    name = one.stream._prefix.split("{")[1].rstrip("}")
    total, statement, died = 0, 0, True
    while died:
        statement += 1 + statement // 15  # all of the first, and some of the many after them
        two.sync()
        two.calls([(total / 100, "1")])
        two.sync()
        one.calls([(total / 100, "1")])
        total += 2
        pid = os.fork()
        if pid == 0:
            try:
                _round_until(one, server, name, statement)
            finally:
                os._exit(0)
        died = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        one.sync()
    assert statement > 10
    content = agree([one, two])
    assert one.end() == f"1 open: {total} calls"
    assert len(content["offence"]) == 1


def _round_until(host: FleetHost, server: RedisServer, name: str, statement: int) -> None:
    done = 0

    def count(_text: str) -> None:
        nonlocal done
        done += 1
        if done == statement:
            _die()

    again = FleetHost(host.path, server.access, name, host.ledger)
    with again.state.reading() as connection:
        connection.set_trace_callback(count)
    again.sync()


# --- Offences -------------------------------------------------------------------------------------


def test_calls_of_all_hosts_are_one_offence_with_one_number_and_one_message(
    pair: tuple[FleetHost, FleetHost],
) -> None:
    one, two = pair
    one.calls([(0, "1"), (0.1, "2")])
    two.calls([(0, "2"), (0.2, "3")])
    content = agree(pair)
    assert (len(content["offence"]), len(content["message"])) == (1, 1)
    (case,) = one.cases()
    assert (case.calls, case.numbers) == (4, 3)
    (message,) = one.book.due(one.at(1), 10)
    one.book.sent(message, one.at(1))
    assert one.book.due(one.at(2), 10) == []  # not even before it has its place
    agree(pair)
    assert two.book.due(two.at(2), 10) == []
    two.calls([(27, "4")])
    agree(pair)
    assert one.end() == two.end() == "1 warned: 4 calls, 2 proposed: 1 call"


def test_a_second_offence_suspends_on_all_hosts_with_the_same_words(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    one.rules = two.rules = type(one.rules)(HOUR, automatic=True)
    one.calls([(0, "1")])
    agree(pair)
    two.deliver(1, 1)
    agree(pair)
    one.calls([(3, "2")])
    two.calls([(3, "3")])
    content = agree(pair)
    assert [row[2:] for row in content["standing"]] == [
        ("suspended", one.at(3), one.at(3), "offences", "second offence 2 after a warning, with number 2", 2)
    ]
    assert one.standing() == two.standing() == "suspended"


def test_the_same_decision_on_two_hosts_counts_once(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    one.calls([(0, "1")])
    agree(pair)
    one.deliver(1, 1)
    two.deliver(1, 2)
    agree(pair)
    (case,) = one.cases()
    assert (case.offence.delivered_at, case.warnings) == (one.at(1), 1)
    two.calls([(30, "2")])
    agree(pair)
    for host in pair:
        decisions.dismiss(host.state, 2, "Ann", "ported in", host.at(31))
    content = agree(pair)
    assert [row[4] for row in content["event"]].count("dismissed") == 1
    with pytest.raises(ConflictError, match="no warning waits"):
        one.deliver(1, 40)


def test_calls_of_a_host_that_was_cut_off_count_by_their_own_time(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    one.calls([(0, "1")])
    one.sync()
    one.deliver(1, 1)
    agree(pair)
    two.calls([(20, "2"), (26, "3")])  # cut off
    one.put("suspend", 30)
    one.put("reinstate", 31)
    one.sync()
    agree(pair)
    assert two.standing() is None
    assert one.end() == two.end() == "1 settled: 3 calls"


def test_hosts_with_one_ledger_count_each_call_once(make: Make) -> None:
    hosts = one, two = make("one", "shared"), make("two", "shared")
    for host in hosts:
        host.sync()
    read = one.read([(0, "1"), (1, "2")])
    for host in hosts:
        host.book.take(read, host.rules, host.at(1))
    agree(hosts)
    assert one.end() == "1 open: 2 calls"
    assert one.book.mark() == two.book.mark() == read.until
    more = two.read([(2, "3")])
    more = more._replace(until=Place(3, "spool:3"), calls=[more.calls[0]._replace(call="spool:3")])
    two.book.take(more, two.rules, two.at(2))
    two.sync()
    stale = more._replace(until=Place(2, "spool:2"), calls=())
    one.book.take(stale, one.rules, one.at(2))  # it was slower
    agree(hosts)
    assert one.book.mark() == more.until
    assert one.end() == "1 open: 3 calls"


def test_mode_observe_is_listed_on_all_hosts(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    one.calls([(0, "1")], observed=True)
    agree(pair)
    with two.state.reading() as connection:
        assert [seen.number for _, seen in view.observed(connection)] == ["1"]


def test_one_host_sends_a_message_and_another_after_it_says_the_same(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    assert one.replica.claim("message", 60, b"one") == b"one"
    assert two.replica.claim("message", 60, b"two") is None
    assert one.replica.claim("message", 60, b"later") == b"one"
    claim = f"{one.stream._prefix}:state:claim:message"
    assert 0 < one.stream._ask("TTL", claim) <= 60
    one.stream._ask("DEL", claim)  # its time is over
    assert two.replica.claim("message", 60, b"two") == b"one"


# --- Joining, lost files, lost Redis ----------------------------------------------------------------


def _story(host: FleetHost) -> None:
    host.calls([(0, "1"), (1, "2")])
    host.sync()
    host.deliver(1, 2)
    host.put("terminate", 3, customer="zeta")
    host.sync()


def test_who_joins_takes_over_everything_and_brings_its_own_standings(make: Make) -> None:
    one, two = make("one"), make("two")
    one.put("suspend", -5, customer="beta")
    one.calls([(-4, "0")])
    one.sync()
    _story(one)
    two.put("suspend", 1, customer="delta")
    two.calls([(0, "9")])
    notes = two.sync().notes
    (kept,) = two.path.parent.glob("two.db.before-fleet-*")
    assert notes == [f"standings and offences are those of the fleet from now on; what was here is kept as {kept}"]
    with State(kept).reading() as connection:
        assert len(view.cases(connection)) == 1
    agree([one, two])
    assert [host.standing(customer) for host in (one, two) for customer in ("beta", "zeta", "delta")] == [
        "suspended",
        "terminated",
        "suspended",
    ] * 2
    assert two.end() == "1 warned: 3 calls"


def test_a_lost_file_is_filled_from_the_fleet_and_reads_its_ledger_on(make: Make) -> None:
    one, two = make("one"), make("two")
    one.sync()
    two.sync()
    _story(one)
    mark = one.book.mark()
    for end in ("", "-wal", "-shm"):
        (one.path.parent / f"{one.path.name}{end}").unlink(missing_ok=True)
    again = make("one")
    again.seq = one.seq
    again.sync()
    agree([again, two])
    assert again.standing("zeta") == "terminated"
    assert again.book.mark() == mark
    again.calls([(4, "3")])
    agree([again, two])
    assert two.end() == "1 warned: 3 calls"


def test_a_file_from_a_backup_loses_nothing_and_tells_what_is_new(make: Make) -> None:
    one, two = make("one"), make("two")
    one.sync()
    two.sync()
    one.put("suspend", 1, customer="beta")
    one.sync()
    with closing(sqlite3.connect(one.path)) as source, closing(sqlite3.connect(one.path.with_name("copy"))) as copy:
        source.backup(copy)
    _story(one)
    for end in ("-wal", "-shm"):
        (one.path.parent / f"{one.path.name}{end}").unlink(missing_ok=True)
    one.path.with_name("copy").replace(one.path)
    one.put("suspend", 5, customer="gamma")  # before it knows what it has missed
    agree([one, two])
    assert [one.standing(name) for name in ("beta", "gamma", "zeta")] == ["suspended", "suspended", "terminated"]
    assert two.end() == "1 warned: 2 calls"


def test_when_redis_lost_everything_the_hosts_bring_it_back(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    _story(one)
    two.sync()
    one.calls([(4, "3")])
    one.sync()  # two does not know of this
    two.put("suspend", 5, customer="beta")
    one.stream._ask("FLUSHALL")
    notes = two.sync().notes
    assert notes == ["the fleet's standings and offences begin with those of this host; Redis had lost everything"]
    agree(pair)
    assert two.end() == "1 warned: 3 calls"
    assert [one.standing("zeta"), one.standing("beta")] == ["terminated", "suspended"]


@pytest.mark.parametrize("faster", [0, 1, 9])
def test_what_a_failover_lost_is_published_again(make: Make, faster: int) -> None:
    hosts = one, two, three = make("one"), make("two"), make("three")
    for host in hosts:
        host.sync()
    _story(one)
    two.sync()
    head, stream, ask = one.stream._head, one.stream._stream, one.stream._ask
    before, entries = ask("HGETALL", head), ask("XRANGE", stream, "-", "+")
    one.put("suspend", 4, customer="beta")
    one.calls([(4, "3")])
    one.sync()
    two.sync()
    assert two.standing("beta") == "suspended"
    # What was a replica, and had not got these, is the master now; and another host is faster after that.
    ask("DEL", head, stream)
    ask("HSET", head, *itertools.chain(*before.items()))
    for identifier, values in entries:
        ask("XADD", stream, identifier, *itertools.chain(*values.items()))
    three.put("suspend", 5, customer="gamma")
    for number in range(faster):
        three.put("terminate", 6, customer=f"faster{number}")
    three.sync()
    agree(hosts)
    assert {host.standing(name) for host in hosts for name in ("beta", "gamma")} == {"suspended"}
    assert one.end() == two.end() == "1 warned: 3 calls"


def test_a_host_that_was_away_for_long_is_filled_from_a_newer_snapshot(
    pair: tuple[FleetHost, FleetHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    monkeypatch.setattr(stream_module, "TAIL", 3)
    monkeypatch.setattr(replica, "AT_ONCE", 4)
    two.put("suspend", 1, customer="beta")  # never published so far
    for number in range(20):
        one.calls([(number / 10, str(number))])
        one.put("suspend", 1, customer=f"customer{number}")
    one.sync()
    assert one.replica.compact(50) is False
    assert one.replica.compact(30) is True
    assert one.replica.compact(30) is False
    assert one.stream._ask("XLEN", one.stream._stream) == 4
    chunks = one.stream._client.keys(f"{one.stream._chunks}:*")
    assert one.stream._ask("ZCARD", f"{one.stream._prefix}:staged") == 0
    assert len(chunks) == len(list(one.stream.snapshot().pieces))
    assert two.sync().notes == [
        "standings and offences were filled anew from the fleet: entries between were gone, or others"
    ]
    agree(pair)
    assert two.standing("customer7") == two.standing("beta") == one.standing("beta") == "suspended"
    assert two.end() == "1 open: 20 calls"
    one.calls([(30, "x")])
    agree(pair)


def test_everything_is_published_into_an_empty_fleet_and_into_no_other(make: Make) -> None:
    one, two = make("one"), make("two")
    one.calls([(0, "1")])
    one.put("suspend", 1, customer="beta")
    one.replica.publish_everything()
    with pytest.raises(ConflictError, match="nothing done"):
        two.replica.publish_everything()
    assert two.position() == -1
    agree([one, two])
    assert (two.standing("beta"), two.end()) == ("suspended", "1 open: 1 call")


def test_two_hosts_begin_a_fleet_at_the_same_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make("one"), make("two")
    one.put("suspend", 1)
    two.put("suspend", 2, customer="beta")
    heads = iter([None])
    honest = two.stream.head
    monkeypatch.setattr(two.stream, "head", lambda: next(heads, honest()))
    one.sync()
    two.sync()
    agree([one, two])
    assert (two.standing(), one.standing("beta")) == ("suspended", "suspended")


def test_who_leaves_takes_along_what_was_not_yet_told(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    _story(one)
    one.calls([(30, "3")])
    one.put("suspend", 31)
    with one.state.changing() as connection:
        assert fleet.leave(connection)
        assert not fleet.leave(connection)
    assert one.end() == "1 warned: 2 calls, 2 suspended: 1 call, customer suspended"
    assert one.standing("zeta") == "terminated"
    one.calls([(32, "4")])
    assert one.end() == "1 warned: 2 calls, 2 suspended: 2 calls, customer suspended"
    one.put("reinstate", 33)
    two.sync()
    agree([one, two])  # and joins again
    assert two.standing() is None


# --- Entries that are none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        "[]",
        "{}",
        "[" * 100_000,
        '{"do":"standing","said":[1]}',
        '{"do":"standing","said":["u","acme","suspended",null,1,"a","b",null]}',
        '{"do":"standing","said":["u","acme","odd",1,1,"a","b",null]}',
        '{"do":"standing","said":["u","acme","suspended",Infinity,1,"a","b",null]}',
        '{"do":"standing","said":[{},"acme","suspended",1,1,"a","b",null]}',
        '{"do":"delivered","offence":99999999999999999999,"at":1,"who":"a","why":"b"}',
        '{"do":"delivered","offence":"x","at":1,"who":"a","why":"b"}',
        '{"do":"dismissed","offence":7,"at":1,"who":"a","why":"b"}',
        '{"do":"told","message":"none","at":NaN}',
        """{"do":"calls","ledger":"x","since":"0 ","until":"1 ","grace":0,"automatic":true,"gather":0,"now":1,
        "calls":[["a","acme","1",0,{},false],["b","acme","2","x",{},false]]}""",
    ],
    ids=range(14),
)
def test_an_entry_that_is_none_is_passed_over_by_all_and_changes_nothing(
    pair: tuple[FleetHost, FleetHost], body: str
) -> None:
    one, two = pair
    _story(one)
    before = agree(pair)
    head = one.stream.head()
    assert head is not None
    assert one.stream.publish(head.fleet, "somebody", 1, "uid", body)
    after = agree(pair)
    before["source"].append(("somebody", 1))
    assert {**after, "source": sorted(after["source"])} == {**before, "source": sorted(before["source"])}
    one.put("suspend", 5)
    agree(pair)
    assert two.standing() == "suspended"


@pytest.mark.parametrize("act", [{"v": 2, "do": "standing"}, {"do": "pardon"}])
def test_what_a_newer_release_says_waits_for_the_upgrade_and_those_before_it_count(
    pair: tuple[FleetHost, FleetHost], act: dict[str, object]
) -> None:
    one, two = pair
    one.put("suspend", 1)
    one.sync()
    head = one.stream.head()
    assert head is not None
    assert one.stream.publish(head.fleet, "newer", 1, "uid", json.dumps(act))
    for _ in range(2):
        with pytest.raises(StoreError, match="upgrade this host"):
            two.sync()
        assert (two.standing(), two.position()) == ("suspended", 1)


def test_damage_in_redis_is_an_error_of_ours(pair: tuple[FleetHost, FleetHost]) -> None:
    one, two = pair
    one.put("suspend", 1)
    one.sync()
    (name,) = one.stream._ask("HMGET", one.stream._head, "pieces")
    chunk = f"{one.stream._chunks}:{name.decode()}:0"
    third = StateReplica(State(two.path), two.stream, "two")
    one.replica.compact(1)
    (name,) = one.stream._ask("HMGET", one.stream._head, "pieces")
    chunk = f"{one.stream._chunks}:{name.decode()}:0"
    with two.state.changing() as connection:
        connection.execute("DELETE FROM meta WHERE key = 'fleet'")
    one.stream._ask("SET", chunk, b"no zlib")
    with pytest.raises(StoreError, match="snapshot of the state is damaged"):
        third.sync()
    one.stream._ask("DEL", chunk)
    with pytest.raises(StoreUnavailable, match="incomplete"):
        third.sync()
    one.stream._ask("HSET", one.stream._head, "position", "x")
    with pytest.raises(StoreError, match="state:head is damaged"):
        third.sync()


def test_an_entry_or_piece_is_bounded(pair: tuple[FleetHost, FleetHost], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pair
    monkeypatch.setattr(stream_module, "MAX_BODY", 1_000)
    with one.state.changing() as connection:
        said = Said("u", ACME, "suspended", 1.0, 1.0, "Ann", "x" * 2_000, None)
        enqueue(connection, standing_act(said), 1.0)
    with pytest.raises(StoreError, match="is damaged"):
        one.sync()
    with pytest.raises(StoreError, match="is damaged"):
        two.sync()


def test_a_file_that_was_never_made_is_not_made_by_a_round(make: Make, server: RedisServer, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    with pytest.raises(StoreUnavailable, match="is not there yet"):
        StateReplica(State(missing), make("one").stream, "x").sync()
    assert not missing.exists()
    statefile.ensure(missing)
    assert StateReplica(State(missing), make("one").stream, "x").sync().position == 0
