"""Write docs/reference.md from the code: settings, policy file, checks, codes; and the rules in docs/attestation.md.

python tools/reference.py           print it
python tools/reference.py --write   write it; a test fails while the file is out of date
"""

import sys
import typing
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.config.models import section_in
from shaken_plugin.config.policyentries import PolicyFile
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.attestation import RULES
from shaken_plugin.core.diverting import DIVERSION_RULES
from shaken_plugin.core.verification import AFTER_FETCH, BEFORE_FETCH, PASSPORT_TYPES
from shaken_plugin.errors import FailureCode, SkipReason
from shaken_plugin.lint import LINTS
from shaken_plugin.lint.model import Edition, Lint
from shaken_plugin.switchcheck import Check

FILE = Path("docs/reference.md")
ATTESTATION = Path("docs/attestation.md")


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
    if isinstance(value, dict):
        return "none" if not value else str(value)
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
            kind = typing.get_origin(field.annotation)
            inner.append((section, f"{full}[]." if kind is list else f"{full}.NAME." if kind is dict else f"{full}."))
    yield from table(("name", "default", "meaning"), rows)
    for section, place in inner:
        yield from sections(section, place, f"`{place.rstrip('.')}`")


def since(edition: Edition) -> str:
    """From which day an edition holds: for CA certificates, then for end-entity ones where that differs."""
    days = [f"{datetime.fromtimestamp(edition.since(is_ca=is_ca), UTC):%Y-%m-%d}" for is_ca in (True, False)]
    return "" if edition.published is None else " / ".join(dict.fromkeys(days))


def lint_row(lint: Lint[Any]) -> tuple[object, ...]:
    """One check of certificates."""
    name = f"`{lint.name}`" + (", `…_ca`" if lint.by_kind else "")
    return name, lint.severity.value, lint.scope.words, since(lint.edition), lint.citation, lint.remedy


def lints() -> Iterator[str]:
    """The checks of `shaken lint-cert`."""
    yield from (
        "## Certificate lints",
        "",
        "What `shaken lint-cert` checks. A certificate is held to what was in force when it was issued: the first day",
        "is for CA certificates, the second for end-entity ones. A name with `…_ca` ends so for a CA certificate.",
        "",
        "Exit code 0 without errors, 1 with one (also where a URL gives no answer), 2 wrong usage, 3 where a file",
        "cannot be read. Warnings and notices do not count.",
        "",
    )
    for title, rows in LINTS.items():
        yield from (f"### {title}", "")
        head = ("lint", "severity", "applies to", "issued from", "demanded by", "what to do")
        yield from table(head, [lint_row(lint) for lint in rows])


def metrics() -> list[tuple[object, ...]]:
    """What the agent counts, by the names that a query uses."""
    rows: list[tuple[object, ...]] = []
    for metric in Metrics().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        rows.append((f"`{name}`", metric.type, metric.documentation))
    return rows


def rules(text: str) -> str:
    """The page about attestation with the table of rules as the code has it."""
    begin, end = "<!-- rules: made by tools/reference.py -->\n", "<!-- end of rules -->"
    before, rest = text.split(begin)
    rows = [
        (number, f"`{rule.name}`", rule.question, rule.effect, rule.records, rule.missing)
        for number, rule in enumerate(RULES, 1)
    ]
    head = ("", "rule", "question", "effect where it does not hold", "by which records", "missing for a better level")
    return before + begin + "\n" + "\n".join(table(head, rows)) + "\n" + end + rest.split(end)[1]


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
        "Who gets which level stands in [attestation.md](attestation.md).",
        "",
        "Of a call that is sent on with its Identity headers these are asked, and its caller as ever; if all hold,",
        "a `div` is signed (`level` div):",
        "",
        *table(("rule", "question"), [(f"`{rule.name}`", rule.question) for rule in DIVERSION_RULES]),
        "## Verification checks",
        "",
        "In this order for every PASSporT; the first that fails ends its examination. Those of one type come after",
        "those that need the message.",
        "",
        *table(
            ("check", "needs", "demanded by"),
            [(f"`{check.name}`", "the message", check.section) for check in BEFORE_FETCH]
            + [
                (f"`{check.name}`", f"the message; `{kind.ppt}` only", check.section)
                for kind in PASSPORT_TYPES.values()
                for check in kind.checks
            ]
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
        "In `$xavp(shaken_as=>skip)`, in the log and in the counter `unsigned_CODE`; of `signing_off` there is no line",
        "and no count, and `shaken_sign` in Kamailio sets no variable.",
        "",
        *table(("code", "meaning"), [(f"`{reason.code}`", reason.value) for reason in SkipReason]),
        *lints(),
        "## Metrics of the agent",
        "",
        "On `/metrics`. An alarm that is on is also in `/health`, which answers 200 all the same: the agent works, and",
        "a monitor that restarted it would mend nothing. 503 says that it does not: it has given no sign of life.",
        "",
        *table(("metric", "kind", "meaning"), metrics()),
        "## FreeSWITCH checks",
        "",
        "What `shaken check-config --freeswitch DIR` finds. Exit code 0 without problems, 1 with one, 3 where there is",
        "no FreeSWITCH. Warnings do not count.",
        "",
        *table(
            ("name", "severity", "meaning"),
            [(f"`{check.code}`", check.value.severity.value, check.value.meaning) for check in Check],
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        FILE.write_text(reference(), "utf-8")
        ATTESTATION.write_text(rules(ATTESTATION.read_text("utf-8")), "utf-8")
    else:
        print(reference())
