"""The line to the agent: kept, never waited for longer than allowed, and nothing told is lost with an agent."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.limits import Bound, Outcome, Request, Verdict
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores import limiter
from shaken_plugin.stores.agent_line import MAX_ANSWER, PROBE, AgentLine, message
from shaken_plugin.stores.limiter import AgentLimiter, FleetReplay
from shaken_plugin.stores.presence import FOLDER, FULL, MAX_FILES, MAX_TAKEN, NAME, Left, Presence, is_alive
from tests.agent.host import until

Answer = Callable[[dict[str, Any]], bytes | None]


def right(request: dict[str, Any]) -> bytes:
    extra = {"outcome": "admitted", "scope": ""} if request["op"] == "admit" else {}
    return json.dumps({"v": 1, **extra}, separators=(",", ":")).encode() + b"\n"


class Peer:
    """An agent that answers as it is told; None hangs."""

    def __init__(self, path: Path, answer: Answer = right) -> None:
        self.path, self.answer, self._ended = path, answer, False
        self.requests: list[dict[str, Any]] = []
        self.connections: list[socket.socket] = []
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections.append(connection)
                if self._ended:
                    connection.close()
                    return
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError), connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                self.requests.append(request)
                if (answer := self.answer(request)) is not None:
                    connection.sendall(answer)

    def said(self, op: str) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["op"] == op]

    def end(self) -> None:
        """As a process that is killed."""
        self._ended = True
        for one in (self._socket, *self.connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
def peer(path: Path) -> Iterator[Peer]:
    made = Peer(path)
    yield made
    made.end()


def test_one_connection_is_kept_for_everything_that_a_thread_asks(peer: Peer, path: Path) -> None:
    line = AgentLine(path, timeout=5)
    for number in range(50):
        assert line.ask({"op": "ended", "call": f"{number}"}) == {"v": 1}
    assert len(peer.connections) == 1
    assert [request["call"] for request in peer.said("ended")] == [f"{number}" for number in range(50)]
    threads = [threading.Thread(target=line.ask, args=({"op": "ping"},)) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(peer.connections) == 4


def test_a_child_takes_no_connection_of_its_parent(peer: Peer, path: Path) -> None:
    line = AgentLine(path, timeout=5)
    line.ask({"op": "ping", "by": "parent"})
    if (child := os.fork()) == 0:
        with suppress(BaseException):
            line.ask({"op": "ping", "by": "child"})
        os._exit(0)
    os.waitpid(child, 0)
    line.ask({"op": "ping", "by": "parent"})
    assert [request["by"] for request in peer.said("ping")] == ["parent", "child", "parent"]
    assert len(peer.connections) == 2


def test_the_first_question_without_an_answer_waits_and_no_other(peer: Peer, path: Path) -> None:
    line = AgentLine(path, timeout=0.1)
    peer.answer = lambda _: None
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable, match="does not answer: it did not answer in time"):
        line.ask({"op": "ping"})
    assert 0.08 < time.monotonic() - begin < 1
    begin = time.monotonic()
    for _ in range(200):
        with pytest.raises(StoreUnavailable):
            line.ask({"op": "ping"})
    assert time.monotonic() - begin < 0.1 + 200 * 0.002
    peer.answer = right
    until(lambda: answers(line), 20 * PROBE)


def answers(line: AgentLine) -> bool:
    try:
        return line.ask({"op": "ping"}) == {"v": 1}
    except StoreUnavailable:
        return False


def test_a_new_agent_is_asked_at_once(path: Path) -> None:
    first = Peer(path)
    line = AgentLine(path, timeout=5)
    line.ask({"op": "ping"})
    first.end()
    second = Peer(path)
    assert line.ask({"op": "ping"}) == {"v": 1}
    second.end()


def told(left: Left) -> list[tuple[str, str]]:
    return [(told["op"], told["call"]) for told in map(json.loads, left.take())]


def test_what_becomes_of_calls_is_left_for_the_agent_whether_one_is_there_or_not(path: Path) -> None:
    limiter, left = AgentLimiter(AgentLine(path, timeout=0.1), Presence(path.parent)), Left(path.parent)
    assert left.take() == []
    limiter.followed("a")
    peer = Peer(path)
    limiter.ended("a")
    assert told(left) == [("followed", "a"), ("ended", "a")]
    assert told(left) == []
    peer.end()
    assert peer.requests == []


def test_what_has_to_be_known_at_once_is_said_and_left_where_nobody_hears(path: Path) -> None:
    limiter, left = AgentLimiter(AgentLine(path, timeout=0.1), Presence(path.parent)), Left(path.parent)
    limiter.referred("a", "x")  # nobody is there
    peer = Peer(path, lambda request: right(request) if request["op"] == "ping" else None)
    until(lambda: answers(limiter._line), 20 * PROBE)
    limiter.followed("b", "leg:core:b")
    assert len(peer.said("followed")) == 1  # it hangs now
    peer.answer = right
    until(lambda: answers(limiter._line), 20 * PROBE)
    limiter.referred("c", "d")
    assert len(peer.said("refer")) == 1
    peer.end()
    assert told(left) == [("refer", "a"), ("followed", "b")]


def test_what_there_is_no_room_for_is_said_to_the_agent(peer: Peer, path: Path) -> None:
    limiter = AgentLimiter(AgentLine(path, timeout=5), Presence(path.parent / "missing"))
    limiter.followed("a")
    limiter.ended("a")
    assert [(request["op"], request["call"]) for request in peer.requests] == [("followed", "a"), ("ended", "a")]
    peer.end()
    limiter.ended("b")


def test_without_an_agent_it_is_said_at_once(path: Path) -> None:
    line = AgentLine(path)
    begin = time.monotonic()
    for _ in range(100):
        with pytest.raises(StoreUnavailable, match="No such file"):
            line.ask({"op": "ping"})
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    "answer",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"7\n",
        b"not json\n",
        b'{"v": 2}\n',
        b'{"v": 1, "error": "no"}\n',
        b"[" * 2_000 + b"\n",
        b"\xff\n",
        b"x" * (2 * MAX_ANSWER),
        b'{"v": 1, "outcome": "whatever"}\n',
        b'{"v": 1, "outcome": []}\n',
    ],
    ids=range(12),
)
def test_a_wrong_answer_is_none(peer: Peer, path: Path, answer: bytes) -> None:
    limiter = AgentLimiter.at(path, path.parent)
    peer.answer = lambda _: answer
    with pytest.raises(StoreUnavailable):
        limiter.admit(Request("acme", "a", (Bound("", 0, 0, 1),)))


def test_what_is_asked_of_the_agent(peer: Peer, path: Path) -> None:
    limiter = AgentLimiter(AgentLine(path, timeout=5), Presence(path.parent))
    request = Request("acme", "a", (Bound("", 1, 2, 3),), "A", replaces=("b",), to="c")
    assert limiter.admit(request).outcome is Outcome.ADMITTED
    limiter.followed("a", "leg:core:a")
    limiter.referred("a", "c")
    limiter.admit(request)
    asked = {name: value for name, value in peer.requests[0].items() if name != "owner"}
    assert [request["ask"] for request in peer.said("admit")] == [1, 2]
    assert asked == {
        "v": 1,
        "op": "admit",
        "customer": "acme",
        "call": "a",
        "bounds": [["", 1, 2, 3]],
        "level": "A",
        "slot": True,
        "replaces": ["b"],
        "to": "c",
        "sent": True,
        "ask": 1,
    }
    assert is_alive(path.parent, peer.requests[0]["owner"])
    assert peer.requests[1:3] == [
        {"v": 1, "op": "followed", "call": "a", "owner": "leg:core:a"},
        {"v": 1, "op": "refer", "call": "a", "to": "c"},
    ]


def test_a_call_that_was_not_counted_in_time_gives_back_what_it_may_have_taken(peer: Peer, path: Path) -> None:
    limiter = AgentLimiter(AgentLine(path, timeout=0.1), Presence(path.parent))
    peer.answer = lambda _: None
    for call, concurrent in (("a", 1), ("b", 0)):
        with pytest.raises(StoreUnavailable):
            limiter.admit(Request("acme", call, (Bound("", 1, 1, concurrent),)))
    (left,) = [json.loads(line) for line in Left(path.parent).take()]
    asked = peer.said("admit")[0]
    assert left == {"v": 1, "op": "undo", "call": "a", "owner": asked["owner"], "ask": asked["ask"]}


class Ahead:
    """A process with an agent that gives as many calls ahead as it is asked for, at most so many."""

    BOUNDS = (Bound("", 1, 2, 3),)

    def __init__(self, peer: Peer, most: int = 1_000) -> None:
        self.now, self.peer = 100.0, peer
        self.limiter = AgentLimiter(AgentLine(peer.path, timeout=5), Presence(peer.path.parent), lambda: self.now)

        def answer(request: dict[str, Any]) -> bytes:
            extra = {"ahead": min(request["ahead"], most)} if "ahead" in request else {}
            return message({"outcome": "admitted", "scope": "", **extra})

        peer.answer = answer

    def call(self, gap: float = 0.0, **parts: Any) -> str:
        """The name of a call that was admitted ahead; empty where the agent was asked."""
        self.now += gap
        request = Request("acme", "a", self.BOUNDS, "A", sent=False)._replace(**parts)
        if name := self.limiter.ahead(request.customer, request.bounds, request.level):
            return name
        assert self.limiter.admit(request) == Verdict(Outcome.ADMITTED)
        return ""

    @property
    def wanted(self) -> list[int]:
        return [request.get("ahead", 0) for request in self.peer.said("admit")]


def test_few_calls_are_asked_about_one_by_one(peer: Peer) -> None:
    ahead = Ahead(peer)
    assert [ahead.call(0.21) for _ in range(5)] == [""] * 5
    assert ahead.wanted == [0] * 5


def test_of_many_calls_as_many_are_asked_for_ahead_as_will_come_in_a_fifth_of_a_second(peer: Peer) -> None:
    ahead = Ahead(peer)
    names = [ahead.call(0.005) for _ in range(2_000)]
    assert len(ahead.wanted) < 80
    assert ahead.wanted[5:] == pytest.approx([40] * len(ahead.wanted[5:]), abs=2)
    given = [name for name in names if name]
    assert len(set(given)) == len(given)
    owner = peer.requests[-1]["owner"]
    before_last = peer.requests[-2]["ask"]
    assert {f"{owner}+{before_last}+{number}" for number in range(30)} <= set(given)


def test_what_was_not_used_in_a_fifth_of_a_second_is_not_used(peer: Peer) -> None:
    ahead = Ahead(peer)
    while not ahead.call(0.001):
        pass
    assert ahead.call(0.19)
    assert not ahead.call(0.01)


def test_no_more_are_used_than_were_given_nor_those_of_other_bounds_levels_and_customers(peer: Peer) -> None:
    ahead = Ahead(peer, 2)
    while not ahead.call(0.001):
        pass
    assert not ahead.call(customer="other")
    assert not ahead.call(level="B")
    changed = (Bound("", 1, 2, 4),)
    assert not ahead.call(bounds=changed)
    assert [bool(ahead.call(bounds=changed)) for _ in range(3)] == [True, True, False]


def test_who_does_not_tell_that_a_call_leaves_asks_for_none(peer: Peer) -> None:
    ahead = Ahead(peer)
    assert [ahead.call(0.001, sent=True) for _ in range(20)] == [""] * 20
    assert set(ahead.wanted) == {0}


def test_a_child_has_none_of_those_that_were_given_to_its_parent(peer: Peer) -> None:
    ahead = Ahead(peer)
    while not ahead.call(0.001):
        pass
    if (child := os.fork()) == 0:
        os._exit(bool(ahead.limiter.ahead("acme", Ahead.BOUNDS, "A")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ahead.call()


def test_there_is_an_end_to_the_customers_looked_ahead_for(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls then is looked ahead for, whoever did long ago no more."""
    monkeypatch.setattr(limiter, "MAX_ALLOWANCES", 2)
    ahead = Ahead(peer)
    for customer in range(100):
        ahead.call(0.001, customer=f"{customer}")
        assert len(ahead.limiter._allowances) <= 2
    assert any(ahead.call(0.001, customer="now") for _ in range(10))


