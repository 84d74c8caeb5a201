"""Explicit rules that give a customer's calls another caller ID."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shaken_plugin.core.attestation.decision import Case
from shaken_plugin.core.records import Substitution, TimeWindow
from shaken_plugin.core.telephone import TelephoneNumber


def substitution_for(case: Case) -> Substitution | None:
    """The first rule, by id, that says so of a customer's call with a number; None where it keeps that."""
    orig = case.call.orig
    assert isinstance(orig, TelephoneNumber)
    for rule in sorted(case.facts.substitutions, key=lambda rule: rule.id):
        if rule.customer == case.customer.id and rule.number != orig.digits and _fits(rule, case, orig.digits):
            return rule
    return None


def _fits(rule: Substitution, case: Case, caller: str) -> bool:
    route = case.facts.route
    return (
        (not rule.routes or (route is not None and route.id in rule.routes))
        and (not rule.callers or caller.startswith(rule.callers))
        and (rule.valid_from is None or rule.valid_from <= case.now)
        and (rule.valid_until is None or case.now < rule.valid_until)
        and (rule.window is None or is_open(rule.window, case.now))
    )


def is_open(window: TimeWindow, now: float) -> bool:
    """Whether a time (POSIX seconds) lies in a window.

    One that goes past midnight belongs to the day on which it begins: Friday from 22:00 to 06:00 is open
    on Saturday at 05:00.
    """
    local = datetime.fromtimestamp(now, UTC) + timedelta(minutes=window.utc_offset)
    minute, today = local.hour * 60 + local.minute, local.weekday()
    if window.begins < window.ends:
        return today in window.days and window.begins <= minute < window.ends
    yesterday = (today - 1) % 7
    return (today in window.days and minute >= window.begins) or (yesterday in window.days and minute < window.ends)
