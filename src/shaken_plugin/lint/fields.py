"""Lints of the fields of a certificate: names, number, key, signature algorithm, version."""

from __future__ import annotations

import re
from typing import Final

from shaken_plugin.core.tnauthlist import TnAuthList
from shaken_plugin.lint import der
from shaken_plugin.lint.certificate import (
    COMMON_NAME,
    COUNTRY,
    CP_1_4,
    ECDSA_SHA256,
    ECDSA_SHA384,
    ORGANIZATION,
    SERIAL_NUMBER,
    TNAUTHLIST,
    Certificate,
)
from shaken_plugin.lint.model import (
    BELOW_ROOT,
    CP13,
    CP14,
    END_ENTITY,
    EVERY,
    NOT_SELF_SIGNED,
    ROOT,
    UNDER_13,
    UNDER_14,
    V003,
    V003_AT_ONCE,
    V004,
    V005,
    Lint,
    Severity,
    having,
)

_COUNTRIES: Final = frozenset(
    re.findall(
        "[A-Z]{2}",
        "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY "
        "BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK "
        "FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR "
        "IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK "
        "ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM "
        "PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF "
        "TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW",
    )
)
"""ISO 3166-1 alpha-2, the 249 codes officially assigned."""

_EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
_P256: Final = "1.2.840.10045.3.1.7"
_P384: Final = "1.3.132.0.34"


def _version(certificate: Certificate) -> str | None:
    return None if certificate.version == 3 else f"it is X.509 version {certificate.version}"


def _serial_number(certificate: Certificate) -> str | None:
    return None if certificate.serial > 0 else f"the serial number is {certificate.serial}"


def _serial_number_size(certificate: Certificate) -> str | None:
    bits = certificate.serial.bit_length()
    return None if bits >= 64 else f"the serial number has {bits} bits"


def _allows_p384(certificate: Certificate) -> bool:
    """CP 1.4 §6.1.5 lets CAs have P-384 and sign with SHA-384; a root names no policy."""
    is_root = certificate.is_root and certificate.not_before >= CP14.since(is_ca=True)
    return is_root or (certificate.is_ca and certificate.is_under(CP_1_4))


def _signature_algorithm(certificate: Certificate) -> str | None:
    found = certificate.algorithm.oid
    if found == ECDSA_SHA384 and (certificate.is_root or certificate.is_under(CP_1_4)):
        return None
    return None if found == ECDSA_SHA256 else f"the signature algorithm is {found}"


def _signature_sha384(certificate: Certificate) -> str | None:
    return "it is signed with SHA-384" if certificate.algorithm.oid == ECDSA_SHA384 else None


def _key(certificate: Certificate) -> tuple[str, str | None]:
    """OIDs of the public key's algorithm and of its named curve."""
    kind, parameters, _ = certificate.key_algorithm
    if parameters is None or parameters.tag != der.OBJECT_IDENTIFIER:
        return kind, None
    return kind, der.oid(parameters)


def _public_key(certificate: Certificate) -> str | None:
    kind, curve = _key(certificate)
    if kind != _EC_PUBLIC_KEY:
        return f"the public key's algorithm is {kind}, not id-ecPublicKey"
    if curve is None:
        return "the public key names no curve"
    if curve == _P256 or (curve == _P384 and _allows_p384(certificate)):
        return None
    return f"the public key is on {'P-384' if curve == _P384 else curve}, not on P-256"


def _public_key_p384(certificate: Certificate) -> str | None:
    is_p384 = _key(certificate) == (_EC_PUBLIC_KEY, _P384)
    return "the public key is on P-384" if is_p384 and _allows_p384(certificate) else None


def _issuer_root(certificate: Certificate) -> str | None:
    if certificate.issuer.key == certificate.subject.key:
        return None
    return f"it is signed by its own key, but names the issuer {certificate.issuer}"


def _subject_dn(certificate: Certificate) -> str | None:
    counts = {"Country (C=)": COUNTRY, "Common Name (CN=)": COMMON_NAME}
    found = {what: len(certificate.subject.values(kind)) for what, kind in counts.items()}
    wrong = [f"{count or 'no'} {what}" for what, count in found.items() if count != 1]
    return f"the subject has {' and '.join(wrong)}" if wrong else None


def _subject_o_required(certificate: Certificate) -> str | None:
    count = len(certificate.subject.values(ORGANIZATION))
    return None if count == 1 else f"the subject has {count or 'no'} Organization (O=)"


def _subject_c_iso(certificate: Certificate) -> str | None:
    found = certificate.subject.values(COUNTRY)
    wrong = len(found) != 1 or found[0] not in _COUNTRIES
    return f"the subject's Country (C=) is {', '.join(found) or 'absent'}" if wrong else None


def _subject_c_us(certificate: Certificate) -> str | None:
    found = certificate.subject.values(COUNTRY)
    return None if found == ["US"] else f"the subject's Country (C=) is {', '.join(found) or 'absent'}"


def _has_words(certificate: Certificate, words: str, flags: int = 0) -> bool:
    """Whether a Common Name contains a text as whole words."""
    pattern = re.compile(rf"\b{re.escape(words)}\b", flags)
    return any(pattern.search(name) for name in certificate.subject.values(COMMON_NAME))


