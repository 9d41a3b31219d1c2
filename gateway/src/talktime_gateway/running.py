"""A running session, as callers of its own Project may know it."""

from __future__ import annotations

from talktime_ledger.client import LedgerClient, LedgerError, NotFound
from talktime_ledger.wire import Session

from . import refusals
from .admission import Caller
from .problems import Problem


async def running_session(ledger: LedgerClient, caller: Caller, room: str) -> Session:
    """The open session of that id in the caller's Project; another Project's is as good as none. Raises Problem."""
    gone = Problem(404, "SessionNotFound", "no such session")
    try:
        session = await ledger.session(room)
    except NotFound as error:
        raise gone from error
    except LedgerError as error:
        raise refusals.of_session(error) from error
    if (session.namespace, session.project) != (caller.project.namespace, caller.project.name):
        raise gone
    if session.state != "open":
        raise Problem(404, "SessionClosed", "the session has ended")
    return session
