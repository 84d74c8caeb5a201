"""Some numbers of a record changed, and not the others: they get a record of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from shaken_plugin.cli.output import Exit, fail
from shaken_plugin.cli.records import checks
from shaken_plugin.cli.records.changing import Edit
from shaken_plugin.cli.records.session import record_name
from shaken_plugin.cli.records.values import span_text
from shaken_plugin.config import policyids
from shaken_plugin.core.records import DoNotOriginate, Right
from shaken_plugin.ports import Span

N = TypeVar("N", Right, DoNotOriginate)


def apart(edit: Edit, record: N, spans: Sequence[Span], changed: N) -> None:
    """Say of these numbers of a record what ``changed`` says; where they are all it has, of itself.

    They go to the record that says just that, or a new one; a range is split. Ends the command where the record
    has not all of them.
    """
    kind, name = type(record), f"{record_name(type(record))} {record.id}"
    there = [span for span in edit.draft.numbers(kind, record.id) if any(_common(span, wanted) for wanted in spans)]
    if missing := [gap for wanted in spans for gap in _without(wanted, there)]:
        fail(f"{name} has not all of these numbers: {span_text(missing[0])} is none of its", Exit.NO)
    checks.record(changed)
    for span in spans:
        checks.numbers(changed, span)
    rest = [left for span in there for left in _without(span, spans)]
    if changed == record or (not rest and len(there) == edit.draft.count(kind, record.id)):
        edit.put(changed)
        return
    target = _of_its_own(edit, changed)
    edit.remove_numbers(kind, record.id, there)
    edit.add_numbers(kind, record.id, rest)
    edit.put(target)
    taken = [common for span in there for wanted in spans if (common := _common(span, wanted))]
    edit.add_numbers(kind, target.id, taken)
    whole = {span_text(span) for span in there if span not in taken}
    split = f" (split: {', '.join(sorted(whole)[:5])})" if whole else ""
    some = ", ".join(map(span_text, spans[:5])) + (" …" if len(spans) > 5 else "")
    edit.notes.append(f"{some} taken out of {name}{split}, now of {record_name(kind)} {target.id}")


def _of_its_own(edit: Edit, changed: N) -> N:
    names = policyids.Ids()
    for other in edit.draft.all(type(changed)):
        if replace(other, id="") == replace(changed, id=""):
            return other
        names.given(other.id)
    if isinstance(changed, Right):
        wanted = policyids.right_id(changed.customer, changed.basis, changed.document, changed.use_case)
    else:
        wanted = changed.reason.value
    return replace(changed, id=names.made(wanted))


def _common(one: Span, other: Span) -> Span | None:
    """What two have in common. Numbers of one length are in the order of their digits."""
    first, last = max(one.first, other.first), min(one.last, other.last)
    return Span(first, last) if len(one.first) == len(other.first) and first <= last else None


def _without(span: Span, others: Iterable[Span]) -> Iterator[Span]:
    """What is left of a span."""
    left = [span]
    for other in others:
        left = [part for one in left for part in _cut(one, other)]
    yield from left


def _cut(span: Span, other: Span) -> Iterator[Span]:
    common = _common(span, other)
    if common is None:
        yield span
        return
    if span.first < common.first:
        yield Span(span.first, str(int(common.first) - 1))
    if common.last < span.last:
        yield Span(str(int(common.last) + 1), span.last)