def _common_name(certificate: Certificate) -> str:
    return f"the Common Name is {', '.join(certificate.subject.values(COMMON_NAME)) or 'absent'}"


def _subject_cn(certificate: Certificate) -> str | None:
    return None if _has_words(certificate, "SHAKEN") else _common_name(certificate)


def _subject_cn_root(certificate: Certificate) -> str | None:
    return None if _has_words(certificate, "ROOT", re.IGNORECASE) else _common_name(certificate)


def _subject_cn_spc(certificate: Certificate) -> str | None:
    extension = certificate.extension(TNAUTHLIST)
    if extension is None or not (codes := TnAuthList.from_der(extension.value).spcs):
        return "there is no SPC that the Common Name could contain"
    return None if _has_words(certificate, f"SHAKEN {codes[0]}") else f"{_common_name(certificate)}, the SPC {codes[0]}"


def _subject_sn_shall(certificate: Certificate) -> str | None:
    return None if any(certificate.subject.values(SERIAL_NUMBER)) else "the subject has no serialNumber attribute"


def _subject_sn_may(certificate: Certificate) -> str | None:
    found = [attribute for attribute in certificate.subject if attribute.oid == SERIAL_NUMBER]
    fits = [one for one in found if one.tag == der.PRINTABLE_STRING and 1 <= len(one.text) <= 64]
    return None if len(found) <= 1 and fits == found else "the subject's serialNumber attribute is not one short text"


ERROR, WARN, NOTICE = Severity.ERROR, Severity.WARN, Severity.NOTICE

FIELD_LINTS: Final = (
    Lint("e_atis_version", ERROR, V003, "", EVERY, _version,
         "have it issued as X.509 version 3", by_kind=True),
    Lint("e_atis_serial_number", ERROR, V003, "", EVERY, _serial_number,
         "the issuer must give a serial number greater than zero", by_kind=True),
    Lint("e_atis_serial_number_size", ERROR, V005, "", EVERY, _serial_number_size,
         "the issuer must give at least 64 bits of a secure random generator", by_kind=True),
    Lint("e_atis_signature_algorithm", ERROR, V003, "", EVERY, _signature_algorithm,
         "the issuer must sign with ecdsa-with-SHA256 or, under policy 1.4, ecdsa-with-SHA384", by_kind=True),
    Lint("n_shaken_signature_sha384", NOTICE, CP14, "§6.1.5", EVERY, _signature_sha384,
         "CP 1.4 allows it, ATIS-1000080 does not; a verifier should accept it"),
    Lint("e_atis_subject_public_key", ERROR, V003, "", EVERY, _public_key,
         "make a P-256 key with a named curve and have it certified anew", by_kind=True),
    Lint("w_shaken_public_key_p384", WARN, CP14, "§6.1.5", EVERY, _public_key_p384,
         "CP 1.4 allows it for CAs, ATIS-1000080.v005 does not; a verifier should accept it"),
    Lint("e_issuer_root", ERROR, V003_AT_ONCE, "", ROOT, _issuer_root,
         "issue the root with its own subject as issuer"),
    Lint("e_atis_subject_dn", ERROR, V003, "", EVERY, _subject_dn,
         "have it issued with one Country and one Common Name", by_kind=True),
    Lint("e_atis_subject_o_required", ERROR, V004, "", EVERY, _subject_o_required,
         "have it issued with one Organization, the holder's legal name", by_kind=True),
    Lint("e_atis_subject_c_iso", ERROR, V005, "", EVERY, _subject_c_iso,
         "have it issued with one Country, an ISO 3166-1 alpha-2 code in capitals", by_kind=True),
    Lint("e_atis_subject_c_us", ERROR, CP14, "§3.1 Naming", EVERY & UNDER_14, _subject_c_us,
         "have it issued with the Country US", by_kind=True),
    Lint("e_atis_subject_cn", ERROR, V003, "", EVERY, _subject_cn,
         "have it issued with the word SHAKEN in the Common Name", by_kind=True),
    Lint("e_atis_subject_cn_root", ERROR, V005._replace(grace=0), "", ROOT, _subject_cn_root,
         "issue the root with the word ROOT in the Common Name"),
    Lint("e_atis_subject_cn_spc", ERROR, V004, "", END_ENTITY & NOT_SELF_SIGNED, _subject_cn_spc,
         "have it issued with SHAKEN, one space and the SPC of its TNAuthList in the Common Name"),
    Lint("e_us_cp_subject_sn_shall", ERROR, CP13, "§3.1 Naming",
         EVERY & UNDER_13 & having(TNAUTHLIST, "TNAuthList"), _subject_sn_shall,
         "have it issued with a serialNumber attribute beside the Common Name, or under policy 1.4", by_kind=True),
    Lint("e_us_cp_subject_sn_may", WARN, CP14, "§3.1 Naming; RFC 5280 appendix A.1", BELOW_ROOT & UNDER_14,
         _subject_sn_may,
         "leave the attribute out, or give one PrintableString of 1 to 64 characters", by_kind=True),
)  # fmt: skip
"""In the order of RFC 5280 §4.1."""
