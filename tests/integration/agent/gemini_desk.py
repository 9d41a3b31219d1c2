"""A ledger in memory for one Gemini session, and the agent's budget on the plugin's own session, audio from memory."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities
from pydantic import SecretStr
from talktime_agent.budgeted import Budgeted
from talktime_agent.clock import system_clock
from talktime_agent.gemini_model import GeminiModel, GeminiSession
from talktime_agent.spool import Spool
from talktime_ledger.core.grants import Need, plan_grant
from talktime_ledger.core.limits import Level, LimitState, Position, judge
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.pricing import price
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.core.worst_case import Caps, Legs, instruction_tokens_bound, output_cap
from talktime_ledger.core.worst_cases import GEMINI
from talktime_ledger.wire import Attachment, Close, CostList, Grant, GrantBudget, GrantState, Usage, Use
from talktime_ledger.wire.resume import ContextItem

MODEL = "gemini-3.8-live"
HOLD = 2
RATE = 16_000
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
TALK = RateSnapshot(
    "gemini",
    "google",
    MODEL,
    SINCE,
    {
        Meter(name): Decimal(usd)
        for name, usd in {
            "text_in": "0.75", "audio_in": "3", "text_out": "4.5", "audio_out": "12", "thoughts_out": "4.5",
            "tool_prompt_in": "0.75", "unassigned_in": "3",
        }.items()
    },
)  # fmt: skip
CAPS = Caps(1000, 10)
WORDS = {
    "instructions": "You interview people about their work. Ask one short question at a time.",
    "language": "en",
    "greeting": "Greet the participant and ask the first question.",
    "wrapUp": "You are approaching the time limit. Please conclude within {minutes} minutes.",
    "closing": "Thank you for your time, we have covered everything we need. Goodbye.",
}


@dataclass
class GeminiDesk:
    """The ledger's answers, judged by the real core; a body under a known key is a correction."""

    limit: Decimal
    posted: Decimal = ZERO
    reserved: Decimal = ZERO
    usages: dict[str, Usage] = field(default_factory=dict)
    closed: Close | None = None
    most: Decimal = ZERO
    wrapped: bool = False
    clips: dict[str, bytes] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    answers: dict[int, Grant] = field(default_factory=dict)

    def bounds(self) -> tuple[Decimal, Decimal]:
        spoken = (WORDS["greeting"], WORDS["wrapUp"], WORDS["closing"])
        words = instruction_tokens_bound(WORDS["instructions"], spoken)
        return GEMINI.capped(Legs(TALK), CAPS, instruction_tokens=words), GEMINI.goodbye(TALK, WORDS["closing"])

    def grant(self, n: int, want: Decimal = ZERO, in_flight: Decimal = ZERO) -> Grant:
        cap, goodbye = self.bounds()
        w = HOLD * (min(want, cap) or cap)
        level = Level(self.limit, self.posted, self.limit - self.posted, 80)
        far = Level(Decimal(100), self.posted, Decimal(100))
        verdict = judge(Position(level, far, None, w, goodbye, in_flight))
        room = self.limit - self.posted - self.reserved
        plan = plan_grant(Need(goodbye, w, in_flight), self.reserved, [room], Decimal(100), 1)
        self.reserved += plan.delta
        self.most = max(self.most, self.posted + self.reserved)
        final = verdict.state is LimitState.HARD or plan.final
        soft = verdict.state is LimitState.SOFT
        wrap_up, self.wrapped = soft and not self.wrapped, self.wrapped or soft
        return Grant(
            n=n, state=GrantState.FINAL if final else GrantState.SOFT if soft else GrantState.OK,
            wrap_up=wrap_up, wrap_up_minutes=2 if wrap_up else None, reason=verdict.reason, reserved=self.reserved,
            goodbye=goodbye, posted=self.posted, session_limit=self.limit, limit_state=verdict.state, w=cap, hold=HOLD,
            budget=GrantBudget(
                session_limit=self.limit, session_posted=self.posted, project_amount=Decimal(100),
                project_posted=self.posted, project_available=Decimal(100) - self.posted,
            ),
        )  # fmt: skip

    def post(self, usages: tuple[Usage, ...]) -> None:
        for usage in usages:
            old = self.usages.get(usage.key)
            cost = price(usage.meters, TALK) - (price(old.meters, TALK) if old else ZERO)
            self.usages[usage.key] = usage
            self.posted += cost
            self.reserved -= min(self.reserved, cost)

    async def use(self, session_id: str, request: Use, *, patience_sec: float | None = None) -> Grant:
        self.post(request.usages)
        self.events += [event.name for event in request.events]
        if request.n not in self.answers:
            self.answers[request.n] = self.grant(request.n, request.want, request.in_flight)
        return self.answers[request.n]

    async def close(self, session_id: str, request: Close) -> CostList:
        self.post(request.usages)
        self.closed = request
        self.events += [event.name for event in request.events]
        self.posted += sum((item.usd for item in request.unmetered), ZERO)
        self.reserved = ZERO
        self.most = max(self.most, self.posted)
        return CostList(session_id=session_id, posted=self.posted, costs=())

    async def report_provider(self, *told: Any) -> None: ...

    async def clip(self, namespace: str, name: str, key: str) -> bytes | None:
        return self.clips.get(key)

    async def put_clip(self, namespace: str, name: str, key: str, pcm: bytes) -> None:
        self.clips[key] = pcm

    def attachment(self, endpoint: str) -> Attachment:
        return Attachment.model_validate(
            {
                "session": {
                    "session_id": "s1", "namespace": "research", "project": "study", "provider": "backup",
                    "api": "GeminiLive", "model": MODEL, "epoch": 1, "state": "open", "opened_at": SINCE,
                    "participant_identity": "participant-1", "observers": ["observer-1"], "posted": "0",
                    "reserved": "0", "limit": str(self.limit),
                },
                "config": {
                    **WORDS, "endpoint": endpoint, "voice": "marin", "costUpdateSeconds": 10,
                    "onLedgerOutage": "Drain",
                    "caps": {
                        "contextTokens": CAPS.context_tokens, "responseSeconds": CAPS.response_seconds,
                        "outputTokens": output_cap(CAPS.response_seconds),
                    },
                },
                "grant": self.grant(0).model_dump(mode="json"),
                "rates": [
                    {"card": "gemini", "vendor": "google", "model": MODEL, "effective_from": SINCE,
                     "prices": {str(meter): str(usd) for meter, usd in TALK.prices.items()}}
                ],
            }
        )  # fmt: skip


