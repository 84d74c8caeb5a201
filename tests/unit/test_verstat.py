"""verstat: no stranger's gets through, and ours stands where it belongs (3GPP TS 24.229 §7.2A.20)."""

from __future__ import annotations

import pytest

from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber, UriIdentity
from shaken_plugin.core.verstat import (
    asserted_from,
    asserted_from_number,
    mark_asserted,
    mark_from,
    mark_single,
    strip_verstat,
    with_verstat,
)
from tests.builders import DEST, ORIG

PASSED = "TN-Validation-Passed"
CALLER = TelephoneNumber(ORIG)


@pytest.mark.parametrize(
    ("value", "stripped"),
    [
        (f"<sip:+1215;verstat={PASSED}@h>", "<sip:+1215@h>"),
        (f"<tel:+1215;verstat={PASSED}>", "<tel:+1215>"),
        ("<tel:+1215;VerStat>", "<tel:+1215>"),
        ("<tel:+1;verstat=A;verstat=B;cpc=x>", "<tel:+1;cpc=x>"),
        ("<tel:+1; verstat = A ;cpc=x>", "<tel:+1 ;cpc=x>"),
        ("<tel:+1;\tverstat\t=\tA>", "<tel:+1>"),
        ("<sip:+1@h>;\r\n verstat\r\n =\r\n A;tag=1", "<sip:+1@h>;tag=1"),
        ("<sip:+1%3bverstat%3dA@h>", "<sip:+1@h>"),
        ("<sip:+1%3B;%3Bverstat%3DA@h>", "<sip:+1@h>"),
        ("<sip:+1@h>;verstat=A", "<sip:+1@h>"),
        ("<tel:+1;;verstat verstat=A>", "<tel:+1 verstat=A>"),
        ("<tel:+1; ;verstat= verstat=A>", "<tel:+1=A>"),
        ("<tel:+1;ver;verstatstat=A>", "<tel:+1;ver>"),
        ("<tel:+1;verstats=A>", "<tel:+1>"),
        ("<sip:+1;%76erst%41%54=A@h>", "<sip:+1@h>"),
        ("<tel:+1;verstat=%22A%22>", "<tel:+1>"),
    ],
)
def test_foreign_verstat_is_taken_out(value: str, stripped: str) -> None:
    assert strip_verstat(value) == stripped
    assert strip_verstat(stripped) == stripped


@pytest.mark.parametrize(
    "value",
    [
        "",
        "<sip:+1215@h>;tag=1",
        "<sip:verstat=A@h>",
        "<tel:+1;xverstat=A>",
        "<tel:+1;ver=stat>",
        "<tel:+1;cpc=verstat>",
        "<sip:+1%3b;%3@h;;>",
        '"verstat" <tel:+1>',
    ],
)
def test_everything_else_stays(value: str) -> None:
    assert strip_verstat(value) == value


@pytest.mark.parametrize(
    ("uri", "marked"),
    [
        ("tel:+1215", f"tel:+1215;verstat={PASSED}"),
        ("TEL:+1215;cpc=x", f"TEL:+1215;cpc=x;verstat={PASSED}"),
        ("sip:+1215@h;user=phone", f"sip:+1215;verstat={PASSED}@h;user=phone"),
        ("sips:+1215;npdi:pw@h", f"sips:+1215;npdi;verstat={PASSED}:pw@h"),
        ("sip:h", None),
        ("nothing", None),
    ],
)
def test_verstat_stands_with_the_telephone_number(uri: str, marked: str | None) -> None:
    """A parameter of the tel: URI; in a sip: URI it therefore stands in front of the @."""
    assert with_verstat(uri, PASSED) == marked


