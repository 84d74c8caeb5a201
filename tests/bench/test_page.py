"""The page with the figures: made from the results that lie beside it, never by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import page, table
from bench.results import from_json, to_json
from click.testing import CliRunner

from tests.bench.test_results import other


def test_the_page_has_the_figures_of_the_results_beside_it() -> None:
    text = page.PAGE.read_text("utf-8")
    assert text == page.with_figures(text, page.published()), "python -m bench.page makes it"


def test_of_each_target_that_is_missed_it_is_told_why() -> None:
    text = page.PAGE.read_text("utf-8").partition("\n## Targets that are missed\n")[2].partition("\n## ")[0]
    told = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    results = json.loads((page.PUBLISHED / "results.json").read_text("utf-8"))
    missed = [one.what for one in table.judged(from_json(results)) if not one.met]
    assert [what.removeprefix("| ") for what, _ in told] == missed
    assert all(len(why) > len("likewise") for _, why in told)


def test_figures_are_told_with_their_bounds_targets_and_machine() -> None:
    content = to_json([other()], {"processor": "Example 3000"}, made="2026-11-22T10:00:00+00:00", quick=False)
    made = page.figures(content)
    assert made.startswith("Measured 2026-11-22 on the machine below")
    assert "### Targets: 1 of 2 met" in made
    assert "| latency | growth | 1.5 MB | 1.10 to 1.90 | ≤ 1.00 | **missed** |" in made
    assert "| highest rate: sign | 800 calls/s | highest rate: plain | 0.80 of its rate |  |  |" in made
    assert "![Another title](benchmarks/latency-growth.png)" in made
    assert "- one \\| two" in made
    assert "| processor | Example 3000 |" in made
    with pytest.raises(ValueError, match="no line"):
        page.with_figures("# Something else\n", made)


def test_a_run_is_published_with_its_pictures_and_a_short_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = page.PAGE.read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    page.PAGE.write_text(shipped, "utf-8")
    run = tmp_path / "results"
    run.mkdir()
    (run / "latency.png").write_bytes(b"new")
    content = to_json([other()], {}, made="2026-11-22T10:00:00+00:00", quick=True)
    (run / "results.json").write_text(json.dumps(content), "utf-8")
    refused = CliRunner().invoke(page.main, [str(run)])
    assert (refused.exit_code, page.PAGE.read_text("utf-8")) == (1, shipped)
    assert "short run" in refused.output
    (run / "results.json").write_text(json.dumps(content | {"quick": False}), "utf-8")
    (page.PUBLISHED / "scale.png").write_bytes(b"old")
    assert CliRunner().invoke(page.main, [str(run)]).exit_code == 0
    assert sorted(path.name for path in page.PUBLISHED.iterdir()) == ["latency.png", "results.json"]
    assert "### Targets: 1 of 2 met" in page.PAGE.read_text("utf-8")
