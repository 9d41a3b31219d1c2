"""Usage that comes when the session's money is settled already: after close, or from a fenced agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from talktime_ledger.core.money import ZERO
from talktime_ledger.core.rates import RateBook
from talktime_ledger.desk.posting import post_unmetered, post_usages, replace_assumptions
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
    in_flight: Decimal,
    book: RateBook,
    now: datetime,
) -> SessionState:
    """Counts it and lets it replace what was assumed of that agent. Not guarded: it is a fact, no grant."""
    spent = await post_usages(connection, session, usages, book, now, epoch)
    spent += await post_unmetered(connection, session, unmetered, now, epoch)
    spent += await replace_assumptions(connection, session, epoch, spent, in_flight, now)
    if not spent:
        return session
    # A fenced agent's usage beyond the assumption comes out of what the session still holds.
    taken = min(max(ZERO, spent), session.reserved)
    if session.participant_account_id is not None:
        await accounts.settle(connection, session.participant_account_id, Move(spent, -taken))
    await accounts.settle(connection, session.account_id, Move(spent, -taken))
    after = replace(session, posted=session.posted + spent, reserved=session.reserved - taken)
    await sessions.save(connection, session, after)
    return after
