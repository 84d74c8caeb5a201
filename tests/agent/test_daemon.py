"""The real daemon as a process of its own: what it does, and every fault that must lose nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import sqlite3
import stat
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from shaken_plugin.agent.server import Listener, SocketTaken
from shaken_plugin.certs.agent_client import AgentClient
from shaken_plugin.certs.cache import CertificateCache, ListedAnchors, RevocationCache
from shaken_plugin.cli import main
from shaken_plugin.core.certificates import parse_chain
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import CRL_URL, Authority
from tests.agent.host import BASE, Host, until


def test_a_miss_is_fetched_and_every_worker_finds_it(host: Host, chain: bytes) -> None:
    host.start()
    url = f"{BASE}/a.pem"
    assert host.client.ask([url], 5.0) == {url: "stored"}
    assert host.cache.read(url) == chain
    assert CertificateCache(host.cache_file).version(url, time.time()) is not None
    assert host.stop() == 0
    assert not (host.folder / "agent.sock").exists()
    assert "ended" in host.log()


def test_the_socket_and_the_file_are_for_the_group(host: Host) -> None:
    host.start()
    for path in (host.folder / "agent.sock", host.cache_file):
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == path.parent.stat().st_gid


def test_one_download_however_many_workers_ask(host: Host) -> None:
    host.start()
    url = f"{BASE}/slow-0.5/a.pem"
    results: list[str] = []

    def worker() -> None:
        results.append(AgentClient(host.folder / "agent.sock").ask([url], 5.0)[url])

    threads = [threading.Thread(target=worker) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["stored"] * 20
    assert host.downloads() == [url]


@pytest.mark.alone
def test_a_wait_ends_in_time_and_the_download_goes_on(host: Host) -> None:
    host.start()
    url = f"{BASE}/slow-1/a.pem"
    begin = time.monotonic()
    assert host.client.ask([url], 0.4) == {url: "waiting"}
    assert time.monotonic() - begin < 0.8
    until(lambda: host.knows(url))


def test_who_does_not_wait_finds_it_later(host: Host) -> None:
    host.start()
    urls = [f"{BASE}/{number}.pem" for number in range(6)] + [f"https://other.example.com/{n}.pem" for n in range(6)]
    host.client.fetch(urls, 0.0)
    until(lambda: all(host.knows(url) for url in urls))
    assert sorted(host.downloads()) == sorted(urls)


def test_a_failure_is_known_for_a_while(host: Host) -> None:
    host.start()
    for name in ("missing/a.pem", "junk/a.pem", "fault/a.pem"):
        url = f"{BASE}/{name}"
        assert host.client.ask([url], 5.0) == {url: "failed"}
        assert host.client.ask([url], 5.0) == {url: "failed"}
        assert host.downloads().count(url) == 1
        assert host.knows(url)
        with pytest.raises(VerificationFailure) as failure:
            host.cache.read(url)
        assert failure.value.code is FailureCode.CERTIFICATE_UNAVAILABLE
        assert "its download failed" in failure.value.detail


def test_what_breaks_the_rules_is_refused_and_not_kept(host: Host) -> None:
    host.start()
    urls = ["http://certificates.example.com/a.pem", "https://127.0.0.1/a.pem", "https://u@example.com/", "x"]
    assert host.client.ask(urls, 5.0) == dict.fromkeys(urls, "refused")
    assert host.downloads() == []
    until(lambda: json.loads(host.get("/health")[1]).get("documents") == 0)


def test_two_agents_are_one_too_many_and_a_stale_socket_is_replaced(host: Host) -> None:
    first = host.start()
    second = host.launch()
    assert second.wait(20) == 3
    assert "another agent is running here" in host.log()
    first.kill()
    first.wait(20)
    assert (host.folder / "agent.sock").exists()
    host.start()
    assert host.client.ask([f"{BASE}/a.pem"], 5.0) == {f"{BASE}/a.pem": "stored"}


def test_killed_and_restarted_under_load_nothing_is_lost(host: Host, chain: bytes) -> None:
    host.start()
    stop = threading.Event()
    answers: Counter[str] = Counter()
    slowest: list[float] = []
    stored: set[str] = set()
    faults: list[BaseException] = []

    def worker(number: int) -> None:
        client = AgentClient(host.folder / "agent.sock")
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                url = f"{BASE}/{number}/{turn}.pem"
                begin = time.monotonic()
                result = client.ask([url], 2.0).get(url, "nobody")
                slowest.append(time.monotonic() - begin)
                answers[result] += 1
                if result == "stored":
                    stored.add(url)
                time.sleep(0.005)
        except BaseException as exc:
            faults.append(exc)

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()

    def twenty_more() -> None:
        enough = answers["stored"] + 20
        until(lambda: answers["stored"] > enough)

    for _ in range(2):
        twenty_more()
        host.kill()
        time.sleep(0.2)
        host.start()
    twenty_more()
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert answers["nobody"] > 0
    assert set(answers) <= {"stored", "nobody", "overloaded"}
    assert max(slowest) < 2.5
    missing = [url for url in stored if host.cache.version(url, time.time()) is None or host.cache.read(url) != chain]
    assert missing == []
    with closing(sqlite3.connect(host.cache_file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_socket_whose_path_is_too_long_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with pytest.raises(SocketTaken, match=r"cannot listen: AF_UNIX path too long; see agent.socket"):
        Listener(folder / "agent.sock")


@pytest.mark.alone
def test_a_dead_agent_costs_nothing(host: Host) -> None:
    begin = time.monotonic()
    for _ in range(1000):
        host.client.fetch([f"{BASE}/a.pem"], 2.0)
    assert time.monotonic() - begin < 0.5
    assert not host.client.alive()


@pytest.mark.alone
def test_a_stopped_agent_costs_the_time_that_was_given(host: Host) -> None:
    process = host.start()
    process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert host.client.ask([f"{BASE}/a.pem"], 0.3) == {}
    assert time.monotonic() - begin < 0.6
    process.send_signal(signal.SIGCONT)
    assert host.client.ask([f"{BASE}/a.pem"], 5.0) == {f"{BASE}/a.pem": "stored"}


def test_a_flood_of_made_up_signers_stays_bounded(host: Host) -> None:
    host.change({"agent": {"max_fetches": 8, "max_per_host": 4, "max_documents": 100}})
    process = host.start()
    good = f"{BASE}/good.pem"
    assert host.client.ask([good], 5.0) == {good: "stored"}

    def memory() -> int:
        return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = memory()
    results: Counter[str] = Counter()
    begin = time.monotonic()
    for number in range(400):
        urls = [f"https://host{number}-{part}.example.com/hang/x.pem" for part in range(8)]
        results.update(host.client.ask(urls, 0.12).values() if number == 0 else host.client.ask(urls, 1.0).values())
    assert results == {"waiting": 6, "overloaded": 400 * 8 - 6}
    assert time.monotonic() - begin < 15
    assert len(host.downloads()) == 1 + 6
    assert memory() - before < 16 * 2**20
    until(lambda: "overloaded" in host.alarms())
    assert host.knows(good)


def test_one_slow_host_does_not_take_all_places(host: Host) -> None:
    host.change({"agent": {"max_fetches": 8, "max_per_host": 2}})
    host.start()
    urls = [f"https://slow.example.com/hang/{number}.pem" for number in range(6)]
    assert Counter(host.client.ask(urls, 0.3).values()) == {"waiting": 2, "overloaded": 4}
    assert host.client.ask([f"{BASE}/a.pem"], 5.0) == {f"{BASE}/a.pem": "stored"}


def test_a_file_that_somebody_locks_is_lent_and_written_later(host: Host, chain: bytes) -> None:
    host.start()
    known, url = f"{BASE}/known.pem", f"{BASE}/new.pem"
    host.client.ask([known], 5.0)
    assert host.knows(known)
    with closing(sqlite3.connect(host.cache_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert host.client.ask([url], 5.0) == {url: "stored"}
        assert host.knows(known)
        assert host.knows(url)
        assert host.cache.read(url) == chain
        assert CertificateCache(host.cache_file).version(url, time.time()) is None
        until(lambda: "cache_unwritable" in host.alarms())
        assert "shaken_agent_unrecorded_total 1.0" in host.get("/metrics")[1]
        other.execute("ROLLBACK")
    until(lambda: CertificateCache(host.cache_file).version(url, time.time()) is not None)
    until(lambda: "cache_unwritable" not in host.alarms())


def test_a_full_disk_stops_nothing_and_is_told(host: Host, chain: bytes) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, resource.RLIM_INFINITY))

    process = host.start(before=limit)
    urls = [f"{BASE}/{number}.pem" for number in range(60)]
    for url in urls:
        assert host.client.ask([url], 5.0) == {url: "stored"}
        assert host.knows(url)
        assert host.cache.read(url) == chain
    until(lambda: "cache_unwritable" in host.alarms())
    assert 'shaken_alarm{about="",name="cache_unwritable"} 1.0' in host.get("/metrics")[1]
    assert float(host.get("/metrics")[1].partition("\nshaken_agent_unrecorded_total ")[2].split()[0]) > 0
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    fresh = CertificateCache(host.cache_file)
    until(lambda: all(fresh.version(url, time.time()) for url in urls))
    until(lambda: "cache_unwritable" not in host.alarms())


def test_a_damaged_file_is_put_aside_and_filled_again(host: Host) -> None:
    host.start()
    url = f"{BASE}/a.pem"
    host.client.ask([url], 5.0)
    host.stop()
    host.cache_file.write_bytes(b"this is no database" * 1000)
    assert not CertificateCache(host.cache_file).version(url, time.time())
    host.start()
    assert host.client.ask([url], 5.0) == {url: "stored"}
    until(lambda: "cache_renewed" in host.alarms())
    assert host.cache_file.with_name("certificates.sqlite.damaged").exists()
    until(lambda: host.knows(url))


def test_a_worker_that_cannot_read_the_file_is_lent_what_is_in_it(host: Host, chain: bytes) -> None:
    host.start()
    url = f"{BASE}/a.pem"
    assert host.client.ask([url], 5.0) == {url: "stored"}
    blind = CertificateCache(host.folder / "another.sqlite")
    client = AgentClient(host.folder / "agent.sock", blind.lend, blind.blind)
    assert blind.version(url, time.time()) is None
    assert client.ask([url], 5.0) == {url: "stored"}
    assert blind.version(url, time.time()) is not None
    assert blind.read(url) == chain
    assert host.downloads() == [url]


def test_damage_that_workers_alone_see_is_mended(host: Host) -> None:
    host.start()
    url, other = f"{BASE}/a.pem", f"{BASE}/b.pem"
    host.client.ask([url], 5.0)
    for end in ("", "-wal"):
        file = host.cache_file.with_name(f"certificates.sqlite{end}")
        with file.open("r+b") as part:  # in place: the agent has what it wrote in memory
            part.write(os.urandom(file.stat().st_size))
    worker = CertificateCache(host.cache_file)
    client = AgentClient(host.folder / "agent.sock", worker.lend, worker.blind)
    assert worker.version(other, time.time()) is None
    assert client.ask([other], 5.0) == {other: "stored"}
    assert worker.version(other, time.time()) is not None
    until(lambda: "cache_renewed" in host.alarms())
    until(lambda: all(CertificateCache(host.cache_file).version(one, time.time()) for one in (url, other)))


def test_a_file_that_is_taken_away_is_made_anew_and_filled(host: Host) -> None:
    host.start()
    urls = [f"{BASE}/{number}.pem" for number in range(3)]
    host.client.ask(urls, 5.0)
    for end in ("", "-wal", "-shm"):
        host.cache_file.with_name(f"certificates.sqlite{end}").unlink(missing_ok=True)
    host.client.ask([f"{BASE}/other.pem"], 5.0)
    fresh = CertificateCache(host.cache_file)
    until(lambda: all(fresh.version(url, time.time()) for url in urls))
    until(lambda: "cache_renewed" in host.alarms())


def test_a_damaged_row_is_one_failure_and_fetched_anew(host: Host, chain: bytes) -> None:
    host.start()
    url, other = f"{BASE}/a.pem", f"{BASE}/b.pem"
    host.client.ask([url, other], 5.0)
    with closing(sqlite3.connect(host.cache_file)) as connection:
        connection.execute("UPDATE document SET body = ? WHERE url = ?", (chain[:-1] + b"?", url))
        connection.commit()
    with pytest.raises(VerificationFailure, match="damaged"):
        host.cache.read(url)
    assert not host.knows(url)
    assert host.cache.read(other) == chain
    assert host.client.ask([url], 5.0) == {url: "stored"}
    assert host.knows(url)
    assert host.cache.read(url) == chain


def test_a_clock_that_is_off_is_named(host: Host) -> None:
    (host.folder / "clock").write_text("90.5")  # a Date header has whole seconds
    host.start()
    for name in ("one", "two", "three"):
        host.client.ask([f"https://{name}.example.com/a.pem"], 5.0)
    until(lambda: "clock_off" in host.alarms())
    assert re.search("our clock is (89|90) s behind that of", host.log())  # a Date has whole seconds
    assert 'shaken_alarm{about="",name="clock_off"} 1.0' in host.get("/metrics")[1]
    (host.folder / "clock").write_text("0")
    for name in ("one", "two", "three"):
        host.client.ask([f"https://{name}.example.com/b.pem"], 5.0)
    until(lambda: "clock_off" not in host.alarms())
    assert "alarm clock_off: over" in host.log()


def test_lists_tell_the_time_too(host: Host, today: Authority) -> None:
    (host.folder / "clock").write_text("90.5")
    for name in ("list", "crl"):
        (host.folder / name).write_text("{}")
    (host.folder / "signer.pem").write_bytes(today.root_pem)
    crl = {"urls": ["https://two.example.com/crl/a"], "signers": ["file:signer.pem"]}
    host.settings["verification"] = {"trust_list": "us", "cache": str(host.cache_file)}
    trust_list = {"url": "https://one.example.com/list/a", "signers": ["file:signer.pem"], "crl": crl}
    host.change({"trust_lists": {"us": trust_list}})
    host.start()
    until(lambda: "clock_off" in host.alarms())


def _trust_list(host: Host, root: bytes, *, sequence: int, signed_by: str = "us", seconds: float = 3600) -> None:
    data = {"signed_by": signed_by, "sequence": sequence, "expires": time.time() + seconds, "pem": root.decode()}
    (host.folder / "list").write_text(json.dumps(data))


def test_trust_list_and_revocation_list_reach_the_workers_and_never_go_back(
    host: Host, today: Authority, chain: bytes
) -> None:
    other = Authority.new(time.time())
    now = time.time()
    (host.folder / "signer.pem").write_bytes(today.root_pem)
    _trust_list(host, today.root_pem, sequence=5)
    revoked = {"this": now - 10, "next": now + 3600, "revoked": [["3000", 7]]}
    (host.folder / "crl").write_text(json.dumps(revoked))
    host.settings["verification"] = {"trust_list": "us", "cache": str(host.cache_file)}
    crl = f"{BASE}/crl/a"
    host.change(
        {
            "trust_lists": {
                "us": {
                    "url": f"{BASE}/list/a",
                    "signers": ["file:signer.pem"],
                    "crl": {"urls": [crl], "signers": ["file:signer.pem"]},
                }
            }
        }
    )
    process = host.start()
    anchors = ListedAnchors(host.cache_file, "us", ())
    revocation = RevocationCache(host.cache_file, "us", [crl])
    certificates = parse_chain(chain)
    until(lambda: anchors.version(time.time() + 5) is not None)
    assert anchors.validate(certificates, time.time()).signer.spc == "709J"
    until(lambda: revocation.trouble(time.time() + 5) is None)
    assert revocation.revoked(b"\x30\x00", 7)
    assert not revocation.revoked(b"\x30\x00", 8)
    assert not revocation.revoked(b"\x30\x01", 7)

    # Nothing that is wrong takes the place of what is right.
    for sequence, signed_by, seconds, told in (
        (4, "us", 3600, "older than 5"),
        (6, "stranger", 3600, "wrong key"),
        (6, "us", -1, "has expired"),
    ):
        _trust_list(host, other.root_pem, sequence=sequence, signed_by=signed_by, seconds=seconds)
        host.stop()
        process = host.start()
        until(lambda: "trust_list_refused" in host.alarms())
        assert told in host.log()
        assert ListedAnchors(host.cache_file, "us", ()).validate(certificates, time.time())
    (host.folder / "crl").write_text(json.dumps(revoked | {"this": now - 20, "revoked": []}))
    _trust_list(host, other.root_pem, sequence=6)
    host.stop()
    process = host.start()
    until(lambda: "crl_refused" in host.alarms())
    assert revocation.revoked(b"\x30\x00", 7)
    until(lambda: "trust_list_refused" not in host.alarms())

    def refuses() -> bool:
        try:
            anchors.validate(certificates, time.time())
        except VerificationFailure as failure:
            return failure.code is FailureCode.CERTIFICATE_UNTRUSTED
        return False

    until(refuses)
    assert process.poll() is None


def test_a_list_that_a_trusted_certificate_names_is_kept_and_outlives_a_reload(
    host: Host, today: Authority, chain: bytes
) -> None:
    (host.folder / "signer.pem").write_bytes(today.root_pem)
    chosen = {"anchors": ["file:anchors.pem"], "crl": {"signers": ["file:signer.pem"], "from_certificates": True}}
    host.settings["verification"] = {"trust_list": "us", "cache": str(host.cache_file)}
    host.change({"trust_lists": {"us": chosen}})
    process = host.start()
    (host.folder / "chain.pem").write_bytes(Authority.new(time.time()).issue(spc="709J", now=time.time()).chain)
    host.client.ask([f"{BASE}/stranger.pem"], 5.0)
    assert CRL_URL not in host.downloads()
    (host.folder / "chain.pem").write_bytes(chain)
    host.client.ask([f"{BASE}/a.pem"], 5.0)
    until(lambda: host.downloads().count(CRL_URL) == 1)
    host.change({"trust_lists": {"us": chosen | {"grace": 7}}})
    process.send_signal(signal.SIGHUP)
    until(lambda: host.downloads().count(CRL_URL) == 2)


def test_settings_are_taken_anew_with_sighup_and_mistakes_change_nothing(host: Host) -> None:
    process = host.start()
    (host.folder / "shaken.yaml").write_text("signing: {mode: wrong}\n")
    process.send_signal(signal.SIGHUP)
    until(lambda: "settings_refused" in host.alarms())
    host.change({"agent": {"max_fetches": 1}})
    process.send_signal(signal.SIGHUP)
    until(lambda: "settings_refused" not in host.alarms())
    results = host.client.ask([f"https://{name}.example.com/hang/a.pem" for name in "ab"], 0.3)
    assert sorted(results.values()) == ["overloaded", "waiting"]


def test_systemd_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(host.folder / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(host.folder / "notify"))
        host.start()
        assert systemd.recv(1000) == b"READY=1"
        host.stop()
        assert systemd.recv(1000) == b"STOPPING=1"


def test_after_a_restart_it_goes_on_from_the_file(host: Host) -> None:
    host.start()
    known = [f"{BASE}/{number}.pem" for number in range(3)]
    host.client.ask(known, 5.0)
    missing = f"{BASE}/missing/a.pem"
    host.client.ask([missing], 5.0)
    before = host.downloads()
    host.stop()
    host.start()
    until(lambda: json.loads(host.get("/health")[1]).get("documents") == 4)
    assert host.client.ask([*known, missing], 5.0) == dict.fromkeys(known, "stored") | {missing: "failed"}
    assert host.downloads() == before


def test_status_says_how_it_is(host: Host) -> None:
    host.start()
    port = host.log().partition("http://127.0.0.1:")[2].partition("/")[0]
    settings = host.folder / "status.yaml"
    host.change({"agent": {"listen": f"127.0.0.1:{port}"}})
    settings.write_text((host.folder / "shaken.yaml").read_text())
    command = ["agent", "--settings", str(settings), "status"]
    result = CliRunner().invoke(main, [*command, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"] == "ok"
    (host.folder / "clock").write_text("90")
    host.client.ask(["https://one.example.com/a.pem", "https://two.example.com/a.pem"], 5.0)
    until(host.alarms)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "clock_off" in result.output
    host.stop()
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 3
    assert "no agent answers" in result.output


def test_pages(host: Host) -> None:
    process = host.start()
    assert host.get("/other")[0] == 404
    until(lambda: json.loads(host.get("/")[1]).get("pid") == process.pid)
