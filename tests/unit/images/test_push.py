"""What `make images REGISTRY=...` pushes is what the chart then asks that registry for."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.images import __main__ as images
from hack.images import builder

VALUES = Path(__file__).resolve().parents[3] / "charts" / "talktime" / "values.yaml"
REGISTRY = "registry.example.com/team"


def ours(value: Any) -> set[str]:
    """All names of Talktime images in the chart's values, without a tag."""
    if isinstance(value, dict):
        return set().union(*(ours(each) for each in value.values()))
    return {value.partition(":")[0]} if isinstance(value, str) and value.startswith("talktime/") else set()


@pytest.mark.parametrize("docker", [True, False])
def test_every_image_that_the_chart_prefixes_with_the_registry_is_pushed(
    docker: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pushed: set[str] = set()

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "push" in argv:
            pushed.add(argv[-1].removeprefix("docker://"))
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(images, "docker_answers", lambda: docker)
    monkeypatch.setattr(builder, "make", lambda _, image: image)
    monkeypatch.setattr(subprocess, "run", run)
    images.push(builder.Workshop(tmp_path, tmp_path), REGISTRY)
    wanted = {f"{REGISTRY}/{name}" for name in ours(yaml.safe_load(VALUES.read_text()))}
    assert {target.rpartition(":")[0] for target in pushed} == wanted
