"""The servers that tests of a process share end with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.fleet import SERVERS


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[None]:
    yield
    SERVERS.close()
