"""When each document is fetched again: ahead of its end, and not all at once."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from typing import Final

from shaken_plugin.agent.index import Known

MAX_STALE: Final = 64
"""Plans without effect that may lie about, beside as many as there are in effect."""
AHEAD: Final = (0.8, 0.95)
"""Shares of a document's life between which it is fetched again, drawn at random."""


class Schedule:
    """URLs by the time at which they are due, one time for each."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._times: dict[str, float] = {}
        self._random = random.Random()  # noqa: S311  # spreads downloads, guards nothing

    def plan(self, known: Known) -> None:
        """Plan the refresh of a document that is there, in place of what was planned."""
        document = known.document
        if document.failure is not None:
            self.put(document.url, document.retry_at)
            return
        begin = min(document.fetched_at, document.fresh_until)
        self.put(document.url, begin + (document.fresh_until - begin) * self._random.uniform(*AHEAD))

    def put(self, url: str, due: float) -> None:
        """Plan a URL for a time, in place of what was planned."""
        self._times[url] = due
        heapq.heappush(self._heap, (due, url))
        if len(self._heap) > 2 * len(self._times) + MAX_STALE:
            self._heap = [(time, planned) for planned, time in self._times.items()]
            heapq.heapify(self._heap)

    def remove(self, url: str) -> None:
        """Plan nothing for a URL any more."""
        self._times.pop(url, None)

    def take(self, now: float) -> Iterator[str]:
        """URLs that are due, each taken out as it is given."""
        while self._heap and self._heap[0][0] <= now:
            due, url = heapq.heappop(self._heap)
            if self._times.get(url) == due:  # else it was planned anew since
                del self._times[url]
                yield url

    def __contains__(self, url: str) -> bool:
        return url in self._times

    def clear(self) -> None:
        """Plan nothing any more."""
        self._heap.clear()
        self._times.clear()
