"""What workers ask about calls, read and answered; the protocol is described in `stores.agent_line`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, Protocol

from shaken_plugin.agent.counting import Counting
from shaken_plugin.core.limits import Bound, Request
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores.presence import LEG, NAME, Left

MAX_TEXT: Final = 256
MAX_BOUNDS: Final = 4
MAX_REPLACES: Final = 16
MAX_NUMBER: Final = 2**52
"""Redis counts with doubles."""
MAX_KEPT: Final = 3_700_000
"""Milliseconds for which a PASSporT is remembered; none is fresh for longer (`verification.freshness`)."""

_TOLD: Final = frozenset({"sent", "answered", "ended", "undo", "refer"})
_LEVELS: Final = frozenset({"", "A", "B", "C"})
_HEX: Final = re.compile(r"[0-9a-f]{1,128}")


class Replays(Protocol):
    """Which PASSporT came with which call, over all hosts."""

    async def first_use(self, token: str, call: str, milliseconds: int) -> bool:
        """See `ports.ReplayMemory.first_use`.

        Raises:
            StoreUnavailable: nobody knows now.
        """


class CallRequests:
    """Answers them.

    Args:
        counting: counts calls.
        beside: the folder of the policy's file, where processes leave what they could not tell.
        replays: in a fleet.
    """

    ops: Final = frozenset({"admit", "sent", "answered", "ended", "undo", "refer", "first_use", "ping"})

    def __init__(self, counting: Counting, beside: Path, replays: Replays | None = None) -> None:
        self._counting = counting
        self._left = Left(beside)
        self._replays = replays

    async def answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request with one of the `ops`; None to what has none."""
        found = await self._answer(request)
        return None if request["op"] == "sent" else found

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await getattr(self, f"_{request['op']}")(request) or {}
        except StoreUnavailable as exc:
            return {"error": str(exc)}
        except (ValueError, TypeError, KeyError):
            return {"error": f"a request for {request['op']} that is none"}

    async def collect(self) -> None:
        """Take what processes could not tell when it happened."""
        for line in self._left.take():
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(request, dict) and request.get("op") in _TOLD:
                await self.answer(request)

    async def _ping(self, _: dict[str, Any]) -> None:
        return

    async def _admit(self, request: dict[str, Any]) -> dict[str, Any]:
        owner = _text(request["owner"])
        if owner and not NAME.fullmatch(owner):
            raise ValueError("owner")
        asked = _asked(request)
        if not owner:
            asked = asked._replace(slot=False)  # nobody would notice the end of who runs it
        verdict = await self._counting.admit(asked, owner, _number(request.get("ask", 0)))
        return {"outcome": verdict.outcome.value, "scope": verdict.scope}

    async def _sent(self, request: dict[str, Any]) -> None:
        await self._counting.sent(_text(request["call"]))

    async def _answered(self, request: dict[str, Any]) -> None:
        owner = request.get("owner", "")
        if owner and not LEG.fullmatch(owner):
            raise ValueError("owner")
        await self._counting.answered(_text(request["call"]), owner)

    async def _ended(self, request: dict[str, Any]) -> None:
        await self._counting.ended(_text(request["call"]))

    async def _undo(self, request: dict[str, Any]) -> None:
        owner, ask = _text(request["owner"]), _number(request["ask"])
        await self._counting.undo(_text(request["call"]), owner, ask)

    async def _refer(self, request: dict[str, Any]) -> None:
        await self._counting.refer(_text(request["call"]), _text(request["to"]))

    async def _first_use(self, request: dict[str, Any]) -> dict[str, Any]:
        token, call, milliseconds = _text(request["token"]), _text(request["call"]), _number(request["milliseconds"])
        if not _HEX.fullmatch(token) or not _HEX.fullmatch(call):
            raise ValueError("token or call")
        if self._replays is None:
            raise StoreUnavailable("this host is in no fleet")
        return {"first": await self._replays.first_use(token, call, min(max(1, milliseconds), MAX_KEPT))}


def _asked(request: dict[str, Any]) -> Request:
    level, bounds = request["level"], request["bounds"]
    if level not in _LEVELS or not isinstance(bounds, list) or len(bounds) > MAX_BOUNDS:
        raise ValueError("level or bounds")
    read = tuple(Bound(_text(scope), *map(_number, numbers)) for scope, *numbers in bounds)
    if any(bound.scope not in {"", level} for bound in read):
        raise ValueError("scope")
    return Request(
        _text(request["customer"]),
        _text(request["call"]),
        read,
        level,
        request["slot"] is True,
        _texts(request["replaces"]),
        _short(request["to"]),
        request.get("sent") is not False,
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError("a text")
    return value


def _short(value: object) -> str:
    """A text that a stranger chose: a call is counted without it rather than not at all."""
    return _text(value if not isinstance(value, str) or len(value) <= MAX_TEXT else "")


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_REPLACES:
        raise ValueError("texts")
    return tuple(map(_text, value))


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_NUMBER:
        raise ValueError("a number")
    return value
