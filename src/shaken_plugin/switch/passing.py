"""What is said and done of usual calls that passed, from forms filled in, as `switch.usual` does of signed ones.

The form is what the writers of all calls make of one such call, with marks where the next one differs.
"""

from __future__ import annotations

from dataclasses import replace
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

from shaken_plugin.core.call import CallerHeader, CallerLine, CallMessage
from shaken_plugin.core.certificates import TrustedPath
from shaken_plugin.core.telephone import TelephoneNumber, masked
from shaken_plugin.core.verification.usual import Usual
from shaken_plugin.records.call import digest, verified
from shaken_plugin.records.usual import FilledVerified
from shaken_plugin.runtime import Services
from shaken_plugin.switch.actions import Action, AddHeader, Outcome, RemoveHeader, Same, verdict_variables
from shaken_plugin.switch.reports import verification_line
from shaken_plugin.switch.usual import DELETE, MAX_FORM, MAX_TEXT, form, is_clean
from shaken_plugin.telemetry import MAX_LINE, Clean

MAX_FORMS: Final = 1_024
"""Signers and levels of which forms are kept; with more, all are made anew."""

_CALL_ID: Final = "<call-id>"
_ORIG, _DEST = TelephoneNumber("550917263544831"), TelephoneNumber("660817263544932")
_ORIGID: Final = "0f0e0d0c-1a2b-4c3d-8e9f-a1b2c3d4e5f6"
_AT: Final = 82_739_104_655.015625
_IAT: Final = 918_273_645_546_372_819
_PPI: Final = "..sample"
_CHANGING: Final = frozenset({"orig", "origid"})

_BY_NETWORK: Final = CallerHeader.ASSERTED  # each look into an Enum costs a search
_ASSERTED: Final = _BY_NETWORK.value
_REMOVE_ASSERTED: Final = RemoveHeader(_ASSERTED)


class Forms:
    """Of the calls of one signer at one level, as long as its path is the same; without a ``line`` there are none."""

    __slots__ = ("line", "path", "record", "same", "verstat")

    def __init__(
        self, path: TrustedPath, verstat: str, line: tuple[str, ...], record: tuple[str, ...], constant: dict[str, str]
    ) -> None:
        self.path, self.verstat, self.line, self.record = path, verstat, line, record
        self.same = Same(constant)


Told = tuple[str, FilledVerified, Outcome]
"""What is to be said and done of one call: its log line, its record, its outcome."""


class Passing:
    """What is said of usual calls under the settings of these services, which are read once."""

    __slots__ = ("_add_asserted", "_forms", "_full_numbers", "_is_usual", "_plan", "services")

    def __init__(self, services: Services) -> None:
        self.services = services
        settings = services.settings
        self._is_usual = settings.verification.mode == "active" and not settings.verification.mark_from
        self._add_asserted = settings.verification.add_asserted
        self._full_numbers = settings.log.full_numbers
        self._plan = services.plan
        self._forms: dict[tuple[str, str], Forms] = {}

    def takes(self, message: CallMessage) -> bool:
        """Whether the call begins here, is no emergency, and nothing in it has to be taken out or told."""
        if not (self._is_usual and message.unmarked and message.method == "INVITE") or message.priority:
            return False
        if message.unreadable or not 0 < len(message.call_id) <= MAX_TEXT:
            return False
        return isinstance(message.target(self._plan).usual, TelephoneNumber)

    def told(self, usual: Usual, message: CallMessage, now: float) -> Told | None:
        """What is to be said and done of a call that passed, which it `takes`; None where that is not so simple."""
        key = usual.info, usual.attest._value_
        forms = self._forms.get(key)
        if forms is None or forms.path is not usual.path:
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            forms = self._forms[key] = self._made(usual, message)
        if not forms.line:
            return None
        actions = self._actions(message, usual.line, forms.verstat)
        call_id, orig, dest = quoted(message.call_id), usual.orig, message.target(self._plan).usual
        a, b, c, d, e = forms.line
        shown = orig if self._full_numbers else masked(orig)
        line = f"{a}{call_id}{b}{shown}{c}{usual.origid}{d}{usual.iat}{e}"
        if actions is None or len(line) > MAX_LINE or not isinstance(dest, TelephoneNumber):
            return None
        if DELETE not in call_id:
            line = Clean(line)
        outcome = Outcome({**forms.same.variables, "orig": orig, "origid": usual.origid}, actions, same=forms.same)
        record = FilledVerified(forms.record, now, call_id, orig, dest.digits, usual.origid, usual.iat, usual.signature)
        return line, record, outcome

    def _actions(self, message: CallMessage, line: CallerLine | None, verstat: str) -> tuple[Action, ...] | None:
        """P-Asserted-Identity with our verstat, or one made of From; None where it is not so simple."""
        if line is None:
            return None
        name, uri, _, rest = line
        if message.callers.get(_BY_NETWORK):
            return _REMOVE_ASSERTED, AddHeader(_ASSERTED, f"{name}{uri};verstat={verstat}{rest}")
        return (AddHeader(_ASSERTED, f"{uri};verstat={verstat}{rest}"),) if self._add_asserted else ()

    def _made(self, usual: Usual, message: CallMessage) -> Forms:
        settings = self.services.settings
        verdict = usual.judged(True)
        assert verdict.decisive is not None
        decisive = replace(verdict.decisive, orig=_ORIG, origid=_ORIGID, iat=_IAT, ppi=_PPI)
        verdict = replace(verdict, decisive=decisive, results=(decisive,))
        address = f"sip:+{_DEST}@sample.invalid;user=phone"
        sample = replace(message, call_id=_CALL_ID, request_uri=address, to=f"<{address}>")
        verstat = verdict.verstat(settings.verification.verstat, level=settings.verification.verstat_level)
        shown = _ORIG.digits if self._full_numbers else _ORIG.masked
        line = form(
            verification_line(sample, verdict, verstat, settings, emergency=False, rejected=False),
            (f'"{_CALL_ID}"', shown, _ORIGID, str(_IAT)),
        )
        record = verified(sample, verdict, verstat, self._plan, _AT, observe=False, emergency=False, rejected=False)
        marks = (repr(_AT), f'"{_CALL_ID}"', _ORIG.digits, _DEST.digits, _ORIGID, str(_IAT), digest(_PPI))
        pieces = form(record.line().decode("ascii"), marks)
        if line is None or pieces is None or sum(map(len, pieces)) > MAX_FORM or not is_clean(line):
            return Forms(usual.path, verstat, (), (), {})  # not to be tried with each call
        variables = verdict_variables(verdict, verstat)
        constant = {name: text for name, text in variables.items() if name not in _CHANGING}
        return Forms(usual.path, verstat, line, pieces, constant)
