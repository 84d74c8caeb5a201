"""Offences in the agent: a ledger that grows, a webhook that answers or not, and what people see of it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from prometheus_client import CollectorRegistry, Gauge

from shaken_plugin.agent import offences
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.offences import Offences, delay, following
from shaken_plugin.agent.webhook import NotDelivered, Webhook
from shaken_plugin.conduct import decisions, view
from shaken_plugin.conduct.book import Book
from shaken_plugin.conduct.message import Kind, Message, secret_key
from shaken_plugin.conduct.state import State
from shaken_plugin.config.offences import WebhookSettings
from shaken_plugin.config.sections import Settings
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.lines import Line, read_line
from shaken_plugin.records.pieces import Piece
from shaken_plugin.stores import statefile
from shaken_plugin.stores.standing import StandingFile
from shaken_plugin.telemetry import MemoryObserver
from tests.agent.hook import SECRET, Hook
from tests.agent.host import Host, until
from tests.conftest import NOW
from tests.records.builders import record

HOUR = 3_600.0
_FILES = itertools.count()


def append(ledger: Ledger, *changes: dict[str, Any]) -> None:
    """Calls with an unauthorised caller ID that count, or as ``changes`` say, as a collector brings them."""
    lines = []
    for index, change in enumerate(changes):
        values = {"level": "B", "call_id": f"call-{index}@example.com", "unauthorised": True, "offence": True}
        line = read_line(record(**(values | change)).line().rstrip(b"\n"), index)
        assert isinstance(line, Line)
        lines.append(line)
    ledger.store([Piece(f"spool-{next(_FILES)}", 0, len(lines), tuple(lines), 0, done=False)], NOW)


class Agent:
    """What the agent does about offences, with the clock of a test."""

    def __init__(self, folder: Path, **offences: Any) -> None:
        self.folder = folder
        self.now = NOW
        self.lines = MemoryObserver()
        (folder / "secret").write_bytes(SECRET + b"\n")
        self.ledger = Ledger(f"sqlite:{folder / 'ledger.db'}")
        self.ledger.prepare()
        gauge = Gauge("alarm", "", ["name", "about"], registry=CollectorRegistry())
        self.alarms = Alarms(self.lines, gauge, lambda: self.now)
        statefile.ensure(folder / "state.db")
        self.state = State(folder / "state.db")
        self.settings = self.chosen(offences)
        self.offences = Offences(self.settings, following, self.alarms, self.lines, lambda: self.now)

    def chosen(self, offences: dict[str, Any]) -> Settings:
        return Settings.model_validate(
            {
                "store": {"path": str(self.folder / "policy.db")},
                "records": {"ledger": f"sqlite:{self.folder / 'ledger.db'}"},
                "signing": {"mode": "off"},
                "verification": {"mode": "off"},
                "offences": {"gather": 0, **offences},
            }
        )

    def turn(self, hours: float = 0.0) -> None:
        """Some time passes, and the agent does what it does every quarter of a second."""
        self.now += hours * HOUR

        async def once() -> None:
            await self.offences.look()
            await self.offences.deliver()
            await self.offences.look()
            if self.offences._webhook is not None:  # its connections belong to this loop
                await self.offences._webhook.close()
                self.offences.configure(self.settings)

        asyncio.run(once())

    def calls(self, *numbers: str, **changes: Any) -> None:
        """Calls of this moment."""
        append(self.ledger, *({"orig": number, "at": self.now, **changes} for number in numbers))
        self.turn()

    def cases(self) -> list[tuple[str, int]]:
        with self.state.reading() as connection:
            return [(case.offence.stage.value, case.calls) for case in reversed(view.cases(connection))]

    def on(self) -> set[tuple[str, str]]:
        return {(alarm.name, alarm.about) for alarm in self.alarms.now()}


def hooked(hook: Hook, **more: Any) -> dict[str, Any]:
    return {"webhook": {"url": hook.url, "secret": f"file:{more.pop('secret')}", **more}}


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as made:
        yield made


# --- The whole way ------------------------------------------------------------------------------


def test_fifty_calls_are_one_offence_one_warning_and_then_a_proposal(tmp_path: Path, hook: Hook) -> None:
    agent = Agent(tmp_path, **hooked(hook, secret=tmp_path / "secret"))
    agent.calls(*(f"1215555{index:04}" for index in range(50)))
    assert agent.cases() == [("warned", 50)]
    (request,) = hook.requests
    assert request.is_signed(NOW)
    assert (request.told["type"], request.told["v"]) == ("offence.warning", 1)
    told = request.told["data"]
    assert (told["customer"], told["calls"], told["numbers"], told["warnings"]) == ("acme", 50, 50, 0)
    assert told["evidence"][0] == {
        "call_id": "call-0@example.com",
        "at": NOW,
        "node": "sip1",
        "orig": "12155550000",
        "dest": "12025550143",
        "level": "B",
        "policy_version": 1,
    }
    agent.turn(25)
    agent.calls("12155559999")
    assert agent.cases() == [("warned", 50), ("proposed", 1)]
    assert agent.on() == {("suspension_proposed", "acme")}
    assert [one.told["type"] for one in hook.requests] == ["offence.warning", "offence.suspension_proposed"]
    assert StandingFile(tmp_path / "state.db").of("acme") is None
    decisions.suspend(agent.state, "acme", "Ann", "agreed", agent.now)
    agent.turn()
    assert agent.on() == set()


def test_what_was_proposed_stays_for_a_person_when_suspension_becomes_automatic(tmp_path: Path) -> None:
    agent = Agent(tmp_path, grace=0)
    agent.calls("12155550000")
    decisions.delivered(agent.state, 1, "Ann", "called them", agent.now)
    agent.calls("12155550001")
    assert agent.cases()[-1] == ("proposed", 1)
    agent.settings = agent.chosen({"grace": 0, "suspend": "automatic"})
    agent.offences.configure(agent.settings)
    agent.turn(48)
    agent.calls("12155550002")
    assert agent.cases()[-1] == ("proposed", 2)
    assert agent.on() == {("suspension_proposed", "acme")}
    assert StandingFile(tmp_path / "state.db").of("acme") is None
    decisions.dismiss(agent.state, 2, "Ann", "ported in", agent.now)
    agent.calls("12155550003")
    assert StandingFile(tmp_path / "state.db").of("acme") is not None


def test_before_the_delivery_nothing_follows(tmp_path: Path) -> None:
    agent = Agent(tmp_path, suspend="automatic", grace=0)
    for _ in range(5):
        agent.calls("12155550000", "12155550001")
        agent.turn(48)
    assert agent.cases() == [("open", 10)]
    assert agent.on() == {("warning_undelivered", "acme")}
    decisions.delivered(agent.state, 1, "Ann", "called them", agent.now)
    agent.turn()
    assert agent.on() == set()
    agent.calls("12155550002")
    assert agent.cases() == [("warned", 10), ("suspended", 1)]
    standing = StandingFile(tmp_path / "state.db").of("acme")
    assert standing is not None
    assert standing.who == "offences"
    assert any("customer acme suspended" in line for _, line in agent.lines.lines)


def test_a_dismissal_ends_the_proposal(tmp_path: Path, hook: Hook) -> None:
    agent = Agent(tmp_path, grace=0, **hooked(hook, secret=tmp_path / "secret"))
    agent.calls("12155550000")
    agent.turn(1)
    agent.calls("12155550001")
    assert agent.on() == {("suspension_proposed", "acme")}
    decisions.dismiss(agent.state, 2, "Ann", "ported in yesterday", agent.now)
    agent.turn()
    assert agent.on() == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"offence": False},
        {"emergency": True},
        {"kind": "verify"},
        {"customer": None},
        {"unauthorised": False, "offence": False},
    ],
    ids=" ".join,
)
def test_what_does_not_count(tmp_path: Path, changes: dict[str, Any]) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000", **changes)
    assert agent.cases() == []


def test_mode_observe_is_listed_alone(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000", observe=True)
    assert agent.cases() == []
    with agent.state.reading() as connection:
        ((customer, seen),) = view.observed(connection)
    assert (customer, seen.number, seen.calls) == ("acme", "12155550000", 1)


def test_where_another_number_was_put_in_its_place_the_first_counts(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155551212", substituted_for="13125550142")
    with agent.state.reading() as connection:
        details = view.details(connection, 1)
    assert details is not None
    assert details.numbers[0].number == "13125550142"


def test_what_strangers_wrote_is_bounded_and_holds_up_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("sip:\udcff\x00" + "x" * 5_000, call_id="\udcfe" * 500, missing=("m" * 2_000,) * 50)
    agent.calls("12155550000")
    assert agent.cases() == [("open", 2)]
    with agent.state.reading() as connection:
        details = view.details(connection, 1)
    assert details is not None
    assert len(json.dumps(details.as_json())) < 10_000


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    agent = Agent(tmp_path, enabled=False)
    agent.calls("12155550000")
    with agent.state.reading() as connection:
        assert view.undecided(connection) == []
        assert connection.execute("SELECT count(*) FROM meta WHERE key NOT IN ('id', 'reads')").fetchone() == (0,)


# --- The ledger ---------------------------------------------------------------------------------


def test_a_long_ledger_is_read_in_batches_and_each_call_counts_once(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    append(agent.ledger, *({"orig": f"1215555{index % 70:04}", "at": NOW} for index in range(1_203)))
    for _ in range(3):
        agent.turn()
    assert agent.cases() == [("open", 1_203)]


def test_calls_that_count_for_nothing_write_nothing_until_the_mark_is_old(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000")
    before = agent.offences._book.mark()
    for _ in range(3):
        append(agent.ledger, {"unauthorised": False, "offence": False})
        agent.turn()
    assert agent.offences._book.mark() == before
    agent.turn(1)
    assert agent.offences._book.mark().seq == before.seq + 3
    agent.calls("12155550001")
    assert agent.cases() == [("open", 2)]


def test_killed_at_any_statement_each_call_counts_once(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000")
    total, statement, died = 1, 0, True
    while died:
        statement += 1
        append(agent.ledger, {"orig": "12155550000", "at": NOW}, {"orig": f"13125550{statement:03}", "at": NOW})
        total += 2
        pid = os.fork()
        if pid == 0:
            try:
                _die_at(tmp_path, statement)
            finally:
                os._exit(0)
        died = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        if statement % 5 == 0 or not died:
            agent.turn()
            assert agent.cases() == [("open", total)]
    assert statement > 15


def _die_at(folder: Path, statement: int) -> None:
    """Judge what is new, and die by signal 9 before a statement on the state file."""
    agent, done = Agent(folder), 0

    def count(_text: str) -> None:
        nonlocal done
        done += 1
        if done == statement:
            os.kill(os.getpid(), 9)

    with agent.state.reading() as connection:
        connection.set_trace_callback(count)
    agent.offences._book = Book(agent.state)
    agent.offences._state = agent.state
    agent.offences._look()


def test_another_agent_at_the_same_time_counts_nothing_twice(tmp_path: Path) -> None:
    one, two = Agent(tmp_path), Agent(tmp_path)
    for _ in range(4):
        append(one.ledger, *({"orig": "12155550000", "at": NOW} for _ in range(7)))
        one.turn()
        two.turn()
    assert one.cases() == [("open", 28)]


@pytest.mark.parametrize("meanwhile", [2, 3, 9])
def test_a_ledger_in_the_place_of_another_is_read_from_its_beginning(tmp_path: Path, meanwhile: int) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000", "12155550001", "12155550002")
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"ledger.db{end}").unlink(missing_ok=True)
    agent.ledger.prepare()
    append(agent.ledger, *({"orig": "12155550004", "at": NOW} for _ in range(meanwhile)))
    agent.turn()
    assert agent.cases() == [("open", 3 + meanwhile)]


def test_a_new_ledger_is_read_from_its_beginning(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000", "12155550001", "12155550002")
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"ledger.db{end}").unlink(missing_ok=True)
    agent.ledger.prepare()
    agent.turn()
    agent.calls("12155550003")
    assert agent.cases() == [("open", 4)]
    append(agent.ledger, *({"orig": "12155550004", "at": NOW} for _ in range(9)))
    agent.turn()
    assert agent.cases() == [("open", 13)]


def test_a_pruned_ledger_is_still_the_same(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000", "12155550001")
    assert agent.ledger.prune(NOW, -1.0, agent.offences._book.mark().seq) == 2
    agent.turn()
    agent.calls("12155550002", at=NOW + 2)
    assert agent.cases() == [("open", 3)]


def test_a_ledger_that_cannot_be_read_loses_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000")
    away = tmp_path / "away.db"
    append(agent.ledger, {"orig": "12155550001", "at": NOW})
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / "ledger.db").rename(away)
    agent.turn()
    assert agent.on() == {("warning_undelivered", "acme")}
    away.rename(tmp_path / "ledger.db")
    agent.turn()
    assert agent.cases() == [("open", 2)]


def test_a_state_file_that_cannot_be_used_is_an_alarm_and_loses_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.calls("12155550000")
    path, away = tmp_path / "state.db", tmp_path / "away.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.rename(away)
    path.write_bytes(b"no database" * 1_000)
    append(agent.ledger, {"orig": "12155550001", "at": NOW})
    agent.turn()
    assert ("state_unavailable", "") in agent.on()
    assert path.read_bytes().startswith(b"no database")  # what a person may still mend
    away.rename(path)
    agent.turn()
    assert ("state_unavailable", "") not in agent.on()
    assert agent.cases() == [("open", 2)]


# --- The webhook --------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [0, 301, 307, 400, 404, 500, 503])
def test_only_2xx_is_a_delivery_and_no_redirect_is_followed(tmp_path: Path, answer: int) -> None:
    with Hook(answer) as hook:
        agent = Agent(tmp_path, **hooked(hook, secret=tmp_path / "secret"))
        agent.calls("12155550000")
        assert agent.cases() == [("open", 1)]
        assert agent.on() == {("warning_undelivered", "acme")}
        assert [request.path for request in hook.requests] == ["/offences"]


@pytest.mark.parametrize("answer", [200, 202, 204])
def test_every_2xx_is(tmp_path: Path, answer: int) -> None:
    with Hook(answer) as hook:
        agent = Agent(tmp_path, **hooked(hook, secret=tmp_path / "secret"))
        agent.calls("12155550000")
        assert agent.cases() == [("warned", 1)]


def test_it_is_tried_again_with_the_same_id_and_body_until_it_arrives(tmp_path: Path) -> None:
    with Hook(500, 0, 429, 204) as hook:
        agent = Agent(tmp_path, **hooked(hook, secret=tmp_path / "secret"))
        tried = []

        async def run() -> None:
            append(agent.ledger, {"orig": "12155550000", "at": agent.now})
            for _ in range(60):
                before = len(hook.requests)
                await agent.offences.look()
                await agent.offences.deliver()
                if len(hook.requests) > before:
                    tried.append(agent.now - NOW)
                    append(agent.ledger, {"orig": f"1215555000{len(tried)}", "at": agent.now})
                agent.now += 1.0
            await agent.offences.close()

        asyncio.run(run())
        assert tried == [0.0, 5.0, 15.0, 35.0]
        assert len({(request.id, request.body) for request in hook.requests}) == 1
        assert len({request.headers["webhook-timestamp"] for request in hook.requests}) >= 1
        assert agent.cases() == [("warned", 5)]
        assert agent.on() == set()


def test_how_long_between_tries() -> None:
    waits = [delay(tries) for tries in range(40)]
    assert waits[:5] == [5, 10, 20, 40, 80]
    assert sum(waits[:32]) > 22 * HOUR
    assert max(waits[:32]) == HOUR
    assert waits[33:] == [24 * HOUR] * 7


def test_https_with_an_authority_of_its_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Hook(authority=authority) as hook:
        agent = Agent(tmp_path, **hooked(hook, secret=tmp_path / "secret", ca_bundle=str(tmp_path / "ca.pem")))
        agent.calls("12155550000")
        assert agent.cases() == [("warned", 1)]
        assert hook.requests[0].is_signed(NOW)


def test_a_certificate_that_nobody_vouches_for_is_no_delivery(tmp_path: Path) -> None:
    with Hook(authority=trustme.CA()) as hook:
        agent = Agent(tmp_path, **hooked(hook, secret=tmp_path / "secret"))
        agent.calls("12155550000")
        assert (agent.cases(), hook.requests) == ([("open", 1)], [])
        with agent.state.reading() as connection:
            (case,) = view.cases(connection)
        assert "certificate" in str(case.failure).lower()


def test_who_does_not_answer_holds_up_nothing_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shaken_plugin.agent.webhook.DEADLINE", 0.3)
    (tmp_path / "secret").write_bytes(SECRET)

    async def send(url: str) -> None:
        chosen = WebhookSettings(url=url, secret=f"file:{tmp_path / 'secret'}")
        webhook = Webhook(chosen, time.time)
        message = Message("id", 1, Kind.WARNING, b"{}", 0, None)
        begin = time.monotonic()
        with pytest.raises(NotDelivered, match="no answer in"):
            await webhook.send(message)
        assert time.monotonic() - begin < 2
        await webhook.close()

    with Hook(-1) as hook:
        asyncio.run(send(hook.url))


def test_the_environments_proxy_is_not_asked(tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hook() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        agent = Agent(tmp_path, **hooked(hook, secret=tmp_path / "secret"))
        agent.calls("12155550000")
        assert (len(hook.requests), proxy.requests) == (1, [])


def test_a_secret_that_cannot_be_read_is_an_alarm_until_it_can(tmp_path: Path, hook: Hook) -> None:
    agent = Agent(tmp_path, **hooked(hook, secret=tmp_path / "later"))
    agent.calls("12155550000")
    assert agent.on() == {("webhook_unusable", ""), ("warning_undelivered", "acme")}
    (tmp_path / "later").write_bytes(SECRET)
    agent.offences.configure(agent.settings)
    agent.turn()
    assert (agent.on(), agent.cases()) == (set(), [("warned", 1)])


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (b"a secret of 16 B\n", b"a secret of 16 B"),
        (b"whsec_" + base64.b64encode(b"k" * 24), b"k" * 24),
    ],
)
def test_secrets(secret: bytes, key: bytes) -> None:
    assert secret_key(secret) == key


@pytest.mark.parametrize(("secret", "why"), [(b"short", "16 octets"), (b"whsec_!!!!", "no base64"), (b"", "16")])
def test_secrets_that_are_none(secret: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        secret_key(secret)


@pytest.mark.parametrize(
    ("webhook", "why"),
    [
        ({"url": "http://hooks.example.com/a", "secret": "env:X"}, "must begin with https://"),
        ({"url": "ftp://127.0.0.1/a", "secret": "env:X"}, "must begin with https://"),
        ({"url": "https://user:pw@hooks.example.com/", "secret": "env:X"}, "no user, password"),
        ({"url": "https://hooks.example.com:99999/", "secret": "env:X"}, "not a URL"),
        ({"url": "https:///a", "secret": "env:X"}, "a host"),
        ({"url": "https://hooks.example.com/"}, "needs a secret"),
        ({"url": "https://hooks.example.com/", "secret": "hunter2hunter2hunter2"}, "by reference"),
    ],
)
def test_webhooks_that_are_refused(webhook: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        WebhookSettings.model_validate(webhook)


@pytest.mark.parametrize("url", ["https://hooks.example.com:8443/a?b=c", "http://127.0.0.1:9/", "http://[::1]/"])
def test_webhooks_that_are_not(url: str) -> None:
    assert WebhookSettings(url=url, secret="env:X").url == url


# --- The daemon ---------------------------------------------------------------------------------


@pytest.fixture
def ledger(host: Host) -> Ledger:
    made = Ledger(f"sqlite:{host.folder / 'ledger.db'}")
    made.prepare()
    (host.folder / "secret").write_bytes(SECRET)
    statefile.ensure(host.folder / "state.db")
    return made


def _state(host: Host) -> str:
    with closing(sqlite3.connect(host.folder / "state.db")) as connection:
        return str(connection.execute("SELECT group_concat(stage || ' ' || calls) FROM offence").fetchone()[0])


def test_killed_between_the_webhook_and_the_commit_it_is_sent_again_under_the_same_id(
    host: Host, ledger: Ledger
) -> None:
    with Hook(-1, 204) as hook:
        webhook = {"url": hook.url, "secret": "file:secret"}
        host.change({"offences": {"gather": 0, "webhook": webhook}})
        host.start()
        append(ledger, {"at": time.time()})
        until(lambda: hook.requests)
        host.kill()  # it was told, and knows nothing of that
        assert _state(host) == "open 1"
        append(ledger, {"at": time.time()})
        host.start()
        until(lambda: _state(host) == "warned 2")
        first, second = hook.requests
        assert (first.id, first.body) == (second.id, second.body)
        assert first.is_signed(time.time())
        host.stop()


def test_new_settings_reach_what_waits_at_once(host: Host, ledger: Ledger) -> None:
    with Hook() as hook:
        host.change({"offences": {"gather": 0}})
        process = host.start()
        append(ledger, {"at": time.time()})
        until(lambda: "warning_undelivered" in host.alarms())
        host.change({"offences": {"webhook": {"url": hook.url, "secret": "file:secret"}}})
        process.send_signal(1)
        until(lambda: _state(host) == "warned 1")
        until(lambda: host.alarms() == set())
        health = json.loads(host.get("/health")[1])
        assert health["status"] == "ok"
        host.stop()


# --- What it costs ----------------------------------------------------------------------------------


def test_the_ledger_is_read_when_something_that_counts_was_moved_and_else_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, moved, at = Agent(tmp_path), [0], [100.0]
    monkeypatch.setattr(offences, "time", SimpleNamespace(monotonic=lambda: at[0]))
    agent.offences = Offences(
        agent.settings, following, agent.alarms, agent.lines, lambda: agent.now, moved=lambda: moved[0]
    )
    agent.turn()
    agent.calls("12155550001")  # by another host
    assert agent.cases() == []
    moved[0] += 1
    agent.turn()
    assert [calls for _, calls in agent.cases()] == [1]
    agent.calls("12155550001")
    assert [calls for _, calls in agent.cases()] == [1]
    at[0] += offences.LOOK_EVERY
    agent.turn()
    assert [calls for _, calls in agent.cases()] == [2]


def test_a_state_file_that_could_not_be_used_is_tried_at_the_next_look(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.offences = Offences(agent.settings, following, agent.alarms, agent.lines, lambda: agent.now, moved=lambda: 0)
    agent.calls("12155550001")
    (tmp_path / "state.db").rename(tmp_path / "aside.db")
    (tmp_path / "state.db").mkdir()
    asyncio.run(agent.offences.look())
    agent.offences.configure(agent.settings)
    asyncio.run(agent.offences.look())
    assert ("state_unavailable", "") in agent.on()
    (tmp_path / "state.db").rmdir()
    (tmp_path / "aside.db").rename(tmp_path / "state.db")
    asyncio.run(agent.offences.look())
    assert ("state_unavailable", "") not in agent.on()
