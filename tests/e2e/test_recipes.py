"""The recipes of docs/fleet.md, taken from there: the settings, the lines of Redis, and the commands in their order."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from shaken_plugin import runtime
from shaken_plugin.cli import main
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.lab.redis import RedisServer, wait_until
from shaken_plugin.lab.servers import LOOPBACK, LabError, find_program
from shaken_plugin.stores.freshness import mark_of
from shaken_plugin.stores.redis.connection import RedisAccess
from tests.agent.host import until
from tests.agent.prepared import PreparedAgent
from tests.contract.fleet import ACL, PASSWORD
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.party import Party

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text("utf-8")
SECRETS = {
    "ADMIN-PASSWORD": "administrator",
    "REPLICA-PASSWORD": "replica-secret",
    "SENTINEL-PASSWORD": "sentinel-secret",
    "PASSWORD": PASSWORD.replace(" ", "-"),
}
WITHIN = 1.0
"""Seconds within which a change decides calls on every host."""


def section(title: str) -> str:
    """The text below a heading, up to the next of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ [A-Z])", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def block(title: str, kind: str = "", first: str = "") -> str:
    """The block of a kind below a heading, whose first line begins so."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if text.startswith(first)]
    return str(found)


def configuration(title: str, first: str, keep: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What a block says a server's configuration is: settings, and lines that may come more than once.

    Args:
        title: heading above it.
        first: how the block begins.
        keep: what is another on this machine, by the words that stand there for it.
    """
    text = block(title, first=first)
    for name, secret in (*SECRETS.items(), *keep.items()):
        text = text.replace(name, secret)
    options: dict[str, str] = {}
    lines: list[str] = []
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in {"user", "sentinel"}:
            lines.append(line)
        elif name not in {"#", "bind", "port"}:
            options[name] = value
    return options, lines


def settings(title: str, places: Mapping[str, int]) -> dict[str, Any]:
    """The settings of a recipe, with the ports of this machine."""
    text = block(title, "yaml")
    for documented, port in places.items():
        text = text.replace(f'"{documented}"', f'"{LOOPBACK}:{port}"')
    found: dict[str, Any] = yaml.safe_load(text)["store"]
    assert "10.0.0." not in str(found)
    return found


class Host:
    """A host of a recipe; what it is told is what stands there."""

    unit = "kamailio"

    def __init__(self, network: Network, name: str, store: Mapping[str, Any], *, first: bool) -> None:
        self.network, self.name = network, name
        self.carrier = network.stack.enter_context(Party())
        self.provider: Provider = network.provider(name)
        self.folder = self.provider.folder
        self.path = self.folder / "policy.db"
        self._names = iter(range(100))
        self.agent: PreparedAgent | None = None
        self.switch: Any = None
        if first:
            runtime.apply(self.provider.settings, time.time())
            self.restart("shaken-agent")
        found = yaml.safe_load(self.provider.settings.read_text("utf-8"))
        (self.folder / "redis.password").write_text(SECRETS["PASSWORD"])
        redis = dict(store["redis"]) | {"host": name, "password": "file:redis.password"}
        found["store"] = dict(store) | {"path": "policy.db", "redis": redis}
        if not first:
            found["policy"] = None
        dump(self.provider.settings, found)

    def restart(self, unit: str) -> None:
        if unit == "shaken-agent":
            if self.agent is not None:
                self.agent.stop()
            name = f"agent-{next(self._names)}"
            self.agent = PreparedAgent(name, self.folder, self.provider.settings, self.folder / "agent.sock")
            self.network.stack.enter_context(self.agent)
            if "redis" in yaml.safe_load(self.provider.settings.read_text("utf-8"))["store"]:
                until(lambda: mark_of(self.path).exists())
            return
        assert unit == self.unit
        if self.switch is not None:
            self.switch.stop()
        self.switch = self.start_switch()

    def start_switch(self) -> Any:
        """The switch, with a customer inside and a carrier outside."""
        return self.network.kamailio(self.provider, outside_peer=f"sip:{self.carrier.target}")

    def run(self, line: str) -> str:
        """A command as it stands in the document."""
        program, *words = shlex.split(line)
        if program == "systemctl":
            self.restart(words[-1])
            return ""
        assert program == "shaken"
        option = ["--settings", str(self.provider.settings)]
        arguments = [words[0], *option, *words[1:]] if words[0] == "fleet" else [*words, *option]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, (line, done.output)
        return str(done.output)

    def level(self) -> str | None:
        """Of a call of the customer over this host: what its INVITE carries when it leaves."""
        self.carrier.forget()
        with Party("127.0.0.2") as caller:
            call = caller.call(self.switch.inside_port)
            assert call.final.status == 200
            call.bye()
        (value,) = self.carrier.invite().identity()
        found: str = Passport.parse(IdentityHeader.parse(value).digest).claims["attest"]
        return found


