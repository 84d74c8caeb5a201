"""A switch whose calls are threads, without an agent: it downloads itself, within the limits of waiting calls."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin import runtime
from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.core.call import CallMessage
from shaken_plugin.fetch.inline import InlineFetcher
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.repository import Behaviour, Repository
from shaken_plugin.runtime import downloads
from shaken_plugin.runtime.inline import download_inline
from shaken_plugin.switch import Switch
from shaken_plugin.switch.process import Process, load
from shaken_plugin.telemetry import MemoryObserver
from tests.services.builders import SPC, call, identity_of

HERE = "downloaded by this process, a call waits at most"


class Signer:
    """Somebody nobody knows yet, whose certificate the repository has."""

    def __init__(self, authority: Authority, repository: Repository, path: str, **behaviour: Any) -> None:
        issued = authority.issue(spc=SPC, now=time.time())
        repository.set(path, Behaviour(body=issued.chain, **behaviour))
        self.pair: SigningPair = load_pair(
            key=issued.key,
            chain=issued.chain,
            x5u=repository.url(path),
            live_from=0,
            spc=SPC,
            lab_hosts=repository.hosts,
        )

    def call(self, **changes: Any) -> CallMessage:
        return call(identity=(identity_of(self.pair, iat=time.time()),), date=None, **changes)


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The process reads the machine's own clock."""
    return Authority.new(time.time())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with Repository(tmp_path_factory.mktemp("repository")) as repository:
        yield repository


class Started(MemoryObserver):
    """A process that has started, and what it said."""

    switch: Switch

    def told(self, text: str) -> bool:
        return any(text in line for _, line in self.lines)

    def verify(self, message: CallMessage, *, in_place: bool = True) -> tuple[str, float]:
        """The code of the verdict, and the seconds it took."""
        begin = time.monotonic()
        outcome = self.switch.verify(lambda: message, in_place=in_place)
        assert not outcome.wait
        return outcome.variables.get("code") or outcome.variables["result"], time.monotonic() - begin


Start = Callable[..., Started]


@pytest.fixture
def start(
    tmp_path: Path, authority: Authority, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    made: list[runtime.Services] = []

    def begin(inline: runtime.Inline | None = download_inline, **sections: Any) -> Started:
        lab = {"lab_hosts": sorted(repository.hosts)}
        provider = Provider.make(
            tmp_path / "provider",
            authority,
            time.time(),
            agent={"enabled": False, "ca_bundle": str(repository.ca_file), **sections.get("agent", {})},
            verification=lab | sections.get("verification", {}),
        )
        for name in ("switch", "observer", "inline"):
            monkeypatch.setattr(Process, name, None)
        started = Started()
        started.switch = load(lambda: started, provider.settings, inline)
        made.append(started.switch.services)
        return started

    yield begin
    for services in made:
        if isinstance(services.fetcher, InlineFetcher):
            services.fetcher.close()
    downloads._fetcher.cache_clear()


def test_a_call_of_an_unknown_signer_waits_and_passes(
    start: Start, authority: Authority, repository: Repository
) -> None:
    started = start()
    assert started.told(f"no agent: a certificate that is not at hand is {HERE} 2.0 s")
    stranger = Signer(authority, repository, "/a.pem", delay=0.3)
    code, took = started.verify(stranger.call())
    assert code == "passed"
    assert 0.3 <= took < 2.0
    assert started.verify(stranger.call(), in_place=False)[0] == "passed"  # it is at hand now
    assert repository.count("/a.pem") == 1


def test_what_was_downloaded_outlives_a_reload(start: Start, authority: Authority, repository: Repository) -> None:
    started = start()
    stranger = Signer(authority, repository, "/reloaded.pem")
    assert started.verify(stranger.call())[0] == "passed"
    before = started.switch.services
    assert load(lambda: started).services is not before
    assert started.told("settings reloaded")
    assert started.switch.services.fetcher is before.fetcher
    assert started.verify(stranger.call(), in_place=False)[0] == "passed"
    assert repository.count("/reloaded.pem") == 1


@pytest.mark.alone
def test_no_call_waits_longer_than_the_settings_say(start: Start, authority: Authority, repository: Repository) -> None:
    started = start(verification={"wait": 0.3})
    assert started.told(f"{HERE} 0.3 s")
    stranger = Signer(authority, repository, "/slow.pem", delay=1.0)
    code, took = started.verify(stranger.call())
    assert code == "certificate_not_yet"
    assert 0.3 <= took < 0.9


def test_no_more_calls_wait_than_there_are_places(start: Start, authority: Authority, repository: Repository) -> None:
    started = start(verification={"max_waiting": 2, "wait": 1.5})
    stranger = Signer(authority, repository, "/crowd.pem", delay=0.7)
    messages = [stranger.call(call_id=f"crowd-{number}") for number in range(6)]
    gate = threading.Barrier(6)

    def one(message: CallMessage) -> tuple[str, float]:
        gate.wait(10)
        return started.verify(message)

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(one, messages))
    assert sorted(code for code, _ in found) == ["certificate_not_yet"] * 4 + ["passed"] * 2
    assert max(took for code, took in found if code != "passed") < 0.6
    assert started.counts["waiting_full"] == 4
    assert repository.count("/crowd.pem") == 1
    assert started.verify(stranger.call())[0] == "passed"  # the places are free again


