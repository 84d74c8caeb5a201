"""The options of a record, made from its dataclass: names, types, help; and records as text and JSON.

``kyc.legal_name`` is ``--legal-name``, what ends in ``_at`` drops that, a tuple is an option that may be
given several times. What an attribute's docstring says is the help of the option.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, TypeVar

import click

from shaken_plugin.cli.output import Moment
from shaken_plugin.cli.records.values import NUMBER, PREFIX, SWITCH, WEEK, Checked, Clock, Days, OneOf, day
from shaken_plugin.config.fields import Country, LastMoment, UuidText
from shaken_plugin.config.models import Label, Name
from shaken_plugin.config.policyvalues import Address, UserName
from shaken_plugin.core.records import Customer, DoNotOriginate, Limits, Rate, Record, Right, Route

R = TypeVar("R", bound=Record)

_LABEL, _NAME = Checked("text", Label), Checked("name", Name)
_BY_NAME: Final[Mapping[str, click.ParamType]] = {  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    "id": _NAME,
    "credential": _NAME,
    "customer": _NAME,
    "routes": _NAME,
    "country": Checked("country", Country),
    "origid": Checked("uuid", UuidText),
    "users": Checked("account", UserName),
    "addresses": Checked("address", Address),
    "valid_until": Checked("day", LastMoment),
    "number": NUMBER,
    "substitute": NUMBER,
    "destinations": PREFIX,
    "callers": PREFIX,
    "days": Days(),
    "begins": Clock(),
    "ends": Clock(),
    "utc_offset": click.IntRange(-840, 840),
}
_BY_TYPE: Final[Mapping[Any, click.ParamType]] = {str: _LABEL, float: Moment(), bool: SWITCH}  # type: ignore[type-arg]  # it is generic from click 8.4 on only
_SINGULAR: Final = {
    "addresses": "address",
    "users": "user",
    "destinations": "destination",
    "routes": "route",
    "callers": "caller",
}
_HELP: Final = {
    "id": "Its id.",
    "name": "Its name for people.",
    "state": "Know-your-customer.",
    "kind": "What kind of business it is.",
    "addresses": "Source address or network; may be given several times.",
    "users": "Account that the switch authenticated; may be given several times.",
    "customer": "Whose it is.",
    "credential": "Credential that signs these calls, instead of the default.",
    "basis": "What the right rests on.",
    "document": "Where the evidence is filed, or what it is called.",
    "use_case": "What the numbers are used for.",
    "valid_from": "First day or moment at which it holds.",
    "valid_until": "Last day, or the moment at which it no longer holds.",
    "approved_by": "Who approved it.",
    "approved_at": "When; by default now.",
    "reason": "Why these numbers must not originate calls.",
    "note": "A note for people.",
    "unauthorised": "What happens to a call with a caller ID that its customer has no right to.",
    "destinations": "Prefix of called numbers; may be given several times.",
    "routes": "Only on this route; may be given several times.",
    "callers": "Only for caller IDs with this prefix; may be given several times.",
    "days": "Only on these days of the week, for instance mon-fri.",
    "begins": "Only from this time of the day on.",
    "ends": "Only until this time of the day.",
    "sign": "Whether these calls are signed at all.",
    "ceiling": "Highest level these calls may get.",
    "legal_name": "Who the customer is by law.",
    "form_499": "FCC Form 499 Filer ID.",
    "utc_offset": "Minutes east of UTC of these times.",
    "rmd_checked_at": "When that was looked at.",
}
"""Help for attributes whose name says enough in the core; others have docstrings there."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attribute:
    """One value of a record."""

    path: tuple[str, ...]
    takes: click.ParamType  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    several: bool
    """It is a tuple, each item of which is given by an option of its own."""
    required: bool
    help: str
    refers: type[Record] | None = None
    """The kind of record that it names."""
    in_full: bool = False
    """It holds that record itself, not its id."""
    inner: type | None = None
    """Of a nested attribute: the dataclass it stands in."""

    @property
    def name(self) -> str:
        """As a parameter: ``legal_name``."""
        return _SINGULAR.get(self.path[-1], self.path[-1].removesuffix("_at"))

    @property
    def flag(self) -> str:
        """As an option: ``--legal-name``."""
        return "--" + self.name.replace("_", "-")

    def of(self, record: Any) -> Any:
        """Its value in a record; what it stands in not being there says the same as its defaults."""
        if record is None:
            return None
        if self.inner is None:
            return getattr(record, self.path[0])
        return getattr(getattr(record, self.path[0]) or self.inner(), self.path[1])

    def plain(self, record: Any) -> Any:
        """Its value for JSON."""
        return _plain(self.of(record))

    def text(self, record: Any) -> str:
        """Its value for people, as it could be typed."""
        value = self.of(record)
        if value is None or value == ():
            return ""
        show = _SHOWN.get(self.path[-1]) or _SHOWN_BY_TYPE.get(type(value), _plain)
        return ", ".join(str(show(item)) for item in (value if self.several else (value,)))


