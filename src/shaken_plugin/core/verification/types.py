"""The PASSporT types that are understood. Another type is another row here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from shaken_plugin.core.claims import read_attest, read_origid
from shaken_plugin.core.verification.diversion import DIV, DIV_O
from shaken_plugin.core.verification.examination import PassportType
from shaken_plugin.core.verification.priority import RPH
from shaken_plugin.core.verification.richcalldata import RCD
from shaken_plugin.core.verification.verdict import Profile

BASELINE: Final = PassportType(None, "RFC 8225", vouches=frozenset({Profile.RFC8224}))
SHAKEN: Final = PassportType(
    "shaken",
    "RFC 8588",
    ("attest", "origid"),
    {"attest": read_attest, "origid": read_origid},
    vouches=frozenset(Profile),
)

PASSPORT_TYPES: Final[Mapping[str | None, PassportType]] = {
    kind.ppt: kind for kind in (SHAKEN, BASELINE, DIV, DIV_O, RCD, RPH)
}
"""By ``ppt``; tokens of other types are ignored (RFC 8224 §6.2 step 1)."""


@cache
def vouching(profile: Profile) -> frozenset[str | None]:
    """The types whose PASSporTs vouch for the caller's number."""
    return frozenset(ppt for ppt, kind in PASSPORT_TYPES.items() if profile in kind.vouches)
