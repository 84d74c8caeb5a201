"""CSV files as they come: rows understood one by one, and every bad one told."""

from __future__ import annotations

import contextlib
import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Basis,
    Customer,
    CustomerState,
    DoNotOriginate,
    Overrides,
    Right,
    Withheld,
)
from shaken_plugin.errors import FileProblems
from shaken_plugin.exchange import importing
from shaken_plugin.exchange.csvreading import Rows
from shaken_plugin.exchange.importing import RejectFile
from shaken_plugin.ports import Span
from shaken_plugin.stores.memory import MemoryPolicy
from tests.exchange.policies import content, load, made

ACME = Customer("acme", "Acme", CustomerState.VERIFIED)
LOA = Right("LOA-1", "acme", Basis.LETTER, "LOA-1", valid_until=1_814_400_000.0)
HEADER = "number,right,customer,basis,document,valid_until\n"
GOOD = "+13125550142,LOA-1,acme,letter,LOA-1,2027-06-30\n"


def store(*records: Any) -> MemoryPolicy:
    return made([ACME, *records])


def rights(policy: MemoryPolicy) -> dict[Right, list[str]]:
    """Each right with its numbers."""
    with policy.records() as records:
        return {
            right: [one.first if one.first == one.last else f"{one.first}-{one.last}" for one in numbers]
            for right in records.all(Right)
            for numbers in [records.numbers(Right, right.id)]
        }


def told(policy: MemoryPolicy, text: str | bytes, **options: Any) -> list[str]:
    """What is wrong with the rows, as ``row column: message``."""
    found: list[str] = []

    def reject(number: int, _row: Any, mistakes: Any) -> None:
        found.extend(f"{number} {mistake.column}: {mistake.message}" for mistake in mistakes)

    outcome = load(policy, text, reject=reject, **options)
    assert outcome.rejected == len({line.split()[0] for line in found})
    return found


def refused(text: str | bytes, **options: Any) -> list[str]:
    """What is wrong with the file as a whole."""
    with pytest.raises(FileProblems) as caught:
        load(store(), text, **options)
    return [str(problem) for problem in caught.value.problems]


# --- Files that are right -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        HEADER + GOOD,
        (HEADER + GOOD).replace("\n", "\r\n"),
        "\ufeff" + HEADER + GOOD,
        (HEADER + GOOD).replace(",", ";"),
        (HEADER + GOOD).replace(",", "\t"),
        (HEADER + GOOD).replace(",", "|"),
        HEADER + GOOD.replace("+", ""),
        HEADER + GOOD.replace("+13125550142", " '+13125550142 "),
        HEADER + GOOD.replace("+13125550142", "+13125550142..+13125550142"),
        HEADER + ",".join(f'"{cell}"' for cell in GOOD.strip().split(",")),
        HEADER.upper().replace("VALID_UNTIL", "Valid Until") + GOOD,
        HEADER + "\n,,,,,\n" + GOOD + "\n",
        HEADER.rstrip() + ",rejected_because\n" + GOOD.rstrip() + ',"once, it was"\n',
        HEADER.replace("number", "first,last") + GOOD.replace("0142,", "0142,,"),
        HEADER.replace("number", "first,last") + GOOD.replace("0142,", "0142,+13125550142,"),
    ],
    ids=[
        "as exported", "CRLF", "BOM", "semicolons", "tabs", "bars", "without +", "as text", "range of one", "quoted",
        "header as people write it", "empty rows", "an earlier reject file", "first alone", "first and last",
    ],
)  # fmt: skip
def test_a_file_may_look_as_a_spreadsheet_leaves_it(text: str) -> None:
    policy = store()
    outcome = load(policy, text)
    assert (outcome.rows, outcome.new_records, outcome.new_numbers) == (1, 1, 1)
    assert rights(policy) == {LOA: ["13125550142"]}


