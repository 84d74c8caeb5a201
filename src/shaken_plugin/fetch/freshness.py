"""Until when a response may be used: RFC 9111 §4.2, for a private cache (that of one operator).

A moment, so that it can be stored beside the document and compared by processes that know nothing of
HTTP. The library behind `caching` answers "now?" alone; it has the last word, so that what is understood
here never lives longer than there, and the other way round what it overlooks is seen here: ``Age``, and a
``max-age`` that cannot be read or comes twice.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.request import parse_http_list

from shaken_plugin.fetch import caching
from shaken_plugin.fetch.caching import Headers
from shaken_plugin.fetch.model import KindRules

_DIGITS = re.compile(r"[0-9]+")
_MOST_SECONDS: Final = 2**31 - 1
"""RFC 9111 §1.2.2: a greater number counts as 2^31 or "the greatest positive integer" that can be represented."""
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,254}"')


def first(headers: Headers, name: str) -> str | None:
    """The first value of a header, None where absent."""
    return next((value for one, value in headers if one == name), None)


def fresh_until(headers: Headers, requested_at: float, received_at: float, rules: KindRules) -> float:
    """The moment until which a response is fresh, POSIX seconds.

    Args:
        headers: of the response.
        requested_at: when it was asked for, POSIX seconds.
        received_at: when its header was there.
        rules: the limits it is kept between.
    """
    lifetime = explicit_lifetime(headers, received_at)
    if lifetime is None:
        remaining = rules.default_fresh
    elif lifetime > 0 and caching.holds(headers, lifetime):
        remaining = lifetime - _age(headers, requested_at, received_at)
    else:
        remaining = 0.0
    return received_at + min(max(remaining, rules.min_fresh), rules.max_fresh)


def explicit_lifetime(headers: Headers, received_at: float) -> float | None:
    """The freshness lifetime that the server gives, seconds (RFC 9111 §4.2.1); None where it gives none.

    What must not be used without asking again (``no-store``, ``no-cache``) has none left.
    """
    directives = cache_directives(headers)
    if directives.keys() & {"no-store", "no-cache"}:  # with a value, too
        return 0.0
    if "max-age" in directives:
        # §4.2.1: "Caches are encouraged to consider responses that have invalid freshness information
        # (e.g., a max-age directive with non-integer content) to be stale."
        return _seconds(directives["max-age"]) or 0.0
    expires = first(headers, "expires")
    if expires is None:
        return None
    # §5.3: "MUST interpret invalid date formats, especially the value "0", as representing a time in the past".
    end = http_date(expires)
    if end is None:
        return 0.0
    start = http_date(first(headers, "date") or "")
    return min(end - (received_at if start is None else start), _MOST_SECONDS)


def cache_directives(headers: Headers) -> dict[str, str]:
    """The directives of Cache-Control (RFC 9111 §5.2), names in lower case, values without quotes.

    One that comes twice has no value: §4.2.1 would let the first count, "or the response should be
    considered stale".
    """
    directives: dict[str, str] = {}
    for line in (value for name, value in headers if name == "cache-control"):
        for directive in parse_http_list(line):
            name, _, value = directive.partition("=")
            name = name.strip().lower()
            directives[name] = "" if name in directives else value.strip().removeprefix('"').removesuffix('"')
    return directives


def _age(headers: Headers, requested_at: float, received_at: float) -> float:
    """RFC 9111 §4.2.3: how old a response was when it arrived, seconds."""
    date = http_date(first(headers, "date") or "")
    apparent = 0.0 if date is None else max(0.0, received_at - date)
    # §5.1: of several the first counts; an invalid one is to be ignored.
    reported = _seconds(first(headers, "age") or "") or 0.0
    return max(apparent, reported + max(0.0, received_at - requested_at))


def retry_after(headers: Headers, now: float, most: float) -> float | None:
    """Seconds to wait by Retry-After (RFC 9110 §10.2.3), at most ``most``; None where absent or unreadable."""
    text = first(headers, "retry-after")
    if text is None:
        return None
    seconds = _seconds(text)
    if seconds is None:
        moment = http_date(text)
        if moment is None:
            return None
        seconds = moment - now
    return min(max(seconds, 0.0), most)


def http_date(text: str) -> float | None:
    """The moment of an HTTP date in any of its three formats (RFC 9110 §5.6.7); None where it is none."""
    if len(text) > 64 or not (text.isascii() and text.isprintable()):
        return None
    try:
        moment = parsedate_to_datetime(text)
        # The format has no other zone than GMT; asctime's says none.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _seconds(text: str) -> float | None:
    """delta-seconds (RFC 9111 §1.2.2); None where it is none."""
    text = text.strip(" \t")
    if _DIGITS.fullmatch(text) is None:
        return None
    digits = text.lstrip("0") or "0"
    return float(_MOST_SECONDS if len(digits) > 10 else min(int(digits), _MOST_SECONDS))


def validators(headers: Headers) -> list[tuple[str, str]]:
    """ETag and Last-Modified, where they can be sent back as they are."""
    etag, modified = first(headers, "etag"), first(headers, "last-modified")
    found = [("etag", etag)] if etag is not None and _ETAG.fullmatch(etag) else []
    return found + ([("last-modified", modified)] if modified is not None and http_date(modified) is not None else [])
