"""Settings of the command line; environment prefix ``TALKTIME_``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the ledger is and who we are. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="TALKTIME_", frozen=True, extra="ignore")

    ledger_url: str = "http://talktime-ledger:8080"
    token_file: Path = Path("/var/run/secrets/talktime/token")
    timeout_sec: float = Field(10.0, gt=0)
    patience_sec: float = Field(3.0, ge=0)
