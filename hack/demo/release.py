"""Talktime on a cluster: CRDs, the chart, the examples, and waiting until they are ready."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hack.cluster.layout import REPOSITORY
from hack.demo.kube import Kube

NAMESPACE = "talktime"
STAGE = "demo"
"""Where the examples' Projects live."""
MARK = "talktime.dev/made-by"
"""Label of namespaces that the demo made: with them all that is in them is the demo's."""
CHART = REPOSITORY / "charts" / "talktime"
EXAMPLES = REPOSITORY / "examples"
VALUES = Path(__file__).with_name("values.yaml")


@dataclass(frozen=True)
class Images:
    """Where the product images are: `registry` empty for images that the nodes already hold."""

    tag: str
    registry: str = ""


def install(
    kube: Kube,
    helm: str,
    images: Images,
    *settings: str,
    values: Sequence[Path] = (VALUES,),
    files: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """`helm upgrade --install`; raises RuntimeError with helm's words and what the pods say.

    `settings` are `name=value`, `values` files of them (later ones win), `files` values whose text is a file's.
    """
    # What an interrupted run left half-way would refuse every later one.
    pending = "owner=helm,name=talktime,status in (pending-install,pending-upgrade,pending-rollback)"
    kube("--namespace", NAMESPACE, "delete", "secret", f"--selector={pending}")
    # Helm installs CRDs once and never updates them.
    kube("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds"))
    chosen = [f"image.tag={images.tag}", *([f"image.registry={images.registry}"] if images.registry else []), *settings]
    argv = [helm, "upgrade", "--install", "talktime", str(CHART), "--namespace", NAMESPACE, "--create-namespace"]
    argv += [part for each in values for part in ("--values", str(each))]
    argv += [part for setting in chosen for part in ("--set", setting)]
    argv += [part for name, file in files.items() for part in ("--set-file", f"{name}={file}")]
    argv += ["--wait", "--timeout=5m", *([f"--kubeconfig={kube.kubeconfig}"] if kube.kubeconfig else [])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"helm: {done.stderr.strip()}\n{troubles(kube)}")


def troubles(kube: Kube) -> str:
    """Pods that are not well, and the last warnings."""
    inside = ["--namespace", NAMESPACE]
    warnings = kube(*inside, "get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")
    latest = "\n".join(line[:240] for line in warnings.splitlines()[-10:])
    return f"{kube(*inside, 'get', 'pods', '--output=wide')}\n{latest}"


def apply_examples(kube: Kube) -> None:
    """Prices, namespace, pool, key and the two Projects."""
    kube("apply", "--server-side", "--force-conflicts", "-f", str(EXAMPLES / "rate-cards"))
    kube("apply", "--server-side", "--force-conflicts", "-f", str(EXAMPLES))


def wait_ready(kube: Kube, namespace: str, *projects: str, seconds: int = 300) -> None:
    """Until the Projects are Ready; raises RuntimeError with their conditions."""
    names = [f"project/{name}" for name in projects]
    arguments = ["--namespace", namespace, "wait", "--for=condition=Ready", *names, f"--timeout={seconds}s"]
    try:
        kube(*arguments, timeout=seconds + 30)
    except RuntimeError as error:
        each = "{range .status.conditions[*]}\n  {.type}={.status} {.reason} {.message}{end}"
        conditions = "{range .items[*]}{.metadata.name}" + each + "\n{end}"
        shown = kube("--namespace", namespace, "get", "projects", f"--output=jsonpath={conditions}")
        raise RuntimeError(f"{error}\n{shown}\n{kube('get', 'pods', '-A', '-o=wide')}") from error


def claim(kube: Kube) -> None:
    """Makes the two namespaces that are not there, and marks them as the demo's."""
    for name in (NAMESPACE, STAGE):
        if not kube("get", "namespace", name, "--ignore-not-found", "--output=name"):
            metadata = {"name": name, "labels": {MARK: "demo"}}
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            kube("create", "-f", "-", stdin=json.dumps(manifest))


def claimed(kube: Kube, namespace: str) -> bool:
    return bool(kube("get", "namespace", f"--field-selector=metadata.name={namespace}", f"-l={MARK}", "-o=name"))


def released(kube: Kube) -> bool:
    """Whether there is a release, the demo's or somebody's."""
    return bool(kube("--namespace", NAMESPACE, "get", "secret", "-l=owner=helm,name=talktime", "-o=name"))


def open_account_again(kube: Kube, namespace: str, project: str) -> bool:
    """A spent Project gets a fresh account, the way an operator would: by raising `accountGeneration`. True if it did.

    The examples are applied server-side, so the next apply leaves this field, which it does not name, alone.
    """
    found = kube.json("--namespace", namespace, "get", "project", project)
    if not spent(found):
        return False
    generation = int(found["spec"]["budget"].get("accountGeneration", 1)) + 1
    change = f'{{"spec":{{"budget":{{"accountGeneration":{generation}}}}}}}'
    kube("--namespace", namespace, "patch", "project", project, "--type=merge", "--patch", change)
    fresh = "--for=jsonpath={.status.budget.state}=OK"
    kube("--namespace", namespace, "wait", fresh, f"project/{project}", "--timeout=120s")
    return True


def spent(project: Mapping[str, Any]) -> bool:
    """Whether one more session, at its limit, could take the Project to its soft limit (pure).

    Nothing posted is never spent, however close to its budget the session limit is.
    """
    budget, known = project["spec"]["budget"], project.get("status", {}).get("budget", {})
    if known.get("state") not in (None, "OK"):
        return True
    posted, amount = Decimal(str(known.get("posted") or 0)), Decimal(budget["amount"])
    limit = Decimal(budget.get("session", {}).get("limit") or amount)
    return posted > 0 and posted + limit > amount * int(budget.get("softPercent", 80)) / 100
