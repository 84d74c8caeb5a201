"""All sections by name, in the order in which they run."""

from __future__ import annotations

from typing import Final

from bench.sections import Section, core, kamailio, scale

_ALL: Final = (core.SECTION, scale.SECTION, kamailio.SECTION)

SECTIONS: Final[dict[str, Section]] = {section.name: section for section in _ALL}
