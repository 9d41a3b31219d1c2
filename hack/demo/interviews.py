"""Interviews held by synthetic participants in a Job of the cluster, through the real token endpoint."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.demo.kube import Kube
from hack.demo.release import NAMESPACE, Images

GATEWAY = f"http://talktime-gateway.{NAMESPACE}.svc:8080"
MARGIN_SECONDS = 300


@dataclass(frozen=True)
class Round:
    """Some interviews with one Project. `stay`: go on until the other side ends the interview.

    `node`: where the participants run; empty: anywhere.
    """

    namespace: str
    project: str
    count: int
    concurrency: int
    turns: int = 6
    min_seconds: float = 45
    max_seconds: float = 600
    stay: bool = False
    node: str = ""


@dataclass(frozen=True)
class Held:
    """`summary` as the participants print it; one <session>.json and <session>.wav each in `folder`."""

    summary: dict[str, Any]
    folder: Path

    @property
    def ids(self) -> list[str]:
        """Of the sessions that began."""
        return [one["session"] for one in self.summary["sessions"] if "session" in one]

    @property
    def sessions(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]


def hold(kube: Kube, images: Images, wanted: Round, folder: Path, tell: Callable[[str], None]) -> Held:
    """Runs one Job to its end and fetches what the participants recorded; `folder` then holds that and nothing else.

    Raises RuntimeError with the pod's words when there is no summary.
    """
    name = f"participants-{wanted.project}-{uuid.uuid4().hex[:6]}"
    kube("apply", "-f", "-", stdin=json.dumps(job(name, images, wanted)))
    inside = ["--namespace", wanted.namespace]
    try:
        kube(*inside, "wait", "--for=jsonpath={.status.ready}=1", f"job/{name}", "--timeout=300s")
        summary = follow(kube, [*inside, "logs", "--follow", f"job/{name}"], wanted, tell)
        if summary is None:
            raise RuntimeError(f"{name} ended without a summary:\n{kube(*inside, 'logs', f'job/{name}', '--tail=30')}")
        fetch(kube, [*inside, "exec", f"job/{name}", "--", "tar", "-C", "/out", "-cf", "-", "."], folder)
    finally:
        kube(*inside, "delete", "job", name, "--cascade=background", "--wait=false", "--ignore-not-found")
    return Held(summary, folder)


def follow(kube: Kube, logs: list[str], wanted: Round, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """Tells the progress lines as they come, until the summary (the one JSON object with `sessions`)."""
    process = subprocess.Popen([*kube.argv, *logs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    batches = -(-wanted.count // wanted.concurrency)
    watchdog = threading.Timer(wanted.max_seconds * batches + MARGIN_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        return find_summary(process.stdout, tell)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def find_summary(lines: Iterable[str], tell: Callable[[str], None]) -> dict[str, Any] | None:
    for line in lines:
        text = line.rstrip()
        if text.startswith("[") and "interview" in text:
            tell(text)
        elif text.startswith("{"):
            found = json.loads(text)
            if isinstance(found, dict) and "sessions" in found:
                return found
    return None


def fetch(kube: Kube, command: list[str], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = subprocess.run([*kube.argv, *command], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def job(name: str, images: Images, wanted: Round) -> dict[str, Any]:
    """The Job's manifest (pure). The keys come from the Secret that the operator made, into the environment."""
    prefix = f"{images.registry}/" if images.registry else ""
    command = ["python", "-m", "talktime_simulator", "participants", f"--gateway={GATEWAY}"]
    command += [f"--project={wanted.namespace}/{wanted.project}", f"--count={wanted.count}"]
    command += [f"--concurrency={wanted.concurrency}", f"--turns={wanted.turns}", f"--min-seconds={wanted.min_seconds}"]
    command += [f"--max-seconds={wanted.max_seconds}", "--out=/out", "--linger=3600"]
    command += ["--stay"] if wanted.stay else []
    access = f"{wanted.project}-access"
    container = {
        "name": "participants",
        "image": f"{prefix}talktime/simulator:{images.tag}",
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": [
            environment("TALKTIME_SERVER_KEY", access, "server-key"),
            environment("TALKTIME_OBSERVER_KEY", access, "observer-key"),
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a folder of its own in the pod
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
        "volumeMounts": [{"name": "out", "mountPath": "/out"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    identity = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "securityContext": {**identity, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "out", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }
    if wanted.node:
        pod["nodeSelector"] = {"kubernetes.io/hostname": wanted.node}
    labels = {"app.kubernetes.io/name": "talktime", "app.kubernetes.io/component": "participants"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": wanted.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 300,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def environment(name: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
