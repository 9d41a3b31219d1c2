"""Agents that were lost: what is assumed of them, and how their own late report replaces it (ADR 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from talktime_ledger.core.money import ZERO
from talktime_ledger.core.sweep import assumed, still_assumed
from talktime_ledger.core.usage import UsageStatus
from talktime_ledger.desk.posting import Posted, book, bound, correct, entry_of
from talktime_ledger.store import usages
from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.store.usages import Event


@dataclass(frozen=True, slots=True)
class Assumption:
    """What stands for one epoch's agent, on the account it stands on. `final`: that agent has said its last word."""

    event: Event
    account_id: int

    @property
    def final(self) -> bool:
        """Nothing is assumed any more, whatever comes."""
        return self.event.status == UsageStatus.COMPLETED


def held_by_agent(session: SessionState) -> Decimal:
    """USD that the session's agent may spend without asking again; 0 while no agent holds it."""
    return assumed(
        # After a claim nobody has attached yet: the old agent's share is assumed already.
        attached=session.worker is not None,
        reserved=session.reserved,
        transport=session.transport_hold_usd,
    )


async def assume_lost(connection: Connection, session: SessionState, now: datetime) -> Decimal:
    """Books what the agent of this epoch may have spent; returns it, USD."""
    amount = held_by_agent(session)
    if amount <= 0:
        return ZERO
    event = bound(session, amount, now, session.epoch)
    return (await book(connection, session, key_of(session.epoch), event, kind="assumed")).total


def key_of(epoch: int) -> str:
    """The ledger's own key of an assumption."""
    return f"assumed/{epoch}"


async def assumption(connection: Connection, session: SessionState, epoch: int) -> Assumption | None:
    """What was assumed of the agent of an epoch."""
    event = await usages.find(connection, session.id, key_of(epoch))
    if event is None:
        return None
    paid = await usages.shares(connection, session.id, event.id)
    return Assumption(event, paid[0][0] if paid else session.account_id)


async def replace_assumption(
    connection: Connection,
    session: SessionState,
    standing: Assumption,
    reported: Decimal,
    now: datetime,
    *,
    final: bool,
) -> Posted:
    """A late report of that agent takes its place; returns the difference (as a rule <= 0)."""
    if standing.final:
        return Posted()
    event = standing.event
    left = still_assumed(event.cost_usd, reported, final=final)
    status = UsageStatus.COMPLETED if final else UsageStatus.INCOMPLETE
    after = replace(event, cost_usd=left, status=status.value)
    await usages.revise(connection, event.id, after, None)
    difference = left - event.cost_usd
    if not difference:
        return Posted()
    entry = entry_of(session, event, "reversal", {}, difference, difference, event.id, None, now)
    return await correct(connection, session, entry)
