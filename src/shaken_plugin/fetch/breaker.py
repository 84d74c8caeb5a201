"""Hosts that failed several times in a row are left alone for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shaken_plugin.bounded import Bounded
from shaken_plugin.fetch.model import FetchCode, FetchFailure

MAX_HOSTS: Final = 1_024
"""Hosts remembered; strangers choose their names, so the memory must have an end."""

_OF_THE_HOST: Final = frozenset(
    {FetchCode.DNS_FAILED, FetchCode.CONNECT_FAILED, FetchCode.TLS_FAILED, FetchCode.TIMEOUT, FetchCode.BODY_BROKEN}
)
_STATUS_OF_THE_HOST: Final = frozenset({429, 502, 503, 504})


def counts_against_host(failure: FetchFailure) -> bool:
    """Whether a failure shows that the host is in trouble.

    Not what a stranger brings about on an honest host by asking for a path that is not there:
    anybody could shut out its certificates.
    """
    return failure.code in _OF_THE_HOST or failure.status in _STATUS_OF_THE_HOST


@dataclass(frozen=True, slots=True)
class _Trouble:
    failures: int
    closed_until: float


class Breakers:
    """A circuit breaker for each host and port.

    Args:
        failures: how many in a row open the circuit.
        pause: seconds it stays open; then one request is let through, and decides.
        monotonic: seconds that only grow.
    """

    def __init__(self, failures: int, pause: float, monotonic: Callable[[], float]) -> None:
        self._failures = failures
        self._pause = pause
        self._monotonic = monotonic
        self._hosts: Bounded[str, _Trouble] = Bounded(MAX_HOSTS)

    def check(self, host: str) -> None:
        """Let a request through, or not.

        Raises:
            FetchFailure: CIRCUIT_OPEN, with the rest of the pause.
        """
        trouble = self._hosts.get(host)
        if trouble is None or trouble.failures < self._failures:
            return
        now = self._monotonic()
        if now < trouble.closed_until:
            raise FetchFailure(
                FetchCode.CIRCUIT_OPEN,
                f"{host} failed {trouble.failures} times in a row",
                trouble.closed_until - now,
            )
        # This one tries; the others wait for another pause, or until it succeeds.
        self._hosts.put(host, _Trouble(trouble.failures, now + self._pause))

    def failed(self, host: str) -> None:
        """A request showed that the host is in trouble."""
        trouble = self._hosts.get(host) or _Trouble(0, 0.0)
        self._hosts.put(host, _Trouble(trouble.failures + 1, self._monotonic() + self._pause))

    def answered(self, host: str) -> None:
        """The host answered, whatever it said."""
        if self._hosts.get(host) is not None:
            self._hosts.put(host, _Trouble(0, 0.0))
