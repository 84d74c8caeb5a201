"""Certificate revocation lists (RFC 5280 §5, §6.3; ATIS-1000080: one indirect list for all)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA3_256, SHA224, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type

from shaken_plugin.core import crl as crl_module
from shaken_plugin.core.crl import RevocationList, parse_crl
from shaken_plugin.core.names import canonical_name
from shaken_plugin.errors import RevocationListError
from shaken_plugin.lab.administrator import PolicyAdministrator
from shaken_plugin.lab.pki import Authority, certificate_builder, key_usage, x500_name
from tests.conftest import NOW

HOUR = timedelta(hours=1)
START = datetime.fromtimestamp(NOW, UTC) - HOUR
PA = PolicyAdministrator.new(NOW)
SIGNERS = [PA.crl_signer]
ONE, OTHER = x500_name([("CN", "One CA")]), x500_name([("CN", "Other CA")])
STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

Extension = tuple[x509.ExtensionType, bool]


def scope(**changes: Any) -> Extension:
    """issuingDistributionPoint, of an indirect list unless told otherwise."""
    plain: dict[str, Any] = {
        "full_name": [x509.UniformResourceIdentifier("https://a.example/crl")],
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": True,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**(plain | changes)), True


def of(*names: x509.Name, general: Sequence[x509.GeneralName] = (), critical: bool = True) -> Extension:
    """certificateIssuer."""
    return x509.CertificateIssuer([*(x509.DirectoryName(name) for name in names), *general]), critical


def crl(
    *entries: tuple[int, Sequence[Extension]],
    extensions: Sequence[Extension] = (scope(),),
    issuer: x509.Name = PA.crl_signer.subject,
    key: Any = PA.crl_key,
    algorithm: Any = SHA256(),  # noqa: B008  # it has no state
) -> bytes:
    """A list in DER, of serial numbers with entry extensions."""
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(START).next_update(START + 24 * HOUR)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    for serial, marks in entries:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(START)
        for extension, critical in marks:
            entry = entry.add_extension(extension, critical=critical)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def refusal(document: bytes, *signers: x509.Certificate, now: float = NOW, **more: Any) -> str:
    """Why a list is not taken."""
    with pytest.raises(RevocationListError) as caught:
        parse_crl(document, signers or SIGNERS, now, **more)
    return str(caught.value)


def signer(key: Any, *, name: x509.Name = PA.crl_signer.subject, usage: x509.KeyUsage | None = None) -> Any:
    """A self-signed certificate for a list's signer."""
    certificate_key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    builder = certificate_builder(name, certificate_key, name, certificate_key, START, 48 * HOUR)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(certificate_key, None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256())


# --- What is in a list --------------------------------------------------------------------------


def test_the_lab_s_list_names_certificates_by_issuer_and_serial_number(authority: Authority) -> None:
    stranger = Authority.new(NOW, name="Stranger")
    leafs = [owner.issue(now=NOW, spc="709J").certificate for owner in (authority, authority, stranger, authority)]
    found = parse_crl(PA.crl(leafs, now=NOW, number=7), SIGNERS, NOW)
    assert found.revoked == {(canonical_name(leaf.issuer), leaf.serial_number) for leaf in leafs}
    assert found.issuer == canonical_name(PA.crl_signer.subject)
    assert (found.number, found.this_update, found.next_update) == (7, NOW - 3600, NOW + 23 * 3600)


def test_an_entry_without_issuer_has_that_of_the_entry_before() -> None:
    """RFC 5280 §5.3.3, and the list's own issuer where there is none before."""
    document = crl((1, ()), (2, [of(ONE)]), (3, ()), (4, [of(OTHER)]), (5, ()), (5, [of(ONE)]))
    own, one, other = canonical_name(PA.crl_signer.subject), canonical_name(ONE), canonical_name(OTHER)
    found = parse_crl(document, SIGNERS, NOW).revoked
    assert found == {(own, 1), (one, 2), (one, 3), (other, 4), (other, 5), (one, 5)}


def test_a_list_without_entries_names_nothing() -> None:
    assert parse_crl(PA.crl([], now=NOW), SIGNERS, NOW).revoked == frozenset()


def test_a_direct_list_speaks_of_its_own_issuer_s_certificates() -> None:
    found = parse_crl(crl((1, ()), (2, ()), extensions=()), SIGNERS, NOW)
    assert found.revoked == {(found.issuer, 1), (found.issuer, 2)}
    assert found.number == 0


def test_pem_is_read_like_der() -> None:
    document = PA.crl([], now=NOW, number=3)
    pem = x509.load_der_x509_crl(document).public_bytes(Encoding.PEM)
    assert parse_crl(pem, SIGNERS, NOW).number == 3


@pytest.mark.parametrize(
    "mark",
    [
        (x509.CRLReason(x509.ReasonFlags.key_compromise), True),
        (x509.InvalidityDate(START), True),
        (STRANGE, False),
    ],
)
def test_known_or_uncritical_extensions_of_an_entry_hinder_nothing(mark: Extension) -> None:
    assert parse_crl(crl((1, [of(ONE), mark])), SIGNERS, NOW).revoked == {(canonical_name(ONE), 1)}


