"""Canonical telephone numbers and identities (RFC 8224 §8.3, §8.5)."""

from __future__ import annotations

import re

import pytest

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.sip import Uri
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber, UriIdentity, canonical_party
from shaken_plugin.errors import NumberError, SipSyntaxError

PLAIN = DialPlan("999", None, None, frozenset({6}), re.compile("1[0-9]{2}"), re.compile("112"))
"""A country without prefixes."""


@pytest.mark.parametrize("digits", ["1", "12155551212", "*67", "#", "0" * 32])
def test_number_holds_digits_star_and_hash(digits: str) -> None:
    """RFC 8224 §8.3: tn-spec = 1*tn-char; tn-char = "#" / "*" / DIGIT."""
    assert str(TelephoneNumber(digits)) == digits


@pytest.mark.parametrize("digits", ["", "+1", "1 2", "1-2", "a", "1\n", "١٢", "0" * 33])
def test_other_texts_are_no_number(digits: str) -> None:
    with pytest.raises(NumberError):
        TelephoneNumber(digits)


@pytest.mark.parametrize(
    ("digits", "masked"),
    [("911", "911"), ("2001", "2001"), ("12155551212", "1215*****12"), ("1215555", "1215*55")],
)
def test_mask_hides_the_line_digits(digits: str, masked: str) -> None:
    assert TelephoneNumber(digits).masked == masked


@pytest.mark.parametrize(
    ("uri", "masked"),
    [
        ("sip:alice@example.com", "sip:***@example.com"),
        ("sip:a@b@c", "sip:***@c"),
        ("tel:+12155551212", "tel:***"),
        ("sip:12155551212", "sip:***"),
        ("urn:service:sos.police", "urn:service:sos.police"),
    ],
)
def test_mask_hides_the_user(uri: str, masked: str) -> None:
    identity = UriIdentity(uri)
    assert (identity.masked, str(identity)) == (masked, uri)


@pytest.mark.parametrize(
    ("dialled", "expected"),
    [
        ("+12155551212", "12155551212"),
        ("+1 (215) 555-12.12", "12155551212"),
        ("+442071838750", "442071838750"),
        ("911", "911"),
        ("211", "211"),
        ("*67", "*67"),
        ("*6712155551212", "*6712155551212"),
        ("#31#2155551212", "#31#2155551212"),
        ("011442071838750", "442071838750"),
        ("011", "011"),
        ("12155551212", "12155551212"),
        ("2155551212", "12155551212"),
        ("(215) 555-1212", "12155551212"),
        ("5551212", "5551212"),
        ("15551212", "15551212"),
        ("442071838750", "442071838750"),
        ("1234567890123456", "1234567890123456"),
        ("0", "0"),
    ],
)
def test_dialled_number_becomes_canonical_in_the_united_states(us: DialPlan, dialled: str, expected: str) -> None:
    assert us.canonical(dialled).digits == expected


@pytest.mark.parametrize(
    ("dialled", "expected"),
    [("02071838750", "442071838750"), ("0033142688053", "33142688053"), ("2071838750", "442071838750")],
)
def test_national_and_international_prefixes_are_the_countrys_own(dialled: str, expected: str) -> None:
    assert dial_plan("GB").canonical(dialled).digits == expected


@pytest.mark.parametrize(
    ("dialled", "expected"),
    [("123456", "999123456"), ("999123456", "999123456"), ("112", "112"), ("00123456", "00123456"), ("1", "1")],
)
def test_country_without_prefixes(dialled: str, expected: str) -> None:
    assert PLAIN.canonical(dialled).digits == expected


@pytest.mark.parametrize(
    ("dialled", "context", "expected"),
    [
        ("5551212", "+1215", "12155551212"),
        ("5551212", "+1-215", "12155551212"),
        ("5551212", "example.com", "5551212"),
        ("911", "+1", "911"),
        ("+12155551212", "+44", "12155551212"),
    ],
)
def test_context_completes_a_local_number(us: DialPlan, dialled: str, context: str, expected: str) -> None:
    """RFC 3966 §5.1.5."""
    assert us.canonical(dialled, context).digits == expected


