"""The log of a fleet's policy in Redis: its head, its entries, and the chunks that are too large for an entry."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import redis
from redis.cluster import RedisCluster

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.stores.redis import scripts
from shaken_plugin.stores.redis.connection import Client, RedisAccess, connect, reaching
from shaken_plugin.stores.redis.entries import SCHEMA, Entry, Head, View, commit_words, entry_of, text, view_of
from shaken_plugin.stores.redis.locking import POLL, Locks, allowed_now
from shaken_plugin.stores.redis.pieces import MAX_PIECES, PIECE, Reader, Sealed, Writer, damaged
from shaken_plugin.stores.sqlite.schema import Patience

__all__ = ["SCHEMA", "Entry", "FleetLog", "Head", "View"]

MAX_ANSWER: Final = 16_777_216
"""Octets of entries that are fetched at a time, but for one."""

STAGED: Final = 3_600
"""Seconds for which what is being uploaded is nobody's waste."""


class NoFleet(StoreError):
    """Redis has no fleet of that name."""


class FleetLog:
    """A fleet's log. Thread-safe; connects at its first use.

    Args:
        access: how its Redis is reached.
        fleet: its name, 1 to 32 small letters, digits and dashes.
    """

    def __init__(self, access: RedisAccess, fleet: str) -> None:
        self.access = access
        self.fleet = fleet
        self._client: Client | None = None
        self._connecting = threading.Lock()
        self._locks = Locks(self)

    @property
    def name(self) -> str:
        """For people."""
        return f"fleet {self.fleet} in {self.access.name}"

    @property
    def client(self) -> Client:
        """The client of its Redis.

        Raises:
            StoreUnavailable: it cannot be had.
        """
        with self._connecting:
            if self._client is None:
                self._client = connect(self.access)
            return self._client

    def close(self) -> None:
        """Close the connections; the next use opens others."""
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def key(self, name: str) -> str:
        """The key of something of this fleet; all of these lie in one slot of a Cluster."""
        return f"shaken:{{{self.fleet}}}:{name}"

    def chunk_key(self, txid: str, number: int) -> str:
        """The key of a chunk; these are spread over a Cluster."""
        return f"shaken:{self.fleet}:chunk:{txid}:{number}"

    def command(self, *words: Any) -> Any:
        """The answer to a command.

        Raises:
            StoreUnavailable, StoreError: see `connection.reaching`.
        """
        with reaching(self.access):
            client: Any = self.client  # of two classes, whose types have gaps
            return client.execute_command(*words)

    def run(self, script: str, names: Iterable[str], *arguments: Any) -> Any:
        """What a script gives, that works on keys of this fleet.

        Raises:
            StoreUnavailable, StoreError: likewise.
        """
        keys = [self.key(name) for name in names]
        return self.command("EVAL", script, len(keys), *keys, *arguments)

    # --- Reading ------------------------------------------------------------------------------

    def look(self) -> View:
        """The fleet as it is now.

        Raises:
            StoreUnavailable: Redis cannot be had.
            NoFleet: it has no such fleet.
            StoreError: it is of a release that we cannot read.
        """
        view = view_of(self.run(scripts.LOOK, ("meta", "head")), self.name)
        if view is None:
            raise NoFleet(
                f"{self.name}: there is none: it was never begun, or this Redis has lost its data. The copies of the "
                "hosts stay as they are; 'shaken fleet move' begins one with this host's policy, and 'shaken fleet "
                "restore' brings one back from a host's copy"
            )
        return view

    def head(self) -> Head:
        """The newest version. Errors as for `look`."""
        return self.look().head

    def entries(self, after: int, count: int) -> list[Entry]:
        """The entries behind a version, oldest first, fewer where they are long; the first may be later than the next.

        Raises:
            StoreUnavailable: Redis cannot be had.
            StoreError: what it has is damaged.
        """
        rows = self.run(scripts.AFTER, ("log",), f"{after + 1}-0", count, MAX_ANSWER)
        return [entry_of(row, self.name) for row in rows]

    def wait(self, after: int, seconds: float) -> None:
        """Return as soon as there is an entry behind a version, or after so many seconds.

        Raises:
            StoreUnavailable, StoreError: as for `entries`.
        """
        milliseconds = max(1, int(seconds * 1000))
        self.command("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", self.key("log"), f"{after}-0")

    def reader(self, entry: Entry) -> Reader:
        """The operations of an entry."""
        name = f"{self.name}, version {entry.head.version}"
        inline = [entry.inline] if entry.inline else self.pieces(entry.head.txid, entry.sealed, name)
        return Reader(inline, entry.sealed, name)

    def pieces(self, txid: str, sealed: Sealed, name: str) -> Iterator[bytes]:
        """The chunks of a change or a snapshot, as they are fetched.

        Raises:
            StoreUnavailable: Redis cannot be had.
            StoreError: one is not there.
        """
        for number in range(sealed.pieces):
            # To and with that octet, so one more than there may be: a reader sees that it is too long.
            piece = self.command("GETRANGE", self.chunk_key(txid, number), 0, PIECE)
            if not piece:
                raise damaged(name, f"chunk {number} of {sealed.pieces} is not there")
            yield piece

    def material(self, names: Iterable[str] | None = None) -> dict[str, str | None]:
        """What lies under these names of keys and trust anchors; all of it where none are given."""
        key = self.key("material")
        if names is None:
            flat = self.command("HGETALL", key)
            pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
            return {text(name): text(body) for name, body in pairs}
        wanted = list(names)
        bodies = self.command("HMGET", key, *wanted) if wanted else []
        return {name: None if body is None else text(body) for name, body in zip(wanted, bodies, strict=True)}

    # --- Writing ------------------------------------------------------------------------------

    def locked(self, name: str, allowed: Patience) -> AbstractContextManager[None]:
        """See `Locks.locked`."""
        return self._locks.locked(name, allowed)

    def upload(self, txid: str, writer: Writer) -> None:
        """Put the pieces of what was sealed beside the log, where nobody looks until it is committed.

        Raises:
            StoreUnavailable, StoreError: as for `command`; what is there is waste, and swept later.
        """
        self.stage(txid)
        for number, piece in enumerate(writer.pieces()):
            self.command("SET", self.chunk_key(txid, number), piece)
            if number % 64 == 63 and not self.run(scripts.STAGE, ("staged",), txid, STAGED, "again"):
                raise late(self.name)

    def stage(self, txid: str) -> None:
        """Have what is uploaded under a txid stay for a while, and be committed within it."""
        self.run(scripts.STAGE, ("staged",), txid, STAGED, "first")

    def remove_chunks(self, txid: str) -> int:
        """Remove chunks that nobody needs; how many.

        From the end, so that who dies meanwhile leaves what the next finds: they are numbered without gaps.
        """
        count = 0
        while count < MAX_PIECES and self.command("EXISTS", self.chunk_key(txid, count)):
            count += 1
        for number in reversed(range(count)):
            self.command("UNLINK", self.chunk_key(txid, number))
        return count

    def commit(self, view: View, entry: Entry, material: Mapping[str, str | None], replicas: int = 0) -> int:
        """Put an entry behind the head.

        Whoever gets no answer asks until it is clear: then it either was done, or never will be.

        Args:
            view: the fleet as the entry was made for it.
            entry: the next version.
            material: what is to lie under names of keys and trust anchors from now on; None for nothing.
            replicas: how many of Redis' replicas to wait for.

        Returns:
            How many of those have it.

        Raises:
            StoreUnavailable: no answer; the text says whether that means that nothing was changed.
            StoreError: nothing was changed: another was faster, Redis has no memory, or is another fleet's.
        """
        if view.schema > SCHEMA:
            raise StoreError(
                f"{self.name}: its schema {view.schema} is newer than this release's ({SCHEMA}), which may read it and "
                "not change it; change it from a host with the newer release"
            )
        keys = [self.key(name) for name in ("meta", "head", "log", "staged", "chunked", "material")]
        words = ["EVAL", scripts.COMMIT, len(keys), *keys, *commit_words(view, entry, material)]
        with self._one() as one:
            try:
                with reaching(self.access):
                    answer = text(one.execute_command(*words))
            except StoreUnavailable as exc:
                self._settle(entry.head, exc)
                answer = "done"
            if answer != "done":
                raise StoreError(f"{self.name}: {_REFUSED.get(answer, answer)}; nothing was changed, try again")
            if not replicas:
                return 0
            try:
                with reaching(self.access):
                    return int(one.execute_command("WAIT", replicas, int(self.access.timeout * 800)))
            except (StoreUnavailable, StoreError):
                return 0  # the change stands; whoever wanted replicas is told that none is known to have it

    @contextmanager
    def _one(self) -> Iterator[redis.Redis]:
        """One connection to the server that has the fleet: WAIT speaks of what was written by the same."""
        with reaching(self.access):
            client = self.client
            if isinstance(client, RedisCluster):
                node = client.get_node_from_key(self.key("log"))
                assert node is not None
                client = client.get_redis_connection(node)
            one = client.client()
        try:
            yield one
        finally:
            one.close()

    def _settle(self, head: Head, first: StoreUnavailable) -> None:
        """Return where a commit without an answer was done; raise where it was not, or that stays unknown."""
        end = time.monotonic() + allowed_now().seconds
        while True:
            try:
                done = self.run(scripts.SETTLE, ("log", "staged"), f"{head.version}-0", head.txid)
            except StoreUnavailable as exc:
                if time.monotonic() >= end:
                    raise StoreUnavailable(
                        f"{first}; it is not known whether version {head.version} was made. Nothing is lost or half "
                        "done: once Redis answers, 'shaken store history' has the change, or it was not made"
                    ) from exc
                time.sleep(POLL)
            else:
                if not done:
                    raise StoreUnavailable(f"{first}; nothing was changed") from first
                return


def late(name: str) -> StoreError:
    """The error of a change or snapshot whose chunks are waste by now."""
    return StoreError(f"{name}: {_REFUSED['late']}; nothing was changed, try again")


_REFUSED: Final = {
    "moved": "another writer was faster",
    "other": "it was begun anew meanwhile",
    "late": f"the change took more than {STAGED} seconds, or was given up",
}
