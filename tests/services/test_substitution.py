"""Another caller ID in the place of the caller's: which headers say it, and which go."""

from __future__ import annotations

import re
from typing import Any

import pytest

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.sip import Request
from shaken_plugin.core.verstat import VERSTAT_PATTERN
from shaken_plugin.switch.actions import AddHeader, RemoveHeader
from shaken_plugin.switch.sealing import Seal
from shaken_plugin.switch.substitution import substitution, with_number

PLAN = dial_plan("US")
OWN, OTHER = "+12155551212", "12025550100"


def sent(headers: str, **choices: Any) -> dict[str, list[str]]:
    """The headers of a request after the substitution, each name once."""
    choices = {"places": ("asserted", "from"), **choices}
    request = Request.parse(
        f"INVITE sip:+12025550143@b.example SIP/2.0\r\n{headers}\r\n\r\n".encode("utf-8", "surrogateescape")
    )
    message = CallMessage.from_request(request)
    left = {name: list(request.all(name)) for name, _ in request.headers}
    for action in substitution(message, OTHER, PLAN, **choices):
        if isinstance(action, AddHeader):
            left.setdefault(action.name.lower(), []).append(action.value)
        else:
            assert action == RemoveHeader(action.name)
            assert left.pop(action.name.lower())
    return left


FULL = "\r\n".join(
    [
        f'From: "{OWN}" <sip:{OWN}@198.51.100.7:5070;user=phone>;tag=1',
        f'P-Asserted-Identity: "Acme" <sip:{OWN}@a.example;user=phone>, <tel:{OWN}>',
        f"P-Preferred-Identity: <sip:{OWN}@a.example>",
        f'Remote-Party-ID: "Acme" <sip:{OWN}@a.example>;party=calling;privacy=full',
        f"Diversion: <sip:{OWN}@a.example>;reason=x, <sip:+12155551299@a.example>;reason=y",
        f"Reply-To: <sip:{OWN}@a.example>",
        "Referred-By: <sip:+12155551213@a.example>",
    ]
)


def test_no_header_that_says_who_calls_says_the_number_of_before() -> None:
    left = sent(FULL)
    assert left == {
        "from": ["<sip:+12025550100@198.51.100.7:5070;user=phone>;tag=1"],
        "p-asserted-identity": ["<sip:+12025550100@a.example;user=phone>"],
        "p-preferred-identity": ["<sip:+12025550100@a.example>"],
        "remote-party-id": ["<sip:+12025550100@a.example>;party=calling;privacy=full"],
        "diversion": ["<sip:+12155551299@a.example>;reason=y"],
        "referred-by": ["<sip:+12155551213@a.example>"],
    }


def test_places_and_host() -> None:
    assert sent(FULL, places=("asserted",))["from"] == [f'"{OWN}" <sip:{OWN}@198.51.100.7:5070;user=phone>;tag=1']
    assert "p-asserted-identity" not in sent(FULL, places=("from",))
    assert sent(FULL, host="sip.example.net")["from"] == ["<sip:+12025550100@sip.example.net;user=phone>;tag=1"]


def test_an_invite_gets_an_asserted_identity_and_a_later_request_only_where_it_had_one() -> None:
    plain = f"From: <sip:{OWN}@a.example>;tag=1"
    assert sent(plain)["p-asserted-identity"] == ["<sip:+12025550100@a.example>"]
    assert sent(plain, within_dialog=True) == {"from": ["<sip:+12025550100@a.example>;tag=1"]}
    assert sent(FULL, within_dialog=True) == sent(FULL)


def test_who_withholds_the_number_goes_on_withholding_it() -> None:
    anonymous = '"Anonymous" <sip:anonymous@anonymous.invalid>;tag=1'
    left = sent(f"From: {anonymous}\r\nP-Asserted-Identity: <sip:{OWN}@a.example>\r\nPrivacy: id")
    assert left["from"] == [anonymous]
    assert left["p-asserted-identity"] == ["<sip:+12025550100@a.example>"]


def test_every_spelling_of_the_number_is_found() -> None:
    """National, escaped, as tel: and with separators: it is the number that counts."""
    spellings = ("sip:2155551212@h", "sip:%2B12155551212@h", "tel:+1-215-555-1212", "sips:1.215.555.1212@h;user=phone")
    for uri in spellings:
        left = sent(f"From: <sip:{OWN}@a.example>;tag=1\r\nReply-To: <{uri}>\r\nHistory-Info: <{uri}>;index=1")
        assert set(left) == {"from", "p-asserted-identity"}, uri


@pytest.mark.parametrize(
    ("uri", "there"),
    [
        ("sip:alice@a.example:5060;transport=tcp?Subject=x", "sip:+12025550100@a.example:5060;transport=tcp"),
        ("sips:+1215;verstat=x@a.example", "sips:+12025550100@a.example"),
        ("tel:+12155551212;verstat=TN-Validation-Passed", "tel:+12025550100"),
        ("sip:[2001:db8::1]:5060", "sip:+12025550100@[2001:db8::1]:5060"),
        ("sip:a@b@c", "sip:+12025550100@c"),
        ("http://a.example/x", "sip:+12025550100@invalid"),
        ("", "sip:+12025550100@invalid"),
    ],
)
def test_a_uri_with_another_number(uri: str, there: str) -> None:
    assert with_number(uri, OTHER) == there
    assert with_number(uri, OTHER, "h:5061").partition("@")[2].partition(";")[0] in {"h:5061", ""}


@pytest.mark.parametrize("value", ["nonsense <", "<sip:\udcff@h>;tag=1", ", ,", "<sip:a@h>;\udcff"])
def test_what_cannot_be_read_or_sent_is_not_written(value: str) -> None:
    left = sent(f"From: <sip:{OWN}@a.example>;tag=1\r\nRemote-Party-ID: {value}\r\nP-Asserted-Identity: {value}")
    assert "remote-party-id" not in left
    assert left["p-asserted-identity"] == ["<sip:+12025550100@a.example>"]
    assert sent(f"From: {value}\r\nCall-ID: x")["from"] == [value]


def test_foreign_verstat_does_not_stay_in_what_is_kept() -> None:
    verstat = ";verstat=TN-Validation-Passed"
    left = sent(
        f"From: <sip:{OWN}{verstat}@a.example{verstat}>{verstat};tag=1\r\n"
        f"Diversion: <sip:{OWN}@h>, <sip:+12155551299{verstat}@h>"
    )
    assert left["from"] == ["<sip:+12025550100@a.example>;tag=1"]
    assert not re.search(VERSTAT_PATTERN, str(left))


def test_what_is_sealed_is_opened_by_the_same_switch_for_the_same_call_alone() -> None:
    seal, text = Seal(), f'"É" <sip:{OWN}@a.example>;tag=1'
    sealed = seal.seal(text, "call-1")
    assert re.fullmatch("[A-Za-z0-9_-]+", sealed)
    assert OWN not in sealed
    assert seal.open(sealed, "call-1") == text
    assert sealed != seal.seal(text, "call-1")
    assert seal.open(sealed, "call-2") is None
    assert Seal().open(sealed, "call-1") is None
    assert [seal.open(bad, "call-1") for bad in ("", "A", sealed[:-1], "A" * 40, "x" * 5000)] == [None] * 5
