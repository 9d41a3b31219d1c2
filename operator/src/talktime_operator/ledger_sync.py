"""The ledger as the operator sees it: pushes what changed, follows its changes, remembers Projects' last status."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import BaseModel
from talktime_ledger.client import LedgerClient, LedgerError, NotFound, Unauthorized, Unavailable
from talktime_ledger.core.plan import month_start
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.wire import PoolPush, ProjectPush, ProjectStatus, SpendRow

from talktime_operator.conditions import Silence
from talktime_operator.names import Key
from talktime_operator.pools.saving import Used, used_by_pool

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class LedgerSync:
    """`changed(key)` is called whenever a Project's status may be new; `reconnected()` after it came or went."""

    def __init__(
        self,
        client: LedgerClient,
        grace: float,
        changed: Callable[[Key], None],
        reconnected: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._grace = grace
        self._changed = changed
        self._reconnected = reconnected
        self._clock = clock
        self._wall = wall
        self._started = clock()
        self._answered_at = wall()
        self._last_ok: float | None = None
        self._pushed: dict[tuple[str, Key], str] = {}
        self._told: bool | None = None
        self.silence: Silence | None = None
        self.statuses: dict[Key, ProjectStatus] = {}
        self.spend: tuple[SpendRow, ...] | None = None
        self.minutes: tuple[datetime, Mapping[str, Used]] | None = None
        """The month's first moment, and how own nodes were used since then, by pool name."""

    @property
    def reachable(self) -> bool | None:
        """None: not yet known."""
        now = self._clock()
        if self._last_ok is not None and now - self._last_ok <= self._grace:
            return True
        if self._last_ok is None and now - self._started <= self._grace:
            return None
        return False

    def seconds_since_answer(self) -> float | None:
        return None if self._last_ok is None else self._clock() - self._last_ok

    async def push_project(self, key: Key, push: ProjectPush) -> None:
        """Sends a Project unless the ledger has exactly this already."""

        async def send() -> None:
            self.statuses[key] = await self._client.put_project(*key, push)

        await self._push(("project", key), push, send)

    async def push_pool(self, key: Key, push: PoolPush) -> None:
        await self._push(("pool", key), push, lambda: self._client.put_pool(*key, push))

    async def pool(self, key: Key) -> PoolPush | None:
        """What was pushed last, by whatever operator; None: nothing, or a ledger of before this call."""
        try:
            return await self._answered(self._client.pool(*key))
        except LedgerError as error:
            if error.status in (404, 405):
                return None
            raise

    async def push_card(self, key: Key, spec: RateCardSpec) -> None:
        """Raises talktime_ledger.client.Invalid when the ledger cannot resolve the card."""
        await self._push(("card", key), spec, lambda: self._client.put_rate_card(key.name, spec))

    async def delete_project(self, key: Key) -> None:
        """Marks it deleted; its money records stay."""
        await self._forget(("project", key), lambda: self._client.delete_project(*key))
        self.statuses.pop(key, None)

    async def delete_pool(self, key: Key) -> None:
        await self._forget(("pool", key), lambda: self._client.delete_pool(*key))

    async def delete_card(self, key: Key) -> None:
        await self._forget(("card", key), lambda: self._client.delete_rate_card(key.name))

    async def _push(self, what: tuple[str, Key], body: BaseModel, send: Callable[[], Awaitable[None]]) -> None:
        fingerprint = hashlib.sha256(body.model_dump_json(by_alias=True).encode()).hexdigest()
        if self._pushed.get(what) == fingerprint:
            return
        self._pushed.pop(what, None)
        await self._answered(send())
        self._pushed[what] = fingerprint

    async def _forget(self, what: tuple[str, Key], send: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(NotFound):
            await self._answered(send())
        self._pushed.pop(what, None)

    async def _answered(self, call: Awaitable[Answer]) -> Answer:
        try:
            answer = await call
        except (Unavailable, Unauthorized) as error:
            self._failed(error)
            raise
        except LedgerError:
            self._heard()
            raise
        self._heard()
        return answer

    def _heard(self) -> None:
        self._last_ok, self._answered_at, self.silence = self._clock(), self._wall(), None

    def _failed(self, error: LedgerError) -> None:
        """The first failure of each kind is kept: what differs in every try would be a write per Project each time."""
        reason = silence_reason(error)
        if self.silence is None or self.silence.reason != reason:
            self.silence = Silence(self._answered_at, reason, str(error)[:200])

    async def refresh(self) -> None:
        """All statuses at once: the safety net below the stream, and the sign of life."""
        try:
            fresh = {Key(s.namespace, s.name): s for s in await self._answered(self._client.projects())}
        except LedgerError:
            self._tell_reachable()
            return
        before, self.statuses = self.statuses, fresh
        self._tell_reachable()
        for key, status in fresh.items():
            if _content(before.get(key)) != _content(status):
                self._changed(key)

    def _tell_reachable(self) -> None:
        if self.reachable is not self._told:
            self._told = self.reachable
            self._reconnected()

    async def refresh_spend(self) -> None:
        """Spend by Project, provider and model, for the metrics."""
        try:
            self.spend = await self._answered(self._client.spend(by="provider,model"))
        except LedgerError as error:
            logger.warning("no spend report: %s", error)

    async def refresh_minutes(self) -> None:
        """Participant-minutes of this month by pool, for what they have saved and cost."""
        since = month_start(self._wall())
        try:
            rows = await self._answered(self._client.transport_report(since=since.isoformat(), by="pool"))
        except LedgerError as error:
            logger.warning("no transport report: %s", error)
        else:
            self.minutes = since, used_by_pool(rows)

    async def follow(self) -> None:
        """Endless: the ledger's changes stream. A (re)connect pushes everything anew: it may be a restored ledger."""
        async for event in self._client.changes():
            if event.event == "resync":
                self._pushed.clear()
                await self.refresh()
                self._reconnected()
            elif event.event == "project":
                key = Key(str(event.data["namespace"]), str(event.data["name"]))
                try:
                    self.statuses[key] = await self._answered(self._client.project(*key))
                except LedgerError:
                    continue
                self._changed(key)


def silence_reason(error: LedgerError) -> Literal["LedgerUnreachable", "LedgerFailing", "TokenRefused"]:
    """What kind of silence a failed call is."""
    if isinstance(error, Unauthorized):
        return "TokenRefused"
    return "LedgerFailing" if error.status >= 500 else "LedgerUnreachable"


def _content(status: ProjectStatus | None) -> dict[str, object] | None:
    return None if status is None else status.model_dump(exclude={"ledgerTime"})
