"""What is said of usual signed calls: the record, the log line and the variables, each from a form filled in.

The form is what the writers of all calls make of one such call, with marks where the next one differs. So there is one
place where it is known what a line says, and nothing to keep in step; a line with a mark too many or too few makes no
form, and such calls are said in the slow way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

from shaken_plugin.authentication import Asked, Usual
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.call import MAX_ASSERTED, CallMessage
from shaken_plugin.core.telephone import Party, UriIdentity
from shaken_plugin.records.call import digest, signed
from shaken_plugin.records.usual import Filled
from shaken_plugin.switch.actions import Outcome, Same, signing_variables
from shaken_plugin.switch.reports import signing_line
from shaken_plugin.telemetry import Clean

MAX_TEXT: Final = 200
"""Longest Call-ID and called party of a usual call, characters."""
MAX_FORM: Final = 4_000
"""Longest form of a record, characters: such are kept with each decision."""

DELETE: Final = "\x7f"
"""The one character that JSON of ASCII may hold and a log line not."""

_CALL_ID: Final = "<call-id>"
_DEST: Final = UriIdentity("<dest>")
_AT: Final = 82_739_104_655.015625
_IAT: Final = 918_273_645_546_372_819
_CHANGING: Final = frozenset({"identity", "ppi", "signed_at", "date"})


class Told:
    """What is said of the usual calls that are signed with one `Ready`, under the same settings."""

    __slots__ = ("counted", "line", "record", "same", "settings")

    def __init__(
        self, settings: Settings, line: tuple[str, ...], record: tuple[str, ...], constant: dict[str, str]
    ) -> None:
        self.settings = settings
        self.line, self.record = line, record
        """The forms of log line and record."""
        self.same = Same(constant)
        self.counted = f"signed_{constant['level'].lower()}"

    @classmethod
    def of(cls, usual: Usual, message: CallMessage, settings: Settings) -> Told | None:
        """What is to be said of calls like this one; None where it is not so simple."""
        sample = replace(message, call_id=_CALL_ID)
        signing = usual._replace(dest=_DEST, iat=_IAT).signing("a.b.c;info=<>", "")
        dest, iat = _shown(_DEST, settings), str(_IAT)
        line = form(signing_line(sample, signing, settings), (f'"{_CALL_ID}"', f'"{dest}"', iat))
        record = form(
            signed(sample, signing, _AT, observe=False).line().decode("ascii"),
            (repr(_AT), f'"{_CALL_ID}"', f'"{_DEST.uri}"', iat, digest("a.b.c")),
        )
        if line is None or record is None or sum(map(len, record)) > MAX_FORM:
            return None
        if not is_clean(line):
            return None
        variables = signing_variables(sample, signing, _AT, active=True)
        return cls(settings, line, record, {n: text for n, text in variables.items() if n not in _CHANGING})

    def log_line(self, call_id: str, usual: Usual) -> str:
        """`signing_line` of the call, whose Call-ID is a JSON text already."""
        a, b, c, d = self.line
        _, dest, iat = usual
        shown = quoted(_shown(dest, self.settings))
        line = f"{a}{call_id}{b}{shown}{c}{iat}{d}"
        return line if DELETE in call_id or DELETE in shown else Clean(line)

    def filled(self, call_id: str, usual: Usual, signature: str, now: float) -> Filled:
        """The record of the call, whose Call-ID is a JSON text already."""
        _, dest, iat = usual
        return Filled(self.record, call_id, quoted(str(dest)), iat, signature, now)

    def outcome(self, identity: str, signature: str, date: str, now: float, asked: Asked | None = None) -> Outcome:
        """What is to be done: the variables are `signing_variables` of the call."""
        changing = {"identity": identity, "ppi": f"..{signature}", "signed_at": str(int(now)), "date": date}
        if asked is not None:
            changing["counted"] = asked.call
            if asked.slot:
                changing["slot"] = asked.slot
        return Outcome({**self.same.variables, **changing}, same=self.same)


def told_of(usual: Usual, message: CallMessage, settings: Settings) -> Told | None:
    """What is said of usual calls like this one, made once; None where they have to be said in the slow way."""
    ready, dest, _ = usual
    known: tuple[Settings, Told | None] | None = ready.told
    if known is None or known[0] is not settings:
        known = ready.told = settings, Told.of(usual, message, settings)
    return known[1] if len(str(dest)) <= MAX_TEXT else None


def is_unmarked(message: CallMessage) -> bool:
    """Whether nothing in the headers that name the caller can be a verstat, not even one with escaped letters."""
    if message.unmarked:
        return True
    for lines in message.callers.values():
        if len(lines) > MAX_ASSERTED:
            return False
        for line in lines:
            if "%" in line or "verstat" in line.lower():
                return False
    return True


def _shown(party: Party, settings: Settings) -> str:
    """A party as log lines name it."""
    return str(party) if settings.log.full_numbers else party.masked


def is_clean(pieces: Sequence[str]) -> bool:
    """Whether the pieces of a log line's form are whole, and hold nothing that `clean` would change."""
    # Where it is cut (`telemetry.event`) depends on the whole of it.
    return not any("~" in piece for piece in pieces) and "".join(pieces).isascii() and "".join(pieces).isprintable()


def form(text: str, marks: Sequence[str]) -> tuple[str, ...] | None:
    """A text in pieces, between which the marks stood: each once, and in this order."""
    pieces: list[str] = []
    rest = text
    for mark in marks:
        piece, found, rest = rest.partition(mark)
        if not found or text.count(mark) != 1:
            return None
        pieces.append(piece)
    return (*pieces, rest)
