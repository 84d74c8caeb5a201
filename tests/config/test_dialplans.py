"""Dial plans from the metadata of the phonenumbers library."""

from __future__ import annotations

import re

import pytest
from phonenumbers import SUPPORTED_REGIONS

from shaken_plugin.config.dialplans import EMERGENCY_EVERYWHERE, dial_plan
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
