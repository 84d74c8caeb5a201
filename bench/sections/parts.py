"""What signing and verifying are made of: where the time of *core* goes, and why what is missed there is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

from bench import stage
from bench.clocks import TOGETHER, Clocked, Parts
from bench.processes import one_core
from bench.results import BenchError, Report, Series
from bench.sections import Options, Section
from bench.sections.core import SIGNING, WARM, CompleteSigning, CompleteVerifying
from bench.workers import Measure, Worker, interleave
from shaken_plugin.lab.pki import Authority

REST: Final = "what holds the parts together"
WITHOUT: Final = "all of it, without a clock"

_RECORD, _SPOOL = "call record", "fstat and write of the call record"

OF_SIGNING: Final[Parts] = {
    REST: ["bench.stage:SwitchSide.sign"],
    "message as an object": ["shaken_plugin.core.call:CallMessage.__init__"],
    "foreign verstat looked for": ["shaken_plugin.switch.signing:is_unmarked"],
    "called party": ["shaken_plugin.core.call:CallMessage.target"],
    "decision, remembered and still right": ["shaken_plugin.authentication.service:AuthenticationService.usual"],
    "whether there are limits": ["shaken_plugin.authentication.service:AuthenticationService.ask"],
    "claims, PASSporT, header": ["shaken_plugin.authentication.service:AuthenticationService.sealed"],
    "signature, its nonce by RFC 6979": ["shaken_plugin.certs.credentials:LocalSigner.sign"],
    "log line and counters": [
        "shaken_plugin.switch.usual:Told.log_line",
        "shaken_plugin.switch.reports:Reporter.usual_signing",
    ],
    "variables, headers to add": ["shaken_plugin.switch.usual:Told.outcome", "bench.stage:attach"],
    _RECORD: ["shaken_plugin.switch.usual:Told.filled", "shaken_plugin.switch.faults:Guard._keep"],
    _SPOOL: ["shaken_plugin.records.spool:SpoolWriter._has_put"],
}

OF_VERIFYING: Final[Parts] = {
    REST: ["bench.stage:SwitchSide.verify"],
    "message as an object": ["shaken_plugin.core.call:CallMessage.__init__"],
    "called party": ["shaken_plugin.core.call:CallMessage.target"],
    "header, claims, freshness, parties": ["shaken_plugin.verification:usual"],
    "signature and its hash": ["shaken_plugin.core.verification.usual:Usual.holds"],
    "replay memory: name of the PASSporT": ["shaken_plugin.verification:VerificationService._first_use"],
    "replay memory: lock, look, write, unlock": ["shaken_plugin.stores.replay:ReplayFile.first_use"],
    "verdict as objects": ["shaken_plugin.core.verification.usual:Usual.judged"],
    "P-Asserted-Identity with verstat": ["shaken_plugin.switch.verifying:VerifyingGuard._mark"],
    "log line and counters": ["shaken_plugin.switch.reports:Reporter.verification"],
    "variables": ["shaken_plugin.switch.verifying:verdict_variables", "shaken_plugin.switch.verifying:reasons"],
    _RECORD: ["shaken_plugin.switch.faults:Guard._record"],
    _SPOOL: ["shaken_plugin.records.spool:SpoolWriter._has_put"],
}


def run(options: Options) -> Report:
    """See `Section`."""
    report = Report("parts", TITLE)
    rounds, seconds = (4, 0.1) if options.quick else (15, 0.3)
    origin, target = stage.sides(options.folder, Authority.new(time.time()))
    wanted: list[tuple[str, Any, Parts, tuple[Any, ...]]] = [
        (SIGNING, CompleteSigning, OF_SIGNING, (origin.settings,)),
        (WARM, CompleteVerifying, OF_VERIFYING, (target.settings, origin.settings)),
    ]
    with ExitStack() as stack:
        stack.enter_context(one_core())
        subjects: list[Measure[str]] = []
        for name, make, parts, arguments in wanted:
            subjects += [
                _clocked(name, stack.enter_context(Worker(Clocked, make, parts, b"", *arguments)), seconds),
                _whole(name, stack.enter_context(Worker(make, b"", *arguments)), seconds),
            ]
        advance = options.begin("parts", len(subjects) * (rounds + 1))
        found = interleave(subjects, rounds, advance)
    for name, _, parts, _ in wanted:
        for part in (*[each for each in parts if each != REST], REST, TOGETHER, WITHOUT):
            values = found[f"{name}: {part}"]
            report.series.append(Series(f"{name}: {part}", "µs of a call", tuple(value * 1e6 for value in values)))
    report.notes.append(
        "each row is a median of its own, so that they do not add up exactly; a clock costs some 0.2 µs"
    )
    return report


def _clocked(name: str, worker: Worker, seconds: float) -> Measure[str]:
    def once() -> Mapping[str, float]:
        told = worker.told(seconds)
        if missing := [part for part, took in told.items() if not took]:
            raise BenchError(
                f"{name} did not come to {', '.join(missing)}: bench/sections/parts.py names old functions"
            )
        return {f"{name}: {part}": took for part, took in told.items()}

    return once


def _whole(name: str, worker: Worker, seconds: float) -> Measure[str]:
    return lambda: {f"{name}: {WITHOUT}": worker.cost(seconds)}


TITLE: Final = "What signing and verifying are made of: a clock around each part"
SECTION: Final = Section("parts", TITLE, run, has_ratios=False)
