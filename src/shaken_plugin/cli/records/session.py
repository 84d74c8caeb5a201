"""The store opened for a command, and who wants a change of it, and why."""

from __future__ import annotations

import functools
import getpass
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from shaken_plugin.cli.inputs import read_settings
from shaken_plugin.cli.output import Exit, errors, fail, json_option, settings_option
from shaken_plugin.cli.records.attributes import R
from shaken_plugin.cli.records.values import meant
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.yamlfile import Document
from shaken_plugin.errors import ConflictError, StoreError, StoreUnavailable
from shaken_plugin.ports import Author, PolicyDraft, PolicyRecords, PolicyWriter, check_said
from shaken_plugin.stores.policy import KIND_NAMES
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.stores.sqlite.schema import Patience, patience

_SUGGESTED_AMONG: Final = 10_000
"""Most ids looked through for the one that was meant."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Settings, and the policy store that they name."""

    settings: Settings
    document: Document
    store: PolicyWriter


class _FleetPolicy(SqlitePolicy):
    """The policy of this host's fleet: read from the copy, so Redis is reached for changes alone."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(Path(settings.store.path))
        self._settings = settings

    @contextmanager
    def change(self, author: Author, what: str) -> Iterator[PolicyDraft]:
        """See `ports.PolicyWriter`."""
        from shaken_plugin.runtime.fleet import fleet_policy  # noqa: PLC0415  # its client takes long to load

        policy = fleet_policy(self._settings, lambda text: errors.print(text, style="yellow", markup=False))
        with policy.change(author, what) as draft:
            yield draft


def open_store(settings: Settings) -> PolicyWriter:
    """The policy that this host decides by, for changing: its own, or its fleet's."""
    return SqlitePolicy(Path(settings.store.path)) if settings.store.redis is None else _FleetPolicy(settings)


def opened(settings_file: Path) -> Opened:
    """The store that a settings file names; ends the command where there is none."""
    settings, document = read_settings(settings_file)
    with telling():
        return Opened(settings, document, open_store(settings))


@contextmanager
def telling() -> Iterator[None]:
    """Errors of the store end the command: 1 for what the records forbid, 3 for a store that cannot be used."""
    try:
        yield
    except ConflictError as exc:
        fail(str(exc), Exit.NO)
    except (StoreError, StoreUnavailable) as exc:
        fail(str(exc))


@contextmanager
def reading(settings_file: Path) -> Iterator[tuple[Opened, PolicyRecords]]:
    """The policy in force, to read."""
    session = opened(settings_file)
    with telling(), session.store.records() as records:
        yield session, records


def unknown(records: PolicyRecords, kind: type[R], identifier: str) -> NoReturn:
    """End the command: there is no such record."""
    known = [record.id for record in itertools.islice(records.all(kind), _SUGGESTED_AMONG)]
    hint = meant(identifier, known) or ("" if known else "; there is none at all yet")
    fail(f"there is no {record_name(kind)} {identifier}{hint}", Exit.NO)


def record_name(kind: Any) -> str:
    """A type of records as people read it."""
    return KIND_NAMES[kind].replace("_", "-")


def find(records: PolicyRecords, kind: type[R], identifier: str) -> R:
    """A record that must be there."""
    record = records.get(kind, identifier)
    if record is None:
        unknown(records, kind, identifier)
    return record


# --- Who changes, and why -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Intent:
    """A change that somebody wants."""

    settings_file: Path
    author: Author
    dry_run: bool
    as_json: bool


def user_name() -> str:
    """Who runs the command: $SHAKEN_BY, the user behind sudo, the login name."""
    named = os.environ.get("SHAKEN_BY") or os.environ.get("SUDO_USER")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def author_of(by: str, why: str) -> Author:
    """Who changes something now, and why; ends the command where that says nothing."""
    try:
        check_said("--by", by)
        check_said("--why", why)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    return Author(by, why, time.time())


Command = Callable[..., None]

WAIT: Final = 120.0
"""Seconds that a command waits for another writer: an import of millions has the lock for that long at most."""


def waits(function: Command) -> Command:
    """``--wait SECONDS``: how long a command that changes the policy waits for another one."""

    @functools.wraps(function)
    def waiting(*arguments: Any, wait: float, **more: Any) -> None:
        def tell(text: str) -> None:
            errors.print(text, style="yellow", markup=False)

        token = patience.set(Patience(wait, tell))
        try:
            function(*arguments, **more)
        finally:
            patience.reset(token)

    option = click.option(
        "--wait",
        type=click.FloatRange(min=0, max=86_400),
        default=WAIT,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait while somebody else changes the policy.",
    )
    commanded: Command = option(waiting)
    return commanded


def intends(function: Command) -> Command:
    """Options of a command that changes: ``--why``, ``--by``, ``--dry-run``; given to it as an `Intent`."""
    return intends_as()(function)


def intends_as(*, by_name: bool = False, dry: bool = True) -> Callable[[Command], Command]:
    """The same.

    Args:
        by_name: ``--by`` must be given: an environment is no person.
        dry: it can be tried without changing anything.
    """
    return functools.partial(_intends, by_name=by_name, dry=dry)


def _intends(function: Command, *, by_name: bool, dry: bool) -> Command:

    @functools.wraps(function)
    def intending(
        *arguments: Any, settings_file: Path, why: str, by: str, as_json: bool, dry_run: bool = False, **more: Any
    ) -> None:
        author = author_of(by, why)
        function(Intent(settings_file, author, dry_run, as_json), *arguments, **more)

    if by_name:
        by = click.option("--by", required=True, metavar="NAME", help="The person who answers for it.")
    else:
        by = click.option(
            "--by",
            default=user_name,
            show_default="$SHAKEN_BY, $SUDO_USER or your login",
            metavar="NAME",
            help="Who makes the change.",
        )
    why = click.option("-m", "--why", required=True, metavar="TEXT", help="Why; it stays with the change.")
    made = settings_option(json_option(waits(intending)))
    if dry:
        made = click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")(made)
    commanded: Command = why(by(made))
    return commanded
