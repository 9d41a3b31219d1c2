"""Health of SFU pools: rounds of questions to every livekit-server pod, to their Redis and to the fallback.

A node is asked `/`, its room service (ListRooms with the pool's keys), its Prometheus metrics and, where the SRE wants
it, now and then for its media path. Every answer is good, bad or unknown; unknown decides nothing (law 6).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from talktime_operator.media_watch import MediaWatch, Pace
from talktime_operator.names import Key
from talktime_operator.observed import Pod
from talktime_operator.pools.failover import Streak, Verdict, pool_is_sick
from talktime_operator.pools.healing import Sickness
from talktime_operator.pools.health import DEPENDENT, UNANSWERED, Answer, Cause, Evidence, Media, Round, judge_round
from talktime_operator.pools.nodes import NodeHealth
from talktime_operator.restarts import RECENT_SECONDS, Restarts
from talktime_operator.sfu_probe import LiveKitAt, Probe
from talktime_operator.sfu_reading import PoolTarget, Reading, Target, parse_metrics

FALLBACK_INTERVAL = 5.0
"""Seconds at least between two questions to the fallback: it is somebody else's service."""

FALLBACK_THRESHOLD = 2


@dataclass
class _History:
    threshold: int = 3
    stale: float = 0.0
    failures: int = 0
    last: Reading | None = None
    last_good: Reading | None = None
    at: float = 0.0
    good_at: float = float("-inf")
    bad_since: float = 0.0


@dataclass
class _Pool:
    started: float
    stale: float
    round: Round | None = None
    streak: Streak = field(default_factory=Streak)
    sick: bool = False
    at: float = 0.0
    fallback: Streak = field(default_factory=Streak)
    fallback_asked: float = float("-inf")
    fallback_message: str = ""
    media: Media = field(default_factory=Media)
    hurries: bool = False
    """It has just lost UDP, and that is not certain yet: it is asked again at once, because everybody waits."""

    def due_after(self, target: PoolTarget) -> float:
        """Seconds from the start of its last round to the next."""
        return 0.0 if self.hurries else target.interval


