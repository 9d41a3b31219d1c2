"""What travels between the processes and the ledger (docs/contracts.md); money as decimal strings in USD."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, field_validator

from talktime_ledger.core import money
from talktime_ledger.core.limits import LimitState
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage as CoreUsage
from talktime_ledger.core.usage import UsageKind, UsageStatus
from talktime_ledger.resources.project import Api, OnLedgerOutage, ProjectSpec

Usd = Annotated[Decimal, PlainSerializer(money.wire, return_type=str, when_used="json")]
"""USD; a decimal string in JSON, exact to 1e-9."""

NameText = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Wire(BaseModel):
    """Frozen; unknown fields are ignored so that old and new replicas understand each other."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class AccessKind(StrEnum):
    """Which credential a key is."""

    SERVER = "server"
    OBSERVER = "observer"


class AccessKey(Wire):
    """Hash of one access key."""

    id: Label
    kind: AccessKind
    sha256: Sha256


class ProjectPush(Wire):
    """What the operator tells about a Project. `instructions` is resolved (inline or from the ConfigMap)."""

    uid: Label
    generation: int = Field(ge=0)
    paused: bool = False
    instructions: Annotated[str, StringConstraints(max_length=40_000)]
    accessKeys: tuple[AccessKey, ...] = Field((), max_length=32)
    spec: ProjectSpec


class BudgetState(StrEnum):
    """State of a Project's budget as on the resource."""

    OK = "OK"
    SOFT = "SoftLimit"
    HARD = "HardLimit"


class BudgetStatus(Wire):
    """The account of the present period. `available` may be negative after a lowered budget. `forecast`: projected
    spend of open sessions' ends included.
    """

    amount: Usd
    posted: Usd
    reserved: Usd
    available: Usd
    state: BudgetState
    period: str
    forecast: Usd


class SessionCounts(Wire):
    """Sessions of a Project. waiting = open without an agent."""

    open: int = 0
    waiting: int = 0
    attached: int = 0
    completed: int = 0
    refused: dict[str, int] = Field(default_factory=dict)


class PriceStatus(Wire):
    """Whether new sessions of this provider can be priced now."""

    provider: str
    model: str
    known: bool
    reason: str = ""


class FeasibleStatus(Wire):
    """BudgetFeasible."""

    ok: bool
    reason: str = ""
    message: str = ""


class ProviderStatus(Wire):
    """Last report of the agents about one provider; `since` = when this code was first seen."""

    name: str
    ok: bool
    code: str = ""
    message: str = ""
    since: datetime | None = None


class ProjectStatus(Wire):
    """All the ledger knows about a Project. `generation` is the one last pushed."""

    namespace: str
    name: str
    generation: int = 0
    paused: bool = False
    deleted: bool = False
    budget: BudgetStatus
    sessions: SessionCounts
    prices: tuple[PriceStatus, ...] = ()
    feasible: FeasibleStatus
    providers: tuple[ProviderStatus, ...] = ()
    ledgerTime: datetime


class ProjectList(Wire):
    """All Projects."""

    projects: tuple[ProjectStatus, ...]


class NodeState(StrEnum):
    """What the operator thinks of one SFU node. Draining: no new rooms, live ones go on; Moving: its drain deadline has
    passed and the pod is being deleted, what it still holds goes on elsewhere by resume."""

    READY = "Ready"
    DRAINING = "Draining"
    MOVING = "Moving"
    SICK = "Sick"
    UNKNOWN = "Unknown"


class PoolNode(Wire):
    """One SFU node; nodeID as LiveKit names it."""

    name: str
    nodeID: str = ""
    address: str = ""
    rooms: int = 0
    state: NodeState = NodeState.UNKNOWN


