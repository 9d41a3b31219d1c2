"""The goodbye without a clip is a response like any other: it is said only when C is still held for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import SecretStr
from talktime_agent.budgeted import Budgeted
from talktime_agent.facts import Billed, Opened
from talktime_agent.goodbye import Goodbye
from talktime_agent.provider import GatedSession
from talktime_agent.spool import Spool
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage, UsageKind

from tests.unit.agent.test_charging import MODEL, Time, attachment
from tests.unit.agent.test_gemini_rule import Silent

C = Decimal("0.006")


class Provider(GatedSession):
    """Notes what it is asked for; there is no socket."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say_goodbye(self, event_id: str, prompt: str, output_tokens: int) -> None:
        self.said.append(event_id)


class Spoken:
    async def wait_for_playout(self) -> None: ...


class Session:
    """A framework's session that speaks at once."""

    def __init__(self, provider: Provider) -> None:
        self.current_agent = SimpleNamespace(realtime_llm_session=provider)

    def on(self, name: str, heard: Callable[[Any], None]) -> None:
        heard(SimpleNamespace(speech_handle=Spoken()))

    def off(self, name: str, heard: Callable[[Any], None]) -> None: ...


def dry(tmp_path: Path, reserved: Decimal) -> tuple[Budgeted, Goodbye, Provider]:
    """A session that holds so much and gets nothing beyond."""
    time, telemetry, nobody = Time(), Silent(), None
    anything: Any = nobody
    told: Any = telemetry
    budget = Budgeted(
        anything, attachment(reserved=str(reserved), state="final"), SecretStr("k"), Spool(tmp_path, "s1", 1, 0.0),
        time.clock(), told, sent_at=time.now, use_interval=20,
    )  # fmt: skip
    provider = Provider()
    session: Any = Session(provider)
    return budget, Goodbye(session, budget), provider


async def test_c_that_a_useless_rendering_has_spent_is_not_spent_again(tmp_path: Path) -> None:
    budget, goodbye, provider = dry(tmp_path, C)
    till = budget.till
    assert till.account.may_render(budget.bounds.goodbye, 1000.0).allowed
    till.request("render", budget.bounds.goodbye)
    till.apply([Opened("p/1", "render")])
    rendering = Usage("p/1", UsageKind.CLOSING_RENDER, "primary", MODEL, {Meter.AUDIO_OUT: 200}, budget.clock.wall())
    till.apply([Billed(rendering)], aside=True)
    await goodbye.say(provider_alive=True, by=math.inf)
    assert provider.said == [], "law 2: nothing starts that is not held"


async def test_with_c_in_hand_it_is_said(tmp_path: Path) -> None:
    budget, goodbye, provider = dry(tmp_path, C)
    await goodbye.say(provider_alive=True, by=math.inf)
    (event_id,) = provider.said
    assert budget.till.account.holds == {event_id: budget.bounds.goodbye}


async def test_a_fenced_agent_says_nothing(tmp_path: Path) -> None:
    budget, goodbye, provider = dry(tmp_path, C)
    budget.till.fence()
    await goodbye.say(provider_alive=True, by=math.inf)
    assert provider.said == []
