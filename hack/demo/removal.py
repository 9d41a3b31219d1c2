"""`make down`: what the demo made, by the kind of cluster that it ran on.

python3 -m hack.demo.removal [--cluster local|kind|current]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable

from hack.cluster.__main__ import main as local_cluster
from hack.cluster.layout import binaries
from hack.demo import clusters, release
from hack.demo.kube import Kube, find
from hack.demo.release import CHART, EXAMPLES, NAMESPACE, STAGE


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m hack.demo.removal", description=__doc__)
    parser.add_argument("--cluster", choices=("current", "kind", "local"), default="local")
    options = parser.parse_args(argv)
    try:
        match options.cluster:
            case "local":
                return local_cluster(["down"])
            case "kind":
                kind()
            case "current":
                current(clusters.of_context(), find(binaries(), "helm"), say)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"down: {error}", file=sys.stderr)
        return 1
    return 0


def kind() -> None:
    """The whole kind cluster, which is nobody else's."""
    kubeconfig = clusters.kind_state() / "kubeconfig"
    argv = [
        find(binaries(), "kind"),
        "delete",
        "cluster",
        "--name",
        clusters.KIND_NAME,
        "--kubeconfig",
        str(kubeconfig),
    ]
    subprocess.run(argv, check=True)
    shutil.rmtree(clusters.kind_state(), ignore_errors=True)


def current(kube: Kube, helm: str, tell: Callable[[str], None]) -> None:
    """The release, the examples, and the namespaces that the demo made; the cluster and all else stay.

    Raises RuntimeError when the release is somebody else's.
    """
    if not release.claimed(kube, NAMESPACE):
        if release.released(kube):
            raise RuntimeError(f"the Talktime in namespace {NAMESPACE} is not the demo's; nothing was removed")
        tell("nothing of the demo is on this cluster")
        return
    if kube("get", "-f", str(CHART / "crds"), "--ignore-not-found", "--output=name"):
        tell("the examples: Projects, pool, prices (usually 10 to 60 s)")
        files = [part for path in examples() for part in ("-f", path)]
        kube("delete", *files, "--ignore-not-found", "--timeout=180s")
    tell("the release (usually 20 to 60 s)")
    argv = [helm, "uninstall", "talktime", "--namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=5m"]
    argv += [f"--kubeconfig={kube.kubeconfig}"] if kube.kubeconfig else []
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"helm: {done.stderr.strip()}")
    for name in (STAGE, NAMESPACE):
        if release.claimed(kube, name):
            tell(f"namespace {name}")
            kube("delete", "namespace", name, "--timeout=180s")
    definitions(kube, tell)


def definitions(kube: Kube, tell: Callable[[str], None]) -> None:
    """The CRDs, unless somebody has resources of these kinds: those would go with them."""
    crds = kube("get", "-f", str(CHART / "crds"), "--ignore-not-found", "--output=name").split()
    kinds = ",".join(name.partition("/")[2] for name in crds)
    if kinds and (left := kube("get", kinds, "--all-namespaces", "--output=name").split()):
        tell(f"the CRDs stay, for {len(left)} resources that are not the demo's: {' '.join(left[:5])}")
    elif kinds:
        kube("delete", *crds)


def examples() -> list[str]:
    """Without the namespace: it may have been there before."""
    return [str(EXAMPLES / "rate-cards"), *(str(path) for path in sorted(EXAMPLES.glob("[1-9]*.yaml")))]


def say(line: str) -> None:
    print(f"down: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
