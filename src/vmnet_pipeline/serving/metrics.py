"""Prometheus metrics of the service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What the service counts; one registry per service, so that several may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        here = self.registry
        self.requests = Counter("vmnet_requests_total", "Requests.", ("route", "method", "status"), registry=here)
        self.seconds = Histogram(
            "vmnet_request_seconds",
            "Time to the end of the answer.",
            ("route",),
            buckets=LATENCY_BUCKETS_S,
            registry=here,
        )
        self.refused = Counter(
            "vmnet_refused_total", "Requests and connections refused, by code.", ("code",), registry=here
        )
        self.uploaded = Counter("vmnet_uploaded_bytes_total", "Bytes of media received.", registry=here)
        self.jobs = Gauge("vmnet_jobs", "Uploads being received, waiting or worked on.", registry=here)
        self.job_seconds = Histogram(
            "vmnet_job_seconds", "Work on one upload.", buckets=LATENCY_BUCKETS_S, registry=here
        )
        self.lost_workers = Counter("vmnet_lost_workers_total", "Workers that crashed or hung.", registry=here)
        self.items = Gauge("vmnet_index_items", "Items that can be found.", ("side",), registry=here)
        self.reloads = Counter("vmnet_index_reloads_total", "New indexes taken up.", ("result",), registry=here)

    def write(self) -> bytes:
        """All of it, as text."""
        return generate_latest(self.registry)
