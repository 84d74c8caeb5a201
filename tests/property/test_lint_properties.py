"""Whatever a document or a repository holds, the lints give findings and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.lint import LINTS, Expectations, Source, examine
from shaken_plugin.lint.document import Document
from shaken_plugin.lint.repository import Exchange, host_trouble
from shaken_plugin.lint.revocation import Crl
from tests.conftest import NOW
from tests.lint.builders import PA, crl, issuer, key, leaf, pem, root, signer, spki
from tests.property.strategies import examples, mutated_bytes, texts, wire_bytes, wire_text

REAL = [path.read_bytes() for folder in ("samples", "anomalies")
        for path in sorted((Path(__file__).parents[1] / "pki" / folder).iterdir())]  # fmt: skip
EXPECTED = Expectations(
    NOW,
    anchors=(root().certificate,),
    public_key=spki(key("leaf")),
    spc="709J",
    signer=signer(),
    crl=crl(leaf()),
)
CHAIN = pem(leaf().der(), issuer().der())
NAMES = {lint.name for table in LINTS.values() for lint in table}


def check(*sources: Source) -> None:
    for report in examine(sources, EXPECTED):
        for finding in report.findings:
            assert finding.lint in NAMES or finding.lint.removesuffix("_ca") in NAMES
            assert finding.text
            assert finding.certificate is None or finding.certificate < len(report.certificates)


@examples
@given(st.one_of(st.binary(max_size=300), wire_bytes, st.binary(max_size=100).map(lambda data: b"\x30\x82" + data)))
def test_arbitrary_octets(data: bytes) -> None:
    check(Source("x", data), Source("y", pem(data)))


@examples
@given(st.sampled_from([leaf().der(), issuer().der(), root().der()]).flatmap(mutated_bytes))
def test_mutated_certificates(data: bytes) -> None:
    check(Source("x", data), Source("y", pem(leaf().der(), data, root().der())))


@examples
@given(st.sampled_from(REAL).flatmap(mutated_bytes))
def test_mutated_real_documents(data: bytes) -> None:
    check(Source("x", data))


@examples
@given(st.sampled_from([leaf().der(), issuer().der(), root().der()]).flatmap(mutated_bytes))
def test_mutated_anchors(data: bytes) -> None:
    document = Document.parse(data)
    for report in examine([Source("x", CHAIN)], replace(EXPECTED, anchors=tuple(document.readable))):
        assert all(finding.text for finding in report.findings)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
@examples
@given(mutated_bytes(PA.crl([], now=NOW)))
def test_mutated_revocation_lists(data: bytes) -> None:
    found = Crl.parse("x", data, [PA.crl_signer], NOW)
    for report in examine([Source("x", CHAIN)], replace(EXPECTED, crl=found)):
        assert all(finding.text for finding in report.findings)


@examples
@given(
    wire_text,
    st.one_of(st.none(), st.integers(100, 599)),
    st.dictionaries(
        st.sampled_from(["pragma", "date", "expires", "cache-control", "content-type", "location"]),
        st.one_of(texts, wire_text, st.sampled_from(["max-age=1", "Thu, 19 Nov 2026 11:00:00 GMT", "a, b=, =c"])),
    ),
    wire_bytes,
)
def test_arbitrary_answers(url: str, status: int | None, headers: dict[str, str], body: bytes) -> None:
    check(Source("x", body, Exchange(url, status=status, headers=headers, body=body)))
    host_trouble(url, frozenset({"127.0.0.1:8443"}))
