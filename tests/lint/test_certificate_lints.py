"""Every lint of a certificate: made to fire, and silent on sound ones that it applies to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shaken_plugin.lint import LINTS, Expectations, Finding, Severity, Source, examine
from shaken_plugin.lint.certificate import (
    AUTHORITY_KEY_IDENTIFIER,
    BASIC_CONSTRAINTS,
    CERTIFICATE_POLICIES,
    CP_1_3,
    CP_1_4,
    CRL_DISTRIBUTION_POINTS,
    ECDSA_SHA384,
    KEY_USAGE,
    SUBJECT_KEY_IDENTIFIER,
    TNAUTHLIST,
)
from shaken_plugin.lint.model import CP13, CP14, V003, V004, V005
from tests.conftest import NOW
from tests.lint.builders import (
    RSA_SHA256,
    UTF8,
    Recipe,
    crl_point,
    identifier,
    issuer,
    key,
    key_usage,
    leaf,
    name,
    oid,
    policies,
    root,
    spki,
    tlv,
    tnauthlist,
)

SOUND: dict[str, Callable[[], Recipe]] = {"leaf": leaf, "intermediate": issuer, "root": root}
US, PROVIDER = ("C", "US"), ("O", "Lab Provider")
CN = ("CN", "SHAKEN 709J")
CA_NAME = ("CN", "SHAKEN ROOT")
JANUARY_2050 = datetime(2050, 1, 1, tzinfo=UTC).timestamp()


def findings(der: bytes) -> list[Finding]:
    """Everything about a certificate alone in its document, but for its being alone."""
    (report,) = examine([Source("it", der)], Expectations(NOW))
    return [finding for finding in report.findings if finding.certificate is not None]


def names(recipe: Recipe) -> set[str]:
    return {finding.lint for finding in findings(recipe.der())}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_certificate_gives_no_finding(kind: str) -> None:
    assert findings(SOUND[kind]().der()) == []


def test_a_sound_certificate_under_policy_13_gives_no_finding() -> None:
    assert findings(leaf().having(CERTIFICATE_POLICIES, policies(CP_1_3)).der()) == []


FIRING: list[tuple[str, Recipe]] = [
    ("e_atis_version", leaf().but(version=None)),
    ("e_atis_version_ca", issuer().but(version=1)),
    ("e_atis_serial_number", leaf().but(serial=0)),
    ("e_atis_serial_number", leaf().but(serial=-(2**70))),
    ("e_atis_serial_number_ca", root().but(serial=0)),
    ("e_atis_serial_number_size", leaf().but(serial=2**63 - 1)),
    ("e_atis_serial_number_size_ca", issuer().but(serial=16)),
    ("e_atis_signature_algorithm", leaf().but(issuer_key=key("rsa", "rsa"), algorithm=RSA_SHA256)),
    ("e_atis_signature_algorithm",
     leaf().having(CERTIFICATE_POLICIES, policies(CP_1_3)).but(algorithm=ECDSA_SHA384)),
    ("e_atis_signature_algorithm_ca",
     issuer().having(CERTIFICATE_POLICIES, policies(CP_1_3)).but(algorithm=ECDSA_SHA384)),
    ("n_shaken_signature_sha384", leaf().but(algorithm=ECDSA_SHA384)),
    ("e_atis_subject_public_key", leaf().but(own_key=key("big", "p384"))),
    ("e_atis_subject_public_key", leaf().but(own_key=key("rsa", "rsa"))),
    ("e_atis_subject_public_key", leaf().but(
        public_key=tlv(0x30, tlv(0x30, oid("1.2.840.10045.2.1"), tlv(0x30)), tlv(0x03, b"\0\4")))),
    ("e_atis_subject_public_key_ca",
     issuer().having(CERTIFICATE_POLICIES, policies(CP_1_3)).but(own_key=key("big", "p384"))),
    ("e_atis_subject_public_key_ca", root().but(
        own_key=key("big", "p384"), issuer_key=key("big", "p384"), not_before=CP14.since(is_ca=True) - 1)),
    ("w_shaken_public_key_p384", issuer().but(own_key=key("big", "p384"))),
    ("w_shaken_public_key_p384", root().but(own_key=key("big", "p384"), issuer_key=key("big", "p384"))),
    ("e_issuer_root", root().but(issuer=name(("CN", "somebody else")))),
    ("e_atis_subject_dn", leaf().but(subject=name(PROVIDER, CN))),
    ("e_atis_subject_dn", leaf().but(subject=name(US, US, PROVIDER, CN))),
    ("e_atis_subject_dn", leaf().but(subject=name(US, PROVIDER))),
    ("e_atis_subject_dn", leaf().but(subject=name(US, PROVIDER, CN, CN))),
    ("e_atis_subject_dn_ca", issuer().but(subject=name(PROVIDER, CA_NAME))),
    ("e_atis_subject_o_required", leaf().but(subject=name(US, CN))),
    ("e_atis_subject_o_required_ca", issuer().but(subject=name(US, PROVIDER, PROVIDER, CA_NAME))),
    ("e_atis_subject_c_iso", leaf().but(subject=name(("C", "us"), PROVIDER, CN))),
    ("e_atis_subject_c_iso", leaf().but(subject=name(("C", "XX"), PROVIDER, CN))),
    ("e_atis_subject_c_iso_ca", issuer().but(subject=name(("C", "USA"), PROVIDER, CA_NAME))),
    ("e_atis_subject_c_us", leaf().but(subject=name(("C", "CA"), PROVIDER, CN))),
    ("e_atis_subject_c_us_ca", issuer().but(subject=name(("C", "GB"), PROVIDER, CA_NAME))),
    ("e_atis_subject_cn", leaf().but(subject=name(US, PROVIDER, ("CN", "SHAKENED 709J")))),
    ("e_atis_subject_cn_ca", issuer().but(subject=name(US, PROVIDER, ("CN", "Intermediate")))),
    ("e_atis_subject_cn_root", root().but(subject=name(US, ("CN", "SHAKEN rooted")))),
    ("e_atis_subject_cn_spc", leaf().but(subject=name(US, PROVIDER, ("CN", "SHAKEN 709")))),
    ("e_atis_subject_cn_spc", leaf().but(subject=name(US, PROVIDER, ("CN", "SHAKEN Lab 709J")))),
    ("e_atis_subject_cn_spc", leaf().without(TNAUTHLIST)),
    ("e_us_cp_subject_sn_shall",
     leaf().having(CERTIFICATE_POLICIES, policies(CP_1_3)).but(subject=name(US, PROVIDER, CN))),
    ("e_us_cp_subject_sn_shall_ca",
     issuer().having(CERTIFICATE_POLICIES, policies(CP_1_3)).having(TNAUTHLIST, tnauthlist("709J"))),
    ("e_us_cp_subject_sn_may", leaf().but(subject=name(US, PROVIDER, CN, ("serialNumber", "7", UTF8)))),
    ("e_us_cp_subject_sn_may", leaf().but(subject=name(US, PROVIDER, CN, ("serialNumber", "7" * 65, 0x13)))),
    ("e_us_cp_subject_sn_may_ca", issuer().but(
        subject=name(US, PROVIDER, CA_NAME, ("serialNumber", "7", 0x13), ("serialNumber", "8", 0x13)))),
    ("e_atis_ext_basic_constraints", leaf().without(BASIC_CONSTRAINTS)),
    ("e_atis_ext_basic_constraints", issuer().critical(BASIC_CONSTRAINTS, critical=False)),
    ("e_atis_ext_basic_constraints", leaf().having(BASIC_CONSTRAINTS, b"\x30\x05", critical=True)),
    ("e_atis_ext_key_usage", leaf().without(KEY_USAGE)),
    ("e_atis_ext_key_usage", root().critical(KEY_USAGE, critical=False)),
    ("e_atis_ext_key_usage_ca", issuer().having(KEY_USAGE, key_usage(5, 6), critical=True)),
    ("e_atis_ext_key_usage_ca", root().having(KEY_USAGE, key_usage(2, 5), critical=True)),
    ("e_atis_ext_key_usage_ca", root().having(KEY_USAGE, key_usage(0, 6), critical=True)),
    ("e_atis_ext_key_usage_ee", leaf().having(KEY_USAGE, key_usage(0, 1), critical=True)),
    ("e_atis_ext_key_usage_ee", leaf().having(KEY_USAGE, key_usage(), critical=True)),
    ("e_atis_subject_key_identifier", leaf().without(SUBJECT_KEY_IDENTIFIER)),
    ("e_atis_subject_key_identifier_ca", root().without(SUBJECT_KEY_IDENTIFIER)),
    ("e_atis_subject_key_identifier_size", leaf().having(SUBJECT_KEY_IDENTIFIER, tlv(0x04, b"x" * 32))),
    ("e_atis_subject_key_identifier_size_ca", issuer().having(SUBJECT_KEY_IDENTIFIER, b"\x04\x30x")),
    ("w_shaken_subject_key_identifier_hash", leaf().having(SUBJECT_KEY_IDENTIFIER, tlv(0x04, b"x" * 20))),
    ("e_atis_ext_authority_key_identifier", leaf().without(AUTHORITY_KEY_IDENTIFIER)),
    ("e_atis_ext_authority_key_identifier_ca", issuer().without(AUTHORITY_KEY_IDENTIFIER)),
    ("e_atis_ext_authority_key_identifier_root",
     root().having(AUTHORITY_KEY_IDENTIFIER, tlv(0x30, tlv(0x80, identifier(key("leaf")))))),
    ("e_ext_authority_key_identifier_missing", leaf().without(AUTHORITY_KEY_IDENTIFIER)),
    ("e_ext_authority_key_identifier_missing", issuer().without(AUTHORITY_KEY_IDENTIFIER)),
    ("w_ext_subject_key_identifier_missing_sub_cert", leaf().without(SUBJECT_KEY_IDENTIFIER)),
    ("e_wrong_time_format_pre2050", leaf().but(generalized=True)),
    ("e_wrong_time_format_pre2050", leaf().but(generalized=True, version=None)),
    ("e_wrong_time_format_pre2050", root().but(generalized=True, not_after=JANUARY_2050 - 1)),
    ("e_ext_authority_key_identifier_no_key_identifier",
     leaf().having(AUTHORITY_KEY_IDENTIFIER, tlv(0x30, tlv(0x82, b"\7")))),
    ("e_atis_ext_certificate_policies", leaf().without(CERTIFICATE_POLICIES)),
    ("e_atis_ext_certificate_policies", leaf().critical(CERTIFICATE_POLICIES, critical=True)),
    ("e_atis_ext_certificate_policies", leaf().having(CERTIFICATE_POLICIES, policies(CP_1_3, CP_1_4))),
    ("e_atis_ext_certificate_policies_ca", issuer().without(CERTIFICATE_POLICIES)),
    ("e_shaken_certificate_policies_id", leaf().having(CERTIFICATE_POLICIES, policies("1.2.3.4"))),
    ("e_shaken_certificate_policies_id", leaf().having(CERTIFICATE_POLICIES, b"\x30\x03\x30\x01\x06")),
    ("e_shaken_certificate_policies_id_ca", issuer().having(CERTIFICATE_POLICIES, policies(CP_1_3, CP_1_4))),
    ("e_atis_ext_certificate_policies_root", root().having(CERTIFICATE_POLICIES, policies(CP_1_4))),
    ("e_atis_ext_crl_distribution", leaf().without(CRL_DISTRIBUTION_POINTS)),
    ("e_atis_ext_crl_distribution", leaf().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point(), crl_point()))),
    ("e_atis_ext_crl_distribution", leaf().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point("ldap://x/y")))),
    ("e_atis_ext_crl_distribution", leaf().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point(None)))),
    ("e_atis_ext_crl_distribution_ca", issuer().without(CRL_DISTRIBUTION_POINTS)),
    ("e_atis_ext_crl_distribution_struct",
     leaf().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point(issuer=None)))),
    ("e_atis_ext_crl_distribution_struct_ca",
     issuer().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point(issuer=None)))),
    ("e_atis_ext_crl_distribution_root", root().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point()))),
    ("e_atis_tn_auth_list", leaf().without(TNAUTHLIST)),
    ("e_atis_tn_auth_list", leaf().critical(TNAUTHLIST, critical=True)),
    ("e_atis_tn_auth_list", leaf().having(TNAUTHLIST, tnauthlist("709J", "811K"))),
    ("e_atis_tn_auth_list", leaf().having(TNAUTHLIST, tlv(0x30, tlv(0xA2, tlv(0x16, b"12155551212"))))),
    ("e_atis_tn_auth_list_ca", issuer().having(TNAUTHLIST, tnauthlist("709J"))),
    ("e_atis_tn_auth_list_spc_format", leaf().having(TNAUTHLIST, tnauthlist("709j"))),
    ("e_atis_tn_auth_list_spc_format", leaf().having(TNAUTHLIST, tnauthlist("70-9"))),
    ("e_atis_tn_auth_list_spc_format", leaf().without(TNAUTHLIST)),
    ("e_atis_ext_not_specified", leaf().having("2.5.29.37", tlv(0x30, oid("1.3.6.1.5.5.7.3.1")))),
    ("e_atis_ext_not_specified_ca", root().having("2.5.29.17", tlv(0x30, tlv(0x82, b"x.example")))),
    ("e_der_refused", leaf().but(parameters=b"\x05\0")),
    ("e_der_algorithm_parameters", leaf().but(parameters=b"\x05\0")),
    ("e_der_algorithms_differ", leaf().but(inner_algorithm=ECDSA_SHA384)),
    ("e_der_duplicate_extension",
     leaf().but(more=[tlv(0x30, oid(TNAUTHLIST), tlv(0x04, tnauthlist("811K")))])),
    ("e_incorrect_ku_encoding", leaf().having(KEY_USAGE, b"\x03\x02\x00\x80", critical=True)),
    ("e_incorrect_ku_encoding", leaf().having(KEY_USAGE, b"\x03\x03\x07\x80\x00", critical=True)),
    ("e_incorrect_ku_encoding", leaf().having(KEY_USAGE, b"\x03\x00", critical=True)),
    ("e_tnauthlist_outer_length", leaf().having(TNAUTHLIST, bytes.fromhex("3008a006163836374a"))),
    ("e_tnauthlist_bare_string", leaf().having(TNAUTHLIST, bytes.fromhex("300613043735354a"))),
    ("w_tnauthlist_lower_case", leaf().having(TNAUTHLIST, tnauthlist("709j"))),
]  # fmt: skip


@pytest.mark.parametrize(("lint", "recipe"), FIRING, ids=[f"{lint}-{place}" for place, (lint, _) in enumerate(FIRING)])
def test_it_fires(lint: str, recipe: Recipe) -> None:
    assert lint in names(recipe)


def test_trailing_data_and_lengths_that_are_not_the_shortest_are_seen() -> None:
    der = leaf().der()
    assert [finding.lint for finding in findings(der + b"\0\0")] == ["e_der_trailing_data"]
    longer = b"\x30\x83\0" + der[2:]
    assert "e_der_length" in {finding.lint for finding in findings(longer)}
    inner = leaf().but(issuer=b"\x30\x81" + issuer().subject[1:])
    assert "e_der_length" in names(inner)


IN_CERTIFICATES = [lint for table in ("Fields", "Extensions", "Encoding") for lint in LINTS[table]]


def test_every_lint_of_certificates_is_made_to_fire() -> None:
    alone = {"e_der_trailing_data", "e_der_length", "e_der_unreadable"}
    """Fired by tests of their own, here and in test_document.py."""
    wanted = {lint.name for lint in IN_CERTIFICATES} | {f"{lint.name}_ca" for lint in IN_CERTIFICATES if lint.by_kind}
    assert {lint for lint, _ in FIRING} == wanted - alone


def test_every_lint_of_certificates_applies_to_one_of_the_sound_ones() -> None:
    """Else its silence there would say nothing."""
    sound = [make().certificate for make in SOUND.values()]
    sound.append(leaf().having(CERTIFICATE_POLICIES, policies(CP_1_3)).certificate)
    idle = [lint.name for lint in IN_CERTIFICATES if not any(lint.scope.holds(one) for one in sound)]
    assert idle == []


PUBLISHED = [
    line.partition("#")[0].strip()
    for line in (Path(__file__).parent / "published.txt").read_text().splitlines()
    if line.partition("#")[0].strip()
]
"""See there for where they come from."""


def test_all_published_lints_are_there() -> None:
    assert len(PUBLISHED) == len(set(PUBLISHED)) == 47
    assert set(PUBLISHED) <= {lint.name for table in LINTS.values() for lint in table}


def test_no_two_lints_have_the_same_name() -> None:
    every = [lint.name for table in LINTS.values() for lint in table]
    every += [f"{lint.name}_ca" for table in LINTS.values() for lint in table if lint.by_kind]
    assert len(every) == len(set(every))


def test_the_letter_of_a_name_is_its_severity_but_for_one() -> None:
    letters = {Severity.ERROR: "e", Severity.WARN: "w", Severity.NOTICE: "n"}
    odd = {lint.name for table in LINTS.values() for lint in table if lint.name[0] != letters[lint.severity]}
    # The list it comes from calls it an error, and it can never fail there: CP 1.4 says "may".
    assert odd == {"e_us_cp_subject_sn_may"}


@pytest.mark.parametrize(
    ("edition", "leaf_day", "ca_day"),
    [
        (V003, "2020-12-03", "2020-09-04"),
        (V004, "2022-01-16", "2021-10-18"),
        (V005, "2023-03-12", "2022-12-12"),
        (CP13, "2022-01-10", "2021-08-18"),
        (CP14, "2023-09-04", "2023-06-06"),
    ],
    ids=lambda value: getattr(value, "document", None),
)
def test_documents_hold_from_their_days_on(edition: object, leaf_day: str, ca_day: str) -> None:
    from shaken_plugin.lint.model import Edition

    assert isinstance(edition, Edition)
    days = [datetime.fromtimestamp(edition.since(is_ca=is_ca), UTC) for is_ca in (False, True)]
    assert [f"{day:%Y-%m-%d}" for day in days] == [leaf_day, ca_day]


@pytest.mark.parametrize(
    ("lint", "recipe", "edition"),
    [
        ("e_atis_version", leaf().but(version=None), V003),
        ("e_atis_subject_o_required", leaf().but(subject=name(US, CN)), V004),
        ("e_atis_subject_o_required_ca", issuer().but(subject=name(US, CA_NAME)), V004),
        ("e_atis_serial_number_size", leaf().but(serial=7), V005),
        ("e_shaken_certificate_policies_id", leaf().having(CERTIFICATE_POLICIES, policies("1.2.3")), CP13),
        ("e_atis_subject_c_us", leaf().but(subject=name(("C", "CA"), PROVIDER, CN)), CP14),
        ("e_atis_ext_crl_distribution_root", root().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point())), V005),
    ],
)
def test_a_certificate_is_held_to_what_was_in_force_when_it_was_issued(
    lint: str, recipe: Recipe, edition: object
) -> None:
    from shaken_plugin.lint.model import Edition

    assert isinstance(edition, Edition)
    day = edition.since(is_ca=recipe.certificate.is_ca)
    assert lint in names(recipe.but(not_before=day))
    assert lint not in names(recipe.but(not_before=day - 1))


def test_times_from_2050_on_are_generalized() -> None:
    assert names(root().but(generalized=True, not_after=JANUARY_2050)) == set()


def test_key_identifiers_are_asked_of_each_kind_as_rfc_5280_does() -> None:
    generic = {"e_ext_authority_key_identifier_missing", "w_ext_subject_key_identifier_missing_sub_cert"}
    neither = [AUTHORITY_KEY_IDENTIFIER, SUBJECT_KEY_IDENTIFIER]

    def missing(recipe: Recipe) -> set[str]:
        for kind in neither:
            recipe = recipe.without(kind)
        return names(recipe) & generic

    assert missing(leaf()) == generic
    assert missing(leaf().but(not_before=V003.since(is_ca=False) - 1)) == generic  # an older requirement than ATIS'
    assert missing(issuer()) == {"e_ext_authority_key_identifier_missing"}
    assert missing(root()) == set()
    alone = leaf().but(issuer_key=key("leaf"), issuer=leaf().subject)
    assert missing(alone) == {"w_ext_subject_key_identifier_missing_sub_cert"}


def test_roots_may_have_sha384_and_a_lint_of_the_leaf_spares_self_signed_ones() -> None:
    assert "e_atis_signature_algorithm_ca" not in names(root().but(algorithm=ECDSA_SHA384))
    alone = leaf().but(issuer_key=key("leaf"), issuer=leaf().subject, subject=name(US, PROVIDER, ("CN", "SHAKEN")))
    assert "e_atis_subject_cn_spc" not in names(alone)


def test_key_usage_of_a_ca_before_policy_14_may_have_three_values() -> None:
    recipe = (
        issuer().having(CERTIFICATE_POLICIES, policies(CP_1_3)).having(KEY_USAGE, key_usage(0, 5, 6), critical=True)
    )
    assert "e_atis_ext_key_usage_ca" not in names(recipe)


def test_a_finding_says_what_is_wrong_where_it_stands_and_what_to_do() -> None:
    (finding,) = findings(leaf().but(serial=5).der())
    assert finding == Finding(
        "e_atis_serial_number_size",
        Severity.ERROR,
        "ATIS-1000080.v005 §6.4.1",
        0,
        "the serial number has 3 bits",
        "the issuer must give at least 64 bits of a secure random generator",
    )


def test_broken_extensions_give_findings_under_the_lint_that_needs_them() -> None:
    for kind in (BASIC_CONSTRAINTS, KEY_USAGE, CERTIFICATE_POLICIES, CRL_DISTRIBUTION_POINTS, TNAUTHLIST,
                 SUBJECT_KEY_IDENTIFIER, AUTHORITY_KEY_IDENTIFIER):  # fmt: skip
        for value in (b"", b"\x30\x80", b"\x30\x09x", b"\x02\x01\x01", tlv(0x30, b"\x1f\x1f\0")):
            broken = leaf().having(kind, value, critical=True)
            assert names(broken), (kind, value)


def test_the_public_key_of_a_certificate_may_be_unreadable() -> None:
    broken = leaf().but(public_key=tlv(0x30, tlv(0x30, oid("1.2.840.10045.2.1"), b"\x06\x00"), tlv(0x03, b"\0")))
    assert "e_atis_subject_public_key" in names(broken)
    assert [finding.lint for finding in findings(leaf().but(public_key=tlv(0x30)).der())] == ["e_der_unreadable"]
    assert spki(key("leaf")) == leaf().certificate.spki
