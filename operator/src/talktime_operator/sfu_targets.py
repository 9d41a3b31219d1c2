"""Which pools and pods are asked about their health, and how: from what was seen and the keys that are known."""

from __future__ import annotations

from collections.abc import Iterable

from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_ledger.resources.schema import seconds

from talktime_operator import names
from talktime_operator.cluster import Cluster
from talktime_operator.media_watch import INTERVAL
from talktime_operator.names import Key
from talktime_operator.observed import Pod, Resource
from talktime_operator.pools.nodes import ports_of
from talktime_operator.pools.reconcile import Pools
from talktime_operator.pools.switching import PROVEN
from talktime_operator.redis_probe import RedisAt
from talktime_operator.sfu_probe import LiveKitAt
from talktime_operator.sfu_reading import PoolTarget, Target


def pool_targets(cluster: Cluster, pools: Pools, namespace: str) -> list[PoolTarget]:
    """Every pool that counts, with its pods."""
    pods: dict[Key, list[Pod]] = {}
    for pod in cluster.pods("pool"):
        if pod.component == "sfu":
            pods.setdefault(Key(pod.key.namespace, pod.pool), []).append(pod)
    here = (p for p in cluster.pools() if p.key.namespace == namespace)
    return [_target(pools, p, p.spec, pods.get(p.key, ())) for p in here if p.spec is not None]


def _target(pools: Pools, pool: Resource[SFUPoolSpec], spec: SFUPoolSpec, pods: Iterable[Pod]) -> PoolTarget:
    key, health = pool.key, spec.health
    second, conditions = pools.fallback(key), pool.status.get("conditions") or ()
    return PoolTarget(
        key=key,
        nodes=tuple(
            Target(p, key, ports_of(p, spec.network.ports), health.failure_threshold, takes=not p.sfu.drain)
            for p in pods
        ),
        interval=float(seconds(health.interval)),
        failure_threshold=health.failure_threshold,
        keys=pools.keys(key),
        redis=_redis(pools, key, spec),
        fallback=LiveKitAt(second.url, second.api_key, second.api_secret) if second is not None else None,
        proven=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        media=health.media_probe,
        # Where there is somewhere to go, newcomers wait for this; a look costs a node 13 ms and ten lines of its log.
        media_interval=1.0 if second is not None and spec.fallback.mode == "Auto" else INTERVAL,
        media_proven=any(c["type"] == "MediaProbed" and c["reason"] in PROVEN for c in conditions),
    )


def _redis(pools: Pools, key: Key, spec: SFUPoolSpec) -> RedisAt:
    """As the nodes ask it; without a password while it is not known."""
    if spec.redis.address is None:
        return RedisAt(f"{names.sfu(key.name)}-redis.{key.namespace}.svc:6379")
    given = pools.given(key)
    known = spec.redis.password_secret_ref is None or given.password
    return RedisAt(spec.redis.address, spec.redis.tls, given.ca, given.password if known else None)
