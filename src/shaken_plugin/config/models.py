"""What pydantic checks for us in every file: strictness, and errors with their place."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, PydanticUndefined, core_schema

from shaken_plugin.config.yamlfile import Document, Path

_Model = TypeVar("_Model", bound=BaseModel)
_Item = TypeVar("_Item")


class Section(BaseModel):
    """A mapping of a file: unknown names are errors, values cannot change afterwards."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )


def _boolean(value: object) -> object:
    if isinstance(value, str):
        meaning = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if value.lower() not in meaning:
            raise ValueError("neither true nor false")
        return meaning[value.lower()]
    return value


Switch = Annotated[bool, BeforeValidator(_boolean)]
"""true or false, as YAML writes them (all values arrive as text)."""


@dataclass(frozen=True)
class Matching:
    """Annotation of a text that must match a pattern as a whole, with a message for people."""

    pattern: str
    otherwise: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        compiled = re.compile(self.pattern)

        def check(value: str) -> str:
            if compiled.fullmatch(value) is None:
                raise ValueError(self.otherwise)
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}


Name = Annotated[
    str,
    Matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "not a name: letters, digits, dot, underscore and dash, at most 64"),
]
"""A name an operator gives."""

Label = Annotated[str, Matching(r"[^\x00-\x1f\x7f]{1,200}", "not a text of 1 to 200 characters in one line")]
"""Free text for people."""

Said = Annotated[str, Matching(r"(?=.*\S)[^\x00-\x1f\x7f]{1,500}", "not a text of 1 to 500 characters in one line")]
"""Who or why (see `ports.check_said`)."""


def validate(model: type[_Model], document: Document) -> _Model | None:
    """The document as a model, or None with all its problems added to the document."""
    data = {} if document.data is None else document.data
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False):
            _report(model, document, error)
        return None


def salvage(kind: Any, data: Any, adapter: TypeAdapter[Any] | None = None) -> Any:
    """What is right of data with mistakes, so that they hide no others; never to be run with.

    Lists and sections stay as they are, with None in the place of every wrong or missing value.

    Args:
        kind: a model, or the annotation of a field.
        data: what stands in the file.
        adapter: that of the kind, where there is one already.
    """
    try:
        return (adapter or TypeAdapter(kind)).validate_python(data)
    except ValidationError:
        pass
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is list and isinstance(data, list):
        (item,) = typing.get_args(kind)
        adapter = TypeAdapter(item)
        return [salvage(item, value, adapter) for value in data]
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(data, dict):
        fields = {
            name: salvage(field.rebuild_annotation(), data[name])
            if name in data
            else field.get_default(call_default_factory=True)
            for name, field in kind.model_fields.items()
        }
        return kind.model_construct(
            **{name: None if value is PydanticUndefined else value for name, value in fields.items()}
        )
    return None


def present(items: Sequence[_Item | None] | None) -> Iterator[tuple[int, _Item]]:
    """The items that `salvage` left, each with its index."""
    for index, item in enumerate(items or ()):
        if item is not None:
            yield index, item


def _report(model: type[BaseModel], document: Document, error: Any) -> None:
    path: Path = tuple(error["loc"])
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        known = _names(model, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        document.problem(path, f"unknown setting ({hint})", at_key=True)
        return
    if kind == "missing":
        document.problem(path[:-1], f"{path[-1]} is missing")
        return
    if kind in {"enum", "literal_error"}:
        allowed = error["ctx"]["expected"].replace("'", "")
        near = difflib.get_close_matches(str(_given(document.data, path)), re.split(r", | or ", allowed), n=1)
        message = f"not one of {allowed}" + (f" (did you mean {near[0]}?)" if near else "")
    message = message.removeprefix("Value error, ")
    document.problem(path, message[0].lower() + message[1:])


def _given(data: Any, path: Path) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return ""
    return data


def _names(model: type[BaseModel], path: Path) -> list[str]:
    """The setting names that are known at a path."""
    current: Any = model
    for step in path:
        current = section_in(current)
        if isinstance(step, str) and current is not None and step in current.model_fields:
            current = current.model_fields[step].annotation
    section = section_in(current)
    return [] if section is None else list(section.model_fields)


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``list[Model]``, ``dict[str, Model]``, ``Model | None`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {list, tuple, dict, typing.Union, types.UnionType, Annotated}:
        for argument in typing.get_args(annotation):
            if (found := section_in(argument)) is not None:
                return found
    return None
