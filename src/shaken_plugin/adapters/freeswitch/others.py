"""Variables of a leg, many at once, asked of FreeSWITCH's own library, in whose process we are.

Of a leg that the script does not run for, scripts are offered two ways. An API command is an event, for which
FreeSWITCH wakes threads; one command that tells everything took half a millisecond of a call, of which most things are
not asked. And a second ``Session`` object: when that goes, it takes the hangup hook of whatever other script runs for
that leg with it (freeswitch_python.cpp). So it is done as ``uuid_getvar`` does it inside FreeSWITCH, by functions that
all its modules are linked to.

To call one of them for each variable costs more than what it does there. So FreeSWITCH is given a text in which all of
them are named, to expand as it expands the arguments of each application; but what they hold is not expanded again.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, Final

_TEXT: Final = ctypes.c_char_p
_POINTER: Final = ctypes.c_void_p
_WHERE: Final = (b"shaken", b"shaken", 0)
"""File, function and line, which FreeSWITCH logs where it was built to watch its locks."""

_COPIED: Final = 1
"""The value is copied into memory that stays as long as the leg: another thread may set it anew meanwhile."""
_WHOLE: Final = -1
"""All values of a variable that has several, as one text."""

_DEEPEST: Final = 100
"""How deep in itself FreeSWITCH lets an expansion be: one at this depth takes what a variable holds for text, whatever
stands in it (switch_channel.c; it returns its argument unchanged where it is too deep)."""
_BETWEEN: Final = "\x1f"
"""What stands between two values; a value that holds it makes too many, and all are asked for one by one."""
_CUSTOM: Final = 0
"""A kind of event (switch_types.h)."""
_EXPANDABLE: Final = re.compile(r"[A-Za-z0-9_-]+")
"""A name that means itself where it is expanded."""


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
        self._expand = _typed(
            library.switch_channel_expand_variables_check,
            *(_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_uint32),
        )
        self._free = _typed(library.free, None, _POINTER)
        self._unlock = _typed(library.switch_core_session_rwunlock, None, _POINTER)
        self._no_commands = _POINTER()
        """The commands that may be run by what is expanded, should FreeSWITCH look deeper one day: an empty list."""
        create = _typed(
            library.switch_event_create_subclass_detailed,
            *(ctypes.c_int, _TEXT, _TEXT, ctypes.c_int, _POINTER, ctypes.c_int, _TEXT),
        )
        create(*_WHERE, ctypes.byref(self._no_commands), _CUSTOM, None)
        if not self._no_commands:
            raise OSError("FreeSWITCH makes no event")
        self._forms: dict[tuple[str, ...], _Form] = {}
        self._is_deepest: bool | None = None
        """Whether `_DEEPEST` is what it was when this was written; looked at with the first leg."""

    def get(self, uuid: str, names: tuple[str, ...]) -> dict[str, str | None]:
        """Variables of a leg, or of the whole switch; None those that are not set, or all where the leg has hung up.

        Args:
            uuid: the leg's.
            names: one name, or one of a few lists of them; each is remembered.
        """
        session = self._locate(_octets(uuid), *_WHERE)  # locked from here on: it cannot go away
        if not session:
            return dict.fromkeys(names)
        try:
            channel = self._channel(session)
            if len(names) > 1:
                form = self._forms.get(names) or self._forms.setdefault(names, _Form(names))
                if (found := self._expanded(channel, form)) is not None:
                    return found | {name: self._one(channel, name) for name in form.others}
            return {name: self._one(channel, name) for name in names}
        finally:
            self._unlock(session)

    def _expanded(self, channel: int, form: _Form) -> dict[str, str | None] | None:
        """The variables in a form, None where that cannot be told."""
        if self._is_deepest is None:
            deeper = self._expand(channel, form.address, None, self._no_commands, _DEEPEST + 1)
            self._is_deepest = deeper == form.address
            if not self._is_deepest:
                self._free(deeper)
        if not self._is_deepest:
            return None  # what the values hold, and callers choose some, would be expanded, too
        found = self._expand(channel, form.address, None, self._no_commands, _DEEPEST)
        if not found or found == form.address:
            return None
        try:
            values = _text(ctypes.string_at(found)).split(_BETWEEN)
        finally:
            self._free(found)
        if len(values) != len(form.names):
            return None
        return {name: value or None for name, value in zip(form.names, values, strict=True)}

    def _one(self, channel: int, name: str) -> str | None:
        value = self._variable(channel, _octets(name), _COPIED, _WHOLE)
        return _text(value) if value else None


class _Form:
    """A text that FreeSWITCH makes the values of some variables of.

    Args:
        names: of the variables; ``others`` are those that cannot stand in such a text.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = tuple(name for name in names if _EXPANDABLE.fullmatch(name))
        self.others = tuple(name for name in names if name not in self.names)
        self._text = ctypes.create_string_buffer(_octets(_BETWEEN.join(f"${{{name}}}" for name in self.names)))
        self.address = ctypes.addressof(self._text)


def _typed(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, arguments
    return function


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
