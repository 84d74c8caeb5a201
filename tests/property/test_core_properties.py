"""What holds for every value: round trips, canonical forms, and exact coverage."""

from __future__ import annotations

import json
import random
from typing import Any

from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.claims import BASE_CLAIMS
from shaken_plugin.core.constraints import ClaimConstraints
from shaken_plugin.core.crl import parse_crl
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.jws import b64url, unb64url
from shaken_plugin.core.names import canonical_name
from shaken_plugin.core.passport import Passport, media_keys, serialise
from shaken_plugin.core.sip import NameAddr, Uri, format_date, parse_date, split_list
from shaken_plugin.core.telephone import TelephoneNumber, canonical_party
from shaken_plugin.core.tnauthlist import TnAuthList, TnRange
from shaken_plugin.errors import NumberError, SipSyntaxError
from shaken_plugin.stores.policy import prefixes_of_range
from tests.conftest import NOW
from tests.property.strategies import digits, examples, json_objects, mutated, wire_text
from tests.unit.test_crl import ONE, OTHER, SIGNERS, crl, of

CA_NAMES = [ONE, OTHER]
PLANS = {country: dial_plan(country) for country in ("US", "CA", "GB", "DE", "FR", "AU", "IN")}


def _shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        members = [(name, _shuffled(member, chance)) for name, member in value.items()]
        chance.shuffle(members)
        return dict(members)
    return [_shuffled(member, chance) for member in value] if isinstance(value, list) else value


@examples
@given(value=json_objects, chance=st.randoms(use_true_random=False))
def test_serialised_form_does_not_depend_on_order(value: dict[str, Any], chance: random.Random) -> None:
    """One value, one form, whatever order its members came in (RFC 8225 §9)."""
    assert serialise(_shuffled(value, chance)) == serialise(value)


@examples
@given(value=json_objects)
def test_serialised_form_is_sorted_at_every_depth(value: dict[str, Any]) -> None:
    """Members are ordered by code point, and nothing but strings has white space."""
    orders: list[list[str]] = []
    text = serialise(value).decode()
    json.loads(text, object_pairs_hook=lambda pairs: orders.append([name for name, _ in pairs]))
    assert all(names == sorted(names) for names in orders)
    assert text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


