"""STI certificates and their path to a trust anchor (RFC 5280 §6, RFC 8226, ATIS-1000080)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.core.certificates import (
    SigningCertificate,
    TrustAnchors,
    parse_chain,
)
from shaken_plugin.core.der import SEQUENCE, encode
from shaken_plugin.core.extensions import tnauthlist_of
from shaken_plugin.core.tnauthlist import OID, TnAuthList
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab import pki
from shaken_plugin.lab.pki import Authority, Defect, KeyKind
from tests.conftest import NOW

DAY = timedelta(days=1)
START = datetime.fromtimestamp(NOW, UTC) - DAY
KEY = ec.generate_private_key(ec.SECP256R1())
CA = x509.BasicConstraints(ca=True, path_length=None)
LEAF = x509.BasicConstraints(ca=False, path_length=None)
LIST = x509.UnrecognizedExtension(OID, TnAuthList(("709J",)).to_der())
STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

Extension = tuple[x509.ExtensionType, bool]


def usage(**bits: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**(dict.fromkeys(names.split(), False) | bits))


SIGNS, CERTIFIES = usage(digital_signature=True), usage(key_cert_sign=True)
LEAF_EXTENSIONS: tuple[Extension, ...] = ((LEAF, True), (SIGNS, True), (LIST, False))
CA_EXTENSIONS: tuple[Extension, ...] = ((CA, True), (CERTIFIES, True))


def certificate(
    authority: Authority,
    *extensions: Extension,
    name: str = "SHAKEN 709J",
    issuer: x509.Name | None = None,
    issuer_key: Any = None,
) -> x509.Certificate:
    """A certificate on `KEY`, issued by the authority's intermediate unless told otherwise."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer or authority.issuer.subject)
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(START)
        .not_valid_after(START + 2 * DAY)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer_key or authority.issuer_key).public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key or authority.issuer_key, SHA256())


def code(authority: Authority, *chain: x509.Certificate, now: float = NOW) -> FailureCode | None:
    """What is wrong with a chain in the eyes of one who trusts the authority's root."""
    try:
        TrustAnchors([authority.root]).validate(chain, now)
    except VerificationFailure as failure:
        return failure.code
    return None


DEFECTS = {
    Defect.EXPIRED: FailureCode.CERTIFICATE_EXPIRED,
    Defect.NOT_YET_VALID: FailureCode.CERTIFICATE_NOT_YET_VALID,
    Defect.UNTRUSTED: FailureCode.CERTIFICATE_UNTRUSTED,
    Defect.ISSUER_EXPIRED: FailureCode.CERTIFICATE_EXPIRED,
    Defect.ISSUER_NOT_CA: FailureCode.CERTIFICATE_UNTRUSTED,
    Defect.MISSING_ISSUER: FailureCode.CERTIFICATE_UNTRUSTED,
    Defect.NO_DIGITAL_SIGNATURE: FailureCode.CERTIFICATE_KEY_USAGE,
    Defect.CA_LEAF: FailureCode.CERTIFICATE_KEY_USAGE,
    Defect.WRONG_CURVE: FailureCode.CERTIFICATE_KEY_USAGE,
    Defect.RSA_LEAF: FailureCode.CERTIFICATE_KEY_USAGE,
    Defect.NO_TNAUTHLIST: FailureCode.CERTIFICATE_NO_TNAUTHLIST,
    Defect.MALFORMED_TNAUTHLIST: FailureCode.CERTIFICATE_NO_TNAUTHLIST,
    Defect.KEY_MISMATCH: None,  # nothing is wrong with the certificate; its key just is another one
}


@pytest.mark.parametrize("defect", Defect)
def test_every_defect_has_its_code(authority: Authority, defect: Defect) -> None:
    issued = authority.issue(now=NOW, spc="709J", defect=defect)
    assert code(authority, *parse_chain(issued.chain)) is DEFECTS[defect]


@pytest.mark.parametrize("kind", KeyKind)
def test_issuers_of_every_kind_are_accepted(kind: KeyKind) -> None:
    """RFC 8226 §4 demands ECDSA P-256 and RSA; SHAKEN CP 1.4 §6.1.5 allows P-384."""
    authority = Authority.new(NOW, kind=kind)
    chain = parse_chain(authority.issue(now=NOW, spc="709J").chain)
    path = TrustAnchors([authority.root]).validate(chain, NOW)
    assert path.signer.spc == "709J"
    assert path.valid_at(NOW)


def test_path_holds_while_all_its_certificates_do(authority: Authority) -> None:
    issued = authority.issue(now=NOW, spc="709J", lifetime=timedelta(days=36_500), age=timedelta(days=400))
    path = TrustAnchors([authority.root]).validate(parse_chain(issued.chain), NOW)
    assert path.not_before == authority.issuer.not_valid_before_utc.timestamp() > path.signer.not_before
    assert path.not_after == authority.issuer.not_valid_after_utc.timestamp() < path.signer.not_after
    moments = (path.not_before - 1, path.not_before, path.not_after, path.not_after + 1)
    assert [path.valid_at(moment) for moment in moments] == [False, True, True, False]


