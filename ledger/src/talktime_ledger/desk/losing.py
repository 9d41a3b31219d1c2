"""A lost agent's last word: its usage is settled, and the session waits for the next agent with what is left."""

from __future__ import annotations

from dataclasses import replace

from talktime_ledger.core.money import ZERO
from talktime_ledger.core.rates import RateBook
from talktime_ledger.desk.late import post_late
from talktime_ledger.desk.posting import post_unmetered, post_usages, take_from_held
from talktime_ledger.desk.using import Refusal, gone, merged_events
from talktime_ledger.store import sessions
from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import Locked, SessionState
from talktime_ledger.wire.resume import Lost


async def lose(connection: Connection, found: Locked, request: Lost, book: RateBook) -> SessionState | Refusal:
    """Posts what the dead agent used, what was open at its bound; the session stays open without an agent.

    Nothing is assumed of it at the claim that follows: the spool said everything (law 3). Only the next epoch may
    attach. Of an older epoch or on a closed session it is counted like any last word, then refused. A repeat changes
    nothing.
    """
    session, now = found.session, found.now
    if session.state == "closed" or request.epoch != session.epoch:
        await post_late(connection, session, request.usages, request.unmetered, request.epoch, book, now, final=True)
        return Refusal(gone(session, request.epoch))
    spent = await post_usages(connection, session, request.usages, book, now, request.epoch)
    spent += await post_unmetered(connection, session, request.unmetered, now, request.epoch)
    first = session.lost_epoch != session.epoch
    after = replace(
        await take_from_held(connection, session, spent),
        worker=None,
        # An agent whose attach was never answered may have died, too.
        attached_at=session.attached_at or now,
        lost_epoch=session.epoch,
        losses=session.losses + first,
        in_flight=ZERO,
        turns=max(session.turns, request.turns),
        events=merged_events(session.events, request.events),
    )
    await sessions.save(connection, session, after)
    return after
