"""Standby agents: the same pods as a Project's agents, registered at the pool's fallback. One worker process serves one
LiveKit, so they are a Deployment of their own."""

from __future__ import annotations

from talktime_ledger.resources.project import ProjectSpec

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

from .agent_deployment import AgentSettings, build_agent_deployment
from .agent_network_policy import build_agent_network_policy
from .disruption_budget import build_disruption_budget

COMPONENT = "standby"


def standby(project: str) -> str:
    """Deployment, NetworkPolicy and PodDisruptionBudget of a Project's standby agents."""
    return f"talktime-standby-{project}"


def build_standby(
    key: Key,
    owner: Owner,
    spec: ProjectSpec,
    replicas: int,
    livekit_secret: str,
    settings: AgentSettings,
    release_namespace: str,
) -> tuple[Manifest, ...]:
    """`livekit_secret` holds the URL and keys of the fallback. They run as the Project's own ServiceAccount."""
    labels = {**names.agent_labels(key.name), names.COMPONENT_LABEL: COMPONENT}
    deployment = build_agent_deployment(key, owner, spec, replicas, livekit_secret, settings, labels)
    policy = build_agent_network_policy(key, owner, release_namespace, labels)
    for manifest in (deployment, policy):
        manifest["metadata"]["name"] = standby(key.name)
    return policy, build_disruption_budget(Key(key.namespace, standby(key.name)), owner, labels), deployment