class Speaker(AudioOutput):
    """Plays at once, and keeps how many seconds of each piece there were."""

    def __init__(self) -> None:
        super().__init__(label="memory", capabilities=AudioOutputCapabilities(pause=False), sample_rate=24_000)
        self.played: list[float] = []
        self._now = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if self._now == 0.0:
            self.on_playback_started(created_at=time.time())
        self._now += frame.duration

    def flush(self) -> None:
        super().flush()
        self._end(interrupted=False)

    def clear_buffer(self) -> None:
        self._end(interrupted=True)

    def _end(self, interrupted: bool) -> None:
        if self._now:
            self.played.append(self._now)
            self.on_playback_finished(playback_position=self._now, interrupted=interrupted)
            self._now = 0.0


class Telemetry:
    """Counts, by name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount


@dataclass
class Talk:
    """One interview without a room: what is spoken is pushed as fast as it goes."""

    desk: GeminiDesk
    budget: Budgeted
    _session: GeminiSession | None = None

    @property
    def session(self) -> GeminiSession:
        """The provider's session."""
        assert self._session is not None
        return self._session

    def adopt(self, session: Any) -> None:
        """The session that the framework has opened."""
        assert isinstance(session, GeminiSession)
        self._session = session

    @property
    def answered(self) -> int:
        """Answers of the conversation whose usage is known."""
        return len(self.budget.till._audio)

    @property
    def connections(self) -> set[str]:
        """Those with an answer whose usage is known."""
        return {key.partition("/")[0] for key in self.budget.till._audio}

    def say(self, seconds: float = 1.5) -> None:
        """Noise that counts as speech, and the silence that ends a turn; nothing when we are not heard."""
        noise = random.Random(int(seconds * 1000))
        loud = array("h", (noise.randint(-9000, 9000) for _ in range(int(RATE * seconds))))
        samples = loud + array("h", bytes(2 * int(RATE * 1.8)))
        step = RATE // 20
        for start in range(0, len(samples), step):
            part = samples[start : start + step]
            self.session.push_audio(rtc.AudioFrame(part.tobytes(), RATE, 1, len(part)))

    async def until_heard(self, most_seconds: float = 60) -> None:
        """What is said between an answer's bill and the grant that renews it is heard by nobody."""
        async with asyncio.timeout(most_seconds):
            while not self.budget.hears() and not self.budget.ended.done():  # noqa: ASYNC110 - the ledger's answer
                await asyncio.sleep(0.02)

    async def until_answered(self, answers: int, most_seconds: float = 120) -> None:
        async with asyncio.timeout(most_seconds):
            while self.answered < answers and not self.budget.ended.done():  # noqa: ASYNC110 - the provider's socket
                await asyncio.sleep(0.02)

    async def turn(self, patience_sec: float = 90) -> None:
        """The user says something and is answered, or the session ends; or nobody answers, for so long.

        Where a connection may end under what is said, the caller says it again after a shorter patience.
        """
        before = self.answered
        await self.until_heard()
        self.say()
        deaf_until = time.monotonic() + patience_sec
        while self.answered == before and not self.budget.ended.done() and time.monotonic() < deaf_until:
            await asyncio.sleep(0.05)
            if not self.budget.busy and not self.budget.till.account.holds:
                self.session.push_audio(rtc.AudioFrame(bytes(2 * RATE // 10), RATE, 1, RATE // 10))


@asynccontextmanager
async def talking(
    desk: GeminiDesk, endpoint: str, directory: Path, connected: bool = True, before: Sequence[ContextItem] = ()
) -> AsyncIterator[Talk]:
    """Attached, and connected to the provider unless that is the test's part; settled when the block is left."""
    clock = system_clock()
    sent_at = clock.monotonic()
    ledger: Any = desk
    budget = Budgeted(
        ledger, desk.attachment(endpoint), SecretStr("k"), Spool(directory, "s1", 1, 0.0), clock, Telemetry(),
        sent_at=sent_at, use_interval=1, before=before,
    )  # fmt: skip
    model = budget.model
    assert isinstance(model, GeminiModel)
    session = model.session() if connected else None

    def review() -> None:
        if budget.till.exhausted:
            budget.end("budget")
        elif budget.till.short:
            budget.charger.kick()

    budget.start(answer=lambda: None, on_change=review)
    try:
        yield Talk(desk, budget, session)
    finally:
        budget.end("participant_left")
        await budget.settle(budget.ended.result())
        if session is not None:
            await session.aclose()
