"""Two hosts of a fleet, each with its real agent, and one real Redis between them."""

from __future__ import annotations

import hashlib
import json
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from shaken_plugin import runtime
from shaken_plugin.certs.sealing import new_kek
from shaken_plugin.cli import main
from shaken_plugin.config.settings import parse_settings
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.records import Customer, CustomerState, Right
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import SPC, Provider
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import LabError, find_program
from shaken_plugin.ports import Author, Span
from shaken_plugin.runtime.fleet import access
from shaken_plugin.stores.freshness import CopyAge
from shaken_plugin.stores.redis import hosts
from shaken_plugin.stores.redis.hosts import MAX_REPORT, HostStatus, HostTable
from shaken_plugin.stores.redis.log import SCHEMA, FleetLog
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from shaken_plugin.stores.sqlite import read_header
from shaken_plugin.switch import Switch
from shaken_plugin.telemetry import MemoryObserver
from tests.agent.fleet import Member, begin, everything
from tests.agent.host import until
from tests.services.builders import call


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def log(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, today: Authority) -> FleetLog:
    return begin(redis, tmp_path_factory.mktemp("begun"), today)


def joined(member: Member) -> bool:
    return CopyAge(member.path).seconds() is not None


class Pair:
    """Two hosts; ``edge1`` and ``edge2``."""

    def __init__(self, folder: Path, redis: RedisServer, today: Authority, stack: ExitStack) -> None:
        (folder / "kek").write_text(new_kek())
        (folder / "kek").chmod(0o600)
        keys = {"encryption": f"file:{folder / 'kek'}"}
        self.one = Member(folder / "edge1", "edge1", "127.0.0.11", redis, today, stack, keys=keys)
        self.two = Member(folder / "edge2", "edge2", "127.0.0.12", redis, today, stack, keys=keys)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Member.start, (self.one, self.two)))
        for member in (self.one, self.two):
            until(partial(joined, member))


@pytest.fixture(scope="module")
def pair(
    redis: RedisServer, log: FleetLog, tmp_path_factory: pytest.TempPathFactory, today: Authority
) -> Iterator[Pair]:
    """One for all tests, since agents take seconds to start; each leaves both well."""
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("fleet"), redis, today, stack)


def someone(what: str) -> Author:
    return Author("Ann", what, time.time())


def reported(log: FleetLog, name: str) -> int | None:
    """The version that a host said it decides by."""
    found = {host.name: host.status for host in HostTable(log).read().found}
    status = found.get(name)
    return None if status is None else status.version


def wait_until_well(member: Member) -> None:
    """Return once its agent has no alarm."""
    end = time.monotonic() + 15
    while alarms := member.alarms():
        assert time.monotonic() < end, alarms
        time.sleep(0.1)


def test_commands_change_the_policy_of_every_host(pair: Pair) -> None:
    one, two = pair.one, pair.two
    before = one.version()
    done = two.run("customer", "add", "new", "--name", "New Ltd", "--why", "order 1")
    assert done.exit_code == 0, done.output
    until(lambda: one.version() == before + 1)
    shown = one.run("customer", "show", "new", "--json")
    assert "New Ltd" in shown.output
    file = one.provider.folder / "numbers.csv"
    file.write_text("customer,basis,number\nacme,assigned,+12155551777\n")
    done = one.run("import", str(file), "--why", "order 2")
    assert done.exit_code == 0, done.output
    until(lambda: two.version() == before + 2)
    assert "order 2" in two.run("store", "history").output
    exported = two.run("export")
    assert "+12155551777" in exported.output
    assert two.run("policy", "diff", "--from", str(before + 1)).exit_code in {0, 1}
    # The file of the settings does not say so: it does not undo it by itself.
    refused = one.run("apply")
    assert refused.exit_code == 3
    assert "changed otherwise since files were put in force" in refused.output
    applied = one.run("apply", "--overwrite", "--json")
    assert applied.exit_code == 0, applied.output
    assert json.loads(applied.output)["policy_version"] == before + 3
    until(lambda: two.version() == before + 3)
    done = two.run("store", "compact", "--before", str(time.time()), "--yes")
    assert done.exit_code == 0, done.output
    until(lambda: one.version() == two.version() == before + 4)
    assert everything(one.path) == everything(two.path)


