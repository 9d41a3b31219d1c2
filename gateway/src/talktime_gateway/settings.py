"""Settings of the gateway process; environment prefix ``TALKTIME_``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything the gateway can be told. Durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix="TALKTIME_", frozen=True, extra="ignore")

    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address; the Service and NetworkPolicy decide who reaches it
    port: int = Field(8080, ge=0, le=65535)
    ledger_url: str = "http://talktime-ledger:8080"
    token_file: Path = Path("/var/run/secrets/talktime/token")
    sfu_keys_dir: Path = Path("/etc/talktime/sfu")

    directory_interval_sec: float = Field(2.0, gt=0)
    census_interval_sec: float = Field(5.0, gt=0, description="How often open sessions and rooms are compared.")
    resume_interval_sec: float = Field(0.5, gt=0, description="How often lost agents are looked for.")
    transport_interval_sec: float = Field(15.0, gt=0, description="How often participant-seconds go to the ledger.")
    join_timeout_sec: float = Field(60.0, gt=0, description="A session nobody joined is closed after this.")
    redispatch_after_sec: float = Field(5.0, gt=0, description="A participant without an agent: dispatch again.")
    ledger_timeout_sec: float = Field(5.0, gt=0)
    sfu_timeout_sec: float = Field(5.0, gt=0)
    room_timeout_sec: float = Field(
        2.0, gt=0, description="CreateRoom on a pool's own nodes; then another node or the fallback."
    )
    token_ttl_sec: int = Field(600, ge=30, le=3600)

    rooms_per_node: int = Field(
        500, ge=1, description="Where a node is full (429) if its pool's push does not say sessionsPerNode."
    )
    key_rate_per_sec: float = Field(10.0, gt=0, description="Steady token requests per access key.")
    key_burst: int = Field(40, ge=1, description="Token requests one access key may make at once.")
    cors_origins: tuple[str, ...] = Field(
        ("*",), description="Origins whose pages may call with a ticket. No cookies are used, so any is safe."
    )
