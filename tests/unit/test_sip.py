"""Header lists, addresses, dates and whole requests (RFC 3261 §25.1)."""

from __future__ import annotations

import pytest

from shaken_plugin.core.sip import (
    MAX_ADDRESS_LENGTH,
    MAX_MESSAGE_LENGTH,
    NameAddr,
    Request,
    format_date,
    parse_date,
    split_list,
    unfold,
)
from shaken_plugin.errors import SipSyntaxError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("  a\r\n", "a"),
        ("a\r\n b", "a b"),
        ("a\n\t \tb", "a b"),
        ("a\r\n b\r\n  c", "a b c"),
        ("a\nb", "a\nb"),
    ],
)
def test_folded_value_becomes_one_line(value: str, expected: str) -> None:
    """RFC 3261 §7.3.1: a line that begins with white space continues the one before."""
    assert unfold(value) == expected


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("", []),
        (" \t ", []),
        (" a ", ["a"]),
        ("a, b ,c", ["a", "b", "c"]),
        (",a,,b,", ["a", "b"]),
        ('"x, y" <sip:a@b>, <sip:c@d>', ['"x, y" <sip:a@b>', "<sip:c@d>"]),
        ('"a\\", b" <sip:x@y>,z', ['"a\\", b" <sip:x@y>', "z"]),
        ('"a\\\\", b', ['"a\\\\"', "b"]),
        ("<sip:a@b;x=1,2>,c", ["<sip:a@b;x=1,2>", "c"]),
        ('<sip:"@b>,c', ['<sip:"@b>', "c"]),
        ('"never closed, a, b', ['"never closed, a, b']),
        ("<never closed, a", ["<never closed, a"]),
        ("a\\,b", ["a\\", "b"]),
    ],
)
def test_list_is_split_at_commas_outside_quotes_and_brackets(value: str, parts: list[str]) -> None:
    """RFC 3261 §7.3.1."""
    assert split_list(value) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<sip:a@b>", ("<", "sip:a@b", ">")),
        ("sip:a@b", ("", "sip:a@b", "")),
        ("sip:a@b;tag=1", ("", "sip:a@b", ";tag=1")),
        ("sip:a@b ;tag=1", ("", "sip:a@b", ";tag=1")),
        ('"A. <B>" <sip:a@b>;tag=1', ('"A. <B>" <', "sip:a@b", ">;tag=1")),
        ('"a\\"b"<sip:a@b>', ('"a\\"b"<', "sip:a@b", ">")),
        ('""<sip:a@b>', ('""<', "sip:a@b", ">")),
        ("Alice, Dr. <sip:a@b> ;tag=1", ("Alice, Dr. <", "sip:a@b", "> ;tag=1")),
        ("Ä B <sip:a@b>", ("Ä B <", "sip:a@b", ">")),
        ("< sip:a@b >", ("<", "sip:a@b", ">")),
        ("A\r\n <sip:a@b>;\r\n tag=1", ("A <", "sip:a@b", ">; tag=1")),
        ('<sip:a@b>;x="a;b, <c>\\"";y', ("<", "sip:a@b", '>;x="a;b, <c>\\"";y')),
        ("<sip:a@b;lr?x=y>", ("<", "sip:a@b;lr?x=y", ">")),
    ],
)
def test_address_is_taken_apart(text: str, parts: tuple[str, str, str]) -> None:
    """RFC 3261 §25.1 name-addr and addr-spec, §20.10 for the parameters of an addr-spec."""
    address = NameAddr.parse(text)
    assert (address.prefix, address.uri, address.suffix) == parts


@pytest.mark.parametrize(
    "text",
    [
        '"unclosed <sip:a@b>',
        '"closed" sip:a@b',
        '"closed" x <sip:a@b>',
        "a:b <sip:a@b>",
        "a;b <sip:a@b>",
        "a@b <sip:a@b>",
        'a"b" <sip:a@b>',
        "a> <sip:a@b>",
        "<sip:a@b",
        "<sip:a@b>\x00",
        "A\x7f <sip:a@b>",
        "A\n<sip:a@b>",
        "<sip:a@b> junk",
        "<sip:a@b>junk;tag=1",
        "<sip:a@b>, <sip:c@d>;tag=1",
        "<sip:a@b>;x=<y>",
        '<sip:a@b>;x="unclosed',
        "sip:a@b;x=a,sip:c@d",
        "sip:a@b, sip:c@d;tag=1",
        "sip:a@b>;tag=1",
        "x" * (MAX_ADDRESS_LENGTH + 1),
    ],
)
def test_address_that_breaks_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        NameAddr.parse(text)


