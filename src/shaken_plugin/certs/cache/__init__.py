"""The certificates of a host, shared by all its processes: one local SQLite file in WAL mode.

The agent alone writes (`CacheWriter`); every SIP worker reads (`CertificateCache`,
`ListedAnchors`, `RevocationCache`). What lies here was checked by the agent before it was stored:
trust lists and revocation lists only with their signature verified. Certificate documents are
those of strangers; their path is validated by whoever uses them.

Times are POSIX seconds. A row says itself how long it may be used (``usable_until``), so that
readers and the agent cannot disagree about it.
"""

from shaken_plugin.certs.cache.anchors import ListedAnchors
from shaken_plugin.certs.cache.file import CacheDamaged, StoredDocument, StoredRevocationList, TrustListRow
from shaken_plugin.certs.cache.reader import CertificateCache
from shaken_plugin.certs.cache.revocation import RevocationCache
from shaken_plugin.certs.cache.writer import CacheWriter

__all__ = [
    "CacheDamaged",
    "CacheWriter",
    "CertificateCache",
    "ListedAnchors",
    "RevocationCache",
    "StoredDocument",
    "StoredRevocationList",
    "TrustListRow",
]
