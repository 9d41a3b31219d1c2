"""A real Prometheus over a day of invented samples: enough for every dashboard query and alert to be evaluated."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
STEP_SECONDS = 300
DAYS = 2

PROJECTS = [("demo", "interviews", 10.0, "OK"), ("demo", "limit", 0.1, "HardLimit")]


def samples(now: float) -> str:
    """OpenMetrics of two Projects over two days, spend growing steadily."""
    times = [now - DAYS * 86400 + i * STEP_SECONDS for i in range(DAYS * 86400 // STEP_SECONDS + 1)]
    series: dict[str, tuple[str, list[tuple[str, Callable[[float], float]]]]] = {}

    def add(name: str, kind: str, labels: str, value: Callable[[float], float]) -> None:
        series.setdefault(name, (kind, []))[1].append((labels, value))

    def remaining(budget: float) -> Callable[[float], float]:
        return lambda progress: budget * (1 - 0.85 * progress)

    def whole(most: int) -> Callable[[float], float]:
        return lambda progress: round(progress * most)

    def constant(value: float) -> Callable[[float], float]:
        return lambda _: value

    for namespace, project, budget, state in PROJECTS:
        own = f'namespace="{namespace}",project="{project}"'

        def grown(share: float, budget: float = budget) -> Callable[[float], float]:
            return lambda progress: budget * share * progress

        add("talktime_project_budget_usd", "gauge", own, constant(budget))
        add("talktime_project_posted_usd", "gauge", own, grown(0.8))
        add("talktime_project_reserved_usd", "gauge", own, grown(0.05))
        add("talktime_project_available_usd", "gauge", own, remaining(budget))
        for known in ("OK", "SoftLimit", "HardLimit"):
            add("talktime_project_budget_state", "gauge", f'{own},state="{known}"', constant(float(known == state)))
        for known in ("open", "waiting", "attached"):
            add("talktime_project_sessions", "gauge", f'{own},state="{known}"', constant(1))
        add("talktime_project_sessions_completed", "counter", own, whole(6))
        add("talktime_project_sessions_refused", "counter", f'{own},reason="BudgetExhausted"', whole(2))
        for replica in ("10.0.0.1:8080", "10.0.0.2:8080"):
            for provider, model in (("openai_realtime", "gpt-realtime-2.1-mini"), ("gemini_live", "gemini-3.8-live")):
                labels = f'{own},provider="{provider}",model="{model}",instance="{replica}"'
                add("talktime_spend_ai_usd", "gauge", labels, grown(0.4))
                add("talktime_spend_transport_usd", "gauge", labels, grown(0.02))
                add("talktime_spend_unmetered_usd", "gauge", labels, grown(0.01))
    lines = []
    for name, (kind, entries) in series.items():
        lines.append(f"# TYPE {name} {kind}")
        suffix = "_total" if kind == "counter" else ""
        for labels, value in entries:
            for index, at in enumerate(times):
                lines.append(f"{name}{suffix}{{{labels}}} {value(index / (len(times) - 1)):.9f} {at:.0f}")
    return "\n".join([*lines, "# EOF", ""])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


Ask = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Instant query of a PromQL expression; an invalid one raises."""
    folder = tmp_path_factory.mktemp("prometheus")
    assert shutil.which("prometheus"), "Debian's prometheus is needed (make test installs it)"
    (folder / "samples.txt").write_text(samples(time.time()))
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    blocks = [
        "promtool",
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(folder / "samples.txt"),
        str(folder / "data"),
    ]
    subprocess.run(blocks, check=True, capture_output=True)
    port = free_port()
    server = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=(folder / "log").open("w"),
    )
    base = f"http://127.0.0.1:{port}"

    def run(expression: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{base}/api/v1/query?{query}", timeout=10) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return result
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error

    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{base}/-/ready", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield run
    finally:
        server.terminate()
        server.wait(timeout=20)
