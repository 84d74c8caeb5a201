"""Faults of repository, lists, file, disk, clock and agent: no call is lost, and each fault has a name."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.agent_client import AgentClient
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.core.certificates import parse_chain
from shaken_plugin.lab import sipp
from shaken_plugin.lab.administrator import PolicyAdministrator
from shaken_plugin.lab.pki import Authority, certificate_builder, key_usage
from shaken_plugin.lab.repository import Behaviour, Face, Repository
from shaken_plugin.lab.servers import free_port, share
from tests.agent.prepared import PreparedAgent
from tests.e2e.conftest import REQUIRE_ALL, Network
from tests.e2e.test_verifying import header
from tests.e2e.test_waiting import Verifier, make

PASSED = "TN-Validation-Passed"
NONE = "No-TN-Validation"


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for something; what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


# --- The agent ----------------------------------------------------------------------------------


def ask(agent: PreparedAgent, path: str) -> str:
    """What the agent's HTTP server says."""
    port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/health", agent.log_text())[-1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def alarms(target: Verifier) -> dict[str, str]:
    """The agent's alarms that are on, with their texts."""
    text = ask(target.agent, "/health")
    return {alarm["name"]: alarm["text"] for alarm in json.loads(text).get("alarms", [])}


def metric(target: Verifier, name: str) -> float:
    return float(ask(target.agent, "/metrics").partition(f"\n{name} ")[2].split()[0])


def restart(target: Verifier, between: Callable[[], None] = lambda: None) -> None:
    """Kill the agent as a crash would, and start another."""
    target.agent.kill()
    between()
    folder = target.provider.folder
    name = f"agent-{len(list(folder.glob('agent*.log')))}"
    daemon = PreparedAgent(name, folder, target.provider.settings, folder / "agent.sock")
    target.agent = target.network.stack.enter_context(daemon)
    until(lambda: "/health" in daemon.log_text())