def test_what_was_never_asked_is_not_taken_back(path: Path) -> None:
    """Else the calls that pass while no agent is there would fill the files, and the ends of others find no room."""
    limiter = AgentLimiter(AgentLine(path), Presence(path.parent))
    for number in range(100):
        with pytest.raises(StoreUnavailable):
            limiter.admit(Request("acme", f"{number}", (Bound("", 1, 1, 1),)))
    limiter.ended("before")
    assert told(Left(path.parent)) == [("undo", "0"), ("ended", "before")]


def test_a_process_without_a_file_takes_no_slot_and_that_is_said(peer: Peer, tmp_path: Path) -> None:
    limiter = AgentLimiter(AgentLine(peer.path, timeout=5), Presence(tmp_path / "missing"))
    request = Request("acme", "a", (Bound("", 1, 1, 1),))
    with pytest.raises(StoreUnavailable, match=r"missing/switches must be a folder .* No such file") as caught:
        limiter.admit(request)
    assert limiter.trouble() == str(caught.value)
    assert [asked["slot"] for asked in peer.said("admit")] == [False]
    peer.answer = lambda _: b'{"v": 1, "outcome": "rate", "scope": ""}\n'
    assert limiter.admit(request).outcome is Outcome.RATE
    assert AgentLimiter(AgentLine(peer.path), Presence(tmp_path)).trouble() == ""


