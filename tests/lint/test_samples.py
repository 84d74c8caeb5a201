"""Certificates seen in the wild: what the lints find in each anomaly, and how often over all samples.

The counts were computed once and read by hand: the lists of files that a lint fires for were
compared with the names of the files in anomalies/, and those of lints that fired for few of the
16,234 certificates of the public report (no SubjectKeyIdentifier 3, no AuthorityKeyIdentifier 2, no
BasicConstraints 4, version 2, subject 1) are all of them among these files.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shaken_plugin.lint import Expectations, Report, Source, examine
from shaken_plugin.lint.certificate import Certificate
from shaken_plugin.lint.document import Document

FOLDER = Path(__file__).parents[1] / "pki"
NOW = 1_755_000_000.0
"""2025-08-12, when they were collected."""
CAS = Document.parse((FOLDER / "sti_ca_certs.pem").read_bytes()).readable
ROOTS = tuple(certificate for certificate in CAS if certificate.is_root)
OF_TIME = ("e_validity_", "w_validity_")


def reports(folder: str, anchors: tuple[Certificate, ...] | None = None) -> list[Report]:
    """Each document alone: what it has in common with others has a test of its own."""
    expected = Expectations(NOW, anchors=anchors)
    return [
        report
        for path in sorted((FOLDER / folder).iterdir())
        for report in examine([Source(path.name, path.read_bytes())], expected)
    ]


def found(report: Report) -> set[str]:
    """The lints that fired, but for those of the clock."""
    return {finding.lint for finding in report.findings if not finding.lint.startswith(OF_TIME)}


V1 = {
    "e_atis_version", "e_atis_ext_basic_constraints", "e_atis_ext_key_usage", "e_atis_subject_key_identifier",
    "e_atis_subject_key_identifier_size", "e_atis_ext_authority_key_identifier", "e_atis_ext_certificate_policies",
    "e_shaken_certificate_policies_id", "e_atis_ext_crl_distribution", "e_atis_tn_auth_list",
    "w_ext_subject_key_identifier_missing_sub_cert",
}  # fmt: skip
"""What a certificate without any extension, X.509 version 1, lacks."""

POLICY = {"e_atis_ext_certificate_policies", "e_shaken_certificate_policies_id"}
"""Absent, marked critical, or that of CP 1.1, which was over."""

NO_LIST = {"e_atis_tn_auth_list", "e_atis_subject_cn_spc"}
SYNTAX = {"e_der_refused", "e_der_algorithm_parameters"}
"""ecdsa-with-SHA256 with a NULL."""

ALONE = {"w_chain_incomplete"}
"""Most of the files hold the leaf alone, as they were collected for one oddity of it."""

ANOMALIES: dict[str, set[str]] = {
    "has_eku_328011b837.pem": ALONE | {"e_atis_ext_crl_distribution_struct", "e_atis_ext_not_specified"},
    # Its subjectAltName is none of these: it was issued before v005 forbade extensions it does not name.
    "has_san_7f653e1545.pem": ALONE
    | {
        "e_atis_ext_basic_constraints",
        "e_atis_subject_cn",
        "e_atis_subject_cn_spc",
        "e_shaken_certificate_policies_id",
    },
    "no_crldp+no_key_usage_e40512354e.pem": POLICY
    | ALONE
    | {
        "e_atis_ext_authority_key_identifier",
        "e_atis_ext_basic_constraints",
        "e_atis_ext_crl_distribution",
        "e_atis_ext_key_usage",
        "e_atis_subject_cn_spc",
        "e_atis_subject_key_identifier",
        "e_atis_subject_key_identifier_size",
        "e_ext_authority_key_identifier_missing",
        "w_ext_subject_key_identifier_missing_sub_cert",
    },
    "no_crldp_0778cb5231.pem": POLICY
    | ALONE
    | {"e_atis_ext_crl_distribution", "e_atis_subject_cn", "e_atis_subject_cn_spc"},
    "no_crldp_19d9f5fa64.pem": POLICY
    | ALONE
    | {"e_atis_ext_crl_distribution", "e_atis_subject_cn", "e_atis_subject_cn_spc"},
    "no_tnauthlist+x509_v1+no_crldp+no_key_usage+self_signed_leaf_1415b6414c.pem": V1
    | {"e_atis_subject_cn", "e_atis_tn_auth_list_spc_format"},
    "no_tnauthlist+x509_v1+no_crldp+no_key_usage_3dd37becdc.pem": V1
    | NO_LIST
    | ALONE
    | {"e_ext_authority_key_identifier_missing"},
    "rsa_issuer_signature_414671d6f2.pem": ALONE | {"e_atis_ext_certificate_policies", "e_atis_signature_algorithm"},
    "rsa_issuer_signature_497fc9dff6.pem": ALONE | {"e_atis_ext_certificate_policies", "e_atis_signature_algorithm"},
    "sig_sha384_e150327e79.pem": ALONE | {"n_shaken_signature_sha384"},
    "sig_sha384_f412ed04b3.pem": ALONE | {"n_shaken_signature_sha384"},
    "spc_not_4_upper_alnum_31b8e7e611.pem": ALONE
    | {"e_atis_tn_auth_list_spc_format", "e_us_cp_subject_sn_shall", "w_tnauthlist_lower_case"},
    "spc_not_4_upper_alnum_602413e551.pem": ALONE
    | {"e_atis_tn_auth_list_spc_format", "e_us_cp_subject_sn_shall", "w_tnauthlist_lower_case"},
    "tnauthlist_bad_length+no_crldp_224a236b36.pem": POLICY
    | NO_LIST
    | ALONE
    | {"e_atis_ext_crl_distribution", "e_tnauthlist_outer_length"},
    "tnauthlist_bad_length+no_crldp_d092ee80d1.pem": POLICY
    | NO_LIST
    | ALONE
    | {
        "e_atis_ext_crl_distribution",
        "e_atis_serial_number_size",
        "e_atis_tn_auth_list_spc_format",
        "e_tnauthlist_outer_length",
    },
    "tnauthlist_unexpected_tag_13_08f4adc952.pem": NO_LIST
    | ALONE
    | {
        "e_atis_ext_not_specified",
        "e_atis_tn_auth_list_spc_format",
        "e_shaken_certificate_policies_id",
        "e_tnauthlist_bare_string",
    },
    "tnauthlist_unexpected_tag_13_5b034b208d.pem": NO_LIST
    | ALONE
    | {
        "e_atis_ext_not_specified",
        "e_atis_subject_c_iso",
        "e_atis_subject_cn",
        "e_atis_subject_dn",
        "e_atis_subject_o_required",
        "e_atis_tn_auth_list_spc_format",
        "e_shaken_certificate_policies_id",
        "e_tnauthlist_bare_string",
    },
    "unparseable_4378a3f13651.der": SYNTAX,
    "unparseable_a22dda815630.der": SYNTAX | {"e_atis_subject_cn_ca"},
    "unparseable_aa242e08e8ae.der": SYNTAX | ALONE | {"e_atis_ext_not_specified", "e_shaken_certificate_policies_id"},
    "unparseable_c12a1d22654c.der": SYNTAX,
    "unparseable_d54b8c44268d.der": SYNTAX,
    "unparseable_edc37467b2db.der": SYNTAX | ALONE | {"e_atis_ext_not_specified", "e_shaken_certificate_policies_id"},
    "unparseable_ff4a083ed752.der": SYNTAX | ALONE | {"e_atis_ext_not_specified", "e_shaken_certificate_policies_id"},
}

IN_SAMPLES: dict[str, int] = {
    "e_atis_ext_authority_key_identifier": 2,
    "e_atis_ext_basic_constraints": 2,
    "e_atis_ext_certificate_policies": 5,
    "e_atis_ext_certificate_policies_ca": 3,
    "e_atis_ext_crl_distribution": 4,
    "e_atis_ext_crl_distribution_struct": 12,
    "e_atis_ext_crl_distribution_struct_ca": 6,
    "e_atis_ext_key_usage": 2,
    "e_atis_serial_number_size": 7,
    "e_atis_serial_number_size_ca": 6,
    "e_atis_signature_algorithm_ca": 3,
    "e_atis_subject_c_us_ca": 3,
    "e_atis_subject_cn": 3,
    "e_atis_subject_cn_ca": 2,
    "e_atis_subject_cn_spc": 10,
    "e_atis_subject_key_identifier": 2,
    "e_atis_subject_key_identifier_size": 2,
    "e_atis_subject_public_key_ca": 3,
    "e_atis_tn_auth_list": 1,
    "e_atis_version": 1,
    "e_chain_root": 8,
    "e_document_no_certificate": 1,
    "e_ext_authority_key_identifier_missing": 2,
    "e_shaken_certificate_policies_id": 8,
    "e_shaken_certificate_policies_id_ca": 9,
    "e_us_cp_subject_sn_shall": 6,
    "e_validity_expired": 5,
    "e_validity_not_yet": 3,
    "n_shaken_signature_sha384": 4,
    "w_chain_incomplete": 5,
    "w_ext_subject_key_identifier_missing_sub_cert": 2,
    "w_shaken_public_key_p384": 2,
    "w_shaken_subject_key_identifier_hash": 3,
    "w_validity_renewal": 2,
}
"""Findings over the 44 files of samples/, with the 18 self-signed CA certificates as roots."""

IN_ANOMALIES: dict[str, int] = {
    "e_atis_ext_authority_key_identifier": 3,
    "e_atis_ext_basic_constraints": 4,
    "e_atis_ext_certificate_policies": 9,
    "e_atis_ext_crl_distribution": 7,
    "e_atis_ext_crl_distribution_struct": 1,
    "e_atis_ext_key_usage": 3,
    "e_atis_ext_not_specified": 6,
    "e_atis_serial_number_size": 1,
    "e_atis_signature_algorithm": 2,
    "e_atis_subject_c_iso": 1,
    "e_atis_subject_cn": 5,
    "e_atis_subject_cn_ca": 1,
    "e_atis_subject_cn_spc": 9,
    "e_atis_subject_dn": 1,
    "e_atis_subject_key_identifier": 3,
    "e_atis_subject_key_identifier_size": 3,
    "e_atis_subject_o_required": 1,
    "e_atis_tn_auth_list": 6,
    "e_atis_tn_auth_list_spc_format": 6,
    "e_atis_version": 2,
    "e_chain_root": 20,
    "e_der_algorithm_parameters": 7,
    "e_der_refused": 7,
    "e_ext_authority_key_identifier_missing": 2,
    "e_shaken_certificate_policies_id": 13,
    "e_tnauthlist_bare_string": 2,
    "e_tnauthlist_outer_length": 2,
    "e_us_cp_subject_sn_shall": 2,
    "e_validity_expired": 15,
    "n_shaken_signature_sha384": 2,
    "w_chain_incomplete": 19,
    "w_ext_subject_key_identifier_missing_sub_cert": 3,
    "w_tnauthlist_lower_case": 2,
    "w_validity_renewal": 1,
}

IN_CA_CERTIFICATES: dict[str, int] = {
    "e_atis_ext_authority_key_identifier_ca": 1,
    "e_atis_ext_certificate_policies_ca": 5,
    "e_atis_ext_crl_distribution_ca": 1,
    "e_atis_ext_crl_distribution_struct_ca": 2,
    "e_atis_ext_key_usage": 2,
    "e_atis_serial_number_size_ca": 3,
    "e_atis_signature_algorithm_ca": 2,
    "e_atis_subject_c_iso_ca": 2,
    "e_atis_subject_c_us_ca": 1,
    "e_atis_subject_cn_ca": 6,
    "e_atis_subject_cn_root": 2,
    "e_atis_subject_dn_ca": 4,
    "e_atis_subject_o_required_ca": 1,
    "e_atis_subject_public_key_ca": 2,
    "e_ext_authority_key_identifier_missing": 1,
    "e_incorrect_ku_encoding": 2,
    "e_shaken_certificate_policies_id_ca": 10,
    "n_shaken_signature_sha384": 2,
    "w_shaken_public_key_p384": 2,
}
"""Findings in the list of 50 CA certificates."""


@pytest.mark.parametrize("report", reports("anomalies"), ids=lambda report: report.source)
def test_an_anomaly_is_found_and_all_else_that_is_odd(report: Report) -> None:
    assert found(report) == ANOMALIES[report.source]


def test_every_anomaly_is_expected() -> None:
    assert ANOMALIES.keys() == {path.name for path in (FOLDER / "anomalies").iterdir()}
    assert (len(CAS), len(ROOTS)) == (50, 18)


@pytest.mark.parametrize(
    ("folder", "expected"), [("samples", IN_SAMPLES), ("anomalies", IN_ANOMALIES)], ids=["samples", "anomalies"]
)
def test_counts_by_lint(folder: str, expected: dict[str, int]) -> None:
    assert Counter(finding.lint for report in reports(folder, ROOTS) for finding in report.findings) == expected


def test_counts_by_lint_in_the_list_of_ca_certificates() -> None:
    data = (FOLDER / "sti_ca_certs.pem").read_bytes()
    (report,) = examine([Source("list", data)], Expectations(NOW))
    assert Counter(finding.lint for finding in report.findings) == IN_CA_CERTIFICATES
    zeros = [finding for finding in report.findings if finding.lint == "e_incorrect_ku_encoding"]
    assert all("0006" in finding.text for finding in zeros)


def test_samples_without_a_root_are_those_that_the_verifier_does_not_trust() -> None:
    from tests.unit.test_pki_samples import REFUSED_SAMPLES

    lost = {
        report.source for report in reports("samples", ROOTS) for one in report.findings if one.lint == "e_chain_root"
    }
    assert lost == REFUSED_SAMPLES.keys() - {"VoiceCarrier_1415b6414cfb.pem"}


def test_one_key_was_used_for_two_certificates_of_a_provider() -> None:
    paths = sorted((FOLDER / "samples").iterdir()) + sorted((FOLDER / "anomalies").iterdir())
    found = examine([Source(path.name, path.read_bytes()) for path in paths], Expectations(NOW))
    reused = {report.source for report in found for finding in report.findings if finding.lint == "w_key_reused"}
    assert reused == {"NetNumber_19d9f5fa64a5.pem", "no_crldp_0778cb5231.pem", "no_crldp_19d9f5fa64.pem"}
