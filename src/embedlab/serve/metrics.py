"""Counters for Prometheus, in a registry of their own so that two applications in one process never mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The figures of one application.

    Attributes:
        requests: Calls by method, route and status.
        seconds: Time per call by method and route.
        in_flight: Calls being answered now.
        embeddings: Texts embedded for callers.
        tokens: Tokens of those texts.
        searches: Searches by mode.
        passages: Passages written by jobs.
        jobs: Jobs that ended, by state.
        jobs_open: Jobs queued or running.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "embedlab_requests", "Calls answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "embedlab_request_seconds", "Time per call.", ["method", "route"], buckets=_SECONDS, registry=self.registry
        )
        self.in_flight = Gauge("embedlab_requests_in_flight", "Calls being answered now.", registry=self.registry)
        self.embeddings = Counter("embedlab_embeddings", "Texts embedded for callers.", registry=self.registry)
        self.tokens = Counter("embedlab_tokens", "Tokens of texts embedded for callers.", registry=self.registry)
        self.searches = Counter("embedlab_searches", "Searches answered.", ["mode"], registry=self.registry)
        self.passages = Counter("embedlab_passages_indexed", "Passages written by jobs.", registry=self.registry)
        self.jobs = Counter("embedlab_jobs", "Jobs that ended.", ["state"], registry=self.registry)
        self.jobs_open = Gauge("embedlab_jobs_open", "Jobs queued or running.", registry=self.registry)

    def text(self) -> tuple[bytes, str]:
        """Return all figures in Prometheus' text format, and that format's content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
