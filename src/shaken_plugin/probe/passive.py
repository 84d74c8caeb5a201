"""The verdicts of the probe from calls that others made: two records, or one capture.

    from_records(before, after, plan)            messages before and after a PBX
    from_capture(seen, plan, before, after)      a capture that has both sides

A call before the PBX is known behind it by its token, else by a part of its token, else by its
called number and the time. Calls without any Identity header on either side are counted, no more.
What the PBX answered tells a call that it refused or took itself from one that it lost.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.core.verification import Pending, Profile, VerificationRules, begin
from shaken_plugin.core.verification.types import vouching
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.probe import headers
from shaken_plugin.probe.capture import Seen
from shaken_plugin.probe.compare import by_size, judge
from shaken_plugin.probe.findings import Checker, Finding, Kind, Leg, Step, Verdict, Verification
from shaken_plugin.probe.message import Message, parameter

WINDOW: Final = 40.0
"""Seconds after which an INVITE behind the PBX is no longer taken for a call before it by its number alone:
longer than SIP's own timers (RFC 3261 §17.1.1.2: 32 s)."""

EVER: Final = 2**40
"""Seconds that a PASSporT may be old here: a record may be read years later."""


class Watched(NamedTuple):
    """What was found: verdicts, calls without an Identity on both sides, INVITEs that fit no call before."""

    verdicts: list[Verdict]
    unsigned: int
    unmatched: int
    reason: str = ""
    """Why nothing could be judged, and what to do; empty where it could."""


def checker(plan: DialPlan) -> Checker:
    """Verifies as far as it goes without certificates: grammar, claims, numbers, Date; no signature.

    A token that arrived byte for byte has the signature it had.
    """
    rules = VerificationRules(plan, freshness=EVER, profile=Profile.RFC8224)
    speaking = vouching(rules.profile)

    def check(message: CallMessage, at: float | None) -> Verification:
        outcome = begin(message, rules, at or 0.0)
        if isinstance(outcome, Pending):
            if any(case not in outcome.ended and case.type.ppt in speaking for case in outcome.cases):
                return Verification(True)
            ended = [result for result in outcome.ended.values() if result.failure is not None]
        else:
            ended = [result for result in outcome.results if result.failure is not None]
        if not ended:
            return Verification(False, "no_identity")
        failure = max(ended, key=lambda result: result.held)
        assert failure.failure is not None
        return Verification(False, failure.failure.code, failure.detail)

    return check


def from_records(before: Iterable[Message], after: Iterable[Message], plan: DialPlan) -> Watched:
    """Compare two records of the same calls."""
    one, other = list(before), list(after)
    answers, behind = (_answers((message, None) for message in side) for side in (one, other))
    earlier = _invites((Leg(message, headers.issued_at(message)) for message in one), answers)
    later = _invites((Leg(message, headers.issued_at(message)) for message in other), behind)
    return _watched(earlier, later, plan, answers, timed=False)


def from_capture(seen: Iterable[Seen], plan: DialPlan, before: str | None = None, after: str | None = None) -> Watched:
    """Compare the two sides of a PBX in one capture.

    Args:
        seen: its messages.
        plan: see `compare.judge`.
        before: ``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT`` from which calls come to the PBX; None for any.
        after: address to which the PBX sends them; None for wherever the PBX that got a call sends one.
    """
    everything = list(seen)
    answers = _answers((one.leg.message, one.leg.at) for one in everything)
    invites = [one for one in everything if one.leg.message.is_initial_invite]
    earlier = later = list[Seen]()
    # By address; in a laboratory all have one, and are told apart by their ports.
    for ports in (False, True):
        earlier, later = _sides(invites, before, after, ports=ports)
        if earlier and later:
            break
    if reason := _reason(everything, earlier, before, after):
        return Watched([], 0, len(later), reason)
    sides = [_invites((one.leg for one in side), answers) for side in (earlier, later)]
    return _watched(sides[0], sides[1], plan, answers, timed=True)


def _sides(
    invites: Sequence[Seen], before: str | None, after: str | None, *, ports: bool
) -> tuple[list[Seen], list[Seen]]:
    """What comes to the PBX and what leaves it. The PBX is where INVITEs arrive and others leave from."""

    def place(end: tuple[str, int]) -> str:
        return f"{end[0]}:{end[1]}" if ports else end[0]

    relays = {place(one.target) for one in invites} & {place(one.source) for one in invites}
    earlier = [
        one
        for one in invites
        if _is(one.source, before)
        or (before is None and place(one.target) in relays and place(one.source) not in relays)
    ]
    return earlier, [
        one
        for one in invites
        if _is(one.target, after) or (after is None and place(one.source) in relays and place(one.target) not in relays)
    ]