def test_a_request_that_the_agent_refuses_is_no_reason_to_ask_it_no_more(peer: Peer, path: Path) -> None:
    line = AgentLine(path, timeout=5)
    peer.answer = lambda request: b'{"v": 1, "error": "no"}\n' if request["op"] == "admit" else right(request)
    with pytest.raises(StoreUnavailable, match="does not count this call: no"):
        line.ask({"op": "admit"})
    assert line.ask({"op": "ping"}) == {"v": 1}
    assert len(peer.connections) == 1


@pytest.mark.alone
def test_an_answer_in_parts_is_waited_for_no_longer_than_one(peer: Peer, path: Path) -> None:
    line = AgentLine(path, timeout=0.4)
    for _ in range(2):
        line.ask({"op": "ping"})

    def slowly(_: dict[str, Any]) -> bytes:
        peer.connections[-1].sendall(b'{"v"')
        time.sleep(0.3)
        peer.connections[-1].sendall(b":")
        time.sleep(0.5)
        return b"1}\n"

    def in_parts(_: dict[str, Any]) -> bytes:
        peer.connections[-1].sendall(b'{"v":1,')
        time.sleep(0.05)
        return b'"a":2}\n'

    peer.answer = in_parts
    assert [line.ask({"op": "ping"}) for _ in range(2)] == [{"v": 1, "a": 2}] * 2
    peer.answer = slowly
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable, match="in time"):
        line.ask({"op": "ping"})
    assert 0.35 < time.monotonic() - begin < 0.6
    peer.answer = right
    until(lambda: answers(line), 20 * PROBE)

    def late(request: dict[str, Any]) -> bytes:
        time.sleep(0.2)
        return right(request)

    peer.answer = late
    for _ in range(2):  # a wait that was short stays so for nobody else
        assert line.ask({"op": "ping"}) == {"v": 1}


