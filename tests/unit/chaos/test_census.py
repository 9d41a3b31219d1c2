"""The census of a cluster counts what serves it, wherever that runs, and nothing of its neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.cluster.layout import Cluster
from tests.e2e.census import PARTS, Process, absent, of_cluster, outside_of_pods

CLUSTER = Cluster("test", Path("/somewhere/.state/cluster-test"), Path("/somewhere"))
POD = f"4:cpu:/{CLUSTER.prefix}-n1/kubepods/besteffort/pod0b5f3e9a-1111-2222-3333-444455556666/abc\n"
HOST, NODE, POD_NETWORK = 1, 2, 3
COMMANDS = {
    "operator": "python -m talktime_operator",
    "ledger": "python -m talktime_ledger serve",
    "gateway": "/usr/bin/python3.11 -m talktime_gateway",
    "agent": "python -m talktime_agent start",
    "agent's jobs": "/usr/bin/python3 -c from multiprocessing.forkserver import main; main(7, 8, [])",
    "simulator": "python -m talktime_simulator serve --state=/state",
    "participants": "python -m talktime_simulator participants --count=6",
    "console": "sleep infinity",
    "SFU": "/livekit-server --config /etc/livekit/config.yaml",
}


def process(command: str, cgroup: str = "4:cpu:/\n", network: int = HOST, place: str = "") -> Process:
    return Process(1, command, cgroup, network, place)


def counted(*processes: Process) -> list[Process]:
    pause = process("/pause", POD, POD_NETWORK)
    return of_cluster([pause, *processes], CLUSTER, {NODE})


def test_every_part_in_its_pod_is_counted_and_in_order() -> None:
    found = counted(*(process(command, POD, POD_NETWORK) for command in COMMANDS.values()))
    assert [one.command for one in found] == list(COMMANDS.values())
    assert outside_of_pods(found, CLUSTER) == []
    assert absent(found) == []


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_is_named(part: str) -> None:
    found = counted(*(process(command, POD) for name, command in COMMANDS.items() if name != part))
    assert absent(found) == [part]


@pytest.mark.parametrize(
    "where",
    [
        process("", network=NODE),
        process("", network=POD_NETWORK),
        process("", place=f"KUBECONFIG={CLUSTER.kubeconfig} HOME=/root"),
        process("", f"4:cpu:/{CLUSTER.prefix}-n1\n"),
    ],
    ids=["in a node's network", "in a pod's network", "told of the kubeconfig", "in the node's cgroup, in no pod"],
)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_part_beside_the_pods_is_found(command: str, where: Process) -> None:
    astray = process(command, where.cgroup, where.network, where.place)
    assert outside_of_pods(counted(astray), CLUSTER) == [astray]


@pytest.mark.parametrize(
    "other",
    [
        process("python -m talktime_ledger serve", place="TALKTIME_STATE=/somewhere/.state"),
        process("/bin/livekit-server --dev"),
        process("python -m talktime_operator", POD.replace(CLUSTER.prefix, "tt-demo-1234"), 9),
        process("python -m talktime_operator", place="/somewhere/.state/cluster-test2/kubeconfig"),
        process(
            "kubectl --kubeconfig=x exec deploy/talktime-console -- python -m talktime_x", place=str(CLUSTER.state)
        ),
        process("/usr/bin/kubelet --config=x", f"4:cpu:/{CLUSTER.prefix}-n1\n", NODE),
    ],
    ids=["a test's ledger", "a test's SFU", "another cluster's", "of a name that begins alike", "kubectl", "kubelet"],
)
def test_neighbours_are_not(other: Process) -> None:
    assert counted(other) == []
