"""What a session still has to tell when it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from talktime_agent.budgeted import Budgeted
from talktime_agent.spool import Spool
from talktime_ledger.wire import Close, ProviderReport

from tests.unit.agent.test_gemini_rule import Silent, Time, attachment


class SlowLedger:
    """Hears of the provider only after some turns of the loop, long after the session has decided to end."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def report_provider(self, namespace: str, project: str, report: ProviderReport) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        self.heard.append(f"{report.provider}: {report.code}")

    async def close(self, session_id: str, request: Close) -> None:
        self.heard.append(f"closed: {request.reason}")


async def test_a_provider_that_refuses_is_told_before_the_session_is_settled(tmp_path: Path) -> None:
    time, ledger = Time(), SlowLedger()
    anything: Any = ledger
    telemetry: Any = Silent()
    budget = Budgeted(
        anything, attachment(), SecretStr("k"), Spool(tmp_path, "s1", 1, 0.0), time.clock(), telemetry,
        sent_at=time.now, use_interval=20,
    )  # fmt: skip
    budget.provider_fails("insufficient_quota", "You exceeded your current quota.")
    budget.end("provider_error")
    await budget.settle("provider_error")
    assert ledger.heard == ["backup: insufficient_quota", "closed: provider_error"]
