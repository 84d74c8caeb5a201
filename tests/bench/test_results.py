"""What a section found: compared, as JSON, as a table, as pictures."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from bench import plots, table
from bench.ratios import Interval
from bench.results import CALLS, FORM, RATE, BenchError, Report, Series, Target, from_json, to_json
from rich.console import Console


@pytest.fixture
def report() -> Report:
    made = Report("core", "A title", notes=["PyJWT is not installed"])
    made.series = [
        Series("OpenSSL sign", "µs", (40.0, 20.0, 40.0)),
        Series("complete signing", "µs", (80.0, 40.0, 80.0)),
        Series("file", "MB", (1.0,), 10_000),
        Series("file", "MB", (500.0,), 10_000_000),
    ]
    made.compare("complete signing", "OpenSSL sign", rate=True, target=Target(0.55, at_least=True))
    made.compare("complete signing", "OpenSSL sign", target=Target(2.5, at_least=False))
    made.compare("file", "file", at=10_000_000, to_at=10_000)
    made.compare("complete signing", "libsecsipid sign")
    return made


def test_a_rate_is_the_inverse_of_a_cost_and_what_was_not_measured_is_not_compared(report: Report) -> None:
    assert [(one.to, one.interval.median) for one in report.ratios] == [
        ("OpenSSL sign", 0.5),
        ("OpenSSL sign", 2.0),
        ("file", 500.0),
    ]


@pytest.mark.parametrize(
    ("target", "met", "missed"), [(Target(0.75, at_least=True), 0.75, 0.74), (Target(1.1, at_least=False), 1.1, 1.11)]
)
def test_a_target_is_met_at_its_limit(target: Target, met: float, missed: float) -> None:
    assert target.is_met(met)
    assert not target.is_met(missed)


def test_the_form_as_json(report: Report) -> None:
    whole = to_json([report], {"cores": "2"}, made="2026-11-22T10:00:00+00:00", quick=True)
    back = json.loads(json.dumps(whole))
    assert (back["form"], back["quick"], back["machine"]) == (FORM, True, {"cores": "2"})
    (section,) = back["sections"]
    assert section["section"] == "core"
    assert section["notes"] == ["PyJWT is not installed"]
    assert section["series"][3] == {
        "name": "file",
        "unit": "MB",
        "values": [500.0],
        "at": 10_000_000,
        "more": False,
        "target": None,
        "span": None,
        "listed": True,
    }
    assert section["ratios"][0] == {
        "of": "complete signing",
        "to": "OpenSSL sign",
        "median": 0.5,
        "low": 0.5,
        "high": 0.5,
        "rate": True,
        "at": None,
        "to_at": None,
        "target": {"limit": 0.55, "at_least": True},
        "met": False,
    }


def other() -> Report:
    """One that has all that the first has not."""
    made = Report("latency", "Another title", axis=RATE, notes=["one | two"], seconds=7)
    made.series = [
        Series("plain relay, p50", "ms", (1.0, 1.2), 100),
        Series("plain relay, p50", "ms", (2.0, 2.2), 300),
        Series("added by sign, p50", "ms", (-0.1, 0.2), 100),
        Series("highest rate: plain", "calls/s", (1_000.0,), more=True),
        Series("highest rate: sign", "calls/s", (800.0,), more=True, span=Interval(800.0, 800.0, 840.0)),
        Series("largest worker", "MB", (79.0,), target=Target(80.0)),
        Series("growth", "MB", (1.5,), target=Target(1.0), span=Interval(1.5, 1.1, 1.9)),
    ]
    made.compare("highest rate: sign", "highest rate: plain", rate=True)
    made.compare("highest rate: sign", "highest rate: nobody's", rate=True, target=Target(0.9, at_least=True))
    return made


def test_what_was_written_is_read_back_whole(report: Report) -> None:
    content = to_json([report, other()], {}, made="2026-11-22T10:00:00+00:00", quick=False)
    assert from_json(json.loads(json.dumps(content))) == [report, other()]
    with pytest.raises(BenchError, match="form 0"):
        from_json(content | {"form": 0})


def test_what_is_a_rate_itself_is_compared_as_it_is_and_no_target_is_passed_over() -> None:
    made = other()
    assert [one.interval.median for one in made.ratios] == [0.8]
    assert made.notes[1] == (
        "target ≥ 0.90 of 'highest rate: sign' beside \"highest rate: nobody's\" not judged: not measured"
    )


def test_every_target_has_its_verdict(report: Report) -> None:
    found = [(one.what, one.found, one.met) for one in table.judged([report, other()])]
    assert found == [
        ("complete signing beside OpenSSL sign", "0.50 of its rate", False),
        ("complete signing beside OpenSSL sign", "2.00 of its cost", True),
        ("largest worker", "79 MB", True),
        ("growth", "1.5 MB", False),
    ]
    content = to_json([other()], {}, made="", quick=False)
    assert [one.get("met") for one in content["sections"][0]["series"]] == [None] * 5 + [True, False]


def test_what_it_was_measured_with_is_said_in_its_own_words() -> None:
    lines = {row.what: row for row in table.rows(other())}
    assert lines["plain relay, p50, 100/s"].bounds == "1.00 to 1.20"
    assert lines["growth"][1:] == ("1.5 MB", "", "", "1.10 to 1.90", "≤ 1.00 missed", False)
    assert [table.short(number) for number in (300, 1_500, 10_000, 10_000_000)] == ["300", "1500", "10 k", "10 M"]


def test_the_table_says_what_was_measured_beside_what_and_whether_it_is_good(report: Report) -> None:
    out = StringIO()
    Console(file=out, width=120).print(table.summary([report], {"processor": "Example 3000"}))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "complete signing 80 µs (12 500/s) OpenSSL sign 0.50 of its rate ≥ 0.55 missed" in lines
    assert "OpenSSL sign 2.00 of its cost ≤ 2.50 met" in lines
    assert "file, 10 M 500 MB file, 10 k 500.00 of its cost" in lines
    assert "core: PyJWT is not installed" in lines
    assert "processor: Example 3000" in lines


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed; make bench installs it")
def test_pictures_of_what_was_compared_and_of_what_grows(report: Report, tmp_path: Path) -> None:
    drawn = [path for one in (report, other()) for path in plots.draw(one, tmp_path)]
    assert [path.name for path in drawn] == ["core.png", "core-growth.png", "latency.png", "latency-growth.png"]
    assert [path.name for path in drawn] == plots.names(report) + plots.names(other())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed; make bench installs it")
def test_a_picture_of_what_is_not_listed(tmp_path: Path) -> None:
    made = Report("memory", "A title", axis=CALLS)
    made.series = [Series("worker 1", "MB", (70.0 + at / 5_000,), at, listed=False) for at in (5_000, 10_000)]
    assert [path.name for path in plots.draw(made, tmp_path)] == ["memory-growth.png"]
    assert table.rows(made) == []
