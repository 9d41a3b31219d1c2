"""Grafana dashboards of the chart, as code.

Usage: dashboards.py            write charts/talktime/dashboards/*.json
       dashboards.py --check    exit 1 and name the files that are stale

Amounts are the ledger's, told by the acting operator. Two pods may tell them for a moment when the Lease moves, hence
`max by` before any sum.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "charts" / "talktime" / "dashboards"

SELECTED = 'namespace=~"$namespace",project=~"$project"'
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = stat.Panel | timeseries.Panel | bargauge.Panel | table.Panel


@dataclass(frozen=True)
class Query:
    """One PromQL expression and how its series are named."""

    expr: str
    legend: str = "{{namespace}}/{{project}}"


def spend(kind: str = "ai", offset: str = "") -> str:
    """Posted USD by Project, provider and model, over all periods."""
    return f"max by (namespace, project, provider, model) (talktime_spend_{kind}_usd{{{SELECTED}}}{offset})"


def project_gauge(name: str) -> str:
    """A per-Project gauge of the operator, without the labels of the pod that told it."""
    return f"max by (namespace, project) (talktime_project_{name}{{{SELECTED}}})"


def total(name: str) -> str:
    """The same, summed over the chosen Projects."""
    return f"sum({project_gauge(name)})"


def spent_within(window: str, by: str) -> str:
    """AI spend posted in the window before each point; the totals come from the ledger's database and never restart."""
    before = spend(offset=f" offset {window}")
    return f"sum by ({by}) ({spend()} - ({before} or 0 * {spend()}))"


def targets(panel: Panel, queries: list[Query], instant: bool) -> None:
    for index, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + index))
        target = target.instant() if instant else target.range()
        if isinstance(panel, table.Panel):
            target = target.format(PromQueryFormat.TABLE)
        panel.with_target(target)


def number(title: str, description: str, query: Query, unit: str = "currencyUSD", decimals: int = 2) -> stat.Panel:
    """One number now, with its history behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .decimals(decimals)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(common_models.BigValueColorMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(4)
        .span(4)
    )
    targets(panel, [query], instant=False)
    return panel


def chart(
    title: str, description: str, queries: list[Query], unit: str = "currencyUSD", span: int = 12, bars: bool = False
) -> timeseries.Panel:
    """Lines over time, or bars of one day each."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .height(8)
        .span(span)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    )
    if bars:
        panel = (
            panel.draw_style(common_models.GraphDrawStyle.BARS)
            .fill_opacity(80)
            .interval("1d")
            .time_from("14d")
            .stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
        )
    else:
        panel = panel.fill_opacity(10).line_width(2)
    targets(panel, queries, instant=False)
    return panel


def used_budget() -> bargauge.Panel:
    """Posted over budget per Project, coloured at the default soft limit."""
    panel = (
        bargauge.Panel()
        .title("Budget used")
        .description("Posted spend over the budget of the period. Yellow from 80 %, red when nothing is left.")
        .datasource(DATASOURCE)
        .unit("percentunit")
        .min(0)
        .max(1)
        .height(8)
        .span(12)
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps(
                [
                    models.Threshold(value=None, color="green"),
                    models.Threshold(value=0.8, color="yellow"),
                    models.Threshold(value=1.0, color="red"),
                ]
            )
        )
    )
    targets(panel, [Query(f"{project_gauge('posted_usd')} / {project_gauge('budget_usd')}")], instant=True)
    return panel


def project_table() -> table.Panel:
    """One row per Project and its state."""
    panel = (
        table.Panel()
        .title("State")
        .description("OK, SoftLimit (wrapping up or warning) or HardLimit (no new sessions) of each Project.")
        .datasource(DATASOURCE)
        .height(8)
        .span(12)
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True, "Value": True},
                    "indexByName": {"namespace": 0, "project": 1, "state": 2},
                    "renameByName": {"namespace": "Namespace", "project": "Project", "state": "State"},
                },
            )
        )
    )
    state = f"max by (namespace, project, state) (talktime_project_budget_state{{{SELECTED}}}) == 1"
    targets(panel, [Query(state)], instant=True)
    return panel


