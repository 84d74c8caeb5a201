"""The columns of the CSV files, and cells that a spreadsheet does not run.

A cell that begins with ``=``, ``+``, ``-`` or ``@`` is a formula to a spreadsheet, whoever wrote it. Such a text is
written with an apostrophe in front, and so is one that begins with an apostrophe before one of these, so that reading
takes exactly one away. Numbers are written as they are, ``+12155551212``: as a formula they are their own value, and
reading takes them without the ``+``, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shaken_plugin.core.records import DoNotOriginate, Right
from shaken_plugin.exchange.plain import Plain
from shaken_plugin.ports import NumbersOf

NUMBER_COLUMNS: Final = ("first", "last")
"""``last`` is empty for a single number; on reading ``number`` may stand for both: ``+1…`` or ``+1…..+1…``."""

NO_NUMBERS: Final = "none"
"""In the column ``first``: the row is about a record that has no numbers."""

REJECT_COLUMNS: Final = ("rejected_row", "rejected_column", "rejected_because")
"""In front of the rows of a reject file; passed over on reading."""


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of CSV file."""

    name: str
    kind: NumbersOf
    section: str
    """Its section of a policy file, whose names and forms the columns have."""
    id: str
    """The column of the record's id."""
    columns: tuple[str, ...]
    """The others, but for the numbers."""

    @property
    def header(self) -> tuple[str, ...]:
        """The columns as they are written."""
        return (*NUMBER_COLUMNS, self.id, *self.columns)


RIGHTS: Final = Table(
    "rights",
    Right,
    "rights",
    "right",
    (
        "customer", "owner", "basis", "document", "sha256", "path", "use_case", "valid_from", "valid_until",
        "approved_by", "approved_at", "suspended", "rules",
    ),
)  # fmt: skip
WITHHELD: Final = Table("dno", DoNotOriginate, "do_not_originate", "entry", ("reason", "note", "suspended"))

TABLES: Final[Mapping[str, Table]] = {table.name: table for table in (RIGHTS, WITHHELD)}

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_APOSTROPHE = re.compile(r"'+[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"\+[0-9]+(?:\.\.\+[0-9]+)?")


def shielded(text: str) -> str:
    """A text as a cell."""
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text


def unshielded(cell: str) -> str:
    """The text that a cell holds."""
    return cell[1:] if _APOSTROPHE.match(cell) else cell


def cells(table: Table, data: Plain) -> dict[str, str]:
    """A record, as its section of a policy file, as texts by column."""
    texts = {name: _text(value) for name, value in data.items() if name != "rules"}
    if rules := data.get("rules"):
        texts["rules"] = " ".join(f"{name}={_text(value)}" for name, value in rules.items())
    texts[table.id] = texts.pop("id")
    texts.setdefault("suspended", "false")
    return texts


def section(table: Table, texts: Mapping[str, str]) -> Plain:
    """Texts by column as a section of a policy file, empty ones left out; ``rules`` with what stands in it.

    Raises:
        ValueError: ``rules`` is not of the form ``ceiling=B sign=false``.
    """
    data: Plain = {("id" if name == table.id else name): text for name, text in texts.items() if text}
    if "rules" in data:
        pairs = [pair.partition("=") for pair in data["rules"].split()]
        if not all(sign for _, sign, _ in pairs) or len({name for name, _, _ in pairs}) < len(pairs):
            raise ValueError("not of the form ceiling=B sign=false")
        data["rules"] = {name: value for name, _, value in pairs}
    return data | {"numbers": []}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
