"""kubectl, as the demo and the cluster tests use it: every failure carries the command and its words."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kube:
    """One cluster. `kubeconfig` None: whatever kubectl takes by itself."""

    program: str
    kubeconfig: Path | None

    @property
    def argv(self) -> list[str]:
        return [self.program, *([f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else [])]

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 600) -> str:
        """stdout; raises RuntimeError with stderr when kubectl fails."""
        command = [*self.argv, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--output=json"))

    def secret(self, namespace: str, name: str, key: str) -> str:
        return base64.b64decode(self.json("--namespace", namespace, "get", "secret", name)["data"][key]).decode()

    @contextlib.contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """The local port that leads to `port` of `target` (svc/name, pod/name) for as long as the block runs."""
        command = [*self.argv, "--namespace", namespace, "port-forward", target, f":{port}", "--address=127.0.0.1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if found := re.search(r"127\.0\.0\.1:(\d+) ->", line):
                    # Its chatter about each connection must not fill the pipe.
                    threading.Thread(target=process.stdout.read, daemon=True).start()
                    yield int(found[1])
                    return
            raise RuntimeError(f"port-forward {target}: {''.join(lines).strip()}")
        finally:
            process.kill()
            process.wait()


def find(binaries: Path, name: str) -> str:
    """The pinned program, else the one on PATH; raises RuntimeError when there is neither."""
    built = binaries / name
    found = str(built) if built.exists() else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing")
    return found
