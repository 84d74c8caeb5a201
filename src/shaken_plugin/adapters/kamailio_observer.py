"""Kamailio's log, and its counters where the configuration defines them."""

from __future__ import annotations

from typing import Any, Final

from shaken_plugin.ports import Severity
from shaken_plugin.telemetry import clean

COUNTERS: Final = "shaken"
"""Name of the htable that counts, where the configuration defines it."""

METRIC: Final = "shaken_events"
"""Name of the Prometheus counter, with the label ``event``, where the configuration defines it."""


class KamailioObserver:
    """A `ports.Observer` on Kamailio's log and an htable."""

    def __init__(self, ksr: Any) -> None:
        self._ksr = ksr
        self._levels = {
            Severity.DEBUG: ksr.dbg,
            Severity.INFO: ksr.info,
            Severity.WARNING: ksr.warn,
            Severity.ERROR: ksr.err,
        }
        self.counting = False
        self.measuring = False

    def log(self, severity: Severity, text: str) -> None:
        """See `ports.Observer.log`."""
        self._levels[severity](clean(text) + "\n")

    def count(self, name: str) -> None:
        """See `ports.Observer.count`."""
        if self.counting:
            self._ksr.htable.sht_inc(COUNTERS, name)
        if self.measuring:
            self._ksr.xhttp_prom.counter_inc_l1(METRIC, 1, name)

    def find_counters(self) -> None:
        """Count from now on, in what the configuration defines: the htable, the metric, or both."""
        htable, metrics = getattr(self._ksr, "htable", None), getattr(self._ksr, "xhttp_prom", None)
        self.counting = htable is not None and htable.sht_inc(COUNTERS, "loads") > 0
        self.measuring = metrics is not None and metrics.counter_inc_l1(METRIC, 1, "loads") > 0
