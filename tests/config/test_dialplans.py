"""Dial plans from the metadata of the phonenumbers library."""

from __future__ import annotations

import re

import pytest
from phonenumbers import SUPPORTED_REGIONS

from shaken_plugin.config.dialplans import EMERGENCY_EVERYWHERE, MAX_NUMBERS, dial_plan, numbering
from shaken_plugin.core.records import Withheld
from shaken_plugin.core.telephone import TelephoneNumber


@pytest.mark.parametrize(
    ("country", "dialled", "canonical"),
    [
        ("US", "2155551212", "12155551212"),
        ("US", "12155551212", "12155551212"),
        ("US", "011442079460123", "442079460123"),
        ("US", "+442079460123", "442079460123"),
        ("US", "411", "411"),
        ("CA", "4165550100", "14165550100"),
        ("GB", "02079460123", "442079460123"),
        ("GB", "0012155551212", "12155551212"),
        ("DE", "0301234567", "49301234567"),
        ("FR", "0123456789", "33123456789"),
    ],
)
def test_numbers_are_dialled_as_in_the_country(country: str, dialled: str, canonical: str) -> None:
    assert dial_plan(country).canonical(dialled) == TelephoneNumber(canonical)


@pytest.mark.parametrize("country", sorted(SUPPORTED_REGIONS))
def test_every_country_has_a_plan_that_takes_its_emergency_numbers_as_dialled(country: str) -> None:
    plan = dial_plan(country)
    assert plan.country_code.isdecimal()
    for number in EMERGENCY_EVERYWHERE:
        assert plan.is_emergency(TelephoneNumber(number))
        assert plan.canonical(number) == TelephoneNumber(number)


@pytest.mark.parametrize(
    ("country", "number"), [("GB", "999"), ("DE", "110"), ("AU", "000"), ("JP", "119"), ("BR", "190"), ("US", "911")]
)
def test_a_countrys_own_emergency_numbers_are_known(country: str, number: str) -> None:
    assert dial_plan(country).is_emergency(TelephoneNumber(number))


def test_more_emergency_numbers_are_taken_literally() -> None:
    plan = dial_plan("US", ["1199", "*77"])
    assert plan.is_emergency(TelephoneNumber("1199"))
    assert plan.is_emergency(TelephoneNumber("*77"))
    assert not plan.is_emergency(TelephoneNumber("77"))
    assert not plan.is_emergency(TelephoneNumber("777"))
    assert plan.canonical("1199") == TelephoneNumber("1199")


@pytest.mark.parametrize("number", ["9111", "91", "12155550911", "411", "211", "988"])
def test_other_numbers_are_no_emergency(number: str) -> None:
    assert not dial_plan("US").is_emergency(TelephoneNumber(number))


@pytest.mark.parametrize("country", ["us", "USA", "", "XX", "001", "U", "United States"])
def test_an_unknown_country_is_refused_by_name(country: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{country!r} is not a country code such as US or CA")):
        dial_plan(country)


def test_numeric_users_may_be_switched_off() -> None:
    assert dial_plan("US").numeric_users
    assert not dial_plan("US", numeric_users=False).numeric_users


@pytest.mark.parametrize(
    ("digits", "wrong"),
    [
        ("12155551212", None),
        ("12025550143", None),
        ("13125550142", None),
        ("18005551212", None),
        ("442079460123", None),
        ("33123456789", None),
        ("19995550100", Withheld.UNALLOCATED),
        ("17005551212", Withheld.UNALLOCATED),
        ("11234567890", Withheld.UNALLOCATED),
        ("1215555121", Withheld.INVALID),
        ("121555512120", Withheld.INVALID),
        ("2105551212", Withheld.INVALID),
        ("999123456", Withheld.INVALID),
        ("0", Withheld.INVALID),
        ("911", None),
        ("1911", None),
        ("112", None),
        ("1411", None),
    ],
)
def test_metadata_knows_what_is_no_number(digits: str, wrong: Withheld | None) -> None:
    """Emergency and service numbers are none of its business, with the country code or without."""
    assert numbering(dial_plan("US"))(digits) is wrong


def test_what_was_asked_is_remembered_in_bounds() -> None:
    ask = numbering(dial_plan("US"))
    assert ask.cache_info().maxsize == MAX_NUMBERS  # type: ignore[attr-defined]  # an lru_cache
    assert ask("12155551212") is ask("12155551212")
    assert ask.cache_info().hits == 1  # type: ignore[attr-defined]  # likewise
