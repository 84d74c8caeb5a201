"""What the hosts of a fleet tell each other of customers: standings, calls that count, decisions, in one order.

``P:state`` is a stream whose entries are numbered without a gap, ``P:state:head`` says how far it goes and where the
snapshot is that whoever joins begins with. What the entries mean is not known here (`conduct.acts`).
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.stores.redis import scripts, statescripts
from shaken_plugin.stores.redis.connection import RedisAccess, connect, reaching
from shaken_plugin.stores.redis.log import STAGED, late

MAX_BODY: Final = 16 * 1_048_576
"""Octets of an act or a piece of a snapshot, unpacked; and about as many of the acts that are unpacked at a time."""

MAX_ANSWER: Final = MAX_BODY
"""Octets of entries that are fetched at a time, packed, but for one."""

MAX_PIECES: Final = 16_384
MAX_PACKED: Final = 256 * 1_048_576
"""Octets of a snapshot, packed: as much of it is in memory."""

MAX_STATE: Final = 2_048 * 1_048_576
"""Octets of a snapshot, unpacked."""

BODY_KEPT: Final = 30 * 86_400
"""Seconds for which the body of a message stays the one that was sent first, whichever host sends it again."""

TAIL: Final = 1_000
"""Entries that stay in the stream although the snapshot has them, for hosts that are a little behind."""


class Head(NamedTuple):
    """How far the fleet is. ``fleet`` is another after Redis lost everything, ``last`` names the newest entry."""

    fleet: str
    position: int
    last: str
    snapshot: int
    """The position of the snapshot."""


class Entry(NamedTuple):
    """One act: the ``seq``-th of the outbox of ``source``. ``uid`` is its own wherever it is."""

    position: int
    source: str
    seq: int
    uid: str
    body: bytes


class Snapshot(NamedTuple):
    """The state of a fleet as it was behind an entry, in pieces of at most `MAX_BODY` octets.

    Those of one that was fetched are unpacked as they are read, once.
    """

    fleet: str
    position: int
    last: str
    pieces: Iterable[bytes]


class Gap(Exception):
    """The entries behind a position are not those that follow: some are gone, or others are in their place."""


class StateStream:
    """The state of a fleet in its Redis. Threads may share it; nothing is tried twice.

    Every method raises StoreUnavailable where Redis cannot be had, and StoreError where it does not do what it was
    asked for (it has no memory left, its content is damaged).

    Args:
        access: how Redis is reached.
        fleet: the fleet's name.
    """

    def __init__(self, access: RedisAccess, fleet: str) -> None:
        self.access = access
        self._client = connect(access)
        self._prefix, self._chunks = f"shaken:{{{fleet}}}", f"shaken:{fleet}:chunk"
        self._head, self._stream = f"{self._prefix}:state:head", f"{self._prefix}:state"
        self._keys = (self._head, self._stream, f"{self._prefix}:staged")

    def close(self) -> None:
        """Close all connections."""
        with reaching(self.access):
            self._client.close()

    def _ask(self, *words: str | float | bytes) -> Any:
        with reaching(self.access):
            return self._client.execute_command(*words)  # type: ignore[no-untyped-call]  # its types have gaps

    def _run(self, script: str, keys: Sequence[str], *arguments: str | int | bytes) -> Any:
        return self._ask("EVAL", script, len(keys), *keys, *arguments)

    # --- The order of all acts ----------------------------------------------------------------

    def head(self) -> Head | None:
        """How far the fleet is; None where no host has begun it yet."""
        found = self._ask("HMGET", self._head, "fleet", "position", "last", "snapshot")
        if found[0] is None:
            return None
        try:
            return Head(found[0].decode(), int(found[1]), found[2].decode(), int(found[3]))
        except (ValueError, TypeError, AttributeError) as exc:
            raise StoreError(f"{self.access.name}: {self._head} is damaged: {exc}") from exc

    def publish(self, fleet: str, source: str, seq: int, uid: str, body: str) -> bool:
        """Give an act its place behind all others; whether it is still the fleet of this id."""
        packed = zlib.compress(body.encode())
        return bool(self._run(statescripts.PUBLISH, self._keys[:2], fleet, source, seq, uid, packed))

    def after(self, position: int, last: str, most: int) -> list[Entry]:
        """The entries behind one; fewer than there are where they are long.

        Args:
            position: its number; 0: the first are asked for.
            last: its uid.
            most: how many at most.

        Raises:
            Gap: it is not there any more, or another is in its place.
        """
        begin = position or 1
        found = self._run(scripts.AFTER, [self._stream], f"{begin}-0", most + 1, MAX_ANSWER)
        try:
            rows = [_row(*row) for row in found]
            if [row[0] for row in rows] != list(range(begin, begin + len(rows))):
                raise Gap
            if position and (not rows or rows[0][1][b"u"] != last.encode()):
                raise Gap
            return _entries(rows[1:] if position else rows[:most])
        except (ValueError, TypeError, LookupError, AttributeError, zlib.error) as exc:
            raise StoreError(f"{self.access.name}: {self._stream} is damaged: {exc!r}") from exc

    def wait(self, position: int, seconds: float) -> bool:
        """Wait until there is an entry behind a position; whether there is. Never longer than half the time-out."""
        block = max(1, int(1_000 * min(seconds, self.access.timeout / 2)))
        return bool(self._ask("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", self._stream, f"{position}-0"))

    # --- Snapshots ------------------------------------------------------------------------------

    def found(self, fleet: str, pieces: Iterable[bytes]) -> bool:
        """Begin the fleet with a snapshot; whether nobody was faster.

        Args:
            fleet: an id that is nobody else's.
            pieces: of the snapshot, which gets position 0.

        Raises:
            StoreError: also where uploading took so long that what was uploaded is waste by now.
        """
        name, count = self._upload(pieces)
        answer = self._run(statescripts.FOUND, self._keys, fleet, name, count)
        return self._in_force(answer, name, count)

    def replace_snapshot(self, snapshot: Snapshot) -> bool:
        """Put a newer snapshot in the place of the other, and let go of entries well before it.

        Raises:
            StoreError: as for `found`.
        """
        name, count = self._upload(snapshot.pieces)
        keep = max(1, snapshot.position - TAIL)
        values = (snapshot.fleet, snapshot.position, snapshot.last, name, count, keep)
        answer, *before = self._run(statescripts.REPLACE, self._keys, *values)
        if not self._in_force(answer, name, count):
            return False
        self._drop(before[0].decode(), int(before[1]))
        return True

    def snapshot(self) -> Snapshot:
        """The snapshot that is in force."""
        found = self._ask("HMGET", self._head, "snapshot", "snapshot_last", "pieces", "count", "fleet")
        if found[0] is None:
            raise StoreUnavailable(f"{self.access.name}: what the fleet knows of customers is gone")
        try:
            last, name, fleet = (found[index].decode() for index in (1, 2, 4))
            position, count = int(found[0]), int(found[3])
            if not 0 <= count <= MAX_PIECES:
                raise ValueError(f"{count} pieces")
        except (ValueError, TypeError, AttributeError) as exc:
            raise StoreError(f"{self.access.name}: {self._head} is damaged: {exc}") from exc
        packed = self._fetched(name, count)
        return Snapshot(fleet, position, last, map(_unpacked, packed))

    def _fetched(self, name: str, count: int) -> list[bytes]:
        """The pieces of a snapshot as they are kept: each can be unpacked, and all of them together are bounded."""
        packed: list[bytes] = []
        room, unpacked = MAX_PACKED, MAX_STATE
        for number in range(count):
            # One octet more than fits says that it is too long, however long it is.
            piece = self._ask("GETRANGE", f"{self._chunks}:{name}:{number}", 0, min(room, MAX_BODY))
            if not piece:
                text = "the snapshot of the state is incomplete, or was just replaced"
                raise StoreUnavailable(f"{self.access.name}: {text}")
            try:
                unpacked -= len(_unpacked(piece))
            except (zlib.error, ValueError) as exc:
                raise self._damaged(str(exc)) from exc
            room -= len(piece)
            if min(room, unpacked) < 0:
                raise self._damaged(f"it is of more than {MAX_STATE} octets, or {MAX_PACKED} packed")
            packed.append(piece)
        return packed

    def _damaged(self, why: str) -> StoreError:
        return StoreError(f"{self.access.name}: the snapshot of the state is damaged: {why}")

    def _upload(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Write pieces under a new name, which is known as unfinished until a script takes it into force."""
        name, count = f"state-{uuid.uuid4()}", 0
        self._stage(name, "first")
        for count, piece in enumerate(pieces, 1):  # also what is returned
            self._ask("SET", f"{self._chunks}:{name}:{count - 1}", zlib.compress(piece))
            if not self._stage(name, "again"):
                self._drop(name, count)
                raise self._late()
        return name, count

    def _stage(self, name: str, which: str) -> bool:
        return bool(self._run(scripts.STAGE, self._keys[2:], name, STAGED, which))

    def _in_force(self, answer: bytes, name: str, count: int) -> bool:
        """Whether a script took what was uploaded into force; what it did not take is removed."""
        if answer == b"done":
            return True
        self._drop(name, count)
        if answer == b"late":
            raise self._late()
        return False

    def _late(self) -> StoreError:
        return late(f"{self.access.name}, snapshot of the state")

    def _drop(self, name: str, count: int) -> None:
        for number in range(count):
            self._ask("UNLINK", f"{self._chunks}:{name}:{number}")
        self._ask("ZREM", self._keys[2], name)

    # --- Messages -------------------------------------------------------------------------------

    def claim(self, message: str, source: str, seconds: int, body: bytes) -> bytes | None:
        """Be the one host that sends a message.

        Args:
            message: its id.
            source: who asks; who has it may ask again.
            seconds: for how long nobody else is to try.
            body: what it would send.

        Returns:
            What is to be sent, the body of whoever was first; None where another host has it.
        """
        keys = [f"{self._prefix}:state:claim:{message}", f"{self._prefix}:state:body:{message}"]
        found: bytes | None = self._run(statescripts.CLAIM, keys, source, seconds, body, BODY_KEPT)
        return found


_Row = tuple[int, dict[bytes, bytes]]


def _row(identifier: bytes, words: list[bytes]) -> _Row:
    return int(identifier.partition(b"-")[0]), dict(zip(words[::2], words[1::2], strict=True))


def _entries(rows: Iterable[_Row]) -> list[Entry]:
    """The first entries, until they are of `MAX_BODY` octets together."""
    entries: list[Entry] = []
    room = MAX_BODY
    for position, values in rows:
        body = _unpacked(values[b"b"])
        source, uid = values[b"s"].decode(), values[b"u"].decode()
        entries.append(Entry(position, source, int(values[b"n"]), uid, body))
        room -= len(body)
        if room <= 0:
            break
    return entries


def _unpacked(packed: bytes) -> bytes:
    """What was compressed, bounded.

    Raises:
        ValueError, zlib.error: it is more, or damaged.
    """
    reader = zlib.decompressobj()
    found = reader.decompress(packed, MAX_BODY)
    if not reader.eof or reader.unused_data:
        raise ValueError(f"it is no whole, or of more than {MAX_BODY} octets")
    return found