class PoolPush(Wire):
    """What the operator tells about an SFUPool. `active`: where new rooms go. `fallbackURL` is set when the pool has a
    fallback whose keys are known, whatever the mode: sessions that are there finish there.
    """

    publicURL: str
    internalURL: str
    active: Literal["SelfHosted", "Fallback"] = "SelfHosted"
    health: Literal["good", "bad", "unknown"] = "unknown"
    nodes: tuple[PoolNode, ...] = Field((), max_length=200)
    fallbackURL: str | None = None
    fallbackMode: Literal["Auto", "Force", "Never"] = "Never"


class DirectoryPool(PoolPush):
    """A pool with its name."""

    namespace: str
    name: str


class DirectoryProvider(Wire):
    """What the gateway needs to choose a provider."""

    name: str
    api: Api
    model: str
    weight: int
    tier: int
    endpoint: str | None = None


class PoolRef(Wire):
    """A pool by name."""

    namespace: str
    name: str


class DirectoryProject(Wire):
    """A Project as the gateway sees it. `language` is that of the neutral refusal."""

    namespace: str
    name: str
    paused: bool
    deleted: bool
    providers: tuple[DirectoryProvider, ...]
    pool: PoolRef
    accessKeys: tuple[AccessKey, ...]
    maxParticipants: int
    microphoneOnly: bool
    language: str = "en"


class Directory(Wire):
    """All Projects and pools."""

    projects: tuple[DirectoryProject, ...]
    pools: tuple[DirectoryPool, ...]


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


class GrantState(StrEnum):
    """ok; soft: wrap up; final: nothing beyond `reserved` will come."""

    OK = "ok"
    SOFT = "soft"
    FINAL = "final"


class GrantBudget(Wire):
    """Numbers for observers (never for participants): the session's own cap and the project's account."""

    session_limit: Usd
    session_posted: Usd
    project_amount: Usd
    project_posted: Usd
    project_available: Usd


class Grant(Wire):
    """Answer of attach and use. `reserved` is held now, goodbye included; `w` = W(cap), `hold` worst cases to be held
    at once. `outage_reserve` is the part of `reserved` to be spent only while the ledger cannot be reached.
    """

    n: int
    state: GrantState
    reason: str = ""
    wrap_up: bool = False
    wrap_up_minutes: int | None = None
    reserved: Usd
    goodbye: Usd
    posted: Usd
    session_limit: Usd
    limit_state: LimitState
    valid_sec: int = 300
    w: Usd
    hold: int = 1
    outage_reserve: Usd = money.ZERO
    paused: bool = False
    budget: GrantBudget


class Attach(Wire):
    """An agent takes up a session."""

    epoch: int = Field(ge=1)
    worker: Label


class Attachment(Wire):
    """All an agent needs to begin. `rates`: the talking model's first, then transcription's."""

    session: Session
    config: SessionConfig
    grant: Grant
    rates: tuple[RateSnapshotWire, ...]


class Claim(Wire):
    """The watcher raises the epoch to `epoch` (present + 1) before it dispatches again; the old agent is fenced.

    `media`: the session's room is made elsewhere; that counts as no loss of an agent.
    """

    epoch: int = Field(ge=2)
    reason: Label
    media: MediaChoice | None = None


class Usage(Wire):
    """One billed thing (law 3)."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    kind: UsageKind
    provider: Label
    model: Label
    meters: dict[Meter, Annotated[int, Field(ge=0, le=10**12)]]
    occurred_at: datetime
    status: UsageStatus = UsageStatus.COMPLETED
    unmetered: bool = False

    @field_validator("key")
    @classmethod
    def _not_ours(cls, value: str) -> str:
        if value.startswith("assumed/"):
            raise ValueError("keys under assumed/ are the ledger's own")
        return value

    @field_validator("occurred_at")
    @classmethod
    def _with_zone(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("occurred_at needs a time zone")
        return value

    def to_core(self) -> CoreUsage:
        """The form the pure core prices."""
        return CoreUsage(
            self.key, self.kind, self.provider, self.model, self.meters, self.occurred_at, self.status, self.unmetered
        )

    @classmethod
    def of(cls, usage: CoreUsage) -> Usage:
        """The wire form of a core usage."""
        return cls(
            key=usage.key,
            kind=usage.kind,
            provider=usage.provider,
            model=usage.model,
            meters=dict(usage.meters),
            occurred_at=usage.occurred_at,
            status=usage.status,
            unmetered=usage.unmetered,
        )


class Use(Wire):
    """Posts usage and renews. `in_flight`: sum of W of open responses; `want`: W of the next response (0 = W(cap)); n
    counts up from 1.
    """

    epoch: int = Field(ge=1)
    n: int = Field(ge=1)
    usages: tuple[Usage, ...] = Field((), max_length=500)
    in_flight: Usd = Field(money.ZERO, ge=0)
    want: Usd = Field(money.ZERO, ge=0)
    turns: int = Field(0, ge=0)
    events: tuple[SessionEvent, ...] = Field((), max_length=100)


class Unmetered(Wire):
    """Something billed whose usage never came: posted at its bound."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    usd: Usd = Field(ge=0)


