"""``shaken letter``: letters of authorisation, their documents, and whether those are still what was filed."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from shaken_plugin.cli.output import EXISTING_FILE, Exit, console, fail, json_option, print_json, settings_option, table
from shaken_plugin.cli.records.completing import ids
from shaken_plugin.cli.records.kinds import Kind, group
from shaken_plugin.cli.records.session import reading
from shaken_plugin.cli.records.verbs import (
    add_command,
    force_command,
    list_command,
    remove_command,
    set_command,
    show_command,
)
from shaken_plugin.cli.sources import prepared
from shaken_plugin.core.records import Basis, Right
from shaken_plugin.ports import PolicyRecords

_DAY: Final = 86_400


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prepare(letter: Right, extra: Mapping[str, Any]) -> Right:
    file: Path | None = extra.get("file")
    if file is not None:
        try:
            letter = replace(letter, path=str(file.absolute()), sha256=digest(file))
        except OSError as exc:
            fail(f"{file}: {exc.strerror}")
    return prepared(replace(letter, document=letter.document or letter.id), extra)


def _resolve(records: PolicyRecords, identifier: str) -> str:
    """The letter with this id, or the only one that is called so."""
    if records.get(Right, identifier) is not None:
        return identifier
    called = [r.id for r in records.all(Right) if r.basis is Basis.LETTER and r.document == identifier]
    if len(called) > 1:
        fail(f"several rights rest on the letter {identifier}; name one of them: {', '.join(called)}", Exit.NO)
    return called[0] if called else identifier


LETTER = Kind(
    "letter",
    Right,
    "Letters of authorisation: somebody else's numbers that a customer may use, and until when.\n\n"
    "On the day behind --valid-until A becomes B by itself. 'suspend' does that from now on; 'reinstate' "
    "needs a person. A letter that is renewed is 'set', with its new file: the history keeps the old one.",
    ("customer", "owner", "document", "valid_until", "approved_by"),
    preset={"basis": Basis.LETTER},
    extra=(
        click.Option(
            ["--file"],
            type=EXISTING_FILE,
            help="The document; its path and SHA-256 are kept, for 'letter check'. It must stay where it is.",
        ),
    ),
    prepare=_prepare,
    resolve=_resolve,
)


def _keep(letter: Right, expiring: int | None) -> bool:
    now = time.time()
    return expiring is None or (letter.valid_until is not None and now < letter.valid_until <= now + expiring * _DAY)


_EXPIRING = click.Option(
    ["--expiring"], type=click.IntRange(0), metavar="DAYS", help="Only those that end within so many days."
)


def check_letter(letter: Right) -> tuple[str, str]:
    """Whether a letter's document is what was filed: a word for programs, and a text.

    ``ok``, ``changed``, ``missing``, ``unreadable``, or ``none`` where no document was filed.
    """
    if letter.path is None or letter.sha256 is None:
        return "none", "no document was filed; 'shaken letter set --file' files one"
    try:
        found = digest(Path(letter.path))
    except FileNotFoundError:
        return "missing", f"{letter.path} is not there"
    except OSError as exc:
        return "unreadable", f"{letter.path}: {exc.strerror}"
    if found != letter.sha256:
        return (
            "changed",
            f"{letter.path} is not what was filed (SHA-256 {found[:16]}… instead of {letter.sha256[:16]}…)",
        )
    return "ok", letter.path


@click.command("check")
@click.argument("identifier", metavar="[ID]", required=False, shell_complete=ids(Right, LETTER.preset))
@settings_option
@json_option
def check(identifier: str | None, settings_file: Path, as_json: bool) -> None:
    """Are the documents still what was filed? All letters, or one.

    Exit code 0 if every document is, or none was filed; 1 if one is missing, changed or cannot be read.
    """
    with reading(settings_file) as (_, records):
        if identifier is not None:
            letters = iter([LETTER.named(records, identifier)])
        else:
            letters = (right for right in records.all(Right) if right.basis is Basis.LETTER)
        found = [(letter, *check_letter(letter)) for letter in letters]
    if as_json:
        print_json([{"id": r.id, "document": r.document, "result": word, "detail": text} for r, word, text in found])
    else:
        made = table("letter", "result", "")
        for letter, word, text in found:
            made.add_row(letter.id, word, text, style=None if word in _FINE else "red")
        console.print(made)
    sys.exit(Exit.YES if all(word in _FINE for _, word, _ in found) else Exit.NO)


_FINE: Final = ("ok", "none")

letter = group(
    LETTER,
    add_command(LETTER),
    show_command(LETTER),
    list_command(LETTER, _EXPIRING, keep=_keep),
    set_command(LETTER),
    remove_command(LETTER),
    force_command(LETTER, "suspend", suspended=True, about="Put a letter out of force: A becomes B from now on."),
    force_command(LETTER, "reinstate", suspended=False, about="Put it in force again."),
    check,
)