def _reason(everything: Sequence[Seen], earlier: Sequence[Seen], before: str | None, after: str | None) -> str:
    """Why the sides cannot be told apart; empty where they can."""
    ways = dict.fromkeys((one.source[0], one.target[0]) for one in everything if one.leg.message.is_initial_invite)
    if not ways:
        return "there is no INVITE in the capture" if everything else "there is no SIP in the capture that can be read"
    seen = "INVITEs went " + ", ".join(f"{source} -> {target}" for source, target in list(ways)[:MAX_WAYS])
    seen += f" and {len(ways) - MAX_WAYS} other ways" if len(ways) > MAX_WAYS else ""
    for option, address in (("--before", before), ("--after", after)):
        if address and not any(_is(end, address) for one in everything for end in (one.source, one.target)):
            return f"{option} {address} is nowhere in the capture; {seen}"
    if not earlier:
        where = f"no INVITE comes from {before}" if before else "it does not show which host is the PBX"
        return f"{where}; {seen}; name the address they come from with --before, the one they go to with --after"
    return ""


MAX_WAYS: Final = 8
"""Most pairs of hosts that are named."""


def _is(end: tuple[str, int], address: str | None) -> bool:
    """Whether an end is that of ``ADDRESS`` or ``ADDRESS:PORT``."""
    return address in {end[0], f"{end[0]}:{end[1]}", f"[{end[0]}]:{end[1]}"}


class Outcome(NamedTuple):
    """The first final answer to an INVITE, and when it came."""

    status: int
    at: float | None


Answers = Mapping[tuple[str, str, str], Outcome]
"""By `Message.transaction`: branches tell the legs of a proxy apart."""

_CSEQ = re.compile(r"([0-9]{1,10})[ \t]")


def _answers(messages: Iterable[tuple[Message, float | None]]) -> Answers:
    found: dict[tuple[str, str, str], Outcome] = {}
    for message, at in messages:
        if message.status is not None and message.status >= 200 and message.method == "INVITE":
            found.setdefault(message.transaction, Outcome(message.status, at))
    return found


def _invites(legs: Iterable[Leg], answers: Answers) -> list[Leg]:
    """Initial INVITEs, each once: retransmissions are the same transaction.

    RFC 3261 §22.2: who is challenged sends the call again with credentials, the same Call-ID and From tag,
    and a higher CSeq. Both are one call, and the second is the one that may go through.
    """
    known: dict[tuple[str, str, str], Leg] = {}
    newest: dict[tuple[str, str], int] = {}
    for leg in legs:
        if leg.message.is_initial_invite:
            known.setdefault(leg.message.transaction, leg)
            call, number = _attempt(leg.message)
            newest[call] = max(number, newest.get(call, number))
    return [leg for leg in known.values() if not _is_challenged(leg.message, answers, newest)]


def _is_challenged(message: Message, answers: Answers, newest: Mapping[tuple[str, str], int]) -> bool:
    call, number = _attempt(message)
    final = answers.get(message.transaction)
    return final is not None and final.status in {401, 407} and number < newest[call]


def _attempt(message: Message) -> tuple[tuple[str, str], int]:
    """Which call, and the CSeq number; 0 where it is none."""
    match = _CSEQ.match(message.first("cseq"))
    return (message.call_id, parameter(message.first("from"), "tag")), int(match.group(1)) if match else 0


def _watched(before: Sequence[Leg], after: Sequence[Leg], plan: DialPlan, answers: Answers, *, timed: bool) -> Watched:
    copies: list[list[int]] = [[] for _ in before]
    left = _by_tokens(before, after, copies, timed=timed)
    unclear = set[int]() if timed else _unclear(before, after, copies, left, plan)
    left = _by_number(before, after, copies, left, plan, answers, timed=timed, unclear=unclear)
    check = checker(plan)
    verdicts, unsigned = [], 0
    for place, (leg, numbers) in enumerate(zip(before, copies, strict=True)):
        found = [after[number] for number in sorted(numbers)]
        if not any(one.message.all("identity") for one in (leg, *found)):
            unsigned += 1
            continue
        final = answers.get(leg.message.transaction)
        status = final.status if final else None
        missing = _missing(status, any_answers=bool(answers)) if place not in unclear else _UNCLEAR
        verdict = judge(f"call-{place + 1}", leg, found, check, plan, status=status, missing=missing)
        verdicts.append(_described(verdict, plan))
    return Watched(by_size(verdicts, watched=True), unsigned, len(left))


_UNCLEAR: Final = Finding(
    Kind.UNCLEAR, "not as many calls to its number before as behind, no token in common, and records have no times"
)


