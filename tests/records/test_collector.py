"""Lines of the spool come into the ledger once each, and nothing is lost silently; in both databases."""

from __future__ import annotations

import fcntl
import json
import os
import resource
from pathlib import Path

import pytest

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.records import collector as module
from shaken_plugin.records.collector import Collector, Counts, collect
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.pieces import Piece, Refused, Stored
from shaken_plugin.records.spool import SpoolWriter, process_name
from tests.records.builders import call_ids, damaged, record, spool_rows

LARGE = 1 << 24


def names(count: int, begin: int = 0) -> list[str]:
    return [f"call-{number}" for number in range(begin, begin + count)]


def write(writer: SpoolWriter, call_ids: list[str]) -> None:
    for call_id in call_ids:
        assert writer.write(record(call_id=call_id)) is None


def gone(writer: SpoolWriter) -> None:
    """As if the process had ended: the kernel closes its file."""
    own = writer._own.pop(os.getpid())
    assert own.file is not None
    own.file.close()


def test_lines_of_a_writer_that_lives_are_collected_and_its_file_stays(ledger: Ledger, folder: Path) -> None:
    writer, one = SpoolWriter(folder, LARGE), Collector(folder, ledger)
    write(writer, names(3))
    assert one.collect() == Counts(collected=3)
    write(writer, names(2, 3))
    assert one.collect() == Counts(collected=2)
    assert one.collect() == Counts()
    assert call_ids(ledger) == names(5)
    (file,) = folder.iterdir()
    assert spool_rows(ledger) == {file.name: (file.stat().st_size, 5, 0)}


def test_unauthorised_caller_ids_are_counted(ledger: Ledger, folder: Path) -> None:
    writer = SpoolWriter(folder, 1_000_000)
    for name, unauthorised in (("a", True), ("b", False), ("c", True)):
        assert writer.write(record(call_id=name, unauthorised=unauthorised)) is None
    assert Collector(folder, ledger).collect() == Counts(collected=3, unauthorised=2)


def test_the_file_of_a_writer_that_is_gone_is_removed_once_the_ledger_has_it(ledger: Ledger, folder: Path) -> None:
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(3))
    gone(writer)
    assert collect(folder, ledger) == Counts(collected=3, removed=1)
    assert list(folder.iterdir()) == []
    assert spool_rows(ledger) == {}
    assert call_ids(ledger) == names(3)


def test_a_file_whose_last_line_was_collected_before_is_removed_later(ledger: Ledger, folder: Path) -> None:
    writer, one = SpoolWriter(folder, LARGE), Collector(folder, ledger)
    write(writer, names(1))
    one.collect()
    gone(writer)
    assert one.collect() == Counts(removed=1)
    assert list(folder.iterdir()) == []


def test_a_torn_line_is_counted_and_kept_once_its_writer_is_gone(ledger: Ledger, folder: Path) -> None:
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(2))
    (file,) = folder.iterdir()
    torn = record(call_id="torn").line()[:-1]  # but for its end it is whole: the writer did not say it was written
    with file.open("ab") as end:
        end.write(torn)
    one = Collector(folder, ledger)
    assert one.collect() == Counts(collected=2)  # it may be finished yet
    gone(writer)
    assert one.collect() == Counts(torn=1, removed=1)
    assert damaged(ledger) == [("torn: its writer did not finish it", torn)]
    assert call_ids(ledger) == names(2)


