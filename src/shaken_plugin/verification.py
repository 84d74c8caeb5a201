"""The verification service (STI-VS): the pure checks with certificates looked up for them.

Trusted paths are kept per URL for as long as the document and the path hold, so that a warm
call validates one signature: its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, NamedTuple

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.certificates import TrustAnchors, TrustedPath, parse_chain
from shaken_plugin.core.verification import Verdict, VerificationRules, begin, finish
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.ports import CertificateSource

MAX_PATHS: Final = 2_048
"""Paths kept in memory; 16,234 live certificates belong to 918 providers. About 6 KiB each."""

_LASTING = frozenset(
    {
        FailureCode.CERTIFICATE_MALFORMED,
        FailureCode.CERTIFICATE_KEY_USAGE,
        FailureCode.CERTIFICATE_NO_TNAUTHLIST,
    }
)
"""Failures that the passing of time does not mend."""


class _Known(NamedTuple):
    version: Hashable
    found: TrustedPath | VerificationFailure


class VerificationService:
    """Verifies calls against configured trust anchors.

    Args:
        rules: the operator's choices.
        anchors: the roots that are believed.
        source: where certificate documents lie.
    """

    def __init__(self, rules: VerificationRules, anchors: TrustAnchors, source: CertificateSource) -> None:
        self._rules = rules
        self.anchors = anchors
        self._source = source
        self._known: Bounded[str, _Known] = Bounded(MAX_PATHS)

    def verify(self, message: CallMessage, now: float) -> Verdict:
        """The verdict on one call; never raises for what stands in the call.

        Args:
            message: the call.
            now: POSIX seconds.
        """
        pending = begin(message, self._rules, now)
        if isinstance(pending, Verdict):
            return pending
        return finish(pending, {url: self._path(url, now) for url in pending.urls}, now)

    def _path(self, url: str, now: float) -> TrustedPath | VerificationFailure:
        version = self._source.version(url)
        if version is None:
            return VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE)
        known = self._known.get(url)
        if known is not None and known.version == version and _still_holds(known.found, now):
            return known.found
        try:
            found: TrustedPath | VerificationFailure = self.anchors.validate(parse_chain(self._source.read(url)), now)
        except VerificationFailure as failure:
            found = failure
        self._known.put(url, _Known(version, found))
        return found


def _still_holds(found: TrustedPath | VerificationFailure, now: float) -> bool:
    if isinstance(found, TrustedPath):
        return found.valid_at(now)
    return found.code in _LASTING
