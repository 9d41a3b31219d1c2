"""SFU pools, and the directory by which the gateway chooses."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from talktime_ledger.resources.project import Api
from talktime_ledger.wire.base import Wire
from talktime_ledger.wire.projects import AccessKey


class NodeState(StrEnum):
    """What the operator thinks of one SFU node. Draining: no new rooms, live ones go on; Moving: its drain deadline has
    passed and the pod is being deleted, what it still holds goes on elsewhere by resume."""

    READY = "Ready"
    DRAINING = "Draining"
    MOVING = "Moving"
    SICK = "Sick"
    UNKNOWN = "Unknown"


class PoolNode(Wire):
    """One SFU node; nodeID as LiveKit names it. `silent`: of a Sick one, whether it gave no answer at all or answers
    and lacks something, as its media path; None where nobody says.
    """

    name: str
    nodeID: str = ""
    address: str = ""
    rooms: int = 0
    state: NodeState = NodeState.UNKNOWN
    silent: bool | None = None


class PoolPush(Wire):
    """What the operator tells about an SFUPool. `active`: where new rooms go. `fallbackURL` is set when the pool has a
    fallback whose keys are known, whatever the mode: sessions that are there finish there. `sessionsPerNode`: where a
    node is full; None from an operator that does not say.
    """

    publicURL: str
    internalURL: str
    active: Literal["SelfHosted", "Fallback"] = "SelfHosted"
    health: Literal["good", "bad", "unknown"] = "unknown"
    nodes: tuple[PoolNode, ...] = Field((), max_length=200)
    fallbackURL: str | None = None
    fallbackMode: Literal["Auto", "Force", "Never"] = "Never"
    sessionsPerNode: int | None = Field(None, ge=1)


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