class SfuHealth(Collector):
    """Nodes by pod uid: good at the first good answer, bad after so many bad ones in a row. Pools: `Evidence`."""

    def __init__(
        self,
        probe: Probe,
        stale: float,
        network: Callable[[], Awaitable[bool]],
        resolve: Callable[[Pod], str] = lambda pod: pod.host_ip or pod.ip,
        clock: Callable[[], float] = time.monotonic,
        media: MediaWatch | None = None,
    ) -> None:
        self._probe = probe
        self._media = media
        self._stale = stale
        self._network = network
        self._resolve = resolve
        self._clock = clock
        self._histories: dict[str, _History] = {}
        self._pools: dict[Key, _Pool] = {}
        self._seconds: dict[tuple[str, ...], float] = {}
        self._restarts = Restarts()
        self._asking = asyncio.Lock()

    def nodes(self, uids: Iterable[str]) -> Mapping[str, NodeHealth]:
        """Health of these pods; absent ones were never asked."""
        return {uid: self._judge(uid) for uid in uids if uid in self._histories}

    def sick(self, uids: Iterable[str]) -> Mapping[str, Sickness]:
        """Those of these pods that count as bad now."""
        out = {}
        for uid in uids:
            known, history = self._judge(uid) if uid in self._histories else None, self._histories.get(uid)
            if known is not None and history is not None and known.health == "bad" and history.last is not None:
                out[uid] = Sickness(history.last.answer, self._clock() - history.bad_since, history.last.rooms)
        return out

    def evidence(self, key: Key) -> Evidence:
        """What is known about a pool; an old round is no evidence."""
        pool = self._pools.get(key)
        if pool is None or pool.round is None:
            return Evidence()
        fallback = pool.fallback.verdict
        if fallback == "bad" and pool.fallback.rounds < FALLBACK_THRESHOLD:
            fallback = "unknown"
        told = (fallback, pool.fallback_message)
        if self._clock() - pool.at > pool.stale:
            blind = Media(proven=pool.media.proven)
            return Evidence(Streak(proven=pool.streak.proven), Cause.STARTING, "not asked lately", False, *told, blind)
        return Evidence(pool.streak, pool.round.cause, pool.round.message, pool.sick, *told, pool.media)

    async def round(self, pools: Iterable[PoolTarget]) -> set[Key]:
        """Asks every pool whose turn it is; returns those whose picture changed."""
        pools = list(pools)
        async with self._asking:
            now = self._clock()
            self._forget(pools)
            for uid in self._restarts.seen((t.pod for p in pools for t in p.nodes), now):
                if self._media is not None:
                    self._media.begun_anew(uid)
            known = self._pools
            due = [p for p in pools if p.key not in known or now - known[p.key].started >= known[p.key].due_after(p)]
            changed = await asyncio.gather(*(self._ask_pool(p, now) for p in due))
        return {target.key for target, new in zip(due, changed, strict=True) if new}

    async def ask_fallbacks(self, pools: Iterable[PoolTarget]) -> set[Key]:
        """Asks the fallbacks whose turn it is; returns pools whose picture changed. Apart from the rounds, so that a
        hung fallback does not slow them."""
        pools, now = [p for p in pools if p.key in self._pools], self._clock()
        before = {p.key: self.evidence(p.key).picture() for p in pools}
        await asyncio.gather(*(self._ask_fallback(p, self._pools[p.key], now) for p in pools))
        return {p.key for p in pools if self.evidence(p.key).picture() != before[p.key]}

    def collect(self) -> Iterator[Metric]:
        """Seconds the last answers took; a question without an answer has no series."""
        labels = ["namespace", "pool", "node", "probe"]
        seconds = GaugeMetricFamily("talktime_sfu_probe_seconds", "Time of the last answer.", labels=labels)
        for where, took in self._seconds.items():
            seconds.add_metric(list(where), took)
        yield seconds

    # -- one round -----------------------------------------------------------------------------------------------------

    async def _ask_pool(self, target: PoolTarget, now: float) -> bool:
        stale = max(self._stale, 3 * target.interval)
        state = self._pools.setdefault(target.key, _Pool(now, stale, streak=Streak(proven=target.proven)))
        state.media = Media(proven=target.media_proven) if state.round is None else state.media
        state.started, state.stale, state.hurries = now, stale, False
        nodes = [t for t in target.nodes if t.pod.phase == "Running" and self._resolve(t.pod)]
        uids = [t.pod.uid for t in nodes]
        before = self.nodes(uids), self.evidence(target.key).picture()
        within = min(max(target.interval, 0.5), 1.0)
        readings = await asyncio.gather(*(self._ask_node(t, target, within, now) for t in nodes))
        readings = [self._restarting(t, r, now) for t, r in zip(nodes, readings, strict=True)]
        state.media = self._judge_media(target, nodes, state.media.proven)
        if state.media.verdict == "bad":
            readings = [self._without_media(t, r) for t, r in zip(nodes, readings, strict=True)]
        lacking = any(r.answer in DEPENDENT for r in readings)
        redis = await self._ask_redis(target, within) if lacking else None
        network: Verdict = "good"
        if readings and all(r.answer is Answer.SILENT for r in readings):
            network = "good" if await self._network() else "unknown"
        done = self._clock()
        for node, reading in zip(nodes, readings, strict=True):
            self._note(node, reading, network, done, stale)
        takers = [(t, r) for t, r in zip(nodes, readings, strict=True) if t.takes_rooms]
        state.round = judge_round({t.pod.key.name: r.answer for t, r in takers}, redis, network)
        if done - state.at > stale:  # nobody looked meanwhile
            state.streak = Streak(proven=state.streak.proven)
        rounds = min((self._weight(t, r) for t, r in takers), default=1)
        state.streak = state.streak.then(state.round.verdict, done - state.at, rounds)
        state.sick, state.at = pool_is_sick(state.streak, target.failure_threshold), done
        certain = state.streak.rounds >= target.failure_threshold
        state.hurries = state.round.cause is Cause.MEDIA and rounds > 0 and not certain
        return before != (self.nodes(uids), self.evidence(target.key).picture())

    def _restarting(self, target: Target, reading: Reading, now: float) -> Reading:
        """One that has not been good since is not excused again: it may be started again and again."""
        history = self._histories.get(target.pod.uid)
        was_good = history is not None and now - history.good_at <= 2 * RECENT_SECONDS
        excused = reading.answer is Answer.REFUSED and was_good and self._restarts.recent(target.pod.uid, now)
        return replace(reading, answer=Answer.RESTARTING) if excused else reading

    async def _ask_node(self, target: Target, pool: PoolTarget, within: float, now: float) -> Reading:
        address, ports, keys = self._resolve(target.pod), target.ports, pool.keys
        host = f"[{address}]" if ":" in address else address
        where = (*target.pool, target.pod.key.name)
        root = await self._probe.get(f"http://{host}:{ports.http}/", within)
        self._took((*where, "http"), root.seconds)
        if root.answer is not Answer.GOOD:
            return Reading(root.answer)
        answer = Answer.GOOD
        if keys is not None:
            listed = await self._probe.list_rooms(LiveKitAt(f"http://{host}:{ports.http}", *keys), within)
            self._took((*where, "room_service"), listed.seconds)
            if listed.answer is not Answer.GOOD:
                answer = Answer.NO_ROOMS
        metrics = await self._probe.get(f"http://{host}:{ports.metrics}/metrics", within)
        node_id, rooms, signals = "", None, 0
        if metrics.answer is Answer.GOOD:
            with contextlib.suppress(ValueError):
                node_id, rooms, signals = parse_metrics(metrics.text)
        if keys is not None and answer is Answer.GOOD and node_id and pool.media and target.takes_rooms:
            # Last, one after the other: the room it makes is gone before rooms are counted again.
            at, media = LiveKitAt(f"http://{host}:{ports.http}", *keys), (address, ports.udp)
            await self._look_at_media(target, pool, at, media, node_id, now)
        return Reading(answer if node_id else Answer.WRONG, node_id, rooms, signals)

    async def _look_at_media(
        self, target: Target, pool: PoolTarget, at: LiveKitAt, media: tuple[str, int], node_id: str, now: float
    ) -> None:
        """`now`: when the round began. By another clock a look now and then came a moment early for its interval, and
        its node was looked at in every second round only."""
        if self._media is None:
            return
        pace = Pace(pool.media_interval, max(self._stale, 3 * pool.interval), target.failure_threshold)
        took = await self._media.look(target.pod.uid, at, node_id, media, pace, now)
        if took is not None:
            self._took((*target.pool, target.pod.key.name, "media"), took)

    def _judge_media(self, target: PoolTarget, nodes: Iterable[Target], proven: bool) -> Media:
        if not target.media or self._media is None:
            return Media(proven=proven)
        return self._media.judge(((t.pod.uid, t.pod.key.name) for t in nodes if t.takes_rooms), proven)

    def _without_media(self, target: Target, reading: Reading) -> Reading:
        """A node that answers over HTTP and has lost UDP. One that could not be joined this time, as one that is
        starved, is what it was before, and adds nothing: what is not certain does not become so by that (law 6)."""
        looks = self._media.lost(target.pod.uid) if self._media is not None else None
        if looks is None or reading.answer is not Answer.GOOD:
            return reading
        if not target.takes_rooms:  # nobody looks any more
            return replace(reading, answer=Answer.NO_MEDIA, looks=0) if self._certain(target) else reading
        return replace(reading, answer=Answer.NO_MEDIA, looks=looks)

    def _weight(self, target: Target, reading: Reading) -> int:
        """As how many rounds a node's answer counts for its pool: what is certain already needs no further look."""
        return reading.looks or int(self._certain(target))

    def _certain(self, target: Target) -> bool:
        history = self._histories.get(target.pod.uid)
        return history is not None and history.failures >= target.failure_threshold

    async def _ask_redis(self, target: PoolTarget, within: float) -> Answer | None:
        """Asked only when a node lacks something: a node that makes rooms has its Redis."""
        if target.redis is None:
            return None
        reply = await self._probe.ping(target.redis, within)
        self._took((*target.key, "", "redis"), reply.seconds)
        return reply.answer

    async def _ask_fallback(self, target: PoolTarget, state: _Pool, now: float) -> None:
        if target.fallback is None:
            state.fallback, state.fallback_message = Streak(), ""
            return
        if now - state.fallback_asked < max(target.interval, FALLBACK_INTERVAL):
            return
        reply = await self._probe.list_rooms(target.fallback, 2.0)
        self._took((*target.key, "", "fallback"), reply.seconds)
        verdict = reply.answer.verdict("good" if await self._witnessed(reply.answer) else "unknown")
        state.fallback = state.fallback.then(verdict, 0.0)
        state.fallback_asked, state.fallback_message = now, "" if verdict == "good" else reply.answer.value

    async def _witnessed(self, answer: Answer) -> bool:
        return answer is not Answer.SILENT or await self._network()

    def _note(self, target: Target, reading: Reading, network: Verdict, now: float, stale: float) -> None:
        history = self._histories.setdefault(target.pod.uid, _History())
        history.threshold, history.stale = target.failure_threshold, stale
        verdict = reading.answer.verdict(network)
        if verdict == "unknown":
            return  # ages into unknown
        history.last, history.at = reading, now
        if verdict == "good":
            history.failures, history.last_good, history.good_at = 0, reading, now
        else:
            history.bad_since = history.bad_since if history.failures else now
            history.failures += reading.looks

    def _judge(self, uid: str) -> NodeHealth:
        history = self._histories[uid]
        if history.last is None or self._clock() - history.at > history.stale:
            return NodeHealth("unknown")
        known = history.last_good
        node_id, rooms = (known.node_id, known.rooms) if known is not None else ("", None)
        if history.failures == 0:
            return NodeHealth("good", node_id, rooms, signals=history.last.signals)
        if history.failures >= history.threshold:
            last = history.last
            stale, silent = last.answer is Answer.STALE, last.answer in UNANSWERED
            return NodeHealth("bad", node_id, last.rooms, stale=stale, silent=silent, signals=last.signals)
        return NodeHealth("good" if known is not None else "unknown", node_id, rooms, counted=False)

    def _took(self, where: tuple[str, ...], seconds: float | None) -> None:
        if seconds is None:
            self._seconds.pop(where, None)
        else:
            self._seconds[where] = seconds

    def _forget(self, pools: Iterable[PoolTarget]) -> None:
        keys = {p.key for p in pools}
        uids = {t.pod.uid for p in pools for t in p.nodes}
        if self._media is not None:
            self._media.forget(but=uids)
        names = {(*t.pool, t.pod.key.name) for p in pools for t in p.nodes} | {(*key, "") for key in keys}
        self._pools = {key: pool for key, pool in self._pools.items() if key in keys}
        self._histories = {uid: history for uid, history in self._histories.items() if uid in uids}
        self._restarts.forget(uids)
        self._seconds = {where: took for where, took in self._seconds.items() if where[:3] in names}
