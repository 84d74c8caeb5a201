"""Verifying the Identity headers of a call (RFC 8224 §6.2), as a table of named checks.

Two pure halves around one fetch:

    begin(message, rules, now)              -> Verdict, or Pending with the URLs it needs
    finish(pending, certificates, now)      -> Verdict

Every PASSporT is examined on its own, those nested in a div-o too. The first check that fails
ends its examination with a `FailureCode`. What they say together is seen twice: before the fetch
by what they say (`diversion.link`), after it by which of them are valid (`diversion.resolve`).

Read `checks` (the table), then `types` and what it imports: `diversion`, `priority`,
`richcalldata` add the rows and results of one kind of PASSporT each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.certificates import TrustedPath
from shaken_plugin.core.verification.checks import AFTER_FETCH, BEFORE_FETCH, JUDGING, READING
from shaken_plugin.core.verification.diversion import diversions, led_to, link, nested, resolve
from shaken_plugin.core.verification.examination import Check, Examination, run
from shaken_plugin.core.verification.priority import resource_priority
from shaken_plugin.core.verification.richcalldata import rich_call_data
from shaken_plugin.core.verification.types import PASSPORT_TYPES, vouching
from shaken_plugin.core.verification.verdict import (
    Alarm,
    IdentityResult,
    Profile,
    ReplayMode,
    ResourcePriority,
    Result,
    RichCallData,
    Shown,
    Verdict,
    VerificationRules,
    VerstatProfile,
    overall,
)
from shaken_plugin.errors import FailureCode, VerificationFailure

__all__ = [
    "AFTER_FETCH",
    "BEFORE_FETCH",
    "MAX_IDENTITIES",
    "MAX_URLS",
    "PASSPORT_TYPES",
    "Alarm",
    "Check",
    "IdentityResult",
    "Pending",
    "Profile",
    "ReplayMode",
    "ResourcePriority",
    "Result",
    "RichCallData",
    "Shown",
    "Verdict",
    "VerificationRules",
    "VerstatProfile",
    "begin",
    "finish",
]

MAX_IDENTITIES: Final = 10
"""Most Identity headers of one call that are examined; a call diverted twice has three or four."""

MAX_URLS: Final = 8
"""Most certificates that are looked up for one call: each costs us a path, and a stranger a request."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A verification that needs certificates. ``urls`` are the x5u to look up, each once.

    ``cases`` are all PASSporTs in order, ``ended`` the results of those that failed already.
    """

    message: CallMessage
    rules: VerificationRules
    cases: tuple[Examination, ...]
    ended: Mapping[Examination, IdentityResult]

    @property
    def urls(self) -> tuple[str, ...]:
        """The certificate URLs, in the order of the headers."""
        still_open = (case for case in self.cases if case not in self.ended)
        return tuple(dict.fromkeys(case.header.info for case in still_open if case.header.info))


def begin(message: CallMessage, rules: VerificationRules, now: float) -> Verdict | Pending:
    """First half: everything that can be known without a certificate.

    Returns:
        The verdict, where no PASSporT is left to verify; otherwise what the second half needs.
    """
    if not message.identity:
        return Verdict(Result.NONE, FailureCode.NO_IDENTITY)
    ended: dict[Examination, IdentityResult] = {}
    cases: list[Examination] = []
    for index, value in enumerate(message.identity[:MAX_IDENTITIES]):
        case: Examination | None = Examination(index, value, message, rules, now)
        while case is not None:
            cases.append(case)
            skip = 1 if case.depth else 0  # a nested PASSporT has no header whose grammar could be wrong
            if result := run(case, READING[skip:], skip):
                ended[case] = result
                break
            case = nested(case)
    link([case for case in cases if case not in ended])
    for case in cases:
        if case not in ended and (result := run(case, (*JUDGING, *case.type.checks), len(READING))):
            ended[case] = result
    _limit(cases, ended)
    pending = Pending(message, rules, tuple(cases), ended)
    return pending if len(ended) < len(cases) else finish(pending, {}, now)


def _limit(cases: Sequence[Examination], ended: dict[Examination, IdentityResult]) -> None:
    """End those whose certificate would be one too many."""
    urls: set[str | None] = set()
    for case in cases:
        if case in ended or case.header.info in urls:
            continue
        if len(urls) < MAX_URLS:
            urls.add(case.header.info)
        else:
            code, held = FailureCode.INFO_TOO_MANY, len(BEFORE_FETCH)
            ended[case] = case.outcome(code, f"more than {MAX_URLS}", held=held)


def finish(pending: Pending, certificates: Mapping[str, TrustedPath | VerificationFailure], now: float) -> Verdict:
    """Second half: the checks that need the certificates, and the overall verdict.

    Args:
        pending: from `begin`.
        certificates: for each URL of ``pending.urls`` the validated path, or why there is none.
        now: POSIX seconds.
    """
    cases, ended = pending.cases, dict(pending.ended)
    valid: list[Examination] = []
    unknown: list[Examination] = []
    for case in cases:
        if case in ended:
            continue
        assert case.header.info is not None
        held = len(BEFORE_FETCH)
        case.now, case.path = now, None
        found = certificates.get(case.header.info) or VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE)
        if isinstance(found, VerificationFailure):
            # Nothing is known against a PASSporT that we cannot judge: it neither passes nor fails.
            if found.code.is_ours:
                unknown.append(case)
            ended[case] = case.outcome(found.code, found.detail, held=held, ignored=found.code.is_ours)
            continue
        case.path = found
        if result := run(case, AFTER_FETCH, held):
            ended[case] = result
        else:
            valid.append(case)
            ended[case] = case.outcome(held=held + len(AFTER_FETCH))
    broken = resolve(valid)
    hopeless = resolve([*valid, *unknown]) if unknown else broken
    for case, failure in broken.items():
        if case in hopeless:
            ended[case] = replace(ended[case], failure=failure)
        else:
            ended[case] = replace(ended[case], failure=FailureCode.CERTIFICATE_NOT_YET, ignored=True)
    return _verdict(pending, [ended[case] for case in cases])


def _verdict(pending: Pending, results: list[IdentityResult]) -> Verdict:
    cases = pending.cases
    speakers = vouching(pending.rules.profile)
    verdict = overall(results, speakers)
    is_passed = verdict.result is Result.PASSED
    if is_passed:
        base = next(case for case, result in zip(cases, results, strict=True) if result is verdict.decisive)
        if base.diverted:
            passed = [case for case, result in zip(cases, results, strict=True) if result.passed]
            verdict.diversions, verdict.led_to = diversions(base, passed), led_to(base, passed)
    verdict.rich = rich_call_data(cases, results, pending.message, speakers, passed=is_passed)
    verdict.priority = resource_priority(cases, results)
    return verdict
