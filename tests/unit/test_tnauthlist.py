"""TNAuthList: the DER of RFC 8226 §9, and what is covered by it."""

from __future__ import annotations

import pytest

from shaken_plugin.core.tnauthlist import MAX_ENTRIES, TnAuthList, TnAuthListError, TnRange


def der(tag: int, *parts: bytes) -> bytes:
    """One element with a length in its shortest form."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def ia5(text: str) -> bytes:
    return der(0x16, text.encode("latin-1"))


def spc(text: str) -> bytes:
    return der(0xA0, ia5(text))


def numbers(start: str, count: bytes, *more: bytes) -> bytes:
    return der(0xA1, der(0x30, ia5(start), der(0x02, count), *more))


def one(text: str) -> bytes:
    return der(0xA2, ia5(text))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (bytes.fromhex("3008a006160431323334"), TnAuthList(("1234",))),
        (der(0x30, spc("709J"), spc("558a")), TnAuthList(("709J", "558a"))),
        (der(0x30, one("12155551212"), one("*#1")), TnAuthList(ones=("12155551212", "*#1"))),
        (der(0x30, numbers("12155551200", b"\x64")), TnAuthList(ranges=(TnRange("12155551200", 100),))),
        (der(0x30, numbers("100", b"\x02", ia5("later"))), TnAuthList(ranges=(TnRange("100", 2),))),
        (der(0x30, numbers("1000", b"\x00\xc8")), TnAuthList(ranges=(TnRange("1000", 200),))),
        (der(0x30, one("1"), spc("A"), one("2")), TnAuthList(("A",), (), ("1", "2"))),
        (der(0x30, *(one(f"1{n}") for n in range(100))), TnAuthList(ones=tuple(f"1{n}" for n in range(100)))),
    ],
    ids=["rfc9118", "two spcs", "ones", "range", "later fields", "count of two octets", "mixed", "long"],
)
def test_list_is_read(content: bytes, expected: TnAuthList) -> None:
    """RFC 8226 §9, with the EXPLICIT TAGS of Appendix A."""
    assert TnAuthList.from_der(content) == expected


GOOD = der(0x30, spc("709J"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x30",
        b"\x30\x00",
        GOOD[:-1],
        GOOD + b"\x00",
        der(0x31, spc("709J")),
        der(0x30, ia5("709J")),
        der(0x30, der(0xA3, ia5("1"))),
        der(0x30, der(0x80, b"709J")),
        der(0x30, der(0xA0, b"")),
        der(0x30, der(0xA0, ia5("709J"), ia5("709J"))),
        der(0x30, der(0xA0, der(0x0C, b"709J"))),
        der(0x30, spc("")),
        der(0x30, spc("70 9J")),
        der(0x30, spc("70\xe9J")),
        der(0x30, spc("A" * 65)),
        der(0x30, one("")),
        der(0x30, one("+12155551212")),
        der(0x30, one("1" * 16)),
        der(0x30, der(0xA2, der(0x13, b"12155551212"))),
        der(0x30, der(0xA1, ia5("100"))),
        der(0x30, der(0xA1, der(0x30, ia5("100")))),
        der(0x30, der(0xA1, der(0x30, der(0x02, b"\x02"), ia5("100")))),
        der(0x30, numbers("100", b"")),
        der(0x30, numbers("100", b"\x01")),
        der(0x30, numbers("100", b"\x00")),
        der(0x30, numbers("100", b"\xff")),
        der(0x30, numbers("100", b"\x00\x02")),
        der(0x30, numbers("100", b"\x00" + b"\xff" * 9)),
        der(0x30, numbers("10*", b"\x02")),
        der(0x30, numbers("", b"\x02")),
        der(0x30, numbers("999", b"\x02")),
        der(0x30, numbers("100", b"\x02", b"\x16")),
        b"\x30\x80" + spc("709J") + b"\x00\x00",
        b"\x30\x81\x08" + spc("709J"),
        b"\x30\x82\x00\x08" + spc("709J"),
        b"\x30\x82\x00\xc8" + one("1") * 40,
        b"\x30\x84\x00\x00\x00\x08" + spc("709J"),
        b"\x30\x83\xff\xff\xff",
        b"\x30\x82\xff",
        b"\x30\xff" + b"\xff" * 200,
        b"\x30\x0a\xa0\x06\x16\x04709J\xa0",
    ],
)
def test_anything_but_der_of_a_list_is_refused(content: bytes) -> None:
    """Real certificates with a wrong length or a bare string exist; they authorise nobody."""
    with pytest.raises(TnAuthListError):
        TnAuthList.from_der(content)


def test_number_of_entries_is_limited() -> None:
    most = der(0x30, one("1") * MAX_ENTRIES)
    assert len(TnAuthList.from_der(most).ones) == MAX_ENTRIES
    with pytest.raises(TnAuthListError, match="more than 10000 entries"):
        TnAuthList.from_der(der(0x30, one("1") * (MAX_ENTRIES + 1)))


@pytest.mark.parametrize(
    "authorised",
    [
        TnAuthList(("709J",)),
        TnAuthList(("709J", "123A"), (TnRange("12155551200", 100), TnRange("0", 10)), ("*67", "12155551212")),
        TnAuthList(ranges=(TnRange("1000000", 127), TnRange("1000000", 128), TnRange("1000000", 70_000))),
        TnAuthList(ones=tuple(str(10_000 + number) for number in range(9_000))),
    ],
)
def test_list_is_written_as_it_is_read(authorised: TnAuthList) -> None:
    assert TnAuthList.from_der(authorised.to_der()) == authorised


@pytest.mark.parametrize(
    ("start", "count"),
    [
        ("", 2),
        ("1*", 2),
        ("1" * 16, 2),
        ("1", 1),
        ("1", 0),
        ("1", -1),
        ("9", 2),
        ("12155559999", 10**11),
        ("\u0661", 2),
    ],
)
def test_range_that_is_none_cannot_exist(start: str, count: int) -> None:
    """RFC 8226 §9: count is 2 or more, and the range keeps to the length of its start."""
    with pytest.raises(TnAuthListError):
        TnRange(start, count)


@pytest.mark.parametrize(
    ("digits", "covered"),
    [
        ("12155551199", False),
        ("12155551200", True),
        ("12155551299", True),
        ("12155551300", False),
        ("2155551250", False),
        ("012155551250", False),
        ("", False),
    ],
)
def test_range_covers_exactly_its_count_of_numbers(digits: str, covered: bool) -> None:
    numbers = TnAuthList(ranges=(TnRange("12155551200", 100),))
    assert numbers.lists(digits) is covered


def test_range_may_reach_the_last_number_of_its_length() -> None:
    last = TnAuthList(ranges=(TnRange("98", 2),))
    assert [last.lists(digits) for digits in ("97", "98", "99", "100", "098")] == [False, True, True, False, False]


def test_entries_add_up_and_other_texts_are_not_listed() -> None:
    """RFC 8226 §9: any entry that matches authorises."""
    both = TnAuthList(("709J",), (TnRange("100", 10), TnRange("105", 10)), ("*67",))
    assert all(both.lists(digits) for digits in ("100", "105", "114", "*67"))
    assert not any(both.lists(digits) for digits in ("115", "10*", "709J", "\u0661\u0660\u0660"))
