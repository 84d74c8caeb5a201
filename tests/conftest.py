"""Fixtures that several layers of tests share."""

from __future__ import annotations

import pytest

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.lab.pki import Authority

NOW = 1_795_000_000.0
"""2026-11-18 11:06:40 UTC, the moment at which tests play unless they say otherwise."""


@pytest.fixture(scope="session")
def now() -> float:
    return NOW


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.new(NOW)


@pytest.fixture(scope="session")
def us() -> DialPlan:
    return dial_plan("US")
