"""SIP, tel and urn URIs, and their canonical form (RFC 3261 §19.1, RFC 3966 §3, RFC 8224 §8.5)."""

from __future__ import annotations

import pytest

from shaken_plugin.core.sip import Uri
from shaken_plugin.errors import SipSyntaxError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sip:host", Uri("sip", "", {}, "host", {})),
        ("SIPS:Alice@Host.Example:5061", Uri("sips", "Alice", {}, "host.example", {})),
        ("sip:a:pw@h", Uri("sip", "a", {}, "h", {})),
        ("sip:a;b=c:pw@h", Uri("sip", "a", {"b": "c"}, "h", {})),
        ("sip:+1;Verstat=X;npdi@h;User=phone", Uri("sip", "+1", {"verstat": "X", "npdi": ""}, "h", {"user": "phone"})),
        ("sip:a@[2001:db8::1]:5060;lr", Uri("sip", "a", {}, "[2001:db8::1]", {"lr": ""})),
        ("sip:a@h?Subject=x;user=no", Uri("sip", "a", {}, "h", {})),
        ("sip:a@h;x=1?y=a@b", Uri("sip", "a", {}, "h", {"x": "1"})),
        ("sip:a?b/c&d=e@h", Uri("sip", "a?b/c&d=e", {}, "h", {})),
        ("sip:a%40b@h", Uri("sip", "a%40b", {}, "h", {})),
        ("sip:a;\u00a0b=\u00a0c ; d = e @h", Uri("sip", "a", {"\u00a0b": "\u00a0c", "d": "e"}, "h", {})),
        ("sip:a@h;x=1;x=2", Uri("sip", "a", {}, "h", {"x": "1"})),
        ('sip:a@h;x="1;y=2', Uri("sip", "a", {}, "h", {"x": '"1;y=2'})),
        ("tel:+1-215-555-1212;ext=7", Uri("tel", "+1-215-555-1212", {"ext": "7"}, "", {})),
        ("tel:911", Uri("tel", "911", {}, "", {})),
        ("URN:service:sos.fire", Uri("urn", "service:sos.fire", {}, "", {})),
    ],
)
def test_uri_is_taken_apart(text: str, expected: Uri) -> None:
    assert Uri.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip",
        "sip:",
        "tel:",
        "http://example.com",
        "mailto:a@b",
        "sip:a@b@c",
        "sip:a@b@c?d",
        "sip:@h",
        "sip:a@",
        "sip:a@h:port",
        "sip:a@h:123456",
        "sip:a@h ",
        "sip:a@h/x",
        "sip:a@[::1",
        "sip:a@hö",
        "sip:jö@h",
        "sip:a\r\nb@h",
        "sip:a\x00@h",
        "sip:a\udcff@h",
        "sip:a%@h",
        "sip:a%4@h",
        "sip:a%zz@h",
        "tel:+1\n2",
        "tel:%",
        "urn:\udc80",
    ],
)
def test_what_is_no_such_uri_is_refused(text: str) -> None:
    """RFC 3261 §25.1: a user part holds ASCII and whole escapes."""
    with pytest.raises(SipSyntaxError):
        Uri.parse(text)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("sip:alice@h", "alice"),
        ("sip:%2B1215%2d1@h", "+1215-1"),
        ("sip:%41%2541@h", "A%41"),
    ],
)
def test_escapes_in_the_user_part_are_decoded_once(text: str, user: str) -> None:
    """RFC 3261 §19.1.2."""
    assert Uri.parse(text).decoded_user() == user


@pytest.mark.parametrize("text", ["sip:%0d%0aX@h", "sip:%00@h", "sip:%7f@h", "sip:jos%C3%A9@h"])
def test_escape_of_what_is_not_printable_ascii_is_not_decoded(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        Uri.parse(text).decoded_user()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("SIP:Alice:pw@Example.COM:5060;transport=tcp?x=y", "sip:alice@example.com"),
        ("sips:%61lice@h", "sips:alice@h"),
        ("sip:a%2Fb@h", "sip:a%2Fb@h"),
        ("sip:a%2fb@h", "sip:a%2Fb@h"),
        ("sip:jos%c3%a9@h", "sip:jos%C3%A9@h"),
        ("sip:a%0d@h", "sip:a%0D@h"),
        ("sip:%2541@h", "sip:%2541@h"),
        ("sip:A;x=y@h", "sip:a@h"),
        ("sip:Host", "sip:host"),
        ("sip:a@[2001:DB8::1]", "sip:a@[2001:db8::1]"),
        ("urn:service:SOS", "urn:service:sos"),
    ],
)
def test_canonical_uri_is_what_rfc_8224_asks_for(text: str, canonical: str) -> None:
    """RFC 8224 §8.5: parameters, headers, port and password go, the rest is in lower case."""
    assert Uri.parse(text).canonical() == canonical
    assert Uri.parse(canonical).canonical() == canonical
