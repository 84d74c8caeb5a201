"""Ids completed without loading the command: a shell waits for TAB, and the commands' libraries take a second.

Only ``shaken KIND VERB ID``, which is what is typed most; all else, also an option here, loads the command.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from shaken_plugin.config import yamlfile

_BY_ID: Final = frozenset({"show", "set", "remove"})
_FORCE: Final = _BY_ID | {"suspend", "reinstate"}
PLACES: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "customer": ("customer", _FORCE | {"terminate"}),
    "limits": ("customer", _FORCE | {"add"}),
    "letter": ("right", _FORCE),
    "right": ("right", _FORCE),
    "trunk": ("trunk", _BY_ID),
    "gateway": ("gateway", _BY_ID),
    "route": ("route", _BY_ID),
    "substitution": ("substitution", _BY_ID),
}
"""Groups: the kind of records that their argument names, and the verbs that take one."""

_DEFAULT_STORE: Final = "/var/lib/shaken/policy.db"
_MOST: Final = 200

Load = Callable[[], click.Command | None]


def group(load: Load, name: str, verb: str) -> click.Group:
    """A group that stands for another while an id is typed.

    Args:
        load: gives the other.
        name: its name, a key of `PLACES`.
        verb: one of the verbs there.
    """
    kind, _ = PLACES[name]

    def complete(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        # Whatever is wrong, a line that is being typed is no place to tell it.
        try:
            return _ids(kind, incomplete, letters=name == "letter")
        except Exception:
            return []

    made = click.Group(name)
    made.add_command(_Verb(load, verb, params=[click.Argument(["identifier"], shell_complete=complete)]))
    return made


class _Verb(click.Command):
    def __init__(self, load: Load, name: str, **how: Any) -> None:
        super().__init__(name, **how)
        self._load = load

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Options: those of the command itself."""
        group = self._load()
        assert isinstance(group, click.Group)
        verb = group.get_command(ctx, str(self.name))
        assert verb is not None
        with verb.make_context(self.name, [], parent=ctx.parent, resilient_parsing=True) as context:
            return verb.shell_complete(context, incomplete)


def _ids(kind: str, begin: str, *, letters: bool) -> list[CompletionItem]:
    query = "SELECT id, body FROM record WHERE kind = ? AND until IS NULL AND substr(id, 1, ?) = ? ORDER BY id"
    found: list[CompletionItem] = []
    with closing(sqlite3.connect(f"file:{_store()}?mode=ro", uri=True, timeout=0.1)) as connection:
        for identifier, body in connection.execute(query, (kind, len(begin), begin)):
            said = json.loads(body)
            if not letters or said["basis"] == "letter":
                found.append(CompletionItem(identifier, help=said.get("name") or said.get("document")))
            if len(found) == _MOST:
                break
    return found


def _store() -> Path:
    # As `config.settings` has them, which checks settings and therefore is what takes long.
    path = Path(os.environ.get("SHAKEN_SETTINGS") or "/etc/shaken/shaken.yaml")
    data = yamlfile.parse(path.read_text("utf-8"), str(path)).data
    return path.absolute().parent / str((data.get("store") or {}).get("path") or _DEFAULT_STORE)
