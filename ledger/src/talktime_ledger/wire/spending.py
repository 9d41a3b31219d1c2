"""The reports finance reads."""

from __future__ import annotations

from pydantic import Field

from talktime_ledger.core import money
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
    transport_unmetered_usd: Usd = Field(
        money.ZERO, description="The part of unmetered_usd that is transport: traffic, and time in which nobody looked."
    )
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
    month: str | None = Field(None, description="In which its sessions were opened, UTC: 2026-11.")
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
    video_track_seconds: int = Field(0, description="Of all video tracks, summed; as the looks into rooms saw them.")
    egress_bytes: int = Field(0, description="What the SFUs sent, by a stated rate: an estimate, at most.")
    selfhosted_egress_bytes: int = Field(0, description="The part of it from nodes of our own.")


class TransportReport(Wire):
    """Answer of /reports/transport."""

    rows: tuple[TransportRow, ...]


class PlanRow(Wire):
    """One month (UTC) of the plan that LiveKit Cloud's card belongs to, over all Projects: the plan is the account's.

    Sessions are priced without it. None: the plan includes nothing of the kind.
    """

    month: str
    card: str
    fee_usd: Usd
    included_minutes: int | None
    used_minutes: int = Field(description="Each connection begun up to a minute; of the sessions opened in the month.")
    left_minutes: int | None
    included_bytes: int | None
    used_bytes: int = Field(description="By a stated rate: an estimate, at most.")
    left_bytes: int | None
    beyond_usd: Usd = Field(description="What goes beyond what is included, at the card.")


class PlanReport(Wire):
    """Answer of /reports/plan."""

    rows: tuple[PlanRow, ...]


class SessionRow(Wire):
    """One session in /reports/sessions."""

    session: Session
    costs: tuple[SessionCosts, ...]


class SessionReport(Wire):
    """Answer of /reports/sessions."""

    rows: tuple[SessionRow, ...]
