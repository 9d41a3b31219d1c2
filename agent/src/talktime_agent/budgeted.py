"""Meter and charge for any livekit agent: what Talktime's own interview is built on, and other people's agents can be.

    async with budgeted(ctx) as budget:
        session = AgentSession(llm=budget.model, vad=None, turn_handling={"turn_detection": "manual"})
        budget.start(answer=session.generate_reply)     # called when a turn of the user may be answered
        await session.start(agent, room=ctx.room, room_options=..., session_host=False)
        reason = await budget.ended                      # e.g. "budget": say goodbye, then leave the block
        await session.interrupt(force=True)

Leaving the block waits for the usage of what is still open and settles in the ledger. Keep `close_on_disconnect=False`
and call `budget.end("participant_left")` yourself, else the framework's own close loses the last response's usage.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from livekit.agents import JobContext
from pydantic import SecretStr
from talktime_ledger.client import LedgerClient
from talktime_ledger.core.usage import UsageStatus
from talktime_ledger.wire import Attach, Attachment, Close, Grant, ProviderReport, PushEvent
from talktime_ledger.wire.resume import ContextItem

from talktime_agent.apis import answers_by_itself, meter_of, talking
from talktime_agent.charging import Charger
from talktime_agent.clock import Clock, system_clock
from talktime_agent.close import QUIET_SECONDS, Quiet, settle
from talktime_agent.context import recall, tokens_of
from talktime_agent.facts import Billed, Committed, Fault, Opened
from talktime_agent.gate import Bounds
from talktime_agent.limits import OUTAGE_SECONDS
from talktime_agent.metrics import Telemetry
from talktime_agent.ports import LedgerPort
from talktime_agent.push import PodLink, concerns
from talktime_agent.reports import ProviderReports
from talktime_agent.settings import AgentSettings, ProviderKeyMissingError, provider_key
from talktime_agent.spool import Spool
from talktime_agent.till import Till
from talktime_agent.turns import Turns

logger = logging.getLogger("talktime.agent.budgeted")

# A joining participant waits meanwhile; longer than a restart of the ledger, shorter than their patience.
ATTACH_PATIENCE_SECONDS = 30.0
# Nobody else tells the Project that its provider refused; the ledger mostly answers at once.
REPORT_SECONDS = 3.0
# Longer than a renewal takes; longer in silence than a user should be left without an answer.
DEAF_SECONDS = 10.0
TICK_SECONDS = 1.0


class Budgeted:
    """One session's meter, till and charging loop. ``model`` is gated: no response starts that is not paid for."""

    def __init__(
        self,
        ledger: LedgerPort,
        attachment: Attachment,
        key: SecretStr,
        spool: Spool,
        clock: Clock,
        telemetry: Telemetry,
        *,
        sent_at: float,
        use_interval: float,
        before: Sequence[ContextItem] = (),
    ) -> None:
        """``sent_at``: monotonic seconds when attach was sent; ``before``: what was said to the agents before."""
        told, config = attachment.session, attachment.config
        self.session = told
        self.config = config
        self.key = key
        self.ledger = ledger
        self.clock = clock
        self.telemetry = telemetry
        self.bounds = Bounds.of(attachment)
        self.first = attachment.grant
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._spool = spool
        self._usage_until: float | None = None
        self._meter = meter_of(told, config)
        self.before = tuple(before)
        self._meter.text_added(sum(tokens_of(item) for item in self.before))
        self.answers_by_itself = answers_by_itself(told.api)
        self._deaf_since: float | None = None
        self.till = Till(attachment, self.bounds, self._meter, spool, clock, sent_at)
        self._quiet = Quiet(lambda: self.till.quiet)
        self._answered = Quiet(lambda: not self._meter.open_responses)
        self.charger = Charger(
            ledger,
            told.session_id,
            self.till,
            interval=use_interval,
            monotonic=clock.monotonic,
            on_grant=self._granted,
            on_refused=self.end,
        )
        self.turns = Turns(
            self.till,
            answer=lambda: self._answer(),
            renewed=self.charger.renewed,
            quiet=self._answered,
            refused=self._refused,
        )
        self._reports = ProviderReports(ledger, told.namespace, told.project, told.provider, key)
        self._answer: Callable[[], object] = lambda: None
        self._on_grant: Callable[[Grant], None] = lambda _: None
        self._on_change: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self.model = talking(told, config, key, self, self._heard)

    # the gate of the provider's session

    def admits(self) -> bool:
        """Whether a response may start now: turns are open and the account holds its worst case."""
        return not self.turns.is_shut and self.till.may_respond().allowed

    def request(self, event_id: str) -> None:
        """A response.create goes out."""
        self.till.request(event_id)

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way, or (where nobody else says so) the user is speaking."""
        if not self.answers_by_itself:
            return self.turns.busy
        return self.turns.busy or bool(self._meter.open_responses) or self.model.user_speaks

    def hears(self) -> bool:
        """Whether the user's audio may go to a provider that answers by itself: only what it may start is paid for.

        Short of two worst cases the ledger is asked for more; a user who is not heard for long is told goodbye, unless
        the ledger restarts: it has until that is called an outage.
        """
        if self.turns.is_shut:
            return False
        decision = self.till.may_respond()
        if decision.allowed:
            self._deaf_since = None
            return True
        now = self.clock.monotonic()
        if self._deaf_since is None:
            self._deaf_since = now
        self.charger.kick()
        patience = DEAF_SECONDS if self.charger.reachable else OUTAGE_SECONDS
        if self.till.quiet and now - self._deaf_since > patience:
            self._refused(decision.reason)
        return False

    # the run

    def start(
        self,
        *,
        answer: Callable[[], object],
        on_grant: Callable[[Grant], None] = lambda _: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Begins charging. ``answer`` starts a response; ``on_grant`` is told every grant, first the one of attach;
        ``on_change`` after everything that touched the account.
        """
        self._answer, self._on_grant, self._on_change = answer, on_grant, on_change
        on_grant(self.first)
        self.keep(self.charger.run())
        if self.answers_by_itself:
            self.keep(self._tick())

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a loop until the session is settled; its failure ends the session."""
        self._begun(work)

    async def _tick(self) -> None:
        """What does not come is an event, too: without it an answer that is awaited in silence would be for ever."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._heard({"type": "tick"})

    def _begun(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _tell(self, report: Coroutine[Any, Any, None]) -> None:
        """Something the ledger should hear, also when the session ends meanwhile."""
        task = self._begun(report)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def end(self, reason: str) -> None:
        """The session is over; the first reason stays. Nothing but the goodbye may start from here on."""
        if not self.ended.done():
            logger.info("ending", extra={"reason": reason})
            self.turns.shut()
            self.till.begin_closing()
            self.ended.set_result(reason)

    def changed(self) -> None:
        """The account changed: wake who waits, tell the ledger, look at the limits."""
        self._quiet.changed()
        self._answered.changed()
        if self.till.owes:
            self.charger.kick()
        self._on_change()

    async def usage_in(self) -> None:
        """Waits until nothing is open at the provider, at most 10 s over all calls. Keep its socket open meanwhile."""
        now = self.clock.monotonic()
        if self._usage_until is None:
            self._usage_until = now + QUIET_SECONDS
        await self._quiet(max(0.0, self._usage_until - now))

    async def settle(self, reason: str) -> None:
        """Waits for the usage of what is open, then closes in the ledger; what never came is unmetered."""
        if not self._meter.connected:
            self.till.nothing_was_asked()
        await self.usage_in()
        unmetered = len(self.till.rest()[1])
        # Before the loops end: the way to the pod's metrics is one of them.
        self.telemetry.count("unmetered", amount=unmetered)
        self.telemetry.count("sessions_ended", reason)
        if self._telling and self.charger.reachable:
            await asyncio.wait(self._telling, timeout=REPORT_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Before the ledger is asked: livekit cancels us 15 s after the room's end, and the replay should know why.
        self._spool.write("closed", self.clock.wall().timestamp(), reason=reason)
        if await settle(self.ledger, self.session.session_id, self.till, reason):
            self._spool.finish()
        else:
            self._spool.abandon()
        logger.info("settled", extra={"reason": reason, "turns": self.till.turns, "unmetered": unmetered})

    def provider_fails(self, code: str, message: str) -> None:
        """Tells the ledger that the provider will not serve us."""
        self._tell(self._reports.fails(code, message))

    def _heard(self, event: Mapping[str, Any]) -> None:
        facts = self._meter.feed(event, self.clock.wall())
        for fact in facts:
            self.till.apply([fact])
            match fact:
                case Committed() if not self.turns.is_shut:
                    self.till.turn()
                    self.turns.respond()
                case Opened(_, None) if self.answers_by_itself:
                    self.till.turn()
                case Billed(usage):
                    self.telemetry.count("responses", str(usage.status))
                    if usage.status is UsageStatus.COMPLETED:
                        self._tell(self._reports.works())
                case Fault(code, message):
                    self.provider_fails(code, message)
        if facts:
            self.changed()

    def _granted(self, grant: Grant) -> None:
        self._on_grant(grant)
        self._on_change()

    def _refused(self, reason: str) -> None:
        self.telemetry.count("refusals", reason)
        if reason == "money":
            self.end("budget" if self.charger.reachable else "ledger_outage")
        elif reason == "validity":
            self.end("ledger_outage")

    async def listen(self, pushed: AsyncIterator[PushEvent]) -> None:
        """Asks the ledger again at every push event that concerns the session; leaves when fenced."""
        async for event in pushed:
            if not concerns(event, self.session.session_id):
                continue
            if event.event == "fence" and int(event.data.get("epoch", 0)) > self.till.epoch:
                self.till.fence()
                self.end("fenced")
            self.charger.kick()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a part of the session failed", exc_info=error)
            self.end("agent_error")


class NotServableError(Exception):
    """This worker cannot hold this session; the ledger has been told."""


@asynccontextmanager
async def budgeted(ctx: JobContext, settings: AgentSettings | None = None) -> AsyncIterator[Budgeted]:
    """Attaches the job to the session its dispatch names, and settles it at the end, however the block is left.

    LedgerError when the ledger does not let us attach, NotServableError when there is no key for the provider.
    """
    settings = settings or AgentSettings()
    clock = system_clock()
    told = json.loads(ctx.job.metadata or "{}")
    session_id, epoch = str(told["session"]), int(told["epoch"])
    ctx.log_context_fields = {"session": session_id, "project": settings.project}
    async with LedgerClient(
        settings.ledger_url, token_path=settings.token_file, patience_sec=ATTACH_PATIENCE_SECONDS
    ) as ledger:
        sent_at = clock.monotonic()
        worker = f"{settings.pod}/{ctx.job.id}"
        attachment = await ledger.attach(session_id, Attach(epoch=epoch, worker=worker))
        try:
            key = _key(settings, attachment)
        except ProviderKeyMissingError as error:
            await _cannot_serve(ledger, attachment, str(error))
            raise NotServableError(str(error)) from error
        spool = Spool(settings.spool_dir, session_id, epoch, clock.wall().timestamp())
        before = await recall(ledger, attachment.session, attachment.config.caps.contextTokens)
        link = PodLink(settings.spool_dir)
        budget = Budgeted(
            ledger,
            attachment,
            key,
            spool,
            clock,
            link,
            sent_at=sent_at,
            use_interval=settings.use_interval,
            before=before,
        )
        budget.keep(budget.listen(link.events()))
        try:
            yield budget
        except asyncio.CancelledError:
            budget.end("shutdown")
            raise
        except Exception:
            budget.end("agent_error")
            raise
        finally:
            budget.end("agent_left")
            await budget.settle(budget.ended.result())


def _key(settings: AgentSettings, attachment: Attachment) -> SecretStr:
    return provider_key(settings.provider_names, attachment.session.provider, os.environ)


async def _cannot_serve(ledger: LedgerClient, attachment: Attachment, why: str) -> None:
    told = attachment.session
    report = ProviderReport(provider=told.provider, ok=False, code="no_credentials", message=why)
    await ledger.report_provider(told.namespace, told.project, report)
    await ledger.close(told.session_id, Close(epoch=told.epoch, n=attachment.grant.n + 1, reason="provider_error"))
