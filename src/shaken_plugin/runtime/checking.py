"""Files read and checked, and nothing written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.config.references import check_references
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import credentials_in, parse_settings, policy_file, sound_settings
from shaken_plugin.config.yamlfile import Document
from shaken_plugin.errors import FileProblems, Problem, StoreError, StoreUnavailable
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
        check_references(sound_settings(document), document.problem)
    else:
        services = build(settings, now, document.problem, inline)
        if not document.problems:
            checked.settings, checked.services = settings, services
    checked.problems += sorted(document.problems, key=lambda problem: (problem.line, problem.column))
    policy_path = policy_file(document)
    checked.digests |= digests(policy_path)
    checked.policy_path = None if policy_path is None else policy_path.absolute()
    if only_if_changed and checked.settings is not None:
        checked.in_force = digests_in_force(checked.settings) == checked.digests
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


def digests_in_force(settings: Settings) -> dict[str, str] | None:
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
