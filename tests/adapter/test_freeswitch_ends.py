"""Ends of calls that a watch tells: which slots go, when, and what becomes of them where the watch breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from shaken_plugin.adapters.freeswitch.esl import ends as module
from shaken_plugin.adapters.freeswitch.esl.ends import HELD, Ends


class Watch:
    """A watch that ends when it is told to."""

    def __init__(self, core: str = "core") -> None:
        self.core = core
        self.broken = asyncio.Event()
        self.asked: list[str] = []
        self.told: Callable[[str], object] = print

    async def watch(self, variable: str, told: Callable[[str], object]) -> None:
        self.asked.append(variable)
        self.told = told

    async def closed(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.broken.wait(), seconds)
        except TimeoutError:
            return False
        return True


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BEGIN", 0.1)
    monkeypatch.setattr(module, "_IDLE", 0.05)


def test_a_watch_tells_of_ends_once_each_and_goes_when_nobody_needs_it() -> None:
    async def run() -> None:
        gone: list[str] = []
        ends, watch, tasks = Ends(gone.append), Watch(), []

        async def begin() -> None:
            tasks.append(asyncio.create_task(ends.serve(watch)))

        ends.hold("core", "a", "slot 1")
        ends.hold("core", "b", "slot 2")
        assert await ends.watched("core", begin)
        assert await ends.watched("core", begin)
        assert (len(tasks), watch.asked) == (1, [HELD])
        await ends.serve(watch)  # a second one for the same switch
        watch.told("a")
        watch.told("a")
        watch.told("unknown")
        assert gone == ["slot 1"]
        await asyncio.sleep(0.2)
        assert not tasks[0].done()
        watch.told("b")
        await asyncio.wait_for(tasks[0], 5)
        assert gone == ["slot 1", "slot 2"]
        ends.hold("core", "c", "slot 3")
        assert await ends.watched("core", begin)
        assert len(tasks) == 2
        watch.broken.set()
        await asyncio.wait_for(tasks[1], 5)

    asyncio.run(run())


def test_where_a_switch_is_gone_its_slots_alone_are_free() -> None:
    async def run() -> None:
        gone: list[str] = []
        ends, watch = Ends(gone.append), Watch()
        ends.hold("core", "a", "slot 1")
        ends.hold("other", "b", "slot 2")
        task = asyncio.create_task(ends.serve(watch))
        await asyncio.sleep(0.1)
        assert gone == []
        watch.broken.set()
        await asyncio.wait_for(task, 5)
        assert gone == ["slot 1"]

    asyncio.run(run())


def test_without_a_watch_it_is_said_in_bounded_time() -> None:
    async def run() -> bool:
        async def refused() -> str:
            return "-ERR CHAN_NOT_IMPLEMENTED"

        return await asyncio.wait_for(Ends(print).watched("core", refused), 5)

    assert not asyncio.run(run())
