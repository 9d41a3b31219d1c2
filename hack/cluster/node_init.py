"""First process of a node: gives it private /run, /var/lib and /var/log, then only collects orphans. Run as a program.

    python3 node_init.py NODE_STATE BINARIES

It runs in the node's own mount and process namespaces: when it dies, all of the node's processes and mounts go with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

PRIVATE = Path("/run/talktime")


def mount(*arguments: str, keep: tuple[int, ...] = ()) -> None:
    subprocess.run(["mount", "--no-canonicalize", *arguments], check=True, pass_fds=keep)


def main(state: str, binaries: str) -> None:
    # Held open: the mounts below may cover the very folders that these lie in.
    sources = {"node": os.open(state, os.O_PATH), "bin": os.open(binaries, os.O_PATH)}
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    for name, source in sources.items():
        (PRIVATE / name).mkdir(parents=True)
        mount("--bind", f"/proc/self/fd/{source}", str(PRIVATE / name), keep=(source,))
        os.close(source)
    for name, target in (("lib", "/var/lib"), ("log", "/var/log")):
        mount("--bind", str(PRIVATE / "node" / name), target)
    # The kubelet's and containerd's mounts must reach each other; they still never reach the machine.
    mount("--make-rshared", "/")
    os.chdir("/")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    (PRIVATE / "node" / "ready").touch()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
