"""What switches tell about calls, in any way: read, and nothing that is no such thing believed."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from shaken_plugin.stores.presence import LEG

MAX_TEXT: Final = 256
MAX_NUMBER: Final = 2**52
"""Redis counts with doubles."""

OPS: Final = frozenset({"followed", "ended", "undo", "refer"})


class Told(NamedTuple):
    """One of the `OPS`, see `stores.agent_line`; ``owner`` of what has one, ``to`` of a refer, ``ask`` of an undo."""

    op: str
    call: str
    owner: str = ""
    ask: int = 0
    to: str = ""


def told(request: dict[str, Any]) -> Told:
    """A request with one of the `OPS`.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    op, call, owner = request["op"], text(request["call"]), ""
    if op == "followed":
        owner = request.get("owner", "")
        if owner and not LEG.fullmatch(owner):
            raise ValueError("owner")
    elif op == "undo":
        return Told(op, call, text(request["owner"]), number(request["ask"]))
    elif op == "refer":
        return Told(op, call, to=text(request["to"]))
    return Told(op, call, owner)


def told_in(line: bytes) -> Told | None:
    """What a line says that a process left; None where it is none."""
    try:
        request = json.loads(line)
        return told(request) if isinstance(request, dict) and request.get("op") in OPS else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def text(value: object) -> str:
    """A text of bounded length.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError("a text")
    return value


def number(value: object) -> int:
    """A number that Redis can count with. Likewise."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_NUMBER:
        raise ValueError("a number")
    return value