def test_uncritical_extension_of_a_list_hinders_nothing() -> None:
    assert parse_crl(crl((1, ()), extensions=[scope(), (STRANGE, False)]), SIGNERS, NOW).revoked


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (crl(extensions=[scope(), (STRANGE, True)]), "1.2.3.4 is not known"),
        (crl((1, [of(ONE)]), (2, [(STRANGE, True)])), "1.2.3.4 is not known"),
        (crl(extensions=[scope(), (x509.DeltaCRLIndicator(1), True)]), "delta"),
        (crl(extensions=[scope(), (x509.DeltaCRLIndicator(1), False)]), "delta"),
        (crl(extensions=[scope(only_contains_user_certs=True)]), "only some"),
        (crl(extensions=[scope(only_contains_ca_certs=True)]), "only some"),
        (crl(extensions=[scope(only_contains_attribute_certs=True, indirect_crl=False)]), "only some"),
        (crl(extensions=[scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise}))]), "only some"),
        (crl((1, [of(ONE)]), extensions=()), "indirect"),
        (crl((1, [of(ONE)]), extensions=[scope(indirect_crl=False)]), "indirect"),
        (crl((1, [of(ONE, OTHER)])), "one name"),
        (crl((1, [of(general=[x509.DNSName("a.example")])])), "one name"),
        (b"", "not a revocation list"),
        (b"<html>", "not a revocation list"),
        (b"\x30\x00", "not a revocation list"),
        (PA.root.public_bytes(Encoding.PEM), "not a revocation list"),
        (b"\x30" + bytes(crl_module.MAX_LENGTH), "at most"),
    ],
)
def test_a_list_that_cannot_be_used_as_a_whole_is_refused(document: bytes, said: str) -> None:
    """RFC 5280 §5.2, §5.3: "the application MUST NOT use that CRL"."""
    assert said in refusal(document)


def without_next_update() -> bytes:
    """The library writes none, so the field is cut out of a list, and the whole signed anew."""
    document = x509.load_der_x509_crl(crl(extensions=()))
    when = f"{START + 24 * HOUR:%y%m%d%H%M%SZ}".encode()
    tbs = document.tbs_certlist_bytes.replace(b"\x17\x0d" + when, b"")
    tbs = bytes([0x30, len(tbs) - 2]) + tbs[2:]
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = PA.crl_key.sign(tbs, ec.ECDSA(SHA256()))
    content = tbs + algorithm + bytes([3, len(signature) + 1, 0]) + signature
    return b"\x30\x81" + bytes([len(content)]) + content


def test_a_list_without_next_update_is_refused() -> None:
    """RFC 5280 §5.1.2.5: such a list would never grow old."""
    assert "nextUpdate" in refusal(without_next_update())


def test_extensions_that_cannot_be_parsed_are_named() -> None:
    """An entry whose certificateIssuer became a reason code: signed rightly, and no enumeration."""
    document = crl((1, [of(ONE)]))
    before, after = (bytes.fromhex(f"551d{octet}0101ff04") for octet in ("1d", "15"))
    assert document.count(before) == 1
    broken = document.replace(before, after)
    parts = x509.load_der_x509_crl(broken)
    assert "signed by none" in refusal(broken)
    signature = b""
    while len(signature) != len(parts.signature):  # so that the lengths around it stay right
        signature = PA.crl_key.sign(parts.tbs_certlist_bytes, ec.ECDSA(SHA256()))
    assert "not a revocation list: error parsing" in refusal(broken[: -len(signature)] + signature)


# --- Who may sign -------------------------------------------------------------------------------


def test_a_signer_below_a_configured_root_is_believed_with_its_chain() -> None:
    document = PA.crl([], now=NOW)
    assert parse_crl(document, [PA.root], NOW, chain=[PA.crl_signer]).number == 1
    assert "signed by none" in refusal(document, PA.root)


def test_a_signer_is_not_believed_because_it_came_with_the_list(authority: Authority) -> None:
    document = PA.crl([], now=NOW)
    assert "not believed: certificate_untrusted" in refusal(document, authority.root, chain=[PA.crl_signer])
    other = PolicyAdministrator.new(NOW)
    assert "no CA certificate is configured" in refusal(document, other.crl_signer, chain=[PA.crl_signer])


def test_a_forged_list_under_the_right_name_is_refused() -> None:
    """RFC 5280 §6.3.3 (g)."""
    forged = PolicyAdministrator.new(NOW)
    assert forged.crl_signer.subject == PA.crl_signer.subject
    assert "signed by none" in refusal(forged.crl([], now=NOW))
    assert "not believed" in refusal(forged.crl([], now=NOW), PA.root, chain=[forged.crl_signer])


def test_a_list_of_another_issuer_s_name_is_refused() -> None:
    assert "signed by none" in refusal(crl(issuer=ONE))


def test_a_signer_must_be_allowed_to_sign_lists() -> None:
    """RFC 5280 §6.3.3 (f): "verify that the cRLSign bit is set"."""
    for usage, taken in ((key_usage(lists=True), True), (None, True), (key_usage(certifies=True), False)):
        certificate = signer(PA.crl_key, usage=usage)
        if taken:
            assert parse_crl(crl(), [certificate], NOW).revoked == frozenset()
        else:
            assert "signed by none" in refusal(crl(), certificate)


