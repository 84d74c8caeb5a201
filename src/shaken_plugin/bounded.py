"""A mapping that forgets what was not used lately when it is full."""

from __future__ import annotations

from threading import Lock
from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Bounded(Generic[_Key, _Value]):
    """At most ``size`` entries, and surely the half of them that was used last; safe for the threads of a FreeSWITCH.

    In two halves: what is used goes into the new one, and when that is full the old one is dropped whole. So a table is
    filled once and given back: one that entries are taken out of is made anew every now and then, larger than
    before, and a worker's memory grows by that until the holes fit.
    """

    def __init__(self, size: int) -> None:
        self._half = max(1, size // 2)
        self._new: dict[_Key, _Value] = {}
        self._old: dict[_Key, _Value] = {}
        self._lock = Lock()

    def get(self, key: _Key) -> _Value | None:
        """The value, or None."""
        value = self._new.get(key)
        return value if value is not None else self._used(key)

    def _used(self, key: _Key) -> _Value | None:
        """The value of an entry that is not known to have been used lately; now it was."""
        dropped: object = None
        with self._lock:
            value = self._new.get(key)
            if value is None and (value := self._old.get(key)) is not None:
                dropped = self._keep(key, value)
        del dropped
        return value

    def peek(self, key: _Key) -> _Value | None:
        """The value, or None; that is no use of it, and nothing is forgotten for it."""
        with self._lock:
            value = self._new.get(key)
            return value if value is not None else self._old.get(key)

    def put(self, key: _Key, value: _Value) -> None:
        """Set a value, forgetting others if there are too many."""
        with self._lock:
            dropped = self._keep(key, value)
        del dropped

    def _keep(self, key: _Key, value: _Value) -> object:
        """Take an entry as used, with the lock; what is returned is to end without it, which may take a while."""
        dropped = None
        self._new[key] = value
        if len(self._new) >= self._half:
            dropped, self._old, self._new = self._old, self._new, {}
        return dropped

    def discard(self, key: _Key) -> None:
        """Forget an entry, if it is there."""
        with self._lock:
            self._new.pop(key, None)
            self._old.pop(key, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._new.keys() | self._old.keys())