class Local:
    """The replay memory of one host."""

    def __init__(self) -> None:
        self.seen: dict[bytes, bytes] = {}

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        return self.seen.setdefault(token, call) == call


def test_a_passport_is_looked_for_here_then_over_the_fleet_and_here_alone_without_an_agent(
    peer: Peer, path: Path
) -> None:
    replays = FleetReplay(Local(), AgentLine(path, timeout=5))
    peer.answer = lambda request: b'{"v": 1, "first": %s}\n' % (b"true" if request["token"] == "aa" else b"false")
    assert replays.first_use(b"\xaa", b"\x01", 1060.0, 1000.0)
    assert peer.requests == [{"v": 1, "op": "first_use", "token": "aa", "call": "01", "milliseconds": 60_000}]
    assert not replays.first_use(b"\xaa", b"\x02", 1060.0, 1000.0)
    assert len(peer.requests) == 1  # known here
    assert not replays.first_use(b"\xbb", b"\x01", 1060.0, 1000.0)
    peer.end()
    assert replays.first_use(b"\xcc", b"\x01", 1060.0, 1000.0)
    assert not replays.first_use(b"\xcc", b"\x02", 1060.0, 1000.0)


class Full:
    """A replay memory that can remember nothing now."""

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        raise StoreUnavailable("replay.memory: full")


