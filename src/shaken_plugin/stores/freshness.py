"""How old a host's copy of its fleet's policy is.

The policy of a fleet is in Redis; each host decides from a copy in its own file, which its agent keeps. The copy's
age is the time since the agent last *knew* it to be the head: when it began to ask Redis, and the answer said that
nothing newer is there. The copy may be whole for longer than that, but nobody knows. An agent that follows says so
several times a second, in the modification time of a file beside the copy; a worker reads that ten times a second,
and whenever it asks for records.

A clock that is set does not make a copy young for a process that runs: each also counts the seconds since it saw the
mark for the first time, and a mark from the future says nothing. A process that starts after the clock was put back
has nothing but the clock: to it the copy is younger by as much, until the agent's next mark. Set forward, the clock
makes a copy look older, likewise.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Final, NamedTuple

from shaken_plugin.core.records import PolicyFacts
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.ports import PolicyStore
from shaken_plugin.sqlitefile import FILE_MODE, LOOK_EVERY

FUTURE: Final = 2.0
"""Seconds by which a mark may seem to be of the future, of a clock that is being slewed."""


def mark_of(path: Path) -> Path:
    """The file whose modification time says when a copy was last known to be the head."""
    return path.with_name(f"{path.name}.known")


def mark(path: Path, at: float) -> None:
    """Say that a copy was known to be the head at a time.

    Args:
        path: the copy.
        at: POSIX seconds.

    Raises:
        OSError: the file cannot be made or changed.
    """
    file, nanoseconds = mark_of(path), int(at * 1e9)
    try:
        os.utime(file, ns=(nanoseconds, nanoseconds), follow_symlinks=False)
    except (FileNotFoundError, PermissionError):  # none, or one that another user made
        # Under another name first: new, it would say that the copy is known now.
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        os.close(descriptor)
        os.utime(draft, ns=(nanoseconds, nanoseconds))
        draft.replace(file)


def unmark(path: Path) -> None:
    """Say that nothing is known of a copy, for instance because it becomes that of another fleet.

    Raises:
        OSError: the file cannot be removed.
    """
    mark_of(path).unlink(missing_ok=True)


ASK_EVERY: Final = 1.0
"""Seconds between two looks whether a file that is no copy has a policy of the host's own."""


class _Seen(NamedTuple):
    """A mark as a process saw it for the first time."""

    mark: int
    age: float
    at: float
    """Steady seconds."""


class CopyAge:
    """The age of a copy, as one process knows it.

    Args:
        path: the copy.
        wall: POSIX seconds.
        steady: seconds that only grow, alike in all processes since the start of the machine.
    """

    def __init__(
        self, path: Path, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._mark = str(mark_of(path))
        self._wall = wall
        self._steady = steady
        self._seen: _Seen | None = None

    def seconds(self) -> float | None:
        """The age; None where the host never had a copy, infinite where the mark says nothing.

        Raises:
            OSError: the mark cannot be looked at.
        """
        try:
            found = os.stat(self._mark, follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            return None
        steady, by_clock = self._steady(), self._wall() - found / 1e9
        seen = self._seen
        if seen is None or seen.mark != found:
            seen = self._seen = _Seen(found, math.inf if by_clock < -FUTURE else max(0.0, by_clock), steady)
        return max(by_clock, seen.age + steady - seen.at)


class Copy:
    """A `ports.PolicyStore` that answers from a copy as long as its age allows.

    Args:
        store: reads the copy.
        path: the copy, for texts and its mark.
        max_age: seconds.
        goes_on: a copy that is older is read nevertheless, and `trouble` says so.
        own: whether the file has a policy of the host's own, which was not taken into its fleet yet, or was taken out
            of it: that decides as it would without a fleet, and `trouble` says so. Only asked where there is no copy
            that is young enough.
    """

    def __init__(
        self, store: PolicyStore, path: Path, max_age: float, *, goes_on: bool, own: Callable[[], bool] = lambda: False
    ) -> None:
        self._store = store
        self._own = own
        self._asked: tuple[float, bool] | None = None
        self._alone = False
        self._path = path
        self._max_age = max_age
        self._goes_on = goes_on
        self._age = CopyAge(path)
        self._looked, self._good_until = math.inf, -math.inf
        self.trouble: str | None = None
        """What is wrong with the copy that answered last, for a warning; None where nothing is."""

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        """See `ports.PolicyStore.facts`; the copy being too old is a store that cannot be read now."""
        self.trouble = text = self.look()
        if text is not None and not (self._goes_on or self._alone):
            raise StoreUnavailable(text)
        return self._store.facts(source, user, number, called, route)

    def stamp(self) -> Hashable | None:
        """See `ports.PolicyStore.stamp`: None as well where the copy is too old, or was made young by nothing."""
        steady = time.monotonic()
        if not self._looked <= steady < self._good_until:
            try:
                self.trouble = self.look()
            except StoreUnavailable:
                return None
            if self.trouble is not None:
                return None
        return self._store.stamp()

    def look(self) -> str | None:
        """What is wrong with the copy's age.

        Raises:
            StoreUnavailable: there never was a copy, or nothing can be known of it.
        """
        try:
            age = self._age.seconds()
        except OSError as exc:
            raise StoreUnavailable(f"{mark_of(self._path)}: {exc.strerror}") from exc
        self._alone = False
        if age is not None and age <= self._max_age:
            self._looked = time.monotonic()
            self._good_until = self._looked + min(LOOK_EVERY, self._max_age - age)
            return None
        self._good_until = -math.inf
        self._alone = self._is_own()
        if self._alone:
            return (
                f"{self._path}: this host decides by a policy of its own, and store.redis names a fleet: move it there "
                "('shaken fleet move'), or give it up for the fleet's ('shaken fleet join')"
            )
        if age is None:
            raise StoreUnavailable(
                f"{self._path}: this host has no copy of its fleet's policy yet; the agent makes it: "
                "see 'shaken agent status'"
            )
        return too_old(self._path, age, self._max_age)

    def _is_own(self) -> bool:
        """As `own` says, asked once a second."""
        now = time.monotonic()
        if self._asked is None or now - self._asked[0] > ASK_EVERY:
            self._asked = now, self._own()
        return self._asked[1]


def too_old(path: Path, age: float, max_age: float) -> str:
    """What is to be said of a copy that is too old."""
    known = "nobody knows how old it is" if age == math.inf else f"it was last known to be whole {age:.0f} s ago"
    return (
        f"{path}: this host's copy of its fleet's policy is too old: {known}, store.max_age is {max_age:g} s; "
        "see 'shaken agent status'"
    )
