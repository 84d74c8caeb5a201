"""Clocks around functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import clocks, stage
from bench.clocks import TOGETHER, Clocked, Clocks, Parts
from bench.results import BenchError
from bench.sections import Options, core, parts
from bench.stores import Stores
from bench.workers import Task, Worker

from shaken_plugin.lab.pki import Authority

now = 0
"""Nanoseconds, of a clock that these functions move."""


def passes(nanoseconds: int) -> None:
    global now  # noqa: PLW0603  # a clock
    now += nanoseconds


class Call:
    def whole(self, *, fails: bool = False) -> None:
        passes(10)
        self.part()
        passes(5)
        helper()
        if fails:
            raise ValueError("a call that fails")

    def part(self) -> None:
        passes(7)
        helper()
        passes(1)


def helper() -> None:
    passes(100)


HERE = "tests.bench.test_clocks"
WHOLE, PART, HELPER = f"{HERE}:Call.whole", f"{HERE}:Call.part", f"{HERE}:helper"


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What gets a clock has none afterwards."""
    monkeypatch.setattr(clocks, "perf_counter_ns", lambda: now)
    monkeypatch.setattr(Call, "whole", Call.whole)
    monkeypatch.setattr(Call, "part", Call.part)
    monkeypatch.setitem(globals(), "helper", helper)


@pytest.mark.usefixtures("as_before")
def test_time_inside_a_part_does_not_count_outside() -> None:
    taken = Clocks({"rest": [WHOLE], "part": [PART], "helper": [HELPER]})
    for fails in (False, True, False):
        try:
            Call().whole(fails=fails)
        except ValueError:
            continue
    found = taken.taken()
    assert {name: round(took * 1e9) for name, took in found.items()} == {
        "rest": 15, "part": 8, "helper": 200, TOGETHER: 223
    }  # fmt: skip


@pytest.mark.usefixtures("as_before")
def test_a_part_with_several_functions_and_one_without_a_call() -> None:
    taken = Clocks({"rest": [WHOLE], "both": [PART, HELPER], "never": [f"{HERE}:Call.__init__"]})
    Call.whole(Call.__new__(Call))
    assert {name: round(took * 1e9) for name, took in taken.taken().items()} == {
        "rest": 15, "both": 208, "never": 0, TOGETHER: 223
    }  # fmt: skip


@pytest.mark.parametrize("which", [core.SIGNING, core.WARM])
def test_every_part_of_a_call_is_come_to(tmp_path: Path, which: str) -> None:
    origin, target = stage.sides(tmp_path, Authority.new(time.time()))
    made, named, arguments = {
        core.SIGNING: (core.CompleteSigning, parts.OF_SIGNING, (origin.settings,)),
        core.WARM: (core.CompleteVerifying, parts.OF_VERIFYING, (target.settings, origin.settings)),
    }[which]
    with Worker(Clocked, made, named, b"", *arguments) as worker:
        found = worker.told(0.05)
        again = worker.told(0.05)
    assert found.keys() == again.keys() == {*named, TOGETHER}
    assert min(found.values()) > 0
    for told in (found, again):
        assert sum(told[part] for part in named) == pytest.approx(told[TOGETHER], rel=0.2)


def test_a_part_that_is_done_elsewhere_now_is_said_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere: Parts = {**parts.OF_SIGNING, "diverted": ["shaken_plugin.core.call:CallMessage.diversion"]}
    monkeypatch.setattr(parts, "OF_SIGNING", elsewhere)

    def begin(_name: str, _steps: int) -> Callable[[], object]:
        return lambda: None

    options = Options(quick=True, folder=tmp_path, begin=begin, stores=Stores(tmp_path / "stores", begin))
    with pytest.raises(BenchError, match="complete signing did not come to diverted"):
        parts.run(options)


def test_what_a_task_tells_comes_with_its_turn() -> None:
    with Worker(telling) as worker:
        assert worker.turn(3).told == {"count": 3.0}


class Telling:
    def prepare(self, count: int) -> None:
        self.count = count

    def run(self, count: int) -> None:
        """Nothing."""

    def check(self) -> dict[str, float]:
        return {"count": float(self.count)}


def telling() -> Task:
    return Telling()
