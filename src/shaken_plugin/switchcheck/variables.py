"""Channel variables that a configuration sets: where, and on which leg they end up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from shaken_plugin.errors import Problem
from shaken_plugin.switchcheck.findings import Check, Finding
from shaken_plugin.switchcheck.preprocessor import Text
from shaken_plugin.switchcheck.tree import Element


class Scope(Enum):
    """Where a variable is set."""

    GLOBAL = "a global variable"
    GATEWAY = "a gateway's variable"
    USER = "a variable of the user directory"
    DIALPLAN = "the dialplan"


class Assignment(NamedTuple):
    """One variable that is set."""

    name: str
    value: str
    scope: Scope
    source: Problem
    """Where it stands; the message is empty."""
    element: Element | None
    application: str
    """The dialplan application that sets it, empty where none does."""

    def finding(self, check: Check, message: str) -> Finding:
        """A finding about it."""
        return Finding(check, self.source._replace(message=message))


_SETTERS: Final = frozenset({"set", "export", "bridge_export", "set_global", "push"})
"""Applications whose whole argument is an assignment."""

EXPORTERS: Final = frozenset({"export", "bridge_export"})
"""Those whose variable reaches the leg that leaves."""

_EMBEDDED: Final = re.compile(
    r"(?:^|[{\[<,;\s])(?:nolocal:)?"
    r"(sip_stir_shaken_attest|sip_copy_custom_headers|exclude_outgoing_extra_header|sip_cid_type|execute_on_originate\w{0,64})"
    r"=('[^']*'|[^,;\]}>]*)",
    re.IGNORECASE,
)
"""A variable we look for in a dial string: ``{a=b,c='d e'}sofia/…``, ``[…]``, ``<…>``."""


def assignments(root: Element, text: Text) -> Iterator[Assignment]:
    """Everything in a configuration that sets one of the variables we look for."""
    for setting in text.settings.values():
        place = Problem(setting.place.file, setting.place.line, 1, "", "")
        yield Assignment(setting.name, setting.value, Scope.GLOBAL, place, None, "")
    for element in root.all("action", "anti-action", "variable", "param"):
        place = Problem(element.place.file, element.place.line, element.column, element.path, "")
        for name, value, application in _set_by(element):
            if value:
                scope = Scope.GLOBAL if application == "set_global" else _scope(element)
                yield Assignment(name, value, scope, place, element, application)


def _set_by(element: Element) -> Iterator[tuple[str, str, str]]:
    if element.tag == "variable":
        yield element.get("name"), element.get("value"), ""
    elif element.tag == "param":
        for match in _EMBEDDED.finditer(element.get("value")):
            yield match[1], match[2].strip("'"), ""
    else:
        application, data = element.get("application"), element.get("data")
        name, equals, value = data.partition("=")
        if application in _SETTERS and equals:
            yield name.strip().removeprefix("nolocal:"), value, application
        else:
            for match in _EMBEDDED.finditer(data):
                yield match[1], match[2].strip("'"), application


def _scope(element: Element) -> Scope:
    if element.tag in {"action", "anti-action"}:
        return Scope.DIALPLAN
    return Scope.GATEWAY if element.inside("gateway") else Scope.USER


_TRUE: Final = frozenset({"yes", "on", "true", "t", "enabled", "active", "allow"})


def is_true(value: str) -> bool:
    """How FreeSWITCH reads a switch (switch_true): seven words, and numbers but zero."""
    text = value.lower()
    if text in _TRUE:
        return True
    number = re.match(r"-?\d+", text)
    return bool(number and re.fullmatch(r"-?[\d.]+", text) and int(number[0]))
