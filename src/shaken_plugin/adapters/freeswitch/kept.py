"""Keeps the script as it is: mod_python3 has Python look for it and load it anew at every call.

That is half a millisecond of CPU in each call, for a script in which nothing changes while FreeSWITCH runs.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _AsItIs(Loader):
    """Loads a module that is there already: there is nothing to do."""

    def create_module(self, _spec: ModuleSpec) -> None:
        """See `importlib.abc.Loader`."""

    def exec_module(self, _module: ModuleType) -> None:
        """See `importlib.abc.Loader`."""


class _Finder(MetaPathFinder):
    """Is asked before those that look through folders."""

    def __init__(self) -> None:
        self.specs: dict[str, ModuleSpec] = {}

    def find_spec(self, name: str, _path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`; ``target`` is the module where it is to be loaded anew."""
        return self.specs.get(name) if target is not None else None


_finder = _Finder()


def keep(name: str) -> None:
    """Have `importlib.reload` leave a module as it is from now on; one that is not there is loaded as ever."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.specs[name] = ModuleSpec(name, _AsItIs())
    # What is being loaded anew already, further up in the same thread, is returned at once: with this name in
    # importlib's list of those nothing is looked for at all. A Python without that list asks the finder.
    being_loaded = getattr(importlib, "_RELOADING", None)
    if isinstance(being_loaded, dict) and name in sys.modules:
        being_loaded[name] = sys.modules[name]
