"""Redis cut off for longer than a copy decides calls: they go on in the declared mode, and each has one record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shaken_plugin.lab import sipp
from shaken_plugin.stores.freshness import mark_of
from tests.agent.proxy import Proxy
from tests.e2e.conftest import Network
from tests.e2e.edge import MAX_AGE, Edge
from tests.e2e.outage.riding import alarmed, recovered

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def either(shared: Network) -> Path:
    """A scenario of calls that are answered, or refused because of us."""
    text = sipp.scenario("uac_call").read_text("utf-8")
    end = sipp.scenario("uac_refused").read_text("utf-8").partition('<label id="1"/>')[2].removesuffix("</scenario>\n")
    answered = '<recv response="200" rtd="1" rrs="true"/>'
    assert answered in text
    text = text.replace(answered, f'<recv response="500" optional="true" next="1"/>{answered}')
    last = '<recv response="200"/>\n</scenario>'
    assert last in text
    over = f'<recv response="200" next="2"/><label id="1"/>{end}<label id="2"/></scenario>'
    file = shared.folder / "either.xml"
    file.write_text(text.replace(last, over))
    return file


@pytest.fixture
def stale(edge: Edge) -> Iterator[Callable[[str], None]]:
    """Sets a mode for the test."""
    yield edge.decide_when_stale
    edge.decide_when_stale("last_known")


@pytest.mark.parametrize(
    ("mode", "status", "signed"), [("last_known", 200, True), ("unsigned", 200, False), ("refuse", 500, False)]
)
def test_the_copy_becomes_older_than_allowed(
    edge: Edge, wire: Proxy, either: Path, stale: Callable[[str], None], mode: str, status: int, signed: bool
) -> None:
    stale(mode)
    load, before = edge.calls(either), edge.level
    load.run(0.75)
    wire.cut()
    alarmed(edge, "copy_stale")
    load.run(0.5)
    too_old = mark_of(edge.folder / "policy.db").stat().st_mtime + MAX_AGE
    end = time.time()
    wire.mend()
    _, seen = recovered(edge, load)
    calls = load.end()
    outcome = {(call.status, call.carries) for call in calls if call.sent < too_old - 0.1}
    assert outcome == {(200, before)}
    outcome = {(call.status, call.carries) for call in calls if too_old + 0.1 < call.sent < end}
    assert outcome == {(status, before if signed else None)}
    assert {(call.status, call.carries) for call in calls if call.sent > seen} <= {(200, edge.level)}
    assert "this host's copy of its fleet's policy is too old" in edge.signer.log_text()
