"""What the switch adapters share: modes, the guard, and the closed set of actions.

An adapter reads a call into a `CallMessage`, asks `Switch.sign` or `Switch.verify`, and executes
what it gets: variables to publish, actions on the message, or an answer. Whatever goes wrong
becomes a logged, counted, named outcome, and the call goes on in the declared mode. In observe
mode there are variables only: nothing changes on the wire.
"""

from shaken_plugin.switch.actions import Action, AddHeader, Outcome, Reject, RemoveHeader, Same, StripVerstat, attach
from shaken_plugin.switch.guard import Switch
from shaken_plugin.switch.keeping import LeftAs
from shaken_plugin.switch.size import SizeAdvice, SizeOutcome

__all__ = [
    "Action",
    "AddHeader",
    "LeftAs",
    "Outcome",
    "Reject",
    "RemoveHeader",
    "Same",
    "SizeAdvice",
    "SizeOutcome",
    "StripVerstat",
    "Switch",
    "attach",
]
