"""Channel variables on their way over an event socket, both ways.

Nothing that came over the wire may mean anything to FreeSWITCH on the way. What FreeSWITCH 1.11 does
(read in its source, and tried): arguments of applications are expanded (``${…}`` runs API commands),
and those of ``set`` twice; those of API commands are not. So variables are set by ``uuid_setvar``,
whose arguments are split at spaces, with quotes and backslashes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from shaken_plugin.errors import ShakenError

_ESCAPES: Final = str.maketrans({"\\": r"\\", "'": r"\'", " ": r"\s", "\r": None, "\n": None, "\x00": None})

# A command with "unload" or "reload" and "mod_event_socket" anywhere in it is taken for exactly that
# (mod_event_socket.c, parse_command). Empty quotes are taken away later, and keep the word apart.
_MODULE: Final = re.compile("mod_event(?=_socket)", re.IGNORECASE)

_UUID: Final = re.compile(r"[A-Za-z0-9_.:@+-]{1,255}")

_VARIABLE: Final = "variable_"

_PROFILE: Final = "Caller-"
"""What FreeSWITCH has of a leg's caller profile: ``caller_id_number`` is ``Caller-Caller-ID-Number``."""


class ConversationError(ShakenError):
    """What came over an event socket is not what a FreeSWITCH says."""


def checked_uuid(text: object) -> str:
    """The UUID of a leg, which may be any word of the operator's.

    Raises:
        ConversationError: it is none that could stand in a command.
    """
    if not isinstance(text, str) or not _UUID.fullmatch(text):
        raise ConversationError("a leg without a usable UUID")
    return text


def set_variable(uuid: str, name: str, value: str) -> str:
    """The command that sets a variable of a leg to exactly this, or takes it away if the value is empty.

    Args:
        uuid: from `checked_uuid`.
        name: may end in spaces.
        value: text, of which line breaks and NUL are left out.
    """
    return f"api uuid_setvar {uuid} {_quoted(name)} {_quoted(value)}".rstrip(" ")


def _quoted(text: str) -> str:
    return _MODULE.sub(r"\g<0>''", text.translate(_ESCAPES))


def leg_variables(dump: str) -> dict[str, str]:
    """The variables of a leg, from the answer to ``uuid_dump … json``.

    The plain form will not do: in it, ``%41`` and ``A`` are the same.

    Raises:
        ConversationError: it is something else.
    """
    try:
        fields = json.loads(dump)
    except (ValueError, RecursionError):
        raise ConversationError("variables of a leg that are no JSON") from None
    if not isinstance(fields, dict):
        raise ConversationError("variables of a leg that are no JSON object")
    profile, variables = {}, {}
    for name, field in fields.items():
        if not (value := _value(field)):
            continue
        if name.startswith(_VARIABLE):
            variables[name.removeprefix(_VARIABLE)] = value
        elif name.startswith(_PROFILE):
            profile[name.removeprefix(_PROFILE).lower().replace("-", "_")] = value
    return profile | variables


def _value(field: object) -> str | None:
    """A value; several as one text, as in FreeSWITCH itself."""
    if isinstance(field, list) and all(isinstance(item, str) for item in field):
        return "ARRAY::" + "|:".join(field)
    return field if isinstance(field, str) else None


def global_variables(text: str) -> Mapping[str, str]:
    """The variables of the switch, which a leg has where it has none of its own; from ``global_getvar``."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, sign, value in pairs if sign and value}
