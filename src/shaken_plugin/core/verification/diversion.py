"""Calls that were diverted: the PASSporT types ``div`` and ``div-o``, and their chains (RFC 8946).

A div PASSporT says "this call was for ``div``, I send it on to ``dest``". It goes on from any
PASSporT of the call whose ``dest`` is its ``div`` and whose ``orig`` is its own. Where they stand
among the headers does not matter, one div may go on from several PASSporTs, and a div-o carries
the one it goes on from in ``opt``. So a call is a small graph, walked twice:

    link     before the fetch, by what the PASSporTs say, to know which of them were diverted
    resolve  after it, among the valid ones, to know which of them lead to where the call goes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from shaken_plugin.core.claims import read_div, read_opt
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.core.telephone import Party
from shaken_plugin.core.verification.examination import Check, Examination, PassportType
from shaken_plugin.errors import FailureCode, VerificationFailure

MAX_NESTED: Final = 4
"""Most PASSporTs within one another in a div-o; a call diverted twice has two."""


def _no_opt(case: Examination) -> None:
    # RFC 8946 §3: a "div" PASSporT "MUST NOT contain an 'opt'".
    if "opt" in case.passport.claims:
        raise VerificationFailure(FailureCode.CLAIM_INVALID, "opt in a div, it belongs to div-o")


def _not_too_deep(case: Examination) -> None:
    if case.depth >= MAX_NESTED:
        raise VerificationFailure(FailureCode.DIV_NESTED_TOO_DEEP, f"more than {MAX_NESTED}")


DIV: Final = PassportType("div", "RFC 8946 §3", ("div",), {"div": read_div}, (Check("no_opt", _no_opt, "RFC 8946 §3"),))
DIV_O: Final = PassportType(
    "div-o",
    "RFC 8946 §5",
    ("div", "opt"),
    {"div": read_div, "opt": read_opt},
    (Check("nesting", _not_too_deep, "RFC 8946 §5"),),
)


def nested(case: Examination) -> Examination | None:
    """The PASSporT in ``opt`` as a case of its own, None where there is none to look at.

    What an Identity header says beside the token is taken from the token itself.
    """
    opt: str | None = case.read.get("opt")
    if opt is None or case.depth >= MAX_NESTED:
        return None
    inner = Examination(case.index, "", case.message, case.rules, case.now, depth=case.depth + 1)
    try:
        x5u: Any = Passport.parse(opt).header.get("x5u")
    except VerificationFailure:
        x5u = None  # its own examination says what is wrong
    inner.header = IdentityHeader(opt, x5u if isinstance(x5u, str) else None)
    return inner


def _pairs(cases: Sequence[Examination]) -> Iterator[tuple[Examination, Examination]]:
    """Each PASSporT with each div that goes on from its ``dest``, whoever the callers are."""
    for over in cases:
        if over.div is not None:
            yield from ((under, over) for under in cases if under is not over and over.div in under.dest)


def link(cases: Sequence[Examination]) -> None:
    """Mark which PASSporTs were diverted, which divs are linked, and which name another caller.

    Nobody's signature was checked yet: a mark only puts off what `resolve` decides.

    Args:
        cases: all whose claims were read.
    """
    pairs = list(_pairs(cases))
    for under, over in pairs:
        under.diverted = True
        over.linked = over.linked or under.orig == over.orig
    for _, over in pairs:
        over.orig_changed = not over.linked


def resolve(valid: Sequence[Examination]) -> Mapping[Examination, FailureCode]:
    """The PASSporTs that are valid each on its own, but not as a chain.

    Args:
        valid: those that passed every check.
    """
    if not any(case.diverted or case.div is not None for case in valid):
        return {}  # the usual call: each names whom it goes to, as was checked before
    # RFC 8946 §4.2: a changed orig makes the entire chain invalid, up and down.
    changed = {case for case in valid if case.orig_changed}
    while grown := {case for pair in _pairs(valid) if changed & {*pair} for case in pair} - changed:
        changed |= grown
    pairs = [pair for pair in _same_caller(valid) if not changed & {*pair}]
    # Each is valid in the end if it stands on a valid PASSporT that is no div …
    anchored = {case for case in valid if case.div is None}
    while grown := {over for under, over in pairs if under in anchored} - anchored:
        anchored |= grown
    # … and if its dest is where the call goes, or a valid div goes on from there. The outermost
    # must be fresh, only what was diverted may be older.
    arrived = {case for case in anchored - changed if case.dest & case.target and not case.relaxed}
    while grown := {under for under, over in pairs if over in arrived and under in anchored} - arrived:
        arrived |= grown
    return {case: _why_not(case, changed, anchored) for case in valid if case not in arrived}


def _why_not(case: Examination, changed: AbstractSet[Examination], anchored: AbstractSet[Examination]) -> FailureCode:
    if case in changed:
        return FailureCode.DIV_ORIG_CHANGED
    if case not in anchored:
        return FailureCode.DIV_NOT_LINKED
    return FailureCode.IAT_STALE if case.relaxed else FailureCode.DIV_CHAIN_BROKEN


def _same_caller(cases: Sequence[Examination]) -> list[tuple[Examination, Examination]]:
    return [(under, over) for under, over in _pairs(cases) if under.orig == over.orig]


def diversions(base: Examination, valid: Sequence[Examination]) -> tuple[Party, ...]:
    """The numbers the call was redirected from, first to last.

    Args:
        base: the PASSporT that vouches for the caller.
        valid: those that are valid as a chain, too.
    """
    pairs = _same_caller(valid)
    walked: dict[Examination, Party] = {}
    current = base
    while onward := next((over for under, over in pairs if under is current and over not in walked), None):
        assert onward.div is not None
        walked[onward] = onward.div
        current = onward
    return tuple(walked.values())


def led_to(base: Examination, valid: Sequence[Examination]) -> Party | None:
    """Whom a div chain led the call to, None where ``base`` names who is called without it.

    Args:
        base: the PASSporT that vouches for the caller.
        valid: those that are valid as a chain, too.
    """
    if base.dest & base.target:
        return None
    pairs, reached = _same_caller(valid), {base}
    while grown := {over for under, over in pairs if under in reached} - reached:
        reached |= grown
    called = base.message.called(base.rules.plan)
    is_named = any(called in case.dest for case in reached)
    return called if is_named else base.message.request_party(base.rules.plan)
