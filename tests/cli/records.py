"""A contact centre's records, made by the commands themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from click.testing import Result

Run = Callable[..., Result]
RunJson = Callable[..., Any]

WHY: Final = ("--why", "ticket 4711", "--by", "anna")

CENTRE: Final[tuple[tuple[str, ...], ...]] = (
    ("customer", "add", "acme", "--name", "Acme Contact Centre", "--kind", "contact_centre", "--state", "verified"),
    ("trunk", "add", "acme-dialler", "--customer", "acme", "--address", "198.51.100.0/24"),
    ("number", "add", "+12155551200..+12155551299", "--customer", "acme", "--basis", "assigned"),
    ("letter", "add", "LOA-1", "--customer", "acme", "--owner", "Example Clinic", "--valid-until", "2099-06-30",
     "--approved-by", "Bob", "--numbers", "+13125550142"),
)  # fmt: skip
"""A customer with a trunk, numbers of its own, and a client's by letter."""


def make_centre(run: Run) -> None:
    """Make it: four versions of the policy."""
    for command in CENTRE:
        run(*command, *WHY)


def letter_file(folder: Path, text: str = "we authorise Acme") -> Path:
    """A letter's document."""
    path = folder / "letter.pdf"
    path.write_text(text)
    return path
