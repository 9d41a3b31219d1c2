"""A session from its open to its costs: what gateway and readers see."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from talktime_ledger.core import money
from talktime_ledger.core.meters import Meter
from talktime_ledger.resources.project import Api, OnLedgerOutage
from talktime_ledger.wire.base import Label, NameText, Sha256, Usd, Wire


class MediaChoice(Wire):
    """Where the room is."""

    mode: Literal["selfhosted", "cloud"] = "selfhosted"
    pool: str = ""
    node_id: str = ""


class SessionOpen(Wire):
    """Opens a session. `session_id` is a lower-case UUID and the room's name; the same id again returns the same
    session. With `ticket_sha256` that ticket is used up by it, or not at all; its participant key then counts.
    """

    session_id: UUID
    namespace: NameText
    project: NameText
    provider: Label
    participant_key: Label | None = None
    ticket_sha256: Sha256 | None = None
    media: MediaChoice = Field(default_factory=MediaChoice)
    observers: tuple[Label, ...] = Field((), max_length=8)
    participant_identity: Label = "participant-1"


class SessionCosts(Wire):
    """One row of session_costs: a session on one provider and model. The first 13 columns are the article's."""

    session_id: str
    project_id: str
    provider: str
    model: str
    audio_in_tokens: int
    audio_out_tokens: int
    text_tokens: int
    ai_cost_usd: Usd
    transport_cost: Usd
    total_cost_usd: Usd
    duration_sec: int
    created_at: datetime
    rate_snapshot: list[dict[str, Any]]
    audio_in_cached_tokens: int = 0
    text_in_tokens: int = 0
    text_in_cached_tokens: int = 0
    text_out_tokens: int = 0
    thoughts_tokens: int = 0
    other_tokens: int = 0
    transcription_audio_tokens: int = 0
    transcription_text_tokens: int = 0
    transcription_cost_usd: Usd = money.ZERO
    closing_cost_usd: Usd = money.ZERO
    unmetered_usd: Usd = money.ZERO
    responses: int = 0
    turns: int = 0
    state: Literal["estimated", "provisional", "invoiced"] = "estimated"


class CostList(Wire):
    """Answer of close: the session's rows."""

    session_id: str
    posted: Usd
    costs: tuple[SessionCosts, ...]


class SessionEvent(Wire):
    """Something that happened in a session: first_audio, soft_limit, wrap_up_sent, hard_limit, closing_started,
    closing_finished, left.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
    at: datetime


class Session(Wire):
    """A session. `posted`/`reserved`/`limit` in USD; `hard_at` = when the hard limit was first judged. `lost`: it had
    an agent and has none now; `losses`: how many it lost.
    """

    session_id: str
    namespace: str
    project: str
    provider: str
    api: Api
    model: str
    epoch: int
    state: Literal["open", "closed"]
    opened_at: datetime
    attached_at: datetime | None = None
    closed_at: datetime | None = None
    close_reason: str | None = None
    participant_identity: str
    observers: tuple[str, ...]
    media: MediaChoice = Field(default_factory=MediaChoice)
    posted: Usd
    reserved: Usd
    limit: Usd
    soft_at: datetime | None = None
    hard_at: datetime | None = None
    valid_until: datetime | None = None
    turns: int = 0
    lost: bool = False
    losses: int = 0
    events: tuple[SessionEvent, ...] = ()
    costs: tuple[SessionCosts, ...] | None = None


class SessionList(Wire):
    """Sessions, newest first."""

    sessions: tuple[Session, ...]


class CapsConfig(Wire):
    """Caps enforced at the provider; `outputTokens` = max_output_tokens, computed once so that all agree."""

    contextTokens: int
    responseSeconds: int
    outputTokens: int


class SessionConfig(Wire):
    """What the agent needs to talk. Frozen at open: instructions, caps and provider changes reach new sessions only.

    `resume`: instruction for the first words after an interruption; `keepContext`: what is said is checkpointed.
    """

    instructions: str
    language: str
    greeting: str | None = None
    wrapUp: str
    closing: str
    endpoint: str | None = None
    voice: str
    transcriptionModel: str | None = None
    caps: CapsConfig
    costUpdateSeconds: int
    onLedgerOutage: OnLedgerOutage
    resume: str = ""
    keepContext: bool = False


class RateSnapshotWire(Wire):
    """Resolved prices of one model, USD per million by meter (see core.rates)."""

    card: str
    vendor: str
    model: str
    effective_from: datetime
    prices: dict[Meter, Usd]
    source: str = ""


class Claim(Wire):
    """The watcher raises the epoch to `epoch` (present + 1) before it dispatches again; the old agent is fenced.

    `media`: the session's room is made elsewhere; that counts as no loss of an agent.
    """

    epoch: int = Field(ge=2)
    reason: Label
    media: MediaChoice | None = None


ConnectionSeconds = dict[Label, Annotated[int, Field(ge=0, le=10**8)]]


class Transport(Wire):
    """Seconds since their join of a room's connections, by `<identity>/<participant sid>`: how long each was seen (the
    longest counts), when at the latest it was over (the earliest counts), when exactly it left (final). Of those also
    the seconds of their video tracks, summed (the most counts), and when they joined, unix time by the SFU's clock.
    """

    participant_seconds: ConnectionSeconds = Field(default_factory=dict, max_length=100)
    gone_seconds: ConnectionSeconds = Field(default_factory=dict, max_length=100)
    left_seconds: ConnectionSeconds = Field(default_factory=dict, max_length=100)
    video_seconds: ConnectionSeconds = Field(default_factory=dict, max_length=100)
    joined_at_ms: dict[Label, Annotated[int, Field(ge=0, le=10**14)]] = Field(default_factory=dict, max_length=100)
    mode: Literal["selfhosted", "cloud"] = "selfhosted"


class OpenConnection(Wire):
    """A connection whose end nobody has told, as far as it is known."""

    key: str
    joined_at_ms: int
    seen_sec: int
    video_sec: int = 0


class Unended(Wire):
    """A session with such connections, open or closed."""

    session_id: str
    namespace: str
    project: str
    media: MediaChoice
    connections: tuple[OpenConnection, ...]


class UnendedList(Wire):
    """Answer of /sessions/unended."""

    sessions: tuple[Unended, ...]


class TicketIssue(Wire):
    """A single-use invitation, by the hash of its secret."""

    namespace: NameText
    project: NameText
    sha256: Sha256
    expires_at: datetime
    participant_key: Label | None = None
