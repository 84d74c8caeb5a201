"""Who decides, where records on several levels may: settings, route, customer, trunk, right.

Of `Overrides` the most specific that says something wins. Ceilings alone add up: the lowest of all wins,
wherever it stands, so that no record can give back what another has taken.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from shaken_plugin.core.attestation.decision import Case
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Overrides, Trunk


class Scope(NamedTuple):
    """A record that may decide, as a trace names it: ``route intl``."""

    name: str
    says: Overrides


SETTINGS = "the settings"


def general_scopes(case: Case) -> tuple[Scope, ...]:
    """Those that hold for whoever calls, most general first."""
    route = case.facts.route
    return (Scope(SETTINGS, case.policy.overrides), *([Scope(f"route {route.id}", route.rules)] if route else []))


def scopes(case: Case) -> tuple[Scope, ...]:
    """All that hold for a call, most general first.

    A right speaks whether it is in force or not: one that is suspended shall not take its ceiling with it.
    """
    source = case.facts.source
    if not isinstance(source, Trunk):
        return general_scopes(case)
    return (
        *general_scopes(case),
        Scope(f"customer {source.customer.id}", source.customer.rules),
        Scope(f"trunk {source.id}", source.rules),
        *(Scope(f"right {right.right.id}", right.right.rules) for right in reversed(case.own)),
    )


def chosen(among: tuple[Scope, ...], name: str) -> tuple[Any, str]:
    """What the most specific scope says, and its name; None and the settings where none says anything.

    Args:
        among: most general first.
        name: a field of `Overrides`.
    """
    for scope in reversed(among):
        if (value := getattr(scope.says, name)) is not None:
            return value, scope.name
    return None, SETTINGS


def ceilings(case: Case) -> tuple[tuple[Attest, str], ...]:
    """The ceilings below A of a customer's call with the scopes that set them, lowest first."""
    found = [(scope.says.ceiling, scope.name) for scope in scopes(case)]
    found.append((case.customer.ceiling, f"customer {case.customer.id}"))
    below = {(ceiling, name): None for ceiling, name in found if ceiling is not None and ceiling is not Attest.A}
    return tuple(sorted(below, key=lambda pair: pair[0].value, reverse=True))
