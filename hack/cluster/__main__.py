"""The local cluster from the command line: `python3 -m hack.cluster up|down|status|kill|restart|forward|enter`."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

from hack.cluster import lifecycle, node
from hack.cluster.layout import DEFAULT_NAME, Cluster, cluster_named, state_root
from hack.images import builder, loading


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m hack.cluster", description=__doc__)
    parser.add_argument("--name", default=os.environ.get("CLUSTER_NAME", DEFAULT_NAME), help="cluster name")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("down", help="remove processes, mounts, namespaces, cgroups and files")
    verbs.add_parser("status", help="what runs")
    verbs.add_parser("up", help="start, or mend, the cluster")
    for name, text in (("kill", "kill -9 a process"), ("restart", "start it again")):
        verb = verbs.add_parser(name, help=f"{text}: kube-apiserver, node-1.kubelet, node-2.init (the whole node) ...")
        verb.add_argument("process")
    verb = verbs.add_parser("forward", help="127.0.0.1:PORT leads to an address inside the cluster")
    verb.add_argument("port", type=int)
    verb.add_argument("target", help="host:port of a node, pod or Service")
    verb = verbs.add_parser("enter", help="run a command inside a node (crictl-like work: ctr -n k8s.io ...)")
    verb.add_argument("node")
    verb.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args(argv)
    try:
        cluster = cluster_named(arguments.name)
        return act(cluster, arguments)
    except (RuntimeError, TimeoutError, ValueError, OSError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def act(cluster: Cluster, arguments: argparse.Namespace) -> int:
    match arguments.verb:
        case "up":
            shop = builder.Workshop(state_root(), cluster.binaries)
            lifecycle.up(cluster, partial(loading.furnish, shop))
        case "down":
            lifecycle.down(cluster)
        case "kill":
            lifecycle.kill(cluster, arguments.process)
        case "restart":
            lifecycle.restart(cluster, arguments.process)
        case "forward":
            lifecycle.start_forward(cluster, f"forward-{arguments.port}", arguments.port, arguments.target)
        case "enter":
            one = next((each for each in cluster.nodes if each.name == arguments.node), None)
            if one is None:
                raise ValueError(
                    f"no node {arguments.node!r}; there are {', '.join(each.name for each in cluster.nodes)}"
                )
            command = [*node.inside(cluster, one), *arguments.command]
            os.execvp(command[0], command)
        case "status":
            states = lifecycle.status(cluster)
            for name, pid, lives in states:
                print(f"{name:28} {pid:8} {'running' if lives else 'gone'}")
            if not states:
                print(f"cluster {cluster.name!r} does not run")
                return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
