"""One run: everything started, calls placed, everything ended, and all that was seen put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.load import callers, mix
from bench.load.events import Director
from bench.load.hosts import Hosts
from bench.load.observed import Observation, rows
from bench.load.watch import Watch
from shaken_plugin.agent.ledger import TOGETHER

SAMPLES: Final = 300
"""Looks at memory in a run, at most one a second."""

COLLECTED_WITHIN: Final = 30.0
"""Seconds until the agents have moved the last records into the ledgers."""

PATIENCE: Final = 60.0
"""Seconds that calls may go on after the last was placed."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is played."""

    seconds: float
    rate: int
    embedded: bool = False
    kemi: bool = False


def run(options: Options, folder: Path, say: Callable[[str], object], tick: Callable[[float], object]) -> Observation:
    """Play it.

    Args:
        options: what.
        folder: for all files; its path is short, since sockets lie there.
        say: told what is done.
        tick: told now and then how many seconds of calls have passed.

    Raises:
        BenchError, LabError: something does not start, or a command is refused.
    """
    bounds = mix.Bounds.of(options.rate)
    with ExitStack() as stack:
        say("starting")
        called = stack.enter_context(callers.Called(folder / "called"))
        hosts = Hosts(folder, stack, bounds, embedded=options.embedded).start(called.uri, kemi=options.kemi)
        director = Director(hosts, folder / "transit", say)
        port, calls = hosts.origin.switch.inside_port, round(options.rate * options.seconds)
        director.prime()
        begin = time.time()
        every = max(1.0, options.seconds / SAMPLES)
        placing = stack.enter_context(callers.Callers(folder / "callers", port, options.rate, calls))
        with Watch(hosts.processes(), hosts.agents, hosts.pools(), every, lambda: tick(time.time() - begin)) as watch:
            director.run(begin, options.seconds)
            say("waiting for the last calls")
            counts = placing.wait(PATIENCE)
            end = time.time()
        kinds = callers.kinds(placing.logged)
        found = Observation(
            begin,
            end,
            callers.placed(placing.messages, kinds.__getitem__) | director.arriving,
            director.in_force,
            director.keys,
            bounds,
            calls,
            shared=not options.embedded,
            events=director.events,
            absences=director.absences,
            memory=watch.found,
            pools=watch.pools,
            gone=watch.gone,
            failed=counts.failed,
            errors=placing.errors.read_text("utf-8", "replace") if placing.errors.exists() else "",
        )
        found.strangers += [("called side", call_id) for call_id in callers.arrived(called.logged, found.calls)]
        say("waiting for the last records")
        _collect(hosts, found)
    return found


def _collect(hosts: Hosts, found: Observation) -> None:
    """Read what the hosts have recorded and counted, once they are done with it."""
    for host in hosts:
        seen, deadline = -1, time.monotonic() + COLLECTED_WITHIN
        while (now := rows(host.ledger)) != seen and time.monotonic() < deadline:
            seen = now
            time.sleep(TOGETHER + 1.0)
        found.count(host.name, host.ledger)
        found.counters[host.name] = host.switch.counters()
    deadline = time.monotonic() + COLLECTED_WITHIN
    while (held := sum(host.held() for host in hosts)) and time.monotonic() < deadline:
        time.sleep(0.5)
    found.held = held
