"""A wrap-up that the ledger tells with the very first grant: heard at once, said when somebody is there to hear it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from talktime_agent.budgeted import Budgeted
from talktime_agent.interview import WRAP_UP_IDLE_SECONDS, Interview
from talktime_agent.settings import AgentSettings
from talktime_agent.spool import Spool
from talktime_ledger.wire import Grant

from tests.unit.agent.test_charging import Time, attachment
from tests.unit.agent.test_gemini_rule import Silent

TOLD = {"state": "soft", "limit_state": "soft", "reason": "ProjectSoft", "wrap_up": True, "wrap_up_minutes": 2}


@pytest.fixture
def time() -> Time:
    return Time()


def budgeted(time: Time, directory: Path, **more: Any) -> Budgeted:
    nobody: Any = None
    telemetry: Any = Silent()
    return Budgeted(
        nobody, attachment(**more), SecretStr("k"), Spool(directory, "s1", 1, 0.0), time.clock(), telemetry,
        sent_at=time.now, use_interval=20,
    )  # fmt: skip


async def test_the_grant_of_attach_is_the_first_that_is_told(time: Time, tmp_path: Path) -> None:
    budget = budgeted(time, tmp_path, **TOLD)
    grants: list[Grant] = []
    budget.start(answer=lambda: None, on_grant=grants.append)
    assert [(grant.n, grant.wrap_up) for grant in grants] == [(0, True)]
    for task in budget._tasks:
        task.cancel()


def interview_of(budget: Budgeted) -> Interview:
    ctx: Any = SimpleNamespace(room=None)
    settings: Any = AgentSettings.model_validate(
        {
            "project": "ns/p", "ledger_url": "http://ledger.test", "agent_name": "a", "livekit_url": "ws://livekit.test",
            "livekit_api_key": "k", "livekit_api_secret": "s",
        }
    )  # fmt: skip
    return Interview(ctx, settings, budget)


async def test_it_is_said_in_the_first_pause_after_the_participant_came(
    time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = budgeted(time, tmp_path, **TOLD)
    interview = interview_of(budget)
    asked: list[float] = []
    monkeypatch.setattr(budget.turns, "respond", lambda: asked.append(time.now))
    interview._on_grant(budget.first)
    time.now += 3 * WRAP_UP_IDLE_SECONDS
    interview._review()
    assert asked == [], "nobody is there yet"
    interview._came()
    interview._review()
    assert asked == [], "a pause begins when somebody is there"
    time.now += WRAP_UP_IDLE_SECONDS + 0.1
    interview._review()
    assert len(asked) == 1
    said: list[str] = []
    monkeypatch.setattr(interview._session, "generate_reply", lambda **more: said.append(more.get("instructions", "")))
    for _ in range(3):
        interview._answer()
    assert said == ["Wrap up.", "", ""], "once"
