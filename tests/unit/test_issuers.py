"""Issuers that are known: what is below them is judged as if they were not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509 import verification

from shaken_plugin.core import issuers
from shaken_plugin.core.certificates import TrustAnchors, TrustedPath, parse_chain
from shaken_plugin.core.issuers import MAX_ISSUERS, KnownIssuers
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority, Defect, certificate_builder, key_usage
from tests.conftest import NOW
from tests.unit.test_certificates import DAY

Chain = tuple[x509.Certificate, ...]


@pytest.fixture
def anchors(authority: Authority) -> TrustAnchors:
    """They know the authority's issuer."""
    warm = TrustAnchors([authority.root])
    warm.validate(issue(authority), NOW)
    return warm


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> list[verification.Store]:
    """Below what paths were validated."""
    asked: list[verification.Store] = []
    make = issuers.verifier

    def noted(store: verification.Store, now: float) -> verification.ClientVerifier:
        asked.append(store)
        return make(store, now)

    monkeypatch.setattr("shaken_plugin.core.issuers.verifier", noted)
    return asked


def issue(authority: Authority, defect: Defect | None = None) -> Chain:
    return parse_chain(authority.issue(now=NOW, spc="709J", defect=defect).chain)


def judged(anchors: TrustAnchors, chain: Chain, now: float = NOW) -> object:
    """All that is known of a path, or why there is none, in a form that can be compared."""
    try:
        path = anchors.validate(chain, now)
    except VerificationFailure as failure:
        return failure.code, failure.detail
    return path.signer.certificate, path.signer.tnauthlist, path.not_before, path.not_after, path.serials


def test_the_next_certificate_of_an_issuer_is_validated_below_it_alone(
    authority: Authority, anchors: TrustAnchors, stores: list[verification.Store]
) -> None:
    chain = issue(authority)
    assert isinstance(anchors.validate(chain, NOW), TrustedPath)
    assert len(stores) == 1
    assert judged(anchors, chain) == judged(TrustAnchors([authority.root]), chain)


def test_what_leads_elsewhere_is_not_validated_below_it(
    authority: Authority, anchors: TrustAnchors, stores: list[verification.Store]
) -> None:
    leaf, issuer = issue(authority)
    for chain in [(leaf,), (leaf, issuer, issuer), (leaf, authority.root)]:
        assert judged(anchors, chain) == judged(TrustAnchors([authority.root]), chain)
    assert stores == []


@pytest.mark.parametrize("defect", list(Defect))
def test_every_defect_is_found_below_a_known_issuer_too(
    authority: Authority, anchors: TrustAnchors, defect: Defect
) -> None:
    chain = issue(authority, defect)
    assert judged(anchors, chain) == judged(TrustAnchors([authority.root]), chain)


def test_another_s_signature_is_refused_though_it_names_a_known_issuer(
    authority: Authority, anchors: TrustAnchors
) -> None:
    other = replace(authority, issuer_key=Authority.new(NOW).issuer_key)
    chain = issue(other)
    assert chain[1] == authority.issuer
    found = judged(anchors, chain)
    assert found == judged(TrustAnchors([authority.root]), chain)
    assert isinstance(found, tuple)
    assert found[0] is FailureCode.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize("of", ["issuer", "root"])
@pytest.mark.parametrize("end", ["not_valid_before_utc", "not_valid_after_utc"])
def test_it_is_known_while_it_is_valid_and_no_longer(authority: Authority, of: str, end: str) -> None:
    moment: float = getattr(getattr(authority, of), end).timestamp()
    for now in (moment - 1, moment - 0.5, moment, moment + 0.5, moment + 1):
        warm = TrustAnchors([authority.root])
        warm.validate(issue(authority), NOW)
        chain = parse_chain(authority.issue(now=now, spc="709J").chain)
        assert judged(warm, chain, now) == judged(TrustAnchors([authority.root]), chain, now), now - moment


def test_a_delegate_s_scope_is_compared_below_a_known_issuer_too(authority: Authority) -> None:
    delegate = authority.delegate(now=NOW, numbers=["12155551212"])
    warm = TrustAnchors([authority.root])
    inside, outside = (
        parse_chain(delegate.issue(now=NOW, numbers=[number]).chain) for number in ("12155551212", "12155551213")
    )
    for _ in range(2):
        assert warm.validate(inside, NOW).signer.tnauthlist.ones == ("12155551212",)
        with pytest.raises(VerificationFailure) as caught:
            warm.validate(outside, NOW)
        assert caught.value.code is FailureCode.CERTIFICATE_NOT_ENCOMPASSED


def _again(authority: Authority, name: x509.Name, key_of: Authority, *, constrained: bool = False) -> x509.Certificate:
    """A CA certificate of the root for a name and the key of an authority's issuer."""
    start = datetime.fromtimestamp(NOW, UTC) - DAY
    builder = certificate_builder(
        name, key_of.issuer_key, authority.root.subject, authority.root_key, start, timedelta(days=9)
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(certifies=True), critical=True)
    if constrained:
        names = x509.NameConstraints(None, [x509.DNSName("example.com")])
        builder = builder.add_extension(names, critical=True)
    signer = authority.root_key
    return builder.sign(signer, authority.root.signature_hash_algorithm)  # type: ignore[arg-type]  # of a key


def _constrained(authority: Authority) -> tuple[Authority, Sequence[x509.Certificate]]:
    return replace(authority, issuer=_again(authority, authority.issuer.subject, authority, constrained=True)), ()


def _anchor_of_the_same_name(authority: Authority) -> tuple[Authority, Sequence[x509.Certificate]]:
    return authority, (_again(authority, authority.root.subject, Authority.new(NOW)),)


def _anchor_of_the_issuer_s_name(authority: Authority) -> tuple[Authority, Sequence[x509.Certificate]]:
    return authority, (_again(authority, authority.issuer.subject, authority),)


@pytest.mark.parametrize("case", [_constrained, _anchor_of_the_same_name, _anchor_of_the_issuer_s_name])
def test_an_issuer_whose_way_may_depend_on_what_is_below_is_not_remembered(
    authority: Authority,
    stores: list[verification.Store],
    case: Callable[[Authority], tuple[Authority, Sequence[x509.Certificate]]],
) -> None:
    changed, more = case(authority)
    warm = TrustAnchors([authority.root, *more])
    for _ in range(2):
        chain = issue(changed)
        assert judged(warm, chain) == judged(TrustAnchors([authority.root, *more]), chain)
    assert stores == []


def test_an_issuer_whose_extensions_cannot_be_read_is_not_remembered(
    authority: Authority, stores: list[verification.Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise VerificationFailure(FailureCode.CERTIFICATE_MALFORMED)

    known, chain = KnownIssuers([authority.root]), issue(authority)
    with monkeypatch.context() as patch:
        patch.setattr("shaken_plugin.core.issuers.extension", unreadable)
        known.remember([*chain, authority.root])
    assert known.path_below(chain, NOW) is None
    assert stores == []
    known.remember([*chain, authority.root])
    assert known.path_below(chain, NOW) == [*chain, authority.root]


def test_issuers_are_bounded_in_number(authority: Authority) -> None:
    known, first = KnownIssuers([authority.root]), issue(authority)
    known.remember([*first, authority.root])
    for _ in range(MAX_ISSUERS - 1):
        known.remember([first[0], _again(authority, authority.issuer.subject, authority), authority.root])
    assert known.path_below(first, NOW) is not None
    known.remember([first[0], _again(authority, authority.issuer.subject, authority), authority.root])
    assert known.path_below(first, NOW) is None
