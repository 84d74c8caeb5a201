"""A complete small edge proxy in Python (KEMI) with shaken-plugin; loaded by kamailio-kemi.cfg.

Calls from inside (customers, gateways) are signed and sent outside; calls from outside are
verified and sent inside. What to change: the ADDRESSES below, or the environment variables of the
same names. The lines marked "# shaken" are all you add to a routing script of your own.
"""

import os

import KSR

from shaken_plugin.adapters.kamailio import ANSWERED, SUBSTITUTED, Kamailio

# ADDRESSES
INSIDE_PORT = int(os.environ.get("INSIDE_PORT", "5060"))
INSIDE_PEER = os.environ.get("INSIDE_PEER", "sip:127.0.0.1:5080")
OUTSIDE_PEER = os.environ.get("OUTSIDE_PEER", "sip:127.0.0.1:5082")
OUTSIDE_PEER_2 = os.environ.get("OUTSIDE_PEER_2", "sip:127.0.0.1:5084")


def mod_init():
    return Routing(KSR)


class Routing(Kamailio):  # shaken
    def ksr_request_route(self, msg):
        if KSR.maxfwd.process_maxfwd(10) < 0:
            KSR.sl.send_reply(483, "Too Many Hops")
            return 1
        method = KSR.pv.get("$rm").upper()  # once, each question takes time; small letters Kamailio takes, too
        if method == "OPTIONS" and not KSR.pv.get("$rU"):
            KSR.sl.send_reply(200, "OK")
            return 1
        if method == "CANCEL":
            if KSR.tm.t_check_trans() > 0:
                KSR.tm.t_relay()
            return 1
        if KSR.siputils.has_totag() > 0:
            return self.within_dialog(msg, method)
        # A retransmission: answered from the transaction, not decided and signed again.
        if KSR.tmx.t_precheck_trans() > 0:
            KSR.tm.t_check_trans()
            return 1
        if KSR.tm.t_check_trans() == 0:  # which ends a native script, but not this one
            return 1
        if method != "INVITE":
            KSR.sl.send_reply(405, "Method Not Allowed")
            return 1
        KSR.rr.record_route()
        if KSR.pv.get("$Rp") == INSIDE_PORT:
            # If you authenticate accounts, say who it is, after auth_check() has succeeded:
            #     self.shaken_sign(msg, KSR.pv.get("$au"))
            if self.shaken_sign(msg) == ANSWERED:  # shaken
                return 1
            KSR.pv.sets("$du", OUTSIDE_PEER)
            KSR.tm.t_on_failure("next_peer")
            return self.relay(msg)
        return self.from_outside(msg)

    def from_outside(self, msg):
        # Also where a call goes on that was held until its signer's certificate had come.
        if self.shaken_verify(msg, "from_outside") == ANSWERED:  # shaken
            return 1
        # A number that is forwarded: write the new one into $ru, then sign that you send the call on:
        #     self.shaken_divert(msg, KSR.pv.get("$ou"))
        KSR.pv.sets("$du", INSIDE_PEER)
        return self.relay(msg)

    def within_dialog(self, msg, method):
        if KSR.rr.loose_route() > 0:
            # Foreign verstat is taken out of requests inside a dialog, too; of ACK and BYE nobody is shown anything.
            is_shown = method not in {"ACK", "BYE"}
            if is_shown:
                if KSR.pv.get("$Rp") != INSIDE_PORT:
                    self.shaken_verify(msg)  # shaken
                # A transfer counts once.
                if method == "REFER":
                    self.shaken_refer(msg)  # shaken
            # A caller ID that was substituted stays so until the end of the call. Where it was not, neither route has
            # anything to do about ACK or BYE.
            if self.shaken_dialog(msg) != SUBSTITUTED and not is_shown:  # shaken
                return self.send(msg)
            return self.relay(msg)
        if method == "ACK":
            if KSR.tm.t_check_trans() > 0:
                KSR.tm.t_relay()
            return 1
        KSR.sl.send_reply(404, "Not Here")
        return 1

    def relay(self, msg):
        # Arm both before every t_relay, the one after a failure included. You need not ask first: that
        # spares calls that are none of ours, and later requests of a call, five ways into Python.
        # A route of your own for branches or replies calls self.shaken_branch(msg), self.shaken_reply(msg).
        if self.shaken_routes(msg):  # shaken
            KSR.tm.t_on_branch("shaken_branch")
            KSR.tm.t_on_reply("shaken_reply")
        return self.send(msg)

    def send(self, msg):
        if KSR.tm.t_relay() < 0:
            if self.shaken_fallback(msg) > 0:  # shaken: TCP refused, now by UDP
                return self.relay(msg)
            KSR.sl.sl_reply_error()
        return 1

    def next_peer(self, msg):
        if KSR.tm.t_is_canceled() > 0:
            return 1
        if self.shaken_fallback(msg) > 0:  # shaken: no answer by TCP, now by UDP
            return self.relay(msg)
        if KSR.tm.t_check_status("5[0-9][0-9]|408") > 0:
            KSR.pv.sets("$du", OUTSIDE_PEER_2)
            return self.relay(msg)
        return 1
