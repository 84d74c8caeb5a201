"""An originating and a terminating host of one provider: what calls go through, and what changes it."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import redis
import yaml
from click.testing import CliRunner

from bench.load import mix
from bench.load.observed import REDIS
from bench.load.watch import Pool, pool_of
from bench.processes import children
from bench.results import BenchError
from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.cli import main
from shaken_plugin.lab.pki import Authority, Issued
from shaken_plugin.lab.provider import SPC, Provider, dump
from shaken_plugin.lab.redis import RedisServer, wait_until
from shaken_plugin.lab.repository import Behaviour, Repository
from shaken_plugin.lab.servers import LOOPBACK, AgentServer, KamailioServer, LabError
from shaken_plugin.stores.freshness import mark_of

FLEET: Final = "load"
CREDENTIAL: Final = "main"
PATIENCE: Final = 120.0
"""Seconds that an agent may take to start."""
FIRST_KEY: Final = "/0.pem"
"""Where the certificate of the pair in the settings is published."""

SIP_WORKER: Final = "SIP worker"
"""What the name of such a process has in it."""

_PROCESS: Final = re.compile(r"^(\d+)\n(.+)$", re.MULTILINE)
_SLOTS: Final = re.compile(r"^shaken_limit_slots (\S+)$", re.MULTILINE)


class Agent(AgentServer):
    """One that may take its time: calls go on meanwhile, and the machine may be busy with them."""

    def wait_until_ready(self) -> None:
        """See `Server.wait_until_ready`."""
        wait_until(lambda: not self.running() or self.is_ready(), f"{self.name} answers", PATIENCE)
        super().wait_until_ready()


class Host:
    """A host: its settings and files, its agent, its Kamailio.

    Args:
        name: for people.
        provider: its files.
        stack: ends its servers.
    """

    def __init__(self, name: str, provider: Provider, stack: ExitStack) -> None:
        self.name, self.provider, self._stack = name, provider, stack
        self.agents: list[Agent] = []
        self.kamailio: KamailioServer | None = None
        self.policy = provider.folder / "policy.db"
        self.ledger = provider.folder / "ledger.db"

    @property
    def agent(self) -> Agent:
        """The one that runs, or ran last."""
        return self.agents[-1]

    @property
    def switch(self) -> KamailioServer:
        """Its Kamailio."""
        assert self.kamailio is not None
        return self.kamailio

    def start_agent(self) -> None:
        """A new agent, in the place of one that is gone; returns when calls can count on it."""
        began, folder = time.time(), self.provider.folder
        name = f"agent-{len(self.agents) + 1}"
        self.agents.append(Agent(name, folder, self.provider.settings, folder / "agent.sock"))
        self._stack.enter_context(self.agent)
        if "redis" in self.settings()["store"]:
            mark = mark_of(self.policy)
            wait_until(
                lambda: mark.exists() and mark.stat().st_mtime >= began, f"{self.name}: the copy is known", PATIENCE
            )

    def start_switch(self, *, inside: str, outside: str, kemi: bool) -> None:
        """Its Kamailio begins to take calls."""
        folder = self.provider.folder / "kamailio"
        server = KamailioServer(
            "kamailio", folder, self.provider.settings, inside_peer=inside, outside_peer=outside, kemi=kemi
        )
        self.kamailio = self._stack.enter_context(server)

    def settings(self) -> dict[str, Any]:
        """As its settings file has them."""
        found: dict[str, Any] = yaml.safe_load(self.provider.settings.read_text("utf-8"))
        return found

    def run(self, *words: str) -> str:
        """What a command on this host prints.

        Raises:
            BenchError: it was refused.
        """
        done = CliRunner(env={"SHAKEN_SETTINGS": str(self.provider.settings)}).invoke(main, words)
        if done.exit_code != 0:
            raise BenchError(f"shaken {' '.join(words)} on the {self.name} host: {done.output or done.exception!r}")
        return done.output

    def change(self, *words: str) -> None:
        """A command that takes a reason."""
        self.run(*words, "--why", "a change under load", "--by", "make load")

    def processes(self) -> dict[int, str]:
        """What each process of its Kamailio is called, by pid."""
        switch = self.switch
        found = {pid: f"{self.name} {what}" for pid, what in described(switch.rpc("core.ps")).items()}
        return {pid: found.get(pid, f"{self.name} kamailio") for pid in (switch.pid, *children(switch.pid))}

    def pool(self) -> Pool:
        """The memory that the processes of its Kamailio share.

        Raises:
            BenchError, LabError: it does not say.
        """
        return pool_of(self.switch.rpc("core.shmmem"))

    def held(self) -> float:
        """How many calls its agent says have a slot.

        Raises:
            BenchError: it does not say.
        """
        address = re.findall(r"http://([\d.:]+)/health", self.agent.log_text())[-1]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            found = _SLOTS.search(answer.read().decode())
        if found is None:
            raise BenchError(f"the agent of the {self.name} host tells no slots")
        return float(found[1])


def described(listing: str) -> dict[int, str]:
    """Kamailio's processes by pid, from ``core.ps``: ``kamailio udp 1``."""
    found: dict[int, str] = {}
    seen: dict[str, int] = {}
    for pid, text in _PROCESS.findall(listing):
        what = _plain(text)
        seen[what] = seen.get(what, 0) + 1
        found[int(pid)] = f"kamailio {what} {seen[what]}"
    return found


