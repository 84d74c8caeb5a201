"""What lies in Redis is not what any release wrote: a named error, a bounded one, and the copy stays as it was."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shaken_plugin.core.material import StoredAnchors
from shaken_plugin.core.records import Right
from shaken_plugin.errors import ShakenError, StoreError
from shaken_plugin.ports import Span
from shaken_plugin.stores.redis import log as logs
from shaken_plugin.stores.redis import pieces, replica
from shaken_plugin.stores.redis.applying import mark_of
from shaken_plugin.stores.redis.entries import Head, snapshot_text
from shaken_plugin.stores.redis.pieces import Damaged, Reader, Sealed, Writer
from shaken_plugin.stores.redis.upkeep import renew_snapshot
from tests.stores.redis.conftest import ACME, ALICE, RIGHT, Host, NewHost, everything
from tests.stores.redis.test_copies import scattered

# --- Pieces -----------------------------------------------------------------------------------------


def written(fill: Callable[[Writer], None]) -> tuple[list[bytes], Sealed]:
    with Writer() as writer:
        fill(writer)
        sealed = writer.seal()
        return list(writer.pieces()), sealed


@given(
    numbers=st.lists(st.integers(-(2**61), 2**61), max_size=50),
    pairs=st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 10**15)), max_size=50),
    line=st.lists(st.one_of(st.text(), st.integers(), st.none()), min_size=1, max_size=5),
)
def test_what_was_written_is_read(numbers: list[int], pairs: list[tuple[int, int]], line: list[Any]) -> None:
    def fill(writer: Writer) -> None:
        writer.line(*line)
        writer.numbers(numbers)
        writer.pairs(pairs)
        writer.line("end")

    try:
        found, sealed = written(fill)
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    reader = Reader(found, sealed, "x")
    assert reader.line() == line
    assert list(reader.numbers(len(numbers))) == numbers
    assert list(reader.pairs(len(pairs))) == pairs
    assert reader.line() == ["end"]
    assert reader.line() is None


def test_many_numbers_take_few_octets_and_little_memory() -> None:
    def fill(writer: Writer) -> None:
        writer.numbers(iter(range(1, 300_001)))

    tracemalloc.start()
    found, sealed = written(fill)
    assert sum(Reader(found, sealed, "x").numbers(300_000)) == 45_000_150_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
    assert sealed.length < 100_000


def test_a_large_one_is_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 1_000)
    found, sealed = written(lambda writer: writer.numbers(scattered(5_000)))
    assert len(found) == sealed.pieces > 10
    assert {len(piece) for piece in found[:-1]} == {1_000}
    assert list(Reader(found, sealed, "x").numbers(5_000)) == scattered(5_000)
    monkeypatch.setattr(pieces, "MAX_PIECES", 3)
    with pytest.raises(StoreError, match="more than a fleet takes"):
        written(lambda writer: writer.numbers(scattered(5_000)))


def test_a_record_that_no_reader_takes_is_refused_by_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_LINE", 100)
    with pytest.raises(StoreError, match=r"a record of .* octets is more than a fleet takes"):
        written(lambda writer: writer.line("x" * 100))


def drain(found: list[bytes], sealed: Sealed) -> None:
    reader = Reader(found, sealed, "somewhere")
    while (line := reader.line()) is not None:
        if line[0] == "numbers":
            list(reader.numbers(line[1]))


def sound(writer: Writer) -> None:
    writer.line("numbers", 1_000)
    writer.numbers(scattered(1_000))
    writer.line("end")


def raw(data: bytes, **changed: Any) -> tuple[list[bytes], Sealed]:
    packed = zlib.compress(data)
    return [packed], Sealed(1, len(packed), len(data), logs_digest(packed))._replace(**changed)


def logs_digest(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (raw(b"no json\n"), "a line is no JSON"),
        (raw(b"[" * 100_000 + b"\n"), "a line is no JSON"),
        (raw(b"{}\n"), "a line is no list"),
        (raw(b"[]\n"), "a line is no list"),
        (raw(b'["x"]'), "it ends in a line"),
        (raw(b'["numbers", 3]\n' + bytes(16)), "it ends among numbers"),
        (raw(b'["numbers", 99999999999]\n' + bytes(16)), "it ends among numbers"),
        (raw(b'["x"]\n', size=3), "it holds more than it says"),
        (raw(b'["x"]\n', size=7), "it is not what was written"),
        (raw(b'["x"]\n', length=3), "it is longer than it says"),
        (raw(b'["x"]\n', length=99), "it is not what was written"),
        (raw(b'["x"]\n', digest="00"), "it is not what was written"),
        (([b"garbage"], Sealed(1, 7, 7, "")), "incorrect header"),
        (([], Sealed(0, 0, 0, "")), "it is not what was written"),
        (([zlib.compress(b'["x"]\n') + b"more"], Sealed(1, 99, 99, "")), "something follows its end"),
        (([zlib.compress(b'["x"]\n'), b"more"], Sealed(2, 99, 6, "")), "something follows its end"),
        (([zlib.compress(b"x" * 17_000_000)], Sealed(1, 99_999, 99_999_999, "")), "a line has no end"),
        (([bytes(1_048_577)], Sealed(2, 9_999_999, 99_999_999, "")), "it is longer than it says"),
    ],
)
def test_pieces_that_no_writer_made_are_damaged(made: tuple[list[bytes], Sealed], why: str) -> None:
    with pytest.raises(Damaged, match=f"somewhere: its content is damaged: .*{why}"):
        drain(*made)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    tracemalloc.start()
    with pytest.raises(Damaged, match="it holds more than it says"):
        drain([bomb], Sealed(1, len(bomb), 1_000, ""))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_line_of_many_small_things_takes_little_memory() -> None:
    line = b"[" + b"[]," * 5_000_000 + b"[]]\n"
    packed = zlib.compress(line)
    tracemalloc.start()
    with pytest.raises(Damaged, match="a line has no end"):
        drain([packed], Sealed(1, len(packed), len(line), ""))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000
    most = b"[" + b"[]," * (pieces.MAX_LINE // 3 - 2) + b"[]]\n"
    tracemalloc.start()
    drain(*raw(most))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 80_000_000


@settings(suppress_health_check=list(HealthCheck), max_examples=200)
@given(seed=st.integers(0, 2**32), cut=st.booleans())
def test_any_spoilt_octet_is_noticed(seed: int, cut: bool) -> None:
    found, sealed = written(sound)
    draw = random.Random(seed)
    data = bytearray(found[0])
    if cut:
        del data[draw.randrange(len(data)) :]
    else:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    with pytest.raises(Damaged):
        drain([bytes(data)], sealed)


# --- In Redis ------------------------------------------------------------------------------------------


def entry(host: Host, **fields: Any) -> None:
    """Write the next entry by hand."""
    view = host.log.look()
    found, sealed = fields.pop("made", None) or written(lambda writer: writer.line(*fields.pop("operation")))
    header = {
        "after": view.head.txid, "at": 1.0, "who": "mallory", "why": "a test", "what": "x", "applied": False,
        "sealed": sealed._asdict(), **fields.pop("header", {}),
    }  # fmt: skip
    version = view.head.version + 1
    words = {"txid": "spoilt", "head": json.dumps(header), "data": b"".join(found), **fields}
    flat = [word for pair in words.items() for word in pair]
    host.log.command("XADD", host.log.key("log"), f"{version}-0", *flat)
    host.log.command("HSET", host.log.key("head"), "version", version, "txid", "spoilt")


def short_number(writer: Writer) -> None:
    writer.line("add", "right", "r", 1, 0)
    writer.numbers([5])


def backward_range(writer: Writer) -> None:
    writer.line("add", "right", "r", 0, 1)
    writer.pairs([(9000, 4000)])


@pytest.mark.parametrize(
    "fields",
    [
        {"operation": ["dance"]},
        {"operation": ["put", "customer", "no json"]},
        {"operation": ["put", "customer", '{"id":"x"}']},
        {"operation": ["put", "elephant", "{}"]},
        {"operation": ["put", "trunk", '{"id":"t","customer":"nobody"}']},
        {"operation": ["put", "customer"]},
        {"operation": ["erase", "customer", "nobody"]},
        {"operation": ["add", "customer", "acme", 0, 0]},
        {"operation": ["add", "right", "nobody", 0, 0]},
        {"operation": ["add", "right", "r", 5, 0]},
        {"operation": ["add", "right", "r", -5, 0]},
        {"operation": ["add", "right", "r", 0, -7]},
        {"operation": ["remove", "right", "r", -5, 0]},
        {"operation": ["remove", "right", "r", 0, -7]},
        {"operation": ["forget", -5]},
        {"operation": ["forget", -(10**30)]},
        {"operation": ["forget", 2]},
        {"operation": ["add", "right", "r", 10**30, 0]},
        {"operation": ["material", "elephant/x"]},
        {"operation": ["material", "key"]},
        {"operation": ["put", "customer", "{}"], "head": "no json"},
        {"operation": ["put", "customer", "{}"], "head": "{}"},
        {"operation": ["put", "customer", "{}"], "head": " " * 70_000},
        {"operation": ["put", "customer", "{}"], "data": "x" * 70_000},
        {"operation": ["put", "customer", "{}"], "header": {"who": " "}},
        {"operation": ["put", "customer", "{}"], "header": {"why": "\x1b[2J"}},
        *({"operation": ["forget", 0], "header": {"at": at}} for at in (math.nan, math.inf, -1.0, 1e300)),
        {"operation": ["put", "customer", "{}"], "data": ""},
        {"made": written(short_number)},
        {"made": written(backward_range)},
    ],
)
def test_an_entry_that_no_release_wrote_changes_nothing(host: NewHost, fields: dict[str, Any]) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    there.replica.catch_up()
    before = everything(there.path)
    entry(here, **fields)
    for _ in range(2):
        with pytest.raises(Damaged, match=r"version 2.*: its content is damaged"):
            there.replica.catch_up()
    assert everything(there.path) == before
    with pytest.raises(StoreError):
        here.put(ACME)


@pytest.mark.parametrize(
    "values",
    [
        {"snapshot": "no json"},
        {"snapshot": "{}"},
        {"schema": "x"},
        {"reads": "x"},
        {"waiting": "x"},
    ],
)
def test_a_head_that_no_release_wrote_is_a_named_error(host: NewHost, values: dict[str, str]) -> None:
    here = host("here")
    here.put(ACME)
    for name, value in values.items():
        here.log.command("HSET", here.log.key("meta"), name, value)
    with pytest.raises(Damaged, match="its head is none"):
        here.replica.catch_up()
    assert here.version == 1


@pytest.mark.parametrize("version", ["-3", "0x1", str(2**63)])
def test_a_version_that_is_none_builds_nothing_anew(
    host: NewHost, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    here = host("here")
    here.put(ACME)
    here.log.command("HSET", here.log.key("head"), "version", version)
    built: list[object] = []
    monkeypatch.setattr(replica, "rebuild", lambda *words, **_: built.append(words))
    with pytest.raises(Damaged, match="its head is none"):
        here.replica.catch_up()
    assert built == []


def test_a_snapshot_of_a_version_that_is_none_is_a_named_error(host: NewHost) -> None:
    here = host("here")
    here.put(ACME)
    assert renew_snapshot(here.path, here.log)
    snapshot = here.log.look().snapshot
    assert snapshot is not None
    spoilt = snapshot_text(snapshot._replace(head=Head(-1, "t")))
    here.log.command("HSET", here.log.key("meta"), "snapshot", spoilt)
    with pytest.raises(Damaged, match="its head is none"):
        here.replica.catch_up()


def test_a_key_of_another_type_is_a_named_error(host: NewHost) -> None:
    here = host("here")
    here.log.command("DEL", here.log.key("meta"))
    here.log.command("SET", here.log.key("meta"), "x")
    with pytest.raises(StoreError, match=r"does not do what it was asked for: .*WRONGTYPE"):
        here.replica.catch_up()


@pytest.mark.parametrize("what", ["gone", "garbage", "another"])
def test_a_spoilt_snapshot_leaves_the_copy_alone(host: NewHost, what: str) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    here.add(*scattered(1_000))
    there.replica.catch_up()
    assert renew_snapshot(here.path, here.log)
    snapshot = here.log.look().snapshot
    assert snapshot is not None
    key = here.log.chunk_key(snapshot.txid, 0)
    if what == "gone":
        here.log.command("DEL", key)
    elif what == "garbage":
        here.log.command("SET", key, b"garbage")
    else:
        found, sealed = written(lambda writer: writer.line("end"))
        here.log.command("SET", key, found[0])
        text = snapshot_text(snapshot._replace(sealed=sealed))
        here.log.command("HSET", here.log.key("meta"), "snapshot", text)
    before = everything(there.path)
    here.log.command("XTRIM", here.log.key("log"), "MAXLEN", 0)
    here.add(12155551212)
    here.log.command("XTRIM", here.log.key("log"), "MAXLEN", 0)
    for one in (there, host("new")):
        with pytest.raises(Damaged, match="its content is damaged"):
            one.replica.catch_up()
    assert everything(there.path) == before
    assert not list(there.path.parent.glob(".*.new"))


def test_a_large_change_whose_chunk_is_gone_leaves_the_copy_alone(host: NewHost) -> None:
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    there.replica.catch_up()
    here.add(*scattered(60_000))
    here.log.command("DEL", here.log.chunk_key(here.log.head().txid, 0))
    with pytest.raises(Damaged, match="chunk 0 of 1 is not there"):
        there.replica.catch_up()
    assert there.version == 1
    assert renew_snapshot(here.path, here.log)
    there.replica.catch_up()
    assert everything(there.path) == everything(here.path)


@pytest.mark.parametrize("what", ["chunk", "entry"])
def test_what_is_longer_than_any_is_not_fetched(host: NewHost, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(logs, "MAX_ANSWER", 1_000_000)
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    there.replica.catch_up()
    here.add(*scattered(60_000))
    txid, log = here.log.head().txid, here.log.key("log")
    if what == "chunk":
        here.log.command("SETRANGE", here.log.chunk_key(txid, 0), 20_000_000, b"x")
    else:
        here.log.command("DEL", log)
        here.log.command("XADD", log, "2-0", "txid", txid, "head", "{}", "data", bytes(20_000_000))
    tracemalloc.start()
    with pytest.raises(Damaged, match=r"version 2.*: its content is damaged"):
        there.replica.catch_up()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


def test_entries_that_are_long_are_fetched_some_at_a_time(host: NewHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_ANSWER", 2_000)
    here, there = host("here"), host("there")
    here.put(ACME, RIGHT)
    for number in range(20):
        here.add(12155551200 + number)
    assert 2 <= len(here.log.entries(0, 64)) < 10
    assert there.replica.catch_up() == 21
    assert everything(there.path) == everything(here.path)


# --- Releases, and keys --------------------------------------------------------------------------------


def test_a_fleet_one_schema_newer_is_read_where_it_says_so_and_changed_by_its_own_release(host: NewHost) -> None:
    here, there = host("here"), host("there")
    here.put(ACME)
    here.log.command("HSET", here.log.key("meta"), "schema", logs.SCHEMA + 1)
    assert there.replica.catch_up() == 1
    with pytest.raises(StoreError, match="which may read it and not change it"):
        here.put(RIGHT)
    assert here.version == 1
    here.log.command("HSET", here.log.key("meta"), "reads", logs.SCHEMA + 1)
    with pytest.raises(StoreError, match="is newer than this release can read"):
        there.replica.catch_up()
    assert there.version == 1


def test_no_content_of_keys_gets_into_the_log_or_a_snapshot(host: NewHost) -> None:
    here = host("here")
    secret = "SEALED" * 20
    with here.policy.change(ALICE, "anchors") as draft:
        draft.put_material(StoredAnchors("us", secret))
    assert renew_snapshot(here.path, here.log)
    ((_, fields),) = here.log.command("XRANGE", here.log.key("log"), "-", "+")
    words = dict(zip(fields[::2], fields[1::2], strict=True)) if isinstance(fields, list) else fields
    assert secret.encode() not in b"".join(words.values())
    (first,) = here.log.entries(0, 1)
    assert here.log.reader(first).line() == ["material", "anchors/us"]
    assert list(here.log.material()) == ["anchors/us"]
    there = host("there")
    there.replica.catch_up()
    with there.policy.records() as records:
        assert records.material() == (StoredAnchors("us", secret),)
    with there.policy.change(ALICE, "gone") as draft:
        draft.remove_material(StoredAnchors, "us")
    assert here.log.material() == {}
    here.replica.catch_up()
    with here.policy.records() as records:
        assert records.material() == ()


def test_spoilt_keys_are_a_named_error_that_quotes_nothing(host: NewHost) -> None:
    here, there = host("here"), host("there")
    with here.policy.change(ALICE, "anchors") as draft:
        draft.put_material(StoredAnchors("us", "SEALED"))
    here.log.command("HSET", here.log.key("material"), "anchors/us", "SPOILT")
    with pytest.raises(ShakenError, match="anchors us: its content is damaged") as raised:
        there.replica.catch_up()
    assert "SPOILT" not in str(raised.value)
    assert mark_of(there.path).head.version == 0


def test_a_password_is_in_no_text(host: NewHost) -> None:
    from dataclasses import replace

    here = host("here")
    log = logs.FleetLog(replace(here.log.access, username="shaken", password="hunter2"), here.log.fleet)
    with pytest.raises(ShakenError, match="refuses the user or the password") as raised:
        log.head()
    assert "hunter2" not in f"{raised.value} {log.access!r} {raised.value.__cause__!r}"


def test_a_range_that_is_none_is_refused_before_anything_is_uploaded(host: NewHost) -> None:
    here = host("here")
    here.put(ACME, RIGHT)
    with pytest.raises(ValueError, match="no range"), here.policy.change(ALICE, "x") as draft:
        draft.add_numbers(Right, "r", [Span("2000", "1000")])
    assert here.log.head().version == 1
