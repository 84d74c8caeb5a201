"""The routing of kemi_routing.py as it were without shaken-plugin; loaded by kamailio-kemi.cfg."""

import os

import KSR

INSIDE_PORT = int(os.environ["INSIDE_PORT"])
INSIDE_PEER = os.environ["INSIDE_PEER"]
OUTSIDE_PEER = os.environ["OUTSIDE_PEER"]
OUTSIDE_PEER_2 = os.environ["OUTSIDE_PEER_2"]


def mod_init():
    return Routing()


class Routing:
    def child_init(self, rank):
        return 1

    def ksr_request_route(self, msg):
        if KSR.maxfwd.process_maxfwd(10) < 0:
            KSR.sl.send_reply(483, "Too Many Hops")
            return 1
        method = KSR.pv.get("$rm").upper()
        if method == "OPTIONS" and not KSR.pv.get("$rU"):
            KSR.sl.send_reply(200, "OK")
            return 1
        if method == "CANCEL":
            if KSR.tm.t_check_trans() > 0:
                KSR.tm.t_relay()
            return 1
        if KSR.siputils.has_totag() > 0:
            return self.within_dialog(msg, method)
        if KSR.tmx.t_precheck_trans() > 0:
            KSR.tm.t_check_trans()
            return 1
        if KSR.tm.t_check_trans() == 0:
            return 1
        if method != "INVITE":
            KSR.sl.send_reply(405, "Method Not Allowed")
            return 1
        KSR.rr.record_route()
        if KSR.pv.get("$Rp") == INSIDE_PORT:
            KSR.pv.sets("$du", OUTSIDE_PEER)
            KSR.tm.t_on_failure("next_peer")
            return self.relay(msg)
        KSR.pv.sets("$du", INSIDE_PEER)
        return self.relay(msg)

    def within_dialog(self, msg, method):
        if KSR.rr.loose_route() > 0:
            return self.relay(msg)
        if method == "ACK":
            if KSR.tm.t_check_trans() > 0:
                KSR.tm.t_relay()
            return 1
        KSR.sl.send_reply(404, "Not Here")
        return 1

    def relay(self, msg):
        if KSR.tm.t_relay() < 0:
            KSR.sl.sl_reply_error()
        return 1

    def next_peer(self, msg):
        if KSR.tm.t_is_canceled() > 0:
            return 1
        if KSR.tm.t_check_status("5[0-9][0-9]|408") > 0:
            KSR.pv.sets("$du", OUTSIDE_PEER_2)
            return self.relay(msg)
        return 1