NO_RECORDS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"v":1,"kind":"sign"}',
    b'{"v":1,"kind":"sign","at":"soon"}',
    b'{"v":1,"kind":"sign","at":NaN}',
    b'{"v":1,"kind":"sign","at":1e999}',
    b'{"v":1,"kind":"sign","at":' + b"9" * 400 + b"}",
    b'{"v":1,"kind":"sign","at":' + b"9" * 5_000 + b"}",
    b'{"v":1,"kind":["sign"],"at":1}',
    b'{"v":"1","kind":"sign","at":1}',
    b'{"v":1,"kind":"none","at":1,"node":"n"}',
    b'{"v":1,"kind":"sign","at":1}',
    b'{"v":1,"kind":"sign","at":"1","node":"n"}',
    b'{"v":1,"kind":"sign","at":true,"node":"n"}',
    b'{"v":1,"kind":"sign","at":1,"node":"n","orig":["x"]}',
    b'{"v":1,"kind":"sign","at":1,"node":"n","customer":{"a":1}}',
    b'{"v":1,"kind":"sign","at":1,"node":"n","missing":5}',
    b'{"v":1,"kind":"sign","at":1,"node":"n","rules":[1]}',
    b'{"v":1,"kind":"sign","at":1,"node":"n","trace":[{"rule":"r","held":1,"finding":"f"}]}',
    b'{"v":1,"kind":"sign","at":1,"node":"n","trace":["r"]}',
    b'{"v":1,"kind":"sign","at":1,"node":"n","unauthorised":"yes"}',
    b'{"v":1,"kind":"verify","at":1,"node":"n","identities":1.5}',
    b'{"v":1,"kind":"sign","at":1,"call_id":"\xff"}',
    b'{"v":1,"kind":"sign","at":1,"call_id":"a\0b"}',
    b"\0" * 100,
    b"[" * 100_000,
]


def test_lines_that_are_no_records_are_kept_as_damage_and_others_go_on(ledger: Ledger, folder: Path) -> None:
    folder.mkdir()
    before, behind = record(call_id="before").line(), record(call_id="behind").line()
    (folder / f"{process_name()}-1.jsonl").write_bytes(before + b"\n".join(NO_RECORDS) + b"\n" + behind)
    assert collect(folder, ledger) == Counts(collected=2, damaged=len(NO_RECORDS), removed=1)
    assert call_ids(ledger) == ["before", "behind"]
    kept = damaged(ledger)
    assert [octets for _, octets in kept] == [octets[:65_536] for octets in NO_RECORDS]
    assert all(why.startswith("not a record of a call") for why, _ in kept)


def test_what_no_database_takes_is_replaced_in_columns_and_kept_in_the_record(ledger: Ledger, folder: Path) -> None:
    strange = {
        "v": 1,
        "kind": "sign",
        "at": 1,
        "node": "n",
        "call_id": "a\0b\udc80",
        "policy_version": 1 << 80,
        "later": 5,
    }
    folder.mkdir()
    (folder / f"{process_name()}-1.jsonl").write_bytes(json.dumps(strange).encode() + b"\n")
    assert collect(folder, ledger) == Counts(collected=1, removed=1)
    assert call_ids(ledger) == ["a\N{REPLACEMENT CHARACTER}b?"]


def test_a_line_without_an_end_is_damage(ledger: Ledger, folder: Path) -> None:
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(1))
    (file,) = folder.iterdir()
    with file.open("ab") as end:
        end.write(b"x" * (2 * module.MAX_READ))
    assert collect(folder, ledger) == Counts(collected=1)  # together with the first line: it may yet end
    counts = collect(folder, ledger)
    assert counts.damaged >= 1
    write(writer, names(1, 1))
    gone(writer)
    collect(folder, ledger)
    assert call_ids(ledger)[0] == "call-0"
    assert list(folder.iterdir()) == []


