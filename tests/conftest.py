"""Fixtures that several layers of tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import zip_longest
from pkgutil import walk_packages

import pytest
from hypothesis import settings

from shaken_plugin import core
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.lab.pki import Authority
from shaken_plugin.patience import PATIENCE

settings.register_profile("patient", deadline=None)  # slow machines are no failure
settings.register_profile("thorough", deadline=None, max_examples=1_000)
settings.load_profile("patient")

NOW = 1_795_000_000.0
"""2026-11-18 11:06:40 UTC, the moment at which tests play unless they say otherwise."""


def pytest_xdist_auto_num_workers() -> int:
    """Two more than cores, since so much is waited for; with three more, calls with a bound come late at times."""
    return len(os.sched_getaffinity(0)) + 2


@pytest.fixture(autouse=True)
def patient() -> None:
    """No test inherits that another one has waited for a lock in vain."""
    PATIENCE.__init__()  # type: ignore[misc]  # as in a process that begins


LONG = ("tests/e2e/", "tests/agent/", "tests/setup/", "tests/probe/")
"""Folders of tests that wait more than they count."""

MEASURED = ("tests/unit/", "tests/services/", "tests/agent/test_counting.py", "tests/property/test_limit_properties.py")
"""Tests that make the coverage of the core whole; measuring doubles their time, and would that of the others."""


REMEMBERING: list[Callable[[], None]] = []
"""What empties each function of the core that remembers its answers."""


@contextmanager
def unmeasured(config: pytest.Config) -> Iterator[None]:
    """Without coverage, where that is measured at all."""
    controller = getattr(config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    if controller is None:
        yield
        return
    controller.pause()
    try:
        yield
    finally:
        controller.resume()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """What runs when modules are loaded is measured in the core alone: the tests are many."""
    for found in walk_packages(core.__path__, f"{core.__name__}."):
        module = import_module(found.name)
        REMEMBERING.extend(clear for value in vars(module).values() if (clear := getattr(value, "cache_clear", None)))
    with unmeasured(session.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What is drawn at random must not be what makes coverage whole."""
    if item.nodeid.startswith(MEASURED) and not item.get_closest_marker("hypothesis"):
        for clear in REMEMBERING:  # another test may have asked the same before
            clear()
        return (yield)
    with unmeasured(item.config):
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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