def test_a_lost_file_is_made_anew_with_the_settings_of_its_host(pair: Pair) -> None:
    two = pair.two
    before = read_header(two.path)
    assert before.settings is not None
    assert before.state_id is not None
    for suffix in ("-wal", "-shm", ""):  # the log first: a new file must not find it
        Path(f"{two.path}{suffix}").unlink(missing_ok=True)

    def there() -> bool:
        try:
            return read_header(two.path) == before
        except StoreUnavailable:
            return False

    until(there)
    _, version = runtime.reload(two.path, time.time())
    assert version == pair.one.version()
    wait_until_well(two)


def test_a_key_added_on_one_host_signs_on_the_other_until_it_is_removed(
    pair: Pair, today: Authority, tmp_path: Path
) -> None:
    one, two = pair.one, pair.two
    services = runtime.start(two.provider.settings, time.time())
    worker = Switch(services, MemoryObserver(), time.time, lambda: str(uuid.uuid4()))

    def signs_with() -> object:
        identity = worker.sign(lambda: call(source="127.0.0.2")).variables["identity"]
        return IdentityHeader.parse(str(identity)).info

    issued, x5u = today.issue(spc=SPC, now=time.time()), "https://certificates.example.com/fleet.pem"
    (tmp_path / "key").write_bytes(issued.key)
    (tmp_path / "chain").write_bytes(issued.chain)
    assert signs_with() == two.provider.x5u
    files = ("--key", f"file:{tmp_path / 'key'}", "--chain", f"file:{tmp_path / 'chain'}", "--x5u", x5u)
    done = one.run("key", "add", "fleet", "--credential", "main", *files, "--why", "one key for all")
    assert done.exit_code == 0, done.output
    until(lambda: signs_with() == x5u)
    listed = json.loads(two.run("key", "list", "--json").output)["keys"]
    assert [(row["name"], row["trouble"]) for row in listed] == [("fleet", None)]
    assert "key fleet of credential main added" in two.run("store", "history", "--json").output
    done = two.run("key", "remove", "fleet", "--why", "tried")
    assert done.exit_code == 0, done.output
    assert signs_with() == two.provider.x5u
    until(lambda: json.loads(one.run("key", "list", "--json").output)["keys"] == [])


def test_the_agent_says_how_its_host_is(pair: Pair) -> None:
    settings, version = str(pair.one.provider.settings), pair.one.version()

    def status() -> HostStatus:
        done = CliRunner().invoke(main, ["agent", "--settings", settings, "status", "--json"])
        return HostStatus.model_validate(json.loads(done.output)["host"])

    found = until(lambda: status() if status().head == version else None)
    assert (found.host, found.version, found.redis_schema) == ("edge1", version, SCHEMA)
    said = CliRunner().invoke(main, ["agent", "--settings", settings, "status"])
    assert said.exit_code == 0, said.output
    words = (line.split() for line in said.output.splitlines())
    lines = {word[0]: word[1] for word in words if word and word[0] in {"host", "Redis"}}
    assert lines == {"host": "edge1", "Redis": "answers"}
    assert "known to be whole" in said.output
    table = pair.one.run("fleet")
    assert table.exit_code == 0, table.output
    assert f"policy version {version}, 2 hosts" in table.output


def test_a_host_that_is_gone_is_forgotten(pair: Pair, log: FleetLog) -> None:
    HostTable(log).report(HostStatus(host="gone", version=1, age=60))
    assert pair.one.run("fleet").exit_code == 1
    settings = str(pair.one.provider.settings)
    assert CliRunner().invoke(main, ["fleet", "--settings", settings, "forget", "gone"]).exit_code == 0
    assert [host.name for host in HostTable(log).read().found] == ["edge1", "edge2"]
    done = CliRunner().invoke(main, ["fleet", "--settings", settings, "forget", "gone", "--json"])
    assert (done.exit_code, json.loads(done.output)) == (1, {"ok": False, "host": "gone"})


