"""One interview: greet, listen, answer, wrap up, say goodbye, leave. The pure modules decide; here it is done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from livekit import api
from livekit.agents import Agent, AgentSession, AgentStateChangedEvent, ErrorEvent, JobContext
from livekit.agents.voice.room_io import RoomOptions, TextOutputOptions
from livekit.rtc.participant import PublishDataError
from talktime_ledger.wire import Grant

from talktime_agent.apis import provider_fault, turn_detection
from talktime_agent.budgeted import Budgeted
from talktime_agent.close import may_delete_room, may_speak
from talktime_agent.context import Memory, chat_context, interrupted, only_goodbye
from talktime_agent.crosscheck import differences
from talktime_agent.gate import session_instructions
from talktime_agent.goodbye import Goodbye
from talktime_agent.interruption import Interruption
from talktime_agent.leaving import Parting, leave
from talktime_agent.limits import Step, next_step, situation, wrap_up_text
from talktime_agent.observers import ObserverChannel
from talktime_agent.presence import Presence
from talktime_agent.settings import AgentSettings

logger = logging.getLogger("talktime.agent.interview")

WATCH_SECONDS = 0.5
# Nobody speaks for so long after the soft limit: the agent wraps up of its own accord.
WRAP_UP_IDLE_SECONDS = 8.0
# Where the provider answers by itself the wrap-up cannot ride on its next answer: it is given in the next pause.
PAUSE_SECONDS = 1.0


class Interview:
    """Runs one budgeted session from the agent's joining to its leaving."""

    def __init__(self, ctx: JobContext, settings: AgentSettings, budget: Budgeted) -> None:
        self._ctx = ctx
        self._settings = settings
        self._budget = budget
        self._told = budget.session
        self._config = budget.config
        self._till = budget.till
        self._resumed = interrupted(budget.session, budget.before)
        self._memory = Memory(budget.ledger, budget.session, budget.before)
        self._agent = Agent(
            instructions=session_instructions(budget.config),
            chat_ctx=chat_context(budget.before) if budget.before else None,
        )
        self._session: AgentSession[None] = AgentSession(
            llm=budget.model,
            vad=None,
            turn_handling={"turn_detection": turn_detection(budget.session.api)},
            user_away_timeout=None,
        )
        self._presence = Presence(
            self._told.participant_identity,
            rejoin_grace=settings.rejoin_grace,
            reconnect_limit=settings.reconnect_limit,
            monotonic=budget.clock.monotonic,
        )
        self._interruption = Interruption()
        self._goodbye = Goodbye(self._session, budget)
        self._observers: ObserverChannel | None = None
        self._wrap_up: Grant | None = None
        self._wrapped_up = False
        self._joined = False
        self._spoke = False
        # The first words after an interruption say so, whoever speaks first otherwise.
        self._greeting = self._config.resume if self._resumed else self._config.greeting
        self._greeted = not self._greeting
        self._idle_since = budget.clock.monotonic()
        self._pause = PAUSE_SECONDS if budget.answers_by_itself else WRAP_UP_IDLE_SECONDS

    async def run(self) -> str:
        """Until the interview has ended and the room is left; the reason. Cancelling ends it in the same order."""
        try:
            await self._begin()
            await self._budget.ended
        except asyncio.CancelledError:
            self._budget.end("shutdown")
        except Exception:
            logger.exception("the interview could not go on")
            self._budget.end("agent_error")
        reason = self._budget.ended.result()
        await self._finish(reason)
        return reason

    async def _begin(self) -> None:
        self._presence.watch(self._ctx.room, on_down=self._on_media_down, on_up=self._on_media_up)
        self._session.on("agent_state_changed", self._on_agent_state)
        self._session.on("error", self._on_error)
        if self._config.keepContext:
            self._session.on("conversation_item_added", lambda event: self._memory.on_item(event.item))
            self._budget.keep(self._memory.keep())
        self._budget.start(answer=self._answer, on_grant=self._on_grant, on_change=self._review)
        await self._ctx.connect()
        await self._session.start(
            self._agent,
            room=self._ctx.room,
            # A participant gets no text door past the gate, and no remote hand on the session (it can ask for usage).
            # Words in step with the voice would cost a spectrum of every answer: a stall of the loop on a busy machine.
            room_options=RoomOptions(
                text_input=False,
                text_output=TextOutputOptions(sync_transcription=False),
                close_on_disconnect=False,
                participant_identity=self._told.participant_identity,
            ),
            session_host=False,
            record=False,
        )
        self._budget.keep(self._watch())
        if not await self._participant_came():
            self._budget.end("no_show")
            return
        self._came()
        if self._told.observers:
            self._observers = ObserverChannel(self._ctx.room.local_participant, self._told.observers)
            self._budget.keep(self._tell_observers(self._observers))
        if only_goodbye(self._told):
            self._budget.turns.shut()
            await self._goodbye.prepare()
            self._budget.end("agent_died")
            return
        if not self._greeted:
            self._budget.turns.respond()
        self._budget.keep(self._goodbye.prepare())

    async def _participant_came(self) -> bool:
        """Waits for the participant and the audio path to them; False when nobody came, or it is over before."""

        async def came() -> None:
            await self._ctx.wait_for_participant(identity=self._told.participant_identity)
            await self._session.room_io.wait_for_ready()

        joining = asyncio.ensure_future(came())
        either: set[asyncio.Future[Any]] = {joining, self._budget.ended}
        await asyncio.wait(either, timeout=self._settings.join_timeout, return_when=asyncio.FIRST_COMPLETED)
        if joining.done() and not self._budget.ended.done():
            joining.result()
            return True
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        return False

    # what happens

    def _came(self) -> None:
        """The participant is there: from now on somebody hears what is said."""
        self._joined, self._idle_since = True, self._budget.clock.monotonic()

    def _answer(self) -> None:
        first_words = self._interruption.words()
        if not self._greeted:
            self._greeted = True
            self._session.generate_reply(instructions=str(self._greeting))
        elif first_words and self._config.resume:
            self._session.generate_reply(instructions=self._config.resume)
        elif self._wrap_up is not None and not self._wrapped_up:
            self._wrapped_up = True
            self._till.event("wrap_up_sent")
            text = wrap_up_text(self._config.wrapUp, self._wrap_up.wrap_up_minutes)
            self._session.generate_reply(instructions=text)
        else:
            self._session.generate_reply()

    def _on_grant(self, grant: Grant) -> None:
        if grant.wrap_up and self._wrap_up is None:
            self._wrap_up = grant
            self._till.event("soft_limit")

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state == "speaking" and not self._spoke:
            self._spoke = True
            self._till.event("first_audio")
        self._idle_since = self._budget.clock.monotonic()
        self._review()

    def _on_error(self, event: ErrorEvent) -> None:
        error = getattr(event.error, "error", None)
        fault = provider_fault(error) if isinstance(error, BaseException) else None
        if fault is not None:
            self._budget.provider_fails(*fault)
        refused = fault is not None and fault[0] == "invalid_api_key"
        if refused or not getattr(event.error, "recoverable", True):
            # The framework would tear the session down at once, goodbye and usage with it; we end in our own order.
            event.error.recoverable = True
            self._budget.end("provider_error")

    def _on_media_down(self) -> None:
        self._interruption.down(silent=self._silent)
        # A dead SFU still yields billed answers that nobody hears.
        self._budget.turns.shut()
        with contextlib.suppress(RuntimeError):
            self._session.interrupt()
            self._session.clear_user_turn()

    def _on_media_up(self) -> None:
        if self._budget.ended.done():
            return
        self._budget.turns.open()
        if self._interruption.up():
            self._budget.turns.respond()

    @property
    def _silent(self) -> bool:
        """Nobody speaks, and no answer is on its way."""
        speaking = "speaking" in (self._session.user_state, self._session.agent_state)
        return not speaking and not self._budget.busy

    def _review(self) -> None:
        """Looks at the limits; called after everything that may have changed them, and twice a second."""
        if self._budget.ended.done():
            return
        step, reason = next_step(
            situation(
                self._till,
                self._budget.charger,
                wrap_up_told=self._wrap_up is not None,
                wrapped_up=self._wrapped_up,
                on_outage=self._config.onLedgerOutage,
            )
        )
        speaking = self._session.agent_state == "speaking"
        idle = self._budget.clock.monotonic() - self._idle_since > self._pause
        match step:
            case Step.CLOSE if not speaking:
                # What is being said is paid for; the goodbye comes after it.
                self._budget.end(reason)
            case Step.LEAVE:
                self._budget.end(reason)
            case Step.WRAP_UP if self._joined and self._silent and idle:
                self._budget.turns.respond()
            case _:
                if self._till.short:
                    self._budget.charger.kick()

    # loops

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if (reason := self._presence.over()) is not None:
                self._budget.end(reason)
            self._review()

    async def _tell_observers(self, observers: ObserverChannel) -> None:
        while True:
            await asyncio.sleep(self._config.costUpdateSeconds)
            if self._ctx.room.isconnected():
                await self._send_cost(observers)

    async def _send_cost(self, observers: ObserverChannel) -> None:
        try:
            async with asyncio.timeout(2):
                await observers.send(self._till.cost_now())
        except (TimeoutError, PublishDataError, OSError) as error:
            logger.warning("observers not told", extra={"why": str(error)})

    # the end

    async def _finish(self, reason: str) -> None:
        if reason == "budget":
            self._till.reach_hard_limit()
        end_room: Callable[[], Awaitable[object]] = self._delete_room
        if not may_delete_room(reason, self._till.valid):
            # Another agent's by now: we go first. A connection that is being mended would put us beside that one.
            end_room = partial(asyncio.shield, asyncio.ensure_future(self._ctx.room.disconnect()))
        await leave(
            Parting(
                silence=self._silence,
                goodbye=partial(self._say_goodbye, reason),
                tell_observers=self._tell_last_cost,
                left=partial(self._till.event, "left"),
                end_room=end_room,
            )
        )
        # The provider's socket outlives the room: it still brings the usage of what was open.
        await self._budget.usage_in()
        self._cross_check()
        try:
            async with asyncio.timeout(10):
                await self._session.aclose()
        except Exception:
            # Whatever the framework or the plugin has to say now, the money is settled next.
            logger.warning("the session did not close well", exc_info=True)

    async def _say_goodbye(self, reason: str, by: float) -> None:
        if may_speak(reason, self._till.valid) and self._presence.there and self._ctx.room.isconnected():
            await self._goodbye.say(provider_alive=reason != "provider_error", by=by)

    async def _tell_last_cost(self) -> None:
        if self._observers is not None and self._ctx.room.isconnected():
            await self._send_cost(self._observers)

    async def _silence(self) -> None:
        """Nothing is heard and nothing is said any more; what is open at the provider is cancelled."""
        self._session.input.set_audio_enabled(False)
        await self._session.interrupt(force=True)

    async def _delete_room(self) -> None:
        await self._ctx.api.room.delete_room(api.DeleteRoomRequest(room=self._told.session_id))

    def _cross_check(self) -> None:
        found = differences(self._session.usage.model_usage, self._told.model, *self._till.audio_tokens)
        if found:
            self._budget.telemetry.count("mismatches")
            logger.warning("livekit's numbers differ from the metered ones", extra={"difference": found})
