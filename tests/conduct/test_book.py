"""Accounts in the state file: the same as the pure function says, exactly once, whatever is repeated."""

from __future__ import annotations

import itertools
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shaken_plugin.conduct import accounts, decisions, view
from shaken_plugin.conduct.accounts import Unauthorised, read_account
from shaken_plugin.conduct.book import Book, Calls
from shaken_plugin.conduct.message import Kind
from shaken_plugin.conduct.state import State
from shaken_plugin.core.offences import OffenceRules, Stage
from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.errors import ConflictError, StoreUnavailable
from shaken_plugin.records.place import Place
from tests.conduct.book import ACME, Bench
from tests.offences import HOUR, Story
from tests.unit.test_offences import STORIES


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "state.db")


def test_fifty_calls_of_a_dialler_are_one_offence_with_one_warning(bench: Bench) -> None:
    bench.calls((index / 1_000, f"1215555{index:04}") for index in range(50))
    (case,) = bench.cases()
    assert (case.offence.stage, case.calls, case.numbers, case.warnings) == (Stage.OPEN, 50, 50, 0)
    (message,) = bench.book.due(bench.at(1), 10)
    told = json.loads(message.body)
    assert (message.kind, told["type"], told["id"]) == (Kind.WARNING, "offence.warning", message.id)
    assert len(told["data"]["evidence"]) == len(told["data"]["numbers_used"]) == 50
    assert told["data"]["evidence"][0]["call_id"] == "call-1"


def test_a_warning_waits_until_evidence_is_gathered_and_is_the_same_ever_after(bench: Bench) -> None:
    bench.gather = HOUR
    bench.calls([(0, "1")])
    assert bench.book.due(bench.at(0.9), 10) == []
    bench.calls([(0.5, "2")])
    (first,) = bench.book.due(bench.at(1.1), 10)
    bench.calls([(1.2, "3")])
    bench.book.failed(first, "no route", bench.at(2))
    assert bench.book.due(bench.at(1.5), 10) == []
    (again,) = bench.book.due(bench.at(2), 10)
    assert (again.id, again.body, again.tries, again.failure) == (first.id, first.body, 1, "no route")
    assert json.loads(first.body)["data"]["calls"] == 2
    assert bench.cases()[0].failure == "no route"
    bench.book.sent(again, bench.at(2))
    assert bench.book.due(bench.at(99), 10) == []
    (case,) = bench.cases()
    assert (case.offence.delivered_at, case.warnings, case.failure) == (bench.at(2), 1, None)


def test_calls_that_were_read_before_change_nothing(bench: Bench) -> None:
    read = bench.read([(0, "1"), (1, "2")])
    assert bench.book.take(read, bench.rules, bench.at(1)) is not None
    before = bench.cases()
    assert bench.book.take(read, bench.rules, bench.at(1)) is None
    assert bench.cases() == before
    assert bench.book.mark() == read.until


def test_what_fails_amid_a_batch_leaves_nothing_behind(bench: Bench) -> None:
    bench.calls([(0, "1")])
    before, mark = bench.cases(), bench.book.mark()
    read = bench.read([(1, "2"), (2, "3")])
    broken = read.calls[1]._replace(body={"not JSON": object()})
    with pytest.raises(StoreUnavailable):
        bench.book.take(read._replace(calls=(read.calls[0], broken)), bench.rules, bench.at(2))
    assert (bench.cases(), bench.book.mark()) == (before, mark)
    bench.book.take(read, bench.rules, bench.at(2))
    assert bench.cases()[0].calls == 3


def test_mode_observe_is_listed_and_counts_nothing(bench: Bench) -> None:
    bench.calls([(0, "1"), (1, "1"), (2, "2")], observed=True)
    assert bench.cases() == []
    with bench.state.reading() as connection:
        found = [(customer, seen.number, seen.calls) for customer, seen in view.observed(connection, ACME)]
        assert view.observed(connection, "other") == []
    assert found == [(ACME, "1", 2), (ACME, "2", 1)]


def test_what_mode_observe_lists_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_OBSERVED", 3)
    bench.calls([*((index, str(index)) for index in range(5)), (6, "1")], observed=True)
    with bench.state.reading() as connection:
        assert [(seen.number, seen.calls) for _, seen in view.observed(connection)] == [("0", 1), ("1", 2), ("2", 1)]


