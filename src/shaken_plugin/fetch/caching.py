"""What HTTP caching asks, stores and believes (RFC 9111), decided by hishel for a private cache that obeys.

The library carries these decisions: which conditional request asks whether a stored document still
holds, what a 304 makes of it or that it speaks of another one, whether an answer may be stored, and
whether a stored one may be served at a moment. It reads the machine's clock, so that another moment
is asked about by moving the answer's dates. What it cannot say, until when, is `freshness`.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from typing import Final

import hishel

Headers = Sequence[tuple[str, str]]
"""Names in lower case."""

Asked = hishel.CacheMiss | hishel.NeedRevalidation
"""A question on its way: the library knows what it makes of the answer."""

MAX_DIRECTIVES: Final = 1_024
"""Longest Cache-Control and Vary that are read, octets; the library looks at each character."""

_FORBIDDING: Final = {"cache-control": "no-store", "vary": "*"}

_PRIVATE: Final = hishel.CacheOptions(shared=False, supported_methods=["GET"], allow_stale=False)
"""The cache of one operator: has no use for ``s-maxage``, and may keep what is ``private``."""


def legible(headers: Headers) -> Headers:
    """The header, where Cache-Control or Vary are too long to be read with one that forbids to keep the answer."""
    lengths = {one: sum(len(value) for name, value in headers if name == one) for one in _FORBIDDING}
    long = {one for one, length in lengths.items() if length > MAX_DIRECTIVES}
    return [*((name, value) for name, value in headers if name not in long), *((one, _FORBIDDING[one]) for one in long)]


def ask(url: str, headers: Headers, stored: Headers) -> Asked:
    """What to ask.

    Args:
        url: of the document.
        headers: of the request as it is without a cache.
        stored: ETag and Last-Modified of the document that is there; none where there is none.
    """
    # That it is time to ask was decided by whoever asks.
    request = _request(url, [*headers, ("cache-control", "no-cache")])
    entries = [hishel.Entry(uuid.uuid4(), request, hishel.Response(200, _headers(stored)))] if stored else []
    asked = hishel.IdleClient(_PRIVATE).next(request, entries)
    assert not isinstance(asked, hishel.FromCache)
    return asked


def sent(asked: Asked) -> list[tuple[str, str]]:
    """The header of the request, conditional where something is stored.

    Without the ``no-cache`` that made the library ask: shared caches on the way may answer.
    """
    return [(name.title(), value) for name, value in asked.request.headers.items() if name != "cache-control"]


def is_conditional(asked: Asked) -> bool:
    """Whether a 304 may come back."""
    return isinstance(asked, hishel.NeedRevalidation)


def updated(asked: Asked, answer: Headers) -> Headers | None:
    """What a 304 makes of the stored header (§4.3.4); None where it does not speak of what is stored."""
    response = hishel.Response(304, _headers(answer))
    state = asked.next(response)
    if not isinstance(state, hishel.NeedToBeUpdated):
        return None
    (entry,) = state.updating_entries
    # RFC 9110 §8.8.3.2: the library compares strong tags alone.
    before = asked.request.headers.get("if-none-match", "").removeprefix("W/")
    after = response.headers.get("etag", "").removeprefix("W/")
    if before and after and before != after:
        return None
    kept = entry.response.headers
    return [(name, value) for name in kept for value in kept.get_list(name) or ()]


def holds(answer: Headers, lifetime: float) -> bool:
    """Whether an answer may be stored (§3), and still be served shortly before its lifetime is over (§4).

    Args:
        answer: the header; its ``expires``, if it counts, must be readable.
        lifetime: its freshness lifetime as it was understood here, seconds.
    """
    request = _request("https://cache.invalid/", ())
    stored = hishel.CacheMiss(_PRIVATE, request).next(hishel.Response(200, _headers(answer)))
    if not isinstance(stored, hishel.StoreAndUse):
        return False
    # Two seconds before the end: the library counts whole ones, and its clock goes on between two looks.
    begin = math.floor(time.time()) - max(0, math.ceil(lifetime) - 2)
    dates = [("date", formatdate(begin, usegmt=True))]
    ages = any("max-age" in value.lower() for name, value in answer if name == "cache-control")
    if not ages and any(name == "expires" for name, _ in answer):
        dates.append(("expires", formatdate(begin + math.floor(lifetime), usegmt=True)))
    moved = [(name, value) for name, value in answer if name not in {"date", "expires", "last-modified"}]
    entry = hishel.Entry(uuid.uuid4(), request, hishel.Response(200, _headers([*moved, *dates])))
    return isinstance(hishel.IdleClient(_PRIVATE).next(request, [entry]), hishel.FromCache)


def _request(url: str, headers: Headers) -> hishel.Request:
    return hishel.Request("GET", url, _headers(headers))


def _headers(headers: Iterable[tuple[str, str]]) -> hishel.Headers:
    named: dict[str, str | list[str]] = {}
    for name, value in headers:
        known = named.setdefault(name.lower(), [])
        assert isinstance(known, list)
        known.append(value)
    return hishel.Headers(named)
