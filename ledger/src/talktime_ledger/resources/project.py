"""`Project`: a budget, providers and an agent. What a team applies."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from .schema import (
    Column,
    Kind,
    MoneyString,
    Name,
    NameRef,
    Resources,
    Rule,
    SecretKeyRef,
    Spec,
    Text,
    Url,
)
from .status import ProjectStatusFields

DEFAULT_WRAP_UP = (
    "You are approaching the time limit. Please summarize and conclude the conversation in the next {minutes} minutes."
)
DEFAULT_CLOSING = "Thank you for your time, we have covered everything we need. Goodbye."


class Period(StrEnum):
    """Whether a budget is spent once or anew each UTC month."""

    TOTAL = "Total"
    MONTHLY = "Monthly"


class OnProjectSoft(StrEnum):
    """What live sessions do when the Project reaches its soft limit."""

    WRAP_UP_LIVE = "WrapUpLive"
    WRAP_UP_IF_SHORT = "WrapUpIfShort"
    NOTIFY = "Notify"


class OnLedgerOutage(StrEnum):
    """What a live session does when the ledger cannot be reached: Drain talks on to the end of what is reserved (or of
    its validity, 300 s), Terminate ends once three attempts over 20 s have failed. Both say goodbye.
    """

    DRAIN = "Drain"
    TERMINATE = "Terminate"


class Api(StrEnum):
    """The provider protocol."""

    OPENAI_REALTIME = "OpenAIRealtime"
    GEMINI_LIVE = "GeminiLive"


class SessionBudget(Spec):
    """The cap of one session."""

    limit: MoneyString = Field(description="USD one session may cost at most, its goodbye included.")
    soft_percent: int | None = Field(None, ge=1, le=100, description="Defaults to budget.softPercent.")
    admit_floor: MoneyString | None = Field(
        None, description="USD that must be available to admit a session. Default: max(W + C, half the session limit)."
    )


class ParticipantBudget(Spec):
    """The cap of one participant over all their sessions."""

    limit: MoneyString


class Budget(Spec):
    """Money rules of a Project. Edits apply to live sessions."""

    amount: MoneyString = Field(description="USD this Project may spend per period.")
    period: Period = Period.TOTAL
    soft_percent: int = Field(80, ge=1, le=100, description="Percent of the amount at which the soft limit is reached.")
    session: SessionBudget
    participant: ParticipantBudget | None = None
    on_project_soft: OnProjectSoft = OnProjectSoft.WRAP_UP_IF_SHORT
    on_ledger_outage: OnLedgerOutage = OnLedgerOutage.DRAIN
    outage_reserve: MoneyString | None = Field(
        None,
        description="USD kept aside in each session, spent only while the ledger cannot be reached. Shrinks first when"
        " money is short; ordinary money once nothing beyond will come.",
    )
    include_transport: bool = Field(False, description="Count transport into the budget too.")
    account_generation: int = Field(
        1, ge=1, le=1_000_000, description="Raise it to start a new account for the same namespace/name."
    )

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "quantity(self.session.limit).compareTo(quantity(self.amount)) <= 0",
            "budget.session.limit is above budget.amount: lower session.limit too (or raise budget.amount)",
            ".session.limit",
        ),
        Rule(
            "!has(self.participant) || quantity(self.participant.limit).compareTo(quantity(self.amount)) <= 0",
            "budget.participant.limit is above budget.amount: lower participant.limit too (or raise budget.amount)",
            ".participant.limit",
        ),
        Rule(
            "quantity(self.session.limit).compareTo(quantity('0')) > 0",
            "budget.session.limit must be above 0",
            ".session.limit",
        ),
    )


class Caps(Spec):
    """Bounds enforced at the provider from the first response on; without them no worst case exists."""

    context_tokens: int = Field(
        8000, ge=500, le=128_000, description="Tokens of conversation kept as context, after the instructions."
    )
    response_seconds: int = Field(60, ge=2, le=300, description="Longest spoken answer, in seconds.")


class Provider(Spec):
    """One way to talk. New sessions choose by tier, then by weight."""

    name: Name
    api: Api
    model: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    weight: int = Field(1, ge=0, le=1000)
    tier: int = Field(0, ge=0, le=10, description="Lower tiers first; the next one when every lower one is refused.")
    secret_ref: SecretKeyRef = Field(description="The provider's API key. Read by the kubelet only.")
    endpoint: Url | None = Field(None, description="Another server of the same protocol. Unset: the provider's own.")
    billing_project: Annotated[str, StringConstraints(max_length=128)] | None = Field(
        None, description="The provider's project id that its invoices name (OpenAI proj_..., Google Cloud project)."
    )
    voice: Annotated[str, StringConstraints(max_length=64)] = "marin"
    transcription_model: Annotated[str, StringConstraints(max_length=128)] | None = "gpt-4o-mini-transcribe"
    caps: Caps = Field(default_factory=lambda: Caps.model_validate({}))


class Resume(Spec):
    """What the next agent knows when one was lost in the middle of an interview."""

    context: bool = Field(
        True, description="Keep what is said, encrypted, until the session ends. Off: the next agent starts anew."
    )


class AgentSpec(Spec):
    """What the agent says and how many run."""

    instructions: Annotated[str, StringConstraints(max_length=32_000)] | None = None
    config_map_ref: NameRef | None = Field(None, description="ConfigMap with the key `instructions`.")
    language: Annotated[str, StringConstraints(max_length=35)] = Field(
        "en",
        description="Tag of the interview's language. wrapUp and closing left at their English defaults are given in it"
        " for da, de, es, fr, it, ja, ko, nl, pl, pt, sv, tr and zh; other languages keep English: write your own.",
    )
    greeting: Text | None = Field(None, description="Instruction for the first words; none: the participant begins.")
    wrap_up: Text = Field(DEFAULT_WRAP_UP, description="Instruction at the soft limit; {minutes} is filled in.")
    closing: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(
        DEFAULT_CLOSING, description="The spoken goodbye at the hard limit."
    )
    image: Annotated[str, StringConstraints(max_length=255)] | None = None
    sessions_per_replica: int = Field(4, ge=1, le=100)
    min_replicas: int = Field(1, ge=0, le=1000)
    max_replicas: int = Field(10, ge=1, le=1000)
    spare_sessions: int = Field(1, ge=0, le=1000)
    cost_update_seconds: int = Field(10, ge=1, le=300)
    resume: Resume | None = None
    resources: Resources | None = None

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.instructions) != has(self.configMapRef)",
            "exactly one of agent.instructions and agent.configMapRef must be set",
        ),
        Rule("self.minReplicas <= self.maxReplicas", "agent.minReplicas must not be above agent.maxReplicas"),
    )


class Media(Spec):
    """Where the Project's rooms live."""

    pool_ref: NameRef = Field(description="An SFUPool in the release namespace.")
    max_participants: int = Field(1, ge=1, le=50)
    microphone_only: bool = True


