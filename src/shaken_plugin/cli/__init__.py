"""The ``shaken`` command.

Exit codes: 0 done, and the answer is yes; 1 the answer is no (files have mistakes, a call did not
verify, or would be refused); 2 the command was used wrongly; 3 something it needs is missing or
cannot be read.
"""

from __future__ import annotations

import click

from shaken_plugin import __version__
from shaken_plugin.cli.agent import agent
from shaken_plugin.cli.configuration import apply_, check_config, schema
from shaken_plugin.cli.decoding import decode
from shaken_plugin.cli.explaining import explain
from shaken_plugin.cli.installing import setup_
from shaken_plugin.cli.laboratory import lab
from shaken_plugin.cli.linting import lint_cert
from shaken_plugin.cli.probing import probe
from shaken_plugin.cli.signing import sign
from shaken_plugin.cli.verifying import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shaken-plugin")
def main() -> None:
    """STIR/SHAKEN for Kamailio and FreeSWITCH: decide, sign, verify, explain.

    Exit codes: 0 yes, 1 no, 2 wrong usage, 3 something is missing or cannot be read.
    """


for command in (check_config, apply_, schema, sign, verify, decode, explain, lint_cert, probe, agent, lab, setup_):
    main.add_command(command)