def play(one: Host, two: Host) -> None:
    """The documented steps; calls over the first host are signed alike behind each of them."""
    hosts = {"# on edge1": [one], "# on edge2": [two], "# on either host, whenever the policy changes": [two, one]}
    told: list[Host] = []
    one.restart("kamailio")
    assert one.level() == "A"
    for line in block("The steps", "sh").splitlines():
        if line.startswith("#"):
            told = hosts[line]
        elif len(told) == 1:
            told[0].run(line.replace("kamailio", told[0].unit))
            assert one.level() == "A", line
        elif "set" in line:
            assert (one.level(), two.level()) == ("A", "A")
            told[0].run(line)
            changed = time.monotonic()
            until(lambda: one.level() == "B")
            assert time.monotonic() - changed < WITHIN
            time.sleep(0.2)  # each worker looks ten times a second; another had this call
            assert two.level() == "B"
        else:
            assert "edge2" in told[1].run(line)


def change(host: Host, level: str) -> None:
    """Another change from a host."""
    host.run(f'shaken customer set acme --ceiling {level} --why "a test"')


@pytest.fixture(scope="module", autouse=True)
def programs_of_redis() -> None:
    try:
        find_program("redis-server")
    except LabError as exc:
        pytest.skip(str(exc))


def access(port: int, user: str = "shaken", secret: str = "PASSWORD") -> RedisAccess:
    return RedisAccess(((LOOPBACK, port),), username=user, password=SECRETS[secret], timeout=2.0)


def documented(folder: Path, name: str, title: str, first: str, port: int | None = None, **how: Any) -> RedisServer:
    """A server as the document configures it."""
    keep = {f"10.0.0.5 {documented}": f"{LOOPBACK} {there}" for documented, there in how.pop("keep", {}).items()}
    options, lines = configuration(title, first, keep)
    for unwanted in how.pop("without", ()):
        options.pop(unwanted)
    server = RedisServer(name, folder / name, options, extra=lines, **how)
    if port is not None:
        server.port = port
    return server


ONE = "One Redis for two Kamailio hosts"


@pytest.fixture
def redis(network: Network) -> RedisServer:
    """That of the first recipe."""
    return network.stack.enter_context(
        documented(network.folder, "redis", ONE, "# redis.conf on 10.0.0.5", access=access(0))
    )


def pair(network: Network, store: Mapping[str, Any]) -> Iterator[Host]:
    yield Host(network, "edge1", store, first=True)
    yield Host(network, "edge2", store, first=False)


def test_the_rights_that_are_told_are_those_that_were_tried() -> None:
    assert DOCUMENT.count(ACL) == len(re.findall(r"^user shaken ", DOCUMENT, re.MULTILINE)) == 4


def test_one_redis_for_two_kamailio_hosts(network: Network, redis: RedisServer) -> None:
    one, two = pair(network, settings(ONE, {"10.0.0.5:6379": redis.port}))
    play(one, two)
    redis.kill()
    assert (one.level(), two.level()) == ("B", "B")
    redis.restart()  # with appendonly yes it has everything
    until(lambda: _takes_changes(one))
    until(lambda: two.level() == "A")
    one.run("shaken fleet move --to embedded")
    assert one.level() == "A"


def _takes_changes(host: Host) -> bool:
    option = ["--settings", str(host.provider.settings)]
    words = ["customer", "set", "acme", "--ceiling", "A", "--why", "a test"]
    return CliRunner().invoke(main, [*words, *option]).exit_code == 0


