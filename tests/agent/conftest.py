"""Fixtures for tests of the agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shaken_plugin.lab.pki import Authority
from tests.agent.host import Host


@pytest.fixture(scope="session")
def today() -> Authority:
    """An authority whose certificates are valid now: the daemon has a real clock."""
    return Authority.new(time.time())


@pytest.fixture(scope="session")
def chain(today: Authority) -> bytes:
    return today.issue(spc="709J", now=time.time()).chain


@pytest.fixture
def host(tmp_path: Path, today: Authority, chain: bytes) -> Iterator[Host]:
    made = Host(tmp_path, today.root_pem, chain)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(20)
