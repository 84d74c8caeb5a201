"""Input made to be slow is not: four times as long takes about four times as long, not sixteen.

Every text here is of the greatest length its parser accepts. A quarter of it is measured too; only
the ratio counts, in processor time, and the bound lies half-way between linear and quadratic.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from math import inf
from time import process_time
from typing import Any

import pytest

from shaken_plugin.adapters.kamailio_headers import usual_headers_of
from shaken_plugin.core import x5u
from shaken_plugin.core.constraints import MAX_LENGTH as CONSTRAINTS
from shaken_plugin.core.constraints import ClaimConstraints
from shaken_plugin.core.identity import MAX_LENGTH, IdentityHeader
from shaken_plugin.core.jws import b64url
from shaken_plugin.core.passport import MAX_TOKEN_LENGTH, Passport, media_keys
from shaken_plugin.core.reason import about_ours, split_reasons
from shaken_plugin.core.sip import MAX_ADDRESS_LENGTH, MAX_MESSAGE_LENGTH, NameAddr, Request, Uri, split_list, unfold
from shaken_plugin.core.tnauthlist import TnAuthList
from shaken_plugin.core.verstat import strip_verstat
from shaken_plugin.errors import ShakenError

LINEAR = 9
"""Four times the length takes four times the time if growth is linear, sixteen times if quadratic."""

LINE = 65_536
"""Kamailio's read buffer: no header line is longer."""


