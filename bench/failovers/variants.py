"""What is broken under live interviews, and how it is mended: each fault is a context that lasts while it is open."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from bench.failovers.stand import AWAY, NAMESPACE, STUDY
from hack.chaos import faults, victims
from hack.chaos.house import House, eventually
from hack.chaos.projects import closed

Place = Literal["pool", "fallback"]


@dataclass(frozen=True)
class Fault:
    """`at`: when it began, UTC; `hit`: sessions whose agent it took, and nothing else of theirs."""

    at: datetime
    hit: tuple[str, ...] = ()


Broken = AbstractContextManager[Fault]


def nothing(_: House) -> None:
    return


@dataclass(frozen=True)
class Variant:
    """A fault, and what is lawful under it; all else is wrong (verdict.py).

    `breaks`: the guests' connections must break, else they must not; `elsewhere`: the guests must go to the fallback,
    else nobody may move; `newcomers`: where one may find a room that comes at the moment of the fault, empty: none
    comes. `calm`: neither the pool's switch nor its SFU's process may stir; `agrees`: the operator sees the fault, and
    the pool's status must say what the front doors do. `prepare`: before the guests come.
    """

    name: str
    fault: Callable[[House, tuple[str, ...]], Broken]
    breaks: bool
    elsewhere: bool
    newcomers: frozenset[Place]
    calm: bool = False
    agrees: bool = False
    prepare: Callable[[House], None] = nothing


@contextlib.contextmanager
def killed(house: House, _: tuple[str, ...]) -> Iterator[Fault]:
    """kill -9 of the only SFU while its kubelet is stopped, so that it stays down."""
    with faults.kubelet_down(house, AWAY):
        yield Fault(faults.signal_sfu(house, AWAY))


@contextlib.contextmanager
def restarted(house: House, _: tuple[str, ...]) -> Iterator[Fault]:
    """kill -9 of the only SFU; its kubelet starts it again at once. A second crash of a container within ten minutes
    would wait for 10 s or more (CrashLoopBackOff), so the kubelet is a new one that has started nothing yet.
    """
    with faults.kubelet_down(house, AWAY):
        began = datetime.now(UTC)
    eventually("the kubelet is well", lambda: _kubelet_well(house, began), 60)
    yield Fault(faults.signal_sfu(house, AWAY))


def _kubelet_well(house: House, began: datetime) -> bool:
    """Whether the new one is done with its own start: it has renewed its node's lease, and answers."""
    with contextlib.suppress(RuntimeError):
        lease = house.kube.json("-n", "kube-node-lease", "get", "lease", AWAY)
        told = datetime.fromisoformat(lease["spec"]["renewTime"]) > began
        return told and house.kube("get", "--raw", f"/api/v1/nodes/{AWAY}/proxy/healthz").strip() == "ok"
    return False


@contextlib.contextmanager
def frozen(house: House, _: tuple[str, ...]) -> Iterator[Fault]:
    """SIGSTOP of the only SFU: connections stay open, nothing answers."""
    at = faults.signal_sfu(house, AWAY, signal.SIGSTOP)
    try:
        yield Fault(at)
    finally:
        with contextlib.suppress(LookupError):
            faults.signal_sfu(house, AWAY, signal.SIGKILL)
        with faults.kubelet_down(house, AWAY):
            pass


@contextlib.contextmanager
def udp(house: House, _: tuple[str, ...]) -> Iterator[Fault]:
    """The SFU's media ports take nothing while its HTTP answers."""
    with faults.media_dropped(house, AWAY) as at:
        yield Fault(at)


@contextlib.contextmanager
def redis(house: House, _: tuple[str, ...]) -> Iterator[Fault]:
    """The pool's Redis answers nobody."""
    with faults.redis_cut(house, "eu") as at:
        yield Fault(at)


@contextlib.contextmanager
def apiserver(house: House, sessions: tuple[str, ...]) -> Iterator[Fault]:
    """No API server, then the SFU dies."""
    with faults.api_server_down(house), killed(house, sessions) as fault:
        yield fault


