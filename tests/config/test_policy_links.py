"""The policy file: what no entry shows alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from shaken_plugin.config.policyentries import PolicyFile
from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.errors import FileProblems
from tests.config.jsonschema import every_schema, mistakes
from tests.config.test_policyfile import ACME, FIELDS, INTL, RIGHT, SAMPLE, Data, good, read, told


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


OTHER: Data = ACME | {"id": "other", "trunks": [{"id": "other-main", "addresses": ["192.0.2.0/24"]}]}


def _with_trunk(**trunk: object) -> Data:
    return {
        "customers": [ACME, OTHER | {"trunks": [{"id": "x", "addresses": ["192.0.2.1"]} | trunk]}],
        "gateways": [INTL],
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            SAMPLE | {"rights": [RIGHT | {"customer": "acem"}]},
            "rights[0].customer: there is no customer acem (did you mean acme?)",
        ),
        (SAMPLE | {"rights": [RIGHT | {"customer": "zebra"}]}, "rights[0].customer: there is no customer zebra"),
        ({"customers": [ACME, OTHER | {"id": "acme"}]}, "customers[1].id: a second customer acme"),
        (_with_trunk(id="acme-main"), "customers[1].trunks[0].id: a second trunk or gateway acme-main"),
        (SAMPLE | {"gateways": [INTL | {"id": "acme-main"}]}, "gateways[0].id: a second trunk or gateway acme-main"),
        (
            _with_trunk(addresses=["192.0.2.1", "198.51.100.0/24"]),
            "customers[1].trunks[0].addresses[1]: 198.51.100.0/24 belongs to trunk acme-main already",
        ),
        (
            {"customers": [ACME], "gateways": [INTL | {"addresses": ["198.51.100.0/24"]}]},
            "gateways[0].addresses[0]: 198.51.100.0/24 belongs to trunk acme-main already",
        ),
        (
            _with_trunk(addresses=["203.0.113.7/32"]),
            "gateways[0].addresses[0]: 203.0.113.7 belongs to trunk x already",
        ),
        (
            _with_trunk(users=["x", "acme@pbx"]),
            "customers[1].trunks[0].users[1]: the user acme@pbx belongs to trunk acme-main already",
        ),
        (
            _with_trunk(addresses=[]),
            "customers[1].trunks[0]: a trunk needs addresses or users, or no call is ever recognised",
        ),
    ],
)
def test_entries_that_do_not_fit_together_are_told(file: Path, data: Data, message: str) -> None:
    assert told(file, data) == [message]


def test_networks_within_networks_are_no_conflict(file: Path) -> None:
    policy = good(file, _with_trunk(addresses=["198.51.100.7", "198.51.100.128/25"]))
    assert len(policy.addresses) == 5


def test_an_address_or_user_twice_in_one_trunk_is_no_conflict(file: Path) -> None:
    assert good(file, _with_trunk(addresses=["192.0.2.1", "192.0.2.1/32"], users=["x", "x"]))


# --- Credentials --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["customer", "trunk", "gateway"])
def test_a_credential_that_the_settings_lack_is_told_with_those_they_have(file: Path, where: str) -> None:
    named = {"credential": "gone"}
    customer = ACME | (named if where == "customer" else {})
    if where == "trunk":
        customer = customer | {"trunks": [ACME["trunks"][0] | named]}
    data = {"customers": [customer], "gateways": [INTL | (named if where == "gateway" else {})]}
    path = {"customer": "customers[0]", "trunk": "customers[0].trunks[0]", "gateway": "gateways[0]"}[where]
    (mistake,) = told(file, data, frozenset({"main", "a"}))
    assert mistake.startswith(f"{path}.credential: the settings have no credential gone")
    assert "a, main" in mistake
    assert read(file, data, frozenset({"gone"}))[1] == []
    assert read(file, data, None)[1] == []


def test_a_credential_is_told_even_where_there_is_none_at_all(file: Path) -> None:
    (mistake,) = told(file, {"customers": [ACME | {"credential": "main"}]}, frozenset())
    assert mistake == "customers[0].credential: the settings have no credential main (known: none at all)"


# --- All at once --------------------------------------------------------------------------------

WRONG = """\
customers:
  - id: acme
    name: Acme
    state: verifed
    trunks:
      - {id: acme-main, addresses: [198.51.100.0/24]}
  - id: other
    name: Other
    state: verified
    credential: gone
    trunks:
      - {id: t1, addresses: [192.0.2.1]}
      - {id: t1, users: [a]}
gateways:
  - {id: intl, name: International, addresses: [192.0.2.1, 192.0.2.999]}
rights:
  - {customer: acme, basis: letter, numbers: ["+12155551212"]}
  - {customer: ohter, basis: assigned, numbers: ["+12155551213"]}
  - {customer: nobody, basis: assigned, numbers: ["12155551214"]}
"""

WITHIN = """\
customers:
  - {id: acme, name: A, state: verified, trunks: [{id: t1, addresses: [192.0.2.1], users: [a]}]}
  - id: acme
    name: ""
    state: verified
    credential: gone
    trunks:
      - {id: t1, addresses: [192.0.2.1, x], users: [a, "b c"]}
      - {id: t2, addresses: []}
      - {addresses: [192.0.2.2]}
