"""``shaken probe``, actively against a PBX of our own and passively."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from shaken_plugin.cli import main
from shaken_plugin.lab.servers import free_port
from shaken_plugin.probe.canaries import CANARIES
from shaken_plugin.probe.message import Message
from tests.probe.fake_pbx import FakePbx, identities, same
from tests.probe.test_passive import WANTED, both_sides, calls, capture, tcp, text_of
from tests.probe.test_session import twice

LOOPBACK = "127.0.0.1"


@contextmanager
def pbx(listen: int, change: Any = same, **arguments: Any) -> Iterator[int]:
    """A fake PBX in a thread of its own; its port."""
    loop = asyncio.new_event_loop()
    fake = FakePbx((LOOPBACK, listen), change, **arguments)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fake.side.open(LOOPBACK, 0), loop).result(10)
        yield fake.side.place("udp").port
    finally:
        asyncio.run_coroutine_threadsafe(fake.side.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["probe", *map(str, arguments)], env={"COLUMNS": "200"})


def through(port: int, listen: int, *arguments: object) -> Result:
    return run("--via", f"{LOOPBACK}:{port}", "--listen", f"{LOOPBACK}:{listen}", "--timeout", 1, *arguments)


def test_all_preserved_is_a_yes() -> None:
    listen = free_port()
    with pbx(listen) as port:
        result = through(port, listen, "--canary", "one", "--canary", "two")
    assert result.exit_code == 0, result.output
    assert "2 of 2 calls preserved" in result.output
    assert "What to change" not in result.output


def test_what_is_not_preserved_is_a_no_with_its_diff_and_advice(tmp_path: Path) -> None:
    listen, html = free_port(), tmp_path / "report.html"
    with pbx(listen, identities(twice)) as port:
        result = through(port, listen, "--canary", "one", "--html", html, "--product", "freeswitch")
    assert result.exit_code == 1, result.output
    assert "duplicated" in result.output
    assert "0 of 1 calls preserved" in result.output
    assert "exclude_outgoing_extra_header" in result.output
    assert "<svg" in html.read_text("utf-8")


def test_json_for_programs() -> None:
    listen = free_port()
    with pbx(listen) as port:
        result = through(port, listen, "--canary", "date", "--to", "+12025550143", "--json")
    data = json.loads(result.output)
    assert data["preserved"] is True
    assert [call["name"] for call in data["calls"]] == ["date"]
    assert data["calls"][0]["received"][0]["transport"] == "udp"


def test_nothing_that_arrives_is_missing_and_ends_early() -> None:
    listen = free_port()
    with pbx(listen, refuse=404) as port:
        result = through(port, listen)
    assert result.exit_code == 3
    assert "No call reached the listener" in result.output
    assert "answered with 404" in result.output
    assert "0 of 1 calls preserved" in result.output
    assert len(CANARIES) > 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "give --via, or --before and --after, or --pcap"),
        (("--via", "a", "--before", "b"), "give --via"),
        (("--before", "b"), "--before and --after go together"),
        (("--via", "a b"), "is not HOST or HOST:PORT"),
        (("--via", "a:99999"), "is not HOST or HOST:PORT"),
        (("--via", LOOPBACK, "--to", "12"), "is not a number such as"),
        (("--via", LOOPBACK, "--to", "+1911"), "reaches an emergency service"),
        (("--via", LOOPBACK, "--country", "XX"), "--country"),
        (("--via", LOOPBACK, "--canary", "none"), "--canary"),
        (("--before", "a", "--after", "b", "--canary", "one"), "--canary has no effect without --via"),
        (("--before", "a", "--after", "b", "--to", "+12025550143"), "--to has no effect without --via"),
        (("--before", "a", "--after", "b", "--tls-insecure"), "--tls-insecure has no effect without --via"),
        (("--pcap", __file__, "--before", "carrier"), "'carrier' is not ADDRESS or ADDRESS:PORT"),
        (("--pcap", __file__, "--after", "192.0.2.300:5060"), "is not ADDRESS or ADDRESS:PORT"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], text: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--via", "a..b"), "a..b: not a host name"),  # refused before anybody is asked
        (("--via", LOOPBACK, "--listen", "192.0.2.1:5090"), "cannot listen on 192.0.2.1:5090"),
        (("--via", LOOPBACK, "--listen", "a..b:5090"), "cannot listen on a..b:5090"),
        (("--via", LOOPBACK, "--transport", "tls", "--tls-ca", "{0}/empty"), "empty: no certificate"),
        (("--before", "{0}/none", "--after", "{0}/none"), "none: No such file"),
        (("--before", "{0}/empty", "--after", "{0}/empty"), "there is no SIP message in it"),
        (("--pcap", "{0}/empty"), "neither a pcap nor a pcapng"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    (tmp_path / "empty").touch()
    result = run(*(argument.format(tmp_path) for argument in arguments))
    assert result.exit_code == 3
    assert text in result.output


def test_a_report_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(text_of([calls()[0][0]]))
    result = run("--before", tmp_path / "a.log", "--after", tmp_path / "a.log", "--html", tmp_path / "no" / "x.html")
    assert result.exit_code == 3
    assert "No such file" in result.output


def test_a_report_that_cannot_be_written_is_told_before_any_call(tmp_path: Path) -> None:
    listen = free_port()
    with pbx(listen) as port:
        result = through(port, listen, "--canary", "one", "--html", tmp_path / "no" / "x.html")
    assert result.exit_code == 3
    assert "No such file" in result.output
    assert "preserved" not in result.output


def test_results_are_printed_before_the_report_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = free_port()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pbx(listen) as port:
        result = through(port, listen, "--canary", "one", "--html", tmp_path / "x.html")
    assert result.exit_code == 3
    assert "1 of 1 calls preserved" in result.output
    assert "No space left" in result.output


def test_an_invite_that_fits_no_call_is_no_yes(tmp_path: Path) -> None:
    (before, after), (_, stranger), *_ = calls()
    (tmp_path / "a.log").write_bytes(text_of([before]))
    (tmp_path / "b.log").write_bytes(text_of([after, stranger]))
    result = run("--before", tmp_path / "a.log", "--after", tmp_path / "b.log")
    assert result.exit_code == 1
    assert "1 INVITEs behind the PBX that fit no call" in result.output


def test_strangers_at_the_listener_are_told() -> None:
    listen = free_port()
    stray = calls()[0][0].raw.replace(b"2025550", b"3035550").replace(b"Identity", b"Subject")

    def knock(message: Message) -> list[Message]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.2", 0))
            stranger.sendto(stray, (LOOPBACK, listen))
        return [message]

    with pbx(listen, knock) as port:
        result = through(port, listen, "--canary", "one")
        data = json.loads(through(port, listen, "--canary", "one", "--json").output)
    assert result.exit_code == 0, result.output
    assert "1 calls from 127.0.0.2 at the listener were not of this run: answered with 404" in result.output
    assert data["strangers"] == {"127.0.0.2": 1}


def test_gaps_and_packets_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    packets = [*both_sides(), *tcp(("192.0.2.1", 7), ("192.0.2.2", 5060), calls()[0][0].raw, 300)]
    del packets[-3]
    (tmp_path / "a.pcap").write_bytes(capture([*packets, b"\x45"], link=101))
    result = run("--pcap", tmp_path / "a.pcap")
    assert "1 gaps in TCP streams" in result.output
    assert "1 packets could not be read" in result.output
    data = json.loads(run("--pcap", tmp_path / "a.pcap", "--json").output)
    assert (data["tcp_gaps"], data["unreadable_packets"], data["reason"]) == (1, 1, None)


@pytest.mark.parametrize("before", ["192.0.2.9", "192.0.2.9:5060", "2001:db8::0:1", "[2001:db8::1]:5060"])
def test_a_mistyped_address_is_told(tmp_path: Path, before: str) -> None:
    (tmp_path / "a.pcap").write_bytes(capture(both_sides()))
    result = run("--pcap", tmp_path / "a.pcap", "--before", before)
    assert result.exit_code == 3
    assert "Nothing could be judged: --before" in result.output
    assert "192.0.2.1 -> 192.0.2.2" in result.output


def test_two_records_on_the_command_line(tmp_path: Path) -> None:
    before, after = zip(*calls(), strict=True)
    (tmp_path / "a.log").write_bytes(text_of(before))
    (tmp_path / "b.log").write_bytes(text_of(after))
    result = run("--before", tmp_path / "a.log", "--after", tmp_path / "b.log", "--json")
    assert result.exit_code == 1
    data = json.loads(result.output)
    assert [{finding["kind"].upper() for finding in call["findings"]} for call in data["calls"]] == [
        {kind.name for kind in kinds} for kinds in WANTED
    ]
    assert (data["unsigned"], data["unmatched"]) == (1, 0)


def test_a_capture_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(capture(both_sides()))
    html = tmp_path / "report.html"
    addresses = ("--before", "192.0.2.1", "--after", "192.0.2.3")
    result = run("--pcap", tmp_path / "a.pcap", *addresses, "--html", html)
    assert result.exit_code == 1, result.output
    assert "1 of 6 calls preserved" in result.output
    assert "1 calls without Identity, 0 INVITEs behind the PBX that fit no call" in result.output
    assert html.read_text("utf-8").count("<details id=") == 6


def test_the_help_says_how_the_pbx_sends_the_canaries() -> None:
    result = run("--help")
    for product in ("FreeSWITCH", "Asterisk", "Kamailio"):
        assert product in result.output
    assert "5090" in result.output