@contextlib.contextmanager
def operator(house: House, sessions: tuple[str, ...]) -> Iterator[Fault]:
    """No operator, then the SFU dies."""
    with faults.operator_down(house), killed(house, sessions) as fault:
        yield fault


@contextlib.contextmanager
def gateway(house: House, sessions: tuple[str, ...]) -> Iterator[Fault]:
    """The job of each interview is killed, and with the watcher at work a gateway replica."""
    serving = [victims.serving(house, session) for session in sessions]
    at = datetime.now(UTC)
    for victim in serving:
        faults.kill_job(victim)
    # The worker tells within 0.5 s, a watcher looks every 0.5 s: somewhere in there it claims and dispatches.
    time.sleep(random.uniform(0.3, 1.5))
    os.kill(random.choice(house.pids(faults.GATEWAY)), signal.SIGKILL)
    yield Fault(at, sessions)


@contextlib.contextmanager
def job(house: House, sessions: tuple[str, ...]) -> Iterator[Fault]:
    """kill -9 of one agent's job process: its pod lives on and reports it."""
    victim = victims.serving(house, random.choice(sessions))
    at = datetime.now(UTC)
    faults.kill_job(victim)
    yield Fault(at, (victim.session,))


@contextlib.contextmanager
def pod(house: House, sessions: tuple[str, ...]) -> Iterator[Fault]:
    """An agent pod is gone from one moment to the next, as with its node: nobody tells, its heartbeat is missing."""
    serving = [victims.serving(house, session) for session in sessions]
    uid = random.choice(serving).pod_uid
    name = victims.pod_name(house, NAMESPACE, uid)
    with closed(house, AWAY):  # its successor shall not come to the machine of the SFU
        at = datetime.now(UTC)
        faults.vanish(house, NAMESPACE, name, uid)
        yield Fault(at, tuple(one.session for one in serving if one.pod_uid == uid))


def second_pod(house: House) -> None:
    """Two agent pods: the bar is for taking over, not for starting a pod. They stay two."""
    two = json.dumps({"spec": {"agent": {"minReplicas": 2, "maxReplicas": 2}}})

    def ready() -> bool:
        found = house.kube.json("-n", NAMESPACE, "get", "deploy", f"talktime-agent-{STUDY}")
        return int(found.get("status", {}).get("readyReplicas", 0)) >= 2

    with closed(house, AWAY):
        house.kube("-n", NAMESPACE, "patch", "project", STUDY, "--type=merge", "--patch", two)
        eventually("two agent pods are ready", ready, 120, every=1)


POOL: frozenset[Place] = frozenset({"pool"})
FALLBACK: frozenset[Place] = frozenset({"fallback"})
NOBODY: frozenset[Place] = frozenset()

VARIANTS = {
    one.name: one
    for one in (
        Variant("killed", killed, breaks=True, elsewhere=True, newcomers=FALLBACK, agrees=True),
        # Who asks before the server is back goes to the fallback, who asks later does not.
        Variant("restarted", restarted, breaks=True, elsewhere=False, newcomers=POOL | FALLBACK),
        Variant("frozen", frozen, breaks=True, elsewhere=True, newcomers=FALLBACK),
        Variant("udp", udp, breaks=True, elsewhere=True, newcomers=FALLBACK),
        # The pool stays where it is; rooms cannot be made there, so newcomers go to the fallback one by one.
        Variant("redis", redis, breaks=False, elsewhere=False, newcomers=FALLBACK, calm=True),
        Variant("apiserver", apiserver, breaks=True, elsewhere=True, newcomers=FALLBACK),
        Variant("operator", operator, breaks=True, elsewhere=True, newcomers=FALLBACK),
        Variant("gateway", gateway, breaks=False, elsewhere=False, newcomers=POOL),
        # A newcomer's join would take the core that the next agent's start needs: that is not what these measure.
        Variant("job", job, breaks=False, elsewhere=False, newcomers=NOBODY),
        Variant("pod", pod, breaks=False, elsewhere=False, newcomers=NOBODY, prepare=second_pod),
    )
}
