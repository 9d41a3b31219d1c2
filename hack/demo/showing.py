"""What one sees at the end of the demo: resources, sessions, whether the money adds up, where the metrics are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

from hack.cluster.layout import REPOSITORY
from hack.demo.kube import Kube
from hack.demo.release import EXAMPLES, NAMESPACE

# The demo itself may run on the system's Python, started before there was a .venv; the checker speaks to PostgreSQL.
CHECKER = [str(REPOSITORY / ".venv" / "bin" / "python"), "-m", "hack.checker"]


def show(kube: Kube, since: str) -> None:
    """Prints the resources and the console's tables. `since`: RFC 3339, when this run began."""
    heading("kubectl get projects,sfu --all-namespaces")
    print(kube("get", "projects,sfu", "--all-namespaces"))
    heading("talktime sessions")
    print(console(kube, "sessions", f"--since={since}"))
    heading("talktime report")
    print(console(kube, "report"))


def console(kube: Kube, *arguments: str) -> str:
    return kube("--namespace", NAMESPACE, "exec", "deploy/talktime-console", "--", "talktime", *arguments)


def money_adds_up(kube: Kube, folder: Path, sessions: Iterable[str], *options: str) -> tuple[bool, str]:
    """Runs the independent checker against the simulator's truth, the database, the metrics and the resources.

    Of these sessions alone: the database outlives the simulator's truth, and holds sessions with other providers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    projects = folder / "projects.json"
    projects.write_text(json.dumps(kube.json("get", "projects", "--all-namespaces")))
    password = kube.secret(NAMESPACE, "talktime-postgres", "password")
    with (
        kube.forward(NAMESPACE, "svc/talktime-simulator", 8080) as simulator,
        kube.forward(NAMESPACE, "svc/talktime-postgres", 5432) as postgres,
        kube.forward(NAMESPACE, "svc/talktime-prometheus", 9090) as prometheus,
    ):
        argv = [*CHECKER, "--truth", f"http://127.0.0.1:{simulator}/truth"]
        argv += ["--rates", str(EXAMPLES / "rate-cards"), "--projects", str(projects)]
        argv += ["--dsn", f"postgresql://talktime:{password}@127.0.0.1:{postgres}/talktime"]
        argv += ["--prometheus-url", f"http://127.0.0.1:{prometheus}", "--sessions", *sessions, *options]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def where(kube: Kube, cluster: str) -> str:
    """How to look further. `cluster`: local, kind or current."""
    config = f" --kubeconfig={kube.kubeconfig}" if kube.kubeconfig else ""
    return f"""Metrics:   {kube.program}{config} -n {NAMESPACE} port-forward svc/talktime-prometheus 9090
           then http://127.0.0.1:9090/graph?g0.expr=talktime_project_posted_usd
Operator:  {kube.program}{config} -n {NAMESPACE} port-forward svc/talktime-operator 8080   then /metrics
Kubectl:   {f"export KUBECONFIG={kube.kubeconfig}" if kube.kubeconfig else "your current context"}
Remove:    make down{"" if cluster == "local" else f" CLUSTER={cluster}"}"""


def heading(text: str) -> None:
    print(f"\n$ {text}", flush=True)
