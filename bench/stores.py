"""Policy stores with ten thousand to ten million numbers, each built once for all sections that need it.

Numbers are drawn at random from the whole North American plan; what differs is how many there are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from bench import stage
from bench.numbering import Numbering
from bench.results import BenchError
from shaken_plugin.core.records import Basis, Customer, CustomerState, Right, Trunk
from shaken_plugin.lab.pki import Authority
from shaken_plugin.ports import Author, Span
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.stores.sqlite.upkeep import status

RIGHTS: Final = 1_000
"""Letters of one contact centre's clients, in every store: what grows is how many numbers they name."""

RANGED: Final = 10
"""Of so many calls one is made with a number in a range."""

KEPT: Final = 200
"""Numbers of each right that calls are made with, at most."""


@dataclass(frozen=True, slots=True)
class Content:
    """The numbers of one store: nine tenths of the plan hold single ones, the rest ranges."""

    numbering: Numbering
    numbers: int
    ranges: int

    def of_right(self, index: int) -> list[str]:
        """Its single numbers, each different, in no order; the rights divide the plan among them."""
        width = len(self.numbering) * 9 // 10 // RIGHTS
        count = self.numbers // RIGHTS + (index < self.numbers % RIGHTS)
        places = random.Random(index).sample(range(index * width, (index + 1) * width), count)
        return [self.numbering.at(place) for place in places]

    def spans(self) -> Iterator[Span]:
        """The ranges, of 2 to 1,000 numbers within one area code, none touching another."""
        draw, first = random.Random(self.ranges), len(self.numbering) * 9 // 10
        width = (len(self.numbering) - first) // max(self.ranges, 1)
        for index in range(self.ranges):
            length = draw.randint(2, min(1_000, width // 2))
            begin = first + index * width + draw.randrange(width - length)
            begin -= max(0, begin % 8_000_000 + length - 8_000_000)
            yield Span(self.numbering.at(begin), self.numbering.at(begin + length - 1))


@dataclass(frozen=True, slots=True)
class Store:
    """A store that was built, and numbers in it to call with."""

    settings: Path
    seconds: float
    octets: int
    numbers: list[str]
    spans: list[Span]

    def callers(self, draw: random.Random, count: int) -> list[str]:
        """Different random numbers, one in `RANGED` within a range."""
        ranged = [
            str(draw.randint(int(span.first), int(span.last)))
            for span in draw.sample(self.spans, min(len(self.spans), count // RANGED))
        ]
        found = ranged + draw.sample(self.numbers, min(len(self.numbers), count - len(ranged)))
        draw.shuffle(found)
        return found


def build(folder: Path, authority: Authority, content: Content, advance: Callable[[], object] = lambda: None) -> Store:
    """A provider whose store has this content, written by the public interface in one change, in the order of keys.

    Args:
        folder: where; made.
        authority: issues its certificate.
        content: the numbers.
        advance: told after each right.

    Raises:
        BenchError: the store does not hold what was put in.
    """
    made = stage.provider(folder, authority, policy={}, agent={"enabled": False})
    stage.SwitchSide(made.settings)  # puts the settings in force
    path, kept, spans = folder / "policy.db", list[str](), list(content.spans())
    began = time.perf_counter()
    with SqlitePolicy(path).change(Author("bench", "content", time.time()), "content") as draft:
        customer = Customer("acme", "Acme Contact Centre", CustomerState.VERIFIED)
        draft.put(customer)
        draft.put(Trunk("acme-dialler", customer, addresses=(ip_network(stage.TRUNK),)))
        for index in range(RIGHTS):
            draft.put(Right(f"r{index:04}", "acme", Basis.LETTER, f"LOA-{index}"))
            numbers = content.of_right(index)
            draft.add_numbers(Right, f"r{index:04}", (Span(number, number) for number in numbers))
            kept += numbers[:KEPT]
            advance()
        draft.put(Right("ranges", "acme", Basis.ASSIGNED))
        draft.add_numbers(Right, "ranges", spans)
    seconds, held = time.perf_counter() - began, status(path)
    if (held.numbers, held.ranges) != (content.numbers, content.ranges):
        raise BenchError(f"the store holds {held.numbers} numbers and {held.ranges} ranges, not {content}")
    return Store(made.settings, seconds, held.size, kept, spans)


class Stores:
    """All that were asked for so far.

    Args:
        folder: where they are built.
        begin: see `Options`.
    """

    def __init__(self, folder: Path, begin: Callable[[str, int], Callable[[], object]]) -> None:
        self._folder, self._begin = folder, begin
        self._built: dict[int, Store] = {}

    def of(self, numbers: int) -> Store:
        """The store with so many single numbers, and a range for every hundred of them."""
        if numbers not in self._built:
            advance = self._begin(f"store of {numbers} numbers", RIGHTS)
            content = Content(self._numbering, numbers, numbers // 100)
            self._built[numbers] = build(self._folder / str(numbers), self._authority, content, advance)
        return self._built[numbers]

    @cached_property
    def _numbering(self) -> Numbering:
        return Numbering.make()

    @cached_property
    def _authority(self) -> Authority:
        return Authority.new(time.time())
