"""What of a run must not be: each check says nothing, or one sentence with an example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bench.load import growth, limits, mix
from bench.load.observed import Call, Facts, Observation

PASSED: Final = "TN-Validation-Passed"
NONE: Final = "No-TN-Validation"
NOT_YET: Final = "certificate_not_yet"
FETCHED_WITHIN: Final = 2.0
"""Seconds in which a certificate that nobody there knew has come; until then a call may go on without."""

FAULTS: Final = ("fault", "record", "signer", "key_unusable", "unsigned_store", "limits_without_ends")
"""How counters of the plugin begin that must not count anything."""


class Finding(NamedTuple):
    """Something that is not as it must be."""

    check: str
    sentence: str


@dataclass(slots=True)
class Verdict:
    """Of a whole run. ``facts`` are numbers for people, by their names."""

    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether all is as it must be."""
        return not self.findings


def judge(run: Observation) -> Verdict:
    """All checks of a run."""
    verdict = Verdict()
    for name, check in CHECKS.items():
        verdict.findings += [Finding(name, sentence) for sentence in check(run, verdict.facts)]
    return verdict


Check = Callable[[Observation, Facts], Iterator[str]]


def _examples(what: str, wrong: Sequence[Call], run: Observation) -> Iterator[str]:
    """Nothing, or one sentence with the first three."""
    if wrong:
        few = ", ".join(f"{call.id} ({call.kind}, {call.sent - run.begin:.1f} s)" for call in wrong[:3])
        yield f"{len(wrong)} of {len(run.calls)} calls {what}: {few}"


# --- Calls ------------------------------------------------------------------------------------


def lost(run: Observation, facts: Facts) -> Iterator[str]:
    """Each call was placed, has an answer, came to the other side where it was answered, and was ended."""
    calls = list(run.calls.values())
    placed = sum(call.kind not in mix.ARRIVING for call in calls)
    facts["calls"] = f"{len(calls)}, of which {sum(call.status == 200 for call in calls)} were answered"
    again = sum(call.transmissions > 1 for call in calls)
    facts["sent more than once"] = f"{again} calls whose first answer took longer than half a second"
    if placed != run.asked:
        yield f"{placed} calls were placed instead of {run.asked}: the machine is too slow for this rate"
    yield from _examples("have no final answer", [call for call in calls if call.status is None], run)
    answered = [call for call in calls if call.status == 200]
    yield from _examples("were answered by nobody", [call for call in answered if not call.arrivals], run)
    twice = [call for call in calls if len(call.arrivals) > 1]
    yield from _examples("came to the other side more than once", twice, run)
    yield from _examples("could not be ended", [call for call in answered if call.ended is None], run)
    if run.failed:
        yield f"SIPp says that {run.failed} calls failed: {run.errors[:300].strip()}"


def levels(run: Observation, facts: Facts) -> Iterator[str]:
    """Each call became what the policy said at its time; for a second after a change also what it said before."""
    wrong: Counter[str] = Counter()
    first: dict[str, Call] = {}
    arriving = 0
    for call in run.calls.values():
        if call.outcome is None:
            continue
        allowed, during = _allowed(run, call)
        arriving += during
        if call.outcome not in allowed:
            expected = " or ".join(sorted(map(str, allowed)))
            text = f"of the kind {call.kind!r} became {call.outcome} instead of {expected}"
            wrong[text] += 1
            first.setdefault(text, call)
    facts["while a change arrived"] = f"{arriving} calls, which may have met either policy"
    for text, count in wrong.items():
        call = first[text]
        yield f"{count} calls {text}, the first {call.id}, {call.sent - run.begin:.1f} s after the beginning"


def _allowed(run: Observation, call: Call) -> tuple[frozenset[mix.Outcome], bool]:
    timeline = run.in_force.get(call.kind)
    if timeline is None:
        return mix.IN_TRANSIT.outcome, False
    return timeline.during(call.sent, call.rang or call.sent)


def signatures(run: Observation, facts: Facts) -> Iterator[str]:
    """Each call that came carries one PASSporT of the key in force, or none, and the verdict that is due to it."""
    keys: list[Call] = []
    several: list[Call] = []
    unverified: list[Call] = []
    early = 0
    for call in run.calls.values():
        for one in call.arrivals[:1]:
            if one.identities > 1:
                several.append(call)
            allowed, _ = run.keys.during(call.sent, call.rang or call.sent)
            if one.x5u is not None and call.kind not in mix.ARRIVING and one.x5u not in allowed:
                keys.append(call)
            if one.verstat != (NONE if one.level is None else PASSED):
                if _may_be_early(run, call):
                    early += 1
                else:
                    unverified.append(call)
    in_transit = sum(call.kind == mix.IN_TRANSIT.name for call in run.calls.values())
    facts["signed before a rotation"] = f"{in_transit} calls that were placed after it"
    facts["before the certificate came"] = f"{early} calls that went on unverified, within {FETCHED_WITHIN:.0f} s"
    yield from _examples("carry several Identity headers", several, run)
    yield from _examples("are signed with another key than the one in force", keys, run)
    yield from _examples("came with another verdict than is due to them", unverified, run)


def _may_be_early(run: Observation, call: Call) -> bool:
    """Whether nobody there could know the certificate yet: the first calls with it are held, but not all."""
    if not call.verified or call.verified[0].code != NOT_YET:
        return False
    return any(one.begins <= call.sent <= one.ends + FETCHED_WITHIN for one in run.keys.changes)


def records(run: Observation, _: Facts) -> Iterator[str]:
    """Each call has one record on each host that it came to, which says what became of it."""
    for host, count in run.damaged.items():
        if count:
            yield f"the ledger of the {host} host could not take {count} records"
    if run.strangers:
        host, call_id = run.strangers[0]
        yield f"{len(run.strangers)} records are of calls that nobody placed: {call_id} ({host})"
    calls = list(run.calls.values())
    ours = [call for call in calls if call.kind not in mix.ARRIVING]
    signing = [(call, len(call.signed) - 1) for call in ours]
    verifying = [(call, len(call.verified) - len(call.arrivals[:1])) for call in calls]
    for what, counted in (("signing", signing), ("verification", verifying)):
        missing = [call for call, more in counted if more < 0]
        double = [call for call, more in counted if more > 0]
        yield from _examples(f"have no record of their {what}", missing, run)
        yield from _examples(f"have too many records of their {what}", double, run)
    yield from _examples("have a record that says another level", [one for one in ours if _misrecorded(one)], run)
    other = [one for one in calls if one.arrivals and {r.what for r in one.verified} - {one.arrivals[0].verstat}]
    yield from _examples("have a record that says another verdict", other, run)


def _misrecorded(call: Call) -> bool:
    if call.outcome is None:
        return False
    said = "refuse" if call.outcome.status in {403, 480} else call.outcome.level or "unsigned"
    return any(one.what != said for one in call.signed)


# --- Processes --------------------------------------------------------------------------------


def processes(run: Observation, _: Facts) -> Iterator[str]:
    """None ended by itself, and the plugin counted no fault."""
    for name in run.gone:
        yield f"{name} ended by itself"
    for host, counters in run.counters.items():
        for name, count in counters.items():
            if name.startswith(FAULTS) and count:
                yield f"the plugin on the {host} host counted {name}: {count}"


CHECKS: Final[dict[str, Check]] = {
    "no call lost": lost,
    "every level as the policy said": levels,
    "every signature by the key in force, and verified": signatures,
    "one record of each call on each host": records,
    "limits kept": limits.check,
    "memory flat": growth.check,
    "no fault, no process ended": processes,
}
"""What is judged, in this order."""
