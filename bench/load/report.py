"""What people and programs read of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from bench.load import growth
from bench.load.judge import CHECKS, Verdict
from bench.load.observed import Call, Observation
from bench.load.run import Options

FORM: Final = 2
"""Of the JSON; another number where a reader of the old one would be wrong."""

BUCKETS: Final = 300
"""Points of a line in a picture at most, none shorter than a second."""

PERCENTILES: Final = (50, 95, 99)


class Bucket(NamedTuple):
    """Calls that were placed in some seconds. Latencies in milliseconds, until ringing or refusal."""

    at: float
    placed: float
    answered: float
    refused: float
    latency: dict[str, float]


def buckets(run: Observation) -> list[Bucket]:
    """The run cut into equal parts; calls a second in each."""
    width = max(1.0, (run.end - run.begin) / BUCKETS)
    parts: dict[int, list[Call]] = {}
    for call in run.calls.values():
        if call.sent < run.begin:
            continue  # of a signer nobody knew
        parts.setdefault(int((call.sent - run.begin) / width), []).append(call)
    return [
        Bucket(
            number * width,
            len(part) / width,
            sum(call.status == 200 for call in part) / width,
            sum(call.status not in {200, None} for call in part) / width,
            latency(part),
        )
        for number, part in sorted(parts.items())
    ]


def latency(calls: list[Call]) -> dict[str, float]:
    """Percentiles and the longest of how long callers waited for ringing or a refusal, in milliseconds."""
    found = sorted((call.rang - call.sent) * 1e3 for call in calls if call.rang is not None)
    if not found:
        return {}
    named = {f"p{one}": found[min(len(found) - 1, len(found) * one // 100)] for one in PERCENTILES}
    return named | {"max": found[-1]}


def text(run: Observation, verdict: Verdict, options: Options, machine: Mapping[str, str]) -> str:
    """A summary, check by check."""
    where = "a policy of each host's own" if options.embedded else "a policy in one Redis"
    lines = [
        f"{options.rate} calls a second for {options.seconds:.0f} s, {'KEMI' if options.kemi else 'native'}, {where}",
        "",
        *(f"  {_sign(verdict, name)}  {name}" for name in CHECKS),
        "",
        *(f"NOT TRUE: {one.check}: {one.sentence}" for one in verdict.findings),
        *([""] if verdict.findings else []),
        *(f"{name}: {fact}" for name, fact in verdict.facts.items()),
    ]
    waited = latency([call for call in run.calls.values() if call.sent >= run.begin])
    lines.append("until ringing or refusal: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in waited.items()))
    done: dict[str, int] = {}
    for event in run.events:
        done[event.what] = done.get(event.what, 0) + 1
    lines += ["", "meanwhile: " + ", ".join(f"{what} ({count})" for what, count in done.items()), "", *_memory(run), ""]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in machine.items()), ""])


def _sign(verdict: Verdict, name: str) -> str:
    return "NO " if any(one.check == name for one in verdict.findings) else "yes"


def _memory(run: Observation) -> list[str]:
    """All shared pools, and the processes that grew most after their warm-up."""
    found = [*growth.pools(run), *sorted(growth.processes(run), key=lambda one: -one.grown)[:8]]
    rows = [
        f"  {one.name:<36} {one.level / 2**20:7.1f} MiB {one.grown / 2**10:+9.0f} KiB in {one.seconds:.0f} s"
        for one in found
    ]
    return ["memory after the warm-up: in use of shared pools, and of processes' own, what grew most:", *rows]


def to_json(
    run: Observation, verdict: Verdict, options: Options, machine: Mapping[str, str], *, made: str
) -> dict[str, Any]:
    """The same as plain values, times in seconds since the beginning.

    Args:
        run: all that was seen.
        verdict: what was found.
        options: what was played.
        machine: see `bench.machine.describe`.
        made: when, ISO 8601.
    """
    begin = run.begin
    return {
        "form": FORM,
        "made": made,
        "options": asdict(options),
        "machine": dict(machine),
        "good": verdict.good,
        "checks": {name: not any(one.check == name for one in verdict.findings) for name in CHECKS},
        "findings": [one._asdict() for one in verdict.findings],
        "facts": verdict.facts,
        "latency_ms": latency([call for call in run.calls.values() if call.sent >= run.begin]),
        "calls": [one._asdict() for one in buckets(run)],
        "events": [one._asdict() | {"begin": one.begin - begin, "end": one.end - begin} for one in run.events],
        "growth": [one._asdict() | {"bound": one.bound} for one in growth.processes(run) + growth.pools(run)],
        "memory": [
            {"process": name, "pid": pid, "samples": [(one.at - begin, one.octets, one.touched) for one in samples]}
            for (name, pid), samples in run.memory.items()
        ],
        "pools": [
            {"pool": name, "samples": [(one.at - begin, one.octets) for one in samples]}
            for name, samples in run.pools.items()
        ],
        "counters": run.counters,
    }