def variables(builder: dashboard.Dashboard) -> dashboard.Dashboard:
    """Data source, then namespace, then the Projects in it."""
    return (
        builder.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("namespace")
            .label("Namespace")
            .datasource(DATASOURCE)
            .query("label_values(talktime_project_posted_usd, namespace)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
        .with_variable(
            dashboard.QueryVariable("project")
            .label("Project")
            .datasource(DATASOURCE)
            .query('label_values(talktime_project_posted_usd{namespace=~"$namespace"}, project)')
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )


def finance() -> dashboard.Dashboard:
    """What finance asks: what is the budget, what is gone, what is promised, who spent it, who was turned away."""
    balances = [
        Query(total("budget_usd"), "budget"),
        Query(total("posted_usd"), "posted"),
        Query(f"{total('posted_usd')} + {total('reserved_usd')}", "posted + reserved"),
    ]
    sessions = f"sum by (state) (max by (namespace, project, state) (talktime_project_sessions{{{SELECTED}}}))"
    completed = f"sum(max by (namespace, project) (talktime_project_sessions_completed_total{{{SELECTED}}}))"
    refused = f"max by (namespace, project, reason) (talktime_project_sessions_refused_total{{{SELECTED}}})"
    board = (
        dashboard.Dashboard("Talktime: finance")
        .uid("talktime-finance")
        .description("Budgets and spend of voice interviews. The ledger's numbers; the invoice corrects them later.")
        .tags(["talktime"])
        .timezone("utc")
        .time("now-24h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    panels: list[Panel] = [
        number("Budget", "Sum of the budgets of the chosen Projects.", Query(total("budget_usd"), "budget")),
        number("Posted", "Spent and accounted for.", Query(total("posted_usd"), "posted")),
        number("Reserved", "Held by live sessions, not spent yet.", Query(total("reserved_usd"), "reserved")),
        number("Available", "Budget - posted - reserved.", Query(total("available_usd"), "available")),
        number(
            "Cost per session",
            "Posted over completed sessions.",
            Query(f"{total('posted_usd')} / ({completed} > 0) or vector(0)", "average"),
            decimals=4,
        ),
        number("Completed", "Sessions that have ended.", Query(completed, "sessions"), unit="short", decimals=0),
        used_budget(),
        project_table(),
        chart("Budget and commitment", "Posted and reserved never exceed the budget by a grant.", balances),
        chart("Posted by Project", "Spend of each Project so far.", [Query(project_gauge("posted_usd"))]),
        chart(
            "Spend per day, by provider",
            "Posted in each UTC day.",
            [Query(spent_within("1d", "provider"), "{{provider}}")],
            bars=True,
        ),
        chart(
            "Spend per day, by model",
            "Posted in each UTC day.",
            [Query(spent_within("1d", "model"), "{{model}}")],
            bars=True,
        ),
        chart(
            "Sessions",
            "open = admitted and not closed; attached = an agent talks; waiting = no agent yet.",
            [Query(sessions, "{{state}}")],
            unit="short",
        ),
        chart(
            "Refusals",
            "Sessions turned away so far, by reason.",
            [Query(f"sum by (reason) ({refused}) or vector(0)", "{{reason}}")],
            unit="short",
        ),
        chart(
            "AI and transport",
            "Spend so far: what the provider bills, and participant minutes on LiveKit.",
            [Query(f"sum({spend()})", "AI"), Query(f"sum({spend('transport')}) or vector(0)", "transport")],
        ),
        chart(
            "Burn rate",
            "USD per hour over the last 10 minutes.",
            [Query(f"{spent_within('10m', 'namespace, project')} * 6")],
        ),
        chart(
            "Unmetered",
            "Posted at its bound because the provider's usage never came; the invoice corrects it.",
            [Query(f"sum by (namespace, project) ({spend('unmetered')}) or vector(0)")],
        ),
    ]
    for panel in panels:
        board = board.with_panel(panel)
    return variables(board)


def outputs() -> dict[Path, str]:
    """File contents by path."""
    return {FOLDER / "finance.json": JSONEncoder(sort_keys=True, indent=2).encode(finance().build()) + "\n"}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Grafana dashboards of the chart, as code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args(argv).check
    stale = {path: text for path, text in outputs().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if check:
            print(f"stale: {path.relative_to(ROOT)} (run hack/dashboards.py)", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
