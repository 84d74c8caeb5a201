"""``shaken check-config``, ``apply`` and ``schema``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from shaken_plugin import __version__
from shaken_plugin.cli import COMMANDS, main
from shaken_plugin.config.policyentries import PolicyFile
from shaken_plugin.config.sections import Settings
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.stores import sqlite
from tests.cli.conftest import Run
from tests.config.jsonschema import mistakes


def test_help_and_version_are_answers(run: Run) -> None:
    assert __version__ in run("--version").stdout
    assert "Exit codes: 0 yes, 1 no, 2 wrong usage, 3 something is missing" in run("-h").stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(run: Run, name: str) -> None:
    text = run(name, "--help").stdout
    assert text.startswith("Usage: ")
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help


@pytest.mark.parametrize("arguments", [["no-such-command"], ["check-config", "--no-such-option"], ["schema", "other"]])
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    assert "Usage: " in run(*arguments, code=2).stderr


def _leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _leaves(inner, (*path, name))
    else:
        yield path, command


def test_every_command_takes_json() -> None:
    leaves = dict(_leaves(main))
    assert len(leaves) > 80
    for path, command in leaves.items():
        assert "--json" in {option for parameter in command.params for option in parameter.opts}, path
        assert command.help, path


ERRORS = {
    "check-config": ["check-config"],
    "apply": ["apply"],
    "explain": ["explain", "--from", "+12155551212", "--to", "911"],
    "sign": ["sign", "--attest", "A", "--from", "+12155551212", "--to", "911"],
    "verify": ["verify", "--from", "+12155551212", "--to", "911"],
}


@pytest.mark.parametrize("arguments", ERRORS.values(), ids=ERRORS)
def test_errors_are_json_too(
    run_json: Callable[..., Any], provider: Provider, change: Callable[..., None], arguments: list[str]
) -> None:
    change(signing={"freshness": "soon"})
    wrong = run_json(*arguments, code=1, stdin="x")
    assert wrong["ok"] is False
    assert [problem["path"] for problem in wrong["problems"]] == ["signing.freshness"]
    provider.settings.unlink()
    missing = run_json(*arguments, code=3, stdin="x")
    assert (missing["ok"], missing["problems"][0]["file"]) == (False, str(provider.settings))
    assert "cannot be read" in missing["error"]


@pytest.mark.usefixtures("in_force")
def test_an_error_that_is_no_files_is_json_too(run_json: Callable[..., Any]) -> None:
    assert run_json("decode", stdin="", code=1) == {
        "ok": False, "error": "there is no Identity header in it", "problems": [],
    }  # fmt: skip


# --- check-config -------------------------------------------------------------------------------


@pytest.mark.usefixtures("provider")
def test_files_that_are_right_are_0_and_told_in_short(run: Run, run_json: Callable[..., Any]) -> None:
    assert run_json("check-config") == {"ok": True, "problems": [], "warnings": []}
    lines = run("check-config").stdout.splitlines()
    assert lines[0] == "signing: active"
    assert lines[1].startswith("  credential main: signs until 2")
    assert lines[2:] == [
        "verification: active, 1 trust anchors",
        "policy: 3 customers, 3 trunks, 1 gateways, 3 rights to numbers",
    ]


def test_check_config_writes_nothing(run: Run, provider: Provider) -> None:
    before = sorted(provider.folder.iterdir())
    run("check-config")
    assert sorted(provider.folder.iterdir()) == before


def test_the_settings_file_may_be_named_on_the_command_line(run: Run, provider: Provider) -> None:
    moved = provider.folder / "moved.yaml"
    provider.settings.rename(moved)
    run("check-config", code=3)
    run("check-config", "--settings", moved)


@pytest.mark.parametrize("command", ["check-config", "apply"])
def test_mistakes_are_1_and_told_with_their_places(
    run: Run, run_json: Callable[..., Any], provider: Provider, change: Callable[..., None], command: str
) -> None:
    change(signing={"freshness": "soon"})
    policy = provider.folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("127.0.0.3", "gateway"))
    told = run(command, code=1)
    assert f"{provider.settings}:" in told.stderr
    assert f"{policy}:" in told.stderr
    assert "2 mistakes; nothing was changed." in told.stderr
    assert told.stdout == ""
    data = run_json(command, code=1)
    assert data["ok"] is False
    assert [problem["path"] for problem in data["problems"]] == ["signing.freshness", "gateways[0].addresses[0]"]
    assert all(problem["line"] > 1 and problem["column"] > 1 for problem in data["problems"])
    assert not (provider.folder / "policy.db").exists()


def test_one_mistake_is_one(run: Run, change: Callable[..., None]) -> None:
    change(signing={"freshness": "soon"})
    assert "1 mistake; nothing was changed." in run("check-config", code=1).stderr


@pytest.mark.parametrize("command", ["check-config", "apply"])
@pytest.mark.parametrize("fault", ["missing", "a folder", "not text"])
def test_a_settings_file_that_cannot_be_read_is_3(run: Run, provider: Provider, command: str, fault: str) -> None:
    provider.settings.unlink()
    if fault == "a folder":
        provider.settings.mkdir()
        run(command, code=2)
        return
    if fault == "not text":
        provider.settings.write_bytes(b"\xff\xfe")
    assert str(provider.settings) in run(command, code=3).stderr


@pytest.mark.parametrize("name", ["signing.key", "chain.pem", "anchors.pem", "policy.yaml"])
def test_a_file_that_the_settings_name_and_is_not_there_is_a_mistake_in_them(
    run_json: Callable[..., Any], provider: Provider, name: str
) -> None:
    (provider.folder / name).unlink()
    (problem,) = run_json("check-config", code=1)["problems"]
    assert "No such file" in problem["message"]


def test_warnings_do_not_refuse(
    run: Run, run_json: Callable[..., Any], provider: Provider, living: Authority, present: float
) -> None:
    expired = living.issue(spc="709J", now=present, defect=Defect.EXPIRED)
    (provider.folder / "signing.key").write_bytes(expired.key)
    (provider.folder / "chain.pem").write_bytes(expired.chain)
    assert len(run_json("check-config")["warnings"]) == 2
    assert "warning: credential main:" in run("check-config").stderr


def test_without_policy_file_nothing_is_said_about_records(run: Run, change: Callable[..., None]) -> None:
    change(policy=None)
    assert "policy:" not in run("check-config").stdout


def test_brackets_in_what_is_told_are_no_markup(run: Run, change: Callable[..., None]) -> None:
    change(signing={"[red]x[/blue]": 1})
    assert "[red]x[/blue]" in run("check-config", code=1).stderr


# --- apply --------------------------------------------------------------------------------------


def test_apply_puts_in_force_and_counts_versions(
    run: Run, run_json: Callable[..., Any], provider: Provider, change: Callable[..., None]
) -> None:
    first = run_json("apply")
    assert (first["ok"], first["problems"], first["policy_version"]) == (True, [], 1)
    (warning,) = first["warnings"]
    assert warning.startswith(f"{provider.folder}/policy.db is new: a switch that runs already must be restarted")
    change(signing={"freshness": 50})
    text = run("apply").stdout
    assert "in force: policy version 2" in text
    assert run_json("apply")["warnings"] == []
    assert "kamcmd app_python.reload" in text
    assert sqlite.read_header(provider.folder / "policy.db").policy_version == 2


def test_a_store_that_cannot_be_written_is_3(run: Run, change: Callable[..., None]) -> None:
    change(store={"path": "missing/policy.db"})
    assert "cannot be created" in run("apply", code=3).stderr


# --- schema -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "model"), [([], Settings), (["settings"], Settings), (["policy"], PolicyFile)])
def test_the_schema_is_that_of_the_reader(
    arguments: list[str], model: type[Settings | PolicyFile], run_json: Callable[..., Any]
) -> None:
    import json

    schema = json.loads(CliRunner().invoke(main, ["schema", *arguments]).stdout)
    assert run_json("schema", *arguments) == schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == model.__name__
    assert set(schema["properties"]) == set(model.model_fields)


def test_the_schemas_accept_the_samples(provider: Provider) -> None:
    import json

    for name, file in (("settings", provider.settings), ("policy", provider.folder / "policy.yaml")):
        schema = json.loads(CliRunner().invoke(main, ["schema", name]).stdout)
        assert list(mistakes(schema, yaml.safe_load(file.read_text()))) == []


def test_who_puts_a_file_in_force_is_kept(
    run: Run, run_json: Callable[..., Any], in_force: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = in_force.folder / "policy.yaml"

    def changed(ceiling: str) -> None:
        data = yaml.safe_load(path.read_text())
        data["customers"][0]["ceiling"] = ceiling
        dump(path, data)

    def last() -> tuple[str, str, str]:
        change = run_json("store", "history")["changes"][-1]
        return change["who"], change["why"], change["what"]

    changed("B")
    run("apply", "--by", "anna", "--why", "review failed")
    assert last() == ("anna", "review failed", f"file {path}: 1 customer")
    monkeypatch.setenv("SHAKEN_BY", "bob")
    changed("C")
    run("apply")
    assert last() == ("bob", "put in force", f"file {path}: 1 customer")
    run("customer", "set", "acme", "--ceiling", "A", "--why", "x", "--by", "eve")
    changed("B")
    assert "by eve: x" in run("apply", "--by", "anna", code=3).stderr
