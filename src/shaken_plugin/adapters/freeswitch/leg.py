"""One leg of a call: what can be asked of it, and what may be done to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

_UNSENDABLE: Final = str.maketrans({"\r": " ", "\n": " ", "\x00": None})


class Leg(Protocol):
    """The channel variables of a leg, and of the one it was made for."""

    def get(self, name: str, /) -> str | None:
        """A channel variable; None where it is not set."""

    def partner(self, name: str, /) -> str | None:
        """A variable of the leg that this one was made for; None where it has none."""


class ReadLeg:
    """A `Leg` by what its two functions do: attributes, so that a dictionary's own can be one.

    Args:
        get: see `Leg.get`.
        partner: see `Leg.partner`.
    """

    __slots__ = ("get", "partner")

    def __init__(self, get: Callable[[str], str | None], partner: Callable[[str], str | None]) -> None:
        self.get, self.partner = get, partner


@dataclass(frozen=True, slots=True)
class MappedLeg:
    """A leg whose variables were all read at once."""

    own: Mapping[str, str]
    other: Mapping[str, str]

    def get(self, name: str) -> str | None:
        """See `Leg.get`."""
        return self.own.get(name)

    def partner(self, name: str) -> str | None:
        """See `Leg.partner`."""
        return self.other.get(name)


@dataclass(frozen=True, slots=True)
class Set:
    """Set a channel variable; an empty value takes it away."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Export:
    """Set a variable on the legs that will be made for this one, and not on this one."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SetPartner:
    """Set a variable on the leg that this one was made for, where all others made for it find it."""

    name: str
    value: str
    """Letters, digits, full stops and spaces: nothing that could end a line, or be expanded."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Have FreeSWITCH itself take the leg for one of another number, by name and number."""

    number: str
    """Digits, with ``+`` before them: nothing that could be expanded."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the INVITE of this leg with a failure."""

    status: int
    phrase: str
    reasons: tuple[str, ...] = ()
    """Values of Reason header fields, one each."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Give up a leg that has not been sent yet; FreeSWITCH makes an answer from the cause."""

    cause: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Have the end of a call with a slot told.

    That of the leg this one was made for, which outlives each that is tried for it; its own where it was made for none.
    """

    slot: str


Command = Set | Export | SetPartner | Caller | Answer | HangUp | Follow

PROFILE: Final = ("caller_id_number", "caller_id_name")
"""What a `Caller` changes, by the application ``set_profile_var``; no variable of a leg can."""


def sendable(value: str) -> str | None:
    """A value without line breaks and NUL; None where it holds bytes that are no text.

    A line break in a channel variable would be one in the INVITE (FreeSWITCH writes what it has).
    """
    if value.isprintable():
        return value  # as nearly all are: no controls, no lone surrogates
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value.translate(_UNSENDABLE)


def harmless(value: str) -> str:
    """Text from anywhere that means nothing to FreeSWITCH, wherever a dialplan may put it.

    A dialplan that names a variable has its value expanded once more: ``${system(…)}`` in a name that
    a stranger signed would be executed (tried). FreeSWITCH itself writes ``%`` for ``$`` in what it
    takes from a caller.
    """
    return (sendable(value) or "").replace("$", "%")


def variable(name: str, value: str) -> Set:
    """A `Set` of text from anywhere, made `harmless`."""
    return Set(name, harmless(value))
