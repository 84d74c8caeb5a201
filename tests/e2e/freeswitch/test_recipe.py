"""Kamailio and FreeSWITCH of one contact centre on the same policy, as docs/fleet.md tells to set them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from shaken_plugin.lab.freeswitch import Way
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import LabError, find_program
from tests.agent.host import until
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start
from tests.e2e.freeswitch.party import Party
from tests.e2e.test_recipes import ONE, Host, access, documented, play, section, settings


@pytest.fixture(scope="module")
def way() -> Way:
    return Way.mod_python3()


class Dialler(Host):
    """The host with FreeSWITCH."""

    unit = "freeswitch"

    def __init__(self, network: Network, name: str, store: Mapping[str, Any], start: Start, way: Way) -> None:
        self._start, self._way = start, way
        super().__init__(network, name, store, first=False)

    def start_switch(self) -> Any:
        return self._start(self.provider, outside_peer=self.carrier.target, from_inside=self._way.sign)


@pytest.fixture(scope="module")
def redis(shared: Network) -> RedisServer:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))
    return shared.stack.enter_context(
        documented(shared.folder, "redis", ONE, "# redis.conf on 10.0.0.5", access=access(0))
    )


def refusals(host: Host) -> int:
    """How a call of the customer over a host is answered."""
    with Party("127.0.0.2") as caller:
        call = caller.call(host.switch.inside_port)
        if call.final.status == 200:
            call.bye()
        return call.final.status


def test_both_switches_decide_by_one_policy(shared: Network, start: Start, way: Way, redis: RedisServer) -> None:
    assert "systemctl restart freeswitch" in section("Kamailio and FreeSWITCH of one contact centre")
    store = settings(ONE, {"10.0.0.5:6379": redis.port})
    proxy, dialler = Host(shared, "edge1", store, first=True), Dialler(shared, "edge2", store, start, way)
    play(proxy, dialler)
    proxy.run('shaken customer suspend acme --by Ann --why "a test"')
    until(lambda: refusals(dialler) == 403)
    assert refusals(proxy) == 403
    dialler.run('shaken customer reinstate acme --by Ann --why "a test"')
    until(lambda: refusals(proxy) == 200)
    assert (proxy.level(), dialler.level()) == ("B", "B")
