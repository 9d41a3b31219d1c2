"""How kopf logs in: the same source of credentials as our own client, read anew whenever kopf asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf
import yaml

from talktime_operator.settings import OperatorSettings


def login(settings: OperatorSettings) -> Callable[..., Any]:
    """In-cluster, or by the given kubeconfig."""

    async def credentials(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if settings.kubeconfig is None:
            return kopf.login_with_service_account(**kwargs)
        return from_kubeconfig(settings.kubeconfig)

    return credentials


def from_kubeconfig(path: Path) -> kopf.ConnectionInfo:
    """The current context: token or client certificate."""
    config = yaml.safe_load(path.read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    return kopf.ConnectionInfo(
        server=cluster["server"],
        ca_path=cluster.get("certificate-authority"),
        ca_data=cluster.get("certificate-authority-data"),
        token=user.get("token"),
        certificate_path=user.get("client-certificate"),
        certificate_data=user.get("client-certificate-data"),
        private_key_path=user.get("client-key"),
        private_key_data=user.get("client-key-data"),
    )


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
