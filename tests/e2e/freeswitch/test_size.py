"""INVITEs that grow too large for UDP by our header: counted, sent by TCP where the peer takes it, or shortened."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from shaken_plugin.lab.servers import LOOPBACK
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start
from tests.e2e.freeswitch.party import Message, Party


class Peer:
    """A carrier that takes an INVITE by UDP, and on the same port by TCP where it listens there; it is busy."""

    def __init__(self, *, tcp: bool) -> None:
        self.arrived: list[tuple[str, Message]] = []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((LOOPBACK, 0))
        self.target = f"{LOOPBACK}:{self.udp.getsockname()[1]}"
        self.tcp = socket.create_server((LOOPBACK, self.udp.getsockname()[1])) if tcp else None
        threading.Thread(target=self._by_udp, daemon=True).start()
        if self.tcp is not None:
            threading.Thread(target=self._by_tcp, args=(self.tcp,), daemon=True).start()

    def close(self) -> None:
        self.udp.close()
        if self.tcp is not None:
            self.tcp.close()

    def _by_udp(self) -> None:
        try:
            while True:
                data, address = self.udp.recvfrom(65_535)
                if answer := self._answer("udp", data):
                    self.udp.sendto(answer, address)
        except OSError:
            return

    def _by_tcp(self, server: socket.socket) -> None:
        try:
            while True:
                connection, _ = server.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()
        except OSError:
            return

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65_535):
                if answer := self._answer("tcp", data):
                    connection.sendall(answer)

    def _answer(self, transport: str, data: bytes) -> bytes | None:
        message = Message(data)
        if message.method != "INVITE":
            return None
        self.arrived.append((transport, message))
        lines = [line for line in message.lines if line.split(":")[0] in {"Via", "From", "Call-ID", "CSeq"}]
        to = f"To: {message.one('To')};tag=busy"
        return "\r\n".join(["SIP/2.0 486 Busy Here", *lines, to, "Content-Length: 0", "", ""]).encode()


@pytest.fixture(params=[True, False], ids=["takes TCP", "UDP alone"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    found = Peer(tcp=request.param)
    yield found
    found.close()


def bridging(start: Start, shared: Network, way: Way, peer: Peer, **size: Any) -> FreeSwitchServer:
    """A FreeSWITCH whose calls leave without a gateway."""
    name = "-".join(["size", way.name, peer.target.rpartition(":")[2], *map(str, size.values())])
    bridge = f'<action application="bridge" data="sofia/outside/$1@{peer.target}"/>'
    condition = f'<condition field="destination_number" expression="^(.+)$">{way.sign}{bridge}</condition>'
    return start(
        shared.provider(name, signing={"size": size}),
        dialplan={"inside": f'<extension name="size">{condition}</extension>'},
    )


def test_it_leaves_by_tcp_where_the_peer_takes_it_and_else_by_udp(
    start: Start, shared: Network, way: Way, caller: Party, peer: Peer
) -> None:
    switch = bridging(start, shared, way, peer, action="tcp")
    for _ in range(2):
        assert caller.ask(switch.inside_port).status == 486
    by_tcp = peer.tcp is not None
    assert [transport for transport, _ in peer.arrived] == ["tcp" if by_tcp else "udp"] * 2
    assert [len(message.identity()) for _, message in peer.arrived] == [1, 1]
    assert switch.counters()["size_tcp" if by_tcp else "size_tcp_refused"] == 2
    assert switch.log_text().count("signing.size.threshold") == 1


def test_by_default_it_is_counted_and_said_once_and_the_estimate_is_near(
    start: Start, shared: Network, way: Way, caller: Party, peer: Peer
) -> None:
    switch = bridging(start, shared, way, peer, action="warn")
    for _ in range(2):
        assert caller.ask(switch.inside_port).status == 486
    assert [transport for transport, _ in peer.arrived] == ["udp", "udp"]
    assert switch.counters()["size_over"] == 2
    (line,) = (line for line in switch.log_text().splitlines() if "signing.size.threshold" in line)
    estimated = int(line.partition("has about ")[2].partition(" bytes")[0])
    assert abs(estimated - len(peer.arrived[0][1].raw)) < 200


def test_it_is_shortened_and_one_that_fits_is_not(
    start: Start, shared: Network, way: Way, caller: Party, peer: Peer
) -> None:
    switch = bridging(start, shared, way, peer, action="warn", threshold=1000)
    assert caller.ask(switch.inside_port).status == 486
    whole = peer.arrived.pop()[1]
    (line,) = (line for line in switch.log_text().splitlines() if "signing.size.threshold" in line)
    estimated = int(line.partition("has about ")[2].partition(" bytes")[0])
    shorter = bridging(start, shared, way, peer, action="shorten", threshold=estimated - 5)
    assert caller.ask(shorter.inside_port).status == 486
    short = peer.arrived.pop()[1]
    assert ";alg=" in whole.identity()[0]
    assert ";alg=" not in short.identity()[0]
    assert shorter.counters()["size_shortened"] == 1
    fits = bridging(start, shared, way, peer, action="shorten", threshold=estimated + 300)
    assert caller.ask(fits.inside_port).status == 486
    assert ";alg=" in peer.arrived.pop()[1].identity()[0]
    assert not [name for name in fits.counters() if name.startswith("size")]
