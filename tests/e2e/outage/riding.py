"""Calls before, while and after something is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shaken_plugin.errors import StoreError, StoreUnavailable
from tests.agent.host import until
from tests.e2e.edge import Delays, Edge, Load

NOTICED = 0.5
"""Seconds in which every worker has met the trouble once, at the rate of the load."""


def ride(
    edge: Edge,
    hurt: Callable[[], object],
    meanwhile: Callable[[], object],
    heal: Callable[[], object],
    *,
    known: bool = False,
) -> Delays:
    """Calls before, while something is wrong, and after it; then a change of the policy decides again."""
    load, before = edge.calls(known=known), edge.level
    load.run(1.0)
    begin = time.time()
    hurt()
    noticed = time.time() + NOTICED
    meanwhile()
    load.run(max(0.0, noticed + 0.75 - time.time()))
    end = time.time()
    heal()
    changed, seen = recovered(edge, load)
    calls = load.end()
    assert {call.carries for call in calls if call.sent < changed} == {before}
    assert {call.carries for call in calls if call.sent > seen} <= {edge.level}
    return Delays.of(calls, begin, noticed, end)


def recovered(edge: Edge, load: Load) -> tuple[float, float]:
    """All is well by itself, and a change decides calls: when it was made, and when it was first seen to."""
    until(lambda: not edge.alarms())
    changed = time.time()
    edge.change()
    until(lambda: load.latest() == edge.level)
    return changed, time.time()


def refused(edge: Edge, text: str) -> None:
    """No change can be made now, and it is said why."""
    level = edge.level
    with pytest.raises((StoreUnavailable, StoreError), match=text):
        edge.change()
    assert edge.level == level


def alarmed(edge: Edge, name: str) -> None:
    until(lambda: name in edge.alarms())


def sqlite_files(edge: Edge) -> list[Path]:
    """Those of the host."""
    files = [file for file in edge.folder.iterdir() if file.suffix in {".db", ".sqlite"}]
    assert {"policy.db", "state.db", "ledger.db", "agent.slots.sqlite"} <= {file.name for file in files}
    return files
