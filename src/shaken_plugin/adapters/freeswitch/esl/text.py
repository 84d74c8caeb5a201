"""Channel variables on their way over an event socket, both ways.

Nothing that came over the wire may mean anything to FreeSWITCH on the way. What FreeSWITCH 1.11 does
(read in its source, and tried): arguments of applications are expanded (``${…}`` runs API commands),
and those of ``set`` twice; those of API commands are not. So variables are set by ``uuid_setvar``,
whose arguments are split at spaces, with quotes and backslashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from shaken_plugin.errors import ShakenError

_ESCAPES: Final = str.maketrans({"\\": r"\\", "'": r"\'", " ": r"\s", "\r": None, "\n": None, "\x00": None})

# A command with "unload" or "reload" and "mod_event_socket" anywhere in it is taken for exactly that
# (mod_event_socket.c, parse_command). Empty quotes are taken away later, and keep the word apart.
_MODULE: Final = re.compile("mod_event(?=_socket)", re.IGNORECASE)

_AT_ONCE: Final = 60
"""Most variables of one command; FreeSWITCH 1.11 takes 64."""

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


def set_variables(uuid: str, variables: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The commands that do the same as `set_variable` for each of these, in order: most often one.

    ``uuid_setvar_multi`` takes apart at semicolons what ``uuid_setvar`` takes apart at spaces, and refuses
    a value that would be expanded somewhere (``${``).
    """
    at_once: list[str] = []
    for name, value in variables:
        if at_once and ("$" in value or len(at_once) == _AT_ONCE):
            yield f"api uuid_setvar_multi {uuid} {';'.join(at_once)}"
            at_once = []
        if "$" in value:
            yield set_variable(uuid, name, value)
        else:
            at_once.append(f"{_quoted(name)}={_quoted(value)}".replace(";", "\\;"))
    if at_once:
        yield f"api uuid_setvar_multi {uuid} {';'.join(at_once)}"


def _quoted(text: str) -> str:
    return _MODULE.sub(r"\g<0>''", text.translate(_ESCAPES))


def global_variables(text: str) -> Mapping[str, str]:
    """The variables of the switch, which a leg has where it has none of its own; from ``global_getvar``."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, sign, value in pairs if sign and value}
