"""The policy stores that there are. A new one is one entry of `BACKENDS`, and passes every test of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from shaken_plugin.ports import Author, PolicyStore, PolicyWriter
from shaken_plugin.stores.last_known import LastKnown
from shaken_plugin.stores.memory import MemoryPolicy
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.replacing import replace_all
from shaken_plugin.stores.sqlite import SqlitePolicy, SqliteStore, replace_policy
from tests.contract.fleet import FLEETS

SOMEBODY = Author("somebody", "a test", 1_795_000_000.0)


class Backend(Protocol):
    """One store: how calls ask it, how it is changed, and how a test breaks it."""

    @property
    def store(self) -> PolicyStore: ...

    @property
    def writer(self) -> PolicyWriter: ...

    def broken(self) -> AbstractContextManager[None]:
        """Make the store unreadable for a while."""


class MemoryBackend:
    """`MemoryPolicy`."""

    def __init__(self, _folder: Path) -> None:
        self.writer = self.store = MemoryPolicy()

    @contextmanager
    def broken(self) -> Iterator[None]:
        self.store.broken = True
        yield
        self.store.broken = False


class SqliteBackend:
    """`SqliteStore`, one for the whole test, and `SqlitePolicy`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "policy.db"
        self.store = SqliteStore(self._path)
        self.writer = SqlitePolicy(self._path)
        # Version 1 is the settings alone: a file that nothing was ever written to has no policy.
        replace_policy(self._path, None, {}, {}, SOMEBODY)

    @contextmanager
    def broken(self) -> Iterator[None]:
        away = self._path.with_suffix(".away")
        self._path.rename(away)
        yield
        away.rename(self._path)


class Remembering:
    """Any of them inside `LastKnown`."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.store = LastKnown(inner.store)
        self.writer = inner.writer

    def broken(self) -> AbstractContextManager[None]:
        return self._inner.broken()


EMBEDDED: dict[str, Callable[[Path], Backend]] = {"memory": MemoryBackend, "sqlite": SqliteBackend}

WRITERS: dict[str, Callable[[Path], Backend]] = {**EMBEDDED, **FLEETS}

BACKENDS: dict[str, Callable[[Path], Backend]] = {
    **WRITERS,
    **{
        f"last known around {name}": lambda folder, make=make: Remembering(make(folder))  # type: ignore[misc]  # a default
        for name, make in EMBEDDED.items()
    },
}


def put(backend: Backend, policy: Policy) -> None:
    """Put a whole policy in force."""
    assert replace_all(backend.writer, policy, SOMEBODY, "all of it") == []
