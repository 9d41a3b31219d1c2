"""Finds Talktime's pods for the trial Prometheus, which need not be built with Kubernetes discovery (Debian's is not).

Runs beside it, asks the API server every few seconds and writes the targets as `file_sd` JSON. Standard library only.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Processes of the release say so by name; what the operator made says so by manager.
SELECTORS = ("app.kubernetes.io/name=talktime", "app.kubernetes.io/managed-by=talktime")
PORTS = {"operator": 8080, "ledger": 8080, "gateway": 8080, "agent": 8082, "sfu": 6789}
INTERVAL_SECONDS = 5.0
TIMEOUT_SECONDS = 10.0


def targets(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One `file_sd` entry per running pod that has metrics. The annotation `prometheus.io/port` wins over the table."""
    entries = []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status", {})
        labels, annotations = metadata.get("labels", {}), metadata.get("annotations") or {}
        component = labels.get("app.kubernetes.io/component", "")
        port = annotations.get("prometheus.io/port") or PORTS.get(component)
        if not port or component not in PORTS or status.get("phase") != "Running" or not status.get("podIP"):
            continue
        known = {
            "job": f"talktime-{component}",
            "component": component,
            "namespace": metadata["namespace"],
            "pod": metadata["name"],
            "project": labels.get("talktime.dev/project"),
            "pool": labels.get("talktime.dev/pool"),
        }
        entries.append(
            {
                "targets": [f"{status['podIP']}:{port}"],
                "labels": {name: value for name, value in known.items() if value},
            }
        )
    return sorted(entries, key=lambda entry: entry["targets"])


def pods(selector: str) -> list[dict[str, Any]]:
    """All pods of the cluster with these labels; OSError when the API server cannot be asked."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    address = f"[{host}]" if ":" in host else host
    query = urllib.parse.urlencode({"labelSelector": selector})
    request = urllib.request.Request(
        f"https://{address}:{os.environ['KUBERNETES_SERVICE_PORT']}/api/v1/pods?{query}",
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"},
    )
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=trust, timeout=TIMEOUT_SECONDS) as answer:
        items: list[dict[str, Any]] = json.load(answer)["items"]
    return items


def write(path: Path, text: str) -> None:
    """Prometheus never sees half a file."""
    if not path.exists() or path.read_text() != text:
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)


def main(path: Path) -> None:
    while True:
        try:
            found = [pod for selector in SELECTORS for pod in pods(selector)]
            write(path, json.dumps(targets(found), indent=1, sort_keys=True))
        except (OSError, ValueError, KeyError) as error:
            # The last list stays: no decision on missing data.
            print(json.dumps({"level": "WARNING", "logger": "discover", "msg": str(error)}), flush=True)
        time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
