"""Log lines are one line, printable ASCII, of bounded length and, where structured, valid JSON."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import pytest

from shaken_plugin.ports import Severity
from shaken_plugin.telemetry import MAX_LINE, REPEAT_AFTER, MemoryObserver, StreamObserver, Throttle, clean, event

HOSTILE = {
    "line break": "a\r\nshaken: forged line",
    "escape sequence": "\x1b[2J\x1b]0;title\x07",
    "NUL, DEL and C1": "\x00\x7f\x85\x9b",
    "Unicode line separator": "a\u2028b\u2029c",
    "right-to-left override": "\u202egnp.exe",
    "bytes that are not UTF-8": b"\xff\xfe".decode("utf-8", "surrogateescape"),
    "quotes and backslashes": '"\\"}{\\',
    "very long": "x" * 50_000,
    "very long when escaped": "\U0001f4de" * 5_000,
    "backslashes to the limit": "\\" * MAX_LINE,
}

each_hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


def _fields(line: str) -> dict[str, Any]:
    name, _, text = line.partition(" ")
    assert name == "shaken"
    fields: dict[str, Any] = json.loads(text)
    return fields


@each_hostile
def test_clean_makes_one_printable_line_of_bounded_length(text: str) -> None:
    line = clean(text)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= MAX_LINE + 1


def test_clean_leaves_plain_text_as_it_is() -> None:
    assert clean("credential main: 4.0 hours") == "credential main: 4.0 hours"


@each_hostile
def test_an_event_is_one_line_of_valid_json_whatever_stands_in_it(text: str) -> None:
    fields = {"call_id": text, "trace": [text] * 9, "code": "iat_stale", "unreadable": [text] * 200}
    line = event("verify", fields)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= MAX_LINE
    assert _fields(line)["event"] == "verify"
    assert _fields(line)["code"] == "iat_stale"


def test_an_event_of_usual_size_is_not_changed() -> None:
    fields = {"call_id": "a84b4c76e66710", "iat": 1_795_000_000, "emergency": True, "trace": ["+ source: known"] * 8}
    assert _fields(event("sign", fields)) == {"event": "sign", **fields}


def test_what_does_not_fit_is_cut_visibly_and_its_start_is_kept() -> None:
    fields = _fields(event("sign", {"call_id": "c" * 4_000, "detail": "short"}))
    assert fields["detail"] == "short"
    assert fields["call_id"].startswith("c" * 100)
    assert fields["call_id"].endswith("~")


@pytest.mark.parametrize("nothing", [None, "", (), [], {}])
def test_an_event_leaves_out_what_is_empty(nothing: object) -> None:
    assert _fields(event("sign", {"skip": nothing})) == {"event": "sign"}


@pytest.mark.parametrize("value", [0, False])
def test_an_event_keeps_zero_and_false(value: object) -> None:
    assert _fields(event("sign", {"iat": value})) == {"event": "sign", "iat": value}


def test_the_stream_observer_writes_clean_lines_with_their_severity() -> None:
    stream = io.StringIO()
    observer = StreamObserver(stream)
    observer.log(Severity.WARNING, "one\ntwo")
    observer.count("signed_a")
    assert stream.getvalue() == "warning: one\\ntwo\n"


def test_the_stream_observer_writes_to_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    StreamObserver().log(Severity.ERROR, "fault")
    assert capsys.readouterr() == ("", "error: fault\n")


def test_the_throttle_repeats_a_warning_after_a_minute_and_not_before(now: float) -> None:
    observer = MemoryObserver()
    throttle = Throttle(observer)
    for later in (0, 1, REPEAT_AFTER - 0.1, REPEAT_AFTER, REPEAT_AFTER + 1):
        throttle.warn("expiry", f"after {later}", now + later)
    assert observer.lines == [(Severity.WARNING, "after 0"), (Severity.WARNING, f"after {REPEAT_AFTER}")]


def test_the_throttle_keeps_warnings_apart_by_key_and_cleans_them(now: float) -> None:
    observer = MemoryObserver()
    throttle = Throttle(observer)
    throttle.warn("one", "a\nb", now)
    throttle.warn("two", "c", now, Severity.ERROR)
    assert observer.lines == [(Severity.WARNING, "a\\nb"), (Severity.ERROR, "c")]


def test_the_throttle_does_not_fall_silent_when_the_clock_is_put_back(now: float) -> None:
    observer = MemoryObserver()
    throttle = Throttle(observer)
    throttle.warn("expiry", "before", now + 86_400)
    throttle.warn("expiry", "after", now)
    assert [text for _, text in observer.lines] == ["before", "after"]


def test_the_memory_observer_counts_every_occurrence() -> None:
    observer = MemoryObserver()
    observer.count("signed_a")
    observer.count("signed_a")
    assert observer.counts == {"signed_a": 2}


def test_a_log_that_cannot_be_written_hinders_nobody() -> None:
    with open("/dev/full", "w", buffering=1, encoding="utf-8") as full:  # noqa: PTH123  # a device
        observer = StreamObserver(full)
        observer.log(Severity.ERROR, "alarm: the disk is full")
        with suppress(OSError):
            full.close()
    observer.log(Severity.ERROR, "the log was closed")
    assert full.closed
