"""Status of the three kinds, as the operator writes it. Amounts are USD decimal strings as the ledger counts them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .schema import Spec, Text

Moment = Annotated[str, StringConstraints(max_length=40)]
"""RFC 3339 UTC."""


class Condition(Spec):
    """metav1.Condition."""

    type: Annotated[str, StringConstraints(max_length=64)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$", max_length=64)]
    message: Text = ""
    last_transition_time: Annotated[
        str, StringConstraints(max_length=40), Field(json_schema_extra={"format": "date-time"})
    ]
    observed_generation: int = 0


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class BudgetState(StrEnum):
    """Where the Project stands between its budget and its limits."""

    OK = "OK"
    SOFT_LIMIT = "SoftLimit"
    HARD_LIMIT = "HardLimit"


class BudgetStatus(Spec):
    """The account of the current period."""

    amount: str | None = Field(None, max_length=32)
    posted: str | None = Field(None, max_length=32, description="USD spent.")
    reserved: str | None = Field(None, max_length=32, description="USD held by live sessions.")
    available: str | None = Field(None, max_length=32, description="amount - posted - reserved.")
    forecast: str | None = Field(None, max_length=32, description="USD expected at the end of the period.")
    used_percent: str | None = Field(None, max_length=16, description="posted / amount.")
    state: BudgetState | None = None
    period: str | None = Field(None, max_length=32)


class SessionsStatus(Spec):
    """Counts of sessions."""

    open: int = 0
    attached: int = 0
    waiting: int = 0
    completed: int = 0


class AgentsStatus(Spec):
    """Agent replicas."""

    desired: int = 0
    ready: int = 0
    busy: int = Field(0, description="Agent pods that hold a session.")
    draining: int = Field(0, description="Agent pods that take no new session and finish theirs.")
    summary: Annotated[str, StringConstraints(max_length=32)] = Field("", description="ready/desired.")


class MediaStatus(Spec):
    """Where new rooms are opened."""

    active: Annotated[str, StringConstraints(max_length=32)] = Field("", description="SelfHosted, Fallback or Unknown.")
    pool: Annotated[str, StringConstraints(max_length=128)] = ""


class ProjectStatusFields(Spec):
    """`Project.status`."""

    observed_generation: int = 0
    budget: BudgetStatus | None = None
    sessions: SessionsStatus | None = None
    agents: AgentsStatus | None = None
    media: MediaStatus | None = None
    conditions: Conditions = ()


class ActiveTarget(Spec):
    """Which LiveKit new rooms go to, since when and why."""

    target: Literal["SelfHosted", "Fallback"]
    since: Moment
    reason: Annotated[str, StringConstraints(max_length=64)] = ""
    message: Text = ""
    count: int = Field(0, description="Switches so far.")


class NodeStatus(Spec):
    """One SFU node."""

    name: Annotated[str, StringConstraints(max_length=253)]
    node_id: Annotated[str, StringConstraints(max_length=64)] = Field("", alias="nodeID")
    address: Annotated[str, StringConstraints(max_length=64)] = ""
    rooms: int | None = None
    state: Literal["Ready", "Draining", "Moving", "Sick", "Unknown"]
    drain_reason: Annotated[str, StringConstraints(max_length=64)] = ""
    drain_deadline: Moment | None = Field(None, description="Until then its sessions may end by themselves.")


class LastDrain(Spec):
    """The drain that ended last."""

    node: Annotated[str, StringConstraints(max_length=253)]
    reason: Annotated[str, StringConstraints(max_length=64)]
    ended: Moment
    moved: int | None = Field(None, description="Sessions the deadline cut off; unset: not known.")


class NodeRestarts(Spec):
    """Restarts of one sick node; forgotten when it needed none for ten minutes."""

    node: Annotated[str, StringConstraints(max_length=253)]
    count: int
    last: Moment
    why: Annotated[str, StringConstraints(max_length=128)] = Field("", description="What it did before the last one.")


class PoolSaving(Spec):
    """USD this month so far, beside the same minutes at LiveKit Cloud (card `livekit/participant`); without traffic."""

    month: Annotated[str, StringConstraints(max_length=7)]
    participant_minutes: int = Field(0, description="On the pool's own nodes, each connection begun up to a minute.")
    cloud_usd: str = Field("0", max_length=32, description="What Cloud asks for them, with the plan's fee so far.")
    nodes_usd: str = Field("0", max_length=32, description="The hours of its nodes so far, at spec.nodeMonthlyCost.")
    saved_usd: str = Field("0", max_length=32, description="cloudUsd - nodesUsd.")


class PoolNodeHours(Spec):
    """How long nodes had their machines this month: `hours` of all together until `since`, `nodes` from then on."""

    nodes: int = 0
    since: Moment
    hours: str = Field("0", max_length=32)


class PoolNodeCost(Spec):
    """USD this month so far of the pool's own nodes, and the part that was used; without traffic."""

    month: Annotated[str, StringConstraints(max_length=7)]
    participant_minutes: int = Field(0, description="On the pool's own nodes, in whole.")
    nodes_usd: str = Field("0", max_length=32, description="The nodes so far, at spec.nodeMonthlyCost.")
    used_usd: str | None = Field(
        None, max_length=32, description="The minutes at the card `selfhosted/participant`, as sessions are charged."
    )
    idle_usd: str | None = Field(
        None, max_length=32, description="nodesUsd - usedUsd; negative where the card asks more than the nodes cost."
    )
    per_minute_usd: str | None = Field(None, max_length=32, description="nodesUsd / participantMinutes.")


class SFUPoolStatusFields(Spec):
    """`SFUPool.status`."""

    observed_generation: int = 0
    replicas: int = 0
    selector: Annotated[str, StringConstraints(max_length=256)] = ""
    active: ActiveTarget | None = None
    nodes: tuple[NodeStatus, ...] = Field(
        (),
        max_length=100,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    desired: int | None = Field(None, description="Nodes to have; kept while the load is not known.")
    last_drain: LastDrain | None = None
    restarts: tuple[NodeRestarts, ...] = Field(
        (),
        max_length=100,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["node"]},
    )
    nodes_summary: Annotated[str, StringConstraints(max_length=32)] = Field("", description="ready/wanted.")
    sessions: int | None = None
    saving: PoolSaving | None = Field(
        None,
        description="Needs spec.nodeMonthlyCost and a RateCard with Cloud's price of minutes; condition SavingKnown"
        " says what is missing.",
    )
    node_hours: PoolNodeHours | None = None
    node_cost: PoolNodeCost | None = Field(None, description="Needs spec.nodeMonthlyCost.")
    conditions: Conditions = ()


class RateCardStatusFields(Spec):
    """`RateCard.status`."""

    observed_generation: int = 0
    entries: int = 0
    effective_from: Moment | None = None
    conditions: Conditions = ()