def _unclear(
    before: Sequence[Leg], after: Sequence[Leg], copies: Sequence[Sequence[int]], left: Sequence[int], plan: DialPlan
) -> set[int]:
    """The calls, by place, that only their number could tell, of which there are not as many behind the PBX."""
    behind = Counter(_called(after[number].message, plan) for number in left)
    places: dict[str | None, list[int]] = {}
    for place, leg in enumerate(before):
        if not copies[place]:
            places.setdefault(_called(leg.message, plan), []).append(place)
    return {
        place
        for called, some in places.items()
        if called is not None and behind[called] not in {0, len(some)}
        for place in some
    }


def _missing(status: int | None, *, any_answers: bool) -> Finding | None:
    """What to say of a call that is not found behind the PBX; None for what every refusal says."""
    if status is None:
        text = "no final answer to it, and nothing" if any_answers else "nothing"
        text += " behind the PBX that fits it" + ("" if any_answers else "; no answers were recorded")
        return Finding(Kind.LOST_CALL, text)
    if status < 300:
        # Voicemail, a menu, a conference: production is full of calls that a PBX takes itself.
        return Finding(Kind.NOT_PASSED_ON, f"answered with {status}, and nothing behind the PBX that fits it")
    return None


def _by_tokens(before: Sequence[Leg], after: Sequence[Leg], copies: list[list[int]], *, timed: bool) -> list[int]:
    """Give each call its copies by token, else by a part of one; those that are left."""
    left = list(range(len(after)))
    for marks in (headers.tokens, headers.parts):
        owners: dict[object, int] = {}
        for place, leg in enumerate(before):
            for mark in marks(leg.message):
                owners.setdefault(mark, place)
        still: list[int] = []
        for number in left:
            owner = next((owners[mark] for mark in marks(after[number].message) if mark in owners), None)
            if owner is not None and _in_time(before[owner], after[number], timed=timed):
                copies[owner].append(number)
            else:
                still.append(number)
        left = still
    return left


def _by_number(
    before: Sequence[Leg],
    after: Sequence[Leg],
    copies: list[list[int]],
    left: list[int],
    plan: DialPlan,
    answers: Answers,
    *,
    timed: bool,
    unclear: Collection[int],
) -> list[int]:
    """Give each call that no token tells the next INVITE to the same number; those that are left."""
    waiting: dict[str, deque[int]] = {}
    for number in left:
        if (called := _called(after[number].message, plan)) is not None:
            waiting.setdefault(called, deque()).append(number)
    taken: set[int] = set()
    for place, (leg, numbers) in enumerate(zip(before, copies, strict=True)):
        queue = waiting.get(_called(leg.message, plan) or "")
        if numbers or not queue or place in unclear:
            continue
        # What came before this call belongs to none of those that follow either.
        while queue and timed and _is_before(after[queue[0]], leg):
            queue.popleft()
        if queue and _in_time(leg, after[queue[0]], timed=timed) and not _is_over(leg, after[queue[0]], answers):
            numbers.append(queue[0])
            taken.add(queue.popleft())
    return [number for number in left if number not in taken]


SKEW: Final = 1.0
"""Seconds by which packets of one capture may be out of order."""


def _is_before(after: Leg, before: Leg) -> bool:
    return after.at is not None and before.at is not None and after.at < before.at - SKEW


def _is_over(before: Leg, after: Leg, answers: Answers) -> bool:
    """Whether a call was refused before; one that was accepted may well go on only then, behind a menu."""
    final = answers.get(before.message.transaction)
    if final is None or final.status < 300 or final.at is None or after.at is None:
        return False
    return final.at < after.at


def _in_time(before: Leg, after: Leg, *, timed: bool) -> bool:
    if not timed or before.at is None or after.at is None:
        return True
    return -SKEW <= after.at - before.at <= WINDOW


def _called(message: Message, plan: DialPlan) -> str | None:
    call = message.call()
    if call is None:
        return None
    try:
        party = call.request_party(plan) or call.called(plan)
    except SipSyntaxError:
        return None
    return party.digits if isinstance(party, TelephoneNumber) else str(party) if party else None


def _described(verdict: Verdict, plan: DialPlan) -> Verdict:
    """With the called number and a ladder of its INVITEs."""
    called = _called(verdict.before.message, plan) or "nobody"
    steps = [Step(verdict.before.at or 0.0, (0, 1), "INVITE", _note(verdict.before))]
    steps += [Step(leg.at or 0.0, (1, 2), "INVITE", _note(leg)) for leg in verdict.after]
    server = next((name for leg in verdict.after if (name := leg.message.first("user-agent"))), "")
    return replace(verdict, what=f"to {called[:40]}", trace=tuple(steps), server=server)


def _note(leg: Leg) -> str:
    return f"{len(leg.message.all('identity'))} Identity, {len(leg.message.raw)} bytes"