_KINDS: Final = {"udp receiver": SIP_WORKER, "shaken": "waiting room", "timer": "timer", "attendant": "main"}


def _plain(text: str) -> str:
    return next((what for part, what in _KINDS.items() if part in text.lower()), "other")


class Hosts:
    """Both hosts, and what they share.

    Args:
        folder: for all files.
        stack: ends everything.
        bounds: of the limited customers.
        embedded: each host has a policy of its own, and there is no Redis.
    """

    def __init__(self, folder: Path, stack: ExitStack, bounds: mix.Bounds, *, embedded: bool) -> None:
        self._folder, self._stack = folder, stack
        self._authority = Authority.new(time.time())
        self.repository = stack.enter_context(Repository(folder / "repository"))
        self.redis = None if embedded else stack.enter_context(RedisServer("redis", folder / "redis"))
        CliRunner().invoke(main, ["key", "new-encryption", str(folder / "kek")])
        self.origin = self._host("originating", mix.policy(bounds))
        self.target = self._host("terminating", {})
        self.pairs = [self._publish(FIRST_KEY, self.origin.provider.credential)]
        """What is signed with, the present pair last."""
        self.admin = self.origin if embedded else self.target
        """Where the policy is changed; in a fleet not where it decides calls."""

    def start(self, called: str, *, kemi: bool) -> Self:
        """Bring the policy where it belongs, and start agents and switches.

        Args:
            called: who answers, a SIP URI.
            kemi: routing in Python.
        """
        self.origin.run("apply")
        if self.redis is None:
            self.target.run("apply")
        else:
            _settings(self.origin, store=self._in_fleet("edge1"))
            self.origin.run("fleet", "move")
            self.origin.run("apply")
            _settings(self.target, store=self._in_fleet("edge2"), policy=None)
        self.origin.start_agent()
        self.target.start_agent()
        if self.redis is not None:
            self.target.run("apply")
        self.target.start_switch(inside=called, outside="sip:127.0.0.1:9", kemi=kemi)
        onward = f"sip:{LOOPBACK}:{self.target.switch.outside_port}"
        self.origin.start_switch(inside="sip:127.0.0.1:9", outside=onward, kemi=kemi)
        return self

    def __iter__(self) -> Iterator[Host]:
        return iter((self.origin, self.target))

    def processes(self) -> dict[int, str]:
        """Every process of the Kamailios, and Redis, by pid: none of them may end."""
        found = self.origin.processes() | self.target.processes()
        return found | ({} if self.redis is None else {self.redis.pid: REDIS})

    def pools(self) -> dict[str, Callable[[], Pool]]:
        """What tells of the memory that the processes of each Kamailio share, and of Redis's."""
        found = {f"{host.name} kamailio shared pool": host.pool for host in self}
        return (
            found if self.redis is None else found | {f"{REDIS} but for the acts of the fleet's state": self._in_redis}
        )

    def _in_redis(self) -> Pool:
        """What Redis has in use, without the acts that are kept until some thousands become a snapshot.

        Raises:
            LabError: it does not say.
        """
        assert self.redis is not None
        try:
            acts = self.redis.command("MEMORY", "USAGE", f"shaken:{{{FLEET}}}:state", "SAMPLES", 0) or 0
            return Pool(0, int(self.redis.command("INFO", "memory")["used_memory"]) - int(acts))
        except redis.RedisError as exc:
            raise LabError(f"Redis does not say what it has in use: {exc}") from exc

    def agents(self) -> dict[int, str]:
        """The agents that run, by pid."""
        return {host.agent.pid: f"{host.name} agent" for host in self if host.agent.running()}

    def new_pair(self, number: int) -> tuple[str, SigningPair]:
        """Issue and publish a certificate, and put it into the store; its name and the pair.

        Raises:
            BenchError: the command refuses it.
        """
        name, folder = f"key-{number}", self._folder / "keys"
        folder.mkdir(exist_ok=True)
        issued = self._authority.issue(spc=SPC, now=time.time())
        key, chain = folder / f"{name}.key", folder / f"{name}.pem"
        key.touch(0o600)
        key.write_bytes(issued.key)
        chain.write_bytes(issued.chain)
        pair = self._publish(f"/{number}.pem", issued)
        files = ("--key", f"file:{key}", "--chain", f"file:{chain}", "--x5u", pair.x5u)
        self.admin.change("key", "add", name, "--credential", CREDENTIAL, *files)
        self.pairs.append(pair)
        return name, pair

    def strangers(self, count: int) -> list[SigningPair]:
        """Signers whose certificates lie in the repository, and whom nobody has met."""
        return [
            self._publish(f"/stranger-{number}.pem", self._authority.issue(spc=SPC, now=time.time()))
            for number in range(count)
        ]

    def _publish(self, path: str, issued: Issued) -> SigningPair:
        cached = [("Cache-Control", "public, max-age=86400"), ("Content-Type", "application/pem-certificate-chain")]
        self.repository.set(path, Behaviour(body=issued.chain, headers=cached))
        x5u = self.repository.url(path)
        hosts = self.repository.hosts
        return load_pair(key=issued.key, chain=issued.chain, x5u=x5u, live_from=0, spc=None, lab_hosts=hosts)

    def _host(self, name: str, policy: Mapping[str, Any]) -> Host:
        folder, hosts = self._folder / name, sorted(self.repository.hosts)
        pair = {"key": "file:signing.key", "chain": "file:chain.pem", "x5u": self.repository.url(FIRST_KEY)}
        provider = Provider.make(
            folder,
            self._authority,
            time.time(),
            policy=policy,
            signing={"credentials": [{"name": CREDENTIAL, "spc": SPC, "pairs": [pair]}], "origid": {"per": "call"}},
            verification={"lab_hosts": hosts},
            agent={"ca_bundle": str(self.repository.ca_file)},
            keys={"encryption": f"file:{self._folder / 'kek'}"},
            log={},
        )
        return Host(name, provider, self._stack)

    def _in_fleet(self, name: str) -> dict[str, Any]:
        assert self.redis is not None
        servers = [f"{LOOPBACK}:{self.redis.port}"]
        return {"path": "policy.db", "redis": {"servers": servers, "fleet": FLEET, "host": name}}


def _settings(host: Host, **changed: Any) -> None:
    dump(host.provider.settings, host.settings() | changed)
