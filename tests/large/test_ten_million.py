"""10 million numbers and 100,000 ranges in the SQLite store: how long, how large, and how fast to ask.

The rights are those of a contact centre's clients: 1,000 rights of 10,000 numbers each that lie scattered
over 20 billion, and ranges of 1 to 10,000 numbers. Prints what it measured.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from shaken_plugin.core.records import Basis, Customer, CustomerState, Right
from shaken_plugin.ports import Author, Span
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.stores.sqlite.upkeep import status

pytestmark = [pytest.mark.large, pytest.mark.timeout(3_600)]

NUMBERS: Final = 10_000_000
RANGES: Final = 100_000
RIGHTS: Final = 1_000

LOW, HIGH = 12_000_000_000, 13_999_999_999
STRIDE: Final = 7_919 * 2 + 1
"""Prime to the width of the numbers below, so that no number comes twice."""
WIDTH: Final = 1_999_999_973
"""A prime."""


def number(index: int) -> str:
    """The single number of an index."""
    return str(LOW + index * STRIDE * 104_729 % WIDTH)


def span(index: int) -> Span:
    """The range of an index: in numbers that no single one lies in."""
    first = 21_000_000_000 + index * 20_000
    return Span(str(first), str(first + random.Random(index).choice([1, 9, 99, 123, 999, 9_999])))


def of_right(index: int, numbers: int) -> Iterator[Span]:
    """The numbers of a right, in no order."""
    for one in range(index, numbers, RIGHTS):
        yield Span(number(one), number(one))


def build(path: Path, numbers: int, ranges: int) -> float:
    """Fill a store through the writer's interface, in ten changes; the seconds it took."""
    policy, began = SqlitePolicy(path), time.perf_counter()
    with policy.change(Author("large", "a test", 1.0), "records") as draft:
        draft.put(Customer("acme", "Acme", CustomerState.VERIFIED))
        for index in range(RIGHTS):
            draft.put(Right(f"r{index:04}", "acme", Basis.LETTER, f"LOA-{index}"))
        draft.put(Right("ranges", "acme", Basis.ASSIGNED))
        assert draft.add_numbers(Right, "ranges", map(span, range(ranges))) == ranges
    added = 0
    for part in range(10):
        with policy.change(Author("large", "a test", 2.0 + part), f"part {part}") as draft:
            for index in range(part * RIGHTS // 10, (part + 1) * RIGHTS // 10):
                added += draft.add_numbers(Right, f"r{index:04}", of_right(index, numbers))
    assert added == numbers
    return time.perf_counter() - began


_ASK: Final = """
import json, sys, time
from pathlib import Path
from shaken_plugin.stores.sqlite import SqliteStore
def memory():  # KiB at most, of this program alone: ru_maxrss goes on counting from its parent's
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
questions = json.load(sys.stdin)
store = SqliteStore(Path(sys.argv[1]))
store.facts(None, None, "19999999999")
before = memory()
times, found = [], []
for number in questions:
    began = time.perf_counter()
    facts = store.facts("192.0.2.1", None, number)
    times.append(time.perf_counter() - began)
    found.append([[one.right.id, one.first, one.last] for one in facts.rights])
after = memory()
times.sort()
json.dump({"found": found, "median": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "max": times[-1],
           "before": before, "after": after}, sys.stdout)
"""


def ask(path: Path, questions: list[str]) -> dict[str, Any]:
    """Questions put by a fresh process, which remembers nothing; what it was told, how fast, and its memory."""
    done = subprocess.run(
        [sys.executable, "-c", _ASK, str(path)],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def questions(numbers: int, ranges: int) -> tuple[list[str], list[list[list[str]]]]:
    """Numbers that are there, in a range, just beside one, and nowhere; and what is right."""
    draw, asked, expected = random.Random(8224), [], []
    for _ in range(5_000):
        one = draw.randrange(numbers)
        asked.append(number(one))
        expected.append([[f"r{one % RIGHTS:04}", number(one), number(one)]])
        which = span(draw.randrange(ranges))
        inside = str(draw.randint(int(which.first), int(which.last)))
        asked += [inside, str(int(which.last) + 1), str(draw.randrange(31_000_000_000, 39_000_000_000))]
        expected += [[["ranges", *which]], [], []]
    return asked, expected


def test_ten_million_numbers_and_a_hundred_thousand_ranges(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few, many = tmp_path / "few.db", tmp_path / "many.db"
    build(few, 10_000, 100)
    seconds = build(many, NUMBERS, RANGES)
    held = status(many)
    assert (held.numbers, held.ranges) == (NUMBERS, RANGES)
    measured = {}
    for path, numbers, ranges in ((few, 10_000, 100), (many, NUMBERS, RANGES)):
        asked, expected = questions(numbers, ranges)
        ask(path, asked[:100])  # the file's pages into memory, as far as they are the same
        measured[path] = ask(path, asked)
        assert measured[path].pop("found") == expected
    writer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with capfd.disabled():
        print(
            f"\n{NUMBERS} numbers and {RANGES} ranges: {seconds:.0f} s, {held.size / 1e6:.0f} MB; "
            f"writer {writer // 1024} MiB"
        )
        for path, told in measured.items():
            print(
                f"{path.name}: median {told['median'] * 1e6:.0f} µs, 99 % {told['p99'] * 1e6:.0f} µs, "
                f"max {told['max'] * 1e3:.1f} ms; memory {told['before'] // 1024} to {told['after'] // 1024} MiB"
            )
    assert measured[many]["median"] < 2 * measured[few]["median"]
    # What a reader holds: its bounded mappings and SQLite's cache of pages, whatever the file's size.
    assert measured[many]["after"] - measured[few]["after"] < 8 * 1024
