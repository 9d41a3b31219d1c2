"""The trial Prometheus scrapes exactly Talktime's running pods, each at its metrics port."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "charts" / "talktime" / "files" / "discover.py"


@pytest.fixture(scope="module")
def discover() -> Any:
    spec = importlib.util.spec_from_file_location("talktime_chart_discover", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pod(component: str, phase: str = "Running", ip: str = "10.0.0.1", **more: str) -> dict[str, Any]:
    annotations = {"prometheus.io/port": more.pop("port")} if "port" in more else {}
    labels = {"app.kubernetes.io/component": component, **{f"talktime.dev/{k}": v for k, v in more.items()}}
    metadata = {"name": f"{component}-0", "namespace": "demo", "labels": labels, "annotations": annotations}
    return {"metadata": metadata, "status": {"phase": phase, "podIP": ip}}


def test_a_pod_is_scraped_at_the_port_of_its_kind(discover: Any) -> None:
    entries = discover.targets([pod("agent", project="interviews"), pod("sfu", ip="10.0.0.2", pool="eu")])
    assert [entry["targets"] for entry in entries] == [["10.0.0.1:8082"], ["10.0.0.2:6789"]]
    assert entries[0]["labels"]["project"] == "interviews"
    assert entries[1]["labels"]["pool"] == "eu"


def test_an_annotation_moves_the_port(discover: Any) -> None:
    (entry,) = discover.targets([pod("sfu", port="7000")])
    assert entry["targets"] == ["10.0.0.1:7000"]


@pytest.mark.parametrize("silent", [pod("agent", phase="Pending"), pod("agent", ip=""), pod("redis"), pod("postgres")])
def test_pods_without_metrics_or_without_an_address_are_left_out(discover: Any, silent: dict[str, Any]) -> None:
    assert discover.targets([silent]) == []


def test_a_file_is_replaced_as_a_whole_and_only_when_it_changed(discover: Any, tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    discover.write(path, "[]")
    before = path.stat().st_ino
    discover.write(path, "[]")
    assert path.stat().st_ino == before
    discover.write(path, "[1]")
    assert path.read_text() == "[1]"
