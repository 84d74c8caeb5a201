"""The declared mode ``last_known``: what was last answered about this source and this number, and nothing else."""

from __future__ import annotations

import pytest

from shaken_plugin.core.records import PolicyFacts
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores.last_known import MAX_REMEMBERED, LastKnown


class Scripted:
    """A store that answers with a version, or fails while there is none."""

    def __init__(self) -> None:
        self.version: int | None = 1

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        if self.version is None:
            raise StoreUnavailable("away")
        return PolicyFacts(None, (), self.version)

    def stamp(self) -> int | None:
        return self.version


def test_the_newest_answer_is_remembered() -> None:
    behind = Scripted()
    store = LastKnown(behind)
    store.facts("192.0.2.1", None, None)
    behind.version = 2
    store.facts("192.0.2.1", None, None)
    behind.version = None
    assert store.facts("192.0.2.1", None, None).version == 2


@pytest.mark.parametrize(
    "question", [("192.0.2.2", "u", "1"), ("192.0.2.1", "v", "1"), ("192.0.2.1", "u", "2"), ("192.0.2.1", "u", None)]
)
def test_an_answer_is_not_lent_to_another_source_or_number(question: tuple[str, str, str | None]) -> None:
    behind = Scripted()
    store = LastKnown(behind)
    store.facts("192.0.2.1", "u", "1")
    behind.version = None
    with pytest.raises(StoreUnavailable, match="away"):
        store.facts(*question)


def test_the_store_is_asked_first_whenever_it_can_be_read() -> None:
    behind = Scripted()
    store = LastKnown(behind)
    store.facts(None, None, None)
    behind.version = None
    store.facts(None, None, None)
    behind.version = 3
    assert store.facts(None, None, None).version == 3


def test_no_answer_makes_another_one_forgotten() -> None:
    behind = Scripted()
    store = LastKnown(behind)
    for index in range(MAX_REMEMBERED - 1):
        store.facts(str(index), None, str(index))
    behind.version = None
    for index in range(MAX_REMEMBERED - 1):
        assert store.facts(str(index), None, str(index)).version == 1


def test_answers_are_bounded_in_number_and_the_oldest_are_forgotten_first() -> None:
    behind = Scripted()
    store = LastKnown(behind)
    for index in range(MAX_REMEMBERED + 1):
        store.facts(str(index), None, None)
    behind.version = None
    for index in (MAX_REMEMBERED, MAX_REMEMBERED // 2 + 1):
        assert store.facts(str(index), None, None).version == 1
    with pytest.raises(StoreUnavailable):
        store.facts("0", None, None)
