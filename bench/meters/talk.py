"""One session: the agent's budget on the plugin's own session, audio from memory, faults as planned.

Also a program, for sessions that are killed: `python -m bench.meters.talk SPEC.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from livekit import rtc
from pydantic import SecretStr
from talktime_agent.budgeted import Budgeted
from talktime_agent.clock import system_clock
from talktime_agent.gate import session_instructions
from talktime_agent.spool import Spool
from talktime_ledger.client import LedgerClient, LedgerError
from talktime_ledger.wire import Attach, Close, CostList, Grant, Use

from bench.meters import plans
from bench.meters.plans import Plan, Turn

RATE: dict[plans.Vendor, int] = {"openai": 24_000, "google": 16_000}
FRAME_SECONDS = 0.05
# Ends a turn of either provider's detection.
SILENCE_SECONDS = 1.2
BEGIN_SECONDS = 8.0
# A lost connection is noticed and replaced within it.
TURN_SECONDS = 20.0
USE_INTERVAL = 1.0
TOO_LATE_SECONDS = 60.0
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Spec:
    """Where one session happens. `metrics`: a file for livekit's own events; `spool`: a directory of its own."""

    plan: Plan
    session_id: str
    simulator: str
    ledger: str
    token: str
    spool: str
    metrics: str

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def spec_of(text: str) -> Spec:
    """Of `Spec.dump`."""
    told = json.loads(text)
    return Spec(**{**told, "plan": plans.load(told["plan"])})


class LossyLedger(LedgerClient):
    """The real ledger; some of its answers never come, though what was asked is done."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec.ledger, token=spec.token, token_path=None, patience_sec=PATIENCE_SECONDS)
        self._dice = random.Random(f"ledger/{spec.plan.vendor}/{spec.plan.number}")
        self._share = spec.plan.lost_replies
        self._loses_close = spec.plan.lost_close
        self.lost = 0

    async def use(self, session_id: str | UUID, request: Use, *, patience_sec: float | None = None) -> Grant:
        """Lost as often as planned."""
        grant = await super().use(session_id, request, patience_sec=patience_sec)
        if self._dice.random() < self._share:
            self.lost += 1
            raise LedgerError("the answer was lost")
        return grant

    async def close(self, session_id: str | UUID, request: Close) -> CostList:
        """Lost at most once."""
        costs = await super().close(session_id, request)
        if self._loses_close:
            self._loses_close = False
            self.lost += 1
            raise LedgerError("the answer was lost")
        return costs


class Telemetry:
    """Counts what was billed, so that a turn knows of its answer."""

    def __init__(self) -> None:
        self.billed = 0

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        """Of the agent's metrics only `responses` matters here."""
        self.billed += amount if name == "responses" else 0


class Watched(Budgeted):
    """The agent's budget, looked into."""

    @property
    def meter_open(self) -> frozenset[str]:
        """What is open at the provider, by the meter."""
        return self._meter.open_responses


