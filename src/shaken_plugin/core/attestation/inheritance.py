"""Who decides, where records on several levels may: settings, route, customer, trunk, right.

Of `Overrides` the most specific that says something wins. Ceilings alone add up: the lowest of all wins,
wherever it stands, so that no record can give back what another has taken.
"""

from __future__ import annotations

from typing import Any

from shaken_plugin.core.attestation.decision import SETTINGS, Case, Scope
from shaken_plugin.core.passport import Attest


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
    found = [(scope.says.ceiling, scope.name) for scope in case.scopes]
    found.append((case.customer.ceiling, f"customer {case.customer.id}"))
    below = {(ceiling, name): None for ceiling, name in found if ceiling is not None and ceiling is not Attest.A}
    return tuple(sorted(below, key=lambda pair: pair[0].value, reverse=True))
