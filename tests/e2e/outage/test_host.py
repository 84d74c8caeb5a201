"""The agent or a file gone under load: no call is lost or late, none unsigned, and each has one record."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from shaken_plugin.lab.demo import events
from tests.agent.proxy import Proxy
from tests.e2e.edge import Edge, attest, undisturbed
from tests.e2e.outage.riding import NOTICED, alarmed, ride, sqlite_files
from tests.stores.locking import recovering

pytestmark = pytest.mark.alone


def test_the_agent_is_killed_and_comes_back_before_redis_does(edge: Edge, wire: Proxy) -> None:
    def kill() -> None:
        edge.agent.kill()
        wire.cut()

    def meanwhile() -> None:
        time.sleep(NOTICED)
        edge.start_agent()
        alarmed(edge, "breaker_open")

    undisturbed(lambda: ride(edge, kill, meanwhile, wire.mend))
    assert "calls of customers with limits are not counted: the agent on" in edge.signer.log_text()


def test_the_agent_hangs(edge: Edge) -> None:
    def send(number: int) -> None:
        os.kill(edge.agent.pid, number)

    undisturbed(lambda: ride(edge, lambda: send(signal.SIGSTOP), lambda: None, lambda: send(signal.SIGCONT)))


@contextmanager
def locked(files: list[Path]) -> Iterator[None]:
    """Another program writes to all these SQLite files and does not end: they can be read, and not written to."""
    with ExitStack() as stack:
        for file in files:
            connection = stack.enter_context(closing(sqlite3.connect(file, timeout=5, isolation_level=None)))
            connection.execute("BEGIN EXCLUSIVE")
        yield


def test_the_local_files_cannot_be_written_to(edge: Edge) -> None:
    def lock() -> None:
        stack.enter_context(locked(sqlite_files(edge)))

    with ExitStack() as stack:
        undisturbed(lambda: ride(edge, lock, lambda: time.sleep(1.0), stack.close))


def test_the_local_files_can_be_neither_read_nor_written_to(edge: Edge) -> None:
    """What is known of the caller decides; of another one nothing is."""

    def lock() -> None:
        stack.enter_context(recovering(*sqlite_files(edge)))

    def meanwhile() -> None:
        time.sleep(1.0)
        another = "+12155551299"  # of the customer, and of no load
        run = edge.network.call("uac_call", edge.signer.inside_port, keys={"from": another, "pai_user": another})
        call_id = run.messages[0].header("Call-ID")
        assert [attest(invite) for invite in edge.called.invites() if invite.header("Call-ID") == call_id] == [None]
        assert "locked" in str([*events(edge.signer.log_text(), call_id[0])])

    with ExitStack() as stack:
        undisturbed(lambda: ride(edge, lock, meanwhile, stack.close, known=True))
