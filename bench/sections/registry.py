"""All sections by name, in the order in which they run."""

from __future__ import annotations

from typing import Final

from bench.sections import Section, core, freeswitch, kamailio, latency, memory, parts, scale

_ALL: Final = (
    core.SECTION, parts.SECTION, kamailio.SECTION, latency.SECTION, freeswitch.SECTION, scale.SECTION, memory.SECTION,
)  # fmt: skip

SECTIONS: Final[dict[str, Section]] = {section.name: section for section in _ALL}
