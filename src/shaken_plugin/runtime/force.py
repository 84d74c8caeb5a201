"""Files put into force: read, checked, written to the local store, and taken from there again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shaken_plugin.conduct.decisions import take_over
from shaken_plugin.conduct.state import State
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.yamlfile import render
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
from shaken_plugin.runtime.checking import Checked, check, digests, digests_in_force
from shaken_plugin.runtime.services import Inline, Services, build
from shaken_plugin.stores import sqlite, statefile
from shaken_plugin.stores.policy import Policy

PUT_IN_FORCE: Final = "put in force"
"""Why a file changes the policy, where nobody says more of it."""

Share = Callable[[Settings, Policy, Author, str, bool], sqlite.InForce]
"""Puts a whole policy in force for a fleet (`runtime.fleet.share`): settings, policy, who, where it comes from, and
whether other changes may be undone. A switch process has none, for it never talks to Redis."""


def apply(
    path: Path,
    now: float,
    *,
    overwrite: bool = False,
    who: str = "shaken apply",
    why: str = PUT_IN_FORCE,
    share: Share | None = None,
) -> tuple[Checked, int]:
    """Check all files and put them in force in the local store, in one transaction.

    In a fleet the policy goes to all hosts, in one transaction, and then the settings into the store of this one.

    Args:
        path: the settings file.
        now: POSIX seconds.
        overwrite: also where that undoes what was changed in the store by other means since the last time,
            by other commands or past them.
        who: the person who does it, for the history, which names the file too.
        why: likewise.
        share: puts the policy in force where it is a fleet's.

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
    done = _write(checked, path, Author(who, why, now), overwrite=overwrite, share=share)
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


def _write(
    checked: Checked, path: Path, author: Author, *, overwrite: bool = False, share: Share | None = None
) -> sqlite.InForce:
    assert checked.settings is not None
    source = checked.policy_path or path.absolute()
    notes = first_state(checked.settings)  # before the policy, which decides nothing without it
    try:
        done = _put(checked, author, sayable(f"file {source}"), overwrite=overwrite, share=share)
    except (ConflictError, NumberError) as exc:
        raise FileProblems([Problem(str(source), 1, 1, "", str(exc))]) from exc
    notes = notes or first_state(checked.settings)  # a policy file that is new remembers it from now on
    return done._replace(notes=(*done.notes, *notes, *_taken_over(checked)))


def _put(checked: Checked, author: Author, origin: str, *, overwrite: bool, share: Share | None) -> sqlite.InForce:
    assert checked.settings is not None
    settings, policy = checked.settings, checked.policy
    # Without defaults: switches of the release before read them, too, unless something new is used.
    path, plain = Path(settings.store.path), settings.model_dump(mode="json", exclude_defaults=True)
    if settings.store.redis is None:
        mend = overwrite and policy is not None
        return sqlite.replace_policy(
            path, policy, plain, checked.digests, author, origin=origin, overwrite=overwrite, mend=mend
        )
    done = sqlite.InForce(0)
    if policy is not None:
        if share is None:
            raise StoreError("the policy is a fleet's: only 'shaken apply' puts it in force")
        done = share(settings, policy, author, origin, overwrite)
    return done._replace(version=sqlite.put_settings(path, plain, checked.digests))


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
    a store that cannot be written, prevents no start: it is a warning. ``inline`` as for `build`. In a fleet
    only the settings are put in force: a policy file that says something else than the copy is a warning.

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
    return replace(services, warnings=(*services.warnings, *notes, *_of_the_copy(services)))


def _of_the_copy(services: Services) -> tuple[str, ...]:
    """What is to be warned of a fleet's copy at the start; later each call says so."""
    try:
        trouble = None if services.copy is None else services.copy.look()
    except StoreUnavailable as exc:
        trouble = str(exc)
    return () if trouble is None else (trouble,)


def _write_or_keep(checked: Checked, path: Path, now: float) -> tuple[str, ...]:
    """Put files in force; where that would undo other changes, the settings alone. What to warn of."""
    author = Author("start of a switch", PUT_IN_FORCE, now)
    assert checked.settings is not None
    if checked.settings.store.redis is not None:
        text = _unlike_the_fleet(checked)
        notes = _write(_settings_alone(checked, path) if text else replace(checked, policy=None), path, author).notes
        return (*notes, *([text] if text else []))
    try:
        return _write(checked, path, author).notes
    except StoreChanged as exc:
        _write(_settings_alone(checked, path), path, author)
        return (f"policy not put in force: {exc}",)


def _settings_alone(checked: Checked, path: Path) -> Checked:
    """Without the policy file, of which the digest stays that was in force, if any: so every reload warns of it."""
    assert checked.settings is not None
    known = {str(path.absolute()): checked.digests[str(path.absolute())]}
    if (before := (digests_in_force(checked.settings) or {}).get(str(checked.policy_path))) is not None:
        known[str(checked.policy_path)] = before
    return replace(checked, policy=None, policy_path=None, digests=known)


def _unlike_the_fleet(checked: Checked) -> str | None:
    """What is to be warned of a policy file that says something else than the fleet's policy."""
    assert checked.settings is not None
    if checked.policy is None:
        return None
    try:
        if not sqlite.differs(Path(checked.settings.store.path), checked.policy):
            return None
    except (ConflictError, NumberError):
        pass  # beside what others have changed: it differs
    return (
        f"{checked.policy_path}: says something else than this host's copy of its fleet's policy, which decides; see "
        "'shaken policy diff', and put the file in force for all hosts with 'shaken apply', or set policy: null"
    )


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