def test_longest_address_is_read() -> None:
    uri = "sip:" + "a" * (MAX_ADDRESS_LENGTH - 6)
    assert NameAddr.parse(f"<{uri}>").uri == uri


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"A" <sip:a@b>;tag=1', '"A" <tel:+1>;tag=1'),
        ("sip:a@b;tag=1", "<tel:+1>;tag=1"),
        ("<sip:a@b>", "<tel:+1>"),
    ],
)
def test_only_the_uri_of_an_address_changes(text: str, expected: str) -> None:
    assert NameAddr.parse(text).with_uri("tel:+1") == expected


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("<sip:a@b>", None),
        ("<sip:a@b;tag=no>", None),
        ("<sip:a@b>;tag=1", "1"),
        ("<sip:a@b>; TAG = 1 ;tag=2", "1"),
        ("<sip:a@b>;tag", ""),
        ("sip:a@b;tag=1", "1"),
        ('<sip:a@b>;x="y;tag=no"', None),
        ('<sip:a@b>;x="y\\";tag=no";tag=1', "1"),
        ('"x;tag=no" <sip:a@b>', None),
        ("<sip:a@b>;;=;tag=1", "1"),
    ],
)
def test_header_parameter_is_found_where_it_stands_only(text: str, tag: str | None) -> None:
    """RFC 3261 §25.1: a quoted string is one value, whatever stands in it."""
    assert NameAddr.parse(text).param("tag") == tag


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (" Sat, 13 Nov 2010 23:29:00 GMT ", 1_289_690_940),
        ("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_208_000),
        ("Wed, 18 Nov 2026 11:06:40 GMT", 1_795_000_000),
        ("Sun, 01 Jan 1950 00:00:00 GMT", -631_152_000),
    ],
)
def test_date_is_read(value: str, moment: int) -> None:
    """RFC 3261 §20.17."""
    assert parse_date(value) == moment


@pytest.mark.parametrize(
    "value",
    [
        "",
        "now",
        "1795000000",
        "Sat, 13 Nov 2010 23:29:00 UTC",
        "Sat, 13 Nov 2010 23:29:00 +0000",
        "Sat, 13 Nov 10 23:29:00 GMT",
        "Sat, 3 Nov 2010 23:29:00 GMT",
        "sat, 13 nov 2010 23:29:00 gmt",
        "Sat, 13  Nov 2010 23:29:00 GMT",
        "Thu, 29 Feb 2025 12:00:00 GMT",
        "Fri, 31 Apr 2026 12:00:00 GMT",
        "Fri, 01 Jan 2021 24:00:00 GMT",
        "Fri, 01 Jan 2021 23:59:60 GMT",
        "Sat, 01 Jan 0000 00:00:00 GMT",
        "Sat, 13 Nov 2010 23:29:00 GMT, Sat, 13 Nov 2010 23:29:00 GMT",
        "Sat, ١٣ Nov 2010 23:29:00 GMT",
    ],
)
def test_date_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SipSyntaxError):
        parse_date(value)


def test_date_is_written_in_english_and_without_a_fraction() -> None:
    assert format_date(1_795_000_000.9) == "Wed, 18 Nov 2026 11:06:40 GMT"
    assert format_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


INVITE = (
    b"INVITE sip:+12025550143@b.example.com SIP/2.0\r\n"
    b"f: <sip:a@b>;tag=1\r\n"
    b"To  :\t<sip:c@d>\r\n"
    b"Identity: one\r\n"
    b"y: two;\r\n  info=<x>\r\n"
    b"Subject:\r\n"
    b"\r\n"
    b"v=0\r\na=x\r\n"
)


def test_request_is_read_with_full_names_and_unfolded_values() -> None:
    """RFC 3261 §7.3.1 folding, §7.3.3 and RFC 8224 §13.1 compact names."""
    request = Request.parse(INVITE)
    assert (request.method, request.uri) == ("INVITE", "sip:+12025550143@b.example.com")
    assert request.all("identity") == ("one", "two; info=<x>")
    assert (request.first("from"), request.first("to")) == ("<sip:a@b>;tag=1", "<sip:c@d>")
    assert (request.first("subject"), request.first("date")) == ("", None)
    assert request.body == "v=0\na=x\n"


@pytest.mark.parametrize(
    "data",
    [
        INVITE.replace(b"\r\n", b"\n"),
        b"\r\n\r\n" + INVITE,
        INVITE.partition(b"\r\n\r\n")[0] + b"\r\n",
        INVITE.partition(b"\r\n\r\n")[0],
    ],
    ids=["lf", "leading empty lines", "no empty line", "no line end"],
)
def test_sloppy_captures_are_read(data: bytes) -> None:
    assert Request.parse(data).headers == Request.parse(INVITE).headers


def test_bytes_that_are_no_text_survive_for_whoever_refuses_them() -> None:
    request = Request.parse(b"INVITE sip:a SIP/2.0\r\nIdentity: \xff\xfe\r\n\r\n")
    assert request.first("identity") == "\udcff\udcfe"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SIP/2.0 200 OK\r\n\r\n",
        b"INVITE sip:a\r\n\r\n",
        b"INVITE  sip:a SIP/2.0\r\n\r\n",
        b"invite sip:a SIP/2.0\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\nno colon\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\nbad name: x\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\n: x\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\n" + b"x" * MAX_MESSAGE_LENGTH,
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(SipSyntaxError):
        Request.parse(data)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<sip:a@b>", ""),
        ("sip:a@b", ""),
        ("Alice <sip:a@b>", "Alice"),
        ("Alice and  Bob <sip:a@b>;tag=1", "Alice and  Bob"),
        ('"Alice" <sip:a@b>', "Alice"),
        ('"A \\"B\\" \\\\ <x>"<sip:a@b>', 'A "B" \\ <x>'),
        ('"" <sip:a@b>', ""),
    ],
)
def test_display_name(text: str, name: str) -> None:
    """RFC 3261 §25.1."""
    assert NameAddr.parse(text).display_name == name