def test_evidence_is_bounded_and_all_is_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_CALLS", 10)
    monkeypatch.setattr(accounts, "MAX_NUMBERS", 20)
    bench.calls((index / 1_000, str(index)) for index in range(30))
    found = bench.details(1)
    assert (len(found.evidence), len(found.numbers), found.case.calls, found.case.numbers) == (10, 20, 30, 20)


def test_a_call_from_the_future_counts_as_one_of_now(bench: Bench) -> None:
    bench.rules = OffenceRules(HOUR)
    bench.calls([(0, "1")])
    bench.deliver(1, 1)
    bench.calls([(900, "2")], now=1.5)
    assert bench.end() == "1 warned: 2 calls"


# --- Decisions ----------------------------------------------------------------------------------


def test_the_second_is_proposed_and_nobody_is_suspended(bench: Bench) -> None:
    bench.calls([(0, "1")])
    bench.deliver(1, 1)
    bench.calls([(26, "2")])
    with bench.state.reading() as connection:
        assert [case.offence.stage for case in view.undecided(connection)] == [Stage.PROPOSED]
        assert view.standings(connection) == []
    assert [json.loads(message.body)["type"] for message in bench.book.due(bench.at(26), 10)] == [
        "offence.suspension_proposed"
    ]
    bench.suspend(27)
    with bench.state.reading() as connection:
        assert view.undecided(connection) == []
        (standing,) = view.standings(connection)
    assert standing == (ACME, CustomerState.SUSPENDED, bench.at(27), "Ann", "because")
    assert bench.end() == "1 warned: 1 call, 2 suspended: 1 call, customer suspended"


def test_by_setting_the_second_suspends_and_says_why(bench: Bench) -> None:
    bench.rules = OffenceRules(24 * HOUR, automatic=True)
    bench.calls([(0, "1")])
    bench.deliver(1, 1)
    assert bench.calls([(24.9, "2")]).suspended == ()
    assert bench.calls([(26, "2")]).suspended == ()  # within 24 hours of the same number
    outcome = bench.calls([(27, "3"), (28, "4")])
    assert (outcome.opened, outcome.suspended) == ((2,), (ACME,))
    with bench.state.reading() as connection:
        (standing,) = view.standings(connection)
    assert (standing.who, standing.why) == ("offences", "second offence 2 after a warning, with number 3")
    assert [event.what for event in bench.details(2).events] == ["second offence", "suspended"]


def test_everything_that_was_said_of_a_customer_stays(bench: Bench) -> None:
    bench.suspend(1)
    decisions.terminate(bench.state, ACME, "Bob", "fraud", bench.at(2))
    decisions.reinstate(bench.state, ACME, "Cid", "wrong customer", bench.at(3))
    bench.suspend(4)
    with bench.state.reading() as connection:
        history = view.standing_history(connection, ACME)
    assert [(said.state, said.who, said.why) for said in history] == [
        ("suspended", "Ann", "because"),
        ("terminated", "Bob", "fraud"),
        ("reinstated", "Cid", "wrong customer"),
        ("suspended", "Ann", "because"),
    ]
    for statement in ("UPDATE standing SET why = 'x'", "DELETE FROM standing"):
        with closing(sqlite3.connect(bench.path)) as other, pytest.raises(sqlite3.Error, match="is kept"):
            other.execute(statement)


def test_reinstatement_begins_the_count_anew_and_warnings_stay_counted(bench: Bench) -> None:
    bench.calls([(0, "1")])
    bench.deliver(1, 1)
    bench.calls([(26, "2")])
    bench.suspend(27)
    decisions.reinstate(bench.state, ACME, "Ann", "they changed their dialler", bench.at(28))
    bench.calls([(60, "3")])
    assert bench.end() == "1 settled: 1 call, 2 settled: 1 call, 3 open: 1 call"
    assert bench.cases()[0].warnings == 1
    assert bench.details(2).events[-1][-3:] == ("reinstated", "Ann", "they changed their dialler")
    with bench.state.reading() as connection:
        assert view.warnings(connection, ACME) == 1


