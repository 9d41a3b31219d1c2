"""`SFUPool`: self-hosted LiveKit nodes and their fallback. What an SRE scales."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from .schema import Column, Duration, Kind, MoneyString, NameRef, Resources, Rule, Spec, Url
from .status import SFUPoolStatusFields

CIDR = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F:.]+/\d{1,3}$", max_length=49)]


class FallbackMode(StrEnum):
    """When new rooms go to the fallback LiveKit."""

    AUTO = "Auto"
    FORCE = "Force"
    NEVER = "Never"


class Autoscaling(Spec):
    """Node count by concurrent sessions; held while `spec.replicas` is set."""

    min: int = Field(1, ge=0, le=100)
    max: int = Field(3, ge=1, le=100)
    sessions_per_node: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Sessions a node carries: autoscaling counts by it, and a node that has as many takes no new one,"
        " with a fixed size too (live ones of a node that died may go above it).",
    )
    headroom_percent: int = Field(20, ge=0, le=90)

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("self.min <= self.max", "autoscaling.min must not be above autoscaling.max"),
    )


class Ports(Spec):
    """Host ports of each node."""

    http: int = Field(7880, ge=1, le=65535)
    tcp: int = Field(7881, ge=1, le=65535)
    udp: int = Field(7882, ge=1, le=65535)
    metrics: int = Field(6789, ge=1, le=65535)


class RelayPorts(Spec):
    """UDP ports of a node from which TURN relays to the node's media port; two or so per participant on TURN."""

    start: int = Field(40000, ge=1024, le=65535)
    end: int = Field(40999, ge=1024, le=65535)

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("self.start <= self.end", "network.turn.relayPorts.start must not be above network.turn.relayPorts.end"),
    )


class Turn(Spec):
    """TURN over TLS in every node, for participants behind firewalls that let nothing but TLS out."""

    domain: str = Field(
        pattern=r"^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$",
        description="Name participants connect to; resolves to the nodes, and the certificate is for it.",
    )
    tls_port: int = Field(
        5349,
        ge=443,
        le=65535,
        alias="tlsPort",
        description="TCP port of each node. Participants are always sent to port 443 of the domain: let your TCP load"
        " balancer take that one to this one.",
    )
    relay_ports: RelayPorts = Field(default_factory=lambda: RelayPorts.model_validate({}))
    peer_cidrs: tuple[CIDR, ...] = Field(
        (),
        alias="peerCIDRs",
        max_length=32,
        description="Private addresses that TURN may relay to beside its own node's: those of the other nodes.",
    )


class Network(Spec):
    """How participants and agents reach the nodes."""

    public_url: Url | None = Field(
        None, alias="publicURL", description="URL told to participants. Unset: the in-cluster Service."
    )
    internal_url: Url | None = Field(
        None, alias="internalURL", description="URL for agents and gateway. Unset: the in-cluster Service."
    )
    use_external_ip: bool = Field(
        False, alias="useExternalIP", description="Let each node find its public address by STUN."
    )
    tls_secret_ref: NameRef | None = Field(
        None, description="Secret with `tls.crt` and `tls.key` for TURN. Signalling gets its TLS from your Ingress."
    )
    turn: Turn | None = None
    ports: Ports = Field(default_factory=lambda: Ports.model_validate({}))

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.turn) || has(self.tlsSecretRef)", "network.turn needs network.tlsSecretRef, its certificate"),
    )


class Redis(Spec):
    """State shared by the nodes. Unset address: an embedded Redis for this pool."""

    address: str | None = Field(None, max_length=255, description="host:port of your own Redis.")
    password_secret_ref: NameRef | None = Field(None, description="Secret with the key `password`.")
    tls: bool = False
    ca_secret_ref: NameRef | None = Field(
        None, description="Secret with the key `ca.crt`: who signed your Redis' certificate. Unset: public CAs."
    )

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.caSecretRef) || self.tls", "redis.caSecretRef needs redis.tls: true"),
        Rule(
            "has(self.address) || !(self.tls || has(self.passwordSecretRef))",
            "redis.tls and redis.passwordSecretRef are of your own Redis: give redis.address, or remove them",
        ),
    )


class Drain(Spec):
    """How long a draining node waits for its sessions."""

    deadline: Duration = "2h"


class Health(Spec):
    """When a node or the pool counts as sick. At the defaults a dead or hung pool is known in 2 to 4 s."""

    interval: Duration = Field("1s", description="Pause between two rounds over the nodes; an answer may take 1s.")
    failure_threshold: int = Field(
        3, ge=1, le=20, description="So many bad rounds in a row, or looks at the media path, count as sick."
    )
    media_probe: bool = Field(
        True,
        description="Join each node every 5s, with fallback mode Auto every 1s, and exchange ICE checks with its UDP"
        " port: UDP that is dropped while HTTP answers counts as sick, with failureThreshold 3 after 2 to 3s (without"
        " Auto up to 7s). UDP that never came through to any node counts against none.",
    )
    restart_sick: bool = Field(
        True,
        description="Restart a node that is sick for restartAfter, if no live session is on it or it serves nobody.",
    )
    restart_after: Duration = Field("1m", description="The next restart of the same node comes after twice the time.")


class Fallback(Spec):
    """A second LiveKit (Cloud) with its own keys."""

    mode: FallbackMode = FallbackMode.NEVER
    url: Url | None = None
    secret_ref: NameRef | None = Field(
        None, description="Secret of the release namespace with the keys `api-key` and `api-secret`."
    )
    standby_replicas: int = Field(
        1, ge=0, le=100, description="Agents kept at the fallback while a Project has open sessions."
    )
    failback_after: Duration = Field("5m", description="Health without a break before new rooms come back.")

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.mode == 'Never' || (has(self.url) && has(self.secretRef))",
            "fallback.mode Auto and Force need fallback.url and fallback.secretRef",
        ),
    )


class SFUPoolSpec(Spec):
    """`SFUPool.spec`, in the release namespace. `replicas` set = fixed size, autoscaling held."""

    replicas: int | None = Field(None, ge=0, le=100, description="Set by you or `kubectl scale`; holds autoscaling.")
    autoscaling: Autoscaling = Field(default_factory=lambda: Autoscaling.model_validate({}))
    network: Network = Field(default_factory=lambda: Network.model_validate({}))
    redis: Redis = Field(default_factory=lambda: Redis.model_validate({}))
    node_selector: dict[str, str] = Field(default_factory=dict, max_length=16)
    node_monthly_cost: MoneyString | None = Field(None, description="USD one node costs per month.")
    drain: Drain = Field(default_factory=lambda: Drain.model_validate({}))
    health: Health = Field(default_factory=lambda: Health.model_validate({}))
    fallback: Fallback = Field(default_factory=lambda: Fallback.model_validate({}))
    resources: Resources | None = None


SFU_POOL = Kind(
    kind="SFUPool",
    plural="sfupools",
    singular="sfupool",
    short_names=("sfu",),
    namespaced=True,
    spec=SFUPoolSpec,
    status=SFUPoolStatusFields,
    description="Self-hosted LiveKit SFU nodes and their fallback.",
    ready="rooms can be opened: a wanted node answers its health check, or the fallback is in use.",
    categories=("all", "talktime"),
    name_max=40,
    columns=(
        Column("Active", ".status.active.target"),
        Column("Nodes", ".status.nodesSummary"),
        Column("Sessions", ".status.sessions", "integer"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Reason", ".status.conditions[?(@.type=='Ready')].reason", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)
