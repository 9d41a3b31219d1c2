"""Acts on a drain's decision: marks pods, deletes those whose drain has ended, tells it in events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from talktime_ledger.wire import NodeState, PoolPush

from talktime_operator import names
from talktime_operator.events import Transition, build_event
from talktime_operator.kube import Kube
from talktime_operator.names import Key, Owner
from talktime_operator.observed import Child, Pod
from talktime_operator.pools.drain import TIME, Decision, Mark, Removal

GOING = (NodeState.DRAINING, NodeState.MOVING)


class Drains:
    """Remembers its own last writes, because an index learns of them a moment later, and since when gateways know."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._marks: dict[str, str] = {}
        self._deleted: set[str] = set()
        self._told: dict[Key, dict[str, float]] = {}

    def as_written(self, pods: Iterable[Pod]) -> tuple[Pod, ...]:
        """Pods with our last mark, and those we deleted as terminating."""
        out = []
        for pod in pods:
            mark = self._marks.get(pod.uid)
            if mark is not None and mark == pod.sfu.drain:
                del self._marks[pod.uid]
            elif mark is not None:
                pod = replace(pod, sfu=replace(pod.sfu, drain=mark, open=not mark))
            out.append(replace(pod, terminating=True) if pod.uid in self._deleted else pod)
        return tuple(out)

    def told(self, pool: Key) -> Mapping[str, float]:
        """Seconds since the ledger took the word that a node drains, by pod name. A new operator counts anew."""
        now = self._clock()
        return {name: now - at for name, at in self._told.get(pool, {}).items()}

    def pushed(self, pool: Key, push: PoolPush) -> None:
        """The ledger has taken this."""
        before, now = self._told.get(pool, {}), self._clock()
        self._told[pool] = {n.name: before.get(n.name, now) for n in push.nodes if n.state in GOING}

    def silent(self, pool: Key) -> None:
        """The ledger did not take it: nobody may count on gateways knowing."""
        self._told.pop(pool, None)

    async def adopt(self, pool: Key, sets: Iterable[Child]) -> tuple[Child, ...]:
        """The pool's StatefulSets. One of all nodes, as older versions made it, is given up without its pods: those
        drain one after the other."""
        kept = []
        for child in sets:
            if child.key.name == names.sfu(pool.name):
                await self._kube.delete("StatefulSet", child.key, orphan=True)
            else:
                kept.append(child)
        return tuple(kept)

    async def mark(self, owner: Owner, pool: Key, pods: Iterable[Pod], steps: Decision, now: datetime) -> None:
        """Begins and takes back drains."""
        by_name = {p.key.name: p for p in pods}
        for name, why in steps.begin.items():
            pod, text = by_name[name], Mark(now.replace(microsecond=0), why).render()
            await self._kube.set_drain(pod.key, text)
            self._marks[pod.uid] = text
            until = steps.states[name].until.strftime(TIME)
            await self._tell(
                owner, pool, why.value, f"{name} takes no new rooms, live ones may go on until {until}", now
            )
        for name in steps.cancel:
            pod = by_name[name]
            await self._kube.set_drain(pod.key, None)
            self._marks[pod.uid] = ""
            await self._tell(owner, pool, "DrainTakenBack", f"{name} takes new rooms again: it need not go", now)

    async def direct(self, pods: Iterable[Pod], doors: Mapping[str, bool]) -> None:
        """Opens and closes pods for new signal connections, where marking them has not done so."""
        for pod in pods:
            if pod.key.name in doors:
                await self._kube.set_open(pod.key, doors[pod.key.name])

    async def remove(self, owner: Owner, pool: Key, pods: Iterable[Pod], steps: Decision, now: datetime) -> None:
        """Deletes what is drained or past its deadline: first the StatefulSet, which would make the pod again.

        The pod has to be deleted once, by us: a kubelet keeps to the grace of the first deletion (kubernetes#113606),
        and that of the garbage collector, or of an eviction, is the pod's own, hours. So the StatefulSet orphans it,
        and its disruption budget lets go of it when it already ends.
        """
        by_name = {p.key.name: p for p in pods}
        for slot in steps.drop:
            await self._kube.delete("StatefulSet", Key(pool.namespace, slot))
        for removal in steps.remove:
            pod = by_name[removal.name]
            if pod.uid in self._deleted:
                continue
            if removal.slot:
                await self._kube.delete("StatefulSet", Key(pool.namespace, removal.slot), orphan=True)
            await self._kube.delete("Pod", pod.key, removal.grace)
            self._deleted.add(pod.uid)
            await self._kube.release(pod.key)
            await self._told_end(owner, pool, removal, now)

    async def restart(self, pods: Iterable[Pod], name: str, grace: int) -> None:
        """Deletes a sick pod; its StatefulSet makes it anew."""
        for pod in pods:
            if pod.key.name == name and pod.uid not in self._deleted:
                await self._kube.delete("Pod", pod.key, grace)
                self._deleted.add(pod.uid)

    async def _told_end(self, owner: Owner, pool: Key, removal: Removal, now: datetime) -> None:
        cut = removal.grace is not None
        count = "an unknown number of" if removal.moved is None else str(removal.moved)
        text = f"its deadline has passed: {count} sessions are moved" if cut else "it holds no room any more"
        reason = "DrainDeadlinePassed" if cut else "Drained"
        await self._tell(owner, pool, reason, f"{removal.name} is removed ({removal.why.value}): {text}", now, cut)

    async def _tell(
        self, owner: Owner, pool: Key, reason: str, text: str, now: datetime, warning: bool = False
    ) -> None:
        event = Transition("Draining", reason, text, warning)
        await self._kube.create(build_event(owner, pool.namespace, event, now, uuid.uuid4().hex[:12]))
