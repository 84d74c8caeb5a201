"""The verbs of records: customers, trunks, gateways, rights, routes, substitutions, limits."""

from __future__ import annotations

import pytest

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Customer, CustomerState, Limits, Rate, Right, Route, Substitution, Trunk
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import Author, PolicyWriter
from tests.cli.records import CENTRE, WHY, Run, RunJson

RULE = ("substitution", "add", "s", "--customer", "acme", "--number", "+12155551200")

KINDS = {
    "customer": (["--name", "Globex"], ["--email", "help@example.org"], "kyc.email"),
    "trunk": (["--customer", "acme", "--user", "globex"], ["--add-address", "203.0.113.9"], "addresses"),
    "gateway": (["--name", "International", "--address", "203.0.113.7"], ["--name", "Overseas"], "name"),
    "right": (["--customer", "acme", "--basis", "ported"], ["--use-case", "support line"], "use_case"),
    "letter": (["--customer", "acme"], ["--valid-until", "2090-01-31"], "valid_until"),
    "route": (["--destination", "+44"], ["--sign", "no"], "rules.sign"),
    "substitution": (["--customer", "acme", "--number", "+12155551200"], ["--days", "mon-fri"], "window.days"),
}
"""For each kind: options of add, options of set, and what the latter changes."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_lives_through_all_verbs(run: Run, run_json: RunJson, centre: PolicyWriter, kind: str) -> None:
    new, changed, attribute = KINDS[kind]
    added = run_json(kind, "add", "globex", *new, *WHY)
    assert added["ok"] is True
    assert [(change["id"], change["change"]) for change in added["changes"]] == [("globex", "added")]
    assert (added["policy_version"], added["by"], added["why"]) == (5, "anna", "ticket 4711")

    before = run_json(kind, "show", "globex")
    (change,) = run_json(kind, "set", "globex", *changed, *WHY)["changes"]
    assert change.keys() == {"kind", "id", "change", "fields", "numbers_added", "numbers_removed"}
    assert list(change["fields"]) == [attribute]
    shown = run_json(kind, "show", "globex")
    outer, _, inner = attribute.rpartition(".")
    values = [data[outer][inner] if outer else data[inner] for data in (before, shown)]
    assert values == change["fields"][attribute]
    assert [entry["version"] for entry in shown["history"]] == [6, 5]
    assert shown["history"][0].keys() == {"version", "at", "by", "why", "what", "fields"}
    assert "ticket 4711" in run(kind, "show", "globex").stdout

    assert "globex" in run(kind, "list").stdout
    assert "globex" in [record["id"] for record in run_json(kind, "list")]
    assert len(run_json(kind, "list", "--limit", 1)) == 1

    told = run(kind, "remove", "globex", *WHY).stdout
    assert "globex removed" in told
    assert "in force: policy version 7" in told
    assert f"there is no {'right' if kind == 'letter' else kind} globex" in run(kind, "show", "globex", code=1).stderr
    assert [(change.who, change.why) for change in centre.changes(4)] == [("anna", "ticket 4711")] * 3


def test_history_does_not_end_with_what_others_do(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    for count in range(310):
        with centre.change(Author("bulk", "bulk", 1_795_000_000.0), "bulk") as draft:
            draft.put(Customer("globex", f"Globex {count}", CustomerState.PENDING))
    assert [entry["version"] for entry in run_json("letter", "show", "LOA-1")["history"]] == [4]
    assert [entry["version"] for entry in run_json("customer", "show", "acme")["history"]] == [4, 3, 2, 1]
    newest = run_json("customer", "show", "globex")["history"]
    assert [entry["version"] for entry in newest] == [314, 313, 312, 311, 310]
    assert newest[0]["fields"] == {"name": ["Globex 308", "Globex 309"]}


def test_a_removed_record_still_has_a_history(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    run("letter", "remove", "LOA-1", "--why", "revoked", "--by", "Bob")
    told = run("letter", "show", "LOA-1", code=1)
    assert "there is no right LOA-1: it was removed" in told.stderr
    assert "revoked" in told.stdout
    data = run_json("letter", "show", "LOA-1", code=1)
    assert (data["ok"], data["error"]) == (False, "there is no right LOA-1: it was removed")
    assert [(entry["version"], entry["by"]) for entry in data["history"]] == [(5, "Bob"), (4, "anna")]
    assert data["history"][0]["fields"]["document"] == ["LOA-1", None]
    assert "history" not in run_json("letter", "show", "LOA-2", code=1)


def test_what_changed_is_told_before_and_after(run: Run, centre: PolicyWriter) -> None:
    told = run("customer", "set", "acme", "--ceiling", "B", "--review", "2027-01-31", *WHY)
    assert [line.split() for line in told.stdout.splitlines()] == [
        ["customer", "acme", "changed"],
        ["ceiling", "nothing", "→", "B"],
        ["review", "nothing", "→", "2027-01-31"],
        ["in", "force:", "policy", "version", "5"],
    ]
    assert "policy.yaml does not say this" in told.stderr
    assert "ceiling  B → nothing" in run("customer", "set", "acme", "--clear", "ceiling", *WHY).stdout
    with centre.records() as records:
        acme = records.get(Customer, "acme")
    assert acme is not None
    assert (acme.ceiling, acme.review_at) == (None, 1_801_353_600.0)


def test_a_dry_run_says_it_and_changes_nothing(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    data = run_json("customer", "set", "acme", "--ceiling", "C", *WHY, "--dry-run")
    assert (data["dry_run"], data["policy_version"], data["changes"][0]["fields"]) == (
        True,
        4,
        {"ceiling": [None, "C"]},
    )
    assert "nothing was changed (--dry-run)" in run("trunk", "remove", "acme-dialler", *WHY, "--dry-run").stdout
    with centre.records() as records:
        assert records.version == 4


def test_what_is_so_already_makes_no_version(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    data = run_json("customer", "set", "acme", "--state", "verified", *WHY)
    assert (data["changes"], data["notes"], data["policy_version"]) == ([], [], 4)
    assert "nothing to change" in run("customer", "set", "acme", "--state", "verified", *WHY).stdout


def test_who_and_why_stay_with_the_change(run: Run, centre: PolicyWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    run("customer", "set", "acme", "--ceiling", "B", code=2)
    monkeypatch.setenv("SUDO_USER", "carol")
    run("customer", "set", "acme", "--ceiling", "B", "-m", "complaint")
    monkeypatch.setenv("SHAKEN_BY", "Carol Jones")
    run("customer", "set", "acme", "--ceiling", "C", "-m", "complaint")
    assert [(change.who, change.why, change.what) for change in centre.changes(4)] == [
        ("carol", "complaint", "set customer acme"),
        ("Carol Jones", "complaint", "set customer acme"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["customer", "show", "acmee"], 1, "there is no customer acmee (did you mean acme?)"),
        (["trunk", "show", "acme"], 1, "there is no trunk acme"),
        (["gateway", "show", "intl"], 1, "there is no gateway intl; there is none at all yet"),
        (["customer", "add", "acme", "--name", "Acme", *WHY], 1, "change it with 'shaken customer set'"),
        (["customer", "add", "no good", "--name", "x", *WHY], 2, "not a name"),
        (["customer", "set", "acme", "--state", "verifed", *WHY], 2, "did you mean verified?"),
        (["customer", "set", "acme", "--state", "suspended", *WHY], 2, "not one of pending, verified"),
        (["customer", "set", "acme", "--origid", "1", *WHY], 2, "not a UUID"),
        (["customer", "set", "acme", "--credential", "mian", *WHY], 1, "did you mean main?"),
        (["trunk", "add", "t", "--customer", "acmee", "--user", "t", *WHY], 1, "did you mean acme?"),
        (["trunk", "add", "t", "--customer", "acme", *WHY], 1, "no call is ever recognised"),
        (["trunk", "add", "t", "--customer", "acme", "--address", "1.2.3", *WHY], 2, "not an IP address"),
        (["trunk", "add", "t", "--customer", "acme", "--address", "198.51.100.0/24", *WHY], 1, "acme-dialler already"),
        (["trunk", "set", "acme-dialler", "--remove-address", "203.0.113.1", *WHY], 1, "it has 198.51.100.0/24"),
        (["trunk", "set", "acme-dialler", "--remove-address", "198.51.100.0/24", *WHY], 1, "ever recognised"),
        (["gateway", "add", "g", "--name", "G", *WHY], 1, "g: --address: a gateway needs"),
        (["right", "set", "LOA-1", "--valid-from", "2100-01-01", *WHY], 1, "--valid-until: ends before valid_from"),
        ([*RULE, "--begins", "08:00", "--ends", "8:00", *WHY], 1, "--ends: is when it begins"),
        (["right", "add", "R", "--customer", "acme", "--basis", "delegate", *WHY], 1, "--document: document is"),
        (["right", "set", "acme-assigned", "--basis", "delegate", *WHY], 1, "--document: document is"),
        (["right", "set", "acme-assigned", "--basis", "resporg", *WHY], 1, "a RespOrg answers for toll-free"),
        (["right", "add", "r", "--customer", "acme", "--basis", "letter", *WHY], 1, "named by its reference"),
        (["right", "add", "r", "--customer", "acme", "--basis", "resporg", "--numbers", "+12155551", *WHY], 1, "toll"),
        (["right", "set", "LOA-1", "--remove-numbers", "+13125550143", *WHY], 1, "no numbers +13125550143"),
        (["right", "set", "LOA-1", "--add-numbers", "x", *WHY], 2, "neither a number such as"),
        (["substitution", "add", "s", "--customer", "acme", "--number", "12", *WHY], 2, "by the dial plan of US"),
        ([*RULE, "--route", "uk", *WHY], 1, "no route uk"),
        ([*RULE, "--days", "x", *WHY], 2, "mon-fri"),
        ([*RULE, "--begins", "25:00", *WHY], 2, "08:30"),
        (["letter", "show", "acme-assigned"], 1, "is no letter; see 'shaken right show acme-assigned'"),
        (["right", "list", "--customer", "nobody"], 1, "there is no customer nobody"),
    ],
)  # fmt: skip
def test_mistakes_say_what_to_do_and_change_nothing(
    run: Run, in_memory: PolicyWriter, arguments: list[str], code: int, told: str
) -> None:
    assert told in run(*arguments, code=code).stderr
    with in_memory.records() as records:
        assert records.version == 4


@pytest.mark.usefixtures("centre")
def test_errors_are_json_for_programs(run_json: RunJson) -> None:
    data = run_json("customer", "show", "acmee", code=1)
    assert data == {"ok": False, "error": "there is no customer acmee (did you mean acme?)", "problems": []}


@pytest.mark.parametrize("content", [None, b"no database at all" * 1000])
def test_a_store_that_cannot_be_used_is_3(
    run: Run, run_json: RunJson, provider: Provider, content: bytes | None
) -> None:
    store = provider.folder / "policy.db"
    if content is not None:
        store.write_bytes(content)
        run(*CENTRE[0], *WHY, code=3)
    for command in (["customer", "list"], ["number", "show", "+12155551212"], ["expiring"], ["missing", "acme"]):
        assert str(store) in run_json(*command, code=3)["error"]
    assert (store.read_bytes() if store.exists() else None) == content
    run("customer", "list", "--settings", provider.folder / "gone.yaml", code=3)


# --- Customers ----------------------------------------------------------------------------------


def test_all_that_is_known_of_a_customer(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    options = ["--legal-name", "Acme Inc.", "--email", "noc@example.com", "--rmd", "RMD0001", "--country", "US"]
    run("customer", "set", "acme", *options, "--reviewed-by", "anna", "--reviewed", "2026-11-01", *WHY)
    data = run_json("customer", "show", "acme")
    assert (data["kyc"]["legal_name"], data["carrier"]["rmd"], data["kind"]) == (
        "Acme Inc.",
        "RMD0001",
        "contact_centre",
    )
    assert [trunk["addresses"] for trunk in data["trunks"]] == [["198.51.100.0/24"]]
    rights = {right["id"]: right for right in data["rights"]}
    assert rights["acme-assigned"]["numbers"] == {"ranges": 1, "count": 100, "first": ["+12155551200..+12155551299"]}
    assert (rights["LOA-1"]["owner"], rights["acme-assigned"]["owner"]) == ("Example Clinic", None)
    assert data["next"] == [{"at": 4_086_547_200.0, "what": "right LOA-1 ends"}]
    assert [entry["what"] for entry in data["history"]] == [
        "set customer acme",
        "add letter LOA-1",
        "add +12155551200..+12155551299 to customer acme (assigned)",
        "add trunk acme-dialler",
        "add customer acme",
    ]
    told = run("customer", "show", "acme").stdout
    for text in ("Acme Inc.", "Example Clinic", "acme-dialler", "next: 2099-07-01", "ticket 4711"):
        assert text in told


def test_customers_are_listed_by_state(run_json: RunJson, centre: PolicyWriter, run: Run) -> None:
    run("customer", "add", "globex", "--name", "Globex", *WHY)
    assert [customer["id"] for customer in run_json("customer", "list")] == ["acme", "globex"]
    assert [customer["id"] for customer in run_json("customer", "list", "--state", "pending")] == ["globex"]
    assert "… and more" in run("customer", "list", "--limit", 1).stdout


def test_a_customer_with_rights_goes_only_with_its_numbers(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    told = run("customer", "remove", "acme", *WHY, code=1).stderr
    assert "right LOA-1, right acme-assigned refer to customer acme, with 2 numbers and ranges" in told
    changes = run_json("customer", "remove", "acme", "--with-numbers", *WHY)["changes"]
    assert {(change["kind"], change["id"], change["numbers_removed"]) for change in changes} == {
        ("right", "LOA-1", 1),
        ("right", "acme-assigned", 1),
        ("trunk", "acme-dialler", 0),
        ("customer", "acme", 0),
    }
    with centre.records() as records:
        assert not list(records.all(Customer))
    with centre.records(4) as records:
        assert records.count(Right, "LOA-1") == 1


# --- Trunks, routes, substitutions --------------------------------------------------------------


def test_addresses_come_and_go_one_by_one_or_all(run: Run, centre: PolicyWriter) -> None:
    run("trunk", "set", "acme-dialler", "--add-address", "203.0.113.7", "--add-user", "acme", *WHY)
    run("trunk", "set", "acme-dialler", "--remove-address", "198.51.100.0/24", *WHY)
    with centre.records() as records:
        trunk = records.get(Trunk, "acme-dialler")
    assert trunk is not None
    assert (list(map(str, trunk.addresses)), trunk.users) == (["203.0.113.7/32"], ("acme",))
    run("trunk", "set", "acme-dialler", "--address", "192.0.2.1", "--address", "192.0.2.2", "--clear", "user", *WHY)
    with centre.records() as records:
        trunk = records.get(Trunk, "acme-dialler")
    assert trunk is not None
    assert (list(map(str, trunk.addresses)), trunk.users) == (["192.0.2.1/32", "192.0.2.2/32"], ())


def test_a_rule_for_a_route_at_working_hours(run: Run, centre: PolicyWriter) -> None:
    run("route", "add", "uk", "--destination", "+44", "--unauthorised", "refuse", "--ceiling", "B", *WHY)
    rule = ["--customer", "acme", "--number", "+12155551200", "--route", "uk", "--caller", "+1312"]
    when = ["--days", "sat-mon,wed", "--begins", "08:30", "--ends", "24:00", "--utc-offset", "-300"]
    told = run("substitution", "add", "s1", *rule, *when, *WHY).stdout
    for text in ("mon,wed,sat,sun", "08:30", "-300", "+1312", "+12155551200"):
        assert text in told
    with centre.records() as records:
        made, route = records.get(Substitution, "s1"), records.get(Route, "uk")
    assert made is not None
    assert made.window is not None
    assert (made.window.days, made.window.begins, made.window.ends) == ((0, 2, 5, 6), 510, 1440)
    assert (made.routes, made.callers, made.number) == (("uk",), ("1312",), "12155551200")
    assert route is not None
    assert (route.destinations, route.rules.ceiling) == (("44",), Attest.B)
    clear = ["--clear", "days", "--clear", "begins", "--clear", "ends", "--clear", "utc-offset"]
    run("substitution", "set", "s1", *clear, *WHY)
    with centre.records() as records:
        made = records.get(Substitution, "s1")
    assert made is not None
    assert made.window is None
    assert "refer" in run("route", "remove", "uk", *WHY, code=1).stderr


# --- Limits -------------------------------------------------------------------------------------


def test_limits_in_all_and_by_level(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    told = run("limits", "set", "acme", "--calls-per-second", 10, "--concurrent", 50, *WHY).stdout
    assert "limits  nothing → all calls 10/s 50 at a time" in told
    run("limits", "set", "acme", "--level", "A", "--calls-per-second", 2.5, *WHY)
    run("limits", "set", "acme", "--clear", "concurrent", *WHY)
    (shown,) = run_json("limits", "show", "acme")
    assert shown == {
        "customer": "acme",
        "total": {"calls_per_second": 10.0, "concurrent": None},
        "by_level": {"A": {"calls_per_second": 2.5, "concurrent": None}},
        "suspended": False,
    }
    assert run_json("limits", "list") == [shown]
    assert "level A" in run("limits", "show", "acme").stdout
    run("limits", "remove", "acme", "--level", "A", *WHY)
    assert "no such limits" in run("limits", "remove", "acme", "--level", "A", *WHY, code=1).stderr
    with centre.records() as records:
        acme = records.get(Customer, "acme")
    assert acme is not None
    assert (acme.limits.total, acme.limits.by_level) == (Rate(10.0, None), ())
    run("limits", "remove", "acme", *WHY)
    assert run_json("limits", "list") == []
    assert "no bound" in run("limits", "show", "acme").stdout
    run("limits", "set", "acme", "--concurrent", 0, *WHY, code=2)


def test_a_new_customer_is_pending(run: Run, centre: PolicyWriter) -> None:
    run("customer", "add", "globex", "--name", "Globex", *WHY)
    with centre.records() as records:
        globex = records.get(Customer, "globex")
    assert globex is not None
    assert globex.state is CustomerState.PENDING


def test_limits_out_of_force_and_in_again(run: Run, run_json: RunJson, centre: PolicyWriter) -> None:
    for verb in ("suspend", "reinstate"):
        assert "has no limits" in run("limits", verb, "acme", *WHY, code=1).stderr
    run("limits", "add", "acme", *WHY, code=2)
    told = run("limits", "add", "acme", "--level", "A", "--concurrent", 5, *WHY).stdout
    assert "limits  nothing → level A 5 at a time" in told
    assert "'shaken limits set'" in run("limits", "add", "acme", "--concurrent", 5, *WHY, code=1).stderr
    told = run("limits", "suspend", "acme", *WHY).stdout
    assert "limits  level A 5 at a time → level A 5 at a time, suspended" in told
    run("limits", "set", "acme", "--calls-per-second", 3, *WHY)
    assert run_json("limits", "show", "acme")[0]["suspended"] is True
    assert "suspended" in run("limits", "list").stdout
    assert "suspended" in run("customer", "show", "acme").stdout
    assert run_json("customer", "show", "acme")["limits"]["suspended"] is True
    assert "'--by'" in run("limits", "reinstate", "acme", "--why", "sorted out", code=2).stderr
    run("limits", "reinstate", "acme", *WHY)
    assert run_json("limits", "show", "acme")[0]["suspended"] is False
    run("limits", "suspend", "acme", *WHY)
    run("limits", "set", "acme", "--clear", "calls-per-second", *WHY)
    run("limits", "remove", "acme", "--level", "A", *WHY)
    with centre.records() as records:
        acme = records.get(Customer, "acme")
    assert acme is not None
    assert acme.limits == Limits()  # what is not there is not suspended either


@pytest.mark.parametrize("group", ["customer", "number", "letter", "dno", "limits"])
def test_every_verb_is_there(run: Run, group: str) -> None:
    told = run(group, "--help").stdout
    for verb in ("add", "show", "list", "set", "suspend", "reinstate", "remove"):
        assert f"\n  {verb} " in told
    assert "--by NAME" in run(group, "reinstate", "--help").stdout
