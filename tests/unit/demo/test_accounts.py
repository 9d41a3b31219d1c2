"""Before a demo a Project gets a fresh account when what is left of its budget could end in the middle of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.demo.release import spent

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def project(file: str, **budget: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / file).read_text())
    return {**document, "status": {"budget": budget}} if budget else document


@pytest.mark.parametrize("file", ["30-project-interviews.yaml", "31-project-limit.yaml"])
def test_a_new_project_is_not_spent(file: str) -> None:
    assert not spent(project(file))
    assert not spent(project(file, state="OK", posted="0"))


@pytest.mark.parametrize("state", ["SoftLimit", "HardLimit"])
def test_one_at_a_limit_is(state: str) -> None:
    assert spent(project("31-project-limit.yaml", state=state, posted="0.08"))


def test_the_limit_project_is_spent_by_any_session() -> None:
    assert spent(project("31-project-limit.yaml", state="OK", posted="0.01"))


@pytest.mark.parametrize(("posted", "expected"), [("1.20", False), ("5.50", False), ("5.51", True), ("7.60", True)])
def test_the_interviews_are_when_a_full_length_one_would_reach_the_soft_limit(posted: str, expected: bool) -> None:
    assert spent(project("30-project-interviews.yaml", state="OK", posted=posted)) is expected
