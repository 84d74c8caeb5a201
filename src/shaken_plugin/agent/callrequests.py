"""What workers ask about calls, read and answered; the protocol is described in `stores.agent_line`."""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

from shaken_plugin.agent.counting import Counting
from shaken_plugin.agent.told import MAX_TEXT, OPS, number, text, told
from shaken_plugin.core.limits import OF_ALLOWANCE, Bound, Request
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores.presence import NAME

MAX_BOUNDS: Final = 4
MAX_REPLACES: Final = 16
MAX_KEPT: Final = 3_700_000
"""Milliseconds for which a PASSporT is remembered; none is fresh for longer (`verification.freshness`)."""

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
        replays: in a fleet.
    """

    ops: Final = OPS | {"admit", "first_use", "ping"}

    def __init__(self, counting: Counting, replays: Replays | None = None) -> None:
        self._counting = counting
        self._replays = replays

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request with one of the `ops`."""
        try:
            op = request["op"]
            if op in OPS:
                await self._counting.tell([told(request)])
                return {}
            return await getattr(self, f"_{op}")(request) or {}
        except StoreUnavailable as exc:
            return {"error": str(exc)}
        except (ValueError, TypeError, KeyError):
            return {"error": f"a request for {request['op']} that is none"}

    async def _ping(self, _: dict[str, Any]) -> None:
        return

    async def _admit(self, request: dict[str, Any]) -> dict[str, Any]:
        owner = text(request["owner"])
        if owner and not NAME.fullmatch(owner):
            raise ValueError("owner")
        asked = _asked(request)
        ask = number(request.get("ask", 0))
        if not owner:
            asked = asked._replace(slot=False)  # nobody would notice the end of who runs it
        elif not asked.sent:
            asked = asked._replace(ahead=number(request.get("ahead", 0)), name=f"{owner}{OF_ALLOWANCE}{ask}")
        verdict = await self._counting.admit(asked, owner, ask)
        answer: dict[str, Any] = {"outcome": verdict.outcome.value, "scope": verdict.scope}
        return answer | {"ahead": verdict.ahead} if verdict.ahead else answer

    async def _first_use(self, request: dict[str, Any]) -> dict[str, Any]:
        token, call, milliseconds = text(request["token"]), text(request["call"]), number(request["milliseconds"])
        if not _HEX.fullmatch(token) or not _HEX.fullmatch(call):
            raise ValueError("token or call")
        if self._replays is None:
            raise StoreUnavailable("this host is in no fleet")
        return {"first": await self._replays.first_use(token, call, min(max(1, milliseconds), MAX_KEPT))}


def _asked(request: dict[str, Any]) -> Request:
    level, bounds = request["level"], request["bounds"]
    if level not in _LEVELS or not isinstance(bounds, list) or len(bounds) > MAX_BOUNDS:
        raise ValueError("level or bounds")
    read = tuple(Bound(text(scope), *map(number, numbers)) for scope, *numbers in bounds)
    if any(bound.scope not in {"", level} for bound in read):
        raise ValueError("scope")
    return Request(
        text(request["customer"]),
        text(request["call"]),
        read,
        level,
        request["slot"] is True,
        _texts(request["replaces"]),
        _short(request["to"]),
        request.get("sent") is not False,
    )


def _short(value: object) -> str:
    """A text that a stranger chose: a call is counted without it rather than not at all."""
    return text(value if not isinstance(value, str) or len(value) <= MAX_TEXT else "")


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_REPLACES:
        raise ValueError("texts")
    return tuple(map(text, value))
