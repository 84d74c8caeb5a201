"""What hypothesis draws: texts and octets as strangers send them, and mutations of valid ones."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

examples = settings(deadline=None)
"""Slow machines are no failure."""


def many(times: int) -> settings:
    """So many times as many examples as the profile says; ``make test-large`` has another one."""
    return settings(examples, max_examples=times * examples.max_examples)


PIECES = (
    *'sip:a@b;=<>"\\,.-+%?& \t\r\n()[]{}*#0123456789',
    "sip:", "tel:", "urn:service:sos", "\r\n ", '\\"', "%3B", "%3d", "%00", "%zz", ";verstat=", ";VERSTAT", "verstat",
    ";tag=1", ";user=phone", ";phone-context=+1", "anonymous.invalid", "+12155551212", "911", "info=<", "ppt=", "alg=",
    "https://", "127.0.0.1", "[::1]", "é", "\u0130", "\u0661", "\udcff", "\x00", "\x7f", "\u00a0", "\u2028",
)  # fmt: skip

characters = st.characters(exclude_categories=())
"""Every character, lone surrogates too."""

wire_text = st.one_of(
    st.text(characters, max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
)
"""Arbitrary text, and text that looks like SIP."""

wire_bytes = st.one_of(
    st.binary(max_size=60), st.lists(st.sampled_from(PIECES), max_size=30).map(lambda parts: _encoded("".join(parts)))
)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@st.composite
def mutated(draw: Any, valid: str) -> str:
    """A valid text with one to four edits: something out, something in, something twice."""
    text = valid
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        piece = draw(st.one_of(st.just(""), st.sampled_from(PIECES), st.just(text[start:end] * 2)))
        text = text[:start] + piece + text[end:]
    return text


@st.composite
def mutated_bytes(draw: Any, valid: bytes) -> bytes:
    """Valid octets with one to four edits: a bit turned, an octet changed, out or in."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content) - 1))
        edit = draw(st.sampled_from(("bit", "set", "out", "in")))
        if edit == "bit":
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif edit == "set":
            content[place] = draw(st.integers(0, 255))
        elif edit == "out":
            del content[place]
        else:
            content.insert(place, draw(st.integers(0, 255)))
    return bytes(content)


digits = st.text("0123456789", min_size=1, max_size=15)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
json_objects = st.dictionaries(texts, json_values, max_size=6)
