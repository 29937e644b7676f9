"""Figures for Prometheus."""

from __future__ import annotations

from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Family = TypeVar("Family", Counter, Gauge, Histogram)

_WAITS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    """Everything that ``/metrics`` says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[object, tuple[str, ...]], Any] = {}
        self.requests = Counter(
            "labctl_requests_total", "Requests answered", ["model", "server", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "labctl_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["model"],
            buckets=_WAITS,
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "labctl_first_byte_seconds", "Until the answer began", ["model"], buckets=_WAITS, registry=self.registry
        )
        self.waited = Histogram(
            "labctl_wait_seconds", "Time in the queue", ["model"], buckets=_WAITS, registry=self.registry
        )
        self.refused = Counter(
            "labctl_refused_total", "Requests answered 503", ["model", "why"], registry=self.registry
        )
        self.queued = Gauge("labctl_queue_length", "Requests that wait", registry=self.registry)
        self.loads = Counter("labctl_loads_total", "Servers that became ready", ["server"], registry=self.registry)
        self.load_seconds = Histogram(
            "labctl_load_seconds", "Until a server was ready", ["server"], buckets=_WAITS, registry=self.registry
        )
        self.evictions = Counter("labctl_stops_total", "Servers stopped", ["server"], registry=self.registry)
        self.failures = Counter("labctl_failed_starts_total", "Starts that failed", ["server"], registry=self.registry)
        self.resident = Gauge("labctl_resident", "1 while a server holds memory", ["server"], registry=self.registry)
        self.tokens = Counter(
            "labctl_tokens_total", "Tokens as servers report them", ["model", "kind"], registry=self.registry
        )

    def child(self, family: Family, *values: str) -> Family:
        """Return ``family.labels(*values)``. Finding it there takes longer than counting, so what was found is kept."""
        key = (family, values)
        found: Family | None = self._children.get(key)
        if found is None:
            found = self._children[key] = family.labels(*values)
        return found
