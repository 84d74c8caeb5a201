"""What became of the Identity headers of a call between two places: a pure function.

    judge(before, after, checker)          one call
    by_size(verdicts)                      what only shows beside other calls: lost because it was long

Several findings about one call are the normal case: FreeSWITCH, as it comes, both doubles and
re-encodes. Findings have a grade: `Grade.BAD` ones are what a verifier or a peer suffers from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.sip import parse_date
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.probe.findings import Checker, Finding, Grade, Kind, Leg, Verdict, Verification
from shaken_plugin.probe.headers import identity_findings, short
from shaken_plugin.probe.message import Message

MTU: Final = 1500
"""Bytes of an IP packet on Ethernet."""

UDP_OVERHEAD: Final = 28
"""Bytes of the IPv4 and UDP headers."""


def judge(
    name: str,
    before: Leg,
    after: Sequence[Leg],
    checker: Checker,
    plan: DialPlan,
    *,
    status: int | None = None,
    within_dialog: bool = False,
    missing: Finding | None = None,
) -> Verdict:
    """Compare a call before a PBX with its copies behind it.

    Args:
        name: of the call.
        before: the request as it was sent.
        after: its copies behind the PBX, in the order of their coming.
        checker: verifies a message.
        plan: how numbers are dialled, to know whether two name the same.
        status: the final answer that the caller got.
        within_dialog: the request is part of a call, so that its numbers say nothing.
        missing: what to say where no copy arrived; None for what the answer tells.
    """
    if not after:
        return Verdict(name, before, (), (missing or _missing(status),), status=status)
    findings = list(_call_findings(before, after))
    for leg in after:
        for finding in _leg_findings(before, leg, checker, plan, within_dialog=within_dialog):
            if finding not in findings:
                findings.append(finding)
    if all(finding.kind.grade is Grade.NOTE for finding in findings):
        count = len(before.message.all("identity"))
        text = f"{count} of {count}, every token byte for byte" if count else "the call came through"
        findings.insert(0, Finding(Kind.INTACT, text))
    verification = _verified(after[0], checker) if before.message.all("identity") and not within_dialog else None
    return Verdict(name, before, tuple(after), tuple(findings), verification, status=status)


def by_size(verdicts: Sequence[Verdict], *, watched: bool = False) -> list[Verdict]:
    """Lost calls that were longer than every one that came through: their size is the likely reason.

    Args:
        verdicts: of one PBX.
        watched: calls of others. They get lost for many reasons, so that only an unanswered one that took
            several IP packets counts; canaries differ in nothing else.
    """
    longest = max((len(verdict.before.message.raw) for verdict in verdicts if verdict.after), default=0)
    return [
        replace(one, findings=(_size(one, longest),)) if _by_size(one, longest, watched) else one for one in verdicts
    ]


_MAYBE_SIZE: Final = frozenset({408, 480, 503, 504})
"""What a PBX answers that got the call and whose own, longer one gets lost on the next hop."""


def _by_size(verdict: Verdict, longest: int, watched: bool) -> bool:
    size, status = len(verdict.before.message.raw), verdict.status
    if verdict.after:
        return False
    if status == 513:
        return True
    if not 0 < longest < size:
        return False
    if watched:
        return status is None and fragments(size) > 1
    return Kind.LOST_CALL in verdict.kinds or (status in _MAYBE_SIZE and fragments(size) > 1)


def _size(verdict: Verdict, longest: int) -> Finding:
    text = (
        f"{len(verdict.before.message.raw)} bytes over {verdict.before.transport or 'this path'} did not come through"
    )
    text += f", {longest} did" if longest else ""
    if verdict.status == 513:
        text += "; answered with 513 Message Too Large"
    elif verdict.status is not None:
        text = f"probably: {text}; answered with {verdict.status}"
    return Finding(Kind.LOST_BY_SIZE, text)


def fragments(size: int, mtu: int = MTU) -> int:
    """IP packets that a UDP datagram of so many bytes takes, headers of IPv4 without options."""
    if size + UDP_OVERHEAD <= mtu:
        return 1
    payload = (mtu - 20) // 8 * 8
    return -(-(size + 8) // payload)


def _missing(status: int | None) -> Finding:
    if status is not None and status >= 300:
        return Finding(Kind.REFUSED, f"answered with {status}; nothing arrived")
    if status is not None:
        return Finding(Kind.LOST_CALL, f"answered with {status}, yet nothing arrived at the listener")
    return Finding(Kind.LOST_CALL, "neither an answer, nor did anything arrive")


def _call_findings(before: Leg, after: Sequence[Leg]) -> Iterator[Finding]:
    if len(after) > 1:
        yield Finding(Kind.CALLED_TWICE, f"{len(after)} INVITEs arrived, retransmissions not counted")
    for leg, where in ((before, "towards the PBX"), *((leg, "from the PBX") for leg in after)):
        if leg.fragments > 1:
            text = f"{len(leg.message.raw)} bytes {where} took {leg.fragments} IP packets; one lost loses the call"
            yield Finding(Kind.FRAGMENTED, text)


def _leg_findings(before: Leg, leg: Leg, checker: Checker, plan: DialPlan, *, within_dialog: bool) -> Iterator[Finding]:
    yield from identity_findings(before.message.all("identity"), leg.message.all("identity"))
    yield from _date(before.message, leg.message)
    if not within_dialog:
        yield from _numbers(before, leg, checker, plan)


# --- Date and numbers -------------------------------------------------------------------------


def _date(sent: Message, received: Message) -> Iterator[Finding]:
    was, became = sent.values("date"), received.values("date")
    if was == became:
        return
    if not was:
        yield Finding(Kind.DATE_ADDED, f"Date: {short(', '.join(became), 60)}")
        return
    diff = (*(f"- Date: {value}" for value in was), *(f"+ Date: {short(value)}" for value in became))
    if not became:
        # RFC 8224 §4.1: without Date a PASSporT in compact form cannot be rebuilt.
        yield Finding(Kind.DATE_CHANGED, "the Date header did not arrive", 0, diff)
        return
    try:
        moved = parse_date(became[0]) - parse_date(was[0])
        text = f"moved by {moved:+d} s" if moved else "same time, other spelling"
    except SipSyntaxError:
        text = "what arrived is no date"
    yield Finding(Kind.DATE_CHANGED, f"{text}, {len(became)} times" if len(became) > 1 else text, 0, diff)


def _numbers(before: Leg, leg: Leg, checker: Checker, plan: DialPlan) -> Iterator[Finding]:
    """Whether what was signed still fits the numbers, whatever became of the header itself."""
    sent, received = before.message.call(), leg.message.call()
    if sent is None or received is None or not sent.identity:
        return
    if not _holds(checker, sent, before.at):
        return  # it never did
    carried = replace(received, identity=sent.identity, date=sent.date, sdp=sent.sdp)
    now = _holds(checker, carried, leg.at if leg.at is not None else before.at)
    if now:
        return
    diff = []
    for what, was, became in _named(sent, received, plan):
        if was != became:
            diff += [f"- {what} {was}", f"+ {what} {became}"]
    if diff:
        why = checker(carried, leg.at if leg.at is not None else before.at)
        yield Finding(Kind.NUMBER_REWRITTEN, f"the signature is about other numbers: {why.code}", 0, tuple(diff))


def _holds(checker: Checker, message: CallMessage, at: float | None) -> bool:
    return checker(message, at).holds


def _named(sent: CallMessage, received: CallMessage, plan: DialPlan) -> Iterator[tuple[str, str, str]]:
    def callers(message: CallMessage) -> str:
        found = list(message.callers_in(CallerHeader.ASSERTED, plan)) or list(
            message.callers_in(CallerHeader.FROM, plan)
        )
        return ", ".join(short(str(one.party), 60) for one in found) or "nobody"

    yield "caller", callers(sent), callers(received)
    yield "To", short(str(sent.called(plan)), 60), short(str(received.called(plan)), 60)
    yield "Request-URI", short(str(sent.request_party(plan)), 60), short(str(received.request_party(plan)), 60)


def _verified(leg: Leg, checker: Checker) -> Verification | None:
    message = leg.message.call()
    return None if message is None else checker(message, leg.at)
