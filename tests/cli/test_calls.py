"""``shaken calls``, and ``shaken explain`` on calls that were made."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from shaken_plugin import runtime
from shaken_plugin.cli import main
from shaken_plugin.cli.masking import masked
from shaken_plugin.cli.output import console
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.sip import Request
from shaken_plugin.lab.provider import Provider
from shaken_plugin.records.schema import schema
from shaken_plugin.switch import Switch
from shaken_plugin.telemetry import MemoryObserver
from tests.cli.conftest import Run, invite
from tests.cli.records import WHY
from tests.config.jsonschema import mistakes

CUSTOMER, SUSPENDED = "127.0.0.2", "127.0.0.6"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that folds nothing."""
    monkeypatch.setattr(console, "width", 300)


@pytest.fixture
def made(in_force: Provider, present: float) -> Provider:
    """A provider whose switch has handled some calls, which are not in the ledger yet."""
    now = [present]
    services = runtime.reload(in_force.folder / "policy.db", present)[0]
    switch = Switch(services, MemoryObserver(), lambda: now[0], lambda: "3b9f1c0a-7d45-4b8e-9a53-1f2e6f7c8d90")

    def call(call_id: str, caller: str, source: str) -> CallMessage:
        text = invite(caller).replace("call-1@example.com", call_id)
        return CallMessage.from_request(Request.parse(text.encode()), source=source)

    for call_id, caller, source in (
        ("owned", "+12155551212", CUSTOMER),
        ("expired", "+14155550177", CUSTOMER),
        ("banned", "+12155551212", SUSPENDED),
        ("\x1b[31mred", "+19175550100", CUSTOMER),
    ):
        message = call(call_id, caller, source)
        switch.sign(lambda message=message: message)  # type: ignore[misc]  # bound now
        now[0] += 60
    switch.verify(lambda: call("unsigned", "+12155551212", "192.0.2.1"))
    for own in services.records._own.values():  # type: ignore[union-attr]  # as if the process had ended
        own.file.close()
    return in_force


@pytest.fixture
def collected(made: Provider, run: Run) -> Provider:
    told = run("calls", "--collect")
    assert "5 records moved into" in told.stdout.replace("\n", " ")
    assert list((made.folder / "calls").iterdir()) == []
    return made


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["call_id"] for row in rows]


@pytest.mark.usefixtures("collected")
def test_searching(run_json: Callable[..., Any], present: float) -> None:
    assert names(run_json("calls")) == ["unsigned", "\x1b[31mred", "banned", "expired", "owned"]
    for arguments, found in (
        (["--number", "+12155551212"], ["unsigned", "banned", "owned"]),
        (["--number", "2155551212", "--customer", "acme"], ["owned"]),
        (["--from-number", "+1415*"], ["expired"]),
        (["--to-number", "+12025550143", "--limit", "1"], ["unsigned"]),
        (["--level", "B"], ["\x1b[31mred", "expired"]),
        (["--verdict", "none"], ["unsigned"]),
        (["--refused"], ["banned"]),
        (["--unauthorised"], ["\x1b[31mred"]),
        (["--call-id", "owned"], ["owned"]),
        (["--since", str(present + 30), "--until", str(present + 90)], ["expired"]),
    ):
        assert names(run_json("calls", *arguments)) == found, arguments
    assert run_json("calls", "--customer", "nobody", code=1) == []


@pytest.mark.usefixtures("collected")
def test_numbers_are_masked_unless_asked_for(run: Run, run_json: Callable[..., Any]) -> None:
    masked, full = run("calls", "--json").stdout, run("calls", "--json", "--full-numbers").stdout
    for number in ("12155551212", "14155550177", "19175550100", "12025550143"):
        assert number in full
        assert number not in masked
        assert number not in run("calls").stdout
    found = run_json("calls", "--call-id", "expired", "--full-numbers")[0]
    assert list(mistakes(schema(), found)) == []
    assert found["orig"] == "14155550177"


@pytest.mark.usefixtures("collected")
def test_for_people_and_for_programs(run: Run) -> None:
    table = run("calls", "--customer", "acme").stdout
    assert "Call-ID" in table
    assert "a renewal of LOA-2025-007" in table
    assert "\x1b" not in table
    assert "\x1b" not in run("calls", "--json").stdout
    assert "refuse (refused)" in run("calls", "--refused").stdout
    lines = run("calls", "--jsonl", "--full-numbers").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["verify", "sign", "sign", "sign", "sign"]
    assert "no such call" in run("calls", "--customer", "nobody", code=1).stdout
    assert "digits" in run("calls", "--number", "+1x*", code=2).stderr
    assert "stand + and digits" in run("calls", "--number", "1415*", code=2).stderr