def limit_rows(limits: Limits) -> Iterator[tuple[str, str, str]]:
    """Bounds for people: of which calls, calls per second, concurrent calls."""
    for name, rate in (("all calls", limits.total), *((f"level {key.value}", rate) for key, rate in limits.by_level)):
        if rate != Rate():
            a_second = "" if rate.calls_per_second is None else f"{rate.calls_per_second:g}/s"
            yield name, a_second, "" if rate.concurrent is None else f"{rate.concurrent} at a time"


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Limits):
        total, by_level = value.total, {level.value: dataclasses.asdict(rate) for level, rate in value.by_level}
        return {"total": dataclasses.asdict(total), "by_level": by_level, "suspended": value.suspended}
    if isinstance(value, Customer):
        return value.id
    return str(value) if isinstance(value, IPv4Network | IPv6Network) else value


_SHOWN: Final[Mapping[str, Callable[[Any], str]]] = {
    "valid_until": lambda value: day(value, last=True),
    "number": lambda value: f"+{value}",
    "substitute": lambda value: f"+{value}",
    "destinations": lambda value: f"+{value}",
    "callers": lambda value: f"+{value}",
    "days": lambda value: ",".join(WEEK[index] for index in value),
    "begins": lambda value: f"{value // 60:02}:{value % 60:02}",
    "ends": lambda value: f"{value // 60:02}:{value % 60:02}",
}
_SHOWN_BY_TYPE: Final[Mapping[type, Callable[[Any], str]]] = {
    float: day,
    bool: lambda value: "yes" if value else "no",
    Limits: lambda value: (
        ", ".join(" ".join(filter(None, row)) for row in limit_rows(value)) + (", suspended" if value.suspended else "")
    ),
}


def _docstrings(kind: type) -> dict[str, str]:
    """What stands below each attribute of a dataclass."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for line, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
            text = ast.literal_eval(below.value)
            found[line.target.id] = " ".join(str(text).split())
    return found


def _walk(kind: type, above: tuple[str, ...] = ()) -> Iterator[Attribute]:
    told, hints = _docstrings(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, several = hints[field.name], False
        if typing.get_origin(hint) is types.UnionType and type(None) in typing.get_args(hint):
            (hint, *others) = (each for each in typing.get_args(hint) if each is not type(None))
            assert not others
        if typing.get_origin(hint) is tuple and field.name != "days":
            hint, several = typing.get_args(hint)[0], True
        path = (*above, field.name)
        if hint is Limits:
            yield Attribute(path, _LABEL, False, False, "")  # `shaken limits` sets them
            continue
        if dataclasses.is_dataclass(hint) and hint is not Customer:
            yield from _walk(hint, path)  # type: ignore[arg-type]  # a class
            continue
        refers = Customer if field.name == "customer" else Route if field.name == "routes" else None
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        help_ = _HELP.get(field.name) or told.get(field.name) or "In the know-your-customer file."
        inner = kind if above else None
        yield Attribute(path, _type(field.name, hint), several, required, help_, refers, hint is Customer, inner)


def _type(name: str, hint: Any) -> click.ParamType:  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    if name in _BY_NAME:
        return _BY_NAME[name]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return OneOf({str(item.value): item for item in hint})
    return _BY_TYPE[hint]


def attributes(kind: Any) -> tuple[Attribute, ...]:
    """All attributes of a kind of record; of two with one name the outer."""
    return _attributes(kind)


@cache
def _attributes(kind: type) -> tuple[Attribute, ...]:
    found: dict[str, Attribute] = {}
    for attribute in sorted(_walk(kind), key=lambda attribute: len(attribute.path)):
        found.setdefault(attribute.name, attribute)
    return tuple(found.values())


_BY_VERB: Final = {
    (Right, "sha256"),
    (Right, "path"),
    (Right, "suspended"),
    (DoNotOriginate, "suspended"),
    (Customer, "limits"),
}
"""Attributes that no option sets: a file's hash and path (`letter --file`), and what commands of their own do."""


