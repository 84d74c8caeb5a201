"""Identity lines that were sent against those that arrived: which are gone, doubled, changed, moved.

A value that arrived is known by its token, else by its claims or signature alone: one that was
altered still has some of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from shaken_plugin.core.passport import Passport
from shaken_plugin.core.sip import split_list
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.probe.findings import Finding, Kind
from shaken_plugin.probe.message import HeaderLine, Message

MAX_COMPARED: Final = 64
"""Most Identity headers of one message that are compared; more are an attack or a loop."""


class _Value(NamedTuple):
    """One Identity value: the line's name, its token and its parameters as written."""

    name: str
    token: str
    params: tuple[str, ...]
    text: str


_PARAM = re.compile(r';((?:[^;"<]|"(?:[^"\\]|\\.)*"?|<[^>]*>?)*)')


def _value(name: str, text: str) -> _Value:
    token, semicolon, rest = text.partition(";")
    params = tuple(match.group(1).strip() for match in _PARAM.finditer(semicolon + rest))
    return _Value(name, token.strip(), params, text)


def identity_findings(sent: Sequence[HeaderLine], received: Sequence[HeaderLine]) -> Iterator[Finding]:
    """What happened to the Identity lines of a message; nothing where all is as it was."""
    ours = [_value(line.name, line.unfolded) for line in sent[:MAX_COMPARED]]
    theirs = [_value(line.name, text) for line in received[:MAX_COMPARED] for text in split_list(line.unfolded)]
    joined = sum(len(split_list(line.unfolded)) > 1 for line in received[:MAX_COMPARED])
    origins = _origins(ours, theirs)
    copies = [[j for j, origin in enumerate(origins) if origin == i] for i in range(len(ours))]
    yield from _gone(ours, copies)
    for number, places in enumerate(copies, start=1):
        if len(places) > 1:
            yield Finding(Kind.DUPLICATED, f"header {number} arrived {len(places)} times", number)
    order = list(dict.fromkeys(origin for origin in origins if origin is not None))
    if order != sorted(order):
        yield Finding(Kind.REORDERED, f"sent as {_series(sorted(order))}, arrived as {_series(order)}")
    if joined:
        yield Finding(Kind.ALTERED, "several values joined in one line by commas; many readers take them for one")
    for number, (value, places) in enumerate(zip(ours, copies, strict=True), start=1):
        yield from _changes(number, value, [theirs[place] for place in places])
    strangers = [theirs[j] for j, origin in enumerate(origins) if origin is None]
    if strangers:
        diff = tuple(f"+ {one.name}: {short(one.text)}" for one in strangers)
        yield Finding(Kind.ADDED, f"{len(strangers)} that was not sent", 0, diff)


def _series(order: Sequence[int]) -> str:
    return ", ".join(str(index + 1) for index in order)


def _origins(ours: Sequence[_Value], theirs: Sequence[_Value]) -> list[int | None]:
    """For each value that arrived, which of those sent it is: by its token, else by a part of it."""
    origins: list[int | None] = []
    for value in theirs:
        exact = [i for i, own in enumerate(ours) if own.token == value.token]
        alike = exact or [i for i, own in enumerate(ours) if _segments(own) & _segments(value)]
        origins.append(alike[0] if alike else None)
    return origins


def _segments(value: _Value) -> set[tuple[int, str]]:
    """Claims and signature; the JOSE header is alike in all tokens of a signer."""
    parts = value.token.split(".")
    return {(place, part) for place, part in enumerate(parts) if place > 0 and len(part) > 16}


def _gone(ours: Sequence[_Value], copies: Sequence[Sequence[int]]) -> Iterator[Finding]:
    gone = [number for number, places in enumerate(copies, start=1) if not places]
    if not gone:
        return
    if len(gone) == len(ours):
        yield Finding(Kind.STRIPPED, "none arrived" if len(ours) > 1 else "it did not arrive")
    elif gone == list(range(2, len(ours) + 1)):
        yield Finding(Kind.FIRST_ONLY, f"1 of {len(ours)} arrived, the first")
    else:
        yield Finding(Kind.STRIPPED, f"{len(gone)} of {len(ours)} did not arrive: number {', '.join(map(str, gone))}")


def _changes(number: int, sent: _Value, arrived: Sequence[_Value]) -> Iterator[Finding]:
    for value in arrived:
        full, compact = (name.lower() == "y" for name in (sent.name, value.name))
        if full != compact:
            yield Finding(Kind.RENAMED, f"sent as {sent.name}, arrived as {value.name}", number)
        if value.text == sent.text:
            continue
        diff = (f"- {_abridged(sent, value)}", f"+ {_abridged(value, sent)}")
        reasons = list(_reasons(sent, value))
        if reasons:
            yield Finding(Kind.ALTERED, "; ".join(reasons), number, diff)
        else:
            yield Finding(Kind.RESPELLED, "white space, quotes or order of the parameters, no more", number, diff)


def _reasons(sent: _Value, value: _Value) -> Iterator[str]:
    """What differs in meaning."""
    if sent.token != value.token:
        place = _differ_at(sent.token, value.token)
        was, became = (token[place : place + 12] or "(end)" for token in (sent.token, value.token))
        yield (
            f"the token differs from character {place + 1}: {was} became {became} "
            f"({len(sent.token)} and {len(value.token)} characters)"
        )
    before, after = (_meaning(one.params) for one in (sent, value))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            was, became = (short(one[name], 40) if name in one else "absent" for one in (before, after))
            yield f"parameter {name}: {was} became {became}"


def _differ_at(one: str, other: str) -> int:
    """How many characters two texts have in common from their start."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _abridged(value: _Value, other: _Value) -> str:
    """The value as written, of its token only what tells it, or where it differs from another."""
    token = value.token
    if token == other.token:
        shown = f"{token[:12]}…{token[-12:]}" if len(token) > 32 else token
    else:
        place = _differ_at(token, other.token)
        start, end = max(0, place - 12), place + 24
        shown = f"{'…' if start else ''}{token[start:end]}{'…' if end < len(token) else ''}"
    return f"{value.name}: {shown}{short(value.text.removeprefix(token))}"


def _meaning(params: Sequence[str]) -> dict[str, str]:
    """Parameters without their spelling: names in lower case, quotes off."""
    meaning: dict[str, str] = {}
    for param in params:
        name, equals, text = param.partition("=")
        text = text.strip()
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1]
        meaning[name.strip().lower()] = text if equals else "no value"
    return meaning


def short(text: str, most: int = 240) -> str:
    """The text, its middle cut out where it is long."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def tokens(message: Message) -> frozenset[str]:
    """The tokens of a message, by which its copies are recognised."""
    return frozenset(_value("", line.unfolded).token for line in message.all("identity")[:MAX_COMPARED])


def parts(message: Message) -> frozenset[tuple[int, str]]:
    """Claims and signatures of those tokens: one that was altered still has some."""
    values = [_value("", line.unfolded) for line in message.all("identity")[:MAX_COMPARED]]
    return frozenset(part for value in values for part in _segments(value))


def issued_at(message: Message) -> float | None:
    """``iat`` of the first PASSporT that can be read."""
    for line in message.all("identity")[:MAX_COMPARED]:
        try:
            iat = Passport.parse(_value("", line.unfolded).token).claims.get("iat")
        except VerificationFailure:
            continue
        if isinstance(iat, int) and not isinstance(iat, bool) and 0 <= iat < 2**40:
            return float(iat)
    return None
