"""Settings of the operator process, from the environment (prefix `TALKTIME_`)."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperatorSettings(BaseSettings):
    """One typed object per process. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="TALKTIME_", frozen=True)

    namespace: str = Field("talktime", description="Release namespace: SFUPools, the Lease, the operator's Secrets.")
    pod_name: str = Field(default_factory=socket.gethostname, description="Identity in the Lease.")
    log_level: str = "INFO"
    kubeconfig: Path | None = Field(None, validation_alias="KUBECONFIG", description="Unset: the pod's ServiceAccount.")
    ledger_url: str = "http://talktime-ledger:8080"
    token_path: Path = Path("/var/run/secrets/talktime/token")
    agent_ledger_url: str | None = Field(None, description="What agents are told. Unset: the Service in full.")

    agent_image: str = "talktime/agent:latest"
    agent_ca_file: Path | None = Field(None, description="PEM: what agents trust. Unset: the CAs of their image.")
    sfu_image: str = "livekit/livekit-server:v1.13.5"
    redis_image: str = "redis:7"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"

    listen_host: str = "0.0.0.0"  # noqa: S104 - a pod serves its probes on the pod's address
    listen_port: int = 8080

    lease_name: str = "talktime-operator"
    lease_duration: int = 15
    lease_renew_deadline: int = 10
    lease_retry: int = 2

    worker_poll: float = Field(2.0, description="Pause between two rounds over all agents' /worker.")
    worker_stale: float = Field(10.0, description="An answer older than this is unknown.")
    sfu_stale: float = Field(20.0, description="An SFU answer older than this is unknown.")
    poll_timeout: float = 2.0
    amounts_interval: float = Field(15.0, description="Amounts in a status are written at most this often.")
    drain_settle: float = Field(
        30.0, description="A drained SFU node is believed to be empty only so long after gateways were told."
    )
    keys_follow: float = Field(
        900.0, description="Old LiveKit keys are kept so long after new ones are used: tokens handed out stay good."
    )
    resync: float = Field(60.0, description="Every object is looked at again this often.")
    access_probe: float = Field(300.0, description="How often a deleted access Secret is noticed (and rotated).")
    scale_down_after: float = Field(30.0, description="Fewer replicas only after needing fewer for this long.")
    ledger_grace: float = Field(20.0, description="Without an answer for this long LedgerReachable is False.")
    reconcile_workers: int = 4
    agent_grace: int = Field(
        4 * 3600 + 600, description="Grace of agent pods: longer than the agent's own drain, so no session is cut."
    )

    @field_validator("agent_ca_file")
    @classmethod
    def _holds_certificates(cls, path: Path | None) -> Path | None:
        """Agents that cannot read their CAs would all fail; better that this operator does not start."""
        if path is not None:
            try:
                ssl.create_default_context(cafile=path)
            except OSError as error:
                raise ValueError(f"{path} is no readable PEM bundle of CAs: {error}") from error
        return path

    def agent_ca_bundle(self) -> str:
        """The text of `agent_ca_file`, empty without one."""
        return self.agent_ca_file.read_text() if self.agent_ca_file is not None else ""

    @property
    def ledger_url_for_agents(self) -> str:
        return self.agent_ledger_url or f"http://talktime-ledger.{self.namespace}.svc:8080"
