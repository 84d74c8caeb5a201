"""The authentication service (STI-AS): decides, then signs (RFC 8224 §6.1, ATIS-1000074).

`AuthenticationService.sign` reads nothing but its arguments, its store and its credentials. It
returns what should happen; a switch adapter does it.
"""

from shaken_plugin.authentication.limiting import Asked, Follow, Limiter
from shaken_plugin.authentication.model import (
    PPT,
    PPT_DIV,
    Credential,
    Credentials,
    DiversionMode,
    ExistingIdentity,
    OrigidScope,
    Signing,
    SigningPair,
    SigningRules,
    StaleDate,
    StoreDown,
)
from shaken_plugin.authentication.service import AuthenticationService, identity_header, identity_value
from shaken_plugin.authentication.usual import Ready, Usual
from shaken_plugin.authentication.way import Way

__all__ = [
    "PPT",
    "PPT_DIV",
    "Asked",
    "AuthenticationService",
    "Credential",
    "Credentials",
    "DiversionMode",
    "ExistingIdentity",
    "Follow",
    "Limiter",
    "OrigidScope",
    "Ready",
    "Signing",
    "SigningPair",
    "SigningRules",
    "StaleDate",
    "StoreDown",
    "Usual",
    "Way",
    "identity_header",
    "identity_value",
]
