"""``shaken customer suspend``, ``terminate`` and ``reinstate``."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest

from shaken_plugin import runtime
from shaken_plugin.core.records import CustomerState
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import PolicyWriter
from shaken_plugin.stores import statefile
from shaken_plugin.stores.standing import StandingFile
from tests.cli.records import WHY, Run, RunJson


def level(run_json: RunJson) -> str:
    """What a call with the client's number gets."""
    (call,) = run_json("number", "show", "+13125550142")["calls"]
    return str(call["level"])


def test_a_customer_is_suspended_beside_the_policy(
    run: Run, run_json: RunJson, centre: PolicyWriter, provider: Provider
) -> None:
    data = run_json("customer", "suspend", "acme", "--why", "robocalls", "--by", "Bob")
    assert data == {"ok": True, "customer": "acme", "state": ["verified", "suspended"], "by": "Bob", "why": "robocalls"}
    standing = StandingFile(provider.folder / "state.db").of("acme")
    assert standing is not None
    assert (standing.state, standing.who, standing.why) == (CustomerState.SUSPENDED, "Bob", "robocalls")
    with centre.records() as records:
        assert records.version == 4
    assert level(run_json) == "refuse"
    shown = run_json("customer", "show", "acme")
    assert (shown["state"], shown["state_in_force"], shown["warnings"]) == ("verified", "suspended", 0)
    assert (shown["standing"][0]["state"], shown["standing"][0]["why"]) == ("suspended", "robocalls")
    assert "robocalls" in run("customer", "show", "acme").stdout
    assert [one["state"] for one in run_json("customer", "list", "--state", "suspended")] == ["suspended"]
    assert run_json("customer", "list", "--state", "verified") == []

    assert "already, by Bob: robocalls" in run("customer", "suspend", "acme", *WHY, code=1).stderr
    assert "suspended → terminated" in run("customer", "terminate", "acme", *WHY).stdout
    assert "'--by'" in run("customer", "reinstate", "acme", "--why", "paid", code=2).stderr
    assert run_json("customer", "reinstate", "acme", *WHY)["state"] == ["terminated", "verified"]
    assert level(run_json) == "A"
    assert [said["state"] for said in run_json("customer", "show", "acme")["standing"]] == [
        "reinstated",
        "terminated",
        "suspended",
    ]
    assert "neither suspended nor terminated" in run("customer", "reinstate", "acme", *WHY, code=1).stderr


@pytest.mark.parametrize("both", [False, True])
def test_who_is_suspended_by_the_policy_is_reinstated_there(
    run: Run, run_json: RunJson, in_force: Provider, both: bool
) -> None:
    told = run("customer", "set", "banned", "--state", "verified", *WHY, code=1).stderr
    assert "'shaken customer reinstate' changes that" in told
    if both:
        run("customer", "terminate", "banned", *WHY)
    data = run_json("customer", "reinstate", "banned", "--state", "pending", *WHY)
    assert data["state"] == ["terminated" if both else "suspended", "pending"]
    shown = run_json("customer", "show", "banned")
    assert (shown["state"], shown["state_in_force"]) == ("pending", "pending")
    assert (shown["history"][0]["what"], shown["history"][0]["by"]) == ("reinstate customer banned", "anna")


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("verb", ["suspend", "terminate", "reinstate"])
def test_only_customers_of_the_policy(run: Run, verb: str, provider: Provider) -> None:
    assert "did you mean acme?" in run("customer", verb, "acmee", *WHY, code=1).stderr
    assert "--why" in run("customer", verb, "acme", "--by", "anna", code=2).stderr
    assert not (provider.folder / "state.db").exists()


# --- The state file is lost ---------------------------------------------------------------------

CALL = ("--from", "+12155551212", "--to", "+12025550143", "--source", "127.0.0.2")


def lose(provider: Provider) -> None:
    for name in provider.folder.glob("state.db*"):
        name.unlink()


def test_a_lost_state_file_is_made_anew_by_a_person_alone(run: Run, run_json: RunJson, in_force: Provider) -> None:
    state = in_force.folder / "state.db"
    assert "nothing was lost" in run("store", "forget-state", *WHY, code=1).stderr
    run("customer", "suspend", "acme", *WHY)
    assert run_json("explain", *CALL, code=1)["refusal"] == "suspended"
    lose(in_force)
    for command, code in (("offence list", 3), ("customer suspend acme --by a --why b", 3), ("explain", 3)):
        told = run(*command.split(), *(CALL if command == "explain" else ()), code=code)
        assert "'shaken store forget-state --by NAME --why TEXT'" in told.stderr
        assert not state.exists()
    assert "it is gone" in run("apply").stderr
    assert "it is gone" in runtime.start(in_force.settings, time.time()).warnings[-1]
    assert not state.exists()

    assert "'--by'" in run("store", "forget-state", "--why", "disk died", code=2).stderr
    assert run_json("store", "forget-state", *WHY)["kept"] is None
    assert run_json("explain", *CALL)["level"] == "A"
    last = run_json("store", "history")["changes"][-1]
    assert (last["who"], last["why"]) == ("anna", "ticket 4711")
    assert "state file made anew" in last["what"]
    run("apply")  # it undoes nothing that the file says
    state.write_bytes(b"no database" * 1_000)
    assert "state.db.forgotten-" in run("store", "forget-state", *WHY).stdout
    run("customer", "suspend", "acme", *WHY)


def test_an_older_release_knew_no_state_file(run: Run, run_json: RunJson, in_force: Provider) -> None:
    with closing(sqlite3.connect(in_force.folder / "policy.db")) as connection, connection:
        connection.execute("DELETE FROM meta WHERE key = 'state_id'")
    lose(in_force)
    runtime.start(in_force.settings, time.time())
    assert statefile.remembered(in_force.folder / "policy.db") is not None
    assert run_json("explain", *CALL)["level"] == "A"


def test_looking_makes_no_state_file(run: Run, centre: PolicyWriter, provider: Provider) -> None:
    assert "no offences" in run("offence", "list").stdout
    assert not (provider.folder / "state.db").exists()
    assert centre.version_at(time.time()) > 0
