"""Channel variables on their way over an event socket, both ways.

Nothing that came over the wire may mean anything to FreeSWITCH on the way. What FreeSWITCH 1.11 does
(read in its source, and tried): arguments of applications are expanded (``${…}`` runs API commands),
and those of ``set`` twice; those of API commands are not. So variables are set by ``uuid_setvar``,
whose arguments are split at spaces, with quotes and backslashes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shaken_plugin.errors import ShakenError

_ESCAPES: Final = str.maketrans({"\\": r"\\", "'": r"\'", " ": r"\s", "\r": None, "\n": None, "\x00": None})

# A command with "unload" or "reload" and "mod_event_socket" anywhere in it is taken for exactly that
# (mod_event_socket.c, parse_command). Empty quotes are taken away later, and keep the word apart.
_MODULE: Final = re.compile("mod_event(?=_socket)", re.IGNORECASE)

_UUID: Final = re.compile(r"[A-Za-z0-9_.:@+-]{1,255}")


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


def global_variables(text: str) -> Mapping[str, str]:
    """The variables of the switch, which a leg has where it has none of its own; from ``global_getvar``."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, sign, value in pairs if sign and value}
