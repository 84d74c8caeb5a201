"""The age of a fleet's copy: what a worker may believe of it, whatever becomes of clocks and files."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.records import PolicyFacts
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores.freshness import Copy, CopyAge, mark, mark_of, unmark

NOW = 1_800_000_000.0


class Clocks:
    """A wall clock that can be set, and the seconds that only grow."""

    def __init__(self) -> None:
        self.wall, self.steady = NOW, 5_000.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


class Everything:
    """A store that always answers."""

    def __init__(self) -> None:
        self.asked = 0

    def facts(self, *_: str | None) -> PolicyFacts:
        self.asked += 1
        return PolicyFacts(None, (), 7)

    def stamp(self) -> int:
        return 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.db"


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def age_of(path: Path, clocks: Clocks) -> CopyAge:
    return CopyAge(path, lambda: clocks.wall, lambda: clocks.steady)


def test_a_host_that_never_joined_has_no_age(path: Path, clocks: Clocks) -> None:
    age = age_of(path, clocks)
    assert age.seconds() is None
    mark(path, NOW)
    assert age.seconds() == 0
    unmark(path)
    unmark(path)
    assert age.seconds() is None


def test_the_age_is_the_time_since_the_last_mark(path: Path, clocks: Clocks) -> None:
    mark(path, NOW - 3)
    age = age_of(path, clocks)
    assert age.seconds() == pytest.approx(3)
    clocks.pass_by(10)
    assert age.seconds() == pytest.approx(13)
    mark(path, clocks.wall)
    assert age.seconds() == pytest.approx(0)


@pytest.mark.parametrize("back", [600.0, 10.0 * 365 * 86_400])
def test_a_clock_that_is_put_back_makes_no_copy_young(path: Path, clocks: Clocks, back: float) -> None:
    mark(path, NOW - 3)
    running = age_of(path, clocks)
    assert running.seconds() == pytest.approx(3)
    clocks.wall -= back
    clocks.pass_by(400)
    assert running.seconds() == pytest.approx(403)
    clocks.pass_by(1e6)
    assert running.seconds() == pytest.approx(1_000_403)
    mark(path, clocks.wall)
    assert running.seconds() == pytest.approx(0)


def test_a_process_that_begins_after_the_clock_was_put_back_knows_the_clock_alone(path: Path, clocks: Clocks) -> None:
    """As docs/fleet.md says: this is what a mark does not tell."""
    mark(path, clocks.wall)
    known = age_of(path, clocks)
    assert known.seconds() == pytest.approx(0, abs=1e-3)
    clocks.wall += 10
    clocks.steady += 250
    assert known.seconds() == pytest.approx(250)
    assert age_of(path, clocks).seconds() == pytest.approx(10)
    mark(path, clocks.wall)
    assert [one.seconds() for one in (known, age_of(path, clocks))] == [pytest.approx(0, abs=1e-3)] * 2


def test_a_mark_of_the_future_says_nothing_to_a_process_that_begins(path: Path, clocks: Clocks) -> None:
    mark(path, NOW)
    clocks.wall -= 600
    began = age_of(path, clocks)
    assert began.seconds() == math.inf
    clocks.pass_by(1_200)
    assert began.seconds() == math.inf  # it was not seen when it was young
    mark(path, clocks.wall + 1)
    assert began.seconds() == 0  # a clock that is being slewed


def test_a_clock_that_is_put_forward_makes_it_older_until_the_next_mark(path: Path, clocks: Clocks) -> None:
    mark(path, NOW)
    age = age_of(path, clocks)
    clocks.wall += 3_600
    assert age.seconds() == pytest.approx(3_600)
    mark(path, clocks.wall)
    assert age.seconds() == pytest.approx(0)


def test_the_first_mark_is_never_younger_than_it_says(path: Path) -> None:
    mark(path, NOW - 1e6)
    assert mark_of(path).stat().st_mtime == NOW - 1e6
    assert [file.name for file in path.parent.iterdir()] == ["policy.db.known"]


def test_a_mark_of_another_user_is_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(path, NOW)
    real: Any = os.utime
    refused: list[Path] = []

    def utime(file: Path, **how: Any) -> None:
        if file == mark_of(path) and not refused:
            refused.append(file)
            raise PermissionError(1, "Operation not permitted")
        real(file, **how)

    monkeypatch.setattr(os, "utime", utime)
    mark(path, NOW + 5)
    assert mark_of(path).stat().st_mtime == NOW + 5
    assert refused


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_copy_that_is_too_old_is_read_in_one_mode_alone(path: Path, clocks: Clocks, goes_on: bool) -> None:
    store = Everything()
    copy = Copy(store, path, 300, goes_on=goes_on)
    copy._age = age_of(path, clocks)
    mark(path, NOW - 299)
    assert copy.facts("127.0.0.1", None, "12155551212").version == 7
    assert (copy.trouble, store.asked) == (None, 1)
    clocks.pass_by(2)
    if goes_on:
        assert copy.facts("127.0.0.1", None, "12155551212").version == 7
    else:
        with pytest.raises(StoreUnavailable, match=r"last known to be whole 301 s ago, store.max_age is 300 s"):
            copy.facts("127.0.0.1", None, "12155551212")
    said = copy.trouble
    assert said is not None
    assert store.asked == 1 + goes_on
    mark(path, clocks.wall)
    assert copy.facts(None, None, None).version == 7
    assert copy.trouble is None


@pytest.mark.parametrize("goes_on", [True, False])
def test_only_a_copy_that_is_young_enough_has_a_stamp(
    path: Path, clocks: Clocks, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shaken_plugin.stores.freshness.time.monotonic", lambda: clocks.steady)
    copy = Copy(Everything(), path, 300, goes_on=goes_on)
    copy._age = age_of(path, clocks)
    assert copy.stamp() is None  # there never was one
    mark(path, NOW - 299.95)
    assert (copy.stamp(), copy.trouble) == (7, None)
    clocks.pass_by(0.04)
    assert copy.stamp() == 7
    clocks.pass_by(0.02)
    assert copy.stamp() is None
    assert "too old" in (copy.trouble or "")
    mark(path, clocks.wall)
    assert (copy.stamp(), copy.trouble) == (7, None)


def test_that_nothing_is_known_of_a_copy_any_more_is_seen_a_little_later(
    path: Path, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shaken_plugin.stores.freshness.time.monotonic", lambda: clocks.steady)
    copy = Copy(Everything(), path, 300, goes_on=True)
    copy._age = age_of(path, clocks)
    mark(path, NOW)
    looks, real = list[object](), os.stat

    def stat(file: Any, **how: Any) -> os.stat_result:
        looks.append(file)
        return real(file, **how)

    monkeypatch.setattr(os, "stat", stat)
    assert [copy.stamp() for _ in range(10)] == [7] * 10
    assert len(looks) == 1
    unmark(path)
    clocks.pass_by(0.2)
    assert copy.stamp() is None


def test_a_copy_of_which_nothing_is_known_is_said_so(path: Path, clocks: Clocks) -> None:
    copy = Copy(Everything(), path, 300, goes_on=True)
    copy._age = age_of(path, clocks)
    mark(path, NOW + 1_000)
    assert "nobody knows how old it is" in (copy.look() or "")


@pytest.mark.parametrize("goes_on", [True, False])
def test_without_a_copy_nothing_is_decided_in_any_mode(path: Path, goes_on: bool) -> None:
    store = Everything()
    with pytest.raises(StoreUnavailable, match=r"no copy of its fleet's policy yet.*shaken agent status"):
        Copy(store, path, 300, goes_on=goes_on).facts(None, None, None)
    assert store.asked == 0


def test_a_mark_that_cannot_be_looked_at_is_a_store_that_cannot_be_read(path: Path) -> None:
    path.parent.joinpath("file").write_text("")
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        Copy(Everything(), path.parent / "file" / "policy.db", 300, goes_on=True).facts(None, None, None)


def test_one_stat_a_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(path, NOW)
    copy, calls, real = Copy(Everything(), path, 1e12, goes_on=True), [], os.stat

    def stat(*arguments: object, **how: object) -> os.stat_result:
        calls.append(arguments)
        return real(*arguments, **how)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(os, "stat", stat)
    copy.facts(None, None, None)
    assert len(calls) == 1
