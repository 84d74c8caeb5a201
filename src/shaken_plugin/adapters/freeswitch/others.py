"""Variables of a leg that the script does not run for, asked of FreeSWITCH's own library, in whose process we are.

Scripts are offered two ways. An API command is an event, for which FreeSWITCH wakes threads; one command that tells
everything took half a millisecond of a call, of which most things are not asked. And a second ``Session`` object: when
that goes, it takes the hangup hook of whatever other script runs for that leg with it (freeswitch_python.cpp).

So it is done as ``uuid_getvar`` does it inside FreeSWITCH, by four functions that all its modules are linked to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import Any, Final

_TEXT: Final = ctypes.c_char_p
_POINTER: Final = ctypes.c_void_p
_WHERE: Final = (b"shaken", b"shaken", 0)
"""File, function and line, which FreeSWITCH logs where it was built to watch its locks."""

_COPIED: Final = 1
"""The value is copied into memory that stays as long as the leg: another thread may set it anew meanwhile."""
_WHOLE: Final = -1
"""All values of a variable that has several, as one text."""


class OtherLegs:
    """The legs of this process.

    Args:
        library: has FreeSWITCH's functions; by default the process itself.

    Raises:
        AttributeError, OSError: it has not.
    """

    def __init__(self, library: Any = None) -> None:
        # Called with Python's lock held, as the bindings of FreeSWITCH call them: none of them waits for a script.
        library = ctypes.PyDLL(None) if library is None else library
        self._locate = _typed(library.switch_core_session_perform_locate, _POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_int)
        self._channel = _typed(library.switch_core_session_get_channel, _POINTER, _POINTER)
        self._variable = _typed(
            library.switch_channel_get_variable_dup, _TEXT, _POINTER, _TEXT, ctypes.c_int, ctypes.c_int
        )
        self._unlock = _typed(library.switch_core_session_rwunlock, None, _POINTER)

    def get(self, uuid: str, names: Collection[str]) -> dict[str, str | None]:
        """Variables of a leg, or of the whole switch; None those that are not set, or all where the leg has hung up."""
        session = self._locate(_octets(uuid), *_WHERE)  # locked from here on: it cannot go away
        if not session:
            return dict.fromkeys(names)
        try:
            channel = self._channel(session)
            values = [self._variable(channel, _octets(name), _COPIED, _WHOLE) for name in names]
        finally:
            self._unlock(session)
        return {
            name: value.decode("utf-8", "surrogateescape") if value else None
            for name, value in zip(names, values, strict=True)
        }


def _typed(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, arguments
    return function


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
