"""The end of calls in Kamailio, told to whoever counts them; by its module dialog, for calls with a slot alone."""

from __future__ import annotations

from typing import Any, Final

from shaken_plugin.switch import Switch

NOTE: Final = "$dlg_var(shaken_slot)"
"""Where a dialog has the key of its call."""

DIALOG: Final = "$dlg_ctx(set)"
"""1 where the message at hand has begun one."""

NULL: Final = "<null>"
"""What Kamailio puts into a text where a variable has no value."""

ENDS: Final = frozenset({"dialog:end", "dialog:failed"})
"""Events of the module: of every dialog whose INVITE has left one comes. Also where no final response does, because the
transaction ends then, sooner (tm's ``max_inv_lifetime``) than the module forgets the dialog (``early_timeout``).
``kamailio/README.md`` lists what it does not tell of."""


class Calls:
    """Follows calls to their end.

    Args:
        ksr: the switch's ``KSR`` module.
        switch: is told.
    """

    def __init__(self, ksr: Any, switch: Switch) -> None:
        self._ksr = ksr
        self._switch = switch
        switch.tells_ends = getattr(ksr, "dialog", None) is not None
        switch.to_tell_ends = 'Kamailio needs loadmodule "dialog.so", and the routes for its events: kamailio/README.md'
        switch.check_limits()

    def follow(self, slot: str) -> str:
        """The INVITE at hand has a slot until its dialog ends; else why not (`switch.signing.UNFOLLOWED`).

        The module takes an INVITE with the Call-ID and tags of another call for the same one (``detect_spirals``,
        its default), and one without a From tag or a Contact not at all: nobody would tell when it ends.
        """
        # It says the same where the script has begun the dialog itself.
        if self._ksr.dialog.dlg_manage() < 0 and self._ksr.pv.get(DIALOG) != 1:
            return "limits_without_dialog"
        if self._ksr.pv.get(NOTE):
            return "limits_same_call_id"
        self._ksr.pv.sets(NOTE, slot)
        return ""

    def slot(self) -> str:
        """That of the call whose dialog is at hand; empty where it has none."""
        return self._ksr.pv.get(NOTE) or ""

    def refer(self) -> None:
        """A REFER inside a dialog: the call that comes of it takes over the slot."""
        if slot := self._ksr.pv.get(NOTE):
            self._switch.referred(slot, self._ksr.pv.get("$rt") or "")