def test_validity_includes_its_first_and_last_second(authority: Authority) -> None:
    """RFC 5280 §4.1.2.5: "notBefore through notAfter, inclusive"."""
    leaf = certificate(authority, *LEAF_EXTENSIONS)
    first, last = START.timestamp(), (START + 2 * DAY).timestamp()
    outcomes = {now: code(authority, leaf, authority.issuer, now=now) for now in (first - 1, first, last, last + 1)}
    assert list(outcomes.values()) == [
        FailureCode.CERTIFICATE_NOT_YET_VALID, None, None, FailureCode.CERTIFICATE_EXPIRED,
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["with its root", "root first", "strangers between", "issuer is the anchor"])
def test_path_is_found_whatever_else_is_sent(authority: Authority, order: str) -> None:
    leaf = certificate(authority, *LEAF_EXTENSIONS)
    stranger = Authority.new(NOW, name="Stranger")
    above = {
        "with its root": [authority.issuer, authority.root],
        "root first": [authority.root, authority.issuer],
        "strangers between": [stranger.issuer, stranger.root, authority.issuer],
        "issuer is the anchor": [],
    }[order]
    anchor = authority.root if above else authority.issuer
    assert TrustAnchors([anchor]).validate([leaf, *above], NOW).signer.certificate is leaf


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        (LEAF_EXTENSIONS, None),
        (LEAF_EXTENSIONS[1:], None),
        ((*LEAF_EXTENSIONS, (STRANGE, False)), None),
        ((*LEAF_EXTENSIONS, (STRANGE, True)), FailureCode.CERTIFICATE_UNTRUSTED),
        ((*LEAF_EXTENSIONS[:2], (LIST, True)), FailureCode.CERTIFICATE_UNTRUSTED),
        (((LEAF, True), (LIST, False)), FailureCode.CERTIFICATE_KEY_USAGE),
    ],
    ids=["usual", "no basic constraints", "unknown extension", "unknown critical", "critical TNAuthList", "no usage"],
)
def test_extensions_of_a_leaf(
    authority: Authority, extensions: tuple[Extension, ...], expected: FailureCode | None
) -> None:
    """RFC 5280 §4.2: "MUST reject the certificate if it encounters a critical extension it does not recognize"."""
    assert code(authority, certificate(authority, *extensions), authority.issuer) is expected


@pytest.mark.parametrize(
    ("extensions", "trusted"),
    [
        (CA_EXTENSIONS, True),
        (CA_EXTENSIONS[:1], True),
        (((CA, True), (usage(key_cert_sign=True, digital_signature=True, crl_sign=True), True)), True),
        (CA_EXTENSIONS[1:], False),
        (((LEAF, True), (CERTIFIES, True)), False),
        (((CA, True), (SIGNS, True)), False),
        ((*CA_EXTENSIONS, (STRANGE, True)), False),
    ],
    ids=["usual", "no usage", "more usages", "no basic constraints", "not a CA", "no keyCertSign", "unknown critical"],
)
def test_extensions_of_an_issuer(authority: Authority, extensions: tuple[Extension, ...], trusted: bool) -> None:
    """RFC 5280 §6.1.4 (k) and (n)."""
    issuer = certificate(
        authority, *extensions, name="Issuer", issuer=authority.root.subject, issuer_key=authority.root_key
    )
    leaf = certificate(authority, *LEAF_EXTENSIONS, issuer=issuer.subject, issuer_key=KEY)
    assert code(authority, leaf, issuer) is (None if trusted else FailureCode.CERTIFICATE_UNTRUSTED)


def test_path_longer_than_its_issuer_allows_is_refused(authority: Authority) -> None:
    """RFC 5280 §6.1.4 (m); the lab's intermediate has pathLenConstraint 0."""
    below = certificate(authority, *CA_EXTENSIONS, name="Below")
    leaf = certificate(authority, *LEAF_EXTENSIONS, issuer=below.subject, issuer_key=KEY)
    assert code(authority, leaf, below, authority.issuer) is FailureCode.CERTIFICATE_UNTRUSTED


def test_issuer_that_is_not_valid_yet_is_named(authority: Authority) -> None:
    late = Authority.new(NOW + 366 * 86_400)
    leaf = certificate(late, *LEAF_EXTENSIONS)
    assert code(authority, leaf, late.issuer) is FailureCode.CERTIFICATE_NOT_YET_VALID


@pytest.mark.parametrize(
    ("start", "code"), [(-60, FailureCode.CERTIFICATE_EXPIRED), (30, FailureCode.CERTIFICATE_NOT_YET_VALID)]
)
def test_anchor_outside_its_validity_is_named(authority: Authority, start: int, code: FailureCode) -> None:
    begin = datetime.fromtimestamp(NOW, UTC) + timedelta(days=start)
    subject, key = authority.root.subject, authority.root_key
    anchor = pki._ca(subject, key, subject, key, begin, timedelta(days=30))
    with pytest.raises(VerificationFailure, match="the trust anchor: valid") as caught:
        TrustAnchors([anchor]).validate(parse_chain(authority.issue(spc="709J", now=NOW).chain), NOW)
    assert caught.value.code is code


