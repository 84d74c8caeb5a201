"""A call that has left once with another caller ID, and leaves once more."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Final

from shaken_plugin.authentication import Signing
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.errors import SkipReason

_NOTE: Final = re.compile(r"([0-9]{1,15})\.([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class LeftAs:
    """With which number a call has left, canonical, and in the place of whom: a digest, so that a note is plain.

    Without a digest it is whoever calls: in a proxy one INVITE has one caller.
    """

    number: str
    digest: str = ""

    @classmethod
    def of(cls, number: str, replaced: str) -> LeftAs:
        """From the variables ``substitute`` and ``substituted_for`` of an outcome."""
        return cls(number, hashlib.sha256(replaced.encode("utf-8", "backslashreplace")).hexdigest()[:32])

    @classmethod
    def parse(cls, note: str) -> LeftAs | None:
        """What `str` made; None where it is anything else."""
        found = _NOTE.fullmatch(note)
        return cls(*found.groups()) if found else None

    def __str__(self) -> str:
        return f"{self.number}.{self.digest}"

    def kept(self, signing: Signing, message: CallMessage, plan: DialPlan) -> Signing:
        """The outcome for the call as it has to leave: with that number, and unsigned unless it was signed for it.

        Whoever refuses, does not know, or would now have it otherwise: the number that was replaced must
        not come out on the second attempt. An emergency call is never substituted; and a call that
        does not show the number that was replaced is judged as itself.
        """
        if signing.emergency or str(signing.substitute or "") == self.number:
            return signing
        if self.digest and not self._is_shown(message, plan):
            return signing
        caller = signing.orig if signing.substitute is None else signing.substituted_for
        number = TelephoneNumber(self.number)
        undecided = signing.decision is None or signing.refuse
        return replace(
            signing,
            skip=signing.skip if undecided else SkipReason.SUBSTITUTE_CHANGED,
            identity=None,
            origid=None,
            date=None,
            replace_date=False,
            drop=(),
            orig=number,
            substitute=number,
            substituted_for=caller,
        )

    def _is_shown(self, message: CallMessage, plan: DialPlan) -> bool:
        parties = (caller.party for header in CallerHeader for caller in message.callers_in(header, plan))
        return any(LeftAs.of(self.number, str(party)) == self for party in parties)