def test_many_files_and_octets_go_in_several_transactions(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_READ", 4_096)
    monkeypatch.setattr(module, "MAX_BATCH", 8_192)
    monkeypatch.setattr(module, "MAX_FILES", 2)
    for begin in range(0, 100, 20):
        writer = SpoolWriter(folder, LARGE)
        write(writer, names(20, begin))
        gone(writer)
    assert collect(folder, ledger) == Counts(collected=100, removed=5)
    assert sorted(call_ids(ledger)) == sorted(names(100))


def test_two_collectors_do_not_double(ledger: Ledger, folder: Path) -> None:
    writer = SpoolWriter(folder, LARGE)
    one, two = Collector(folder, ledger), Collector(folder, ledger)
    for begin in range(0, 40, 10):
        write(writer, names(5, begin))
        one.collect()
        write(writer, names(5, begin + 5))
        two.collect()  # what it believes of the file is out of date
    assert call_ids(ledger) == names(40)


def test_a_ledger_that_was_put_aside_is_made_anew_and_takes_what_is_there(tmp_path: Path, folder: Path) -> None:
    from tests.records.builders import sqlite

    ledger, writer = sqlite(tmp_path), SpoolWriter(folder, LARGE)
    one = Collector(folder, ledger)
    write(writer, names(2))
    one.collect()
    (tmp_path / "ledger.db").rename(tmp_path / "old.db")
    write(writer, names(2, 2))
    assert one.collect().collected == 4
    assert call_ids(ledger) == names(4)


def copied_back(folder: Path, ledger: Ledger, begin: int) -> Path:
    """A file that was collected and removed, and lies there again."""
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(3, begin))
    gone(writer)
    (file,) = folder.iterdir()
    octets = file.read_bytes()
    assert collect(folder, ledger).removed == 1
    file.write_bytes(octets)
    return file


def test_a_file_that_was_copied_back_is_known_and_keeps_no_other_from_the_ledger(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied_back(folder, ledger, 0)
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(2, 3))
    assert collect(folder, ledger) == Counts(collected=2, known=3, removed=1)
    gone(writer)
    collect(folder, ledger)
    monkeypatch.setattr(module, "MAX_READ", 600)  # a large one, in several pieces
    copied_back(folder, ledger, 5)
    assert collect(folder, ledger) == Counts(known=3, removed=1)
    assert call_ids(ledger) == names(8)


def test_a_file_that_was_copied_back_and_changed_is_damage(ledger: Ledger, folder: Path) -> None:
    file = copied_back(folder, ledger, 0)
    file.write_bytes(file.read_bytes().replace(b"call-1", b"other1"))
    assert collect(folder, ledger) == Counts(known=2, damaged=1, removed=1)
    assert call_ids(ledger) == names(3)
    assert b"other1" in damaged(ledger)[0][1]


