"""One interview: talk, meter, charge, and end in order. The pure modules decide; here it is done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

from livekit import api
from livekit.agents import Agent, AgentSession, AgentStateChangedEvent, ErrorEvent, JobContext
from livekit.agents.voice.room_io import RoomOptions
from livekit.rtc.participant import PublishDataError
from pydantic import SecretStr
from talktime_ledger.core.usage import UsageStatus
from talktime_ledger.resources.project import OnLedgerOutage
from talktime_ledger.wire import Attachment, Grant, PushEvent

from talktime_agent.charging import Charger
from talktime_agent.close import NOT_OURS, QUIET_SECONDS, SPOKEN, Quiet, settle
from talktime_agent.crosscheck import differences
from talktime_agent.facts import Billed, Committed, Fault
from talktime_agent.gate import Bounds, session_instructions
from talktime_agent.goodbye import Goodbye
from talktime_agent.limits import Situation, Step, next_step, wrap_up_text
from talktime_agent.meter import ProviderMeter
from talktime_agent.metrics import Telemetry
from talktime_agent.observers import ObserverChannel
from talktime_agent.ports import LedgerPort
from talktime_agent.presence import Presence
from talktime_agent.provider import fault_of, talking_model
from talktime_agent.push import concerns
from talktime_agent.reports import ProviderReports
from talktime_agent.settings import AgentSettings
from talktime_agent.spool import Spool
from talktime_agent.till import Clock, Till
from talktime_agent.turns import Turns

logger = logging.getLogger("talktime.agent.interview")

WATCH_SECONDS = 0.5
# Nobody speaks for so long after the soft limit: the agent wraps up of its own accord.
WRAP_UP_IDLE_SECONDS = 8.0


class Interview:
    """Runs one session from the agent's joining to its settling."""

    def __init__(
        self,
        ctx: JobContext,
        settings: AgentSettings,
        ledger: LedgerPort,
        attachment: Attachment,
        key: SecretStr,
        spool: Spool,
        clock: Clock,
        telemetry: Telemetry,
        sent_at: float,
    ) -> None:
        """``sent_at``: monotonic seconds when attach was sent."""
        config, told = attachment.config, attachment.session
        self._ctx = ctx
        self._settings = settings
        self._ledger = ledger
        self._told = told
        self._config = config
        self._spool = spool
        self._clock = clock
        self._telemetry = telemetry
        self._meter = ProviderMeter(
            provider=told.provider, model=told.model, transcription_model=config.transcriptionModel
        )
        bounds = Bounds.of(attachment)
        self._till = Till(attachment, bounds, self._meter, spool, clock, sent_at)
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._quiet = Quiet(lambda: self._till.quiet)
        self._charger = Charger(
            ledger,
            told.session_id,
            self._till,
            interval=settings.use_interval,
            monotonic=clock.monotonic,
            on_grant=self._on_grant,
            on_refused=self._end,
        )
        self._agent = Agent(instructions=session_instructions(config))
        model = talking_model(told.model, config, key, self, self._on_provider_event)
        self._session: AgentSession[None] = AgentSession(
            llm=model, vad=None, turn_handling={"turn_detection": "manual"}, user_away_timeout=None
        )
        self._answered = Quiet(lambda: not self._meter.open_responses)
        self._turns = Turns(
            self._till,
            answer=self._answer,
            renewed=self._charger.renewed,
            quiet=self._answered,
            refused=self._on_turn_refused,
        )
        self._presence = Presence(
            told.participant_identity,
            rejoin_grace=settings.rejoin_grace,
            reconnect_limit=settings.reconnect_limit,
            monotonic=clock.monotonic,
        )
        self._observers: ObserverChannel | None = None
        self._goodbye = Goodbye(
            self._session, self._till, bounds, told, config, key, ledger, clock, self._money_changed
        )
        self._reports = ProviderReports(ledger, told.namespace, told.project, told.provider, key)
        self._wrap_up: Grant | None = None
        self._wrapped_up = False
        self._spoke = False
        self._greeted = False
        self._idle_since = clock.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    # the gate of the provider's session

    def admits(self) -> bool:
        """Whether a response may start now: the media is up and the account holds its worst case."""
        return not self._turns.is_shut and self._till.may_respond().allowed

    def request(self, event_id: str) -> None:
        """A response.create goes out."""
        self._till.request(event_id)

    # the run

    async def run(self, pushed: AsyncIterator[PushEvent]) -> str:
        """Until the interview has ended and is settled; the reason. Cancelling it ends it in the same order."""
        try:
            await self._begin(pushed)
            reason = await self._ended
        except asyncio.CancelledError:
            reason = "shutdown"
        except Exception:
            logger.exception("the interview could not go on")
            reason = "agent_error"
        self._end(reason)
        await self._finish(reason)
        return reason

    async def _begin(self, pushed: AsyncIterator[PushEvent]) -> None:
        self._presence.watch(self._ctx.room, on_down=self._on_media_down, on_up=self._on_media_up)
        self._session.on("agent_state_changed", self._on_agent_state)
        self._session.on("error", self._on_error)
        self._start(self._charger.run())
        self._start(self._listen(pushed))
        await self._ctx.connect()
        await self._session.start(
            self._agent,
            room=self._ctx.room,
            # A participant gets no text door past the gate, and no remote hand on the session (it can ask for usage).
            room_options=RoomOptions(
                text_input=False, close_on_disconnect=False, participant_identity=self._told.participant_identity
            ),
            session_host=False,
            record=False,
        )
        try:
            async with asyncio.timeout(self._settings.join_timeout):
                await self._ctx.wait_for_participant(identity=self._told.participant_identity)
                await self._session.room_io.wait_for_ready()
        except TimeoutError:
            self._end("no_show")
            return
        self._start(self._watch())
        if self._told.observers:
            self._observers = ObserverChannel(self._ctx.room.local_participant, self._told.observers)
            self._start(self._tell_observers(self._observers))
        if self._config.greeting:
            self._turns.respond()
        self._start(self._goodbye.prepare())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the interview failed", exc_info=error)
            self._end("agent_error")

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            logger.info("ending", extra={"reason": reason})
            self._turns.shut()
            self._till.begin_closing()
            self._ended.set_result(reason)

    # what happens

    def _on_provider_event(self, event: Mapping[str, Any]) -> None:
        for fact in (facts := self._meter.feed(event, self._clock.wall())):
            self._till.apply([fact])
            match fact:
                case Committed() if not self._turns.is_shut:
                    self._till.turn()
                    self._turns.respond()
                case Billed(usage):
                    self._telemetry.count("responses", str(usage.status))
                    if usage.status is UsageStatus.COMPLETED:
                        self._start(self._reports.works())
                case Fault(code, message):
                    self._start(self._reports.fails(code, message))
        if facts:
            self._money_changed()

    def _money_changed(self) -> None:
        self._quiet.changed()
        self._answered.changed()
        if self._till.owes:
            self._charger.kick()
        self._review()

    def _on_grant(self, grant: Grant) -> None:
        if grant.wrap_up and self._wrap_up is None:
            self._wrap_up = grant
            self._till.event("soft_limit")
        self._review()

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state == "speaking" and not self._spoke:
            self._spoke = True
            self._till.event("first_audio")
        self._idle_since = self._clock.monotonic()
        self._review()

    def _on_error(self, event: ErrorEvent) -> None:
        error = getattr(event.error, "error", None)
        fault = fault_of(error) if isinstance(error, BaseException) else None
        refused = fault is not None and fault[0] == "invalid_api_key"
        hopeless = refused or not getattr(event.error, "recoverable", True)
        if fault is not None:
            self._start(self._reports.fails(*fault))
        if hopeless:
            # The framework would tear the session down at once, goodbye and usage with it; we end in our own order.
            event.error.recoverable = True
            self._end("provider_error")

    def _on_turn_refused(self, reason: str) -> None:
        self._telemetry.count("refusals", reason)
        if reason == "money":
            self._end("budget" if self._charger.reachable else "ledger_outage")
        elif reason == "validity":
            self._end("ledger_outage")

    def _on_media_down(self) -> None:
        # A dead SFU still yields billed answers that nobody hears.
        self._turns.shut()
        with contextlib.suppress(RuntimeError):
            self._session.interrupt()
            self._session.clear_user_turn()

    def _on_media_up(self) -> None:
        if not self._ended.done():
            self._turns.open()

    def _answer(self) -> None:
        if self._config.greeting and not self._greeted and not self._till.turns:
            self._greeted = True
            self._session.generate_reply(instructions=self._config.greeting)
        elif self._wrap_up is not None and not self._wrapped_up:
            self._wrapped_up = True
            text = wrap_up_text(self._config.wrapUp, self._wrap_up.wrap_up_minutes)
            self._till.event("wrap_up_sent")
            self._session.generate_reply(instructions=text)
        else:
            self._session.generate_reply()

    def _review(self) -> None:
        if self._ended.done():
            return
        step, reason = next_step(
            Situation(
                wrap_up_told=self._wrap_up is not None,
                wrapped_up=self._wrapped_up,
                exhausted=self._till.exhausted,
                expired=self._till.expired and not self._charger.reachable,
                fenced=self._till.account.fenced,
                on_outage=self._config.onLedgerOutage,
            )
        )
        speaking = self._session.agent_state == "speaking"
        idle = self._clock.monotonic() - self._idle_since > WRAP_UP_IDLE_SECONDS
        match step:
            case Step.CLOSE if not speaking:
                # What is being said is paid for; the goodbye comes after it.
                self._end(reason)
            case Step.LEAVE:
                self._end(reason)
            case Step.WRAP_UP if idle and not speaking and not self._turns.busy:
                if self._session.user_state != "speaking":
                    self._turns.respond()
            case _:
                if self._till.short:
                    self._charger.kick()

    # loops

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if (reason := self._presence.over()) is not None:
                self._end(reason)
            self._review()

    async def _listen(self, pushed: AsyncIterator[PushEvent]) -> None:
        async for event in pushed:
            if not concerns(event, self._told.session_id):
                continue
            if event.event == "fence" and int(event.data.get("epoch", 0)) > self._till.epoch:
                self._till.fence()
                self._end("fenced")
            self._charger.kick()

    async def _tell_observers(self, observers: ObserverChannel) -> None:
        while True:
            await asyncio.sleep(self._config.costUpdateSeconds)
            await self._send_cost(observers)

    async def _send_cost(self, observers: ObserverChannel) -> None:
        try:
            async with asyncio.timeout(2):
                await observers.send(self._till.cost_now())
        except (TimeoutError, PublishDataError, OSError) as error:
            logger.warning("observers not told", extra={"why": str(error)})

    # the end

    async def _finish(self, reason: str) -> None:
        with_goodbye = reason in SPOKEN and self._presence.there and self._ctx.room.isconnected()
        if reason == "ledger_outage" and self._config.onLedgerOutage is OnLedgerOutage.TERMINATE:
            with_goodbye = False
        if reason == "budget":
            self._till.event("hard_limit")
        await self._silence()
        if with_goodbye:
            await self._goodbye.say(provider_alive=reason != "provider_error")
        if self._observers is not None and self._ctx.room.isconnected():
            await self._send_cost(self._observers)
        self._till.event("left")
        if reason not in NOT_OURS:
            await self._delete_room()
        await self._quiet(QUIET_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._cross_check()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self._session.aclose()
        unmetered = len(self._till.account.holds)
        self._telemetry.count("unmetered", amount=unmetered)
        self._telemetry.count("sessions_ended", reason)
        if await settle(self._ledger, self._told.session_id, self._till, reason):
            self._spool.finish()
        else:
            self._spool.write("closed", self._clock.wall().timestamp())
            self._spool.abandon()
        logger.info("settled", extra={"reason": reason, "turns": self._till.turns, "unmetered": unmetered})

    async def _silence(self) -> None:
        """Nothing is heard and nothing is said any more; what is open at the provider is cancelled."""
        self._session.input.set_audio_enabled(False)
        with contextlib.suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(1.5):
                await self._session.interrupt(force=True)

    async def _delete_room(self) -> None:
        try:
            async with asyncio.timeout(3):
                await self._ctx.api.room.delete_room(api.DeleteRoomRequest(room=self._told.session_id))
        except api.TwirpError as error:
            if error.code != api.TwirpErrorCode.NOT_FOUND:
                logger.warning("the room was not deleted", extra={"why": str(error)})
        except (TimeoutError, OSError) as error:
            logger.warning("the room was not deleted", extra={"why": str(error)})

    def _cross_check(self) -> None:
        found = differences(self._session.usage.model_usage, self._told.model, *self._till.audio_tokens)
        if found:
            self._telemetry.count("mismatches")
            logger.warning("livekit's numbers differ from the metered ones", extra={"difference": found})