class Talk:
    """A running session."""

    def __init__(self, spec: Spec, budget: Watched, telemetry: Telemetry, http: httpx.AsyncClient) -> None:
        self._plan = spec.plan
        self._simulator = spec.simulator
        self._dice = random.Random(f"talk/{spec.plan.vendor}/{spec.plan.number}")
        self._budget = budget
        self._telemetry = telemetry
        self._http = http
        self._asked: list[asyncio.Future[Any]] = []
        self._metrics = Path(spec.metrics).open("a", encoding="utf-8")  # noqa: SIM115 - as long as the session
        self.session: Any = budget.model.session()
        self.session.on("metrics_collected", self._theirs)

    async def run(self) -> None:
        """All turns, then the planned end; the session is settled afterwards by the caller."""
        self._budget.start(answer=self._answer, on_change=self._review)
        if self._plan.vendor == "openai":
            await self.session.update_instructions(session_instructions(self._budget.config))
        self._ask(instructions="Greet the participant.")
        await self._quiet()
        for turn in self._plan.turns:
            await self._turn(turn)
        match self._plan.ending:
            case "mid_answer":
                await self._fault("late_done" if self._plan.vendor == "openai" else "late_usage", 1.0)
                await self._begin_answer()
            case "too_late":
                await self._fault("late_done", TOO_LATE_SECONDS)
                await self._begin_answer()
            case "dies":
                await self._begin_answer()
                await asyncio.sleep(self._dice.uniform(0, 0.4))
                os.kill(os.getpid(), signal.SIGKILL)

    async def leave(self) -> None:
        """In the agent's own order: usage, then the provider's socket, then the books."""
        self._budget.end("participant_left")
        await self._budget.usage_in()
        with contextlib.suppress(Exception):  # a plugin that says goodbye badly has been heard to the end
            async with asyncio.timeout(10):
                await self.session.aclose()
        await self._budget.settle(self._budget.ended.result())
        for future in self._asked:
            future.cancel()
        self._metrics.close()

    # one turn

    async def _turn(self, turn: Turn) -> None:
        for name, seconds in turn.faults.items():
            await self._fault(name, seconds)
        if turn.barge_in is None:
            await self._begin_answer(turn.speech)
        else:
            await self._begin_answer(turn.speech)
            await asyncio.sleep(turn.barge_in)
            self._interrupt()
            await self._begin_answer(turn.speech)
        await self._quiet()

    async def _begin_answer(self, speech: float = 1.0) -> None:
        """The user says something; returns when its answer has begun, or after BEGIN_SECONDS."""
        before, billed = self._budget.meter_open, self._telemetry.billed
        self._say(speech)
        await self._until(lambda: bool(self._budget.meter_open - before) or self._telemetry.billed > billed)

    async def _quiet(self) -> None:
        """Nothing is open any more, and no answer is about to begin."""
        calm = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS):
                while calm < 4:
                    await asyncio.sleep(0.05)
                    calm = calm + 1 if self._budget.till.quiet and not self._budget.busy else 0

    async def _until(self, happened: Callable[[], bool], seconds: float = BEGIN_SECONDS) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not happened() and not self._budget.ended.done():  # noqa: ASYNC110 - the provider's socket
                    await asyncio.sleep(0.02)

    def _say(self, seconds: float) -> None:
        """Noise that counts as speech and the silence that ends a turn, as fast as it goes."""
        rate = RATE[self._plan.vendor]
        loud = array("h", (self._dice.randint(-9000, 9000) for _ in range(int(rate * seconds))))
        samples = loud + array("h", bytes(2 * int(rate * SILENCE_SECONDS)))
        step = int(rate * FRAME_SECONDS)
        for start in range(0, len(samples), step):
            part = samples[start : start + step]
            self.session.push_audio(rtc.AudioFrame(part.tobytes(), rate, 1, len(part)))

    def _interrupt(self) -> None:
        """As the framework does when the user speaks; Gemini hears it by itself."""
        if self._plan.vendor != "openai":
            return
        for future in self._asked:
            future.cancel()
        self.session.interrupt()

    def _answer(self) -> None:
        self._ask()

    def _ask(self, **options: str) -> None:
        future = self.session.generate_reply(**options)
        # The framework would say that an answer did not come; here the books do.
        future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        self._asked = [*(one for one in self._asked if not one.done()), future]

    def _review(self) -> None:
        if self._budget.till.short:
            self._budget.charger.kick()

    def _theirs(self, metrics: Any) -> None:
        self._metrics.write(metrics.model_dump_json() + "\n")
        self._metrics.flush()

    async def _fault(self, name: str, seconds: float) -> None:
        answer = await self._http.post(f"{self._simulator}/faults", json={"fault": name, "seconds": seconds})
        answer.raise_for_status()


async def hold(spec: Spec) -> int:
    """The whole session; how many of the ledger's answers were lost. A session that dies takes its process along."""
    telemetry, clock = Telemetry(), system_clock()
    ledger = LossyLedger(spec)
    async with httpx.AsyncClient(timeout=30) as http, ledger:
        sent_at = clock.monotonic()
        attachment = await ledger.attach(spec.session_id, Attach(epoch=1, worker="bench"))
        spool = Spool(Path(spec.spool), spec.session_id, 1, clock.wall().timestamp())
        budget = Watched(
            ledger, attachment, SecretStr("sk-bench"), spool, clock, telemetry,
            sent_at=sent_at, use_interval=USE_INTERVAL,
        )  # fmt: skip
        talk = Talk(spec, budget, telemetry, http)
        try:
            await talk.run()
        finally:
            await talk.leave()
        return ledger.lost


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(hold(spec_of(Path(sys.argv[1]).read_text(encoding="utf-8"))))