def test_a_host_cut_off_has_every_record_again_once_it_is_reconnected(
    pair: Pair, log: FleetLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair.one, pair.two
    before = one.version()
    with one.policy().change(someone("before"), "a customer") as draft:
        draft.put(Customer("before", "Before Ltd", CustomerState.VERIFIED))
    committed = time.monotonic()
    until(lambda: two.version() == before + 1)
    assert time.monotonic() - committed < 1.0
    until(lambda: reported(log, "edge2") == before + 1)
    two.wire.cut()
    until(lambda: "breaker_open" in two.alarms())
    assert "calls go on from the copy" in two.alarms()["breaker_open"]

    policy = one.policy()
    with policy.change(someone("meanwhile"), "numbers") as draft:
        acme = next(right for right in draft.all(Right) if right.document == "LOA-2026-113")
        draft.add_numbers(
            Right, acme.id, (Span(f"1215{number}", f"1215{number}") for number in range(10**6, 10**6 + 5_000))
        )
        draft.put(replace(acme, valid_until=2_000_000_000.0))
    for number in range(40):
        with policy.change(someone("meanwhile"), f"customer {number}") as draft:
            draft.put(Customer(f"new-{number}", f"New {number}", CustomerState.PENDING))
    with policy.change(someone("meanwhile"), "out") as draft:
        draft.remove(Customer, "before")
        draft.remove_numbers(Right, acme.id, [Span("12151000007", "12151000007")])
    assert (one.version(), two.version(), log.head().version) == (before + 43, before + 1, before + 43)
    refused = two.run("customer", "add", "lost", "--name", "Lost", "--why", "cut off")
    assert refused.exit_code == 3
    assert "cannot be reached" in refused.output
    assert two.run("customer", "list").exit_code == 0  # what is read is read from the copy
    monkeypatch.setattr(hosts, "LAG", 3.0)
    until(lambda: one.run("fleet").exit_code == 1)
    told = json.loads(one.run("fleet", "--json").output)
    assert told["policy_version"] == before + 43
    trouble = {host["host"]: host["trouble"] for host in told["hosts"]}
    assert trouble["edge1"] is None
    assert f"its agent is down or cut off; it decides by version {before + 1}" in trouble["edge2"]
    assert two.run("fleet").exit_code == 3

    two.wire.mend()
    mended = time.monotonic()
    until(lambda: two.version() == before + 43)
    assert time.monotonic() - mended < 10
    assert everything(two.path) == everything(one.path)
    assert len(everything(two.path)) > 90
    wait_until_well(two)
    until(lambda: one.run("fleet").exit_code == 0)
    (status,) = [host.status for host in HostTable(log).read().found if host.name == "edge2"]
    assert status is not None
    assert "breaker_open" in {error.name for error in status.errors}


def test_a_host_whose_redis_was_lost_keeps_its_copy_and_brings_it_back(
    pair: Pair, log: FleetLog, redis: RedisServer
) -> None:
    before = everything(pair.one.path)
    redis.command("FLUSHALL")
    until(lambda: "copy_not_updated" in pair.one.alarms())
    assert "this Redis has lost its data" in pair.one.alarms()["copy_not_updated"]
    assert everything(pair.one.path) == before
    upload_snapshot(pair.one.path, log)
    for member in (pair.one, pair.two):
        wait_until_well(member)
        assert everything(member.path) == before


def test_a_host_on_its_own_is_of_no_fleet(tmp_path: Path, today: Authority) -> None:
    provider = Provider.make(tmp_path / "alone", today, time.time())
    done = CliRunner().invoke(main, ["fleet", "--settings", str(provider.settings)])
    assert done.exit_code == 3
    assert "this host is of no fleet" in done.output


def test_a_password_that_is_not_there_is_said_where_it_is_needed(tmp_path: Path, today: Authority) -> None:
    redis = {"servers": ["127.0.0.1:1"], "password": "file:redis.password"}
    provider = Provider.make(tmp_path / "host", today, time.time(), store={"path": "policy.db", "redis": redis})
    runtime.start(provider.settings, time.time())  # a switch needs none
    checked = CliRunner().invoke(main, ["check-config", "--settings", str(provider.settings)])
    assert checked.exit_code == 1
    assert "shaken.yaml:4:" in checked.output
    assert "store.redis.password:" in checked.output
    for command in (["fleet"], ["agent"], ["apply"]):
        done = CliRunner().invoke(main, [*command, "--settings", str(provider.settings)])
        assert done.exit_code == 3
        assert "store.redis.password:" in done.output
    (provider.folder / "redis.password").write_text("s3cret\n")
    checked = CliRunner().invoke(main, ["check-config", "--settings", str(provider.settings)])
    assert checked.exit_code == 0, checked.output
    settings, _ = parse_settings(provider.settings)
    assert settings is not None
    assert settings.store.redis is not None
    found = access(settings.store.redis)
    assert found.password == "s3cret"
    assert "s3cret" not in repr(found)


# --- What hosts say, in Redis -------------------------------------------------------------------


def test_reports_are_read_whatever_stands_there(redis: RedisServer) -> None:
    log = FleetLog(redis.access, "odd")
    table = HostTable(log)
    first = table.report(HostStatus(host="edge1", version=3, age=0.5))
    assert first.before is None
    again = table.report(HostStatus(host="edge1", version=4, age=0.5))
    assert again.before is not None
    assert again.before.status == HostStatus(host="edge1", version=3, age=0.5)
    key = log.key("hosts")
    odd = {
        "newer": b'1 {"host":"newer","version":9,"age":1,"something":"else"}',
        "no json": b"1 {",
        "deep": b"1 " + b"[" * 100_000,
        "large": b'1 {"host":"large","agent":"' + b"x" * MAX_REPORT + b'"}',
        "no time": b'x {"host":"no time"}',
        "wrong": b'1 {"host":"wrong","version":-1}',
        "no text": b"\xff\xff",
    }
    with redis.client() as client:
        for name, value in odd.items():
            client.hset(key, name, value)
    found = {host.name: host.status for host in table.read().found}
    assert len(found) == 1 + len(odd)
    assert found["newer"] is not None
    assert found["newer"].version == 9
    assert {name for name, status in found.items() if status is None} >= {"no json", "deep", "large", "wrong"}
    assert found["edge1"] == HostStatus(host="edge1", version=4, age=0.5)


def test_an_agent_that_is_asked_without_a_pause_ends_without_a_fault(
    redis: RedisServer, log: FleetLog, tmp_path: Path, today: Authority
) -> None:
    def ask(path: Path) -> int:
        answers = 0
        with ExitStack() as stack:
            lines = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(12)]
            for line in lines:  # no more can be opened once it ends
                line.connect(str(path))
            for line in lines:
                with suppress(OSError):
                    while True:
                        token = hashlib.sha256(f"{id(line)} {answers}".encode()).hexdigest()
                        asked = {"v": 1, "op": "first_use", "token": token, "call": "0" * 64, "milliseconds": 1000}
                        line.sendall(json.dumps(asked).encode() + b"\n")
                        if not line.recv(1000):
                            break
                        answers += 1
        return answers

    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        member = Member(tmp_path / "busy", "busy", "127.0.0.13", redis, today, stack)
        member.start()
        asking = [pool.submit(ask, tmp_path / "busy" / "agent.sock") for _ in range(8)]
        time.sleep(0.5)
        member.agent.stop()
        assert min(one.result() for one in asking) > 0
        said = member.agent.log_text()
        assert "agent: ended" in said
        assert "Traceback" not in said, said
