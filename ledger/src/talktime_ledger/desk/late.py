"""Usage that comes when the session's money is settled already: after close, or from a fenced agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from talktime_ledger.core.rates import RateBook
from talktime_ledger.desk.lost import assumption, replace_assumption
from talktime_ledger.desk.posting import post_unmetered, post_usages
from talktime_ledger.store import accounts, sessions
from talktime_ledger.store.accounts import Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.wire import Unmetered, Usage


async def post_late(
    connection: Connection,
    session: SessionState,
    usages: Sequence[Usage],
    unmetered: Sequence[Unmetered],
    epoch: int,
    book: RateBook,
    now: datetime,
    *,
    final: bool,
) -> SessionState:
    """Counts it and lets it replace what was assumed of that agent; `final`: its close, nothing more will come.

    Not guarded: it is a fact, no grant. It never exceeds the assumption (law 2), so the sum of what is posted and
    reserved does not grow; and it is booked where the assumption stands, so a month that turned since is left alone.
    Nothing is taken from what the session holds now: that is its present agent's.
    """
    standing = await assumption(connection, session, epoch)
    there = replace(session, account_id=standing.account_id) if standing else session
    spent = await post_usages(connection, there, usages, book, now, epoch)
    spent += await post_unmetered(connection, there, unmetered, now, epoch)
    if standing is not None:
        spent += await replace_assumption(connection, there, standing, spent.total, now, final=final)
    if spent.total and session.participant_account_id is not None:
        await accounts.settle(connection, session.participant_account_id, Move(spent.total))
    if spent.here:
        await accounts.settle(connection, there.account_id, Move(spent.here))
    after = replace(session, posted=session.posted + spent.total)
    await sessions.save(connection, session, after)
    return after
