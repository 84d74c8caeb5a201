"""Rows into a store: all or nothing, or the good ones."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from shaken_plugin.core.records import DoNotOriginate, Right
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.errors import ConflictError
from shaken_plugin.exchange.approvals import without_outlived_approval
from shaken_plugin.exchange.columns import REJECT_COLUMNS, shielded, unshielded
from shaken_plugin.exchange.csvreading import Layout, Rows
from shaken_plugin.exchange.rows import Meaning, Mistake, Subject
from shaken_plugin.ports import NumbersOf, PolicyDraft, PolicyWriter, Span
from shaken_plugin.stores.policy import KIND_NAMES
from shaken_plugin.stores.staging import Staging

_PORTION: Final = 2_000
"""Rows that are understood at a time."""
_WORDINGS: Final = 100_000
"""Wordings of records that are remembered; a file with more is understood more slowly."""


@dataclass(slots=True)
class Outcome:
    """What became of the rows of a file."""

    rows: int = 0
    rejected: int = 0
    new_records: int = 0
    changed_records: int = 0
    new_numbers: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> int:
        """Rows with nothing wrong."""
        return self.rows - self.rejected


Reject = Callable[[int, Sequence[str], Sequence[Mistake]], object]
"""Takes a row's number, its cells, and what is wrong with it."""


class Import:
    """One file on its way into a store: read and understood while nothing is locked, then written as one change.

    Args:
        rows: the file.
        plan: how numbers are dialled here.
        staging: keeps the numbers in between.
        partial: good rows are to be written even where others are bad.
        update: rows may change records that are there.
        reject: is told of each bad row.
        progress: is told how many bytes have been read.
    """

    def __init__(
        self,
        rows: Rows,
        plan: DialPlan,
        staging: Staging,
        *,
        partial: bool = False,
        update: bool = False,
        reject: Reject = lambda *_: None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._rows, self._staging = rows, staging
        self._partial, self._reject, self._progress = partial, reject, progress
        self._kind = rows.layout.table.kind
        self._meaning = Meaning(rows.layout, plan, update=update)
        self._subjects: dict[tuple[str, ...], Subject] = {}
        self._taken: dict[str, Right | DoNotOriginate] = {}
        self.outcome = Outcome(notes=self._meaning.notes)

    @property
    def kept_out(self) -> bool:
        """Whether a bad row keeps all others out."""
        return bool(self.outcome.rejected) and not self._partial

    def read(self, store: PolicyWriter) -> Outcome:
        """Read the file to its end, and check every row against what is in force meanwhile.

        Raises:
            FileProblems: it is no CSV from some line on, or cannot be read.
            StoreError, StoreUnavailable: the store cannot be read, or there is no room for the numbers.
        """
        rows = iter(self._rows)
        # The store is open for each portion only: who waits for rows from a pipe holds nothing meanwhile.
        while portion := list(islice(rows, _PORTION)):
            with store.records() as records:
                self._meaning.records = records
                self._staging.add(self._good(portion))
            self._progress(self._rows.position())
        self._staging.sort()
        return self.outcome

    def _good(self, portion: Sequence[tuple[int, list[str]]]) -> Iterator[tuple[NumbersOf, str, Span]]:
        """The numbers of the rows that are good; the others are told."""
        outcome, width = self.outcome, self._meaning.width
        wording, span_of, subject_of = self._meaning.wording, self._meaning.span, self._subjects.get
        for number, row in portion:
            outcome.rows += 1
            if len(row) != width:
                self._refuse(number, row, (Mistake("", f"{len(row)} cells, but the header has {width}"),))
                continue
            words = wording(row)
            subject = subject_of(words) or self._understood(words)
            span = span_of(row, subject)
            if subject.record is None or isinstance(span, Mistake):
                mistakes = (*subject.mistakes, span) if isinstance(span, Mistake) else subject.mistakes
                self._refuse(number, row, mistakes)
            elif not self.kept_out:
                self._taken[subject.record.id] = subject.record
                if span is not None:
                    yield self._kind, subject.record.id, span

    def _understood(self, words: tuple[str, ...]) -> Subject:
        if len(self._subjects) >= _WORDINGS:
            self._subjects.clear()
        subject = self._subjects[words] = self._meaning.subject(words)
        return subject

    def _refuse(self, number: int, row: Sequence[str], mistakes: Sequence[Mistake]) -> None:
        self.outcome.rejected += 1
        self._reject(number, row, mistakes)

    def write(self, draft: PolicyDraft) -> Outcome:
        """Write what was read.

        Raises:
            ConflictError: the store was changed meanwhile, so that the rows may no longer be right.
            StoreError: it cannot be written.
        """
        for identifier, record in self._taken.items():
            there = draft.get(self._kind, identifier)
            if there != self._meaning.before[identifier]:
                name = KIND_NAMES[self._kind].replace("_", "-")
                raise ConflictError(f"{name} {identifier} was changed while the file was read: {_AGAIN}")
            if there != record:
                try:
                    draft.put(record)
                except ConflictError as exc:
                    raise ConflictError(f"the store was changed while the file was read: {exc}: {_AGAIN}") from exc
                self.outcome.new_records += there is None
                self.outcome.changed_records += there is not None
        new_numbers: dict[str, int] = defaultdict(int)
        for kind, identifier, _ in self._staging.owners():
            new_numbers[identifier] = draft.add_numbers(kind, identifier, self._staging.numbers(kind, identifier))
        self.outcome.new_numbers += sum(new_numbers.values())
        self._settle(draft, new_numbers)
        return self.outcome

    def _settle(self, draft: PolicyDraft, new_numbers: Mapping[str, int]) -> None:
        """Take back approvals of what was changed since, unless the file says itself who approved it."""
        if "approved_by" in self._rows.layout.places:
            return
        for identifier in self._taken:
            before, after = self._meaning.before[identifier], draft.get(self._kind, identifier)
            if isinstance(before, Right) and before.approved_by is not None and isinstance(after, Right):
                right, note = without_outlived_approval(before, after, new_numbers.get(identifier, 0))
                if note is not None:
                    draft.put(right)
                    self.outcome.notes.append(note)


_AGAIN: Final = "nothing was imported; import the file again"


class RejectFile:
    """The bad rows of a file, to be corrected and imported again: as they were, behind what is wrong with them.

    Args:
        file: a text file, opened with ``newline=""`` and ``errors="surrogateescape"``.
        layout: what the header of the file says.
    """

    def __init__(self, file: Any, layout: Layout) -> None:
        self._rows = csv.writer(file, delimiter=layout.delimiter, lineterminator="\r\n")
        self._old = [index for index, name in enumerate(layout.header) if name in REJECT_COLUMNS]
        self._rows.writerow((*REJECT_COLUMNS, *self._without_old(layout.header)))

    def __call__(self, number: int, row: Sequence[str], mistakes: Sequence[Mistake]) -> None:
        """Write a row."""
        columns = dict.fromkeys(mistake.column for mistake in mistakes)
        because = "; ".join(f"{one.column}: {one.message}" if one.column else one.message for one in mistakes)
        texts = [shielded(unshielded(cell)) for cell in self._without_old(row)]
        self._rows.writerow((number, " ".join(filter(None, columns)), shielded(because), *texts))

    def _without_old(self, row: Sequence[str]) -> list[str]:
        """The row without what an earlier import has said of it."""
        return [cell for index, cell in enumerate(row) if index not in self._old]