@pytest.mark.parametrize(
    "dialled", ["", "+", "+1*", "+1234567890123456", "alice", "1;2", "12155551212x9", "+1\n", "-", "\uff11\uff12"]
)
def test_what_is_no_number_is_refused(us: DialPlan, dialled: str) -> None:
    with pytest.raises(NumberError):
        us.canonical(dialled)


@pytest.mark.parametrize(
    ("digits", "emergency"),
    [
        ("911", True),
        ("112", True),
        ("933", True),
        ("1911", True),
        ("9111", False),
        ("411", False),
        ("12155551911", False),
    ],
)
def test_emergency_numbers_are_known_with_and_without_country_code(us: DialPlan, digits: str, emergency: bool) -> None:
    assert us.is_emergency(TelephoneNumber(digits)) is emergency


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("tel:+12155551212", TelephoneNumber("12155551212")),
        ("tel:%2B12155551212", TelephoneNumber("12155551212")),
        ("tel:5551212;phone-context=+1215", TelephoneNumber("12155551212")),
        ("sip:5551212;phone-context=+1215@h;user=phone", TelephoneNumber("12155551212")),
        ("sip:5551212;phone-context=+1215@h", TelephoneNumber("12155551212")),
        ("sip:+12155551212@h;user=PHONE", TelephoneNumber("12155551212")),
        ("sip:+12155551212@h", TelephoneNumber("12155551212")),
        ("sips:%2b1(215)5551212:pw@h", TelephoneNumber("12155551212")),
        ("sip:*67@h", TelephoneNumber("*67")),
        ("sip:+12155551212;verstat=X@h", TelephoneNumber("12155551212")),
        ("sip:Alice@Example.com;user=ip", UriIdentity("sip:alice@example.com")),
        ("sip:1alice@h", UriIdentity("sip:1alice@h")),
        ("sip:jos%C3%A9@h", UriIdentity("sip:jos%C3%A9@h")),
        ("sip:2%0d%0a@h", UriIdentity("sip:2%0D%0A@h")),
        ("sip:-215@h", UriIdentity("sip:-215@h")),
        ("sip:h", UriIdentity("sip:h")),
        ("sip:anonymous@anonymous.invalid", UriIdentity("sip:anonymous@anonymous.invalid")),
        ("urn:service:sos", UriIdentity("urn:service:sos")),
    ],
)
def test_uri_names_a_number_or_an_identity(us: DialPlan, uri: str, expected: TelephoneNumber | UriIdentity) -> None:
    """RFC 8224 §8.3 (a): tel:, user=phone, or local policy makes it a number."""
    assert canonical_party(Uri.parse(uri), us) == expected


@pytest.mark.parametrize("uri", ["tel:alice", "tel:;phone-context=+1", "sip:alice@h;user=phone", "sip:+@h;user=phone"])
def test_uri_that_claims_a_number_and_has_none_is_refused(us: DialPlan, uri: str) -> None:
    with pytest.raises(NumberError):
        canonical_party(Uri.parse(uri), us)


@pytest.mark.parametrize("uri", ["tel:+1215%0d", "sip:+1215%0d@h;user=phone"])
def test_control_character_hidden_in_a_number_is_refused(us: DialPlan, uri: str) -> None:
    with pytest.raises(SipSyntaxError):
        canonical_party(Uri.parse(uri), us)


def test_numeric_user_stays_a_uri_where_policy_says_so() -> None:
    plan = dial_plan("US", numeric_users=False)
    assert canonical_party(Uri.parse("sip:2155551212@h"), plan) == UriIdentity("sip:2155551212@h")
    assert canonical_party(Uri.parse("sip:2155551212@h;user=phone"), plan) == TelephoneNumber("12155551212")
