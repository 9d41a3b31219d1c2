"""What is broken under live interviews, and how it is mended: each fault is a context that lasts while it is open."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.failovers.stand import AWAY
from hack.chaos import faults, victims
from hack.chaos.house import House, eventually

Broken = AbstractContextManager[datetime]
UNTOLD_SECONDS = 20.0
"""Where nobody could write the pool's status it still says what was before: a failback may be ahead that is nowhere to
be seen. It is over after this: the SFU's start, `failbackAfter`, a push and a look at it."""


@dataclass(frozen=True)
class Variant:
    """`breaks`: the guests' connections must break; `elsewhere`: guests and newcomers are to go to the fallback."""

    name: str
    fault: Callable[[House, tuple[str, ...]], Broken]
    breaks: bool
    elsewhere: bool


@contextlib.contextmanager
def killed(house: House, _: tuple[str, ...]) -> Iterator[datetime]:
    """kill -9 of the only SFU while its kubelet is stopped, so that it stays down."""
    with faults.kubelet_down(house, AWAY):
        yield faults.signal_sfu(house, AWAY)


@contextlib.contextmanager
def restarted(house: House, _: tuple[str, ...]) -> Iterator[datetime]:
    """kill -9 of the only SFU; its kubelet starts it again at once. A second crash of a container within ten minutes
    would wait for 10 s or more (CrashLoopBackOff), so the kubelet is a new one that has started nothing yet.
    """
    with faults.kubelet_down(house, AWAY):
        began = datetime.now(UTC)
    eventually("the kubelet is well", lambda: _kubelet_well(house, began), 60)
    yield faults.signal_sfu(house, AWAY)


def _kubelet_well(house: House, began: datetime) -> bool:
    """Whether the new one is done with its own start: it has renewed its node's lease, and answers."""
    with contextlib.suppress(RuntimeError):
        lease = house.kube.json("-n", "kube-node-lease", "get", "lease", AWAY)
        told = datetime.fromisoformat(lease["spec"]["renewTime"]) > began
        return told and house.kube("get", "--raw", f"/api/v1/nodes/{AWAY}/proxy/healthz").strip() == "ok"
    return False


@contextlib.contextmanager
def frozen(house: House, _: tuple[str, ...]) -> Iterator[datetime]:
    """SIGSTOP of the only SFU: connections stay open, nothing answers."""
    at = faults.signal_sfu(house, AWAY, signal.SIGSTOP)
    try:
        yield at
    finally:
        with contextlib.suppress(LookupError):
            faults.signal_sfu(house, AWAY, signal.SIGKILL)
        with faults.kubelet_down(house, AWAY):
            pass


def udp(house: House, _: tuple[str, ...]) -> Broken:
    """The SFU's media ports take nothing while its HTTP answers."""
    return faults.media_dropped(house, AWAY)


def redis(house: House, _: tuple[str, ...]) -> Broken:
    """The pool's Redis answers nobody."""
    return faults.redis_cut(house, "eu")


@contextlib.contextmanager
def apiserver(house: House, sessions: tuple[str, ...]) -> Iterator[datetime]:
    """No API server, then the SFU dies."""
    with faults.api_server_down(house), killed(house, sessions) as at:
        yield at
    time.sleep(UNTOLD_SECONDS)


@contextlib.contextmanager
def operator(house: House, sessions: tuple[str, ...]) -> Iterator[datetime]:
    """No operator, then the SFU dies."""
    with faults.operator_down(house), killed(house, sessions) as at:
        yield at
    time.sleep(UNTOLD_SECONDS)


@contextlib.contextmanager
def gateway(house: House, sessions: tuple[str, ...]) -> Iterator[datetime]:
    """The job of each interview is killed, and with the watcher at work a gateway replica."""
    serving = [victims.serving(house, session) for session in sessions]
    at = datetime.now(UTC)
    for victim in serving:
        faults.kill_job(victim)
    # The worker tells within 0.5 s, a watcher looks every 0.5 s: somewhere in there it claims and dispatches.
    time.sleep(random.uniform(0.3, 1.5))
    os.kill(random.choice(house.pids(faults.GATEWAY)), signal.SIGKILL)
    yield at


VARIANTS = {
    one.name: one
    for one in (
        Variant("killed", killed, breaks=True, elsewhere=True),
        Variant("restarted", restarted, breaks=True, elsewhere=False),
        Variant("frozen", frozen, breaks=True, elsewhere=True),
        Variant("udp", udp, breaks=True, elsewhere=True),
        Variant("redis", redis, breaks=False, elsewhere=False),
        Variant("apiserver", apiserver, breaks=True, elsewhere=True),
        Variant("operator", operator, breaks=True, elsewhere=True),
        Variant("gateway", gateway, breaks=False, elsewhere=False),
    )
}
