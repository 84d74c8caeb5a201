"""What the agent counts, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shaken_plugin.ports import Observer, Severity

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """All metrics of one agent, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("shaken_agent_requests", "URLs asked for by workers", ["result"], registry=registry)
        self.downloads = Counter("shaken_agent_downloads", "Downloads", ["kind", "result"], registry=registry)
        self.seconds = Histogram(
            "shaken_agent_download_seconds", "Time of downloads", ["kind"], registry=registry, buckets=_SECONDS
        )
        self.outstanding = Gauge("shaken_agent_downloads_outstanding", "Downloads going on", registry=registry)
        self.documents = Gauge("shaken_agent_documents", "Certificate URLs known", registry=registry)
        self.bytes = Gauge("shaken_agent_document_bytes", "Size of all certificate documents", registry=registry)
        self.evicted = Counter("shaken_agent_evicted", "Certificate URLs forgotten for want of room", registry=registry)
        self.unrecorded = Counter(
            "shaken_agent_unrecorded", "Results that could not be written to the cache at once", registry=registry
        )
        self.pending = Gauge("shaken_agent_unrecorded_now", "Results that wait to be written", registry=registry)
        self.events = Counter("shaken_events", "What became of calls served here", ["name"], registry=registry)
        self.connections = Gauge("shaken_agent_connections", "Workers connected", registry=registry)
        self.alarms = Gauge("shaken_alarm", "1 while an alarm is on", ["name", "about"], registry=registry)
        self.collected = Counter("shaken_records_collected", "Records moved into the ledger", registry=registry)
        self.known = Counter(
            "shaken_records_known",
            "Lines that the ledger had already, of files that were copied back",
            registry=registry,
        )
        self.torn = Counter("shaken_records_torn", "Lines that their writer did not finish", registry=registry)
        self.damaged = Counter("shaken_records_damaged", "Other lines that are no records", registry=registry)
        self.pruned = Counter("shaken_records_pruned", "Old records removed from the ledger", registry=registry)
        self.spool_bytes = Gauge("shaken_spool_bytes", "Size of the files with records of calls", registry=registry)
        self.spool_age = Gauge(
            "shaken_spool_age_seconds", "For how long the oldest record waits for the ledger", registry=registry
        )
        self.limit_calls = Gauge(
            "shaken_limit_calls_per_second", "Calls of customers with limits, over ten seconds", registry=registry
        )
        self.limit_slots = Gauge("shaken_limit_slots", "Their calls that run on this host", registry=registry)
        self.limit_over = Counter(
            "shaken_limit_over", "Calls over a limit, refused or marked", ["limit"], registry=registry
        )
        self.agent = Gauge(
            "shaken_agent_info",
            "Always 1: the release of the agent, the schema of its local file, the newest of Redis that it knows",
            ["version", "schema", "redis_schema"],
            registry=registry,
        )
        self.raised = Gauge(
            "shaken_alarm_raised_timestamp_seconds",
            "POSIX time at which one of the last alarms was raised, over or not",
            ["name", "about"],
            registry=registry,
        )
        self.policy_version = Gauge(
            "shaken_policy_version", "Version of the policy that calls are decided by", registry=registry
        )
        self.calls_per_second = Gauge(
            "shaken_calls_per_second", "Records of calls collected, over ten seconds", registry=registry
        )
        self.head = Gauge(
            "shaken_fleet_policy_version", "Version of the fleet's policy, as far as it is known", registry=registry
        )
        self.copy_age = Gauge(
            "shaken_copy_age_seconds",
            "In a fleet, seconds since the copy was known to be as Redis is; infinite: never",
            registry=registry,
        )
        self.resynced = Counter(
            "shaken_copy_resyncs", "How often the copy was made anew from the snapshot", registry=registry
        )
        self.breaker_open = Gauge(
            "shaken_breaker_open", "1 while Redis is not asked, after it could not be had", registry=registry
        )
        self.breaker_opened = Gauge(
            "shaken_breaker_opened", "How often that began since the agent did", registry=registry
        )
        self.hosts = Gauge("shaken_fleet_hosts", "Hosts of the fleet, lagging or not", registry=registry)
        self.clock = Gauge("shaken_agent_clock_offset_seconds", "Our clock against that of servers", registry=registry)
        self.expires = Gauge(
            "shaken_agent_list_expires", "POSIX time at which a list expires", ["kind", "name"], registry=registry
        )


class CountingObserver:
    """A `ports.Observer` whose counts are metrics.

    Args:
        observer: takes the log lines.
        metrics: take the counts.
    """

    def __init__(self, observer: Observer, metrics: Metrics) -> None:
        self._observer = observer
        self._metrics = metrics

    def log(self, severity: Severity, text: str) -> None:
        """See `ports.Observer.log`."""
        self._observer.log(severity, text)

    def count(self, name: str) -> None:
        """See `ports.Observer.count`."""
        self._metrics.events.labels(name).inc()
