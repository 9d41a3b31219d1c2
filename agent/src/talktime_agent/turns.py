"""Turn taking: the user has spoken -> an answer if the account holds its worst case, else the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from talktime_ledger.core.gate import Decision

RENEWAL_SECONDS = 3.0
# A ledger that restarts must not end an interview: so often a turn that is not paid for waits for it, a little longer
# than it takes to call it an outage (`limits.OUTAGE_SECONDS`), which then ends the interview.
RENEWAL_ROUNDS = 7
PREVIOUS_SECONDS = 3.0


class Money(Protocol):
    """What turn taking asks of the till."""

    def may_respond(self) -> Decision: ...


class Turns:
    """Answers committed turns, one at a time; the newest turn wins."""

    def __init__(
        self,
        money: Money,
        *,
        answer: Callable[[], object],
        renewed: Callable[[float], Awaitable[bool]],
        quiet: Callable[[float], Awaitable[bool]],
        refused: Callable[[str], None],
    ) -> None:
        """``answer`` starts a response; ``renewed`` waits for a new grant, ``quiet`` until no response is open
        (seconds; whether it came); ``refused`` is told the gate's reason when a turn stays unanswered.
        """
        self._money = money
        self._answer = answer
        self._renewed = renewed
        self._quiet = quiet
        self._refused = refused
        self._task: asyncio.Task[None] | None = None
        self._shut = False

    def shut(self) -> None:
        """No answers until ``open``: what is said meanwhile is not answered."""
        self._shut = True
        if self._task is not None:
            self._task.cancel()

    def open(self) -> None:
        """Answers again."""
        self._shut = False

    @property
    def is_shut(self) -> bool:
        """Whether nothing is answered now."""
        return self._shut

    @property
    def busy(self) -> bool:
        """Whether a turn waits for its answer to begin."""
        return self._task is not None and not self._task.done()

    def respond(self) -> None:
        """It is our turn: the provider took what the user said into the conversation, or we begin."""
        if self._shut:
            return
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._respond())

    async def _respond(self) -> None:
        # A cancelled answer may not have ended at the provider yet; two at once are refused by it.
        await self._quiet(PREVIOUS_SECONDS)
        decision = self._money.may_respond()
        for _ in range(RENEWAL_ROUNDS):
            if decision.allowed or decision.reason not in ("money", "validity"):
                break
            answered = await self._renewed(RENEWAL_SECONDS)
            decision = self._money.may_respond()
            if answered:
                break
        if self._shut:
            return
        if decision.allowed:
            self._answer()
        else:
            self._refused(decision.reason)
