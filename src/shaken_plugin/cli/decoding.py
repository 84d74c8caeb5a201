"""``shaken decode``: what an Identity header says."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from shaken_plugin.cli.inputs import identity_values, read_input
from shaken_plugin.cli.output import Exit, console, json_option, print_json, visible, when
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.errors import VerificationFailure


def decoded_identity(value: str) -> dict[str, Any]:
    """An Identity value taken apart, as far as it goes."""
    parts: dict[str, Any] = {"header": None, "claims": None, "signature_octets": None, "problem": None}
    try:
        identity = IdentityHeader.parse(value)
        parts["parameters"] = {
            "info": identity.info,
            "alg": identity.alg,
            "ppt": identity.ppt,
            **dict(identity.extensions),
        }
        passport = Passport.parse(identity.digest)
        parts["form"] = "compact" if passport.is_compact else "full"
        parts["header"], parts["claims"] = dict(passport.header), dict(passport.claims)
        parts["signature_octets"] = len(passport.signature)
    except VerificationFailure as failure:
        parts["problem"] = {"code": failure.code.code, "detail": failure.detail}
    return parts


@click.command()
@click.argument("source", default="-")
@json_option
def decode(source: str, as_json: bool) -> None:
    """Show what an Identity header says. Nothing is verified.

    SOURCE is a file with a SIP message, Identity headers or bare values; '-' is standard input.
    """
    decoded = [decoded_identity(value) for value in identity_values(read_input(source))]
    if as_json:
        print_json(decoded)
    else:
        for index, parts in enumerate(decoded):
            console.print(f"Identity {index + 1} of {len(decoded)} (not verified)", style="bold", markup=False)
            console.print(_decoded_text(parts))
    sys.exit(Exit.NO if any(parts["problem"] for parts in decoded) else Exit.YES)


def _decoded_text(parts: dict[str, Any]) -> Group:
    lines: list[Text] = []

    def section(title: str, values: dict[str, Any] | None) -> None:
        for name, value in (values or {}).items():
            note = f"  ({when(value)})" if name == "iat" and isinstance(value, int) and value < 1e11 else ""
            lines.append(visible(f"  {title:<10} {name:<7} {value}{note}"))

    section("parameter", {name: value for name, value in parts.get("parameters", {}).items() if value is not None})
    section("header", parts["header"])
    section("claim", parts["claims"])
    if parts["signature_octets"] is not None:
        lines.append(Text(f"  signature  {parts['signature_octets']} octets, {parts['form']} form"))
    if parts["problem"]:
        problem = visible(f"  problem    {parts['problem']['code']}: {parts['problem']['detail']}")
        problem.stylize("red")
        lines.append(problem)
    return Group(*lines)
