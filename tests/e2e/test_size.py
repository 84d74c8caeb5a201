"""INVITEs that are too large for UDP: warned of, sent by TCP with UDP to fall back on, or shortened."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.lab.demo import events
from shaken_plugin.lab.provider import CERTIFICATE_HOST, SPC
from shaken_plugin.lab.servers import LOOPBACK, KamailioServer, free_port, share
from tests.e2e.conftest import Network
from tests.e2e.phone import Phone

FILL = b"X-Fill: " + 600 * b"f" + b"\r\n"
KINDS = pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])


@dataclass(frozen=True)
class Received:
    """A request that arrived."""

    transport: str
    data: bytes

    def header(self, name: str) -> list[str]:
        return re.findall(rf"(?m)^{name}: ?(.*)\r$", self.data.decode())


class Peer:
    """Answers INVITEs with 200 by UDP, and by TCP as told.

    Args:
        tcp: ``answers``; ``refuses``: nothing listens; ``silent``: it accepts and says nothing;
            ``full``: connecting takes for ever, as behind a firewall.
    """

    def __init__(self, tcp: str) -> None:
        self.port = free_port()
        self.received: list[Received] = []
        self._stack = ExitStack()
        self._end = threading.Event()
        self._udp = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind((LOOPBACK, self.port))
        self._udp.settimeout(0.1)
        self._threads = [threading.Thread(target=self._serve_udp)]
        if tcp != "refuses":
            self._tcp = self._stack.enter_context(socket.socket())
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._tcp.bind((LOOPBACK, self.port))
            self._tcp.listen(0 if tcp == "full" else 5)
            self._tcp.settimeout(0.1)
        if tcp == "full":
            for _ in range(3):  # of which the queue takes one
                client = self._stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((LOOPBACK, self.port))
        if tcp == "answers":
            self._threads.append(threading.Thread(target=self._serve_tcp))
        for thread in self._threads:
            thread.start()

    @property
    def uri(self) -> str:
        return f"sip:{LOOPBACK}:{self.port}"

    def close(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._stack.close()

    def _serve_udp(self) -> None:
        while not self._end.is_set():
            try:
                data, sender = self._udp.recvfrom(65_535)
            except TimeoutError:
                continue
            if answer := self._answer("udp", data):
                self._udp.sendto(answer, sender)

    def _serve_tcp(self) -> None:
        while not self._end.is_set():
            try:
                connection, _ = self._tcp.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(0.1)
                pending = b""
                while not self._end.is_set():
                    try:
                        data = connection.recv(65_535)
                    except TimeoutError:
                        continue
                    if not data:
                        break
                    pending += data
                    while b"\r\n\r\n" in pending:  # nothing in these tests has a body
                        head, _, pending = pending.partition(b"\r\n\r\n")
                        if answer := self._answer("tcp", head + b"\r\n\r\n"):
                            connection.sendall(answer)

    def _answer(self, transport: str, data: bytes) -> bytes | None:
        if not data.startswith(b"INVITE "):
            return None
        self.received.append(Received(transport, data))
        kept = [
            line + (b";tag=peer" if line.startswith(b"To:") else b"")
            for line in data.split(b"\r\n")
            if line.partition(b":")[0] in {b"Via", b"Record-Route", b"From", b"To", b"Call-ID", b"CSeq"}
        ]
        contact = f"Contact: <{self.uri};transport={transport}>".encode()
        return b"\r\n".join([b"SIP/2.0 200 OK", *kept, contact, b"Content-Length: 0", b"", b""])


@pytest.fixture
def peers() -> Iterator[Any]:
    with ExitStack() as stack:

        def make(tcp: str) -> Peer:
            peer = Peer(tcp)
            stack.callback(peer.close)
            return peer

        yield make


def signer(
    network: Network,
    peer: Peer,
    *,
    kemi: bool = False,
    workers: int = 2,
    without: str = "\n",
    **size: object,
) -> KamailioServer:
    """A Kamailio that gives up on a branch after a second and a half."""
    name = "kamailio-kemi.cfg" if kemi else "kamailio-native.cfg"
    config = network.folder / name
    lines = share("kamailio", name).read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if without not in line)
    config.write_text(text.replace('loadmodule "tmx.so"', 'modparam("tm", "fr_timer", 1500)\nloadmodule "tmx.so"', 1))
    defines = {"OUTSIDE_LISTEN_TCP": f"tcp:{LOOPBACK}:{free_port()}"}
    provider = network.provider("origin", signing={"size": size})
    return network.kamailio(provider, outside_peer=peer.uri, kemi=kemi, workers=workers, config=config, defines=defines)


def call(server: KamailioServer, extra: bytes = FILL) -> int:
    caller = Phone()
    try:
        answer = caller.ask(caller.invite(extra), server.inside_port, seconds=10)
        assert answer is not None
        return answer[0]
    finally:
        caller.close()


def sizes(server: KamailioServer) -> dict[str, int]:
    return {name: count for name, count in server.counters().items() if name.startswith("size_")}


def warnings(server: KamailioServer) -> list[str]:
    return [line for line in server.log_text().splitlines() if "signing.size.threshold" in line]


def test_an_invite_under_the_threshold_is_left_as_it_is(network: Network, peers: Any) -> None:
    peer = peers("answers")
    server = signer(network, peer, action="tcp")
    assert call(server, b"") == 200
    (invite,) = peer.received
    assert invite.transport == "udp"
    assert len(invite.data) <= 1300
    assert re.fullmatch(r'[\w.-]+;info=<[^>]+>;alg=ES256;ppt="shaken"', invite.header("Identity")[0])
    assert sizes(server) == {}
    assert warnings(server) == []


def test_a_larger_one_is_counted_each_time_and_said_once_for_all_workers(network: Network, peers: Any) -> None:
    peer = peers("refuses")
    server = signer(network, peer, workers=4)
    assert [call(server) for _ in range(8)] == [200] * 8
    assert {invite.transport for invite in peer.received} == {"udp"}
    assert sizes(server) == {"size_over": 8}
    (line,) = warnings(server)
    assert "acme/acme-dialler" in line
    # What is said is an estimate, and rather too much than too little.
    told = int(re.search(r"about ([0-9]+) bytes", line)[1])  # type: ignore[index]  # None fails the test as well
    assert 0 <= told - len(peer.received[0].data) <= 120


@KINDS
def test_it_leaves_by_tcp(network: Network, peers: Any, kemi: bool) -> None:
    peer = peers("answers")
    server = signer(network, peer, kemi=kemi, action="tcp")
    assert [call(server) for _ in range(3)] == [200] * 3
    assert [(invite.transport, len(invite.header("Identity"))) for invite in peer.received] == [("tcp", 1)] * 3
    assert sizes(server) == {"size_tcp": 3}
    assert len(warnings(server)) == 1


@KINDS
@pytest.mark.parametrize("tcp", ["refuses", "silent", "full"])
def test_without_an_answer_by_tcp_it_leaves_by_udp_with_one_identity(
    network: Network, peers: Any, tcp: str, kemi: bool
) -> None:
    peer = peers(tcp)
    server = signer(network, peer, kemi=kemi, action="tcp")
    assert [call(server) for _ in range(3)] == [200] * 3
    assert [(invite.transport, len(invite.header("Identity"))) for invite in peer.received] == [("udp", 1)] * 3
    # Only the first call tried; its second branch and the other calls knew.
    assert sizes(server) == {"size_tcp": 1, "size_tcp_failed": 1, "size_tcp_refused": 3}
    assert "was sent by TCP and not answered" in server.log_text()


@KINDS
def test_a_kamailio_that_has_no_tcp_socket_loses_no_call(network: Network, peers: Any, kemi: bool) -> None:
    peer = peers("answers")
    server = signer(network, peer, kemi=kemi, without="listen=OUTSIDE_LISTEN_TCP", action="tcp")
    assert [call(server) for _ in range(2)] == [200] * 2
    assert [(invite.transport, len(invite.header("Identity"))) for invite in peer.received] == [("udp", 1)] * 2
    assert sizes(server) == {"size_tcp": 1, "size_tcp_failed": 1, "size_tcp_refused": 2}


def test_a_routing_without_the_fall_back_loses_one_call_in_ten_minutes(network: Network, peers: Any) -> None:
    peer = peers("refuses")
    server = signer(network, peer, without="shaken_fallback", action="tcp")
    lost, *others = [call(server) for _ in range(3)]
    assert lost in {477, 500}  # of Kamailio 6.0, of 5.6
    assert others == [200, 200]
    assert sizes(server) == {"size_tcp": 1, "size_tcp_refused": 2}


@pytest.mark.parametrize(("spare", "name"), [(12, "Identity"), (19, "y")])
def test_shortened_it_is_smaller_and_verifies(network: Network, peers: Any, spare: int, name: str) -> None:
    plain = signer(network, peers("refuses"), threshold=1)
    assert call(plain) == 200
    full = int(re.search(r"about ([0-9]+) bytes", plain.log_text())[1])  # type: ignore[index]  # None fails the test as well
    plain.stop()
    relayed = peers("refuses")
    server = signer(network, relayed, action="shorten", threshold=full - spare)
    assert call(server) == 200
    (invite,) = relayed.received
    (value,) = invite.header(name)
    assert len(invite.data) <= full - spare
    assert IdentityHeader.parse(value).alg is None
    assert value.endswith(";ppt=shaken")
    assert sizes(server) == {"size_shortened": 1}
    assert "sent without alg" in warnings(server)[0]
    terminating = network.provider("terminating")
    x5u = f"https://{CERTIFICATE_HOST}/{SPC}.pem"
    terminating.publish(x5u, (network.folder / "origin" / "chain.pem").read_bytes())
    verifier = network.kamailio(terminating, inside_peer=network.called().uri)
    caller = Phone()
    extra = f"{name}: {value}\r\nDate: {invite.header('Date')[0]}\r\n".encode()
    assert caller.ask(caller.invite(extra), verifier.outside_port) is not None
    caller.close()
    (verdict,) = [event for event in events(verifier.log_text(), "127.0.0.2") if event["event"] == "verify"]
    assert (verdict["result"], verdict["attest"]) == ("passed", "A")
