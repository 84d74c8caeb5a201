"""Delegate certificates: what a child may say lies in what its parents may say (RFC 9060 §4)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from shaken_plugin.core.certificates import TrustAnchors, parse_chain
from shaken_plugin.core.tnauthlist import OID, TnAuthList, TnRange
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority
from tests.conftest import NOW
from tests.unit.test_certificates import CA_EXTENSIONS, DAY, KEY, LEAF_EXTENSIONS, START, certificate, code

HUNDRED = (TnRange("12155551200", 100),)


def numbers(*ranges: tuple[str, int], ones: tuple[str, ...] = (), spcs: tuple[str, ...] = ()) -> TnAuthList:
    return TnAuthList(spcs, tuple(TnRange(*one) for one in ranges), ones)


@pytest.mark.parametrize(
    ("parent", "child", "holds"),
    [
        (numbers(("12155551200", 100)), numbers(("12155551200", 100)), True),
        (numbers(("12155551200", 100)), numbers(("12155551210", 20)), True),
        (numbers(("12155551200", 100)), numbers(("12155551299", 2)), False),
        (numbers(("12155551200", 100)), numbers(("12155551199", 2)), False),
        (numbers(("12155551200", 100)), numbers(ones=("12155551299",)), True),
        (numbers(("12155551200", 100)), numbers(ones=("12155551300",)), False),
        (numbers(("12155551200", 100)), numbers(("12155551200", 10), ("12155552000", 10)), False),
        (numbers(("12155551200", 50), ("12155551250", 50)), numbers(("12155551240", 20)), True),
        (numbers(("12155551250", 50), ("12155551200", 60)), numbers(("12155551200", 100)), True),
        (numbers(("12155551200", 50), ("12155551251", 49)), numbers(("12155551240", 20)), False),
        (numbers(("12155551200", 2), ones=("12155551202", "12155551203")), numbers(("12155551200", 4)), True),
        (numbers(("12155551200", 100), ("12155551210", 2)), numbers(("12155551290", 10)), True),
        (numbers(("2155551200", 100)), numbers(("12155551200", 100)), False),
        (numbers(("00", 100)), numbers(("10", 2)), True),
        (numbers(("00", 100)), numbers(("010", 2)), False),
        (numbers(ones=("*67", "911")), numbers(ones=("*67",)), True),
        (numbers(("00", 100), ones=("911",)), numbers(ones=("*67",)), False),
        (numbers(spcs=("709J", "811K")), numbers(spcs=("811K",)), True),
        (numbers(spcs=("709J",)), numbers(spcs=("709J", "811K")), False),
        (numbers(("12155551200", 100)), numbers(spcs=("709J",)), False),
        (numbers(spcs=("709J",)), numbers(("12155551200", 100)), True),
        (numbers(spcs=("709J",)), numbers(("12155551200", 100), spcs=("811K",)), False),
        (numbers(("12155551200", 10), spcs=("709J",)), numbers(ones=("*67",), spcs=("709J",)), True),
    ],
)
def test_a_list_encompasses_another_or_not(parent: TnAuthList, child: TnAuthList, holds: bool) -> None:
    assert parent.encompasses(child) is holds
    assert parent.encompasses(parent)
    assert child.encompasses(child)


def judged(authority: Authority, issuer: Authority, **issue: Any) -> FailureCode | None:
    return code(authority, *parse_chain(issuer.issue(now=NOW, **issue).chain))


def test_delegate_s_certificate_is_trusted_within_its_parent_s_numbers(authority: Authority) -> None:
    delegate = authority.delegate(now=NOW, ranges=[("12155551200", 100)])
    issued = delegate.issue(now=NOW, numbers=("12155551212",))
    path = TrustAnchors([authority.root]).validate(parse_chain(issued.chain), NOW)
    assert path.signer.tnauthlist.ones == ("12155551212",)
    assert [serial for _, serial in path.serials] == [
        issued.certificate.serial_number,
        delegate.issuer.serial_number,
        authority.root.serial_number,
    ]


def test_delegate_s_certificate_that_reaches_beyond_its_parent_is_refused(authority: Authority) -> None:
    delegate = authority.delegate(now=NOW, ranges=[("12155551200", 100)])
    issued = delegate.issue(now=NOW, numbers=("12155551212", "12155551300"))
    with pytest.raises(VerificationFailure, match=f"{issued.certificate.serial_number:x}") as caught:
        TrustAnchors([authority.root]).validate(parse_chain(issued.chain), NOW)
    assert caught.value.code is FailureCode.CERTIFICATE_NOT_ENCOMPASSED


def test_every_step_of_a_longer_chain_is_held_to_the_one_above(authority: Authority) -> None:
    first = authority.delegate(now=NOW, ranges=[("12155551200", 100)])
    second = first.delegate(now=NOW, ranges=[("12155551200", 10)])
    greedy = first.delegate(now=NOW, ranges=[("12155551000", 1000)])
    assert judged(authority, second, numbers=("12155551209",)) is None
    assert judged(authority, second, numbers=("12155551212",)) is FailureCode.CERTIFICATE_NOT_ENCOMPASSED
    assert judged(authority, greedy, numbers=("12155551209",)) is FailureCode.CERTIFICATE_NOT_ENCOMPASSED


def test_a_limit_holds_below_a_ca_that_has_no_list(authority: Authority) -> None:
    """Otherwise a delegate would free itself by another CA certificate, without a TNAuthList."""
    delegate = authority.delegate(now=NOW, ranges=[("12155551200", 100)])
    between = certificate(
        authority, *CA_EXTENSIONS, name="Between", issuer=delegate.issuer.subject, issuer_key=delegate.issuer_key
    )
    leaf = certificate(authority, *LEAF_EXTENSIONS, issuer=between.subject, issuer_key=KEY)
    assert code(authority, leaf, between, delegate.issuer) is FailureCode.CERTIFICATE_NOT_ENCOMPASSED


def test_spc_of_a_parent_covers_any_number_and_no_other_spc(authority: Authority) -> None:
    delegate = authority.delegate(now=NOW, spc="709J")
    assert judged(authority, delegate, numbers=("12155551212",)) is None
    assert judged(authority, delegate, spc="709J") is None
    assert judged(authority, delegate, spc="811K") is FailureCode.CERTIFICATE_NOT_ENCOMPASSED


def test_a_limit_of_the_anchor_itself_holds(authority: Authority) -> None:
    delegate = authority.delegate(now=NOW, spc="709J")
    leaf = parse_chain(delegate.issue(now=NOW, spc="811K").chain)[0]
    with pytest.raises(VerificationFailure) as caught:
        TrustAnchors([delegate.issuer]).validate([leaf], NOW)
    assert caught.value.code is FailureCode.CERTIFICATE_NOT_ENCOMPASSED


def test_parent_whose_list_cannot_be_read_is_refused(authority: Authority) -> None:
    broken = (x509.UnrecognizedExtension(OID, b"\x30\x00"), False)
    parent = certificate(
        authority, *CA_EXTENSIONS, broken, name="P", issuer=authority.root.subject, issuer_key=authority.root_key
    )
    leaf = certificate(authority, *LEAF_EXTENSIONS, issuer=parent.subject, issuer_key=KEY)
    assert code(authority, leaf, parent) is FailureCode.CERTIFICATE_NO_TNAUTHLIST


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        (None, FailureCode.CERTIFICATE_UNTRUSTED),
        (x509.AuthorityKeyIdentifier(b"1" * 20, None, None), FailureCode.CERTIFICATE_UNTRUSTED),
        (x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(x509.Name([]))], 1), FailureCode.CERTIFICATE_UNTRUSTED),
        ("the parent's", None),
    ],
    ids=["absent", "another", "no key identifier", "right"],
)
def test_a_delegate_s_child_names_the_key_of_its_parent(
    authority: Authority, identifier: x509.AuthorityKeyIdentifier | str | None, expected: FailureCode | None
) -> None:
    """RFC 9060 §7. Elsewhere it only helps to find a path (RFC 5280 §4.2.1.1)."""
    delegate = authority.delegate(now=NOW, spc="709J")
    for issuer, refused in ((delegate, expected), (authority, None)):
        key = issuer.issuer_key
        builder = x509.CertificateBuilder(issuer.issuer.subject, delegate.root.subject, KEY.public_key(), 7)
        builder = builder.not_valid_before(START).not_valid_after(START + 2 * DAY)
        if identifier is not None:
            own = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
            builder = builder.add_extension(own if isinstance(identifier, str) else identifier, critical=False)
        for extension, critical in LEAF_EXTENSIONS:
            builder = builder.add_extension(extension, critical=critical)
        leaf = builder.sign(key, SHA256())
        assert code(authority, leaf, issuer.issuer) is refused