def test_collecting_says_what_it_did_and_searches_on(made: Provider, run: Run) -> None:
    file = next((made.folder / "calls").iterdir())
    with file.open("ab") as end:
        end.write(b'{}\n{"v":1,')
    told = run("calls", "--collect", "--jsonl", "--customer", "acme")
    assert json.loads(told.stderr)["collected"] == 5
    assert json.loads(told.stderr)["torn"] == json.loads(told.stderr)["damaged"] == 1
    assert len(told.stdout.splitlines()) == 3
    (made.folder / "calls" / file.name).mkdir()
    assert "is no file" in run("calls", "--collect").stdout


def test_without_a_ledger_it_says_so(in_force: Provider, run: Run, change: Callable[..., None]) -> None:
    assert "ledger.db" in run("calls", code=3).stderr
    change(records={"ledger": "postgresql://shaken@127.0.0.1:1/shaken", "ledger_password": "env:NO_SUCH_VARIABLE"})
    assert "NO_SUCH_VARIABLE is not set" in run("calls", code=3).stderr


def test_the_schema_is_printed(run: Run) -> None:
    assert json.loads(run("schema", "calls").stdout) == schema()


# --- Explaining -------------------------------------------------------------------------------


def change_policy(provider: Provider, present: float) -> None:
    path = provider.folder / "policy.yaml"
    policy = yaml.safe_load(path.read_text())
    policy["customers"][0]["state"] = "suspended"
    path.write_text(yaml.safe_dump(policy))
    runtime.apply(provider.settings, present)


def test_a_recorded_call_is_explained_and_decided_anew(
    collected: Provider, run: Run, run_json: Callable[..., Any], present: float
) -> None:
    data = run_json("explain", "--call-id", "owned")
    assert (data["recorded"]["level"], data["alike_now"], data["now"]["level"]) == ("A", True, "A")
    text = run("explain", "--call-id", "expired").stdout
    assert text.startswith("level B\n")
    assert "the right (letter of authorisation) ended on" in text
    assert "it would be decided alike now, by policy version 1" in text
    change_policy(collected, present)
    data = run_json("explain", "--call-id", "owned")
    assert (data["recorded"]["policy_version"], data["alike_now"], data["now"]["level"]) == (1, False, "refuse")
    text = run("explain", "--call-id", "owned").stdout
    assert "now it would be level refuse, by policy version 2: Acme Contact Centre is suspended" in text
    assert "level refuse (suspended)" in run("explain", "--call-id", "banned", code=1).stdout


@pytest.mark.usefixtures("collected")
def test_a_recorded_call_by_numbers_and_time(run: Run, run_json: Callable[..., Any], present: float) -> None:
    numbers = ["--recorded", "--from", "+12155551212", "--to", "+12025550143"]
    for at, call_id in ((present - 60, "owned"), (present + 125, "banned")):
        data = run_json("explain", *numbers, "--at", str(at), code=0 if call_id == "owned" else 1)
        assert data["recorded"]["call_id"] == call_id
    assert "no such call" in run("explain", *numbers, "--at", str(present - 4_000), code=1).stderr
    verified = run("explain", "--call-id", "unsigned", code=1).stdout
    assert verified.startswith("none (no_identity)\n")
    assert "now" not in verified.splitlines()[-1]
    by_time = run_json("explain", "--call-id", "owned", "--at", str(present))
    assert by_time["recorded"]["call_id"] == "owned"


@pytest.mark.usefixtures("collected")
def test_numbers_of_an_explained_call_are_masked_unless_asked_for(run: Run) -> None:
    for more in ([], ["--json"]):
        for call_id, number in (("owned", "12155551212"), ("expired", "14155550177")):
            assert number not in run("explain", "--call-id", call_id, *more).stdout
            full = run("explain", "--call-id", call_id, "--full-numbers", *more).stdout
            assert number in full
            assert "12025550143" in full


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("215-555-1212", "2155****12"),
        ("+1 (215) 555-1212", "+1215*****12"),
        ("1.215.555.1212", "1215*****12"),
        ("account 2 1 5 5 5 5 1 2 1 2", "account 2155****12"),
        ("\u0662\u0661\u0665\u0665\u0665\u0665\u0661\u0662\u0661\u0662", "2155****12"),
        ("12155550000-12155559999", "1215*****00-1215*****99"),
        ("ended on 2026-11-22 10:00:00, from 192.0.2.117", "ended on 2026-11-22 10:00:00, from 192.0.2.117"),
        ("2026-11-22", "2026-11-22"),
        ("room 555121", "room 555121"),
    ],
)
def test_numbers_are_masked_however_they_are_written(text: str, shown: str) -> None:
    given = {"user": text, "detail": text, "missing": [text], "trace": [{"finding": text}]}
    assert masked(given) == {"user": shown, "detail": shown, "missing": [shown], "trace": [{"finding": shown}]}


