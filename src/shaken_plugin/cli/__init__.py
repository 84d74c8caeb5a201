"""The ``shaken`` command.

Exit codes: 0 done, and the answer is yes; 1 the answer is no (files have mistakes, a call did not
verify, or would be refused); 2 the command was used wrongly; 3 something it needs is missing or
cannot be read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import click

from shaken_plugin import __version__

COMMANDS: Final = {
    "check-config": "configuration:check_config",
    "apply": "configuration:apply_",
    "schema": "configuration:schema",
    "store": "store:store",
    "import": "importing:import_",
    "export": "exporting:export",
    "policy": "differing:policy",
    "customer": "customers:customer",
    "trunk": "sources:trunk",
    "gateway": "sources:gateway",
    "limits": "limits:limits",
    "number": "numbers:number",
    "letter": "letters:letter",
    "right": "sources:right",
    "dno": "donotoriginate:dno",
    "route": "sources:route",
    "substitution": "sources:substitution",
    "offence": "offences:offence",
    "key": "keys:key",
    "anchors": "anchors:anchors",
    "expiring": "expiring:expiring",
    "missing": "missing:missing",
    "explain": "explaining:explain",
    "calls": "calls:calls",
    "sign": "signing:sign",
    "verify": "verifying:verify",
    "decode": "decoding:decode",
    "lint-cert": "linting:lint_cert",
    "probe": "probing:probe",
    "agent": "agent:agent",
    "fleet": "fleet:fleet",
    "lab": "laboratory:lab",
    "setup": "installing:setup_",
    "completion": "completion:completion",
}
"""Each command, and where it is: only the one that is run is loaded, so that the shell completes at once."""


_AS_JSON: Final = f"{__name__}.as_json"


@contextmanager
def _telling(*, as_json: bool) -> Iterator[None]:
    """Wrong usage: for programs in JSON where they asked for it, for people without what a terminal might act on."""
    try:
        yield
    except click.ClickException as exc:
        # Only now: the shell completes without it.
        from shaken_plugin.cli.output import harmless, print_json  # noqa: PLC0415  # loaded only where something went wrong

        exc.message = harmless(exc.message)  # type: ignore[misc]  # final, but made by us from hostile text
        if not as_json:
            raise
        print_json({"ok": False, "error": exc.format_message(), "problems": []})
        sys.exit(exc.exit_code)


class Lazily(click.Group):
    """A group whose commands are loaded when they are asked for."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """See `click.Command`."""
        as_json = "--json" in args
        with _telling(as_json=as_json):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[_AS_JSON] = as_json
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command`."""
        with _telling(as_json=ctx.meta[_AS_JSON]):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """See `click.Group`."""
        return sorted(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group`; where the shell completes an id, without what only running a command needs."""
        if ctx.resilient_parsing and len(args) == 2:
            from shaken_plugin.cli import light  # noqa: PLC0415  # it opens the store

            name, verb = args
            if verb in light.PLACES.get(name, ("", frozenset()))[1]:
                return name, light.group(lambda: super(Lazily, self).resolve_command(ctx, args)[1], name, verb), [verb]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # likewise
        """See `click.Group`."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(f"{__name__}.{module}"), name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=Lazily, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shaken-plugin")
def main() -> None:
    """STIR/SHAKEN for Kamailio and FreeSWITCH: decide, sign, verify, explain.

    Exit codes: 0 yes, 1 no, 2 wrong usage, 3 something is missing or cannot be read.
    """
