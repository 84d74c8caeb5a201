"""Who is suspended: policy and state file together, in every process, whatever is wrong with the file."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from shaken_plugin import sqlitefile
from shaken_plugin.conduct import decisions, view
from shaken_plugin.conduct.state import State
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, PolicyFacts, Trunk
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BLIND
from shaken_plugin.ports import Author, PolicyStore, Standing, StandingSource
from shaken_plugin.stores import migrations, sqlite, statefile
from shaken_plugin.stores.last_known import LastKnown, LastStanding
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.standing import StandingFile, StandingInMemory, WithStanding, worse
from tests.records import number_right

STATES = tuple(CustomerState)
ACME = Customer("acme", "Acme", CustomerState.VERIFIED)
CLINIC = Customer("clinic", "Clinic", CustomerState.VERIFIED)
RIGHT = number_right("clinic", "12155551212", "12155551212", Basis.ASSIGNED)
SUSPENDED = Standing("acme", CustomerState.SUSPENDED, 1.0, "Ann", "because")


class Fixed:
    """A store with one answer; ``broken`` makes it fail."""

    def __init__(self, facts: PolicyFacts) -> None:
        self.answer = facts
        self.broken = False

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        if self.broken:
            raise StoreUnavailable("the policy is locked")
        return self.answer

    def stamp(self) -> int | None:
        return None if self.broken else self.answer.version


FACTS = PolicyFacts(Trunk("main", ACME), (RIGHT,), 7, (CLINIC, ACME))


def ask(store: PolicyStore) -> PolicyFacts:
    return store.facts("192.0.2.1", None, "12155551212")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "state.db"
    statefile.ensure(path)
    return path


# --- The worse of both --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", STATES)
@pytest.mark.parametrize("standing", [CustomerState.SUSPENDED, CustomerState.TERMINATED])
def test_the_worse_state_holds(policy: CustomerState, standing: CustomerState) -> None:
    terminated = CustomerState.TERMINATED in {policy, standing}
    assert worse(policy, standing) is (CustomerState.TERMINATED if terminated else CustomerState.SUSPENDED)


def test_without_a_standing_the_policy_answers_as_it_is() -> None:
    assert ask(WithStanding(Fixed(FACTS), StandingInMemory())) is FACTS


def test_the_sources_customer_and_every_holder_are_looked_at() -> None:
    found = ask(WithStanding(Fixed(FACTS), StandingInMemory(SUSPENDED)))
    down = replace(ACME, state=CustomerState.SUSPENDED)
    assert found == replace(FACTS, source=Trunk("main", down), holders=(CLINIC, down))
    other = Standing("clinic", CustomerState.TERMINATED, 1.0, "Ann", "x")
    found = ask(WithStanding(Fixed(FACTS), StandingInMemory(other)))
    assert found.source == FACTS.source
    assert [holder.state.value for holder in found.holders] == ["terminated", "verified"]


@pytest.mark.parametrize("source", [None, Gateway("intl", "International")])
def test_calls_of_no_customer_go_on(source: Gateway | None) -> None:
    facts = PolicyFacts(source, (), 7)
    assert ask(WithStanding(Fixed(facts), StandingInMemory(SUSPENDED))) is facts


@pytest.mark.parametrize("which", ["policy", "standing"])
def test_either_that_cannot_be_read_is_the_declared_mode(which: str) -> None:
    policy, standing = Fixed(FACTS), StandingInMemory(SUSPENDED)
    store = WithStanding(policy, standing)
    known = WithStanding(LastKnown(policy), LastStanding(standing))
    before = ask(known)
    assert isinstance(before.source, Trunk)
    assert before.source.customer.state is CustomerState.SUSPENDED
    (policy if which == "policy" else standing).broken = True
    with pytest.raises(StoreUnavailable):
        ask(store)
    assert ask(known) == before  # the standing is remembered with it


def test_a_suspension_is_obeyed_while_the_policy_cannot_be_read() -> None:
    policy, standing = Fixed(FACTS), StandingInMemory()
    known = WithStanding(LastKnown(policy), LastStanding(standing))
    assert ask(known) == FACTS
    policy.broken = True
    standing.standings["acme"] = SUSPENDED
    found = ask(known).source
    assert isinstance(found, Trunk)
    assert found.customer.state is CustomerState.SUSPENDED
    del standing.standings["acme"]
    assert ask(known) == FACTS  # reinstated, likewise


def test_standings_are_remembered_each_for_itself() -> None:
    standing = StandingInMemory(SUSPENDED)
    known: StandingSource = LastStanding(standing)
    assert (known.of("acme"), known.of("clinic")) == (SUSPENDED, None)
    standing.broken = True
    assert (known.of("acme"), known.of("clinic")) == (SUSPENDED, None)
    with pytest.raises(StoreUnavailable):
        known.of("never asked for")


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_every_source_of_standings_says_the_same(path: Path, kind: str) -> None:
    decisions.suspend(State(path), "acme", "Ann", "because", 1.0)
    source: StandingSource = StandingFile(path) if kind == "file" else StandingInMemory(SUSPENDED)
    assert source.of("acme") == SUSPENDED
    assert source.of("clinic") is None


# --- The file -----------------------------------------------------------------------------------


def test_what_was_said_last_holds(path: Path) -> None:
    state, source = State(path), StandingFile(path)
    for decide, expected in (
        (decisions.suspend, CustomerState.SUSPENDED),
        (decisions.terminate, CustomerState.TERMINATED),
        (decisions.reinstate, None),
        (decisions.suspend, CustomerState.SUSPENDED),
    ):
        decide(state, "acme", "Ann", "because", 1.0)
        found = source.of("acme")
        assert (found and found.state) is expected


def test_the_file_is_for_the_group_and_its_tables_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    sqlitefile.create(path)  # as setup leaves it
    with pytest.raises(StoreUnavailable, match="nothing in it yet; run 'shaken apply'"):
        StandingFile(path).of("acme")
    for _ in range(2):
        statefile.ensure(path)
    State(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert StandingFile(path).of("acme") is None


def test_who_cannot_make_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be created"):
        statefile.ensure(tmp_path / "missing" / "state.db")
    (tmp_path / "state.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(StoreError, match="cannot be written"):
        statefile.ensure(tmp_path / "state.db")


@pytest.mark.parametrize(("version", "text"), [(3, "newer than this release knows"), (99, "newer")])
def test_a_newer_schema_is_refused(path: Path, version: int, text: str) -> None:
    _is_of(path, version, reads=version)
    with pytest.raises(StoreUnavailable, match=text):
        StandingFile(path).of("acme")
    with pytest.raises(StoreError, match=text):
        statefile.ensure(path)
    with pytest.raises(StoreError, match=text):
        migrations.plan(path, statefile.STATE)


def test_a_newer_schema_that_says_so_is_read_and_written(path: Path) -> None:
    _is_of(path, 3, reads=2)
    decisions.suspend(State(path), "acme", "Ann", "because", 1.0)
    assert StandingFile(path).of("acme") == SUSPENDED


def _is_of(path: Path, version: int, reads: int) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE meta SET value = ? WHERE key = 'reads'", (reads,))
        other.execute(f"PRAGMA user_version = {version}")


# --- Of the release before ----------------------------------------------------------------------

STATE_1 = Path(__file__).with_name("state1.sql").read_text("utf-8")
"""As the release before wrote it: acme was suspended, reinstated and suspended again, while its clock was set back."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.executescript(STATE_1)
    return path


