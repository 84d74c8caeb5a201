"""Files put into force: read, checked, written to the local store, and taken from there again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shaken_plugin.conduct.decisions import take_over
from shaken_plugin.conduct.state import State
from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.config.references import check_references
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import credentials_in, parse_settings, policy_file, sound_settings
from shaken_plugin.config.yamlfile import Document, render
from shaken_plugin.errors import (
    ConflictError,
    FileProblems,
    NumberError,
    Problem,
    StoreChanged,
    StoreError,
    StoreUnavailable,
)
from shaken_plugin.ports import Author, sayable
from shaken_plugin.runtime.services import Inline, Services, build
from shaken_plugin.stores import sqlite, statefile
from shaken_plugin.stores.policy import Policy

PUT_IN_FORCE: Final = "put in force"
"""Why a file changes the policy, where nobody says more of it."""


@dataclass(slots=True)
class Checked:
    """The outcome of reading all files: problems refuse them, warnings do not."""

    settings: Settings | None = None
    policy: Policy | None = None
    services: Services | None = None
    digests: dict[str, str] = field(default_factory=dict)
    policy_path: Path | None = None
    in_force: bool = False
    """The files are those that are in force in the store; the policy was not parsed again."""
    problems: list[Problem] = field(default_factory=list)


def check(path: Path, now: float, *, only_if_changed: bool = False, inline: Inline | None = None) -> Checked:
    """Read and check the settings file, what it refers to, and the policy file.

    Every problem of every file is collected; nothing is written.

    Args:
        path: the settings file.
        now: POSIX seconds.
        only_if_changed: pass over a policy file that is in force as it stands; parsing 10,000
            numbers of YAML takes seconds.
        inline: as for `build`.
    """
    # Digests before the files are read: one that is saved meanwhile counts as changed.
    checked = Checked(digests=digests(path))
    try:
        settings, document = parse_settings(path)
    except FileProblems as exc:
        checked.problems += exc.problems
        return checked
    if settings is None:
        check_references(sound_settings(document), now, document.problem)
    else:
        services = build(settings, now, document.problem, inline)
        if not document.problems:
            checked.settings, checked.services = settings, services
    checked.problems += sorted(document.problems, key=lambda problem: (problem.line, problem.column))
    policy_path = policy_file(document)
    checked.digests |= digests(policy_path)
    checked.policy_path = None if policy_path is None else policy_path.absolute()
    if only_if_changed and checked.settings is not None:
        checked.in_force = _in_force(checked.settings) == checked.digests
    if policy_path is not None and not checked.in_force:
        try:
            checked.policy, policy_document = parse_policy(policy_path, _credential_names(settings, document))
            checked.problems += policy_document.problems
        except FileProblems as exc:
            checked.problems += exc.problems
    return checked


def _credential_names(settings: Settings | None, document: Document) -> frozenset[str] | None:
    """The names a policy may use, None where mistakes in the settings leave that open."""
    if settings is not None:
        return frozenset(entry.name for entry in settings.signing.credentials)
    names = {entry.name for _, entry in credentials_in(sound_settings(document))}
    return None if None in names or not names else frozenset(names)


def _in_force(settings: Settings) -> dict[str, str] | None:
    """The digests of the files that are in force in the store, None where it cannot be read."""
    try:
        return sqlite.read_header(Path(settings.store.path)).digests
    except (StoreUnavailable, StoreError):
        return None


def digests(*paths: Path | None) -> dict[str, str]:
    """SHA-256 of files, by path; a file that cannot be read has none."""
    found: dict[str, str] = {}
    for path in paths:
        if path is not None:
            try:
                found[str(path.absolute())] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError:
                continue
    return found


def apply(
    path: Path, now: float, *, overwrite: bool = False, who: str = "shaken apply", why: str = PUT_IN_FORCE
) -> tuple[Checked, int]:
    """Check all files and put them in force in the local store, in one transaction.

    Args:
        path: the settings file.
        now: POSIX seconds.
        overwrite: also where that undoes what was changed in the store by other means since the last time,
            by other commands or past them.
        who: the person who does it, for the history, which names the file too.
        why: likewise.

    Returns:
        What was checked, and the policy version that is in force.

    Raises:
        FileProblems: every mistake; what was in force stays.
        StoreChanged: the store was changed by other means, and the file does not say so.
        StoreError: the store cannot be written; what was in force stays.
    """
    checked = check(path, now)
    if checked.problems or checked.services is None:
        raise FileProblems(checked.problems)
    store = Path(checked.services.settings.store.path)
    new = _is_new(store)
    done = _write(checked, path, Author(who, why, now), overwrite=overwrite)
    notes = done.notes
    if new:
        text = (
            f"{store} is new: a switch that runs already must be restarted to find it; "
            "a reload reads the store it started with"
        )
        notes += (text,)
    checked.services = replace(checked.services, warnings=(*checked.services.warnings, *notes))
    return checked, done.version


def _is_new(store: Path) -> bool:
    try:
        return sqlite.read_header(store).settings is None
    except StoreUnavailable:
        return True
    except StoreError:
        return False


def _write(checked: Checked, path: Path, author: Author, *, overwrite: bool) -> sqlite.InForce:
    assert checked.settings is not None
    source = checked.policy_path or path.absolute()
    notes = first_state(checked.settings)  # before the policy, which decides nothing without it
    try:
        done = sqlite.replace_policy(
            Path(checked.settings.store.path),
            checked.policy,
            checked.settings.model_dump(mode="json"),
            checked.digests,
            author,
            origin=sayable(f"file {source}"),
            overwrite=overwrite,
            mend=overwrite and checked.policy is not None,
        )
    except (ConflictError, NumberError) as exc:
        raise FileProblems([Problem(str(source), 1, 1, "", str(exc))]) from exc
    notes = notes or first_state(checked.settings)  # a policy file that is new remembers it from now on
    return done._replace(notes=(*done.notes, *notes, *_taken_over(checked)))


def _taken_over(checked: Checked) -> Sequence[str]:
    """Standings that the file brings, for instance an export of another host, into the state file."""
    assert checked.settings is not None
    if checked.policy is None or not checked.policy.standings:
        return ()
    try:
        state = State(Path(checked.settings.store.state), Path(checked.settings.store.path))
        return take_over(state, checked.policy.standings)
    except (StoreUnavailable, StoreError) as exc:
        return (f"the standings in the file are not in force: {exc}",)


def first_state(settings: Settings) -> tuple[str, ...]:
    """Make the state file that belongs to the policy, once and never again.

    Returns:
        What is to be warned of: one was made, and it is gone or another.

    Raises:
        StoreError: it cannot be made, or the policy's file cannot be written.
    """
    state, policy = Path(settings.store.state), Path(settings.store.path)
    try:
        identifier = statefile.ensure(state, policy)
    except StoreUnavailable as exc:
        return (f"{exc}; until then calls are decided in the mode of store.when_unavailable",)
    if statefile.remembered(policy) is None and policy.exists():
        sqlite.remember_state(policy, identifier)
    return ()


def start(path: Path, now: float, inline: Inline | None = None) -> Services:
    """What a switch does before it forks.

    Settings and policy are checked; if the files are not those in force in the store, they are
    put in force. Where the store was changed by other means, its records stay and decide. That, and
    a store that cannot be written, prevents no start: it is a warning. ``inline`` as for `build`.

    Raises:
        FileProblems: every mistake in the files.
    """
    checked = check(path, now, only_if_changed=True, inline=inline)
    if checked.problems or checked.services is None:
        raise FileProblems(checked.problems)
    services = checked.services
    notes: tuple[str, ...] = ()
    try:
        # Of an older release there is no state file, though its files are in force.
        notes = first_state(services.settings) if checked.in_force else _write_or_keep(checked, path, now)
    except StoreError as exc:
        notes = (f"policy not put in force: {exc}" if not checked.in_force else str(exc),)
    return replace(services, warnings=(*services.warnings, *notes))


def _write_or_keep(checked: Checked, path: Path, now: float) -> tuple[str, ...]:
    """Put files in force; where that would undo other changes, the settings alone. What to warn of."""
    author = Author("start of a switch", PUT_IN_FORCE, now)
    try:
        return _write(checked, path, author, overwrite=False).notes
    except StoreChanged as exc:
        # Of the policy file the digest stays that was in force, if any: so every reload warns of it.
        assert checked.settings is not None
        known = {str(path.absolute()): checked.digests[str(path.absolute())]}
        if (before := (_in_force(checked.settings) or {}).get(str(checked.policy_path))) is not None:
            known[str(checked.policy_path)] = before
        _write(replace(checked, policy=None, policy_path=None, digests=known), path, author, overwrite=False)
        return (f"policy not put in force: {exc}",)


def reload(store_path: Path, now: float, inline: Inline | None = None) -> tuple[Services, int]:
    """What a worker does at a reload: the settings that are in force, no YAML read.

    A file that was changed and not put in force in this very store is a warning. ``inline`` as for
    `build`.

    Returns:
        The services, and the policy version.

    Raises:
        StoreUnavailable, StoreError: the store cannot be read.
        FileProblems: what is in force cannot be used any more, for instance a key is gone.
    """
    header = sqlite.read_header(store_path)
    if header.settings is None:
        raise StoreError(f"{store_path}: no settings in it; run 'shaken apply'")
    problems: list[Problem] = []
    try:
        settings = Settings.model_validate(header.settings)
    except ValidationError as exc:
        raise StoreError(f"{store_path}: its settings are not those of this release; run 'shaken apply'") from exc
    services = build(
        settings,
        now,
        lambda place, text: problems.append(Problem(str(store_path), 1, 1, render(place), text)),
        inline,
    )
    if problems:
        raise FileProblems(problems)
    if changed := [path for path, known in header.digests.items() if digests(Path(path)).get(path, known) != known]:
        text = (
            f"{' and '.join(changed)} differs from what is in force in {store_path}: run 'shaken apply'; "
            "where store.path was changed, restart the switch"
        )
        services = replace(services, warnings=(*services.warnings, text))
    return services, header.policy_version
