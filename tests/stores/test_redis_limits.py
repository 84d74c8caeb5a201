"""The counts of a fleet in Redis: the same as those of one host, over any sequence; and two hosts together."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shaken_plugin.core.limits import MAX_AHEAD, SECOND, Outcome, Request, Tally
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.stores.redis.limits import LEASE, MAX_AT_ONCE, MAX_ENDED, RedisCounts
from shaken_plugin.stores.redis.log import FleetLog
from tests.property.test_limit_properties import START, STEPS, Step, of

_names = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
def log(server: RedisServer) -> Iterator[FleetLog]:
    made = FleetLog(server.access, f"fleet-{next(_names)}")
    yield made
    made.close()


class EndsLittle(RedisCounts):
    """A run ends one slot and one call that is not counted."""

    def _run(self, script: str, customer: str, *words: Any) -> Any:
        changed = script.replace(f"'LIMIT', 0, {MAX_ENDED}", "'LIMIT', 0, 1")
        assert changed != script
        return super()._run(changed, customer, *words)


@pytest.mark.parametrize("kind", [RedisCounts, EndsLittle])
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_redis_and_the_pure_algorithm_agree_on_any_sequence(
    log: FleetLog, kind: type[RedisCounts], steps: list[Step]
) -> None:
    customer, tally, counts, now = f"c{next(_names)}", Tally(LEASE), kind(log), START
    rates = (("", 2.0, 3), ("A", None, 2), ("B", 0.4, None))
    for what, call, level, replaces, gap, slot in steps:
        # What is over and not ended yet goes on where the clock goes back.
        now += max(gap, 0) if kind is EndsLittle else gap
        counts.at = now
        tally.advance(now)
        if what == "admit":
            own = tuple(rate for rate in rates if rate[0] in {"", level})
            request = Request(customer, call, of(*own), level, slot, replaces, to=call[-1])
            assert counts.admit(request) == tally.admit(request, now)
        elif what == "end":
            counts.end(customer, [call, "not there"])
            tally.end(call)
        elif slot:
            counts.hold(customer, [(call, level)])
            tally.hold(call, level, now)
        else:
            to = (replaces or ("nobody",))[0][-1]
            counts.refer(customer, call, to)
            tally.refer(call, to, now)
        assert counts.slots(customer) == tally.slots()


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["admit", "admit", "take", "end"]),
            st.sampled_from("abcdefgh"),
            st.sampled_from(["", "A"]),
            st.one_of(st.integers(0, SECOND // 10), st.integers(-SECOND, 2 * SECOND), st.just(LEASE)),
            st.integers(0, MAX_AHEAD + 1),
        ),
        max_size=60,
    )
)
def test_redis_and_the_pure_algorithm_agree_on_allowances(
    log: FleetLog, steps: list[tuple[str, str, str, int, int]]
) -> None:
    customer, tally, counts, now = f"c{next(_names)}", Tally(LEASE), RedisCounts(log), START
    rates = (("", 100.0, 61), ("A", 33.3, 50))
    names = ["none+0"]
    for number, (what, call, level, gap, ahead) in enumerate(steps):
        now += gap
        counts.at = now
        tally.advance(now)
        if what == "admit":
            own = tuple(rate for rate in rates if rate[0] in {"", level})
            request = Request(customer, call, of(*own), level, ahead=ahead, name=f"{number % 9}")
            verdict = tally.admit(request, now)
            assert counts.admit(request) == verdict
            names += [f"{number % 9}+{index}" for index in range(verdict.ahead)]
        elif what == "take":
            taken = [(name, f"{call}/{name}", level) for name in names[-ahead:]]
            counts.take(customer, taken)
            for one in taken:
                tally.take(*one, now)
        else:
            counts.end(customer, [call, names[-1]])
            tally.end(call)
            tally.end(names[-1])
        assert counts.slots(customer) == tally.slots()


def test_two_hosts_never_admit_more_than_the_limit_and_free_each_other_s_slots(log: FleetLog) -> None:
    admitted: list[str] = []
    refused: list[Outcome] = []

    def host(name: str) -> None:
        counts = RedisCounts(log)
        for number in range(40):
            call = f"{name}-{number}"
            verdict = counts.admit(Request("acme", call, of(("", None, 25))))
            if verdict.outcome.passes:
                admitted.append(call)
            else:
                refused.append(verdict.outcome)

    threads = [threading.Thread(target=host, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 25
    assert set(refused) == {Outcome.CONCURRENT}
    counts = RedisCounts(log)
    counts.end("acme", [admitted[0]])
    assert counts.admit(Request("acme", "new", of(("", None, 25)))).outcome is Outcome.ADMITTED
    assert counts.admit(Request("other", "new", of(("", None, 1)))).outcome is Outcome.ADMITTED
    many = [(f"call {n}", "A") for n in range(2 * MAX_AT_ONCE + 1)]
    counts.hold("many", many)
    assert counts.slots("many") == len(many)


def test_a_crashed_host_frees_its_slots_within_two_minutes_and_a_call_of_six_hours_keeps_its_own(log: FleetLog) -> None:
    counts, now = RedisCounts(log), START
    bound = of(("", None, 2))
    counts.at = now
    counts.admit(Request("acme", "of the crashed host", bound))
    counts.admit(Request("acme", "long", bound))
    freed_after = None
    for _ in range(6 * 120):
        now += 30 * SECOND
        counts.at = now
        counts.hold("acme", [("long", "")])
        if freed_after is None and counts.slots("acme") == 1:
            freed_after = now - START
    assert freed_after is not None
    assert freed_after <= 120 * SECOND
    assert counts.slots("acme") == 1
    assert counts.admit(Request("acme", "x", of(("", None, 1)))).outcome is Outcome.CONCURRENT


def test_one_run_ends_so_many_slots_of_a_crashed_host_and_the_others_count_no_more(
    server: RedisServer, log: FleetLog
) -> None:
    counts, many = RedisCounts(log), 5 * MAX_ENDED
    counts.at = START
    counts.hold("acme", [(f"of the crashed host {number}", "A") for number in range(many)])
    counts.at += LEASE
    left = []
    for number in range(7):
        verdict = counts.admit(Request("acme", f"new {number}", of(("", None, 7), ("A", None, 7)), "A"))
        assert verdict.outcome is Outcome.ADMITTED
        assert counts.admit(Request("acme", f"new {number}", of(("", None, 7)), "A")).outcome is Outcome.KNOWN
        left.append(server.command("HLEN", f"shaken:{log.fleet}:{{acme}}:levels") - number - 1)
    assert left == [max(0, many - 2 * MAX_ENDED * (number + 1)) for number in range(7)]
    assert counts.slots("acme") == 7
    assert counts.admit(Request("acme", "one more", of(("", None, 7)))).outcome is Outcome.CONCURRENT


def test_everything_in_redis_ends_by_itself(server: RedisServer, log: FleetLog) -> None:
    counts = RedisCounts(log)
    rates = of(("", 10, 2), ("A", 1, 1))
    counts.admit(Request("brief", "a", rates, "A", to="x"))
    counts.admit(Request("brief", "a", rates, "A", to="x"))
    counts.refer("brief", "a", "y")
    counts.admit(Request("brief", "b", rates, "A", to="y"))
    counts.admit(Request("brief", "c", of(("", 10, None)), "B"))
    counts.first_use("ab", "cd", 60_000)
    keys = server.command("KEYS", f"shaken:{log.fleet}:*")
    assert len(keys) >= 10
    lives = {key: server.command("PTTL", key) for key in keys}
    assert all(0 < life < 1_000_000 for life in lives.values()), lives


def test_a_passport_is_of_the_call_that_it_came_with_first_on_any_host(log: FleetLog) -> None:
    one, two = RedisCounts(log), RedisCounts(FleetLog(log.access, log.fleet))
    assert one.first_use("token", "call", 60_000)
    assert two.first_use("token", "call", 60_000)
    assert not two.first_use("token", "another", 60_000)
    assert two.first_use("other token", "another", 60_000)


def test_without_redis_it_is_said(tmp_path: Path) -> None:
    with RedisServer("gone", tmp_path) as server:
        counts = RedisCounts(FleetLog(server.access, "gone"))
        assert counts.slots("acme") == 0
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        counts.admit(Request("acme", "a", of(("", None, 1))))
