"""The Identity header: its grammar, what may vary, and what two readers would see differently."""

from __future__ import annotations

import pytest

from shaken_plugin.core.identity import MAX_LENGTH, MAX_PARAMS, IdentityHeader
from shaken_plugin.errors import FailureCode, VerificationFailure

URL = "https://cr.example.com/709j.pem"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"a.b.c;info=<{URL}>", IdentityHeader("a.b.c", URL)),
        (f"a.b.c;info=<{URL}>;alg=ES256;ppt=shaken", IdentityHeader("a.b.c", URL, "ES256", "shaken")),
        (f'a.b.c;info=<{URL}>;alg="ES256";ppt="shaken"', IdentityHeader("a.b.c", URL, "ES256", "shaken")),
        (f"a.b.c;ppt=shaken;alg=ES256;info=<{URL}>", IdentityHeader("a.b.c", URL, "ES256", "shaken")),
        (f"..c;info=<{URL}>", IdentityHeader("..c", URL)),
        ("a.b.c", IdentityHeader("a.b.c", None)),
        (f" a.b.c \t; INFO = <{URL}> ;\tPpt = shaken ", IdentityHeader("a.b.c", URL, None, "shaken")),
        (f"a.b.c;\r\n info=<{URL}>;\r\n\tppt=shaken", IdentityHeader("a.b.c", URL, None, "shaken")),
        (f"a.b.c;info=<{URL}>;canon;x=1", IdentityHeader("a.b.c", URL, extensions=(("canon", None), ("x", "1")))),
        ('a.b.c;x="1\\"2;3"', IdentityHeader("a.b.c", None, extensions=(("x", '1"2;3'),))),
        ("a.b.c;x=<y>", IdentityHeader("a.b.c", None, extensions=(("x", "<y>"),))),
        ('a.b.c;x=""', IdentityHeader("a.b.c", None, extensions=(("x", ""),))),
    ],
)
def test_header_is_taken_apart(value: str, expected: IdentityHeader) -> None:
    """RFC 8224 §4; parameters in any order, ppt and alg quoted or not."""
    assert IdentityHeader.parse(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ";info=<x>",
        "a b;info=<x>",
        "a+b/c=;info=<x>",
        "a.b.c==;info=<x>",
        "ä.b.c",
        "a.b.c info=<x>",
        "a.b.c,d.e.f",
        "a.b.c;",
        "a.b.c;;x",
        "a.b.c;=x",
        "a.b.c;info",
        "a.b.c;info=https://x/y",
        'a.b.c;info="https://x/y"',
        "a.b.c;info=<>",
        "a.b.c;info=<x",
        "a.b.c;info=<a b>",
        'a.b.c;info=<a"b>',
        "a.b.c;info=<a\r\nb>",
        "a.b.c;info=<x>y",
        "a.b.c;ppt",
        "a.b.c;ppt=",
        'a.b.c;ppt=""',
        "a.b.c;alg",
        'a.b.c;alg="ES256',
        'a.b.c;x="\\"',
        "a.b.c;x=1\n2",
        "a.b.c;b(=1",
    ],
)
def test_header_that_breaks_the_grammar_is_refused(value: str) -> None:
    with pytest.raises(VerificationFailure) as caught:
        IdentityHeader.parse(value)
    assert caught.value.code is FailureCode.IDENTITY_MALFORMED


@pytest.mark.parametrize("name", ["info", "alg", "ppt", "x"])
def test_parameter_that_stands_twice_is_refused(name: str) -> None:
    """Two readers would pick different ones."""
    once = f";{name}=<u>" if name == "info" else f";{name}=u"
    IdentityHeader.parse("a.b.c" + once)
    with pytest.raises(VerificationFailure, match="stands twice") as caught:
        IdentityHeader.parse("a.b.c" + once + once.upper())
    assert caught.value.code is FailureCode.IDENTITY_MALFORMED


def test_number_of_parameters_is_limited() -> None:
    most = "".join(f";p{number}" for number in range(MAX_PARAMS))
    assert len(IdentityHeader.parse("a" + most).extensions) == MAX_PARAMS
    with pytest.raises(VerificationFailure, match="more than 16 parameters"):
        IdentityHeader.parse("a" + most + ";one-more")


def test_length_is_limited() -> None:
    assert IdentityHeader.parse("a" * MAX_LENGTH).digest == "a" * MAX_LENGTH
    with pytest.raises(VerificationFailure) as caught:
        IdentityHeader.parse("a" * (MAX_LENGTH + 1))
    assert caught.value.code is FailureCode.IDENTITY_TOO_LARGE


def test_failure_names_the_place() -> None:
    with pytest.raises(VerificationFailure, match="not a parameter at character 6"):
        IdentityHeader.parse("a.b.c;;")


@pytest.mark.parametrize(
    ("header", "quoted", "bare"),
    [
        (
            IdentityHeader("a.b.c", URL, "ES256", "shaken"),
            f'a.b.c;info=<{URL}>;alg=ES256;ppt="shaken"',
            f"a.b.c;info=<{URL}>;alg=ES256;ppt=shaken",
        ),
        (IdentityHeader("a.b.c", URL), f"a.b.c;info=<{URL}>", f"a.b.c;info=<{URL}>"),
    ],
)
def test_header_is_written_with_info_first_and_ppt_quoted_or_not(
    header: IdentityHeader, quoted: str, bare: str
) -> None:
    """RFC 8224 §4 has info in front and ppt as a token; most live networks quote it."""
    assert (header.format(), header.format(quote_ppt=False)) == (quoted, bare)
    assert IdentityHeader.parse(quoted) == IdentityHeader.parse(bare) == header


@pytest.mark.parametrize("value", ['"\niv"', '"a\rb"', '"a\x00b"', '"ES 256"', '"a;b"', '""', "ä"])
@pytest.mark.parametrize("name", ["alg", "ppt"])
def test_alg_and_ppt_are_tokens_also_in_quotes(name: str, value: str) -> None:
    """A line break in quotes was found by fuzzing: written again, it would have begun another line."""
    with pytest.raises(VerificationFailure) as caught:
        IdentityHeader.parse(f"Dg;info=<{URL}>;{name}={value}")
    assert caught.value.code is FailureCode.IDENTITY_MALFORMED