def test_leaf_with_a_forged_signature_is_refused(authority: Authority) -> None:
    forged = certificate(authority, *LEAF_EXTENSIONS, issuer_key=KEY, issuer=authority.issuer.subject)
    assert code(authority, forged, authority.issuer) is FailureCode.CERTIFICATE_UNTRUSTED


def broken(leaf: x509.Certificate, old: bytes, new: bytes) -> x509.Certificate:
    """The certificate with some octets changed."""
    content = leaf.public_bytes(Encoding.DER)
    assert old in content
    return parse_chain(content.replace(old, new))[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Lab SHAKEN Inter", b"Lab SHAKEN \xff\xff\xff\xff\xff"),
        (b"\x06\x03U\x04\x06\x13\x02US", b"\x06\x03U\x04\x06\x03\x02US"),
    ],
    ids=["not UTF-8", "country as a bit string"],
)
def test_issuer_name_that_cannot_be_read_is_untrusted_and_nothing_worse(
    authority: Authority, old: bytes, new: bytes
) -> None:
    leaf = broken(certificate(authority, *LEAF_EXTENSIONS), old, new)
    with pytest.raises(VerificationFailure, match="cannot be read") as caught:
        TrustAnchors([authority.root]).validate([leaf], NOW)
    assert caught.value.code is FailureCode.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize("start", ["551d0f0101ff040403", "551d130101ff040230"], ids=["keyUsage", "basicConstraints"])
def test_extension_that_cannot_be_parsed_is_malformed(authority: Authority, start: str) -> None:
    old = bytes.fromhex(start)
    leaf = broken(certificate(authority, *LEAF_EXTENSIONS), old, old[:-1] + b"\x05")
    for read in (SigningCertificate.load, tnauthlist_of):
        with pytest.raises(VerificationFailure) as caught:
            read(leaf)
        assert caught.value.code is FailureCode.CERTIFICATE_MALFORMED


def test_issuer_whose_kind_of_key_is_unknown_is_not_trusted(authority: Authority) -> None:
    issuer = broken(authority.issuer, bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0212"))
    assert code(authority, certificate(authority, *LEAF_EXTENSIONS), issuer) is FailureCode.CERTIFICATE_UNTRUSTED


def test_an_issuer_s_name_that_cannot_be_read_is_malformed() -> None:
    """It could not be looked for in a revocation list. The library compares octets, and finds the path."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "name")])

    def unreadable(whole: x509.Certificate) -> x509.Certificate:
        tbs = whole.tbs_certificate_bytes.replace(b"name", b"n\xffme")
        signature = KEY.sign(tbs, ec.ECDSA(SHA256()))
        algorithm = encode(SEQUENCE, encode(0x06, bytes.fromhex("2a8648ce3d040302")))
        return x509.load_der_x509_certificate(encode(SEQUENCE, tbs, algorithm, encode(0x03, b"\0" + signature)))

    authority = Authority.new(NOW)
    above = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    root = certificate(authority, *CA_EXTENSIONS, name="root", issuer=above, issuer_key=KEY)
    middle = unreadable(certificate(authority, *CA_EXTENSIONS, name="name", issuer=above, issuer_key=KEY))
    leaf = unreadable(certificate(authority, *LEAF_EXTENSIONS, issuer=name, issuer_key=KEY))
    with pytest.raises(VerificationFailure, match="an issuer's name") as caught:
        TrustAnchors([root]).validate([leaf, middle], NOW)
    assert caught.value.code is FailureCode.CERTIFICATE_MALFORMED


def test_key_that_is_not_on_its_curve_is_malformed(authority: Authority) -> None:
    point = KEY.public_key().public_numbers()
    leaf = broken(certificate(authority, *LEAF_EXTENSIONS), point.y.to_bytes(32, "big"), bytes(32))
    with pytest.raises(VerificationFailure) as caught:
        SigningCertificate.load(leaf)
    assert caught.value.code is FailureCode.CERTIFICATE_MALFORMED


def test_an_anchor_whose_subject_cannot_be_read_is_refused_at_the_start(authority: Authority) -> None:
    """Found by fuzzing: the library reads a name only when asked, which was at the first untrusted call."""
    der = authority.root.public_bytes(Encoding.DER)
    common_name = authority.root.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    assert isinstance(common_name, str)
    at = der.rindex(common_name.encode()) - 2  # the tag of the string in the subject, after that in the issuer
    assert der[at] == 0x0C
    broken = x509.load_der_x509_certificate(der[:at] + b"\x01" + der[at + 1 :])
    with pytest.raises(VerificationFailure, match="an anchor's subject"):
        TrustAnchors([broken])
