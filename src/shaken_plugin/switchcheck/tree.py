"""The preprocessed text as a tree whose elements know their file and line."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.sax import SAXException  # the exception alone; defusedxml parses
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl, Locator

from defusedxml import DefusedXmlException, sax

from shaken_plugin.errors import Problem
from shaken_plugin.switchcheck.findings import Check, Finding
from shaken_plugin.switchcheck.preprocessor import Place, Text

MAX_NESTING: Final = 200
MAX_ELEMENTS: Final = 1_000_000

_BARE_AMPERSAND: Final = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});)")
_NAMES: Final = ("name", "id")


@dataclass(slots=True, eq=False)
class Element:
    """An element of the configuration."""

    tag: str
    attributes: dict[str, str]
    place: Place
    column: int
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)

    def get(self, name: str) -> str:
        """An attribute, empty where there is none, as FreeSWITCH reads it."""
        return self.attributes.get(name, "")

    def above(self) -> Iterator[Element]:
        """The elements around it, from the nearest outwards."""
        element = self.parent
        while element is not None:
            yield element
            element = element.parent

    def all(self, *tags: str) -> Iterator[Element]:
        """All elements below it with one of these tags, in the order of the text."""
        waiting = list(reversed(self.children))
        while waiting:
            element = waiting.pop()
            if element.tag in tags:
                yield element
            waiting += reversed(element.children)

    def inside(self, tag: str) -> Element | None:
        """The nearest element around it with a tag."""
        return next((element for element in self.above() if element.tag == tag), None)

    @property
    def path(self) -> str:
        """Where it is, for people: the names of what is around it."""
        chain = [element for element in (self, *self.above()) if element.tag != "section"]
        named = [(element, next(filter(None, map(element.get, _NAMES)), "")) for element in reversed(chain)]
        return " > ".join(f"{element.tag} {name}" for element, name in named if name)

    def finding(self, check: Check, message: str) -> Finding:
        """A finding about it."""
        return Finding(check, Problem(self.place.file, self.place.line, self.column, self.path, message))


class _Stop(Exception):
    """More elements than are looked at."""


class _Builder(ContentHandler):
    def __init__(self, places: list[Place]) -> None:
        super().__init__()
        self.root = Element("", {}, Place("", 0), 0)
        self.closed = False
        self._places = places
        self._open = [self.root]
        self._count = 0
        self._locator: Locator | None = None

    def setDocumentLocator(self, locator: Locator) -> None:  # noqa: N802  # the name of SAX
        self._locator = locator

    def position(self) -> tuple[Place, int]:
        """Where the parser is."""
        assert self._locator is not None
        line = self._locator.getLineNumber() or 1
        return self._places[min(line, len(self._places)) - 1], (self._locator.getColumnNumber() or 0) + 1

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802  # the name of SAX
        place, column = self.position()
        self._count += 1
        if len(self._open) > MAX_NESTING or self._count > MAX_ELEMENTS:
            raise _Stop
        element = Element(name, dict(attrs.items()), place, column, self._open[-1])
        self._open[-1].children.append(element)
        self._open.append(element)

    def endElement(self, name: str) -> None:  # noqa: ARG002, N802  # the signature of SAX
        self._open.pop()
        self.closed = len(self._open) == 1


def parse(text: Text) -> Element:
    """The tree of a text; as far as the first mistake, which is added to the text's findings.

    Bare ampersands are text to FreeSWITCH's parser, and so they are here. Declarations of entities
    are refused: nine lines of them can unfold to gigabytes.
    """
    builder = _Builder(text.places)
    if not text.lines:
        return builder.root
    content = _BARE_AMPERSAND.sub("&amp;", "\n".join(text.lines)).encode("utf-8", "replace")
    parser = sax.make_parser()
    parser.forbid_dtd = True
    parser.setContentHandler(builder)
    check, message = None, ""
    try:
        parser.parse(io.BytesIO(content))
    except DefusedXmlException:
        check, message = Check.XML_DOCTYPE, "a DOCTYPE is not accepted here; FreeSWITCH needs none: take it out"
    except _Stop:
        check, message = Check.XML_TOO_LARGE, f"elements nested deeper than {MAX_NESTING}, or too many"
    except SAXException as exc:
        # FreeSWITCH stops reading at the end of the first element, whatever follows. And a text
        # that was cut off is not its author's mistake.
        cut = any(finding.check is Check.XML_TOO_LARGE for finding in text.findings)
        if not builder.closed and not cut:
            reason = exc.getMessage()
            check, message = Check.XML_MALFORMED, f"not XML: {reason}; put it right and check again"
    if check is not None:
        place, column = builder.position()
        text.findings.append(Finding(check, Problem(place.file, place.line, column, "", message)))
        text.whole = False
    return builder.root
