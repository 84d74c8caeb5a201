"""What a change or a snapshot consists of, as bytes: JSON lines and blocks of numbers, compressed, cut into pieces.

Numbers are kept as their differences, eight octets each, which compress to some two or three. Nobody holds all of it
in memory: who writes does so into a temporary file, and who reads takes one piece after another. What comes out of
Redis may be damaged or somebody else's: it is bounded in size and depth, and its digest is compared before anything
of it is kept.
"""

from __future__ import annotations

import json
import operator
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import accumulate, islice
from tempfile import SpooledTemporaryFile
from typing import Any, Final, NamedTuple, Self

from shaken_plugin.errors import StoreError

PIECE: Final = 1_048_576
"""Octets of a piece at most: what is one value in Redis."""

MAX_PIECES: Final = 16_384
"""Of one change or snapshot: 16 GiB."""

MAX_LINE: Final = 2_097_152
"""Octets of a line, which has one record at most; as objects, a hostile one takes some 30 times as much."""

BLOCK: Final = 10_000
"""Numbers that are held as objects at a time."""

_LEVEL: Final = 3
_STEP: Final = 65_536
_EIGHT: Final = 8


class Damaged(StoreError):
    """What lies in Redis is not what any release wrote, or not for this policy."""


class Sealed(NamedTuple):
    """What is known of the bytes of a change or snapshot before they are read."""

    pieces: int
    length: int
    """Octets, compressed."""
    size: int
    """Octets of what they hold."""
    digest: str
    """SHA-256 of the compressed octets, in hex."""


class Writer:
    """Takes lines and numbers; then gives the pieces. To be closed."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=PIECE)  # noqa: SIM115  # closed with this
        self._compressor = zlib.compressobj(_LEVEL)
        self._digest = sha256()
        self._size = self._length = 0

    def line(self, *values: Any) -> None:
        """Add a line.

        Raises:
            StoreError: it is longer than a reader takes.
        """
        data = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if len(data) > MAX_LINE:
            raise StoreError(f"a record of {len(data)} octets is more than a fleet takes ({MAX_LINE})")
        self._put(data)

    def numbers(self, values: Iterable[int]) -> None:
        """Add integers, of which a line before says how many; sorted ones take the least room."""
        for block in blocks(values):
            self._put(_packed(block))

    def pairs(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Add pairs of integers, likewise."""
        for block in blocks(pairs):
            self._put(_packed([first for first, _ in block]))
            self._put(_packed([last - first for first, last in block]))

    def _put(self, data: bytes) -> None:
        self._size += len(data)
        self._keep(self._compressor.compress(data))

    def _keep(self, data: bytes) -> None:
        self._length += len(data)
        self._digest.update(data)
        self._file.write(data)

    def seal(self) -> Sealed:
        """Everything is there.

        Raises:
            StoreError: it is more than a fleet takes.
        """
        self._keep(self._compressor.flush())
        pieces = -(-self._length // PIECE)
        if pieces > MAX_PIECES:
            raise StoreError(f"{self._length} octets at once are more than a fleet takes ({MAX_PIECES * PIECE})")
        return Sealed(pieces, self._length, self._size, self._digest.hexdigest())

    def pieces(self) -> Iterator[bytes]:
        """What was sealed, piece by piece."""
        self._file.seek(0)
        while piece := self._file.read(PIECE):
            yield piece

    def close(self) -> None:
        """Forget everything."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class Reader:
    """Gives what a `Writer` took, in the same order.

    Args:
        pieces: as they are fetched.
        sealed: what is known of them.
        name: what they are, for messages.
    """

    def __init__(self, pieces: Iterable[bytes], sealed: Sealed, name: str) -> None:
        self._pieces = iter(pieces)
        self._sealed = sealed
        self._name = name
        self._decompressor = zlib.decompressobj()
        self._digest = sha256()
        self._buffer = bytearray()
        self._length = self._size = 0
        self._rest = b""

    def line(self) -> list[Any] | None:
        """The next line; None at the end, when all was there, and nothing else.

        Raises:
            StoreError: it is damaged.
            StoreUnavailable: it cannot be fetched.
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_LINE:
                raise self._damaged("a line has no end")
            if not self._more():
                if searched:
                    raise self._damaged("it ends in a line")
                self._check_end()
                return None
        data = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise self._damaged("a line is no JSON") from exc
        if not isinstance(values, list) or not values:
            raise self._damaged("a line is no list")
        return values

    def numbers(self, count: int) -> Iterator[int]:
        """So many integers, likewise."""
        for size in _sizes(count):
            yield from self._block(size)

    def pairs(self, count: int) -> Iterator[tuple[int, int]]:
        """So many pairs of integers, likewise."""
        for size in _sizes(count):
            firsts = self._block(size)
            yield from ((first, first + width) for first, width in zip(firsts, self._block(size), strict=True))

    def _block(self, size: int) -> list[int]:
        wanted = size * _EIGHT
        while len(self._buffer) < wanted:
            if not self._more():
                raise self._damaged("it ends among numbers")
        values = array("q", bytes(self._buffer[:wanted]))
        del self._buffer[:wanted]
        if sys.byteorder == "big":
            values.byteswap()
        return list(accumulate(values))

    def _more(self) -> bool:
        """Take in some more octets; whether there were any."""
        while not self._decompressor.eof:
            last = not self._rest and not self._fetch()
            try:
                found = self._decompressor.decompress(self._rest, _STEP)
            except zlib.error as exc:
                raise self._damaged(str(exc)) from exc
            self._rest = self._decompressor.unconsumed_tail
            if self._decompressor.unused_data:
                raise self._damaged("something follows its end")
            self._size += len(found)
            if self._size > self._sealed.size:
                raise self._damaged("it holds more than it says")
            if found:
                self._buffer += found
                return True
            if last:
                return False
        return False

    def _fetch(self) -> bool:
        """Have the next piece in ``_rest``, where there is one."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._length += len(piece)
        self._digest.update(piece)
        if len(piece) > PIECE or self._length > self._sealed.length:
            raise self._damaged("it is longer than it says")
        self._rest = piece
        return True

    def _check_end(self) -> None:
        if next(self._pieces, None) is not None:
            raise self._damaged("something follows its end")
        whole = (self._length, self._size, self._digest.hexdigest())
        if not self._decompressor.eof or whole != (self._sealed.length, self._sealed.size, self._sealed.digest):
            raise self._damaged("it is not what was written")

    def _damaged(self, why: str) -> Damaged:
        return damaged(self._name, why)


def damaged(name: str, why: str) -> Damaged:
    """The error of something in Redis that no release wrote."""
    return Damaged(f"{name}: its content is damaged: {why}")


def blocks(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Values in lists of `BLOCK`."""
    waiting = iter(values)
    while block := list(islice(waiting, BLOCK)):
        yield block


def _sizes(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, BLOCK)
        count -= BLOCK


def _packed(values: list[int]) -> bytes:
    packed = array("q", [values[0], *map(operator.sub, values[1:], values)])
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