def test_sentinel(network: Network) -> None:
    first = "# redis.conf on 10.0.0.5, and"
    enter = network.stack.enter_context
    master = enter(documented(network.folder, "first", "Sentinel", first, without=["replicaof"], access=access(0)))
    replica = enter(
        documented(network.folder, "second", "Sentinel", first, keep={"6379": str(master.port)}, access=access(0))
    )
    sentinels = [
        enter(
            documented(
                network.folder, f"sentinel{number}", "Sentinel", "# sentinel.conf", keep={"6379": str(master.port)},
                arguments=["--sentinel"],
            )
        )
        for number in range(3)
    ]  # fmt: skip

    def complete() -> bool:
        for sentinel in sentinels:
            words = sentinel.command("SENTINEL", "MASTER", "shaken")
            state = words if isinstance(words, dict) else dict(zip(words[::2], words[1::2], strict=True))
            if (str(state["num-other-sentinels"]), str(state["num-slaves"])) != ("2", "1"):
                return False
        return True

    wait_until(complete, "the Sentinels find each other and the replica")
    places = {f"10.0.0.{5 + number}:26379": sentinel.port for number, sentinel in enumerate(sentinels)}
    one, two = pair(network, settings("Sentinel", places))
    play(one, two)
    master.kill()
    assert (one.level(), two.level()) == ("B", "B")
    until(lambda: _takes_changes(one), 30)
    assert replica.running()
    until(lambda: (one.level(), two.level()) == ("A", "A"))


def test_a_cluster_of_three_nodes(network: Network) -> None:
    title = "A Cluster of three nodes"
    nodes = []
    for number in range(3):
        node = documented(network.folder, f"node{number}", title, "# redis.conf", access=access(0))
        nodes.append(network.stack.enter_context(node))
    command = next(line for line in block(title, "sh").splitlines() if line.startswith("redis-cli"))
    places = {f"10.0.0.{5 + number}:6379": node.port for number, node in enumerate(nodes)}
    for documented_place, port in places.items():
        command = command.replace(documented_place, f"{LOOPBACK}:{port}")
    command = command.replace("ADMIN-PASSWORD", SECRETS["ADMIN-PASSWORD"])
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = pair(network, settings(title, places))
    play(one, two)
    change(one, "A")
    until(lambda: two.level() == "A")


def test_a_host_that_is_not_moved_yet_decides_as_before_whatever_is_restarted_first(
    network: Network, redis: RedisServer
) -> None:
    one, two = pair(network, settings(ONE, {"10.0.0.5:6379": redis.port}))
    one.restart("kamailio")  # with the new settings, before anything was moved
    assert one.level() == "A"
    assert one.agent is not None
    one.agent.stop()
    one.agent = PreparedAgent("early", one.folder, one.provider.settings, one.folder / "agent.sock")
    network.stack.enter_context(one.agent)
    until(lambda: _alarm(one, "copy_not_updated") is not None)
    assert one.level() == "A"
    assert "the agent follows the fleet already" in " ".join(one.run("shaken fleet move").split())
    until(lambda: _alarm(one, "copy_not_updated") is None)
    two.restart("shaken-agent")
    two.restart("kamailio")
    assert (one.level(), two.level()) == ("A", "A")
    one.run("shaken fleet move --to embedded")
    until(lambda: _alarm(one, "not_in_fleet") is not None)
    change(two, "B")
    assert two.level() == "B"
    assert one.level() == "A"
    one.restart("kamailio")
    assert one.level() == "A"


def test_an_agent_that_does_not_follow_says_so(network: Network, redis: RedisServer) -> None:
    one = Host(network, "edge1", settings(ONE, {"10.0.0.5:6379": redis.port}), first=True)
    assert "systemctl restart shaken-agent" in one.run("shaken fleet move")
    until(lambda: _alarm(one, "not_following") is not None)
    one.restart("shaken-agent")
    until(lambda: _alarm(one, "not_following") is None)


def _alarm(host: Host, name: str) -> str | None:
    """The text of an alarm of a host's agent."""
    import urllib.request

    assert host.agent is not None
    address = host.agent.log_text().rpartition("http://")[2].partition("/health")[0]
    with urllib.request.urlopen(f"http://{address}/health", timeout=5) as answer:
        alarms = json.loads(answer.read())["alarms"]
    return next((alarm["text"] for alarm in alarms if alarm["name"] == name), None)
