"""``shaken number``, ``letter`` and ``dno``."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
import yaml

from shaken_plugin.cli.records.values import span_text
from shaken_plugin.core.records import DoNotOriginate, Right
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.ports import PolicyWriter, Span
from tests.cli.records import WHY, Run, RunJson, letter_file

# --- Numbers --------------------------------------------------------------------------------------


def test_numbers_of_one_kind_join_one_right(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    same = ["--customer", "acme", "--basis", "assigned"]
    (change,) = run_json("number", "add", "+12155551300", "+12155551400..+12155551409", *same, *WHY)["changes"]
    assert (change["id"], change["change"], change["numbers_added"]) == ("acme-assigned", "changed", 2)
    (change,) = run_json("number", "add", "+12155551500", *same, "--valid-until", "2090-01-01", *WHY)["changes"]
    assert (change["id"], change["change"]) == ("acme-assigned-2", "added")
    again = run_json("number", "add", "+12155551500", "--right", "acme-assigned-2", *WHY)
    assert (again["changes"], again["notes"]) == ([], ["some of the numbers were there already: right acme-assigned-2"])
    letter = ["--customer", "acme", "--basis", "letter", "--document", "LOA-9", "--approved-by", "Bob"]
    for number in ("+13125550160", "+13125550161"):
        (change,) = run_json("number", "add", number, *letter, "--ceiling", "B", *WHY)["changes"]
        assert change["id"] == "acme-letter-LOA-9"
    with centre.records() as records:
        right = records.get(Right, "acme-letter-LOA-9")
        assert records.count(Right, "acme-letter-LOA-9") == 2
    assert right is not None
    assert right.approved_at is not None


def test_numbers_are_listed_as_they_were_added(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    letter, own = run_json("number", "list")
    assert letter == {
        "numbers": "+13125550142",
        "count": 1,
        "customer": "acme",
        "owner": "Example Clinic",
        "right": "LOA-1",
        "basis": "letter",
        "document": "LOA-1",
        "valid_until": 4_086_547_200.0,
        "suspended": False,
    }
    assert (own["numbers"], own["count"], own["owner"]) == ("+12155551200..+12155551299", 100, None)
    for narrowed in (["--owner", "Example Clinic"], ["--basis", "letter"], ["--right", "LOA-1"], ["--limit", "1"]):
        assert run_json("number", "list", *narrowed) == [letter]
    assert run_json("number", "list", "--customer", "acme", "--limit", "0") == [letter, own]
    told = run("number", "list", "--limit", "1").stdout
    assert "2099-06-30" in told
    assert "… and more; --limit 0 shows all" in told


def test_a_list_of_numbers_is_printed_as_it_is_read(
    run: Run, centre: PolicyWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = (Span(str(number), str(number)) for number in itertools.count(12_155_550_000))
    with centre.records() as records:
        monkeypatch.setattr(type(records), "numbers", lambda *_: endless)
        assert len(run("number", "list", "--limit", "3").stdout.splitlines()) == 5
    assert next(endless).first == "12155550004"  # no more than was shown, and one to know that there are more


def test_all_about_a_number(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run("customer", "add", "globex", "--name", "Globex", "--state", "verified", *WHY)
    run("number", "add", "+13125550100..+13125550199", "--customer", "globex", "--basis", "customer_word", *WHY)
    data = run_json("number", "show", "+13125550142")
    assert data.keys() == {"number", "numbering_plan", "rights", "do_not_originate", "calls"}
    assert (data["number"], data["numbering_plan"]) == ("+13125550142", None)
    assert [(right["id"], right["numbers"], right["in_force"]) for right in data["rights"]] == [
        ("LOA-1", "+13125550142", True),
        ("globex-customer_word", "+13125550100..+13125550199", True),
    ]
    calls = {call["customer"]: (call["level"], call["missing"]) for call in data["calls"]}
    assert calls["acme"] == ("A", [])
    assert calls["globex"][0] == "B"
    assert "a letter of authorisation" in calls["globex"][1][0]
    told = run("number", "show", "+13125550142").stdout
    assert "Example Clinic" in told
    assert "customer's own" in told


def test_trunks_that_differ_are_told_apart(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run("trunk", "add", "acme-test", "--customer", "acme", "--user", "test", "--ceiling", "C", *WHY)
    calls = run_json("number", "show", "+13125550142")["calls"]
    assert [(call["trunk"], call["level"]) for call in calls] == [("acme-dialler", "A"), ("acme-test", "C")]


def test_a_number_that_nobody_has(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    data = run_json("number", "show", "+12125550199")
    assert (data["rights"], data["calls"]) == ([], [])
    assert "nobody has a right to it" in run("number", "show", "+12125550199").stdout


def test_numbers_go_in_the_bounds_in_which_they_came(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    told = run("number", "remove", "+12155551205", *WHY, code=1).stderr
    assert "it lies in +12155551200..+12155551299 of right acme-assigned" in told
    run("customer", "add", "globex", "--name", "Globex", *WHY)
    run("number", "add", "+13125550142", "--customer", "globex", "--basis", "customer_word", *WHY)
    told = run("number", "remove", "+13125550142", *WHY, code=1).stderr
    assert "say whose: acme (LOA-1), globex (globex-customer_word)" in told
    (change,) = run_json("number", "remove", "+13125550142", "--customer", "globex", *WHY)["changes"]
    assert (change["id"], change["numbers_removed"]) == ("globex-customer_word", 1)
    run("number", "remove", "+12155551200..+12155551299", "--right", "acme-assigned", *WHY)
    with centre.records() as records:
        assert records.count(Right, "acme-assigned") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["add", "+12155551300", *WHY], 2, "--customer and --basis"),
        (["add", "+12155551300", "--right", "LOA-1", "--owner", "x", *WHY], 2, "'shaken right set'"),
        (["add", "+12155551300", "--right", "LOA-2", *WHY], 1, "did you mean LOA-1?"),
        (["add", "+12155551300", "--customer", "acmee", "--basis", "ported", *WHY], 1, "did you mean acme?"),
        (["add", "+12155551300", "--customer", "acme", "--basis", "letter", *WHY], 1, "--document"),
        (["add", "+12155551300", "--customer", "acme", "--basis", "resporg", *WHY], 1, "toll-free"),
        (["add", "+12155551300..+12155551299", "--customer", "acme", "--basis", "ported", *WHY], 2, "end of the range"),
        (["remove", "+12155551300", "--customer", "acmee", *WHY], 1, "did you mean acme?"),
        (["list", "--customer", "acmee"], 1, "did you mean acme?"),
        (["list", "--basis", "leter"], 2, "did you mean letter?"),
        (["show", "acme"], 2, "not a telephone number"),
    ],
)
def test_mistakes_with_numbers(run: Run, in_memory: PolicyWriter, arguments: list[str], code: int, told: str) -> None:
    assert told in run("number", *arguments, code=code).stderr
    with in_memory.records() as records:
        assert records.version == 4


@pytest.mark.parametrize("typed", ["2155551200", "12155551200", "(215) 555-1200", "01112155551200", "+12155551200"])
def test_numbers_are_read_by_the_dial_plan(run: Run, run_json: RunJson, centre: PolicyWriter, typed: str) -> None:
    assert run_json("number", "show", typed)["number"] == "+12155551200"
    assert run_json("number", "show", typed)["rights"] != []
    assert run_json("dno", "show", typed, code=1)["number"] == "+12155551200"
    run("dno", "add", typed, "--reason", "unused", *WHY)
    assert run_json("dno", "show", "+12155551200")["withheld"] is True
    run("dno", "remove", typed, *WHY)
    run("letter", "add", "L", "--customer", "acme", "--numbers", typed, *WHY)
    run("substitution", "add", "s", "--customer", "acme", "--number", typed, *WHY)
    assert run_json("substitution", "show", "s")["number"] == "12155551200"
    assert run_json("letter", "show", "L")["numbers"]["first"] == ["+12155551200"]
    run("number", "remove", typed, "--right", "L", *WHY)


def test_ranges_are_read_by_the_dial_plan(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run("number", "add", "2155551300..2155551399", "--right", "acme-assigned", *WHY)
    assert run_json("number", "list", "--right", "acme-assigned")[1]["numbers"] == "+12155551300..+12155551399"


@pytest.mark.parametrize("typed", ["442071838750", "5551200", "911", "0"])
def test_what_the_dial_plan_cannot_place_is_refused(run: Run, in_memory: PolicyWriter, typed: str) -> None:
    for command in (["number", "show", typed], ["dno", "show", typed], ["number", "remove", typed, *WHY]):
        told = run(*command, code=2).stderr
        assert "not a number by the dial plan of US; with + and country code it is clear" in told


def test_without_settings_there_is_no_dial_plan(run: Run, in_memory: PolicyWriter) -> None:
    told = run("number", "show", "2155551200", "--settings", "/nonexistent", code=2).stderr
    assert "without + it needs the dial plan of the settings, and /nonexistent" in told


def test_another_country_dials_otherwise(run_json: RunJson, in_memory: PolicyWriter, provider: Provider) -> None:
    data = yaml.safe_load(provider.settings.read_text()) | {"country": "GB"}
    dump(provider.settings, data)
    assert run_json("number", "show", "02071838750")["number"] == "+442071838750"
    assert run_json("number", "show", "02071838750", "--settings", provider.settings)["number"] == "+442071838750"


# --- Some numbers of a right ----------------------------------------------------------------------


def spans_of(store: PolicyWriter, right: str) -> list[str]:
    with store.records() as records:
        return [span_text(span) for span in records.numbers(Right, right)]


def test_a_number_out_of_force_and_the_others_not(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    def levels(*numbers: str) -> list[str]:
        return [run_json("number", "show", number)["calls"][0]["level"] for number in numbers]

    done = run_json("number", "suspend", "+12155551205", *WHY)
    assert done["notes"][0] == (
        "+12155551205 taken out of right acme-assigned (split: +12155551200..+12155551299), "
        "now of right acme-assigned-2"
    )
    assert spans_of(centre, "acme-assigned") == ["+12155551200..+12155551204", "+12155551206..+12155551299"]
    assert spans_of(centre, "acme-assigned-2") == ["+12155551205"]
    assert levels("+12155551204", "+12155551205", "+12155551206") == ["A", "B", "A"]
    run("number", "suspend", "+12155551206", "+12155551290..+12155551299", *WHY)  # they join it
    assert spans_of(centre, "acme-assigned-2") == [
        "+12155551205", "+12155551206", "+12155551290..+12155551299",
    ]  # fmt: skip
    assert "'--by'" in run("number", "reinstate", "+12155551205", "--why", "sorted out", code=2).stderr
    run("number", "reinstate", "+12155551205", *WHY)  # back to where it was
    assert "+12155551205" in spans_of(centre, "acme-assigned")
    assert levels("+12155551204", "+12155551205", "+12155551206") == ["A", "A", "B"]


def test_all_numbers_of_a_right_are_the_right_itself(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    done = run_json("number", "suspend", "+13125550142", *WHY)
    assert [(change["id"], change["change"]) for change in done["changes"]] == [("LOA-1", "changed")]
    assert done["changes"][0]["fields"] == {"suspended": [False, True]}
    run("number", "reinstate", "+13125550142", *WHY)
    assert run_json("number", "reinstate", "+13125550142", *WHY)["changes"] == []
    done = run_json("number", "set", "+13125550142", "--owner", "Example Hospital", "--clear", "valid-until", *WHY)
    assert done["changes"][0]["fields"]["owner"] == ["Example Clinic", "Example Hospital"]
    assert done["changes"][0]["fields"]["valid_until"][1] is None


def test_some_numbers_are_set_apart(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run(
        "number", "set", "+12155551210..+12155551219", "--customer", "acme", "--use-case", "fax", "--basis", "ported",
        "--valid-until", "2090-12-31", "--approved-by", "Bob", *WHY,
    )  # fmt: skip
    shown = run_json("number", "show", "+12155551215")["rights"]
    assert [(right["basis"], right["use_case"], right["numbers"]) for right in shown] == [
        ("ported", "fax", "+12155551210..+12155551219")
    ]
    assert shown[0]["approved_at"] is not None
    assert spans_of(centre, "acme-assigned") == ["+12155551200..+12155551209", "+12155551220..+12155551299"]


def test_a_number_in_overlapping_ranges_goes_from_all_of_them(run: Run, centre: PolicyWriter) -> None:
    run("number", "add", "+12155551205", "+12155551203..+12155551206", "--right", "acme-assigned", *WHY)
    run("number", "suspend", "+12155551205", *WHY)
    assert spans_of(centre, "acme-assigned") == [
        "+12155551200..+12155551204", "+12155551203..+12155551204", "+12155551206", "+12155551206..+12155551299",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["set", "+12155551205"], 2, "nothing to set"),
        (["set", "+12155551305", "--owner", "x"], 1, "no such right to it"),
        (["set", "+12155551205", "--customer", "acmee", "--owner", "x"], 1, "did you mean acme?"),
        (["suspend", "+12155551205", "--right", "LOA-2"], 1, "did you mean LOA-1?"),
        (["suspend", "+12155551205", "--right", "LOA-1"], 1, "no such right to it"),
        (["suspend", "+12155551290..+12155551309"], 1, "has not all of these numbers: +12155551300..+12155551309"),
        (["set", "+12155551205", "--basis", "resporg"], 1, "toll-free"),
        (["set", "+12155551205", "--basis", "letter"], 1, "--document"),
    ],
)
def test_mistakes_with_some_numbers(
    run: Run, in_memory: PolicyWriter, arguments: list[str], code: int, told: str
) -> None:
    assert told in run("number", *arguments, *WHY, code=code).stderr
    with in_memory.records() as records:
        assert records.version == 4


def test_of_several_rights_one_is_named(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run("number", "add", "+12155551205", "--customer", "acme", "--basis", "customer_word", *WHY)
    told = run("number", "set", "+12155551205", "--owner", "x", *WHY, code=1).stderr
    assert "say which: --right acme-customer_word, acme-assigned" in told
    run("number", "suspend", "+12155551205", *WHY)  # all of them: else it would be in force by the other
    assert [right["in_force"] for right in run_json("number", "show", "+12155551205")["rights"]] == [False, False]
    run("customer", "add", "globex", "--name", "Globex", *WHY)
    run("number", "add", "+12155551205", "--customer", "globex", "--basis", "customer_word", *WHY)
    assert "say whose" in run("number", "reinstate", "+12155551205", *WHY, code=1).stderr
    run("number", "set", "+12155551205", "--customer", "globex", "--owner", "x", *WHY)


# --- Letters --------------------------------------------------------------------------------------


def test_a_letter_out_of_force_and_in_again(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    def level() -> str:
        (call,) = run_json("number", "show", "+13125550142")["calls"]
        return str(call["level"])

    assert level() == "A"
    assert "suspended  no → yes" in run("letter", "suspend", "LOA-1", *WHY).stdout
    assert level() == "B"
    assert run_json("number", "show", "+13125550142")["rights"][0]["in_force"] is False
    assert "'--by'" in run("letter", "reinstate", "LOA-1", "--why", "signed anew", code=2).stderr
    run("letter", "reinstate", "LOA-1", *WHY)
    assert level() == "A"


def test_the_document_of_a_letter_is_kept_by_hash(
    run: Run, run_json: RunJson, centre: PolicyWriter, tmp_path: Path
) -> None:
    file = letter_file(tmp_path)
    (none,) = run_json("letter", "check", "LOA-1")
    assert none == {"id": "LOA-1", "document": "LOA-1", "result": "none", "detail": none["detail"]}
    run("letter", "set", "LOA-1", "--file", file, *WHY)
    letter = run_json("letter", "show", "LOA-1")
    assert letter["path"] == str(file)
    assert letter["sha256"] == hashlib.sha256(b"we authorise Acme").hexdigest()
    assert run_json("letter", "check")[0]["result"] == "ok"
    letter_file(tmp_path, "we authorise Acme to do anything")
    assert run_json("letter", "check", code=1)[0]["result"] == "changed"
    assert "is not what was filed" in " ".join(run("letter", "check", "LOA-1", code=1).stdout.split())
    file.unlink()
    assert run_json("letter", "check", code=1)[0]["result"] == "missing"
    file.mkdir()
    assert run_json("letter", "check", code=1)[0]["result"] == "unreadable"


def test_a_renewal_keeps_the_history(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run(
        "letter",
        "set",
        "LOA-1",
        "--valid-until",
        "2100-06-30",
        "--document",
        "LOA-1b",
        "--why",
        "renewed",
        "--by",
        "Bob",
    )
    letter = run_json("letter", "show", "LOA-1b")  # by its document as well as by its id
    assert letter["id"] == "LOA-1"
    newest, oldest = letter["history"]
    assert (newest["by"], newest["why"]) == ("Bob", "renewed")
    assert newest["fields"].pop("approved_at")[1] is None
    assert newest["fields"] == {
        "approved_by": ["Bob", None],
        "document": ["LOA-1", "LOA-1b"],
        "valid_until": [4_086_547_200.0, 4_118_083_200.0],
    }
    assert oldest["version"] == 4


def test_letters_that_end_soon(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    assert run_json("letter", "list", "--expiring", "30") == []
    run(
        "letter",
        "add",
        "LOA-2",
        "--customer",
        "acme",
        "--valid-from",
        "2020-01-01",
        "--valid-until",
        "2020-12-31",
        *WHY,
    )
    assert [letter["id"] for letter in run_json("letter", "list")] == ["LOA-1", "LOA-2"]
    assert [letter["id"] for letter in run_json("letter", "list", "--expiring", "36500")] == ["LOA-1"]
    assert run_json("letter", "list")[0]["ranges"] == 1


def test_one_document_of_several_rights_has_to_be_told_apart(run: Run, centre: PolicyWriter) -> None:
    for name in ("a", "b"):
        run("letter", "add", name, "--customer", "acme", "--document", "LOA-5", *WHY)
    assert "name one of them: a, b" in run("letter", "show", "LOA-5", code=1).stderr


# --- Do not originate -----------------------------------------------------------------------------


def test_numbers_that_must_not_call(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    entry = ["--reason", "inbound_only", "--note", "hotline of Example Bank"]
    (change,) = run_json("dno", "add", "+12155551200", *entry, *WHY)["changes"]
    assert (change["kind"], change["id"], change["numbers_added"]) == ("do_not_originate", "inbound_only", 1)
    (change,) = run_json("dno", "add", "+12155551202", *entry, *WHY)["changes"]
    assert change["id"] == "inbound_only"
    (change,) = run_json("dno", "add", "+12155551203", *entry[:2], *WHY)["changes"]
    assert change["id"] == "inbound_only-2"
    again = run_json("dno", "add", "+12155551203", *entry[:2], *WHY)
    assert "there already" in again["notes"][0]

    data = run_json("dno", "show", "+12155551200")
    assert data.keys() == {"number", "withheld", "entries", "numbering_plan"}
    assert (data["withheld"], data["entries"][0]["note"]) == (True, "hotline of Example Bank")
    assert "must not originate calls" in run("dno", "show", "+12155551200").stdout
    assert run_json("number", "show", "+12155551200")["calls"][0]["level"] == "refuse"
    assert "inbound_only" in run("number", "show", "+12155551200").stdout
    assert "may originate calls" in run("dno", "show", "+12155551201", code=1).stdout
    assert run_json("dno", "show", "inbound_only")["numbers"]["count"] == 2
    assert "hotline" in run("dno", "show", "inbound_only").stdout
    assert [entry["ranges"] for entry in run_json("dno", "list")] == [2, 1]

    run("dno", "set", "inbound_only-2", "--note", "fax", "--add-numbers", "+12155551210..+12155551219", *WHY)
    told = run("dno", "remove", "+12155551211", *WHY, code=1).stderr
    assert "it lies in +12155551210..+12155551219 of entry inbound_only-2" in told
    gone = run_json("dno", "remove", "+12155551203", "+12155551210..+12155551219", *WHY)["changes"]
    assert [(change["id"], change["change"], change["numbers_removed"]) for change in gone] == [
        ("inbound_only-2", "removed", 2)
    ]
    with centre.records() as records:
        assert [entry.id for entry in records.all(DoNotOriginate)] == ["inbound_only"]


def test_the_numbering_plan_has_a_say_and_an_entry_may_except_from_it(
    run: Run, run_json: RunJson, centre: PolicyWriter
) -> None:
    data = run_json("dno", "show", "+12225551234")
    assert (data["withheld"], data["entries"], data["numbering_plan"]) == (True, [], "unallocated")
    assert "says that it is unallocated" in run("dno", "show", "+12225551234").stdout
    run("number", "add", "+12225551236", "--customer", "acme", "--basis", "assigned", *WHY)
    assert run_json("dno", "show", "+12225551236", code=1)["numbering_plan"] == "unallocated"
    assert run_json("number", "show", "+12225551236")["calls"][0]["level"] == "A"
    run("dno", "add", "+12225551234", "--reason", "allocated", "--id", "new-block", *WHY)
    assert run_json("dno", "show", "+12225551234", code=1)["withheld"] is False
    mistake = run("dno", "add", "+12225551235", "--reason", "unused", "--id", "new-block", *WHY, code=1)
    assert "'shaken dno set' changes it" in mistake.stderr
    assert "unallocated" in run("number", "show", "+12225551235").stdout


# --- An approval is of what somebody saw --------------------------------------------------------


@pytest.mark.usefixtures("centre")
@pytest.mark.parametrize(
    ("command", "changed"),
    [
        (("letter", "set", "LOA-1", "--valid-until", "2199-01-01"), "valid until"),
        (("letter", "set", "LOA-1", "--document", "LOA-OTHER"), "document"),
        (("letter", "set", "LOA-1", "--add-numbers", "+13125550188"), "numbers"),
        (("number", "add", "+13125550189", "--right", "LOA-1"), "numbers"),
    ],
)
def test_what_is_changed_behind_an_approval_is_approved_anew(
    run: Run, run_json: RunJson, command: tuple[str, ...], changed: str
) -> None:
    told = run(*command, *WHY).stderr
    assert f"no longer approved: Bob approved it before its {changed} changed" in " ".join(told.split())
    shown = run_json("letter", "show", "LOA-1")
    assert (shown["approved_by"], shown["approved_at"]) == (None, None)
    run("letter", "set", "LOA-1", "--approved-by", "Bob", *WHY)
    assert run_json("letter", "show", "LOA-1")["approved_by"] == "Bob"


@pytest.mark.usefixtures("centre")
def test_an_approval_that_is_given_anew_or_not_concerned_stays(run: Run, run_json: RunJson) -> None:
    first = run_json("letter", "show", "LOA-1")["approved_at"]
    run("letter", "suspend", "LOA-1", *WHY)
    run("letter", "set", "LOA-1", "--add-numbers", "+13125550142", *WHY)  # it is there
    assert run_json("letter", "show", "LOA-1")["approved_at"] == first
    run("letter", "set", "LOA-1", "--add-numbers", "+13125550188", "--approved-by", "Bob", *WHY)
    shown = run_json("letter", "show", "LOA-1")
    assert shown["approved_by"] == "Bob"
    assert shown["approved_at"] > first
    run("letter", "set", "LOA-1", "--remove-numbers", "+13125550188", *WHY)
    assert run_json("letter", "show", "LOA-1")["approved_by"] == "Bob"


@pytest.mark.usefixtures("centre")
@pytest.mark.parametrize(
    ("header", "row", "stays"),
    [
        ("number,right,valid_until", "+13125550142,LOA-1,2199-01-01", False),
        ("number,right", "+13125550188,LOA-1", False),
        ("number,right", "+13125550142,LOA-1", True),
        ("number,right,approved_by", "+13125550188,LOA-1,Bob", True),
    ],
)
def test_a_file_takes_back_approvals_likewise(
    run: Run, run_json: RunJson, tmp_path: Path, header: str, row: str, stays: bool
) -> None:
    (tmp_path / "numbers.csv").write_text(f"{header}\n{row}\n")
    told = run("import", "--update", tmp_path / "numbers.csv", *WHY)
    assert ("no longer approved" in " ".join((told.stdout + told.stderr).split())) is not stays
    assert (run_json("letter", "show", "LOA-1")["approved_by"] == "Bob") is stays


def test_an_entry_out_of_force_and_in_again(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run("dno", "add", "+12155551200..+12155551209", "--reason", "unused", *WHY)
    run("dno", "suspend", "unused", *WHY)
    told = run("dno", "show", "+12155551200", code=1).stdout
    assert "may originate calls" in told
    assert "+12155551200..+12155551209, suspended" in told
    assert "unused, suspended" in run("dno", "show", "unused").stdout
    told = run("number", "show", "+12155551200").stdout
    assert "do-not-originate unused: unused, +12155551200..+12155551209, suspended" in told
    step = run_json("number", "show", "+12155551200")["calls"][0]["trace"]
    assert "do-not-originate unused, suspended" in [one["record"] for one in step]
    run("dno", "add", "+12155551220", "--reason", "unused", *WHY)  # into one that refuses
    assert run_json("dno", "show", "+12155551220")["entries"][0]["id"] == "unused-2"
    assert "'--by'" in run("dno", "reinstate", "unused", "--why", "x", code=2).stderr
    run("dno", "reinstate", "unused", *WHY)
    assert run_json("dno", "show", "+12155551200")["withheld"] is True

    done = run_json("dno", "suspend", "+12155551205", *WHY)
    assert "now of do-not-originate unused-3" in done["notes"][0]
    assert [run_json("dno", "show", number, code=code)["withheld"] for number, code in (
        ("+12155551204", 0), ("+12155551205", 1), ("+12155551206", 0),
    )] == [True, False, True]  # fmt: skip
    run("dno", "reinstate", "+12155551205", *WHY)
    assert run_json("dno", "show", "+12155551205")["withheld"] is True
    assert "is not on the list" in run("dno", "suspend", "+12155551305", *WHY, code=1).stderr
    assert "did you mean unused" in run("dno", "suspend", "unusd", *WHY, code=1).stderr


def test_an_entry_goes_with_its_numbers(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run("dno", "add", "+12155551200..+12155551209", "+12155551300", "--reason", "unused", *WHY)
    run("dno", "add", "+12155551201", "--reason", "invalid", *WHY)
    gone = run_json("dno", "remove", "unused", "+12155551201", *WHY)["changes"]
    assert [(change["id"], change["change"], change["numbers_removed"]) for change in gone] == [
        ("unused", "removed", 2),
        ("invalid", "removed", 1),
    ]
    assert "there is no do-not-originate unused" in run("dno", "remove", "unused", *WHY, code=1).stderr
