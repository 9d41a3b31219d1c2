"""A dashboard or alert over a metric that nobody exports would be silent for ever."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import yaml
from prometheus_client import CollectorRegistry, Metric
from talktime_gateway.metrics import Metrics as GatewayMetrics
from talktime_ledger.server.metrics import Metrics as LedgerMetrics
from talktime_operator.metrics import TalktimeCollector

CHART = Path(__file__).resolve().parents[3] / "charts" / "talktime"
NAME = re.compile(r"\btalktime_[a-z_]+\b")


def exposed(families: Iterable[Metric]) -> set[str]:
    """Names as a query writes them: counters end in `_total`."""
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def exported() -> set[str]:
    nothing = cast(Any, SimpleNamespace(projects=list, pools=list, cards=list))
    ledger = cast(Any, SimpleNamespace(statuses={}, spend=(), seconds_since_answer=lambda: 0.0))
    operator = CollectorRegistry()
    operator.register(TalktimeCollector(nothing, ledger, lambda: 0))
    registries = (operator, GatewayMetrics().registry, LedgerMetrics().registry)
    return set().union(*(exposed(registry.collect()) for registry in registries))


def test_every_metric_of_a_dashboard_is_exported() -> None:
    for path in (CHART / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
        queries += [str(variable.get("query", "")) for variable in board["templating"]["list"]]
        assert {name for query in queries for name in NAME.findall(query)} <= exported(), path.name


def test_every_metric_of_an_alert_is_exported() -> None:
    groups = yaml.safe_load((CHART / "alerts" / "talktime.yaml").read_text())["groups"]
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    assert {name for expression in expressions for name in NAME.findall(expression)} <= exported()
