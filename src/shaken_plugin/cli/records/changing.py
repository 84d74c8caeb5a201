"""A change of the policy: what it does to which records, carried out as one, and printed before → after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shaken_plugin.cli.output import console, errors, print_json
from shaken_plugin.cli.records.attributes import difference_rows, differences
from shaken_plugin.cli.records.session import Intent, Opened, opened, record_name, telling
from shaken_plugin.core.records import DoNotOriginate, Record, Right
from shaken_plugin.exchange.approvals import without_outlived_approval
from shaken_plugin.ports import NumbersOf, PolicyDraft, Span
from shaken_plugin.stores.policy import KIND_NAMES


@dataclass(slots=True)
class Entry:
    """What happened to one record."""

    kind: type[Record]
    id: str
    before: Record | None
    after: Record | None
    added: int = 0
    removed: int = 0

    @property
    def what(self) -> str | None:
        """``added``, ``changed`` or ``removed``; None where nothing happened."""
        if self.before is None:
            return None if self.after is None else "added"
        if self.after is None:
            return "removed"
        return "changed" if self.before != self.after or self.added or self.removed else None


@dataclass(slots=True)
class Edit:
    """A policy that is being changed, and what was changed so far."""

    session: Opened
    draft: PolicyDraft
    entries: dict[tuple[type[Record], str], Entry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def _entry(self, kind: type[Record], identifier: str) -> Entry:
        key = kind, identifier
        if key not in self.entries:
            record = self.draft.get(kind, identifier)
            self.entries[key] = Entry(kind, identifier, record, record)
        return self.entries[key]

    def put(self, record: Record) -> None:
        """Add a record, or put it in the place of the one with its id."""
        entry = self._entry(type(record), record.id)
        if entry.after != record:
            self.draft.put(record)
            entry.after = record

    def remove(self, kind: type[Record], identifier: str) -> None:
        """Take a record out, with its numbers."""
        entry = self._entry(kind, identifier)
        if kind is Right or kind is DoNotOriginate:
            entry.removed += self.draft.count(kind, identifier)
        self.draft.remove(kind, identifier)
        entry.after = None

    def add_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """Add numbers; how many are new."""
        entry = self._entry(kind, identifier)
        new = self.draft.add_numbers(kind, identifier, spans)
        entry.added += new
        return new

    def remove_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """Take numbers out; how many were there."""
        entry = self._entry(kind, identifier)
        gone = self.draft.remove_numbers(kind, identifier, spans)
        entry.removed += gone
        return gone

    def settle(self) -> None:
        """Take back approvals of what was changed since."""
        for entry in list(self.entries.values()):
            if isinstance(entry.after, Right):
                before = entry.before if isinstance(entry.before, Right) else None
                right, note = without_outlived_approval(before, entry.after, entry.added)
                self.put(right)
                self.notes += [note] if note else []

    @property
    def done(self) -> list[Entry]:
        """What really happened."""
        return [entry for entry in self.entries.values() if entry.what is not None]


class _DryRun(Exception):  # no error: it takes the change back
    pass


@contextmanager
def changing(intent: Intent, what: str, **more: Any) -> Iterator[Edit]:
    """One change of the policy; afterwards what changed is printed.

    Args:
        intent: who, why, and whether in earnest.
        what: the change in a few words, for the history.
        more: further members of the JSON that is printed.
    """
    session = opened(intent.settings_file)
    edit: Edit | None = None
    with telling():
        try:
            with session.store.change(intent.author, what) as draft:
                edit = Edit(session, draft)
                yield edit
                edit.settle()
                if intent.dry_run:
                    raise _DryRun
        except _DryRun:
            pass
        with session.store.records() as records:
            version = records.version
    assert edit is not None
    report(intent, edit, version, more)


def not_in_the_file(policy: str) -> str:
    """What is to be done about a policy file that the store has left behind."""
    return (
        f"{policy} does not say this: 'shaken policy diff' shows the difference, "
        "'shaken export' writes what is in force"
    )


def report(intent: Intent, edit: Edit, version: int, more: dict[str, Any]) -> None:
    """Print what changed."""
    settings = edit.session.settings
    if edit.done and not intent.dry_run and settings.policy is not None:
        edit.notes.append(not_in_the_file(settings.policy))
    if intent.as_json:
        print_json(
            {
                "ok": True,
                "dry_run": intent.dry_run,
                "policy_version": version,
                "by": intent.author.who,
                "why": intent.author.why,
                "changes": [
                    {
                        "kind": KIND_NAMES[entry.kind],
                        "id": entry.id,
                        "change": entry.what,
                        "fields": differences(entry.before, entry.after),
                        "numbers_added": entry.added,
                        "numbers_removed": entry.removed,
                    }
                    for entry in edit.done
                ],
                "notes": edit.notes,
                **more,
            }
        )
        return
    for entry in edit.done:
        _print_entry(entry)
    if not edit.done:
        console.print(f"nothing to change: policy version {version} says so already", markup=False)
    elif intent.dry_run:
        console.print(f"nothing was changed (--dry-run); in force: policy version {version}", markup=False)
    else:
        console.print(f"in force: policy version {version}", style="bold", markup=False)
    for note in edit.notes:
        errors.print(note, style="yellow", markup=False)


def _print_entry(entry: Entry) -> None:
    console.print(f"{record_name(entry.kind)} {entry.id} {entry.what}", style="bold", markup=False)
    rows = [] if entry.after is None else list(difference_rows(entry.before, entry.after))
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, before, after in rows:
        change = after if entry.before is None else f"{before or 'nothing'} → {after or 'nothing'}"
        console.print(f"  {name:<{width}}  {change}", markup=False)
    for count, how in ((entry.added, "added"), (entry.removed, "removed")):
        if count:
            console.print(f"  {count} {'number or range' if count == 1 else 'numbers and ranges'} {how}", markup=False)