def resident(pid: int) -> int:
    """Octets of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- Calls of several signers -------------------------------------------------------------------


def pair(target: Verifier, url: str, *, authority: Authority | None = None, chain: bytes | None = None) -> SigningPair:
    """A signer whose x5u is ``url``; what lies there is set by the test."""
    issued = (authority or target.network.authority).issue(spc="709J", now=time.time())
    hosts = target.repository.hosts | {host.replace("127.0.0.1", "localhost") for host in target.repository.hosts}
    return load_pair(
        key=issued.key, chain=chain or issued.chain, x5u=url, live_from=0, spc=None, lab_hosts=frozenset(hosts)
    )


def scenario_of_many(target: Verifier, pairs: Sequence[SigningPair]) -> tuple[Path, tuple[str, ...]]:
    """A scenario, and the options that give it the Identity headers of signers in turn."""
    text = share("sipp_scenarios", "uac_identity.xml").read_text("utf-8")
    text = text.replace("[identity]", "[field0];[field1];[field2];[field3]")  # ";" separates SIPp's fields
    number = len(list(target.network.folder.glob("many-*.xml")))
    file = target.network.folder / f"many-{number}.xml"
    file.write_text(text)
    values = file.with_suffix(".csv")
    values.write_text("\n".join(["SEQUENTIAL", *(header(one).format() for one in pairs)]) + "\n")
    return file, ("-inf", str(values))


@dataclass
class Load(threading.Thread):
    """Calls of signers in turn, going on beside the test."""

    target: Verifier
    pairs: Sequence[SigningPair]
    calls: int
    rate: int
    run_: list[sipp.Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._file, self._arguments = scenario_of_many(self.target, self.pairs)
        self.start()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        target, network = self.target, self.target.network
        self.run_.append(
            network.call(
                "uac_identity", target.kamailio.outside_port, calls=self.calls, rate=self.rate, trace=False,
                file=self._file, arguments=self._arguments, address="127.0.0.3",
            )
        )  # fmt: skip

    def end(self) -> None:
        """Wait for the end; no call may be lost."""
        self.join()
        run = self.run_[0]
        assert (run.counts.successful, run.counts.failed) == (self.calls, 0), run.errors


def verified(target: Verifier, since: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The plugin's lines about verifications, by x5u, from a place in the log on.

    Processes share the log, and a line that was written in two pieces may have another one in it: such are passed
    over. How many calls there were is what the counters say.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for line in target.kamailio.log_text()[since:].splitlines():
        _, is_ours, text = line.partition("shaken {")
        if is_ours and '"verify"' in text:
            with suppress(ValueError):
                event = json.loads("{" + text)
                found.setdefault(event.get("x5u", ""), []).append(event)
    return found


def play(target: Verifier, *pairs: SigningPair, rate: int = 20) -> dict[str, dict[str, Any]]:
    """One call of each signer, none of them lost; what was found, by x5u."""
    since = len(target.kamailio.log_text())
    Load(target, pairs, len(pairs), rate).end()
    return {url: events[-1] for url, events in verified(target, since).items()}


def verdict(target: Verifier, one: SigningPair) -> tuple[str | None, str]:
    """Code and verstat of a call."""
    event = play(target, one)[one.x5u]
    return event.get("code"), event["verstat"]


# --- The repository -----------------------------------------------------------------------------


def forget_failures(target: Verifier) -> None:
    """As if the time for which failures are believed had passed."""

    def forget() -> None:
        with closing(sqlite3.connect(target.provider.folder / "certificates.sqlite")) as connection:
            connection.execute("UPDATE document SET retry_at = 0 WHERE digest IS NULL")
            connection.commit()

    restart(target, forget)


@pytest.mark.alone  # both rounds have to be over before the slow download is given up
def test_whatever_the_repository_does_every_call_goes_on(network: Network) -> None:
    target = make(network, verification={"wait": 1.5}, workers=4)
    repository, chain = target.repository, network.authority.issue(spc="709J", now=time.time())
    stranger = Authority.new(time.time(), name="Stranger").issue(spc="709J", now=time.time())
    html = Behaviour(body="<!DOCTYPE html><html><body>maintenance</body></html>")
    # What is wrong → what the call's code is, and what its detail names.
    faults: dict[str, tuple[Behaviour | Face, str, str]] = {
        "slow": (Behaviour(body=chain.chain, delay=8.0), "certificate_not_yet", ""),
        "missing": (Behaviour(404, body=b"not found"), "certificate_unavailable", "404"),
        "redirect": (Behaviour(302, headers=[("Location", "/good.pem")]), "certificate_unavailable", "redirect"),
        "oversized": (Behaviour(body=b"A" * 65_536, repeat=64), "certificate_unavailable", "too_large"),
        "untrusted": (Behaviour(body=stranger.chain), "certificate_untrusted", ""),
        "html": (html, "certificate_unavailable", "wrong_content"),
        "reset": (Behaviour(body=chain.chain, reset_after=200), "certificate_unavailable", "body_broken"),
        "wrong-name": (Face.WRONG_NAME, "certificate_unavailable", "tls_failed"),
        "untrusted-tls": (Face.UNTRUSTED, "certificate_unavailable", "tls_failed"),
        "expired": (Face.EXPIRED, "certificate_unavailable", "tls_failed"),
    }
    pairs, paths = {}, {}
    for name, (fault, _, _) in faults.items():
        path = f"/{name}.pem"
        repository.set(path, fault if isinstance(fault, Behaviour) else Behaviour(body=chain.chain))
        face = fault if isinstance(fault, Face) else Face.GOOD
        paths[name], pairs[name] = path, pair(target, repository.url(path, face))
    for _ in range(2):
        found = play(target, *pairs.values())
        for name, (_, code, detail) in faults.items():
            event = found[pairs[name].x5u]
            assert event["code"] == code, (name, event)
            assert detail in (event.get("detail") or ""), (name, event)
            assert event["verstat"] != PASSED
    # Known for a while: asked once, however many calls; a TLS failure never gets to asking.
    for name, path in paths.items():
        expected = 0 if isinstance(faults[name][0], Face) else 1
        assert repository.count(path) == expected, name
    # It recovers, and nobody asks it until the failures are forgotten; then calls pass.
    for path in paths.values():
        repository.set(path, Behaviour(body=chain.chain))
    mended = [one for name, one in pairs.items() if not isinstance(faults[name][0], Face) and name != "untrusted"]
    signer = load_pair(key=chain.key, chain=chain.chain, x5u=mended[0].x5u, live_from=0, spc=None,
                       lab_hosts=repository.hosts)  # fmt: skip
    signers = [replace(signer, x5u=one.x5u) for one in mended]
    assert {event["code"] for event in play(target, *signers[1:]).values()} == {"certificate_unavailable"}
    forget_failures(target)
    assert {event["verstat"] for event in play(target, *signers).values()} == {PASSED}
    counters = target.kamailio.counters()
    assert not [name for name in counters if name.startswith("fault")]


# --- Lists --------------------------------------------------------------------------------------


@dataclass
class Listed:
    """A verifier that has its anchors, or its revocation lists, from the repository."""

    target: Verifier
    administrator: PolicyAdministrator
    settings: dict[str, Any]

    def publish(self, path: str, document: bytes | None) -> None:
        self.target.repository.set(path, Behaviour(404) if document is None else Behaviour(body=document))

    def reload(self) -> None:
        """Have the agent fetch its lists anew: settings with another grace, and SIGHUP."""
        chosen = self.settings["trust_lists"]["us"]
        chosen["grace"] = chosen["grace"] + 1
        path = self.target.provider.settings
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | self.settings))
        os.kill(self.target.agent.pid, signal.SIGHUP)


def listed(
    network: Network, documents: Mapping[str, bytes | None], *, grace: int = 3600, **verification: Any
) -> Listed:
    administrator = PolicyAdministrator.new(time.time())
    folder = network.folder / "target"
    folder.mkdir(exist_ok=True)
    for name, signer in (("administrator", administrator.root), ("crl-signer", administrator.crl_signer)):
        (folder / f"{name}.pem").write_bytes(signer.public_bytes(Encoding.PEM))
    repository = network.stack.enter_context(Repository(network.folder / "repository"))
    crl = {"urls": [repository.url("/crl", Face.PLAIN)], "signers": ["file:crl-signer.pem"]}
    chosen: dict[str, Any] = {"grace": grace}
    if "/list" in documents:
        chosen |= {"url": repository.url("/list"), "signers": ["file:administrator.pem"]}
    else:
        chosen |= {"anchors": ["file:anchors.pem"], "crl": crl}
    settings = {"trust_lists": {"us": chosen}}
    made = Listed(None, administrator, settings)  # type: ignore[arg-type]  # a test says what fits
    for path, document in documents.items():
        repository.set(path, Behaviour(404) if document is None else Behaviour(body=document))
    made.target = make(
        network,
        repository=repository,
        settings=settings,
        verification={"trust_anchors": [], "trust_list": "us", "wait": 2.0, **verification},
    )
    return made


def good(target: Verifier, path: str, authority: Authority) -> SigningPair:
    """A signer with nothing wrong."""
    issued = authority.issue(spc="709J", now=time.time())
    target.repository.set(path, Behaviour(body=issued.chain))
    return load_pair(key=issued.key, chain=issued.chain, x5u=target.repository.url(path), live_from=0, spc=None,
                     lab_hosts=target.repository.hosts)  # fmt: skip


def refused_for(target: Verifier, kind: str, reason: str) -> Callable[[], bool]:
    return lambda: reason in alarms(target).get(f"{kind}_refused", "")


def test_trust_lists_come_and_are_refused_and_calls_go_on(network: Network) -> None:
    world = listed(network, {"/list": None}, reject=[403, 428, 436, 437, 438])
    target, administrator, now = world.target, world.administrator, time.time()
    roots, other = [network.authority.root], Authority.new(now, name="Other")
    ours, theirs = good(target, "/a.pem", network.authority), good(target, "/b.pem", other)
    # Kamailio has started without an anchor. That is our trouble: neither the call nor its signer pays.
    assert "trust_list_unavailable" in until(lambda: alarms(target))
    assert verdict(target, ours) == ("trust_list_unavailable", NONE)
    world.publish("/list", administrator.trust_list(roots, now=now, sequence=5))
    world.reload()
    until(lambda: "trust_list_unavailable" not in alarms(target))
    time.sleep(1.0)  # workers look for a new list once a second
    assert verdict(target, ours) == (None, PASSED)

    both = [*roots, other.root]
    for document, told in (
        (PolicyAdministrator.new(now).trust_list(both, now=now, sequence=6), "sign"),
        (administrator.trust_list(both, now=now, sequence=6, lifetime=timedelta(seconds=-5)), "expired"),
        (administrator.trust_list(both, now=now, sequence=4), "sequence 4"),
    ):
        world.publish("/list", document)
        world.reload()
        until(refused_for(target, "trust_list", told))
        assert verdict(target, ours) == (None, PASSED)
    since = len(target.kamailio.log_text())
    run = target.call(theirs)  # its root stands only in lists that were refused
    assert [event["code"] for event in verified(target, since)[theirs.x5u]] == ["certificate_untrusted"]
    assert 437 in {int(one.first_line.split()[1]) for one in run.messages if one.first_line.startswith("SIP/2.0")}

    # A root that left the list is believed no longer, although the path was known; another is.
    world.publish("/list", administrator.trust_list([other.root], now=now, sequence=6))
    world.reload()
    until(lambda: "trust_list_refused" not in alarms(target))
    time.sleep(1.0)
    assert verdict(target, theirs) == (None, PASSED)
    target.call(ours)
    assert verified(target, since)[ours.x5u][-1]["code"] == "certificate_untrusted"


def test_a_trust_list_that_ends_is_told_and_after_its_grace_nothing_is_trusted(network: Network) -> None:
    world = listed(network, {"/list": None}, grace=3, reject=[403, 428, 436, 437, 438])
    target, now = world.target, time.time()
    ours = good(target, "/a.pem", network.authority)
    ends = timedelta(seconds=5)
    world.publish("/list", world.administrator.trust_list([network.authority.root], now=now, lifetime=ends))
    world.reload()
    until(lambda: json.loads(ask(target.agent, "/health"))["lists"][0]["ends_in_seconds"] is not None)
    time.sleep(1.0)
    assert verdict(target, ours) == (None, PASSED)
    until(lambda: "trust_list_expired" in alarms(target))
    assert verdict(target, ours) == (None, PASSED)  # its grace
    time.sleep(max(0.0, now + 5 + 4 - time.time()) + 0.2)
    assert verdict(target, ours) == ("trust_list_unavailable", NONE)
    assert "has ended" in alarms(target)["trust_list_expired"]


def another_issuer(authority: Authority) -> Authority:
    """A second intermediate below the same root."""
    other = Authority.new(time.time(), name="Second")
    start = datetime.now(UTC) - timedelta(days=30)
    issuer = (
        certificate_builder(
            other.issuer.subject, other.issuer_key, authority.root.subject, authority.root_key, start,
            timedelta(days=900),
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(certifies=True), critical=True)
        .sign(authority.root_key, SHA256())
    )  # fmt: skip
    return replace(authority, issuer_key=other.issuer_key, issuer=issuer)


def test_what_is_revoked_fails_within_seconds_though_its_path_is_known(network: Network) -> None:
    now, first, second = time.time(), network.authority, another_issuer(network.authority)
    world = listed(network, {"/crl": None})
    target, administrator = world.target, world.administrator
    known, leaf, below = good(target, "/a.pem", first), good(target, "/b.pem", first), good(target, "/c.pem", second)
    every = (known, leaf, below)

    def codes() -> list[str | None]:
        found = play(target, *every)
        return [found[one.x5u].get("code") for one in every]

    # A signer is not to blame for a list that does not come: soft, with an alarm on both sides.
    until(lambda: "crl_unavailable" in alarms(target))
    assert codes() == [None, None, None]
    assert target.kamailio.counters()["revocation_trouble"] >= 3
    assert "revocation" in target.kamailio.log_text().rpartition("was not downloaded yet")[0].splitlines()[-1]

    world.publish("/crl", administrator.crl([], now=now, number=1))
    world.reload()
    until(lambda: "crl_unavailable" not in alarms(target))
    time.sleep(1.0)
    trouble = target.kamailio.counters()["revocation_trouble"]
    assert codes() == [None, None, None]
    assert target.kamailio.counters()["revocation_trouble"] == trouble

    signer = parse_chain(target_chain(target, "/b.pem"))[0]
    world.publish("/crl", administrator.crl([signer], now=now + 1, number=2))
    world.reload()
    until(lambda: codes() == [None, "certificate_revoked", None], 5.0)
    time.sleep(1.1)  # every worker looks for itself, once a second

    # Who has not the key cannot pardon, nor can an old list.
    for document in (PolicyAdministrator.new(now).crl([], now=now + 2, number=3), administrator.crl([], now=now)):
        world.publish("/crl", document)
        world.reload()
        until(lambda: "crl_refused" in alarms(target))
        assert codes() == [None, "certificate_revoked", None]
        restart(target)

    world.publish("/crl", administrator.crl([signer, second.issuer], now=now + 3, number=3))
    world.reload()
    until(lambda: codes() == [None, "certificate_revoked", "certificate_revoked"], 5.0)


def target_chain(target: Verifier, path: str) -> bytes:
    """What the repository has at a path."""
    return target.repository._behaviours[path][0].octets


def test_hard_gives_no_verdict_without_a_revocation_list(network: Network) -> None:
    world = listed(network, {"/crl": None}, revocation="hard")
    ours = good(world.target, "/a.pem", network.authority)
    assert verdict(world.target, ours)[0] == "certificate_revocation_unknown"
    world.publish("/crl", world.administrator.crl([], now=time.time()))
    world.reload()
    until(lambda: verdict(world.target, ours) == (None, PASSED), 5.0)


# --- File and disk ------------------------------------------------------------------------------


def cache_of(target: Verifier) -> Path:
    return target.provider.folder / "certificates.sqlite"


@contextmanager
def held_by_another(path: Path, *statements: str) -> Iterator[None]:
    """Another process has the file open, did this to it, and does not come to its end."""
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2:]: connection.execute(statement)\n"
        "print(flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), *statements], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield
        process.kill()


def test_a_file_that_is_locked_or_damaged_costs_no_call(network: Network) -> None:
    target = make(network, workers=4)
    path = cache_of(target)
    known = [good(target, f"/known-{number}.pem", network.authority) for number in range(4)]
    assert {event["verstat"] for event in play(target, *known).values()} == {PASSED}

    def calls(one: SigningPair, number: int) -> None:
        """Calls of the signers that are known, and meanwhile one of a new one."""
        since = len(target.kamailio.log_text())
        load = Load(target, known, number, 40)
        assert verdict(target, one) == (None, PASSED)
        load.end()
        found = verified(target, since)
        assert {event["verstat"] for one in known for event in found[one.x5u]} == {PASSED}
        counters = target.kamailio.counters()
        assert not [name for name in counters if name.startswith("fault")], counters

    with held_by_another(path, "BEGIN EXCLUSIVE"):
        calls(good(target, "/during-write.pem", network.authority), 80)
        until(lambda: "cache_unwritable" in alarms(target))
    until(lambda: "cache_unwritable" not in alarms(target))

    # A row that somebody damaged is fetched anew.
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE document SET body = x'00', digest = x'00' WHERE url = ?", (known[0].x5u,))
        connection.commit()
    assert verdict(target, known[0]) == (None, PASSED)
    assert target.repository.count("/known-0.pem") == 2

    # So is a whole file, with what waits beside it to be taken over.
    for part in (path, path.with_name(f"{path.name}-wal")):
        with part.open("r+b") as file:
            file.write(os.urandom(part.stat().st_size))
    calls(good(target, "/after-damage.pem", network.authority), 80)
    assert "cache_renewed" in until(lambda: alarms(target))
    assert path.with_name(f"{path.name}.damaged").exists()
    assert {event["verstat"] for event in play(target, *known).values()} == {PASSED}


def test_a_file_that_nobody_can_open_is_lent(network: Network) -> None:
    path = network.folder / "target" / "certificates.sqlite"
    path.parent.mkdir()
    with held_by_another(path, "PRAGMA journal_mode=WAL", "PRAGMA locking_mode=EXCLUSIVE", "CREATE TABLE x (y)"):
        target = make(network)
        ours = good(target, "/a.pem", network.authority)
        assert verdict(target, ours) == (None, PASSED)
        Load(target, [ours], 40, 20).end()
        assert {event["verstat"] for event in verified(target)[ours.x5u]} == {PASSED}
        assert "cache_unwritable" in alarms(target)
    until(lambda: "cache_unwritable" not in alarms(target))
    assert verdict(target, ours) == (None, PASSED)
    assert target.repository.count("/a.pem") == 1
    assert not [name for name in target.kamailio.counters() if name.startswith("fault")]


@contextmanager
def full_disk(target: Verifier, disk: Path | None) -> Iterator[None]:
    """Nothing can be written: the file system is full, or the agent may not make files any longer."""
    if disk is not None:
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        yield
        filler.unlink()
        return
    none = (1, resource.RLIM_INFINITY)
    resource.prlimit(target.agent.pid, resource.RLIMIT_FSIZE, none)
    yield
    resource.prlimit(target.agent.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """A small file system of its own, where we may have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "shaken-test", str(folder)], capture_output=True, check=False
    )
    yield folder if mounted.returncode == 0 else None
    if mounted.returncode == 0:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_no_call_and_is_told(network: Network, disk: Path | None) -> None:
    settings = {"cache": str(disk / "certificates.sqlite")} if disk else {}
    target = make(network, verification=settings, workers=4)
    known = [good(target, f"/known-{number}.pem", network.authority) for number in range(4)]
    assert {event["verstat"] for event in play(target, *known).values()} == {PASSED}
    with full_disk(target, disk):
        load = Load(target, known, 160, 40)
        new = [good(target, f"/new-{number}.pem", network.authority) for number in range(24)]
        assert {event["verstat"] for event in play(target, *new, rate=8).values()} == {PASSED}
        load.end()
        assert "cache_unwritable" in until(lambda: alarms(target))
        assert metric(target, "shaken_agent_unrecorded_total") >= 1
        assert metric(target, "shaken_agent_unrecorded_now") >= 1
    until(lambda: "cache_unwritable" not in alarms(target))
    assert metric(target, "shaken_agent_unrecorded_now") == 0
    counters = target.kamailio.counters()
    assert counters["verified_passed"] == 4 + 160 + 24
    assert not [name for name in counters if name.startswith("fault")], counters


