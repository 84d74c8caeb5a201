"""Fetching inside the call: real sockets, real threads, a repository that misbehaves."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shaken_plugin.certs.chained import ChainedSources
from shaken_plugin.certs.directory import CertificateDirectory
from shaken_plugin.certs.fetched import MAX_FAILURES, MAX_KEPT, FetchedCertificates
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.fetch import FetchRules
from shaken_plugin.fetch.inline import FAILED_AT_MOST, FAILED_FOR, InlineFetcher
from shaken_plugin.lab.repository import Behaviour, Face, Repository
from tests.fetch.conftest import QUICK

WAIT = 10.0


class Inline:
    """A fetcher, what it keeps, and a clock that can be turned on."""

    def __init__(self, rules: FetchRules) -> None:
        self.kept = FetchedCertificates()
        self.ahead = 0.0
        self.fetcher = InlineFetcher(self.kept, rules, clock=lambda: time.time() + self.ahead)

    def fetch(self, *urls: str, timeout: float = WAIT) -> float:
        """Fetch; the seconds it took."""
        begin = time.monotonic()
        self.fetcher.fetch(urls, timeout)
        return time.monotonic() - begin

    def known(self, url: str) -> bool:
        return self.kept.version(url, time.time() + self.ahead) is not None

    def failure(self, url: str) -> str:
        with pytest.raises(VerificationFailure) as caught:
            self.kept.read(url)
        assert caught.value.code is FailureCode.CERTIFICATE_UNAVAILABLE
        return caught.value.detail


Make = Callable[[FetchRules], Inline]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:

        def inline(rules: FetchRules) -> Inline:
            made = Inline(rules)
            stack.callback(made.fetcher.close)
            return made

        yield inline


@pytest.fixture
def inline(make: Make, rules: FetchRules) -> Inline:
    return make(rules)


@contextmanager
def many(count: int) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(count) as pool:
        yield pool


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_is_fetched_lies_where_the_process_looks(
    inline: Inline, repository: Repository, chain: bytes, tmp_path: Path
) -> None:
    repository.set("/inline/a.pem", Behaviour(body=chain))
    url = repository.url("/inline/a.pem")
    source = ChainedSources(CertificateDirectory(tmp_path), inline.kept)
    assert source.version(url, time.time()) is None
    inline.fetch(url)
    assert source.version(url, time.time()) is not None
    assert source.read(url) == chain
    inline.fetch(url)
    assert repository.count("/inline/a.pem") == 1


def test_a_document_is_fetched_anew_when_it_has_grown_old(inline: Inline, repository: Repository, chain: bytes) -> None:
    repository.set("/inline/old.pem", Behaviour(body=chain), Behaviour(404))
    url = repository.url("/inline/old.pem")
    inline.fetch(url)
    inline.ahead = 2 * 86_400.0
    assert not inline.known(url)
    inline.fetch(url)
    assert repository.count("/inline/old.pem") == 2
    assert "404" in inline.failure(url)


def test_threads_share_one_download(inline: Inline, repository: Repository, chain: bytes) -> None:
    repository.set("/inline/shared.pem", Behaviour(body=chain, delay=0.5))
    url = repository.url("/inline/shared.pem")
    with many(20) as pool:
        list(pool.map(lambda _: inline.fetch(url), range(20)))
    assert repository.count("/inline/shared.pem") == 1
    assert inline.kept.read(url) == chain


def test_several_documents_come_at_the_same_time(inline: Inline, repository: Repository, chain: bytes) -> None:
    paths = [f"/inline/several-{number}.pem" for number in range(4)]
    for path in paths:
        repository.set(path, Behaviour(body=chain, delay=0.5))
    assert inline.fetch(*map(repository.url, paths)) < 4 * 0.5
    assert all(inline.known(repository.url(path)) for path in paths)


def test_a_call_waits_no_longer_than_it_may_and_the_next_one_profits(
    inline: Inline, repository: Repository, chain: bytes
) -> None:
    repository.set("/inline/slow.pem", Behaviour(body=chain, delay=1.0))
    url = repository.url("/inline/slow.pem")
    assert inline.fetch(url, timeout=0.2) < 0.8
    assert not inline.known(url)
    inline.fetch(url)
    assert inline.kept.read(url) == chain
    assert repository.count("/inline/slow.pem") == 1


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_a_call_that_may_not_wait_has_it_fetched_for_the_next(
    inline: Inline, repository: Repository, chain: bytes, timeout: float
) -> None:
    path = f"/inline/later{timeout}.pem"
    repository.set(path, Behaviour(body=chain, delay=0.5))
    url = repository.url(path)
    assert inline.fetch(url, timeout=timeout) < 0.4
    assert not inline.known(url)
    until(lambda: inline.known(url))
    assert inline.kept.read(url) == chain


def test_it_works_in_a_process_with_the_stack_and_the_depth_that_freeswitch_allows(
    repository: Repository, chain: bytes
) -> None:
    repository.set("/inline/narrow.pem", Behaviour(body=chain))
    url = repository.url("/inline/narrow.pem")
    program = f"""
