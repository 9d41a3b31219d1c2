"""`/metrics`: money and sessions per Project, nodes per pool, and the operator about itself.

Base units, money ends in `_usd`, no session is ever a label, and what is not known has no series (never 0, never +Inf).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from talktime_ledger.wire import BudgetState

from talktime_operator.cluster import Cluster
from talktime_operator.ledger_sync import LedgerSync
from talktime_operator.pools.drain import TIME

reconciles_total = Counter("talktime_operator_reconciles_total", "Reconciles by kind and result.", ["kind", "result"])
reconcile_seconds = Histogram("talktime_operator_reconcile_duration_seconds", "Duration of one reconcile.", ["kind"])
status_writes_total = Counter("talktime_operator_status_writes_total", "Status writes by kind.", ["kind"])
child_writes_total = Counter("talktime_operator_child_writes_total", "Applied children by kind.", ["kind"])
scalings_total = Counter("talktime_operator_scalings_total", "Changes of agent replicas.", ["direction"])

PROJECT = ["namespace", "project"]
POOL = ["namespace", "pool"]
BUDGET = {
    "budget": ("talktime_project_budget_usd", "Budget of the present period.", "amount"),
    "posted": ("talktime_project_posted_usd", "Spent in the present period.", "posted"),
    "reserved": ("talktime_project_reserved_usd", "Held by live sessions.", "reserved"),
    "available": ("talktime_project_available_usd", "Budget - posted - reserved.", "available"),
    "forecast": ("talktime_project_forecast_usd", "Expected at the end of the period.", "forecast"),
}


class TalktimeCollector(Collector):
    """Reads what is known at the moment of a scrape; nothing is kept twice."""

    def __init__(
        self,
        cluster: Cluster,
        ledger: LedgerSync,
        queue_length: Callable[[], int],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._queue_length = queue_length
        self._now = now

    def collect(self) -> Iterator[Metric]:
        yield from self._money()
        yield from self._spend()
        yield from self._resources()
        queue = GaugeMetricFamily("talktime_operator_queue_length", "Objects that wait for a reconcile or are in one.")
        queue.add_metric([], self._queue_length())
        yield queue
        silent = self._ledger.seconds_since_answer()
        if silent is not None:
            since = GaugeMetricFamily(
                "talktime_operator_ledger_silence_seconds", "Seconds since the ledger last answered."
            )
            since.add_metric([], silent)
            yield since

    def _money(self) -> Iterator[Metric]:
        families = {k: GaugeMetricFamily(name, text, labels=PROJECT) for k, (name, text, _) in BUDGET.items()}
        state = GaugeMetricFamily(
            "talktime_project_budget_state", "1 for the present state.", labels=[*PROJECT, "state"]
        )
        sessions = GaugeMetricFamily("talktime_project_sessions", "Sessions by state.", labels=[*PROJECT, "state"])
        completed = CounterMetricFamily(
            "talktime_project_sessions_completed", "Sessions that have ended.", labels=PROJECT
        )
        refused = CounterMetricFamily(
            "talktime_project_sessions_refused", "Sessions refused, by reason.", labels=[*PROJECT, "reason"]
        )
        for key, known in sorted(self._ledger.statuses.items()):
            if known.deleted:
                continue
            labels = [key.namespace, key.name]
            for name, (_, _, field) in BUDGET.items():
                families[name].add_metric(labels, float(getattr(known.budget, field)))
            for each in BudgetState:
                state.add_metric([*labels, each.value], float(known.budget.state is each))
            counts = known.sessions
            for name, value in (("open", counts.open), ("waiting", counts.waiting), ("attached", counts.attached)):
                sessions.add_metric([*labels, name], value)
            completed.add_metric(labels, counts.completed)
            for reason, value in sorted(counts.refused.items()):
                refused.add_metric([*labels, reason], value)
        yield from families.values()
        yield state
        yield sessions
        yield completed
        yield refused

    def _spend(self) -> Iterator[Metric]:
        if self._ledger.spend is None:
            return
        by = [*PROJECT, "provider", "model"]
        ai = GaugeMetricFamily("talktime_spend_ai_usd", "AI cost posted, all periods.", labels=by)
        transport = GaugeMetricFamily("talktime_spend_transport_usd", "Transport cost posted, all periods.", labels=by)
        unmetered = GaugeMetricFamily(
            "talktime_spend_unmetered_usd", "AI cost posted at a bound: usage that never came, all periods.", labels=by
        )
        for row in self._ledger.spend:
            labels = [row.namespace, row.project, row.provider or "", row.model or ""]
            ai.add_metric(labels, float(row.ai_cost_usd))
            transport.add_metric(labels, float(row.transport_cost))
            unmetered.add_metric(labels, float(row.unmetered_usd - row.transport_unmetered_usd))
        yield from (ai, transport, unmetered)

    def _resources(self) -> Iterator[Metric]:
        agents = GaugeMetricFamily("talktime_project_agents", "Agent pods by state.", labels=[*PROJECT, "state"])
        condition = GaugeMetricFamily(
            "talktime_condition",
            "1 True, 0 False; an unknown condition has no series.",
            labels=["kind", "namespace", "name", "type", "reason"],
        )
        nodes = GaugeMetricFamily("talktime_pool_nodes", "SFU nodes by state.", labels=[*POOL, "state"])
        sessions = GaugeMetricFamily(
            "talktime_sfu_node_sessions", "Rooms on one SFU node; no series while not known.", labels=[*POOL, "node"]
        )
        remaining = GaugeMetricFamily(
            "talktime_sfu_drain_remaining_seconds",
            "Until a draining SFU node's deadline, 0 from then on.",
            labels=[*POOL, "node"],
        )
        rooms = GaugeMetricFamily("talktime_pool_rooms", "Rooms on all nodes of the pool.", labels=POOL)
        for project in self._cluster.projects():
            status = project.status.get("agents") or {}
            for name in ("desired", "ready", "busy", "draining"):
                if name in status:
                    agents.add_metric([*project.key, name], status[name])
        for pool in self._cluster.pools():
            counts: dict[str, int] = {}
            for node in pool.status.get("nodes") or ():
                counts[node["state"]] = counts.get(node["state"], 0) + 1
                if "rooms" in node:
                    sessions.add_metric([*pool.key, node["name"]], node["rooms"])
                if "drainDeadline" in node:
                    until = datetime.strptime(node["drainDeadline"], TIME).replace(tzinfo=UTC)
                    left = max(0.0, (until - self._now()).total_seconds())
                    remaining.add_metric([*pool.key, node["name"]], left)
            for name, count in counts.items():
                nodes.add_metric([*pool.key, name], count)
            if "sessions" in pool.status:
                rooms.add_metric([*pool.key], pool.status["sessions"])
        kinds = (
            ("Project", self._cluster.projects()),
            ("SFUPool", self._cluster.pools()),
            ("RateCard", self._cluster.cards()),
        )
        for kind, objects in kinds:
            for each in objects:
                for c in each.status.get("conditions") or ():
                    if c["status"] != "Unknown":
                        labels = [kind, *each.key, c["type"], c["reason"]]
                        condition.add_metric(labels, float(c["status"] == "True"))
        yield from (agents, condition, nodes, rooms, sessions, remaining)
