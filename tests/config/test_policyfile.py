"""The policy file: records that fit together, and every one that does not named in its place."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.config.policyids import right_id
from shaken_plugin.core.attestation import AttestationPolicy, CallFacts, Level, decide
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, Trunk
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import Problem
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.stores.policy import Policy
from tests.records import number_right, reached

Data = dict[str, Any]

ACME: Data = {
    "id": "acme",
    "name": "Acme Contact Centre",
    "state": "verified",
    "trunks": [{"id": "acme-main", "addresses": ["198.51.100.0/24"], "users": ["acme@pbx"]}],
}
INTL: Data = {"id": "intl", "name": "International gateway", "addresses": ["203.0.113.7", "2001:db8::/64"]}
RIGHT: Data = {"customer": "acme", "basis": "assigned", "numbers": ["+12155551212"]}
SAMPLE: Data = {"customers": [ACME], "gateways": [INTL], "rights": [RIGHT]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def read(file: Path, data: Any, credentials: frozenset[str] | None = None) -> tuple[Policy | None, list[Problem]]:
    text = data if isinstance(data, str) else yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False)
    file.write_text(text)
    policy, document = parse_policy(file, credentials)
    return policy, document.problems


def good(file: Path, data: Any) -> Policy:
    policy, problems = read(file, data)
    assert policy is not None, problems
    return policy


def told(file: Path, data: Any, credentials: frozenset[str] | None = None) -> list[str]:
    """What is wrong, as ``path: message``; nothing is built then."""
    policy, problems = read(file, data, credentials)
    assert policy is None
    return [f"{problem.path}: {problem.message}" for problem in problems]


def right(**changes: Any) -> Data:
    return {"customers": [ACME], "rights": [RIGHT | changes]}


# --- Files that are right -----------------------------------------------------------------------


def test_everything_a_file_says_arrives(file: Path) -> None:
    origid = "11111111-2222-4333-8444-555555555555"
    customer = ACME | {"ceiling": "B", "credential": "second", "origid": origid.upper()}
    customer["trunks"] = [ACME["trunks"][0] | {"credential": "third"}, {"id": "acme-two", "users": ["two"]}]
    letter = {
        "customer": "acme",
        "basis": "letter",
        "document": "LOA-1",
        "use_case": "reminders",
        "valid_from": "2026-01-01",
        "valid_until": "2026-12-31T12:00:00-05:00",
        "numbers": ["+13035550100..+13035550199", "+442079460123"],
    }
    policy = good(file, {"customers": [customer], "gateways": [INTL | {"credential": "main"}], "rights": [letter]})
    acme = Customer("acme", "Acme Contact Centre", CustomerState.VERIFIED, Attest.B, "second", origid)
    main = reached(Trunk("acme-main", acme, "third"), "198.51.100.0/24", users=["acme@pbx"])
    two = reached(Trunk("acme-two", acme), users=["two"])
    gateway = reached(Gateway("intl", "International gateway", "main"), "203.0.113.7", "2001:db8::/64")
    times = (datetime(2026, 1, 1, tzinfo=UTC).timestamp(), datetime(2026, 12, 31, 17, tzinfo=UTC).timestamp())
    made = right_id("acme", Basis.LETTER, "LOA-1", "reminders")
    assert policy == Policy(
        customers=(acme,),
        trunks=(main, two),
        gateways=(gateway,),
        rights=(
            number_right("acme", "13035550100", "13035550199", Basis.LETTER, "LOA-1", "reminders", *times, id=made),
            number_right("acme", "442079460123", "442079460123", Basis.LETTER, "LOA-1", "reminders", *times, id=made),
        ),
    )


@pytest.mark.parametrize("text", ["customers: []\n", "customers:\n", "gateways: []\nrights: []\n"])
def test_lists_may_be_empty_or_left_out(file: Path, text: str) -> None:
    policy, problems = read(file, text)
    assert problems == [] if "[]" in text else problems
    assert policy == (Policy() if "[]" in text else None)


def test_ranges_of_different_customers_may_overlap(file: Path) -> None:
    other = ACME | {"id": "other", "trunks": []}
    rights = [
        RIGHT | {"numbers": ["+12155550000..+12155559999"]},
        RIGHT | {"customer": "other", "numbers": ["+12155551200..+12155551299", "+12155551212"]},
    ]
    policy = good(file, {"customers": [ACME, other], "rights": rights})
    assert len(MemoryStore(policy).facts(None, None, "12155551212").rights) == 3


def test_a_range_may_hold_one_number(file: Path) -> None:
    (only,) = good(file, right(numbers=["+12155551212..+12155551212"])).rights
    assert only.first == only.last == "12155551212"


def test_an_ipv4_address_in_ipv6_spelling_would_never_be_recognised(file: Path) -> None:
    (mistake,) = told(file, {"gateways": [INTL | {"addresses": ["::ffff:203.0.113.7"]}]})
    assert mistake == "gateways[0].addresses[0]: write it as 203.0.113.7"


def test_ten_thousand_numbers_are_counted_right(file: Path) -> None:
    lines = ["customers: [{id: acme, name: Acme, state: verified}]", "rights:"]
    lines += [f"- {{customer: acme, basis: assigned, numbers: [+1215555{number:04}]}}" for number in range(9_000)]
    lines += ["- customer: acme", "  basis: ported", "  numbers:"]
    lines += [f"  - +1303555{number:04}" for number in range(1_000)]
    policy = good(file, "\n".join(lines))
    assert len(policy.rights) == 10_000
    assert len({entry.first for entry in policy.rights}) == 10_000
    store = MemoryStore(policy)
    assert len(store.facts(None, None, "12155558999").rights) == 1
    assert store.facts(None, None, "12155559000").rights == ()


# --- Days and moments ---------------------------------------------------------------------------

DAY = datetime(2027, 6, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-06-30", DAY + 86_400),
        ("20270630", DAY + 86_400),
        ("2027-W26-3", DAY + 86_400),
        ("2027-06-30T00:00:00", DAY),
        ("2027-06-30T00:00:00Z", DAY),
        ("2027-06-30T10:00:00+02:00", DAY + 8 * 3600),
    ],
)
def test_a_last_day_ends_at_midnight_and_a_moment_is_exact(file: Path, text: str, moment: float) -> None:
    assert good(file, right(valid_until=text)).rights[0].right.valid_until == moment


@pytest.mark.parametrize("text", ["2027-06-30", "2027-06-30T00:00:00", "20270630"])
def test_a_first_day_begins_at_midnight(file: Path, text: str) -> None:
    assert good(file, right(valid_from=text)).rights[0].right.valid_from == DAY


@pytest.mark.parametrize(
    ("now", "level"),
    [
        (DAY - 0.001, Level.B),
        (DAY, Level.A),
        (DAY + 86_399.999, Level.A),
        (DAY + 86_400, Level.B),
    ],
    ids=["the day before", "first second", "last second", "the day after"],
)
def test_a_right_of_one_day_holds_on_that_day_and_no_other(file: Path, now: float, level: Level) -> None:
    policy = good(file, right(valid_from="2027-06-30", valid_until="2027-06-30"))
    facts = MemoryStore(policy).facts("198.51.100.1", None, "12155551212")
    call = CallFacts(TelephoneNumber("12155551212"), TelephoneNumber("12025550143"))
    assert decide(call, facts, AttestationPolicy(), now).level is level


@pytest.mark.parametrize(
    ("begin", "end"),
    [("2027-06-30", "2027-06-29"), ("2027-06-30T10:00:00", "2027-06-30T10:00:00"), ("2028-01-01", "2027-01-01")],
)
def test_a_right_that_ends_before_it_begins_is_a_mistake(file: Path, begin: str, end: str) -> None:
    assert told(file, right(valid_from=begin, valid_until=end)) == ["rights[0].valid_until: ends before valid_from"]


@pytest.mark.parametrize("text", ["tomorrow", "30.06.2027", "2027-06-31", "2027-13-01", "1798675200"])
@pytest.mark.parametrize("name", ["valid_from", "valid_until"])
def test_what_is_no_time_is_a_mistake(file: Path, name: str, text: str) -> None:
    (mistake,) = told(file, right(**{name: text}))
    assert mistake.startswith(f"rights[0].{name}: not a time such as")


# --- Fields -------------------------------------------------------------------------------------

FIELDS: list[tuple[Data, str]] = [
    ({"customers": [ACME], "rights": [{"customer": "acme", "basis": "assigned"}]}, "rights[0]: numbers is missing"),
    (right(numbers=["12155551212"]), "rights[0].numbers[0]: neither a number"),
    (right(numbers=["+0123456"]), "rights[0].numbers[0]: neither a number"),
    (right(numbers=["+1 215 555 1212"]), "rights[0].numbers[0]: neither a number"),
    (right(numbers=["+1215555121212345"]), "rights[0].numbers[0]: neither a number"),
    (right(numbers=["+12155551212..12155551299"]), "rights[0].numbers[0]: neither a number"),
    (right(numbers=["+12155551212..+1215555129"]), "rights[0].numbers[0]: the end of the range"),
    (right(numbers=["+12155551299..+12155551212"]), "rights[0].numbers[0]: the end of the range"),
    (right(basis="owned"), "rights[0].basis: not one of assigned, ported, resporg, letter, delegate or customer_word"),
    (right(use_case="a\tb"), "rights[0].use_case: not a text of 1 to 200 characters"),
    (right(basis="letter"), "rights[0]: document is missing: a letter of authorisation"),
    (right(basis="delegate"), "rights[0]: document is missing: a delegate certificate"),
    (right(basis="letter", document=""), "rights[0].document: not a text"),
    ({"customers": [ACME | {"state": "known"}]}, "customers[0].state: not one of pending, verified,"),
    ({"customers": [ACME | {"ceiling": "D"}]}, "customers[0].ceiling: not one of A, B or C"),
    ({"customers": [ACME | {"origid": "acme"}]}, "customers[0].origid: not a UUID"),
    ({"customers": [ACME | {"id": "a/b"}]}, "customers[0].id: not a name"),
    ({"customers": [ACME | {"nmae": "x"}]}, "customers[0].nmae: unknown setting (did you mean name?)"),
    ({"customers": [{"id": "a", "name": "A"}]}, "customers[0]: state is missing"),
    ({"gateways": [INTL | {"addresses": []}]}, "gateways[0].addresses: list should have at least 1 item"),
    ({"gateways": [INTL | {"addresses": ["gw.example"]}]}, "gateways[0].addresses[0]: not an IP address or network"),
    ({"gateways": [INTL | {"addresses": ["203.0.113.7/24"]}]}, "gateways[0].addresses[0]: not an IP address"),
    (
        {"gateways": [INTL | {"addresses": ["::ffff:203.0.113.0/120"]}]},
        "gateways[0].addresses[0]: write it as 203.0.113.0/24",
    ),
    ({"costumers": []}, "costumers: unknown setting (did you mean customers?)"),
]


@pytest.mark.parametrize(("data", "message"), FIELDS, ids=[row[1] for row in FIELDS])
def test_a_wrong_value_is_told_with_its_path(file: Path, data: Data, message: str) -> None:
    (mistake,) = told(file, data)
    assert mistake.startswith(message)


@pytest.mark.parametrize("users", [["two words"], ["x" * 129], [""], ["a\x7f"]])
def test_an_account_name_has_no_spaces(file: Path, users: list[str]) -> None:
    (mistake,) = told(file, {"customers": [ACME | {"trunks": [{"id": "t", "users": users}]}]})
    assert mistake.startswith("customers[0].trunks[0].users[0]: not an account name")


# --- Toll-free numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["800", "833", "844", "855", "866", "877", "888"])
def test_a_resporg_answers_for_toll_free_numbers(file: Path, code: str) -> None:
    policy = good(file, right(basis="resporg", numbers=[f"+1{code}5550100", f"+1{code}2000000..+1{code}9999999"]))
    assert len(policy.rights) == 2


@pytest.mark.parametrize(
    "numbers",
    [
        "+12155551212",
        "+18225550100",
        "+18005550100..+18015550100",
        "+18005550100..+18885550100",
        "+18335550100..+18445550100",
        "+448005550100",
        "+18001550100",
    ],
    ids=["geographic", "822", "into 801", "800 to 888", "833 to 844", "another country", "exchange 155"],
)
def test_a_resporg_answers_for_no_other_number_nor_for_any_between(file: Path, numbers: str) -> None:
    expected = "rights[0].numbers[0]: a RespOrg answers for toll-free numbers only"
    assert told(file, right(basis="resporg", numbers=[numbers])) == [expected]