def test_an_emergency_call_waits_for_nothing(start: Start, authority: Authority, repository: Repository) -> None:
    started = start()
    stranger = Signer(authority, repository, "/emergency.pem", delay=1.0)
    code, took = started.verify(stranger.call(priority="psap-callback"))
    assert (code, took < 0.8) == ("certificate_not_yet", True)


def test_in_observe_mode_nobody_waits_and_the_next_call_profits(
    start: Start, authority: Authority, repository: Repository
) -> None:
    started = start(verification={"mode": "observe"})
    stranger = Signer(authority, repository, "/observed.pem", delay=0.5)
    code, took = started.verify(stranger.call())
    assert (code, took < 0.4) == ("certificate_not_yet", True)
    end = time.monotonic() + 10
    while started.verify(stranger.call())[0] != "passed":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert repository.count("/observed.pem") == 1


def test_it_downloads_by_the_rules_of_the_agent(start: Start, authority: Authority, repository: Repository) -> None:
    started = start(agent={"ca_bundle": None})
    stranger = Signer(authority, repository, "/untrusted.pem")
    assert started.verify(stranger.call())[0] == "certificate_unavailable"
    assert started.told("tls_failed")


@pytest.mark.parametrize(
    ("inline", "sections"),
    [(None, {}), (download_inline, {"verification": {"wait": 0}})],
    ids=["a process that takes one call at a time", "no call may wait"],
)
def test_where_it_is_not_allowed_nothing_is_downloaded(
    start: Start,
    authority: Authority,
    repository: Repository,
    inline: runtime.Inline | None,
    sections: dict[str, Any],
) -> None:
    started = start(inline, **sections)
    assert started.told('a certificate that is not at hand is "not yet", nothing is downloaded')
    path = f"/never-{inline is None}.pem"
    assert started.verify(Signer(authority, repository, path).call())[0] == "certificate_not_yet"
    time.sleep(0.2)
    assert repository.count(path) == 0


def test_with_an_agent_it_is_the_agent_that_downloads(start: Start) -> None:
    started = start(agent={"enabled": True})
    assert not isinstance(started.switch.services.fetcher, InlineFetcher)
    assert started.told("no agent answers on")


LIBRARIES = {"aiodns", "anyio", "asyncio", "h11", "hishel", "httpcore", "pycares", "ssl"}


@pytest.mark.parametrize(
    ("threads", "expected"), [(False, set()), (True, LIBRARIES)], ids=["Kamailio", "a switch whose calls are threads"]
)
def test_only_a_process_that_downloads_loads_an_http_client(
    tmp_path: Path, authority: Authority, threads: bool, expected: set[str]
) -> None:
    provider = Provider.make(tmp_path / "provider", authority, time.time(), agent={"enabled": False})
    start = """
from shaken_plugin.runtime.inline import download_inline
from shaken_plugin.switch.process import load
from shaken_plugin.telemetry import MemoryObserver
assert not {"httpcore", "aiodns"} & set(sys.modules)
switch = load(MemoryObserver, path, download_inline)
"""
    if not threads:
        start = """
from shaken_plugin.adapters.fake_kamailio import FakeKsr
from shaken_plugin.adapters.kamailio import Kamailio
switch = Kamailio(FakeKsr(b"INVITE sip:a@b.example SIP/2.0\\r\\n\\r\\n"), path).switch
"""
    program = f"""
import sys
from pathlib import Path
path = Path({str(provider.settings)!r})
{start}
assert switch.services.verification is not None
assert (switch.services.fetcher is not None) is {threads}
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & LIBRARIES == expected
