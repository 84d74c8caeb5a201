"""The client in a worker, against agents that answer wrongly, late or not at all."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shaken_plugin.certs.agent_client import MAX_ANSWER, AgentClient

URL = "https://certificates.example.com/a.pem"


class Peer:
    """Answers every request with the same octets."""

    def __init__(self, path: Path) -> None:
        self.answer = b""
        self.requests: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with closing(connection):
                self.requests.append(connection.recv(65_536))
                try:
                    connection.sendall(self.answer)
                except OSError:
                    continue

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path / "agent.sock")
    yield made
    made.close()


@pytest.fixture
def client(tmp_path: Path) -> AgentClient:
    return AgentClient(tmp_path / "agent.sock")


def test_the_protocol_is_as_documented(peer: Peer, client: AgentClient) -> None:
    peer.answer = json.dumps({"v": 1, "results": {URL: "stored"}, "lent": {}}).encode() + b"\n"
    assert client.ask([URL], 1.1) == {URL: "stored"}
    (line,) = peer.requests
    assert line.endswith(b"\n")
    assert json.loads(line) == {"v": 1, "op": "fetch", "urls": [URL], "wait": 1.0}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"7\n",
        b"not json\n",
        b'{"v": 1}',
        b'{"v": 2, "results": {"%s": "stored"}}\n' % URL.encode(),
        b'{"v": 1, "results": 7}\n',
        b'{"v": 1, "results": {"%s": 7}}\n' % URL.encode(),
        b'{"v": 1, "results": {}, "lent": {"a": 7}}\n',
        b'{"v": 1, "results": {}, "lent": {"a": [1, "?"]}}\n',
        b"[" * 200_000 + b"\n",
        b"\xff\n",
        b"x" * (MAX_ANSWER + 1),
    ],
    ids=range(15),
)
def test_a_wrong_answer_is_no_answer(peer: Peer, client: AgentClient, answer: bytes) -> None:
    peer.answer = answer
    begin = time.monotonic()
    assert client.ask([URL], 1.0) == {}
    assert time.monotonic() - begin < 1.5


def test_what_is_lent_reaches_the_source(peer: Peer, tmp_path: Path) -> None:
    lent: list[tuple[str, bytes, float]] = []
    client = AgentClient(tmp_path / "agent.sock", lambda *values: lent.append(values))
    text = base64.b64encode(b"document").decode()
    peer.answer = json.dumps({"v": 1, "results": {URL: "stored"}, "lent": {URL: [12.5, text]}}).encode() + b"\n"
    client.fetch([URL], 1.0)
    assert lent == [(URL, b"document", 12.5)]


def test_many_urls_are_several_requests(peer: Peer, client: AgentClient) -> None:
    peer.answer = b'{"v": 1, "results": {}}\n'
    client.fetch([f"{URL}{number}" for number in range(20)], 1.0)
    assert [len(json.loads(line)["urls"]) for line in peer.requests] == [8, 8, 4]


class Mute:
    """Takes connections and never says anything."""

    def __init__(self, path: Path) -> None:
        self.connections: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                self.connections.append(self._socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)
        for connection in self.connections:
            connection.close()


@pytest.mark.alone
def test_one_deadline_holds_for_all_urls_of_a_call(tmp_path: Path, client: AgentClient) -> None:
    with closing(Mute(tmp_path / "agent.sock")):
        begin = time.monotonic()
        client.fetch([f"{URL}{number}" for number in range(50)], 0.3)
        assert 0.25 < time.monotonic() - begin < 0.6


@pytest.mark.alone
def test_who_does_not_wait_asks_without_an_answer(tmp_path: Path, client: AgentClient) -> None:
    urls = [f"{URL}{number}" for number in range(20)]
    with closing(Mute(tmp_path / "agent.sock")) as mute:
        begin = time.monotonic()
        for _ in range(100):
            client.fetch(urls, 0.0)
        assert time.monotonic() - begin < 0.2
        while not mute.connections:
            time.sleep(0.01)
        mute.connections[0].settimeout(5)
        lines = [json.loads(line) for line in mute.connections[0].recv(65_536).splitlines()]
    assert [line["op"] for line in lines] == ["need"] * 3
    assert [url for line in lines for url in line["urls"]] == urls


def test_reports_take_no_answer_and_never_wait(peer: Peer, client: AgentClient) -> None:
    client.tell([URL])
    end = time.monotonic() + 5
    while not peer.requests and time.monotonic() < end:
        time.sleep(0.01)
    assert json.loads(peer.requests[0]) == {"v": 1, "op": "seen", "urls": [URL]}


def test_what_cannot_be_sent_is_no_error(peer: Peer, client: AgentClient) -> None:
    assert client.ask(["x" * 20_000], 1.0) == {}
    client.tell(["x" * 20_000])
    assert client.ask(["\ud800"], 1.0) == {}


def test_an_agent_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    client = AgentClient(tmp_path / "agent.sock")
    assert client.ask([URL], 1.0) == {}
    client.tell([URL])
    peer = Peer(tmp_path / "agent.sock")
    peer.answer = json.dumps({"v": 1, "results": {URL: "stored"}}).encode() + b"\n"
    assert client.ask([URL], 1.0) == {}
    time.sleep(1.05)
    assert client.ask([URL], 1.0) == {URL: "stored"}
    assert client.alive()
    peer.close()


@pytest.mark.alone
def test_a_full_queue_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as busy:
        busy.bind(str(path))
        busy.listen(0)
        begin = time.monotonic()
        for _ in range(5):
            AgentClient(path).tell([URL])
        assert AgentClient(path).ask([URL], 0.3) == {}
        assert time.monotonic() - begin < 0.6
