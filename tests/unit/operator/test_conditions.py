"""Each condition names the field and the fix, and holds no amount of money."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.wire import ProjectStatus
from talktime_operator import conditions
from talktime_operator.conditions import Finding, PoolView

Specs = Callable[..., ProjectSpec]
Statuses = Callable[..., ProjectStatus]


def test_an_unpriced_model_names_the_card_to_apply(project_spec: Specs, ledger_status: Statuses) -> None:
    ledger = ledger_status(prices=[{"provider": "backup", "model": "live", "known": False, "reason": "no card"}])
    finding = conditions.price_known(project_spec(), ledger)
    assert (finding.status, finding.reason) == ("False", "PriceUnknown")
    assert "spec.providers[1]" in finding.message
    assert "RateCard with provider 'google' and model 'live'" in finding.message


@pytest.mark.parametrize("judge", [conditions.price_known, conditions.budget_available])
def test_a_silent_ledger_is_unknown_and_not_false(judge: Any, project_spec: Specs) -> None:
    assert judge(project_spec(), None).status == "Unknown"


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [("OK", "True", "WithinBudget"), ("SoftLimit", "True", "SoftLimit"), ("HardLimit", "False", "HardLimit")],
)
def test_budget_states(project_spec: Specs, ledger_status: Statuses, state: str, status: str, reason: str) -> None:
    budget = ledger_status().budget.model_dump() | {"state": state}
    finding = conditions.budget_available(project_spec(), ledger_status(budget=budget))
    assert (finding.status, finding.reason) == (status, reason)
    assert not re.search(r"\d\.\d", finding.message)


def test_an_unknown_pool_tells_which_there_are(project_spec: Specs) -> None:
    finding = conditions.media_healthy(project_spec(), "talktime", None, ["us", "asia"])
    assert (finding.status, finding.reason) == ("False", "PoolNotFound")
    assert "spec.media.poolRef.name: no SFUPool 'eu' in namespace 'talktime'" in finding.message
    assert "asia, us" in finding.message


@pytest.mark.parametrize(("health", "status"), [("good", "True"), ("bad", "False"), ("unknown", "Unknown")])
def test_health_is_three_valued(project_spec: Specs, health: Any, status: str) -> None:
    view = PoolView(health, "SelfHosted")
    assert conditions.media_healthy(project_spec(), "talktime", view, ["eu"]).status == status


def test_a_forced_switch_to_a_dead_fallback_is_said_with_its_fix(project_spec: Specs) -> None:
    view = PoolView("good", "Fallback", fallback="bad", forced=True)
    finding = conditions.media_healthy(project_spec(), "talktime", view, ["eu"])
    assert (finding.status, finding.reason) == ("False", "FallbackSick")
    assert "spec.fallback.mode to Auto" in finding.message
    assert conditions.media_healthy(project_spec(), "talktime", replace(view, forced=False), ["eu"]).status == "True"


def _all(**changes: Finding) -> list[Finding]:
    good = {
        name: Finding(name, "False" if name == "Paused" else "True", "Fine")
        for name in (
            "Paused",
            "LedgerReachable",
            "PriceKnown",
            "BudgetFeasible",
            "BudgetAvailable",
            "MediaHealthy",
            "CredentialsValid",
        )
    }
    return list((good | changes).values())


@pytest.mark.parametrize(
    ("changes", "agents", "minimum", "status", "reason"),
    [
        ({}, 1, 1, "True", "Ready"),
        ({}, 0, 1, "False", "AgentsNotReady"),
        ({}, 0, 0, "True", "Ready"),
        ({"Paused": Finding("Paused", "True", "PausedByAnnotation")}, 1, 1, "False", "Paused"),
        ({"PriceKnown": Finding("PriceKnown", "False", "PriceUnknown")}, 1, 1, "False", "PriceUnknown"),
        ({"MediaHealthy": Finding("MediaHealthy", "Unknown", "PoolUnknown")}, 1, 1, "True", "Ready"),
        ({"LedgerReachable": Finding("LedgerReachable", "Unknown", "Connecting")}, 1, 1, "Unknown", "Connecting"),
    ],
)
def test_ready(changes: dict[str, Finding], agents: int, minimum: int, status: str, reason: str) -> None:
    finding = conditions.project_ready(_all(**changes), agents, minimum)
    assert (finding.status, finding.reason) == (status, reason)


def test_the_transition_time_moves_only_with_the_status(now: datetime) -> None:
    first = conditions.with_times([Finding("Ready", "False", "A")], (), 1, now)
    later = now + timedelta(minutes=1)
    same = conditions.with_times([Finding("Ready", "False", "B", "new words")], first, 2, later)
    assert same[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
    assert (same[0]["reason"], same[0]["observedGeneration"]) == ("B", 2)
    turned = conditions.with_times([Finding("Ready", "True", "C")], same, 2, later)
    assert turned[0]["lastTransitionTime"] == "2026-11-22T12:01:00Z"
