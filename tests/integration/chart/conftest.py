"""Rendering the chart with the pinned Helm (or the one on PATH)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "talktime"

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def helm() -> str:
    pinned = ROOT / ".state" / "bin" / "helm"
    found = str(pinned) if pinned.exists() else shutil.which("helm")
    assert found, "no helm: `make tools` builds the pinned one"
    return found


@pytest.fixture(scope="session")
def render(helm: str) -> Render:
    def run(*settings: str, files: Mapping[str, Path] = MappingProxyType({})) -> list[dict[str, Any]]:
        values = [part for setting in settings for part in ("--set", setting)]
        values += [part for name, file in files.items() for part in ("--set-file", f"{name}={file}")]
        done = subprocess.run(
            [helm, "template", "talktime", str(CHART), "--namespace", "talktime", *values],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(done.stderr)
        return [doc for doc in yaml.safe_load_all(done.stdout) if doc]

    return run


@pytest.fixture(scope="session")
def promtool() -> Callable[..., None]:
    def run(*arguments: str) -> None:
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run
