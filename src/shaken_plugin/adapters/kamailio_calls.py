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


_SAME_CALL_ID: Final = (
    "shaken: a call came with the Call-ID and tag of another that is there, whose end could not be told apart: it "
    'is over the limit; for calls that share them on purpose: modparam("dialog", "detect_spirals", 0)'
)
_WITHOUT_DIALOG: Final = (
    "shaken: a call came that the module dialog does not take, so that nobody would tell its end: it is over the "
    "limit. Its From has no tag (RFC 3261 8.1.1.3: it MUST), or it has not one Contact (8.1.1.8), or what the log "
    "of Kamailio says"
)


class Calls:
    """Follows calls to their end.

    Args:
        ksr: the switch's ``KSR`` module.
        switch: is told.
    """

    def __init__(self, ksr: Any, switch: Switch) -> None:
        self._ksr = ksr
        self._switch = switch
        self.noted = ""
        """The key that `follow` has written into the dialog of the INVITE at hand, until it is settled."""
        switch.tells_ends = getattr(ksr, "dialog", None) is not None
        switch.follow = self.follow
        switch.to_tell_ends = 'Kamailio needs loadmodule "dialog.so", and the routes for its events: kamailio/README.md'
        switch.check_limits()

    def follow(self, slot: str) -> bool:
        """The INVITE at hand has a slot until its dialog ends (`authentication.Follow`); else it is said why not.

        The module takes an INVITE with the Call-ID and tags of another call for the same one (``detect_spirals``,
        its default), and one without a From tag or a Contact not at all: nobody would tell when it ends.
        """
        # It says the same where the script has begun the dialog itself.
        if self._ksr.dialog.dlg_manage() < 0 and self._ksr.pv.get(DIALOG) != 1:
            self._switch.warn("limits_without_dialog", _WITHOUT_DIALOG)
            return False
        if (noted := self._ksr.pv.get(NOTE)) and noted != self.noted:
            self._switch.warn("limits_same_call_id", _SAME_CALL_ID)
            return False
        self._ksr.pv.sets(NOTE, slot)
        self.noted = slot
        return True

    def settle(self, slot: str) -> None:
        """All is decided about the INVITE at hand: it has this slot, or none, whatever `follow` has noted before.

        Else the same INVITE, asked about again, would be taken for another with its Call-ID, or find the limit reached
        by itself.
        """
        noted, self.noted = self.noted, ""
        if slot != noted:
            self._switch.ended(noted)
            self._ksr.pv.sets(NOTE, slot)

    def slot(self) -> str:
        """That of the call whose dialog is at hand; empty where it has none."""
        return self._ksr.pv.get(NOTE) or ""

    def refer(self) -> None:
        """A REFER inside a dialog: the call that comes of it takes over the slot."""
        if slot := self._ksr.pv.get(NOTE):
            self._switch.referred(slot, self._ksr.pv.get("$rt") or "")