@pytest.mark.usefixtures("in_force")
def test_explaining_needs_a_call(run: Run) -> None:
    for arguments in ([], ["--from", "+12155551212"], ["--recorded", "--from", "1", "--to", "2"]):
        assert "--call-id" in run("explain", *arguments, code=2).stderr
    assert "ledger.db" in run("explain", "--call-id", "x", code=3).stderr


def test_a_call_that_was_sent_on_is_decided_anew_as_such(in_force: Provider, run_json: Callable[..., Any]) -> None:
    from shaken_plugin.records.collector import collect
    from shaken_plugin.records.ledger import Ledger
    from shaken_plugin.records.spool import SpoolWriter
    from tests.records.builders import record

    folder = in_force.folder / "calls"
    diverted = record(
        call_id="on", level="div", ppt="div", orig="19175550100", diverting="12155551212", source=CUSTOMER, trace=()
    )
    assert SpoolWriter(folder, 1 << 20).write(diverted) is None
    with closing(Ledger(f"sqlite:{in_force.folder / 'ledger.db'}")) as ledger:
        collect(Path(folder), ledger)
    data = run_json("explain", "--call-id", "on")
    assert data["now"]["level"] == "div"
    assert data["alike_now"] is False  # it was recorded without a trace


@pytest.fixture
def routed(in_force: Provider, run: Run, present: float) -> Provider:
    """Calls in the ledger that were decided by more than caller and source."""
    run("substitution", "add", "s", "--customer", "acme", "--number", "+12155551212", "--route", "shop", *WHY, code=1)
    run("route", "add", "uk", "--destination", "+44", "--ceiling", "B", *WHY)
    run("route", "add", "shop", *WHY)
    run("substitution", "add", "s", "--customer", "acme", "--number", "+12155551212", "--route", "shop", *WHY)
    services = runtime.reload(in_force.folder / "policy.db", present)[0]
    switch = Switch(services, MemoryObserver(), lambda: present, lambda: "3b9f1c0a-7d45-4b8e-9a53-1f2e6f7c8d90")
    for call_id, caller, source, changes in (
        ("substituted", "+12125550199", CUSTOMER, {"route": "shop"}),
        ("call back", "+12155551212", SUSPENDED, {"priority": "psap-callback"}),
        ("named", "+12155551213", CUSTOMER, {"route": "uk"}),
        ("by Request-URI", "+12155551214", CUSTOMER, {"request_uri": "sip:+442079460000@example.net"}),
    ):
        text = invite(caller).replace("call-1@example.com", call_id)
        message = replace(CallMessage.from_request(Request.parse(text.encode()), source=source), **changes)  # type: ignore[arg-type]  # by name
        switch.sign(lambda message=message: message)  # type: ignore[misc]  # bound now
    for own in services.records._own.values():  # type: ignore[union-attr]  # as if the process had ended
        own.file.close()
    run("calls", "--collect")
    return in_force


@pytest.mark.usefixtures("routed")
@pytest.mark.parametrize(
    ("call_id", "level"), [("substituted", "A"), ("call back", "unsigned"), ("named", "B"), ("by Request-URI", "B")]
)
def test_a_recorded_call_is_decided_anew_as_it_came(
    run: Run, run_json: Callable[..., Any], call_id: str, level: str
) -> None:
    result = CliRunner().invoke(main, ["explain", "--call-id", call_id, "--json"])
    data = json.loads(result.stdout)
    assert (data["recorded"]["level"], data["now"]["level"], data["alike_now"]) == (level, level, True)
    (masked,) = run_json("calls", "--call-id", call_id)
    assert "442079460000" not in str(masked)


@pytest.mark.usefixtures("routed")
def test_missing_agrees_with_the_ledger(run_json: Callable[..., Any]) -> None:
    data = run_json("missing", "acme", code=1)["numbers"]
    assert [(each["numbers"], each["level"], each["calls"]) for each in data] == [
        ("+12155551213", "B", 1),
        ("+12155551214", "B", 1),
    ]
    # What was substituted gets A: by another number.
    assert all("route uk" in str(each["missing"]) for each in data)
