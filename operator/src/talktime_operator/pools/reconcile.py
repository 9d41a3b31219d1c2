"""Gathers what was seen of one SFUPool, asks for a plan, acts on it; holds the pools' LiveKit keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from talktime_ledger.client import LedgerError
from talktime_ledger.resources.kinds import GROUP, VERSION
from talktime_ledger.resources.pool import FallbackMode, SFUPoolSpec
from talktime_ledger.resources.rate_card import RateCardSpec

from talktime_operator.applier import Applier
from talktime_operator.children.livekit_secret import LiveKitAccess
from talktime_operator.children.sfu_services import in_cluster_url
from talktime_operator.children.sfu_statefulset import QUICK, Images, Mounts
from talktime_operator.cluster import Cluster
from talktime_operator.conditions import PoolView
from talktime_operator.kube import Kube
from talktime_operator.ledger_sync import LedgerSync
from talktime_operator.names import Key, Owner
from talktime_operator.observed import Pod, Resource
from talktime_operator.pools.draining import Drains
from talktime_operator.pools.fallback_keys import FallbackKeys, Standby
from talktime_operator.pools.last_word import LastWord
from talktime_operator.pools.plan import Seen, plan, plan_invalid, plan_wrong_namespace
from talktime_operator.pools.pool_keys import PoolKeys
from talktime_operator.pools.pool_secrets import Given, PoolSecrets
from talktime_operator.pools.rotation import Keys, Pair, Users, fingerprint
from talktime_operator.pools.saving import spent
from talktime_operator.pushed import Pushed
from talktime_operator.settings import OperatorSettings
from talktime_operator.sfu_health import SfuHealth

logger = logging.getLogger(__name__)
RETRY_LEDGER = 5.0
FALLBACK_SUFFIX = "_fallback"


class Pools:
    """Reconciles SFUPools. `dependents_changed(pool)` is called when Projects of that pool should look again."""

    def __init__(
        self,
        cluster: Cluster,
        kube: Kube,
        applier: Applier,
        ledger: LedgerSync,
        health: SfuHealth,
        pushed: Pushed,
        settings: OperatorSettings,
        seed: bytes,
        dependents_changed: Callable[[Key], None],
    ) -> None:
        self._cluster = cluster
        self._kube = kube
        self._applier = applier
        self._ledger = ledger
        self._health = health
        self._pushed = pushed
        self._settings = settings
        self._dependents_changed = dependents_changed
        self._drains = Drains(kube)
        self._last_word = LastWord(ledger)
        self._keys = PoolKeys(kube, seed, timedelta(seconds=settings.keys_follow))
        self._views: dict[Key, PoolView] = {}
        self._fallbacks = FallbackKeys(kube)
        self._secrets = PoolSecrets(kube)

    def judged(self, key: Key) -> bool:
        """False only for the moment between a start and the first look at an existing pool."""
        return self._cluster.pool(key) is None or key in self._views

    def view(self, key: Key) -> tuple[PoolView | None, LiveKitAccess | None]:
        """What Projects need to know; (None, None) when there is no such pool."""
        resource = self._cluster.pool(key)
        if resource is None:
            return None, None
        view = self._views.get(key, PoolView("unknown", "SelfHosted", "not looked at yet"))
        keys = self._keys.of(key)
        if keys is None or resource.spec is None:
            return view, None
        return view, _access(in_cluster_url(key, resource.spec), keys.active)

    def standby(self, key: Key) -> Standby | None:
        """The fallback's LiveKit and how many agents of a Project are kept there; None when it cannot be used."""
        resource, access = self._cluster.pool(key), self._fallbacks.access(key)
        if resource is None or resource.spec is None or access is None:
            return None
        fallback = resource.spec.fallback
        if fallback.mode is FallbackMode.NEVER:
            return None
        return Standby(access, fallback.standby_replicas)

    def keys(self, key: Key) -> tuple[str, str] | None:
        """API key and secret of the pool's own nodes."""
        keys = self._keys.of(key)
        return None if keys is None else (keys.active.api_key, keys.active.api_secret)

    def fallback(self, key: Key) -> LiveKitAccess | None:
        """The second LiveKit, when its URL and keys are known."""
        return self._fallbacks.access(key)

    def given(self, key: Key) -> Given:
        """The SRE's Secrets for the pool's nodes."""
        return self._secrets.of(key)

    async def reconcile(self, key: Key) -> float:
        """Returns seconds until it should be looked at again, 0 = not before something changes."""
        resource = self._cluster.pool(key)
        if resource is None:
            return await self._gone(key)
        resource = replace(resource, status=self._applier.status(resource.uid, resource.status))
        now = datetime.now(UTC)
        before = self.view(key), self.standby(key)
        sfus: tuple[Pod, ...] = ()
        look, known = 0.0, True
        if resource.spec is None:
            planned = plan_invalid(resource, now)
        elif key.namespace != self._settings.namespace:
            planned = plan_wrong_namespace(resource, self._settings.namespace, now)
        else:
            second = await self._fallbacks.look(key, resource.spec)
            sfus = self._drains.as_written(p for p in self._cluster.pods_of_pool(key) if p.component == "sfu")
            turn = await self._keys.advance(
                key, _owner(resource), resource.rotate_keys, lambda keys: self._users(resource, sfus, keys), now
            )
            given = await self._secrets.look(key, resource.spec)
            look = turn.again
            await self._write_aggregate()
            decided, known = await self._last_word.of(resource, resource.spec, now)
            planned = plan(
                Seen(
                    resource=decided,
                    spec=resource.spec,
                    now=now,
                    statefulsets=await self._drains.adopt(key, self._cluster.nodes_of_pool(key)),
                    pods=sfus,
                    nodes=self._health.nodes(p.uid for p in sfus),
                    images=Images(
                        self._settings.sfu_image, self._settings.redis_image, self._settings.image_pull_policy
                    ),
                    others=tuple(
                        (p.key, p.spec)
                        for p in self._cluster.pools()
                        if p.spec is not None and p.key != key and p.key.namespace == key.namespace
                    ),
                    leaving=self._cluster.leaving_machines(),
                    away=self._cluster.machines_away(),
                    told=self._drains.told(key),
                    settle=self._settings.drain_settle,
                    evidence=self._health.evidence(key),
                    sick=self._health.sick(p.uid for p in sfus),
                    second=second,
                    mounts=Mounts(fingerprint(turn.keys.ring), given.fingerprint_or(p.sfu.secrets for p in sfus)),
                    given=(turn.finding, *given.findings()),
                    spent=spent(self._ledger.minutes, key.name, self._cards(), now),
                )
            )
        if known and planned.active is not None:
            self._last_word.keep(resource, planned.active)
        self._views[key] = planned.view
        await self._applier.apply_children(planned.children)
        await self._drains.mark(_owner(resource), key, sfus, planned.drain, now)
        await self._drains.direct(sfus, planned.doors)
        if (self.view(key), self.standby(key)) != before:
            self._dependents_changed(key)
        retry = min((s for s in (planned.drain.again, planned.again, look) if s > 0), default=0.0)
        if not known:
            retry = min(retry or RETRY_LEDGER, RETRY_LEDGER)
        elif planned.push is not None:
            await self._pushed.remember("pool", key)
            try:
                await self._ledger.push_pool(key, planned.push)
                self._drains.pushed(key, planned.push)
            except LedgerError as error:
                logger.warning("pool %s not pushed: %s", key, error)
                self._drains.silent(key)
                retry = min(retry or RETRY_LEDGER, RETRY_LEDGER)
        await self._drains.remove(_owner(resource), key, sfus, planned.drain, now)
        rest = await self._applier.write_status(_owner(resource), key, resource.status, planned.status)
        if planned.restart:  # after the status: it counts the restarts
            await self._drains.restart(sfus, planned.restart, QUICK)
        return min((s for s in (retry, rest) if s > 0), default=0.0)

    def _cards(self) -> Iterator[tuple[str, RateCardSpec]]:
        return ((card.key.name, card.spec) for card in self._cluster.cards() if card.spec is not None)

    def _users(self, resource: Resource[SFUPoolSpec], sfus: tuple[Pod, ...], keys: Keys) -> Users:
        """Who uses which of the pool's keys. An agent pod is known by the Secret it was started with."""
        key, agents = resource.key, 0
        if keys.other is not None and resource.spec is not None:
            url = in_cluster_url(key, resource.spec)
            mine = {p.key for p in self._cluster.projects() if p.spec and p.spec.media.pool_ref.name == key.name}
            for pod in self._cluster.pods("project"):
                if pod.phase in ("Succeeded", "Failed") or pod.component != "agent":
                    continue
                old = pod.livekit == _access(url, keys.other).secret_name(pod.project)
                new = pod.livekit == _access(url, keys.active).secret_name(pod.project)
                agents += old or (Key(pod.key.namespace, pod.project) in mine and not new)
        rings = [p.sfu.ring for p in sfus if p.phase not in ("Succeeded", "Failed")]
        return Users(rings, len(self._cluster.nodes_of_pool(key)), agents)

    async def _write_aggregate(self) -> None:
        """Complete only when every pool's keys are known."""
        pools = {p.key: p.spec for p in self._cluster.pools() if p.key.namespace == self._settings.namespace}
        known = {key: keys for key in pools if (keys := self._keys.of(key)) is not None}
        if any(key not in known or not self._fallbacks.looked(key, spec) for key, spec in pools.items()):
            return
        for key in pools:
            if (access := self._fallbacks.access(key)) is not None:
                name = Key(key.namespace, key.name + FALLBACK_SUFFIX)
                known[name] = Keys(Pair(access.api_key, access.api_secret))
        await self._keys.write_aggregate(self._settings.namespace, known)

    async def _gone(self, key: Key) -> float:
        if await self._kube.get("SFUPool", key) is not None:
            return RETRY_LEDGER
        self._keys.forget(key)
        self._fallbacks.forget(key)
        self._last_word.forget(key)
        self._secrets.forget(key)
        self._views.pop(key, None)
        self._drains.silent(key)
        self._dependents_changed(key)
        await self._write_aggregate()
        try:
            await self._ledger.delete_pool(key)
        except LedgerError as error:
            logger.warning("deletion of pool %s not told yet: %s", key, error)
            return RETRY_LEDGER
        await self._pushed.forget("pool", key)
        return 0.0


def _owner(resource: Resource[SFUPoolSpec]) -> Owner:
    return Owner(f"{GROUP}/{VERSION}", "SFUPool", resource.key.name, resource.uid)


def _access(url: str, pair: Pair) -> LiveKitAccess:
    return LiveKitAccess(url, pair.api_key, pair.api_secret)