import resource, sys, threading
from pathlib import Path
threading.stack_size(240 * 1024)
sys.setrecursionlimit(240)
from shaken_plugin.certs.fetched import FetchedCertificates
from shaken_plugin.fetch import FetchRules
from shaken_plugin.fetch.inline import InlineFetcher
kept = FetchedCertificates()
rules = FetchRules(lab_hosts=frozenset({sorted(repository.hosts)!r}), ca_bundle=Path({str(repository.ca_file)!r}))
call = threading.Thread(target=lambda: InlineFetcher(kept, rules).fetch([{url!r}], 10.0))
call.start()
call.join()
assert threading.stack_size() == 240 * 1024
sys.stdout.buffer.write(kept.read({url!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, chain), done.stderr.decode()


# --- Failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "face", "told"),
    [
        (Behaviour(404), Face.GOOD, "status"),
        (Behaviour(302, headers=[("Location", "https://10.0.0.1/")]), Face.GOOD, "redirect"),
        (Behaviour(body=b"x" * 70_000), Face.GOOD, "too_large"),
        (Behaviour(body="<html></html>"), Face.GOOD, "wrong_content"),
        (Behaviour(body=b"x" * 100, reset_after=10), Face.GOOD, "body_broken"),
        (Behaviour(), Face.UNTRUSTED, "tls_failed"),
        (Behaviour(silent=True), Face.GOOD, "timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_is_named_and_believed_for_a_while(
    make: Make, quick: FetchRules, repository: Repository, behaviour: Behaviour, face: Face, told: str
) -> None:
    inline = make(quick)
    path = f"/inline/failing-{told}.pem"
    repository.set(path, behaviour)
    url = repository.url(path, face)
    inline.fetch(url)
    assert inline.failure(url).startswith(f"its download failed: {told}: ")
    asked = repository.count(path)
    inline.fetch(url)
    assert (inline.known(url), repository.count(path)) == (True, asked)
    inline.ahead = FAILED_FOR + 1
    assert not inline.known(url)


def test_what_failed_is_asked_again_after_the_while(inline: Inline, repository: Repository, chain: bytes) -> None:
    repository.set("/inline/mended.pem", Behaviour(503), Behaviour(body=chain))
    url = repository.url("/inline/mended.pem")
    inline.fetch(url)
    inline.ahead = FAILED_FOR + 1
    inline.fetch(url)
    assert inline.kept.read(url) == chain


@pytest.mark.parametrize(("named", "believed"), [("1", FAILED_FOR), ("600", 600), ("86400", FAILED_AT_MOST)])
def test_a_server_may_name_a_longer_while_within_limits(
    inline: Inline, repository: Repository, named: str, believed: float
) -> None:
    path = f"/inline/after-{named}.pem"
    repository.set(path, Behaviour(503, headers=[("Retry-After", named)]))
    inline.fetch(repository.url(path))
    inline.ahead = believed - 5
    assert inline.known(repository.url(path))
    inline.ahead = believed + 1
    assert not inline.known(repository.url(path))


@pytest.mark.parametrize("url", ["https://127.0.0.1/a.pem", "http://cr.example.com/a.pem", "", "\x00", "https://u@x/a"])
def test_the_rules_of_every_download_hold(inline: Inline, url: str) -> None:
    inline.fetch(url)
    assert "not_allowed" in inline.failure(url)


def test_a_ca_bundle_that_cannot_be_read_fails_downloads_and_no_call(
    make: Make, rules: FetchRules, repository: Repository, tmp_path: Path
) -> None:
    inline = make(replace(rules, ca_bundle=tmp_path / "none.pem"))
    inline.fetch(repository.url("/inline/bundle.pem"))
    assert "the CA bundle" in inline.failure(repository.url("/inline/bundle.pem"))


def test_without_a_thread_the_call_goes_on(inline: Inline, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert inline.fetch("https://127.0.0.1/a.pem") < WAIT / 2
    assert not inline.known("https://127.0.0.1/a.pem")
    inline.fetch("https://127.0.0.1/a.pem")
    assert inline.known("https://127.0.0.1/a.pem")


# --- Bounds -----------------------------------------------------------------------------------


@pytest.mark.alone
def test_downloads_are_bounded_and_further_ones_turned_away_at_once(
    make: Make, rules: FetchRules, repository: Repository
) -> None:
    inline = make(replace(rules, outstanding=3, certificate=replace(QUICK, deadline=1.0)))
    urls = [repository.url(f"/inline/flood-{number}.pem") for number in range(50)]
    for number in range(50):
        repository.set(f"/inline/flood-{number}.pem", Behaviour(silent=True))
    inline.fetch(*urls[:3], timeout=0.1)
    with many(20) as pool:
        assert max(pool.map(lambda url: inline.fetch(url, timeout=WAIT), urls[3:])) < 0.9
    assert not any(inline.known(url) for url in urls[3:]), "that one was turned away says nothing of it"
    assert sum(repository.count(f"/inline/flood-{number}.pem") for number in range(50)) <= 3
    until(lambda: all(inline.known(url) for url in urls[:3]))
    repository.set("/inline/after.pem", Behaviour(404))
    inline.fetch(repository.url("/inline/after.pem"))
    assert inline.known(repository.url("/inline/after.pem"))


def test_too_many_for_one_host_says_nothing_of_the_url(make: Make, rules: FetchRules, repository: Repository) -> None:
    inline = make(replace(rules, outstanding_per_host=1))
    repository.set("/inline/first.pem", Behaviour(404, delay=0.5))
    first, second = repository.url("/inline/first.pem"), repository.url("/inline/second.pem")
    inline.fetch(first, second)
    assert (inline.known(first), inline.known(second)) == (True, False)


def test_strangers_do_not_displace_known_signers() -> None:
    kept = FetchedCertificates()
    kept.keep("known", b"document", 10.0)
    for number in range(MAX_FAILURES + 1):
        kept.fail(f"stranger-{number}", "404", 10.0)
    assert kept.read("known") == b"document"
    assert kept.version("stranger-0", 0.0) is None
    assert kept.version(f"stranger-{MAX_FAILURES}", 0.0) == ("failed", "404")
    for number in range(MAX_KEPT):
        kept.keep(f"other-{number}", b"", 10.0)
    with pytest.raises(VerificationFailure, match="it was not fetched"):
        kept.read("known")


# --- The end ----------------------------------------------------------------------------------


def test_closing_lets_waiting_calls_go_on_and_leaves_no_thread(
    make: Make, rules: FetchRules, repository: Repository
) -> None:
    inline = make(rules)
    repository.set("/inline/hanging.pem", Behaviour(silent=True))
    url = repository.url("/inline/hanging.pem")
    with many(3) as pool:
        waiting = [pool.submit(inline.fetch, url) for _ in range(3)]
        until(lambda: repository.count("/inline/hanging.pem") == 1)
        assert inline.fetcher.alive()
        inline.fetcher.close()
        assert all(one.result(WAIT) < WAIT / 2 for one in waiting)
    assert not inline.fetcher.alive()
    assert not inline.known(url)
    inline.fetch(url)
    assert repository.count("/inline/hanging.pem") == 1
    assert "shaken-fetch" not in {thread.name for thread in threading.enumerate()}


def test_one_that_never_fetched_is_closed_too(inline: Inline) -> None:
    inline.fetcher.close()
    inline.fetcher.close()
    assert not inline.fetcher.alive()