# --- Agent and clock ----------------------------------------------------------------------------


def test_an_agent_that_is_killed_among_unknown_signers_costs_no_call(network: Network) -> None:
    target = make(network, verification={"wait": 1.0}, workers=4)
    known = good(target, "/known.pem", network.authority)
    assert verdict(target, known) == (None, PASSED)
    fresh = unknown_signers(target, 120, Behaviour(delay=0.1))
    since = len(target.kamailio.log_text())
    load, beside = Load(target, fresh, len(fresh), 20), Load(target, [known], 200, 33)
    for _ in range(2):
        time.sleep(1.5)
        restart(target)
    load.end()
    beside.end()
    found = verified(target, since)
    assert {event["verstat"] for event in found[known.x5u]} == {PASSED}
    outcomes = Counter(event.get("code") for one in fresh for event in found.get(one.x5u, ()))
    assert set(outcomes) <= {None, "certificate_not_yet"}, outcomes
    assert outcomes[None] >= 20, outcomes
    counters = target.kamailio.counters()
    assert counters["verified_passed"] + counters.get("verified_none", 0) == 1 + 200 + len(fresh), counters
    assert "verified_failed" not in counters
    # What was lost with an agent is asked of the next one.
    time.sleep(1.1)
    lost = [one for one in fresh if found.get(one.x5u, [{}])[0].get("code")][:10] or fresh[:10]
    assert {event["verstat"] for event in play(target, *lost, rate=10).values()} == {PASSED}
    assert not [name for name in target.kamailio.counters() if name.startswith("fault")]


