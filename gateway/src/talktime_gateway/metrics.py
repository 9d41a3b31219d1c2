"""What the gateway tells Prometheus. Labels are Projects and reasons, never a session, key or person."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One registry per app, so that two apps in one test process do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "talktime_gateway_requests_total",
            "Answered requests.",
            ["route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "talktime_gateway_request_seconds",
            "Time to answer.",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.sessions = Counter(
            "talktime_gateway_sessions_opened_total",
            "Sessions opened.",
            ["namespace", "project", "provider"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "talktime_gateway_refusals_total",
            "Token requests refused, by reason.",
            ["namespace", "project", "reason"],
            registry=self.registry,
        )
        self.room_failures = Counter(
            "talktime_gateway_room_failures_total",
            "CreateRoom calls that failed.",
            ["pool_namespace", "pool"],
            registry=self.registry,
        )
        self.watcher = Counter(
            "talktime_gateway_watcher_actions_total",
            "What the watcher did to sessions nobody used or no agent served.",
            ["action"],
            registry=self.registry,
        )
        self.census_failures = Counter(
            "talktime_gateway_census_failures_total",
            "Rounds in which the ledger or a LiveKit could not be asked; nothing was decided there.",
            ["of"],
            registry=self.registry,
        )
        self.webhooks = Counter(
            "talktime_gateway_webhooks_total",
            "LiveKit's webhooks, by what came of them.",
            ["outcome"],
            registry=self.registry,
        )
        self.directory_age = Gauge(
            "talktime_gateway_directory_age_seconds",
            "Seconds since the ledger last confirmed the directory in use.",
            registry=self.registry,
        )

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
