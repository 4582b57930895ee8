"""Prometheus metrics of the service."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Metrics of one service, in a registry of their own: several services may run in one process."""

    def __init__(self) -> None:
        here = self.registry = CollectorRegistry()
        ProcessCollector(registry=here)
        self.requests = Counter("vmnet_requests_total", "Requests.", ("route", "method", "status"), registry=here)
        times: Any = {"buckets": LATENCY_BUCKETS_S, "registry": here}
        self.seconds = Histogram("vmnet_request_seconds", "Time to the end of the response.", ("route",), **times)
        self.refused = Counter("vmnet_refused_total", "Refused requests and connections.", ("code",), registry=here)
        self.uploaded = Counter("vmnet_uploaded_bytes_total", "Bytes of media received.", registry=here)
        self.jobs = Gauge("vmnet_jobs", "Uploads being received, waiting or processed.", registry=here)
        self.job_seconds = Histogram("vmnet_job_seconds", "Processing of one upload.", **times)
        self.lost_workers = Counter("vmnet_lost_workers_total", "Workers that crashed or hung.", registry=here)
        self.items = Gauge("vmnet_index_items", "Items in the index.", ("side",), registry=here)
        self.reloads = Counter("vmnet_index_reloads_total", "Index reloads.", ("result",), registry=here)

    def write(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
