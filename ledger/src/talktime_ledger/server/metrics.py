"""Prometheus metrics of the ledger process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Metrics of one process; Project balances are the operator's to show (one source)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "talktime_ledger_request_seconds",
            "Time of an API call.",
            ["method", "route", "status"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.swept = Counter("talktime_ledger_swept_sessions", "Sessions swept.", registry=self.registry)
        self.pool_size = Gauge("talktime_ledger_pool_connections", "Open database connections.", registry=self.registry)
        self.pool_idle = Gauge("talktime_ledger_pool_idle_connections", "Idle ones.", registry=self.registry)
        self.outbox = Gauge("talktime_ledger_outbox_pending", "Events not delivered yet.", registry=self.registry)
        self.mismatch = Gauge(
            "talktime_ledger_accounts_mismatched",
            "Accounts whose balance differs from the sum of their rows (must be 0).",
            registry=self.registry,
        )
        self.estimate_ratio = Gauge(
            "talktime_ledger_estimate_ratio",
            "Estimate over bill of the days settled in the last 35, before correction (1 = equal).",
            ["vendor"],
            registry=self.registry,
        )
        self.estimate_difference = Gauge(
            "talktime_ledger_estimate_difference_usd",
            "Estimate minus bill of the days settled in the last 35, before correction.",
            ["vendor"],
            registry=self.registry,
        )
        self.unattributed = Gauge(
            "talktime_ledger_unattributed_usd",
            "Billed in the last 35 days on days and models without a session of ours.",
            ["vendor"],
            registry=self.registry,
        )
        self.last_success = Gauge(
            "talktime_ledger_last_success_timestamp_seconds", "When the database last answered.", registry=self.registry
        )
