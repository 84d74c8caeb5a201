"""``shaken import``, ``export`` and ``policy diff``, from the outside."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from shaken_plugin.cli import main
from shaken_plugin.config.settings import PATH_VARIABLE
from shaken_plugin.core.records import Customer, CustomerState, Right
from shaken_plugin.stores.sqlite import SqlitePolicy

Run = Callable[..., Result]
RunJson = Callable[..., Any]
WHY = ("--why", "ticket 4711", "--by", "anna")

POLICY = """\
customers:
  - {id: acme, name: Acme Contact Centre, state: verified, trunks: [{id: t1, addresses: [198.51.100.0/24]}]}
  - {id: other, name: Other Ltd, state: pending}
gateways:
  - {id: intl, name: International, addresses: [203.0.113.7]}
rights:
  - {id: own, customer: acme, basis: assigned, numbers: ["+12155551200..+12155551299"]}
do_not_originate:
  - {id: hotline, reason: inbound_only, numbers: ["+12155550000"]}
"""
NUMBERS = """\
number,customer,basis,document,valid_until
+13125550142,acme,letter,LOA-1,2027-06-30
+13125550143,acme,letter,LOA-1,2027-06-30
"""
BAD = NUMBERS + "+1312555xxxx,acme,letter,LOA-1,2027-06-30\n+13125550144,acem,letter,LOA-1,2027-06-30\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings that name a store, and a policy file; nothing in force."""
    settings = {
        "country": "US",
        "signing": {"mode": "off"},
        "verification": {"mode": "off"},
        "store": {"path": str(tmp_path / "policy.db")},
        "policy": "policy.yaml",
    }
    (tmp_path / "shaken.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "numbers.csv").write_text(NUMBERS)
    (tmp_path / "bad.csv").write_text(BAD)
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "shaken.yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def filled(host: Path, run: Run) -> Path:
    """The policy file imported, version 1."""
    run("import", "policy.yaml", *WHY)
    return host


def version(host: Path) -> int:
    with SqlitePolicy(host / "policy.db").records() as records:
        return records.version


def count(host: Path) -> int:
    with SqlitePolicy(host / "policy.db").records() as records:
        return sum(records.count(Right, right.id) for right in records.all(Right))


# --- Import -------------------------------------------------------------------------------------


def test_a_policy_file_is_merged_with_who_and_why(host: Path, run_json: RunJson) -> None:
    told = run_json("import", "policy.yaml", *WHY)
    assert told["ok"]
    assert (told["new_records"], told["new_numbers"], told["policy_version"]) == (6, 2, 1)
    (change,) = SqlitePolicy(host / "policy.db").changes()
    assert (change.who, change.why, change.what) == ("anna", "ticket 4711", "import of policy.yaml")
    more: dict[str, Any] = {"customers": [{"id": "third", "name": "Third", "state": "pending"}]}
    more["rights"] = [{"id": "own", "customer": "acme", "basis": "assigned", "numbers": ["+12155559999"]}]
    (host / "more.yaml").write_text(yaml.safe_dump(more))
    told = run_json("import", "more.yaml", *WHY)
    assert (told["new_records"], told["changed_records"], told["new_numbers"]) == (1, 0, 1)
    assert count(host) == 2


def test_mistakes_of_a_policy_file_are_told_in_their_places_and_change_nothing(filled: Path, run: Run) -> None:
    (filled / "more.yaml").write_text("rights:\n  - {customer: acem, basis: leter, numbers: []}\n")
    result = run("import", "more.yaml", *WHY, code=1)
    assert "more.yaml:2:16: rights[0].customer: there is no customer acem (did you mean acme?)" in result.stderr
    assert "more.yaml:2:29: rights[0].basis: not one of" in result.stderr
    assert version(filled) == 1


def test_a_file_that_takes_an_address_of_another_is_refused(filled: Path, run: Run) -> None:
    (filled / "more.yaml").write_text("gateways: [{id: g, name: G, addresses: [198.51.100.0/24]}]\n")
    assert "belongs to trunk t1 already" in run("import", "more.yaml", *WHY, code=1).stderr
    assert version(filled) == 1


def test_a_suspended_customer_is_not_reinstated(filled: Path, run: Run) -> None:
    (filled / "suspended.yaml").write_text("customers: [{id: acme, name: Acme Contact Centre, state: suspended}]\n")
    run("import", "suspended.yaml", *WHY)
    assert "customer acme stays suspended" in run("import", "policy.yaml", *WHY).stderr
    with SqlitePolicy(filled / "policy.db").records() as records:
        acme = records.get(Customer, "acme")
    assert acme is not None
    assert acme.state is CustomerState.SUSPENDED


def test_numbers_are_imported_once(filled: Path, run: Run, run_json: RunJson) -> None:
    told = run_json("import", "numbers.csv", *WHY)
    assert (told["rows"], told["new_records"], told["new_numbers"], told["policy_version"]) == (2, 1, 2, 2)
    assert run_json("import", "numbers.csv", *WHY)["new_numbers"] == 0
    assert version(filled) == 2
    assert "0 new numbers" in run("import", "numbers.csv", *WHY).stdout


def test_one_bad_row_keeps_all_out(filled: Path, run: Run, run_json: RunJson) -> None:
    result = run("import", "bad.csv", *WHY, code=1)
    assert "2 of 4 rows rejected" in result.stderr
    assert "there is no customer acem (did you mean acme?)" in " ".join(result.stderr.split())
    assert "nothing was changed" in result.stdout
    told = run_json("import", "bad.csv", *WHY, code=1)
    assert (told["ok"], told["written"], told["rejected"]) == (False, False, 2)
    assert [(one["row"], one["column"]) for one in told["mistakes"]] == [(4, "number"), (5, "customer")]
    assert (version(filled), count(filled)) == (1, 1)


def test_good_rows_are_written_on_demand_and_the_corrected_rest_later(filled: Path, run: Run) -> None:
    run("import", "bad.csv", "--partial", "--reject-file", "rejected.csv", *WHY, code=1)
    assert (version(filled), count(filled)) == (2, 3)
    rejected = Path("rejected.csv").read_text()
    assert [row[0] for row in csv.reader(rejected.splitlines())] == ["rejected_row", "4", "5"]
    Path("corrected.csv").write_text(rejected.replace("+1312555xxxx", "+13125550145").replace("acem,", "acme,"))
    run("import", "corrected.csv", "--reject-file", "rejected.csv", *WHY)
    assert (version(filled), count(filled)) == (3, 5)
    assert Path("rejected.csv").read_text() == rejected
    assert not list(filled.glob(".*"))


def test_a_dry_run_says_all_and_changes_nothing(filled: Path, run_json: RunJson, run: Run) -> None:
    assert run_json("import", "numbers.csv", "--dry-run", *WHY)["new_numbers"] == 2
    assert run_json("import", "policy.yaml", "--dry-run", *WHY)["written"] is False
    assert "nothing was changed (--dry-run)" in run("import", "numbers.csv", "--dry-run", *WHY).stdout
    assert version(filled) == 1


def test_standard_input_will_do(filled: Path, run: Run) -> None:
    run("import", "-", *WHY, stdin=NUMBERS.replace(",", ";"))
    assert count(filled) == 3


def test_the_do_not_originate_list_is_imported_too(filled: Path, run_json: RunJson) -> None:
    Path("dno.csv").write_text("number,reason\n+12155550001,unused\n")
    assert run_json("import", "dno.csv", *WHY)["new_records"] == 1
    assert run_json("import", "dno.csv", "--what", "rights", *WHY, code=1)["error"].startswith("dno.csv:1:2: unknown")


@pytest.mark.parametrize(
    "arguments",
    [
        ("policy.yaml", "--partial"),
        ("policy.yaml", "--reject-file", "x"),
        ("-", "--format", "yaml"),
        ("numbers.csv", "--delimiter", "x"),
        ("gone.csv",),
    ],
)
def test_wrong_usage_is_told(filled: Path, run: Run, arguments: tuple[str, ...]) -> None:
    run("import", *arguments, *WHY, code=2)
    run("import", "numbers.csv", code=2)
    assert version(filled) == 1


def test_a_reject_file_that_cannot_be_written_changes_nothing(filled: Path, run: Run) -> None:
    assert "cannot be written" in run("import", "bad.csv", "--reject-file", "no/x.csv", *WHY, code=3).stderr
    assert version(filled) == 1


def test_a_delimiter_can_be_named(filled: Path, run: Run) -> None:
    Path("numbers.csv").write_text(NUMBERS.replace(",", "\t"))
    run("import", "numbers.csv", "--delimiter", "tab", *WHY)
    assert count(filled) == 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_import_leaves_everything_as_it_was(filled: Path, how: signal.Signals) -> None:
    # A shell has what it runs in the background ignore SIGINT, and that is inherited.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from shaken_plugin.cli import main; main()"
    command = [sys.executable, "-c", script, "import", "-", *WHY]
    command += ["--reject-file", "rejected.csv"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=filled, text=True)
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        process.stdin.write(NUMBERS + "12,acme,letter,LOA-1,\n" * 20_000)
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not list(filled.glob(".rejected.csv.*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(filled.glob(".rejected.csv.*"))
        process.send_signal(how)
        assert process.wait(30) == 1
        assert "interrupted: nothing was changed" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stderr.close()
    assert (version(filled), count(filled)) == (1, 1)
    assert not list(filled.glob("*rejected.csv*"))


def test_a_terminal_shows_how_far_it_is(filled: Path) -> None:
    main_side, terminal = os.openpty()
    command = [sys.executable, "-c", "from shaken_plugin.cli import main; main()", "import", "numbers.csv", *WHY]
    try:
        subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True, timeout=60)
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # what a terminal says at its end
            while piece := os.read(main_side, 65_536):
                shown += piece
    finally:
        os.close(main_side)
    assert b"numbers.csv" in shown
    assert f"{len(NUMBERS)}/{len(NUMBERS)} bytes".encode() in shown


# --- Export -------------------------------------------------------------------------------------


def test_what_is_exported_is_put_in_force_elsewhere(filled: Path, run: Run) -> None:
    run("import", "numbers.csv", *WHY)
    text = run("export").stdout
    assert run("export", "--output", "out.yaml").stdout == ""
    assert Path("out.yaml").read_text() == text
    settings = yaml.safe_load(Path("shaken.yaml").read_text()) | {"store": {"path": str(filled / "second.db")}}
    Path("second.yaml").write_text(yaml.safe_dump(settings))
    run("import", "out.yaml", *WHY, "--settings", "second.yaml")
    assert run("export", "--settings", "second.yaml").stdout == text


def test_numbers_are_exported_as_a_table(filled: Path, run: Run) -> None:
    run("import", "numbers.csv", *WHY)
    rows = list(csv.DictReader(run("export", "--format", "csv").stdout.splitlines()))
    assert [(row["first"], row["last"], row["right"]) for row in rows] == [
        ("+13125550142", "", "acme-letter-LOA-1"),
        ("+13125550143", "", "acme-letter-LOA-1"),
        ("+12155551200", "+12155551299", "own"),
    ]
    assert rows[0]["valid_until"] == "2027-06-30"
    (row,) = csv.DictReader(run("export", "--format", "csv", "--what", "dno").stdout.splitlines())
    assert (row["first"], row["entry"], row["reason"]) == ("+12155550000", "hotline", "inbound_only")


def test_the_past_can_be_exported(filled: Path, run: Run, run_json: RunJson) -> None:
    before = run("export").stdout
    run("import", "numbers.csv", *WHY)
    assert run("export", "--version", "1").stdout == before
    (first, second) = SqlitePolicy(filled / "policy.db").changes()
    assert run("export", "--at", str((first.at + second.at) / 2)).stdout == before
    assert run_json("export", "--version", "1", "-o", "old.yaml") == {
        "ok": True,
        "policy_version": 1,
        "file": "old.yaml",
    }
    assert "there is no version 9" in run("export", "--version", "9", code=3).stderr


def test_records_can_be_exported_without_numbers(filled: Path, run: Run) -> None:
    entry = yaml.safe_load(run("export", "--without-numbers").stdout)["rights"][0]
    assert entry["numbers"] == []


def test_a_suspended_customer_is_exported_with_its_standing_but_not_in_the_past(filled: Path, run: Run) -> None:
    run("customer", "suspend", "acme", *WHY)
    first, second = yaml.safe_load(run("export").stdout)["customers"]
    assert (first["state"], second["state"]) == ("verified", "pending")
    assert {**first["standing"], "at": 0} == {"state": "suspended", "at": 0, "who": "anna", "why": "ticket 4711"}
    assert "standing" not in second
    assert "standing" not in yaml.safe_load(run("export", "--version", "1").stdout)["customers"][0]


def test_numbers_added_by_command_are_those_of_the_same_right_in_a_file(
    filled: Path, run: Run, run_json: RunJson
) -> None:
    options = ("--customer", "acme", "--basis", "letter", "--document", "LOA 2026/1", "--use-case", "reminders")
    run("number", "add", "+13125550142", *options, "--approved-by", "Bob", *WHY)
    exported = run("export", "--format", "csv").stdout
    assert run_json("import", "-", *WHY, stdin=exported)["new_numbers"] == 0
    run("export", "-o", "policy.yaml")
    assert "nothing differs" in run("policy", "diff").stdout


def test_what_was_imported_and_exported_may_be_applied(filled: Path, run: Run) -> None:
    assert "policy.yaml does not say this" in run("import", "numbers.csv", *WHY).stderr
    assert "changed otherwise" in run("apply", code=3).stderr
    run("export", "-o", "policy.yaml")
    run("apply")
    assert "nothing differs" in run("policy", "diff").stdout


def test_one_customer_can_be_exported(filled: Path, run: Run) -> None:
    data = yaml.safe_load(run("export", "--customer", "other").stdout)
    assert [customer["id"] for customer in data["customers"]] == ["other"]
    assert data.keys() == {"customers"}
    assert "did you mean acme" in run("export", "--customer", "acem", code=1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--what", "dno"),
        ("--format", "csv", "--without-numbers"),
        ("--at", "2026-01-01", "--version", "1"),
        ("--format", "csv", "--what", "dno", "--customer", "acme"),
    ],
)
def test_options_that_do_not_go_together_are_told(filled: Path, run: Run, arguments: tuple[str, ...]) -> None:
    run("export", *arguments, code=2)


def test_an_export_that_fails_leaves_the_old_file(filled: Path, run: Run) -> None:
    Path("out.yaml").write_text("old")
    run("export", "-o", "out.yaml", "--version", "9", code=3)
    assert Path("out.yaml").read_text() == "old"
    assert "cannot be written" in run("export", "-o", "no/out.yaml", code=3).stderr


# --- Diff ---------------------------------------------------------------------------------------


def test_a_file_that_says_what_the_store_says_does_not_differ(filled: Path, run: Run) -> None:
    assert "nothing differs" in run("policy", "diff").stdout
    assert "nothing differs" in run("policy", "diff", "policy.yaml").stdout


def test_a_file_is_compared_with_the_store_and_its_changes_since(filled: Path, run: Run, run_json: RunJson) -> None:
    run("import", "numbers.csv", *WHY)
    Path("policy.yaml").write_text(POLICY.replace("pending", "verified"))
    lines = run("policy", "diff", code=1).stdout.splitlines()
    assert lines[0] == f"from policy version 2 to {filled / 'policy.yaml'}"
    assert lines[1:3] == ["~ customer other", "    state: pending → verified"]
    assert lines[3:5] == ["- right acme-letter-LOA-1", "    - +13125550142..+13125550143 (2 numbers)"]
    assert lines[5] == "records: 0 added, 1 removed, 1 changed"
    assert any("anna" in line and "ticket 4711" in line and "numbers.csv" in line for line in lines[6:])
    told = run_json("policy", "diff", code=1)
    assert told["records"][0]["fields"] == {"state": ["pending", "verified"]}
    assert told["records"][1]["numbers_removed"] == {
        "spans": 2,
        "runs": [{"first": "+13125550142", "last": "+13125550143", "count": 2}],
        "more_runs": 0,
    }
    assert [change["version"] for change in told["changes"]] == [1, 2]


def test_two_times_are_compared_with_who_changed_what_and_why(filled: Path, run: Run, run_json: RunJson) -> None:
    run("import", "numbers.csv", *WHY)
    told = run_json("policy", "diff", "--from", "1", code=1)
    assert (told["from"], told["to"]) == ("policy version 1", "policy version 2")
    assert [(one["id"], one["change"]) for one in told["records"]] == [("acme-letter-LOA-1", "added")]
    assert [(one["version"], one["who"], one["why"]) for one in told["changes"]] == [(2, "anna", "ticket 4711")]
    assert run_json("policy", "diff", "--from", "2", "--to", "1", code=1)["records"][0]["change"] == "removed"
    assert run_json("policy", "diff", "--from", "2020-01-01", "--to", "0")["ok"]


def test_what_cannot_be_compared_is_no_difference(filled: Path, run: Run) -> None:
    Path("policy.yaml").write_text("customers: [{id: a}]\n")
    assert "policy.yaml:1:13: customers[0]: name is missing" in run("policy", "diff", code=3).stderr
    run("policy", "diff", "policy.yaml", "--to", "1", code=2)
    run("policy", "diff", "--from", "tomorrow", code=2)


def test_many_numbers_are_told_in_short_unless_all_are_wanted(filled: Path, run: Run, run_json: RunJson) -> None:
    rows = "".join(f"+1312555{number:04},own\n" for number in range(0, 100, 2))
    Path("numbers.csv").write_text(f"number,right\n{rows}")
    run("import", "numbers.csv", *WHY)
    assert "and 30 more of 50: --all" in run("policy", "diff", "--from", "1", code=1).stdout
    (one,) = run_json("policy", "diff", "--from", "1", "--all", code=1)["records"]
    assert len(one["numbers_added"]["runs"]) == 50


# --- A million: at its pace, and into Redis all of it, in tests/stores/redis/test_import.py ----------

MANY = 300_000
_MEASURED = """\
import re, sys
from shaken_plugin.cli import main
try:
    main()
finally:  # of this program alone: ru_maxrss goes on counting from its parent's
    print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024, file=sys.stderr)
"""


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_many_numbers_are_imported_at_a_million_a_minute_in_little_memory(filled: Path) -> None:
    step = 7_919  # a prime: the numbers come in no order
    with Path("many.csv").open("w") as file:
        file.write("number,customer,basis,document,use_case,valid_until\r\n")
        for index in range(MANY):
            number = 12_150_000_000 + index * step % MANY * 3
            file.write(f"+{number},acme,letter,LOA-{index % 1000},reminders,2027-06-30\r\n")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, "import", "many.csv", "--json", *WHY],
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    seconds = time.monotonic() - began
    told = json.loads(done.stdout)
    assert (told["new_numbers"], told["new_records"]) == (MANY, 1000)
    assert count(filled) == MANY + 1
    assert seconds < 60 * MANY / 1_000_000
    assert int(done.stderr.split()[-1]) < 200
    out = subprocess.run(
        [sys.executable, "-c", _MEASURED, "export", "--format", "csv", "-o", "out.csv"],
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    assert int(out.stderr.split()[-1]) < 150
    with Path("out.csv").open() as file:
        assert sum(1 for _ in file) == MANY + 2


def test_the_commands_are_known(host: Path) -> None:
    for command in (["import"], ["export"], ["policy", "diff"]):
        result = CliRunner().invoke(main, [*command, "--help"])
        assert result.exit_code == 0
        assert "--json" in result.output
