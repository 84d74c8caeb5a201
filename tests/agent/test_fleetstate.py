"""The agent's part in what a fleet knows of customers: two agents' worth of threads, one real Redis."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from prometheus_client import CollectorRegistry, Gauge

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.fleetstate import FleetState
from shaken_plugin.agent.offences import Offences, following
from shaken_plugin.conduct import decisions, view
from shaken_plugin.conduct.state import State
from shaken_plugin.config.sections import Settings
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.ports import Author
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.stores import sqlite, statefile
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.standing import StandingFile
from shaken_plugin.telemetry import MemoryObserver
from tests.agent.hook import SECRET, Hook
from tests.agent.host import until
from tests.agent.test_offences import append

_NAMES = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as server:
        yield server


class Member:
    """One host of a fleet: its files, and what its agent does about customers."""

    def __init__(self, folder: Path, server: RedisServer, fleet: str, **offences: Any) -> None:
        folder.mkdir()
        self.folder = folder
        self.path = folder / "state.db"
        (folder / "secret").write_bytes(SECRET)
        self.policy = folder / "policy.db"
        sqlite.replace_policy(self.policy, Policy(), None, {}, Author("Ann", "a test", 0.0))
        sqlite.remember_state(self.policy, statefile.ensure(self.path))
        self.state = State(self.path, self.policy)
        self.ledger = Ledger(f"sqlite:{folder / 'ledger.db'}")
        self.ledger.prepare()
        self.redis = {"servers": [f"127.0.0.1:{server.port}"], "fleet": fleet, "host": folder.name}
        self.chosen = {
            "store": {"path": str(self.policy)},
            "records": {"ledger": f"sqlite:{folder / 'ledger.db'}"},
            "signing": {"mode": "off"},
            "verification": {"mode": "off"},
            "offences": {"gather": 0, **offences},
        }
        self.lines = MemoryObserver()
        gauge = Gauge("alarm", "", ["name", "about"], registry=CollectorRegistry())
        self.alarms = Alarms(self.lines, gauge, time.time)
        self.begin(self.redis)

    def begin(self, redis: dict[str, Any] | None) -> None:
        """Have an agent with these settings of Redis."""
        settings = Settings.model_validate({**self.chosen, "store": {"path": str(self.policy), "redis": redis}})
        self.fleet = FleetState(settings, self.alarms, self.lines)
        self.offences = Offences(settings, following, self.alarms, self.lines, time.time, self.fleet.claims)
        self.fleet.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run(self.fleet.close())

    def turn(self) -> None:
        """What the agent does every quarter of a second."""

        async def once() -> None:
            await self.fleet.look()
            await self.offences.look()
            await self.offences.deliver()
            if self.offences._webhook is not None:  # its connections belong to this loop
                await self.offences._webhook.close()
                self.offences.configure(self.offences_settings)

        asyncio.run(once())

    @property
    def offences_settings(self) -> Settings:
        return Settings.model_validate({**self.chosen, "store": {"path": str(self.policy), "redis": self.redis}})

    def on(self) -> set[str]:
        asyncio.run(self.fleet.look())
        return {alarm.name for alarm in self.alarms.now()}

    def standing(self, customer: str = "acme") -> str | None:
        found = StandingFile(self.path, self.policy).of(customer)
        return None if found is None else found.state.value

    def stages(self) -> list[str]:
        with self.state.reading() as connection:
            return [f"{case.offence.id} {case.offence.stage.value}" for case in reversed(view.cases(connection))]

    def suspend(self, customer: str = "acme") -> float:
        """Suspend, as a command does that cannot reach Redis; when."""
        at = time.time()
        decisions.suspend(self.state, customer, "Ann", "because", at)
        return at


Make = Callable[..., Member]


@pytest.fixture
def make(server: RedisServer, tmp_path: Path) -> Iterator[Make]:
    fleet = f"agents-{next(_NAMES)}"
    with ExitStack() as stack:

        def made(name: str, **offences: Any) -> Member:
            return stack.enter_context(Member(tmp_path / name, server, fleet, **offences))

        yield made


def test_what_one_host_decides_is_known_to_the_other_within_a_second(make: Make) -> None:
    one, two = make("one"), make("two")
    at = one.suspend()
    assert one.standing() == "suspended"
    until(lambda: two.standing() == "suspended")
    assert time.time() - at < 1
    at = time.time()
    decisions.reinstate(two.state, "acme", "Bob", "paid", at)
    until(lambda: one.standing() is None)
    assert time.time() - at < 1
    assert one.on() == two.on() == set()


def test_while_redis_does_not_answer_there_is_an_alarm_and_after_it_everything_is_told(
    make: Make, server: RedisServer
) -> None:
    one, two = make("one"), make("two")
    one.suspend("first")
    until(lambda: two.standing("first"))
    server.pause()
    try:
        one.suspend()
        assert one.standing() == "suspended"
        until(lambda: "state_not_shared" in one.on())
        (alarm,) = one.alarms.now()
        assert "hold on this host at once" in alarm.text
    finally:
        server.resume()
    until(lambda: two.standing() == "suspended")
    until(lambda: one.on() == set())


def test_an_agent_that_is_away_loses_nothing(make: Make) -> None:
    one, two = make("one"), make("two")
    one.suspend("first")
    until(lambda: two.standing("first"))
    asyncio.run(one.fleet.close())
    one.suspend()
    append(one.ledger, {"orig": "12155550000", "at": time.time()})
    one.begin(one.redis)
    until(lambda: two.standing() == "suspended")
    one.turn()
    until(lambda: two.stages() == ["1 open"])


def test_a_lost_state_file_is_filled_from_the_fleet_under_the_id_that_the_policy_remembers(make: Make) -> None:
    one, two = make("one"), make("two")
    one.suspend()
    append(one.ledger, {"orig": "12155550000", "at": time.time()})
    one.turn()
    until(lambda: two.stages() == ["1 open"])
    for damage in (None, b"", b"no database" * 1_000):
        for end in ("", "-wal", "-shm"):
            Path(f"{one.path}{end}").unlink(missing_ok=True)
        if damage is not None:
            one.path.write_bytes(damage)
        until(lambda: statefile.is_lost(one.path) is False)
        until(lambda: one.standing() == "suspended")
        assert one.stages() == ["1 open"]
    # What SQLite had beside it may have been put away, too, under a name that comes later.
    kept = sorted(path for path in one.folder.glob("state.db.lost-*") if not path.name.endswith(("-wal", "-shm")))
    assert b"no database" in kept[-1].read_bytes()
    one.turn()
    assert any("was lost, and was made anew from the fleet" in line for _, line in one.lines.lines)
    two.suspend("other")
    until(lambda: one.standing("other") == "suspended")
    one.turn()  # the ledger is read on, not again
    with one.state.reading() as connection:
        assert [case.calls for case in view.cases(connection)] == [1]


def test_another_file_in_its_place_is_for_people(make: Make) -> None:
    one = make("one")
    one.suspend()
    asyncio.run(one.fleet.close())
    for end in ("", "-wal", "-shm"):
        Path(f"{one.path}{end}").unlink(missing_ok=True)
    statefile.ensure(one.path)
    one.begin(one.redis)
    until(lambda: "state_not_shared" in one.on())
    assert any("not the file that was made for this policy" in alarm.text for alarm in one.alarms.now())


def test_calls_of_two_hosts_are_one_warning_sent_by_one(make: Make) -> None:
    with Hook() as hook:
        webhook = {"url": hook.url, "secret": f"file:{Path(__file__).parent}"}
        chosen = {"grace": 0, "suspend": "automatic"}
        members = one, two = make("one", **chosen), make("two", **chosen)
        for member in members:
            member.chosen["offences"] |= {"webhook": webhook | {"secret": f"file:{member.folder / 'secret'}"}}
            member.offences.configure(member.offences_settings)
        for member in members:
            append(member.ledger, *({"orig": f"1215555000{number}", "at": time.time()} for number in range(3)))
            member.turn()
        until(lambda: _turned(*members) and one.stages() == two.stages() == ["1 warned"])
        assert [request.told["type"] for request in hook.requests] == ["offence.warning"]
        append(two.ledger, {"orig": "12155559999", "at": time.time() + 1})
        until(lambda: _turned(*members) and len(hook.requests) == 2)
        assert hook.requests[1].told["type"] == "offence.suspended"
        assert one.standing() == two.standing() == "suspended"
        until(lambda: _turned(*members) and not _messages(one) + _messages(two))
        assert len(hook.requests) == 2
        assert any("offence 2 opened" in line for _, line in one.lines.lines)


def _turned(*members: Member) -> bool:
    for member in members:
        member.turn()
    return True


def _messages(member: Member) -> int:
    with member.state.reading() as connection:
        return int(connection.execute("SELECT count(*) FROM message WHERE done_at IS NULL").fetchone()[0])


def test_while_nobody_can_say_who_sends_it_no_warning_is_sent(make: Make, server: RedisServer) -> None:
    with Hook() as hook:
        one = make("one")
        one.chosen["offences"] |= {"webhook": {"url": hook.url, "secret": f"file:{one.folder / 'secret'}"}}
        append(one.ledger, {"orig": "12155550000", "at": time.time()})
        one.turn()
        until(lambda: one.stages() == ["1 open"])
        server.pause()
        try:
            one.offences.configure(one.offences_settings)
            one.turn()
            assert hook.requests == []
        finally:
            server.resume()

        def half_a_minute_later() -> bool:
            with one.state.changing() as connection:
                connection.execute("UPDATE message SET due_at = 0")
            return _turned(one)

        until(lambda: half_a_minute_later() and hook.requests)


def test_without_redis_in_the_settings_the_host_is_on_its_own_again(make: Make) -> None:
    one, two = make("one"), make("two")
    two.suspend()
    until(lambda: one.standing() == "suspended")
    asyncio.run(one.fleet.close())
    one.begin(None)
    assert any("of this host alone from now on" in line for _, line in one.lines.lines)
    decisions.reinstate(one.state, "acme", "Ann", "here", time.time())
    append(one.ledger, {"orig": "12155550000", "at": time.time()})
    one.turn()
    assert (one.stages(), one.standing()) == (["1 open"], None)
    assert two.standing() == "suspended"
