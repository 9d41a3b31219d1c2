"""The spoken end: the clip, or a capped response paid by C. At most 5 s from its first audio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from livekit.agents import AgentSession, SpeechCreatedEvent
from livekit.agents.voice import SpeechHandle
from talktime_ledger.core.usage import UsageKind

from talktime_agent import clip
from talktime_agent.apis import meter_of, rendering
from talktime_agent.budgeted import Budgeted
from talktime_agent.clock import Clock
from talktime_agent.gate import Bounds
from talktime_agent.provider import GatedSession
from talktime_agent.till import Till

logger = logging.getLogger("talktime.agent.goodbye")

# What words may take with their queueing, and what a response may take to be heard at all.
SAY_SECONDS = clip.MOST_SECONDS + 1.0
FIRST_AUDIO_SECONDS = 2.5


class _RenderGate:
    """The gate of the rendering: it may use C, and only once."""

    def __init__(self, till: Till, bounds: Bounds, clock: Clock) -> None:
        self._till = till
        self._bounds = bounds
        self._clock = clock

    def admits(self) -> bool:
        return self._till.account.may_render(self._bounds.goodbye, self._clock.monotonic()).allowed

    def hears(self) -> bool:
        return False

    def request(self, event_id: str) -> None:
        self._till.request(event_id, self._bounds.goodbye)


class Goodbye:
    """Prepares the goodbye when the session begins, and says it when it ends."""

    def __init__(self, session: AgentSession[None], budget: Budgeted) -> None:
        self._session = session
        self._budget = budget
        self._till = budget.till
        self._bounds = budget.bounds
        self._told = budget.session
        self._config = budget.config
        self._clock = budget.clock
        self._pcm: bytes | None = None

    async def prepare(self) -> None:
        """Gets the clip: the ledger's, or rendered now."""
        key = clip.clip_key(self._told.model, self._config.voice, self._config.closing)

        async def render() -> bytes | None:
            gate = _RenderGate(self._till, self._bounds, self._clock)
            if not gate.admits():
                return None
            meter = meter_of(self._told, self._config, UsageKind.CLOSING_RENDER)

            def heard(event: Mapping[str, Any]) -> None:
                if facts := meter.feed(event, self._clock.wall()):
                    self._till.apply(facts, aside=True)
                    self._budget.changed()

            async def rendered(seconds: float) -> bool:
                for _ in range(int(seconds / 0.05)):
                    if not meter.open_responses:
                        return True
                    await asyncio.sleep(0.05)
                return False

            model = rendering(
                self._told, self._config, self._budget.key, gate, heard, self._bounds.goodbye_output_tokens
            )
            return await clip.render(model, clip.closing_prompt(self._config.closing), rendered)

        pcm = await clip.obtain(self._budget.ledger, self._told.namespace, self._told.project, key, render)
        if pcm is not None:
            self._pcm = clip.shortened(pcm)
        logger.info("closing clip", extra={"ready": pcm is not None})

    async def say(self, *, provider_alive: bool, by: float) -> None:
        """Says it, and is over ``by`` then (the loop's time), in the middle of a word if must be.

        Nothing is heard when there is neither a clip nor a provider.
        """
        self._till.event("closing_started")
        if self._pcm is not None:
            handle = self._session.say(
                self._config.closing, audio=clip.frames(self._pcm), allow_interruptions=False, add_to_chat_ctx=False
            )
            await self._played(handle, by)
        elif provider_alive:
            await self._respond(by)
        self._till.event("closing_finished")

    async def _played(self, handle: SpeechHandle, by: float) -> None:
        try:
            async with asyncio.timeout_at(min(by, asyncio.get_running_loop().time() + SAY_SECONDS)):
                await handle.wait_for_playout()
        except TimeoutError:
            with contextlib.suppress(RuntimeError):
                handle.interrupt(force=True)

    async def _respond(self, by: float) -> None:
        provider = self._session.current_agent.realtime_llm_session
        # C may be spent already: on a rendering that was billed and gave no clip, in a session that gets nothing more.
        paid = self._till.account.may_render(self._bounds.goodbye, self._clock.monotonic()).allowed
        if not isinstance(provider, GatedSession) or not paid:
            return
        created: asyncio.Future[SpeechHandle] = asyncio.get_running_loop().create_future()

        def on_speech(event: SpeechCreatedEvent) -> None:
            if not created.done():
                created.set_result(event.speech_handle)

        self._session.on("speech_created", on_speech)
        event_id = f"closing_{uuid.uuid4().hex}"
        self._till.request(event_id, self._bounds.goodbye)
        provider.say_goodbye(event_id, clip.closing_prompt(self._config.closing), self._bounds.goodbye_output_tokens)
        try:
            async with asyncio.timeout(FIRST_AUDIO_SECONDS):
                handle = await created
        except TimeoutError:
            logger.warning("the goodbye was not answered")
            return
        finally:
            self._session.off("speech_created", on_speech)
        await self._played(handle, by)
