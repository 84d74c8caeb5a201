"""``shaken setup``: the accounts, folders, files and environment that the switches need.

A `Plan` is a list of steps. Each step says what it will do, knows whether that is already so, does
it, and takes it back. A manifest is written before and after every step, so that a run that was
interrupted can be completed or undone.

What it never does: restart a switch, change routing, overwrite or delete what a person changed,
follow a symbolic link, or open as root what a switch's user could have put there.
"""

from __future__ import annotations

from shaken_plugin.setup.machine import Machine, SetupError
from shaken_plugin.setup.manifest import Manifest, execute, take_back
from shaken_plugin.setup.plan import Options, Plan, make_plan
from shaken_plugin.setup.routing import routing_lines

__all__ = [
    "Machine",
    "Manifest",
    "Options",
    "Plan",
    "SetupError",
    "execute",
    "make_plan",
    "routing_lines",
    "take_back",
]
