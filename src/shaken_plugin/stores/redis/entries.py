"""What the log of a fleet consists of, and the texts that it is kept as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from shaken_plugin.errors import StoreError
from shaken_plugin.ports import Author
from shaken_plugin.stores.redis.pieces import Sealed, damaged

SCHEMA: Final = 1
"""Of the keys and entries below, in P:meta. A fleet says which it has, and in ``reads`` the oldest release's that may
still read it; one that is newer than `SCHEMA` is read where it may be, and changed by its own release alone."""

MAX_INLINE: Final = 65_536
"""Octets of operations, compressed, that an entry holds itself."""

MAX_HEADER: Final = 65_536

YEAR_10000: Final = 253_402_300_800
"""In POSIX seconds: no calendar of ours has a later moment."""


class Head(NamedTuple):
    """The newest version, and which of those that might have that number it is."""

    version: int
    txid: str


class Snapshot(NamedTuple):
    """Where a version lies as a whole."""

    head: Head
    txid: str
    """Of its chunks."""
    sealed: Sealed


class View(NamedTuple):
    """A fleet as it was at one moment."""

    identifier: str
    schema: int
    head: Head
    snapshot: Snapshot | None
    """None for a fleet whose log has everything, from version 1."""
    waiting: int
    """Octets of operations since the snapshot."""


class Entry(NamedTuple):
    """A change in the log."""

    head: Head
    """The version that it makes."""
    after: str
    """The txid of the version before."""
    author: Author
    what: str
    applied: bool
    sealed: Sealed
    inline: bytes


class _Header(NamedTuple):
    """What an entry says of itself, as JSON."""

    after: str
    at: Annotated[float, Field(ge=0, lt=YEAR_10000, allow_inf_nan=False)]
    who: str
    why: str
    what: str
    applied: bool
    sealed: Sealed


_HEADER: Final = TypeAdapter(_Header)
_SNAPSHOT: Final = TypeAdapter(Snapshot)


def view_of(words: Sequence[Any], name: str) -> View | None:
    """A fleet as `scripts.LOOK` gives it; None where there is none.

    Raises:
        Damaged: no release wrote this.
        StoreError: one did that we cannot read.
    """
    identifier, schema, reads, snapshot, waiting, version, txid = [
        None if word is None else text(word) for word in words
    ]
    if identifier is None:
        return None
    try:
        found = None if not snapshot else _SNAPSHOT.validate_json(snapshot)
        view = View(identifier, int(str(schema)), Head(int(str(version)), str(txid)), found, int(str(waiting)))
        oldest = int(str(reads))
        if not all(0 <= head.version < 2**63 for head in (view.head, found.head if found else view.head)):
            raise ValueError("no version")
    except ValueError as exc:
        raise damaged(name, f"its head is none ({type(exc).__name__})") from exc
    if oldest > SCHEMA:
        raise StoreError(
            f"{name}: its schema {view.schema} is newer than this release can read ({SCHEMA}); "
            "install the release that wrote it"
        )
    return view


def entry_of(row: Any, fleet: str) -> Entry:
    """An entry as XRANGE gives it.

    Raises:
        Damaged: no release wrote this.
    """
    name = f"{fleet}, version {text(row[0])[:32]}"
    try:
        fields = dict(zip(row[1][::2], row[1][1::2], strict=True)) if isinstance(row[1], list) else dict(row[1])
        if len(fields[b"head"]) > MAX_HEADER or len(fields[b"data"]) > MAX_INLINE:
            raise ValueError("it is too long")
        header = _HEADER.validate_json(fields[b"head"])
        version, _, rest = text(row[0]).partition("-")
        if rest != "0":
            raise ValueError("no id of ours")
        author = Author(header.who, header.why, header.at)
        head = Head(int(version), text(fields[b"txid"]))
    except (ValueError, LookupError, TypeError) as exc:
        said = "its header is none" if isinstance(exc, ValidationError) else repr(exc)
        raise damaged(name, said) from exc
    return Entry(head, header.after, author, header.what, header.applied, header.sealed, fields[b"data"])


def snapshot_text(snapshot: Snapshot) -> str:
    """As P:meta has it."""
    return _SNAPSHOT.dump_json(snapshot).decode()


def commit_words(view: View, entry: Entry, material: Mapping[str, str | None]) -> list[Any]:
    """The arguments of `scripts.COMMIT`.

    Raises:
        StoreError: what is said of the change is more than a reader takes.
    """
    at, who, why = entry.author.at, entry.author.who, entry.author.why
    header = _Header(entry.after, at, who, why, entry.what, entry.applied, entry.sealed)
    said = _HEADER.dump_json(header)
    if len(said) > MAX_HEADER:
        raise StoreError(f"what is said of the change has {len(said)} octets; {MAX_HEADER} are the most that are kept")
    words: list[Any] = [view.identifier, view.head.version, view.head.txid, f"{entry.head.version}-0", entry.head.txid]
    chunks = 0 if entry.inline else entry.sealed.pieces
    words += [said, entry.inline, entry.head.version, chunks, entry.sealed.length]
    for name, body in material.items():
        words += ["drop", name, ""] if body is None else ["set", name, body]
    return words


def text(value: Any) -> str:
    """A word of Redis as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
