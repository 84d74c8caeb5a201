"""What is measured: each section can be run alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.results import Report
from bench.stores import Stores

TOO_BUSY: Final = "the machine was too busy, or is too slow for this rate: measure again"


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure.

    ``folder`` is a scratch folder of the section. ``begin`` begins a progress bar of so many steps, and returns
    what advances it by one. ``stores`` are for all sections.
    """

    quick: bool
    folder: Path
    begin: Callable[[str, int], Callable[[], object]]
    stores: Stores


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the benchmark."""

    name: str
    title: str
    run: Callable[[Options], Report]
    has_ratios: bool = True
    """Whether it compares anything: the quick run, which is for the ratios, leaves it out otherwise."""