def options(kind: type[Record]) -> tuple[Attribute, ...]:
    """Those attributes that options set."""
    return tuple(a for a in attributes(kind) if a.path != ("id",) and (kind, a.path[-1]) not in _BY_VERB)


def put(record: R, attribute: Attribute, value: Any) -> R:
    """The record with another value."""
    if attribute.path[-1] == "addresses":
        value = tuple(dict.fromkeys(ip_network(item) for item in value))
    if len(attribute.path) == 1:
        changes: dict[str, Any] = {attribute.path[0]: value}
        return dataclasses.replace(record, **changes)
    outer, name = attribute.path
    assert attribute.inner is not None
    inner = dataclasses.replace(getattr(record, outer) or attribute.inner(), **{name: value})
    optional = next(field for field in dataclasses.fields(record) if field.name == outer).default is None
    changes = {outer: None if optional and inner == attribute.inner() else inner}
    return dataclasses.replace(record, **changes)


def make(kind: type[R], values: Mapping[Attribute, Any]) -> R:
    """A new record."""
    record = kind(**{attribute.path[0]: value for attribute, value in values.items() if attribute.required})
    for attribute, value in values.items():
        record = put(record, attribute, value)
    return record


def nothing(attribute: Attribute, kind: type[Record]) -> Any:
    """The value that says nothing."""
    owner: Any = attribute.inner or kind
    return next(field.default for field in dataclasses.fields(owner) if field.name == attribute.path[-1])


def as_data(record: Record) -> dict[str, Any]:
    """A record for JSON: its attributes by name, nested as in the core; times are POSIX seconds."""
    data: dict[str, Any] = {}
    for attribute in attributes(type(record)):
        place = data
        for step in attribute.path[:-1]:
            place = place.setdefault(step, {})
        place[attribute.path[-1]] = attribute.plain(record)
    return data


def as_rows(record: Record) -> Iterator[tuple[str, str]]:
    """A record for people: name and value of what it says."""
    for attribute in attributes(type(record)):
        text = attribute.text(record)
        if text and (attribute.required or attribute.of(record) != nothing(attribute, type(record))):
            yield attribute.flag[2:].replace("-", " "), text


def differences(before: Record | None, after: Record | None) -> dict[str, tuple[Any, Any]]:
    """What differs, for JSON: ``kyc.legal_name``, and the value before and after."""
    return {".".join(each.path): (each.plain(before), each.plain(after)) for each in _differing(before, after)}


def difference_rows(before: Record | None, after: Record | None) -> Iterator[tuple[str, str, str]]:
    """The same for people."""
    for attribute in _differing(before, after):
        yield attribute.flag[2:].replace("-", " "), attribute.text(before), attribute.text(after)


def _differing(before: Record | None, after: Record | None) -> Iterator[Attribute]:
    """Of a record that is new or gone, what it says."""
    for attribute in attributes(type(before or after)):
        if attribute.path == ("id",) or attribute.plain(before) == attribute.plain(after):
            continue
        if (before and after) or attribute.of(before or after) != nothing(attribute, type(before or after)):  # type: ignore[arg-type]  # one of the two is there
            yield attribute
