"""Writing to the shared file from a thread of its own, and going on when that fails.

What could not be written is kept in memory, bounded, and tried again; meanwhile an alarm is on and
the documents are lent to workers. A damaged file is put aside and made anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.certs.cache import CacheDamaged, CacheWriter, StoredDocument
from shaken_plugin.errors import StoreError, StoreUnavailable

MAX_PENDING: Final = 512
"""Results kept in memory while they cannot be written: at most 32 MiB."""
MAX_DELETED: Final = 4_096
"""Deletions that wait likewise. A row whose deletion is dropped is looked at anew after a restart."""
MAX_BATCH: Final = 256
RENEWED_LASTS: Final = 600.0
"""Seconds for which the alarm about a file that was made anew stays on."""

_Found = TypeVar("_Found")


class Recorder:
    """The agent's only way to the file.

    Args:
        writer: used from the recorder's thread alone.
        alarms: told of trouble with the file.
        metrics: counts what could not be written at once.
        lost: told when the file had to be made anew, so that everything is missing.
    """

    def __init__(self, writer: CacheWriter, alarms: Alarms, metrics: Metrics, lost: Callable[[], None]) -> None:
        self._writer = writer
        self._alarms = alarms
        self._metrics = metrics
        self._lost = lost
        self._made: int | None = None
        self._flushing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "cache")
        self._pending: OrderedDict[str, StoredDocument] = OrderedDict()
        """What is to be written, newest last. One without a body leaves the stored body alone."""
        self._deleted: dict[str, None] = {}

    async def open(self) -> None:
        """Look through the file, and make it anew where it is damaged.

        Raises:
            StoreUnavailable: it cannot be used now. It is tried again with every use.
        """
        await self.run(CacheWriter.check)
        self._made = self._writer.made
        if self._writer.renewed:
            self._tell_lost()

    async def run(self, work: Callable[[CacheWriter], _Found]) -> _Found:
        """Do something with the file; damage is mended and the work done once more.

        Raises:
            StoreUnavailable: it cannot be done now.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, partial(self._mended, work))
        except (StoreError, StoreUnavailable) as exc:
            self._alarms.on("cache_unwritable", f"{exc}; the agent goes on from memory")
            raise StoreUnavailable(str(exc)) from exc
        self._alarms.clear("cache_unwritable")
        if self._made is not None and self._writer.made != self._made:
            self._made = self._writer.made
            self._tell_lost()
        return found

    def _tell_lost(self) -> None:
        text = "the cache was damaged or removed and is made anew; everything is downloaded again"
        self._alarms.on("cache_renewed", text, lasts=RENEWED_LASTS)
        self._lost()

    def _mended(self, work: Callable[[CacheWriter], _Found]) -> _Found:
        try:
            return work(self._writer)
        except CacheDamaged:
            self._writer.renew()
            return work(self._writer)

    # --- Documents ----------------------------------------------------------------------------

    def pending(self, url: str) -> StoredDocument | None:
        """A document that is not in the file yet."""
        found = self._pending.get(url)
        return found if found is not None and found.body is not None else None

    async def put(self, document: StoredDocument) -> bool:
        """Write a document; whether it is in the file now. If not it will be tried again."""
        self._keep(document)
        try:
            await self.flush()
        except StoreUnavailable:
            self._metrics.unrecorded.inc()
            return False
        return True

    def later(self, document: StoredDocument) -> None:
        """Write what changed of a document at the next flush; its body stays."""
        self._keep(replace(document, body=None))

    def forget(self, url: str) -> None:
        """Delete a URL at the next flush."""
        self._pending.pop(url, None)
        self._deleted[url] = None
        if len(self._deleted) > MAX_DELETED:
            del self._deleted[next(iter(self._deleted))]

    def _keep(self, document: StoredDocument) -> None:
        waiting = self._pending.pop(document.url, None)
        if document.body is None and waiting is not None and document.usable_until > 0:
            document = replace(document, body=waiting.body)
        self._deleted.pop(document.url, None)
        self._pending[document.url] = document
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    async def flush(self) -> None:
        """Write all that waits.

        Raises:
            StoreUnavailable: it goes on waiting.
        """
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        while self._pending or self._deleted:
            batch = list(self._pending.values())[:MAX_BATCH]
            deleted = list(self._deleted)
            try:
                await self.run(partial(_write, batch, deleted))
            finally:
                self._metrics.pending.set(len(self._pending))
            for document in batch:
                if self._pending.get(document.url) is document:
                    del self._pending[document.url]
            for url in deleted:
                self._deleted.pop(url, None)
        self._metrics.pending.set(0)

    async def close(self) -> None:
        """Write what waits if that is possible, and end."""
        with suppress(StoreUnavailable):
            await self.flush()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._writer.close)
        self._thread.shutdown()


def _write(batch: list[StoredDocument], deleted: list[str], writer: CacheWriter) -> None:
    # A row with a failure and no body is new; for one that is there it changes all but the body.
    writer.put([document for document in batch if document.body is not None])
    writer.update([document for document in batch if document.body is None])
    if deleted:
        writer.delete(deleted)
