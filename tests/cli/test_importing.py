"""``shaken import`` beside others, on new stores, and of what it must not undo."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from tests.cli.test_exchange import NUMBERS, POLICY, WHY, count, filled, host, version

__all__ = ["filled", "host"]  # fixtures

LETTERS = POLICY.replace("basis: assigned", "basis: letter, document: LOA-1")
Run = Callable[..., Result]
RunJson = Callable[..., Any]


# --- A store with nothing in it ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (("import", "numbers.csv", *WHY), 1),  # there is no such customer: everything is kept out
        (("import", "policy.yaml", "--dry-run", *WHY), 0),
        (("customer", "add", "zed", "--name", "Zed", "--dry-run", *WHY), 0),
    ],
)
def test_a_change_that_was_taken_back_leaves_an_empty_store_that_everything_works_with(
    host: Path, run: Run, run_json: RunJson, first: tuple[str, ...], code: int
) -> None:
    run(*first, code=code)
    run(*first, code=code)
    assert yaml.safe_load(run("export").stdout) == {"customers": []}
    assert run("export", "--format", "csv").stdout.count("\n") == 1
    assert run_json("store", "history")["changes"] == []
    # The state file is not there yet.
    assert run_json("store", "status", code=1)["files"][0]["error"] is None
    assert run_json("policy", "diff", code=1)["from"] == "policy version 0"
    assert "none" in run("customer", "show", "acme", code=1).stderr
    run("customer", "list")
    run("import", "policy.yaml", *WHY)
    run("import", "numbers.csv", *WHY)
    assert (version(host), count(host)) == (2, 3)


def test_a_store_that_is_not_there_is_told_as_such(host: Path, run: Run) -> None:
    assert "there is no store yet" in run("customer", "list", code=3).stderr


# --- Who, and why -------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--by", "--why"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "blank"),
        (" \t ", "blank"),
        ("\u2003", "blank"),
        ("a\nb", "line ends"),
        ("a\x1b[2J", "control characters"),
        ("a\u202eb", "control characters"),
        ("a\udc80", "control characters"),
        ("x" * 501, "501 characters; 500 are the most"),
        ("x" * 100_000, "100000 characters"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("import", "policy.yaml"),
        ("customer", "set", "acme", "--name", "B"),
        ("customer", "suspend", "acme"),
        ("offence", "dismiss", "1"),
    ],
)
def test_who_and_why_are_a_line_of_text(
    filled: Path, run: Run, command: tuple[str, ...], option: str, text: str, expected: str
) -> None:
    said = {"--by": "anna", "--why": "ticket 4711", option: text}
    shown = run(*command, *(word for pair in said.items() for word in pair), code=2)
    assert expected in shown.stderr
    assert option in shown.stderr
    assert len(shown.stderr) < 1_000
    assert version(filled) == 1


def test_a_name_from_the_environment_may_not_be_blank_either(
    filled: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAKEN_BY", "  ")
    assert "--by is blank" in run("customer", "set", "acme", "--name", "B", "--why", "x", code=2).stderr


def test_a_policy_file_with_any_name_can_be_put_in_force(host: Path, run: Run, run_json: RunJson) -> None:
    odd = host / ("o\n\x1b" + "d" * 200 + ".yaml")
    (host / "policy.yaml").rename(odd)
    settings = yaml.safe_load((host / "shaken.yaml").read_text())
    (host / "shaken.yaml").write_text(yaml.safe_dump({**settings, "policy": str(odd)}))
    run("apply")
    (change,) = run_json("store", "history")["changes"]
    assert change["what"].isprintable()
    assert "ddd.yaml" in change["what"]


# --- Nobody and nothing is reinstated by a file ---------------------------------------------------


def letter(run: Run) -> Any:
    (right,) = yaml.safe_load(run("export").stdout)["rights"]
    return right


@pytest.mark.parametrize("how", [("import", "policy.yaml", *WHY), ("apply",), ("apply", "--overwrite")])
def test_a_suspended_right_stays_so_until_a_person_reinstates_it(host: Path, run: Run, how: tuple[str, ...]) -> None:
    (host / "policy.yaml").write_text(LETTERS)
    run("apply")
    run("letter", "suspend", "own", *WHY)
    told = run(*how)
    assert "right own stays suspended although the file says otherwise: see 'shaken letter reinstate'" in (
        told.stderr + told.stdout
    )
    assert letter(run)["suspended"] is True
    run("letter", "reinstate", "own", *WHY)
    run(*how)
    assert not letter(run).get("suspended")


def test_two_files_do_not_reinstate_a_right_either(host: Path, run: Run) -> None:
    (host / "policy.yaml").write_text(LETTERS)
    run("apply")
    run("letter", "suspend", "own", *WHY)
    (host / "policy.yaml").write_text(LETTERS.partition("rights:")[0])
    told = run("apply", "--overwrite")
    assert "right own stays suspended although the file has no such right" in told.stderr + told.stdout
    assert count(host) == 1
    (host / "policy.yaml").write_text(LETTERS)
    run("apply", "--overwrite")
    assert letter(run)["suspended"] is True


def test_a_suspended_right_goes_with_its_customer(host: Path, run: Run) -> None:
    (host / "policy.yaml").write_text(LETTERS)
    run("apply")
    run("letter", "suspend", "own", *WHY)
    (host / "policy.yaml").write_text("customers:\n  - {id: other, name: Other Ltd, state: pending}\n")
    run("apply", "--overwrite")
    assert [one["id"] for one in yaml.safe_load(run("export").stdout)["customers"]] == ["other"]


# --- Beside others ------------------------------------------------------------------------------

SHAKEN = [sys.executable, "-c", "from shaken_plugin.cli import main; main()"]


@contextlib.contextmanager
def slow_import(host: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """An import that has read more than a pipe holds, so some portions of rows, and waits for the rest."""
    command = [*SHAKEN, "import", "-", "--reject-file", "rejected.csv", *options, *WHY]
    process = subprocess.Popen(
        command, cwd=host, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        process.stdin.write(NUMBERS.partition("\n")[0] + "\n")
        for number in range(13_125_560_000, 13_125_570_000):
            process.stdin.write(f"+{number},acme,letter,LOA-1,2027-06-30\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_slow_import_blocks_nobody(filled: Path, run: Run, run_json: RunJson) -> None:
    with slow_import(filled) as process:
        began = time.monotonic()
        run("number", "add", "+12155559999", "--customer", "acme", "--basis", "assigned", "--wait", "0", *WHY)
        run("customer", "set", "other", "--name", "Other Inc", "--wait", "0", *WHY)
        (filled / "policy.yaml").write_text(run("export").stdout.replace("International", "Abroad"))
        run("apply", "--overwrite", "--wait", "0")
        assert time.monotonic() - began < 10
        out, err = process.communicate("+13125550142,acme,letter,LOA-1,2027-06-30\n", timeout=60)
    assert process.returncode == 0, err
    assert "10001 new numbers" in out
    assert (version(filled), count(filled)) == (5, 10_003)
    assert [change["what"] for change in run_json("store", "history")["changes"]][-1] == "import of -"


def test_what_was_changed_meanwhile_stops_an_import_before_anything_is_written(filled: Path, run: Run) -> None:
    with slow_import(filled) as process:
        run("customer", "remove", "acme", "--with-numbers", *WHY)
        out, err = process.communicate("", timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "changed while the file was read" in err
    assert "there is no customer acme" in err
    assert "import the file again" in err
    assert (version(filled), count(filled)) == (2, 0)


def test_a_right_that_was_changed_meanwhile_is_not_overwritten(filled: Path, run: Run) -> None:
    run("import", "numbers.csv", *WHY)
    with slow_import(filled) as process:
        run("letter", "suspend", "acme-letter-LOA-1", *WHY)
        _, err = process.communicate("", timeout=60)
    assert process.returncode == 1
    assert "right acme-letter-LOA-1 was changed while the file was read: nothing was imported" in err


def test_a_policy_file_is_read_without_the_lock(filled: Path, run: Run) -> None:
    with closing(sqlite3.connect(filled / "policy.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        (filled / "policy.yaml").write_text("customers: 7\n")
        began = time.monotonic()
        run("import", "policy.yaml", *WHY, code=1)
        run("import", "bad.csv", *WHY, code=1)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("command", [("customer", "set", "acme", "--name", "B", *WHY), ("apply",)])
def test_a_command_that_finds_another_writer_waits_and_says_so(
    filled: Path, run: Run, command: tuple[str, ...]
) -> None:
    with closing(sqlite3.connect(filled / "policy.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        told = run(*command, "--wait", "0.8", code=3)
        assert "another change of" in told.stderr
        assert "locked by another writer for more than 0.8 seconds" in told.stderr + told.stdout
        timer = threading.Timer(1.0, lambda: other.execute("ROLLBACK"))
        timer.start()
        told = run(*command)
        timer.join()
    assert "waiting for it, 120 s at most" in told.stderr


# --- Standings ----------------------------------------------------------------------------------


def test_an_export_says_what_the_store_says_of_a_suspended_customer(host: Path, run: Run) -> None:
    run("apply")
    run("customer", "suspend", "acme", *WHY)
    run("export", "-o", "policy.yaml")
    run("policy", "diff")
    run("apply")
    run("policy", "diff")
    assert version(host) == 1
    run("customer", "reinstate", "acme", *WHY)
    run("apply")  # the file is older than that
    assert "standing" not in run("export").stdout


@pytest.mark.parametrize("how", [("import", "policy.yaml", *WHY), ("apply",)])
def test_another_host_takes_a_standing_over(host: Path, run: Run, how: tuple[str, ...]) -> None:
    run("apply")
    run("customer", "suspend", "acme", *WHY)
    exported = run("export").stdout
    for name in ("policy.db", "state.db"):
        (host / name).unlink()
    (host / "policy.yaml").write_text(exported)
    told = run(*how)
    assert "customer acme is suspended here from now on" in told.stderr + told.stdout
    assert run("export").stdout == exported


def test_the_history_has_what_was_decided_of_customers_between_the_changes(
    filled: Path, run: Run, run_json: RunJson
) -> None:
    run("customer", "suspend", "other", *WHY)
    run("customer", "reinstate", "other", *WHY)
    run("customer", "remove", "other", *WHY)
    rows = run_json("store", "history")["changes"]
    assert [(row["kind"], row["version"], row["what"]) for row in rows] == [
        ("policy", 1, "import of policy.yaml"),
        ("standing", None, "customer other suspended"),
        ("standing", None, "customer other reinstated"),
        ("policy", 2, "remove customer other"),
    ]
    assert {row["who"] for row in rows} == {"anna"}
    assert "customer other suspended" in run("store", "history").stdout
    told = run_json("policy", "diff", "--from", "1", "--to", "2", code=1)["changes"]
    assert [row["kind"] for row in told] == ["standing", "standing", "policy"]


# --- What a killed run leaves -------------------------------------------------------------------


def test_files_of_runs_that_were_killed_go_and_others_stay(filled: Path, run: Run) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (filled / f".rejected.csv.{ended.pid}").touch()
    (filled / f".rejected.csv.{os.getppid()}").touch()
    (filled / ".rejected.csv.note").touch()
    run("import", "bad.csv", "--reject-file", "rejected.csv", *WHY, code=1)
    assert sorted(path.name for path in filled.glob(".rejected.csv.*")) == sorted(
        [f".rejected.csv.{os.getppid()}", ".rejected.csv.note"]
    )


# --- Files apart from one another -----------------------------------------------------------------


def test_policy_and_state_are_files_of_their_own(filled: Path, run: Run) -> None:
    run("customer", "suspend", "other", *WHY)
    for locked, command in (
        ("policy.db", ("customer", "reinstate", "other")),
        ("state.db", ("number", "add", "+12155559998", "--customer", "acme", "--basis", "assigned", "--wait", "0")),
    ):
        with closing(sqlite3.connect(filled / locked, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            run(*command, *WHY)
    assert len({(filled / name).stat().st_ino for name in ("policy.db", "state.db")}) == 2
