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


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("127.0.0.1:5000/talktime", True),
        ("localhost:5000", True),
        ("localhost/team", True),
        ("[::1]:5000/team", True),
        ("registry.example.com/127.0.0.1", False),
        ("registry.example.com:5000/team", False),
        ("localhost.example.com", False),
    ],
)
def test_only_a_registry_on_this_machine_is_spoken_to_without_tls(registry: str, expected: bool) -> None:
    assert images.on_loopback(registry) is expected


def test_a_push_that_is_refused_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TALKTIME_STATE", str(tmp_path))
    monkeypatch.setattr(images, "docker_answers", lambda: False)
    monkeypatch.setattr(builder, "make", lambda _, image: image)
    monkeypatch.setattr(builder.Workshop, "buildah", property(lambda _: ["false"]))
    assert images.main(["push", REGISTRY]) == 1
    assert capsys.readouterr().err.startswith("images: ")
