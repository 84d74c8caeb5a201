"""What must not be is found: a lost call, one unsigned, a leak, a missing record, and each says which."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench.load import growth, mix
from bench.load.judge import CHECKS, FETCHED_WITHIN, NONE, NOT_YET, judge
from bench.load.observed import Absence, Arrival, Call, Observation, Recorded
from bench.load.timeline import Timeline

from tests.bench.load import made


def findings(run: Observation) -> list[tuple[str, str]]:
    """What is found, by check."""
    return [(one.check, one.sentence) for one in judge(run).findings]


def found_one(run: Observation, check: str, *parts: str) -> None:
    """Just one check says something, and that."""
    told = findings(run)
    assert {name for name, _ in told} == {check}, told
    for part in parts:
        assert any(part in sentence for _, sentence in told), (part, told)


def test_a_run_in_which_all_is_as_it_must_be() -> None:
    verdict = judge(made.run())
    assert verdict.good, verdict.findings
    assert verdict.facts["calls"] == "300, of which 225 were answered"
    assert verdict.facts["while a change arrived"].startswith("0 calls")


LOST = "no call lost"
LEVELS = "every level as the policy said"
SIGNED = "every signature by the key in force, and verified"
RECORDS = "one record of each call on each host"


def test_every_check_is_one_that_a_test_here_sees_fail() -> None:
    assert list(CHECKS) == [
        LOST, LEVELS, SIGNED, RECORDS, "limits kept", "memory flat", "no fault, no process ended"
    ]  # fmt: skip


def lost(call: Call) -> None:
    call.status, call.rang, call.hung_up, call.ended = None, None, None, None


def unsigned(call: Call) -> None:
    call.arrivals = [Arrival(call.sent, None, None, NONE, 0)]
    call.signed, call.verified = [Recorded("unsigned", "no_credential")], [Recorded(NONE)]


def wrong_level(call: Call) -> None:
    call.arrivals = [call.arrivals[0]._replace(level="B")]
    call.signed = [Recorded("B")]


def refused(call: Call) -> None:
    call.status, call.arrivals, call.verified = 403, [], []
    call.signed = [Recorded("refuse", "suspended")]


@pytest.mark.parametrize(
    ("spoil", "check", "part"),
    [
        (lost, LOST, "1 of 300 calls have no final answer: 60-1@127.0.0.1 (owned, 60.5 s)"),
        (lambda call: setattr(call, "ended", None), LOST, "could not be ended: 60-1"),
        (lambda call: call.arrivals.append(call.arrivals[0]), LOST, "more than once: 60-1"),
        (unsigned, LEVELS, "1 calls of the kind 'owned' became unsigned instead of level A, the first 60-1"),
        (wrong_level, LEVELS, "became level B instead of level A"),
        (refused, LEVELS, "became answered 403 instead of level A"),
        (lambda call: call.signed.clear(), RECORDS, "have no record of their signing: 60-1"),
        (lambda call: call.verified.clear(), RECORDS, "have no record of their verification: 60-1"),
        (lambda call: call.signed.append(call.signed[0]), RECORDS, "too many records of their signing: 60-1"),
        (lambda call: call.verified.append(call.verified[0]), RECORDS, "too many records of their verification"),
        (lambda call: call.signed.__setitem__(0, Recorded("B")), RECORDS, "says another level: 60-1"),
        (lambda call: call.verified.__setitem__(0, Recorded(NONE)), RECORDS, "says another verdict: 60-1"),
    ],
)
def test_one_call_that_is_not_as_it_must_be(spoil: Callable[[Call], object], check: str, part: str) -> None:
    run = made.run()
    spoil(made.of(run, mix.OWNED, 60))
    found_one(run, check, part)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"verstat": "TN-Validation-Failed"}, "another verdict than is due"),
        ({"verstat": NONE}, "another verdict than is due"),
        ({"identities": 2}, "several Identity headers"),
        ({"x5u": made.SECOND}, "another key than the one in force"),
    ],
)
def test_a_signature_that_is_not_as_it_must_be(changed: dict[str, object], part: str) -> None:
    run = made.run()
    call = made.of(run, mix.OWNED, 60)
    call.arrivals = [call.arrivals[0]._replace(**changed)]  # type: ignore[arg-type]  # as given above
    call.verified = [Recorded(call.arrivals[0].verstat)]
    found_one(run, SIGNED, part)


def test_a_call_that_nobody_answered_a_stranger_and_a_damaged_record() -> None:
    run = made.run()
    call = made.of(run, mix.OWNED, 60)
    call.arrivals, call.verified = [], []
    assert (LOST, "1 of 300 calls were answered by nobody: 60-1@127.0.0.1 (owned, 60.5 s)") in findings(run)
    run = made.run()
    run.strangers = [("terminating", "x@y")]
    found_one(run, RECORDS, "1 records are of calls that nobody placed: x@y (terminating)")
    run = made.run()
    run.damaged["terminating"] = 3
    found_one(run, RECORDS, "the terminating host could not take 3 records")


def test_calls_that_were_not_placed_and_what_sipp_says() -> None:
    run = made.run()
    run.asked += 5
    found_one(run, LOST, "300 calls were placed instead of 305")
    run = made.run()
    run.failed, run.errors = 2, "Aborting call on unexpected message"
    found_one(run, LOST, "SIPp says that 2 calls failed: Aborting call")


@pytest.mark.parametrize("level", ["A", "B"])
def test_while_a_change_arrives_both_are_allowed_and_counted(level: str) -> None:
    run = made.run()
    call = made.of(run, mix.ADDED, made.ADDED_AT - made.BEGIN)
    call.sent, call.rang = made.ADDED_AT + 0.9, made.ADDED_AT + 1.2
    call.arrivals = [call.arrivals[0]._replace(level=level)]
    call.signed = [Recorded(level)]
    verdict = judge(run)
    assert verdict.good, verdict.findings
    assert verdict.facts["while a change arrived"].startswith("1 calls")
    call.sent, call.rang = made.ADDED_AT + 1.1, made.ADDED_AT + 1.2
    assert judge(run).good == (level == "A")


def test_the_first_calls_with_a_new_certificate_may_be_early_and_no_others() -> None:
    run = made.run()
    call = made.of(run, mix.OWNED, made.ROTATED_AT - made.BEGIN)
    call.arrivals = [call.arrivals[0]._replace(verstat=NONE)]
    call.verified = [Recorded(NONE, NOT_YET)]
    verdict = judge(run)
    assert verdict.good, verdict.findings
    assert verdict.facts["before the certificate came"].startswith("1 calls")
    call.verified = [Recorded(NONE, "certificate_untrusted")]
    found_one(run, SIGNED, "another verdict")
    call.verified = [Recorded(NONE, NOT_YET)]
    call.sent = made.ROTATED_AT + 1 + FETCHED_WITHIN + 0.1
    call.rang = call.sent + 0.01
    found_one(run, SIGNED, "another verdict")


def in_transit(run: Observation) -> Call:
    sent = made.ROTATED_AT + 2
    call = Call("t@x", mix.IN_TRANSIT.name, sent, sent, 200, sent, sent, 1)
    call.arrivals = [Arrival(sent, "A", made.FIRST, "TN-Validation-Passed", 1)]
    call.verified = [Recorded("TN-Validation-Passed")]
    run.calls[call.id] = call
    return call


def test_a_call_that_was_signed_before_a_rotation_still_passes_after_it() -> None:
    run = made.run()
    call = in_transit(run)
    verdict = judge(run)
    assert verdict.good, verdict.findings
    assert verdict.facts["signed before a rotation"].startswith("1 calls")
    call.arrivals = [call.arrivals[0]._replace(verstat="TN-Validation-Failed")]
    call.verified = [Recorded("TN-Validation-Failed")]
    found_one(run, SIGNED, "t@x")


# --- Limits -----------------------------------------------------------------------------------


def limited(run: Observation, passing: Callable[[int], bool], kind: mix.Kind = mix.LIMITED) -> None:
    """One more call a second of a limited customer, some of which pass."""
    for number in range(made.SECONDS):
        call = made.call(0)
        call.id, call.kind, call.sent = f"{kind.source}-{number}", kind.name, made.BEGIN + number
        call.rang, call.hung_up = call.sent + 0.01, call.sent + 1.9
        if passing(number):
            call.arrivals = [call.arrivals[0]._replace(x5u=made.FIRST if number < 200 else made.SECOND)]
        else:
            call.status, call.arrivals, call.verified, call.ended = 480, [], [], None
            call.signed = [Recorded("refuse", "over_limit")]
        run.calls[call.id] = call
    run.asked += made.SECONDS


def test_a_limit_that_is_kept_exceeded_and_too_tight() -> None:
    run = made.run()
    limited(run, lambda number: number % 2 == 0)
    assert not findings(run)
    run = made.run()
    limited(run, lambda _: True)
    found_one(run, "limits kept", "300 calls passed a limit of 0.5 a second in 300 s")
    run.counters["originating"]["limits_unavailable"] = 160  # nobody counted them, which is told
    assert not findings(run)
    assert judge(run).facts["not counted"].startswith("160 calls")
    run.counters["originating"]["limits_unavailable"] = 16  # which accounts for some of them, and not for all
    found_one(run, "limits kept", "300 calls passed a limit of 0.5 a second in 300 s")
    run = made.run()
    limited(run, lambda number: number % 10 == 0)
    found_one(run, "limits kept", "only 30 of 300 calls passed")
    run.shared = False
    limited(run := made.run(), lambda number: number % 4 == 0)
    assert not findings(run)  # half of it is a host's share
    run.shared = False
    found_one(run, "limits kept", "only 75 of 300 calls passed")


def test_while_the_agent_is_away_nobody_counts() -> None:
    run = made.run()
    run.absences = [Absence("originating", made.BEGIN + 100, made.BEGIN + 110)]
    limited(run, lambda number: number % 2 == 0 or 100 <= number < 111)
    assert not findings(run)
    run.absences = [Absence("terminating", made.BEGIN + 100, made.BEGIN + 160)]
    limited(run := made.run(), lambda number: number % 2 == 0 or 100 <= number < 160)
    found_one(run, "limits kept", "180 calls passed")


def test_calls_at_a_time() -> None:
    run = made.run()
    limited(run, lambda _: True, mix.CROWDED)  # each lasts 1.9 s
    assert not findings(run)
    run.bounds = mix.Bounds(0.5, 1)
    found_one(run, "limits kept", "2 calls were there at a time with a limit of 1")
    run = made.run()
    run.held = 1.0
    found_one(run, "limits kept", "1 calls have a slot still")


# --- Processes --------------------------------------------------------------------------------


def test_a_leak_is_found_and_caches_that_fill_are_none() -> None:
    run = made.run()
    run.memory["terminating agent", 9] = made.samples(100.0, grows=30_000)
    found_one(
        run, "memory flat", "terminating agent grew by 5.7 MiB in 199 s after its warm-up, from 103.6 MiB; 3.1 are"
    )
    assert not findings(made.run())
    run = made.run()
    run.memory["terminating agent", 9] = made.samples(100.0, grows=10_000)
    assert not findings(run)  # 2 MiB of 100


@pytest.mark.parametrize(("times", "found"), [((200,), False), ((130, 180, 230, 280), True)])
def test_what_comes_once_is_no_leak_and_what_comes_again_and_again_is(times: tuple[int, ...], found: bool) -> None:
    run = made.run()
    run.memory["originating kamailio timer 5", 9] = [
        one._replace(octets=one.octets + (2 << 20) * sum(one.at - made.BEGIN >= at for at in times))
        for one in made.samples(30.0)
    ]
    if found:
        found_one(run, "memory flat", "originating kamailio timer 5 grew by")
    else:
        assert not findings(run)


POOL = "originating kamailio shared pool"


def test_a_leak_in_memory_that_all_processes_share_is_found() -> None:
    run = made.run()
    run.pools[POOL] = made.samples(13.0, grows=6_000)
    found_one(run, "memory flat", f"{POOL} grew by 1.1 MiB in 199 s after its warm-up, from 13.7 MiB; 1.0 are allowed")
    run.pools[POOL] = made.samples(13.0, grows=4_000)
    assert not findings(run)


def test_of_redis_is_judged_what_is_in_use_but_for_what_is_kept_for_a_snapshot() -> None:
    run, name = made.run(), "Redis but for the acts of the fleet's state"
    run.memory["Redis", 8] = made.samples(12.0, grows=6_000)
    run.pools[name] = made.samples(4.0)
    assert not findings(run)
    run.pools[name] = made.samples(4.0, grows=6_000)
    found_one(run, "memory flat", f"{name} grew by 1.1 MiB in 199 s after its warm-up, from 4.7 MiB; 1.0 are allowed")


def test_a_process_that_comes_to_touch_what_all_share_does_not_grow() -> None:
    run = made.run()
    worker = run.memory["originating kamailio SIP worker 1", 7]
    worker[:] = [one._replace(touched=100_000 * number) for number, one in enumerate(worker)]
    assert not findings(run)


def test_a_pool_that_did_not_tell_its_use_is_not_taken_for_flat() -> None:
    run = made.run()
    run.pools[POOL] = run.pools[POOL][:90]  # its switch stopped answering
    found_one(run, "memory flat", f"{POOL} did not tell its use for long enough")
    run.pools[POOL] = []
    found_one(run, "memory flat", f"{POOL} did not tell its use for long enough")
    run.pools = {}
    found_one(run, "memory flat", "no shared pool was seen")


def test_a_process_that_was_seen_too_shortly_is_not_judged() -> None:
    samples = made.samples(100.0, grows=100_000)
    assert growth.growth("agent", samples[:100]) is None
    assert growth.growth("agent", samples[:120]) is not None
    run = made.run()
    run.memory = {("agent", 1): samples[:50]}
    found_one(run, "memory flat", "let it run longer")


def test_a_process_that_ended_and_a_fault() -> None:
    run = made.run()
    run.gone = ["originating kamailio SIP worker 1"]
    found_one(run, "no fault, no process ended", "originating kamailio SIP worker 1 ended by itself")
    run = made.run()
    run.counters["terminating"]["fault_verify"] = 2
    found_one(run, "no fault, no process ended", "the terminating host counted fault_verify: 2")


# --- What is in force -------------------------------------------------------------------------


def test_what_was_in_force_during_a_call() -> None:
    line: Timeline[str] = Timeline(frozenset("a"))
    line.change(10, 11, "b")
    line.change(20, 20, "c")
    assert line.during(5, 9.9) == (frozenset("a"), False)
    assert line.during(9.9, 10) == line.during(10.9, 12) == (frozenset("ab"), True)
    assert line.during(11, 19.9) == (frozenset("b"), False)
    assert line.during(19.9, 20.1) == (frozenset("bc"), True)
    assert line.during(20, 30) == (frozenset("c"), False)
    line.put_off(15, 25)
    assert line.during(22, 22) == (frozenset("bc"), True)
    assert line.during(12, 13) == (frozenset("b"), False)
