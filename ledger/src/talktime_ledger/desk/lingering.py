"""The transport reserve of a session that has ended: people leave a room some seconds after the agent has closed.

It is held on, out of which their last seconds are paid, until all connections are known to be over, or nobody can be
there any more. Without it those seconds would be posted over a budget that others have filled meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from talktime_ledger.core.money import ZERO
from talktime_ledger.store import accounts, sessions
from talktime_ledger.store.accounts import Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import SessionState

LINGER_SEC = 90.0
"""A room's departure timeout (60 s), one look of the gateway (15 s), and the way of its report."""


def all_gone(transport_seconds: Mapping[str, Any]) -> bool:
    """Whether somebody was there and everybody's end is known (pure; the column of that name)."""
    return bool(transport_seconds) and all(
        isinstance(raw, dict) and not raw.keys().isdisjoint({"gone", "left"}) for raw in transport_seconds.values()
    )


def left_behind(session: SessionState) -> Decimal:
    """USD that a session keeps for transport when it ends (pure)."""
    return ZERO if all_gone(session.transport_seconds) else min(session.transport_hold_usd, session.reserved)


async def release(connection: Connection, session: SessionState) -> SessionState:
    """Gives back what an ended session still holds; the caller saves it."""
    if session.reserved:
        for account_id in (session.participant_account_id, session.account_id):
            if account_id is not None:
                await accounts.settle(connection, account_id, Move(ZERO, -session.reserved))
    return replace(session, reserved=ZERO, transport_hold_usd=ZERO)


async def release_overdue(connection: Connection, session_id: UUID) -> Project | None:
    """When the time of an ended session is over; its Project, None if there is nothing to release (any more)."""
    found = await sessions.lock(connection, session_id)
    if found is None:
        return None
    session = found.session
    if session.state == "open" or not session.reserved or session.valid_until >= found.now:
        return None
    await sessions.save(connection, session, await release(connection, session))
    return found.project
