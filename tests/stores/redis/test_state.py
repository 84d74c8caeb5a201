"""What a fleet's state may meet in Redis: an upkeep at the wrong moment, and content that no host of ours wrote."""

from __future__ import annotations

import random
import time
import tracemalloc
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.stores.redis import state
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.state import Snapshot, StateStream
from shaken_plugin.stores.redis.upkeep import sweep


@pytest.fixture
def log(server: RedisServer) -> FleetLog:
    return FleetLog(server.access, f"t{uuid.uuid4().hex[:20]}")


@pytest.fixture
def stream(log: FleetLog) -> Iterator[StateStream]:
    opened = StateStream(log.access, log.fleet)
    yield opened
    opened.close()


def chunks(log: FleetLog) -> int:
    return len(log.client.keys(f"shaken:{log.fleet}:chunk:*"))


# --- Uploads, and what is swept ------------------------------------------------------------------------


def test_a_snapshot_is_nobodys_waste_while_it_is_uploaded(log: FleetLog, stream: StateStream) -> None:
    swept: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield b"one"
        time.sleep(1.1)  # Redis counts whole seconds
        swept.append(sweep(log))  # the upkeep of another host
        yield b"two"

    assert stream.found("f", pieces())
    assert list(stream.snapshot().pieces) == [b"one", b"two"]
    assert stream.publish("f", "s", 1, "u", "{}")
    assert stream.replace_snapshot(Snapshot("f", 1, "u", pieces()))
    assert swept == [0, 0]
    assert list(stream.snapshot().pieces) == [b"one", b"two"]
    assert chunks(log) == 2
    assert log.command("ZCARD", log.key("staged")) == 0


@pytest.mark.parametrize("at", ["between", "end"])
def test_a_snapshot_that_was_given_up_never_gets_into_force(log: FleetLog, stream: StateStream, at: str) -> None:
    def give_up() -> None:
        for name in log.command("ZRANGE", log.key("staged"), 0, -1):
            log.command("ZADD", log.key("staged"), 1, name)  # its host slept for an hour
        sweep(log)

    def pieces() -> Iterator[bytes]:
        yield b"one"
        if at == "between":
            give_up()
        yield b"two"
        if at == "end":
            give_up()

    late = "took more than 3600 seconds, or was given up; nothing was changed, try again"
    with pytest.raises(StoreError, match=late):
        stream.found("f", pieces())
    assert stream.head() is None
    assert stream.found("f", [b"whole"])
    assert stream.publish("f", "s", 1, "u", "{}")
    with pytest.raises(StoreError, match=late):
        stream.replace_snapshot(Snapshot("f", 1, "u", pieces()))
    assert list(stream.snapshot().pieces) == [b"whole"]
    assert chunks(log) == 1


def test_a_snapshot_whose_successor_came_unnoticed_is_swept(
    log: FleetLog, stream: StateStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stream.found("f", [b"old"])
    assert stream.publish("f", "s", 1, "u", "{}")
    monkeypatch.setattr(StateStream, "_drop", lambda *_: None)  # its host is killed before that
    assert stream.replace_snapshot(Snapshot("f", 1, "u", [b"new"]))
    assert chunks(log) == 2
    assert sweep(log) == 1
    assert list(stream.snapshot().pieces) == [b"new"]


# --- What no host of ours wrote ------------------------------------------------------------------------


def entries(log: FleetLog, stream: StateStream, *bodies: bytes) -> None:
    assert stream.found("f", [b"{}"])
    for number, body in enumerate(bodies, 1):
        words = ("s", "x", "n", number, "u", f"u{number}", "b", body)
        log.command("XADD", log.key("state"), f"{number}-0", *words)


def peak_of(work: Callable[[], object]) -> int:
    """Octets that some work takes at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


MIB: Final = 1_048_576


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a busy machine passes through Redis in no time."""
    monkeypatch.setattr(state, "MAX_BODY", MIB)
    monkeypatch.setattr(state, "MAX_ANSWER", MIB)


def test_entries_that_unpack_to_much_are_not_unpacked_together(log: FleetLog, stream: StateStream) -> None:
    entries(log, stream, *[zlib.compress(bytes(MIB), 9)] * 8)
    seen: list[int] = []

    def read() -> None:
        while found := stream.after(len(seen), f"u{len(seen)}" if seen else "", 200):
            seen.extend(one.position for one in found)

    assert peak_of(read) < 4 * MIB
    assert seen == list(range(1, 9))


def test_entries_that_are_long_are_not_fetched_together(log: FleetLog, stream: StateStream) -> None:
    noise = random.Random(1).randbytes(MIB // 3)
    entries(log, stream, *[zlib.compress(noise)] * 12)
    seen: list[int] = []

    def read() -> None:
        while found := stream.after(len(seen), f"u{len(seen)}" if seen else "", 200):
            seen.extend(one.position for one in found)

    assert peak_of(read) < 4 * MIB
    assert seen == list(range(1, 13))


def test_an_entry_longer_than_any_is_not_fetched(log: FleetLog, stream: StateStream) -> None:
    entries(log, stream, zlib.compress(b"{}"), zlib.compress(b"{}"), bytes(5 * MIB))

    def read() -> None:
        with pytest.raises(StoreError, match="is damaged"):
            stream.after(2, "u2", 200)

    assert peak_of(read) < MIB


def test_a_snapshot_is_unpacked_as_it_is_read(log: FleetLog, stream: StateStream) -> None:
    assert stream.found("f", (bytes(MIB) for _ in range(8)))

    def read() -> None:
        assert sum(len(piece) for piece in stream.snapshot().pieces) == 8 * MIB

    assert peak_of(read) < 4 * MIB


@pytest.mark.parametrize("limit", ["MAX_PACKED", "MAX_STATE"])
def test_a_snapshot_is_bounded_in_sum(stream: StateStream, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    piece = random.Random(1).randbytes(1_000)
    assert stream.found("f", [piece] * 4)
    monkeypatch.setattr(state, limit, 3 * 1_011)  # so that the last piece begins where there is no more room
    with pytest.raises(StoreError, match="the snapshot of the state is damaged: "):
        stream.snapshot()


def test_a_piece_longer_than_any_is_not_fetched(log: FleetLog, stream: StateStream) -> None:
    assert stream.found("f", [b"{}"])
    name = log.command("HGET", log.key("state:head"), "pieces").decode()
    log.command("SETRANGE", f"shaken:{log.fleet}:chunk:{name}:0", 5 * MIB, b"x")

    def read() -> None:
        with pytest.raises(StoreError, match="is damaged"):
            list(stream.snapshot().pieces)

    assert peak_of(read) < 4 * MIB


@pytest.mark.parametrize("count", ["200000", "-1", "x", str(10**30)])
def test_a_count_of_pieces_that_is_none_is_not_believed(log: FleetLog, stream: StateStream, count: str) -> None:
    assert stream.found("f", [b"{}"])
    log.command("HSET", log.key("state:head"), "count", count)
    with pytest.raises(StoreError, match="state:head is damaged"):
        stream.snapshot()


def test_nothing_is_fetched_behind_a_piece_that_is_not_there(
    log: FleetLog, stream: StateStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stream.found("f", [b"{}"])
    log.command("HSET", log.key("state:head"), "count", 16_000)
    asked: list[object] = []
    ask = StateStream._ask

    def counted(self: StateStream, *words: str | float | bytes) -> object:
        asked.append(words)
        return ask(self, *words)

    monkeypatch.setattr(StateStream, "_ask", counted)
    with pytest.raises(StoreUnavailable, match="is incomplete, or was just replaced"):
        stream.snapshot()
    assert len(asked) <= 4
