"""The rows of a CSV file, however a spreadsheet saved it: comma, semicolon or tab, with or without BOM, CRLF."""

from __future__ import annotations

import csv
import difflib
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Final

from shaken_plugin.errors import FileProblems, Problem
from shaken_plugin.exchange.columns import NUMBER_COLUMNS, REJECT_COLUMNS, TABLES, Table

DELIMITERS: Final = (",", ";", "\t", "|")
_EVERY_NUMBER_COLUMN: Final = ("number", *NUMBER_COLUMNS)
_UTF_16: Final = ("\udcff\udcfe", "\udcfe\udcff")
_LONGEST_HEADER: Final = 65_536
"""Characters; a file without line ends is read no further."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the header of a file says."""

    table: Table
    delimiter: str
    header: tuple[str, ...]
    """As it stands in the file."""
    places: dict[str, int]
    """Index of each known column, by name."""


class Rows:
    """The rows of a file behind its header.

    Args:
        file: its bytes.
        name: its name, for messages.
        table: what it is about, where that is known; else its columns tell.
        delimiter: likewise.

    Raises:
        FileProblems: it has no header that is understood.
    """

    def __init__(self, file: IO[bytes], name: str, table: Table | None = None, delimiter: str | None = None) -> None:
        self._name = name
        self._file = file
        # Bytes that are no UTF-8 stay in their row, to be told there.
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        self._text = text  # kept: it closes the file when it goes
        line = text.readline(_LONGEST_HEADER)
        if line.startswith(_UTF_16):
            raise self._problem(1, "this is UTF-16: save it as CSV in UTF-8")
        delimiter = delimiter or max(DELIMITERS, key=lambda one: len(_known(_split(line, one)) & _ALL_COLUMNS))
        header = _split(line, delimiter)
        self.layout = self._understood(header, delimiter, table)
        self._reader = csv.reader(itertools.chain([line], text), delimiter=delimiter, strict=True)
        self._header_row = 1

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Number and cells of each row that has any; the header is row 1, as in a spreadsheet.

        Raises:
            FileProblems: the file is no CSV from some line on.
        """
        number = 0
        try:
            for number, row in enumerate(self._reader, start=1):
                if number > 1 and any(row):
                    yield number, row
        except csv.Error as exc:
            raise self._problem(self._reader.line_num, f"not CSV: {exc}") from exc
        except OSError as exc:
            raise self._problem(number + 1, f"cannot be read: {exc.strerror}") from exc

    def position(self) -> int:
        """How many bytes have been read; 0 where that cannot be told."""
        try:
            return self._file.tell()
        except OSError:
            return 0

    def _problem(self, line: int, message: str, column: int = 1) -> FileProblems:
        return FileProblems([Problem(self._name, line, column, "", message)])

    def _understood(self, header: Sequence[str], delimiter: str, table: Table | None) -> Layout:
        names = [_name(cell) for cell in header]
        if not any(names):
            raise self._problem(1, "there is no header: the first line names the columns")
        table = table or max(TABLES.values(), key=lambda one: len(set(names) & {one.id, *one.columns}))
        known = (*_EVERY_NUMBER_COLUMN, table.id, *table.columns)
        problems = []
        for index, name in enumerate(names):
            if name in names[:index]:
                problems.append((index, f"the column {name} stands twice"))
            elif name not in known and name not in REJECT_COLUMNS:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                problems.append((index, f"unknown column {header[index].strip() or '(without a name)'} ({hint})"))
        if not {"number", "first"} & set(names):
            problems.append((0, "there is no column number, nor first"))
        if {"number", "first"} <= set(names) or {"number", "last"} <= set(names):
            problems.append((0, "the column number stands for first and last: leave one or the others out"))
        if table.id not in names and (missing := [one for one in _NEEDED[table.name] if one not in names]):
            problems.append((0, f"without the column {table.id} there must be {' and '.join(missing)}"))
        if problems:
            raise FileProblems([Problem(self._name, 1, index + 1, "", text) for index, text in problems])
        places = {name: index for index, name in enumerate(names) if name not in REJECT_COLUMNS}
        return Layout(table, delimiter, tuple(header), places)


_NEEDED: Final = {"rights": ("customer", "basis"), "dno": ("reason",)}
_ALL_COLUMNS: Final = frozenset(column for table in TABLES.values() for column in (table.id, *table.columns)) | {
    *_EVERY_NUMBER_COLUMN
}


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _name(cell: str) -> str:
    return cell.strip().lower().replace(" ", "_")


def _known(header: Sequence[str]) -> set[str]:
    return {_name(cell) for cell in header}