def test_a_file_that_the_database_refuses_keeps_no_other_from_it_and_is_named(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for begin in (0, 1, 2):
        writer = SpoolWriter(folder, LARGE)
        write(writer, names(1, begin))
        gone(writer)
    bad = sorted(folder.iterdir())[1]
    store = ledger.store

    def refuse(pieces: list[Piece], now: float) -> Stored:
        if bad.name in {piece.file for piece in pieces}:
            raise Refused("no such text")
        return store(pieces, now)

    monkeypatch.setattr(ledger, "store", refuse)
    one = Collector(folder, ledger)
    counts = one.collect()
    assert (counts.collected, counts.removed) == (2, 2)
    assert counts.troubles == [f"{bad}: the ledger refuses it: no such text"]
    assert list(folder.iterdir()) == [bad]


def test_two_collectors_where_one_opened_what_the_other_then_removed(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(2))
    gone(writer)
    one, two = Collector(folder, ledger), Collector(folder, ledger)
    is_gone = module._is_gone
    first: list[Counts] = []

    def late(descriptor: int) -> bool:
        monkeypatch.setattr(module, "_is_gone", is_gone)
        first.append(two.collect())
        return is_gone(descriptor)

    monkeypatch.setattr(module, "_is_gone", late)
    assert one.collect() == Counts()
    assert first == [Counts(collected=2, removed=1)]
    assert spool_rows(ledger) == {}  # nothing is left of a file that is no more
    assert call_ids(ledger) == names(2)


def test_files_by_the_thousand_need_few_descriptors(ledger: Ledger, folder: Path) -> None:
    folder.mkdir()
    for number in range(1, 400):
        (folder / f"{process_name()}-{number}.jsonl").touch()
    busy = [(folder / f"{process_name()}-{number}.jsonl").open("ab") for number in range(1, 400)]
    for file in busy:
        fcntl.flock(file, fcntl.LOCK_EX)
    write(writer := SpoolWriter(folder, LARGE), names(1))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    collector = Collector(folder, ledger)
    ledger.prepare()
    resource.setrlimit(resource.RLIMIT_NOFILE, (busy[-1].fileno() + 40, limits[1]))
    try:
        assert collector.collect() == Counts(collected=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in busy:
            file.close()
        gone(writer)


def test_a_file_with_another_name_is_told_and_not_collected(ledger: Ledger, folder: Path) -> None:
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(1))
    (file,) = folder.iterdir()
    other = folder / f"{process_name()}-1.jsonl"
    other.hardlink_to(file)
    counts = collect(folder, ledger)
    assert (counts.collected, len(counts.troubles)) == (0, 2)
    assert "hard link" in counts.troubles[0]
    other.unlink()
    assert collect(folder, ledger).collected == 1
    gone(writer)


def test_a_folder_that_is_a_link_is_told(ledger: Ledger, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"{process_name()}-1.jsonl").write_bytes(record().line())
    folder.symlink_to(tmp_path / "elsewhere")
    (trouble,) = collect(folder, ledger).troubles
    assert "is a link" in trouble
    assert Collector(folder, ledger).measure() == (0, 0.0)


def test_what_was_written_is_counted_although_the_rest_fails(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(2))
    gone(writer)

    def fail(files: object) -> None:
        raise StoreUnavailable("gone")

    counts, one = Counts(), Collector(folder, ledger)
    monkeypatch.setattr(ledger, "forget", fail)
    with pytest.raises(StoreUnavailable):
        one.collect(counts)
    assert (counts.collected, counts.removed) == (2, 1)


def test_other_things_in_the_folder_are_left_alone(ledger: Ledger, folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    line = record().line()
    (tmp_path / "secret").write_bytes(line)
    (folder / "notes.txt").write_bytes(line)
    (folder / f"{process_name()}-1.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / f"{process_name()}-2.jsonl")
    (folder / f"{process_name()}-3.jsonl").mkdir()
    counts = collect(folder, ledger)
    assert (counts.collected, counts.removed, len(counts.troubles)) == (0, 0, 3)
    assert len(list(folder.iterdir())) == 4


def test_a_file_that_somebody_cut_is_told_and_nothing_doubles(ledger: Ledger, folder: Path) -> None:
    writer, one = SpoolWriter(folder, LARGE), Collector(folder, ledger)
    write(writer, names(3))
    one.collect()
    (file,) = folder.iterdir()
    os.truncate(file, 10)
    (trouble,) = one.collect().troubles
    assert "nobody may cut spool files" in trouble
    assert call_ids(ledger) == names(3)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not remove the file")
def test_a_file_that_cannot_be_removed_is_told_and_not_collected_twice(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(1))
    gone(writer)

    def refuse(self: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    one = Collector(folder, ledger)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        counts = one.collect()
    assert (counts.collected, counts.removed) == (1, 0)
    assert "cannot be removed: Permission denied" in counts.troubles[0]
    assert one.collect() == Counts()  # not before a minute
    assert collect(folder, ledger) == Counts(removed=1)
    assert call_ids(ledger) == names(1)


def test_what_waits_is_measured_without_a_ledger(tmp_path: Path, folder: Path) -> None:
    now = [1_000.0]
    (tmp_path / "ledger.db").write_bytes(b"this is no database" * 100)
    one = Collector(folder, Ledger(f"sqlite:{tmp_path / 'ledger.db'}"), lambda: now[0])
    assert one.measure() == (0, 0.0)
    writer = SpoolWriter(folder, LARGE)
    write(writer, names(1))
    size = next(folder.iterdir()).stat().st_size
    assert one.measure() == (size, 0.0)
    with pytest.raises(StoreUnavailable, match="not a database"):
        one.collect()
    now[0] += 30
    assert one.measure() == (size, 30.0)
    (tmp_path / "ledger.db").unlink()
    assert one.collect().collected == 1
    assert one.measure() == (size, 0.0)
