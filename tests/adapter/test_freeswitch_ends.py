"""Ends of calls that a watch tells: which slots go, when, and what becomes of them where it or the agent ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shaken_plugin.adapters.freeswitch.esl import ends as module
from shaken_plugin.adapters.freeswitch.esl.ends import HELD, PAUSES, Ends, beginning_again, making
from shaken_plugin.adapters.freeswitch.esl.wire import PeerGone
from shaken_plugin.stores.presence import LEG, leg_owner

IDLE = 0.05


class Watch:
    """A watch that ends when it is told to, of a FreeSWITCH with some legs."""

    def __init__(self, *legs: str, core: str = "core") -> None:
        self.core = core
        self.legs = set(legs)
        self.broken = asyncio.Event()
        self.asked: list[str] = []
        self.told: Callable[[str], object] = print

    async def watch(self, variable: str, told: Callable[[str], object]) -> None:
        self.asked.append(variable)
        self.told = told

    async def is_there(self, uuid: str) -> bool:
        self.asked.append(uuid)
        if self.broken.is_set():
            raise PeerGone("it ended")
        return uuid in self.legs

    async def closed(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.broken.wait(), seconds)
        except TimeoutError:
            return False
        return True


class Bench:
    """One agent's `Ends`, with a clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.gone: list[str] = []
        self.ends = Ends(self.gone.append, lambda: self.now)
        self._tasks: list[asyncio.Task[None]] = []

    def serve(self, watch: Watch) -> asyncio.Task[None]:
        self._tasks.append(asyncio.create_task(self.ends.serve(watch)))
        return self._tasks[-1]

    def begins(self, watch: Watch) -> Callable[[], Awaitable[str]]:
        async def begin() -> str:
            self.serve(watch)
            return "+OK"

        return begin

    def follows(self, uuid: str, core: str = "core") -> bool:
        return self.ends.follows(leg_owner(core, uuid))


def run(test: Callable[[Bench], Any]) -> None:
    async def with_bench() -> None:
        await asyncio.wait_for(test(Bench()), 20)

    asyncio.run(with_bench())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BEGIN", 0.1)
    monkeypatch.setattr(module, "_IDLE", IDLE)


def test_a_watch_tells_of_ends_once_each_and_goes_when_nobody_needs_it() -> None:
    async def test(bench: Bench) -> None:
        ends, watch = bench.ends, Watch("a", "b")
        ends.hold("core", "a", "slot 1")
        ends.hold("core", "b", "slot 2")
        assert await ends.watched("core", bench.begins(watch))
        assert await ends.watched("core", bench.begins(Watch()))
        assert watch.asked == [HELD]
        assert len(bench._tasks) == 1
        await ends.serve(Watch())  # a second one for the same switch
        watch.told("a")
        watch.told("a")
        watch.told("unknown")
        assert bench.gone == ["slot 1"]
        assert [bench.follows("a"), bench.follows("b")] == [False, True]
        await asyncio.sleep(4 * IDLE)
        assert not bench._tasks[0].done()
        watch.told("b")
        await bench._tasks[0]
        assert bench.gone == ["slot 1", "slot 2"]
        ends.hold("core", "c", "slot 3")
        assert await ends.watched("core", bench.begins(Watch("c")))
        assert len(bench._tasks) == 2

    run(test)


def test_where_a_switch_is_gone_its_slots_alone_are_free_after_some_seconds() -> None:
    async def test(bench: Bench) -> None:
        watches = {core: Watch("a", core=core) for core in ("core", "other")}
        tasks = {core: bench.serve(watch) for core, watch in watches.items()}
        for core in watches:
            bench.ends.hold(core, "a", f"slot of {core}")
        await asyncio.sleep(IDLE)
        watches["core"].broken.set()
        await tasks["core"]
        assert bench.follows("a")  # it may have been the network
        assert bench.ends.is_wanted("core")
        bench.now += 5
        assert not bench.follows("a")
        assert not bench.ends.is_wanted("core")
        assert bench.follows("a", "other")
        assert bench.gone == ["slot of core"]

    run(test)


def test_an_end_while_no_watch_was_there_is_learned_from_the_next_one() -> None:
    async def test(bench: Bench) -> None:
        first = Watch("a", "b")
        for uuid in ("a", "b"):
            bench.ends.hold("core", uuid, f"slot of {uuid}")
        task = bench.serve(first)
        await asyncio.sleep(IDLE)
        first.broken.set()
        await task
        bench.serve(Watch("b"))
        await asyncio.sleep(IDLE)
        assert bench.gone == ["slot of a"]
        bench.now += 3600
        assert [bench.follows("a"), bench.follows("b")] == [False, True]

    run(test)


