"""Settings of the ledger server: environment, prefix `TALKTIME_`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Settings(BaseSettings):
    """One object per process."""

    model_config = SettingsConfigDict(env_prefix="TALKTIME_", frozen=True, extra="ignore")

    database_url: str = Field(description="postgresql://user:password@host:port/database")
    pool_size: int = Field(16, ge=2, le=16)
    host: str = "0.0.0.0"  # noqa: S104 - a pod
    port: int = 8080
    log_level: str = "INFO"

    namespace: str = Field("talktime", description="Release namespace: where operator, gateway and console live.")
    jwt_issuer: str | None = Field(None, description="Unset: the issuer of the ledger's own ServiceAccount token.")
    jwt_audience: str = "talktime-ledger"
    jwks_url: str | None = None
    jwks_file: Path | None = None
    jwks_ca_file: Path = _SERVICE_ACCOUNT / "ca.crt"
    jwks_token_file: Path = _SERVICE_ACCOUNT / "token"

    operator_subject: str | None = None
    gateway_subject: str | None = None
    console_subject: str | None = None
    agent_account_prefix: str = "talktime-agent-"

    valid_sec: int = Field(300, description="Validity of a reservation.")
    sweep_after_sec: int = Field(60, description="Swept this long after the end of validity.")
    sweep_every_sec: float = 5.0
    roll_up_every_sec: float = Field(60.0, description="Daily sums for reports are brought up to date this often.")
    outbox_every_sec: float = 1.0
    changes_every_sec: float = Field(1.0, description="Money changes of a Project are told at most this often.")
    request_timeout_sec: float = 15.0
    lost_after_sec: float = Field(7.0, gt=0, description="A pod silent for so long is lost with its sessions' agents.")
    context_keys: SecretStr = Field(SecretStr(""), description="Keys of kept conversations, see server/sealing.py.")

    def subject(self, process: str, override: str | None) -> str:
        """The ServiceAccount subject of one of our processes."""
        return override or f"system:serviceaccount:{self.namespace}:talktime-{process}"
