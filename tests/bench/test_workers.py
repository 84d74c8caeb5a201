"""Subjects in processes of their own, which take turns."""

from __future__ import annotations

import pytest
from bench.results import BenchError
from bench.workers import Task, Worker, interleave


class Spinning:
    """So many steps for an operation; refuses more than a thousand operations at a time."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def prepare(self, count: int) -> None:
        if count > 1_000_000:
            raise ValueError("too many")

    def run(self, count: int) -> None:
        for _ in range(count):
            sum(range(self._steps))

    def check(self) -> None:
        if self._steps == 13:
            raise AssertionError("not what was asked for")


def spinning(steps: int) -> Task:
    return Spinning(steps)


def failing() -> Task:
    raise LookupError("no such library")


def test_what_does_a_hundred_times_as_much_costs_more() -> None:
    with Worker(spinning, 1_000) as short, Worker(spinning, 100_000) as long:
        costs = interleave([lambda: {"short": short.cost(0.02)}, lambda: {"long": long.cost(0.02)}], 3)
    assert {name: len(values) for name, values in costs.items()} == {"short": 3, "long": 3}
    assert max(costs["short"]) < min(costs["long"])


def test_a_turn_tells_the_memory_of_its_process() -> None:
    with Worker(spinning, 1) as worker:
        turn = worker.turn(10)
    assert turn.memory > 1 << 20
    assert turn.cpu >= 0


@pytest.mark.parametrize(
    ("steps", "count", "text"), [(1, 2_000_000, "too many"), (13, 1, "not what was asked for")], ids=["before", "after"]
)
def test_a_turn_that_fails_says_why(steps: int, count: int, text: str) -> None:
    with Worker(spinning, steps) as worker, pytest.raises(BenchError, match=text):
        worker.turn(count)


def test_a_task_that_cannot_be_made_says_why() -> None:
    with pytest.raises(BenchError, match="no such library"):
        Worker(failing)


def test_each_subject_has_one_turn_a_round_and_the_first_round_does_not_count() -> None:
    turns: list[str] = []
    advanced: list[None] = []

    def subject(name: str) -> dict[str, float]:
        turns.append(name)
        return {name: float(len(turns))}

    found = interleave([lambda: subject("a"), lambda: subject("b")], 4, lambda: advanced.append(None))
    assert [sorted(turns[at : at + 2]) for at in range(0, 10, 2)] == [["a", "b"]] * 5
    assert len(advanced) == 10
    assert sorted(found["a"] + found["b"]) == [float(number) for number in range(3, 11)]
    found = interleave([lambda: subject("a")], 4, warm=True)
    assert found["a"] == (11.0, 12.0, 13.0, 14.0)
