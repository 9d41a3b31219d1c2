"""Every query of every dashboard and every alert is understood by a real Prometheus and finds what it is about."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Ask

CHART = ROOT / "charts" / "talktime"


def panels() -> list[Any]:
    found = []
    for path in sorted((CHART / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                found.append(pytest.param(target["expr"], id=f"{path.stem}-{panel['title']}-{target['refId']}"))
    return found


def chosen(expression: str) -> str:
    """As Grafana sends it with "All" chosen."""
    return expression.replace("$namespace", ".*").replace("$project", ".*")


def found(expression: str) -> str:
    """Without the zero that stands in for no data: with it a misspelt metric returns something, too."""
    return chosen(expression).removesuffix(" or vector(0)")


@pytest.mark.parametrize("expression", panels())
def test_a_query_returns_data(ask: Ask, expression: str) -> None:
    assert "vector(0)" not in found(expression)
    assert ask(found(expression)), expression


def value(result: list[dict[str, Any]]) -> float:
    (row,) = result
    return float(row["value"][1])


def query_of(title: str) -> str:
    board = json.loads((CHART / "dashboards" / "finance.json").read_text())
    (panel,) = [panel for panel in board["panels"] if panel["title"] == title]
    return chosen(panel["targets"][0]["expr"])


def test_two_pods_that_tell_the_same_do_not_double_the_spend(ask: Ask) -> None:
    by_provider = {
        row["metric"]["provider"]: float(row["value"][1]) for row in ask(query_of("Spend per day, by provider"))
    }
    # Each provider took 40 % of 10.1 USD in two days: half of it in the last one.
    assert by_provider == {
        "openai_realtime": pytest.approx(2.02, abs=0.05),
        "gemini_live": pytest.approx(2.02, abs=0.05),
    }


def test_budget_and_cost_per_session_add_up(ask: Ask) -> None:
    assert value(ask(query_of("Budget"))) == pytest.approx(10.1)
    assert value(ask(query_of("Cost per session"))) == pytest.approx(0.8 * 10.1 / 12, rel=0.02)


def test_the_state_table_has_one_row_per_project(ask: Ask) -> None:
    rows = {row["metric"]["project"]: row["metric"]["state"] for row in ask(query_of("State"))}
    assert rows == {"interviews": "OK", "limit": "HardLimit"}


def test_alerts_fire_when_they_should_and_only_then() -> None:
    cases = Path(__file__).parent / "alerts.yaml"
    done = subprocess.run(["promtool", "test", "rules", str(cases)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
