"""A service whose memory is warm: what is answered for want of better is not kept, every change decides at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shaken_plugin.authentication import AuthenticationService
from shaken_plugin.authentication.memory import MAX_LINES
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.records import CustomerState, PolicyFacts
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.lab.pki import Authority
from shaken_plugin.ports import Author, PolicyStore, Standing
from shaken_plugin.stores.last_known import LastKnown, LastStanding
from shaken_plugin.stores.memory import MemoryPolicy
from shaken_plugin.stores.replacing import replace_all
from shaken_plugin.stores.standing import StandingInMemory, WithStanding
from tests.conftest import NOW
from tests.services.builders import ACME, RANDOM_ORIGID, STRANGE_ADDRESS, call, pair, policy, service, sip

ANN = Author("Ann", "a test", NOW)
OTHERS = call(source=STRANGE_ADDRESS, callers={CallerHeader.FROM: (sip("13125550100"),)})


class Failing:
    """A store, and standings, of which the next questions fail as if by an I/O error: no stamp tells of it."""

    def __init__(self, store: MemoryPolicy, standings: StandingInMemory) -> None:
        self._store, self._standings = store, standings
        self.failures = 0

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("disk I/O error")

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        self._fail()
        return self._store.facts(source, user, number, called, route)

    def of(self, customer: str) -> Standing | None:
        self._fail()
        return self._standings.of(customer)

    def stamp(self) -> object:
        return self._store.stamp(), self._standings.stamp()


class Meanwhile(StandingInMemory):
    """Standings of which one holds while the records are asked, and neither before nor after."""

    def __init__(self, *standings: Standing) -> None:
        super().__init__()
        self.meanwhile = {standing.customer: standing for standing in standings}

    def of(self, customer: str) -> Standing | None:
        self.standings = self.meanwhile
        return super().of(customer)


def level(signer: AuthenticationService, now: float = NOW) -> str | None:
    signing = signer.sign(call(), now, RANDOM_ORIGID)
    return None if signing.decision is None else signing.decision.level.value


@pytest.mark.parametrize("which", ["policy", "standing"])
@pytest.mark.parametrize("others", [0, 2], ids=["the first call after it", "others called meanwhile"])
def test_an_answer_from_before_a_failure_is_not_remembered(authority: Authority, which: str, others: int) -> None:
    records, standings = MemoryPolicy(), StandingInMemory()
    replace_all(records, policy(), ANN, "x")
    failing = Failing(records, standings)
    store: PolicyStore = (
        WithStanding(LastKnown(failing), LastStanding(standings))
        if which == "policy"
        else WithStanding(LastKnown(records), LastStanding(failing))
    )
    signer = service(pair(authority), store=store)
    assert [level(signer) for _ in range(3)] == ["A"] * 3
    if which == "policy":
        replace_all(records, policy(customers=(replace(ACME, state=CustomerState.SUSPENDED),)), ANN, "x")
    else:
        standings.standings["acme"] = Standing("acme", CustomerState.SUSPENDED, NOW, "Ann", "x")
    for _ in range(others):
        signer.sign(OTHERS, NOW, RANDOM_ORIGID)
    failing.failures = 1
    assert level(signer) == "A"  # as last known
    assert [level(signer, NOW + seconds) for seconds in (0, 0, 3_600)] == ["refuse"] * 3


def test_an_answer_is_not_remembered_that_another_stamp_was_read_with(authority: Authority) -> None:
    records, standings = MemoryPolicy(), Meanwhile(Standing("acme", CustomerState.SUSPENDED, NOW, "Ann", "x"))
    replace_all(records, policy(), ANN, "x")
    signer = service(pair(authority), store=WithStanding(records, standings))
    for _ in range(3):
        standings.standings = {}
        signer.sign(OTHERS, NOW, RANDOM_ORIGID)  # asks of no customer
        assert level(signer) == "refuse"
    standings.standings = standings.meanwhile = {}
    assert level(signer) == "A"


def test_nothing_is_remembered_of_a_call_with_long_lines(authority: Authority) -> None:
    """Whoever calls chooses them, and each of thousands that are remembered would keep them."""

    class Counting(MemoryPolicy):
        asked = 0

        def facts(self, *question: str | None) -> PolicyFacts:
            self.asked += 1
            return super().facts(*question)

    store = Counting()
    replace_all(store, policy(), ANN, "x")
    signer = service(pair(authority), store=store)
    lines = {
        length: call(callers={CallerHeader.FROM: (f'"{"x" * length}" ' + sip("12155551212"),)})
        for length in (9, MAX_LINES)
    }
    for _ in range(3):
        for one in lines.values():
            signer.sign(one, NOW, RANDOM_ORIGID)
    before = store.asked
    signer.sign(lines[9], NOW, RANDOM_ORIGID)
    assert store.asked == before
    signer.sign(lines[MAX_LINES], NOW, RANDOM_ORIGID)
    assert store.asked > before