def test_every_column_arrives() -> None:
    policy = store()
    sha256 = "ab" * 32
    load(
        policy,
        "first,last,right,customer,owner,basis,document,sha256,path,use_case,valid_from,valid_until,approved_by,"
        "approved_at,suspended,rules\n"
        f"+13125550100,+13125550199,r,acme,Clinic,letter,LOA-2,{sha256.upper()},/a/b.pdf,reminders,2026-01-01,"
        "2027-06-30T12:00:00-05:00,Bob,2025-12-01,true,ceiling=B sign=false substitute=+13125550100\n",
    )
    ((right, numbers),) = rights(policy).items()
    assert right == Right(
        "r", "acme", Basis.LETTER, "LOA-2", "reminders", 1_767_225_600.0, 1_814_374_800.0, "Clinic", sha256,
        "/a/b.pdf", "Bob", 1_764_547_200.0, True, Overrides(ceiling=Attest.B, sign=False, substitute="13125550100"),
    )  # fmt: skip
    assert numbers == ["13125550100-13125550199"]


def test_numbers_are_added_to_a_right_by_its_id_alone() -> None:
    policy = store(LOA)
    outcome = load(policy, "number,right\n+13125550142,LOA-1\n+442079460123,LOA-1\n")
    assert (outcome.new_records, outcome.changed_records, outcome.new_numbers) == (0, 0, 2)
    assert rights(policy) == {LOA: ["13125550142", "442079460123"]}


def test_rights_without_id_are_those_of_equal_meaning() -> None:
    policy = store()
    text = "number,customer,basis,document\n+13125550142,acme,letter,L 1\n+13125550143,acme,letter,L 1\n"
    assert load(policy, text).new_records == 1
    ((right, numbers),) = rights(policy).items()
    assert right.id.startswith("acme-letter-L_1-")
    assert numbers == ["13125550142", "13125550143"]
    assert load(policy, text).new_records == 0


def test_the_do_not_originate_list_is_told_by_its_columns() -> None:
    policy = store()
    load(policy, "number,reason,note\n+12155550000,inbound_only,our hotline\n+12155550001..+12155550009,unused,\n")
    with policy.records() as records:
        found = {entry: list(records.numbers(DoNotOriginate, entry.id)) for entry in records.all(DoNotOriginate)}
    assert {(entry.reason, entry.note): numbers for entry, numbers in found.items()} == {
        (Withheld.INBOUND_ONLY, "our hotline"): [Span("12155550000", "12155550000")],
        (Withheld.UNUSED, None): [Span("12155550001", "12155550009")],
    }


def test_numbers_arrive_whatever_their_order_and_the_size_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_PORTION", 3)
    monkeypatch.setattr(importing, "_WORDINGS", 1)
    other = GOOD.replace("LOA-1", "LOA-2")
    text = HEADER + "".join(
        (GOOD if number % 2 else other).replace("0142", f"{number:04}") for number in reversed(range(1000, 1011))
    )
    policy = store()
    seen: list[int] = []
    outcome = load(policy, text, progress=seen.append)
    assert outcome.new_numbers == 11
    assert sorted(map(len, rights(policy).values())) == [5, 6]
    assert seen[-1] == len(text)
    assert len(seen) == 4  # once for each portion


# --- Rows that are wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("12155551,LOA-9,acme,letter,L,2027-06-30", "2 number: 12155551 may be a national number: write it in E.164"),
        ("2155551212,LOA-9,acme,letter,L,", "2 number: 2155551212 may be a national number"),
        ("5551212,LOA-9,acme,letter,L,", "2 number: 5551212 may be a national number"),
        ("1.21556E+10,LOA-9,acme,letter,L,", "2 number: a spreadsheet has shortened this number"),
        (",LOA-9,acme,letter,L,", "2 number: there is no number; 'none' for a record without"),
        ("+1215 555 1212,LOA-9,acme,letter,L,", "2 number: neither a number such as +12155551212 nor a range"),
        ("+12155551299..+12155551212,LOA-9,acme,letter,L,", "2 number: the end of the range"),
        ("+12155551212..+122,LOA-9,acme,letter,L,", "2 number: neither a number"),
        ("+12155551212,LOA-9,acme,resporg,,", "2 number: a RespOrg answers for toll-free numbers only"),
        ("+12155551212,LOA-9,acem,letter,L,", "2 customer: there is no customer acem (did you mean acme?)"),
        ("+12155551212,LOA-9,,letter,L,", "2 : customer is missing"),
        ("+12155551212,LOA-9,acme,leter,L,", "2 basis: not one of assigned, ported, resporg, letter, delegate"),
        ("+12155551212,LOA-9,acme,letter,,", "2 : document is missing: a letter of authorisation"),
        ("+12155551212,a/b,acme,letter,L,", "2 right: not a name"),
        ("+12155551212,LOA-9,acme,letter,L,30.06.2027", "2 valid_until: not a time such as"),
        ("+12155551212,LOA-9,acme,letter,a\x01b,", "2 document: not a text of 1 to 200 characters"),
        ("+12155551212,LOA-9,acme,letter", "2 : 4 cells, but the header has 6"),
        ("+12155551212,LOA-9,acme,letter,L,,", "2 : 7 cells, but the header has 6"),
    ],
)
def test_a_bad_row_is_told_with_its_column_and_keeps_all_out(row: str, expected: str) -> None:
    policy = store()
    before = content(policy)
    (line,) = told(policy, f"{HEADER}{row}\n{GOOD}")
    assert line.startswith(expected)
    assert content(policy) == before


