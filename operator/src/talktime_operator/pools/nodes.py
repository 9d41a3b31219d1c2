"""A pool's pods as the drain sees them, its load, and ports that two pools cannot both have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from talktime_ledger.resources.pool import Ports, SFUPoolSpec

from talktime_operator.conditions import Finding
from talktime_operator.names import Key
from talktime_operator.observed import Pod
from talktime_operator.pools.drain import TIME, Mark, Node

Health = Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class NodeHealth:
    """Last word about one SFU pod. `rooms` None = unknown; `signals`: clients' signal connections that it carries, for
    whatever node's rooms; `stale` = it answers 406, its statistics do not advance; `silent` = a bad one that gave no
    answer; `counted` = `rooms` is of the last round and not of the last good one."""

    health: Health
    node_id: str = ""
    rooms: int | None = None
    stale: bool = False
    silent: bool = False
    counted: bool = True
    signals: int = 0


@dataclass(frozen=True)
class Around:
    """What else is known about a pool's pods. `leaving`: names of machines that are cordoned or about to go. `told`:
    seconds since the ledger took the word that a node drains, by pod name. `template`: the fingerprint to have."""

    leaving: frozenset[str] = frozenset()
    told: Mapping[str, float] | None = None
    template: str = ""


def holds_nothing(pod: Pod) -> bool:
    """No container of it runs: it has not started yet, or it waits to be started again and again."""
    return pod.phase == "Pending" or bool(pod.waiting)


def fresh_rooms(pod: Pod, health: Mapping[str, NodeHealth]) -> int | None:
    """Rooms by the last round; None = not known, also while the node's own statistics stand still."""
    if holds_nothing(pod):
        return 0
    known = health.get(pod.uid)
    return known.rooms if known is not None and known.counted and not known.stale else None


def doors(pods: Iterable[Pod], going: Set[str]) -> dict[str, bool]:
    """Pods whose label is not as it should be, and how: open unless they are `going`. Those of an older version have
    none."""
    return {p.key.name: not p.sfu.open for p in pods if p.live and p.sfu.open == (p.key.name in going)}


def only_open(pods: Iterable[Pod], going: Set[str]) -> bool:
    """Whether the Service can leave out nodes that go: another one is ready, and no node that stays lacks its label."""
    staying = [p for p in pods if p.live and p.key.name not in going]
    return any(p.ready for p in staying) and all(p.sfu.open for p in staying)


def load(live: Iterable[Pod], health: Mapping[str, NodeHealth]) -> int | None:
    """Rooms over all live nodes; None while one of them is unknown."""
    rooms = [fresh_rooms(p, health) for p in live]
    if not rooms or any(r is None for r in rooms):
        return None
    return sum(r for r in rooms if r is not None)


def drain_nodes(pods: Iterable[Pod], health: Mapping[str, NodeHealth], around: Around) -> list[Node]:
    """Every pod that has not ended."""
    return [
        Node(
            name=p.key.name,
            slot=p.sfu.slot,
            orphan=p.sfu.orphan,
            takes=health[p.uid].health if p.uid in health and not holds_nothing(p) else "unknown",
            rooms=fresh_rooms(p, health),
            signals=health[p.uid].signals if p.uid in health and not holds_nothing(p) else 0,
            dead=holds_nothing(p),
            homeless=p.sfu.homeless,
            outdated=p.sfu.template != around.template,
            cordoned=p.node in around.leaving,
            mark=Mark.parse(p.sfu.drain),
            told=(around.told or {}).get(p.key.name),
            terminating=p.terminating,
            ends=datetime.strptime(p.sfu.ends, TIME).replace(tzinfo=UTC) if p.sfu.ends else None,
        )
        for p in sorted(pods, key=lambda p: p.key)
        if p.phase not in ("Succeeded", "Failed")
    ]


def ports_of(pod: Pod, spec: Ports) -> Ports:
    """The ports this pod was started with; those of the spec for one that does not say."""
    own = {{"rtc-tcp": "tcp", "rtc-udp": "udp"}.get(name, name): port for name, port in pod.sfu.ports}
    return Ports.model_validate(spec.model_dump() | {k: v for k, v in own.items() if k in Ports.model_fields})


def port_clash(spec: SFUPoolSpec, others: Sequence[tuple[Key, SFUPoolSpec]]) -> Finding:
    """Nodes use their machine's ports, so two pools with a port in common never fit on one machine."""
    mine = _host_ports(spec)
    for key, other in sorted(others, key=lambda pair: pair[0]):
        both = mine & _host_ports(other)
        if both and not _apart(spec.node_selector, other.node_selector):
            shown = ", ".join(f"{port}/{protocol}" for port, protocol in sorted(both))
            text = (
                f"SFUPool {key.name!r} uses {shown} of its machines too: give one of them other spec.network.ports, or"
                " keep them apart by spec.nodeSelector (one label, two values)"
            )
            return Finding("PortClash", "True", "PortsInUse", text)
    return Finding("PortClash", "False", "PortsFree")


def _host_ports(spec: SFUPoolSpec) -> set[tuple[int, str]]:
    ports, turn = spec.network.ports, spec.network.turn
    tls = {(turn.tls_port, "TCP")} if turn is not None else set()
    return tls | {(ports.http, "TCP"), (ports.tcp, "TCP"), (ports.metrics, "TCP"), (ports.udp, "UDP")}


def _apart(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return any(one[label] != other[label] for label in one.keys() & other.keys())