@examples
@given(header=json_objects, claims=json_objects)
def test_token_is_read_as_it_was_written(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """parse(serialise(x)) is x."""
    passport = Passport.parse(f"{b64url(serialise(header))}.{b64url(serialise(claims))}.AA")
    assert (passport.header, passport.claims) == (header, claims)


@examples
@given(data=st.binary(max_size=40), text=st.text("AZaz09-_=+/", max_size=9))
def test_base64url_has_one_spelling(data: bytes, text: str) -> None:
    """Every octet string has one text, and a text that is read is the one that would be written."""
    assert unb64url(b64url(data)) == data
    try:
        assert b64url(unb64url(text)) == text
    except ValueError:
        assert "=" in text or "+" in text or "/" in text or text.rstrip("A") != "" or len(text) % 4 == 1


token_text = st.text("abcXYZ019.-_", min_size=1, max_size=20)


@examples
@given(
    header=st.builds(
        IdentityHeader,
        digest=token_text,
        info=st.text("az09:/.-_%", min_size=1, max_size=20),
        alg=st.none() | token_text,
        ppt=st.none() | token_text,
    ),
    quote=st.booleans(),
)
def test_identity_header_is_read_as_it_was_written(header: IdentityHeader, quote: bool) -> None:
    """parse(format(x)) is x, with ppt quoted or not."""
    assert IdentityHeader.parse(header.format(quote_ppt=quote)) == header


@examples
@given(country=st.sampled_from(sorted(PLANS)), dialled=st.text("0123456789+*#-. ()", max_size=20))
def test_canonical_number_stands_for_itself(country: str, dialled: str) -> None:
    """A canonical number that is sent on in E.164 form stays the same number (RFC 8224 §8.3)."""
    plan = PLANS[country]
    try:
        number = plan.canonical(dialled)
    except NumberError:
        return
    if number.digits.isdecimal() and len(number.digits) <= 15:
        assert plan.canonical("+" + number.digits) == number
        assert canonical_party(Uri.parse(f"sip:+{number}@h;user=phone"), plan) == number
    elif not number.digits.isdecimal():
        assert plan.canonical(number.digits) == number


@examples
@given(line=st.text("0123456789", min_size=10, max_size=10))
def test_canonical_home_number_is_canonical_already(line: str) -> None:
    """What was made canonical once does not change when it is dialled again."""
    number = PLANS["US"].canonical("1" + line)
    assert number == TelephoneNumber("1" + line)
    assert PLANS["US"].canonical(number.digits) == number


@examples
@given(text=st.one_of(wire_text, mutated("SIP:Al%69ce%2F:pw@H.example:5060;x=y?z")))
def test_canonical_uri_is_canonical_already(text: str) -> None:
    """canonical(canonical(x)) is canonical(x) (RFC 8224 §8.5)."""
    try:
        uri = Uri.parse(text)
    except SipSyntaxError:
        return
    if uri.user or uri.host:
        assert Uri.parse(uri.canonical()).canonical() == uri.canonical()


@examples
@given(moment=st.integers(0, 253_402_300_799))
def test_date_is_read_as_it_was_written(moment: int) -> None:
    """parse_date(format_date(x)) is x, to the end of the year 9999."""
    assert parse_date(format_date(moment)) == moment


@examples
@given(value=wire_text)
def test_list_that_was_split_splits_the_same_again(value: str) -> None:
    """Commas that separate are the only thing lost."""
    parts = split_list(value)
    assert split_list(", ".join(parts)) == parts
    assert all(part == part.strip() != "" for part in parts)


@examples
@given(text=st.one_of(wire_text, mutated('"A" <sip:a@b>;tag=1')))
def test_address_with_its_own_uri_is_the_same_address(text: str) -> None:
    """Nothing but the URI changes."""
    try:
        address = NameAddr.parse(text)
        other = NameAddr.parse(address.with_uri("tel:+1"))
    except SipSyntaxError:
        return
    assert (other.uri, other.suffix.lstrip("> \t")) == ("tel:+1", address.suffix.lstrip("> \t"))
    assert other.prefix == (address.prefix or "<")


@examples
@given(pair=st.tuples(st.integers(0, 99_999), st.integers(0, 99_999)).map(sorted), width=st.integers(5, 8))
def test_prefixes_cover_the_range_and_nothing_else(pair: list[int], width: int) -> None:
    """Each number of the range has exactly one of the prefixes, and no other number has any."""
    first, last = (str(number).zfill(width) for number in pair)
    prefixes = list(prefixes_of_range(first, last))
    covered = [
        int(prefix + str(rest).zfill(width - len(prefix))) if len(prefix) < width else int(prefix)
        for prefix in prefixes
        for rest in range(10 ** (width - len(prefix)))
    ]
    assert covered == list(range(pair[0], pair[1] + 1))
    assert len(prefixes) <= 18 * width


@st.composite
def ranges(draw: Any) -> TnRange:
    start = draw(st.text("0123456789", min_size=1, max_size=15).filter(lambda text: int(text) + 2 <= 10 ** len(text)))
    return TnRange(start, draw(st.integers(2, 10 ** len(start) - int(start))))


lists = st.builds(
    TnAuthList,
    spcs=st.lists(st.text("ABZ09az", min_size=1, max_size=9), max_size=4).map(tuple),
    ranges=st.lists(ranges(), max_size=4).map(tuple),
    ones=st.lists(st.text("0123456789*#", min_size=1, max_size=15), max_size=20).map(tuple),
)


@examples
@given(authorised=lists.filter(lambda value: bool(value.spcs or value.ranges or value.ones)))
def test_tnauthlist_is_read_as_it_was_written(authorised: TnAuthList) -> None:
    """from_der(to_der(x)) is x."""
    assert TnAuthList.from_der(authorised.to_der()) == authorised


@examples
@given(numbers=ranges(), other=digits, offset=st.integers(-3, 3))
def test_range_covers_its_count_of_numbers_of_its_length(numbers: TnRange, other: str, offset: int) -> None:
    """A number is covered if it has the length of the start and lies less than count above it."""
    first, last = int(numbers.start), int(numbers.start) + numbers.count - 1
    for edge in (first, last):
        near = edge + offset
        if 0 <= near < 10 ** len(numbers.start):
            text = str(near).zfill(len(numbers.start))
            assert numbers.covers(text) is (first <= near <= last)
    assert numbers.covers(other) is (len(other) == len(numbers.start) and first <= int(other) <= last)


@examples
@given(
    prints=st.lists(
        st.tuples(st.sampled_from(["sha-1", "sha-256"]), st.binary(min_size=1, max_size=8).map(lambda b: b.hex(":"))),
        max_size=6,
    ),
    chance=st.randoms(use_true_random=False),
)
def test_media_keys_do_not_depend_on_the_order_of_lines(prints: list[tuple[str, str]], chance: random.Random) -> None:
    """One set of fingerprints, one claim, sorted by alg and dig put together (RFC 8225 §5.2.2)."""
    lines = [f"a=fingerprint:{alg} {digest}\r\n" for alg, digest in prints]
    keys = media_keys("".join(lines))
    chance.shuffle(lines)
    assert media_keys("".join(lines)) == keys
    together = [key["alg"] + key["dig"] for key in keys]
    assert together == sorted(set(together))
    assert len(keys) == len(set(prints))


@st.composite
def short_lists(draw: Any) -> TnAuthList:
    """Lists of two- and three-digit numbers, so that all of them can be counted."""
    starts = st.one_of(st.integers(0, 99).map("{:02}".format), st.integers(0, 999).map("{:03}".format))
    ranges = [
        TnRange(start, count)
        for start, count in draw(st.lists(st.tuples(starts, st.integers(2, 60)), max_size=4))
        if int(start) + count <= 10 ** len(start)
    ]
    return TnAuthList((), tuple(ranges), tuple(draw(st.lists(st.one_of(starts, st.just("*1")), max_size=4))))


ALL_SHORT = [f"{number:02}" for number in range(100)] + [f"{number:03}" for number in range(1000)] + ["*1"]


@examples
@given(parent=short_lists(), child=short_lists())
def test_a_list_encompasses_another_exactly_if_it_lists_all_its_numbers(parent: TnAuthList, child: TnAuthList) -> None:
    """RFC 9060 §4.1, counted one by one."""
    counted = all(parent.lists(number) for number in ALL_SHORT if child.lists(number))
    assert parent.encompasses(child) is counted


names = st.text(st.characters(max_codepoint=126, min_codepoint=32), min_size=1, max_size=8)


@examples
@given(
    include=st.lists(names, max_size=3),
    permitted=st.lists(st.tuples(names, st.frozensets(st.text(max_size=8), min_size=1, max_size=3)), max_size=3),
    exclude=st.lists(names.filter(lambda name: name not in BASE_CLAIMS), max_size=3),
)
def test_claim_constraints_are_read_as_they_were_written(
    include: list[str], permitted: list[tuple[str, frozenset[str]]], exclude: list[str]
) -> None:
    """parse(write(x)) is x."""
    constraints = ClaimConstraints(tuple(include), tuple(permitted), tuple(exclude))
    if constraints != ClaimConstraints():
        assert ClaimConstraints.from_der(constraints.to_der(), enhanced=True) == constraints


@examples
@given(
    serials=st.lists(st.tuples(st.sampled_from(CA_NAMES), st.integers(1, 2**159 - 1)), max_size=8),
    inherit=st.randoms(use_true_random=False),
)
def test_entries_of_a_list_are_those_that_were_put_in(
    serials: list[tuple[x509.Name, int]], inherit: random.Random
) -> None:
    """Whichever entries name their issuer and whichever inherit it (RFC 5280 §5.3.3)."""
    entries, before = [], None
    for name, serial in serials:
        shown = name != before or inherit.random() < 0.5
        entries.append((serial, [of(name)] if shown else []))
        before = name
    assert parse_crl(crl(*entries), SIGNERS, NOW).revoked == {
        (canonical_name(name), serial) for name, serial in serials
    }