class PostProcessing(Spec):
    """Called when a session has ended."""

    webhook: Url = Field(description="URL that receives a `session.ended` CloudEvent.")


class ProjectSpec(Spec):
    """`Project.spec`. Budget, limits and pause apply live; instructions, caps, providers, image to new sessions."""

    budget: Budget
    providers: tuple[Provider, ...] = Field(
        min_length=1,
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    agent: AgentSpec
    media: Media
    post_processing: PostProcessing | None = None

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.providers.all(p, self.providers.exists_one(q, q.name == p.name))",
            "providers[].name must be unique: two providers have one name, rename one",
            ".providers",
        ),
    )


PROJECT = Kind(
    kind="Project",
    plural="projects",
    singular="project",
    short_names=("tproj",),
    namespaced=True,
    spec=ProjectSpec,
    status=ProjectStatusFields,
    description="A budget, providers and an agent: interviews within budget.",
    ready=(
        "new sessions can be held now: BudgetAvailable, PriceKnown, BudgetFeasible, CredentialsValid, MediaHealthy and"
        " LedgerReachable are not False, an agent is ready (or minReplicas is 0), and the Project is not paused."
    ),
    categories=("all", "talktime"),
    name_max=40,
    columns=(
        Column("Budget", ".spec.budget.amount"),
        Column("Spent", ".status.budget.posted"),
        Column("Used", ".status.budget.usedPercent"),
        Column("State", ".status.budget.state"),
        Column("Sessions", ".status.sessions.open", "integer"),
        Column("Agents", ".status.agents.summary"),
        Column("Media", ".status.media.active"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status", priority=1),
        Column("Reason", ".status.conditions[?(@.type=='Ready')].reason", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)


def agent_name(namespace: str, name: str) -> str:
    """LiveKit agent name of a Project. The dot cannot stand in either part, so no two Projects share a name."""
    return f"tt-{namespace}.{name}"
