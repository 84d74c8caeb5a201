"""Signed priority: the PASSporT type ``rph`` with its claims ``rph`` and ``sph`` (RFC 8443, RFC 9027).

It says that somebody with authority granted the Resource-Priority of the call, and nothing of
the caller's number: it neither passes nor fails the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from shaken_plugin.core.claims import read_rph
from shaken_plugin.core.sip import split_list
from shaken_plugin.core.verification.examination import Check, Examination, PassportType
from shaken_plugin.core.verification.verdict import IdentityResult, ResourcePriority
from shaken_plugin.errors import FailureCode, VerificationFailure

PSAP_CALLBACK: Final = "psap-callback"


def _resource_priority(case: Examination) -> None:
    # RFC 8443 §4.2: the Resource-Priority header is compared with the claim. A value beyond what
    # was signed would be priority that nobody granted.
    asked = priorities(case.message.resource_priority)
    if not asked or not asked <= set(case.read["rph"]):
        raise VerificationFailure(FailureCode.RPH_MISMATCH, ", ".join(sorted(asked)) or "no Resource-Priority")


def _sph(case: Examination) -> None:
    if "sph" not in case.passport.claims:
        return
    # RFC 9027 §4: "psap-callback" is the only value, and it needs an rph of the namespace esnet.
    if case.passport.claims["sph"] != PSAP_CALLBACK:
        raise VerificationFailure(FailureCode.SPH_INVALID, "another value")
    if not any(value.startswith("esnet.") for value in case.read["rph"]):
        raise VerificationFailure(FailureCode.SPH_INVALID, "no esnet in rph")
    if case.message.priority.strip().lower() != PSAP_CALLBACK:
        raise VerificationFailure(FailureCode.SPH_MISMATCH)
    case.read["sph"] = PSAP_CALLBACK


RPH: Final = PassportType(
    "rph",
    "RFC 8443",
    ("rph",),
    {"rph": read_rph},
    (
        Check("resource_priority", _resource_priority, "RFC 8443 §4.2"),
        Check("sip_priority", _sph, "RFC 9027 §4"),
    ),
)


def priorities(lines: Iterable[str]) -> frozenset[str]:
    """The values of Resource-Priority header lines in lower case (RFC 4412 §3.1)."""
    return frozenset(value.lower() for line in lines for value in split_list(line))


def resource_priority(cases: Sequence[Examination], results: Sequence[IdentityResult]) -> ResourcePriority | None:
    """What the ``rph`` PASSporTs of a call come to: the first valid one, else the first failure."""
    found: ResourcePriority | None = None
    for case, result in zip(cases, results, strict=True):
        if result.ppt != RPH.ppt or result.ignored:
            continue
        if result.passed:
            return ResourcePriority(None, case.read["rph"], case.read.get("sph"))
        found = found or ResourcePriority(result.failure)
    return found
