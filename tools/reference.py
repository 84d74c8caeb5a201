"""Write docs/reference.md from the code: settings, policy file, rules, checks, codes.

python tools/reference.py           print it
python tools/reference.py --write   write it; a test fails while the file is out of date
"""

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from shaken_plugin.config.models import section_in
from shaken_plugin.config.policyfile import PolicyFile
from shaken_plugin.config.settings import Settings
from shaken_plugin.core.attestation import RULES
from shaken_plugin.core.verification import AFTER_FETCH, BEFORE_FETCH
from shaken_plugin.errors import FailureCode, SkipReason

FILE = Path("docs/reference.md")


def cell(text: object) -> str:
    """Text for one cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def default(value: Any) -> str:
    """A default as one would write it in YAML."""
    if value is PydanticUndefined:
        return "**required**"
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, list):
        return "`[" + ", ".join(str(getattr(item, "value", item)) for item in value) + "]`"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> Iterator[str]:
    """A Markdown table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(map(cell, row)) + " |"
    yield ""


def sections(model: type[BaseModel], path: str, title: str) -> Iterator[str]:
    """A section's settings, then those of the sections in it."""
    yield f"### {title}"
    yield ""
    yield cell(model.__doc__ or "")
    yield ""
    rows: list[tuple[object, ...]] = []
    inner: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        full = f"{path}{name}"
        rows.append((f"`{full}`", default(field.default), field.description or ""))
        if (section := section_in(field.annotation)) is not None:
            is_list = "list" in str(field.annotation)
            inner.append((section, f"{full}[]." if is_list else f"{full}."))
    yield from table(("name", "default", "meaning"), rows)
    for section, place in inner:
        yield from sections(section, place, f"`{place.rstrip('.')}`")


def reference() -> str:
    """The whole page."""
    lines = [
        "# Reference",
        "",
        "Made from the code by `python tools/reference.py --write`; a test keeps it true.",
        "",
        "## Settings file",
        "",
        "Paths are relative to the file. Keys and certificates are given by reference (`file:PATH` or `env:NAME`).",
        "Editors complete it with the output of `shaken schema settings`.",
        "",
        *sections(Settings, "", "Top level"),
        "## Policy file",
        "",
        "Editors complete it with the output of `shaken schema policy`. A day as `valid_from` begins at 00:00 UTC; as",
        "`valid_until` it is the last day, ending at 24:00 UTC. A time with an offset is taken exactly.",
        "",
        *sections(PolicyFile, "", "Top level"),
        "## Attestation rules",
        "",
        "In this order. A call starts at A; a rule may bring it down, never up; some end the list. The trace of a",
        "decision has one line for each rule that was asked. `shaken explain` adds what is no matter of records:",
        "whether signing is on, the credential has a certificate that is live and valid, and that covers the caller.",
        "",
        *table(("rule", "question"), [(f"`{rule.name}`", rule.question) for rule in RULES]),
        "## Verification checks",
        "",
        "In this order for every Identity header; the first that fails ends its examination.",
        "",
        *table(
            ("check", "needs", "demanded by"),
            [(f"`{check.name}`", "the message", check.section) for check in BEFORE_FETCH]
            + [(f"`{check.name}`", "the certificate", check.section) for check in AFTER_FETCH],
        ),
        "## Verification failures",
        "",
        "The code appears in `$xavp(shaken_vs=>code)`, in the log and in the counter `failure_CODE`.",
        "verstat is that of the `atis1000082` profile; `strict` says TN-Validation-Failed for all that fail.",
        "",
        *table(
            ("code", "status", "verstat", "meaning", "section"),
            [
                (f"`{code.code}`", f"{v.status} {v.phrase}", v.verstat.value, v.meaning, v.section)
                for code in FailureCode
                for v in (code.value,)
            ],
        ),
        "## Why a call was not signed",
        "",
        "In `$xavp(shaken_as=>skip)`, in the log and in the counter `unsigned_CODE`.",
        "",
        *table(("code", "meaning"), [(f"`{reason.code}`", reason.value) for reason in SkipReason]),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        FILE.write_text(reference(), "utf-8")
    else:
        print(reference())
