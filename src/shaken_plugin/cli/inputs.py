"""What the commands read: messages, headers, numbers, settings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from shaken_plugin import runtime
from shaken_plugin.cli.output import Exit, fail
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import parse_settings
from shaken_plugin.config.yamlfile import Document
from shaken_plugin.core.sip import Request, Uri
from shaken_plugin.core.telephone import DialPlan, Party, canonical_party
from shaken_plugin.errors import FileProblems, NumberError, SipSyntaxError


def read_input(name: str) -> bytes:
    """The bytes of a file, or of standard input for ``-``; ends the command where there are none."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as exc:
        fail(f"{name}: {exc.strerror}")


def is_message(data: bytes) -> bool:
    """Whether the bytes begin like a SIP request."""
    return re.match(rb"\s*[A-Z]+ \S+ SIP/2\.0\r?\n", data) is not None


def read_request(data: bytes) -> Request:
    """A SIP request; ends the command where it is none."""
    try:
        return Request.parse(data)
    except SipSyntaxError as exc:
        fail(f"not a SIP request: {exc}", Exit.NO)


def identity_values(data: bytes) -> list[str]:
    """The Identity values of a whole message, or of lines that are headers or bare values."""
    if is_message(data):
        values = list(read_request(data).all("identity"))
        if not values:
            fail("the message has no Identity header", Exit.NO)
        return values
    text = data.decode("utf-8", "surrogateescape").strip()
    text = re.sub(r"\r?\n[ \t]+", " ", text)
    values = [re.sub(r"^(?:identity|y)[ \t]*:[ \t]*", "", line, flags=re.IGNORECASE) for line in text.splitlines()]
    values = [value for value in values if value.strip()]
    if not values:
        fail("there is no Identity header in it", Exit.NO)
    return values


def read_party(text: str, plan: DialPlan) -> Party:
    """A number or URI as typed on the command line."""
    try:
        return canonical_party(Uri.parse(as_uri(text)), plan)
    except (SipSyntaxError, NumberError) as exc:
        raise click.BadParameter(f"{text}: {exc}") from exc


def as_uri(text: str) -> str:
    """A number or URI as typed on the command line, as a URI."""
    return text if re.match(r"(?i)(sips?|tel|urn):", text) else f"tel:{text}"


def read_settings(path: Path) -> tuple[Settings, Document]:
    """The settings, and the document that knows their places; ends the command with all mistakes."""
    try:
        settings, document = parse_settings(path)
    except FileProblems as exc:
        fail(exc)
    if settings is None:
        fail(FileProblems(document.problems), Exit.NO)
    return settings, document


def read_services(path: Path, now: float) -> runtime.Services:
    """The services that settings describe; ends the command where they cannot be built."""
    return build_services(*read_settings(path), now)


def build_services(settings: Settings, document: Document, now: float) -> runtime.Services:
    """Likewise, of settings that were read already."""
    services = runtime.build(settings, now, document.problem)
    if document.problems:
        fail(FileProblems(document.problems))
    return services