def _migrate(path: Path) -> None:
    planned = migrations.plan(path, statefile.STATE)
    assert planned is not None
    migrations.migrate(planned, Author("anna", "a test", 0.0))


def test_an_older_schema_says_who_is_suspended_and_waits_for_its_migration_to_be_written(old: Path) -> None:
    source = StandingFile(old)
    found = source.of("acme")
    assert found == Standing("acme", CustomerState.SUSPENDED, 900.0, "Cid", "again")
    assert source.of("beta") is None
    state = State(old)
    with (
        pytest.raises(StoreUnavailable, match=r"older than this release's .2.; run 'shaken store migrate'"),
        state.reading(),
    ):
        pytest.fail("it is refused")
    _migrate(old)
    assert source.of("acme") == found  # on the connection from before
    assert (source.of("beta"), StandingFile(old).of("acme")) == (None, found)


def test_what_was_said_keeps_its_order_whatever_the_clock_was(old: Path) -> None:
    _migrate(old)
    state = State(old)
    with state.reading() as connection:
        history = view.standing_history(connection, "acme")
        assert [(said.state, said.at, said.offence) for said in history] == [
            ("suspended", 1_000.0, 1),
            ("reinstated", 2_000.0, None),
            ("suspended", 900.0, None),
        ]
        assert [case.offence.stage.value for case in view.cases(connection)] == ["settled"]
    decisions.reinstate(state, "acme", "Ann", "over", 800.0)
    assert StandingFile(old).of("acme") is None
    with closing(sqlite3.connect(old)) as other, pytest.raises(sqlite3.Error, match="is kept"):
        other.execute("DELETE FROM standing")


