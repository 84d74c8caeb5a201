"""What the branch route needs of a signing, as one text: one xavp is read for it instead of a dozen.

Of a usual call it is a mark: what its first branch needs is published anyway, and any other reads those variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

STATE: Final = (
    "identity", "ppi", "date", "replace_date", "drop", "signed_at", "source", "substitute", "diverting", "target",
)  # fmt: skip
"""Variables of a signing that `shaken_branch` acts on; where a call is signed anew, nothing of before stays."""

INNER: Final = frozenset({"replace_date", "drop", "diverting", "target"})
"""Those of them that routing scripts have no use for."""


IDLE: Final = "-"
"""In its place where a call was decided and the branch route has nothing to do."""

USUAL: Final = "+"
"""In its place where it would say no more than the variables of `PUBLISHED` do."""

PUBLISHED: Final = ("identity", "ppi", "date", "signed_at", "source")
"""Those of `STATE` that a usual call has."""


def pack(variables: Mapping[str, str]) -> str:
    """As one text, `IDLE` where the branch route has nothing to do; no variable has a line break (`switch.Outcome`)."""
    if not (variables.get("identity") or variables.get("substitute") or variables.get("diverting")):
        return IDLE
    return "\n".join([variables.get(name, "") for name in STATE])


def unpack(text: str) -> dict[str, str]:
    """What `pack` made; all empty of `IDLE`, and of the empty text of a call that nobody decided."""
    return dict.fromkeys(STATE, "") if text in {"", IDLE} else dict(zip(STATE, text.split("\n"), strict=True))
