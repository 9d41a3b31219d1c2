"""The charging loop: posts usage and renews the grant; goes on alone while the ledger is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from talktime_ledger.client import Fenced, LedgerError, SessionClosed
from talktime_ledger.wire import Grant, Use

from talktime_agent.limits import is_outage
from talktime_agent.ports import LedgerPort
from talktime_agent.till import Till

logger = logging.getLogger("talktime.agent.charging")

ATTEMPT_SECONDS = 5.0
RETRY_FIRST_SECONDS = 0.5
RETRY_MOST_SECONDS = 5.0
# A shrunk grant leaves less than the renewal threshold at once: asking again right away would never end.
RENEWAL_GAP_SECONDS = 1.0


class Charger:
    """Sends `use` after each usage, every ``interval`` seconds, on push events and before the rest gets short."""

    def __init__(
        self,
        ledger: LedgerPort,
        session_id: str,
        till: Till,
        *,
        interval: float,
        monotonic: Callable[[], float],
        on_grant: Callable[[Grant], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """``on_grant`` after every answer; ``on_refused`` with `fenced` or `closed`: the ledger will grant no more."""
        self._ledger = ledger
        self._session_id = session_id
        self._till = till
        self._interval = interval
        self._monotonic = monotonic
        self._on_grant = on_grant
        self._on_refused = on_refused
        self._wake = asyncio.Event()
        self._answered_at = float("-inf")
        self._answered_n = till.n
        self._later: asyncio.TimerHandle | None = None
        self._answered = asyncio.Condition()
        self._unanswered: Use | None = None
        self._busy = asyncio.Lock()
        self._urgent = asyncio.Event()
        self._sent_at = monotonic()
        self._silent_since = monotonic()
        self._failures = 0
        self.reachable = True

    @property
    def outage(self) -> bool:
        """Whether the ledger is known to be away, and not just slow."""
        return not self.reachable and is_outage(self._failures, self._monotonic() - self._silent_since)

    def kick(self) -> None:
        """Something changed: talk to the ledger now; with nothing to tell at most once in RENEWAL_GAP_SECONDS."""
        left = self._answered_at + RENEWAL_GAP_SECONDS - self._monotonic()
        if left <= 0 or self._till.owes:
            self._wake.set()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(left, self._due)

    def _due(self) -> None:
        self._later = None
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled or refused."""
        pause, retry = self._interval, RETRY_FIRST_SECONDS
        while True:
            # While the ledger is away a kick must not shorten the pause: that would be a busy loop.
            if self.reachable:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._urgent.wait()
            self._wake.clear()
            self._urgent.clear()
            try:
                await self.flush()
            except Fenced:
                self._till.fence()
                self._on_refused("fenced")
                return
            except SessionClosed:
                self._on_refused("closed")
                return
            except LedgerError as error:
                self._failures += 1
                self._lost(str(error))
                pause, retry = retry, min(RETRY_MOST_SECONDS, retry * 2)
            else:
                pause, retry = self._interval, RETRY_FIRST_SECONDS

    async def flush(self) -> None:
        """One request and its answer; LedgerError when there was none, or a refusal.

        A request without an answer is repeated unchanged under its n: the ledger has one answer per n.
        """
        async with self._busy:
            use = self._unanswered or self._till.next_use()
            self._unanswered = use
            sent_at = self._sent_at = self._monotonic()
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    grant = await self._ledger.use(self._session_id, use, patience_sec=0)
            except TimeoutError as error:
                raise LedgerError("no answer in time") from error
            self._unanswered = None
            self._till.answered(use, grant, sent_at)
            self._answered_at, self._answered_n = self._monotonic(), use.n
            self._failures, self.reachable = 0, True
        if self._till.owes:
            self.kick()
        self._on_grant(grant)
        async with self._answered:
            self._answered.notify_all()

    async def renewed(self, timeout_sec: float) -> bool:
        """Asks for a new grant and waits for one; whether an answer came in time.

        Somebody waits for their answer: a ledger that does not answer meanwhile counts as away, though its attempt may
        still be under way, so that the outage reserve is there for them. The answer to a request that was made before
        does not count unless it is enough: it knows nothing of what was used and is wanted since.
        """
        asked = self._till.n
        self._urgent.set()
        self.kick()
        try:
            async with asyncio.timeout(timeout_sec), self._answered:
                while True:
                    await self._answered.wait()
                    if self._answered_n > asked or self._till.may_respond().allowed:
                        return True
                    self.kick()
        except TimeoutError:
            self._lost("no answer while somebody waits")
            return False

    def _lost(self, why: str) -> None:
        if self.reachable:
            logger.warning("ledger away, going on with what is held", extra={"why": why})
            self._silent_since = self._sent_at
        self.reachable = False
        self._till.alone()