gateways:
  - {id: t1, name: "", addresses: [192.0.2.2], credential: gone}
  - {id: t9, name: G, addresses: [198.51.100.1]}
  - {id: t9, name: G, addresses: [198.51.100.1], x: y}
rights:
  - {customer: acme, basis: letter, document: null, numbers: ["x", "+12155551212"]}
  - {customer: acme, basis: letter, document: "", numbers: ["+12155551212"]}
  - {customer: acme, basis: resporg, valid_from: 2027-01-01, valid_until: 2026-01-01, numbers: ["+12155551212"], x: y}
"""


def test_a_mistake_in_one_entry_hides_none_in_another(file: Path) -> None:
    file.write_text(WRONG)
    policy, document = parse_policy(file, frozenset({"main"}))
    assert policy is None
    assert [f"{problem.line}:{problem.column}: {problem.path}" for problem in document.problems] == [
        "4:12: customers[0].state",
        "10:17: customers[1].credential",
        "13:14: customers[1].trunks[1].id",
        "15:49: gateways[0].addresses[0]",
        "15:60: gateways[0].addresses[1]",
        "17:5: rights[0]",
        "18:16: rights[1].customer",
        "19:16: rights[2].customer",
        "19:51: rights[2].numbers[0]",
    ]


def test_a_mistake_in_an_entry_hides_none_in_the_same_entry(file: Path) -> None:
    file.write_text(WITHIN)
    _, document = parse_policy(file, frozenset({"main"}))
    assert [f"{problem.line}: {problem.path}: {problem.message:.40}" for problem in document.problems] == [
        "3: customers[1].id: a second customer acme",
        "4: customers[1].name: not a text of 1 to 200 characters in one",
        "6: customers[1].credential: the settings have no credential gone (kn",
        "8: customers[1].trunks[0].id: a second trunk or gateway t1",
        "8: customers[1].trunks[0].addresses[0]: 192.0.2.1 belongs to trunk t1 already",
        "8: customers[1].trunks[0].addresses[1]: not an IP address or network: 'x' does n",
        "8: customers[1].trunks[0].users[0]: the user a belongs to trunk t1 already",
        "8: customers[1].trunks[0].users[1]: not an account name (no spaces, at most ",
        "9: customers[1].trunks[1]: a trunk needs addresses or users, or no ",
        "10: customers[1].trunks[2]: id is missing",
        "12: gateways[0].id: a second trunk or gateway t1",
        "12: gateways[0].name: not a text of 1 to 200 characters in one",
        "12: gateways[0].addresses[0]: 192.0.2.2 belongs to another trunk alrea",
        "12: gateways[0].credential: the settings have no credential gone (kn",
        "14: gateways[2].id: a second trunk or gateway t9",
        "14: gateways[2].addresses[0]: 198.51.100.1 belongs to gateway t9 alrea",
        "14: gateways[2].x: unknown setting (known here: id, name, a",
        "16: rights[0]: document is missing: a letter of authori",
        "16: rights[0].numbers[0]: neither a number such as +12155551212 no",
        "17: rights[1].document: not a text of 1 to 200 characters in one",
        "18: rights[2].valid_until: ends before valid_from",
        "18: rights[2].numbers[0]: a RespOrg answers for toll-free numbers ",
        "18: rights[2].x: unknown setting (known here: id, custome",
    ]


@pytest.mark.parametrize("text", ["text", "- a\n", "customers: x\n", "customers: [x]\n", "rights: [[]]\n"])
def test_a_file_of_another_shape_is_refused_without_a_crash(file: Path, text: str) -> None:
    policy, problems = read(file, text)
    assert policy is None
    assert problems


def test_a_file_that_cannot_be_read_is_told_by_name(file: Path) -> None:
    with pytest.raises(FileProblems, match=r"policy\.yaml:1:1: cannot be read"):
        parse_policy(file)


@pytest.mark.parametrize("text", ["", "# all lines are gone\n", "null\n"])
def test_an_empty_file_is_no_policy_that_knows_nobody(file: Path, text: str) -> None:
    # A disk that was full, an editor that failed: every call would go on unsigned.
    policy, problems = read(file, text)
    assert policy is None
    assert [problem.message for problem in problems] == ["the file has no records in it"]


# --- JSON Schema --------------------------------------------------------------------------------


def test_the_json_schema_accepts_what_the_reader_accepts() -> None:
    full = SAMPLE | {"rights": [RIGHT, RIGHT | {"valid_from": "2026-01-01", "valid_until": "2027-01-01"}]}
    for data in (SAMPLE, full, {}):
        assert list(mistakes(PolicyFile.model_json_schema(), data)) == []


@pytest.mark.parametrize(
    "data",
    [data for data, message in FIELDS if any(word in message for word in ("one of", "unknown", "missing:"))]
    + [{"customers": [{"id": "a", "name": "A"}]}],
)
def test_the_json_schema_refuses_what_it_can_express(data: Data) -> None:
    letter = "rights" in data and data["rights"][0]["basis"] in {"letter", "delegate"}
    assert bool(list(mistakes(PolicyFile.model_json_schema(), data))) != letter


def test_every_field_is_described_for_editors_and_the_manual() -> None:
    for section in every_schema(PolicyFile.model_json_schema()):
        for name, field in section.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, name
