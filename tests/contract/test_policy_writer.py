"""What every policy store must do alike when it is changed, and when it is looked back at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, replace
from ipaddress import ip_network
from pathlib import Path
from threading import Event, Thread

import pytest

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Basis,
    CarrierStatus,
    Customer,
    CustomerKind,
    CustomerState,
    DoNotOriginate,
    Gateway,
    KnowYourCustomer,
    Limits,
    Overrides,
    PendingLevel,
    Rate,
    Record,
    Right,
    Route,
    Substitution,
    TimeWindow,
    Trunk,
    Unauthorised,
    Withheld,
)
from shaken_plugin.errors import ConflictError, NumberError, StoreError
from shaken_plugin.ports import Author, Change, NumbersOf, PolicyDraft, Span
from shaken_plugin.stores.policy import KINDS
from tests.contract.backends import WRITERS, Backend


@pytest.fixture(params=WRITERS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return WRITERS[request.param](tmp_path)


def author(at: float = 1_795_000_000.0, who: str = "alice", why: str = "letter received") -> Author:
    return Author(who, why, at)


def put(backend: Backend, *records: Record) -> None:
    with backend.writer.change(author(), "put") as draft:
        for record in records:
            draft.put(record)


def add(backend: Backend, kind: NumbersOf, identifier: str, *spans: Span) -> int:
    with backend.writer.change(author(), "add") as draft:
        return draft.add_numbers(kind, identifier, spans)


def version(backend: Backend) -> int:
    with backend.writer.records() as records:
        return records.version


def one(number: int | str) -> Span:
    return Span(str(number), str(number))


ACME = Customer("acme", "Acme", CustomerState.VERIFIED)
BETA = Customer("beta", "Beta", CustomerState.PENDING)
TRUNK = Trunk("t", ACME, addresses=(ip_network("192.0.2.0/24"),), users=("alice",))
GATEWAY = Gateway("g", "G", addresses=(ip_network("198.51.100.0/24"),))
RIGHT = Right("r", "acme", Basis.ASSIGNED)
ENTRY = DoNotOriginate("d", Withheld.UNUSED)
ROUTE = Route("uk", ("44", "4420"))
RULE = Substitution("s", "acme", "12155551212", routes=("uk",))
EVERYTHING: tuple[Record, ...] = (ACME, BETA, TRUNK, GATEWAY, RIGHT, ENTRY, ROUTE, RULE)

FULL: tuple[Record, ...] = (
    Customer(
        "acme",
        "Acme; DROP TABLE ünïted \x00",
        CustomerState.SUSPENDED,
        Attest.B,
        "second",
        "11111111-2222-4333-8444-555555555555",
        CustomerKind.WHOLESALE,
        KnowYourCustomer("Legal", "HRB 1", "Street", "DE", "Eve", "e@x", "+49", "https://x", "bob", 1.25, "file 7"),
        CarrierStatus("829999", "RMD0001", 2.5),
        Limits(Rate(1.5, 7), ((Attest.A, Rate(0.5)), (Attest.C, Rate(None, 0))), suspended=True),
        1_900_000_000.5,
        Overrides(Unauthorised.SUBSTITUTE, "12155551212", offences=False, ceiling=Attest.C, sign=True),
    ),
    Trunk(
        "t",
        ACME,
        "third",
        (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
        ("bob@example.com", "' OR 1=1"),
        Overrides(pending=PendingLevel.UNSIGNED, sign=False),
    ),
    Gateway("g", "Göteborg", "fourth", (ip_network("0.0.0.0/0"),)),
    Route("uk", ("44",), Overrides(Unauthorised.REFUSE)),
    Right(
        "r", "acme", Basis.DELEGATE, "LOA-é", "reminders", 1.5, 2_000_000_000.25, "Clinic", "ab" * 32, "/x/y.pdf",
        "carol", 3.5, suspended=True, rules=Overrides(ceiling=Attest.B),
    ),
    DoNotOriginate("d", Withheld.ALLOCATED, "new area code", suspended=True),
    Substitution(
        "s", "acme", "12155551212", ("uk",), ("1215", "1610"), TimeWindow((0, 6), 1_320, 360, -300), 1.5, 9.5, "nights"
    ),
)  # fmt: skip


# --- Records ----------------------------------------------------------------------------------


@pytest.mark.parametrize("record", FULL, ids=lambda record: type(record).__name__)
def test_every_field_of_every_record_comes_back(backend: Backend, record: Record) -> None:
    for field in fields(record):
        if field.default is not MISSING:
            assert getattr(record, field.name) != field.default, f"{field.name} should not have its default here"
    put(backend, *EVERYTHING, record)
    with backend.writer.records() as records:
        assert records.get(type(record), record.id) == record
        assert record in list(records.all(type(record)))


def test_there_is_a_full_record_of_every_kind() -> None:
    assert {type(record) for record in FULL} == set(KINDS.values())


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_not_there_is_none(backend: Backend, kind: type[Record]) -> None:
    put(backend, *EVERYTHING)
    with backend.writer.records() as records:
        assert records.get(kind, "nobody") is None
        assert records.get(kind, "") is None


def test_all_of_a_kind_come_by_id(backend: Backend) -> None:
    names = ["b", "a10", "a2", "ä", "Z", "\U0001f4de"]
    put(backend, *(Customer(name, name, CustomerState.VERIFIED) for name in names))
    with backend.writer.records() as records:
        assert [customer.id for customer in records.all(Customer)] == sorted(names)


def test_the_same_id_may_be_of_several_kinds(backend: Backend) -> None:
    put(backend, Customer("x", "X", CustomerState.VERIFIED), Gateway("x", "X"), Route("x"))
    with backend.writer.change(author(), "remove") as draft:
        draft.remove(Gateway, "x")
    with backend.writer.records() as records:
        assert [records.get(kind, "x") is None for kind in (Customer, Gateway, Route)] == [False, True, False]


def test_a_record_put_again_takes_the_place_of_the_old_one_and_keeps_its_numbers(backend: Backend) -> None:
    put(backend, *EVERYTHING)
    add(backend, Right, "r", one(12155551212))
    put(backend, replace(RIGHT, document="LOA-2"), replace(TRUNK, addresses=(), users=("carol",)))
    with backend.writer.records() as records:
        assert records.get(Right, "r") == replace(RIGHT, document="LOA-2")
        assert list(records.numbers(Right, "r")) == [one(12155551212)]
    assert backend.store.facts("192.0.2.1", "alice", None).source is None
    assert backend.store.facts(None, "carol", None).source == replace(TRUNK, addresses=(), users=("carol",))


def test_a_trunk_reads_with_its_customer_as_that_is_now(backend: Backend) -> None:
    put(backend, ACME, replace(TRUNK, customer=replace(ACME, name="old copy")))
    put(backend, renamed := replace(ACME, name="Renamed", state=CustomerState.SUSPENDED))
    with backend.writer.records() as records:
        assert records.get(Trunk, "t") == replace(TRUNK, customer=renamed)
    assert backend.store.facts(None, "alice", None).source == replace(TRUNK, customer=renamed)


def test_a_draft_reads_as_it_will_be(backend: Backend) -> None:
    put(backend, ACME, RIGHT)
    with backend.writer.change(author(), "several") as draft:
        draft.put(BETA)
        assert draft.get(Customer, "beta") == BETA
        draft.add_numbers(Right, "r", [one(12155551212)])
        assert (list(draft.numbers(Right, "r")), draft.count(Right, "r")) == ([one(12155551212)], 1)
        assert [right.id for right, _ in draft.covering(Right, "12155551212")] == ["r"]
        draft.remove(Right, "r")
        assert draft.get(Right, "r") is None
        assert (list(draft.numbers(Right, "r")), draft.count(Right, "r")) == ([], 0)
        assert list(draft.covering(Right, "12155551212")) == []
        draft.remove(Customer, "acme")
        assert [customer.id for customer in draft.all(Customer)] == ["beta"]
        assert draft.version == version(backend) + 1


# --- Conflicts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (Trunk("x", Customer("nobody", "", CustomerState.VERIFIED)), "there is no customer nobody"),
        (Right("x", "nobody", Basis.ASSIGNED), "there is no customer nobody"),
        (Substitution("x", "nobody", "12155551212"), "there is no customer nobody"),
        (Substitution("x", "acme", "12155551212", routes=("uk", "fr")), "there is no route fr"),
        (Trunk("x", BETA, addresses=TRUNK.addresses), "192.0.2.0/24 belongs to trunk t"),
        (Trunk("x", BETA, addresses=GATEWAY.addresses), "198.51.100.0/24 belongs to gateway g"),
        (Gateway("x", "X", addresses=TRUNK.addresses), "192.0.2.0/24 belongs to trunk t"),
        (Trunk("x", BETA, users=("alice",)), "alice belongs to trunk t"),
        (Gateway("t", "X", addresses=TRUNK.addresses), "192.0.2.0/24 belongs to trunk t"),
        (Route("x", ("33", "4420")), "4420 belongs to route uk"),
    ],
)
def test_a_record_that_contradicts_others_is_refused_and_changes_nothing(
    backend: Backend, record: Record, text: str
) -> None:
    put(backend, *EVERYTHING)
    before = version(backend)
    with backend.writer.change(author(), "refused") as draft, pytest.raises(ConflictError, match=text):
        draft.put(record)
    assert version(backend) == before
    assert backend.store.facts(None, "alice", None).source == TRUNK


@pytest.mark.parametrize(
    ("kind", "identifier", "text"),
    [
        (Customer, "acme", r"right r and 1 more still refers to it"),
        (Route, "uk", "substitution s still refers to it"),
        (Customer, "nobody", "there is no customer nobody"),
        (Gateway, "t", "there is no gateway t"),
    ],
)
def test_what_others_refer_to_is_not_removed(backend: Backend, kind: type[Record], identifier: str, text: str) -> None:
    put(backend, *EVERYTHING)
    with backend.writer.change(author(), "refused") as draft, pytest.raises(ConflictError, match=text):
        draft.remove(kind, identifier)
    with backend.writer.records() as records:
        assert list(records.all(Customer)) == [ACME, BETA]
        assert list(records.all(Trunk)) == [TRUNK]


def test_a_customer_goes_with_its_trunks_and_their_addresses_are_free(backend: Backend) -> None:
    put(backend, *EVERYTHING)
    with backend.writer.change(author(), "gone") as draft:
        draft.remove(Right, "r")
        draft.remove(Substitution, "s")
        draft.remove(Customer, "acme")
        draft.put(replace(TRUNK, id="other", customer=BETA))
    found = backend.store.facts("192.0.2.1", "alice", None).source
    assert found == replace(TRUNK, id="other", customer=BETA)


@pytest.mark.parametrize("kind", [Right, DoNotOriginate])
def test_numbers_of_nothing_are_refused(backend: Backend, kind: NumbersOf) -> None:
    put(backend, *EVERYTHING)
    with backend.writer.change(author(), "refused") as draft:
        with pytest.raises(ConflictError, match="there is no"):
            draft.add_numbers(kind, "nobody", [one(12155551212)])
        with pytest.raises(ConflictError, match="there is no"):
            draft.remove_numbers(kind, "nobody", [one(12155551212)])
    with backend.writer.records() as records:
        assert list(records.numbers(kind, "nobody")) == []
        assert records.count(kind, "nobody") == 0


# --- Numbers ----------------------------------------------------------------------------------


def test_numbers_are_kept_once_as_they_were_added_and_come_by_value(backend: Backend) -> None:
    put(backend, *EVERYTHING)
    spans = [one(12155551212), Span("12155551000", "12155551999"), one(9999), Span("1000", "1000"), one(12155551212)]
    assert add(backend, Right, "r", *spans) == 4
    before = version(backend)
    assert add(backend, Right, "r", *reversed(spans)) == 0
    assert version(backend) == before
    assert add(backend, Right, "r", *spans, one(441619460000), one(12155551000)) == 2
    expected = [
        one(1000), one(9999), one(12155551000), Span("12155551000", "12155551999"), one(12155551212), one(441619460000),
    ]  # fmt: skip
    with backend.writer.records() as records:
        assert list(records.numbers(Right, "r")) == expected
        assert records.count(Right, "r") == 6
        assert list(records.numbers(DoNotOriginate, "d")) == []


def test_removed_numbers_are_those_that_were_added_as_such(backend: Backend) -> None:
    put(backend, *EVERYTHING)
    wide = Span("12155551000", "12155551999")
    add(backend, Right, "r", one(12155551212), wide, one(12155551213))
    with backend.writer.change(author(), "remove") as draft:
        strangers = [one(12155551500), Span("12155551000", "12155551099"), Span("*", "#"), one(911)]
        assert draft.remove_numbers(Right, "r", strangers) == 0
        assert draft.remove_numbers(DoNotOriginate, "d", [wide]) == 0
        assert draft.remove_numbers(Right, "r", [wide, one(12155551213), wide]) == 2
    assert [right.first for right in backend.store.facts(None, None, "12155551212").rights] == ["12155551212"]
    assert backend.store.facts(None, None, "12155551213").rights == ()
    assert add(backend, Right, "r", wide) == 1
    assert len(backend.store.facts(None, None, "12155551212").rights) == 2


@pytest.mark.parametrize(
    "span",
    [
        Span("911", "911"),
        Span("0123456", "0123456"),
        Span("1" * 16, "1" * 16),
        Span("1215555121x", "1215555121x"),
        Span("+12155551212", "+12155551212"),
        Span("", ""),
        Span("12155551212", "1215555121"),
        Span("12155551213", "12155551212"),
        Span("١٢٣٤٥٦٧", "١٢٣٤٥٦٧"),
        Span("*67", "*67"),
    ],
)
def test_what_is_no_number_is_refused_with_all_that_came_with_it(backend: Backend, span: Span) -> None:
    put(backend, *EVERYTHING)
    before = version(backend)
    with backend.writer.change(author(), "refused") as draft, pytest.raises(NumberError):
        draft.add_numbers(Right, "r", [one(12155551212), span])
    assert version(backend) == before
    with backend.writer.records() as records:
        assert list(records.numbers(Right, "r")) == []


def test_covering_is_narrowest_first_then_by_id(backend: Backend) -> None:
    put(backend, ACME, *(Right(name, "acme", Basis.ASSIGNED) for name in ("a", "b", "c")), ENTRY)
    wide, narrow = Span("12155550000", "12155559999"), Span("12155551200", "12155551299")
    add(backend, Right, "c", one(12155551212))
    add(backend, Right, "b", one(12155551212), wide)
    add(backend, Right, "a", wide, narrow)
    add(backend, DoNotOriginate, "d", narrow)
    with backend.writer.records() as records:
        found = [(right.id, span) for right, span in records.covering(Right, "12155551212")]
        assert found == [("b", one(12155551212)), ("c", one(12155551212)), ("a", narrow), ("a", wide), ("b", wide)]
        assert list(records.covering(DoNotOriginate, "12155551212")) == [(ENTRY, narrow)]
        assert list(records.covering(Right, "12155561212")) == []
        assert list(records.covering(Right, "nonsense")) == []
    rights = backend.store.facts(None, None, "12155551212").rights
    assert [(number.right.id, Span(number.first, number.last)) for number in rights] == found


def test_many_numbers_come_as_an_iterator_and_may_be_read_while_they_come(backend: Backend) -> None:
    put(backend, *EVERYTHING)

    def numbers(draft: PolicyDraft) -> Iterator[Span]:
        for number in range(25_000):
            assert draft.get(Customer, "acme") == ACME if number % 10_000 == 0 else True
            yield one(12_150_000_000 + (number * 7_919) % 25_000)

    with backend.writer.change(author(), "many") as draft:
        assert draft.add_numbers(Right, "r", numbers(draft)) == 25_000
    with backend.writer.records() as records:
        assert [int(span.first) for span in records.numbers(Right, "r")] == [*range(12_150_000_000, 12_150_025_000)]


# --- Versions ---------------------------------------------------------------------------------


def test_who_when_and_why_are_kept(backend: Backend) -> None:
    first = version(backend)
    put(backend, ACME)
    with backend.writer.change(Author("bob", "why; DROP TABLE ü", 1_795_000_001.25), "3 numbers of LOA-1") as draft:
        draft.put(BETA)
    assert list(backend.writer.changes(first)) == [
        Change(first + 1, 1_795_000_000.0, "alice", "letter received", "put"),
        Change(first + 2, 1_795_000_001.25, "bob", "why; DROP TABLE ü", "3 numbers of LOA-1"),
    ]
    assert [change.who for change in backend.writer.changes(first + 1)] == ["bob"]
    assert [change.who for change in backend.writer.changes(first, first + 1)] == ["alice"]
    assert list(backend.writer.changes(first + 2)) == []


def test_the_changes_of_a_record_however_long_ago(backend: Backend) -> None:
    first = version(backend)
    put(backend, ACME, RIGHT, TRUNK)  # 1
    for count in range(40):
        put(backend, replace(BETA, name=f"Beta {count}"))
    add(backend, Right, "r", one(12155551212))  # 42
    put(backend, replace(ACME, name="Renamed"))  # 43: not of its trunk
    add(backend, Right, "r", Span("12155551000", "12155551999"))  # 44
    with backend.writer.change(author(), "remove") as draft:  # 45
        draft.remove_numbers(Right, "r", [one(12155551212)])
    with backend.writer.change(author(), "remove") as draft:  # 46
        draft.remove(Right, "r")
    put(backend, replace(RIGHT, document="again"))  # 47

    def of(*named: tuple[type[Record], str]) -> list[int]:
        return [change.version - first for change in backend.writer.changes_of(*named)]

    assert of((Right, "r")) == [47, 46, 45, 44, 42, 1]
    assert of((Customer, "acme")) == [43, 1]
    assert of((Trunk, "t")) == [1]
    assert of((Trunk, "t"), (Customer, "acme"), (Right, "r")) == [47, 46, 45, 44, 43, 42, 1]
    assert of((Right, "acme"), (DoNotOriginate, "r")) == []
    assert of() == []
    (change, *_) = backend.writer.changes_of((Customer, "acme"))
    assert change == next(backend.writer.changes(first + 42))


def test_the_version_of_a_time(backend: Backend) -> None:
    first = version(backend)
    for at in (1_795_000_100.0, 1_795_000_200.0, 1_795_000_200.0):
        with backend.writer.change(author(at), "later") as draft:
            draft.put(replace(ACME, name=str(version(backend))))
    assert backend.writer.version_at(1.0) == 0
    assert backend.writer.version_at(1_795_000_099.0) == first
    assert backend.writer.version_at(1_795_000_100.0) == first + 1
    assert backend.writer.version_at(1_795_000_199.5) == first + 1
    assert backend.writer.version_at(2_000_000_000.0) == first + 3


def test_every_version_reads_as_it_was(backend: Backend) -> None:
    first = version(backend)
    put(backend, ACME, RIGHT, TRUNK)
    wide = Span("12155551000", "12155551999")
    add(backend, Right, "r", one(12155551212), wide)
    put(backend, replace(ACME, name="Renamed"), replace(RIGHT, document="LOA"))
    with backend.writer.change(author(), "remove") as draft:
        draft.remove_numbers(Right, "r", [wide])
    with backend.writer.change(author(), "remove") as draft:
        draft.remove(Right, "r")
    add_again = replace(RIGHT, document="again")
    put(backend, add_again)

    def at(offset: int) -> tuple[str | None, str | None, list[str], int, int, str | None]:
        with backend.writer.records(first + offset) as records:
            assert records.version == first + offset
            customer, right, trunk = records.get(Customer, "acme"), records.get(Right, "r"), records.get(Trunk, "t")
            return (
                customer.name if customer else None,
                (right.document or "") if right else None,
                [span.first for span in records.numbers(Right, "r")],
                records.count(Right, "r"),
                len(list(records.covering(Right, "12155551212"))),
                trunk.customer.name if trunk else None,
            )

    assert at(0) == (None, None, [], 0, 0, None)
    assert at(1) == ("Acme", "", [], 0, 0, "Acme")
    assert at(2) == ("Acme", "", ["12155551000", "12155551212"], 2, 2, "Acme")
    assert at(3) == ("Renamed", "LOA", ["12155551000", "12155551212"], 2, 2, "Renamed")
    assert at(4) == ("Renamed", "LOA", ["12155551212"], 1, 1, "Renamed")
    assert at(5) == ("Renamed", None, [], 0, 0, "Renamed")
    assert at(6) == ("Renamed", "again", [], 0, 0, "Renamed")


@pytest.mark.parametrize("offset", [1, 10**6])
def test_a_version_that_never_was_is_a_store_error(backend: Backend, offset: int) -> None:
    with pytest.raises(StoreError, match="there is no version"), backend.writer.records(version(backend) + offset):
        pass
    with pytest.raises(StoreError, match="there is no version"), backend.writer.records(-1):
        pass


def _to_and_fro(draft: PolicyDraft) -> None:
    draft.put(replace(ACME, name="other"))
    draft.put(ACME)
    draft.add_numbers(Right, "r", [one(12155559999), Span("12150000000", "12159999999")])
    draft.remove_numbers(Right, "r", [one(12155559999), Span("12150000000", "12159999999")])
    draft.remove_numbers(Right, "r", [one(12155551212), Span("12155551000", "12155551999")])
    draft.add_numbers(Right, "r", [one(12155551212), Span("12155551000", "12155551999")])
    draft.put(Gateway("new", "N"))
    draft.remove(Gateway, "new")
    draft.remove(Trunk, "t")
    draft.put(TRUNK)


def _right_gone_and_back(draft: PolicyDraft) -> None:
    draft.remove(Right, "r")
    draft.put(RIGHT)
    draft.add_numbers(Right, "r", [one(12155551212), Span("12155551000", "12155551999")])


@pytest.mark.parametrize("nothing", [lambda _: None, lambda draft: draft.put(ACME), _to_and_fro, _right_gone_and_back])
def test_nothing_changed_is_no_new_version(backend: Backend, nothing: object) -> None:
    put(backend, *EVERYTHING)
    add(backend, Right, "r", one(12155551212), Span("12155551000", "12155551999"))
    before = version(backend)
    with backend.writer.change(author(), "nothing") as draft:
        nothing(draft)  # type: ignore[operator]  # a function
    assert version(backend) == before
    assert len(list(backend.writer.changes(before))) == 0
    facts = backend.store.facts("192.0.2.1", None, "12155551212")
    assert (facts.source, len(facts.rights), facts.version) == (TRUNK, 2, before)


# --- All or nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("own"), KeyboardInterrupt(), ConflictError("a"), OSError(5)])
def test_an_exception_leaves_everything_as_it_was_and_goes_on(backend: Backend, error: BaseException) -> None:
    put(backend, *EVERYTHING)
    add(backend, Right, "r", one(12155551212))
    before = version(backend)

    def fail(draft: PolicyDraft) -> None:
        draft.put(replace(ACME, name="other"))
        draft.add_numbers(Right, "r", [one(12155551213)])
        draft.remove(Trunk, "t")
        raise error

    with pytest.raises(type(error)) as raised, backend.writer.change(author(), "refused") as draft:
        fail(draft)
    assert raised.value is error
    assert version(backend) == before
    with backend.writer.records() as records:
        assert records.get(Customer, "acme") == ACME
        assert records.get(Trunk, "t") == TRUNK
        assert list(records.numbers(Right, "r")) == [one(12155551212)]
    facts = backend.store.facts("192.0.2.1", None, "12155551213")
    assert (facts.source, facts.rights) == (TRUNK, ())
    assert add(backend, Right, "r", one(12155551213)) == 1


def test_numbers_whose_source_fails_halfway_are_not_added(backend: Backend) -> None:
    put(backend, *EVERYTHING)

    def torn() -> Iterable[Span]:
        yield from (one(12_155_500_000 + index) for index in range(15_000))
        raise OSError("the disk with the file is gone")

    with pytest.raises(OSError, match="is gone"), backend.writer.change(author(), "torn") as draft:
        draft.add_numbers(Right, "r", torn())
    with backend.writer.records() as records:
        assert records.count(Right, "r") == 0


def test_a_refused_step_leaves_the_rest_of_the_change_alone(backend: Backend) -> None:
    put(backend, *EVERYTHING)
    with backend.writer.change(author(), "some of it") as draft:
        draft.put(replace(ACME, name="other"))
        with pytest.raises(ConflictError):
            draft.put(Trunk("x", BETA, users=("alice",)))
        with pytest.raises(NumberError):
            draft.add_numbers(Right, "r", [one(12155551213), one(911)])
    with backend.writer.records() as records:
        assert records.get(Customer, "acme") == replace(ACME, name="other")
        assert records.get(Trunk, "x") is None
        assert records.count(Right, "r") == 0


def test_nobody_sees_a_change_before_its_end(backend: Backend) -> None:
    put(backend, *EVERYTHING)
    before = backend.store.facts("192.0.2.1", None, "12155551212")
    with backend.writer.change(author(), "slow") as draft:
        draft.add_numbers(Right, "r", [one(12155551212)])
        draft.remove(Trunk, "t")
        assert backend.store.facts("192.0.2.1", None, "12155551212") == before
        with backend.writer.records() as records:
            assert records.version == before.version
            assert records.get(Trunk, "t") == TRUNK
    after = backend.store.facts("192.0.2.1", None, "12155551212")
    assert (after.source, len(after.rights), after.version) == (None, 1, before.version + 1)


def test_records_that_are_being_read_stay_as_they_were(backend: Backend) -> None:
    put(backend, *EVERYTHING)
    with backend.writer.records() as records:
        assert records.get(Customer, "acme") == ACME
        put(backend, replace(ACME, name="other"))
        add(backend, Right, "r", one(12155551212))
        assert records.get(Customer, "acme") == ACME
        assert list(records.numbers(Right, "r")) == []


def test_a_second_writer_waits_for_the_first(backend: Backend) -> None:
    put(backend, ACME, RIGHT)
    begun, before = Event(), version(backend)

    def second() -> None:
        begun.set()
        with backend.writer.change(author(who="bob"), "second") as draft:
            assert draft.get(Customer, "acme") == replace(ACME, name="first")
            draft.put(replace(ACME, name="second"))

    with backend.writer.change(author(), "first") as draft:
        thread = Thread(target=second)
        thread.start()
        assert begun.wait(10)
        draft.put(replace(ACME, name="first"))
        draft.add_numbers(Right, "r", [one(12155550000 + index) for index in range(1_000)])
    thread.join(10)
    assert not thread.is_alive()
    assert [(change.version, change.who) for change in backend.writer.changes(before)] == [
        (before + 1, "alice"),
        (before + 2, "bob"),
    ]
    with backend.writer.records() as records:
        assert records.get(Customer, "acme") == replace(ACME, name="second")
        assert records.count(Right, "r") == 1_000


@pytest.mark.parametrize(("who", "why"), [("", "a"), ("a", " "), ("a", "b\n"), ("a" * 501, "b"), ("a", "b" * 501)])
def test_nobody_changes_anything_without_name_and_reason(who: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"blank|characters"):
        Author(who, why, 0.0)
