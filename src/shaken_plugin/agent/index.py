"""What the agent knows of every certificate URL, without the documents, and what to forget.

Strangers choose URLs, so there must be room for so many and no more. Failures have a tenth of it
to themselves, so that they are remembered however many documents there are. Of these the ones of
signers that no anchor vouches for go first, then those that no call asked for the longest: a flood
of made-up signers does not drive out those that call every day.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from shaken_plugin.certs.cache import StoredDocument


class Known(NamedTuple):
    """One URL. The document's body is not kept here; ``size`` is None where there is none."""

    document: StoredDocument
    size: int | None


class Index:
    """At most so many URLs and octets, least recently asked for first within each class.

    Args:
        max_documents: URLs, at least two.
        max_bytes: octets of all bodies.
    """

    def __init__(self, max_documents: int, max_bytes: int) -> None:
        self.max_documents = max_documents
        self.max_bytes = max_bytes
        self.bytes = 0
        self._classes: tuple[OrderedDict[str, Known], ...] = (OrderedDict(), OrderedDict(), OrderedDict())

    def get(self, url: str) -> Known | None:
        """What is known of a URL."""
        return next((known for shelf in self._classes if (known := shelf.get(url)) is not None), None)

    def put(self, document: StoredDocument, size: int | None) -> list[str]:
        """Set what is known of a URL, as the one asked for last; gives the URLs forgotten for it."""
        self.remove(document.url)
        shelf = 0 if size is None else 2 if document.trusted else 1
        self._classes[shelf][document.url] = Known(replace(document, body=None), size)
        self.bytes += size or 0
        forgotten = []
        failures, strangers, trusted = self._classes
        for_failures = max(1, self.max_documents // 10)
        while len(failures) > for_failures:
            forgotten.append(self._oldest(0))
        while len(strangers) + len(trusted) > self.max_documents - for_failures or self.bytes > self.max_bytes:
            forgotten.append(self._oldest(1 if strangers else 2))
        return forgotten

    def _oldest(self, shelf: int) -> str:
        url = next(iter(self._classes[shelf]))
        self.remove(url)
        return url

    def remove(self, url: str) -> None:
        """Forget a URL."""
        for shelf in self._classes:
            known = shelf.pop(url, None)
            if known is not None:
                self.bytes -= known.size or 0

    def touch(self, url: str, now: float) -> Known | None:
        """Note that a call asks for a URL."""
        for shelf in self._classes:
            if (known := shelf.get(url)) is not None:
                shelf.move_to_end(url)
                shelf[url] = known = Known(replace(known.document, seen_at=now), known.size)
                return known
        return None

    def __iter__(self) -> Iterator[Known]:
        for shelf in self._classes:
            yield from list(shelf.values())

    def __len__(self) -> int:
        return sum(map(len, self._classes))