def test_every_mistake_of_every_row_is_told_at_once() -> None:
    bad = "12,,nobody,leter,,never\n"
    assert [line.partition(":")[0] for line in told(store(), HEADER + bad + GOOD + bad)] == [
        f"{row} {column}" for row in (2, 4) for column in ("basis", "valid_until", "customer", "number")
    ]


def test_bytes_that_are_no_utf_8_are_told_in_their_row() -> None:
    text = (HEADER + GOOD).encode() + GOOD.replace("LOA-1,2027", "L\xfcdenscheid,2027").encode("latin-1")
    assert told(store(), text) == ["3 document: not UTF-8: save the file as CSV in UTF-8"]


@pytest.mark.parametrize("rules", ["ceiling", "ceiling=B ceiling=C", "=B"])
def test_rules_have_their_form(rules: str) -> None:
    text = f"number,customer,basis,rules\n+12155551212,acme,assigned,{rules}\n"
    assert told(store(), text)[0].startswith("2 rules: ")
    assert told(store(), text.replace(rules, "ceiling=D")) == ["2 rules: ceiling: not one of A, B or C"]


def test_rows_that_contradict_the_store_are_told_and_taken_only_on_demand() -> None:
    policy = store(LOA)
    text = HEADER + GOOD.replace("2027", "2028")
    assert told(policy, text) == [
        "2 valid_until: the store says 2027-06-30 of right LOA-1: --update changes it",
    ]
    outcome = load(policy, text, update=True)
    assert (outcome.changed_records, outcome.new_records) == (1, 0)
    ((right, _),) = rights(policy).items()
    assert right.valid_until == LOA.valid_until + 366 * 86_400  # type: ignore[operator]  # it has one


@pytest.mark.parametrize("update", [False, True])
def test_rows_that_contradict_each_other_are_told(update: bool) -> None:
    text = HEADER + GOOD + GOOD.replace("2027", "2028")
    expected = "3 valid_until: rows above say 2027-06-30 of right LOA-1: give it an id of its own"
    assert told(store(), text, update=update) == [expected]


def test_a_right_that_a_person_suspended_stays_so() -> None:
    suspended = Right("LOA-1", "acme", Basis.LETTER, "LOA-1", suspended=True)
    for text in ("number,right\n+12155551212,LOA-1\n", "number,right,suspended\n+12155551212,LOA-1,\n"):
        policy = store(suspended)
        assert load(policy, text).notes == []
        assert list(rights(policy)) == [suspended]
    policy = store(suspended)
    outcome = load(policy, "number,right,suspended\n+12155551212,LOA-1,false\n", update=True)
    assert outcome.notes == ["right LOA-1 stays suspended although the file says otherwise"]
    assert rights(policy) == {suspended: ["12155551212"]}


