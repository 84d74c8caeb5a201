"""PASSporTs: how they are written, and what is refused when they are read (RFC 8225)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shaken_plugin.core.claims import MAX_IAT, read_attest, read_dest, read_iat, read_orig, read_origid
from shaken_plugin.core.jws import b64url
from shaken_plugin.core.passport import (
    MAX_DEPTH,
    MAX_TOKEN_LENGTH,
    Attest,
    Passport,
    party_claim,
    passport_header,
    serialise,
    shaken_claims,
    signing_input,
)
from shaken_plugin.core.telephone import TelephoneNumber, UriIdentity
from shaken_plugin.errors import FailureCode, VerificationFailure
from tests.builders import DEST, ORIG, ORIGID, claims, jose

CALLER, CALLED = TelephoneNumber(ORIG), TelephoneNumber(DEST)


def full(header: bytes | str, payload: bytes | str, signature: str = "AA") -> str:
    """A token of two texts that may be anything."""
    parts = (part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in (header, payload))
    return ".".join([*map(b64url, parts), signature])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": {"d": 2, "c": [3, {"f": 4, "e": 5}]}}, '{"a":{"c":[3,{"e":5,"f":4}],"d":2},"b":1}'),
        ({"B": 1, "a": 2, "_": 3}, '{"B":1,"_":3,"a":2}'),
        ({"\U0001f600": 1, "\uff21": 2}, '{"\uff21":2,"\U0001f600":1}'),
        ({"a": 'ä/"\\\n'}, '{"a":"ä/\\"\\\\\\n"}'),
        ({"a": [True, False, None]}, '{"a":[true,false,null]}'),
    ],
    ids=["every depth", "code points", "beyond the first plane", "text", "literals"],
)
def test_json_is_written_in_the_one_form_of_rfc_8225(value: dict[str, Any], text: str) -> None:
    """RFC 8225 §9: no white space, members by code point, UTF-8, lower-case literals."""
    assert serialise(value) == text.encode()


def test_header_has_the_members_that_were_asked_for() -> None:
    """RFC 8225 §4; ppt only where there is a type (§8.1)."""
    assert passport_header("https://x/y", "shaken") == jose(x5u="https://x/y")
    assert passport_header("https://x/y", None) == {"alg": "ES256", "typ": "passport", "x5u": "https://x/y"}


def test_shaken_claims_are_those_of_rfc_8588() -> None:
    made = shaken_claims(attest=Attest.A, orig=CALLER, dest=CALLED, iat=5, origid=ORIGID)
    assert made == claims(iat=5)


def test_uri_identities_and_media_keys_have_their_own_claims() -> None:
    mky = [{"alg": "sha-256", "dig": "AB"}]
    made = shaken_claims(
        attest=Attest.C, orig=UriIdentity("sip:a@b"), dest=UriIdentity("sip:c@d"), iat=5, origid=ORIGID, mky=mky
    )
    assert (made["orig"], made["dest"], made["mky"]) == ({"uri": "sip:a@b"}, {"uri": ["sip:c@d"]}, mky)


def test_no_media_keys_means_no_claim() -> None:
    assert "mky" not in shaken_claims(attest=Attest.A, orig=CALLER, dest=CALLED, iat=5, origid=ORIGID, mky=[])


def test_what_is_signed_is_both_parts_in_base64url() -> None:
    """RFC 7515 §5.1."""
    assert signing_input({"a": 1}, {"b": 2}) == b"eyJhIjoxfQ.eyJiIjoyfQ"


def test_full_form_is_read_with_the_octets_that_were_signed() -> None:
    """RFC 8225 §9 binds the signer; a verifier takes the octets as they came, in any order."""
    token = full('{ "typ":"passport", "alg":"ES256", "ppt":"div" }', '{"z":1, "a":2}')
    passport = Passport.parse(token)
    assert passport.header == {"typ": "passport", "alg": "ES256", "ppt": "div"}
    assert passport.claims == {"z": 1, "a": 2}
    assert passport.signing_input == token.rpartition(".")[0].encode()
    assert (passport.signature, passport.ppt, passport.is_compact) == (b"\x00", "div", False)


def test_compact_form_is_the_signature_alone() -> None:
    """RFC 8225 §7."""
    passport = Passport.parse("..AAAA")
    assert (passport.is_compact, passport.signature, passport.ppt) == (True, bytes(3), None)
    assert Passport.parse("..").signature == b""


@pytest.mark.parametrize("ppt", [1, None, ["shaken"], {}])
def test_type_that_is_no_text_is_none(ppt: object) -> None:
    assert Passport.parse(full(json.dumps({"ppt": ppt}), "{}")).ppt is None


@pytest.mark.parametrize(
    "token",
    ["", "a", "a.b", "a.b.c.d", "...", ".e30.AA", "e30..AA", "e30.e30.A", "e30.e30.A=", "e30.e3 0.AA", "é.é.é"],
)
def test_what_has_not_three_segments_of_base64url_is_refused(token: str) -> None:
    with pytest.raises(VerificationFailure) as caught:
        Passport.parse(token)
    assert caught.value.code is FailureCode.TOKEN_MALFORMED


DEEP = MAX_DEPTH - 1


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "x",
        "[]",
        "1",
        "null",
        '"text"',
        "{",
        '{"a":1}x',
        '{"a":1,"a":1}',
        '{"a":{"b":1,"b":2}}',
        '{"iat":1.0}',
        '{"iat":1e3}',
        '{"iat":NaN}',
        '{"iat":-Infinity}',
        '{"iat":' + "9" * 5_000 + "}",
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        '{"a":"\ud800"}',
        '{"a":"\n"}',
        b'{"a":"\xff"}',
        '\ufeff{"a":1}',
        '{"a":' + "[" * (DEEP + 1) + "]" * (DEEP + 1) + "}",
        '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
        "[" * 20_000,
        '{"a":"' + '\\"' * 20 + "[" * 20,
    ],
)
def test_json_that_two_parsers_would_read_differently_is_refused(payload: bytes | str) -> None:
    """RFC 7519 §4: "The Claim Names within a JWT Claims Set MUST be unique"."""
    with pytest.raises(VerificationFailure) as caught:
        Passport.parse(full("{}", payload))
    assert caught.value.code is FailureCode.TOKEN_MALFORMED


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ('{"a":' + "[" * DEEP + "]" * DEEP + "}", None),
        ('{"a":"' + "[{" * 40 + '"}', "[{" * 40),
        ('{"a":"\\"' + "[{" * 40 + '\\\\"}', '"' + "[{" * 40 + "\\"),
        ('{"a":' + "[" + ",".join(["[]"] * 40) + "]}", [[]] * 40),
        ('{"a":"\\ud83d\\ude00é"}', "\U0001f600é"),
        ('{"a":-5}', -5),
    ],
    ids=["deepest", "brackets in a text", "escapes in a text", "broad", "surrogate pair", "negative"],
)
def test_unusual_json_is_read(payload: str, value: object) -> None:
    read = Passport.parse(full("{}", payload)).claims["a"]
    assert value is None or read == value


def test_length_of_a_token_is_limited() -> None:
    with pytest.raises(VerificationFailure) as caught:
        Passport.parse("a" * (MAX_TOKEN_LENGTH + 1))
    assert caught.value.code is FailureCode.IDENTITY_TOO_LARGE
    with pytest.raises(VerificationFailure, match="1 segments"):
        Passport.parse("a" * MAX_TOKEN_LENGTH)


def _code(reader: Any, value: dict[str, Any]) -> FailureCode | None:
    try:
        reader(value)
    except VerificationFailure as failure:
        return failure.code
    return None


@pytest.mark.parametrize(
    ("orig", "party"),
    [
        ({"tn": ORIG}, CALLER),
        ({"tn": "+" + ORIG}, CALLER),
        ({"tn": "*67"}, TelephoneNumber("*67")),
        ({"uri": "sip:a@b"}, UriIdentity("sip:a@b")),
    ],
)
def test_orig_is_one_identity(orig: dict[str, str], party: object) -> None:
    assert read_orig({"orig": orig}) == party
    assert isinstance(party, UriIdentity) or party_claim(read_orig({"orig": orig})) == {"tn": str(party)}


@pytest.mark.parametrize(
    "orig",
    [None, "x", [], {}, {"tn": ORIG, "uri": "sip:a@b"}, {"TN": ORIG}, {"tn": [ORIG]}, {"tn": 12155551212},
     {"tn": ""}, {"uri": ""}, {"tn": "++1"}, {"tn": "Bob"}, {"tn": "1 2"}, {"tn": "1" * 33}, {"uri": ["x"]}],
)  # fmt: skip
def test_orig_that_is_not_exactly_one_identity_is_refused(orig: object) -> None:
    """RFC 8225 §5.2.1: "the 'orig' claim … MUST have one, and only one"."""
    assert _code(read_orig, {"orig": orig}) is FailureCode.CLAIM_INVALID


def test_dest_is_every_identity_of_both_kinds() -> None:
    dest = {"tn": [DEST, "+" + ORIG], "uri": ["sip:a@b"]}
    assert read_dest({"dest": dest}) == {CALLED, CALLER, UriIdentity("sip:a@b")}


@pytest.mark.parametrize(
    "dest",
    [None, "x", [], {}, {"tn": DEST}, {"tn": []}, {"tn": [DEST], "uri": []}, {"tn": [DEST], "x": [DEST]},
     {"tn": [1]}, {"tn": [None]}, {"tn": ["x"]}, {"tn": [[DEST]]}, {"tn": {"0": DEST}}],
)  # fmt: skip
def test_dest_that_is_not_arrays_of_identities_is_refused(dest: object) -> None:
    """RFC 8225 §5.2.1: arrays with one or more elements."""
    assert _code(read_dest, {"dest": dest}) is FailureCode.CLAIM_INVALID


@pytest.mark.parametrize("iat", [0, 1_795_000_000, MAX_IAT])
def test_iat_is_a_time_in_whole_seconds(iat: int) -> None:
    assert read_iat({"iat": iat}) == iat


@pytest.mark.parametrize("iat", ["1443208345", True, False, None, -1, MAX_IAT + 1, [1], {}])
def test_iat_that_is_no_numeric_date_is_refused(iat: object) -> None:
    """RFC 8225 §5.1.1, §9: an integer, not a text."""
    assert _code(read_iat, {"iat": iat}) is FailureCode.CLAIM_INVALID


@pytest.mark.parametrize("level", Attest)
def test_attest_is_a_b_or_c(level: Attest) -> None:
    assert read_attest({"attest": level.value}) is level


@pytest.mark.parametrize("attest", ["", "a", "AA", "D", "A ", 1, None, [], {}, True])
def test_any_other_attest_is_refused(attest: object) -> None:
    """RFC 8588 §4: "either 'A', 'B', or 'C'"."""
    assert _code(read_attest, {"attest": attest}) is FailureCode.ATTEST_INVALID


@pytest.mark.parametrize("origid", [ORIGID, ORIGID.upper(), "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"])
def test_origid_is_a_uuid_in_its_usual_form(origid: str) -> None:
    assert read_origid({"origid": origid}) == origid


@pytest.mark.parametrize(
    "origid", ["", "ref", ORIGID[:-1], ORIGID + "0", ORIGID.replace("-", ""), f"{{{ORIGID}}}", ORIGID + "\n", 1, None]
)
def test_origid_that_is_no_uuid_is_refused(origid: object) -> None:
    """RFC 8588 §5."""
    assert _code(read_origid, {"origid": origid}) is FailureCode.CLAIM_INVALID