def unknown_signers(target: Verifier, count: int, behaviour: Behaviour, host: str = "127.0.0.1") -> list[SigningPair]:
    """As many x5u, each for the first time; all have one certificate, to make them quickly."""
    issued = target.network.authority.issue(spc="709J", now=time.time())
    first = load_pair(key=issued.key, chain=issued.chain, x5u=target.repository.url("/x.pem"), live_from=0, spc=None,
                      lab_hosts=target.repository.hosts)  # fmt: skip
    start = len(target.repository._behaviours)
    urls = []
    for number in range(start, start + count):
        target.repository.set(f"/{number}.pem", replace(behaviour, body=issued.chain))
        urls.append(target.repository.url(f"/{number}.pem").replace("127.0.0.1", host))
    return [replace(first, x5u=url) for url in urls]


def test_a_clock_that_is_off_is_named(network: Network) -> None:
    repository = network.stack.enter_context(Repository(network.folder / "repository"))
    hosts = sorted(repository.hosts | {host.replace("127.0.0.1", "localhost") for host in repository.hosts})
    target = make(network, repository=repository, verification={"lab_hosts": hosts})
    ahead = Behaviour(headers=[("Date", formatdate(time.time() + 90, usegmt=True))])
    wrong = [one for host in ("127.0.0.1", "localhost") for one in unknown_signers(target, 1, ahead, host)]
    assert {event["verstat"] for event in play(target, *wrong).values()} == {PASSED}
    assert "behind" in until(lambda: alarms(target).get("clock_off"))
    assert re.search(r"alarm clock_off: our clock is (89|90|91) s behind that of 2 servers", target.agent.log_text())
    right = [one for host in ("127.0.0.1", "localhost") for one in unknown_signers(target, 1, Behaviour(), host)]
    assert {event["verstat"] for event in play(target, *right).values()} == {PASSED}
    until(lambda: "clock_off" not in alarms(target))


