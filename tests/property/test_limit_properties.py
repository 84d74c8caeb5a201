"""Bounds on calls: whatever comes in whatever order, none is exceeded, none drifts, each call counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shaken_plugin.core.limits import (
    AHEAD,
    MAX_AHEAD,
    NOTED,
    REPEATS,
    SECOND,
    SPARED,
    Bound,
    Outcome,
    Request,
    Tally,
    Verdict,
    bounds,
    call_key,
    dialog_of,
)
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Limits, Rate

LEASE = 90 * SECOND
START = 1_900_000_000 * SECOND


def of(*rates: tuple[str, float | None, int | None]) -> tuple[Bound, ...]:
    return tuple(Bound.of(scope, Rate(calls_per_second, concurrent)) for scope, calls_per_second, concurrent in rates)


def ask(call: str, *rates: tuple[str, float | None, int | None], level: str = "A", **more: object) -> Request:
    return Request("acme", call, of(*rates), level, **more)  # type: ignore[arg-type]  # passed on as they came


def test_what_the_records_say_becomes_bounds() -> None:
    limits = Limits(Rate(10, 5), ((Attest.A, Rate(None, 2)), (Attest.B, Rate(0.5, None))))
    assert bounds(limits, Attest.A) == (Bound("", 100_000, 900_000, 5), Bound("A", 0, 0, 2))
    assert bounds(limits, Attest.B) == (Bound("", 100_000, 900_000, 5), Bound("B", 2_000_000, 0, 0))
    assert bounds(limits, None) == bounds(limits, Attest.C) == (Bound("", 100_000, 900_000, 5),)
    assert bounds(Limits(Rate(10, 5), suspended=True), Attest.A) == ()
    assert bounds(Limits(), Attest.A) == ()
    assert Bound("", 100_000, 900_000, 5).share(2) == Bound("", 200_000, 900_000, 3)


@pytest.mark.parametrize("rate", [0.1, 1, 2.5, 10, 1000])
def test_a_burst_of_a_second_and_then_the_rate(rate: float) -> None:
    tally = Tally(LEASE)
    burst = max(1, int(rate))
    outcomes = [tally.admit(ask(f"{n}", ("", rate, None)), START).outcome for n in range(burst + 3)]
    assert outcomes == [Outcome.ADMITTED] * burst + [Outcome.RATE] * 3
    interval = -int(-SECOND // rate)
    assert tally.admit(ask("early", ("", rate, None)), START + interval - 1) == Verdict(Outcome.RATE, "")
    assert tally.admit(ask("on time", ("", rate, None)), START + interval).outcome is Outcome.ADMITTED
    assert tally.admit(ask("at once", ("", rate, None)), START + interval).outcome is Outcome.RATE


@settings(deadline=None)
@given(st.lists(st.integers(0, 300_000), max_size=120), st.sampled_from([1, 3, 10]))
def test_no_span_has_more_calls_than_its_seconds_and_one_more_allow(gaps: list[int], rate: int) -> None:
    tally, now, admitted = Tally(LEASE), START, list[int]()
    for number, gap in enumerate(gaps):
        now += gap
        if tally.admit(ask(f"{number}", ("", rate, None)), now).outcome is Outcome.ADMITTED:
            admitted.append(now)
    for first, begin in enumerate(admitted):
        for last in range(first, len(admitted)):
            seconds = (admitted[last] - begin) / SECOND
            assert last - first + 1 <= rate * (seconds + 1) + 1e-6


def test_a_slot_comes_back_at_the_end_of_the_call_and_with_its_lease() -> None:
    tally, rate = Tally(LEASE), ("", None, 2)
    assert [tally.admit(ask(call, rate), START).outcome.passes for call in "abc"] == [True, True, False]
    tally.end("a")
    tally.end("a")
    tally.end("never seen")
    assert tally.admit(ask("c", rate), START).outcome is Outcome.ADMITTED
    assert tally.admit(ask("d", rate), START + LEASE - 1) == Verdict(Outcome.CONCURRENT, "")
    assert tally.admit(ask("d", rate), START + LEASE).outcome is Outcome.ADMITTED
    assert tally.slots() == 1
    tally.end("d")
    assert tally.is_idle(START + 10 * LEASE)
    assert tally.slots() == 0


def test_a_lease_that_is_renewed_holds_for_six_hours() -> None:
    tally, now = Tally(LEASE), START
    tally.admit(ask("long", ("", None, 1)), now)
    for _ in range(6 * 3600 // 30):
        now += 30 * SECOND
        tally.hold("long", "A", now)
        assert tally.admit(ask("other", ("", None, 1)), now).outcome is Outcome.CONCURRENT
    assert len(tally._due) < 200
    tally.advance(now + LEASE)
    assert tally.is_idle(START + 10 * LEASE)


def test_bounds_of_a_level_beside_those_of_all_and_nothing_is_used_up_by_a_refusal() -> None:
    tally = Tally(LEASE)
    rates = (("", 3, 3), ("A", 1, 1))
    assert tally.admit(ask("1", *rates), START).outcome is Outcome.ADMITTED
    assert tally.admit(ask("2", *rates), START) == Verdict(Outcome.RATE, "A")
    tally.end("1")
    assert tally.admit(ask("2", *rates), START).scope == "A"
    assert tally.admit(ask("3", rates[0], level="B"), START).outcome is Outcome.ADMITTED
    assert tally.admit(ask("4", rates[0], level=""), START).outcome is Outcome.ADMITTED
    assert tally.admit(ask("5", rates[0], level="B"), START) == Verdict(Outcome.RATE, "")
    assert (tally.slots(), tally.slots("A"), tally.slots("B")) == (2, 0, 1)


def test_a_clock_that_goes_back_and_another_limit_hold_nobody_up() -> None:
    tally = Tally(LEASE)
    ten, slow = ("", 10, None), ("", 0.001, None)
    assert tally.admit(ask("a", ten), START).outcome is Outcome.ADMITTED
    back = START - 3600 * SECOND
    burst = [tally.admit(ask(f"{n}", ten), back).outcome for n in range(12)]
    assert burst == [Outcome.ADMITTED] * 10 + [Outcome.RATE] * 2
    assert tally.admit(ask("b", slow), back + SECOND).outcome is Outcome.ADMITTED
    assert tally.admit(ask("c", slow), back + 61 * SECOND).outcome is Outcome.RATE
    assert tally.admit(ask("c", ("", 100, None)), back + 61 * SECOND).outcome is Outcome.ADMITTED


def test_a_lease_is_no_longer_for_a_clock_that_goes_back() -> None:
    tally, rate = Tally(LEASE), ("", None, 2)
    tally.admit(ask("a", rate), START)
    tally.admit(ask("b", rate, replaces=("a",)), START)
    tally.admit(ask("noted", ("", 1, None)), START)
    back = START - 3600 * SECOND
    tally.advance(back)
    assert tally.slots() == 1
    tally.advance(back + SPARED)
    assert tally.slots() == 2
    tally.advance(back + LEASE)
    assert tally.slots() == 1
    tally.advance(back + SPARED + LEASE)
    assert tally.slots() == 0
    assert tally.admit(ask("noted", ("", 1, None)), back + NOTED).outcome is Outcome.ADMITTED


def test_one_invite_counts_once_however_often_it_leaves() -> None:
    tally = Tally(LEASE)
    assert tally.admit(ask("a", ("", 1, 1)), START).outcome is Outcome.ADMITTED
    again = [tally.admit(ask("a", ("", 1, 1)), START + n).outcome for n in range(REPEATS + 1)]
    assert again == [Outcome.KNOWN] * REPEATS + [Outcome.REPEATED]
    assert tally.slots() == 1


@pytest.mark.parametrize("slot", [True, False])
def test_a_call_that_takes_no_slot_is_known_as_long_as_it_may_ring(slot: bool) -> None:
    tally, concurrent = Tally(LEASE), None if slot else 1
    rate = ("", 1.0, concurrent)
    assert tally.admit(ask("a", rate, slot=slot), START).outcome is Outcome.ADMITTED
    assert tally.slots() == 0
    assert tally.admit(ask("a", rate, slot=slot), START + NOTED - 1).outcome is Outcome.KNOWN
    assert tally.admit(ask("a", rate, slot=slot), START + NOTED).outcome is Outcome.ADMITTED
    tally.end("a")
    assert tally.is_idle(START + 6 * 3600 * SECOND + LEASE)


def test_a_transfer_counts_once_and_the_call_that_stays_counts_again() -> None:
    tally, rate = Tally(LEASE), ("", 1, 1)
    tally.admit(ask("first", rate), START - SECOND)
    assert tally.admit(ask("second", rate, replaces=("first",)), START).outcome is Outcome.REPLACES
    assert tally.admit(ask("soon", rate, replaces=("second",)), START) == Verdict(Outcome.RATE, "")
    assert tally.slots() == 1
    tally.refer("never seen", "somebody", START)
    assert tally.admit(ask("x", rate, to="somebody"), START + SECOND).outcome is Outcome.CONCURRENT
    tally.end("first")
    assert tally.slots() == 1
    assert tally.admit(ask("third", rate, replaces=("first",)), START + SECOND).outcome is Outcome.CONCURRENT
    tally.end("second")
    assert tally.slots() == 0


def test_calls_with_one_call_id_each_count_and_the_last_of_them_is_replaced() -> None:
    tally, rate = Tally(LEASE), ("", None, 2)
    calls = [call_key("acme", "id", "tag", f"{number}") for number in range(3)]
    assert [tally.admit(ask(call, rate), START).outcome.passes for call in calls] == [True, True, False]
    tally.end(calls[0])
    assert tally.slots() == 1
    assert tally.admit(ask("new", rate, replaces=(dialog_of(calls[0]),)), START).outcome is Outcome.REPLACES
    tally.end(calls[1])
    assert tally.slots() == 1


def test_nobody_gets_more_than_a_second_call_by_replacing_again_and_again() -> None:
    tally, rate = Tally(LEASE), ("", None, 1)
    tally.admit(ask("0", rate), START)
    passed = [tally.admit(ask(f"{n}", rate, replaces=(f"{n - 1}", "0")), START + n).outcome.passes for n in range(1, 9)]
    assert passed == [True] + [False] * 7
    later = START + 1 + SPARED
    tally.hold("1", "A", later)
    tally.advance(later)
    assert tally.slots() == 2  # both are still there, and count
    assert tally.admit(ask("x", rate, replaces=("1",)), later).outcome is Outcome.CONCURRENT
    tally.end("0")
    of_level = ("B", None, 1)
    assert tally.admit(ask("x", rate, of_level, level="B", replaces=("1",)), later).outcome is Outcome.CONCURRENT
    assert tally.admit(ask("x", rate, level="B", replaces=("1",)), later).outcome is Outcome.REPLACES
    tally.hold("1", "A", later)
    assert tally.slots() == 1


TRANSFERS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["", "A", "B"]), st.integers(0, 4)), max_size=120
)
"""What, in whose place, of which level, after how many times 16 seconds."""


@settings(deadline=None)
@given(TRANSFERS, st.sampled_from([1, 2, 3]))
def test_there_are_never_more_than_twice_as_many_calls_as_the_bound(
    steps: list[tuple[int, int, str, int]], bound: int
) -> None:
    tally, now, running = Tally(24 * 3600 * SECOND), START, dict[str, str]()
    for number, (what, whose, level, gap) in enumerate(steps):
        now += gap * 16 * SECOND
        names = list(running)
        if what == 0 and names:
            ended = names[whose % len(names)]
            tally.end(ended)
            del running[ended]
            continue
        replaces = (names[whose % len(names)],) if names else ()
        rates = [("", None, bound), *([("A", None, 1)] if level == "A" else [])]
        if tally.admit(ask(f"{number}", *rates, level=level, replaces=replaces), now).outcome.passes:
            running[f"{number}"] = level
        assert len(running) <= 2 * bound
        assert list(running.values()).count("A") <= 2


CALLS = ["one/0", "one/1", "one/2", "two/3", "two/4", "five"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "admit", "end", "hold"]),
        st.sampled_from(CALLS),
        st.sampled_from(["", "A", "B"]),
        st.lists(st.sampled_from([*CALLS, "one", "two"]), max_size=2).map(tuple),
        st.one_of(st.integers(0, 70), st.integers(0, 70), st.integers(-600, 600)).map(lambda half: half * SECOND // 2),
        st.booleans(),
    ),
    max_size=60,
)
"""What, which call, of which level, in whose place, after how many microseconds, with a slot."""
Step = tuple[str, str, str, tuple[str, ...], int, bool]


def played(
    tally: Tally, steps: list[Step], rates: tuple[tuple[str, float | None, int | None], ...]
) -> Iterator[Verdict]:
    now = START
    for what, call, level, replaces, gap, slot in steps:
        now += gap
        if what == "admit":
            own = tuple(rate for rate in rates if rate[0] in {"", level})
            yield tally.admit(Request("acme", call, of(*own), level, slot, replaces), now)
        elif what == "end":
            tally.end(call)
        else:
            tally.advance(now)
            tally.hold(call, level, now)


@settings(deadline=None)
@given(STEPS)
def test_the_counts_are_those_of_the_calls_that_are_there(steps: list[Step]) -> None:
    tally = Tally(LEASE)
    for _ in played(tally, steps, (("", 2, 3), ("A", None, 2))):
        counted = Counter(level for call, level in tally._level.items() if call not in tally._uncounted)
        assert tally.slots() == counted.total()
        assert all(tally.slots(level) == counted[level] for level in ("A", "B"))
        assert set(tally._bound) | set(tally._repeats) | set(tally._uncounted) <= set(tally._level)
        assert set(tally._until) == set(tally._level)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(CALLS), st.booleans(), st.integers(0, 5 * SECOND)), max_size=80))
def test_without_transfers_there_are_never_more_than_allowed(steps: list[tuple[str, bool, int]]) -> None:
    tally, now = Tally(LEASE), START
    running: set[str] = set()
    for call, ends, gap in steps:
        now += gap
        if ends:
            tally.end(call)
            running.discard(call)
        elif tally.admit(ask(call, ("", None, 2)), now).outcome.passes:
            running.add(call)
            tally.hold(call, "A", now)
        for other in running:
            tally.hold(other, "A", now)
        assert len(running) == tally.slots() <= 2


def test_calls_that_have_ended_leave_nothing_behind() -> None:
    tally = Tally(24 * 3600 * SECOND)
    for number in range(1_000):
        tally.admit(ask(f"{number}", ("", None, 5)), START + number)
        tally.end(f"{number}")
    assert len(tally._due) < 100
    assert tally.is_idle(START + 1_000)


KEPT = SECOND
"""After which who gave an allowance takes back what nobody took."""


def allowed(
    tally: Tally, call: str, now: int, *rates: tuple[str, float | None, int | None], ahead: int = 64, name: str = ""
) -> int:
    verdict = tally.admit(ask(call, *rates, ahead=ahead, name=name or f"of {call}", sent=False), now)
    assert verdict.outcome is Outcome.ADMITTED
    return verdict.ahead


def test_an_allowance_is_given_while_half_of_each_bound_is_free() -> None:
    assert allowed(Tally(LEASE), "a", START, ("", None, 20), ahead=3) == 3
    assert allowed(Tally(LEASE), "a", START, ("", None, 20)) == 9  # with the call itself half of 20
    assert allowed(Tally(LEASE), "a", START, ("", None, 20), ("A", None, 6)) == 2
    assert allowed(Tally(LEASE), "a", START, ("", None, 1_000_000), ahead=MAX_AHEAD + 1) == MAX_AHEAD
    assert (
        allowed(Tally(LEASE), "a", START, ("", 100, 1_000))
        == 29  # half are 49.5 intervals of 10 ms, 20 pass until then
    )  # 50 intervals of 10 ms are half, 10 pass until then
    assert allowed(Tally(LEASE), "a", START, ("", 2, 1_000)) == 0
    assert allowed(Tally(LEASE), "a", START, ("", None, 2)) == 0
    assert allowed(Tally(LEASE), "a", START, ("", 1_000, None)) == 0  # nobody tells when such a call leaves


@pytest.mark.parametrize("rate", [5, 40, 60])
def test_an_allowance_used_at_its_last_moment_is_part_of_the_burst_of_a_second(rate: int) -> None:
    tally = Tally(LEASE)
    taken = allowed(tally, "a", START, ("", rate, 1_000))
    assert taken > 0
    burst = [tally.admit(ask(f"{number}", ("", rate, 1_000)), START + AHEAD) for number in range(rate + 1)]
    asked = sum(verdict.outcome.passes for verdict in burst)
    assert rate - 2 <= taken + asked <= rate


def test_a_call_of_an_allowance_counts_until_it_is_taken_or_given_back() -> None:
    tally, rate = Tally(LEASE), ("", None, 6)
    assert allowed(tally, "a", START, rate) == 2
    assert tally.slots() == 3
    tally.take("of a+1", "b", "A", START + 1)
    assert (tally.slots(), tally.slots("A")) == (3, 3)
    tally.advance(START + LEASE - 1)
    assert tally.slots() == 3
    tally.end("of a+0")
    assert tally.slots() == 2
    tally.take("of a+0", "c", "A", START + KEPT)  # told late: it is there all the same
    assert tally.slots() == 3
    for call in ("a", "b", "c"):
        tally.end(call)
    assert tally.is_idle(START + LEASE)


def test_an_allowance_that_nobody_takes_back_counts_for_a_lease() -> None:
    tally, rate = Tally(LEASE), ("", None, 6)
    assert allowed(tally, "a", START, rate) == 2
    tally.advance(START + LEASE)
    assert tally.slots() == 0


def test_an_allowance_that_is_given_twice_counts_once() -> None:
    tally, rate = Tally(LEASE), ("", None, 20)
    assert [allowed(tally, call, START, rate, ahead=2, name="same") for call in "ab"] == [2, 2]
    assert tally.slots() == 4


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "take", "take", "take", "end"]),
            st.one_of(st.integers(0, AHEAD // 10), st.integers(0, 2 * KEPT)),
            st.integers(0, MAX_AHEAD),
        ),
        max_size=80,
    ),
    st.integers(3, 60),
    st.integers(3, 60),
)
def test_with_allowances_no_span_has_more_calls_and_none_is_counted_too_few(
    steps: list[tuple[str, int, int]], rate: int, most: int
) -> None:
    """Calls come by question or allowance, until the last moment in which they may, and leave some time after."""
    tally, now, came, running = Tally(LEASE), START, list[int](), set[str]()
    allowances: list[tuple[str, int]] = []
    taken: dict[str, tuple[str, int]] = {}
    for number, (what, gap, ahead) in enumerate(steps):
        now += gap
        for name, until in allowances:
            if now > until - AHEAD + KEPT:
                tally.end(name)
        allowances = [(name, until) for name, until in allowances if now <= until - AHEAD + KEPT]
        usable = [number for number, (_, until) in enumerate(allowances) if now <= until]
        for call, (name, at) in list(taken.items()):
            if now - at > KEPT - AHEAD:  # long before that it is known
                tally.advance(at + KEPT - AHEAD)
                tally.take(name, call, "A", at + KEPT - AHEAD)
                del taken[call]
        tally.advance(now)
        if what == "take" and usable:
            taken[f"{number}"] = allowances.pop(usable[ahead % len(usable)])[0], now
            came.append(now)
            running.add(f"{number}")
        elif what == "end" and running:
            call = min(running)
            running.remove(call)
            name, _ = taken.pop(call, ("", 0))
            tally.end(name)
            tally.end(call)
        else:
            verdict = tally.admit(ask(f"{number}", ("", rate, most), ahead=ahead, name=f"{number}", sent=False), now)
            if verdict.outcome.passes:
                came.append(now)
                running.add(f"{number}")
            allowances += [(f"{number}+{index}", now + AHEAD) for index in range(verdict.ahead)]
        assert len(running) <= tally.slots() <= most
    for first, begin in enumerate(came):
        for last, end in enumerate(came[first:], first):
            assert last - first + 1 <= rate * ((end - begin) / SECOND + 1)
