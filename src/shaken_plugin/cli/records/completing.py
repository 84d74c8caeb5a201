"""Ids from the store, for the shell: silent where it cannot be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from shaken_plugin.cli.records import session
from shaken_plugin.config.settings import parse_settings, settings_path
from shaken_plugin.core.records import Customer, Record

_MOST: Final = 200
"""Most ids offered."""


def ids(
    kind: type[Record], preset: Mapping[str, Any] | None = None
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Completes the ids of a kind of records, of those with these values."""
    wanted = dict(preset or {})

    def complete(context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        # Whatever is wrong, a line that is being typed is no place to tell it.
        try:
            settings, _ = parse_settings(Path(context.params.get("settings_file") or settings_path()))
            if settings is None:
                return []
            with session.open_store(settings).records() as records:
                fitting = (
                    record
                    for record in records.all(kind)
                    if record.id.startswith(incomplete) and all(getattr(record, k) == v for k, v in wanted.items())
                )
                return [
                    CompletionItem(record.id, help=getattr(record, "name", None) or getattr(record, "document", None))
                    for record in itertools.islice(fitting, _MOST)
                ]
        except Exception:
            return []

    return complete


customer_ids = ids(Customer)