@pytest.mark.parametrize(
    ("lines", "verified", "expected"),
    [
        (["<tel:+12155551212>"], CALLER, [f"<tel:+12155551212;verstat={PASSED}>"]),
        (["<tel:+12155551212;verstat=No-TN-Validation>"], CALLER, [f"<tel:+12155551212;verstat={PASSED}>"]),
        (["sip:+12155551212@h"], CALLER, [f"<sip:+12155551212;verstat={PASSED}@h>"]),
        (
            ['"A, B" <sip:a@h>, <tel:+12155551212>', "<sip:+12155551212@h>"],
            CALLER,
            ['"A, B" <sip:a@h>', f"<tel:+12155551212;verstat={PASSED}>", f"<sip:+12155551212;verstat={PASSED}@h>"],
        ),
        (
            ["<tel:+12025550143;verstat=A>", "<tel:+12155551212>"],
            CALLER,
            ["<tel:+12025550143>", f"<tel:+12155551212;verstat={PASSED}>"],
        ),
        (
            ["<sip:a@h>", "<tel:+12025550143>", "<tel:+12025550144>"],
            CALLER,
            ["<sip:a@h>", f"<tel:+12025550143;verstat={PASSED}>", "<tel:+12025550144>"],
        ),
        (["<tel:+12025550143>"], None, [f"<tel:+12025550143;verstat={PASSED}>"]),
        (["<sip:a@h>"], UriIdentity("sip:a@h"), [f"<sip:a;verstat={PASSED}@h>"]),
        (["<sip:h>"], UriIdentity("sip:h"), ["<sip:h>"]),
        (["<sip:a@h>"], None, ["<sip:a@h>"]),
        (["<sip:+1@h;verstat=A", "<http://x>"], None, ["<sip:+1@h", "<http://x>"]),
        ([], CALLER, []),
    ],
    ids=["its number", "foreign replaced", "no brackets", "all that name it", "only what names it",
         "else the first number", "nothing verified", "uri", "no user", "no number", "unreadable", "none"],
)  # fmt: skip
def test_asserted_identities_are_marked(
    us: DialPlan, lines: list[str], verified: Party | None, expected: list[str]
) -> None:
    assert mark_asserted(lines, verified, PASSED, us) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"\udcff" <tel:+12155551212>', [f"<tel:+12155551212;verstat={PASSED}>"]),
        ('"<\udcff>" <tel:+12155551212>', [f"<tel:+12155551212;verstat={PASSED}>"]),
        ("<tel:+1\udcff>", []),
        ("<tel:+1>;x=\udcff", []),
        ("tel:+1\udcff", []),
        ("<tel:+1\udcff", []),
        ("\udcff", []),
    ],
)
def test_what_cannot_be_sent_again_goes(us: DialPlan, value: str, expected: list[str]) -> None:
    assert mark_asserted([value], CALLER, PASSED, us) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f'"A" <sip:+{ORIG};verstat=X@h>;tag=1', f'"A" <sip:+{ORIG};verstat={PASSED}@h>;tag=1'),
        (f"sip:+{ORIG}@h;tag=1", f"<sip:+{ORIG};verstat={PASSED}@h>;tag=1"),
        (f"<tel:+{DEST}>;tag=1", f"<tel:+{DEST};verstat={PASSED}>;tag=1"),
        (f'"\udcff" <tel:+{DEST}>;tag=1', f"<tel:+{DEST};verstat={PASSED}>;tag=1"),
        (f'"é" <tel:+{DEST}>;tag=1', f'"é" <tel:+{DEST};verstat={PASSED}>;tag=1'),
        ("<sip:alice@h>;tag=1", None),
        ("<tel:alice>", None),
        ("<sip:+1@h", None),
        ("", None),
    ],
)
def test_from_is_marked_where_it_names_a_number(us: DialPlan, value: str, expected: str | None) -> None:
    assert mark_from(value, PASSED, us) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f'"A" <sip:+{ORIG};verstat=X@h>;tag=1', f"<sip:+{ORIG};verstat={PASSED}@h>"),
        (f"tel:+{ORIG};tag=1", f"<tel:+{ORIG};verstat={PASSED}>"),
        ("<sip:alice@h>", None),
        ("<sip:+1@h", None),
    ],
)
def test_asserted_identity_is_made_from_from_without_its_tag(us: DialPlan, value: str, expected: str | None) -> None:
    assert asserted_from(value, PASSED, us) == expected


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (f'"Caller" <sip:+{ORIG}@h.example;x=y>;tag=1-a', f"<sip:+{ORIG};verstat={PASSED}@h.example;x=y>"),
        (f"<sips:{ORIG}@192.0.2.1:5061>", f"<sips:{ORIG};verstat={PASSED}@192.0.2.1:5061>"),
        (f"<sip:+{ORIG}@h;verstat=X>;tag=1", None),
        (f"<tel:+{ORIG}>;tag=1", None),
        (f"<sip:+{ORIG}@h>;tag=1;x=y", None),
    ],
)
def test_a_usual_from_is_made_an_asserted_identity_by_one_look(us: DialPlan, value: str, made: str | None) -> None:
    assert asserted_from_number(value, PASSED) == made
    assert made in {None, asserted_from(value, PASSED, us)}


@pytest.mark.parametrize(
    ("line", "marked"),
    [
        (" <tel:+12155551212> ", ["<tel:+12155551212;verstat=No-TN-Validation>"]),
        ("<sip:+12155551212@a.example>", ["<sip:+12155551212;verstat=No-TN-Validation@a.example>"]),
        ("<sip:a@b>,<sip:c@b>", None),
        ("é <tel:+12155551212>", None),
        ("<tel:+12155551212;verstat=X>", None),
        ("\x0b<tel:+12155551212>", None),
    ],
)
def test_a_single_plain_value_is_marked_and_all_else_is_looked_at(line: str, marked: list[str] | None) -> None:
    assert mark_single(line, "No-TN-Validation") == marked
