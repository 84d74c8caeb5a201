"""The verification service (STI-VS): the pure checks with certificates looked up for them.

Trusted paths are kept per URL for as long as the document and the path hold, so that a warm call
validates one signature: its own. Whether document, anchors and revocation lists are still what
they were is asked once a second, not at every call.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Final, NamedTuple

from shaken_plugin.bounded import Bounded
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.certificates import PathValidator, TrustedPath, parse_chain
from shaken_plugin.core.crl import RevocationMode
from shaken_plugin.core.sha2 import sha256
from shaken_plugin.core.verification import (
    Alarm,
    ReplayMode,
    Result,
    Verdict,
    VerificationRules,
    begin,
    finish,
)
from shaken_plugin.core.verification.usual import Usual, usual
from shaken_plugin.errors import FailureCode, StoreUnavailable, VerificationFailure
from shaken_plugin.ports import CertificateSource, ReplayMemory, RevocationSource

MAX_PATHS: Final = 2_048
"""Paths kept in memory; 16,234 live certificates belong to 918 providers. About 6 KiB each."""

LOOK_AFTER: Final = 1.0
"""Seconds for which what was looked up is taken to be so still; a warm call then opens no file."""

KEEP_FAILURE: Final = 60.0
"""Seconds for which a path that failed is not tried again: anybody may send us such, again and again."""


_KEEP: Final = {FailureCode.CERTIFICATE_UNAVAILABLE: 0.0, FailureCode.CERTIFICATE_NOT_YET_VALID: LOOK_AFTER}
"""Not so long: what could not be read costs little to try, and time alone makes a certificate valid."""


class _Known(NamedTuple):
    """What is known of a URL: ``found`` in the document of ``version``, ``revoked`` in the lists.

    Times in POSIX seconds: when the path was validated, and when all was looked up last.
    """

    version: Hashable
    found: TrustedPath | VerificationFailure
    validated_at: float
    looked_at: float
    revoked: VerificationFailure | None = None

    def holds(self, now: float) -> bool:
        """Whether the outcome of the validation is still what it would be now."""
        if isinstance(self.found, TrustedPath):
            return self.found.valid_at(now)
        return 0 <= now - self.validated_at < _KEEP.get(self.found.code, KEEP_FAILURE)

    def is_recent(self, now: float) -> bool:
        """Whether there is no need to look again."""
        return self.is_new(now) and self.holds(now)

    def is_new(self, now: float) -> bool:
        """Whether it was looked up just now; a path that ended since has to be asked for that itself."""
        return 0 <= now - self.looked_at < LOOK_AFTER

    @property
    def judged(self) -> TrustedPath | VerificationFailure:
        """The path, or why there is none to be trusted."""
        return self.revoked or self.found


_NOT_YET: Final = VerificationFailure(FailureCode.CERTIFICATE_NOT_YET)


class Waiting(NamedTuple):
    """What a call could wait for. ``verdict`` holds where it does not wait."""

    verdict: Verdict
    missing: tuple[str, ...]
    """The certificate URLs of which nothing is known."""


class VerificationService:
    """Verifies calls against configured trust anchors.

    Args:
        rules: the operator's choices.
        anchors: the roots that are believed.
        source: where certificate documents lie.
        revocation: what the revocation lists say; without it none are asked.
        mode: what trouble with the lists does.
        replays: which PASSporTs came before; without it none is recognised.
        replay_mode: what becomes of one that did.

    Raises:
        ValueError: the mode is hard, and there are no lists to ask.
    """

    def __init__(
        self,
        rules: VerificationRules,
        anchors: PathValidator,
        source: CertificateSource,
        revocation: RevocationSource | None = None,
        mode: RevocationMode = RevocationMode.SOFT,
        replays: ReplayMemory | None = None,
        replay_mode: ReplayMode = ReplayMode.REPORT,
    ) -> None:
        if revocation is None and mode is RevocationMode.HARD:
            raise ValueError("revocation is demanded, and no revocation list is configured")
        self._rules = rules
        self.anchors = anchors
        self._source = source
        self._revocation = None if mode is RevocationMode.OFF else revocation
        self._mode = mode
        self._replays = None if replay_mode is ReplayMode.OFF else replays
        self._replay_mode = replay_mode
        self._window = max(rules.freshness, rules.inner_freshness or 0)
        self._known: Bounded[str, _Known] = Bounded(MAX_PATHS)

    def verify(self, message: CallMessage, now: float) -> Verdict:
        """The verdict on one call with what is at hand; never raises for what stands in the call.

        Args:
            message: the call.
            now: POSIX seconds.
        """
        outcome = self.begin(message, now)
        return outcome.verdict if isinstance(outcome, Waiting) else outcome

    def begin(self, message: CallMessage, now: float) -> Verdict | Waiting:
        """The verdict, or which certificates would have to be fetched for a better one.

        A call that passes by one of its Identity headers waits for no other (RFC 8224 §6.2.1).
        """
        found = self.usually(message, now)
        if isinstance(found, Usual):
            return found.judged(True)
        return found or self.at_length(message, now)

    def at_length(self, message: CallMessage, now: float) -> Verdict | Waiting:
        """`begin` of a call that `usually` says nothing of."""
        pending = begin(message, self._rules, now)
        if isinstance(pending, Verdict):
            return pending
        paths = {url: self._path(url, now) for url in pending.urls}
        missing = tuple(url for url, path in paths.items() if path is _NOT_YET)
        alarms = self._trouble(paths, now)
        verdict = finish(pending, paths, now)
        verdict.alarms = alarms
        if verdict.result is Result.PASSED:
            return self._once(verdict, message, now)
        return Waiting(verdict, missing) if missing else verdict

    def usually(self, message: CallMessage, now: float) -> Usual | Verdict | None:
        """A usual call of a signer whose path is known and holds; None for any other.

        Returns:
            The call itself where it passed, for the first time, and there is nothing else to say; else the verdict.
        """
        call = usual(message, self._rules, now)
        known = None if call is None else self._known.get(call.info)
        if call is None or known is None:
            return None
        path = known.revoked or known.found if known.is_new(now) else self._path(call.info, now)
        if not isinstance(path, TrustedPath):
            return None
        if self._revocation is not None and self._revocation.trouble(now) is not None:
            return None
        holds = call.holds(path, now)
        if not holds:
            return None if holds is None else call.judged(False)
        first = self._first_use(call.digest, call.iat, message, now)
        return call if first is True else self._judged_again(call.judged(True), first)

    def _once(self, verdict: Verdict, message: CallMessage, now: float) -> Verdict:
        """RFC 8224 §12.1: what was signed for one call does not speak for another inside the freshness window."""
        decisive = verdict.decisive
        if decisive is None or decisive.iat is None:
            return verdict
        first = self._first_use(verdict.token, decisive.iat, message, now)
        return verdict if first is True else self._judged_again(verdict, first)

    def _first_use(self, token: bytes, iat: int, message: CallMessage, now: float) -> bool | Alarm:
        """Whether no other call came with this PASSporT inside the window, or why that cannot be said."""
        if self._replays is None:
            return True
        # So named in files and in Redis by releases before this one, too: for them the same call has to be the same.
        call = sha256(f"{message.call_id}\0{message.from_tag}".encode("utf-8", "surrogateescape")).digest()
        try:
            return self._replays.first_use(token, call, iat + self._window, now)
        except StoreUnavailable as exc:
            return Alarm("replay_unchecked", f"no replay is seen: {exc}")

    def _judged_again(self, verdict: Verdict, first: bool | Alarm) -> Verdict:
        """The verdict on a call that passed, but not for the first time, or nobody knows."""
        if isinstance(first, Alarm):
            verdict.alarms += (first,)
            return verdict
        decisive = verdict.decisive
        assert decisive is not None
        if self._replay_mode is ReplayMode.REPORT:
            verdict.replayed = True
            return verdict
        failed = replace(decisive, failure=FailureCode.REPLAYED)
        results = tuple(failed if one is decisive else one for one in verdict.results)
        # Nothing that it says is shown: the name on it is somebody else's.
        return Verdict(Result.FAILED, failed.failure, failed, results, alarms=verdict.alarms, replayed=True)

    def _trouble(self, paths: dict[str, TrustedPath | VerificationFailure], now: float) -> tuple[Alarm, ...]:
        """What hinders the revocation lists, asked after they were: what could not be read is told, too."""
        trouble = self._revocation.trouble(now) if self._revocation is not None else None
        if trouble is None:
            return ()
        for url, path in paths.items():
            if (known := self._known.get(url)) is not None:
                self._known.put(url, known._replace(looked_at=float("-inf")))  # not to be relied on: asked again
            if self._mode is RevocationMode.HARD and isinstance(path, TrustedPath):
                paths[url] = VerificationFailure(FailureCode.CERTIFICATE_REVOCATION_UNKNOWN, trouble)
        return (Alarm("revocation_trouble", trouble),)

    def _path(self, url: str, now: float) -> TrustedPath | VerificationFailure:
        known = self._known.get(url)
        if known is not None and known.is_recent(now):
            return known.judged
        version = self._source.version(url, now)
        if version is None:
            return _NOT_YET
        if known is not None and known.version == version and known.holds(now):
            known = known._replace(looked_at=now)
        else:
            found = self._validated(url, now)
            if _is_unavailable(found) and self._source.version(url, now) is None:
                return _NOT_YET  # it went away or was found damaged just now: fetched like one that was never there
            known = _Known(version, found, validated_at=now, looked_at=now)
        known = known._replace(revoked=self._revoked(known.found))
        self._known.put(url, known)
        return known.judged

    def _validated(self, url: str, now: float) -> TrustedPath | VerificationFailure:
        try:
            return self.anchors.validate(parse_chain(self._source.read(url)), now)
        except VerificationFailure as failure:
            return failure

    def _revoked(self, path: TrustedPath | VerificationFailure) -> VerificationFailure | None:
        # RFC 5280 §6.3: the status of every certificate of the path. What an outdated list names
        # stays revoked; what it does not name is unknown.
        if self._revocation is None or isinstance(path, VerificationFailure):
            return None
        for issuer, serial in path.serials:
            if self._revocation.revoked(issuer, serial):
                return VerificationFailure(FailureCode.CERTIFICATE_REVOKED, f"serial number {serial:x}")
        return None


def _is_unavailable(found: TrustedPath | VerificationFailure) -> bool:
    return isinstance(found, VerificationFailure) and found.code is FailureCode.CERTIFICATE_UNAVAILABLE
