"""A million numbers from CSV into a fleet's policy in a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores.redis.conftest import NewHost, host, server
from tests.stores.redis.test_import import check_import

__all__ = ["host", "server"]


@pytest.mark.large
@pytest.mark.timeout(600)
def test_a_million_numbers_are_imported_in_a_minute(host: NewHost, tmp_path: Path) -> None:
    check_import(host, tmp_path, 1_000_000)
