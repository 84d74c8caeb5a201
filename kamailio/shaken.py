"""shaken-plugin for a native kamailio.cfg: load this file with app_python3, call its functions
with python_exec(). Nothing in here needs to be changed.

    loadmodule "app_python3.so"
    modparam("app_python3", "load", "/opt/shaken/kamailio/shaken.py")

    request_route, calls from inside:    python_exec("shaken_sign");
    request_route, calls from outside:   python_exec("shaken_verify");
    where a call is sent on:             python_exec("shaken_divert", "$ou");
    branch_route:                        python_exec("shaken_branch");
    onreply_route:                       python_exec("shaken_reply");

A function that has answered the call ends the script; otherwise the script goes on.
"""

import KSR

from shaken_plugin.adapters.kamailio import Kamailio


def mod_init():
    return Kamailio(KSR)