@pytest.mark.parametrize(("late", "said"), [(4000, "certificate_expired"), (-400, "certificate_not_yet_valid")])
def test_a_configured_signer_must_be_valid_now(late: int, said: str) -> None:
    now = NOW + timedelta(days=late).total_seconds()
    assert said in refusal(crl(), now=now)


def test_a_renewed_signer_with_the_same_key_is_found_behind_the_old_one() -> None:
    old = certificate_builder(PA.crl_signer.subject, PA.crl_key, ONE, PA.crl_key, START - 9 * HOUR, HOUR)
    expired = old.sign(PA.crl_key, SHA256())
    assert parse_crl(crl(), [expired, PA.crl_signer], NOW).revoked == frozenset()
    assert "certificate_expired" in refusal(crl(), expired)


def test_only_sha_2_is_taken() -> None:
    for algorithm in (SHA256(), SHA384(), SHA512()):
        assert parse_crl(crl(algorithm=algorithm), SIGNERS, NOW).revoked == frozenset()
    for weak in (SHA224(), SHA3_256()):
        assert "signed by none" in refusal(crl(algorithm=weak))


def test_rsa_signs_lists_and_other_keys_do_not() -> None:
    rsa_key, ed_key = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
    assert parse_crl(crl(key=rsa_key), [signer(rsa_key)], NOW).revoked == frozenset()
    assert "signed by none" in refusal(crl(key=ed_key, algorithm=None), signer(ed_key))
    assert "signed by none" in refusal(crl(), signer(ed_key), signer(rsa_key), signer(None))


def test_algorithm_that_the_library_does_not_know_is_refused() -> None:
    known, unknown = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
    assert "signed by none" in refusal(crl().replace(known, unknown))


# --- Time ---------------------------------------------------------------------------------------


def test_a_list_can_be_relied_on_from_its_first_to_its_last_second() -> None:
    found = parse_crl(PA.crl([], now=NOW), SIGNERS, NOW)
    moments = (found.this_update - 1, found.this_update, NOW, found.next_update, found.next_update + 1)
    troubles = [found.trouble(moment) for moment in moments]
    assert [trouble is None for trouble in troubles] == [False, True, True, True, False]
    assert "of the future, 2026-11-18 10:06:40 UTC" in (troubles[0] or "")
    assert "out of date since 2026-11-19 10:06:40 UTC" in (troubles[-1] or "")


def test_a_list_out_of_date_is_still_read() -> None:
    """What it names stays revoked."""
    document = PA.crl([PA.root], now=NOW - 7 * 86_400)
    found = parse_crl(document, SIGNERS, NOW)
    assert len(found.revoked) == 1
    assert found.trouble(NOW)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"number": 8}, True),
        ({"this_update": NOW + 1, "number": 1}, True),
        ({"number": 6}, False),
        ({"this_update": NOW - 1, "number": 9}, False),
        ({"this_update": NOW - 1, "issuer": b"another"}, True),
    ],
)
def test_an_older_list_does_not_replace_a_newer(changes: dict[str, Any], taken: bool) -> None:
    held = RevocationList(b"issuer", 7, NOW, NOW + 1, frozenset())
    new = replace(held, **changes)
    if taken:
        new.check_replaces(held)
    else:
        with pytest.raises(RevocationListError, match="older than the one at hand"):
            new.check_replaces(held)


# --- Names --------------------------------------------------------------------------------------


def spelt(text: str, kind: Any = None) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text, _type=kind)])


def test_a_name_is_the_same_in_every_spelling() -> None:
    """RFC 5280 §7.1."""
    spellings = [
        spelt("Example CA"),
        spelt("Example CA", _ASN1Type.PrintableString),
        spelt("EXAMPLE ca"),
        spelt(" Example  CA "),
    ]
    assert len({canonical_name(name) for name in spellings}) == 1
    assert len({name.public_bytes() for name in spellings}) == 4


def test_different_names_stay_different() -> None:
    common, organization = x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME
    a, b = x509.NameAttribute(common, "a"), x509.NameAttribute(organization, "b")
    identifier = x509.ObjectIdentifier("2.5.4.45")
    names = [
        x509.Name([a]),
        x509.Name([a, b]),
        x509.Name([b, a]),
        x509.Name([x509.RelativeDistinguishedName([a, b])]),
        x509.Name([x509.NameAttribute(common, "ab")]),
        x509.Name([x509.NameAttribute(common, "a+2.5.4.10=1:b")]),
        x509.Name([x509.NameAttribute(identifier, b"\x00", _ASN1Type.BitString)]),
        x509.Name([]),
    ]
    assert len({canonical_name(name) for name in names}) == len(names)
    one_way = x509.Name([x509.RelativeDistinguishedName([a, b])])
    other_way = x509.Name([x509.RelativeDistinguishedName([b, a])])
    assert canonical_name(one_way) == canonical_name(other_way)
