"""For a FreeSWITCH whose scripts do nothing: what it costs that there are any. It is loaded once, as ours is."""

from shaken_plugin.adapters.freeswitch.kept import keep

keep(__name__)


def sign(_session, _args):
    """On each leg."""