def repeated(before: str, piece: str, after: str = "") -> Callable[[int], str]:
    """A text of a given length, made of one piece."""
    return lambda size: before + piece * ((size - len(before) - len(after)) // len(piece)) + after


def token(before: str, piece: str, after: str = "") -> Callable[[int], str]:
    """A token whose claims are such a text."""
    return lambda size: f"e30.{b64url(repeated(before, piece, after)(size * 3 // 4 - 10).encode())}.AA"


def der(tag: int, content: bytes) -> bytes:
    """One element, its length in two octets."""
    return bytes((tag, 0x82)) + len(content).to_bytes(2, "big") + content


def fields(size: int) -> bytes:
    """A TNAuthList with one range of very many fields."""
    return der(0x30, der(0xA1, der(0x30, b"\x05\x00" * (size // 2 - 9))))


def entries(size: int) -> bytes:
    """A TNAuthList with very many numbers."""
    return der(0x30, b"\xa2\x03\x16\x011" * (size // 5 - 2))


def alternating(size: int) -> bytes:
    """A TNAuthList of single numbers that adjoin nowhere."""
    count = size // 13 - 2
    return der(0x30, b"".join(b"\xa2\x09\x16\x07%07d" % (2 * number) for number in range(count)))


def within_itself(data: bytes) -> bool:
    """The whole comparison of a delegate's list with its parent's."""
    return TnAuthList.from_der(data).encompasses(TnAuthList.from_der(data))


def values(size: int) -> bytes:
    """Claim constraints with very many permitted values."""
    claim = b"\x16\x01a" + der(0x30, b"\x0c\x011" * (size // 3 - 8))
    return der(0x30, der(0xA1, der(0x30, der(0x30, claim))))


HOSTILE: list[tuple[str, Callable[[Any], object], int, Callable[[int], Any]]] = [
    ("message: headers", usual_headers_of, LINE, repeated("INVITE x\r\n", "X-Any: x\r\n", "Priority: x\r\n\r\n")),
    ("message: known headers", usual_headers_of, LINE, repeated("INVITE x\r\n", "Via: x\r\n", "Priority: x\r\n\r\n")),
    ("message: header", usual_headers_of, LINE, repeated("INVITE x\r\nFrom:", " a", "\r\nDate: x\r\n\r\n")),
    ("message: space", usual_headers_of, LINE, repeated("INVITE x\r\nFrom:", " ", "\r\n\r\n")),
    ("identity: token", IdentityHeader.parse, MAX_LENGTH, repeated("", "a")),
    ("identity: blanks", IdentityHeader.parse, MAX_LENGTH, repeated("a;x", " ", "!")),
    ("identity: blanks after =", IdentityHeader.parse, MAX_LENGTH, repeated("a;x=", "\t")),
    ("identity: open quote", IdentityHeader.parse, MAX_LENGTH, repeated('a;x="', '\\"')),
    ("identity: open bracket", IdentityHeader.parse, MAX_LENGTH, repeated("a;info=<", "a")),
    ("identity: long name", IdentityHeader.parse, MAX_LENGTH, repeated("a;", "a", "(")),
    ("identity: folds", IdentityHeader.parse, MAX_LENGTH, repeated("a", "\r\n ")),
    ("identity: line ends", IdentityHeader.parse, MAX_LENGTH, repeated("a", "\r\n", "b")),
    ("token: dots", Passport.parse, MAX_TOKEN_LENGTH, repeated("", ".")),
    ("token: objects", Passport.parse, MAX_TOKEN_LENGTH, token("", '{"a":')),
    ("token: arrays side by side", Passport.parse, MAX_TOKEN_LENGTH, token('{"a":[', "[],", "[]]}")),
    ("token: quotes in an open text", Passport.parse, MAX_TOKEN_LENGTH, token('{"a":"', '\\"', "[" * 20)),
    ("token: quotes", Passport.parse, MAX_TOKEN_LENGTH, token("[" * 10 + "{" * 10, '"')),
    ("token: backslashes", Passport.parse, MAX_TOKEN_LENGTH, token("[" * 20 + '"', "\\")),
    ("token: line ends in a text", Passport.parse, MAX_TOKEN_LENGTH, token("[" * 20 + '"', '\\\n"')),
    ("token: digits", Passport.parse, MAX_TOKEN_LENGTH, token('{"a":', "9", "}")),
    ("token: members", Passport.parse, MAX_TOKEN_LENGTH, token('{"b":0', ',"a":0', "}")),
    ("address: quotes", NameAddr.parse, MAX_ADDRESS_LENGTH, repeated('"', '\\"')),
    ("address: open quote behind", NameAddr.parse, MAX_ADDRESS_LENGTH, repeated("<a>", ';"\\"')),
    ("address: parameters", NameAddr.parse, MAX_ADDRESS_LENGTH, repeated("<a>", ";", ",")),
    ("address: blanks", NameAddr.parse, MAX_ADDRESS_LENGTH, repeated("<a>", " ", ",")),
    ("address: quoted parameters", NameAddr.parse, MAX_ADDRESS_LENGTH, repeated("<a>;x", '=""', "<")),
    ("uri: at", Uri.parse, LINE, repeated("sip:", "@")),
    ("uri: percent", Uri.parse, LINE, repeated("sip:", "%4", "@h")),
    ("uri: parameters", Uri.parse, LINE, repeated("sip:a@h", ";x")),
    ("uri: quotes", Uri.parse, LINE, repeated("sip:a@h", ';"')),
    ("uri: host", Uri.parse, LINE, repeated("sip:", "[", "]")),
    ("uri: canonical", lambda text: Uri.parse(text).canonical(), LINE, repeated("sip:", "a%41", "@h")),
    ("list: commas", split_list, LINE, repeated("", ",")),
    ("list: open quotes", split_list, LINE, repeated(',"', '\\"')),
    ("list: brackets", split_list, LINE, repeated("", "<,")),
    ("list: backslashes", split_list, LINE, repeated(',"', "\\")),
    ("folds", unfold, LINE, repeated("", "\n ")),
    ("line ends", unfold, LINE, repeated("", "\r\n", "x")),
    ("verstat: separators", strip_verstat, LINE, repeated("", ";")),
    ("verstat: separators and blanks", strip_verstat, LINE, repeated("", "; ")),
    ("verstat: escaped separators", strip_verstat, LINE, repeated("", "%3B")),
    ("verstat: blanks", strip_verstat, LINE, repeated(";", " ")),
    ("verstat: layers", strip_verstat, LINE, lambda size: ";" * (size // 9) + "verstat " * (size // 9)),
    ("verstat: almost", strip_verstat, LINE, repeated("", ";versta")),
    ("verstat: gaps", strip_verstat, LINE, repeated(";verstat", " ", "x")),
    ("verstat: names", strip_verstat, LINE, repeated("", ";verstat")),
    ("reason: ppi", lambda text: about_ours(text, "..x"), LINE, repeated("STIR;", "ppi ")),
    ("reason: commas", lambda text: list(split_reasons([text])), LINE, repeated("", 'a;text="b",')),
    ("media keys: lines", media_keys, LINE, repeated("", "a=fingerprint:\n")),
    ("media keys: digest", media_keys, LINE, repeated("a=fingerprint:x AA", ":AA", ":")),
    ("media keys: blanks", media_keys, LINE, repeated("a=fingerprint:x ", " ", "x")),
    ("media keys: names", media_keys, LINE, repeated("a=fingerprint:", "x-", "\n")),
    ("x5u: host", x5u.check, x5u.MAX_LENGTH, repeated("https://", "a-", "_")),
    ("x5u: labels", x5u.check, x5u.MAX_LENGTH, repeated("https://", "a.", "-")),
    ("x5u: hyphens", x5u.check, x5u.MAX_LENGTH, repeated("https://a", "-", ".b")),
    ("request: headers", Request.parse, MAX_MESSAGE_LENGTH, lambda n: b"A a SIP/2.0\n" + b"a:\n" * (n // 3 - 5)),
    ("request: folds", Request.parse, MAX_MESSAGE_LENGTH, lambda n: b"A a SIP/2.0\na:" + b"\n " * (n // 2 - 8)),
    ("request: line ends", Request.parse, MAX_MESSAGE_LENGTH, lambda n: b"\r\n" * (n // 2)),
    ("request: method", Request.parse, MAX_MESSAGE_LENGTH, lambda n: b"A" * n),
    ("tnauthlist: entries", TnAuthList.from_der, LINE, entries),
    ("tnauthlist: fields", TnAuthList.from_der, LINE, fields),
    ("tnauthlist: within itself", within_itself, LINE, alternating),
    ("constraints: values", lambda data: ClaimConstraints.from_der(data, enhanced=True), CONSTRAINTS, values),
]  # fmt: skip


def seconds(parse: Callable[[Any], object], data: object) -> float:
    """Processor time of one call, and at least what a clock can tell."""
    start = process_time()
    with contextlib.suppress(ShakenError, ValueError):
        parse(data)
    return max(process_time() - start, 1e-4)


def growth(parse: Callable[[Any], object], whole: object, quarter: object) -> float:
    """How many times as long the whole takes as a quarter of it: the least times of both.

    What else runs on the machine makes single measurements longer, never shorter: it is measured
    until the ratio is that of linear growth, or has had every chance to be.
    """
    ratio, least = inf, [inf, inf]
    gc.collect()
    gc.disable()  # what it takes depends on all that the other tests keep
    try:
        for turn in range(60):
            least = [min(least[0], seconds(parse, whole)), min(least[1], seconds(parse, quarter))]
            ratio = least[0] / least[1]
            if turn > 1 and ratio < LINEAR:
                break
    finally:
        gc.enable()
    return ratio


@pytest.mark.parametrize(("parse", "longest", "make"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_cost_grows_with_length_and_not_with_its_square(
    parse: Callable[[Any], object], longest: int, make: Callable[[int], Any]
) -> None:
    whole, quarter = make(longest), make(longest // 4)
    assert len(whole) <= longest + 4
    assert len(whole) > 3.5 * len(quarter) - 100
    assert growth(parse, whole, quarter) < LINEAR


def test_the_square_is_seen() -> None:
    def squared(text: str) -> int:
        return sum(text.count("b", place) for place in range(0, len(text), 4))

    assert growth(squared, "a" * 12_000, "a" * 3_000) > LINEAR