def test_the_fleet_knows_a_passport_also_where_this_host_can_remember_none(peer: Peer, path: Path) -> None:
    replays = FleetReplay(Full(), AgentLine(path, timeout=5))
    peer.answer = lambda request: b'{"v": 1, "first": %s}\n' % (b"true" if request["token"] == "aa" else b"false")
    assert replays.first_use(b"\xaa", b"\x01", 1060.0, 1000.0)
    assert not replays.first_use(b"\xbb", b"\x01", 1060.0, 1000.0)
    peer.answer = lambda _: b'{"v": 1}\n'  # no answer to that question
    with pytest.raises(StoreUnavailable, match="full"):
        replays.first_use(b"\xcc", b"\x01", 1060.0, 1000.0)
    peer.end()
    with pytest.raises(StoreUnavailable, match="full"):
        replays.first_use(b"\xaa", b"\x01", 1060.0, 1000.0)


# --- Whether a process is there -----------------------------------------------------------------


def test_a_process_is_there_until_it_ends_however_that_comes(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, Presence(tmp_path).name().encode())
        time.sleep(60)
        os._exit(0)
    name = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    assert NAME.fullmatch(name)
    own = Presence(tmp_path)
    mine = own.name()
    assert own.name() == mine != name
    left = Left(tmp_path)
    left.take()
    assert is_alive(tmp_path, name)
    left.sweep()
    assert is_alive(tmp_path, mine)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert not is_alive(tmp_path, name)
    left.sweep()
    assert {entry.name for entry in (tmp_path / FOLDER).iterdir()} == {mine}


def test_threads_of_a_process_have_the_same_name_also_when_it_is_asked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, names, making = Presence(tmp_path), list[str](), threading.Event()
    made = own._made

    def slowly() -> tuple[str, int]:
        making.set()
        time.sleep(0.1)
        return made()

    monkeypatch.setattr(own, "_made", slowly)
    threads = [threading.Thread(target=lambda: names.append(own.name())) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert making.wait(5)
    for thread in threads:
        thread.join()
    assert names == [own.name()] * 2
    assert NAME.fullmatch(names[0])


def test_whoever_cannot_make_a_file_has_no_name_and_one_that_cannot_be_read_counts_as_there(tmp_path: Path) -> None:
    assert Presence(tmp_path / "missing").name() == ""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "1-1").symlink_to("elsewhere")
    assert is_alive(tmp_path, "1-1")
    assert not is_alive(tmp_path, "1-2")
    (tmp_path / FOLDER / "notes").write_text("")
    for folder in (tmp_path, tmp_path / "missing"):
        left = Left(folder)
        left.take()
        left.sweep()
    assert {entry.name for entry in (tmp_path / FOLDER).iterdir()} == {"1-1", "notes"}


# --- What processes leave -----------------------------------------------------------------------


def lines(count: int, begin: int = 0) -> Iterator[bytes]:
    """So long that 64 of them fill a file."""
    return (b"%01022d\n" % number for number in range(begin, begin + count))


def all_of(left: Left) -> list[bytes]:
    """What it takes, in as many times as that needs."""
    found = left.take()
    while left.has_more:
        found += left.take()
    return found


