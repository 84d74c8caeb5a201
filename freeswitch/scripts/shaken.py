"""shaken-plugin for mod_python3: nothing to change here. It is loaded once, and again when FreeSWITCH starts.

Dialplan   python shaken::verify         on a leg that came from outside
           python shaken::sign           before a bridge to outside; or, on every leg that leaves:
                                         execute_on_originate_shaken=python shaken::sign
           python shaken::pass_through   on a leg that came, where it is not verified
           python shaken::answered       set by shaken::sign, for customers with a limit on concurrent calls
fs_cli     python shaken status          counters
           python shaken reload          settings that `shaken apply` has put in force
"""

import freeswitch

from shaken_plugin.adapters.freeswitch.mod_python import Script

_script = Script(freeswitch, __name__)


def verify(session, _args):
    _script.verify(session)


def sign(session, _args):
    _script.sign(session)


def pass_through(session, _args):
    _script.pass_through(session)


def answered(session, _args):
    _script.answered(session)


def runtime(_args):
    _script.warm_up()


def fsapi(_session, stream, _env, args):
    stream.write(_script.command(args or ""))
