"""The reports finance reads."""

from __future__ import annotations

from pydantic import Field

from talktime_ledger.wire.base import Usd, Wire
from talktime_ledger.wire.sessions import Session, SessionCosts


class SpendRow(Wire):
    """One row of the spend report; the keys asked for with `by` are set. Days are UTC."""

    namespace: str
    project: str
    day: str | None = None
    provider: str | None = None
    model: str | None = None
    sessions: int
    ai_cost_usd: Usd
    transport_cost: Usd
    total_cost_usd: Usd
    unmetered_usd: Usd
    audio_in_tokens: int
    audio_out_tokens: int
    text_tokens: int
    duration_sec: int


class SpendReport(Wire):
    """Answer of /reports/spend."""

    rows: tuple[SpendRow, ...]


class TransportRow(Wire):
    """One row of the transport report, of the sessions opened in its time; the keys asked for with `by` are set.

    A connection is somebody's stay in a room; all count, agent and observers too. What nobody saw the end of counts to
    its bound.
    """

    namespace: str | None = None
    project: str | None = None
    pool: str | None = None
    sessions: int = Field(description="That an agent took up.")
    talk_sec: int = Field(description="From being taken up to being closed (or now), summed.")
    peak_sessions: int = Field(description="The most of them at once.")
    connections: int
    participant_seconds: int = Field(description="How long connections lasted, summed; on any medium.")
    selfhosted_seconds: int = Field(description="The part of it on nodes of our own.")
    begun_minutes: int = Field(
        description="Participant-minutes as LiveKit Cloud counts: each connection up to a minute."
    )
    selfhosted_begun_minutes: int = Field(description="The same of the connections to nodes of our own.")


class TransportReport(Wire):
    """Answer of /reports/transport."""

    rows: tuple[TransportRow, ...]


class SessionRow(Wire):
    """One session in /reports/sessions."""

    session: Session
    costs: tuple[SessionCosts, ...]


class SessionReport(Wire):
    """Answer of /reports/sessions."""

    rows: tuple[SessionRow, ...]
