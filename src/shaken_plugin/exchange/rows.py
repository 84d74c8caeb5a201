"""What the rows of a CSV file mean: the records they are about, and what is wrong with them.

Millions of rows say the same of their records, so that it is understood once for each wording (`Subject`), and for
each row only its number.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final, NamedTuple

from shaken_plugin.config.numbering import is_canonical
from shaken_plugin.config.policybuilder import alone
from shaken_plugin.config.recordrules import is_toll_free_only, wrong_numbers
from shaken_plugin.core.records import Customer, DoNotOriginate, Right
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.exchange.columns import NO_NUMBERS, Table, cells, section, unshielded
from shaken_plugin.exchange.csvreading import Layout
from shaken_plugin.exchange.plain import flat, plain
from shaken_plugin.ports import PolicyRecords, Span

_NUMBERS = re.compile(r"\s*'?(\+?)([1-9][0-9]{3,14})(?:\.\.(\+?)([1-9][0-9]{3,14}))?\s*")
_SHORTENED = re.compile(r"[0-9]+[.,][0-9]+E\+?[0-9]+", re.IGNORECASE)
_NOT_UTF_8 = re.compile(r"[\ud800-\udfff]")
_SUGGESTED_AMONG: Final = 10_000
"""Most customers looked through for the one that was meant."""


class Mistake(NamedTuple):
    """What is wrong with a row."""

    column: str
    """Empty where it is the row as a whole."""
    message: str


@dataclass(slots=True)
class Subject:
    """The record that rows are about."""

    record: Right | DoNotOriginate | None
    mistakes: tuple[Mistake, ...] = ()
    toll_free_only: bool = False


class Meaning:
    """Understands rows.

    Args:
        layout: what the header says.
        plan: how numbers are dialled here; a number without + must not be mistaken for a national one.
        update: rows may change records that are there.
    """

    records: PolicyRecords
    """The policy that is imported into, as it is now; to be set first."""

    def __init__(self, layout: Layout, plan: DialPlan, *, update: bool) -> None:
        self._layout, self._plan, self._update = layout, plan, update
        self._table: Table = layout.table
        self.width = len(layout.header)
        places = layout.places
        self._columns = [name for name in places if name not in {"number", "first", "last"}]
        self._first = places.get("number", places.get("first", 0))
        self._last = places.get("last")
        indices = [places[name] for name in self._columns]
        # itemgetter of one index gives no tuple.
        self.wording = itemgetter(*indices) if len(indices) > 1 else lambda row: tuple(row[i] for i in indices)
        self._said: dict[str, Right | DoNotOriginate] = {}
        self.before: dict[str, Right | DoNotOriginate | None] = {}
        """The records that were understood, as they stood in the store then."""
        self.notes: list[str] = []

    # --- The number of a row ------------------------------------------------------------------

    def span(self, row: Sequence[str], subject: Subject) -> Span | Mistake | None:
        """The numbers of a row; None where it says that there are none."""
        cell, last = row[self._first], "" if self._last is None else row[self._last]
        match = _NUMBERS.fullmatch(f"{cell}..{last}" if last else cell)
        if match is None:
            return None if cell.strip() == NO_NUMBERS and not last else Mistake(self._column(), _no_number(cell, last))
        plus, begin, other_plus, end = match.groups()
        end = end or begin
        if len(begin) != len(end) or begin > end:
            return Mistake(self._column(), "the end of the range is not a number of the same length behind its start")
        if not plus or other_plus == "":
            for digits in (begin, end):
                if not is_canonical(digits, self._plan):
                    return Mistake(self._column(), f"{digits} may be a national number: write it in E.164, with +")
        if subject.toll_free_only and (wrong := wrong_numbers(subject.record, begin, end)):
            return Mistake(self._column(), wrong)
        return Span(begin, end)

    def _column(self) -> str:
        return "number" if "number" in self._layout.places else "first"

    # --- Its record ---------------------------------------------------------------------------

    def subject(self, wording: Sequence[str]) -> Subject:
        """The record that rows with these cells are about."""
        texts = dict(zip(self._columns, map(unshielded, wording), strict=True))
        if bad := [column for column, text in texts.items() if _NOT_UTF_8.search(text)]:
            return _wrong(*(Mistake(column, "not UTF-8: save the file as CSV in UTF-8") for column in bad))
        there = self._there(texts.get(self._table.id))
        record, mistakes = self._record(texts, there)
        if record is None:
            return _wrong(*mistakes)
        there = there or self._there(record.id)
        record = self._not_back_in_force(record, there, texts)
        if clash := tuple(self._clashes(record, there)):
            return _wrong(*clash)
        self._said[record.id] = record
        if record.id not in self.before:
            self.before[record.id] = self.records.get(self._table.kind, record.id)
        return Subject(record, (), is_toll_free_only(record))

    def _there(self, identifier: str | None) -> Right | DoNotOriginate | None:
        if not identifier:
            return None
        return self._said.get(identifier) or self.records.get(self._table.kind, identifier)

    def _record(
        self, texts: Mapping[str, str], there: Right | DoNotOriginate | None
    ) -> tuple[Right | DoNotOriginate | None, list[Mistake]]:
        """The record that is meant: what a file leaves out is as it is in the store."""
        known = {} if there is None else cells(self._table, plain(there))
        # These say nothing where they are empty; of all others an empty cell is none.
        silent = {name for name in (*_NEVER_EMPTY, self._table.id) if not texts.get(name)}
        said = {name: text for name, text in texts.items() if name not in silent}
        try:
            data = section(self._table, {**known, **said})
        except ValueError as exc:
            return None, [Mistake("rules", str(exc))]
        policy, problems = alone(self._table.section, data)
        mistakes = [self._mistake(name, text) for name, text in problems]
        customer = data.get("customer")
        if self._table.kind is Right and customer and self.records.get(Customer, customer) is None:
            mistakes.append(Mistake("customer", f"there is no customer {customer}{self._meant(customer)}"))
        if policy is None or mistakes:
            return None, mistakes
        (record,) = policy.unnumbered
        return record, []

    def _mistake(self, name: str, text: str) -> Mistake:
        """What is wrong with an entry of a policy file, as of the column it came from."""
        column, _, inner = name.partition(".")
        return Mistake(self._table.id if column == "id" else column, f"{inner}: {text}" if inner else text)

    def _meant(self, customer: str) -> str:
        known = [one.id for one in itertools.islice(self.records.all(Customer), _SUGGESTED_AMONG)]
        near = difflib.get_close_matches(customer, known, n=1)
        return f" (did you mean {near[0]}?)" if near else ""

    def _not_back_in_force(
        self, record: Right | DoNotOriginate, there: Right | DoNotOriginate | None, texts: Mapping[str, str]
    ) -> Right | DoNotOriginate:
        """What a person suspended stays so: only a person puts it back in force."""
        if there is not None and there.suspended and not record.suspended:
            if texts.get("suspended"):
                self.notes.append(f"{self._table.id} {record.id} stays suspended although the file says otherwise")
            return replace(record, suspended=True)
        return record

    def _clashes(self, record: Right | DoNotOriginate, there: Right | DoNotOriginate | None) -> Iterator[Mistake]:
        """What the store, or an earlier row, says otherwise of this record."""
        above = record.id in self._said
        if there is None or record == there or (self._update and not above):
            return
        old, new = dict(flat(plain(there))), dict(flat(plain(record)))
        for name in dict.fromkeys((*old, *new)):
            if old.get(name) != new.get(name):
                where = "rows above say" if above else "the store says"
                hint = "give it an id of its own" if above else "--update changes it"
                said = old.get(name, "nothing")
                yield Mistake(name.partition(".")[0], f"{where} {said} of {self._table.id} {record.id}: {hint}")


_NEVER_EMPTY: Final = ("customer", "basis", "reason", "suspended")


def _wrong(*mistakes: Mistake) -> Subject:
    return Subject(None, mistakes)


def _no_number(cell: str, last: str) -> str:
    text = f"{cell}..{last}" if last else cell
    if not text.strip():
        return f"there is no number; '{NO_NUMBERS}' for a record without numbers"
    if _SHORTENED.search(text):
        return "a spreadsheet has shortened this number: format the column as text, and fill it in again"
    return "neither a number such as +12155551212 nor a range of them"
