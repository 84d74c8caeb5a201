"""Lints of the extensions of a certificate, after the profile of ATIS-1000080."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from shaken_plugin.core.tnauthlist import TnAuthList
from shaken_plugin.lint import der
from shaken_plugin.lint.certificate import (
    AUTHORITY_KEY_IDENTIFIER,
    BASIC_CONSTRAINTS,
    CERTIFICATE_POLICIES,
    CP_1_3,
    CP_1_4,
    CRL_DISTRIBUTION_POINTS,
    KEY_USAGE,
    SUBJECT_KEY_IDENTIFIER,
    TNAUTHLIST,
    Certificate,
)
from shaken_plugin.lint.der import DerError, Element
from shaken_plugin.lint.model import (
    BELOW_ROOT,
    CA,
    CP13,
    END_ENTITY,
    EVERY,
    INTERMEDIATE,
    NOT_SELF_SIGNED,
    RFC5280,
    ROOT,
    UNDER_14,
    V003,
    V003_AT_ONCE,
    V004,
    V005,
    Lint,
    Severity,
    having,
)

_SPECIFIED: Final = {
    AUTHORITY_KEY_IDENTIFIER, BASIC_CONSTRAINTS, CERTIFICATE_POLICIES, CRL_DISTRIBUTION_POINTS, KEY_USAGE,
    SUBJECT_KEY_IDENTIFIER, TNAUTHLIST,
}  # fmt: skip

_DIGITAL_SIGNATURE, _KEY_CERT_SIGN, _CRL_SIGN = 0, 5, 6
_USAGES: Final = (
    "digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign",
    "cRLSign", "encipherOnly", "decipherOnly",
)  # fmt: skip


def _presence(certificate: Certificate, oid: str, name: str, *, critical: bool) -> str | None:
    extension = certificate.extension(oid)
    if extension is None:
        return f"there is no {name} extension"
    if extension.critical is not critical:
        return f"the {name} extension is {'not ' if critical else ''}marked critical"
    return None


def _basic_constraints(certificate: Certificate) -> str | None:
    _ = certificate.says_ca  # raises where it cannot be read
    return _presence(certificate, BASIC_CONSTRAINTS, "BasicConstraints", critical=True)


def _key_usage(certificate: Certificate) -> str | None:
    return _presence(certificate, KEY_USAGE, "KeyUsage", critical=True)


def _usages(certificate: Certificate) -> str:
    found = sorted(certificate.key_usage)
    return f"KeyUsage is {', '.join(_USAGES[bit] if bit < len(_USAGES) else f'bit {bit}' for bit in found) or 'empty'}"


def _key_usage_ca(certificate: Certificate) -> str | None:
    found = certificate.key_usage
    # ATIS-1000080.v005: "a single key usage value of keyCertSign (5)"; before: "may contain the
    # key usage values digitalSignature (0) and/or cRLSign (6)".
    also = set() if certificate.is_under(CP_1_4) else {_DIGITAL_SIGNATURE, _CRL_SIGN}
    return None if _KEY_CERT_SIGN in found and found - {_KEY_CERT_SIGN} <= also else _usages(certificate)


def _key_usage_ee(certificate: Certificate) -> str | None:
    return None if certificate.key_usage == {_DIGITAL_SIGNATURE} else _usages(certificate)


def _subject_key_identifier(certificate: Certificate) -> str | None:
    found = certificate.subject_key_identifier
    return "there is no SubjectKeyIdentifier extension" if found is None else None


def _subject_key_identifier_size(certificate: Certificate) -> str | None:
    found = certificate.subject_key_identifier
    if found is None:
        return "there is no SubjectKeyIdentifier extension"
    return None if len(found) == 20 else f"the SubjectKeyIdentifier has {len(found)} octets"


def _subject_key_identifier_hash(certificate: Certificate) -> str | None:
    found = certificate.subject_key_identifier
    if found is None or len(found) != 20:
        return None
    expected = hashlib.sha1(certificate.key_bits, usedforsecurity=False).digest()  # RFC 5280 §4.2.1.2 (1)
    return None if found == expected else "the SubjectKeyIdentifier is not the SHA-1 of the public key"


def _authority_key_identifier(certificate: Certificate) -> str | None:
    found = certificate.extension(AUTHORITY_KEY_IDENTIFIER)
    return "there is no AuthorityKeyIdentifier extension" if found is None else None


def _authority_key_identifier_root(certificate: Certificate) -> str | None:
    matches = certificate.authority_key_identifier == certificate.subject_key_identifier
    return None if matches else "AuthorityKeyIdentifier and SubjectKeyIdentifier of the root differ"


def _authority_no_key_identifier(certificate: Certificate) -> str | None:
    missing = certificate.authority_key_identifier is None
    return "the AuthorityKeyIdentifier has no keyIdentifier" if missing else None


def _certificate_policies(certificate: Certificate) -> str | None:
    if (problem := _presence(certificate, CERTIFICATE_POLICIES, "CertificatePolicies", critical=False)) is not None:
        return problem
    count = len(certificate.policies)
    return None if count == 1 else f"CertificatePolicies has {count} policies"


def _certificate_policies_id(certificate: Certificate) -> str | None:
    found = certificate.policies
    known = len(found) == 1 and found[0] in {CP_1_3, CP_1_4}
    return None if known else f"the certificate policy is {', '.join(found) or 'absent'}"


def _certificate_policies_root(certificate: Certificate) -> str | None:
    found = certificate.extension(CERTIFICATE_POLICIES)
    return None if found is None else "a root has a CertificatePolicies extension"


def _inside(element: Element, tag: int) -> list[Element]:
    """What stands in the children with a tag."""
    return [inner for child in element.children if child.tag == tag for inner in child.children]


def _crl_distribution(certificate: Certificate) -> str | None:
    if certificate.extension(CRL_DISTRIBUTION_POINTS) is None:
        return "there is no CRLDistributionPoints extension"
    points = certificate.crl_distribution_points
    if len(points) != 1:
        return f"CRLDistributionPoints has {len(points)} entries"
    # distributionPoint [0], in it fullName [0], in it uniformResourceIdentifier [6].
    full_names = [name for choice in _inside(points[0], 0xA0) if choice.tag == 0xA0 for name in choice.children]
    urls = [der.text(name) for name in full_names if name.tag == 0x86]
    fits = any(re.match(r"(?i)https?://", url) for url in urls)
    return None if fits else f"the distribution point is {', '.join(urls) or 'no URL'}, not an HTTP URL"


def _crl_distribution_struct(certificate: Certificate) -> str | None:
    for point in certificate.crl_distribution_points:
        # cRLIssuer [2], in it directoryName [4].
        if not any(name.tag == 0xA4 for name in _inside(point, 0xA2)):
            return "the DistributionPoint names no cRLIssuer"
    return None


def _crl_distribution_root(certificate: Certificate) -> str | None:
    found = certificate.extension(CRL_DISTRIBUTION_POINTS)
    return None if found is None else "a root has a CRLDistributionPoints extension"


def _listed(certificate: Certificate) -> TnAuthList:
    extension = certificate.extension(TNAUTHLIST)
    if extension is None:
        raise DerError("there is no TNAuthList extension")
    return TnAuthList.from_der(extension.value)


def _tn_auth_list(certificate: Certificate) -> str | None:
    if (problem := _presence(certificate, TNAUTHLIST, "TNAuthList", critical=False)) is not None:
        return problem
    listed = _listed(certificate)
    numbers = len(listed.ranges) + len(listed.ones)
    if len(listed.spcs) == 1 and not numbers:
        return None
    hint = "; that is a delegate certificate (RFC 9060), this profile is for others" if not listed.spcs else ""
    return f"the TNAuthList has {len(listed.spcs)} SPCs and {numbers} entries of numbers{hint}"


def _tn_auth_list_ca(certificate: Certificate) -> str | None:
    return None if certificate.extension(TNAUTHLIST) is None else "a CA certificate has a TNAuthList extension"


def _tn_auth_list_spc_format(certificate: Certificate) -> str | None:
    listed = _listed(certificate).spcs
    wrong = [code for code in listed if re.fullmatch(r"[A-Z0-9]+", code) is None]
    return f"the SPC is {', '.join(listed) or 'absent'}" if wrong or not listed else None


def _not_specified(certificate: Certificate) -> str | None:
    odd = [extension.oid for extension in certificate.extensions if extension.oid not in _SPECIFIED]
    return f"it has the extensions {', '.join(odd)}" if odd else None


ERROR = Severity.ERROR

EXTENSION_LINTS: Final = (
    Lint("e_atis_ext_basic_constraints", ERROR, V003_AT_ONCE, "", EVERY, _basic_constraints,
         "have it issued with a critical BasicConstraints extension"),
    Lint("e_atis_ext_key_usage", ERROR, V003_AT_ONCE, "", EVERY, _key_usage,
         "have it issued with a critical KeyUsage extension"),
    Lint("e_atis_ext_key_usage_ca", ERROR, V003_AT_ONCE, "", CA & having(KEY_USAGE, "KeyUsage"), _key_usage_ca,
         "issue it with keyCertSign; beside it only cRLSign and digitalSignature, and nothing under policy 1.4"),
    Lint("e_atis_ext_key_usage_ee", ERROR, V003, "", END_ENTITY & having(KEY_USAGE, "KeyUsage"), _key_usage_ee,
         "have it issued with digitalSignature and nothing else"),
    Lint("e_atis_subject_key_identifier", ERROR, V003, "", EVERY, _subject_key_identifier,
         "have it issued with a SubjectKeyIdentifier", by_kind=True),
    Lint("e_atis_subject_key_identifier_size", ERROR, V004, "", EVERY, _subject_key_identifier_size,
         "have it issued with a SubjectKeyIdentifier of 20 octets, the SHA-1 of the public key", by_kind=True),
    # RFC 5280: "For end entity certificates, ... this extension SHOULD be included in all".
    Lint("w_ext_subject_key_identifier_missing_sub_cert", Severity.WARN, RFC5280, "§4.2.1.2", END_ENTITY,
         _subject_key_identifier, "have it issued with a SubjectKeyIdentifier"),
    Lint("w_shaken_subject_key_identifier_hash", Severity.WARN, V005, "", EVERY, _subject_key_identifier_hash,
         "have it issued with the SHA-1 of the public key as SubjectKeyIdentifier"),
    Lint("e_atis_ext_authority_key_identifier", ERROR, V003, "", BELOW_ROOT, _authority_key_identifier,
         "have it issued with an AuthorityKeyIdentifier", by_kind=True),
    # "MUST be included in all certificates ...", with the one exception of "a 'self-signed' certificate".
    Lint("e_ext_authority_key_identifier_missing", ERROR, RFC5280, "§4.2.1.1", EVERY & NOT_SELF_SIGNED,
         _authority_key_identifier, "have it issued with an AuthorityKeyIdentifier"),
    Lint("e_atis_ext_authority_key_identifier_root", ERROR, V003_AT_ONCE, "",
         ROOT & having(AUTHORITY_KEY_IDENTIFIER, "AuthorityKeyIdentifier"), _authority_key_identifier_root,
         "issue the root with the same key identifier in both, or without AuthorityKeyIdentifier"),
    Lint("e_ext_authority_key_identifier_no_key_identifier", ERROR, V003, "and RFC 5280 §4.2.1.1",
         BELOW_ROOT & having(AUTHORITY_KEY_IDENTIFIER, "AuthorityKeyIdentifier"), _authority_no_key_identifier,
         "have it issued with the issuer's key identifier in AuthorityKeyIdentifier"),
    Lint("e_atis_ext_certificate_policies", ERROR, V003, "", BELOW_ROOT, _certificate_policies,
         "have it issued with one policy in a CertificatePolicies extension that is not critical", by_kind=True),
    Lint("e_shaken_certificate_policies_id", ERROR, CP13, "§1.3", BELOW_ROOT, _certificate_policies_id,
         f"have it issued under {CP_1_3} or {CP_1_4}", by_kind=True),
    Lint("e_atis_ext_certificate_policies_root", ERROR, V005._replace(grace=0), "", ROOT, _certificate_policies_root,
         "issue the root without it"),
    # v003 asks this of end-entity certificates alone, v004 of intermediates too.
    Lint("e_atis_ext_crl_distribution", ERROR, V003, "", END_ENTITY, _crl_distribution,
         "have it issued with one distribution point, the HTTP URL of the STI-PA's CRL"),
    Lint("e_atis_ext_crl_distribution_ca", ERROR, V004, "", INTERMEDIATE, _crl_distribution,
         "issue it with one distribution point, the HTTP URL of the STI-PA's CRL"),
    Lint("e_atis_ext_crl_distribution_struct", ERROR, V004, "",
         BELOW_ROOT & having(CRL_DISTRIBUTION_POINTS, "CRLDistributionPoints") & UNDER_14, _crl_distribution_struct,
         "have it issued with the DN of the CRL's issuer as cRLIssuer", by_kind=True),
    Lint("e_atis_ext_crl_distribution_root", ERROR, V005._replace(grace=0), "", ROOT, _crl_distribution_root,
         "issue the root without it"),
    Lint("e_atis_tn_auth_list", ERROR, V003, "", END_ENTITY, _tn_auth_list,
         "have it issued with a TNAuthList of one SPC that is not critical"),
    Lint("e_atis_tn_auth_list_ca", ERROR, V003_AT_ONCE, "", CA, _tn_auth_list_ca,
         "issue it without; only end-entity certificates have one"),
    Lint("e_atis_tn_auth_list_spc_format", ERROR, V005, "", END_ENTITY, _tn_auth_list_spc_format,
         "have it issued with an SPC of digits and capitals"),
    Lint("e_atis_ext_not_specified", ERROR, V005, "", EVERY, _not_specified,
         "have it issued without them", by_kind=True),
)  # fmt: skip