class Close(Wire):
    """Ends a session. Without an agent (gateway) epoch and n may be those of the session as read."""

    epoch: int = Field(ge=1)
    n: int = Field(0, ge=0)
    usages: tuple[Usage, ...] = Field((), max_length=500)
    reason: Label
    turns: int = Field(0, ge=0)
    duration_sec: float = Field(0, ge=0, le=10**7)
    unmetered: tuple[Unmetered, ...] = Field((), max_length=100)
    events: tuple[SessionEvent, ...] = Field((), max_length=100)


ConnectionSeconds = dict[Label, Annotated[int, Field(ge=0, le=10**8)]]


class Transport(Wire):
    """Seconds since their join of a room's connections, by `<identity>/<participant sid>`: how long each was seen (the
    longest counts), when at the latest it was over (the earliest counts), when exactly it left (final).
    """

    participant_seconds: ConnectionSeconds = Field(default_factory=dict, max_length=100)
    gone_seconds: ConnectionSeconds = Field(default_factory=dict, max_length=100)
    left_seconds: ConnectionSeconds = Field(default_factory=dict, max_length=100)
    mode: Literal["selfhosted", "cloud"] = "selfhosted"


class ProviderReport(Wire):
    """What an agent saw at a provider."""

    provider: Label
    ok: bool
    code: Annotated[str, StringConstraints(max_length=100)] = ""
    message: Annotated[str, StringConstraints(max_length=500)] = ""


class TicketIssue(Wire):
    """A single-use invitation, by the hash of its secret."""

    namespace: NameText
    project: NameText
    sha256: Sha256
    expires_at: datetime
    participant_key: Label | None = None


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


class SessionRow(Wire):
    """One session in /reports/sessions."""

    session: Session
    costs: tuple[SessionCosts, ...]


class SessionReport(Wire):
    """Answer of /reports/sessions."""

    rows: tuple[SessionRow, ...]


class ProblemReason(StrEnum):
    """`reason` of a problem+json answer."""

    BUDGET_EXHAUSTED = "BudgetExhausted"
    PAUSED = "Paused"
    PRICE_UNKNOWN = "PriceUnknown"
    BUDGET_NOT_FEASIBLE = "BudgetNotFeasible"
    PARTICIPANT_LIMIT = "ParticipantLimit"
    NOT_FOUND = "NotFound"
    FENCED = "Fenced"
    CLOSED = "Closed"
    CONFLICT = "Conflict"
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    INVALID = "Invalid"
    TOO_LARGE = "TooLarge"
    TICKET_UNKNOWN = "TicketUnknown"
    USED = "Used"
    EXPIRED = "Expired"
    UNAVAILABLE = "Unavailable"


class Problem(Wire):
    """RFC 9457 problem+json with our reason; `available` and `needed` with 402."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    reason: ProblemReason
    available: Usd | None = None
    needed: Usd | None = None


class PushEvent(Wire):
    """One server-sent event of /push and /changes."""

    event: str
    data: dict[str, Any]