# --- Faults -------------------------------------------------------------------------------------


@contextmanager
def _missing(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what lies in the log goes with the log
    away = path.with_suffix(".away")
    path.rename(away)
    yield
    away.rename(path)


def _instead(content: bytes) -> Callable[[Path], object]:
    @contextmanager
    def fault(path: Path) -> Iterator[None]:
        with _missing(path):
            path.write_bytes(content)
            yield
            path.unlink()

    return fault


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 200 + content[200:])
    yield
    path.write_bytes(content)


@contextmanager
def _no_table(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE standing RENAME TO gone")
    yield
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE gone RENAME TO standing")


@contextmanager
def _unheard_of(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO standing VALUES ('z', 'acme', 'odd', 1, 1, 'x', 'x', NULL)")
    yield
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DROP TRIGGER standing_is_kept")
        other.execute("DELETE FROM standing WHERE state = 'odd'")


FAULTS = {
    "missing": _missing,
    "empty": _instead(b""),
    "no database": _instead(b"no database" * 1_000),
    "damaged": _damaged,
    "without its table": _no_table,
    "with a state unheard of": _unheard_of,
}


@pytest.mark.parametrize("opened", [False, True], ids=["new reader", "open reader"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_unavailable_and_over_when_it_is_over(
    path: Path, fault: Callable[..., object], opened: bool
) -> None:
    decisions.suspend(State(path), "acme", "Ann", "because", 1.0)
    source = StandingFile(path)
    if opened:
        assert source.of("acme") == SUSPENDED
    with fault(path):  # type: ignore[attr-defined]  # all are context managers
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=str(path)):
                source.of("acme")
    assert source.of("acme") == SUSPENDED


@pytest.mark.alone
def test_a_locked_file_costs_one_short_wait_and_not_one_for_each_question(path: Path) -> None:
    source = StandingFile(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        begin = time.monotonic()
        for _ in range(10):
            with pytest.raises(StoreUnavailable, match="locked"):
                source.of("acme")
        assert time.monotonic() - begin < 0.045
        other.execute("COMMIT")
    time.sleep(BLIND)
    assert source.of("acme") is None


# --- Many processes -----------------------------------------------------------------------------

PROCESSES = 4


def _work(path: Path, pipe: Connection) -> None:
    """A worker: asks all the time, and tells when the answer changes."""
    source = StandingFile(path)
    last: object = "nothing yet"
    while not pipe.poll():
        found = source.of("acme")
        state = found and found.state.value
        if state != last:
            last = state
            pipe.send((state, time.time()))
        time.sleep(0.002)


def test_every_worker_obeys_within_a_second_while_the_policy_is_locked(path: Path) -> None:
    locked = path.with_name("policy.db")
    pipes = []
    context = multiprocessing.get_context("fork")
    workers = []
    for _ in range(PROCESSES):
        ours, theirs = context.Pipe()
        worker = context.Process(target=_work, args=(path, theirs))
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    try:
        with closing(sqlite3.connect(locked, isolation_level=None)) as importing:
            importing.execute("BEGIN EXCLUSIVE")  # as an import of the policy for seconds
            assert [pipe.recv()[0] for pipe in pipes] == [None] * PROCESSES
            for decide, expected in (
                (decisions.suspend, "suspended"),
                (decisions.terminate, "terminated"),
                (decisions.reinstate, None),
            ):
                decided = time.time()
                decide(State(path), "acme", "Ann", "because", decided)
                for pipe in pipes:
                    assert pipe.poll(5)
                    state, at = pipe.recv()
                    assert state == expected
                    assert at - decided < 1.0
    finally:
        for pipe in pipes:
            pipe.send("end")
        for worker in workers:
            worker.join(10)
            assert worker.exitcode == 0


def test_a_writer_that_is_killed_leaves_all_or_nothing(path: Path) -> None:
    """Killed at any statement of a decision."""
    statements = 0
    while True:
        statements += 1
        pid = os.fork()
        if pid == 0:
            try:
                _die_at(path, statements)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        found = StandingFile(path).of("acme")
        with closing(sqlite3.connect(path)) as other:
            events = other.execute("SELECT count(*) FROM event").fetchone()[0]
        assert events == (0 if found is None else 1)
        if found is not None:
            break
        assert os.WIFSIGNALED(status)
    assert statements > 5


def _die_at(path: Path, statement: int) -> None:
    state, done = State(path), 0

    def count(_text: str) -> None:
        nonlocal done
        done += 1
        if done == statement:
            os.kill(os.getpid(), 9)

    with state.reading() as connection:
        connection.set_trace_callback(count)
    decisions.suspend(state, "acme", "Ann", "because", 1.0)


# --- A file that is lost ------------------------------------------------------------------------


@pytest.fixture
def policy(tmp_path: Path, path: Path) -> Path:
    """The file of a policy that remembers the state file."""
    policy = tmp_path / "policy.db"
    sqlite.replace_policy(policy, Policy(), {}, {})
    sqlite.remember_state(policy, statefile.ensure(path))
    return policy


def gone(path: Path) -> None:
    for name in path.parent.glob(f"{path.name}*"):
        name.unlink()


def empty(path: Path) -> None:
    gone(path)
    sqlitefile.create(path)  # as 'shaken setup' would


def another(path: Path) -> None:
    gone(path)
    statefile.ensure(path)


@pytest.mark.parametrize(
    ("lose", "text"), [(gone, "it is gone"), (empty, "it is empty"), (another, "not the file that was made")]
)
def test_a_lost_file_reinstates_nobody(path: Path, policy: Path, lose: Callable[[Path], None], text: str) -> None:
    state, source = State(path, policy), StandingFile(path, policy)
    decisions.suspend(state, "acme", "Ann", "because", 1.0)
    assert source.of("acme") is not None
    lose(path)
    was_there = path.exists()
    with pytest.raises(StoreUnavailable, match=f"{text}.*restore it.*shaken store forget-state"):
        source.of("acme")
    for use in (state.reading, state.changing):
        with pytest.raises(StoreUnavailable, match=f"{text}.*shaken store forget-state"), use():
            pass
    with pytest.raises(StoreUnavailable, match=text):
        statefile.ensure(path, policy)
    assert path.exists() is was_there


def test_a_file_that_comes_back_is_obeyed_again(tmp_path: Path, path: Path, policy: Path) -> None:
    source = StandingFile(path, policy)
    decisions.suspend(State(path, policy), "acme", "Ann", "because", 1.0)
    source.of("acme")
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="gone"):
        source.of("acme")
    (tmp_path / "elsewhere").rename(path)
    assert source.of("acme") is not None
    assert statefile.ensure(path, policy) == statefile.remembered(policy)


def test_a_policy_that_cannot_be_read_hides_no_suspension(path: Path, policy: Path) -> None:
    decisions.suspend(State(path, policy), "acme", "Ann", "because", 1.0)
    policy.write_bytes(b"x" * 8192)
    assert StandingFile(path, policy).of("acme") is not None


def test_a_damaged_file_is_lost_and_one_of_another_release_is_not(path: Path, policy: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError, match="newer than this release knows"):
        statefile.ensure(path, policy)
    gone(path)
    path.write_bytes(b"no database" * 1_000)
    with pytest.raises(StoreUnavailable, match="it is damaged"):
        statefile.ensure(path, policy)


def test_the_first_file_of_a_policy_stays_it(policy: Path) -> None:
    before = statefile.remembered(policy)
    sqlite.remember_state(policy, "another")
    assert statefile.remembered(policy) == before


def test_a_new_file_leaves_the_old_one_with_its_log(path: Path) -> None:
    decisions.suspend(State(path), "acme", "Ann", "because", 1.0)
    _, kept = statefile.make_anew(path)
    assert kept is not None
    assert StandingFile(kept).of("acme") is not None
    assert StandingFile(path).of("acme") is None
    gone(path)
    assert statefile.make_anew(path)[1] is None
    with pytest.raises(StoreError, match="cannot be created"):
        statefile.make_anew(path.parent / "missing" / "state.db")
