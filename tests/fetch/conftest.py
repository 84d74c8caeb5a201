"""A repository that misbehaves as told, and rules that lead to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shaken_plugin.fetch import Fetched, FetchFailure, FetchRules, Kind, KindRules, fetch_once
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.repository import Repository
from tests.conftest import NOW

URL = "https://cr.example.com/a.pem"

QUICK = KindRules(deadline=0.6, max_body=65_536, min_fresh=0.0, max_fresh=1e9, default_fresh=60.0)
"""For servers that are slow on purpose."""


@pytest.fixture(scope="session")
def chain(authority: Authority) -> bytes:
    return authority.issue(now=NOW, spc="709J").chain


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with Repository(tmp_path_factory.mktemp("repository")) as repository:
        yield repository


@pytest.fixture
def repository(served: Repository) -> Repository:
    """The repository; each test uses paths of its own."""
    return served


@pytest.fixture
def rules(repository: Repository) -> FetchRules:
    return FetchRules(lab_hosts=repository.hosts, ca_bundle=repository.ca_file)


@pytest.fixture
def quick(repository: Repository) -> FetchRules:
    return FetchRules(lab_hosts=repository.hosts, ca_bundle=repository.ca_file, certificate=QUICK, crl=QUICK)


Failing = Callable[..., FetchFailure]


@pytest.fixture
def failing() -> Failing:
    """Fetches what must fail, and gives the failure."""

    def fail(url: str, rules: FetchRules, kind: Kind = Kind.CERTIFICATE, **seams: Any) -> FetchFailure:
        with pytest.raises(FetchFailure) as caught:
            fetch_once(url, kind, rules, **seams)
        return caught.value

    return fail


def before(etag: str | None = None, last_modified: str | None = None, url: str = URL) -> Fetched:
    """Something that was fetched an hour ago."""
    return Fetched(url, b"before", NOW - 3600, NOW - 60, etag, last_modified)
