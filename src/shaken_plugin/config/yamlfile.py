"""YAML as plain text values with positions, and nothing that YAML guesses.

PyYAML's SafeLoader turns ``0123`` into 83 and ``+12155551212`` into an integer, and drops the
first of two equal keys. Here every scalar stays the text that stands in the file; what it means
is the schema's business. Duplicate keys, aliases and tags are problems.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from shaken_plugin.errors import Problem

MAX_LENGTH: Final = 64 * 1024 * 1024
"""Longest file, characters; 100,000 numbers of a policy are about 10 MiB."""

MAX_DEPTH: Final = 20
"""Deepest nesting; the schemas need 5."""

Path = tuple[str | int, ...]

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_PLAIN = (None, "")
"""Styles of a scalar without quotes: of the Python parser, and of the C parser."""
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("bool", "float", "int", "merge", "null", "seq", "map", "str", "timestamp", "value")
)
"""Tags that YAML gives values itself; they change nothing here."""
# The C parser is many times faster; both are the same grammar.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Document:
    """A parsed file: its data, where each value and key stands, and what is wrong already."""

    file: str
    data: Any = None
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Report a mistake at the nearest place that is known for a path."""
        places = self.keys if at_key else self.places
        known = path
        while known and known not in places:
            known = known[:-1]
            places = self.places
        line, column = places.get(known, (1, 1))
        self.problems.append(Problem(self.file, line, column, render(path), message))


def render(path: Path) -> str:
    """``credentials[0].key`` for ``("credentials", 0, "key")``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def parse(text: str, file: str) -> Document:
    """Parse one YAML document. Mistakes of YAML itself are in ``problems``; it does not raise."""
    document = Document(file)
    if len(text) > MAX_LENGTH:
        document.problems.append(Problem(file, 1, 1, "", f"longer than {MAX_LENGTH} characters"))
        return document
    try:
        if (deep := _too_deep(text)) is not None:
            document.problems.append(Problem(file, *deep, "", f"nested deeper than {MAX_DEPTH}"))
            return document
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        document.problems.append(Problem(file, line, column, "", f"not YAML: {exc.problem}"))
        return document
    except (yaml.YAMLError, ValueError) as exc:
        document.problems.append(Problem(file, 1, 1, "", f"not YAML: {type(exc).__name__}: {exc}"))
        return document
    if node is not None:
        document.data = _value(node, (), document, set())
    return document


def _too_deep(text: str) -> tuple[int, int] | None:
    """Line and column at which nesting becomes too deep.

    Asked before the tree is made: making it recurses, in the C parser until the stack is used up.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                assert event.start_mark is not None
                return event.start_mark.line + 1, event.start_mark.column + 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def _value(node: yaml.Node, path: Path, document: Document, seen: set[int]) -> Any:
    mark = node.start_mark
    document.places[path] = (mark.line + 1, mark.column + 1)
    if node.tag not in _TAGS:
        document.problem(path, "YAML tags (!name) are not supported")
        return None
    if id(node) in seen:
        document.problem(path, "YAML aliases (*name) are not supported; write the value out")
        return None
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return None if node.style in _PLAIN and node.value in _NULLS else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), document, seen) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.MappingNode)
    return _mapping(node, path, document, seen)


def _mapping(node: yaml.MappingNode, path: Path, document: Document, seen: set[int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        mark = key_node.start_mark
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(
                Problem(document.file, mark.line + 1, mark.column + 1, render(path), "a key must be a plain name")
            )
            continue
        key = key_node.value
        if key in values:
            first = document.keys[*path, key][0]
            document.problems.append(
                Problem(
                    document.file,
                    mark.line + 1,
                    mark.column + 1,
                    render((*path, key)),
                    f"stands twice, first in line {first}",
                )
            )
            continue
        document.keys[*path, key] = (mark.line + 1, mark.column + 1)
        values[key] = _value(value_node, (*path, key), document, seen)
    return values
