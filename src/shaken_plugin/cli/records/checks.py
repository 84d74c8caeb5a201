"""What no single option shows: the rules of the policy file for what is changed record by record."""

from __future__ import annotations

from typing import Any

from shaken_plugin.cli.output import Exit, fail
from shaken_plugin.cli.records.attributes import Attribute, attributes
from shaken_plugin.cli.records.values import meant, span_text
from shaken_plugin.config.recordrules import contradictions, is_toll_free_only, wrong_numbers
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.records import Record, Right
from shaken_plugin.ports import PolicyRecords, Span


def record(record: Record) -> None:
    """End the command where a record contradicts itself."""
    flags = {attribute.path: attribute.flag for attribute in attributes(type(record))}
    for wrong in contradictions(record):
        named = " or ".join(flags[path] for path in ([wrong.field] if wrong.field else [(n,) for n in wrong.needs]))
        fail(f"{record.id}: {named}: {wrong.message}", Exit.NO)


def numbers(record: Any, span: Span) -> None:
    """End the command where a record cannot have these numbers."""
    if wrong := wrong_numbers(record, *span):
        fail(f"{span_text(span)}: {wrong}", Exit.NO)


def all_numbers(record: Any, records: PolicyRecords) -> None:
    """End the command where a record that was changed cannot have the numbers that it has."""
    if is_toll_free_only(record):
        for span in records.numbers(Right, record.id):
            numbers(record, span)


def credential(settings: Settings, attribute: Attribute, value: Any) -> None:
    """End the command where the settings have no such credential."""
    if attribute.path[-1] != "credential":
        return
    known = [entry.name for entry in settings.signing.credentials]
    if value not in known:
        hint = meant(value, known) or f" (known: {', '.join(known) or 'none at all'})"
        fail(f"the settings have no credential {value}{hint}", Exit.NO)
