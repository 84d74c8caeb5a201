"""What the numbering plan says about numbers, from the metadata of the phonenumbers library."""

from __future__ import annotations

import re
from functools import cache

import phonenumbers

from shaken_plugin.core.telephone import DialPlan

_COUNTRY_CODE = "1"
"""Of the North American plan, the only one with a RespOrg."""


@cache
def _toll_free() -> re.Pattern[str]:
    metadata = phonenumbers.PhoneMetadata.metadata_for_region("US")
    assert metadata is not None
    assert metadata.toll_free is not None
    return re.compile(f"{_COUNTRY_CODE}(?:{metadata.toll_free.national_number_pattern})")


def is_toll_free(first: str, last: str) -> bool:
    """Whether a range of canonical numbers is toll-free in the North American plan, from end to end.

    Both ends have to lie in one area code: between 800 and 833 are others, and within one all numbers from
    200 0000 on are toll-free.
    """
    return all(map(_toll_free().fullmatch, (first, last))) and first[:4] == last[:4]


def is_canonical(digits: str, plan: DialPlan) -> bool:
    """Whether digits without + can only be a number in E.164: neither a national one, nor one of no length at all.

    Args:
        digits: 4 to 15 of them, the first not 0.
        plan: how numbers are dialled here.
    """
    canonical = plan.canonical(digits)
    if canonical.digits != digits:
        return False
    if canonical.is_e164:
        return True
    try:
        parsed = phonenumbers.parse(f"+{digits}")
        return phonenumbers.is_possible_number_with_reason(parsed) == phonenumbers.ValidationResult.IS_POSSIBLE
    except phonenumbers.NumberParseException:
        return False