# --- Files that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "numbers.csv:1:1: there is no header: the first line names the columns"),
        ("\n", "numbers.csv:1:1: there is no header: the first line names the columns"),
        ("nubmer,right\n", "numbers.csv:1:1: unknown column nubmer (did you mean number?)"),
        ("number,right,x\n", "numbers.csv:1:3: unknown column x (known: number, first, last, right, customer"),
        ("number,right,number\n", "numbers.csv:1:3: the column number stands twice"),
        ("right,customer\n", "numbers.csv:1:1: there is no column number, nor first"),
        ("number,last,right\n", "numbers.csv:1:1: the column number stands for first and last"),
        ("number,customer\n", "numbers.csv:1:1: without the column right there must be basis"),
        ("number,note\n", "numbers.csv:1:1: without the column entry there must be reason"),
        (f'{HEADER}"+1215,acme\n', "numbers.csv:2:1: not CSV: unexpected end of data"),
        (f'{HEADER}"+1215"5,acme\n', "numbers.csv:2:1: not CSV: "),
    ],
)
def test_a_file_that_is_no_table_of_ours_is_refused(text: str, expected: str) -> None:
    assert any(line.startswith(expected) for line in refused(text))


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(["\n", "\r", ",", ";", '"', "'", "\x00", "\ud800", "+1", "2155551212", "..", "acme", "="])
    ).map(lambda parts: (HEADER + "".join(parts)).encode("utf-8", "surrogatepass"))
)
def test_whatever_a_file_holds_it_is_imported_or_told(data: bytes) -> None:
    with contextlib.suppress(FileProblems):
        outcome = load(store(), data, partial=True)
        assert outcome.good + outcome.rejected == outcome.rows


def test_utf_16_is_named() -> None:
    assert refused((HEADER + GOOD).encode("utf-16"))[0].endswith("this is UTF-16: save it as CSV in UTF-8")


def test_a_quote_that_is_never_closed_changes_nothing_even_in_part() -> None:
    policy = store()
    before = content(policy)
    with pytest.raises(FileProblems, match="not CSV"):
        load(policy, HEADER + GOOD + '"' + GOOD * 10_000, partial=True)
    assert content(policy) == before


# --- The good ones, and the rejected ------------------------------------------------------------


def _rejecting(text: str) -> tuple[io.StringIO, RejectFile]:
    out = io.StringIO(newline="")
    return out, RejectFile(out, Rows(io.BytesIO(text.encode()), "x").layout)


def test_good_rows_are_written_and_bad_ones_can_be_corrected_and_imported_again() -> None:
    bad = '+12155551212,=cmd,acme,letter,"LOA, 1",2027-06-30\n'
    text = HEADER + GOOD + bad + GOOD.replace("0142", "0143") + "12,LOA-1,acme,letter,LOA-1,2027-06-30\n"
    policy = store()
    out, reject = _rejecting(text)
    outcome = load(policy, text, partial=True, reject=reject)
    assert (outcome.rows, outcome.rejected, outcome.good, outcome.new_numbers) == (4, 2, 2, 2)
    assert rights(policy) == {LOA: ["13125550142", "13125550143"]}
    rows = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert rows[0] == ["rejected_row", "rejected_column", "rejected_because", *HEADER.strip().split(",")]
    assert [row[:2] for row in rows[1:]] == [["3", "right"], ["5", "number"]]
    assert rows[1][2].startswith("right: not a name")
    # What a spreadsheet would run is a text now, and is read as it was.
    assert rows[1][3:] == ["+12155551212", "'=cmd", "acme", "letter", "LOA, 1", "2027-06-30"]
    corrected = out.getvalue().replace("'=cmd", "LOA-9").replace("12,LOA-1", "+13125550144,LOA-1")
    assert load(policy, corrected).rejected == 0
    assert sorted(right.id for right in rights(policy)) == ["LOA-1", "LOA-9"]


def test_a_row_rejected_again_says_only_what_is_wrong_now() -> None:
    first, reject = _rejecting(HEADER)
    load(store(), HEADER + "12,LOA-1,acem,letter,LOA-1,\n", reject=reject)
    second, reject = _rejecting(first.getvalue())
    load(store(), first.getvalue().replace("acem", "acme"), reject=reject)
    (header, row) = csv.reader(io.StringIO(second.getvalue(), newline=""))
    assert header.count("rejected_because") == 1
    assert row[:3] == ["2", "number", "number: neither a number such as +12155551212 nor a range of them"]
    assert row[3:] == ["12", "LOA-1", "acme", "letter", "LOA-1", ""]


def test_a_right_none_of_whose_rows_is_good_is_not_made() -> None:
    policy = store()
    load(policy, HEADER + GOOD.replace("+13125550142", "12"), partial=True)
    assert rights(policy) == {}