def test_nothing_is_sent_about_what_was_dismissed(bench: Bench) -> None:
    bench.calls([(0, "1")])
    decisions.dismiss(bench.state, 1, "Ann", "our own mistake", bench.at(1))
    assert bench.book.due(bench.at(2), 10) == []
    assert bench.end() == "1 dismissed: 1 call"


def test_a_warning_that_arrives_when_its_offence_was_dismissed_changes_nothing(bench: Bench) -> None:
    bench.calls([(0, "1")])
    (message,) = bench.book.due(bench.at(0), 1)
    decisions.dismiss(bench.state, 1, "Ann", "our own mistake", bench.at(1))
    bench.book.sent(message, bench.at(2))
    assert bench.end() == "1 dismissed: 1 call"
    assert bench.cases()[0].warnings == 0


def test_a_person_delivers_and_the_webhook_need_not_any_more(bench: Bench) -> None:
    bench.calls([(0, "1")])
    decisions.delivered(bench.state, 1, "Ann", "called them", bench.at(1))
    assert bench.book.due(bench.at(2), 10) == []
    assert bench.details(1).events[-1] == (bench.at(1), ACME, 1, "warning delivered", "Ann", "called them")


REFUSED = {
    "delivered twice": (
        lambda state, at: decisions.delivered(state, 1, "Ann", "again", at),
        "offence 1 is warned: no warning waits",
    ),
    "no such offence": (lambda state, at: decisions.delivered(state, 9, "Ann", "x", at), "there is no offence 9"),
    "dismissed: none such": (lambda state, at: decisions.dismiss(state, 9, "Ann", "x", at), "there is no offence 9"),
    "dismissed: the first of two": (
        lambda state, at: decisions.dismiss(state, 1, "Ann", "x", at),
        "offence 1 cannot be dismissed: the second, 2, rests on its warning",
    ),
    "not suspended": (
        lambda state, at: decisions.reinstate(state, "other", "Ann", "x", at),
        "other is neither suspended nor terminated",
    ),
    "reinstated by nobody": (lambda state, at: decisions.reinstate(state, ACME, " ", "x", at), "--by is blank"),
    "without a reason": (lambda state, at: decisions.reinstate(state, ACME, "Ann", "", at), "--why is blank"),
    "suspended twice": (
        lambda state, at: decisions.suspend(state, "gone", "Ann", "x", at),
        "customer gone is terminated already, by Bob: fraud",
    ),
    "terminated twice": (lambda state, at: decisions.terminate(state, "gone", "Ann", "x", at), "terminated already"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_changes_nothing(bench: Bench, case: tuple[Callable[[State, float], None], str]) -> None:
    bench.calls([(0, "1")])
    bench.deliver(1, 1)
    bench.calls([(26, "2")])
    decisions.terminate(bench.state, "gone", "Bob", "fraud", bench.at(27))
    with closing(sqlite3.connect(bench.path)) as other:
        before = list(other.iterdump())
    with pytest.raises(ConflictError, match=case[1]):
        case[0](bench.state, bench.at(30))
    with closing(sqlite3.connect(bench.path)) as other:
        assert list(other.iterdump()) == before


def test_customers_that_the_policy_does_not_have_are_refused_with_a_hint(bench: Bench) -> None:
    customers = [Customer("acme", "Acme", CustomerState.VERIFIED), Customer("zeta", "Zeta", CustomerState.PENDING)]
    records = bench.policy(customers)
    assert decisions.known("acme", records) == customers[0]
    with pytest.raises(ConflictError, match="no customer acne: did you mean acme"):
        decisions.known("acne", records)
    with pytest.raises(ConflictError, match="no customer 42: shaken customer list"):
        decisions.known("42", records)


# --- As the pure function says -------------------------------------------------------------------

_TIMES = st.integers(0, 240).map(lambda quarter: quarter / 4)
_CALL = st.tuples(_TIMES, st.sampled_from("123456"))
_DECISION = st.one_of(
    _TIMES.map("warned {}".format),
    _TIMES.map("suspend {}".format),
    _TIMES.map("reinstate {}".format),
    st.tuples(st.integers(1, 4), _TIMES).map(lambda pair: "dismiss {} {}".format(*pair)),
)


def _told(story: Story, bench: Bench, step: object) -> None:
    """The same to both; what one refuses the other refuses."""
    if isinstance(step, tuple):
        story.call(*step)
        bench.calls([step], now=1_000)
        return
    what, *values = str(step).split()
    refused = False
    if (
        (what == "reinstate" and not story.account.suspended)
        or (what == "suspend" and story.account.suspended)
        or (what == "warned" and (story.account.first is None or story.account.first.stage is not Stage.OPEN))
    ):
        refused = True
    else:
        try:
            story.decide(str(step))
        except ValueError:
            refused = True
    first = story.account.first.id if story.account.first else 99
    decide: dict[str, Callable[[float], None]] = {
        "warned": lambda at: decisions.delivered(bench.state, first, "Ann", "x", at),
        "suspend": lambda at: decisions.suspend(bench.state, ACME, "Ann", "x", at),
        "reinstate": lambda at: decisions.reinstate(bench.state, ACME, "Ann", "x", at),
        "dismiss": lambda at: decisions.dismiss(bench.state, int(values[0]), "Ann", "x", at),
    }
    try:
        decide[what](bench.at(float(values[-1])))
    except ConflictError:
        assert refused, step
    else:
        assert not refused, step


@pytest.mark.parametrize(("rules", "told", "end"), STORIES.values(), ids=STORIES)
def test_stories_end_alike_in_the_file(tmp_path: Path, rules: OffenceRules, told: Sequence[object], end: str) -> None:
    story, bench = Story(rules), Bench(tmp_path / "state.db", rules, sync=False)
    for step in told:
        _told(story, bench, step)
    assert (story.end(), bench.end()) == (end, end)


@given(
    st.lists(st.one_of(_CALL, _CALL, _CALL, _DECISION), max_size=25),
    st.booleans(),
    st.sampled_from([0.0, 6 * HOUR, 24 * HOUR]),
)
@example(["suspend 0", "reinstate 1", "suspend 2", (0.5, "1")], False, 0.0)
@settings(max_examples=60, deadline=None)
def test_the_file_says_what_the_pure_function_says(steps: list[object], automatic: bool, grace: float) -> None:
    rules = OffenceRules(grace, automatic=automatic)
    story = Story(rules)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "state.db", rules, sync=False)
        last = 0.0
        for step in steps:
            # Decisions are made one after the other; calls may come late.
            if isinstance(step, str):
                *words, at = step.split()
                last = max(last + 0.25, float(at))
                step = " ".join([*words, str(last)])  # noqa: PLW2901  # the step with its time
            _told(story, bench, step)
            with bench.state.reading() as connection:
                found = read_account(connection, ACME)
            assert (found.open, found.suspended) == (story.account.open, story.account.suspended)
        assert bench.end() == story.end()


@given(st.lists(_CALL, min_size=1, max_size=25), st.data())
@settings(max_examples=40, deadline=None)
def test_how_calls_are_cut_into_batches_does_not_matter(calls: list[tuple[float, str]], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(calls)), max_size=4)))
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = (Bench(Path(folder) / name, sync=False) for name in ("whole.db", "cut.db"))
        whole.calls(calls, now=1_000)
        for begin, end in itertools.pairwise([0, *cuts, len(calls)]):
            read = cut.read(calls[begin:end])
            cut.book.take(read, cut.rules, cut.at(1_000))
            if read.calls:  # an empty batch may be taken twice
                assert cut.book.take(read, cut.rules, cut.at(1_000)) is None
        assert cut.end() == whole.end()
        assert sum(case.calls for case in cut.cases()) == len(calls)


@given(st.lists(_CALL, min_size=1, max_size=40))
def test_without_a_delivery_there_is_one_offence_whatever_comes(calls: Iterable[tuple[float, str]]) -> None:
    story = Story(OffenceRules(0, automatic=True))
    for call in calls:
        story.call(*call)
    assert (story.ids, story.account.second, story.account.suspended) == (1, None, False)


def test_the_place_in_the_ledger_is_remembered(bench: Bench) -> None:
    assert bench.book.mark() == Place()
    call = Unauthorised("a:0", ACME, "1", bench.at(0), {})
    bench.book.take(Calls(Place(), Place(7, "a b:7"), [call]), bench.rules, bench.at(0))
    assert bench.book.mark() == Place(7, "a b:7")
    assert Book(State(bench.path)).mark() == Place(7, "a b:7")