def test_a_new_agent_asks_after_the_legs_of_the_one_before_it() -> None:
    async def test(bench: Bench) -> None:
        for uuid in ("a", "b"):
            bench.ends.resume(leg_owner("core", uuid), f"slot of {uuid}")
        bench.now += 44
        assert [bench.follows("a"), bench.follows("b")] == [True, True]
        assert bench.gone == []
        assert bench.ends.is_wanted("core")
        assert [bench.ends.is_due("core"), bench.ends.is_due("core"), bench.ends.is_due("other")] == [
            True,
            False,
            False,
        ]
        bench.now += 0.5
        assert bench.ends.is_due("core")
        watch = Watch("b")
        bench.serve(watch)
        await asyncio.sleep(IDLE)
        assert not bench.ends.is_wanted("core")
        assert watch.asked[0] == HELD  # from now on ends are told; so none is missed
        assert sorted(watch.asked[1:]) == ["a", "b"]
        assert bench.gone == ["slot of a"]
        bench.ends.resume(leg_owner("core", "c"), "slot of c")  # its file could not be read before
        await asyncio.sleep(3 * IDLE)
        assert bench.gone == ["slot of a", "slot of c"]
        assert sorted(watch.asked[1:]) == ["a", "b", "c"]  # once each
        bench.now += 6 * 3600
        assert bench.follows("b")
        watch.told("b")
        assert not bench.follows("b")

    run(test)


def test_a_watch_that_came_back_before_it_was_known_what_is_held_here_may_come_once_more() -> None:
    async def test(bench: Bench) -> None:
        await bench.serve(Watch("a"))  # no leg is held: it is not needed
        bench.now += 20
        bench.ends.resume(leg_owner("core", "a"), "slot of a")
        assert bench.follows("a")
        assert bench.ends.is_due("core")
        bench.now += 45
        assert not bench.follows("a")

    run(test)


def test_a_switch_that_does_not_come_back_frees_its_slots_within_a_minute() -> None:
    async def test(bench: Bench) -> None:
        bench.ends.resume(leg_owner("core", "a"), "slot of a")
        bench.ends.hold("core", "new", "slot of a call that begins")
        bench.now += 45
        assert not bench.follows("a")
        assert bench.gone == ["slot of a"]  # whoever serves the other leg knows what becomes of it
        assert not bench.follows("a")
        assert not bench.ends.follows("1-1")

    run(test)


def test_a_watch_that_breaks_while_it_is_asked_leaves_the_rest_for_the_next_one() -> None:
    async def test(bench: Bench) -> None:
        bench.ends.resume(leg_owner("core", "a"), "slot of a")
        watch = Watch()
        watch.broken.set()
        with pytest.raises(PeerGone):
            await bench.serve(watch)
        assert bench.follows("a")
        bench.serve(Watch())
        await asyncio.sleep(IDLE)
        assert bench.gone == ["slot of a"]

    run(test)


@pytest.mark.parametrize("answer", ["-ERR CHAN_NOT_IMPLEMENTED", "+OK"], ids=["refused", "never there"])
def test_without_a_watch_it_is_said_in_bounded_time(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if answer.startswith("-"):
        monkeypatch.setattr(module, "_BEGIN", 3600.0)  # who is refused does not wait

    async def test(bench: Bench) -> None:
        async def begin() -> str:
            return answer

        assert not await bench.ends.watched("core", begin)

    run(test)


def test_a_watch_looks_for_an_agent_within_the_time_that_is_waited_for_it() -> None:
    assert max(PAUSES) < module._BACK < 120
    command = making("127.0.0.1:8086")
    assert command.count("socket:127.0.0.1:8086/") == len(PAUSES) + 1
    assert command.partition("'")[2].count(",") < 128  # what FreeSWITCH takes (inline_dialplan_hunt)
    assert command.partition("'")[2] == beginning_again("a", "127.0.0.1:8086").partition("'")[2]


@pytest.mark.parametrize("text", ["", "1-1", "leg:core:", "leg::a", "leg:core:a b", "leg:co:re/a", "leg:core:a\n"])
def test_what_is_no_leg_owns_no_call(text: str) -> None:
    assert LEG.fullmatch(text) is None
