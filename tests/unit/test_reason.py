"""Reason header fields of protocol STIR (RFC 9410)."""

from __future__ import annotations

import pytest

from shaken_plugin.core.reason import about_ours, reasons, split_reasons, stir_reason
from shaken_plugin.core.verification import IdentityResult, Result, Verdict
from shaken_plugin.errors import FailureCode


def test_value_has_cause_and_text_of_the_failure() -> None:
    """RFC 9410 §4."""
    assert stir_reason(FailureCode.IAT_STALE) == 'STIR;cause=403;text="Stale Date"'
    assert stir_reason(FailureCode.X5U_MISMATCH, "..sig") == 'STIR;cause=436;text="Bad Identity Info";ppi="..sig"'


def test_each_failed_header_has_its_reason_and_ignored_ones_have_none() -> None:
    """RFC 9410 §5: one Reason for each error, ppi says which Identity it is about."""
    results = (
        IdentityResult(0),
        IdentityResult(1, FailureCode.IAT_STALE, ppi="..one"),
        IdentityResult(2, FailureCode.CALLER_ANONYMOUS, ignored=True, ppi="..two"),
        IdentityResult(3, ignored=True),
        IdentityResult(4, FailureCode.IDENTITY_MALFORMED),
    )
    assert reasons(Verdict(Result.PASSED, None, results[0], results)) == [
        'STIR;cause=403;text="Stale Date";ppi="..one"',
        'STIR;cause=438;text="Invalid Identity Header"',
    ]


def test_call_without_identity_has_no_reason() -> None:
    assert reasons(Verdict(Result.NONE, FailureCode.NO_IDENTITY)) == []


def test_lines_are_split_into_values() -> None:
    """RFC 9366: several values, of one protocol too."""
    lines = ['Q.850;cause=16;text="a, b", STIR;cause=436', "", 'SIP;cause=603;text="x"']
    assert list(split_reasons(lines)) == ['Q.850;cause=16;text="a, b"', "STIR;cause=436", 'SIP;cause=603;text="x"']


@pytest.mark.parametrize(
    ("value", "ours", "about"),
    [
        ("STIR;cause=436", "..sig", True),
        (" stir ;cause=436", "..sig", True),
        ('STIR;cause=436;ppi="..sig"', "..sig", True),
        ("STIR;cause=436;PPI = ..sig", "..sig", True),
        ('STIR;cause=436;ppi="..sig"', "header.claims.sig", True),
        ('STIR;cause=436;ppi="..other"', "..sig", False),
        ('STIR;cause=436;ppi="..old"', "..old,..sig", True),
        ("STIR;cause=436", "", False),
        ("SIP;cause=436", "..sig", False),
        ("STIRRED;cause=436", "..sig", False),
        ("", "..sig", False),
        (";STIR", "..sig", False),
    ],
)
def test_reason_about_our_own_passport_is_known(value: str, ours: str, about: bool) -> None:
    """RFC 9410 §7: the authentication service MUST remove these; without ppi it can only mean ours."""
    assert about_ours(value, ours.split(",") if ours else ()) is about
