"""The policy file's records in full: the example of the manual, and every mistake in them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.config.fields import last_moment, moment, moment_text
from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.config.policyids import MAX_ID, Ids, right_id, withheld_id
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Basis,
    CarrierStatus,
    CustomerKind,
    DoNotOriginate,
    Limits,
    Overrides,
    PendingLevel,
    Rate,
    Right,
    Route,
    Substitution,
    TimeWindow,
    Unauthorised,
    Withheld,
)
from tests.config.test_policyfile import ACME, RIGHT, SAMPLE, Data, good, right, told

EXAMPLE = Path(__file__).parents[2] / "docs" / "policy-example.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def day(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_the_example_of_the_manual_is_read_in_full() -> None:
    policy, document = parse_policy(EXAMPLE, frozenset({"main", "second"}))
    assert policy is not None, document.problems
    acme, transit, newcomer = policy.customers
    assert acme.kind is CustomerKind.CONTACT_CENTRE
    assert (acme.kyc.email, acme.kyc.reviewed_at) == ("jane.roe@acme.example.com", day("2026-03-02"))
    assert acme.review_at == day("2027-03-01")
    assert acme.limits == Limits(Rate(20, 400), ((Attest.B, Rate(2)),))
    assert acme.rules == Overrides(Unauthorised.SUBSTITUTE, "12155551200", offences=True)
    assert (transit.ceiling, transit.carrier) == (Attest.B, CarrierStatus("829999", "RMD0009999", day("2026-09-01")))
    assert newcomer.rules == Overrides(pending=PendingLevel.C)
    assert [trunk.rules.sign for trunk in policy.trunks] == [None, False, None]
    assert policy.routes == (
        Route("canada", ("1416", "1647")),
        Route("caribbean", ("1242", "1876"), Overrides(Unauthorised.REFUSE)),
    )
    rights = {number.right.id: number.right for number in policy.rights}
    assert list(rights) == ["acme-assigned", "LOA-2026-113", "tollfree", "ported", "delegate"]
    letter = rights["LOA-2026-113"]
    assert (letter.owner, letter.path) == ("Example Clinic", "/srv/letters/LOA-2026-113.pdf")
    assert (letter.valid_from, letter.valid_until) == (day("2026-07-01"), day("2027-07-01"))
    assert (letter.approved_by, letter.approved_at) == ("Bob", day("2026-06-28T18:30"))
    assert rights["ported"].suspended
    assert policy.unnumbered == (Right("claimed", "newcomer", Basis.CUSTOMER_WORD),)
    assert [(entry.id, entry.reason, first) for entry, first, _ in policy.withheld] == [
        ("hotlines", Withheld.INBOUND_ONLY, "18005550100"),
        ("unused", Withheld.UNUSED, "12155559000"),
        ("new-area-code", Withheld.ALLOCATED, "18385550000"),
    ]
    assert policy.substitutions == (
        Substitution(
            "canada-evenings",
            "acme",
            "14165550123",
            ("canada",),
            ("1215555",),
            TimeWindow((0, 1, 2, 3, 4), 18 * 60, 22 * 60, -300),
            None,
            day("2027-01-01"),
            "campaign 12",
        ),
    )


def test_a_window_left_out_is_all_day_every_day_in_utc(file: Path) -> None:
    rule = {"id": "s", "customer": "acme", "number": "+12155551212", "window": {"begins": "08:00"}}
    (substitution,) = good(file, {"customers": [ACME], "substitutions": [rule]}).substitutions
    assert substitution.window == TimeWindow(begins=480)
    rule["window"] = {"days": ["sun", "mon", "sun"], "ends": "24:00", "utc_offset": "Z"}
    (substitution,) = good(file, {"customers": [ACME], "substitutions": [rule]}).substitutions
    assert substitution.window == TimeWindow((0, 6))


# --- Mistakes -----------------------------------------------------------------------------------

RULE: Data = {"id": "s", "customer": "acme", "number": "+12155551212"}
ENTRY: Data = {"reason": "unused", "numbers": ["+12155551212"]}


def rule(**changes: object) -> Data:
    return {"customers": [ACME], "substitutions": [RULE | changes]}


def customer(**changes: object) -> Data:
    return {"customers": [ACME | changes]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (customer(kind="contact_center"), "customers[0].kind: not one of end_user, contact_centre, reseller,"),
        (customer(kyc={"mail": "x"}), "customers[0].kyc.mail: unknown setting (did you mean email?)"),
        (customer(kyc={"reviewed_at": "soon"}), "customers[0].kyc.reviewed_at: not a time such as"),
        (customer(carrier={"rdm": "x"}), "customers[0].carrier.rdm: unknown setting (did you mean rmd?)"),
        (customer(limits={"calls_per_second": -1}), "customers[0].limits.calls_per_second: input should be greater"),
        (customer(limits={"calls_per_second": "nan"}), "customers[0].limits.calls_per_second: input should be"),
        (customer(limits={"concurrent": 1.5}), "customers[0].limits.concurrent: input should be a valid integer"),
        (customer(limits={"by_level": {"D": {}}}), "customers[0].limits.by_level.D: unknown setting (known here: A,"),
        (customer(review_at="2027"), "customers[0].review_at: not a time such as"),
        (customer(rules={"unauthorised": "deny"}), "customers[0].rules.unauthorised: not one of downgrade, refuse"),
        (customer(rules={"sign": "maybe"}), "customers[0].rules.sign: neither true nor false"),
        (customer(rules={"substitute": "12155551212"}), "customers[0].rules.substitute: not a number such as"),
        (right(sha256="abc"), "rights[0].sha256: not a SHA-256: 64 hexadecimal digits"),
        (right(valid_until="0001-01-01T00:00:00+02:00"), "rights[0].valid_until: not a time between the years"),
        (SAMPLE | {"rights": [RIGHT | {"id": "r"}] * 2}, "rights[1].id: a second right r"),
        ({"do_not_originate": [ENTRY | {"reason": "x"}]}, "do_not_originate[0].reason: not one of invalid, unallo"),
        ({"do_not_originate": [{"reason": "unused"}]}, "do_not_originate[0]: numbers is missing"),
        ({"do_not_originate": [ENTRY | {"id": "e"}] * 2}, "do_not_originate[1].id: a second entry e"),
        ({"routes": [{"id": "r"}, {"id": "r"}]}, "routes[1].id: a second route r"),
        ({"routes": [{"id": "r", "destinations": ["1416"]}]}, "routes[0].destinations[0]: not the beginning of a"),
        (
            {"routes": [{"id": "r", "destinations": ["+1416"]}, {"id": "s", "destinations": ["+1", "+1416"]}]},
            "routes[1].destinations[1]: +1416 belongs to route r already",
        ),
        (rule(customer="acem"), "substitutions[0].customer: there is no customer acem (did you mean acme?)"),
        (rule(routes=["canada"]), "substitutions[0].routes[0]: there is no route canada"),
        (rule(number="*67"), "substitutions[0].number: not a number such as +12155551212"),
        (rule(valid_from="2027-01-02", valid_until="2027-01-01"), "substitutions[0].valid_until: ends before"),
        (rule(window={"begins": "8"}), "substitutions[0].window.begins: not a time of day such as 08:00"),
        (rule(window={"ends": "24:01"}), "substitutions[0].window.ends: not a time of day such as 08:00"),
        (rule(window={"begins": "24:00"}), "substitutions[0].window.ends: is when it begins"),
        (rule(window={"begins": "08:00", "ends": "08:00"}), "substitutions[0].window.ends: is when it begins"),
        (rule(window={"utc_offset": "EST"}), "substitutions[0].window.utc_offset: not an offset from UTC such as"),
        (rule(window={"utc_offset": "05:00"}), "substitutions[0].window.utc_offset: not an offset from UTC"),
        (rule(window={"days": ["Monday"]}), "substitutions[0].window.days[0]: not one of mon, tue, wed"),
        (
            {"customers": [ACME], "substitutions": [RULE, RULE]},
            "substitutions[1].id: a second substitution s",
        ),
    ],
)
def test_a_mistake_is_told_in_its_place(file: Path, data: Data, message: str) -> None:
    (mistake,) = told(file, data)
    assert mistake.startswith(message)


# --- Ids that the file does not give ------------------------------------------------------------


def test_ids_follow_from_what_a_right_is_about_not_from_where_it_stands(file: Path) -> None:
    letter = RIGHT | {"basis": "letter", "document": "L"}
    other = letter | {"use_case": "reminders"}
    one = {number.right.id for number in good(file, SAMPLE | {"rights": [RIGHT, letter, other]}).rights}
    again = {number.right.id for number in good(file, SAMPLE | {"rights": [other, letter, RIGHT]}).rights}
    assert one == again
    assert len(one) == 3
    assert {"acme-assigned", "acme-letter-L"} < one
    longer = SAMPLE | {"rights": [letter | {"valid_until": "2030-01-01"}]}
    assert good(file, longer).rights[0].right.id == "acme-letter-L"


def test_rights_of_equal_meaning_are_counted_and_leave_given_ids_alone(file: Path) -> None:
    rights = [RIGHT, RIGHT, RIGHT | {"id": "acme-assigned-2"}]
    ids = [number.right.id for number in good(file, SAMPLE | {"rights": rights}).rights]
    assert ids == ["acme-assigned", "acme-assigned-3", "acme-assigned-2"]


@pytest.mark.parametrize(
    ("document", "use_case"), [("L 1", None), ("L" * 200, None), ("L", "reminders"), ("L\u00fc", None)]
)
def test_what_an_id_cannot_say_is_a_check_sum_in_it(document: str, use_case: str | None) -> None:
    name = right_id("acme", Basis.LETTER, document, use_case)
    assert len(name) <= MAX_ID
    assert name != right_id("acme", Basis.LETTER, document + "x", use_case)
    assert name != right_id("acme", Basis.LETTER, document, "other")
    assert name == right_id("acme", Basis.LETTER, document, use_case)


def test_entries_have_ids_likewise() -> None:
    assert withheld_id(Withheld.UNUSED, None) == "unused"
    assert withheld_id(Withheld.UNUSED, "a") != withheld_id(Withheld.UNUSED, "b")


def test_a_made_id_is_never_too_long() -> None:
    ids = Ids()
    long = "x" * MAX_ID
    made = [ids.made(long) for _ in range(12)]
    assert len(set(made)) == 12
    assert max(map(len, made)) == MAX_ID


def test_an_entry_without_id_is_in_the_list(file: Path) -> None:
    entries = [ENTRY, ENTRY | {"numbers": []}]
    policy = good(file, {"do_not_originate": entries})
    assert policy.withheld == ((DoNotOriginate("unused", Withheld.UNUSED), "12155551212", "12155551212"),)
    assert policy.unnumbered == (DoNotOriginate("unused-2", Withheld.UNUSED),)


# --- Moments to the last bit --------------------------------------------------------------------


@given(st.floats(-60_000_000_000, 253_402_300_799, allow_nan=False))
def test_a_moment_is_written_and_read_exactly(seconds: float) -> None:
    assert moment(moment_text(seconds)) == seconds
    assert last_moment(moment_text(seconds, last=True)) == seconds


@pytest.mark.parametrize(
    ("seconds", "last", "text"),
    [
        (1_814_400_000.0, False, "2027-07-01"),
        (1_814_400_000.0, True, "2027-06-30"),
        (1_814_400_001.0, True, "2027-07-01T00:00:01+00:00"),
        (1_814_400_000.25, False, "2027-07-01T00:00:00.25+00:00"),
        (-0.25, False, "1969-12-31T23:59:59.75+00:00"),
        (253_402_300_800.0, True, "9999-12-31"),
    ],
)
def test_a_moment_is_a_day_where_it_is_one(seconds: float, last: bool, text: str) -> None:
    assert moment_text(seconds, last=last) == text
    assert (last_moment if last else moment)(text) == seconds


@pytest.mark.parametrize("text", ["2027-06-30.5", "2027-06-30T10:00:00.", "2027-06-30T10.5:00"])
def test_a_fraction_stands_behind_seconds_only(text: str) -> None:
    with pytest.raises(ValueError, match="not a time such as"):
        moment(text)
