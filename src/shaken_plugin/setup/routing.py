"""The lines people add to their routing, as setup prints them.

Setup does not add them: only people know which calls come from inside. A test holds these texts
against the complete examples that ship.
"""

from __future__ import annotations

from typing import Final

from shaken_plugin.setup.machine import PRODUCT

NATIVE: Final = """\
loadmodule "async.so"                                        # to hold calls of unknown signers
async_workers_group="name=shaken;workers=8;nonblock=0;usleep=0"
loadmodule "app_python3.so"
modparam("app_python3", "load", "/opt/shaken/kamailio/shaken.py")
modparam("htable", "htable", "shaken=>size=8;initval=0;")   # counters; where htable.so is loaded
loadmodule "dialog.so"                                       # for limits on concurrent calls, with event_route below
modparam("dialog", "detect_spirals", 0)                      # each call has its own end

request_route {
    t_check_trans();                                           # a retransmission is answered, and ends here
    # calls from customers and gateways, before t_relay():
    python_exec("shaken_sign");
    # calls from other carriers:
    route(FROM_OUTSIDE);
}
route[FROM_OUTSIDE] {
    python_exec("shaken_verify", "FROM_OUTSIDE");              # the route to come back to
    # what such calls need, up to t_relay()
}
# before every t_relay(), also in failure routes:  t_on_branch("BRANCH"); t_on_reply("REPLY");
branch_route[BRANCH] {
    python_exec("shaken_branch");
}
onreply_route[REPLY] {
    python_exec("shaken_reply");
}
event_route[dialog:end] {
    python_exec("shaken_ended", "$dlg_var(shaken_slot)");
}
event_route[dialog:failed] {
    python_exec("shaken_ended", "$dlg_var(shaken_slot)");
}
# inside a dialog, after loose_route():  if (is_method("REFER")) python_exec("shaken_refer");
"""

KEMI: Final = """\
from shaken_plugin.adapters.kamailio import ANSWERED, Kamailio

def mod_init():
    return Routing(KSR)

class Routing(Kamailio):
    def ksr_request_route(self, msg):
        if KSR.tm.t_check_trans() == 0:  # a retransmission is answered, and must end here
            return 1
        # calls from customers and gateways, before t_relay():
        if self.shaken_sign(msg) == ANSWERED:
            return 1
        # calls from other carriers:
        return self.from_outside(msg)

    def from_outside(self, msg):
        if self.shaken_verify(msg, "from_outside") == ANSWERED:  # the method to come back to
            return 1
        # before every t_relay(), also after a failure:
        KSR.tm.t_on_branch("shaken_branch")
        KSR.tm.t_on_reply("shaken_reply")

# For limits on concurrent calls, in kamailio.cfg the module dialog with its parameter and event routes as above;
# and inside a dialog, after loose_route(), for REFER: self.shaken_refer(msg)
"""

FREESWITCH: Final = """\
autoload_configs/modules.conf.xml, among the modules:
    <load module="mod_python3"/>
autoload_configs/python.conf.xml, in its settings, so that the first call does not wait:
    <param name="startup-script" value="shaken"/>
sip_profiles/*.xml, in the settings of each profile:
    <param name="parse-all-invite-headers" value="true"/>
dialplan/public.xml, first in the context that takes calls from outside:
    <X-PRE-PROCESS cmd="include" data="/opt/shaken/freeswitch/dialplan/shaken.xml"/>
sip_profiles/external/*.xml, in each gateway to a carrier; the second line into its <variables>:
    <param name="caller-id-in-from" value="true"/>
    <variable name="execute_on_originate_shaken" value="python shaken::sign" direction="outbound"/>
"""


def routing_lines(switches: tuple[str, ...]) -> dict[str, str]:
    """The lines for each switch that is there, by what they are for.

    Args:
        switches: ``kamailio``, ``freeswitch``.
    """
    lines: dict[str, str] = {}
    if "kamailio" in switches:
        lines[f"a native kamailio.cfg (a complete one: {PRODUCT}/kamailio/kamailio-native.cfg)"] = NATIVE
        lines[f"routing in Python, KEMI (a complete one: {PRODUCT}/kamailio/kemi_routing.py)"] = KEMI
    if "freeswitch" in switches:
        lines[f"FreeSWITCH's configuration (what they do: {PRODUCT}/freeswitch/README.md)"] = FREESWITCH
    return lines
