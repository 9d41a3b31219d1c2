"""What the chart ships is generated or explained: CRDs, dashboards, values, runbooks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "talktime"


def test_the_charts_crds_are_the_generated_ones() -> None:
    generated = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert {path.name: path.read_text() for path in (CHART / "crds").glob("*.yaml")} == generated


def test_dashboards_are_not_stale() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "hack" / "dashboards.py", "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def schema_at(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return root["$defs"][reference.rsplit("/", 1)[1]] if reference else schema


def test_the_schema_knows_every_value_and_nothing_else() -> None:
    root = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def same(value: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        schema = schema_at(schema, root)
        known = schema.get("properties")
        if known is None:
            return
        assert schema["additionalProperties"] is False, path
        assert set(value) <= set(known), path
        for name, sub in value.items():
            if isinstance(sub, dict):
                same(sub, known[name], f"{path}.{name}")

    same(values, root, "values")
    assert set(root["properties"]) - set(values) == {"global"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CHART / "alerts" / "talktime.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    headings = set(re.findall(r"^### (Talktime\w+)$", text, flags=re.MULTILINE))
    names = {rule["alert"] for rule in alerts()}
    assert headings == names
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_the_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
