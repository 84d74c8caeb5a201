"""All variables of a leg at once, as FreeSWITCH dumps them."""

from __future__ import annotations

import json
from typing import Final

from shaken_plugin.errors import ShakenError

_VARIABLE: Final = "variable_"

_PROFILE: Final = "Caller-"
"""What FreeSWITCH has of a leg's caller profile: ``caller_id_number`` is ``Caller-Caller-ID-Number``."""


class DumpError(ShakenError):
    """What should be the variables of a leg is something else; most often the leg has ended."""


def leg_variables(dump: str) -> dict[str, str]:
    """The variables of a leg, from the answer to ``uuid_dump … json``; those of the whole switch are not there.

    The plain form will not do: in it, ``%41`` and ``A`` are the same.

    Raises:
        DumpError: it is something else.
    """
    try:
        fields = json.loads(dump)
    except (ValueError, RecursionError):
        raise DumpError("variables of a leg that are no JSON") from None
    if not isinstance(fields, dict):
        raise DumpError("variables of a leg that are no JSON object")
    profile, variables = {}, {}
    for name, field in fields.items():
        value = field if isinstance(field, str) else _several(field)
        if not value:
            continue
        if name.startswith(_VARIABLE):
            variables[name.removeprefix(_VARIABLE)] = value
        elif name.startswith(_PROFILE):
            profile[name.removeprefix(_PROFILE).lower().replace("-", "_")] = value
    return profile | variables


def _several(field: object) -> str | None:
    """Several values as one text, as in FreeSWITCH itself."""
    if isinstance(field, list) and all(isinstance(item, str) for item in field):
        return "ARRAY::" + "|:".join(field)
    return None
