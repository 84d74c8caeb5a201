"""Dial plans of countries, from the metadata of the ``phonenumbers`` library."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from phonenumbers import (
    SUPPORTED_REGIONS,
    NumberParseException,
    PhoneMetadata,
    is_possible_number,
    is_valid_number,
    parse,
)

from shaken_plugin.core.attestation import Numbering
from shaken_plugin.core.records import Withheld
from shaken_plugin.core.telephone import DialPlan

EMERGENCY_EVERYWHERE: Final = ("911", "112", "933")
"""Emergency numbers whatever the country; 933 is the test number of 911 in the United States."""


def dial_plan(country: str, extra_emergency: Iterable[str] = (), *, numeric_users: bool = True) -> DialPlan:
    """The dial plan of a country.

    Args:
        country: ISO 3166-1 alpha-2, for instance ``US``.
        extra_emergency: more emergency numbers, digits only.
        numeric_users: see `DialPlan`.

    Raises:
        ValueError: the country is not known.
    """
    return _dial_plan(country, tuple(extra_emergency), numeric_users)


@lru_cache(16)  # one plan: what was read by it is remembered with it
def _dial_plan(country: str, extra_emergency: tuple[str, ...], numeric_users: bool) -> DialPlan:
    metadata = PhoneMetadata.metadata_for_region(country) if country in SUPPORTED_REGIONS else None
    if metadata is None:
        raise ValueError(f"{country!r} is not a country code such as US or CA")
    general = metadata.general_desc
    assert general is not None
    short = PhoneMetadata.short_metadata_for_region(country)
    emergency = [*EMERGENCY_EVERYWHERE, *map(re.escape, extra_emergency)]
    service = list(emergency)
    if short is not None:
        emergency += _patterns(short.emergency)
        service += _patterns(short.emergency, short.short_code)
    national = {
        length
        for description in (metadata.fixed_line, metadata.mobile)
        if description is not None and description.national_number_pattern
        for length in description.possible_length or general.possible_length
    }
    return DialPlan(
        country_code=str(metadata.country_code),
        international_prefix=_compiled(metadata.international_prefix),
        national_prefix=_compiled(metadata.national_prefix_for_parsing or metadata.national_prefix),
        national_lengths=frozenset(national),
        service_numbers=re.compile("|".join(service)),
        emergency_numbers=re.compile("|".join(emergency)),
        numeric_users=numeric_users,
    )


MAX_NUMBERS: Final = 65_536
"""Numbers whose answer is remembered; asking the metadata takes up to a tenth of a millisecond."""


def numbering(plan: DialPlan) -> Numbering:
    """What the metadata says against E.164 numbers as callers: INVALID, UNALLOCATED, or nothing.

    Emergency and service numbers of the plan are none of its business, with or without country code.

    Args:
        plan: the dial plan of the country.
    """

    @lru_cache(MAX_NUMBERS)
    def ask(digits: str) -> Withheld | None:
        if any(plan.service_numbers.fullmatch(text) for text in (digits, digits.removeprefix(plan.country_code))):
            return None
        try:
            number = parse(f"+{digits}")
        except NumberParseException:
            return Withheld.INVALID
        if not is_possible_number(number):
            return Withheld.INVALID
        return None if is_valid_number(number) else Withheld.UNALLOCATED

    return ask


def _patterns(*descriptions: object) -> list[str]:
    found = (getattr(description, "national_number_pattern", None) for description in descriptions)
    return [f"(?:{pattern})" for pattern in found if pattern]


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None