def test_a_process_goes_on_in_further_files_and_those_that_were_read_are_taken_away(tmp_path: Path) -> None:
    own, left = Presence(tmp_path), Left(tmp_path)
    taken: list[bytes] = []
    for round_ in range(20):
        assert all(own.leave(line) for line in lines(100, 100 * round_))
        taken += all_of(left)
        left.sweep()
        files = {entry.name: entry.stat().st_size for entry in (tmp_path / FOLDER).iterdir()}
        assert own.name() in files
        assert len(files) <= 3
        assert max(files.values()) <= FULL + 1_023
    assert b"\n".join([*taken, b""]) == b"".join(lines(2_000))
    assert is_alive(tmp_path, own.name())


def test_an_agent_that_begins_reads_the_files_of_a_process_in_their_order(tmp_path: Path) -> None:
    own = Presence(tmp_path)
    assert all(own.leave(line) for line in lines(1_000))
    assert b"\n".join([*all_of(Left(tmp_path)), b""]) == b"".join(lines(1_000))


def test_there_is_an_end_to_what_a_process_leaves(tmp_path: Path) -> None:
    own, left = Presence(tmp_path), Left(tmp_path)
    written = sum(own.leave(line) for line in lines(2 * MAX_FILES * 64))
    assert MAX_FILES * 64 <= written < (MAX_FILES + 2) * 65
    assert not own.leave(b"x\n")
    assert len(all_of(left)) == written
    left.sweep()
    assert own.leave(b"x\n")
    assert left.take() == [b"x"]


def test_much_of_one_file_is_read_in_parts(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "1-1").write_bytes(b"".join(lines(3_000)))
    left, taken = Left(tmp_path), list[bytes]()
    while some := left.take():
        assert sum(map(len, some)) < MAX_TAKEN
        taken += some
        left.sweep()
    assert len(taken) == 3_000
    assert not (tmp_path / FOLDER / "1-1").exists()


def test_no_line_is_taken_twice_where_the_folder_could_not_be_read_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, left = Presence(tmp_path), Left(tmp_path)
    assert own.leave(b"one\n")
    assert left.take() == [b"one"]

    def exhausted(_: object) -> None:
        raise OSError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", exhausted)
        assert left.take() == []
    assert left.take() == []


def test_a_file_of_a_process_that_is_gone_stays_until_it_was_read(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    file, left = tmp_path / FOLDER / "1-1", Left(tmp_path)
    file.write_bytes(b"one\n")
    assert left.take() == [b"one"]
    with file.open("ab") as opened:
        opened.write(b"two\nthr")
    assert not is_alive(tmp_path, "1-1")
    left.sweep()
    assert left.take() == [b"two"]
    left.sweep()
    assert not file.exists()


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in its middle, and then is not."""
    own, left = Presence(tmp_path), Left(tmp_path)
    assert own.leave(b"one\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, octets: write(descriptor, octets[:2]))
    assert not own.leave(b"two\n")

    def full(*_: object) -> int:
        raise OSError("full")

    monkeypatch.setattr(os, "write", full)
    assert not own.leave(b"three\n")
    monkeypatch.setattr(os, "write", write)
    assert own.leave(b"four\n")
    assert left.take() == [b"one", b"tw", b"four"]


def test_where_no_further_file_can_be_made_there_is_no_room(tmp_path: Path) -> None:
    own = Presence(tmp_path)
    assert all(own.leave(line) for line in lines(65))
    (tmp_path / FOLDER).rename(tmp_path / "away")
    (tmp_path / FOLDER).write_text("")
    assert not own.leave(b"x\n")
    (tmp_path / FOLDER).unlink()
    (tmp_path / "away").rename(tmp_path / FOLDER)
    assert own.leave(b"x\n")


def test_only_files_of_processes_are_read(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "notes").write_text("no line\n")
    (folder / "1-1").symlink_to("notes")
    (folder / "1-2").mkdir()
    os.mkfifo(folder / "1-3")
    (folder / "1-4").write_text("a line\nand half a")
    left = Left(tmp_path)
    assert left.take() == [b"a line"]
    assert left.take() == []
    Presence(tmp_path / "missing").leave(b"nobody reads it\n")
    (folder / "1-4").unlink()
    assert left.take() == []
