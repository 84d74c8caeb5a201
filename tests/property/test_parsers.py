"""Whatever a stranger sends is parsed, or refused with an error of ours, never with another."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.core import x5u
from shaken_plugin.core.call import CallerHeader, CallMessage, is_emergency
from shaken_plugin.core.certificates import SigningCertificate, TrustAnchors, parse_chain
from shaken_plugin.core.constraints import ClaimConstraints, ConstraintsError
from shaken_plugin.core.crl import parse_crl
from shaken_plugin.core.der import encode
from shaken_plugin.core.extensions import constraints_of, tnauthlist_of
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport, media_keys
from shaken_plugin.core.reason import about_ours, reasons, split_reasons
from shaken_plugin.core.sip import NameAddr, Request, Uri, parse_date, split_list
from shaken_plugin.core.telephone import DialPlan, canonical_party
from shaken_plugin.core.tnauthlist import TnAuthList, TnAuthListError, TnRange
from shaken_plugin.core.trustlist import parse_trust_list
from shaken_plugin.core.verification import Verdict
from shaken_plugin.core.verstat import asserted_from, mark_asserted, mark_from, strip_verstat
from shaken_plugin.errors import (
    NumberError,
    RevocationListError,
    SipSyntaxError,
    TrustListError,
    VerificationFailure,
)
from shaken_plugin.lab.administrator import PolicyAdministrator
from shaken_plugin.lab.pki import Authority
from tests.builders import PARAMS, Bench, claims, jose, message, private_key, signed_header
from tests.conftest import NOW
from tests.property.strategies import examples, mutated, mutated_bytes, wire_bytes, wire_text
from tests.unit.test_pki_samples import FOLDER, ROOTS

AUTHORITY = Authority.new(NOW)
CONSTRAINTS = ClaimConstraints(("attest",), (("attest", frozenset("AB")),), ("rcd",))
ISSUED = AUTHORITY.issue(now=NOW, spc="709J", enhanced=CONSTRAINTS)
PA = PolicyAdministrator.new(NOW)
REVOKED = [AUTHORITY.issuer, ISSUED.certificate]
IDENTITY = signed_header(private_key(ISSUED), claims=claims())
ADDRESS = '"A, \\"B" <sip:+12155551212;verstat=X@a.example;user=phone>;tag=1'
SDP = "v=0\r\na=fingerprint:sha-1 4A:AD:B9\r\nm=audio 9 UDP 0\r\n"
REQUEST = f"INVITE sip:+1@b SIP/2.0\r\nf: {ADDRESS}\r\ny: a.b.c;\r\n info=<x>\r\n\r\n{SDP}".encode()

Refusal = type[Exception] | tuple[type[Exception], ...]


def outcome(parse: Callable[[Any], object], refusal: Refusal, data: object) -> str:
    """``parsed`` or ``refused``; any other exception goes up."""
    try:
        parse(data)
    except refusal:
        return "refused"
    return "parsed"


TEXT: dict[str, tuple[Callable[[str], object], Refusal, str]] = {
    "IdentityHeader": (IdentityHeader.parse, VerificationFailure, IDENTITY),
    "Passport": (Passport.parse, VerificationFailure, IDENTITY.partition(";")[0]),
    "NameAddr": (NameAddr.parse, SipSyntaxError, ADDRESS),
    "Uri": (Uri.parse, SipSyntaxError, "sip:+1215%2D1;npdi:pw@a.example:5060;user=phone?x=y"),
    "decoded": (lambda text: Uri.parse(text).decoded_user(), SipSyntaxError, "sip:%2B1215%2D1@a.example"),
    "canonical": (lambda text: Uri.parse(text).canonical(), SipSyntaxError, "sip:a%2Fb@a.example"),
    "date": (parse_date, SipSyntaxError, "Wed, 18 Nov 2026 11:06:40 GMT"),
    "x5u": (x5u.check, VerificationFailure, "https://cr.example.com:8443/709j.pem"),
    "list": (split_list, (), f"{ADDRESS}, <tel:+1>, x"),
    "media keys": (media_keys, (), SDP),
    "strip verstat": (strip_verstat, (), ADDRESS),
    "reasons": (lambda text: list(split_reasons([text])), (), 'STIR;cause=436;ppi="..x", SIP;text="a, b"'),
    "about ours": (lambda text: about_ours(text, "..x"), (), 'STIR;cause=436;ppi="..x"'),
}


@pytest.mark.parametrize("name", TEXT)
@examples
@given(data=st.data())
def test_any_text_is_parsed_or_refused_with_our_error(name: str, data: st.DataObject) -> None:
    """Parse, or our error, never another: for any text, and for valid text with mistakes."""
    parse, refusal, valid = TEXT[name]
    assert outcome(parse, refusal, valid) == "parsed"
    assert outcome(parse, refusal, data.draw(st.one_of(wire_text, mutated(valid)))) in {"parsed", "refused"}


@examples
@given(part=st.sampled_from(["header", "claims"]), data=st.data())
def test_any_json_inside_a_token_is_parsed_or_refused_with_our_error(part: str, data: st.DataObject) -> None:
    """Parse, or our error, never another: for what stands inside the base64url."""
    valid = '{"attest":"A","dest":{"tn":["1\\u00e9"]},"iat":5,"orig":{"tn":"1"}}'
    content = data.draw(st.one_of(mutated(valid), wire_text)).encode("utf-8", "surrogatepass")
    segment = base64.urlsafe_b64encode(content).rstrip(b"=").decode()
    token = f"{segment}.e30.AA" if part == "header" else f"e30.{segment}.AA"
    assert outcome(Passport.parse, VerificationFailure, token) in {"parsed", "refused"}


TNAUTHLIST = TnAuthList(("709J",), (TnRange("12155551200", 100),), ("*67",)).to_der()

OCTETS: dict[str, tuple[Callable[[bytes], object], Refusal, bytes]] = {
    "Request": (Request.parse, SipSyntaxError, REQUEST),
    "TnAuthList": (TnAuthList.from_der, TnAuthListError, TNAUTHLIST),
    "ClaimConstraints": (
        lambda data: ClaimConstraints.from_der(data, enhanced=True), ConstraintsError, CONSTRAINTS.to_der()),
    "CRL": (lambda data: parse_crl(data, [PA.crl_signer], NOW), RevocationListError, PA.crl(REVOKED, now=NOW)),
    "trust list": (
        lambda data: parse_trust_list(data, [PA.root], NOW),
        TrustListError,
        PA.trust_list([AUTHORITY.root], now=NOW)),
    "chain": (parse_chain, VerificationFailure, ISSUED.chain),
    "certificate": (parse_chain, VerificationFailure, ISSUED.certificate.public_bytes(Encoding.DER)),
}  # fmt: skip


@pytest.mark.parametrize("name", OCTETS)
@examples
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_any_octets_are_parsed_or_refused_with_our_error(name: str, data: st.DataObject) -> None:
    """Parse, or our error, never another: for any octets, and for valid ones with mistakes."""
    parse, refusal, valid = OCTETS[name]
    assert outcome(parse, refusal, valid) == "parsed"
    assert outcome(parse, refusal, data.draw(st.one_of(wire_bytes, mutated_bytes(valid)))) in {"parsed", "refused"}


@examples
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
def test_any_rightly_signed_list_is_parsed_or_refused_with_our_error(data: st.DataObject) -> None:
    """What a signer whom we believe may get wrong: the signature does not hide the parser from mistakes."""
    whole = x509.load_der_x509_crl(PA.crl(REVOKED, now=NOW))
    body = data.draw(mutated_bytes(whole.tbs_certlist_bytes))
    signature = PA.crl_key.sign(body, ec.ECDSA(SHA256()))
    algorithm = encode(0x30, encode(0x06, bytes.fromhex("2a8648ce3d040302")))
    document = encode(0x30, body, algorithm, encode(0x03, b"\0" + signature))
    parse = outcome(lambda crl: parse_crl(crl, [PA.crl_signer], NOW), RevocationListError, document)
    assert parse in {"parsed", "refused"}


REAL = sorted(FOLDER.glob("samples/*.pem"))


@examples
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
def test_changed_real_certificate_is_judged_or_refused_with_our_error(data: st.DataObject) -> None:
    """The first certificate of a document that somebody publishes, with mistakes."""
    found = parse_chain_or_none(data.draw(st.sampled_from(REAL)).read_bytes())
    if found is None:
        return
    content = data.draw(mutated_bytes(found[0].public_bytes(Encoding.DER)))
    changed = parse_chain_or_none(content)
    if changed is None:
        return
    for read in (SigningCertificate.load, tnauthlist_of, constraints_of):
        assert outcome(read, VerificationFailure, changed[0]) in {"parsed", "refused"}
    chain = (changed[0], *found[1:])
    moment = found[0].not_valid_before_utc.timestamp()
    judged = outcome(lambda _: TrustAnchors(ROOTS).validate(chain, moment), VerificationFailure, chain)
    assert judged == "refused" or changed[0].tbs_certificate_bytes == found[0].tbs_certificate_bytes


def parse_chain_or_none(document: bytes) -> tuple[x509.Certificate, ...] | None:
    try:
        return parse_chain(document)
    except VerificationFailure:
        return None


@examples
@given(content=mutated_bytes(ISSUED.certificate.public_bytes(Encoding.DER)))
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
def test_changed_certificate_is_never_trusted_and_refused_with_our_error(content: bytes) -> None:
    """Trusted, or our error, never another: and a certificate that was changed is never trusted."""
    anchors = TrustAnchors([AUTHORITY.root])
    try:
        (leaf,) = parse_chain(content)
    except VerificationFailure:
        return
    assert outcome(SigningCertificate.load, VerificationFailure, leaf) in {"parsed", "refused"}
    for above in ((), (AUTHORITY.issuer,)):
        trusted = outcome(lambda chain: anchors.validate(chain, NOW), VerificationFailure, (leaf, *above))
        assert trusted == "refused" or leaf.tbs_certificate_bytes == ISSUED.certificate.tbs_certificate_bytes


headers = st.lists(st.one_of(wire_text, mutated(ADDRESS), st.just(ADDRESS)), max_size=3).map(tuple)


@examples
@given(
    identity=st.lists(st.one_of(wire_text, mutated(IDENTITY), st.just(IDENTITY)), max_size=3),
    asserted=headers,
    caller=headers,
    to=st.one_of(wire_text, mutated(ADDRESS)),
    request_uri=st.one_of(wire_text, mutated("sip:+12025550143@b")),
    date=st.one_of(st.none(), wire_text),
    priority=wire_text,
)
def test_every_call_has_a_verdict_and_headers_that_can_be_sent(
    us: DialPlan, identity: list[str], asserted: Any, caller: Any, to: str, **parts: Any
) -> None:
    """A verdict for every call, whatever stands in its headers, and headers that can be sent."""
    callers = {CallerHeader.ASSERTED: asserted, CallerHeader.FROM: caller}
    call: CallMessage = message(*identity, callers=callers, to=to, **parts)
    bench = Bench(us, ISSUED, TrustAnchors([AUTHORITY.root]))
    verdict = bench.verify(call)
    assert isinstance(verdict, Verdict)
    assert all(reason.isascii() for reason in reasons(verdict))
    assert verdict.verstat().endswith(("-Passed", "-Failed", "-Validation"))
    assert is_emergency(call.request_uri, call.to, call.priority, us) in {True, False}
    assert call.is_initial_invite in {True, False}
    verified = verdict.decisive.orig if verdict.decisive else None
    sent = mark_asserted(asserted, verified, "X", us)
    sent += [value for line in caller for value in (mark_from(line, "X", us), asserted_from(line, "X", us)) if value]
    assert all(value.encode() for value in sent)


@examples
@given(text=st.one_of(wire_text, mutated("sip:+12155551212;phone-context=+1@h;user=phone")))
def test_party_of_any_uri_can_be_signed_for_or_is_refused_with_our_error(us: DialPlan, text: str) -> None:
    """A party that can be signed for, or our error, never another."""
    try:
        party = canonical_party(Uri.parse(text), us)
    except (SipSyntaxError, NumberError):
        return
    assert str(party).isascii()
    assert str(party).isprintable()
    assert party.masked


@examples
@given(name=st.sampled_from(["alg", "typ", "x5u", "ppt", "crit"]), value=st.one_of(wire_text, st.integers(), st.none()))
def test_any_change_of_the_header_is_noticed(us: DialPlan, name: str, value: object) -> None:
    """No member of the JOSE header may be anything else than it must be."""
    bench = Bench(us, ISSUED, TrustAnchors([AUTHORITY.root]))
    changed = jose(**{name: value})
    if changed == jose() or not _encodes(value):
        return
    call = message(signed_header(private_key(ISSUED), claims=claims(), header=changed, params=PARAMS))
    assert bench.verify(call).failure is not None


def _encodes(value: object) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True
