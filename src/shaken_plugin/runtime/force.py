"""Files put into force: read, checked, written to the local store, and taken from there again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.config.references import check_references
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import credentials_in, parse_settings, policy_file, sound_settings
from shaken_plugin.config.yamlfile import Document, render
from shaken_plugin.errors import (
    FileProblems,
    Problem,
    StoreError,
    StoreUnavailable,
)
from shaken_plugin.runtime.services import Inline, Services, build
from shaken_plugin.stores import sqlite
from shaken_plugin.stores.policy import Policy


@dataclass(slots=True)
class Checked:
    """The outcome of reading all files: problems refuse them, warnings do not."""

    settings: Settings | None = None
    policy: Policy | None = None
    services: Services | None = None
    digests: dict[str, str] = field(default_factory=dict)
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


def apply(path: Path, now: float) -> tuple[Checked, int]:
    """Check all files and put them in force in the local store, in one transaction.

    Returns:
        What was checked, and the new policy version.

    Raises:
        FileProblems: every mistake; what was in force stays.
        StoreError: the store cannot be written; what was in force stays.
    """
    checked = check(path, now)
    if checked.problems:
        raise FileProblems(checked.problems)
    version = _write(checked)
    if version == 1 and checked.services is not None:
        new = (
            f"{checked.services.settings.store.path} is new: a switch that runs already must be restarted to find it; "
            "a reload reads the store it started with"
        )
        checked.services = replace(checked.services, warnings=(*checked.services.warnings, new))
    return checked, version


def _write(checked: Checked) -> int:
    assert checked.settings is not None
    return sqlite.replace_policy(
        Path(checked.settings.store.path),
        checked.policy,
        checked.settings.model_dump(mode="json"),
        checked.digests,
    )


def start(path: Path, now: float, inline: Inline | None = None) -> Services:
    """What a switch does before it forks.

    Settings and policy are checked; if the files are not those in force in the store, they are
    put in force. A store that cannot be written prevents no start: that is a warning. ``inline`` as
    for `build`.

    Raises:
        FileProblems: every mistake in the files.
    """
    checked = check(path, now, only_if_changed=True, inline=inline)
    if checked.problems or checked.services is None:
        raise FileProblems(checked.problems)
    services = checked.services
    if checked.in_force:
        return services
    try:
        _write(checked)
    except StoreError as exc:
        return replace(services, warnings=(*services.warnings, f"policy not put in force: {exc}"))
    return services


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
