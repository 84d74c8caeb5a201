"""What the commands of keys and of trust anchors share: references, one change, and what is printed of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import click
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.cli.output import Exit, console, errors, fail, print_json
from shaken_plugin.cli.records.session import Intent, Opened, opened, telling
from shaken_plugin.config.settings import resolve
from shaken_plugin.core.material import Material
from shaken_plugin.errors import StoreError
from shaken_plugin.ports import PolicyDraft

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Reference(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """``file:PATH`` or ``env:NAME``; what it leads to."""

    name = "reference"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """See `click.ParamType.convert`. A value that is no reference is not quoted: it may be a key."""
        if isinstance(value, bytes):
            return value
        if not re.fullmatch(r"file:(?!.*-----).+|env:[A-Za-z_][A-Za-z0-9_]*", value):
            self.fail("is given by reference: file:PATH or env:NAME", param, ctx)
        try:
            return resolve(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Name(click.ParamType):  # type: ignore[type-arg]  # likewise
    """The name of a key or of trust anchors."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType.convert`."""
        if not _NAME.fullmatch(value):
            self.fail("not a name: letters, digits, dot, underscore and dash, at most 64", param, ctx)
        return str(value)


def pem(certificates: tuple[x509.Certificate, ...]) -> str:
    """Certificates in PEM, and nothing else of the file that they came in."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates).decode("ascii")


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, hexadecimal."""
    return certificate.fingerprint(SHA256()).hex()


@dataclass(slots=True)
class Edit:
    """Keys and trust anchors that are being changed, and what was changed so far."""

    session: Opened
    draft: PolicyDraft
    done: list[tuple[str, str, str]] = field(default_factory=list)
    """Kind, name, and what happened to it."""
    notes: list[str] = field(default_factory=list)

    def find(self, kind: type[Material], name: str) -> Material | None:
        """One that is there."""
        return next((one for one in self.readable() if isinstance(one, kind) and one.name == name), None)

    def readable(self) -> tuple[Material, ...]:
        """All that are there; none where one is damaged, which can be removed all the same."""
        try:
            return self.draft.material()
        except StoreError:
            return ()


class _TakenBack(Exception):  # no error: of a dry run nothing stays
    pass


@contextmanager
def changing(intent: Intent, what: str) -> Iterator[Edit]:
    """One change of keys and trust anchors; afterwards what changed is printed.

    Args:
        intent: who, why, and whether in earnest.
        what: the change in a few words, for the history.
    """
    session = opened(intent.settings_file)
    edit: Edit | None = None
    with telling():
        try:
            with session.store.change(intent.author, what) as draft:
                edit = Edit(session, draft)
                yield edit
                if intent.dry_run:
                    raise _TakenBack
        except _TakenBack:
            pass
        with session.store.records() as records:
            version = records.version
    assert edit is not None
    _report(intent, edit, version)


def _report(intent: Intent, edit: Edit, version: int) -> None:
    if intent.as_json:
        changes = [dict(zip(("kind", "id", "change"), one, strict=True)) for one in edit.done]
        print_json(
            {
                "ok": True,
                "dry_run": intent.dry_run,
                "policy_version": version,
                "by": intent.author.who,
                "why": intent.author.why,
                "changes": changes,
                "notes": edit.notes,
            }
        )
        return
    for kind, name, change in edit.done:
        console.print(f"{kind} {name} {change}", style="bold", markup=False)
    if not edit.done:
        console.print(f"nothing to change: policy version {version} says so already", markup=False)
    elif intent.dry_run:
        console.print(f"nothing was changed (--dry-run); in force: policy version {version}", markup=False)
    else:
        console.print(f"in force: policy version {version}; running switches take it over", markup=False)
    for note in edit.notes:
        errors.print(note, style="yellow", markup=False)


def refuse(text: str) -> NoReturn:
    """End the command: what it was given does not do."""
    fail(text, Exit.NO)
