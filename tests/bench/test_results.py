"""What a section found: compared, as JSON, as a table, as pictures."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from bench import plots, table
from bench.results import FORM, Report, Series, Target, to_json
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
    assert section["series"][3] == {"name": "file", "unit": "MB", "values": [500.0], "at": 10_000_000}
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
    }


def test_the_table_says_what_was_measured_beside_what_and_whether_it_is_good(report: Report) -> None:
    out = StringIO()
    Console(file=out, width=120).print(table.summary([report], {"processor": "Example 3000"}))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "complete signing 80 µs (12 500/s) OpenSSL sign 0.50 of its rate 0.50 to 0.50 ≥ 0.55 missed" in lines
    assert "OpenSSL sign 2.00 of its cost 2.00 to 2.00 ≤ 2.50 met" in lines
    assert "file, 10 M 500 MB file, 10 k 500.00 of its cost 500.00 to 500.00" in lines
    assert "core: PyJWT is not installed" in lines
    assert "processor: Example 3000" in lines


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed; make bench installs it")
def test_pictures_of_what_was_compared_and_of_what_grows(report: Report, tmp_path: Path) -> None:
    drawn = plots.draw(report, tmp_path)
    assert [path.name for path in drawn] == ["core.png", "core-growth.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
