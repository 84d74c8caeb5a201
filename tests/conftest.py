"""Fixtures that several layers of tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from itertools import zip_longest

import pytest
from hypothesis import settings

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.lab.pki import Authority

settings.register_profile("patient", deadline=None)  # slow machines are no failure
settings.load_profile("patient")

NOW = 1_795_000_000.0
"""2026-11-18 11:06:40 UTC, the moment at which tests play unless they say otherwise."""


def pytest_xdist_auto_num_workers() -> int:
    """One more than cores, since so much is waited for."""
    return len(os.sched_getaffinity(0)) + 1


LONG = ("tests/e2e/", "tests/agent/", "tests/setup/", "tests/probe/")
"""Folders of tests that wait more than they count."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        # Coverage doubles the time of these, and what is drawn at random must not be what makes the core's whole.
        if item.get_closest_marker("hypothesis"):
            item.add_marker("no_cover")
    if hasattr(config, "workerinput"):
        place = {file: number for number, file in enumerate(_alternating(dict.fromkeys(map(_file, items))))}
        items.sort(key=lambda item: place[_file(item)])


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _alternating(files: Iterable[str]) -> list[str]:
    """Long ones begin first, each beside one that keeps a core busy: nobody waits for them in the end."""
    groups: dict[bool, list[str]] = {False: [], True: []}
    for file in files:
        groups[file.startswith(LONG)].append(file)
    pairs = zip_longest(groups[True], groups[False])
    return [file for pair in pairs for file in pair if file is not None]


def pytest_collection_finish() -> None:
    gc.freeze()  # what was collected stays to the end: no need to go through it again and again


@pytest.fixture(scope="session")
def now() -> float:
    return NOW


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.new(NOW)


@pytest.fixture(scope="session")
def us() -> DialPlan:
    return dial_plan("US")
