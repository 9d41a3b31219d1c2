"""Settings of the agent worker, from the environment the operator writes (docs/contracts.md, "Agent")."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class AgentSettings(BaseSettings):
    """One worker of one Project. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="TALKTIME_", extra="ignore", populate_by_name=True)

    project: str = Field(description="namespace/name of the Project")
    ledger_url: str
    token_file: Path = Path("/var/run/secrets/talktime/token")
    agent_name: str
    sessions_per_replica: int = Field(4, ge=1, le=100)
    provider_names: str = Field("", description="comma list, in the order of TALKTIME_PROVIDER_KEY_<i>")
    livekit_url: str = Field(validation_alias="LIVEKIT_URL")
    livekit_api_key: str = Field(validation_alias="LIVEKIT_API_KEY")
    livekit_api_secret: SecretStr = Field(validation_alias="LIVEKIT_API_SECRET")
    pod: str = Field(default_factory=socket.gethostname, description="what the heartbeat and attach call this pod")
    spool_dir: Path = Path("/var/spool/talktime")
    http_host: str = ""
    http_port: int = 8081
    metrics_port: int = 8082
    # A warm process costs 10 MB: few, and never fewer than simultaneous joins need.
    idle_processes: int | None = Field(None, ge=0, le=16)
    # A burst of joins starves the sessions that run: joins of one pod are at least this far apart. Four
    # interrupted ones with half of 0.4 s between them were heard again later than with half of 0.7 (8.4 s for 6.8).
    join_interval: float = Field(0.7, ge=0)
    # Longer than any session: a drain never cuts one. The pod's grace period must be longer still.
    drain_seconds: int = Field(4 * 3600, ge=1)
    use_interval: float = Field(20.0, gt=0)
    reconnect_limit: float = Field(60.0, gt=0)
    rejoin_grace: float = Field(20.0, ge=0)
    join_timeout: float = Field(60.0, gt=0)

    @field_validator("project")
    @classmethod
    def _namespaced(cls, value: str) -> str:
        namespace, _, name = value.partition("/")
        if not namespace or not name or "/" in name:
            raise ValueError("TALKTIME_PROJECT must be namespace/name")
        return value

    @property
    def namespace(self) -> str:
        return self.project.partition("/")[0]

    @property
    def name(self) -> str:
        return self.project.partition("/")[2]

    @property
    def warm_processes(self) -> int:
        """Idle processes to keep: as many as may join at once on an empty pod, at most four."""
        return min(self.sessions_per_replica, 4) if self.idle_processes is None else self.idle_processes


class ProviderKeyMissingError(LookupError):
    """No key for this provider in the environment."""


def provider_key(provider_names: str, provider: str, environ: Mapping[str, str]) -> SecretStr:
    """The API key of a provider of the Project. ProviderKeyMissingError names the provider, never a key."""
    names = [name.strip() for name in provider_names.split(",") if name.strip()]
    if provider not in names:
        raise ProviderKeyMissingError(f"provider {provider!r} is not in TALKTIME_PROVIDER_NAMES")
    key = environ.get(f"TALKTIME_PROVIDER_KEY_{names.index(provider)}", "")
    if not key:
        raise ProviderKeyMissingError(f"no key in the environment for provider {provider!r}")
    return SecretStr(key)