# --- A flood ------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_flood_of_made_up_signers_is_bounded_and_known_ones_go_on(network: Network) -> None:
    bounds = {"max_fetches": 16, "max_per_host": 8, "max_documents": 500}
    target = make(network, settings={"agent": bounds}, verification={"wait": 0.5, "max_waiting": 4}, workers=4)
    known = good(target, "/known.pem", network.authority)
    assert verdict(target, known) == (None, PASSED)
    before = resident(target.agent.pid)
    most = 0.0

    # Straight at the socket, as from many workers: URLs that never answer, that fail, that give junk.
    behaviours = (Behaviour(silent=True), Behaviour(404), Behaviour(body=b"\0" * 30_000), Behaviour(delay=0.2))
    made = [unknown_signers(target, 100, behaviour) for behaviour in behaviours]
    urls = [one.x5u for group in zip(*made, strict=True) for one in group]
    urls += [target.repository.url(f"/nowhere/{number}.pem") for number in range(4000)]
    results: Counter[str] = Counter()

    def ask_for(some: Sequence[str]) -> None:
        client = AgentClient(target.provider.folder / "agent.sock")
        for first in range(0, len(some), 8):
            results.update(client.ask(some[first : first + 8], 0.15).values())

    threads = [threading.Thread(target=ask_for, args=(urls[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    beside = Load(target, [known], 200, 40)
    flood = Load(target, unknown_signers(target, 600, Behaviour(silent=True)), 600, 150)
    while any(thread.is_alive() for thread in (*threads, beside, flood)):
        most = max(most, metric(target, "shaken_agent_downloads_outstanding"))
        time.sleep(0.1)
    beside.end()
    flood.end()
    assert 1 <= most <= 8, most
    assert results["overloaded"] > 1000, results
    assert metric(target, "shaken_agent_documents") <= 500
    assert resident(target.agent.pid) - before < 24 * 2**20
    assert "overloaded" in alarms(target)
    found = verified(target)
    assert {event["verstat"] for event in found[known.x5u]} == {PASSED}
    counters = target.kamailio.counters()
    assert (counters["verified_passed"], counters["verified_none"]) == (201, 600)
    assert not [name for name in counters if name.startswith(("fault", "waited"))], counters


# --- TLS in the switch --------------------------------------------------------------------------


def tls_module() -> Path:
    """The folder of Kamailio's modules with tls.so in it; skips, or fails where nothing may be missing."""
    found = next(iter(Path("/usr/lib").glob("*/kamailio/modules/tls.so")), None)
    if found is None:
        text = "Kamailio's tls.so is not installed; install it with: apt-get install kamailio-tls-modules"
        if os.environ.get(REQUIRE_ALL):
            pytest.fail(text)
        pytest.skip(text)
    return found


def configuration_with_tls(network: Network, port: int) -> Path:
    """The shipped configuration with a TLS socket on loopback beside the others."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    key, chain = network.folder / "tls.key", network.folder / "tls.pem"
    certificate.private_key_pem.write_to_path(key)
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(network.folder / "tls-ca.pem")
    text = share("kamailio", "kamailio-native.cfg").read_text("utf-8")
    text = text.replace(
        "listen=OUTSIDE_LISTEN\n", f"listen=OUTSIDE_LISTEN\nenable_tls=yes\nlisten=tls:127.0.0.1:{port}\n"
    )
    text = text.replace(
        'loadmodule "kex.so"\n',
        f'loadmodule "tls.so"\nmodparam("tls", "private_key", "{key}")\nmodparam("tls", "certificate", "{chain}")\n'
        'modparam("tls", "tls_method", "TLSv1.2+")\nloadmodule "kex.so"\n',
    )
    assert text.count("tls.so") == text.count("enable_tls") == 1
    file = network.folder / "kamailio-tls.cfg"
    file.write_text(text)
    return file


class TlsPhone:
    """Calls over one TLS connection, to its end and with everything that SIP wants."""

    def __init__(self, ca: Path, port: int) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._socket = context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), timeout=40), server_hostname="127.0.0.1"
        )
        self._host, self._port = self._socket.getsockname()
        self._buffer = b""
        self._number = 0

    def call(self, identity: str) -> int:
        """Call and hang up; the status of the call."""
        self._number += 1
        tag = f"tls-{self._port}-{self._number}"
        to, uri = "To: <sip:+12025550143@127.0.0.1;user=phone>", "sip:+12025550143@127.0.0.1;user=phone"
        self._send("INVITE", uri, tag, to, 1, f"Identity: {identity}")
        head = self._final("INVITE")
        to = next(line for line in head if line.startswith("To:"))
        routes = [f"Route:{line.partition(':')[2]}" for line in reversed(head) if line.startswith("Record-Route:")]
        contact = next((re.findall(r"<(.*)>", line)[0] for line in head if line.startswith("Contact:")), uri)
        status = int(head[0].split()[1])
        self._send("ACK", contact, tag, to, 1, *routes)
        if status == 200:
            self._send("BYE", contact, tag, to, 2, *routes)
            assert self._final("BYE")[0].split()[1] == "200"
        return status

    def _send(self, method: str, uri: str, tag: str, to: str, number: int, *more: str) -> None:
        lines = [
            f"{method} {uri} SIP/2.0", f"Via: SIP/2.0/TLS {self._host}:{self._port};branch=z9hG4bK{tag}{method}",
            "Max-Forwards: 70", f"From: <sip:+12155551212@127.0.0.1;user=phone>;tag={tag}", to, f"Call-ID: {tag}",
            f"CSeq: {number} {method}", f"Contact: <sip:{self._host}:{self._port};transport=tls>", *more,
            "Content-Length: 0", "", "",
        ]  # fmt: skip
        self._socket.sendall("\r\n".join(lines).encode())

    def _final(self, method: str) -> list[str]:
        """The lines of the final answer to a request; what comes again is passed over."""
        while True:
            while b"\r\n\r\n" not in self._buffer:
                data = self._socket.recv(65_536)
                assert data, "the connection was closed"
                self._buffer += data
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = int(re.findall(rb"Content-Length: *(\d+)", head)[0])
            while len(rest) < length:
                rest += self._socket.recv(65_536)
            self._buffer = rest[length:]
            lines = head.decode().split("\r\n")
            about = next(line for line in lines if line.startswith("CSeq:"))
            if int(lines[0].split()[1]) >= 200 and about.endswith(method):
                return lines

    def close(self) -> None:
        self._socket.close()


def test_with_tls_in_the_switch_nothing_crashes_and_nothing_is_lost(network: Network) -> None:
    """Nobody in these processes speaks HTTPS: OpenSSL is in the hands of tls.so alone."""
    tls_module()
    port = free_port()
    target = make(network, config=configuration_with_tls(network, port), workers=4, verification={"wait": 3.0})
    known = good(target, "/known.pem", network.authority)
    assert verdict(target, known) == (None, PASSED)
    processes = pids(target)
    since = len(target.kamailio.log_text())
    fresh = unknown_signers(target, 60, Behaviour(delay=0.15))
    over_tls = unknown_signers(target, 12, Behaviour(delay=0.15))
    # Below what the eight places hold: this is about crashes, not about places.
    loads = Load(target, [known], 150, 30), Load(target, fresh, 60, 8)
    statuses: list[int] = []

    def phone(own: Sequence[SigningPair]) -> None:
        for one in own:
            caller = TlsPhone(network.folder / "tls-ca.pem", port)
            statuses.extend(caller.call(header(signer).format()) for signer in (known, one, known, one))
            caller.close()

    phones = [threading.Thread(target=phone, args=(over_tls[number::3],)) for number in range(3)]
    for thread in phones:
        thread.start()
    for thread in (*phones, *loads):
        thread.join()
    for load in loads:
        load.end()
    assert statuses == [200] * 48
    found = verified(target, since)
    assert {event["verstat"] for events in found.values() for event in events} == {PASSED}
    counters = target.kamailio.counters()
    assert counters["verified_passed"] == 1 + 150 + 24 + 60 + 24, counters
    assert not [name for name in counters if name.startswith(("verified_f", "verified_n"))], counters
    assert pids(target) == processes
    assert not re.search(r"signal \d|core was|exited by|CRITICAL", target.kamailio.log_text())
    assert not list(target.kamailio.folder.glob("core*"))
    assert not [name for name in target.kamailio.counters() if name.startswith("fault")]


def pids(target: Verifier) -> set[int]:
    """Kamailio's processes, its main one included."""
    main = target.kamailio.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return {main, *map(int, children)}
